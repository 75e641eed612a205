from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import as_json, canonical_json, digest, nearest, option, options_of, resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    threshold_bits: int = option(6, "Largest distance.", min=0, max=64)
    share: float = option(0.5, "A share.", min=0.0, max=1.0)
    keep: Literal["first", "best"] = option("best", "Which survives.")
    name: str | None = option(None, "A name.")
    quality: int = option(90, "Quality.", only_if={"keep": ("best",)})
    is_strict: bool = option(False, "Strict.")
    folders: tuple[Path, ...] = option((), "Protected folders.")
    workers: int = option(0, "Workers.", affects_result=False)


TOML = Path("project") / "celforge.toml"


def resolved(table: dict[str, Any] | None = None, **flags: Any) -> Any:
    return resolve(Settings, "dedupe", table or {}, TOML, flags)


def test_a_flag_counts_over_the_file_and_the_file_over_the_default() -> None:
    result = resolved({"threshold_bits": 3, "share": 1}, threshold_bits=9)
    assert (result.settings.threshold_bits, result.settings.share, result.settings.keep) == (9, 1.0, "best")
    assert isinstance(result.settings.share, float)
    assert result.sources["threshold_bits"] == "flag"
    assert result.sources["share"] == "celforge.toml"
    assert result.sources["keep"] == "default"


def test_an_unknown_key_names_file_section_key_and_the_nearest_right_key() -> None:
    with pytest.raises(SettingsError) as caught:
        resolved({"treshold-bits": 3})
    assert caught.value.exit_code == 2
    for part in ('"treshold-bits"', "[dedupe]", str(TOML), '"threshold_bits"?'):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("threshold_bits", "6", "a whole number from 0 to 64"),
        ("threshold_bits", 6.0, "a whole number from 0 to 64"),
        ("threshold_bits", True, "a whole number from 0 to 64"),
        ("threshold_bits", 65, "a whole number from 0 to 64"),
        ("threshold_bits", -1, "a whole number from 0 to 64"),
        ("share", float("nan"), "a number from 0 to 1"),
        ("keep", "bset", 'did you mean "best"?'),
        ("keep", 1, "one of first, best"),
        ("is_strict", 1, "true or false"),
        ("is_strict", "yes", "true or false"),
        ("folders", "a", "a list, each a path"),
        ("folders", [1], "a list, each a path"),
        ("name", ["a"], "a text"),
    ],
)
def test_a_wrong_value_says_what_is_right(key: str, value: object, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolved({key: value})
    assert expected in str(caught.value)
    assert key in str(caught.value)


def test_paths_in_the_file_are_relative_to_the_file() -> None:
    assert resolved({"folders": ["own"]}).settings.folders == (Path("project/own"),)
    assert resolved(folders=(Path("own"),)).settings.folders == (Path("own"),)


def test_a_setting_without_effect_warns_only_when_somebody_gave_it() -> None:
    assert resolved({"keep": "first"}).warnings == ()
    (warning,) = resolved({"keep": "first", "quality": 80}).warnings
    assert "quality has no effect" in warning
    assert 'keep = "best"' in warning
    assert resolved({"quality": 80}).warnings == ()


def test_only_what_changes_results_is_in_their_key() -> None:
    plain = as_json(resolved().settings, only_results=True)
    assert plain == as_json(resolved(workers=7).settings, only_results=True)
    assert plain != as_json(resolved(threshold_bits=7).settings, only_results=True)
    assert "workers" in as_json(resolved().settings)


def test_the_digest_of_settings_does_not_depend_on_their_order() -> None:
    assert digest({"a": 1, "b": [True, None]}) == digest({"b": [True, None], "a": 1})
    # sha256 of the bytes {"a":1}
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_json_without_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("inf")})


def test_fields_not_made_by_option_are_our_own_mistake() -> None:
    @dataclass
    class Wrong:
        size: int = 3

    with pytest.raises(TypeError, match="size is not made by option"):
        options_of(Wrong)


def test_nearest_gives_nothing_for_a_stranger() -> None:
    assert nearest("zzz", ["threshold_bits"]) is None
