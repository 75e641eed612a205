"""Write a multiply.txt into each folder, so that each character is seen as often as it should.

Folders beside each other get equal parts of what their parent gets, whatever number of pictures they hold;
weights by name or pattern (a CSV) make the parts unequal. A multiply.txt that a person wrote stays as it is,
and the others share what it leaves. The table says how often each character and folder is seen in an epoch;
the same stands as a plot in report/balance.svg.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline import charts
from pipeline.catalog import below, join
from pipeline.charts import Bar
from pipeline.errors import InputError, SettingsError
from pipeline.folder_weights import WeightRules, read_weights
from pipeline.job import Job, Report
from pipeline.known_facts import counting_facts
from pipeline.layouts.everydream import Folder, FolderSettings, Tree, multiply_of, read_tree
from pipeline.plan import Action, Drop, Plan, Write
from pipeline.project import DATASET
from pipeline.report import Table
from pipeline.settings import option
from pipeline.tree_names import is_mask

if TYPE_CHECKING:
    from pipeline.balancing import Balanced

HAS_PLAN = True
STAGE = "balance"
MULTIPLY = "multiply.txt"
PLOT = "report/balance.svg"
PLOT_ROWS = 40  # of one chart; what is left is one more row
PLOT_LEGEND = ("pictures there are", "seen in an epoch")
LABEL_LETTERS = 46
OFTEN = 10  # views of one picture in an epoch, above which it is said
OFTEN_SHOWN = 3
NOT_KNOWN = "not known"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [balance] of celforge.toml."""

    weight_csv: Path | None = option(
        None,
        "Weights of folders, lines of: name or pattern,weight. Folders that no line speaks of weigh 1.",
        metavar="FILE",
    )
    mode: Literal["exact", "compatible"] = option(
        "exact",
        "Keep proportions under caps (exact), or write what anime_screenshot_pipeline writes (compatible).",
    )
    min_multiply: float | None = option(
        None, "Least multiply; 1 when left out, 0.01 with --target-images.", min=0.0001, max=10_000
    )
    max_multiply: float = option(100.0, "Largest multiply.", min=0.0001, max=1_000_000)
    target_images: int | None = option(
        None, "Pictures seen in one epoch, repeats counted.", min=1, only_if={"mode": ("exact",)}
    )
    temperature: float | None = option(
        None,
        "From equal parts (left out) towards numbers of pictures as they are (1); 2 lies between.",
        min=0.1,
        max=1000,
        only_if={"mode": ("exact",)},
    )
    overwrite: bool = option(False, "Also write over a multiply.txt that a person or another tool wrote.")


def run(job: Job, settings: Settings) -> Report:
    """Balance the tree in the job's folder."""
    from pipeline.balancing import Bounds, Leaf, balance_compatible, balance_exact, weight_tree

    low = settings.min_multiply or (1.0 if settings.target_images is None else 0.01)
    if low > settings.max_multiply:
        raise SettingsError(
            f"min_multiply {low:g} is above max_multiply {settings.max_multiply:g}", hint="lower it"
        )
    rules = read_weights(settings.weight_csv) if settings.weight_csv else WeightRules()
    found = read_folders(job, tree_folder(job), overwrites=settings.overwrite)
    leaves = [Leaf(path, len(names), found.fixed.get(path)) for path, names in found.images.items()]
    root = weight_tree(leaves, rules, settings.temperature if settings.mode == "exact" else None)
    for pattern in rules.unused:
        job.warn(f'"{pattern}" in {settings.weight_csv} is no folder with pictures')
    if settings.mode == "compatible":
        balanced = balance_compatible(leaves, root, min_multiply=low, max_multiply=settings.max_multiply)
    else:
        bounds = Bounds(low, settings.max_multiply)
        balanced = balance_exact(leaves, root, bounds, settings.target_images)
    if often := often_seen(balanced):
        job.warn(often)
    characters = character_rows(job, found, balanced)
    plot = plot_of(found, balanced, characters)
    actions = list(_actions(job, found, balanced, plot, settings))
    report = job.apply(Plan(STAGE, actions))
    _tell(report, found, balanced, characters, settings)
    if not job.is_dry_run:
        report.made.append(job.root / PLOT)
    return report


def tree_folder(job: Job) -> Path:
    """The tree: the folder given, or dataset/ in it where that is a project."""
    inside = job.root / DATASET
    return inside if job.folder == job.root and inside.is_dir() else job.folder


# What there is


@dataclass(slots=True)
class Found:
    """A tree with its pictures, and what its folders say already. Paths are below the tree.

    Args:
        images: folder -> names of its pictures; folders without any are left out.
        fixed: folder -> a multiply that is not ours to change.
        hashes: folder -> sha256 of its multiply.txt.
        ours: folders whose multiply.txt we wrote.
    """

    tree: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)
    by_hand: list[str] = field(default_factory=list)


