from __future__ import annotations

import json
import math
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toys
from typer.testing import CliRunner

import autodistill as ad
from autodistill.cli import app
from autodistill.core.errors import UsageError
from autodistill.core.records import State, TrialRecord
from autodistill.delivery.figures.comparison_png import comparison_png
from autodistill.delivery.figures.study_figures import comparison_figure
from autodistill.search.analysis.compare import Comparison, Group, attainment, compare
from autodistill.search.analysis.trajectory import share_at, trajectory
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front, HypervolumeBox

TWO = resolve(["accuracy", "params"])
BOX = HypervolumeBox((1.0, 10.0), (0.0, 10000.0))
run = CliRunner()


def trial(number: int, accuracy: float, params: float, seconds: float) -> TrialRecord:
    values = {"accuracy": accuracy, "params": params}
    spent = {"seconds": seconds, "epochs": 9 * seconds}
    return TrialRecord(number, State.COMPLETE, values, {"width": number}, {}, {}, 0, spent=spent)


def front(name: str, *rows: tuple[float, float, float], box: HypervolumeBox | None = BOX) -> Front:
    return Front.of(name, TWO, [trial(i, *row) for i, row in enumerate(rows)], scale=box)


def test_the_hypervolume_grows_in_the_order_in_which_trials_ended() -> None:
    found = front("a", (0.9, 1000, 30.0), (0.8, 100, 10.0), (0.7, 500, 20.0))
    steps = trajectory(found)
    assert [(s.seconds, s.number) for s in steps] == [(10.0, 1), (20.0, 2), (30.0, 0)]
    assert [s.finished for s in steps] == [1, 2, 3]
    # log axis from 10 to 10000: 100 at 1/3, 1000 at 2/3; the trial of 20 s is dominated
    assert [s.hypervolume_share for s in steps] == pytest.approx([0.8 * 2 / 3, 0.8 * 2 / 3, 0.8 * 2 / 3 + 0.1 * 1 / 3])
    assert steps[-1].hypervolume_share == pytest.approx(found.hypervolume_share)
    assert (share_at(steps, 5), share_at(steps, 25)) == (0, pytest.approx(0.8 * 2 / 3))


def test_a_study_that_kept_no_clock_has_no_trajectory() -> None:
    old = TrialRecord(0, State.COMPLETE, {"accuracy": 0.5, "params": 100}, {}, {}, {}, 0)
    assert trajectory(Front.of("old", TWO, [old], scale=BOX)) == []


def test_groups_are_measured_in_one_box_that_holds_all_of_theirs() -> None:
    wide = front("wide", (0.8, 100, 1.0), box=HypervolumeBox((1.0, 10.0), (0.0, 1000.0)))
    high = front("high", (0.9, 1000, 1.0), box=HypervolumeBox((1.0, 100.0), (0.2, 10000.0)))
    result = compare([Group("wide", (wide,)), Group("high", (high,))])
    assert (result.scale.ideal, result.scale.reference) == ((1.0, 10.0), (0.0, 10000.0))
    assert [row.mean for row in result.rows] == pytest.approx([0.8 * 2 / 3, 0.9 * 1 / 3])
    assert [row.joint for row in result.rows] == [1, 1]


def test_runs_of_a_group_give_mean_and_standard_deviation() -> None:
    seeds = Group("seeds", (front("a", (0.6, 100, 1.0)), front("b", (0.9, 100, 1.0))))
    row = compare([seeds]).rows[0]
    assert row.mean == pytest.approx(0.75 * 2 / 3)
    assert row.std == pytest.approx(0.3 / math.sqrt(2) * 2 / 3)
    assert row.best == pytest.approx(0.75)
    assert row.joint == 1  # 0.9 at 100 dominates 0.6 at 100


