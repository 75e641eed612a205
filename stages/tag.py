"""Tag pictures, and keep every probability, so that thresholds can change later without a model.

Pictures are decoded ahead of the model; each picture's probabilities are kept by its content and the model,
so a run goes on where it stopped, and another threshold needs no model at all. What a person says of tags
always stands above a tagger's word. Captions are written by another command; no file is touched here.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.errors import SettingsError
from pipeline.hub import Ledger
from pipeline.job import Job, Report, no_images
from pipeline.mapped import RESULT_CHUNK, Mapped
from pipeline.settings import Json, option

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile
    from pipeline.tagging.entries import Entry
    from pipeline.tagging.model import Options, Tagger
    from pipeline.tagging.probabilities import Rule, Selector

ENTRIES_PATH = Path(__file__).with_name("taggers.toml")
# much quicker than INSERT OR REPLACE, which takes the old row out first
_NOTE = """INSERT INTO facts (media_id, name, source, value, by_hand, run_id) VALUES (?, ?, ?, ?, 0, ?)
           ON CONFLICT DO UPDATE SET value = excluded.value, by_hand = 0, run_id = excluded.run_id"""
Category = Literal["general", "character", "copyright", "artist", "meta", "rating"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [tag] of celforge.toml."""

    tagger: tuple[str, ...] = option(
        ("wd-swinv2-tagger-v3",),
        "Name of a tagger, or a folder with model.onnx and its label file; again for several together.",
        metavar="NAME|FOLDER",
    )
    combine: Literal["max", "mean", "vote"] = option(
        "mean", "How several taggers agree: any of them, their mean, or more than half of them."
    )
    threshold: float | None = option(
        None, "Least probability of general tags, instead of the tagger's own.", min=0.01, max=1
    )
    character_threshold: float | None = option(
        None, "Least probability of characters, instead of the tagger's own.", min=0.01, max=1
    )
    other_threshold: float | None = option(
        None, "Least probability of copyright, artist and meta tags, likewise.", min=0.01, max=1
    )
    tag_threshold: tuple[str, ...] = option(
        (), "Least probability of one tag, such as smile=0.6.", metavar="TAG=NUMBER"
    )
    mcut: tuple[Category, ...] = option(
        (), "Cut this category at the largest gap between probabilities instead of at a threshold."
    )
    categories: tuple[Category, ...] = option(
        ("general", "character", "copyright", "artist", "meta", "rating"), "Kinds of tags to take."
    )
    device: Literal["auto", "cuda", "tensorrt", "directml", "coreml", "openvino", "rocm", "cpu"] = option(
        "auto", "Where the model runs; a device named here is used or the run fails.", affects_result=False
    )
    batch_images: int = option(
        0,
        "Pictures that go through the model together; 0 chooses, and memory that runs out halves it.",
        min=0,
        max=1024,
        affects_result=False,
    )
    half_precision: bool = option(
        False, "Let TensorRT compute in float16.", only_if={"device": ("tensorrt",)}
    )
    fast_decode: bool = option(
        False, "Decode JPEGs at a reduced size: faster, and probabilities move a little."
    )
    resampling: Literal["tagger", "nearest", "bilinear", "bicubic", "lanczos", "area"] = option(
        "tagger", "How pictures are shrunk; area is what kohya's script does."
    )


def run(job: Job, settings: Settings) -> Report:
    """Tag every picture below the job's folder, and note what comes of it as facts."""
    from pipeline.tagging.model import find_tagger
    from pipeline.tagging.probabilities import Selector

    files = job.images()
    if not files and not job.failures:
        raise no_images(job.folder)
    options, ledger = _options(settings), Ledger(job.project.state_folder)
    names = tuple(dict.fromkeys(settings.tagger))
    taggers = [find_tagger(name, ENTRIES_PATH, job.root, ledger, options) for name in names]
    _refuse_namesakes([tagger.name for tagger in taggers])
    rules = [rule_of(settings, tagger.entry) for tagger in taggers]
    _refuse_unknown_tags(rules[0].by_tag if rules else {}, taggers)
    for text in without_effect(settings, taggers):
        job.warn(text)
    selector = Selector(
        [(tagger.labels, rule) for tagger, rule in zip(taggers, rules, strict=True)], settings.combine
    )
    kept: list[Mapped[bytes]] = []
    for tagger in taggers:  # each goes through those that the one before did not fail on
        kept.append(_probabilities(job, tagger, kept[-1].files if kept else files, options))
    joined = ",".join(tagger.name for tagger in taggers)
    source = joined if len(taggers) == 1 else f"{settings.combine}({joined})"
    summary = note_facts(job, kept, selector, source)
    return job.report(tagger=source, **summary)


