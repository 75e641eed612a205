"""Sessions of onnxruntime: the provider is chosen and said aloud, and never falls back in silence.

onnxruntime falls back to the CPU with only a log line, both when a session is made (microsoft/onnxruntime
issues 17801, 21424, 23372) and when a run fails. Here what was asked for is compared with what was obtained:
a device asked for by name that did not come is an error; `auto` takes the best that works and logs what it
got and why.
"""

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import LOG
from pipeline.errors import DeviceError, InputError, MissingPackageError
from pipeline.machine.hardware import has_nvidia_driver
from pipeline.machine.packages import install_command
from pipeline.providers import (
    CPU,
    DISTRIBUTIONS,
    FOR_CUDA_12,
    PROVIDERS,
    Device,
    ProviderChoice,
    Refusal,
    choose_providers,
    distribution_conflict,
    onnxruntime_distributions,
    what_to_type,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Device",
    "ProviderChoice",
    "Refusal",
    "Session",
    "choose_providers",
    "open_session",
    "self_test",
]

_NO_DRIVER = "no NVIDIA driver on this machine"

# one Identity node over float32 [1]; tests/test_onnx.py encodes the same bytes from the ONNX grammar
IDENTITY_MODEL = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a"
    "0a08080112040a020801620f0a0179120a0a08080112040a02080142021011"
)


@dataclass(frozen=True, slots=True)
class Session:
    """One model, ready to run.

    Attributes:
        device: where it runs, in the words of --device.
        input_shape: sizes of the model's first input; None for an axis that may have any size.
        input_dtype: numpy name of the first input, such as `float32`.
        metadata: what the exporter wrote into the file, such as the class names of a YOLO detector.
        unused: why each other device is not used.
    """

    name: str
    device: str
    providers: tuple[str, ...]
    input_name: str
    input_shape: tuple[int | None, ...]
    input_dtype: str
    output_names: tuple[str, ...]
    metadata: Mapping[str, str]
    unused: Mapping[str, Refusal]
    _raw: Any = field(repr=False)
    _errors: tuple[type[Exception], ...] = field(repr=False)

    @property
    def fixed_batch(self) -> int | None:
        """How many pictures every run must have, 1 in some exports; None when any number will do."""
        return self.input_shape[0] if self.input_shape else None

    def run(self, batch: "NDArray[Any]") -> "list[NDArray[Any]]":
        """Every output, for a batch of any length: a fixed batch is fed in pieces, zeros filling the last.

        Args:
            batch: [batch, ...], dtype `input_dtype`, the other axes as in `input_shape`.
        Returns: one array for each output, [batch, ...].

        Raises:
            DeviceError: the device failed while it worked, most often for want of memory.
        """
        size = self.fixed_batch
        if size is None or len(batch) == size:
            return self._run_once(batch)
        import numpy as np

        pieces = [
            self._run_once(_padded(batch[start : start + size], size)) for start in range(0, len(batch), size)
        ]
        if not pieces:
            raise ValueError(f"{self.name}: a batch of no pictures")
        return [np.concatenate(outputs)[: len(batch)] for outputs in zip(*pieces, strict=True)]

    def _run_once(self, batch: "NDArray[Any]") -> "list[NDArray[Any]]":
        try:
            return list(self._raw.run(None, {self.input_name: batch}))
        except self._errors as error:
            hint = "take a smaller batch" + ("" if self.device == "cpu" else ", or --device cpu")
            raise DeviceError(
                f"{self.name} failed on {self.device}: {_first_line(error)}", hint=hint
            ) from error


def _padded(piece: "NDArray[Any]", size: int) -> "NDArray[Any]":
    import numpy as np

    missing = size - len(piece)
    widths = [(0, missing)] + [(0, 0)] * (piece.ndim - 1)
    return np.pad(piece, widths) if missing else piece


