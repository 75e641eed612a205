"""captions.jsonl: the captions of a whole folder in one file, a line of JSON for each picture.

    {"image_path": "ep01/a.png", "caption": "sabine, 1girl, smile"}

Lines whose caption a person changed stay as they are, letter for letter, and so do lines of pictures that are
not there.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.actions import Write
from pipeline.caption_files import decode_caption
from pipeline.errors import InputError
from pipeline.scan import hash_file

JSONL_NAME = "captions.jsonl"


@dataclass(slots=True)
class Lines:
    """The file as it is, and as it will be.

    Args:
        texts: caption by the picture's path below the folder.
        lines: the line of each as it stands.
    """

    path: Path
    sha256: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    is_changed: bool = False

    @classmethod
    def read(cls, path: Path, *, is_overwriting: bool) -> "Lines":
        """The lines of a file; none where there is no file.

        Args:
            is_overwriting: a file that is not understood is written over.

        Raises:
            InputError: it is not understood.
        """
        if not path.is_file():
            return cls(path)
        sha256 = hash_file(path)
        text, problem = decode_caption(path.read_bytes())
        hint = "mend it, move it away, or write over it: --overwrite"
        result = cls(path, sha256)
        if text is None:
            if not is_overwriting:
                raise InputError(f"{path} cannot be read: {problem}", hint=hint)
            return result
        for number, line in enumerate(text.split("\n"), 1):  # a caption may hold other ends of lines
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, caption = str(row["image_path"]), str(row["caption"])
            except (ValueError, KeyError, TypeError) as error:
                if is_overwriting:
                    continue
                raise InputError(f"line {number} of {path} holds no caption", hint=hint) from error
            result.texts[name], result.lines[name] = caption, line
        return result

    def set(self, name: str, caption: str) -> bool:
        """Give a picture a caption; other fields of its line stay. Returns whether that changes anything."""
        if self.texts.get(name) == caption:
            return False
        row = json.loads(self.lines[name]) if name in self.lines else {"image_path": name}
        self.texts[name] = caption
        self.lines[name] = json.dumps(row | {"caption": caption}, ensure_ascii=False)
        self.is_changed = True
        return True

    def plan(self, order: list[str]) -> Write | None:
        """Write the file where something changed, pictures in their order, then the lines of others."""
        if not self.is_changed:
            return None
        names = [name for name in order if name in self.lines]
        seen = set(names)
        names += [name for name in self.lines if name not in seen]
        text = "".join(f"{self.lines[name]}\n" for name in names)
        return Write(self.path, text, f"{len(names):,} captions", expects=self.sha256)
