"""What a report counts, read from the catalogue in a few statements: nothing is opened for each picture.

Everything is in an order of its own, so that equal catalogues give equal reports.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.catalog import Catalog, MediaFile, below, join
from pipeline.layouts.buckets import Bucket, buckets, fit, nearest_bucket
from pipeline.names import natural_key
from pipeline.project import Project

EXAMPLES = 30  # files named of each kind of failure
MOST_DROPPED = 2_000  # dropped pictures listed one by one
OWN_STAGE = "report"  # its own runs change nothing, and are not told


@dataclass(frozen=True, slots=True)
class Weighed:
    """A picture file with how often an epoch shows it."""

    file: MediaFile
    repeats: float
    has_caption: bool


@dataclass(frozen=True, slots=True)
class BucketUse:
    """How a data set falls into buckets."""

    counts: Mapping[Bucket, int]  # buckets that get pictures, the fullest first
    num_enlarged: int  # pictures with fewer pixels than their bucket needs


def bucket_use(pictures: Mapping[tuple[int, int], int], resolution_px: int) -> BucketUse:
    """Count the pictures of each bucket.

    Args:
        pictures: (width, height) in pixels -> number of pictures.
    """
    sizes = buckets(resolution_px)
    counts: Counter[Bucket] = Counter()
    num_enlarged = 0
    for (width, height), number in pictures.items():
        bucket = nearest_bucket(width, height, sizes)
        counts[bucket] += number
        if fit(width, height, bucket).scale > 1:
            num_enlarged += number
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return BucketUse(dict(ordered), num_enlarged)


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """The pictures directly in one folder.

    Args:
        num_in_tree: further picture files whose content lies in the tree that is trained on, where they are
            counted and shown.
    """

    relative: str  # to the project; "" is its own folder
    files: tuple[Weighed, ...]
    num_in_tree: int = 0

    @property
    def exposures(self) -> float:
        """Pictures an epoch shows from here."""
        return sum(one.repeats for one in self.files)

    @property
    def num_captions(self) -> int:
        """Pictures that have a caption file."""
        return sum(one.has_caption for one in self.files)

    @property
    def repeats_text(self) -> str:
        """The repeats of the folder: one number, or the range of its pictures' own."""
        low = min((one.repeats for one in self.files), default=0)
        high = max((one.repeats for one in self.files), default=0)
        return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


