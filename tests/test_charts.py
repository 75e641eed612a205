"""Charts by literal cases: where things lie, what is written, and that names stay text."""

import re
import xml.etree.ElementTree as ET

import pytest

from pipeline import charts
from pipeline.charts import Bar, Dot, Ray, bars, columns, nice_ticks, number_text, scatter

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ["<script>alert(1)</script>", "a\"b' onload=x", "猫耳 é", "bell\x07", "\ud800 half", "&amp;"]


def drawn(chart: str) -> ET.Element:
    """The chart as XML: well formed, whatever is in it."""
    return ET.fromstring(chart)


def texts(chart: str) -> list[str]:
    return [element.text or "" for element in drawn(chart).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (7, [0, 2, 4, 6, 8]),
        (10, [0, 5, 10]),
        (100, [0, 50, 100]),
        (194, [0, 50, 100, 150, 200]),
        (2400, [0, 1000, 2000, 3000]),
    ],
)
def test_ticks_are_round_and_reach_the_largest_value(most: float, ticks: list[float]) -> None:
    assert nice_ticks(most) == ticks


def test_ticks_never_stop_below_a_value() -> None:
    for most in range(1, 3_000):
        ticks = nice_ticks(most)
        assert ticks[-1] >= most
        assert ticks[-2] < most
        assert len(ticks) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345, "12,345"), (2.5, "2.5"), (2.504, "2.5"), (0.125, "0.12"), (10.0, "10"), (100, "100")],
)
def test_numbers_have_as_many_decimals_as_they_need(value: float, text: str) -> None:
    assert number_text(value) == text


def test_a_bar_is_as_long_as_its_share_of_the_largest() -> None:
    chart = drawn(bars([Bar("a", 4), Bar("b", 1), Bar("c", 0)], title="t"))
    widths = [float(rect.attrib["width"].rstrip("%")) for rect in chart.iter(f"{SVG}rect")]
    assert widths == [charts.BARS_PERCENT, charts.BARS_PERCENT / 4, 0]


def test_bars_of_two_charts_can_have_one_scale() -> None:
    chart = drawn(bars([Bar("a", 5)], title="t", most=10))
    (rect,) = chart.iter(f"{SVG}rect")
    assert rect.attrib["width"] == f"{charts.BARS_PERCENT / 2:g}%"


def test_every_bar_has_its_label_its_value_and_its_note() -> None:
    chart = bars([Bar("long_hair", 1234, note="30 %"), Bar("1girl", 2, text="two")], title="Tags")
    assert texts(chart) == ["long_hair", "1,234", "1girl", "two"]
    tips = [element.text for element in drawn(chart).iter(f"{SVG}title")]
    assert tips == ["long_hair: 1,234, 30 %", "1girl: two"]


def test_screen_readers_are_told_the_name_and_the_first_values() -> None:
    chart = drawn(bars([Bar(f"t{number}", number) for number in range(20)], title="Tags"))
    assert chart.attrib["role"] == "img"
    assert chart.attrib["aria-label"].startswith("Tags: t0 0, t1 1, t2 2, ")
    assert chart.attrib["aria-label"].endswith("t11 11, and 8 more")


def test_columns_stand_on_the_axis_and_reach_their_value() -> None:
    chart = drawn(columns([Bar("512", 50), Bar("640", 200)], title="t", axis="px"))
    for rect, share in zip(chart.iter(f"{SVG}rect"), (0.25, 1.0), strict=True):
        top, height = float(rect.attrib["y"]), float(rect.attrib["height"])
        assert height == charts.PLOT_HEIGHT_PX * share
        assert top + height == charts.PLOT_TOP_PX + charts.PLOT_HEIGHT_PX
    assert texts(columns([Bar("512", 50)], title="t", axis="side, px"))[-1] == "side, px"


def test_many_columns_have_fewer_labels_than_would_touch() -> None:
    chart = columns([Bar(f"L{number}", 1) for number in range(40)], title="t", axis="px")
    shown = [text for text in texts(chart) if text.startswith("L")]
    assert shown[0] == "L0"
    assert len(shown) == charts.MOST_LABELS


def test_the_area_of_a_dot_is_its_count() -> None:
    chart = drawn(scatter([Dot(100, 100, 400), Dot(50, 20, 100)], title="t", x_axis="x", y_axis="y"))
    radii = [float(dot.attrib["r"]) for dot in chart.iter(f"{SVG}circle")]
    assert radii == [charts.LARGEST_DOT_PX, charts.LARGEST_DOT_PX / 2]


def test_dots_lie_where_their_size_is() -> None:
    chart = drawn(scatter([Dot(1000, 500, 1)], title="t", x_axis="x", y_axis="y"))  # axes to 1000 and 600
    (dot,) = chart.iter(f"{SVG}circle")
    assert dot.attrib["cx"] == f"{charts.PLOT_LEFT + charts.PLOT_WIDTH:g}%"
    height = charts.PLOT_HEIGHT_PX + 100
    assert nice_ticks(500)[-1] == 600
    assert float(dot.attrib["cy"]) == pytest.approx(charts.PLOT_TOP_PX + height / 6, abs=0.1)


