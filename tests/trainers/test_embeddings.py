"""Pivotal tuning: embeddings beside an adapter, in captions, in files, and in whole runs on the tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import InputError, SettingsError
from tests.conftest import Celforge
from tests.trainers.conftest import TinyFiles, assert_same
from tests.trainers.test_train_craft import (  # noqa: F401  # fixtures
    Train,
    expect_the_same_when_broken_off,
    pictures,
    train,
    trained,
)
from tests.trainers.tiny_models import tiny_models, tiny_tokenizer
from trainers.adapters.merging import AdapterFile
from trainers.averaging import average_files
from trainers.compare_models import find_models
from trainers.conditioning import encode
from trainers.embedding_plan import EmbeddingPlan, read_embeddings
from trainers.embedding_words import Words
from trainers.embeddings import starting_vectors, token_table
from trainers.models import Models, load_models
from trainers.pivotal import attach_embeddings
from trainers.prompts import Prompt
from trainers.run_folder import RunFolder
from trainers.samples import sample_images
from trainers.train_settings import Settings

RATE = ("--embedding-learning-rate", 1e-2)


def settings_for(tmp_path: Path, table: object, **values: Any) -> Settings:
    path = tmp_path / "emb_init.json"
    path.write_text(json.dumps(table) if not isinstance(table, str) else table, encoding="utf-8")
    return Settings(embeddings=path, **values)


def planned(tmp_path: Path, table: object, **values: Any) -> EmbeddingPlan:
    plan = read_embeddings(settings_for(tmp_path, table, **values), tiny_models())
    assert plan is not None
    return plan


# Words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Aina, girl", ["aina"]),
        ("girl, (aina:1.2)", ["aina"]),
        ("aina's cat", ["aina"]),
        ("ainas, kaina, aina2, aina_x", []),
        ("mi ru, MI_RU, mi  ru", ["mi_ru"] * 3),
        ("mi_ru_armoured", ["mi_ru_armoured"]),
        ("mi ru armoured", ["mi_ru_armoured"]),
        ("saber (fate), saber \\(fate\\), saber_(fate)", ["saber_(fate)"] * 3),
        ("ai\u0308na", []),
        ("初音, x", ["初音"]),
    ],
)
def test_names_are_found_as_whole_words_the_longest_first(text: str, expected: list[str]) -> None:
    names = ("aina", "mi_ru", "mi_ru_armoured", "saber_(fate)", "初音")
    assert list(Words.of(dict.fromkeys(names, (1,))).names_in(text)) == expected


def test_a_name_becomes_its_vectors_and_all_else_stays(tmp_path: Path) -> None:
    models = tiny_models()
    plan = read_embeddings(settings_for(tmp_path, {"aina": ["girl", "cat"], "mi": "a"}), models)
    assert plan is not None
    plain = tiny_tokenizer()
    [girl], [comma], [end] = plain.plain_ids("girl"), plain.plain_ids(","), [plain.end]
    ids = models.tokenizer(["girl, Aina, mi", "girl, ainas"])
    assert ids[0, 0, 1:9].tolist() == [girl, comma, 64, 65, comma, 66, end, end]
    assert torch.equal(ids[1], plain(["girl, ainas"])[0])
    assert models.tokenizer.count("girl, Aina, mi") == 6
    assert plan.first == 64


# Vectors


def test_vectors_start_from_tokens_repeated_or_averaged() -> None:
    table = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(starting_vectors(table, (3, 5), 2), table[[3, 5]])
    assert torch.equal(starting_vectors(table, (3, 5), 4), table[[3, 3, 5, 5]])
    [mean] = starting_vectors(table, (3, 5), 1)
    direction = (table[3] + table[5]) / 2
    length = (table[3].norm() + table[5].norm()) / 2
    torch.testing.assert_close(mean, direction / direction.norm() * length)


def test_states_are_those_of_a_table_with_the_vectors_appended(tmp_path: Path) -> None:
    """A hand-made text encoder whose table is longer, and nothing else."""
    models, longer = tiny_models(), tiny_models().text_encoder
    settings = settings_for(tmp_path, {"aina": ["girl", "cat"]})
    plan = read_embeddings(settings, models)
    vectors = attach_embeddings(plan, models, settings)
    assert vectors is not None
    with torch.no_grad():
        vectors.flat.mul_(3)
    table = token_table(longer)
    rows = torch.cat([table.weight.detach(), vectors.flat.detach()])
    table.weight, table.num_embeddings = torch.nn.Parameter(rows), len(rows)
    ids = models.tokenizer(["girl, aina, a"])
    assert torch.equal(encode(models.text_encoder, ids), encode(longer, ids))
    assert longer.state_dict().keys() == models.text_encoder.state_dict().keys()


def test_only_the_vectors_of_the_words_in_a_text_get_gradients(tmp_path: Path) -> None:
    models = tiny_models()
    settings = settings_for(tmp_path, {"aina": ["girl", "cat"], "mi": "a"})
    vectors = attach_embeddings(read_embeddings(settings, models), models, settings)
    assert vectors is not None
    models.text_encoder.requires_grad_(False)
    encode(models.text_encoder, models.tokenizer(["girl, aina"])).square().sum().backward()
    assert vectors.flat.grad is not None
    assert (vectors.flat.grad.abs().sum(1) > 0).tolist() == [True, True, False]
    assert all(one.grad is None for one in models.text_encoder.parameters())


def test_norms_are_taken_back_by_their_power(tmp_path: Path) -> None:
    models = tiny_models()
    settings = settings_for(tmp_path, {"aina": "girl"}, embedding_norm_pull=0.5)
    vectors = attach_embeddings(read_embeddings(settings, models), models, settings)
    assert vectors is not None
    usual = token_table(models.text_encoder).weight.norm(dim=1).mean()
    with torch.no_grad():
        vectors.flat.mul_(16 * usual / vectors.flat.norm())
    vectors.pull_norms()
    assert vectors.mean_norm() == pytest.approx(4, rel=1e-5)


# What is refused or said


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("{", "names no embeddings"),
        ({}, "names no embedding"),
        ({"a": 3}, "found 3 where words belong"),
        ('{"mi": "a", "mi": "b"}', "stands there twice"),
        ({"a, b": "girl"}, "cannot be the name"),
        ({"mi ru": "a", "Mi_Ru": "b"}, "cannot be told apart"),
        ({"mi?": "a", "mi:": "b"}, None),
        ({"mi": "初"}, "the model has no tokens"),
    ],
)
def test_a_file_that_names_no_embeddings_is_refused(
    tmp_path: Path, table: object, sentence: str | None
) -> None:
    if sentence is None:
        called = {one.called for one in planned(tmp_path, table).embeddings}
        assert len(called) == 2 and not any(sign in name for name in called for sign in '?:*"')
        return
    with pytest.raises(InputError, match=sentence):
        planned(tmp_path, table)


def test_more_vectors_than_a_caption_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="20 vectors, and a caption has room for 14"):
        planned(tmp_path, {"mi": "a"}, embedding_vectors=20)


def test_odd_names_are_said(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"cat": "girl", "mi.ru": [], "con": "a"})
    told = "\n".join(plan.problems)
    assert '"cat" is a word that the model knows' in told
    assert '"mi.ru" from: it starts as the model reads its name' in told
    assert 'saved as "mi_ru"' in told
    assert 'embedding "con" is saved as "_con-' in told


# Runs


@pytest.fixture
def words(pictures: Path) -> Path:  # noqa: F811
    """The captions of the three pictures name aina, once as a part of another word."""
    for number, text in enumerate(("aina, girl", "Aina, cat", "ainas, mi ru")):
        (pictures / f"{number}.txt").write_text(text, encoding="utf-8")
    path = pictures.parent / "emb_init.json"
    path.write_text(json.dumps({"aina": ["girl", "cat"], "mi_ru": [], "nobody": "a"}), encoding="utf-8")
    return path


def embeddings_of(folder: Path) -> dict[str, Tensor]:
    return {path.stem: load_file(path)["emb_params"] for path in folder.glob("*.safetensors")}


def test_a_run_saves_embeddings_and_a_bundle_that_diffusers_and_compare_read(
    train: Train,  # noqa: F811
    pictures: Path,  # noqa: F811
    words: Path,
    tiny_files: TinyFiles,
    celforge: Celforge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pictures.parent / "prompts.txt").write_text("girl, aina, a --w 32 --h 32 --s 1\n", encoding="utf-8")
    more = ("--save-precision", "fp32", "--save-every", 2)
    (pictures.parent / "held.txt").write_text("1.png\n", encoding="utf-8")
    more += ("--validation-data", pictures.parent / "held.txt")
    drawn = ("--prompts", pictures.parent / "prompts.txt", "--ema", 0.5)
    answer = trained(train, "loha", "run", "--steps", 3, "--embeddings", words, *RATE, *more, *drawn)
    assert 'note: no caption has "nobody", so it gets no embedding' in answer.stdout
    assert (
        "embeddings: 2, 6 vectors: aina, mi_ru; learning rate 0.01; norms taken back by 0.1" in answer.stdout
    )
    folder = pictures.parent / "run"
    runs = RunFolder(folder, "a")
    found = embeddings_of(folder / "embeddings")
    assert {name: list(one.shape) for name, one in found.items()} == {"aina": [2, 16], "mi_ru": [4, 16]}
    models = load_models(str(tiny_files.diffusers))
    table = token_table(models.text_encoder).weight
    ids = models.tokenizer.plain_ids("girl cat")
    assert not torch.equal(found["aina"], table[ids])
    averages = embeddings_of(folder / "embeddings" / "a-ema")
    assert not torch.equal(averages["aina"], found["aina"])
    assert sorted(path.name for path in (folder / "embeddings").iterdir() if path.is_dir()) == [
        "a-ema",
        "a-step00000002",
        "a-step00000002-ema",
    ]
    assert len(list((folder / "bundles").iterdir())) == 4
    # the bundle: the adapter's own tensors, and the embeddings as A1111 has them in a file
    bundle, adapter = load_file(runs.bundle_path()), load_file(runs.model_path())
    for name, one in found.items():
        assert torch.equal(bundle.pop(f"bundle_emb.{name}.string_to_param.*"), one)
    assert_same(bundle, adapter)
    read = AdapterFile.read(runs.bundle_path())
    assert read.embeddings.keys() == {"aina", "mi_ru"}
    # diffusers reads the file, and its text encoder says what ours does
    pipe = StableDiffusionPipeline.from_pretrained(tiny_files.diffusers, safety_checker=None)
    pipe.load_textual_inversion(str(folder / "embeddings" / "aina.safetensors"), token="aina")
    prompt = pipe.maybe_convert_prompt("girl, aina, a", pipe.tokenizer)
    tokens = pipe.tokenizer(prompt, padding="max_length", max_length=16, return_tensors="pt").input_ids
    theirs = pipe.text_encoder(tokens).last_hidden_state
    settings = Settings(embeddings=words)
    plan = read_embeddings(settings, models)
    vectors = attach_embeddings(plan, models, settings)
    assert vectors is not None
    with torch.no_grad():
        vectors.flat[:2] = found["aina"]
    ours = encode(models.text_encoder, models.tokenizer(["girl, aina, a"]))
    torch.testing.assert_close(ours, theirs)
    # compare reads them from beside the adapter and out of the bundle, and lets the base be
    said: list[Tensor] = []

    def noted(live: Models, prompts: list[Prompt], **options: Any) -> Any:
        with torch.no_grad():
            ids = live.tokenizer([prompts[0].text]).to(live.text_encoder.device)
            said.append(encode(live.text_encoder, ids).cpu())
        return sample_images(live, prompts, **options)

    monkeypatch.setattr("trainers.compare_drawing.sample_images", noted)
    asked = ("--base", tiny_files.diffusers, "--prompts", pictures.parent / "prompts.txt", "--json")
    answer = celforge("compare", runs.model_path(), runs.bundle_path(), *asked, "--out", folder / "grid")
    assert answer.exit_code == 0, answer.stderr
    base, adapter_said, bundle_said = said
    torch.testing.assert_close(adapter_said, theirs)
    torch.testing.assert_close(bundle_said, theirs)
    plain = load_models(str(tiny_files.diffusers))
    assert torch.equal(base, encode(plain.text_encoder, plain.tokenizer(["girl, aina, a"])))
    bundles = [runs.bundle_path(2), runs.bundle_path()]
    mean = average_files(bundles, folder / "mean.safetensors").path
    before = embeddings_of(runs.embeddings_folder(2))["aina"]
    torch.testing.assert_close(AdapterFile.read(mean).embeddings["aina"], (before + found["aina"]) / 2)
    with pytest.raises(SettingsError, match="a bundle has embeddings too"):
        average_files(bundles, folder / "exact.safetensors", is_exact=True)
    (folder / "embeddings" / "aina.safetensors").unlink()
    answer = celforge("compare", runs.model_path(), *asked, "--out", folder / "grid")
    assert answer.exit_code == 2 and "was trained with the embedding aina" in answer.stderr


def expect_whole(train: Train, pictures: Path, stop_after: Callable[[int], None], *given: object) -> Path:  # noqa: F811
    """Broken off and gone on with: the same files. Returns: the folder of the whole run."""
    expect_the_same_when_broken_off(train, pictures, stop_after, *given)  # type: ignore[arg-type]
    whole, broken = pictures.parent / "whole", pictures.parent / "broken"
    assert_same(embeddings_of(whole / "embeddings"), embeddings_of(broken / "embeddings"))
    return whole


def test_embeddings_beside_an_adapter_survive_a_stop_and_stay_once_they_learn_no_more(
    train: Train,  # noqa: F811
    pictures: Path,  # noqa: F811
    stop_after: Callable[[int], None],
    words: Path,
) -> None:
    until = ("--train", "both", "--text-encoder-until", 1, "--embedding-until", 2)
    given = ("--embeddings", words, *RATE, *until, "--ema", 0.9, "--embedding-weight-decay", 0.1)
    whole = expect_whole(train, pictures, stop_after, "loha", *given)
    folder = RunFolder(whole, "a")
    after_two, last = embeddings_of(folder.embeddings_folder(2)), embeddings_of(folder.embeddings_folder())
    assert_same(after_two, last)
    first, second = (load_file(path) for path in (folder.model_path(2), folder.model_path()))
    assert any(not torch.equal(one, second[key]) for key, one in first.items())
    other = train("loha", "whole", "--steps", 5, *given, "--embedding-vectors", 1)
    assert other.exit_code == 2 and "begun with embeddings = aina x 2, mi_ru x 4" in other.stderr


def test_a_full_model_beside_its_embeddings_keeps_its_words_bit_for_bit(
    train: Train,  # noqa: F811
    pictures: Path,  # noqa: F811
    stop_after: Callable[[int], None],
    words: Path,
    tiny_files: TinyFiles,
) -> None:
    """With the text encoder frozen; its table in the saved model has as many rows as before."""
    fused = ("--optimizer", "adamw", "--fused-backward", "--max-grad-norm", 0, "--save-precision", "fp32")
    fused += ("--save-as", "both")
    whole = expect_whole(train, pictures, stop_after, "full", "--embeddings", words, *RATE, *fused)
    base = load_models(str(tiny_files.diffusers))
    saved = load_models(str(whole / "a.safetensors"))
    assert_same(saved.text_encoder.state_dict(), base.text_encoder.state_dict())
    assert not (whole / "bundles").exists()
    with safe_open(whole / "a.safetensors", "pt") as file:
        told = json.loads(file.metadata()["celforge.embeddings"])
    assert told["aina"] == {"called": "aina", "vectors": 2, "words": "girl cat"}
    for one in find_models([whole / "a", whole / "a.safetensors"], whole, ()).files:
        assert one.embeddings["aina"] == whole / "embeddings/aina.safetensors"
    moved = embeddings_of(whole / "embeddings")["aina"]
    assert not torch.equal(moved, token_table(base.text_encoder).weight[base.tokenizer.plain_ids("girl cat")])


def test_what_does_not_go_together_is_refused(
    train: Train,  # noqa: F811
    pictures: Path,  # noqa: F811
    words: Path,
) -> None:
    given = ("--steps", 2, "--dry-run", "--embeddings", words)
    refused = train("loha", "no", *given, "--optimizer", "prodigy", "--learning-rate", 1, *RATE)
    assert refused.exit_code == 2 and "found a learning rate of 0.01 for the embeddings" in refused.stderr
    refused = train("loha", "no", *given, "--optimizer", "schedule-free-adamw")
    assert refused.exit_code == 2 and "--embedding-norm-pull 0" in refused.stderr
    words.write_text('{"nobody": "a"}', encoding="utf-8")
    refused = train("loha", "no", *given)
    assert refused.exit_code == 2 and "no caption has the name of an embedding: nobody" in refused.stderr
    alone = train("loha", "no", "--steps", 2, "--dry-run", *RATE)
    assert "embedding_learning_rate has no effect without embeddings" in alone.stdout
