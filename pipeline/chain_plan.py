"""What `celforge run` would do: each stage up to date or to run, why, and what that takes."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pipeline
from pipeline.catalog import Catalog
from pipeline.chain import ORDER, SOURCE_STAGES, TREE_STAGES, WAYS_IN, Chain, Link
from pipeline.chain_state import AFTER, SAID, Disk, Record, inputs_of, last_run, not_taken_in
from pipeline.media_names import Kind
from pipeline.scan import survey
from pipeline.settings import toml_text

State = Literal["up to date", "to run", "perhaps"]
CACHED = ("extract", "ingest", "dedupe", "tag")  # work on each file once; the others go over all of them
FILLS_DISK = ("extract", "train", "compare")
TRAINERS = ("train", "compare")  # several runs of one command; they look at their own folders
SHOWN_LETTERS = 40  # of a value in a reason


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage of the plan.

    Args:
        reasons: why it is to run; for `perhaps`, what it follows.
        items: how many it works on; None where nobody knows yet.
        seconds, size_bytes: forecast from the last time; None where it was never measured.
    """

    link: Link
    state: State
    reasons: tuple[str, ...]
    items: int | None = None
    seconds: float | None = None
    size_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "stage": self.link.name,
            "folder": str(self.link.folder),
            "state": self.state,
            "reasons": list(self.reasons),
            "items": self.items,
            "seconds": self.seconds,
            "bytes": self.size_bytes,
        }


def make_plan(
    chain: Chain, links: Sequence[Link], records: Mapping[str, Record], catalog: Catalog, disk: Disk
) -> tuple[Planned, ...]:
    """Judge each stage by what is there now."""
    planned: list[Planned] = []
    for link in links:
        record = records.get(link.name)
        reasons = judge(link, chain, records, catalog, disk)
        earlier = [one.link.name for one in planned if one.state != "up to date" and feeds(one.link, link)]
        if not reasons and not earlier:
            planned.append(Planned(link, "up to date", ()))
            continue
        is_known = "extract" not in earlier  # how many frames there will be, nobody knows
        items = count_items(link, chain, record, catalog, disk) if is_known else None
        seconds = size_bytes = None
        if record is not None and items is not None:
            seconds = None if record.seconds_each is None else round(items * record.seconds_each, 1)
            size_bytes = None if record.bytes_each is None else round(items * record.bytes_each)
        state: State = "to run" if reasons else "perhaps"
        why = reasons or [f"looks again after {_and(earlier)}"]
        planned.append(Planned(link, state, tuple(why), items, seconds, size_bytes))
    return tuple(planned)


