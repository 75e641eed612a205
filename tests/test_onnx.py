"""The provider that was asked for is the provider that runs, or a person is told why not."""

import contextlib
import logging
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline.onnx
from pipeline.console import LOG
from pipeline.errors import DeviceError, InputError, MissingPackageError
from pipeline.onnx import IDENTITY_MODEL, Session, choose_providers, open_session, self_test
from pipeline.providers import Refusal, distribution_conflict, onnxruntime_distributions
from tests.tiny_taggers import entry, value_info

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
GPU_BUILD = (TENSORRT, CUDA, CPU)
CPU_BUILD = ("AzureExecutionProvider", CPU)


# --- a model by hand: protobuf is (field << 3 | kind) and a value; https://onnx.ai, onnx.proto3 ---


def identity_model(shape: Sequence[int | str], *, metadata: dict[str, str] | None = None) -> bytes:
    """ModelProto: ir_version = 1, graph = 7, opset_import = 8, metadata_props = 14."""
    node = entry(1, "x") + entry(2, "y") + entry(4, "Identity")
    graph = (
        entry(1, node) + entry(2, "g") + entry(11, value_info("x", shape)) + entry(12, value_info("y", shape))
    )
    properties = [entry(14, entry(1, key) + entry(2, value)) for key, value in (metadata or {}).items()]
    return entry(1, 8) + entry(7, graph) + entry(8, entry(2, 17)) + b"".join(properties)


# --- an onnxruntime that does what a test says ---


class EngineError(Exception):
    """Stands for the binding's own exceptions, which derive from nothing but Exception."""


class FakeRaw:
    def __init__(self, providers: Sequence[str]) -> None:
        self.providers = list(providers)
        self.falls_back = True
        self.run_error: Exception | None = None

    def disable_fallback(self) -> None:
        self.falls_back = False

    def get_providers(self) -> list[str]:
        return self.providers

    def get_inputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="x", shape=["batch", 3], type="tensor(float)")]

    def get_outputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="y")]

    def get_modelmeta(self) -> Any:
        return types.SimpleNamespace(custom_metadata_map={})

    def run(self, names: object, feed: dict[str, Any]) -> list[Any]:
        if self.run_error:
            raise self.run_error
        return [feed["x"]]


class FakeOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class FakeOnnxruntime(types.ModuleType):
    """`broken` providers raise, `silent` ones are dropped without a word, `missing` libraries do not load."""

    def __init__(
        self,
        available: Sequence[str],
        *,
        broken: dict[str, str] | None = None,
        silent: Sequence[str] = (),
        missing: Sequence[str] = (),
    ) -> None:
        super().__init__("onnxruntime")
        self.available, self.broken, self.silent, self.missing = available, broken or {}, silent, missing
        self.capi = types.SimpleNamespace(onnxruntime_pybind11_state=types.SimpleNamespace(Fail=EngineError))
        self.ExecutionMode = types.SimpleNamespace(ORT_SEQUENTIAL="sequential")
        self.SessionOptions = FakeOptions
        self.cuda_version, self.severities = "13.0", list[int]()
        self.opened: list[tuple[list[Any], FakeOptions, FakeRaw]] = []

    def get_available_providers(self) -> list[str]:
        return list(self.available)

    def set_default_logger_severity(self, severity: int) -> None:
        self.severities.append(severity)

    def preload_dlls(self) -> None:
        for name in self.missing:
            sys.stdout.write(f"Failed to load {name}: {name}: cannot open shared object file\n")

    def InferenceSession(
        self, source: str | bytes, options: FakeOptions, *, providers: list[Any], enable_fallback: int
    ) -> FakeRaw:
        assert enable_fallback == 0
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        sys.stdout.write("EP Error: onnxruntime prints here\n")
        for name in names:
            if name in self.broken:
                raise EngineError(self.broken[name])
        raw = FakeRaw([name for name in names if name not in self.silent])
        self.opened.append((providers, options, raw))
        return raw


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a fake in onnxruntime's place, on a machine that has an NVIDIA driver."""

    def install(fake: types.ModuleType, *, driver: bool = True) -> Any:
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        monkeypatch.setattr(pipeline.onnx, "has_nvidia_driver", lambda: driver)
        return fake

    return install


