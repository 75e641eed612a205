"""Write captions from tags, characters and whatever else is known of a picture.

A caption file stands beside each picture: trigger words, characters, tags that say something new, within
the 75 tokens that Stable Diffusion reads. What a character's name says already is left out. A caption that a
person or another tool wrote is read and kept; --overwrite writes over it, `celforge undo` brings it back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.caption_files import CAPTION, Spellings, read_captions, shared_captions
from pipeline.caption_lines import JSONL_NAME, Lines
from pipeline.catalog import MediaFile
from pipeline.characters import Character, NameBook, characters_of_job
from pipeline.clip_tokens import MAX_TOKENS, is_one_token
from pipeline.errors import InputError, SettingsError
from pipeline.job import Job, Report, no_images
from pipeline.known_facts import all_facts
from pipeline.layouts.captions import DEFAULT_SEPARATOR, tag_key, tag_text
from pipeline.plan import Plan
from pipeline.settings import nearest, option
from stages.caption_choice import ChoiceRules, Chooser
from stages.caption_text import FIELDS, Field, TextRules, check_template
from stages.caption_writing import Facts, Writer, plan_side_file
from stages.captioners import STEP, load_captioner
from stages.core_tags import (
    CORE_FILE,
    EMBEDDING_FILE,
    WILDCARD_FILE,
    core_file_text,
    embedding_file_text,
    read_core_file,
    wildcard_text,
)
from stages.pruning import load_implications, load_looks, read_tag_list

HAS_PLAN = True
PLAIN = {"template": ("",)}  # settings that a template takes the place of


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Section [caption] of celforge.toml."""

    format: Literal["txt", "caption", "jsonl"] = option(
        "txt",
        "A .txt or .caption file beside each picture, or all in captions.jsonl; kohya asks for its suffix.",
    )
    order: tuple[Field, ...] = option(
        tuple(one for one in FIELDS if one not in ("meta_tags", "description")),
        "Fields in the order of the caption, after the trigger words; those left out are not written.",
        only_if=PLAIN,
    )
    separator: str = option(DEFAULT_SEPARATOR, "What stands between the parts of a caption.")
    trigger_words: tuple[str, ...] = option((), "Words that every caption starts with.")
    keep_tokens_separator: str = option(
        "",
        "Written after what a trainer must not shuffle, such as |||; nothing when left out.",
        metavar="TEXT",
    )
    keep_before: Field = option(
        "tags", "What stands before this field is not to be shuffled or dropped.", only_if=PLAIN
    )
    character_separator: str = option(
        " ", "Between the parts of one character's name, such as sabine|casual."
    )
    num_people_prob: float = option(0.0, "Share of captions that say 2people.", min=0, max=1, only_if=PLAIN)
    characters_prob: float = option(1.0, "Share with the characters.", min=0, max=1, only_if=PLAIN)
    copyright_prob: float = option(0.0, "Share with from SERIES.", min=0, max=1, only_if=PLAIN)
    image_type_prob: float = option(1.0, "Share with the type of picture.", min=0, max=1, only_if=PLAIN)
    artist_prob: float = option(0.0, "Share with by ARTIST.", min=0, max=1, only_if=PLAIN)
    rating_prob: float = option(1.0, "Share with the rating.", min=0, max=1, only_if=PLAIN)
    crop_prob: float = option(1.0, "Share of crops that say so.", min=0, max=1, only_if=PLAIN)
    meta_tags_prob: float = option(
        1.0, "Share with meta tags, where order names them.", min=0, max=1, only_if=PLAIN
    )
    description_prob: float = option(
        1.0, "Share with the description, where order names it.", min=0, max=1, only_if=PLAIN
    )
    tags_prob: float = option(1.0, "Share with tags.", min=0, max=1, only_if=PLAIN)
    ratings: tuple[str, ...] = option(("explicit",), "Ratings that are written.")
    sort: Literal["score", "shuffle", "original"] = option(
        "score", "Tags by probability, shuffled, or as they stood in the caption before."
    )
    seed: int = option(0, "Of every draw: the same seed gives the same captions.", min=0)
    max_tags: int = option(30, "Most tags in a caption, the surest ones; 0 for no limit.", min=0)
    max_tokens: int = option(
        MAX_TOKENS, "Most CLIP tokens of a caption, the least sure tags go first; 0 for no limit.", min=0
    )
    template: str = option(
        "",
        "A sentence instead of the order, such as: {characters}[ from {copyright}], {tags}.",
    )
    captioner: str = option(
        "", "A program with {image} in its arguments, or package.module:function; fills {description}."
    )
    captioner_timeout_s: float = option(
        120.0, "Seconds that a captioner program may take for a picture.", min=0.1, affects_result=False
    )
    prune: Literal["none", "minimal", "core", "all"] = option(
        "core",
        "Leave out nothing; what other tags say; also core tags of a character's looks; or all of its looks.",
    )
    drop_difficulty: int = option(
        2,
        "Looks that a name stands for: 1 hair, eyes and skin; 2 also horns, tails and marks; 0 none.",
        min=0,
        max=2,
        only_if={"prune": ("core", "all")},
    )
    drop_all_core: bool = option(
        False, "Leave out every core tag, also clothes and the like.", only_if={"prune": ("core",)}
    )
    core_frequency: float = option(
        0.4, "Share of a character's pictures that have a tag for it to be core.", min=0.01, max=1
    )
    core_tags: Path | None = option(
        None, "Take core tags from this file, such as a core_tag.json that you edited."
    )
    blacklist: tuple[str, ...] = option((), "Tags that no caption has.")
    blacklist_file: Path | None = option(None, "A text file of tags that no caption has, one a line.")
    implications: Path | None = option(
        None,
        "A TOML file of your own over the table of implied tags.",
        only_if={"prune": ("minimal", "core", "all")},
    )
    core_tag_file: bool = option(False, "Write core_tag.json: the core tags of each character.")
    wildcard_file: Literal["none", "kept", "all"] = option(
        "none", "Write wildcard.txt: prompts of each character with the core tags kept, or all of them."
    )
    embedding_file: bool = option(False, "Write emb_init.json: the words to start an embedding from.")
    embedding_min_difficulty: int = option(
        1,
        "Lowest level of looks that starts an embedding.",
        min=0,
        max=2,
        only_if={"embedding_file": (True,)},
    )
    embedding_max_difficulty: int = option(
        2, "Level of looks below which they start one.", min=0, max=2, only_if={"embedding_file": (True,)}
    )
    overwrite: bool = option(
        False, "Also write over captions that a person or another tool wrote.", affects_result=False
    )
    why: Path | None = option(
        None,
        "Say what is in this picture's caption and what was left out; write nothing.",
        affects_result=False,
    )


