"""A comparison worked out before anything is drawn: columns, rows, and the key of every single picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, SettingsError
from pipeline.project import Project
from pipeline.settings import digest
from trainers.adapters.merging import AdapterFile
from trainers.compare_models import SHOWN_KINDS, ModelFile, find_models
from trainers.compare_settings import Settings
from trainers.model_files import locate, part_files, sha256_of_files
from trainers.models import BaseFacts, inspect_base
from trainers.objectives import asked_diffusion
from trainers.prompts import Prompt, read_prompts
from trainers.samplers import SAMPLERS, canonical_name
from trainers.samples import sized

KEY_DIGITS = 16
CAPTION_LENGTHS = (0, 75, 150, 225)


@dataclass(frozen=True, slots=True)
class Base:
    """A base model, or a full checkpoint, that pictures are drawn with."""

    given: str
    name: str
    sha256: str
    facts: BaseFacts = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Column:
    """One model: a base alone, a base with an adapter, or a full checkpoint.

    Args:
        model: None of a base alone.
    """

    base: Base
    model: ModelFile | None = None
    weight: float = 1.0

    @property
    def identity(self) -> tuple[str, str, float]:
        """Base, adapter with embeddings, and weight; an adapter of weight 0 is the base alone."""
        adapter, files = self.adapter, list(self.embeddings.values())
        sha256 = adapter.sha256 if adapter else ""
        if files:
            sha256 += f"+{sha256_of_files(files)}"
        return self.base.sha256, sha256, self.weight if adapter else 0.0

    @property
    def adapter(self) -> ModelFile | None:
        """What is merged into the base."""
        return self.model if self.model and self.model.is_adapter and self.weight else None

    @property
    def embeddings(self) -> Mapping[str, Path]:
        """{name: file} of those that texts may name."""
        model = self.model
        return model.embeddings if model and (self.weight or not model.is_adapter) else {}

    def labels(self, *, has_bases: bool, has_weights: bool) -> tuple[str, str, str]:
        """Lines over the column: base, kind with name, step with weight; each may be empty."""
        top = self.base.name if has_bases and not (self.model and self.model.kind == "full") else ""
        if self.model is None:
            return top, "base", ""
        kind = SHOWN_KINDS[self.model.kind]
        name = self.model.name
        middle = kind if name.lower() == kind.lower() else f"{kind} {name}"
        below = [] if self.model.step is None else [f"step {self.model.step:,}"]
        if has_weights and self.model.is_adapter:
            below.append(f"weight {self.weight:g}")
        return top, middle, ", ".join(below)


@dataclass(frozen=True, slots=True)
class Cell:
    """One single picture.

    Args:
        prompt: with its size and seed.
        key: of everything that shapes it.
    """

    column: Column
    prompt: Prompt
    key: str


@dataclass(slots=True)
class Plan:
    """What a comparison shows."""

    settings: Settings
    columns: list[Column]
    rows: list[Prompt]  # with seeds
    cells: dict[tuple[int, int], Cell]  # by row and column
    clip_skip: int
    max_tokens: int
    precision: str
    failures: list[tuple[Path, str]]
    problems: list[str]

    def labels(self) -> list[tuple[str, str, str]]:
        """Of every column."""
        bases = {one.base.sha256 for one in self.columns if not (one.model and one.model.kind == "full")}
        has_weights = self.settings.weights != (1.0,)
        return [one.labels(has_bases=len(bases) > 1, has_weights=has_weights) for one in self.columns]

    def pictures(self) -> dict[str, Cell]:
        """Every picture once, by key, in the order in which they are drawn: by base, adapter, weight."""
        return {cell.key: cell for _, cell in sorted(self.cells.items(), key=lambda pair: pair[0][::-1])}


def make_plan(settings: Settings, project: Project, models_folder: Path, precision: str) -> Plan:
    """Work a comparison out. Nothing is written, and of models only headers and hashes are read.

    Raises:
        InputError, SettingsError: nothing to compare, no base, no prompts, an unknown sampler.
    """
    _check(settings)
    found = find_models(settings.models, models_folder, settings.steps)
    state_folder = project.state_folder if project.state_folder.is_dir() else None
    bases = _Bases(settings, project, state_folder)
    columns = list(_columns(settings, found.files, bases, found.failures, bool(settings.models)))
    problems = list(_mismatches(columns))
    clip_skip = settings.clip_skip or _of_runs(found.files, "clip_skip", 1, "--clip-skip", problems)
    max_tokens = settings.max_tokens or _of_runs(found.files, "max_tokens", 75, "--max-tokens", problems)
    rows = list(_rows(settings, _prompts(settings, project, found.files)))
    shared = {
        "clip_skip": clip_skip,
        "max_tokens": max_tokens,
        "precision": precision,
        "vae": _vae_sha256(settings.vae, state_folder),
    }
    cells = {}
    for across, column in enumerate(columns):
        for down, row in enumerate(rows):
            prompt = sized(row, column.base.facts.models, seed=0)
            cells[down, across] = Cell(column, prompt, _key(column, prompt, shared))
    return Plan(settings, columns, rows, cells, clip_skip, max_tokens, precision, found.failures, problems)


def _check(settings: Settings) -> None:
    if settings.sampler and canonical_name(settings.sampler) is None:
        raise SettingsError(
            f'there is no sampler "{settings.sampler}"', hint=f"write one of {', '.join(SAMPLERS)}"
        )
    if settings.max_tokens not in CAPTION_LENGTHS:
        raise SettingsError(f"max_tokens must be 75, 150 or 225, found {settings.max_tokens}")
    if not settings.weights:
        raise SettingsError("no weight was given", hint="--weights 1")


class _Bases:
    """Bases by what was given, each looked at once."""

    def __init__(self, settings: Settings, project: Project, state_folder: Path | None) -> None:
        self._settings, self._project, self._state_folder = settings, project, state_folder
        self._known: dict[str, Base] = {}

    def look(self, given: str) -> Base:
        """A base; the same object for the same weights."""
        if given not in self._known:
            facts = inspect_base(given, vae=self._settings.vae, state_folder=self._state_folder)
            models = facts.models
            models.diffusion = asked_diffusion(self._settings, models.diffusion)
            sha256 = sha256_of_files([path for path, _ in facts.files])
            same = (one for one in self._known.values() if one.sha256 == sha256)
            name = Path(facts.models.source.name).name.removesuffix(".safetensors")
            self._known[given] = next(same, Base(given, name, sha256, facts))
        return self._known[given]

    def of_model(self, model: ModelFile) -> list[Base]:
        """What an adapter is drawn on: the bases that were given, or its run's; none when nobody says."""
        asked = self._settings.base
        said = str(model.run.settings.get("base") or "")
        if not asked and not said:
            return []
        return [self.look(self._placed(given)) for given in asked or (said,)]

    def _placed(self, given: str) -> str:
        """A path of a run is relative to where it was started, mostly the project."""
        inside = self._project.root / given
        return str(inside) if not Path(given).expanduser().exists() and inside.exists() else given


