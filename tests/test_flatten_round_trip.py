"""Flatten and revert give every tree back byte for byte, and kohya sees each picture as often as EveryDream2.

Three hundred trees in place by default, and half as many beside; CELFORGE_TREES=2000 draws that many. They lie
in memory where the system has such a folder, and one catalogue in memory serves all: flatten asks it for
nothing but the notes of its runs.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.catalog import Catalog
from pipeline.flattening.runs import How, flatten_beside, flatten_in_place, take_back
from pipeline.job import Job, open_job
from pipeline.names import name_problem
from tests.oracles.trainers import LITTER, everydream_pass, kohya_folders, kohya_toml, total
from tests.trees import Tree, look

TREES = int(os.environ.get("CELFORGE_TREES", "300"))
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
HOW = How(fractions="split", seed=0, max_scale=10, separator="~", is_flat_wanted=True)
MANY = settings(
    max_examples=TREES,
    deadline=None,
    derandomize=TREES <= 300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# Names that have hurt somebody: separators, escapes, numbers, other scripts, accents both ways, reserved words
ODD = (
    "A", "a", "B", "A~B", "~", "A%7EB", "%", "100%", "1_A", "2_1_A", "_root", "_", "unseen_A", "con", "aux.x",
    "end.", "end ", " a", "a+b", "a:b", "q?", "über", "u\u0308ber", "ÜBER", "初音ミク", "👩‍👩‍👧", "-3_x", "0_x", "dot.dot",
    "x" * 120, "y" * 200, "é" * 60, "new\nline", "3_dataset.toml",
)  # fmt: skip
FOLDERS = st.sampled_from(ODD) | st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8
).filter(lambda name: name not in (".", "..") and name[0] != ".")
FILES = st.sampled_from(
    [
        "a.png", "a.txt", "a.jpg", "b.png", "b.caption", "B.PNG", "c.webp", "c_0512x0512_sd.npz", "d.jfif", "d.Jpg",
        "e.png", "e.png.tags", ".e_meta.json", "e.yaml", "f-masklabel.png", "notes.md", "cond_dropout.txt",
        "shuffle_tags.txt", "flip_p.txt", "local.yaml", "global.yaml", "batch_id.txt", "loss_scale.txt", "~.bmp", "\udcff.png",
    ]
)  # fmt: skip
CONTENT = {
    "cond_dropout.txt": "0.1",
    "flip_p.txt": "0.5",
    "loss_scale.txt": "2",
    "local.yaml": "rating: 0.5",
    "global.yaml": "max_caption_length: 99",
    "e.yaml": "main_prompt: asuka",
}
MULTIPLY = st.sampled_from(["1", "2", "2.4", "0.4", "3.5", "0.05", "7.25", "0.333", "12"])
LINKS = st.sampled_from(["a.png", "../A/a.png", "../../b.png", "nowhere.png", "/dev/null", "../A", "."])


@st.composite
def trees(draw: st.DrawFn) -> dict[str, str]:
    """A tree in the words of tests.trees.build, any depth up to four."""
    found: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 7))):
        parts = draw(st.lists(FOLDERS, min_size=0, max_size=4))
        folder = "".join(f"{part}/" for part in parts)
        kind = draw(st.sampled_from(["pictures", "pictures", "pictures", "empty", "others", "hidden"]))
        if kind == "empty" and folder:
            found[folder] = ""
        elif kind == "others":
            found[folder + "log.md"] = "log"
        elif kind == "hidden":
            found[folder + ".thumbs/t.png"] = "thumb"
        else:
            for name in draw(st.lists(FILES, min_size=1, max_size=8, unique=True)):
                found[folder + name] = CONTENT.get(name, f"{folder}{name}".encode(errors="replace").decode())
            if draw(st.booleans()):
                found[folder + "multiply.txt"] = draw(MULTIPLY)
            if draw(st.integers(0, 3)) == 0:
                found[f"{folder}link{len(found)}.png"] = "-> " + draw(LINKS)
    found.setdefault("A/a.png", "one picture at least")
    return found


def make(root: Path, files: dict[str, str]) -> bool:
    """Make a tree as far as it can be: a name may be a folder and a file, or too long for this disk."""
    root.mkdir()
    made = False
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        try:
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if content.startswith("-> "):
                path.symlink_to(content[3:])
            elif not name.endswith("/"):
                path.write_bytes(content.encode())
                os.utime(path, ns=(10**18, 10**18 + number * 1_000_000_007))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            if error.errno not in (36, 22):
                raise
            continue
        made = made or name.endswith("a.png")
    return made


@contextmanager
def job_on(root: Path) -> Iterator[Job]:
    with open_job(root, "flatten") as job:
        yield job


@contextmanager
def tree_on_disk(files: dict[str, str]) -> Iterator[tuple[Path, Tree]]:
    base = Path(tempfile.mkdtemp(prefix="celforge-flatten-", dir=IN_MEMORY))
    try:
        root = base / "tree"
        if make(root, files):
            yield root, look(root)
        else:
            yield root, {}
    finally:
        shutil.rmtree(base)


@pytest.fixture(autouse=True)
def catalog_in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file of a catalogue is written."""
    catalog = Catalog.open(Path("none"), read_only=True)  # in memory, for there is no such file
    with monkeypatch.context() as kept:
        kept.setattr(Catalog, "open", lambda path: catalog)
        kept.setattr(Catalog, "close", lambda self: None)
        yield
    catalog.close()


