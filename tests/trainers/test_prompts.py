import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from trainers.prompts import Prompt, read_prompts


def read(tmp_path: Path, name: str, text: str) -> list[Prompt]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_prompts(tmp_path / name)


def test_kohyas_text_files_have_a_prompt_a_line_and_flags_behind_it(tmp_path: Path) -> None:
    text = """\
# made by hand
girl, smile --n low quality, bad -- hands --w 640 --h 384 --d 7 --s 12 --l 5.5 --ss k_euler_a

  cat -- sitting, 1--2  \n猫 --N  --D -1
"""
    assert read(tmp_path, "prompts.txt", text) == [
        Prompt(
            text="girl, smile",
            negative="low quality, bad -- hands",
            number=0,
            width_px=640,
            height_px=384,
            seed=7,
            steps=12,
            guidance=5.5,
            sampler="euler_a",
        ),
        Prompt(text="cat -- sitting, 1--2", number=1),
        Prompt(text="猫", number=2),
    ]


def test_kohyas_toml_gives_general_values_and_subsets(tmp_path: Path) -> None:
    text = """
[prompt]
negative_prompt = "bad"
width = 768
scale = 7
sample_sampler = "DDIM"
[[prompt.subset]]
prompt = "girl"
[[prompt.subset]]
prompt = "cat"
width = 512
sample_steps = 20
"""
    first, second = read(tmp_path, "a.toml", text)
    assert first == Prompt(text="girl", negative="bad", width_px=768, guidance=7, number=0)
    assert second == Prompt(text="cat", negative="bad", width_px=512, guidance=7, steps=20, number=1)


def test_guidance_rescale_is_a_flag_and_a_key(tmp_path: Path) -> None:
    (line,) = read(tmp_path, "p.txt", "girl --gr 0.7")
    (table,) = read(tmp_path, "p.toml", '[prompt]\nprompt = "girl"\nguidance_rescale = 0.7\n')
    assert (line.guidance_rescale, table.guidance_rescale) == (0.7, 0.7)
    with pytest.raises(InputError, match="cannot be '2'"):
        read(tmp_path, "p.txt", "girl --gr 2")


def test_kohyas_json_is_a_list(tmp_path: Path) -> None:
    listed = json.dumps(["girl", {"prompt": "cat", "seed": 3, "height": 640}])
    assert read(tmp_path, "a.json", listed) == [
        Prompt(text="girl", number=0),
        Prompt(text="cat", seed=3, height_px=640, number=1),
    ]


def test_everydreams_json_makes_each_sample_with_each_guidance(tmp_path: Path) -> None:
    given_file = {
        "batch_size": 3,
        "seed": 555,
        "cfgs": [7, 1.01],
        "scheduler": "ddim",
        "num_inference_steps": 15,
        "show_progress_bars": True,
        "generate_samples_every_n_steps": 200,
        "generate_pretrain_samples": True,
        "samples": [
            {"prompt": "girl", "negative_prompt": "bad", "size": [448, 576]},
            {"prompt": "cat", "seed": -1, "aspect_ratio": 1.5, "random_caption": False},
        ],
    }
    prompts = read(tmp_path, "a.json", json.dumps(given_file))
    assert [(one.number, one.text, one.guidance, one.seed) for one in prompts] == [
        (0, "girl", 7, 555),
        (1, "girl", 1.01, 555),
        (2, "cat", 7, None),
        (3, "cat", 1.01, None),
    ]
    assert (prompts[0].width_px, prompts[0].height_px, prompts[0].negative, prompts[0].steps) == (
        448,
        576,
        "bad",
        15,
    )
    assert (prompts[2].width_px, prompts[2].aspect_ratio) == (0, 1.5)


BAD = [
    ("a.txt", "girl\ncat --cn pose.png\n", r"--cn in a\.txt line 2", "take it out"),
    ("a.txt", "girl --w wide", r"--w in a\.txt line 1 cannot be 'wide'", "number"),
    ("a.txt", "girl --w 4", "cannot be '4'", "from 8 to 4096"),
    ("a.txt", "girl --s 0", "cannot be '0'", "from 1 to 1000"),
    ("a.txt", "girl --l -1", "cannot be '-1'", "from 0 to 100"),
    ("a.txt", "girl --d", "has no value", "write one"),
    ("a.txt", "girl --ss euler_b", "cannot be 'euler_b'", "write euler_a"),
    ("a.txt", "--w 512", "flags and no prompt", "in front"),
    ("a.txt", "# nothing\n", "has no prompts", "one a line"),
    ("a.toml", "[prompt\n", "not TOML", "mend"),
    ("a.toml", "[other]\n", r"no section \[prompt\]", "write"),
    ("a.toml", '[prompt]\nprompt = "a"\nwidht = 512\n', "widht in a.toml, prompt 1", "write width"),
    ("a.toml", "[prompt]\nwidth = 512\n", "prompt 1 has no prompt", "prompt = "),
    ("a.json", "[", "not JSON", "mend"),
    ("a.json", "3", "no list of prompts", "write"),
    ("a.json", "[[1]]", "not a table of keys", "write"),
    ("a.json", '{"sample": []}', "no list `samples`", "write"),
    ("a.json", '{"samples": [{"random_caption": true}]}', "sample 1 asks for a random caption", "write"),
    ("a.json", '{"samples": [{"prompt": "a", "size": 512}]}', "size of a.json, sample 1", "width, height"),
    ("a.json", '{"samples": [{"prompt": " "}]}', "sample 1 has no prompt", "write"),
    ("a.json", '{"samples": [], "sead": 3}', "sead in a.json", "write seed"),
]


@pytest.mark.parametrize(("name", "text", "what", "fix"), BAD)
def test_what_cannot_be_understood_is_named_with_a_fix(
    name: str, text: str, what: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=what) as caught:
        read(tmp_path, name, text)
    assert fix in caught.value.hint


def test_a_missing_or_strange_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of prompts"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(tmp_path / "a.txt")


@settings(max_examples=25)
@given(st.text(max_size=40))
def test_any_text_is_prompts_or_an_input_error(text: str) -> None:
    from trainers.prompts import _read_json, _read_lines, _read_toml

    for reader in (_read_lines, _read_toml, _read_json):
        try:
            assert all(one.text for one in reader(text, Path("a")))
        except InputError as error:
            assert error.hint
