import gzip
import itertools
import json
import subprocess
import sys

import pytest
from places import ROOT


@pytest.fixture
def tables(tmp_path):
    choices = {"depth": [1, 2, 3], "kind": ["a", "b", "none"], "width": [8, 16, 32]}
    lines = ["depth,kind,width,accuracy,params,latency"]
    for depth, kind, width in itertools.product(*choices.values()):
        accuracy = 50 + 3 * depth + width / 2 + 5 * (kind == "b")
        lines.append(f"{depth},{kind},{width},{accuracy},{depth * width},{depth + 1 + (kind == 'a')}")
    with gzip.open(tmp_path / "toy.csv.gz", "wt") as file:
        file.write("\n".join(lines))
    meta = {"name": "toy", "parameters": choices, "complete_grid": True, "accuracy": "accuracy"}
    (tmp_path / "toy.json").write_text(json.dumps({**meta, "costs": {"params": "log", "latency": "linear"}}))
    return tmp_path


def run(*arguments):
    command = [sys.executable, ROOT / "benchmarks" / "search.py", *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )


def test_any_table_of_the_format_is_measured(tables):
    out = tables / "out.json"
    done = run("--tables", tables, "--table", "toy", "--costs", "params,latency", "--seeds", 2, "--trials", 25,
               "--methods", "autodistill,random", "--json", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["results"]
    assert {(r["table"], r["costs"], r["method"], r["seed"]) for r in results} == {
        ("toy", "params,latency", method, seed) for method in ("autodistill", "random") for seed in (0, 1)
    }
    assert all(-1e-9 <= r["regret"]["25"] <= r["regret"]["10"] <= 1 for r in results)
    assert all(r["regret"]["25"] < 0.02 for r in results if r["method"] == "autodistill")  # 25 of 27 were tried
    assert "mean rank" in done.stdout


def test_below_a_floor_nothing_counts(tables):
    out = tables / "out.json"
    done = run("--tables", tables, "--table", "toy", "--costs", "params", "--seeds", 4, "--trials", 27, "--floor", 0.9,
               "--methods", "autodistill,without-bound", "--json", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["results"]
    assert {one["table"] for one in results} == {"toy, floor 0.9"}
    told, untold = ([one for one in results if one["method"] == name] for name in ("autodistill", "without-bound"))
    assert [one["curve"] for one in told] != [one["curve"] for one in untold]  # with 27 networks both find all three
    untold = untold[0]
    # accuracy is additive and costs multiply, so three of 27 reach the floor; the first of them ends a regret of 1
    regrets = [regret for _, _, regret in untold["curve"]]
    assert regrets[0] == 1.0
    assert regrets[-1] == pytest.approx(0.0, abs=1e-6)


def test_recorded_trainings_are_a_problem_of_students_recipes_and_rungs(tmp_path):
    out = tmp_path / "out.json"
    done = run("--recorded", "digits", "--seeds", 1, "--budget", 30, "--methods", "autodistill,random", "--json", out)
    assert done.returncode == 0, done.stderr
    ours, random = json.loads(out.read_text())["results"]
    assert ours["table"] == "recorded_digits"
    assert ours["costs"] == "params,latency_ms"
    assert list(ours["regret"]) == ["22"]
    assert ours["regret"]["22"] < random["regret"]["22"]
    assert 0 <= ours["curve"][-1][2] < 0.5


def test_what_recorded_trainings_show_is_the_same_again_and_their_worth_has_no_noise(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from recorded import Recorded

    problem = Recorded("digits")
    student = {"family": "resnet", "width": 8, "depth": 1, "stages": 3}
    recipe = {"train": {"lr": 0.03, "weight_decay": 0.01, "augment": "none"}, "distillation": {"loss": "none"}}
    sections = {"student": student, **recipe}
    shown = [problem.accuracy(sections, epochs) for epochs in problem.rungs]
    assert shown == [problem.accuracy(sections, epochs) for epochs in problem.rungs]
    assert shown[0] < shown[-1]
    assert problem.worth(sections) > 0.98
    other = {**sections, "train": {**recipe["train"], "lr": 0.0300001}}
    assert problem.worth(other) == pytest.approx(problem.worth(sections), abs=1e-5)
    assert problem.accuracy(other, 1) != shown[0]
    assert problem.rate(sections) < problem.rate({**sections, "student": {**student, "width": 10, "stages": 4}})


def test_an_unknown_method_is_refused(tables):
    done = run("--tables", tables, "--table", "toy", "--methods", "grid")
    assert done.returncode == 2
    assert "unknown method 'grid'" in done.stderr