def _options(settings: Settings) -> "Options":
    from pipeline.tagging.model import Options

    return Options(
        device=settings.device,
        batch_images=settings.batch_images,
        fast_decode=settings.fast_decode,
        half_precision=settings.half_precision,
        resampling=None if settings.resampling == "tagger" else settings.resampling,
    )


def rule_of(settings: Settings, entry: "Entry") -> "Rule":
    """Which tags of a tagger are taken.

    Raises:
        SettingsError: a --tag-threshold that is not TAG=NUMBER, or cannot be answered.
    """
    from pipeline.tagging.probabilities import Rule

    others = dict.fromkeys(("copyright", "artist", "meta"), settings.other_threshold)
    asked = {"general": settings.threshold, "character": settings.character_threshold, **others}
    return Rule(
        thresholds=entry.thresholds,
        overrides={category: value for category, value in asked.items() if value is not None},
        by_tag=dict(_tag_threshold(text) for text in settings.tag_threshold),
        by_mcut=settings.mcut,
        categories=settings.categories,
    )


def _tag_threshold(text: str) -> tuple[str, float]:
    from pipeline.tagging.probabilities import KEPT_FROM

    name, is_pair, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not is_pair or not name or not KEPT_FROM <= value <= 1:
        wanted = f"TAG=NUMBER with a number from {KEPT_FROM} to 1"
        raise SettingsError(f'tag_threshold must be {wanted}, found "{text}"', hint="such as smile=0.6")
    return name, value


