"""Every command by name, with the module that holds it; modules are imported only when their command is used.

A stage's module holds `Settings` and `run(job, settings)` and becomes a command by itself
(pipeline/stage_command.py); other modules hold a click command named `command`. The summary here is the first
line of the module's docstring; a test compares.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True, slots=True)
class Row:
    """One command."""

    module: str
    summary: str
    group: str
    has_settings: bool = (
        False  # the module has a Settings dataclass, and celforge.toml a section of the command's name
    )
    has_entries: bool = False  # and that section may stand there several times: [[train]]


def stage(module: str, summary: str) -> Row:
    """A row for a stage of data preparation."""
    return Row(module, summary, "Data", has_settings=True)


COMMANDS: dict[str, Row] = {
    "run": Row(
        "pipeline.commands.run",
        "Carry out the whole way of celforge.toml: from videos or screenshots to trained models.",
        "Project",
        has_settings=True,
    ),
    "init": Row("pipeline.commands.init", "Write a commented celforge.toml.", "Project"),
    "config": Row("pipeline.commands.config", "Show every setting and where it came from.", "Project"),
    "status": Row(
        "pipeline.commands.status",
        "Show what is known about a folder, by stage, outcome and reason.",
        "Project",
    ),
    "report": stage(
        "stages.report",
        "Write a page about the data set: pictures by folder, balance, tags, sizes, drops and failures.",
    ),
    "ingest": stage(
        "stages.ingest",
        "Take a folder of screenshots in: read every picture, and name those that cannot be used.",
    ),
    "extract": stage(
        "stages.extract",
        "Turn videos into the frames worth training on: each picture once, by its sharpest frame.",
    ),
    "dedupe": stage(
        "stages.dedupe",
        "Drop near-identical pictures over a whole set, and keep the best of each.",
    ),
    "tag": stage(
        "stages.tag",
        "Tag pictures, and keep every probability, so that thresholds can change later without a model.",
    ),
    "tags": Row(
        "pipeline.commands.tags",
        "Count, search and edit the tags of a folder, and draw a chart of them.",
        "Data",
    ),
    "identify": stage(
        "stages.identify", "Name the characters in pictures, by their folders or by their tags."
    ),
    "caption": stage(
        "stages.caption", "Write captions from tags, characters and whatever else is known of a picture."
    ),
    "sync": stage("stages.sync", "Take in what was changed by hand: captions, tags in them, folders."),
    "arrange": stage(
        "stages.arrange",
        "Put pictures into a tree by character, as trainers balance them: n_characters/character.",
    ),
    "balance": stage(
        "stages.balance",
        "Write a multiply.txt into each folder, so that each character is seen as often as it should.",
    ),
    "flatten": stage(
        "stages.flatten",
        "Turn an EveryDream tree into what kohya reads, and back: nothing lost, fractions kept.",
    ),
    "check": stage(
        "stages.check",
        "Find what a trainer would read wrongly or not at all, before it does.",
    ),
    "export": stage(
        "stages.export",
        "Write a data set as the files of another trainer: kohya's JSON, OneTrainer, ai-toolkit and others.",
    ),
    "import-dataset": stage(
        "stages.import_dataset",
        "Take in a list of pictures of another trainer: EveryDream's JSON, kohya's TOML or JSON, JSON lines.",
    ),
    "train": Row(
        "trainers.train",
        "Train a LoHa, a LoCon, a LoRA or a full checkpoint of Stable Diffusion 1.x.",
        "Training",
        has_settings=True,
        has_entries=True,
    ),
    "recipe": Row(
        "trainers.recipe",
        "Take recipes of kohya's scripts and EveryDream2 in, and write them out again.",
        "Training",
    ),
    "compare": Row(
        "trainers.compare",
        "Draw grids of pictures: models across, prompts down, the same noise everywhere.",
        "Training",
        has_settings=True,
    ),
    "average": Row(
        "trainers.average",
        "Average model files into one: step files of a run, or several runs.",
        "Training",
    ),
    "undo": Row("pipeline.commands.undo", "Take back the last change of files.", "Project"),
    "catalog": Row(
        "pipeline.commands.catalog", "Export and import what is known about the images.", "Project"
    ),
    "doctor": Row(
        "pipeline.commands.doctor", "Look at Python, GPU, packages and disk, and say what to mend.", "Machine"
    ),
    "completion": Row("pipeline.commands.completion", "Print the shell's completion script.", "Machine"),
}

JOB_SECTION = "job"
CHARACTERS_SECTION = "characters"  # tables of tables: pipeline/characters.py


def load(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(COMMANDS[name].module)


def settings_classes() -> dict[str, type]:
    """Every section of celforge.toml with its Settings dataclass, [job] first; imports the stages'
    modules.
    """
    from pipeline.job import JobSettings

    classes: dict[str, type] = {JOB_SECTION: JobSettings}
    for name, row in COMMANDS.items():
        if row.has_settings:
            classes[name] = load(name).Settings
    return classes


def section_names() -> Mapping[str, object]:
    """The names that a section of celforge.toml may have, without importing a stage."""
    stages = {name: None for name, row in COMMANDS.items() if row.has_settings}
    return {JOB_SECTION: None, CHARACTERS_SECTION: None} | stages
