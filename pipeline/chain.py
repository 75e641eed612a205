"""What `celforge run` carries out: the configured stages in their order, each with the folder it works on.

Stages and trainers are known by the command table alone. A stage is configured when celforge.toml has a
section of its name, be it an empty one. The way in is chosen by what is there: videos are extracted,
screenshots are taken in.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.characters import resolve_characters
from pipeline.command_table import CHARACTERS_SECTION, COMMANDS, load, section_names
from pipeline.errors import InputError, SettingsError
from pipeline.made_folders import MARK
from pipeline.media_names import Kind, kind_of
from pipeline.names import is_ignored_name
from pipeline.project import CONFIG_NAME, DATASET, Project, find_project, load_toml, section_of
from pipeline.settings import Json, as_json, nearest, option, resolve

FRAMES = "frames"  # what extract makes, at the top of a project
VIDEOS, IMAGES = "videos", "images"  # where episodes and screenshots are looked for first
WAYS_IN = ("extract", "ingest")
SOURCE_STAGES = ("dedupe", "tag", "identify", "caption", "arrange")
TREE_STAGES = ("balance", "flatten", "check")
ORDER = (*WAYS_IN, *SOURCE_STAGES, *TREE_STAGES, "train", "compare", "report")
READ_CHARACTERS = ("identify", "caption", "arrange")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [run] of celforge.toml."""

    videos: Path | None = option(
        None, "Folder of the episodes; videos/ where there is one, else the whole project.", metavar="FOLDER"
    )
    images: Path | None = option(
        None,
        "Folder of screenshots; images/ where there is one, else the whole project if it holds no video.",
        metavar="FOLDER",
    )
    trainings_at_once: int = option(
        1,
        "Entries [[train]] that work side by side, each in a process of its own: on several GPUs (device of "
        "each entry), or on a processor whose cores one training does not fill.",
        min=1,
        max=64,
        affects_result=False,
    )


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of the chain.

    Args:
        name: how --from, --to and --only call it: `tag`, `train.sabine`.
        command: in the command table.
        folder: what it works on; for `train` its data.
        arguments: of its command line.
        settings: in force, by name; what cannot change a result is left out.
        made: where its results go; the stage's own report names them more exactly.
        check: refuses what can be known to fail before anything was done: `check_before` of its module.
    """

    name: str
    command: str
    folder: Path
    arguments: tuple[str, ...]
    settings: Mapping[str, Json]
    made: Path | None = None
    check: Callable[[], None] = field(default=lambda: None, compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """What is configured, in order, and what was left out and why."""

    project: Project
    links: tuple[Link, ...]
    left_out: Mapping[str, str]
    videos: Path | None  # folder that holds a video
    sources: Path | None  # folder of the pictures that are worked on
    tree: Path
    kohya: Path
    trainings_at_once: int = 1


def read_chain(project: Project, flags: Mapping[str, Any]) -> Chain:
    """The stages that celforge.toml of a project asks for.

    Args:
        flags: settings of [run] that were typed.

    Raises:
        SettingsError: something in celforge.toml is wrong.
        InputError: there is no celforge.toml, it asks for nothing, or there is nothing to begin with.
    """
    path = project.config_path
    if path is None:
        hint = f"celforge init {project.root}"
        raise InputError(f"there is no celforge.toml in {project.root}", hint=hint)
    data = load_toml(path, section_names())
    settings = resolve(Settings, "run", section_of(data, "run", path), path, flags).settings
    reader = _Reader(project, path, data, settings)
    links = tuple(reader.links())
    if not links and not reader.left_out.keys() - {"train"}:
        raise InputError(
            f"{path} asks for no stage: it has no section of one",
            hint="write [extract], [tag] and so on, each on a line; `celforge init` writes them all",
        )
    for link in links:
        _refuse_other_project(project, link)
    return Chain(
        project,
        links,
        reader.left_out,
        reader.videos,
        reader.sources,
        reader.tree,
        reader.kohya,
        settings.trainings_at_once,
    )


def _refuse_other_project(project: Project, link: Link) -> None:
    """A stage finds its project by the folder that it is given; see that it is this one."""
    if COMMANDS[link.command].has_entries or not link.folder.is_dir():
        return
    found = find_project(link.folder).root
    if found == project.root:
        return
    if not link.folder.is_relative_to(project.root):
        hint = "move or link it into the project, or put celforge.toml above it"
        raise InputError(f"{link.folder} lies outside of the project {project.root}", hint=hint)
    raise InputError(
        f"{found} is a project by itself, inside of {project.root}",
        hint=f"move its .celforge and its {CONFIG_NAME} away, or run it alone: celforge run {found}",
    )


class _Reader:
    """Reads celforge.toml, and looks which folders there are."""

    def __init__(self, project: Project, path: Path, data: Mapping[str, Any], settings: Settings) -> None:
        self.root, self.path, self.data = project.root, path, data
        self.left_out: dict[str, str] = {}
        self._stages = {
            name: self._resolved(name)
            for name in ORDER
            if name in COMMANDS and COMMANDS[name].has_settings and not COMMANDS[name].has_entries
        }
        self.tree = _plain(getattr(self._stages["arrange"], "out", None) or self.root / DATASET)
        self.kohya = _plain(getattr(self._stages["flatten"], "output", None) or self.root / "kohya")
        self.videos, self.images = find_inputs(self.root, settings, self.tree)
        self.sources = self._sources()

    def _resolved(self, name: str) -> Any:
        table = section_of(self.data, name, self.path)
        return resolve(load(name).Settings, name, table, self.path, {}).settings

    def _sources(self) -> Path | None:
        """Where the pictures lie: the frames, the screenshots, or the project where both are."""
        frames = self.root / FRAMES
        found = [frames] if self.videos is not None or holds(frames, "image") else []
        if self.images is not None and self.images not in found:
            found.append(self.images)
        return None if not found else found[0] if len(found) == 1 else self.root

    def links(self) -> Iterator[Link]:
        """Each configured stage that has something to work on.

        Raises:
            InputError: the chain begins with videos or pictures, and there are none.
        """
        begins = any(name in self.data for name in WAYS_IN)
        if begins and self.sources is None and not self.tree.is_dir():
            raise InputError(
                f"there are neither videos nor pictures in {self.root}",
                hint=f"put your episodes into {self.root / 'videos'}, "
                f"or screenshots into {self.root / 'images'}",
            )
        for name in ORDER:
            if name not in COMMANDS:
                continue
            if COMMANDS[name].has_entries:
                yield from self._entries(name)
            elif self._is_wanted(name) and (folder := self._folder(name)) is not None:
                yield self._link(name, folder)

    def _is_wanted(self, name: str) -> bool:
        return any(one in self.data for one in WAYS_IN) if name in WAYS_IN else name in self.data

    def _folder(self, name: str) -> Path | None:
        """What a stage works on; None, with the reason noted, where it has nothing."""
        if name in WAYS_IN:
            return self.videos if name == "extract" else self.images
        if name in SOURCE_STAGES:
            return self._or_left_out(name, self.sources, "there are neither videos nor pictures")
        if name in TREE_STAGES:
            return self._or_left_out(
                name,
                self.tree if self._has_tree() else None,
                f"there is no {self.tree.name}/, and no [arrange]",
            )
        if name == "compare":
            is_trained = bool(self.data.get("train"))
            return self._or_left_out(
                name, self.root if is_trained else None, "nothing is trained: no [[train]]"
            )
        return self.root

    def _or_left_out(self, name: str, folder: Path | None, why: str) -> Path | None:
        if folder is None:
            self.left_out[name] = why
        return folder

    def _has_tree(self) -> bool:
        return self.tree.is_dir() or ("arrange" in self.data and self.sources is not None)

    def _link(self, name: str, folder: Path) -> Link:
        values = self._values(self._stages[name])
        if name in READ_CHARACTERS:
            characters = resolve_characters(self.data, self.path)
            values[CHARACTERS_SECTION] = {who: self._values(one.settings) for who, one in characters.items()}
        made = {
            "extract": self.root / FRAMES,
            "arrange": self.tree,
            "flatten": None if values.get("in_place") else self.kohya,
        }
        return Link(name, name, folder, (), values, made.get(name))

    def _entries(self, command: str) -> Iterator[Link]:
        """A link for each entry [[train]]."""
        if command not in self.data:
            self.left_out[command] = f"celforge.toml has no [[{command}]] yet"
        module = load(command)
        for name, resolved in module.resolve_entries(self.data, self.path).items():
            settings = resolved.settings
            values = self._values(settings) | {"steps": settings.steps}
            own_data, out = settings.data, settings.out
            data = _plain(own_data or self.tree)
            arguments = [name.partition(".")[2]]
            if own_data is None and self.tree != self.root / DATASET:
                arguments += ["--data", str(self.tree)]
            made = _plain(out or self.root / "models" / settings.run_name)
            check = partial(module.check_before, settings)
            yield Link(name, command, data, tuple(arguments), values, made, check)

    def _values(self, settings: object) -> dict[str, Json]:
        """Settings that matter, with paths relative to the project, so that it can be moved."""
        prefix = f"{self.root}{os.sep}"

        def short(value: Json) -> Json:
            if isinstance(value, str):
                return value.removeprefix(prefix)
            return [short(one) for one in value] if isinstance(value, list) else value

        return {name: short(value) for name, value in as_json(settings, only_results=True).items()}


def _plain(path: Path) -> Path:
    """Without `..`, which celforge.toml may have."""
    return Path(os.path.abspath(path))


def find_inputs(root: Path, settings: Settings, tree: Path) -> tuple[Path | None, Path | None]:
    """The folder that holds videos and the folder that holds screenshots, each None where there is none.

    Raises:
        InputError: a folder named in [run] is not there.
    """
    for given in (settings.videos, settings.images):
        if given is not None and not given.is_dir():
            raise InputError(f"there is no folder {given}", hint="mend videos and images in [run]")
    videos = _plain(settings.videos or root / VIDEOS)
    images = _plain(settings.images or root / IMAGES)
    found_videos = next((one for one in (videos, root) if holds(one, "video")), None)
    if settings.videos is not None and found_videos == root:
        found_videos = None
    if holds(images, "image"):
        return found_videos, images
    is_lone = settings.images is None and found_videos is None and not (root / FRAMES).is_dir()
    return found_videos, root if is_lone and holds(root, "image", leave_out=tree) else None


def holds(folder: Path, kind: Kind, *, leave_out: Path | None = None) -> bool:
    """Whether a file of a kind lies at or below a folder, outside of what celforge made."""
    for where, folders, names in os.walk(folder):
        if where != str(folder) and MARK in names:
            folders.clear()
            continue
        if any(kind_of(name) == kind and not is_ignored_name(name) for name in names):
            return True
        folders[:] = [one for one in folders if not is_ignored_name(one) and Path(where, one) != leave_out]
    return False


def first_free(
    chain: Chain, waiting: Sequence[tuple[int, Link]], working: Sequence[Link]
) -> tuple[int, Link] | None:
    """The first of some numbered trainings that starts from no model which one before it is still to make."""
    before = [*working]
    for number, link in waiting:
        if not any(_leans_on(chain, link, one) for one in before):
            return number, link
        before.append(link)
    return None


def _leans_on(chain: Chain, later: Link, earlier: Link) -> bool:
    root, made = chain.project.root, earlier.made
    values = [value for value in later.settings.values() if isinstance(value, str) and value]
    return made is not None and any((root / value).is_relative_to(made) for value in values)


def select(chain: Chain, first: str | None, last: str | None, only: Sequence[str]) -> tuple[Link, ...]:
    """The links from one to another, or some of them; `train` stands for every entry.

    Raises:
        SettingsError: a name that is not in the chain, with the nearest that is; or nothing is left.
    """
    if only and (first or last):
        raise SettingsError("--only and --from or --to are two ways", hint="leave one of them out")
    for name in filter(None, (first, last, *only)):
        _check_name(chain, name)
    links = chain.links
    if only:
        return tuple(link for link in links if link.name in only or link.command in only)
    at = [number for number, link in enumerate(links) if first in (link.name, link.command)] or [0]
    to = [number for number, link in enumerate(links) if last in (link.name, link.command)] or [
        len(links) - 1
    ]
    if at[0] > to[-1]:
        raise SettingsError(f"{first} comes after {last}", hint=f"--from {last} --to {first}")
    return links[at[0] : to[-1] + 1]


def _check_name(chain: Chain, name: str) -> None:
    known = list(dict.fromkeys(one for link in chain.links for one in (link.command, link.name)))
    if name in known:
        return
    if name in chain.left_out:
        raise SettingsError(f"{name} has nothing to work on: {chain.left_out[name]}")
    if name in ORDER and name in COMMANDS:
        section = f"[[{name}]]" if COMMANDS[name].has_entries else f"[{name}]"
        raise SettingsError(f"{name} is not configured", hint=f"write {section} into celforge.toml")
    near = nearest(name, known) or next((one for one in known if one.endswith(f".{name}")), None)
    hint = f'did you mean "{near}"?' if near else f"known: {', '.join(known)}"
    raise SettingsError(f'there is no stage "{name}" to run', hint=hint)
