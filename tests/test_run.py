"""The plan of `celforge run`, and its going on after a failure, told by stand-ins for the stages."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from pipeline.chain import ORDER, Chain, read_chain, select
from pipeline.chain_plan import Planned, feeds, forecast
from pipeline.commands.run import NOTHING_FOUND
from pipeline.errors import ExitCode, InputError, InterruptedRunError, PipelineError, SettingsError
from pipeline.project import Project
from pipeline.run import Run, StageError, result_text
from pipeline.stage_command import command_of
from tests.conftest import Celforge

CHAIN = "[ingest]\n[dedupe]\n[tag]\n[identify]\nby_tags = true\n[caption]\n[arrange]\n[balance]\n[flatten]\n[report]\n"


def project(root: Path, text: str, *files: str) -> Project:
    root.mkdir(exist_ok=True)
    (root / "celforge.toml").write_text(text)
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        else:
            path.write_bytes(name.encode())
        os.utime(path, ns=(10**18, 10**18))
    return Project(root)


def folders(chain: Chain) -> dict[str, str]:
    return {one.name: os.path.relpath(one.folder, chain.project.root) for one in chain.links}


# What is in the chain, and on which folder


def test_episodes_are_extracted_and_the_frames_go_on(tmp_path: Path) -> None:
    chain = read_chain(project(tmp_path / "a", "[extract]\n[tag]\n[arrange]\n[flatten]", "videos/1.mkv"), {})
    assert folders(chain) == {"extract": "videos", "tag": "frames", "arrange": "frames", "flatten": "dataset"}


def test_screenshots_are_taken_in_where_there_are_no_episodes(tmp_path: Path) -> None:
    chain = read_chain(project(tmp_path / "a", "[extract]\n[tag]", "images/1.png"), {})
    assert folders(chain) == {"ingest": "images", "tag": "images"}


def test_frames_and_screenshots_together_are_the_project(tmp_path: Path) -> None:
    chain = read_chain(project(tmp_path / "a", "[extract]\n[tag]", "images/1.png", "videos/1.mkv"), {})
    assert folders(chain) == {"extract": "videos", "ingest": "images", "tag": "."}


@pytest.mark.parametrize(
    ("name", "way_in", "then"), [("ep 1.mp4", "extract", "frames"), ("1.png", "ingest", ".")]
)
def test_files_at_the_top_are_found_too(tmp_path: Path, name: str, way_in: str, then: str) -> None:
    chain = read_chain(project(tmp_path / "a", "[ingest]\n[tag]", name), {})
    assert folders(chain) == {way_in: ".", "tag": then}


def test_other_folders_are_named_in_run(tmp_path: Path) -> None:
    text = '[run]\nimages = "screens"\n[ingest]\n[arrange]\nout = "tree"\n[check]\n'
    chain = read_chain(project(tmp_path / "a", text, "screens/1.png", "images/2.png"), {})
    assert folders(chain) == {"ingest": "screens", "arrange": "screens", "check": "tree"}


def test_every_train_is_a_stage_of_its_own(tmp_path: Path) -> None:
    text = '[[train]]\nbase = "x"\n[[train]]\nname = "b"\nkind = "full"\ndata = "kohya"\n'
    chain = read_chain(project(tmp_path / "a", text), {})
    assert folders(chain) == {"train.loha": "dataset", "train.b": "kohya"}
    assert [one.name for one in select(chain, None, None, ["train"])] == ["train.loha", "train.b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "asks for no stage"),
        ("[extract]\n[tag]\n", "neither videos nor pictures"),
        ('[run]\nvideos = "none"\n[tag]', "there is no folder"),
        ("[tagg]\n", 'unknown section "tagg"'),
    ],
)
def test_nothing_to_begin_with_says_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((InputError, SettingsError), match=message) as caught:
        read_chain(project(tmp_path / "a", text), {})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("", "no model to start from was given"),
        ('base = "gone.safetensors"', "there is no model gone.safetensors"),
        ('base = "owner/name"\nvae = "./vae"', "there is no model ./vae"),
        ('base = "owner/name"\nprompts = "p.txt"', "there is no file of prompts"),
    ],
)
def test_what_would_fail_after_hours_is_refused_before_the_first_stage(
    celforge: Celforge, tmp_path: Path, entry: str, message: str
) -> None:
    folder = project(tmp_path / "a", f"[ingest]\n[[train]]\n{entry}\n", "images/1.png").root
    for more in ((), ("--plan",)):
        answer = celforge("run", folder, *more)
        assert answer.exit_code == ExitCode.USAGE
        assert f"[2/2] train.loha: {message}" in answer.stderr
        assert "ingest  " in answer.stdout and "[1/2]" not in answer.stderr
    assert celforge("run", folder, "--to", "ingest").exit_code == 0


def test_a_folder_of_another_project_is_refused(tmp_path: Path) -> None:
    inner = project(tmp_path / "a", "[ingest]", "images/1.png")
    (inner.root / "images/.celforge").mkdir()
    with pytest.raises(InputError, match="images is a project by itself"):
        read_chain(inner, {})
    project(tmp_path / "other", "", "1.png")
    with pytest.raises(InputError, match="outside of the project"):
        read_chain(project(tmp_path / "b", '[run]\nimages = "../other"\n[ingest]'), {})


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    text = CHAIN + '[[train]]\nname = "one"\nsteps = 7\nbase = "owner/name"\n'
    return read_chain(project(tmp_path / "anime", text, "images/a.png", "images/b.png"), {})


def test_from_and_to_cut_the_chain(chain: Chain) -> None:
    assert [one.name for one in select(chain, "flatten", None, [])] == ["flatten", "train.one", "report"]
    assert [one.name for one in select(chain, "tag", "identify", [])] == ["tag", "identify"]
    assert [one.name for one in select(chain, None, None, ["tag", "report"])] == ["tag", "report"]


@pytest.mark.parametrize(
    ("first", "last", "only", "hint"),
    [
        ("tagg", None, [], 'did you mean "tag"'),
        (None, None, ["train.on"], 'did you mean "train.one"'),
        (None, None, ["one"], 'did you mean "train.one"'),
        (None, "check", [], "write [check] into"),
        ("caption", "tag", [], "--from tag --to caption"),
        ("caption", None, ["tag"], "leave one of them out"),
    ],
)
def test_a_wrong_name_names_the_right_one(
    chain: Chain, first: str | None, last: str | None, only: list[str], hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        select(chain, first, last, only)
    assert hint in caught.value.hint


def test_nothing_feeds_what_comes_before_it(chain: Chain) -> None:
    links = chain.links
    fed = {
        (one.name, other.name)
        for at, one in enumerate(links)
        for other in links[at + 1 :]
        if feeds(one, other)
    }
    assert ("tag", "train.one") in fed
    assert ("flatten", "train.one") not in fed, "it reads dataset/"
    assert all(("report" in pair) for pair in fed if "flatten" in pair[:1])


# Carried out by stand-ins


class Stages:
    """Stand-ins: each notes that it was called, does what a test asks, and answers."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.called: list[str] = []
        self.does: dict[str, Callable[[], None]] = {}
        self.answers: dict[str, Mapping[str, Any]] = {}

    def command_of(self, name: str) -> click.Command:
        def call(**given: Any) -> None:
            self.called.append(name)
            if name == "ingest":  # the real one: what it took in is asked of the catalogue
                command = command_of(name)
                command.main([str(given["folder"]), "--json"], standalone_mode=False)
                return
            self.does.get(name, lambda: None)()
            answer = {"counts": [], "made": [], "failures": [], **self.answers.get(name, {})}
            click.echo(json.dumps(answer))
            click.get_current_context().exit(ExitCode.FAILED_ITEMS if answer["failures"] else 0)

        arguments = [
            click.Argument(["what" if name == "train" else "folder"]),
            click.Option(["--json"], is_flag=True),
        ]
        return click.Command(name, params=list(arguments), callback=call)

    def _new(self) -> Run:
        self.chain = read_chain(self.chain.project, {})
        return Run(self.chain, self.command_of, lambda *_: None, lambda _: None)

    def run(self) -> tuple[int, list[str]]:
        self.called.clear()
        code = self._new().carry_out(self.chain.links)
        return int(code), self.called

    def plan(self) -> dict[str, Planned]:
        run = self._new()
        return {one.link.name: one for one in run.plan(self.chain.links)}


