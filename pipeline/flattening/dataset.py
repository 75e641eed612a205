"""The dataset TOML of a survey: subsets, with EveryDream's small files as kohya's keys."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.flattening.survey import Part, Survey, some
from pipeline.layouts import kohya
from pipeline.layouts.everydream import Folder, stem_of

_EXTENSIONS = (".txt", ".caption")
_COMMENT = """Made by celforge flatten; run it again after changes of the tree, and this file is made anew.
Give it to kohya's scripts: --dataset_config "{name}", with --resolution, --train_batch_size and
--enable_bucket as you like; --train_data_dir is not needed."""


def flat_subsets(survey: Survey, root: Path) -> list[kohya.Subset]:
    """One subset for each flat folder that kohya reads."""
    return [subset(survey, part, str(root / part.name), part.repeats) for part in survey.all_parts]


def subset(survey: Survey, part: Part, image_dir: str, repeats: int) -> kohya.Subset:
    """A folder with its repeats and what its small files say; its name stands for missing captions."""
    folder = part.folder
    options, _ = kohya.options_of(survey.settings[folder.parts])
    counts = captions(survey, folder, part.images)
    if counts:
        options["caption_extension"] = max(counts, key=counts.__getitem__)
    is_complete = sum(counts.values()) == len(part.images)
    tokens = "" if is_complete or not folder.parts else folder.parts[-1]
    return kohya.Subset(image_dir, repeats if part.images else 0, tokens, options)


def toml_text(survey: Survey, subsets: Sequence[kohya.Subset]) -> str:
    """The TOML of those subsets that have repeats."""
    counts = Counter(
        str(one.options["caption_extension"]) for one in subsets if "caption_extension" in one.options
    )
    extension = counts.most_common(1)[0][0] if counts else _EXTENSIONS[0]
    comment = _COMMENT.format(name="dataset.toml")
    return kohya.dataset_toml(
        [one for one in subsets if one.num_repeats], caption_extension=extension, comment=comment
    )


def captions(survey: Survey, folder: Folder, images: Sequence[str]) -> dict[str, int]:
    """How many of some pictures of a folder have a caption, by its suffix; `.txt` where both are there."""
    if len(images) < len(folder.images):
        return _captions(folder, list(map(stem_of, images)))
    if folder.parts not in survey.captions:
        survey.captions[folder.parts] = _captions(folder, folder.stems)
    return survey.captions[folder.parts]


def _captions(folder: Folder, stems: list[str]) -> dict[str, int]:
    files = set(folder.files)
    found: dict[str, int] = {}
    for extension in filter(folder.suffixes.__contains__, _EXTENSIONS):
        has_all = files.issuperset([stem + extension for stem in stems])
        left = [] if has_all else [stem for stem in stems if stem + extension not in files]
        if len(left) < len(stems):
            found[extension] = len(stems) - len(left)
        stems = left
    return found


def notes(survey: Survey, *, has_toml: bool) -> list[str]:
    """What kohya will not do as EveryDream2 does, because of captions and small files."""
    without: dict[str, list[str]] = {}
    only_toml: dict[str, list[str]] = {}
    bare: list[str] = []
    yaml_only: list[str] = []
    mixed: list[str] = []
    for parts, own in survey.parts.items():
        folder = survey.tree.folders[parts]
        where = folder.relative or "the tree's own folder"
        options, missing = kohya.options_of(survey.settings[parts])
        for key in missing:
            without.setdefault(key, []).append(where)
        for key in options if not has_toml else ():
            only_toml.setdefault(key, []).append(where)
        images = [name for part in own for name in part.images]
        counts = captions(survey, folder, images)
        if len(counts) > 1:
            mixed.append(where)
        if sum(counts.values()) < len(images):
            has_yaml = any(name.endswith((".yaml", ".yml")) for name in folder.files)
            (yaml_only if has_yaml else bare).append(where)
    lines = [f"{key} has no equal in kohya's scripts: {some(folders)}" for key, folders in without.items()]
    lines += [
        f"{key} is known to kohya by a dataset TOML only (celforge flatten writes one): {some(folders)}"
        for key, folders in only_toml.items()
    ]
    if bare:
        lines.append(f"pictures without a caption file; kohya takes the folder's name for it: {some(bare)}")
    if yaml_only:
        lines.append(f"captions in .yaml files, which kohya does not read: {some(yaml_only)}")
    if mixed:
        lines.append(f"captions in .txt and .caption; kohya reads one kind a folder: {some(mixed)}")
    return lines
