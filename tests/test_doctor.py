"""celforge doctor finds what breaks, names what to type, tells no secret and never faints itself."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pipeline.machine.doctor
from pipeline.commands.doctor import advice, command
from pipeline.machine import hardware, package_checks, packages, system_checks, torch_checks
from pipeline.machine.doctor import examine, has_problem
from pipeline.machine.findings import Check, Facts, Finding, gib, short_path, without_secrets
from pipeline.machine.hardware import Gpu, NvidiaReport, memory_limit_bytes, parse_nvidia_smi, query_nvidia
from pipeline.machine.packages import (
    Answer,
    ask_python,
    declared_requirements,
    install_command,
    torch_command,
)

RTX = Gpu(0, "NVIDIA GeForce RTX 3060", "550.54.14", 12288, 11200, "8.6")
WITH_CARD = NvidiaReport(found=True, gpus=(RTX,), cuda="12.4")
TORCH = {"cuda": "", "hip": "", "device": "", "reason": "", "mps": False}
TOLD = {"version": "1.31.1", "cuda": "13.0", "available": [], "device": "cpu", "unused": {}}


def answering(answers: Mapping[str, Any]) -> Callable[[str, float], Answer]:
    """A fresh Python that knows the answer to code which holds one of the words; an Exception is an error."""

    def ask(code: str, timeout_s: float) -> Answer:
        value = next(value for word, value in answers.items() if word in code)
        return (
            Answer(error=f"{type(value).__name__}: {value}")
            if isinstance(value, Exception)
            else Answer(value)
        )

    return ask


def facts(answers: Mapping[str, Any] | None = None, **given: Any) -> Facts:
    values: dict[str, Any] = {
        "environment": {},
        "platform": "linux",
        "ask": answering(answers or {}),
        **given,
    }
    return Facts(**values)


def one(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


# --- the command ---


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command with checks of our own, on a machine of our own."""

    def call(
        *checks: Check, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Any:
        monkeypatch.setattr(
            pipeline.machine.doctor, "gather_facts", lambda folder: facts(environment=environment or {})
        )
        monkeypatch.setattr(pipeline.machine.doctor, "examine", lambda given: examine(given, checks))
        return CliRunner().invoke(command, list(arguments))

    return call


def check_well(facts: Facts) -> list[Finding]:
    return [Finding("Area", "Well", "ok", "it is well")]


def check_noted(facts: Facts) -> list[Finding]:
    return [Finding("Area", "Noted", "note", "could be better", "type this")]


def check_bad(facts: Facts) -> list[Finding]:
    return [Finding("Other", "Bad", "problem", "it is broken", "first line\nsecond line")]


def check_that_crashes(facts: Facts) -> list[Finding]:
    raise ZeroDivisionError("a defect of the check")


def test_a_well_machine_and_mere_notes_exit_with_0(run_with: Callable[..., Any]) -> None:
    result = run_with(check_well, check_noted)
    assert result.exit_code == 0
    assert "no problems, 1 note" in result.stdout


def test_a_problem_exits_with_1_and_its_commands_stand_on_lines_of_their_own(
    run_with: Callable[..., Any],
) -> None:
    result = run_with(check_well, check_bad)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[lines.index("To mend (Other, Bad):") + 1 :][:2] == ["  first line", "  second line"]
    assert lines[-1] == "1 problem, no notes"


def test_json_is_a_list_of_findings_and_nothing_else(run_with: Callable[..., Any]) -> None:
    import json

    result = run_with(check_well, check_bad, arguments=["--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"area": "Area", "name": "Well", "status": "ok", "text": "it is well", "fix": ""},
        {
            "area": "Other",
            "name": "Bad",
            "status": "problem",
            "text": "it is broken",
            "fix": "first line\nsecond line",
        },
    ]


def test_a_check_that_crashes_becomes_a_finding_and_the_others_still_report(
    run_with: Callable[..., Any],
) -> None:
    result = run_with(check_that_crashes, check_well)
    assert result.exit_code == 1
    assert "ZeroDivisionError: a defect of the check" in result.stdout
    assert "it is well" in result.stdout


def test_findings_keep_the_order_of_the_checks() -> None:
    found = examine(facts(), [check_noted, check_bad, check_well] * 5)
    assert [finding.name for finding in found] == ["Noted", "Bad", "Well"] * 5


def test_the_same_fix_is_told_once() -> None:
    finding = Finding("Area", "One", "note", "text", "do it")
    lines = advice([finding, replace(finding, name="Two")])
    assert lines.count("  do it") == 1
    assert "If you want to (Area, One; Area, Two):" in lines


def test_no_secret_is_told(run_with: Callable[..., Any]) -> None:
    def check_that_leaks(facts: Facts) -> list[Finding]:
        raise RuntimeError("401 for https://me:pass@host/x with hf_abcdefghijkl and s3cr3t-value")

    environment = {"MY_API_KEY": "s3cr3t-value", "HF_TOKEN": "hf_abcdefghijkl"}
    result = run_with(check_that_leaks, environment=environment)
    assert "401 for https://[hidden]@host/x with [hidden] and [hidden]" in " ".join(result.stdout.split())


def test_short_values_of_secret_names_do_not_tear_the_text() -> None:
    finding = Finding("Area", "Name", "ok", "100 files")
    assert without_secrets(finding, {"TOKENIZERS_PARALLELISM": "1", "TOKEN": "  "}) == finding


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from click.testing import CliRunner
from pipeline.commands.doctor import command
assert CliRunner().invoke(command, ["--help"]).exit_code == 0
heavy = {"torch", "cv2", "av", "onnxruntime", "numpy", "PIL", "rich", "huggingface_hub", "subprocess"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=packages.SOURCE_FOLDER)


def test_the_whole_report_works_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_tell_anybody")
    monkeypatch.setattr(torch_checks, "_TORCH_CODE", f"answer = {TORCH!r}")  # importing torch takes seconds
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code in (0, 1)
    assert '"Doctor"' not in result.stdout, "a check crashed"
    assert "do_not_tell" not in result.stdout
    for name in ("Python", "Dependencies", "onnxruntime", "OpenCV", "PyAV", "Pillow", "Memory", "Hard links"):
        assert f'"name": "{name}"' in result.stdout
    assert list(tmp_path.iterdir()) == [], "the folder is left as it was"


# --- cards and driver ---

BANNER = "| NVIDIA-SMI 550.54.14    Driver Version: 550.54.14    CUDA Version: 12.4     |"
NEW_BANNER = "| NVIDIA-SMI 610.43.02    KMD Version: 610.43.02     CUDA UMD Version: 13.3 |"


def test_nvidia_smi_is_read_in_its_old_and_its_new_words() -> None:
    row = "0, NVIDIA GeForce RTX 3060, 550.54.14, 12288, 11200, 8.6\n"
    assert parse_nvidia_smi(row, BANNER) == ((RTX,), "12.4")
    assert parse_nvidia_smi(row, NEW_BANNER) == ((RTX,), "13.3")
    assert parse_nvidia_smi("", "") == ((), "")


def test_a_card_that_shares_memory_has_none_of_its_own() -> None:
    gpus, _ = parse_nvidia_smi("0, NVIDIA GB10, 580.1, [N/A], [N/A], 12.1\n", NEW_BANNER)
    assert gpus[0].total_mib == 0
    report = NvidiaReport(found=True, gpus=gpus)
    assert "shared memory" in one(system_checks.check_graphics_card(facts(nvidia=report))).text


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    if sys.platform == "win32":
        pytest.skip("the fake is a shell script")

    def install(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return install


def test_a_card_is_reported_with_memory_and_driver(nvidia_smi: Callable[[str], None]) -> None:
    row = "0, NVIDIA GeForce RTX 3060, 550.54.14, 12288, 11200, 8.6"
    nvidia_smi(f"case \"$*\" in *query-gpu*) echo '{row}';; *) echo '{BANNER}';; esac")
    found = one(system_checks.check_graphics_card(facts(nvidia=query_nvidia())))
    assert (found.name, found.status) == ("GPU 0", "ok")
    assert (
        found.text == "NVIDIA GeForce RTX 3060, 12.0 GiB, 10.9 GiB free; driver 550.54.14 (CUDA up to 12.4)"
    )


def test_a_driver_that_fails_is_a_problem_with_its_own_words(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    found = one(system_checks.check_graphics_card(facts(nvidia=query_nvidia())))
    assert found.status == "problem"
    assert "Driver/library version mismatch" in found.text


def test_a_driver_that_hangs_is_given_up(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("exec sleep 20")
    assert query_nvidia(timeout_s=0.2).error == "nvidia-smi did not answer within 0 s"


def test_a_driver_without_cards_and_no_card_at_all_are_notes() -> None:
    without = NvidiaReport(found=True, error="No devices were found")
    assert one(system_checks.check_graphics_card(facts(nvidia=without))).status == "note"
    nothing = one(system_checks.check_graphics_card(facts()))
    assert (nothing.status, nothing.text[:14]) == ("note", "no NVIDIA card")


@pytest.mark.parametrize(
    ("vendor", "said"),
    [("NVIDIA", "without a driver"), ("AMD", "ROCm"), ("Apple", "MPS"), ("Intel", "(Intel")],
)
def test_cards_of_other_makers_are_told_apart(vendor: str, said: str) -> None:
    found = one(system_checks.check_graphics_card(facts(vendors=[vendor])))
    assert found.status == "note"
    assert said in found.text


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux lists")
def test_makers_are_read_from_what_the_kernel_lists(tmp_path: Path) -> None:
    for name, code in (("card0", "0x1002"), ("card1", "0x8086"), ("card2", "0xffff")):
        (tmp_path / name / "device").mkdir(parents=True)
        (tmp_path / name / "device" / "vendor").write_text(f"{code}\n")
    assert hardware.graphics_vendors(tmp_path) == ["AMD", "Intel"]


# --- onnxruntime and torch ---


def test_two_builds_of_onnxruntime_are_a_problem_with_both_commands() -> None:
    versions = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.31.1"}
    found = one(package_checks.check_onnxruntime(facts(versions=versions)))
    assert found.status == "problem"
    assert len(found.fix.splitlines()) == 2


def test_onnxruntime_says_where_models_run_and_why_not_elsewhere() -> None:
    unused = {"tensorrt": ["no driver", ""], "cuda": ["no driver", ""], "coreml": ["only on macOS", ""]}
    answers = {"self_test": {**TOLD, "unused": unused}}
    found = one(package_checks.check_onnxruntime(facts(answers, versions={"onnxruntime-gpu": "1.31.1"})))
    assert found.status == "ok"
    assert found.text == (
        "1.31.1 (onnxruntime-gpu for CUDA 13.0); models run on the CPU. Not on cuda or tensorrt: no driver"
    )


def test_models_on_the_cpu_beside_a_card_are_a_problem() -> None:
    unused = {"cuda": ["CUDA 12 libraries not found: libcublas.so.12", "pip install these"]}
    answers = {"self_test": {**TOLD, "cuda": "12.8", "unused": unused}}
    found = one(package_checks.check_onnxruntime(facts(answers, nvidia=WITH_CARD)))
    assert (found.status, found.fix) == ("problem", "pip install these")


def test_a_cpu_build_beside_a_card_gets_the_commands_that_exchange_it() -> None:
    unused = {"cuda": ["not in this onnxruntime build: install onnxruntime-gpu", "exchange it"]}
    answers = {"self_test": {**TOLD, "cuda": "", "unused": unused}}
    found = one(package_checks.check_onnxruntime(facts(answers, nvidia=WITH_CARD)))
    assert (found.status, found.fix) == ("problem", "exchange it")


def test_a_driver_too_old_for_onnxruntime_gets_the_build_that_fits() -> None:
    answers = {"self_test": {**TOLD, "unused": {"cuda": ["it failed", ""]}}}
    found = one(package_checks.check_onnxruntime(facts(answers, nvidia=WITH_CARD)))
    assert "The driver runs CUDA up to 12.4" in found.text
    assert found.fix.endswith('"onnxruntime-gpu[cuda,cudnn]<1.27"')


def test_torch_that_is_not_installed_is_a_note() -> None:
    found = one(torch_checks.check_torch(facts()))
    assert found.status == "note"
    assert "[train]" in found.fix
    on_windows = one(torch_checks.check_torch(facts(nvidia=WITH_CARD, platform="win32")))
    assert "--torch-backend=auto" in on_windows.fix.splitlines()[1]


@pytest.mark.parametrize(
    ("told", "nvidia", "status", "said"),
    [
        ({}, NvidiaReport(found=False), "note", "runs on the CPU"),
        ({"cuda": "12.6", "device": "RTX 3060"}, WITH_CARD, "ok", "trains on RTX 3060"),
        ({"mps": True}, NvidiaReport(found=False), "ok", "MPS"),
        ({}, WITH_CARD, "problem", "CPU build"),
        (
            {"cuda": "13.0", "reason": "The NVIDIA driver on your system is too old"},
            WITH_CARD,
            "problem",
            "too new",
        ),
        ({"cuda": "13.0", "reason": "unknown error"}, WITH_CARD, "problem", "too new for the driver"),
        ({"cuda": "12.6", "reason": "unknown error"}, WITH_CARD, "problem", "unknown error"),
        (
            {"cuda": "13.0", "device": "GTX 1060", "reason": "no kernel image"},
            WITH_CARD,
            "problem",
            "no kernel",
        ),
    ],
)
def test_torch_and_card_are_judged_together(
    told: dict[str, Any], nvidia: NvidiaReport, status: str, said: str
) -> None:
    answers = {"import torch\n": {**TORCH, **told}}
    found = one(torch_checks.check_torch(facts(answers, versions={"torch": "2.13.0"}, nvidia=nvidia)))
    assert found.status == status
    assert said in found.text
    assert bool(found.fix) == (status == "problem")


def test_cards_hidden_on_purpose_are_a_note() -> None:
    answers = {"import torch\n": {**TORCH, "cuda": "12.6"}}
    hidden = facts(
        answers, versions={"torch": "2.13.0"}, nvidia=WITH_CARD, environment={"CUDA_VISIBLE_DEVICES": ""}
    )
    found = one(torch_checks.check_torch(hidden))
    assert (found.status, found.fix) == ("note", "unset CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("version", "status"), [("2.6.0", "problem"), ("2.7.0", None), ("2.14.1+cpu", None), ("2.15.0", "note")]
)
def test_the_version_of_torch_is_held_against_the_tested_range(version: str, status: str | None) -> None:
    answers = {"import torch\n": TORCH}
    found = [
        finding.status
        for finding in torch_checks.check_torch(facts(answers, versions={"torch": version}))
        if finding.name == "torch version"
    ]
    assert found == ([status] if status else [])


def test_a_torch_that_cannot_be_imported_is_a_problem() -> None:
    answers = {"import torch\n": OSError("libcudart.so.13 not found")}
    found = torch_checks.check_torch(facts(answers, versions={"torch": "2.13.0"}))[0]
    assert found.status == "problem"
    assert "libcudart" in found.text


def test_torchvision_of_another_build_is_a_problem_and_a_fitting_one_beside_a_cpu_torch_a_note() -> None:
    versions = {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}
    broken = {
        "import torchvision": RuntimeError("operator torchvision::nms does not exist"),
        "import torch\n": TORCH,
    }
    found = torch_checks.check_torch(facts(broken, versions=versions))[-1]
    assert (found.name, found.status) == ("torchvision", "problem")
    assert "CLIP" in found.text
    assert found.fix.endswith("torchvision")
    fitting = {"import torchvision": "0.28.0", "import torch\n": TORCH}
    assert torch_checks.check_torch(facts(fitting, versions=versions))[-1].status == "note"


# --- other packages ---


def test_a_package_of_our_names_from_elsewhere_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert one(package_checks.check_celforge(facts())).status == "ok"
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "stages", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = one(package_checks.check_celforge(facts()))
    assert found.status == "problem"
    assert str(tmp_path) in found.text


def declare(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(package_checks, "declared_requirements", lambda: list(lines))


def test_a_missing_or_too_old_dependency_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(
        monkeypatch,
        "pillow>=11.3",
        "click>=8.2",
        "nothing>=1; python_version < '3'",
        "torch>=2; extra == 'train'",
    )
    found = one(package_checks.check_dependencies(facts(versions={"pillow": "10.0"})))
    assert found.status == "problem"
    assert found.text == "pillow is 10.0, declared is >=11.3; click is not installed"
    assert found.fix.endswith('install "pillow>=11.3" "click>=8.2"')


def test_another_build_of_a_dependency_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "onnxruntime-gpu>=1.20", "opencv-python>=4.10")
    versions = {"onnxruntime-directml": "1.24", "opencv-python-headless": "4.12"}
    found = one(package_checks.check_dependencies(facts({"importlib": {}}, versions=versions)))
    assert found.status == "ok"


def test_a_dependency_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch)
    answers = {"importlib": {"numpy": "", "huggingface_hub": "ImportError: broken"}}
    found = one(package_checks.check_dependencies(facts(answers)))
    assert found.status == "problem"
    assert found.fix.endswith("--force-reinstall huggingface-hub")


def test_two_builds_of_opencv_are_a_problem() -> None:
    versions = {"opencv-python": "4.12", "opencv-python-headless": "4.12"}
    found = one(package_checks.check_opencv(facts(versions=versions)))
    assert found.status == "problem"
    assert found.fix.endswith("install opencv-python")


def test_a_missing_system_library_gets_its_package() -> None:
    error = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    found = one(package_checks.check_opencv(facts({"import cv2": error}, versions={"opencv-python": "4.12"})))
    assert found.status == "problem"
    assert found.fix.endswith("apt-get install -y libgl1 libglib2.0-0")
    on_windows = facts({"import cv2": ImportError("DLL load failed while importing cv2")}, platform="win32")
    assert one(package_checks.check_opencv(on_windows)).fix.startswith("winget install Microsoft.VCRedist")


@pytest.mark.parametrize(
    ("missing", "av1", "status"),
    [([], True, "ok"), ([], False, "note"), (["av1"], False, "note"), (["hevc"], True, "problem")],
)
def test_decoders_that_episodes_need_are_judged(missing: list[str], av1: bool, status: str) -> None:
    libraries = {"libavcodec": [62, 1, 0], "libavformat": [62, 0, 0]}
    told = {"version": "18.1.0", "ffmpeg": "8.1", "libraries": libraries, "missing": missing, "av1": av1}
    found = one(package_checks.check_av(facts({"import av": told})))
    assert found.status == status
    assert "libavcodec 62.1.0" in found.text


@pytest.mark.parametrize(
    ("missing", "status"), [([], "ok"), (["AVIF"], "note"), (["WebP", "AVIF"], "problem")]
)
def test_picture_formats_are_judged(missing: list[str], status: str) -> None:
    assert one(package_checks.check_pillow(facts({"import PIL": ["13.0", missing]}))).status == status


def test_the_training_packages_may_be_absent_but_not_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, "numpy>=2", "torch>=2.7; extra == 'train'", "diffusers>=0.37; extra == 'train'")
    monkeypatch.setattr(package_checks, "_OPTIONAL", {})
    assert package_checks.check_training_packages(facts())[0].status == "note"
    old = package_checks.check_training_packages(facts(versions={"diffusers": "0.30"}))[0]
    assert old.status == "problem"
    new = package_checks.check_training_packages(facts(versions={"diffusers": "0.37"}))[0]
    assert (new.status, new.text) == ("ok", "diffusers 0.37")


# --- machine, files, model cache ---


def test_a_file_system_is_tried_and_left_clean(tmp_path: Path) -> None:
    found = system_checks.check_file_system(facts(folder=tmp_path))
    assert [finding.name for finding in found] == ["Hard links", "Symbolic links", "Capital letters"]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_hard_links_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    found = system_checks.check_file_system(facts(folder=tmp_path))[0]
    assert (found.name, found.status) == ("Hard links", "note")


@pytest.mark.parametrize(("free_gib", "status"), [(100, "ok"), (5, "note"), (0.5, "problem")])
def test_room_on_the_disk_is_judged(
    free_gib: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": int(free_gib * 2**30)})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert one(system_checks.check_disk(facts(folder=tmp_path))).status == status


def test_windows_without_long_paths_gets_the_line_for_the_registry() -> None:
    found = system_checks._windows_path_finding(False, Path())
    assert found.status == "note"
    assert "LongPathsEnabled /t REG_DWORD /d 1" in found.fix
    assert system_checks._windows_path_finding(True, Path()).status == "ok"


def test_a_token_is_named_and_never_shown() -> None:
    environment = {"HF_TOKEN": "hf_abcdefghijkl", "HF_ENDPOINT": "https://me:pass@mirror.example/x?key=1"}
    found = system_checks.check_hub_settings(facts(environment=environment))
    texts = {finding.name: finding.text for finding in found}
    assert texts["Token"] == "HF_TOKEN is set (not shown)"
    assert texts["Endpoint"] == "HF_ENDPOINT sends downloads to https://mirror.example"
    assert not [text for text in texts.values() if "abcdef" in text or "pass" in text or "key" in text]


def test_a_token_with_a_line_end_is_a_note() -> None:
    found = one(system_checks.check_hub_settings(facts(environment={"HF_TOKEN": "hf_abcdefghijkl\n"})))
    assert found.status == "note"


@pytest.mark.parametrize(("value", "names"), [("1", ["Token", "Network"]), ("0", ["Token"]), ("", ["Token"])])
def test_offline_is_told_when_it_is_on(value: str, names: list[str]) -> None:
    found = system_checks.check_hub_settings(facts(environment={"HF_HUB_OFFLINE": value}))
    assert [finding.name for finding in found] == names


def test_the_model_cache_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "model").write_bytes(b"x" * 3 * 2**20)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert "3 MiB in use" in one(system_checks.check_model_cache(facts())).text
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "absent" / "hub"))
    assert "not made yet" in one(system_checks.check_model_cache(facts())).text


def test_a_container_limits_memory(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("4294967296\n")
    assert memory_limit_bytes(tmp_path) == 4 * 2**30


def test_sizes_and_paths_are_written_for_people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (gib(512 * 2**20), gib(1.5 * 2**30)) == ("512 MiB", "1.5 GiB")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert short_path(tmp_path / "a" / "b") == str(Path("~/a/b"))
    assert short_path(tmp_path.parent) == str(tmp_path.parent)


# --- packages ---


def test_a_fresh_python_answers_fails_dies_or_is_given_up() -> None:
    assert ask_python("print('noise'); answer = [1, 'two']", 20) == Answer([1, "two"])
    assert ask_python("import a_module_that_is_not_there", 20).error.startswith("ModuleNotFoundError")
    assert ask_python("import os; os._exit(3)", 20).error == "Python died: exit code 0x3"
    assert ask_python("import time; time.sleep(20)", 0.3).error == "no answer within 0 s"


def test_a_file_of_the_current_folder_is_not_taken_for_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert ask_python("import numpy; answer = 1", 20) == Answer(1)


def test_commands_are_typed_for_the_python_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "python_command", lambda: "python")
    assert install_command("a>=1", "b") == 'python -m pip install "a>=1" b'
    first, second = torch_command("torch").splitlines()
    assert first == "python -m pip install uv"
    assert second.startswith("python -m uv pip install --python ")
    monkeypatch.setattr(packages, "has_pip", lambda: False)
    assert install_command("a").startswith("uv pip install --python ")
    assert packages.uninstall_command("a").endswith(" a")
    assert "-y" not in packages.uninstall_command("a").split()


def test_our_requirements_are_known_in_a_source_tree_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    lines = declared_requirements()
    assert any(line.startswith("pillow") and "extra" not in line for line in lines)
    assert any(line.startswith("torch") and 'extra == "train"' in line for line in lines)


def test_a_name_has_one_spelling() -> None:
    assert packages.normal_name("Opencv_Python.Headless") == "opencv-python-headless"


def test_only_problems_count() -> None:
    assert not has_problem([*check_well(facts()), *check_noted(facts())])
    assert has_problem(check_bad(facts()))