@MANY
@given(trees())
@example({"A~B/a.png": "1", "A/B/a.png": "2", "A/a.png": "3"})
@example({"1_A/a.png": "1", "A/a.png": "2", "1_1_A/a.png": "3"})
@example({"A/B/a.png": "1", "1_A~B/a.png": "2", "1_A~B/C/a.png": "3", "1_1_A~B/notes.md": "x"})
def test_flatten_in_place_and_revert_give_the_tree_back(files: dict[str, str]) -> None:
    with tree_on_disk(files) as (root, before):
        if not before:
            return
        pass_before = everydream_pass(root)
        with job_on(root) as job:
            flatten_in_place(job, HOW, writes_toml=True)
        for name in os.listdir(root):
            assert name in {key.split("/")[0] for key in before} or name_problem(name) is None, name
        seen = kohya_folders(root)
        extra = total(seen) - max(pass_before, _least(root, before))
        assert 0 <= extra <= _num_of_pairs(root, before), (
            "exact, but where nothing but a pair shares a caption"
        )
        assert total(kohya_toml(root / "dataset.toml")) == total(seen)
        with job_on(root) as job:
            take_back(job, None)
        assert look(root) == before


@settings(MANY, max_examples=max(1, TREES // 2))
@given(trees(), st.sampled_from(["toml", "hardlink", "copy", "symlink"]))
def test_flatten_beside_leaves_the_tree_and_kohya_sees_it_whole(files: dict[str, str], to: str) -> None:
    with tree_on_disk(files) as (root, before):
        if not before:
            return
        output = root.with_name("out")
        with job_on(root) as job:
            flatten_beside(job, HOW, to, output)  # type: ignore[arg-type]
        assert look(root) == before
        least = max(everydream_pass(root), _least(root, before))
        assert total(kohya_toml(output / "dataset.toml")) == least
        if to != "toml":
            assert total(kohya_folders(output)) == least
        made = look(output)
        with job_on(root) as job:
            again = flatten_beside(job, HOW, to, output)  # type: ignore[arg-type]
        assert again.values["output"] == "is up to date"
        assert look(output) == made
        with job_on(root) as job:
            take_back(job, output)
        assert look(root) == before
        assert not output.exists()


def _num_of_pairs(root: Path, before: Tree) -> int:
    """Folders of nothing but a.png and a.jpg, which may share sidecars, and so have one number together."""
    return sum(set(names) == {"a.png", "a.jpg"} for names in _pictures(root, before).values())


def _pictures(root: Path, before: Tree) -> dict[str, list[str]]:
    """Names of the pictures that kohya reads, by folder."""
    folders: dict[str, list[str]] = {}
    for key, entry in before.items():
        folder, _, name = key.rpartition("/")
        is_hidden = any(part.startswith(".") or part.lower() in LITTER for part in key.split("/"))
        is_picture = os.path.splitext(name)[1] in {".png", ".jpg", ".PNG", ".webp", ".bmp"}
        if entry[0] == "folder" or is_hidden or not is_picture:
            continue
        if entry[0] == "link" and not _leads_to_a_file(root, key, before):
            continue
        folders.setdefault(folder, []).append(name)
    return folders


def _least(root: Path, before: Tree) -> int:
    """Every folder is seen at least once, however small its multiply: whole parts, or 1."""
    least = 0
    for folder, names in _pictures(root, before).items():
        entry = before.get(f"{folder}/multiply.txt" if folder else "multiply.txt")
        multiply = float(entry[1]) if entry else 1.0  # type: ignore[arg-type]
        least += max(1, int(multiply * len(names) + 1e-9))
    return least


def _leads_to_a_file(root: Path, key: str, before: Tree) -> bool:
    target = str(before[key][1])
    path = os.path.normpath(os.path.join(os.path.dirname(key), target))
    return before.get(path, ("",))[0] == "file"
