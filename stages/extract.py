"""Turn videos into the frames worth training on: each picture once, by its sharpest frame.

Held drawings are kept once, also when they come again later or in another episode; pans, zooms and fights
give a frame now and then; nothing is taken out of a cross-fade where a clean frame exists. The frames of a
video go to frames/EPISODE/, named by their time in it. Running the same command again goes on where it
stopped, and takes new videos in.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.episodes import (
    EPISODE,
    EXTRACTED,
    STEP,
    EpisodeNames,
    kept_signatures,
    remove_folder,
    staging_folder,
)
from pipeline.errors import InputError, SettingsError
from pipeline.job import Failure, Job, Report
from pipeline.many_objects import many_objects
from pipeline.plan import Action, Drop, Move, Plan, SetFact, SetOutcome
from pipeline.scan import note_made
from pipeline.settings import Json, as_json, digest, option

if TYPE_CHECKING:
    from pipeline.catalog import MediaFile
    from pipeline.console import Counter as Bar
    from pipeline.extraction import Request
    from pipeline.picture_memory import SignatureIndex

HAS_PLAN = True
VERSION = 2  # of the way frames are chosen
FRAMES_FOLDER = "frames"
FRAME_SOURCE = "source"  # fact of a frame: where it comes from
KEPT_ELSEWHERE = "kept in another episode"
MOST_DECODER_THREADS = 16  # FFmpeg advises against more


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [extract] of celforge.toml."""

    keyframes: bool = option(False, "Only look at key frames: ten times faster, one or two frames a shot.")
    every: float | None = option(
        None, "Take a frame every so many seconds instead of deciding.", min=0.01, metavar="SECONDS"
    )
    scenes: int | None = option(
        None,
        "Take up to N frames of every shot, spread over it, also of shots that come again.",
        min=1,
        max=16,
    )
    max_per_shot: int | None = option(
        None, "Keep no more frames of one shot than this, spread over it.", min=1, max=64
    )
    motion_interval_s: float = option(
        0.5, "Seconds between frames of what never holds still.", min=0.04, max=60, metavar="SECONDS"
    )
    min_hold_s: float = option(
        0.195, "A picture shown this long is always kept.", min=0, max=60, metavar="SECONDS"
    )
    change_levels: float = option(
        2.0,
        "Smallest change that makes another picture: mean of 255 levels over a 30 px box of a 1080p frame.",
        min=0.5,
        max=50,
    )
    repeats: bool = option(False, "Keep pictures that came before, in this episode or in another.")
    skip: tuple[Literal["black", "white", "title", "flash", "fade"], ...] = option(
        (), "Never keep such frames, not even as the only ones of their shot."
    )
    crop_bars: bool = option(False, "Cut black bars off, found over the whole video.")
    deinterlace: Literal["auto", "off", "on"] = option(
        "auto", "Deinterlace frames that say they are interlaced, none, or all."
    )
    video_stream: int = option(0, "Which video stream of a file that has several.", min=0, max=99)
    format: Literal["jpg", "png", "webp"] = option("jpg", "How frames are written; png is lossless.")
    quality: int = option(
        95, "Of jpg and webp; webp of 100 is lossless.", min=1, max=100, only_if={"format": ("jpg", "webp")}
    )
    again: bool = option(
        False, "Extract again what was extracted before; earlier frames are dropped.", affects_result=False
    )


@many_objects()  # also while libraries load
def run(job: Job, settings: Settings) -> Report:
    """Extract every video below the job's folder, and put the frames in their place."""
    check(settings)
    videos = _distinct(job.videos())
    if not videos and not job.failures:
        raise InputError(
            f"{job.folder} holds no videos, at any depth",
            hint="give the folder with your episodes: mkv, mp4, webm, avi, ts, m2ts, mov, wmv, flv",
        )
    key: dict[str, Json] = {"version": VERSION, **as_json(settings, only_results=True)}
    _forget_lost(job, videos, key, is_again=settings.again)
    results = _extract_all(job, videos, settings, key)
    plan = _plan(job, results, settings, digest(key))
    report = job.apply(Plan("extract", plan.actions))
    report.counts.clear()  # of videos and frames together; the values tell them apart
    if not job.is_dry_run:
        plan.clean()
        note_made(job.catalog, job.project, plan.placed)
    report.values.update(plan.summary())
    report.made += plan.folders
    return report


def _plan(
    job: Job, results: "Sequence[tuple[MediaFile, dict[str, Any]]]", settings: Settings, key_digest: str
) -> "Publishing":
    """What to do with the frames of all videos: a picture of several episodes is kept in the first."""
    from pipeline.extraction import unpack_signatures
    from pipeline.picture_memory import SignatureIndex

    index = None
    if not settings.repeats and settings.scenes is None:
        index = SignatureIndex()
        facts = {video.id: job.catalog.fact(video.id, EXTRACTED) for video, _ in results}
        anew = {one for one, fact in facts.items() if settings.again or not is_in_place(fact, key_digest)}
        for packed in kept_signatures(job.catalog, leave_out=anew):
            index.extend(unpack_signatures(packed))
    plan = Publishing(job, key_digest, index, settings.again)
    names = EpisodeNames(job.catalog)
    for video, result in results:
        plan.add(video, result, "" if "skipped" in result else names.name(video))
    return plan


