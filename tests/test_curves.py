"""Curves over steps: what is drawn where, and that no spike is lost."""

import re

import pytest

from pipeline.curves import INNER, Curve, Mark, curves, thinned, value_text, value_ticks


def points_of(chart: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in text.split()]  # type: ignore[misc]
        for text in re.findall(r'points="([^"]*)"', chart)
    ]


def test_points_lie_where_their_step_and_value_are() -> None:
    (drawn,) = points_of(curves([Curve("loss", [(0, 0.2), (50, 0.1), (100, 0.0)])], title="Loss"))
    assert drawn == [(0, 0), (INNER / 2, INNER / 2), (INNER, INNER)]


def test_measured_values_lie_beneath_smoothed_ones_and_their_rarest_outside() -> None:
    wild = [(step, 0.1 + 0.001 * (step % 7)) for step in range(1000)] + [(1000, 90.0)]
    chart = curves(
        [Curve("smoothed", [(0, 0.1), (1000, 0.12)]), Curve("raw", wild, is_faint=True)], title="x"
    )
    faint, smooth = points_of(chart)
    assert len(smooth) == 2
    assert faint[-1][1] < 0  # above the plot, which cuts it off
    assert smooth[0][1] > INNER / 2  # and the scale is that of the others


def test_thinning_keeps_spikes_ends_and_order() -> None:
    points = [(step, 0.0) for step in range(100_000)]
    points[77_777] = (77_777, 5.0)
    points[33_333] = (33_333, -5.0)
    found = thinned(points, 1000)
    assert len(found) <= 1000
    assert {(77_777, 5.0), (33_333, -5.0), points[0], points[-1]} <= set(found)
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 0.0002, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]), (0.11, 0.19, [0.1, 0.12, 0.14, 0.16, 0.18, 0.2])],
)
def test_ticks_of_values_enclose_them(low: float, high: float, ticks: list[float]) -> None:
    assert value_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant_has_a_scale_too(value: float) -> None:
    ticks = value_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


def test_values_have_four_digits_that_count() -> None:
    assert [value_text(one) for one in (0.123456, 12345.6, 2e-6)] == ["0.1235", "12,346", "2e-06"]


def test_a_legend_names_several_curves_and_marks_their_step() -> None:
    chart = curves(
        [Curve("<Sabine>", [(0, 1.0), (4, 2.0)], note="2"), Curve("Iris", [(0, 1.0)], colour=2)],
        title="Validation",
        marks=[Mark(1, "best"), Mark(9, "outside")],
    )
    assert "&lt;Sabine&gt; 2</text>" in chart
    assert 'x1="31.75%"' in chart  # 10 % and a quarter of 87 %
    assert "outside" not in chart
    assert 'aria-label="Validation: &lt;Sabine&gt; 2 at the end, Iris 1 at the end"' in chart
    assert "legend" not in curves([Curve("one", [(0, 1.0), (1, 1.0)])], title="x")


def test_nothing_measured_says_so() -> None:
    assert "nothing to show" in curves([Curve("loss", [])], title="Loss")