def _columns(
    settings: Settings,
    files: Sequence[ModelFile],
    bases: _Bases,
    failures: list[tuple[Path, str]],
    is_typed: bool,
) -> Iterator[Column]:
    """Each base alone and with its adapters, then the full checkpoints, which have no base."""
    known = list({base.sha256: base for one in files for base in bases.of_model(one)}.values())
    adapters = [one for one in files if one.is_adapter]
    if adapters and not known:
        raise InputError(
            f"nobody says which base {adapters[0].path.name} is for", hint="give it: --base MODEL"
        )
    for base in known:
        yield Column(base)
        for model in adapters:
            own = bases.of_model(model) or known
            if base.sha256 not in {one.sha256 for one in own}:
                continue
            try:
                models = base.facts.models
                AdapterFile.read(model.path, meta=True).pairs(models.unet, models.text_encoder)
            except InputError as error:
                if is_typed:
                    raise
                failures.append((model.path, str(error)))
                continue
            yield from (Column(base, model, weight) for weight in settings.weights)
    for model in files:
        if not model.is_adapter:
            yield Column(bases.look(str(model.path)), model)


def _mismatches(columns: Sequence[Column]) -> Iterator[str]:
    """Adapters on a base that predicts something else than what they were trained by, each once."""
    told: set[tuple[str, str]] = set()
    for base, model in ((one.base, one.model) for one in columns):
        if model is None or not model.is_adapter or (base.sha256, model.sha256) in told:
            continue
        told.add((base.sha256, model.sha256))
        here, trained = base.facts.models.diffusion, model.predicts
        if trained and trained != here.prediction_type:
            flag = "v" if trained == "v_prediction" else "epsilon"
            yield (
                f"{model.path.name} was trained by {trained}, and {base.name} is drawn by "
                f"{here.prediction_type}: they do not go together; if the base is such a model: "
                f"--prediction {flag}"
            )
        elif model.is_zero_terminal_snr and not here.is_zero_terminal_snr:
            yield (
                f"{model.path.name} was trained at zero-terminal SNR, and {base.name} is not drawn so: "
                "--zero-terminal-snr on"
            )