def test_the_median_attainment_is_what_half_of_the_runs_reach() -> None:
    fronts = [front("a", (0.5, 100, 1)), front("b", (0.7, 100, 1), (0.8, 300, 2)), front("c", (0.6, 200, 1))]
    lines = attainment(fronts, TWO[1], TWO[0])
    assert lines["across"] == [100, 200, 300]
    assert lines["best"] == [0.7, 0.7, 0.8]
    assert lines["median"] == [0.5, 0.6, 0.6]
    assert math.isnan(lines["worst"][0])
    assert lines["worst"][1:] == [0.5, 0.5]


def test_different_objectives_are_refused_by_name() -> None:
    other = Front.of("other", resolve(["accuracy", "latency_ms"]), [])
    with pytest.raises(UsageError, match="front has accuracy, params; other has accuracy, latency_ms"):
        compare([Group("a", (front("front", (0.5, 100, 1)),)), Group("b", (other,))])


def test_nothing_complete_is_said() -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([Group("a", (front("a"),))])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    out = []
    for seed in (0, 1):
        study = ad.Study.create(
            directory=root / f"seed{seed}",
            name="toy",
            space=toys.SPACE,
            objectives=["accuracy", "params", "latency_ms"],
            sampler="random",
            epochs=9,
            rungs={"eta": 3, "levels": list(toys.LEVELS)},
            seed=seed,
        )
        ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="12trials")
        out.append(root / f"seed{seed}")
    return out


def test_the_command_compares_studies_and_draws_them(folders: list[Path], tmp_path: Path) -> None:
    picture = tmp_path / "both.png"
    result = run.invoke(app, ["front", *map(str, folders), "--plot", str(picture)])
    assert result.exit_code == 0, result.output
    assert "seed0" in result.stdout
    assert "seed1" in result.stdout
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_runs_are_grouped_by_name(folders: list[Path]) -> None:
    result = run.invoke(app, ["front", f"toy={folders[0]},{folders[1]}", "--json"])
    found = json.loads(result.stdout)["groups"]
    assert [(g["name"], len(g["hypervolume_share"])) for g in found] == [("toy", 2)]
    assert found[0]["std"] is not None


def test_every_complete_trial_stores_what_had_been_spent(folders: list[Path]) -> None:
    records = json.loads(run.invoke(app, ["trials", str(folders[0]), "--state", "COMPLETE", "--json"]).stdout)
    seconds = [r["spent"]["seconds"] for r in records]
    assert seconds == sorted(seconds)
    assert all(s > 0 for s in seconds)


def test_the_knee_and_the_csv_of_one_study(folders: list[Path]) -> None:
    knee = json.loads(run.invoke(app, ["front", str(folders[0]), "--knee", "--json"]).stdout)
    csv = run.invoke(app, ["front", str(folders[0]), "--csv", "-"]).stdout.splitlines()
    assert csv[0].startswith("number,variant,accuracy")
    assert knee["number"] in [int(line.split(",")[0]) for line in csv[1:]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "front.gif"], "allowed: .png, .svg, .pdf, .html"),
        (["--pick", "params < 3", "--knee"], "use one of them"),
        (["--csv", "-", "--json"], "--csv - and --json both write to standard output"),
        (["--csv", "-", "--pick", "params < 3"], "--csv - and --pick both write to standard output"),
        (["--csv", "-", "--knee"], "--csv - and --knee both write to standard output"),
        (["--csv", "nodir/x.csv"], "the folder nodir of x.csv does not exist"),
        (["--csv", "."], ". is a folder; give the name of a file"),
        (["--plot", "nodir/x.png"], "the folder nodir of x.png does not exist"),
    ],
)
def test_wrong_uses_of_one_study_are_explained(folders: list[Path], arguments: list[str], message: str) -> None:
    result = run.invoke(app, ["front", str(folders[0]), *arguments])
    assert (result.exit_code, message in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("extra", "message"),
    [(["--knee"], "--knee works on one study"), (["--plot", "a.gif"], "allowed: .png, .svg, .pdf, .html")],
)
def test_wrong_uses_of_several_studies_are_explained(folders: list[Path], extra: list[str], message: str) -> None:
    result = run.invoke(app, ["front", *map(str, folders), *extra])
    assert (result.exit_code, message in result.output) == (2, True), result.output
    twice = run.invoke(app, ["front", str(folders[0]), str(folders[0])])
    assert (twice.exit_code, "give each its own name" in twice.output) == (2, True)


