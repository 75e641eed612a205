"""The pictures of a data set as its layout lists them, before any is opened.

Read are EveryDream trees, kohya's parent and leaf folders, kohya's dataset TOML, and one folder of pictures.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import InputError
from pipeline.layouts import everydream
from pipeline.layouts.buckets import Bucket
from pipeline.layouts.captions import SUFFIXES
from pipeline.layouts.everydream import Folder, FolderSettings, Tree
from pipeline.layouts.flat_names import split_prefix
from pipeline.lint.reading import find_dataset_config, kohya_subsets
from pipeline.made_folders import MadeFolders
from pipeline.project import find_project
from pipeline.training_set import Record, TrainingSet, read_training_set, training_root
from trainers.caption_rules import CaptionRules
from trainers.caption_variants import files_of, suffixes_of, tag_classes
from trainers.data_settings import DataSettings
from trainers.subset_options import SubsetTerms, check_config, terms_of_options

USUAL = tuple((end, 1.0) for end in SUFFIXES)
_IMAGE_KEYS = {"cond_dropout", "flip_p", "loss_scale", "batch_id", "shuffle_tags"}  # those but multiply

Layout = Literal["everydream", "kohya", "kohya leaf", "kohya toml", "plain"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the pictures of one folder share."""

    concept: str
    rules: CaptionRules
    conditional_dropout: float
    flip_p: float
    loss_scale: float
    batch_id: str
    sizes: tuple[Bucket, ...]
    is_everydream: bool
    fallback: str = ""  # kohya: the caption of pictures without a file
    is_reg: bool = False  # regularisation pictures


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture file that is trained on."""

    folder_path: str
    name: str
    repeats: Fraction
    terms: Terms
    captions: tuple[str, ...]  # names of caption files, those that count more last
    sidecar: str = ""  # name of a file that may know its faces
    values: Mapping[str, Any] = field(default_factory=dict)  # of its own yaml file

    @property
    def path(self) -> Path:
        """Absolute."""
        return Path(self.folder_path, self.name)


@dataclass(slots=True)
class Listing:
    """A data set before its pictures are opened.

    Args:
        tops: folders that hold them, at any depth.
        notes: how it was read.
        problems: what is wrong, one sentence each, with the remedy.
    """

    root: Path
    layout: Layout
    tops: list[Path]
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_pictures(path: Path, settings: DataSettings) -> Listing:
    """List what is trained on.

    Args:
        path: a folder, or a kohya dataset TOML.

    Raises:
        InputError: no such folder, one that may not be read, or a broken TOML.
    """
    if path.is_file():
        return _list_config(path, path.parent, settings)
    project = find_project(path)
    root = training_root(Path(os.path.abspath(path.expanduser())), project.root)
    config = find_dataset_config(root) if settings.layout != "everydream" else None
    if config is not None:
        listing = _list_config(config, root, settings)
        listing.notes.append(f"read by {config}, which lies in the folder")
        return listing
    tree = everydream.read_tree(root)
    if settings.layout != "everydream" and is_leaf(tree):
        return _list_leaf(root, tree, settings)
    found = read_training_set(root, settings.layout)
    listing = Listing(root, found.layout, [root], problems=found.problems)
    made = MadeFolders(project.root, "" if root == project.root else project.relative(root))
    skipped = {one for one in found.tree.folders if one and made.holds(_below(project.root, root, one))}
    if skipped:
        listing.notes.append(f"passed over {len(skipped)} folders that celforge made from these pictures")
    records = [one for one in found.records if one.folder not in skipped]
    if found.layout == "kohya":
        _list_kohya(listing, found, records, settings)
    else:
        _list_everydream(listing, found, records, settings)
    return listing


def is_leaf(tree: Tree) -> bool:
    """Whether the folder given is itself one of kohya's `N_name`, not the parent of such folders.

    `2_characters` counts characters, not repeats; a folder that speaks to EveryDream is none either.
    """
    top = tree.folders[()]
    name = os.path.basename(os.path.abspath(tree.root))
    prefix = split_prefix(name)
    has_others = any(folder.images for parts, folder in tree.folders.items() if parts)
    return (
        bool(top.images)
        and not has_others
        and prefix is not None
        and prefix[0] >= 1
        and not name.rstrip("s").endswith("_character")
        and not everydream.FOLDER_FILES.intersection(top.files)
    )


def _below(project_root: Path, root: Path, parts: tuple[str, ...]) -> str:
    return "/".join((*root.relative_to(project_root).parts, *parts))


# EveryDream


def _list_everydream(
    listing: Listing, found: TrainingSet, records: list[Record], settings: DataSettings
) -> None:
    folders: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        folders.setdefault(record.folder, []).append(record)
    if folders.keys() <= {()} and not everydream.FOLDER_FILES.intersection(found.tree.folders[()].files):
        listing.layout = "plain"
    _tell_kohyas(listing, folders)
    sizes = settings.sizes()
    for parts, members in folders.items():
        folder, told = found.tree.folders[parts], found.settings[parts]
        if told.others:
            others = ", ".join(sorted(told.others))
            listing.problems.append(
                f"yaml files of {folder.path} say {others}, which nothing reads; take it out"
            )
        terms = _everydream_terms(folder, told, settings, sizes, listing.problems)
        values = everydream.image_values(folder, [])  # its problems were told with the repeats
        files = set(folder.files)
        for record in members:
            own = values.get(record.name, {})
            mine = terms
            if own.keys() & _IMAGE_KEYS:
                mine = _everydream_terms(folder, told.of_image(own), settings, sizes, listing.problems)
            stem = everydream.stem_of(record.name)
            captions = files_of((stem,), mine.rules.variants or USUAL, files)
            listing.pictures.append(
                Picture(folder.path, record.name, record.repeats, mine, captions, _sidecar(stem, files), own)
            )


def _tell_kohyas(listing: Listing, folders: Iterable[tuple[str, ...]]) -> None:
    numbered = sorted(
        one[0]
        for one in folders
        if len(one) == 1 and split_prefix(one[0]) and not one[0].rstrip("s").endswith("_character")
    )
    if numbered:
        others = f" and {len(numbered) - 1} more" if len(numbered) > 1 else ""
        listing.problems.append(
            f"{numbered[0]}{others} look like folders of kohya's, but the tree is read as EveryDream's, "
            "where the number says nothing; write multiply.txt, or give --layout kohya"
        )


def _everydream_terms(
    folder: Folder,
    told: FolderSettings,
    settings: DataSettings,
    sizes: tuple[Bucket, ...],
    problems: list[str],
) -> Terms:
    """What the small files say, and the settings where they say nothing."""
    chances = {"cond_dropout": settings.conditional_dropout, "flip_p": settings.flip_p}
    for key in chances:
        if key in told.told:
            chances[key] = getattr(told, key)
        if not 0 <= chances[key] <= 1:
            problems.append(
                f"{key} must be from 0 to 1, found {chances[key]:g} in {folder.path}; "
                f"{min(1.0, max(0.0, chances[key])):g} is taken"
            )
            chances[key] = min(1.0, max(0.0, chances[key]))
    rules = rules_of(settings)
    shuffle = told.shuffle_tags if "shuffle_tags" in told.told else settings.shuffle
    rules = replace(rules, shuffle=shuffle, keep_tokens=max(1, rules.keep_tokens))
    return Terms(
        folder.relative,
        rules,
        chances["cond_dropout"],
        chances["flip_p"],
        told.loss_scale,
        told.batch_id,
        sizes,
        is_everydream=True,
    )


def rules_of(settings: DataSettings) -> CaptionRules:
    """The rules where the data set itself says nothing."""
    return CaptionRules(
        separator=settings.caption_separator,
        prefix=settings.caption_prefix,
        suffix=settings.caption_suffix,
        shuffle=settings.shuffle,
        keep_tokens=settings.keep_tokens,
        keep_tokens_separator=settings.keep_tokens_separator,
        secondary_separator=settings.secondary_separator,
        tag_dropout=settings.tag_dropout,
        wildcards=settings.wildcards,
        classes=tag_classes(settings.tag_class_dropout),
        variants=suffixes_of(settings.caption_variant),
        lines=settings.caption_lines,
    )


# kohya


def _list_kohya(listing: Listing, found: TrainingSet, records: list[Record], settings: DataSettings) -> None:
    for parts in dict.fromkeys(one.folder for one in records):
        folder = found.tree.folders[parts]
        prefix = split_prefix(parts[0]) if len(parts) == 1 else None
        if prefix is None or prefix[0] < 1:
            listing.problems.append(
                f"{len(folder.images)} pictures in {folder.path} are not trained on, as kohya passes over "
                f"folders without a number above 0 in front; rename it to 1_{os.path.basename(folder.path)}"
            )
            continue
        terms = terms_of_options({}, settings, rules_of(settings), [])
        _add_subset(listing, folder, parts[0], Fraction(prefix[0]), prefix[1], terms)


def _list_leaf(root: Path, tree: Tree, settings: DataSettings) -> Listing:
    number, name = split_prefix(root.name) or (1, "")
    listing = Listing(root, "kohya leaf", [root])
    listing.notes.append(
        f"{root.name} is one folder of kohya's: it alone is trained on, {number} times an epoch; "
        f"give {root.parent} for all beside it"
    )
    terms = terms_of_options({}, settings, rules_of(settings), [])
    _add_subset(listing, tree.folders[()], root.name, Fraction(number), name, terms)
    return listing


def _list_config(config: Path, root: Path, settings: DataSettings) -> Listing:
    if config.suffix.lower() != ".toml":
        raise InputError(
            f"{config} is neither a folder nor a dataset TOML", hint="give the folder of pictures"
        )
    config = Path(os.path.abspath(config))
    listing = Listing(root, "kohya toml", [])
    check_config(config, listing.problems, listing.notes)
    for subset in kohya_subsets(Tree(str(root), {}), config, ""):
        folder_path = Path(os.path.abspath(subset.image_dir))
        if not folder_path.is_dir():
            listing.problems.append(
                f"image_dir {folder_path} in {config} is no folder; write where its pictures lie"
            )
            continue
        folder = everydream.read_tree(folder_path).folders[()]
        if not folder.images:
            listing.problems.append(
                f"image_dir {folder_path} in {config} holds no pictures itself; name the folder that does"
            )
        terms = terms_of_options(subset.options, settings, rules_of(settings), listing.problems)
        concept = os.path.relpath(folder_path, root) if folder_path.is_relative_to(root) else str(folder_path)
        concept = concept.replace(os.sep, "/")
        listing.tops.append(folder_path)
        repeats, is_reg = Fraction(subset.num_repeats), bool(subset.options.get("is_reg"))
        _add_subset(listing, folder, concept, repeats, subset.class_tokens, terms, is_reg=is_reg)
    return listing


def _add_subset(
    listing: Listing,
    folder: Folder,
    concept: str,
    repeats: Fraction,
    class_tokens: str,
    told: SubsetTerms,
    *,
    is_reg: bool = False,
) -> None:
    terms = Terms(
        concept,
        told.rules,
        told.conditional_dropout,
        told.flip_p,
        1.0,
        "",
        told.sizes,
        is_everydream=False,
        fallback=class_tokens,
        is_reg=is_reg,
    )
    files = set(folder.files)
    ends = (told.caption_extension,) if told.caption_extension else tuple(reversed(SUFFIXES))
    for name in folder.images:
        stems = _kohya_stems(everydream.stem_of(name))
        captions = tuple(stem + end for stem in stems for end in ends if stem + end in files)[-1:]
        if terms.rules.variants and not told.caption_extension:
            captions = files_of(stems, terms.rules.variants, files)
        listing.pictures.append(
            Picture(folder.path, name, repeats, terms, captions, _sidecar(stems[-1], files))
        )


def _kohya_stems(stem: str) -> tuple[str, ...]:
    """Stems of kohya's captions, the one that counts more last: the other lacks four fields of a cut face."""
    fields = stem.split("_")
    return ("_".join(fields[:-4]), stem) if len(fields) > 4 else (stem,)


def _sidecar(stem: str, files: set[str]) -> str:
    return next((name for name in (f".{stem}_meta.json", f"{stem}.json") if name in files), "")
