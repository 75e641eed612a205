"""Trees that an earlier celforge flattened come back: `.flatten.json` of version 1, as that version wrote it."""

import os
import time
from pathlib import Path

import pytest

from pipeline.flattening.manifest import FlatFolder, read_manifest
from tests.conftest import Celforge
from tests.trees import build, look

START = {
    "A/a.png": "a",
    "A/a.txt": "1girl",
    "A/multiply.txt": "2",
    "A/B/b.png": "b",
    "A/B/link.png": "-> ../a.png",
    "C/D/1.png": "1",
    "C/D/1.txt": "one",
    "C/D/2.png": "2",
    "C/D/3.png": "3",
    "C/D/multiply.txt": "1.4",
    "r.png": "r",
}
IN_PLACE = """{
 "celforge_flatten": 1,
 "celforge": "0.1.0",
 "to": "in-place",
 "source": ".",
 "separator": "~",
 "removed": {
  "C": 493
 },
 "order": [
  [
   "move",
   "1_A~B"
  ],
  [
   "move",
   "1_C~D"
  ],
  [
   "move",
   "2_A"
  ],
  [
   "remove",
   "C"
  ]
 ],
 "links": [
  [
   "1_A~B/link.png",
   "../a.png",
   "../2_A/a.png"
  ]
 ],
 "toml_sha256": "f0661f15172ee7a1f52a73293d7e542bb7ab7b5b2a233d646a601b32cad26ae7",
 "made_ns": 1095681721860954585,
 "folders": [
  ["1__root","",1,true,["r.png"],[]],
  ["2_A","A",2,true,["a.png","a.txt","multiply.txt"],[]],
  ["1_A~B","A/B",1,true,["b.png","link.png"],[]],
  ["1_C~D","C/D",1,true,["1.png","1.txt","3.png","multiply.txt"],[]],
  ["2_C~D","C/D",2,false,["2.png"],[]]
 ]
}
"""
BESIDE = """{
 "celforge_flatten": 1,
 "celforge": "0.1.0",
 "to": "hardlink",
 "source": "../tree",
 "separator": "~",
 "removed": {},
 "order": [],
 "links": [],
 "toml_sha256": "22f29175db04a4ea19c8fe55379c7e69cf6316f367bfdf219cfa7382d9bd68f3",
 "made_ns": 0,
 "folders": [
  ["1__root","",1,true,["r.png"],[[1,1000000010000000070]]],
  ["2_A","A",2,true,["a.png","a.txt","multiply.txt"],[[1,1000000000000000000],[5,1000000001000000007],[1,1000000002000000014]]],
  ["1_A~B","A/B",1,true,["b.png","link.png"],[[1,1000000003000000021],[1,1000000000000000000]]],
  ["1_C~D","C/D",1,true,["1.png","3.png","1.txt","multiply.txt"],[[1,1000000005000000035],[1,1000000008000000056],[3,1000000006000000042],[3,1000000009000000063]]],
  ["2_C~D","C/D",2,false,["2.png"],[[1,1000000007000000049]]]
 ]
}
"""
LIES_IN = {
    "r.png": "1__root",
    "A/a.png": "2_A",
    "A/a.txt": "2_A",
    "A/multiply.txt": "2_A",
    "A/B/b.png": "1_A~B",
    "A/B/link.png": "1_A~B",
    "C/D/1.png": "1_C~D",
    "C/D/1.txt": "1_C~D",
    "C/D/3.png": "1_C~D",
    "C/D/multiply.txt": "1_C~D",
    "C/D/2.png": "2_C~D",
}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """The tree in place, as the earlier version left it."""
    files = {f"{LIES_IN[name]}/{os.path.basename(name)}": text for name, text in START.items()}
    files["1_A~B/link.png"] = "-> ../2_A/a.png"
    return build(tmp_path / "flat", {**files, "dataset.toml": "# made", ".flatten.json": IN_PLACE})


def wanted(base: Path) -> Path:
    root = build(base / "wanted", START)
    (root / "C").chmod(0o755)
    return root


def test_a_tree_in_place_comes_back(tmp_path: Path, celforge: Celforge, flat: Path) -> None:
    answer = celforge("flatten", flat, "--revert", "--json")
    assert answer.exit_code == 0
    assert (answer.json["added"], answer.json["edited"], answer.json["deleted"]) == (0, 0, 0)
    assert look(flat, times=False) == look(wanted(tmp_path), times=False)


def test_what_was_done_in_it_meanwhile_is_told_and_kept(celforge: Celforge, flat: Path) -> None:
    (flat / "2_A/a.txt").write_text("edited")
    (flat / "1__root/r.txt").write_text("new")
    (flat / "2_C~D/2.png").unlink()
    answer = celforge("flatten", flat, "--revert", "--json")
    assert (answer.json["added"], answer.json["edited"], answer.json["deleted"]) == (1, 1, 1)
    assert (flat / "A/a.txt").read_text() == "edited"
    assert (flat / "r.txt").read_text() == "new"
    assert celforge("undo", flat).exit_code == 0
    assert (flat / "2_A/a.txt").read_text() == "edited"


def test_an_output_beside_its_tree_is_taken_back(tmp_path: Path, celforge: Celforge) -> None:
    root, output = build(tmp_path / "tree", START), build(tmp_path / "out", {".flatten.json": BESIDE})
    before = look(root)
    for name, folder in LIES_IN.items():
        (output / folder).mkdir(exist_ok=True)
        os.link(os.path.realpath(root / name), output / folder / os.path.basename(name))
    (output / "1__root/r.txt").write_text("new")
    answer = celforge("flatten", root, "--revert", "--output", output, "--json")
    assert answer.exit_code == 0
    assert (answer.json["added"], answer.json["edited"], answer.json["deleted"]) == (1, 0, 0)
    assert not output.exists()
    assert (root / "r.txt").read_text() == "new"
    (root / "r.txt").unlink()
    assert look(root) == before


def test_names_are_read_as_they_were_written(tmp_path: Path, flat: Path, celforge: Celforge) -> None:
    old = read_manifest(flat)
    assert old is not None
    assert old.folders[1] == FlatFolder("2_A", "A", 2, is_base=True, names="a.png/a.txt/multiply.txt")
    root = build(tmp_path / "new", {"A/ä \\ ' \".png": "1", "A/\u3042.txt": "2", "B/b.png": ""})
    celforge("flatten", root, "--in-place")
    new = read_manifest(root)
    assert new is not None
    assert [sorted(one.files) for one in new.folders] == [["ä \\ ' \".png", "\u3042.txt"], ["b.png"]]
    assert FlatFolder("1_A", "A", 1, is_base=True, names="").files == []


def test_pictures_that_were_edited_are_kept_and_not_asked(tmp_path: Path, celforge: Celforge) -> None:
    """Only what people write by hand is asked for its time: pictures are most of the files, and all stay."""
    root = build(tmp_path / "set", {"A/a.png": "a", "A/a.txt": "one", "A/a.npz": "cache"})
    celforge("flatten", root, "--in-place")
    later = time.time_ns() + 10**9
    for name, text in (("a.png", "another"), ("a.txt", "two")):
        (root / "1_A" / name).write_text(text)
        os.utime(root / "1_A" / name, ns=(later, later))
    assert celforge("flatten", root, "--revert", "--json").json["edited"] == 1
    assert (root / "A/a.png").read_text() == "another"
    assert (root / "A/a.txt").read_text() == "two"