def _of_runs(files: Sequence[ModelFile], name: str, default: int, flag: str, problems: list[str]) -> int:
    """A setting of the runs, the first's where they differ."""
    values = [int(one.run.settings[name]) for one in files if one.run.settings.get(name)]
    if len(set(values)) > 1:
        problems.append(f"the runs differ in {name}; all is drawn with {values[0]}: {flag} says another")
    return values[0] if values else default


def _prompts(settings: Settings, project: Project, files: Sequence[ModelFile]) -> list[Prompt]:
    """Those that were given, else of the first run that has some, else its trigger words."""
    if settings.prompts:
        return read_prompts(settings.prompts)
    for one in files:
        said = one.run.settings.get("prompts")
        for path in (Path(said), project.root / said) if said else ():
            if path.is_file():
                return read_prompts(path)
    words = dict.fromkeys(word for one in files for word in one.run.settings.get("trigger_words") or ())
    if not words:
        raise SettingsError("there is nothing to draw: no prompts were given", hint="--prompts FILE")
    return [Prompt(text=word, number=number) for number, word in enumerate(words)]


def _rows(settings: Settings, prompts: Sequence[Prompt]) -> Iterator[Prompt]:
    changes: dict[str, Any] = {
        "width_px": settings.width_px,
        "height_px": settings.height_px,
        "sampler": canonical_name(settings.sampler) if settings.sampler else "",
        "steps": settings.sample_steps,
    }
    changes = {name: value for name, value in changes.items() if value}
    if settings.guidance is not None:
        changes["guidance"] = settings.guidance
    if settings.guidance_rescale is not None:
        changes["guidance_rescale"] = settings.guidance_rescale
    for prompt in prompts:
        for seed in settings.seed or (prompt.seed or 0,):
            yield replace(prompt, **changes, seed=seed)


def _vae_sha256(given: str, state_folder: Path | None) -> str:
    if not given:
        return ""
    place = locate(given, state_folder=state_folder, parts=["vae"])
    if place.is_file:
        return sha256_of_files([place.path])
    inside = place.path / "vae"
    return sha256_of_files(part_files(inside if inside.is_dir() else place.path, "vae"))


def _key(column: Column, prompt: Prompt, shared: Mapping[str, Any]) -> str:
    base, model, weight = column.identity
    words = {
        **shared,
        **{"base": base, "model": model, "weight": weight},
        **{"text": prompt.text, "negative": prompt.negative, "seed": prompt.seed},
        **{"width_px": prompt.width_px, "height_px": prompt.height_px, "sampler": prompt.sampler},
        **{"steps": prompt.steps, "guidance": prompt.guidance},
    }
    diffusion = column.base.facts.models.diffusion
    if prompt.guidance_rescale:
        words["guidance_rescale"] = prompt.guidance_rescale
    if diffusion.prediction_type != "epsilon" or diffusion.is_zero_terminal_snr:
        words["predicts"] = [diffusion.prediction_type, diffusion.is_zero_terminal_snr]
    return digest(words)[:KEY_DIGITS]