@contextlib.contextmanager
def log_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)


# --- the choice ---


def test_auto_takes_cuda_before_the_cpu_and_leaves_tensorrt_for_who_asks() -> None:
    choice = choose_providers("auto", GPU_BUILD, platform="linux")
    assert choice.requested == (CUDA, CPU)
    assert "takes minutes" in choice.unused["tensorrt"].reason
    assert choice.unused["directml"] == Refusal("only on Windows")


def test_auto_leaves_out_what_cannot_work_here() -> None:
    choice = choose_providers("auto", GPU_BUILD, unusable={"cuda": Refusal("no driver")}, platform="linux")
    assert choice.requested == (CPU,)
    assert choice.unused["cuda"].reason == "no driver"


def test_a_cpu_build_says_what_to_install_for_cuda() -> None:
    choice = choose_providers("auto", CPU_BUILD, platform="win32")
    assert choice.requested == (CPU,)
    assert choice.unused["cuda"].reason == "not in this onnxruntime build: install onnxruntime-gpu"
    first, second = choice.unused["cuda"].fix.splitlines()
    assert "uninstall" in first
    assert second.endswith("install onnxruntime-gpu")


@pytest.mark.parametrize(
    ("device", "available", "requested"),
    [
        ("cpu", GPU_BUILD, (CPU,)),
        ("cuda", GPU_BUILD, (CUDA, CPU)),
        ("tensorrt", GPU_BUILD, (TENSORRT, CUDA, CPU)),
        ("directml", ("DmlExecutionProvider", CPU), ("DmlExecutionProvider", CPU)),
        ("coreml", ("CoreMLExecutionProvider", CPU), ("CoreMLExecutionProvider", CPU)),
        ("openvino", ("OpenVINOExecutionProvider", CPU), ("OpenVINOExecutionProvider", CPU)),
        ("rocm", ("MIGraphXExecutionProvider", CPU), ("MIGraphXExecutionProvider", CPU)),
    ],
)
def test_a_device_by_name_asks_for_its_provider_then_the_cpu(
    device: Any, available: Sequence[str], requested: Sequence[str]
) -> None:
    choice = choose_providers(device, available)
    assert choice.requested == requested
    assert device not in choice.unused


def test_a_device_by_name_that_the_build_lacks_is_an_error_with_the_command() -> None:
    with pytest.raises(DeviceError, match="not in this onnxruntime build") as caught:
        choose_providers("cuda", CPU_BUILD, platform="linux")
    assert "install onnxruntime-gpu" in caught.value.hint
    with pytest.raises(DeviceError, match="only on macOS"):
        choose_providers("coreml", GPU_BUILD, platform="linux")


def test_two_distributions_of_onnxruntime_are_found_and_one_is_kept() -> None:
    installed = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.31.1", "numpy": "2.0"}
    names = list(onnxruntime_distributions(installed))
    assert names == ["onnxruntime", "onnxruntime-gpu"]
    conflict = distribution_conflict(names, "linux")
    assert conflict is not None
    uninstall, install = conflict.fix.splitlines()
    assert uninstall.endswith("onnxruntime onnxruntime-gpu")
    assert install.endswith("install onnxruntime-gpu")
    assert distribution_conflict(["onnxruntime-gpu"]) is None


def test_the_build_somebody_chose_is_the_one_that_is_kept() -> None:
    conflict = distribution_conflict(["onnxruntime", "onnxruntime-directml"], "win32")
    assert conflict is not None
    assert conflict.fix.endswith("install onnxruntime-directml")


# --- opening, with fakes ---


def test_auto_says_what_it_got(use: Any) -> None:
    use(FakeOnnxruntime(GPU_BUILD))
    with log_lines() as lines:
        session = open_session(IDENTITY_MODEL)
    assert session.device == "cuda"
    assert lines == ["INFO the model runs on cuda"]


