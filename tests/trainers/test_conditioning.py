import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from pipeline.errors import InputError
from tests.trainers.tiny_models import tiny_text_encoder, tiny_tokenizer
from trainers.conditioning import Tokenizer, encode, final_layer_norm

TEXTS = ["girl, cat", "", "a girl with a cat.", "zzz 12 \u732b", "girl " * 13, "girl " * 14, "girl " * 40]


def theirs(folder: Path, ours: Tokenizer) -> CLIPTokenizer:
    for name, text in ours.files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("make", [tiny_tokenizer, lambda: Tokenizer.bundled(77)], ids=["tiny", "bundled"])
def test_ids_are_those_of_transformers(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ours = make()
    other = theirs(tmp_path, ours)
    expected = other(TEXTS, padding="max_length", truncation=True, max_length=ours.max_text_tokens).input_ids
    assert ours(TEXTS).tolist() == [[row] for row in expected]
    counted = [len(other(text, add_special_tokens=False).input_ids) for text in TEXTS]
    assert [ours.count(text) for text in TEXTS] == counted


def test_a_tokenizer_comes_back_from_its_files_and_from_its_text(tmp_path: Path) -> None:
    ours = tiny_tokenizer()
    theirs(tmp_path, ours)
    for again in (Tokenizer.read(tmp_path, 16), Tokenizer.from_text(ours.to_text(), 16)):
        assert torch.equal(again(TEXTS, max_tokens=150), ours(TEXTS, max_tokens=150))
        assert (again.begin, again.end, again.pad, again.vocab_size) == (62, 63, 63, 64)


def test_long_texts_are_cut_into_chunks_each_with_its_marks() -> None:
    """14 tokens a chunk; `a` is token 26, begin 62, end and padding 63."""
    tokens = tiny_tokenizer()(["a " * 13, "a " * 14, "a " * 15, "a " * 99], max_tokens=150)
    full = [62, *[26] * 14, 63]
    empty = [62, *[63] * 15]
    assert tokens.tolist() == [
        [[62, *[26] * 13, 63, 63], empty],
        [full, empty],
        [full, [62, 26, *[63] * 14]],
        [full, full],
    ]
    assert (tiny_tokenizer().limit(75), tiny_tokenizer().limit(225)) == (14, 42)
    assert Tokenizer.bundled(77).limit(150) == 150


def test_where_padding_is_not_the_end_mark_each_chunk_still_has_one(tmp_path: Path) -> None:
    ours = tiny_tokenizer()
    theirs(tmp_path, ours)
    marks = json.loads((tmp_path / "special_tokens_map.json").read_text())
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({**marks, "pad_token": {"content": "a"}}))
    tokens = Tokenizer.read(tmp_path, 16)(["girl", "girl " * 14], max_tokens=150)
    pads = [0] * 13
    assert tokens[0].tolist() == [[62, 59, 63, *pads], [62, 63, *pads, 0]]
    assert tokens[1].tolist() == [[62, *[59] * 14, 63], [62, 63, *pads, 0]]


@pytest.mark.parametrize("length", [0, 74, 100])
def test_other_lengths_of_captions_are_refused(length: int) -> None:
    with pytest.raises(InputError, match=f"pieces of {length} tokens"):
        tiny_tokenizer()(["a"], max_tokens=length)


@pytest.mark.parametrize("vocabulary", ["{}", "{", None])
def test_a_broken_tokenizer_names_its_folder(vocabulary: str | None, tmp_path: Path) -> None:
    if vocabulary is not None:
        (tmp_path / "vocab.json").write_text(vocabulary)
        (tmp_path / "merges.txt").write_text("")
    with pytest.raises(InputError, match=tmp_path.name):
        Tokenizer.read(tmp_path, 16)


# Clip skip: the table of kohya's scripts and A1111


def hidden_states(text_encoder: CLIPTextModel, ids: torch.Tensor) -> list[torch.Tensor]:
    """States after each layer, by the layers themselves."""
    seen: list[torch.Tensor] = []
    inner = getattr(text_encoder, "text_model", text_encoder)
    hooks = [
        layer.register_forward_hook(lambda *_: seen.append(_[2][0] if isinstance(_[2], tuple) else _[2]))
        for layer in inner.encoder.layers
    ]
    text_encoder(ids)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_clip_skip_takes_an_earlier_layer_through_the_final_norm(clip_skip: int) -> None:
    text_encoder = tiny_text_encoder().eval()
    norm = final_layer_norm(text_encoder)
    torch.nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    ids = tiny_tokenizer()(["girl, cat", "a"])
    got = encode(text_encoder, ids, clip_skip=clip_skip)
    states = hidden_states(text_encoder, ids[:, 0])
    torch.testing.assert_close(got, norm(states[-clip_skip]))
    if clip_skip == 1:
        torch.testing.assert_close(got, text_encoder(ids[:, 0])[0], rtol=0, atol=0)


def test_more_skips_than_layers_are_refused() -> None:
    for clip_skip in (0, 4):
        with pytest.raises(InputError, match="3 layers") as caught:
            encode(tiny_text_encoder(), tiny_tokenizer()(["a"]), clip_skip=clip_skip)
        assert caught.value.hint == "write 1 to 3"


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_chunks_are_joined_without_the_marks_between(clip_skip: int) -> None:
    text_encoder, tokenizer = tiny_text_encoder().eval(), tiny_tokenizer()
    ids = tokenizer(["girl cat " * 15], max_tokens=225)
    joined = encode(text_encoder, ids, clip_skip=clip_skip)
    assert joined.shape == (1, 3 * 14 + 2, 16)
    first, second, third = (
        encode(text_encoder, ids[:, one : one + 1], clip_skip=clip_skip)[0] for one in range(3)
    )
    expected = torch.cat([first[:-1], second[1:-1], third[1:]])
    torch.testing.assert_close(joined[0], expected)


def test_gradients_reach_every_layer_that_is_used() -> None:
    for clip_skip, unused in ((1, 0), (2, 1)):
        text_encoder = copy.deepcopy(tiny_text_encoder())
        encode(text_encoder, tiny_tokenizer()(["girl"]), clip_skip=clip_skip).square().sum().backward()
        layers = getattr(text_encoder, "text_model", text_encoder).encoder.layers
        reached = [
            layer.mlp.fc1.weight.grad is not None and bool(layer.mlp.fc1.weight.grad.any())
            for layer in layers
        ]
        assert reached == [True] * (3 - unused) + [False] * unused