def read_folders(job: Job, folder: Path, *, overwrites: bool) -> Found:
    """List the tree, and see which multiply.txt are a person's.

    Raises:
        InputError: no pictures, or a multiply that no trainer understands.
    """
    tree = read_tree(folder)
    found = Found(folder)
    for one in tree.folders.values():
        stems = {os.path.splitext(name)[0] for name in one.images}
        names = [name for name in one.images if not is_mask(name, stems)]
        if names:
            found.images[one.relative] = names
        if MULTIPLY in one.files:
            _read_multiply(job, found, one)
    if not found.images:
        raise InputError(f"{folder} holds no pictures", hint="make a tree first: celforge arrange")
    settings, problems = tree.settings()
    problems = [text for text in problems if text.startswith("multiply")]
    if problems and not overwrites:
        raise InputError(problems[0], hint="mend it, or write it anew: --overwrite")
    _fix(found, tree, settings, overwrites=overwrites)
    return found


def _read_multiply(job: Job, found: Found, folder: Folder) -> None:
    data = Path(folder.path, MULTIPLY).read_bytes()
    found.hashes[folder.relative] = sha256 = hashlib.sha256(data).hexdigest()
    if job.catalog.is_ours(job.project.relative(Path(folder.path, MULTIPLY)), sha256):
        found.ours.add(folder.relative)


def _fix(
    found: Found,
    tree: Tree,
    settings: Mapping[tuple[str, ...], FolderSettings],
    *,
    overwrites: bool,
) -> None:
    """Keep what a person's multiply.txt says, and what a yaml file says over it."""
    for parts, said in settings.items():
        path = "/".join(parts)
        if path not in found.images:
            continue
        is_by_hand = path in found.hashes and path not in found.ours and not overwrites
        written = multiply_of(tree.folders[parts]) if path in found.hashes else None
        is_by_yaml = said.multiply != (written if written is not None and written > 0 else 1)
        if is_by_hand or is_by_yaml:
            found.fixed[path] = float(said.multiply)
            found.by_hand.append(f"{path or '.'} ({'yaml' if is_by_yaml else MULTIPLY})")


# What is to be done


def _actions(
    job: Job, found: Found, balanced: "Sequence[Balanced]", plot: str, settings: Settings
) -> Iterator[Action]:
    from pipeline.balancing import multiply_text

    texts: list[tuple[Path, str, str | None, str]] = []
    for one in balanced:
        if one.leaf.fixed is None:
            text = multiply_text(one.multiply, compatible=settings.mode == "compatible")
            path = found.tree / one.leaf.path / MULTIPLY
            texts.append((path, text, found.hashes.get(one.leaf.path), one.note))
    texts += _plot_text(job, plot)
    if not job.is_dry_run:  # before they are written: a kill must not make them a person's
        with job.catalog.transaction():
            for path, text, _, _ in texts:
                job.catalog.note_written(job.project.relative(path), _sha256(text))
    for path, text, before, note in texts:
        if before != _sha256(text):
            yield Write(path, text, note, expects=before)
    for folder in sorted(found.ours - found.images.keys()):
        yield Drop(found.tree / folder / MULTIPLY, "its folder holds no pictures any more")


def _plot_text(job: Job, plot: str) -> list[tuple[Path, str, str | None, str]]:
    path = job.root / PLOT
    if not path.exists():
        return [(path, plot, None, "")]
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    if not job.catalog.is_ours(PLOT, before):
        job.warn(f"{path} was not made by celforge balance, and stays")
        return []
    return [(path, plot, before, "")]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# What is said about it


def character_rows(job: Job, found: Found, balanced: "Sequence[Balanced]") -> list[dict[str, Any]]:
    """Pictures and exposures of each character, as far as the catalogue knows the pictures of the tree.

    A picture of two characters counts for both.
    """
    names_of = _characters(job, found)
    images: Counter[str] = Counter()
    exposures: defaultdict[str, float] = defaultdict(float)
    for one in balanced:
        for name in found.images[one.leaf.path]:
            for character in names_of.get(join(one.leaf.path, name), (NOT_KNOWN,)):
                images[character] += 1
                exposures[character] += one.multiply
    total = sum(one.exposures for one in balanced)
    return [
        {
            "character": name,
            "images": images[name],
            "exposures": round(seen, 1),
            "percent": round(100 * seen / total, 1),
            "each": round(seen / images[name], 2),
        }
        for name, seen in sorted(exposures.items(), key=lambda item: (-item[1], item[0]))
    ]


