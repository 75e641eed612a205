"""Drop near-identical pictures over a whole set, and keep the best of each.

Copies that were re-encoded, rescaled, cropped, subtitled or brightened are found.
Hashes propose, a comparison of the pictures themselves decides: another mouth is another picture. The best of
a group stays, the others go to .celforge/dropped/ with their captions, and `celforge undo` brings them back.
Running it again looks only at what is new, and compares it with everything known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.companions import is_mask
from pipeline.errors import InputError, SettingsError
from pipeline.job import Job, Report, no_images
from pipeline.plan import Plan, SetOutcome
from pipeline.settings import Json, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.catalog import MediaFile
    from pipeline.comparing import Comparer
    from pipeline.duplicate_removal import Removal
    from pipeline.duplicates import Found
    from pipeline.embeddings import Embedder
    from pipeline.picture_quality import Quality
    from pipeline.star_groups import Member

HAS_PLAN = True
SIGNATURE_STEP, COMPARE_STEP = "dedupe.signature", "dedupe.compare"
QUALITY_STEP, EMBEDDING_STEP = "dedupe.quality", "dedupe.embedding"
EMBEDDING_BATCH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [dedupe] of celforge.toml."""

    tier: Literal["bytes", "pixels", "near"] = option(
        "near",
        "What counts as the same picture: the same bytes, the same pixels, or the same to the eye.",
    )
    hash_bits: int = option(
        8,
        "Pictures whose 64-bit hashes differ by up to this are compared.",
        min=0,
        max=12,
        only_if={"tier": ("near",)},
    )
    flips: bool = option(False, "Mirror images count as the same picture.", only_if={"tier": ("near",)})
    protect: tuple[Path, ...] = option(
        (), "Never drop what lies in this folder; others are dropped in favour of it.", metavar="FOLDER"
    )
    embedding: Path | None = option(
        None, "An ONNX image model whose vectors find more; what it finds is dropped unseen.", metavar="FILE"
    )
    embedding_threshold: float = option(
        0.98, "Least cosine of two vectors of the model for the same picture.", min=0.5, max=1.0
    )
    embedding_input: Literal["imagenet", "zero-to-one", "minus-one-to-one", "levels"] = option(
        "imagenet", "How the model wants RGB: by mean and deviation of ImageNet, or in these ranges."
    )
    device: Literal["auto", "cuda", "tensorrt", "directml", "coreml", "openvino", "rocm", "cpu"] = option(
        "auto", "Where the model of --embedding runs.", affects_result=False
    )
    sheet: Path | None = option(
        None,
        "Where the contact sheet of the groups is written, also in a dry run; else report/ gets one.",
        metavar="FILE",
        affects_result=False,
    )


def run(job: Job, settings: Settings) -> Report:
    """Drop what is there twice below the job's folder."""
    from pipeline.duplicate_removal import TIERS, Removal, check_sheet

    check_sheet(settings.sheet)
    protected = [_protected_folder(job, folder) for folder in settings.protect]
    pictures = _pictures(job, protected)
    if not pictures and not job.failures:
        raise no_images(job.folder)
    removal = Removal(job, protected)
    contents = removal.take_copies(pictures)
    contents = removal.take_known(contents, TIERS.index("model" if settings.embedding else settings.tier))
    if settings.tier != "bytes":
        _find_and_take(job, settings, removal, contents)
    report = job.apply(Plan("dedupe", removal.actions))
    removal.warn()
    if not job.is_dry_run:
        _settle_rest(job, removal, contents)
        report.counts = job.report().counts
    report.made += removal.write_sheets(settings.sheet)[:1]
    report.values.update(removal.summary(len(pictures)))
    return report


def _settle_rest(job: Job, removal: "Removal", contents: "Sequence[MediaFile]") -> None:
    """Note that what no group holds is kept."""
    noted = {action.content for action in removal.actions if isinstance(action, SetOutcome)}
    failed = {failure.path for failure in job.failures}
    rest = [file for file in contents if file.content not in noted and file.relative not in failed]
    job.settle_all(rest, "kept")


def _protected_folder(job: Job, folder: Path) -> Path:
    """A folder of --protect, absolute.

    Raises:
        InputError: it is not a folder of this project.
    """
    absolute = Path(folder).expanduser()
    candidates = [absolute] if absolute.is_absolute() else [Path.cwd() / absolute, job.root / absolute]
    for one in candidates:
        if one.is_dir() and one.resolve().is_relative_to(job.root.resolve()):
            return job.root / one.resolve().relative_to(job.root.resolve())
    raise InputError(
        f"--protect {folder} is not a folder of the project {job.root}",
        hint="give a folder in it, or move the pictures there first",
    )


def _pictures(job: Job, protected: Sequence[Path]) -> "list[MediaFile]":
    """Every picture below the job's folder and in protected ones, masks of others aside, each path once."""
    from pipeline.scan import index_folder, media_files

    kinds: tuple[Literal["image"]] = ("image",)
    found = {file.relative: file for file in job.images()}
    for folder in protected:
        if not folder.is_relative_to(job.folder):
            index_folder(job.catalog, job.project, folder, kinds, workers=job.workers)
            found |= {file.relative: file for file in media_files(job.catalog, job.project, folder, kinds)}
    return [file for file in found.values() if not is_mask(file.path.name)]


# Finding


