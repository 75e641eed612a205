"""Traps in pictures: what cannot be decoded, what trainers read otherwise than celforge, and how they fit."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

from pipeline.errors import UnreadableImageError
from pipeline.layouts.buckets import (
    KOHYA_MAX_PX,
    KOHYA_MIN_PX,
    STEP_PX,
    Bucket,
    buckets,
    everydream_buckets,
    fit,
    kohya_buckets,
    nearest_bucket,
    nearest_by_ratio,
)
from pipeline.lint.reading import Reading, join, plain
from pipeline.lint.show import plural
from pipeline.lint.traps import Finding, Trainer
from pipeline.settings import Json

if TYPE_CHECKING:
    from pipeline.catalog import Catalog, MediaFile
    from pipeline.images import ImageHeader

STEP = "check.picture"
VERSION = 1  # of what is noted about a picture
MOST_CUT = 0.2  # share of a picture
LEAST_AREA = 0.8  # of the bucket that a picture could have

CHARACTERS = "characters"  # fact: names of those on a picture


def describe_whole(file: "MediaFile") -> dict[str, Json]:
    """Decode a picture and describe it, also one that is damaged.

    Raises:
        UnreadableImageError: the file cannot be opened; another time it may.
    """
    from pipeline.images import read_image

    return _described(file, lambda: read_image(file.path).header, is_whole=True)


def describe_header(file: "MediaFile") -> dict[str, Json]:
    """Describe a picture by its header.

    Raises:
        UnreadableImageError: the file cannot be opened; another time it may.
    """
    from pipeline.images import probe_image

    return _described(file, lambda: probe_image(file.path), is_whole=False)


def _described(file: "MediaFile", read: Any, *, is_whole: bool) -> dict[str, Json]:
    try:
        header: ImageHeader = read()
    except UnreadableImageError as error:
        cause = error.__cause__
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None):
            raise  # the machine's fault, not the file's
        return {"problem": error.reason}
    has_alpha = any(note.startswith("transparent") for note in header.notes)
    return {
        "width_px": header.width_px,
        "height_px": header.height_px,
        "orientation": header.orientation,
        "format": header.format,
        "mode": header.mode,
        "num_frames": header.num_frames,
        "notes": list(header.notes),
        "shows_through": _shows_through(file) if has_alpha and is_whole else None,
    }


def _shows_through(file: "MediaFile") -> bool:
    """Whether any pixel is not wholly opaque."""
    from PIL import Image

    with Image.open(file.path) as image:
        lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(lowest, (int, float)) and lowest < 255


def picture_findings(
    described: Iterable[tuple[str, Mapping[str, Any]]], trainers: frozenset[Trainer]
) -> Iterator[Finding]:
    """What is odd about each picture by itself: (path, what `describe_*` said)."""
    for path, one in described:
        if "problem" in one:
            yield Finding("corrupt-picture", path, one["problem"])
            continue
        notes = one["notes"]
        if one["orientation"] != 1 and "kohya" in trainers:
            yield Finding("turned-by-exif", path, f"orientation {one['orientation']}")
        if one["shows_through"]:
            yield Finding("transparent", path)
        elif one["shows_through"] is None and any(note.startswith("transparent") for note in notes):
            yield Finding("alpha-channel", path)
        if any(note.startswith("more than 8 bits") for note in notes):
            yield Finding("deep-colour", path, f"mode {one['mode']}")
        if one["mode"] == "CMYK":
            yield Finding("cmyk", path)
        if one["num_frames"] > 1:
            yield Finding("animated", path, f"{one['num_frames']} frames")
        named = next((note for note in notes if " file named " in note), None)
        if named:
            yield Finding("wrong-suffix", path, f"a {named}")


@dataclass(frozen=True, slots=True)
class _Rules:
    """The bucket settings of one trainer for one folder."""

    trainer: Trainer
    resolution_px: int
    min_px: int = KOHYA_MIN_PX
    max_px: int = KOHYA_MAX_PX
    step_px: int = STEP_PX


def bucket_findings(
    reading: Reading, sizes: Mapping[str, Mapping[str, Any]], resolution_px: int
) -> tuple[list[Finding], list[dict[str, Any]]]:
    """How the pictures of a trainer fit into its buckets: what is wrong, and one row a bucket.

    Args:
        sizes: what `describe_*` said, by path.
    """
    findings: list[Finding] = []
    pictures: Counter[Bucket] = Counter()
    exposures: dict[Bucket, Fraction] = defaultdict(Fraction)
    for folder, read in reading.folders.items():
        rules = _rules(reading.trainer, read.options, resolution_px)
        here: Counter[Bucket] = Counter()
        for name in read.names:
            path = join(folder, name)
            one = sizes.get(path)
            if one is None or "problem" in one:
                continue
            bucket, traps = _judge(rules, *_seen_size(one, reading.trainer))
            if bucket is None:
                continue
            findings += [Finding(trap, path, detail) for trap, detail in traps]
            pictures[bucket] += 1
            if name in read.own:
                exposures[bucket] += read.own[name]
            else:
                here[bucket] += 1
        for bucket, count in here.items():
            exposures[bucket] += count * read.repeats
    order = sorted(pictures, key=lambda bucket: (-exposures[bucket], bucket))
    rows = [
        {
            "bucket": str(bucket),
            "aspect": f"{bucket.aspect:.2f}",
            "pictures": pictures[bucket],
            "exposures": plain(exposures[bucket]),
        }
        for bucket in order
    ]
    return findings, rows


def _rules(trainer: Trainer, options: Mapping[str, Any], resolution_px: int) -> _Rules:
    if trainer != "kohya":
        return _Rules(trainer, resolution_px)
    found = options.get("resolution", resolution_px)
    if isinstance(found, list) and len(found) == 2:
        found = math.isqrt(int(found[0]) * int(found[1]))
    return _Rules(
        trainer,
        int(found) if isinstance(found, int) else resolution_px,
        int(options.get("min_bucket_reso", KOHYA_MIN_PX)),
        int(options.get("max_bucket_reso", KOHYA_MAX_PX)),
        int(options.get("bucket_reso_steps", STEP_PX)),
    )


def _seen_size(one: Mapping[str, Any], trainer: Trainer) -> tuple[int, int]:
    """Width and height as the trainer sees them: kohya does not turn by EXIF."""
    width, height = one["width_px"], one["height_px"]
    return (height, width) if trainer == "kohya" and one["orientation"] > 4 else (width, height)


@cache
def _judge(rules: _Rules, width: int, height: int) -> tuple[Bucket | None, tuple[tuple[str, str], ...]]:
    """The bucket of a size, and the (trap, detail) that it meets."""
    sizes = _sizes(rules)
    if not sizes:
        return None, ()
    bucket = nearest_by_ratio(width, height, sizes)
    fitted = fit(width, height, bucket)
    traps = []
    if fitted.scale > 1:
        traps.append(("too-small", f"{width}x{height}, enlarged {fitted.scale:.2f} times to {bucket}"))
    if fitted.cut_share > MOST_CUT:
        traps.append(("extreme-aspect", f"{width}x{height}: {fitted.cut_share:.0%} is cut away"))
    if rules.trainer == "kohya" and rules.resolution_px >= 2 * STEP_PX:
        best = nearest_bucket(width, height, buckets(rules.resolution_px))
        if bucket.area_px < LEAST_AREA * best.area_px:
            traps.append(("bucket-limit", f"{bucket} instead of {best}"))
    return bucket, tuple(traps)


@cache
def _sizes(rules: _Rules) -> tuple[Bucket, ...]:
    if rules.trainer == "everydream":
        return everydream_buckets(rules.resolution_px) or ()
    return kohya_buckets(rules.resolution_px, min_px=rules.min_px, max_px=rules.max_px, step_px=rules.step_px)


def duplicate_findings(places: Mapping[int, Sequence[str]], texts: Mapping[str, int]) -> Iterator[Finding]:
    """Pictures whose bytes lie at several places.

    Args:
        places: paths by content.
        texts: hash of the caption by the picture's path without its suffix.
    """
    for paths in places.values():
        if len(paths) < 2:
            continue
        differ = len({texts.get(path.rpartition(".")[0]) for path in paths}) > 1
        more = f" and {len(paths) - 4:,} more" if len(paths) > 4 else ""
        detail = f"also {', '.join(paths[1:4])}{more}{'; their captions differ' if differ else ''}"
        yield Finding("duplicate-picture", paths[0], detail, len(paths))


def character_findings(catalog: "Catalog", present: frozenset[int]) -> Iterator[Finding]:
    """Characters that the catalogue knows pictures of, and that are on none of the pictures given.

    Args:
        present: contents that lie in the tree. Nothing is said where the catalogue names nobody on them.
    """
    sql = """SELECT media_id, value FROM facts WHERE name = ?
             ORDER BY media_id, by_hand DESC, run_id DESC, source"""
    import json

    here: set[str] = set()
    elsewhere: Counter[str] = Counter()
    last = None
    for media_id, value in catalog.rows(sql, (CHARACTERS,)):
        if media_id == last:
            continue  # the first word counts
        last = media_id
        names = [str(name) for name in json.loads(value)]
        if media_id in present:
            here.update(names)
        else:
            elsewhere.update(names)
    if here:
        for name in sorted(set(elsewhere) - here):
            yield Finding(
                "character-without-pictures", ".", f"{name}: {plural(elsewhere[name], 'picture')} elsewhere"
            )