def open_session(
    model: Path | bytes,
    device: Device = "auto",
    *,
    threads: int | None = None,
    cache_folder: Path | None = None,
    half_precision: bool = False,
) -> Session:
    """Load a model onto a device and say where it runs.

    Args:
        model: path of an .onnx file, or its bytes.
        threads: CPU threads inside one operator; None lets onnxruntime take every core.
        cache_folder: where TensorRT keeps the engines it builds, so that the second start is quick.
        half_precision: let TensorRT compute in float16 where that is faster.

    Raises:
        DeviceError: a device asked for by name is not in this build, or did not start.
        InputError: the model is missing, or is not an ONNX model.
        MissingPackageError: onnxruntime is not installed, or cannot be imported.
    """
    onnxruntime = _import_onnxruntime()
    name = _checked_name(model)
    unusable = {} if has_nvidia_driver() else dict.fromkeys(("cuda", "tensorrt"), Refusal(_NO_DRIVER))
    conflict = distribution_conflict(list(onnxruntime_distributions()))
    try:
        choice = choose_providers(device, onnxruntime.get_available_providers(), unusable=unusable)
    except DeviceError as error:
        if conflict is None:
            raise
        message = f"{error.message}; {conflict.reason}"
        raise DeviceError(message, hint=what_to_type(conflict)) from error
    source = model if isinstance(model, bytes) else str(model)
    with _quiet(onnxruntime):
        missing = _preload_cuda(onnxruntime, choice.requested)
        options = _tensorrt_options(cache_folder, half_precision=half_precision)
        if cache_folder is not None and choice.requested[0].startswith("Tensorrt"):
            cache_folder.mkdir(parents=True, exist_ok=True)
        raw, failures = _create(onnxruntime, name, source, choice, threads, options)
    refusals = {
        provider: _explain(provider, text, missing, onnxruntime) for provider, text in failures.items()
    }
    if device != "auto" and choice.requested[0] in refusals:
        raise _did_not_start(device, unusable.get(device) or refusals[choice.requested[0]], conflict)
    session = _describe(name, raw, choice, refusals, _errors_of(onnxruntime))
    _say(session, refusals)
    if conflict is not None and device == "auto" and session.device == "cpu":
        LOG.warning("%s; %s", conflict.reason, what_to_type(conflict))
    return session


def _did_not_start(device: Device, refusal: Refusal, conflict: Refusal | None) -> DeviceError:
    hint = what_to_type(conflict or refusal) or "take --device auto"
    reason = f"{refusal.reason}; {conflict.reason}" if conflict else refusal.reason
    return DeviceError(f"--device {device} did not start: {reason}", hint=hint)


def _import_onnxruntime() -> Any:
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        message = f"onnxruntime cannot be imported: {_first_line(error)}"
        raise MissingPackageError(message, hint=_repair_hint()) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # what is left when one of two in the folder was removed
        raise MissingPackageError("the folder of onnxruntime is half empty", hint=_repair_hint())
    return onnxruntime


def _repair_hint() -> str:
    present = list(onnxruntime_distributions())
    wanted = present[0] if present else DISTRIBUTIONS["coreml" if sys.platform == "darwin" else "cuda"]
    options = ("--force-reinstall", "--no-deps") if present else ()
    return what_to_type(distribution_conflict(present) or Refusal("", install_command(*options, wanted)))


def _checked_name(model: Path | bytes) -> str:
    """The model's name in messages; refuses what only looks like a model."""
    if isinstance(model, bytes):
        return "the model"
    if not model.is_file():
        raise InputError(
            f"there is no model {model}", hint="check the path; models of a hub are written owner/name"
        )
    with model.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{model} is a Git LFS pointer, not the model itself", hint="type `git lfs pull` in its folder"
        )
    if not start or start.lstrip().startswith(b"<"):
        kind = "a web page" if start else "an empty file"
        raise InputError(f"{model} is {kind}, not an ONNX model", hint="download it again")
    return model.name


@contextlib.contextmanager
def _quiet(onnxruntime: Any) -> Iterator[None]:
    """Hold back what onnxruntime itself writes about providers; we say the same once, with the fix."""
    onnxruntime.set_default_logger_severity(4)  # 4 = fatal
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # 2 = warning, its default


def _preload_cuda(onnxruntime: Any, requested: Sequence[str]) -> list[str]:
    """Load CUDA and cuDNN from where pip puts them; return the libraries that are missing."""
    preload = getattr(onnxruntime, "preload_dlls", None)  # onnxruntime 1.21 and newer
    if preload is None or not any(name.startswith(("CUDA", "Tensorrt")) for name in requested):
        return []
    with contextlib.redirect_stdout(io.StringIO()) as said:
        preload()
    return re.findall(r"Failed to load (\S+?):", said.getvalue())


def _create(
    onnxruntime: Any,
    name: str,
    source: str | bytes,
    choice: ProviderChoice,
    threads: int | None,
    tensorrt_options: Mapping[str, str],
) -> tuple[Any, dict[str, str]]:
    """A session, and for each provider that did not start, what onnxruntime said (perhaps nothing)."""
    errors = _errors_of(onnxruntime)
    providers, failures = list(choice.requested), dict[str, str]()
    while True:
        options = _session_options(onnxruntime, providers, threads)
        arguments = [
            (provider, dict(tensorrt_options))
            if provider.startswith("Tensorrt") and tensorrt_options
            else provider
            for provider in providers
        ]
        try:
            raw = onnxruntime.InferenceSession(source, options, providers=arguments, enable_fallback=0)
            break
        except errors as error:
            if providers[0] == CPU:
                raise InputError(
                    f"{name} cannot be loaded: {_first_line(error)}",
                    hint="download it again, or update onnxruntime",
                ) from error
            failures[providers.pop(0)] = _first_line(error)
    raw.disable_fallback()  # else a run that fails goes on, on the CPU, with only a line on stdout
    failures |= {provider: "" for provider in providers if provider not in raw.get_providers()}
    return raw, failures