@dataclass(frozen=True, slots=True)
class Share:
    """How many distinct pictures have one value, such as a tag, and how often an epoch shows them."""

    value: str
    images: int
    exposures: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Failures of one kind."""

    stage: str
    reason: str
    count: int
    examples: tuple[tuple[str, str], ...]  # path, detail


@dataclass(frozen=True, slots=True)
class Dropped:
    """A picture that a stage took out, with its reason and what it gave way to."""

    media_id: int
    content: str
    relative: str  # where it lies, or lay last
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Run:
    """One command as it was run."""

    number: int
    stage: str
    folder: str
    settings: Mapping[str, Any]
    version: str
    started_at: str
    ended_at: str | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """All that the page says, but for its pictures."""

    name: str  # of the project
    folder: str  # what the report is of, relative to the project
    folders: tuple[FolderSummary, ...]
    sizes: Mapping[tuple[int, int], int]  # (width, height) in pixels -> distinct pictures
    tags: tuple[Share, ...]
    characters: tuple[Share, ...]
    kinds: Mapping[str, tuple[Share, ...]]  # image_type, rating, num_people
    outcomes: tuple[tuple[str, str, str, int], ...]  # stage, outcome, reason, pictures and videos
    problems: tuple[Problem, ...]
    dropped: tuple[Dropped, ...]
    num_dropped: int
    runs: tuple[Run, ...]
    num_videos: int

    @property
    def num_places(self) -> int:
        """Picture files; one content may lie at several places."""
        return sum(len(folder.files) + folder.num_in_tree for folder in self.folders)

    @property
    def num_pictures(self) -> int:
        """Pictures, each content once."""
        return len({one.file.id for folder in self.folders for one in folder.files})

    @property
    def size_bytes(self) -> int:
        """Bytes of all pictures, each content once."""
        sizes = {one.file.id: one.file.size_bytes for folder in self.folders for one in folder.files}
        return sum(sizes.values())

    @property
    def exposures(self) -> float:
        """Pictures that an epoch shows."""
        return sum(folder.exposures for folder in self.folders)


def take_survey(
    catalog: Catalog,
    project: Project,
    folder: str,
    folders: Sequence[FolderSummary],
    dropped: Sequence[Dropped],
    sizes: Mapping[int, tuple[int, int]],
) -> Survey:
    """Count everything below a folder.

    Args:
        folder: relative to the project; "" is all of it.
        folders: the pictures, as `summarize` gives them.
        dropped: as `dropped_pictures` gives them.
        sizes: width and height by content id, of those that are known.
    """
    files = [one for summary in folders for one in summary.files]
    exposures: dict[int, float] = {}
    for one in files:
        exposures[one.file.id] = exposures.get(one.file.id, 0.0) + one.repeats
    count = _FactCounter(catalog, exposures)
    return Survey(
        name=project.root.name,
        folder=folder,
        folders=tuple(folders),
        sizes=Counter(sizes[media_id] for media_id in exposures if media_id in sizes),
        tags=count.members("tags"),
        characters=count.members("characters") or count.members("character_tags"),
        kinds={
            name: shares for name in ("image_type", "num_people", "rating") if (shares := count.values(name))
        },
        outcomes=tuple(_outcomes(catalog, folder)),
        problems=tuple(_problems(catalog, folder)),
        dropped=tuple(dropped[:MOST_DROPPED]),
        num_dropped=len(dropped),
        runs=tuple(_runs(catalog)),
        num_videos=_count_videos(catalog, folder),
    )


def summarize(files: Sequence[Weighed], in_tree: Sequence[Weighed] = ()) -> list[FolderSummary]:
    """The folders of some pictures, in natural order.

    Args:
        in_tree: further places of pictures that lie in the tree that is trained on.
    """
    by_folder: dict[str, list[Weighed]] = {}
    for one in files:
        by_folder.setdefault(one.file.relative.rpartition("/")[0], []).append(one)
    others = Counter(one.file.relative.rpartition("/")[0] for one in in_tree)
    names = sorted({*by_folder, *others}, key=natural_key)
    return [FolderSummary(name, tuple(by_folder.get(name, ())), others[name]) for name in names]


class _FactCounter:
    """Counts the values of facts over pictures, the word that counts of each picture."""

    def __init__(self, catalog: Catalog, exposures: Mapping[int, float]) -> None:
        self._catalog = catalog
        self._exposures = json.dumps(list(exposures.items()))

    def members(self, name: str) -> tuple[Share, ...]:
        """Shares of the keys of an object, or of the items of a list; the commonest first."""
        # an item of a list is its value, a member of an object its key, which is a text
        value = "CASE WHEN typeof(part.key) = 'text' THEN part.key ELSE part.value END"
        return self._count(name, value, "JOIN json_each(fact.value) AS part")

    def values(self, name: str) -> tuple[Share, ...]:
        """Shares of whole values."""
        return self._count(name, "json_extract(fact.value, '$')", "")

    def _count(self, name: str, value: str, join_part: str) -> tuple[Share, ...]:
        sql = f"""
            WITH wanted AS MATERIALIZED (
                SELECT json_extract(value, '$[0]') AS media_id, json_extract(value, '$[1]') AS exposures
                FROM json_each(:exposures)
            ), fact AS MATERIALIZED (
                SELECT media_id, value, exposures FROM (
                    SELECT facts.media_id, facts.value, exposures, ROW_NUMBER() OVER (
                        PARTITION BY facts.media_id ORDER BY by_hand DESC, run_id DESC, source) AS place
                    FROM wanted JOIN facts ON facts.media_id = wanted.media_id AND facts.name = :name
                ) WHERE place = 1
            )
            SELECT {value} AS shown, COUNT(*), SUM(exposures) FROM fact {join_part}
            WHERE shown IS NOT NULL GROUP BY shown ORDER BY 2 DESC, shown"""
        rows = self._catalog.rows(sql, {"exposures": self._exposures, "name": name})
        return tuple(Share(str(shown), int(images), float(exposures)) for shown, images, exposures in rows)


# A content that lies, or lay last, below the folder, each once with its first path
_PLACES = """
    SELECT media_id, MIN(CASE WHEN folder = '' THEN name ELSE folder || '/' || name END) AS path FROM paths
    WHERE {condition} AND NOT (is_gone AND EXISTS (
        SELECT 1 FROM paths AS other WHERE other.media_id = paths.media_id AND NOT other.is_gone))
    GROUP BY media_id"""


def _outcomes(catalog: Catalog, folder: str) -> list[tuple[str, str, str, int]]:
    condition, parameters = below(folder)
    sql = f"""SELECT stage, outcome, reason, COUNT(*), MIN(run_id)
              FROM ({_PLACES.format(condition=condition)}) JOIN outcomes USING (media_id)
              WHERE stage != '{OWN_STAGE}' GROUP BY stage, outcome, reason"""
    rows = catalog.rows(sql, parameters).fetchall()
    began: dict[str, int] = {}
    for stage, _, _, _, run_id in rows:
        began[stage] = min(run_id or 0, began.get(stage, run_id or 0))
    places = {"kept": 0, "dropped": 1, "failed": 2}
    rows.sort(key=lambda row: (began[row[0]], row[0], places[row[1]], -row[3], row[2]))
    return [(stage, outcome, reason, count) for stage, outcome, reason, count, _ in rows]


def _problems(catalog: Catalog, folder: str) -> list[Problem]:
    condition, parameters = below(folder)
    sql = f"""SELECT stage, reason, detail, path
              FROM ({_PLACES.format(condition=condition)}) JOIN outcomes USING (media_id)
              WHERE outcome = 'failed' AND NOT (stage = '{OWN_STAGE}' AND EXISTS (
                  SELECT 1 FROM outcomes AS other WHERE other.media_id = outcomes.media_id
                  AND other.outcome = 'failed' AND other.stage != '{OWN_STAGE}'))
              ORDER BY stage, reason, path"""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for stage, reason, detail, path in catalog.rows(sql, parameters):
        kinds.setdefault((stage, reason), []).append((path, detail))
    found = [
        Problem(stage, reason, len(files), tuple(sorted(files, key=_by_path)[:EXAMPLES]))
        for (stage, reason), files in kinds.items()
    ]
    return sorted(found, key=lambda problem: (-problem.count, problem.stage, problem.reason))


def _by_path(file: tuple[str, str]) -> tuple[tuple[int, int, str], ...]:
    return natural_key(file[0])


def dropped_pictures(catalog: Catalog, folder: str) -> list[Dropped]:
    """Pictures below a folder that some stage took out, by stage, reason and detail."""
    condition, parameters = below(folder)
    sql = f"""SELECT media.id, content, path, stage, reason, detail
              FROM ({_PLACES.format(condition=condition)}) AS place
              JOIN outcomes USING (media_id) JOIN media ON media.id = media_id
              WHERE outcome = 'dropped' AND kind = 'image'"""
    found = [Dropped(*row) for row in catalog.rows(sql, parameters)]
    return sorted(found, key=lambda one: (one.stage, one.reason, one.detail, natural_key(one.relative)))


def _runs(catalog: Catalog) -> list[Run]:
    sql = f"""SELECT id, stage, folder, settings, version, started_at, ended_at, exit_code FROM runs
              WHERE stage != '{OWN_STAGE}' ORDER BY id"""
    return [
        Run(number, stage, folder, json.loads(settings), version, started, ended, code)
        for number, stage, folder, settings, version, started, ended, code in catalog.rows(sql)
    ]


def _count_videos(catalog: Catalog, folder: str) -> int:
    condition, parameters = below(folder)
    sql = f"""SELECT COUNT(*) FROM paths JOIN media ON media.id = media_id
              WHERE NOT is_gone AND kind = 'video' AND {condition}"""
    return int(catalog.rows(sql, parameters).fetchone()[0])


def failed_ids(catalog: Catalog) -> set[int]:
    """Contents that some other stage could not read."""
    sql = f"SELECT DISTINCT media_id FROM outcomes WHERE outcome = 'failed' AND stage != '{OWN_STAGE}'"
    return {media_id for (media_id,) in catalog.rows(sql)}


def known_sizes(catalog: Catalog) -> dict[int, tuple[int, int]]:
    """Width and height in pixels of the contents whose header some step noted, by content id."""
    sql = """SELECT media_id, json_extract(value, '$.width_px'), json_extract(value, '$.height_px')
             FROM results JOIN steps ON steps.id = step_id
             WHERE step IN ('ingest.read', 'report.size') ORDER BY step_id"""
    return {media_id: (width, height) for media_id, width, height in catalog.rows(sql)}


def places_of(catalog: Catalog, content: str) -> list[str]:
    """Every path at which a content lies or lay, those where it lies first."""
    sql = """SELECT folder, name FROM paths JOIN media ON media.id = media_id WHERE content = ?
             ORDER BY is_gone, folder, name"""
    return [join(folder, name) for folder, name in catalog.rows(sql, (content,))]