def _find_and_take(job: Job, settings: Settings, removal: "Removal", contents: "Sequence[MediaFile]") -> None:
    """Group the contents, and take all but the best of each group, until nothing more is found."""
    from pipeline.comparing import Comparer, Entry
    from pipeline.duplicates import Finder
    from pipeline.picture_signature import RECIPE, Signature

    signed = job.map(_sign, contents, step=SIGNATURE_STEP, key=RECIPE)
    files = [file for file, _ in signed]
    entries = [Entry(file.id, file.path, Signature.unpack(value)) for file, value in signed]
    comparer = Comparer(entries, _known(job, files), is_exact=settings.tier == "pixels")
    finder = Finder(
        comparer,
        [_rank(removal, file, entry) for file, entry in zip(files, entries, strict=True)],
        settings.hash_bits if settings.tier == "near" else 12,
        settings.flips and settings.tier == "near",
        _alike(job, settings, files),
        job.workers,
    )
    removal.look(files, comparer)
    left = list(range(len(files)))
    try:
        while True:
            with job.progress(len(left), "picture", title="comparing") as bar:
                groups = finder.groups(left, bar.advance, job.check_stop)
            groups = {first: members for first, members in groups.items() if members}
            if not groups:
                return
            taken = removal.take_groups(groups, _judge(job, files, groups))
            left = [place for place in left if place not in taken]
            if not taken:
                return
    finally:
        _remember(job, comparer)


def _sign(file: "MediaFile") -> bytes:
    from pipeline.picture_signature import sign

    return sign(file.path).pack()


def _rank(removal: "Removal", file: "MediaFile", entry: Any) -> tuple[Any, ...]:
    """Which picture begins a group: protected ones, then large ones, then big files, then by name."""
    signature = entry.signature
    area = signature.width_px * signature.height_px
    return (not removal.is_protected(file), -area, -file.size_bytes, removal.place_of[file.id])


def _known(job: Job, files: "Sequence[MediaFile]") -> dict[Any, Any]:
    """What earlier runs found when they compared these pictures."""
    from pipeline.comparing import KEY, unpack

    step_id = job.catalog.step_id(COMPARE_STEP, KEY)
    assert step_id is not None
    known: dict[Any, Any] = {}
    for media_id, packed in job.catalog.results(step_id, [file.id for file in files]).items():
        known |= unpack(media_id, packed)
    return known


def _remember(job: Job, comparer: "Comparer") -> None:
    """Keep what was found, so that the next run need not read these pictures again."""
    from pipeline.comparing import KEY, pack

    step_id = job.catalog.step_id(COMPARE_STEP, KEY)
    assert step_id is not None
    packed = pack(comparer.found)
    with job.catalog.transaction():
        earlier = job.catalog.results(step_id, list(packed))
        for media_id, found in packed.items():
            job.catalog.add_result(step_id, media_id, earlier.get(media_id, {}) | found, job.run_id)


def _judge(
    job: Job, files: "Sequence[MediaFile]", groups: "Mapping[int, Sequence[Member[Found]]]"
) -> "dict[int, Quality]":
    """The quality of every picture of a group, by content id; what cannot be read whole is left out."""
    from pipeline.picture_quality import VERSION, Quality

    members = [
        files[place] for first, group in groups.items() for place in (first, *(one.picture for one in group))
    ]
    judged = job.map(_measure, members, step=QUALITY_STEP, key={"version": VERSION})
    return {file.id: Quality(*value) for file, value in judged}


def _measure(file: "MediaFile") -> list[Any]:
    from pipeline.picture_quality import measure

    return list(astuple(measure(file.path.read_bytes())))


def _alike(job: Job, settings: Settings, files: "Sequence[MediaFile]") -> dict[int, dict[int, float]]:
    """Pairs that the model finds alike, in both directions."""
    if settings.embedding is None:
        return {}
    if settings.tier != "near":
        raise SettingsError("embedding needs tier = near", hint="leave out --tier")
    import numpy as np

    from pipeline.embeddings import Embedder, alike
    from pipeline.onnx import open_session
    from pipeline.scan import hash_file

    model = settings.embedding

    def open_embedder() -> _Embed:
        embedder = Embedder(open_session(model, settings.device), settings.embedding_input)
        embedder.check(model)
        return _Embed(embedder)

    key: dict[str, Json] = {
        "model": hash_file(model),
        "input": settings.embedding_input,
        "version": 1,
    }
    vectors = job.map_batches(open_embedder, files, step=EMBEDDING_STEP, key=key)
    place_of = {file.id: place for place, file in enumerate(files)}
    places = [place_of[file.id] for file in vectors.files]
    matrix = (
        np.stack([np.frombuffer(value, np.float16) for _, value in vectors])
        if places
        else np.empty((0, 1), np.float16)
    )
    pairs: dict[int, dict[int, float]] = {}
    for first, second, cosine in alike(matrix, settings.embedding_threshold):
        pairs.setdefault(places[first], {})[places[second]] = cosine
        pairs.setdefault(places[second], {})[places[first]] = cosine
    return pairs


@dataclass(frozen=True, slots=True)
class _Embed:
    """What `Job.map_batches` asks: pictures in, packed vectors out."""

    embedder: "Embedder"

    @property
    def batch_items(self) -> int:
        """As many as an export with a fixed batch takes, else a number that fits any card."""
        return self.embedder.session.fixed_batch or EMBEDDING_BATCH

    def prepare(self, file: "MediaFile") -> "NDArray[np.float32]":
        """One picture as the model takes it."""
        from pipeline.images import read_image

        return self.embedder.prepare(read_image(file.path).pixels)

    def run(self, batch: "NDArray[Any]") -> list[bytes]:
        """A vector for each, float16."""
        return [vector.tobytes() for vector in self.embedder.embed(batch)]