def test_auto_on_a_machine_without_driver_never_tries_cuda_and_says_why(use: Any) -> None:
    fake = use(FakeOnnxruntime(GPU_BUILD, broken={CUDA: "must not be tried"}), driver=False)
    with log_lines() as lines:
        session = open_session(IDENTITY_MODEL)
    assert session.device == "cpu"
    assert fake.opened[0][0] == [CPU]
    assert lines == ["INFO the model runs on cpu (no NVIDIA driver on this machine)"]


def test_auto_warns_when_cuda_is_there_and_does_not_start(use: Any) -> None:
    use(FakeOnnxruntime(GPU_BUILD, silent=[CUDA], missing=["libcublasLt.so.13"]))
    with log_lines() as lines:
        session = open_session(IDENTITY_MODEL)
    assert session.device == "cpu"
    assert any(line.startswith("WARNING cuda is not used: CUDA 13 libraries not found") for line in lines)
    assert "onnxruntime-gpu[cuda,cudnn]" in session.unused["cuda"].fix


def test_two_distributions_at_once_are_named_whatever_was_asked_for(
    use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(pipeline.onnx, "onnxruntime_distributions", lambda: both)
    use(FakeOnnxruntime(CPU_BUILD))
    with log_lines() as lines:
        open_session(IDENTITY_MODEL)
    assert any("WARNING onnxruntime and onnxruntime-gpu are installed together" in line for line in lines)
    with pytest.raises(DeviceError, match="installed together") as caught:
        open_session(IDENTITY_MODEL, "cuda")
    assert "uninstall" in caught.value.hint
    with log_lines() as lines:
        open_session(IDENTITY_MODEL, "cpu")
    assert not any("together" in line for line in lines)


@pytest.mark.parametrize("how", [{"silent": [CUDA]}, {"broken": {CUDA: "CUDA failure 2: out of memory"}}])
def test_cuda_by_name_that_falls_back_is_an_error(use: Any, how: Any) -> None:
    use(FakeOnnxruntime(GPU_BUILD, **how))
    with pytest.raises(DeviceError, match="--device cuda did not start") as caught:
        open_session(IDENTITY_MODEL, "cuda")
    assert caught.value.hint


def test_a_driver_too_old_for_the_build_gets_the_older_build_as_fix(use: Any) -> None:
    said = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"
    use(FakeOnnxruntime(GPU_BUILD, broken={CUDA: said}))
    with pytest.raises(DeviceError, match="too old for CUDA 13") as caught:
        open_session(IDENTITY_MODEL, "cuda")
    assert "<1.27" in caught.value.hint


def test_tensorrt_keeps_its_engines_and_leaves_the_rest_to_cuda(use: Any, tmp_path: Path) -> None:
    fake = use(FakeOnnxruntime(GPU_BUILD))
    session = open_session(IDENTITY_MODEL, "tensorrt", cache_folder=tmp_path / "engines")
    assert session.device == "tensorrt"
    first, *others = fake.opened[0][0]
    assert first[1]["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert others == [CUDA, CPU]


def test_half_precision_reaches_tensorrt_and_nothing_else(use: Any, tmp_path: Path) -> None:
    for device, wanted in (("tensorrt", [True, False, False]), ("cuda", [False, False])):
        fake = use(FakeOnnxruntime(GPU_BUILD))
        open_session(IDENTITY_MODEL, device, half_precision=True)  # type: ignore[arg-type]
        asked = [
            one[1].get("trt_fp16_enable") == "1" if isinstance(one, tuple) else False
            for one in fake.opened[0][0]
        ]
        assert asked == wanted
        fake = use(FakeOnnxruntime(GPU_BUILD))
        open_session(IDENTITY_MODEL, device, cache_folder=tmp_path)  # type: ignore[arg-type]
        assert not any("trt_fp16_enable" in one[1] for one in fake.opened[0][0] if isinstance(one, tuple))


def test_a_session_does_not_spin_nor_fall_back_while_it_runs(use: Any) -> None:
    fake = use(FakeOnnxruntime(CPU_BUILD))
    open_session(IDENTITY_MODEL, threads=3)
    _, options, raw = fake.opened[0]
    assert options.entries["session.intra_op.allow_spinning"] == "0"
    assert options.intra_op_num_threads == 3
    assert raw.falls_back is False


def test_directml_runs_without_memory_pattern(use: Any) -> None:
    fake = use(FakeOnnxruntime(("DmlExecutionProvider", CPU)))
    open_session(IDENTITY_MODEL, "directml")
    assert fake.opened[0][1].enable_mem_pattern is False


def test_what_onnxruntime_prints_stays_off_stdout_and_its_log_level_comes_back(
    use: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = use(FakeOnnxruntime(GPU_BUILD, missing=["libcudnn.so.9"]))
    open_session(IDENTITY_MODEL)
    assert capsys.readouterr().out == ""
    assert fake.severities == [4, 2]


def test_a_run_that_fails_names_the_device_and_a_way_out(use: Any) -> None:
    fake = use(FakeOnnxruntime(GPU_BUILD))
    session = open_session(IDENTITY_MODEL)
    fake.opened[0][2].run_error = EngineError(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out of memory\nmore"
    )
    with pytest.raises(DeviceError, match="failed on cuda: out of memory; take") as caught:
        session.run(np.zeros((1, 3), np.float32))
    assert "--device cpu" in caught.value.hint


def test_a_half_removed_onnxruntime_is_named(use: Any) -> None:
    use(types.ModuleType("onnxruntime"))
    with pytest.raises(MissingPackageError, match="half empty") as caught:
        open_session(IDENTITY_MODEL)
    assert "install" in caught.value.hint


def test_a_missing_onnxruntime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # makes the import fail
    with pytest.raises(MissingPackageError, match="cannot be imported") as caught:
        open_session(IDENTITY_MODEL)
    assert "onnxruntime" in caught.value.hint


# --- opening, for real, on the CPU ---


def test_the_built_in_model_is_what_the_grammar_gives() -> None:
    assert identity_model([1]) == IDENTITY_MODEL


def write_model(folder: Path, shape: Sequence[int | str], **metadata: str) -> Path:
    path = folder / "identity.onnx"
    path.write_bytes(identity_model(shape, metadata=metadata))
    return path


def open_on_cpu(folder: Path, shape: Sequence[int | str], **metadata: str) -> Session:
    return open_session(write_model(folder, shape, **metadata), "cpu", threads=1)


def test_a_real_session_tells_its_shape_and_gives_its_input_back(tmp_path: Path) -> None:
    session = open_on_cpu(tmp_path, ["batch", 3, 2], names="face")
    assert (session.name, session.device, session.providers) == ("identity.onnx", "cpu", (CPU,))
    assert (session.input_name, session.input_shape, session.input_dtype) == ("x", (None, 3, 2), "float32")
    assert session.fixed_batch is None
    assert session.metadata == {"names": "face"}
    batch = np.arange(30, dtype=np.float32).reshape(5, 3, 2)
    (output,) = session.run(batch)
    assert np.array_equal(output, batch)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_fixed_batch_takes_any_number_of_pictures(tmp_path: Path, length: int) -> None:
    session = open_on_cpu(tmp_path, [2, 3])
    assert session.fixed_batch == 2
    batch = np.arange(length * 3, dtype=np.float32).reshape(length, 3)
    (output,) = session.run(batch)
    assert np.array_equal(output, batch)


def test_the_self_test_names_the_device_and_why_not_the_others() -> None:
    told = self_test()
    assert told["device"] in ("cpu", "cuda", "directml", "coreml", "openvino", "rocm")
    assert set(told["unused"]) <= {"cuda", "tensorrt", "rocm", "directml", "openvino", "coreml"}
    assert told["available"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"", "empty file"),
        (b"nothing that onnxruntime reads", "cannot be loaded"),
        (b"x\n", "cannot be loaded"),  # protobuf of a model without a graph
    ],
)
def test_what_only_looks_like_a_model_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_session(path, "cpu")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no model .*absent\.onnx"):
        open_session(tmp_path / "absent.onnx", "cpu")