def check(settings: Settings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        SettingsError: two modes at once.
    """
    given = [
        name
        for name, is_given in (
            ("keyframes", settings.keyframes),
            ("every", settings.every is not None),
            ("scenes", settings.scenes is not None),
        )
        if is_given
    ]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} exclude each other", hint=f"leave out {given[-1]}")


def request_of(settings: Settings, threads: int) -> "Request":
    """The settings as one pass over a video takes them."""
    from pipeline.extraction import Request
    from pipeline.frame_choice import Rules

    rules = Rules(
        hold_s=settings.min_hold_s,
        motion_interval_s=settings.motion_interval_s,
        base_levels=settings.change_levels,
        most_per_shot=settings.scenes or settings.max_per_shot,
        has_memory=not settings.repeats and settings.scenes is None,
        skip=frozenset(settings.skip),
    )
    return Request(
        mode="keyframes" if settings.keyframes else "every" if settings.every is not None else "changes",
        every_s=settings.every or 1.0,
        rules=rules,
        stream=settings.video_stream,
        threads=threads,
        deinterlace=settings.deinterlace,
        crops_bars=settings.crop_bars,
        format=settings.format,
        quality=settings.quality,
    )


def _distinct(videos: "Sequence[MediaFile]") -> "list[MediaFile]":
    """Each content once, by its first path."""
    first: dict[int, MediaFile] = {}
    for video in videos:
        first.setdefault(video.id, video)
    return list(first.values())


# Decode and choose


def _extract_all(
    job: Job, videos: "Sequence[MediaFile]", settings: Settings, key: Mapping[str, Json]
) -> "list[tuple[MediaFile, dict[str, Any]]]":
    """One pass over each video that was not gone through yet, several at once; frames go to the staging."""
    import cv2

    step_id = job.catalog.step_id(STEP, dict(key))
    assert step_id is not None
    known = job.catalog.known_results(step_id)
    todo = [video for video in videos if video.id not in known]
    threads = max(1, job.workers // max(1, min(len(todo), job.workers)))
    if threads > 1:
        # those of the decoder go on while a frame is looked at: 6 on 2 cores take a tenth of the time less
        threads = min(MOST_DECODER_THREADS, 2 * threads + 2)
    request = request_of(settings, threads)
    num_cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the grids are small; waking threads for them costs more than they do
    try:
        from concurrent.futures import ThreadPoolExecutor

        with (
            job.progress(_total_frames(todo, request), "frame", title="extract") as bar,
            ThreadPoolExecutor(job.workers) as pool,
        ):
            one = _OneVideo(job, request, pool, bar, digest(dict(key)))
            return list(job.map(one, videos, step=STEP, key=dict(key), unit="video", bar=bar))
    finally:
        cv2.setNumThreads(num_cv_threads)


@dataclass(frozen=True, slots=True)
class _OneVideo:
    """What `Job.map` calls for each video."""

    job: Job
    request: "Request"
    pool: Executor
    bar: "Bar"
    key_digest: str

    def __call__(self, video: "MediaFile") -> dict[str, Any]:
        from pipeline.extraction import extract_video
        from pipeline.video_headers import UnreadableVideoError

        folder = staging_folder(self.job.project.state_folder, video, self.key_digest)
        remove_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = extract_video(
                video.path,
                folder,
                self.request,
                self.pool,
                on_frames=self.bar.advance,
                check_stop=self.job.check_stop,
            )
        except UnreadableVideoError as error:
            remove_folder(folder)
            if error.is_damaged:
                raise
            return {"skipped": error.reason}
        return found.record()


def _total_frames(videos: "Sequence[MediaFile]", request: "Request") -> int | None:
    """How many frames there are to go through, as far as the headers say."""
    from pipeline.video import VideoReader
    from pipeline.video_headers import UnreadableVideoError

    if request.mode == "keyframes":
        return None
    total = 0
    for video in videos:
        try:
            with VideoReader(video.path, stream=request.stream) as reader:
                total += reader.info.num_frames or 0
        except (UnreadableVideoError, OSError):
            continue
    return total or None


def _forget_lost(job: Job, videos: "Sequence[MediaFile]", key: Mapping[str, Json], *, is_again: bool) -> None:
    """Let passes be made again whose frames are neither in their place nor waiting for it."""
    step_id = job.catalog.step_id(STEP, dict(key))
    assert step_id is not None
    key_digest = digest(dict(key))
    for video in videos:
        result = job.catalog.results(step_id, [video.id]).get(video.id)
        extracted = job.catalog.fact(video.id, EXTRACTED)
        if result is None or "skipped" in result:
            continue
        is_done = is_in_place(extracted, key_digest) and not is_again
        folder = staging_folder(job.project.state_folder, video, key_digest)
        if not is_done and not all((folder / frame["name"]).is_file() for frame in result["frames"]):
            job.catalog.rows("DELETE FROM results WHERE step_id = ? AND media_id = ?", (step_id, video.id))


# Put frames in their place


@dataclass(slots=True)
class Publishing:
    """Collects what is to be done with the frames of every video, in the order of the videos.

    Args:
        key_digest: of the settings in force.
        index: pictures of episodes whose frames stay as they are; None keeps pictures that come again.
    """

    job: Job
    key_digest: str
    index: "SignatureIndex | None"
    is_again: bool
    actions: list[Action] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kept_as: Counter[str] = field(default_factory=Counter)
    dropped_as: Counter[str] = field(default_factory=Counter)
    staged: list[Path] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)  # frame, relative to the project -> its content

    def add(self, video: "MediaFile", result: dict[str, Any], episode: str) -> None:
        """Plan for one video."""
        if "skipped" in result:
            self.job.warn(f"{video.relative}: {result['skipped']}; skipped")
            self.job.settle(video, "dropped", str(result["skipped"]))
            self.counts["videos_passed_over"] += 1
            return
        settle_video(self.job, video, result["problems"])
        self.counts["videos"] += 1
        self.counts["frames_decoded"] += int(result["num_frames"])
        self.dropped_as.update(result["dropped"])
        before = self.job.catalog.fact(video.id, EXTRACTED)
        if is_in_place(before, self.key_digest) and not self.is_again:
            self.counts["frames_in_place"] += len(before["frames"])
            return
        if before is not None:
            self._drop_earlier(before)
        self._place(video, result, episode)

    def _drop_earlier(self, before: Mapping[str, Any]) -> None:
        """Frames of an earlier extraction, where they still lie as they were written."""
        from pipeline.scan import hash_file

        for relative, sha256 in before["frames"].items():
            path = self.job.root / relative
            if path.is_file() and hash_file(path) == sha256:
                self.actions.append(Drop(path, "extracted again"))

    def _place(self, video: "MediaFile", result: Mapping[str, Any], episode: str) -> None:
        from pipeline.extraction import unpack_signatures

        staging = staging_folder(self.job.project.state_folder, video, self.key_digest)
        self.staged.append(staging)
        signatures = unpack_signatures(base64.b64decode(result["signatures"]))
        placed: dict[str, str] = {}
        for frame, signature in zip(result["frames"], signatures, strict=True):
            if self.index is not None and self.index.holds(signature):
                self.dropped_as[KEPT_ELSEWHERE] += 1
                continue
            relative = f"{FRAMES_FOLDER}/{episode}/{episode}_{frame['name']}"
            placed[relative] = frame["sha256"]
            self.kept_as[frame["reason"]] += 1
            self._place_frame(video, episode, frame, staging / frame["name"], relative)
        if self.index is not None:
            self.index.extend(signatures)
        self.counts["frames_kept"] += len(placed)
        self.placed |= placed
        if placed:
            self.folders.append(self.job.root / FRAMES_FOLDER / episode)
        value = {"key": self.key_digest, "frames": placed, "cuts_s": result["cuts_s"]}
        self.actions.append(SetFact(video.content, EXTRACTED, value, "extract"))
        self.actions.append(SetFact(video.content, EPISODE, episode, "extract"))

    def _place_frame(
        self, video: "MediaFile", episode: str, frame: Mapping[str, Any], staged: Path, relative: str
    ) -> None:
        content = frame["sha256"]
        self.job.catalog.add_media(content, "image", frame["size_bytes"])
        self.actions.append(Move(staged, self.job.root / relative, frame["reason"]))
        value = {
            "video": video.relative,
            "video_sha256": video.content,
            "episode": episode,
            "time_s": frame["time_s"],
            "shot": frame["shot"],
            "reason": frame["reason"],
        }
        self.actions.append(SetFact(content, FRAME_SOURCE, value, "extract"))
        self.actions.append(SetOutcome(content, "extract", "kept", frame["reason"]))

    def clean(self) -> None:
        """Remove what waited and was not placed."""
        for folder in self.staged:
            remove_folder(folder)

    def summary(self) -> dict[str, Json]:
        """What to say at the end."""
        return {
            **self.counts,
            **({"kept_as": dict(self.kept_as.most_common())} if self.kept_as else {}),
            "dropped_as": {
                "more of a held picture" if reason == "held" else reason: number
                for reason, number in self.dropped_as.most_common()
            },
        }


def is_in_place(extracted: Mapping[str, Any] | None, key_digest: str) -> bool:
    """Whether the frames that these settings give were put in place before."""
    return extracted is not None and extracted["key"] == key_digest


def settle_video(job: Job, video: "MediaFile", problems: Sequence[Sequence[str]]) -> None:
    """Note how a video ended: one that decodes in part has failed, and gives what decodes."""
    if not problems:
        job.settle(video, "kept")
        return
    for _, detail in problems:
        job.warn(f"{video.relative}: {detail}")
    reason, detail = problems[-1]
    job.settle(video, "failed", reason, detail)
    job.failures.append(Failure(video.relative, reason, f"{detail}; what decodes is extracted"))
