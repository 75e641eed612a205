"""Take a folder of screenshots in: read every picture, and name those that cannot be used.

Pictures at any depth are known from then on by their content: moving, renaming or deleting files loses
nothing. Nothing in the folder is changed. PNG, JPEG, WebP, AVIF, BMP, GIF and TIFF are read as every later
stage reads them: turned by EXIF, transparent parts on white, the first frame of an animation.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.job import Job, Report, no_images
from pipeline.mapped import Mapped
from pipeline.settings import Json, option

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile
    from pipeline.images import ImageHeader

STEP = "ingest.read"
VERSION = 1  # of what is noted about a picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [ingest] of celforge.toml."""

    decode: Literal["whole", "header"] = option(
        "whole",
        "Decode whole pictures, which finds truncated ones, or only their headers, many times faster.",
    )


def read_whole(file: "MediaFile") -> dict[str, Json]:
    """Decode a picture and describe it.

    Raises:
        UnreadableImageError: truncated, empty, not a picture, too many pixels.
    """
    from pipeline.images import read_image

    return _describe(read_image(file.path).header)


def read_header(file: "MediaFile") -> dict[str, Json]:
    """Describe a picture by its header.

    Raises:
        UnreadableImageError: empty, not a picture, too many pixels.
    """
    from pipeline.images import probe_image

    return _describe(probe_image(file.path))


def _describe(header: "ImageHeader") -> dict[str, Json]:
    return {
        "width_px": header.width_px,
        "height_px": header.height_px,
        "format": header.format,
        "mode": header.mode,
        "num_frames": header.num_frames,
        "notes": list(header.notes),
    }


def run(job: Job, settings: Settings) -> Report:
    """Read every picture below the job's folder, and note how each ended."""
    files = job.images()
    if not files and not job.failures:
        raise no_images(job.folder)
    read = read_whole if settings.decode == "whole" else read_header
    headers: Mapped[dict[str, Json]] = job.map(
        read, files, step=STEP, key={"decode": settings.decode, "version": VERSION}
    )
    job.settle_all(headers.files, "kept")
    return job.report(**summarize(headers))


def summarize(headers: Mapped[dict[str, Json]]) -> dict[str, Json]:
    """Counts of formats and notes, and the range of sizes in pixels."""
    formats: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    sides: list[int] = []
    total_bytes = 0
    for file, header in headers:
        formats[str(header["format"])] += 1
        notes.update(str(note) for note in header["notes"])  # type: ignore[union-attr]
        sides.append(min(int(str(header["width_px"])), int(str(header["height_px"]))))
        total_bytes += file.size_bytes
    contents = len({file.id for file in headers.files})
    summary: dict[str, Json] = {
        "pictures": len(headers),
        "distinct_contents": contents,
        "megabytes": round(total_bytes / 1e6, 1),
        "formats": dict(formats.most_common()),
        "notes": dict(notes.most_common()),
    }
    if sides:
        summary["short_side_px"] = {
            "smallest": min(sides),
            "median": sorted(sides)[(len(sides) - 1) // 2],
            "largest": max(sides),
        }
    return summary