@pytest.mark.parametrize("studies", [1, 2])
def test_an_html_plot_opens_offline(folders: list[Path], tmp_path: Path, studies: int) -> None:
    page = tmp_path / "front.html"
    result = run.invoke(app, ["front", *map(str, folders[:studies]), "--plot", str(page)])
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert "Plotly.newPlot" in text
    assert '<script src="http' not in text


def axes_of(result: Comparison, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The two halves of the picture of ``result``."""
    from matplotlib.figure import Figure

    seen: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: seen.append(self))
    comparison_png(result, path)
    return list(seen[0].axes)


def test_every_study_is_in_the_picture_also_with_one_student_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Group("many", (front("many", (0.8, 100, 5.0), (0.9, 1000, 10.0)),), (20.0,))
    one = Group("one", (front("one", (0.7, 100, 12.0)),), (15.0,))
    none = Group("none", (front("none"),), (9.0,))
    left, right = axes_of(compare([many, one, none]), tmp_path / "c.png", monkeypatch)
    marks = {line.get_label(): line.get_marker() for line in left.lines}
    assert marks == {"many": "None", "one": "o", "none (empty)": "None"}
    ends = {line.get_label(): (line.get_xydata()[0].tolist(), line.get_xdata()[-1]) for line in right.lines}
    assert ends == {"many": ([0.0, 0.0], 20.0), "one": ([0.0, 0.0], 15.0), "none": ([0.0, 0.0], 9.0)}


def by_role(result: Comparison) -> dict[str, dict[str, Any]]:
    """Traces of the interactive figure of ``result`` by what they show, then by their group."""
    found: dict[str, dict[str, Any]] = {}
    for trace in comparison_figure(result).data:
        found.setdefault(trace.meta["role"], {})[trace.meta.get("group", "")] = trace
    return found


def test_the_interactive_figure_shows_what_the_picture_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = Group("seeds", (front("a", (0.6, 100, 1.0)), front("b", (0.7, 100, 2.0), (0.9, 900, 4.0))), (5.0, 6.0))
    result = compare(
        [seeds, Group("one", (front("c", (0.8, 300, 3.0)),), (4.0,)), Group("none", (front("d"),), (9.0,))]
    )
    left, right = axes_of(result, tmp_path / "c.png", monkeypatch)
    found = by_role(result)
    for role, axes, groups in (("median", left, ["seeds", "one"]), ("growth", right, ["seeds", "one", "none"])):
        for group, line in zip(groups, axes.lines, strict=False):
            assert [found[role][group].x, found[role][group].y] == [tuple(line.get_xdata()), tuple(line.get_ydata())]
    assert [trace.name for trace in found["median"].values()] == ["seeds (2 runs)", "one", "none (empty)"]
    assert set(zip(found["students"]["seeds"].x, found["students"]["seeds"].y, strict=True)) == {
        (100, 0.6), (100, 0.7), (900, 0.9)
    }  # fmt: skip
    assert found["students"]["one"].hovertext[0].startswith("c <b>trial 0</b>")


def test_a_click_on_a_group_takes_it_out_of_both_halves_of_the_figure() -> None:
    a, b = (Group(name, (front(name, (0.6, 100, 1.0)), front(name, (0.7, 300, 2.0)))) for name in "ab")
    figure = comparison_figure(compare([a, b]))
    halves = {group: {t.xaxis for t in figure.data if t.legendgroup == group} for group in ("0", "1")}
    assert halves == {"0": {"x", "x2"}, "1": {"x", "x2"}}
    assert [t.name for t in figure.data if t.showlegend is not False] == ["a (2 runs)", "b (2 runs)"]


def test_the_figure_says_that_no_study_kept_a_clock() -> None:
    old = TrialRecord(0, State.COMPLETE, {"accuracy": 0.5, "params": 100}, {}, {}, {}, 0)
    figure = comparison_figure(compare([Group("old", (Front.of("old", TWO, [old], scale=BOX),))]))
    assert [note.text for note in figure.layout.annotations] == ["these studies have no record of times"]


def test_studies_on_different_images_are_named() -> None:
    found = front("a", (0.8, 100, 5.0))
    a, b = Group("a", (found,), data=("1f",)), Group("b", (found, found), data=("1f", ""))
    assert compare([a, b]).warning == ""
    said = compare([a, b, Group("c", (found,), data=("2e",))])
    assert "different images" in said.warning
    assert "(a, b: 1f; c: 2e)" in said.warning
    assert said.to_json()["warning"] == said.warning


def test_latencies_that_were_measured_differently_are_named_where_latency_is_an_objective() -> None:
    timed = Front.of(
        "t",
        resolve(["accuracy", "latency_ms"]),
        [replace(trial(0, 0.8, 9, 1), values={"accuracy": 0.8, "latency_ms": 1})],
    )
    ways, places = {"a": "torch, 1 thread", "b": "onnxruntime, 4 threads"}, {"a": "EPYC, 2 cores", "b": "M1, 8 cores"}

    def warned(found: Front, ways: dict[str, str], places: dict[str, str]) -> str:
        return compare([Group(n, (found,), latency=(ways[n],), machines=(places[n],)) for n in "ab"]).warning

    same = dict.fromkeys("ab", "torch, 1 thread")
    assert warned(timed, same, places | {"b": ""}) == ""  # an old study did not say where
    assert warned(timed, ways, places | {"b": ""}) == (
        "latency was measured in different ways, so it cannot be compared "
        "(a: torch, 1 thread; b: onnxruntime, 4 threads)"
    )
    assert warned(timed, same, places) == (
        "latency was measured on different machines, so it cannot be compared (a: EPYC, 2 cores; b: M1, 8 cores)"
    )
    assert warned(front("f", (0.8, 100, 5.0)), ways, places) == ""


def test_studies_say_how_and_where_their_latency_was_measured(folders: list[Path], tmp_path: Path) -> None:
    changes = {
        "torch": ("runtime: torch", "runtime: torch"),
        "onnx": ("runtime: torch", "runtime: onnxruntime"),
        "told": ("threads: 1", "threads: 1\n  table: t.csv"),
    }
    for name, (old, new) in changes.items():
        shutil.copytree(folders[0], tmp_path / name)
        path = tmp_path / name / "study.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        with sqlite3.connect(
            path.with_name("study.db")
        ) as database:  # as studies of earlier versions: only in the file
            database.execute("DELETE FROM study_user_attributes WHERE key = 'configuration'")
        database.close()
    studies = [ad.Study.open(tmp_path / name) for name in changes]
    facts = [{"processor": "EPYC", "cores": cores, "gpus": ["H200"], "workers": cores} for cores in (2, 2, 4)]
    for study in studies:
        study.optuna.set_user_attr("machines", facts)
    group = Group.of("g", studies)
    plain = "on cpu, batch 1, fp32, 1 thread"
    assert group.latency[:2] == (f"torch {plain}", f"onnxruntime {plain}")
    assert group.latency[2].startswith(f"torch {plain}, reported by ")
    assert group.latency[2].endswith("t.csv")
    assert group.machines == (*["EPYC, 2 cores and EPYC, 4 cores"] * 2, "")
    said = run.invoke(app, ["front", str(tmp_path / "torch"), str(tmp_path / "onnx")])
    assert "warning: latency was measured in different ways" in " ".join(said.stderr.split())
