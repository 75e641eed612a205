"""The report as one HTML page: no script, nothing from elsewhere, light and dark as the screen is set.

Everything that comes from names, tags and captions is escaped, and the page's own policy forbids scripts. The
same survey always gives the same bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from pipeline import charts
from pipeline.charts import TIMES, Bar, Dot, Ray, number_text
from pipeline.files import format_bytes
from pipeline.report_page.history import outcomes_table, problems_table, runs_table
from pipeline.report_page.markup import Section, address, attribute, card, table, text
from pipeline.report_page.survey import BucketUse, Dropped, FolderSummary, Share, Survey, Weighed

GENERATOR = "celforge report"  # by which a page of ours is told from another file of its name
TOP_TAGS, TOP_FOLDERS, TOP_CHARACTERS, TOP_BUCKETS = 40, 24, 24, 20
TAGS_A_CHART = 20
KIND_WORDS = {"image_type": "kind of picture", "num_people": "number of people", "rating": "rating"}
MOST_DOTS = 400  # distinct sizes drawn; more are drawn on a grid
OPEN_FOLDERS_PICTURES = 60  # folders are shown open while they hold no more pictures than this together
MOST_GROUPS = 150
ALT_LETTERS = 200
POLICY = "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; base-uri 'none'"


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures that are shown, as the page refers to them.

    Args:
        shown: of each folder, by its relative path.
        thumbnails: address of the small picture by content, relative to the page.
        captions: text of the caption by path relative to the project.
        sizes: (width, height) in pixels by content.
        root: address of the project's folder, relative to the page, with a slash at its end.
    """

    shown: Mapping[str, Sequence[Weighed]]
    thumbnails: Mapping[str, str]
    captions: Mapping[str, str]
    sizes: Mapping[str, tuple[int, int]]
    root: str