def _and(names: Sequence[str]) -> str:
    if len(names) > 3:
        names = [*names[:2], f"{len(names) - 2} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def feeds(earlier: Link, later: Link) -> bool:
    """Whether what one stage does may change what a later one does."""
    if later.command == "report":
        return True
    if later.command == "compare":
        return earlier.command == "train"
    if earlier.command == "flatten":
        return later.command == "train" and later.folder == earlier.made
    return earlier.command in (*WAYS_IN, *SOURCE_STAGES, "balance")


def judge(link: Link, chain: Chain, records: Mapping[str, Record], catalog: Catalog, disk: Disk) -> list[str]:
    """Why a stage is to run, as short sentences; none when it is up to date."""
    record = records.get(link.name)
    by_hand = 0 if link.command in TRAINERS else last_run(catalog, link.command)
    if record is None:
        return ["run by hand before: what is done is kept" if by_hand else "not run yet"]
    if record.is_open:
        return ["was cut off: goes on where it stopped"]
    reasons = _settings_changed(record.settings, link.settings)
    if record.version != pipeline.__version__:
        reasons.append(f"was done by celforge {record.version}")
    if by_hand > record.run_id:
        reasons.append("was run by hand since")
    if record.failed:
        reasons.append(f"{record.failed:,} failed the last time: tried again")
    elif record.exit_code:
        reasons.append("found errors the last time")
    now = inputs_of(link, chain, disk, catalog)
    changed = [name for name in now if record.inputs.get(name) != now[name]]
    reasons += [_changed_text(name, link, chain, catalog) for name in changed]
    if link.command == "ingest" and not _is_all_taken_in(link, chain, catalog):
        reasons.append(_changed_text("pictures", link, chain, catalog))
    follows = after_of(link, chain, records)
    reasons += [f"{name} was done anew" for name in follows if record.after.get(name) != follows[name]]
    gone = [one for one in record.made if not os.path.lexists(chain.project.root / one)]
    if gone and link.command != "extract":  # frames that a person deletes stay so
        reasons.append(f"{gone[0]} is gone")
    return reasons


def _is_all_taken_in(link: Link, chain: Chain, catalog: Catalog) -> bool:
    new, changed, _ = _differences(link, chain, catalog)
    return not new + changed + not_taken_in(link, chain.project, catalog)


def after_of(link: Link, chain: Chain, records: Mapping[str, Record]) -> dict[str, int]:
    """Serials of the stages whose facts a stage reads; a report tells of all."""
    names = AFTER.get(link.command, ())
    if link.command == "report":
        names = tuple(one.name for one in chain.links if one.name != link.name)
    return {name: records[name].serial for name in names if name in records}


def _settings_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"setting {name} is {_short(now.get(name))}, was {_short(before.get(name))}"
        for name in dict.fromkeys((*now, *before))
        if now.get(name) != before.get(name)
    ]


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value) if isinstance(value, dict) else toml_text(value)
    return text if len(text) <= SHOWN_LETTERS else f"{text[: SHOWN_LETTERS - 3]}..."


def _changed_text(name: str, link: Link, chain: Chain, catalog: Catalog) -> str:
    if name == SAID:
        return "tags, names or captions were edited"
    if name in ("pictures", "videos"):
        new, changed, gone = _differences(link, chain, catalog)
        counts = {"new": new, "changed": changed, "gone": gone}
        said = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        return f"{name}: {said}" if said else f"other {name} than the last time"
    return f"{name} changed"


def _differences(link: Link, chain: Chain, catalog: Catalog) -> tuple[int, int, int]:
    folder = (chain.sources or link.folder) if link.command in ("arrange", "report") else link.folder
    if not folder.is_dir():
        return 0, 0, 0
    found = survey(catalog, chain.project, folder, (_kind(link),))
    return found.new, found.changed, found.gone


def _kind(link: Link) -> Kind:
    return "video" if link.command == "extract" else "image"


def count_items(link: Link, chain: Chain, record: Record | None, catalog: Catalog, disk: Disk) -> int | None:
    """How many videos, pictures or steps a stage has to work on; None where nobody knows yet."""
    if link.command == "train":
        steps = link.settings["steps"]
        return steps if isinstance(steps, int) and not link.settings.get("epochs") else None
    folder = (chain.sources or link.folder) if link.command == "report" else link.folder
    folder = chain.tree if link.command in TREE_STAGES else folder
    if link.command not in ORDER or not folder.is_dir():
        return None
    total = disk.listing(folder, _kind(link)).files
    is_known = record is not None and not record.is_open and record.settings == dict(link.settings)
    if link.command in CACHED and record is not None and is_known:
        new, changed, _ = _differences(link, chain, catalog)
        return min(total, new + changed + record.failed)
    return total


def forecast(chain: Chain, planned: Sequence[Planned]) -> dict[str, Any]:
    """Time and disk that a plan takes, as far as they were measured, and what was not."""
    work = [one for one in planned if one.state != "up to date"]
    filling = [one for one in work if one.link.command in FILLS_DISK]
    return {
        "seconds": round(sum(one.seconds or 0.0 for one in work), 1),
        "is_at_most": any(one.state == "perhaps" for one in work),
        "seconds_unknown": [one.link.name for one in work if one.seconds is None],
        "bytes": sum(one.size_bytes or 0 for one in filling),
        "bytes_unknown": [one.link.name for one in filling if one.size_bytes is None],
        "bytes_free": shutil.disk_usage(chain.project.root).free,
    }
