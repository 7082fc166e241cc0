from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from typer.testing import CliRunner

import autodistill as ad
from autodistill import api as engine_room
from autodistill.cli import app
from autodistill.commands import doctor
from autodistill.commands.console.output import command, number
from autodistill.commands.console.tables import print_front, print_trial
from autodistill.commands.search import settings, value_of
from autodistill.commands.search_run import _more
from autodistill.config.study_file import StudyConfig
from autodistill.core import strict_yaml
from autodistill.core.budget import Budget, Spent
from autodistill.core.errors import ConfigError, DataError, InterruptedTrialError
from autodistill.core.records import Candidate, Report, State, TrialRecord
from autodistill.core.terminal import clean
from autodistill.engines.monitor.progress import Progress, panel, plain_line
from autodistill.engines.monitor.watch import Snapshot
from autodistill.engines.monitor.worker_line import WorkerLine
from autodistill.engines.setup import study_setup
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front
from autodistill.search.results.gain import gain_over_undistilled, pairs

HEAVY = ("torch", "timm", "ray", "optuna", "matplotlib", "sklearn", "pandas", "numpy", "scipy", "pydantic")
SPACE = {
    "student": {"width": [4, 8, 16, 32, 64]},
    "distillation": {"loss": ["none", "kd"], "temperature": {"low": 1.0, "high": 8.0, "when": {"loss": ["kd"]}}},
}
STUDY = {
    "name": "toy",
    "space": SPACE,
    "objectives": ["accuracy", "params"],
    "epochs": 9,
    "rungs": {"eta": 2, "levels": [1, 3, 9]},
    "sampler": "random",
    "budget": "14trials",
}
run = CliRunner()


def costs(student: Any) -> dict[str, float]:
    return {"params": 100.0 * student["width"]}