@pytest.fixture
def stages(chain: Chain) -> Stages:
    return Stages(chain)


ALL = [name for name in ORDER if name not in ("extract", "check", "compare")]


def why(planned: Mapping[str, Planned], name: str) -> str:
    return "; ".join(planned[name].reasons)


def test_each_stage_runs_once_and_then_none(stages: Stages) -> None:
    assert {one.state for one in stages.plan().values()} == {"to run"}
    assert stages.run() == (0, ALL)
    assert {one.state for one in stages.plan().values()} == {"up to date"}
    assert stages.run() == (0, [])


def test_a_plan_writes_nothing(stages: Stages) -> None:
    stages.plan()
    assert not stages.chain.project.state_folder.exists()


def test_a_moved_project_is_still_up_to_date(stages: Stages) -> None:
    stages.answers["report"] = {"made": [str(stages.chain.project.root / "images/a.png")]}
    stages.run()
    moved = stages.chain.project.root.rename(stages.chain.project.root.with_name("moved"))
    stages.chain = read_chain(Project(moved), {})
    assert stages.run() == (0, [])


def test_a_changed_setting_is_named_and_what_follows_looks_again(stages: Stages) -> None:
    stages.run()
    path = stages.chain.project.root / "celforge.toml"
    path.write_text(path.read_text().replace("[tag]\n", "[tag]\nthreshold = 0.2\n[job]\nworkers = 3\n"))
    plan = stages.plan()
    assert why(plan, "tag") == "setting threshold is 0.2, was not set"
    assert plan["dedupe"].state == "up to date"
    assert plan["caption"].state == "perhaps"
    assert why(plan, "identify") == "looks again after tag"
    assert stages.run()[1] == ["tag", "identify", "caption", "arrange", "balance", "report"]
    assert stages.run() == (0, [])


