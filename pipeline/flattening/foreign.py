"""Kohya trees that celforge did not make, taken in as EveryDream trees; and what a flat tree looks like.

Without a manifest nobody can tell `1_character` (one character) from a folder `character` with one repeat.
So a strange tree is taken in only when a person says what it is. One thing is certain without that: a tree
whose numbers are those that flatten_folder gives for the multiply.txt files in it, with its separator in a
name.
"""

from collections import Counter
from fractions import Fraction
from pathlib import Path

from pipeline.actions import FileAction, Move
from pipeline.errors import InputError, PlanError
from pipeline.flattening.back import Back, number_written
from pipeline.flattening.survey import some, told
from pipeline.layouts.everydream import Tree, multiply_of, read_tree
from pipeline.layouts.flat_names import decode, split_prefix

# "1_character" and "2_people" are the names that `arrange` gives to folders by how many are in the picture
_COUNTED = frozenset({"character", "characters", "person", "people", "face", "faces"})


def looks_flat(tree: Tree) -> bool:
    """Whether all pictures lie in folders `N_name` directly below the tree, other than `2_characters`."""
    pictured = [parts for parts, folder in tree.folders.items() if folder.images]
    if not pictured or any(len(parts) != 1 for parts in pictured):
        return False
    prefixes = [split_prefix(parts[0]) for parts in pictured]
    rests = {prefix[1] for prefix in prefixes if prefix is not None}
    return None not in prefixes and not rests <= _COUNTED


def is_of_flatten_folder(tree: Tree, separator: str) -> bool:
    """Whether the ancestor's flatten_folder made a flat tree, without any doubt."""
    if not looks_flat(tree):
        return False
    numbers = [(split_prefix(parts[0]), parts) for parts, one in tree.folders.items() if one.images]
    is_its = all(prefix and prefix[0] == _ancestors_number(tree, parts) for prefix, parts in numbers)
    return is_its and any(prefix and separator in prefix[1] for prefix, _ in numbers)


def plan_import(root: Path, separator: str, *, is_certain: bool) -> Back:
    """The actions that make an EveryDream tree of a kohya tree where it lies.

    Args:
        is_certain: the ancestor's flatten_folder made it, also its folders without pictures.

    Raises:
        InputError: there is no folder `N_name`.
        PlanError: names that give no path; all of them are named.
    """
    tree = read_tree(root)
    back = Back()
    homes = _homes(tree, separator, is_certain=is_certain)
    if not homes:
        raise InputError(
            f"{root} holds no folders named N_name with pictures", hint="give kohya's train_data_dir"
        )
    for name in sorted(homes, key=lambda name: (len(name), name)):
        number, home = homes[name]
        back.actions += _numbered(tree, name, number, back)
        if home != (name,):
            back.actions.append(Move(root / name, root.joinpath(*home), f"{number} repeats", as_is=True))
    back.notes += _notes(tree, homes)
    return back


def _homes(tree: Tree, separator: str, *, is_certain: bool) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Folder's name -> (number, path that it gets). Two folders that would get one path keep their names."""
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    problems = []
    for name in tree.folders[()].folders:
        prefix = split_prefix(name)
        folder = tree.folders[(name,)]
        if prefix is None or not (folder.images or is_certain):
            continue
        if prefix[0] < 1 and prefix[0] != _ancestors_number(tree, (name,)):
            continue
        home = decode(prefix[1], separator) or (prefix[1],)
        if home == ("",) or "" in home:
            problems.append(f"{folder.path}: its name has no part after the number, or an empty one")
        found[name] = prefix[0], home
    if problems:
        raise PlanError(told("these folders cannot be taken in", problems))
    counts = Counter(home for _, home in found.values())
    return {name: (n, home if counts[home] == 1 else (name,)) for name, (n, home) in found.items()}


def _numbered(tree: Tree, name: str, number: int, back: Back) -> list[FileAction]:
    """multiply.txt, where it must say something else than it does."""
    folder = tree.folders[(name,)]
    if "multiply.txt" not in folder.files:
        return [] if number == 1 else list(number_written(Path(folder.path), number))
    value = multiply_of(folder)
    if value is not None and number in (_half_even(value), _half_up(value), max(1, _half_up(value))):
        return []
    back.notes.append(f"multiply.txt of {name} did not fit its number, and is {number} now")
    return list(number_written(Path(folder.path), number))


def _ancestors_number(tree: Tree, parts: tuple[str, ...]) -> int | None:
    """What flatten_folder puts before a name: the multiply rounded as Python rounds."""
    folder = tree.folders[parts]
    if "multiply.txt" not in folder.files:
        return 1
    value = multiply_of(folder)
    return None if value is None else _half_even(value)


def _half_even(value: Fraction) -> int:
    return round(value)


def _half_up(value: Fraction) -> int:
    return int((value + Fraction(1, 2)) // 1)


def _notes(tree: Tree, homes: dict[str, tuple[int, tuple[str, ...]]]) -> list[str]:
    notes = []
    unread = [
        folder.path
        for parts, folder in tree.folders.items()
        if folder.images and parts and parts[0] not in homes
    ]
    if unread:
        notes.append(f"kohya does not read these, and EveryDream2 does, once a pass: {some(unread)}")
    if tree.folders[()].images:
        notes.append("pictures directly in the folder: kohya does not read them, and EveryDream2 does")
    deep = [folder.path for parts, folder in tree.folders.items() if len(parts) > 1 and folder.images]
    if deep:
        notes.append(f"pictures deeper than kohya reads, and EveryDream2 does: {some(deep)}")
    kept = [name for name, (_, home) in homes.items() if home == (name,)]
    if kept:
        notes.append(f"folders that keep their whole name, since two would be one: {some(kept)}")
    return notes