def _refuse_namesakes(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SettingsError(f'two taggers are named "{twice[0]}"', hint="rename the folder of one of them")


def _refuse_unknown_tags(by_tag: Mapping[str, float], taggers: "Sequence[Tagger]") -> None:
    from pipeline.settings import nearest

    known = {name for tagger in taggers for name in tagger.labels.names}
    for name in by_tag:
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean "{near}"?' if near else "its label file has them all"
            raise SettingsError(f'tag_threshold names "{name}", which no tagger here knows', hint=hint)


def without_effect(settings: Settings, taggers: "Sequence[Tagger]") -> Iterator[str]:
    """What was asked for that changes nothing, as sentences."""
    from pipeline.tagging.labels import CATEGORIES

    wanted = set(settings.categories) & {CATEGORIES[at] for one in taggers for at in one.kinds}
    by_threshold = wanted - set(settings.mcut) - {"rating"}
    asked = {
        "threshold": (settings.threshold, {"general"}),
        "character_threshold": (settings.character_threshold, {"character"}),
        "other_threshold": (settings.other_threshold, {"copyright", "artist", "meta"}),
    }
    for name, (value, kinds) in asked.items():
        if value is not None and not kinds & by_threshold:
            cut = kinds & wanted & set(settings.mcut)
            why = "mcut cuts these tags" if cut else f"no {' or '.join(sorted(kinds))} tags are taken"
            yield f"{name} has no effect: {why}"
    for kind in settings.mcut:
        if kind not in wanted - {"rating"}:
            why = "the likeliest one is taken" if kind == "rating" else f"no {kind} tags are taken"
            yield f"mcut {kind} has no effect: {why}"
    known = {
        name: CATEGORIES[at]
        for one in taggers
        for name, at in zip(one.labels.names, one.labels.categories, strict=True)
        if settings.tag_threshold
    }
    for name, _ in map(_tag_threshold, settings.tag_threshold):
        if known[name] not in wanted - {"rating"}:
            yield f"tag_threshold {name} has no effect: no {known[name]} tags are taken by thresholds"
    if len(taggers) == 1 and settings.combine != "mean":
        yield f"combine {settings.combine} has no effect: there is one tagger"


def _probabilities(
    job: Job, tagger: "Tagger", files: "Sequence[MediaFile]", options: "Options"
) -> Mapped[bytes]:
    return job.map_batches(
        lambda: tagger.open(options, job.project.state_folder / "cache" / "engines"),
        files,
        step=f"tag.{tagger.name}",
        key=tagger.key(options),
    )


def note_facts(job: Job, kept: Sequence[Mapped[bytes]], selector: "Selector", source: str) -> dict[str, Json]:
    """Turn kept probabilities into facts of the source; returns the numbers of the report."""
    from pipeline.tagging.probabilities import FACTS

    names = tuple(FACTS.values())
    by_hand = _facts_by_hand(job)
    noted = _facts_noted(job, source)
    edited = {media_id for media_id, name, _ in by_hand if name == "tags"}
    counts: list[int] = []
    ratings: Counter[str] = Counter()
    hand_edited = 0
    for chunk in _chunks(kept):
        job.check_stop()
        said: list[tuple[object, ...]] = []
        taken_back: list[tuple[int, str, str]] = []
        selected = selector.select([values for _, values in chunk])
        for (file, _), selection in zip(chunk, selected, strict=True):
            texts = {"tags": "{}"} | selection.texts  # seen, and nothing found: not the same as never tagged
            for name in names:
                if (file.id, name, source) in by_hand:
                    continue
                if name in texts:
                    said.append((file.id, name, source, texts[name], job.run_id))
                elif (file.id, name) in noted:
                    taken_back.append((file.id, name, source))
            counts.append(selection.num_tags)
            ratings[selection.rating or "none"] += 1
            hand_edited += file.id in edited
        with job.catalog.transaction():  # thousands of rows at once are much quicker than one by one
            job.catalog.execute_many(_NOTE, said)
            clear = "DELETE FROM facts WHERE media_id = ? AND name = ? AND source = ?"
            job.catalog.execute_many(clear, taken_back)
            job.settle_all((file for file, _ in chunk), "kept")
    return _summary(counts, ratings, hand_edited)


def _facts_by_hand(job: Job) -> set[tuple[int, str, str]]:
    sql = "SELECT media_id, name, source FROM facts WHERE by_hand"
    return {(row[0], row[1], row[2]) for row in job.catalog.rows(sql)}


def _facts_noted(job: Job, source: str) -> set[tuple[int, str]]:
    """What this source said before, which a new threshold may take back."""
    return set(job.catalog.rows("SELECT media_id, name FROM facts WHERE source = ?", (source,)).fetchall())


def _chunks(kept: Sequence[Mapped[bytes]]) -> "Iterator[list[tuple[MediaFile, list[bytes]]]]":
    """Each content once, with what every tagger kept of it; those that a tagger failed on are left out."""
    everywhere = set.intersection(*({file.id for file in one.files} for one in kept))
    rows = [((file, data) for file, data in one if file.id in everywhere) for one in kept]
    seen: set[int] = set()
    chunk: list[tuple[MediaFile, list[bytes]]] = []
    for parts in zip(*rows, strict=True):
        file = parts[0][0]
        if file.id in seen:
            continue
        seen.add(file.id)
        chunk.append((file, [data for _, data in parts]))
        if len(chunk) == RESULT_CHUNK:
            yield chunk
            chunk = []
    yield chunk


def _summary(counts: Sequence[int], ratings: Counter[str], hand_edited: int) -> dict[str, Json]:
    ordered = sorted(counts)
    summary: dict[str, Json] = {
        "pictures": len(counts),
        "without_tags": sum(not count for count in counts),
        "ratings": dict(ratings.most_common()),
    }
    if ordered:
        summary["tags_per_picture"] = {
            "fewest": ordered[0],
            "median": ordered[len(ordered) // 2],
            "most": ordered[-1],
        }
    if hand_edited:
        summary["tags_by_hand_kept"] = hand_edited
    return summary