def test_new_and_changed_pictures_are_counted(stages: Stages, celforge: Celforge) -> None:
    root = stages.chain.project.root
    stages.run()
    Image.new("RGB", (8, 8), (0, 9, 0)).save(root / "images/c.png")
    Image.new("RGB", (9, 9), (0, 9, 9)).save(root / "images/a.png")
    plan = stages.plan()
    assert why(plan, "ingest") == why(plan, "tag") == "pictures: 1 new, 1 changed"
    assert plan["tag"].items == 2


def test_a_picture_that_comes_while_a_stage_works_makes_it_stale(stages: Stages) -> None:
    root = stages.chain.project.root
    stages.does["dedupe"] = lambda: Image.new("RGB", (8, 8)).save(root / "images/late.png")
    stages.run()
    stages.does.clear()
    plan = stages.plan()
    assert "pictures" in why(plan, "dedupe")
    assert plan["tag"].state == "perhaps"


def test_a_caption_edited_in_the_tree_is_trained_anew(stages: Stages) -> None:
    caption = stages.chain.project.root / "dataset/a.txt"
    caption.parent.mkdir()
    caption.write_text("a")
    stages.run()
    caption.write_text("another")
    assert "data changed" in why(stages.plan(), "train.one")


def test_what_was_made_and_is_gone_is_made_again(stages: Stages) -> None:
    page = stages.chain.project.root / "page.html"
    page.write_text("")
    stages.answers["report"] = {"made": [str(page)]}
    stages.run()
    page.unlink()
    assert why(stages.plan(), "report") == "page.html is gone"
    assert stages.run() == (0, ["report"])


def test_a_model_that_was_written_over_is_trained_from_again(stages: Stages, tmp_path: Path) -> None:
    path = stages.chain.project.root / "celforge.toml"
    base = stages.chain.project.root / "base.safetensors"
    base.write_bytes(b"one")
    path.write_text(path.read_text().replace("owner/name", "base.safetensors"))
    stages.run()
    base.write_bytes(b"another")
    assert why(stages.plan(), "train.one") == "base base.safetensors changed"