def evaluate(candidate: Candidate) -> Iterator[Report]:
    yield Report(0, costs(candidate.student))
    gain = 0.02 if candidate.distillation["loss"] == "kd" else 0.0
    for rung, epochs in enumerate((1, 3, 9), 1):
        yield Report(
            rung, {"accuracy": 0.9 - candidate.student["width"] ** -0.5 * 0.5 - 0.1 / epochs + gain}, epochs, 0.1 * rung
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "toy"
    ad.search(ad.Study.create(**STUDY, directory=folder), evaluate=evaluate, costs=costs)
    return folder


@pytest.fixture
def toy_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A study file in an empty folder; ``search`` evaluates the formula in the place of training."""
    monkeypatch.chdir(tmp_path)
    patched = functools.partial(engine_room.search, evaluate=evaluate, costs=costs)
    monkeypatch.setattr(engine_room, "search", patched)
    path = tmp_path / "study.yaml"
    path.write_text(strict_yaml.dump(STUDY))
    return path


def program(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "autodistill", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False, **keywords)


# -- start and stop --------------------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom autodistill.cli import main\nsys.argv = ['autodistill', '--help']\n"
        f"try:\n    main()\nfinally:\n    print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stderr.strip() == "[]"
    assert "autodistill search --data digits" in done.stdout


def test_reading_a_study_loads_neither_networks_nor_models(finished: Path) -> None:
    heavy = ("torch", "timm", "ray", "sklearn", "matplotlib")
    code = (
        f"import sys\nfrom autodistill.cli import main\nsys.argv = ['autodistill', 'front', {str(finished)!r}]\n"
        f"try:\n    main()\nfinally:\n    print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, autodistill; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", ["search", "teach", "front", "trials", "show", "importance", "survey", "init", "doctor", "spaces", "cache"]
)
def test_every_command_has_help_that_begins_with_examples(name: str) -> None:
    result = run.invoke(app, [name, "--help"])
    assert result.exit_code == 0
    if name not in ("spaces", "cache"):
        said = result.stdout
        assert said.index(f"  autodistill {name}") < said.index("Options:")


def test_a_reader_that_closes_the_pipe_sees_no_traceback(finished: Path) -> None:
    line = [sys.executable, "-m", "autodistill", "trials", str(finished), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "[\n"
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0
    assert said == ""


def test_a_binary_study_file_is_a_message(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "study.yaml").write_bytes(b"\xff\xfe\x00name")
    for arguments in (["front", str(copy)], ["search", str(copy)], ["trials", str(copy)]):
        result = run.invoke(app, arguments)
        assert result.exit_code in (2, 6)
        assert "study.yaml" in result.stderr
        assert "internal error" not in result.stderr


def test_a_closed_standard_output_is_no_internal_error(finished: Path) -> None:
    line = shlex.join([sys.executable, "-m", "autodistill", "front", str(finished), "--json"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", f"{line} <&- >&-"], stderr=subprocess.PIPE, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_the_packages() -> None:
    assert run.invoke(app, ["--version"]).stdout == f"autodistill {ad.__version__}\n"


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    result = run.invoke(app, ["frnt"])
    assert result.exit_code == 2
    assert "front" in result.stderr


# -- reading ---------------------------------------------------------------------------------------------------------


def test_front_json_has_the_documented_form(finished: Path) -> None:
    result = run.invoke(app, ["front", str(finished), "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["study"] == "toy"
    assert found["objectives"] == [
        {"name": "accuracy", "direction": "maximize", "unit": "fraction"},
        {"name": "params", "direction": "minimize", "unit": "count"},
    ]
    assert len(found["reference_point"]) == 2
    assert found["hypervolume"] > 0
    assert isinstance(found["range_bounds"], list)
    for trial in found["trials"]:
        assert {"number", "state", "values", "student", "distillation", "epochs", "seconds"} <= set(trial)
        assert trial["state"] == "COMPLETE"
        assert trial["values"]["params"] == 100 * trial["student"]["width"]


def test_trials_json_equals_the_study(finished: Path) -> None:
    result = run.invoke(app, ["trials", "--dir", str(finished), "--json"])
    stored = [{**t.to_json(), "to_teacher": None} for t in ad.Study.open(finished).trials()]  # it has no teacher
    assert json.loads(result.stdout) == json.loads(json.dumps(stored))
    complete = json.loads(run.invoke(app, ["trials", str(finished), "--state", "complete", "--json"]).stdout)
    assert [t["number"] for t in complete] == [t["number"] for t in stored if t["state"] == "COMPLETE"]


def test_reading_changes_no_file_but_the_databases_own(finished: Path) -> None:
    def state() -> dict[str, int]:
        return {
            path.name: path.stat().st_mtime_ns for path in finished.iterdir() if not path.name.startswith("study.db")
        }

    before = state()
    for name in ("front", "trials", "importance"):
        assert run.invoke(app, [name, str(finished)]).exit_code == 0
    assert state() == before


def test_front_prints_words_gain_and_knee(finished: Path) -> None:
    result = run.invoke(app, ["front", str(finished)])
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["trial", "student", "distillation", "accuracy", "params", "gain"]
    assert sum(row.rstrip().endswith("knee") for row in rows) == 1
    assert any("width=64" in row and "kd temperature=" in row and "6,400" in row for row in rows)


def test_pick_and_save_of_the_front(finished: Path, tmp_path: Path) -> None:
    result = run.invoke(
        app, ["front", str(finished), "--pick", "params <= 1000", "--json", "--save", str(tmp_path / "out")]
    )
    assert json.loads(result.stdout)["student"] == {"width": 8}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["front.csv", "front.json", "front.png"]


def test_show_prints_how_a_trial_ended_and_why(finished: Path) -> None:
    stopped = next(t for t in ad.Study.open(finished).trials() if t.reason == "RUNG_RULE")
    said = run.invoke(app, ["show", str(stopped.number), str(finished)]).stdout
    assert "PRUNED RUNG_RULE" in said
    assert "stopped at rung" in said
    assert all(words in said for rung in stopped.decisions.values() for words in rung)
    found = json.loads(run.invoke(app, ["show", str(stopped.number), str(finished), "--json"]).stdout)
    assert found["reason"] == "RUNG_RULE"
    assert "gain" in found
    one = json.loads(run.invoke(app, ["front", str(finished), "--knee", "--json"]).stdout)
    several = json.loads(run.invoke(app, ["front", str(finished), "--json"]).stdout)["trials"]
    assert "gain" in one
    assert one["gain"] == next(t["gain"] for t in several if t["number"] == one["number"])
    missing = run.invoke(app, ["show", "9999", str(finished)])
    assert missing.exit_code == 2
    assert "there is no trial 9999" in missing.stderr


def test_show_takes_number_and_folder_in_either_order(finished: Path) -> None:
    assert run.invoke(app, ["show", str(finished), "3"]).stdout == run.invoke(app, ["show", "3", str(finished)]).stdout
    without = run.invoke(app, ["show", str(finished)])
    assert without.exit_code == 2
    assert f"'autodistill show 3 {finished}'" in without.stderr


def test_a_copied_space_is_used_with_the_command_in_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run.invoke(app, ["spaces", "cp", "tiny", "mine.yaml"]).stderr
    assert "autodistill search --data fashion_mnist --space mine.yaml --budget 20m --workers 2 --dir runs/mine" in said
    said = run.invoke(app, ["spaces", "cp", "cpu"]).stderr  # a command of two lines
    assert "--space cpu.yaml --budget 2h --objectives accuracy,latency_ms --dir runs/cpu" in said
    Path("runs/cpu").mkdir(parents=True)
    Path("cpu.yaml").unlink()
    assert "--dir runs/cpu-2" in run.invoke(app, ["spaces", "cp", "cpu"]).stderr
    Path("bare.yaml").write_text("student: {family: [resnet]}\n")
    assert "--space more.yaml" in run.invoke(app, ["spaces", "cp", "bare.yaml", "more.yaml"]).stderr


def test_importance_gives_the_size_to_the_width_alone(finished: Path) -> None:
    found = json.loads(run.invoke(app, ["importance", str(finished), "--json"]).stdout)
    assert found["importance"]["params"]["student.width"] == pytest.approx(1.0, abs=0.05)
    assert all(name.startswith("student.") for name in found["importance"]["params"])  # nothing else can move a cost
    assert not all(name.startswith("student.") for name in found["importance"]["accuracy"])


def test_the_newest_study_below_runs_is_read_when_none_is_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nothing = run.invoke(app, ["front"])
    assert nothing.exit_code == 2
    assert "no study is given" in nothing.stderr
    shutil.copytree(finished, tmp_path / "runs" / "toy")
    result = run.invoke(app, ["front"])
    assert result.exit_code == 0
    assert result.stderr.startswith("study runs/toy\n")


@pytest.mark.parametrize("name", ["front", "trials", "importance", "cache ls", "search"])
def test_a_folder_that_is_not_a_study_is_a_usage_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    result = run.invoke(app, [*name.split(), str(tmp_path)])
    assert result.exit_code == 2
    assert "is not a study" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


# -- searching -------------------------------------------------------------------------------------------------------


def test_search_ends_with_the_front_on_stdout_and_next_commands_on_stderr(toy_search: Path) -> None:
    result = run.invoke(app, ["search", str(toy_search)])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0].split()[:3] == ["trial", "student", "distillation"]
    assert "study toy in runs/toy" in result.stderr
    assert "ended: budget of 14 trials is spent" in result.stderr
    assert "autodistill report runs/toy" in result.stderr
    assert "autodistill search runs/toy --budget 28trials" in result.stderr
    assert "\x1b" not in result.stderr + result.stdout
    names = {path.name for path in Path("runs/toy").iterdir()}
    assert {"study.db", "study.yaml", "front.json", "front.csv", "front.png"} <= names


def test_no_rungs_trains_everything_to_the_end(toy_search: Path) -> None:
    result = run.invoke(app, ["search", str(toy_search), "--no-rungs", "--budget", "4trials", "--dir", "full"])
    assert result.exit_code == 0, result.stderr
    assert [t.state for t in ad.Study.open("full").trials() if t.epochs] == [State.COMPLETE] * 4
    both = run.invoke(app, ["search", str(toy_search), "--no-rungs", "--rungs", "auto", "--dir", "other"])
    assert both.exit_code == 2
    assert "contradict each other" in both.stderr


def test_a_warm_start_says_what_it_took_and_is_not_repeated(toy_search: Path, finished: Path) -> None:
    line = ["search", str(toy_search), "--warm-start", str(finished), "--dir", "warm"]
    first = run.invoke(app, [*line, "--budget", "5trials"])
    assert first.exit_code == 0, first.stderr
    front = ad.Study.open(finished).front()
    assert f"front students of {finished} are tried first" in first.stderr
    trials = ad.Study.open("warm").trials()
    assert {t.student["width"] for t in trials[:2]} <= {t.student["width"] for t in front.trials}
    assert trials[0].why == "enqueued: not the sampler's choice"
    again = run.invoke(app, [*line, "--budget", "7trials"])
    assert "tried first" not in again.stderr
    nothing = run.invoke(app, ["search", str(toy_search), "--warm-start", "nowhere", "--dir", "cold"])
    assert nothing.exit_code == 2
    assert "nowhere is not a study" in nothing.stderr


def test_search_json_prints_the_front_alone(toy_search: Path) -> None:
    result = run.invoke(app, ["search", str(toy_search), "--json", "--dir", "there"])
    printed = json.loads(result.stdout)
    waste = printed.pop("waste")
    assert printed.pop("nearest") is None  # it has no teacher
    assert printed.pop("epochs") == ad.Study.open("there").rungs.levels[-1]
    assert printed.pop("range_bounds") == [edge.to_json() for edge in ad.Study.open("there").range_bounds()]
    assert printed == json.loads(Path("there/front.json").read_text())
    assert 0 <= waste["wasted_epochs"] <= waste["epochs"] == sum(t.epochs for t in ad.Study.open("there").trials())
    said = "went into trials that were neither on the front nor informative"
    assert (said in result.stderr) == (waste["trials"] >= 20)
    longer = run.invoke(app, ["search", str(toy_search), "--budget", "30trials", "--json", "--dir", "longer"])
    assert (said in longer.stderr) == (json.loads(longer.stdout)["waste"]["trials"] >= 20)
    assert (said in result.stderr, said in longer.stderr) == (False, True)


def test_the_same_command_again_resumes_and_more_budget_goes_on(toy_search: Path) -> None:
    run.invoke(app, ["search", str(toy_search)])
    before = json.loads(run.invoke(app, ["trials", "--json"]).stdout)
    again = run.invoke(app, ["search", str(toy_search)])
    assert "resumed" in again.stderr
    assert json.loads(run.invoke(app, ["trials", "--json"]).stdout) == before
    more = run.invoke(app, ["search", "runs/toy", "--budget", "18trials"])
    assert more.exit_code == 0
    after = json.loads(run.invoke(app, ["trials", "--json"]).stdout)
    assert after[: len(before)] == before
    assert [t["number"] for t in after] == list(range(len(after)))
    assert len(after) > len(before)


def test_a_changed_setting_is_refused_by_key_with_both_values(toy_search: Path) -> None:
    run.invoke(app, ["search", str(toy_search)])
    result = run.invoke(app, ["search", str(toy_search), "--seed", "7", "--sampler", "tpe"])
    assert result.exit_code == 2
    assert "seed: the study has 0, this run has 7" in result.stderr
    assert "sampler: the study has 'random', this run has 'tpe'" in result.stderr


def test_wrong_input_is_reported_at_once_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run.invoke(
        app, ["search", "--sampler", "frnt", "--budget", "soon", "--objectives", "accuracy,prams", "--image-size", "1"]
    )
    assert result.exit_code == 2
    for said in ("--sampler: got 'frnt'; did you mean 'front'?", "--budget: ", "--objectives: ", "--image-size: got 1"):
        assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "student.family=resnett"], "'resnett'"),
        (["--set", "training.bath_size=3"], "bath_size"),
        (["--data", "digit"], "did you mean 'digits'"),
        (["--engine", "locl"], "did you mean 'local'"),
        (["--space", "digts"], "unknown search space 'digts'"),
        (
            ["--ray-storage", "s3://bucket/x"],
            "--ray-storage and --trust-network are for --engine ray; the engine is 'l",
        ),
        (["--engine", "ray", "--ray-storage", "nosuch://x"], "nosuch://x cannot be used as a storage"),
        (["--engine", "ray", "--ray-storage", "s3://me:secret@bucket"], "the storage at bucket contains a password"),
    ],
)
def test_names_that_only_registries_know_are_refused_before_anything_is_written(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run.invoke(app, ["search", "--space", "digits", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_prints_the_same_command_and_exits_130(toy_search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine_room, "search", interrupted)
    monkeypatch.setattr(sys, "argv", ["autodistill", "search", "study.yaml", "--dir", "a b"])
    result = run.invoke(app, ["search", "study.yaml", "--dir", "a b"])
    assert result.exit_code == 130
    assert "Stopped after" in result.stderr
    assert "Resume: autodistill search study.yaml --dir 'a b'" in result.stderr


def test_an_unexpected_error_is_one_line_unless_debug_is_asked_for(
    toy_search: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(engine_room, "search", broken)
    result = run.invoke(app, ["search", "study.yaml"])
    assert result.exit_code == 1
    assert result.stderr.endswith(
        "internal error: RuntimeError: a bug\nRun the same command with --debug for the traceback.\n"
    )
    assert isinstance(run.invoke(app, ["search", "study.yaml", "--debug"]).exception, RuntimeError)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            PermissionError(13, "Permission denied", "r.html"),
            5,
            "error: [Errno 13] Permission denied: 'r.html'. Free",
        ),
        (OSError(28, "No space left on device"), 5, "error: [Errno 28] No space left on device. Free disk space"),
        (FileNotFoundError(2, "No such file", "x"), 1, "internal error: FileNotFoundError: [Errno 2] No such file"),
    ],
)
def test_what_the_system_refuses_is_no_internal_error(
    toy_search: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int, said: str
) -> None:
    def refused(*arguments: Any, **keywords: Any) -> None:
        raise error

    monkeypatch.setattr(engine_room, "search", refused)
    result = run.invoke(app, ["search", "study.yaml"])
    assert (result.exit_code, result.stderr.splitlines()[-1 - (code == 1)].startswith(said)) == (code, True)


def test_letters_that_the_terminal_has_not_are_question_marks() -> None:
    said = r"(print('gr\xf6\xdfe \u2026'), cli.say('\u65e5'))"
    text = f"from autodistill import cli; cli.app = lambda **_: {said}; cli.main()"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, check=True, env={**os.environ, **ascii_only}
    )
    assert (found.stdout.strip(), found.stderr.strip()) == (b"gr??e ?", b"?")


def test_our_own_warnings_are_notes(toy_search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings.simplefilter("default")
    original = engine_room.search
    place = str(ROOT / "autodistill" / "training" / "datasets.py")

    def warned(*arguments: Any, **keywords: Any) -> Any:
        warnings.warn_explicit("images are scaled to 64 x 64.", UserWarning, place, 1)
        warnings.warn_explicit("of a library", DeprecationWarning, "elsewhere.py", 1)
        return original(*arguments, **keywords)

    monkeypatch.setattr(engine_room, "search", warned)
    result = run.invoke(app, ["search", "study.yaml"])
    assert result.exit_code == 0
    assert "note: images are scaled to 64 x 64.\n" in result.stderr
    assert "of a library" not in result.stderr


def test_a_missing_library_is_named_with_what_to_do(toy_search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **keywords: Any) -> None:
        raise ModuleNotFoundError("No module named 'ray'", name="ray")

    monkeypatch.setattr(engine_room, "search", broken)
    result = run.invoke(app, ["search", "study.yaml"])
    assert result.exit_code == 5
    assert "ray is not installed. Run 'autodistill doctor'" in result.stderr


def test_a_teacher_that_is_interrupted_can_go_on(toy_search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **keywords: Any) -> None:
        raise InterruptedTrialError("the teacher goes on when the study is resumed")

    monkeypatch.setattr(engine_room, "search", interrupted)
    result = run.invoke(app, ["search", "study.yaml"])
    assert result.exit_code == 130
    assert "Resume: autodistill" in result.stderr
    assert Path("runs/toy/study.db").exists()


def test_input_that_proves_wrong_later_leaves_nothing_behind(toy_search: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **keywords: Any) -> None:
        raise DataError("image photos/a/1.jpg cannot be read")

    monkeypatch.setattr(engine_room, "search", refused)
    result = run.invoke(app, ["search", "study.yaml"])
    assert result.exit_code == DataError.exit_code
    assert "photos/a/1.jpg" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["study.yaml"]


def test_a_study_that_another_process_made_meanwhile_is_never_removed(
    toy_search: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = study_setup.build_checked_study

    def raced(*arguments: Any, **keywords: Any) -> None:
        build(*arguments, **keywords)
        raise DataError("other settings")

    monkeypatch.setattr(study_setup, "build_checked_study", raced)
    assert run.invoke(app, ["search", "study.yaml"]).exit_code == DataError.exit_code
    assert Path("runs/toy/study.db").exists()


def test_set_narrows_the_space_or_sets_a_key() -> None:
    found = settings(
        ["student.family=resnet,convnext", "train.lr=1e-2", "training.batch_size=64", "latency.device=cpu"]
    )
    assert found == {
        "set": {"student.family": ["resnet", "convnext"], "train.lr": 0.01},
        "training.batch_size": 64,
        "latency.device": "cpu",
    }
    with pytest.raises(ConfigError) as caught:
        settings(["student.family", "trian.lr=3"])
    assert len(caught.value.problems) == 2
    assert "did you mean 'train'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("auto", "auto"), ("a, b", ["a", "b"]), ("{eta: 3}", {"eta": 3}), ("[1, 2]", [1, 2]), ("true", True)],
)
def test_flag_values_are_read_as_yaml(text: str, value: Any) -> None:
    assert value_of(text) == value


# -- set-up ----------------------------------------------------------------------------------------------------------


def test_init_writes_a_file_of_the_defaults_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.invoke(app, ["init", "--name", "first"]).exit_code == 0
    config = StudyConfig.load("study.yaml")
    assert config == StudyConfig.load({"name": "first", "budget": "5m"})
    again = run.invoke(app, ["init"])
    assert again.exit_code == 2
    assert "already exists" in again.stderr


@pytest.mark.parametrize("name", ["2024", "true", "1e3", "no"])
def test_a_name_that_yaml_would_read_as_something_else_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.invoke(app, ["init", "s.yaml", "--name", name]).exit_code == 0
    assert StudyConfig.load("s.yaml").name == name


def test_init_template_names_every_key() -> None:
    from autodistill.commands.init import TEMPLATE

    for key in StudyConfig.model_fields:
        assert (
            f"\n{{{key}:" in TEMPLATE
            or f"\n{key}: " in TEMPLATE
            or f"\n# {key}: " in TEMPLATE
            or f"\n# {key}:" in TEMPLATE
        ), key


def test_spaces_can_be_copied_shown_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [row["name"] for row in json.loads(run.invoke(app, ["spaces", "ls", "--json"]).stdout)]
    assert {"digits", "tiny"} <= set(names)
    assert run.invoke(app, ["spaces", "cp", "digits", "mine.yaml"]).exit_code == 0
    assert run.invoke(app, ["spaces", "cp", "digits", "mine.yaml"]).exit_code == 2
    shown = run.invoke(app, ["spaces", "show", "digits"]).stdout
    assert shown == Path("mine.yaml").read_text()
    checked = run.invoke(app, ["spaces", "check", "mine.yaml"])
    assert checked.exit_code == 0, checked.stderr
    assert "student.family" in checked.stdout
    Path("mine.yaml").write_text("include: digits\ntrain: {augment: {values: [none, crop], weights: [1, 3]}}\n")
    expected = run.invoke(app, ["spaces", "check", "mine.yaml", "--image-size", "8", "--samples", "0"]).stdout
    assert "drawn 25%, 75%" in expected
    Path("mine.yaml").write_text("student: {family: [resnet, vit], vit: {patch: [4, 16]}}\n")
    found = run.invoke(app, ["spaces", "check", "mine.yaml", "--image-size", "8", "--samples", "0"])
    assert found.exit_code == 0, found.stderr
    assert "1 of 2" in found.stdout
    assert "infeasible, will not be trained: vit w64 d4 patch 16: patch 16 does not divide 8 px" in found.stderr
    costs = json.loads(
        run.invoke(app, ["spaces", "check", "mine.yaml", "--image-size", "8", "--samples", "0", "--json"]).stdout
    )["costs"]
    assert [one["family"] for one in costs] == ["resnet", "vit"]
    dead = run.invoke(app, ["spaces", "check", "mine.yaml", "--image-size", "7"])
    assert dead.exit_code == 2
    assert "resnet takes 8 to 512 px, not 7" in dead.stderr
    Path("mine.yaml").write_text("student: {family: [resnett]}\ndistillation: {loss: [kdd]}\n")
    wrong = run.invoke(app, ["spaces", "check", "mine.yaml"])
    assert wrong.exit_code == 2
    assert "'resnett'" in wrong.stderr
    assert "did you mean 'kd'" in wrong.stderr


def test_doctor_names_the_fix_and_exits_with_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in ("_devices", "_data"):
        monkeypatch.setattr(doctor, probe, list)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    result = run.invoke(app, ["doctor", "--dir", str(tmp_path / "new")])
    assert result.exit_code == 5
    assert "free at least 2 GB" in result.stderr
    found = {row["what"]: row for row in json.loads(run.invoke(app, ["doctor", "--json"]).stdout)}
    assert found["disk"]["state"] == "bad"
    assert found["python"]["state"] == "ok"


def test_doctor_reports_a_probe_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[doctor.Finding]:
        raise ImportError("no such library")

    monkeypatch.setattr(doctor, "_devices", broken)
    monkeypatch.setattr(doctor, "_data", list)
    result = run.invoke(app, ["doctor"])
    assert result.exit_code == 5
    assert "no such library" in result.stdout


def test_cache_lists_and_removes_what_can_be_made_again(finished: Path, tmp_path: Path) -> None:
    study = tmp_path / "toy"
    shutil.copytree(finished, study)
    for name, size in (("cache", 3000), ("checkpoints", 500)):
        (study / name).mkdir()
        (study / name / "data").write_bytes(b"x" * size)
    rows = json.loads(run.invoke(app, ["cache", "ls", str(study), "--json"]).stdout)
    assert [(row["folder"], row["bytes"]) for row in rows] == [("cache", 3000), ("checkpoints", 500)]
    assert run.invoke(app, ["cache", "rm", str(study)]).exit_code == 0
    assert not (study / "cache").exists()
    assert (study / "checkpoints").exists()


def test_shared_caches_are_listed_and_removed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache

    monkeypatch.setenv("AUTODISTILL_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "abc").mkdir(parents=True)
    (tmp_path / "images" / "abc" / "images.npy").write_bytes(b"x" * 100)
    with TeacherCache.open(tmp_path / "teacher", CacheKey("d", "t", "v", 0, "p"), images=8, classes=3, views=2) as one:
        one.targets(torch.arange(8), 1, lambda ids: torch.zeros(len(ids), 3))
        refused = run.invoke(app, ["cache", "rm", one.folder.name])
        assert refused.exit_code == 5
    rows = json.loads(run.invoke(app, ["cache", "ls", "--json"]).stdout)
    assert [row["folder"] for row in rows] == ["images/abc", f"teacher/{one.folder.name}"]
    assert [rows[1][key] for key in ("images", "views", "filled")] == [8, 2, 8]
    assert run.invoke(app, ["cache", "rm", one.folder.name[:6]]).exit_code == 0
    assert not one.folder.exists()
    assert run.invoke(app, ["cache", "rm", "--shared"]).exit_code == 0
    assert json.loads(run.invoke(app, ["cache", "ls", "--json"]).stdout) == []


# -- words -----------------------------------------------------------------------------------------------------------


def trial(number: int, width: int, loss: str, accuracy: float | None) -> TrialRecord:
    values = {} if accuracy is None else {"accuracy": accuracy, "params": 1.0}
    state = State.PRUNED if accuracy is None else State.COMPLETE
    return TrialRecord(number, state, values, {"width": width}, {"loss": loss}, {}, 0)


def test_the_gain_is_over_the_best_undistilled_run_of_the_student() -> None:
    objective = resolve(["accuracy"])[0]
    trials = [trial(0, 4, "none", 0.80), trial(1, 4, "none", 0.84), trial(2, 4, "kd", 0.9), trial(3, 8, "kd", 0.9)]
    assert gain_over_undistilled(trials[2], trials, objective) == pytest.approx(0.06)
    assert gain_over_undistilled(trials[3], trials, objective) is None
    assert gain_over_undistilled(trials[1], trials, objective) is None
    assert gain_over_undistilled(trials[2], [trials[2], trial(9, 4, "none", None)], objective) is None


def test_the_gain_of_a_search_is_not_called_one_over_a_twin(capsys: pytest.CaptureFixture[str]) -> None:
    objectives = resolve(["accuracy", "params"])
    trials = [trial(0, 4, "none", 0.80), trial(1, 4, "none", 0.84), trial(2, 4, "kd", 0.9), trial(3, 4, "kd", 0.82)]
    print_front(Front.of("s", objectives, trials), trials)
    said = capsys.readouterr()
    assert "+0.0600" in said.out
    assert "gain: against the best undistilled run of the same student, whatever its training recipe" in said.err
    assert "distilled students beat their best undistilled run in 1 of 2 pairs; verify compares equal" in said.err
    print_trial(trials[2], objectives, 0.06)
    shown = " ".join(capsys.readouterr().out.split())
    assert "gain +0.0600 against the best undistilled run of the same student, whatever its training" in shown
    assert "twin" not in shown + said.out + said.err
    assert pairs(trials[:3], objectives[0]).line() == ""
    equal = [*trials, trial(4, 4, "kd", 0.84)]
    assert "in 1 of 3 pairs and equal it in 1; verify" in pairs(equal, objectives[0]).line()


def test_settings_and_epochs_are_written_with_few_digits(capsys: pytest.CaptureFixture[str]) -> None:
    raw = TrialRecord(0, State.COMPLETE, {}, {"width": 16}, {}, {"lr": 0.019999999953948307, "augment": "none"}, 0)
    print_trial(raw, resolve(["accuracy"]), None)
    shown = capsys.readouterr().out.split()
    assert shown[shown.index("train.lr") + 1] == "0.02"
    assert "16" in shown
    line = WorkerLine(8, "resnet", 0.0666667, 30)
    assert "epoch 0.1/30" in plain_line(Snapshot("search", workers=(line,)))


def test_numbers_are_written_by_their_unit() -> None:
    assert [number(0.98765, "fraction"), number(1234567, "count"), number(0.4567, "ms"), number(None)] == [
        "0.9877",
        "1,234,567",
        "0.457",
        "-",
    ]


def test_control_characters_never_reach_the_terminal() -> None:
    assert clean("a\x1b[31mb\u202ec") == "a�[31mb�c"


def test_commands_are_quoted_for_the_shell() -> None:
    assert (
        command("search", "a b", "--constraint", "params <= 1e6")
        == "autodistill search 'a b' --constraint 'params <= 1e6'"
    )


SNAPSHOT = Snapshot(
    "search",
    states={"COMPLETE": 3, "PRUNED": 5, "PARTIAL": 4},
    reasons={"PRUNED": {"RUNG_RULE": 5}, "PARTIAL": {"PAUSED": 3, "BUDGET": 1}},
    best_accuracy=0.9123,
    hypervolume=0.5,
    front_size=2,
    seconds_used=61,
    seconds_left=239,
    workers=(WorkerLine(8, "resnet width=16", 2, 30, {"accuracy": 0.71}),),
)


def test_a_plain_line_says_trials_front_time_and_workers() -> None:
    assert plain_line(SNAPSHOT) == (
        "3 COMPLETE, 5 PRUNED (RUNG_RULE), 4 PARTIAL (1 BUDGET, 3 PAUSED) · "
        "2 on the front, best 0.9123, hypervolume 0.5000 · 1m 1s used, 3m 59s left · "
        "#8 resnet width=16, epoch 2/30, accuracy 0.71"
    )
    assert plain_line(Snapshot("teacher", "epoch 3 of 9", 1 / 3)) == "teacher 33%: epoch 3 of 9"


def test_plain_progress_prints_at_most_every_ten_seconds_and_at_new_stages() -> None:
    import io

    from rich.console import Console

    now = [0.0]
    written = io.StringIO()
    with Progress(Console(file=written), clock=lambda: now[0]) as progress:
        for second, stage in ((0, "data"), (1, "data"), (2, "search"), (5, "search"), (12, "search"), (13, "search")):
            now[0] = float(second)
            progress(Snapshot(stage, "reading", seconds_used=now[0]))
    assert len(written.getvalue().splitlines()) == 3
    assert "\x1b" not in written.getvalue()


def test_plain_progress_leaves_out_steps_but_not_what_came_of_them() -> None:
    import io

    from rich.console import Console

    written = io.StringIO()
    with Progress(Console(file=written), clock=lambda: 0.0) as progress:
        progress(Snapshot("data", "reading digits"))
        for _ in range(2):
            progress(Snapshot("data", "1,222 training images"))
        for epoch in range(1, 4):
            progress(Snapshot("teacher", f"epoch {epoch} of 3", epoch / 3))
        progress(Snapshot("teacher", "validation accuracy 0.9"))
    assert written.getvalue().splitlines() == [
        "data: reading digits",
        "data: 1,222 training images",
        "teacher 33%: epoch 1 of 3",
        "teacher 100%: epoch 3 of 3",
        "teacher: validation accuracy 0.9",
    ]


@pytest.mark.parametrize(
    ("budget", "spent", "seconds", "more"),
    [
        ("1m", Spent(seconds=119), 0.0, "4m"),
        ("1m", Spent(seconds=20), 0.0, "2m"),
        ("1m", Spent(seconds=20), 300.0, "5m"),
        ("10trials,90epochs", Spent(trials=10, epochs=200), 0.0, "20trials,360epochs"),
    ],
)
def test_the_next_budget_is_more_than_what_is_spent(budget: str, spent: Spent, seconds: float, more: str) -> None:
    assert _more(Budget.parse(budget), spent, seconds) == more


def test_the_live_panel_has_a_line_per_worker() -> None:
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=100)
    console.print(panel(SNAPSHOT))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "#8" in said
    assert "hypervolume 0.5000" in said


@pytest.mark.parametrize("dry", [True, False])
def test_a_warm_start_from_nowhere_is_refused_by_a_dry_run_as_by_the_search(tmp_path: Path, dry: bool) -> None:
    study, other = tmp_path / "runs" / "study", tmp_path / "nowhere"
    (tmp_path / "runs").mkdir()
    flags = ["--data", "digits", "--warm-start", str(other), "--dir", str(study), *(["--dry-run"] if dry else [])]
    found = run.invoke(app, ["search", *flags])
    assert found.exit_code == 2
    assert "nowhere" in found.output
    assert list((tmp_path / "runs").iterdir()) == []  # a folder that was there before stays there