def test_a_ray_stays_inside_the_plot() -> None:
    for ratio in (0.1, 1.0, 16 / 9, 10.0):
        rays = [Ray("r", ratio)]
        chart = drawn(scatter([Dot(1000, 800, 1)], title="t", x_axis="x", y_axis="y", rays=rays))
        (line,) = [one for one in chart.iter(f"{SVG}line") if one.attrib["class"] == "guide"]
        assert float(line.attrib["x2"].rstrip("%")) <= charts.PLOT_LEFT + charts.PLOT_WIDTH
        assert float(line.attrib["y2"]) >= charts.PLOT_TOP_PX


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(name: str) -> None:
    shown = [
        bars([Bar(name, 1, note=name)], title=name),
        columns([Bar(name, 1)], title=name, axis=name),
        scatter([Dot(1, 1, 1)], title=name, x_axis=name, y_axis=name, rays=[Ray(name, 1)]),
    ]
    for chart in shown:
        tags = {element.tag.removeprefix(SVG) for element in drawn(chart).iter()}
        assert tags <= {"svg", "g", "title", "text", "rect", "line", "circle"}
        assert not any(key.startswith("on") for element in drawn(chart).iter() for key in element.attrib)
        chart.encode("utf-8")


def test_nothing_to_show_says_so() -> None:
    for chart in (
        bars([], title="t"),
        columns([], title="t", axis="x"),
        scatter([], title="t", x_axis="x", y_axis="y"),
    ):
        assert texts(chart) == ["nothing to show"]


def test_only_zeros_are_drawn_without_a_length() -> None:
    (rect,) = drawn(columns([Bar("a", 0)], title="t", axis="x")).iter(f"{SVG}rect")
    assert float(rect.attrib["height"]) == 0
    (rect,) = drawn(bars([Bar("a", 0)], title="t")).iter(f"{SVG}rect")
    assert rect.attrib["width"] == "0%"


def test_a_chart_as_a_file_brings_its_colours_for_light_and_dark() -> None:
    text = charts.document(bars([Bar("a", 1)], title="t"))
    (style,) = drawn(text).iter(f"{SVG}style")
    assert "prefers-color-scheme: dark" in (style.text or "")
    assert drawn(text).attrib["width"] == "720"


def test_a_file_of_several_charts_has_its_title_and_headings_above_them() -> None:
    both = [("Folders", bars([Bar("a", 1)] * 3, title="t")), ("Tags", bars([Bar("b", 1)], title="u"))]
    text = charts.document(both, title="My <tree>", subtitle="12 pictures")
    assert texts(text)[:3] == ["My <tree>", "12 pictures", "Folders"]
    assert drawn(text).attrib["aria-label"] == "My <tree>"
    inner = [one for one in drawn(text) if one.tag == f"{SVG}svg"]
    tops = [(int(one.attrib["y"]), int(one.attrib["height"])) for one in inner]
    assert [height for _, height in tops] == [3 * charts.ROW_PX, charts.ROW_PX]
    assert tops[0][0] + tops[0][1] < tops[1][0]
    assert tops[1][0] + tops[1][1] < int(drawn(text).attrib["height"])


def test_a_bar_beside_what_there_was_has_one_scale_for_both() -> None:
    items = [Bar("a", 5, before=10), Bar("b", 20, before=0)]
    chart = bars(items, title="t", legend=("there", "seen"))
    rects = [one for one in drawn(chart).iter(f"{SVG}rect") if one.attrib["width"].endswith("%")]
    assert [(one.attrib["class"], float(one.attrib["width"].rstrip("%"))) for one in rects] == [
        ("before", charts.BARS_PERCENT / 2),
        ("fill", charts.BARS_PERCENT / 4),
        ("before", 0),
        ("fill", charts.BARS_PERCENT),
    ]
    assert texts(chart)[:2] == ["there", "seen"]
    assert int(drawn(chart).attrib["height"]) == 3 * charts.ROW_PX


def test_the_longest_bars_come_first_and_the_rest_are_one() -> None:
    items = [Bar(f"folder {n}", n, before=2 * n) for n in range(50)]
    kept = charts.longest(items, 40)
    assert [item.label for item in kept[:2]] == ["folder 49", "folder 48"]
    assert kept[-1] == Bar("and 11 more, on average", 5.0, note="at most 10", before=10.0)
    assert charts.longest(items[:3], 40) == [items[2], items[1], items[0]]


def contrast(first: str, second: str) -> float:
    """Contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_bars_can_be_told_from_the_ground() -> None:
    light, dark = re.findall(r"\{ (--c-ink[^}]*)\}", charts.STYLE)
    for colours, ground in ((light, "#ffffff"), (dark, "#1a202a")):
        named = dict(re.findall(r"--c-(\w+): (#\w{6});", colours))
        assert contrast(named["ink"], ground) >= 7
        assert contrast(named["muted"], ground) >= 4.5
        assert contrast(named["fill"], ground) >= 3
        assert contrast(named["before"], ground) >= 3