def _characters(job: Job, found: Found) -> dict[str, tuple[str, ...]]:
    """Characters of the pictures that the catalogue knows at their path below the tree."""
    top = job.project.relative(found.tree)
    top = "" if top == "." else top
    condition, parameters = below(top)
    ids: dict[str, int] = {}
    sql = f"SELECT folder, name, media_id FROM paths WHERE NOT is_gone AND {condition}"
    for folder, name, media_id in job.catalog.rows(sql, parameters):
        ids[join(folder[len(top) :].lstrip("/"), name)] = media_id
    known: dict[int, tuple[str, ...]] = {}
    for media_id, facts in counting_facts(job.catalog, ("characters",), list(ids.values())):
        if "characters" in facts:
            names = facts["characters"].value
            known[media_id] = tuple(str(name).partition("|")[0] for name in names) or ("nobody",)
    return {path: known[media_id] for path, media_id in ids.items() if media_id in known}


def folder_rows(balanced: "Sequence[Balanced]") -> list[dict[str, Any]]:
    """What each folder gets, the table that is printed."""
    total = sum(one.exposures for one in balanced)
    return [
        {
            "folder": one.leaf.path or ".",
            "images": one.leaf.num_images,
            "multiply": one.multiply,
            "exposures": round(one.exposures, 1),
            "percent": round(100 * one.exposures / total, 1),
            "wanted": round(100 * one.share, 1),
            "note": one.note,
        }
        for one in balanced
    ]


def often_seen(balanced: "Sequence[Balanced]") -> str:
    """Which folders show each of their pictures very often, and what to do about it; "" where none does.

    The shortest epoch that shows every picture is a trap: two pictures beside a thousand get 100 views each.
    """
    often = sorted((one for one in balanced if one.multiply > OFTEN), key=lambda one: -one.multiply)
    if not often:
        return ""
    shown = [
        f"{one.leaf.path or '.'} (pictures: {one.leaf.num_images:,}, each {one.multiply:.4g} times)"
        for one in often[:OFTEN_SHOWN]
    ]
    more = f" and {len(often) - OFTEN_SHOWN:,} more" if len(often) > OFTEN_SHOWN else ""
    return (
        f"folders whose pictures are seen more than {OFTEN} times in one epoch: {len(often):,}: "
        f"{', '.join(shown)}{more}; a model learns so few pictures by heart. To hold them: "
        f"--max-multiply {OFTEN}, or add pictures"
    )


def plot_of(found: Found, balanced: "Sequence[Balanced]", characters: Sequence[Mapping[str, Any]]) -> str:
    """The plot, as SVG: pictures there are beside pictures seen in an epoch."""
    folders = [
        _plotted(one.leaf.path or ".", one.leaf.num_images, one.exposures, f"x {one.multiply:.4g}")
        for one in balanced
    ]
    people = [
        _plotted(str(row["character"]), row["images"], row["exposures"], f"{row['percent']:g} %")
        for row in characters
    ]
    seen, images = sum(one.exposures for one in balanced), sum(one.leaf.num_images for one in balanced)
    drawn = [
        (heading, charts.bars(charts.longest(bars, PLOT_ROWS), title=heading, legend=PLOT_LEGEND))
        for heading, bars in (("Characters", people), ("Folders", folders))
    ]
    return charts.document(
        drawn,
        title=f"{found.tree.name}: {seen:,.0f} pictures seen in an epoch",
        subtitle=f"{images:,} pictures in {len(balanced):,} folders",
        width_px=960,
    )


def _plotted(label: str, num_images: int, exposures: float, note: str) -> Bar:
    short = label if len(label) <= LABEL_LETTERS else f"\N{HORIZONTAL ELLIPSIS}{label[-LABEL_LETTERS + 1 :]}"
    text = f"{num_images:,} \N{RIGHTWARDS ARROW} {exposures:,.0f} ({note})"
    return Bar(short, exposures, text, label if short != label else "", before=num_images)


def _tell(
    report: Report,
    found: Found,
    balanced: "Sequence[Balanced]",
    characters: list[dict[str, Any]],
    settings: Settings,
) -> None:
    seen = sum(one.exposures for one in balanced)
    report.values |= {
        "images": sum(one.leaf.num_images for one in balanced),
        "images_seen_in_an_epoch": round(seen, 1),
    }
    if settings.target_images is not None and abs(seen - settings.target_images) > max(1, 0.001 * seen):
        report.values["target_images"] = f"{settings.target_images:,} is out of reach of the bounds"
    if found.by_hand:
        report.values["left_as_they_were_by_hand"] = found.by_hand
    report.parts += [
        Table("characters", characters, "characters"),
        Table("folders", folder_rows(balanced), "folders"),
    ]