def _session_options(onnxruntime: Any, providers: Sequence[str], threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # 3 = error
    if threads is not None:
        options.intra_op_num_threads = threads
    # measured: spinning gains nothing here, and it takes the cores that decode pictures
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if "DmlExecutionProvider" in providers:  # DirectML allows neither memory patterns nor parallel nodes
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return options


def _tensorrt_options(cache_folder: Path | None, *, half_precision: bool) -> dict[str, str]:
    options = {"trt_fp16_enable": "1"} if half_precision else {}
    if cache_folder is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache_folder)}
    return options


def _errors_of(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """What a session may raise: the binding's classes share no base but Exception."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    found = [one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)]
    return (RuntimeError, *found)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.splitlines()[0])[:300]


def _explain(provider: str, said: str, missing: Sequence[str], onnxruntime: Any) -> Refusal:
    """One sentence a person can act on, out of what onnxruntime said and which libraries are missing."""
    cuda = str(getattr(onnxruntime, "cuda_version", "") or "").split(".")[0]
    if "driver version is insufficient" in said:
        return Refusal(f"the NVIDIA driver is too old for CUDA {cuda}", install_command(FOR_CUDA_12))
    if missing:
        libraries = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        return Refusal(
            f"CUDA {cuda} libraries not found: {libraries}", install_command("onnxruntime-gpu[cuda,cudnn]")
        )
    if provider.startswith("Tensorrt") and (not said or "TensorRT libraries" in said):
        return Refusal("TensorRT libraries not found")
    return Refusal(said or "onnxruntime could not start it and gave no reason")


def _describe(
    name: str,
    raw: Any,
    choice: ProviderChoice,
    refusals: Mapping[str, Refusal],
    errors: tuple[type[Exception], ...],
) -> Session:
    providers = tuple(raw.get_providers())
    first = raw.get_inputs()[0]
    dtype = re.sub(r"^tensor\((.*)\)$", r"\1", first.type)
    return Session(
        name=name,
        device=_device_of(providers[0]),
        providers=providers,
        input_name=first.name,
        input_shape=tuple(size if isinstance(size, int) and size > 0 else None for size in first.shape),
        input_dtype={"float": "float32", "double": "float64"}.get(dtype, dtype),
        output_names=tuple(output.name for output in raw.get_outputs()),
        metadata=dict(raw.get_modelmeta().custom_metadata_map),
        unused={**choice.unused, **{_device_of(provider): refusal for provider, refusal in refusals.items()}},
        _raw=raw,
        _errors=errors,
    )


def _device_of(provider: str) -> str:
    return next((device for device, providers in PROVIDERS.items() if provider in providers), provider)


def _say(session: Session, refusals: Mapping[str, Refusal]) -> None:
    why = dict.fromkeys(_news(session.unused)) if session.device == "cpu" else {}
    LOG.info("%s runs on %s%s", session.name, session.device, f" ({'; '.join(why)})" if why else "")
    for provider, refusal in refusals.items():  # in this build, and yet it did not start: worth a warning
        hint = what_to_type(refusal)
        LOG.warning("%s is not used: %s%s", _device_of(provider), refusal.reason, f"; {hint}" if hint else "")


def _news(unused: Mapping[str, Refusal]) -> list[str]:
    """Why there is no graphics card in use, as far as the usual cards of a platform go."""
    reasons = [unused[device].reason for device in ("cuda", "directml", "coreml") if device in unused]
    return [reason for reason in reasons if not reason.startswith(("only on", "not asked for"))]


def self_test() -> dict[str, Any]:
    """Run the smallest model on `auto` and tell what came of it; for `celforge doctor`."""
    onnxruntime = _import_onnxruntime()
    session = open_session(IDENTITY_MODEL)
    import numpy as np

    session.run(np.ones(1, np.float32))
    return {
        "version": str(onnxruntime.__version__),
        "cuda": str(getattr(onnxruntime, "cuda_version", "") or ""),
        "available": list(onnxruntime.get_available_providers()),
        "device": session.device,
        "unused": {device: [refusal.reason, refusal.fix] for device, refusal in session.unused.items()},
    }
