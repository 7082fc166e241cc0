"""Tables on terminals of every width."""

from __future__ import annotations

import pytest

from autodistill.commands.console import output
from autodistill.commands.console.column_widths import GAP, fit_columns
from autodistill.commands.console.tables import print_front, print_trials
from autodistill.core.records import State, TrialRecord
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front

STUDENTS = (
    {"family": "convnext", "width": 12, "depth": 2, "kernel": 3},
    {"family": "resnet", "width": 2, "depth": 1},
    {"family": "mbconv", "width": 10, "depth": 2, "expand": 4},
)
MIX = {"loss": "dkd", "alpha": 0.447, "temperature": 7.22, "beta": 3.37}
OBJECTIVES = resolve(["accuracy", "params", "latency_ms"])


def trials() -> list[TrialRecord]:
    out = []
    for number, student in enumerate(STUDENTS):
        values = {"accuracy": 0.98 - 0.01 * number, "params": 266830.0 / 9**number, "latency_ms": 1.26 / 3**number}
        reason = "" if number else "INTERRUPTED"
        state = State.COMPLETE if number else State.PARTIAL
        out.append(TrialRecord(number, state, values, student, MIX, {}, 0, reason=reason, epochs=30.0, seconds=1234.5))
    return out


def words(records: list[TrialRecord]) -> set[str]:
    """What no table may break."""
    figures = {"266,830", "29,648", "3,294", "0.9800", "0.9700", "0.42", "0.14", "1.26", "PARTIAL", "COMPLETE"}
    return figures | {f"{k}={v}" for t in records for k, v in t.student.items() if k != "family"}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A terminal on stdout, whose width the test says in ``COLUMNS``."""
    monkeypatch.setattr(output, "for_terminal", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_figure_and_no_word_is_broken(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    terminal.setenv("COLUMNS", str(width))
    print_trials(trials(), OBJECTIVES)
    said = capsys.readouterr()
    lines = said.out.rstrip("\n").split("\n")
    assert max(map(len, lines)) <= width
    assert words(trials()) - set(said.out.split()) == set()
    assert len(lines) <= 1 + len(trials()) * (4 if width < 80 else 3)
    hidden = said.err.removeprefix("not shown for lack of width: ").partition(";")[0].split(", ")
    assert ("distillation" in hidden) == (width <= 80)
    assert ("seconds" in hidden) == (width <= 100)
    assert "use a wider terminal or --json" in said.err or width == 140


def test_what_is_no_terminal_gets_every_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_trials(trials(), OBJECTIVES)
    said = capsys.readouterr()
    assert len(said.out.rstrip("\n").split("\n")) == 1 + len(trials())
    assert "dkd alpha=0.447 temperature=7.22 beta=3.37" in said.out
    assert "1234.5" in said.out
    assert said.err == ""


def test_a_narrow_front_keeps_its_objectives(terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.setenv("COLUMNS", "60")
    print_front(Front.of("s", OBJECTIVES, trials()), trials())
    said = capsys.readouterr()
    assert said.out.split("\n")[0].split() == ["trial", "student", "accuracy", "params", "latency_ms"]
    assert "not shown for lack of width: distillation;" in said.err


def test_costs_go_last_and_the_rest_is_never_cut() -> None:
    columns, row = ["trial", "student", "accuracy", "params"], ["1", "aaaa bbbb", "0.1234", "1,234"]
    for width, hidden in ((40, ()), (32, ()), (31, (3,)), (5, (3,))):
        layout = fit_columns(columns, [row], width, wrap=[1], spare=[], last=[3])
        assert layout.hidden == hidden
        assert layout.total <= max(width, 5 + 7 + 8 + 2 * GAP)
        assert layout.widths[2] == len("accuracy")