def test_failed_items_let_the_run_go_on_and_are_tried_again(stages: Stages) -> None:
    stages.answers["tag"] = {"failures": [{"path": "a.png", "reason": "x", "detail": ""}]}
    assert stages.run() == (3, ALL)
    assert why(stages.plan(), "tag") == "1 failed the last time: tried again"
    assert stages.run() == (3, ["tag"]), "nothing else came of it, so nothing else is done"
    stages.answers.clear()
    assert stages.run() == (0, ["tag", "identify", "caption", "arrange", "balance", "report"])
    assert stages.run() == (0, [])


def fail(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PipelineError("b.png cannot be tagged", hint="mend it"), 1),
        (SettingsError("threshold is odd"), 2),
        (InterruptedRunError("interrupted; what is done is saved", hint="the same again"), 130),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "b.png"), 1),
        (click.UsageError("no such thing"), 2),
    ],
)
def test_a_failed_stage_stops_the_run_and_says_how_to_go_on(
    stages: Stages, error: BaseException, code: int
) -> None:
    stages.does["tag"] = fail(error)
    with pytest.raises(StageError, match=r"^\[3/10\] tag: ") as caught:
        stages.run()
    assert caught.value.exit_code == code
    assert "go on with: celforge run" in caught.value.hint
    assert stages.called == ["ingest", "dedupe", "tag"]
    stages.does.clear()
    plan = stages.plan()
    assert plan["dedupe"].state == "up to date"
    assert why(plan, "tag") == "was cut off: goes on where it stopped"
    assert stages.run() == (0, ALL[2:])


def test_a_stage_run_by_hand_since_is_run_again(stages: Stages, celforge: Celforge) -> None:
    stages.run()
    celforge("ingest", stages.chain.project.root / "images")
    assert why(stages.plan(), "ingest") == "was run by hand since"


def test_tags_edited_by_hand_reach_the_captions(stages: Stages, celforge: Celforge) -> None:
    root = stages.chain.project.root
    stages.run()
    answer = celforge("tags", root / "images", "--add", "smile")
    assert answer.exit_code == 0, answer.stderr
    plan = stages.plan()
    assert why(plan, "caption") == "tags, names or captions were edited"
    assert plan["dedupe"].state == "up to date"


def test_time_is_told_from_the_last_run_and_unknown_before(stages: Stages) -> None:
    plan = tuple(stages.plan().values())
    assert set(forecast(stages.chain, plan)["seconds_unknown"]) == {*ALL[:-2], "train.one", "report"}
    stages.run()
    for path in (stages.chain.project.root / "images").iterdir():
        Image.new("RGB", (8, 8), (7, 7, len(path.name))).save(path)
    found = forecast(stages.chain, tuple(stages.plan().values()))
    assert found["bytes_free"] > 0
    assert "tag" not in found["seconds_unknown"]


# The command


def test_two_runs_at_once_are_refused(stages: Stages, celforge: Celforge) -> None:
    answers = []
    stages.does["tag"] = lambda: answers.append(celforge("run", stages.chain.project.root))
    stages.run()
    assert answers[0].exit_code == 1
    assert "another `celforge run`" in answers[0].stderr


def test_init_writes_what_run_accepts(celforge: Celforge, tmp_path: Path) -> None:
    assert celforge("init", tmp_path).exit_code == 0
    answer = celforge("run", tmp_path)
    assert answer.exit_code == 2
    assert f"put your episodes into {tmp_path / 'videos'}" in answer.stderr
    Image.new("RGB", (80, 80)).save(tmp_path / "images/a.png")
    plan = celforge("run", tmp_path, "--plan", "--json").json
    names = [one["stage"] for one in plan["plan"]]
    assert names == [
        "ingest",
        "dedupe",
        "tag",
        "identify",
        "caption",
        "arrange",
        "balance",
        "flatten",
        "check",
        "report",
    ]
    assert "no [[train]]" in plan["left_out"]["train"]
    assert all(len(line) <= 80 for line in celforge("run", tmp_path, "--plan").stdout.splitlines()[1:])