def run(job: Job, settings: Settings) -> Report:
    """Write the caption of every picture below the job's folder, or tell of one."""
    check(settings)
    characters = characters_of_job(job)
    rules = text_rules(settings, characters)
    chooser = Chooser(choice_rules(settings), rules)
    files = job.images()
    if not files and not job.failures:
        raise no_images(job.folder)
    by_content: dict[int, list[MediaFile]] = {}
    for file in files:
        by_content.setdefault(file.id, []).append(file)
    asked = _picture_asked_for(job, settings.why, files)
    chooser.prepare(job.catalog, list(by_content))
    if settings.core_tags is not None and not chooser.rules.needs_core:
        job.warn(f"core_tags has no effect: prune is {settings.prune}, and no file of core tags is written")
    for name in sorted(set(chooser.rules.core or ()) - chooser.known_names):
        near = nearest(name, chooser.known_names)
        job.warn(f"{settings.core_tags} names {name}, who is in no picture" + (f": {near}?" if near else ""))
    if asked is not None:
        return _tell_why(job, chooser, asked)
    if settings.captioner:
        _describe(job, settings, files)
    return _write_all(job, settings, chooser, by_content, files)


def check(settings: Settings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        SettingsError: they do.
    """
    if not settings.separator.strip():
        raise SettingsError("separator must hold a sign that is no space", hint='such as ", "')
    if (
        settings.keep_tokens_separator.strip()
        and settings.separator.strip() in settings.keep_tokens_separator
    ):
        raise SettingsError("keep_tokens_separator holds the separator itself", hint='such as "|||"')
    for word in settings.trigger_words:
        if settings.separator.strip() in word:
            hint = "give each word by itself: --trigger-words one --trigger-words two"
            raise SettingsError(f'the trigger word "{word}" holds the separator', hint=hint)
    if len(set(settings.order)) != len(settings.order):
        raise SettingsError("order names a field twice")
    if settings.template:
        check_template(settings.template)
    elif settings.keep_tokens_separator and settings.keep_before not in settings.order:
        raise SettingsError(f"keep_before is {settings.keep_before}, which order leaves out")
    for name in ("meta_tags", "description"):
        if not settings.template and getattr(settings, f"{name}_prob") < 1 and name not in settings.order:
            raise SettingsError(
                f"{name}_prob has no effect: order leaves out {name}", hint=f"add {name} to order"
            )
    used = "{description}" in settings.template if settings.template else "description" in settings.order
    if settings.captioner and not used:
        hint = "add description to order, or {description} to the template"
        raise SettingsError("captioner has no effect: no caption uses the description", hint=hint)
    if settings.embedding_file and settings.embedding_min_difficulty >= settings.embedding_max_difficulty:
        raise SettingsError("embedding_min_difficulty must be below embedding_max_difficulty")


def text_rules(settings: Settings, characters: Mapping[str, Character]) -> TextRules:
    """The settings as the text of captions takes them."""
    names = [one for one in FIELDS if hasattr(settings, f"{one}_prob")]
    return TextRules(
        order=settings.order,
        keep_before=settings.keep_before,
        separator=settings.separator,
        keep_separator=settings.keep_tokens_separator.strip(),
        character_separator=settings.character_separator,
        probabilities={name: getattr(settings, f"{name}_prob") for name in names},
        ratings=frozenset(settings.ratings),
        trigger_words=settings.trigger_words,
        sort=settings.sort,
        seed=settings.seed,
        max_tags=settings.max_tags,
        max_tokens=settings.max_tokens,
        template=settings.template,
        characters=characters,
    )


def choice_rules(settings: Settings) -> ChoiceRules:
    """The settings as the choice of tags takes them.

    Raises:
        SettingsError: a file they name cannot be read.
    """
    listed = read_tag_list(settings.blacklist_file) if settings.blacklist_file else frozenset()
    needs_core = settings.core_tag_file or settings.embedding_file or settings.wildcard_file != "none"
    return ChoiceRules(
        mode=settings.prune,
        blacklist=listed | frozenset(map(tag_key, settings.blacklist)),
        implications=None if settings.prune == "none" else load_implications(settings.implications),
        looks=load_looks(range(settings.drop_difficulty)),
        drops_all_core=settings.drop_all_core,
        core_frequency=settings.core_frequency,
        embedding_looks=load_looks(
            range(settings.embedding_min_difficulty, settings.embedding_max_difficulty)
        ),
        core=read_core_file(settings.core_tags) if settings.core_tags else None,
        needs_core=needs_core or settings.prune == "core",
    )


def _describe(job: Job, settings: Settings, files: Sequence[MediaFile]) -> None:
    """Ask the captioner for every picture it was not asked for, and note what it says."""
    captioner = load_captioner(settings.captioner, settings.captioner_timeout_s)
    if job.is_dry_run:
        job.warn("the captioner is not asked in a dry run; descriptions known already are used")
        return
    for file, text in job.map(captioner.describe, files, step=STEP, key=dict(captioner.key)):
        job.set_fact(file, "description", text, source=captioner.source)


def _write_all(
    job: Job,
    settings: Settings,
    chooser: Chooser,
    by_content: Mapping[int, list[MediaFile]],
    files: Sequence[MediaFile],
) -> Report:
    shared = {files[index].relative: other for index, other in shared_captions(files).items()}
    writer = Writer(
        job=job,
        suffix="" if settings.format == "jsonl" else f".{settings.format}",
        is_overwriting=settings.overwrite,
        compose=chooser.compose,
        name_of=NameBook(chooser.text.characters, chooser.known_names).known,
        separator=settings.separator,
        keep_separator=settings.keep_tokens_separator.strip() or "|||",
        shared=shared,
    )
    if settings.format == "jsonl":
        writer.lines = Lines.read(job.folder / JSONL_NAME, is_overwriting=settings.overwrite)
    with job.progress(len(by_content), "picture", title="caption") as bar:
        for media_id, facts in all_facts(job.catalog, chooser.fact_names, list(by_content)):
            job.check_stop()
            writer.take(by_content[media_id], facts)
            bar.advance()
    writer.finish(files)
    _plan_side_files(job, settings, chooser, writer)
    if not job.is_dry_run:
        writer.note_texts()
    report = job.apply(Plan("caption", writer.actions))
    if job.is_dry_run:
        report.planned = list(writer.preview())
        report.failures = list(job.failures)
        report.counts.clear()  # of an earlier run
    else:
        for state, kept in writer.outcomes.items():
            job.settle_all(kept, "kept", state)
        report = job.report()
    report.values.update(_summary(settings, chooser, writer))
    return report


def _plan_side_files(job: Job, settings: Settings, chooser: Chooser, writer: Writer) -> None:
    texts: dict[str, str] = {}
    if settings.core_tag_file:
        texts[CORE_FILE] = core_file_text(chooser.core)
    if settings.embedding_file:
        texts[EMBEDDING_FILE] = embedding_file_text(chooser.core, chooser.image_types)
    if settings.wildcard_file != "none":
        with_dropped = settings.wildcard_file == "all"
        texts[WILDCARD_FILE] = wildcard_text(chooser.core, chooser.prompt, with_dropped=with_dropped)
    for name, text in texts.items():
        path = job.folder / name
        subject = job.project.relative(path)

        def is_ours(sha256: str, subject: str = subject) -> bool:
            return job.catalog.is_ours(subject, sha256)

        write = plan_side_file(path, text, is_ours, overwrite=settings.overwrite)
        if write is not None:
            writer.actions.append(write)
            writer.side_texts[subject] = text
        elif path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            job.warn(f"{path} was changed by hand and stays; --overwrite writes over it")


def _summary(settings: Settings, chooser: Chooser, writer: Writer) -> dict[str, Any]:
    """What the report shows."""
    tokens, fixed = writer.tally.tokens, writer.tally.fixed
    values: dict[str, Any] = {"tags_left_out": dict(writer.tally.reasons.most_common())}
    if tokens:
        over = sum(count for number, count in tokens.items() if number > MAX_TOKENS)
        values["tokens"] = {
            "fewest": min(tokens),
            "median": writer.tally.median_tokens,
            "most": max(tokens),
        }
        values["captions_over_75_tokens"] = over
        values["keep_tokens"] = min(fixed) if len(fixed) == 1 else {"fewest": min(fixed), "most": max(fixed)}
    if chooser.core:
        values["core_tags"] = {
            name: [tag_text(tag) for tag in sorted(one.left_out)] for name, one in chooser.core.items()
        }
    if settings.embedding_file:
        taken = [name for name in chooser.embedding_names if is_one_token(name)]
        values["embedding_names_that_are_words_of_clip"] = taken
    values["edits_read"] = writer.edits
    values["not_understood"] = writer.problems
    return values


# Why


def _picture_asked_for(job: Job, why: Path | None, files: Sequence[MediaFile]) -> MediaFile | None:
    """The picture of --why.

    Raises:
        InputError: it is not among the pictures below the folder.
    """
    if why is None:
        return None
    wanted = why.expanduser().absolute()
    found = next(
        (file for file in files if file.path == wanted or file.path.resolve() == wanted.resolve()), None
    )
    if found is None:
        hint = f"give its folder as well: celforge caption {why.parent} --why {why}"
        raise InputError(f"{why} is not a picture below {job.folder}", hint=hint)
    return found


def _tell_why(job: Job, chooser: Chooser, file: MediaFile) -> Report:
    """What the caption of one picture holds, and why the rest is not in it."""
    _, facts = next(iter(all_facts(job.catalog, chooser.fact_names, [file.id])))
    composed = chooser.compose(file, facts)
    said: dict[str, str] = {
        name: f"{found[0].value!r} ({'a person' if found[0].by_hand else found[0].source})"
        for name, found in facts.items()
        if name not in ("tags", CAPTION) and found[0].value not in (None, [], {}, "")
    }
    report = Report(job.stage)
    report.values.update(
        {
            "picture": file.relative,
            "caption": composed.text,
            "on_disk": _on_disk(job, file, facts),
            "tokens": composed.tokens,
            "known": said,
            "left_out": {tag_text(one.tag): _reason(one.reason, one.detail) for one in composed.dropped},
        }
    )
    return report


def _on_disk(job: Job, file: MediaFile, facts: Facts) -> dict[str, str]:
    """The captions that stand there now, and whose they are: a person's stays as it is."""
    stand: dict[str, str] = {}
    for one in read_captions(job.catalog, file, Spellings(), facts).values():
        whose = "celforge's" if one.is_ours else "a person's or another tool's: stays"
        stand[one.path.name] = f"{one.problem if one.text is None else repr(one.text)} ({whose})"
    return stand


def _reason(reason: str, detail: str) -> str:
    return f"{reason}: {tag_text(detail)}" if detail else reason