@dataclass(frozen=True, slots=True)
class DropGroup:
    """Pictures that one stage took out together.

    Args:
        survivor: content and path of the one that stayed, where the catalogue tells.
    """

    reason: str
    detail: str
    survivor: tuple[str, str] | None
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page is made of."""

    survey: Survey
    pictures: Pictures
    groups: Sequence[DropGroup]
    buckets: BucketUse
    resolution_px: int
    trainings: str = ""  # HTML of the part about them
    num_trainings: int = 0

    def html(self) -> str:
        """The whole page."""
        survey = self.survey
        title = survey.folder or survey.name
        sections = [one for one in self._sections() if one.body]
        style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
        head = (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{attribute(POLICY)}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="generator" content="{GENERATOR}">\n'
            f"<title>{text(title)} · data set report</title>\n"
            f"<style>\n{style}{charts.STYLE}\n</style>\n</head>\n"
        )
        top = f'<a class="skip" href="#main">Skip to the report</a>\n{self._header(title)}{_nav(sections)}'
        body = "\n".join(one.html() for one in sections)
        return f'{head}<body>\n{top}<main id="main">\n{body}\n</main>\n{_footer()}</body>\n</html>\n'

    def _sections(self) -> list["Section"]:
        survey = self.survey
        failed = sum(problem.count for problem in survey.problems)
        return [
            Section("problems", "Problems", failed, problems_table(survey.problems), is_bad=True),
            Section("balance", "Balance", None, self._balance()),
            Section("tags", "Tags", len(survey.tags) or None, self._tags()),
            Section("sizes", "Sizes", None, self._sizes()),
            Section("dropped", "Dropped", survey.num_dropped, self._dropped()),
            Section("pictures", "Pictures", survey.num_pictures, self._gallery()),
            Section("trainings", "Trainings", self.num_trainings, self.trainings),
            Section("stages", "Stages", None, outcomes_table(survey.outcomes)),
            Section("runs", "Runs", len(survey.runs), runs_table(survey.runs)),
        ]

    def _header(self, title: str) -> str:
        survey = self.survey
        inside = f" · folder {survey.folder} of {survey.name}" if survey.folder else ""
        failed = sum(problem.count for problem in survey.problems)
        tiles = [
            ("pictures", f"{survey.num_pictures:,}", ""),
            ("folders with pictures", f"{len(survey.folders):,}", ""),
            ("shown in an epoch", number_text(survey.exposures), ""),
            ("captions", f"{sum(folder.num_captions for folder in survey.folders):,}", ""),
            ("size", format_bytes(survey.size_bytes), ""),
        ]
        if survey.num_places > survey.num_pictures:
            tiles.insert(1, ("places where they lie", f"{survey.num_places:,}", ""))
        tiles += [("videos", f"{survey.num_videos:,}", "")] if survey.num_videos else []
        tiles += [("dropped", f"{survey.num_dropped:,}", "")] if survey.num_dropped else []
        tiles += [("failed", f"{failed:,}", ' class="bad"')] if failed else []
        cells = "".join(
            f"<div{kind}><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value, kind in tiles
        )
        line = f'<p class="muted">Data set report{text(inside)}</p>'
        return f'<header>\n<h1>{text(title)}</h1>\n{line}<dl class="tiles">{cells}</dl>\n</header>\n'

    # Balance

    def _balance(self) -> str:
        survey = self.survey
        if not survey.folders:
            return ""
        trained = [folder for folder in survey.folders if folder.exposures]
        top = sorted(trained, key=lambda folder: -folder.exposures)[:TOP_FOLDERS]
        labels = _labels([one.relative or survey.name for one in top])
        rows = [
            Bar(label, one.exposures, note=f"{one.relative}, {_folder_note(one)}".lstrip(", "))
            for label, one in zip(labels, top, strict=True)
        ]
        more = len(trained) - len(top)
        note = f"The {TOP_FOLDERS} largest of {len(trained):,} folders." if more > 0 else ""
        parts = [
            card(
                "Pictures that an epoch shows, by folder",
                charts.bars(rows, title="Pictures an epoch shows, by folder"),
                note,
            )
        ]
        if survey.characters:
            parts.append(
                card(
                    "Pictures that an epoch shows, by character",
                    _share_bars(survey.characters, "Pictures an epoch shows, by character"),
                )
            )
        for name, shares in survey.kinds.items():
            words = KIND_WORDS[name]
            parts.append(card(f"By {words}", _share_bars(shares, f"Pictures an epoch shows, by {words}")))
        return f'<div class="cards">{"".join(parts)}</div>{self._folder_table()}'

    def _folder_table(self) -> str:
        has_others = any(one.num_in_tree for one in self.survey.folders)
        others = ["further, in the tree"] if has_others else []
        head = ["folder", "pictures", *others, "captions", "repeats", "an epoch shows", "share"]
        total = self.survey.exposures or 1
        rows = [
            (
                f'<a href="#f{number}">{text(one.relative or self.survey.name)}</a>',
                f"{len(one.files):,}",
                *([f"{one.num_in_tree:,}"] if has_others else ()),
                f"{one.num_captions:,}",
                one.repeats_text,
                number_text(one.exposures),
                f"{100 * one.exposures / total:.1f} %",
            )
            for number, one in enumerate(self.survey.folders)
        ]
        found = table(head, rows)
        return f'<details class="card"><summary>All folders as a table</summary>{found}</details>'

    # Tags

    def _tags(self) -> str:
        tags = self.survey.tags
        if not tags:
            return ""
        top = tags[:TOP_TAGS]
        charts_of_tags = "".join(
            card(
                f"Tags {start + 1} to {min(start + TAGS_A_CHART, len(top))} of {len(tags):,}, by pictures",
                charts.bars(
                    [Bar(one.value, one.images) for one in top[start : start + TAGS_A_CHART]],
                    title="Commonest tags",
                    most=top[0].images,
                ),
            )
            for start in range(0, len(top), TAGS_A_CHART)
        )
        rare = [one for one in tags if one.images == 1]
        steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
        bins = [
            Bar(
                f"{low:,}",
                sum(1 for one in tags if low <= one.images and (high is None or one.images < high)),
            )
            for low, high in zip(steps, [*steps[1:], None], strict=True)
        ]
        while len(bins) > 1 and not bins[-1].value:
            bins.pop()
        note = f"{len(rare):,} of {len(tags):,} tags are on one picture only." if rare else ""
        spread = card(
            "How common tags are",
            charts.columns(
                bins, title="Tags by how many pictures have them", axis="distinct pictures with the tag, from"
            ),
            note,
        )
        rows = [(text(one.value), f"{one.images:,}", number_text(one.exposures)) for one in tags[:500]]
        name = "The 500 commonest tags as a table" if len(tags) > 500 else "All tags as a table"
        found = table(("tag", "distinct pictures", "an epoch shows"), rows)
        return (
            f'<div class="cards">{charts_of_tags}{spread}</div>'
            f'<details class="card"><summary>{name}</summary>{found}</details>'
        )

    # Sizes

    def _sizes(self) -> str:
        sizes = self.survey.sizes
        if not sizes:
            return ""
        dots, note = _dots(sizes)
        rays = [Ray("16:9", 16 / 9), Ray("1:1", 1.0)]
        scatter = charts.scatter(
            dots, title="Pictures by width and height", x_axis="width, px", y_axis="height, px", rays=rays
        )
        sides = charts.columns(
            _side_bins(sizes), title="Pictures by their shorter side", axis="shorter side from, px"
        )
        used = [
            Bar(f"{one.width_px}{TIMES}{one.height_px}", number, note=f"aspect {one.aspect:.2f}")
            for one, number in list(self.buckets.counts.items())[:TOP_BUCKETS]
        ]
        enlarged = self.buckets.num_enlarged
        small = f" {enlarged:,} are smaller than their bucket and would be enlarged." if enlarged else ""
        bucket_note = f"{len(self.buckets.counts):,} sizes of a batch are used.{small}"
        bucket_chart = charts.bars(used, title=f"Buckets at {self.resolution_px} px")
        return (
            f'<div class="cards">{card("Width and height", scatter, note)}'
            f"{card(f'Buckets when trained at {self.resolution_px} px', bucket_chart, bucket_note)}"
            f"{card('Shorter side', sides)}</div>"
        )

    # Pictures

    def _dropped(self) -> str:
        if not self.groups:
            return ""
        parts: list[str] = []
        stage_reason = ("", "")
        for group in self.groups[:MOST_GROUPS]:
            key = (group.dropped[0].stage, group.reason)
            if key != stage_reason:
                stage_reason = key
                reason = f": {group.reason}" if group.reason else ""
                parts.append(f"<h3>{text(group.dropped[0].stage + reason)}</h3>")
            parts.append(self._group(group))
        more = self.survey.num_dropped - sum(len(group.dropped) for group in self.groups[:MOST_GROUPS])
        if more > 0:
            parts.append(f'<p class="muted">and {more:,} dropped pictures more</p>')
        return f'<div class="card">{"".join(parts)}</div>'

    def _group(self, group: DropGroup) -> str:
        items = []
        if group.survivor is not None:
            content, relative = group.survivor
            items.append(self._item(content, relative, f"kept: {relative}", "kept"))
        items += [
            self._item(one.content, one.relative, f"dropped: {one.relative}", "dropped")
            for one in group.dropped
        ]
        is_told = group.survivor is not None or not group.detail
        head = "" if is_told else f"<h4>{text(group.detail)}</h4>"
        return f'<div class="group">{head}<ul class="pictures">{"".join(items)}</ul></div>'

    def _gallery(self) -> str:
        parts = []
        num_open = 0
        for number, folder in enumerate(self.survey.folders):
            shown = self.pictures.shown.get(folder.relative, ())
            num_open += len(shown)
            is_open = " open" if num_open <= OPEN_FOLDERS_PICTURES or number == 0 else ""
            items = "".join(
                self._item(one.file.content, one.file.relative, one.file.relative) for one in shown
            )
            rest = "".join(f'<p class="more muted">{line}</p>' for line in _not_shown(folder, len(shown)))
            parts.append(
                f'<details class="folder" id="f{number}"{is_open}>'
                f"<summary>{text(folder.relative or self.survey.name)} "
                f'<span class="muted">{text(_folder_note(folder))}</span></summary>'
                f"{_list(items)}{rest}</details>"
            )
        return "\n".join(parts)

    def _item(self, content: str, relative: str, tip: str, kind: str = "") -> str:
        name = relative.rpartition("/")[2]
        shown = self.pictures.thumbnails.get(content)
        caption = self.pictures.captions.get(relative, "")
        label = f'<span class="name"><span class="{kind}">{kind}</span> {text(name)}</span>' if kind else ""
        label = label or f'<span class="name">{text(name)}</span>'
        tip = f"{tip}\n{caption}" if caption else tip
        if shown is None:
            return f'<li title="{attribute(tip)}"><span class="none">no picture to show</span>{label}</li>'
        width, height = self.pictures.sizes.get(content, (16, 9))
        alt = f"{name}: {caption[:ALT_LETTERS]}" if caption else name
        image = (
            f'<img src="{attribute(shown)}" width="{width}" height="{height}" alt="{attribute(alt)}" '
            'loading="lazy" decoding="async">'
        )
        link = f'href="{attribute(self.pictures.root + address(relative))}"'
        if kind == "dropped":  # it lies elsewhere now
            return f'<li title="{attribute(tip)}">{image}{label}</li>'
        return f'<li><a {link} title="{attribute(tip)}">{image}{label}</a></li>'


def _nav(sections: Sequence[Section]) -> str:
    items = "".join(f'<li><a href="#{one.anchor}">{one.heading}{one.badge}</a></li>' for one in sections)
    return f'<nav aria-label="Parts of the report"><ul>{items}</ul></nav>\n'


def _footer() -> str:
    return "<footer>Made by celforge report from the catalogue in .celforge/.</footer>\n"


def _share_bars(shares: Sequence[Share], title: str) -> str:
    """The largest of some shares, as bars; numbers in their own order."""
    trained = [one for one in shares if one.exposures]
    top = sorted(trained, key=lambda one: (-one.exposures, one.value))[:TOP_CHARACTERS]
    if all(one.value.isdigit() for one in top):
        top.sort(key=lambda one: int(one.value))
    rows = [Bar(one.value, one.exposures, note=f"{_pictures(one.images)} of it") for one in top]
    return charts.bars(rows, title=title)


def _folder_note(folder: FolderSummary) -> str:
    repeats = f"repeats {folder.repeats_text}" if folder.exposures else "not trained on"
    if not folder.files:
        return f"{_pictures(folder.num_in_tree)} that lie in the tree too"
    return f"{_pictures(len(folder.files))}, {repeats}"


def _not_shown(folder: FolderSummary, num_shown: int) -> list[str]:
    lines = []
    if num_shown < len(folder.files):
        lines.append(f"{num_shown:,} of {len(folder.files):,} shown, spread evenly")
    if folder.num_in_tree:
        further = " further" if folder.files else ""
        where = "lie in the tree that is trained on too, and are shown there"
        lines.append(f"{folder.num_in_tree:,}{further} {where}")
    return lines


def _list(items: str) -> str:
    return f'<ul class="pictures">{items}</ul>' if items else ""


def _pictures(number: int) -> str:
    return f"{number:,} pictures" if number != 1 else "1 picture"


def _labels(paths: Sequence[str]) -> list[str]:
    """The last folder of each path, with those above it where two would be called the same."""
    labels = [path.rpartition("/")[2] for path in paths]
    depth = 1
    while len(set(labels)) < len(labels) and depth < max(path.count("/") + 1 for path in paths):
        depth += 1
        twins = {label for label, count in Counter(labels).items() if count > 1}
        labels = [
            "/".join(path.split("/")[-depth:]) if label in twins else label
            for path, label in zip(paths, labels, strict=True)
        ]
    return labels


def _dots(sizes: Mapping[tuple[int, int], int]) -> tuple[list[Dot], str]:
    """Every size as a dot; where there are too many, the middle of the square of a grid it lies in."""
    counts = dict(sizes)
    grid_px = 1
    while len(counts) > MOST_DOTS:
        grid_px *= 2
        counts = {}
        for (width, height), number in sizes.items():
            place = (round(width / grid_px) * grid_px, round(height / grid_px) * grid_px)
            counts[place] = counts.get(place, 0) + number
    note = f"{len(sizes):,} sizes" if len(sizes) != 1 else "1 size"
    note += f", rounded to {grid_px} px" if grid_px > 1 else ""
    dots = [Dot(width, height, number) for (width, height), number in sorted(counts.items())]
    return dots, f"{note}; the area of a circle is its number of distinct pictures."


def _side_bins(sizes: Mapping[tuple[int, int], int]) -> list[Bar]:
    edges = [0, 128, 256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 2048, 3072]
    counts = [0] * len(edges)
    for (width, height), number in sizes.items():
        counts[max(index for index, edge in enumerate(edges) if edge <= min(width, height))] += number
    bins = [
        Bar(f"{edge:,}", count, note=f"{edge} to {edges[index + 1] - 1} px" if index + 1 < len(edges) else "")
        for index, (edge, count) in enumerate(zip(edges, counts, strict=True))
    ]
    used = [index for index, one in enumerate(bins) if one.value]
    return bins[used[0] : used[-1] + 1]