def test_the_run_says_where_it_is_and_what_it_made(celforge: Celforge, tmp_path: Path) -> None:
    root = project(tmp_path / "a", "[ingest]\n[report]", "images/a.png", "images/b.png").root
    (root / "images/bad.png").write_bytes(b"nothing of a picture")
    answer = celforge("run", root / "celforge.toml")
    assert answer.exit_code == 3
    assert "[1/2] ingest: not run yet" in answer.stderr
    assert "bad.png is not a picture" in answer.stderr
    assert str(root / "report/index.html") in answer.stdout
    assert "1 FAILED" in answer.stdout
    (root / "images/bad.png").unlink()
    answer = celforge("run", root, "--json")
    assert answer.exit_code == 0
    assert [one["state"] for one in answer.json["stages"]] == ["done", "done"]
    before = (root / "report/index.html").read_bytes()
    answer = celforge("--quiet", "run", root)
    assert "nothing to do: 2 stages up to date" in answer.stdout
    assert not answer.stderr
    assert (root / "report/index.html").read_bytes() == before


def test_a_failure_in_json_is_told_in_both(celforge: Celforge, tmp_path: Path) -> None:
    root = project(tmp_path / "a", '[ingest]\n[tag]\ntagger = ["nowhere/none"]\n', "images/a.png").root
    before = signal.getsignal(signal.SIGINT)
    answer = celforge("run", root, "--json")
    assert answer.exit_code == answer.json["exit_code"] != 0
    assert answer.json["error"].startswith("[2/2] tag: ")
    assert "error: [2/2] tag: " in answer.stderr
    assert signal.getsignal(signal.SIGINT) is before


def test_a_check_that_found_nothing_sends_nobody_there() -> None:
    clean = result_text("check", {"found": {"errors": 0, "warnings": 0, "notes": 2}})
    assert clean == "0 errors, 0 warnings, 2 notes"
    assert clean.startswith(NOTHING_FOUND)
    kept = [{"outcome": "dropped", "files": 1}, {"outcome": "kept", "files": 1200}]
    assert result_text("tag", {"counts": kept}) == "1,200 pictures tagged, 1 dropped"


# Trainings side by side

BESIDE = """
import json, os, signal, sys, time
from pathlib import Path
name, root = sys.argv[2], Path.cwd()
def stop(*_):
    (root / f"{name}.stopped").touch()
    print("error: interrupted after step 3; model and state are saved\\n  try: the same again", file=sys.stderr)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
needs = root / f"{name}.needs"
if needs.exists() and not all((root / one).exists() for one in needs.read_text().split()):
    sys.exit("began too early")
(root / f"{name}.pid").write_text(str(os.getpid()))
(root / f"{name}.began").write_text(os.environ["OMP_NUM_THREADS"])
print(f"warning: {name} is odd\\n{name}: 1 of 2 steps", file=sys.stderr, flush=True)
wanted = (root / f"{name}.waits")
end = time.monotonic() + 20
while wanted.exists() and not all((root / one).exists() for one in wanted.read_text().split()):
    if time.monotonic() > end:
        sys.exit("waited in vain")
    time.sleep(0.02)
outlives = root / f"{name}.outlives"
while outlives.exists():  # a process that is ended is there until its parent has seen it
    try:
        os.kill(int((root / f"{outlives.read_text()}.pid").read_text()), 0)
    except OSError:
        break
    time.sleep(0.02)
if (root / f"{name}.fails").exists():
    print("error: no memory\\n  try: a smaller batch", file=sys.stderr)
    sys.exit(1)
(root / f"{name}.ended").touch()
print(json.dumps({"steps": 2, "made": [], "failures": [], "plan": {"problems": []}}))
"""


class Beside:
    """A project of trainings alone, whose program is a stand-in."""

    def __init__(self, root: Path, at_once: int, more: str = "") -> None:
        text = f"[run]\ntrainings_at_once = {at_once}\n"
        for name in "abc":
            text += f'[[train]]\nname = "{name}"\nbase = "x/y"\n{more if name == "b" else ""}'
        self.root = root / "p"
        self.project = project(self.root, text, "dataset/1.png")
        self.done: list[str] = []

    def when(self, name: str, what: str, *files: str) -> None:
        (self.root / f"{name}.{what}").write_text(" ".join(files))

    def run(self, program: Sequence[str] = (sys.executable, "-c", BESIDE)) -> int:
        chain = read_chain(self.project, {})
        run = Run(
            chain,
            lambda name: pytest.fail(f"{name} was called here"),
            lambda *_: None,
            lambda done: self.done.append(done.link.name),
            program=program,
        )
        self.chain = chain
        return int(run.carry_out(chain.links))

    def states(self) -> dict[str, str]:
        chain = read_chain(self.project, {})
        run = Run(chain, command_of, lambda *_: None, lambda _: None)
        return {one.link.name: one.state for one in run.plan(chain.links)}


def test_trainings_work_side_by_side_and_are_done_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beside = Beside(tmp_path, 2)
    beside.when("a", "waits", "b.began")  # which never comes, if they work one after the other
    beside.when("b", "waits", "a.ended", "c.began")
    with caplog.at_level("INFO", "celforge"):
        assert beside.run() == 0
    assert beside.done[0] == "train.a"
    assert sorted(beside.done) == ["train.a", "train.b", "train.c"]
    assert {"train.a: a is odd", "train.b: b: 1 of 2 steps"} <= {one.message for one in caplog.records}
    assert int((beside.root / "a.began").read_text()) == max(1, (os.cpu_count() or 1) // 2)
    assert set(beside.states().values()) == {"up to date"}
    (beside.root / "a.began").unlink()
    assert beside.run() == 0
    assert not (beside.root / "a.began").exists()


def test_of_one_that_fails_the_others_come_to_their_end_and_none_begins(tmp_path: Path) -> None:
    beside = Beside(tmp_path, 2)
    beside.when("a", "fails")
    beside.when("a", "waits", "b.began")
    beside.when("b", "outlives", "a")
    with pytest.raises(StageError, match=r"^\[1/3\] train.a: no memory") as caught:
        beside.run()
    assert "a smaller batch; then go on with: celforge run" in caught.value.hint
    assert caught.value.exit_code == 1
    assert (beside.root / "b.ended").exists()
    assert not (beside.root / "c.began").exists()
    assert beside.states() == {"train.a": "to run", "train.b": "up to date", "train.c": "to run"}
    (beside.root / "a.fails").unlink()
    assert beside.run() == 0


def test_one_that_cannot_begin_lets_the_others_come_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, begin = Beside(tmp_path, 2), Run._begin

    def begin_or_fail(run: Run, number: int, total: int, link: Any, catalog: Any) -> Any:
        if link.name == "train.b":
            raise PipelineError("the disk is full")
        return begin(run, number, total, link, catalog)

    monkeypatch.setattr(Run, "_begin", begin_or_fail)
    with pytest.raises(StageError, match=r"^\[2/3\] train.b: the disk is full"):
        beside.run()
    assert beside.done == ["train.a"]
    assert not (beside.root / "c.began").exists()


def test_asked_to_stop_each_finishes_what_is_in_hand(tmp_path: Path) -> None:
    beside = Beside(tmp_path, 2)
    for name in "ab":
        beside.when(name, "waits", "never")

    def stop() -> None:
        while not all((beside.root / f"{name}.began").exists() for name in "ab"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(StageError, match=r"train.[ab]: interrupted after step 3") as caught:
        beside.run()
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert all((beside.root / f"{name}.stopped").exists() for name in "ab")
    assert not (beside.root / "c.began").exists()


def test_one_that_is_stopped_before_it_listens_was_interrupted_too(tmp_path: Path) -> None:
    beside = Beside(tmp_path, 2)
    program = (sys.executable, "-c", "import sys, time; open(sys.argv[2] + '.began', 'w'); time.sleep(20)")

    def stop() -> None:
        while not all((beside.root / f"{name}.began").exists() for name in "ab"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(StageError, match=r"train.[ab]: interrupted before its first step") as caught:
        beside.run(program)
    assert caught.value.exit_code == ExitCode.INTERRUPTED


def test_what_trains_from_anothers_model_waits_for_it(tmp_path: Path) -> None:
    beside = Beside(tmp_path, 3, more='vae = "models/a/a.safetensors"\n')
    (beside.root / "models/a").mkdir(parents=True)
    (beside.root / "models/a/a.safetensors").touch()
    beside.when("b", "needs", "a.ended")
    beside.when("a", "waits", "c.ended")
    assert beside.run() == 0
    assert beside.done[-1] == "train.b"
