"""What a search called from Python shows: on stderr by default, nothing where asked, or a caller's own function."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.errors import LiveError
from rich.live import Live
from toys import evaluate, make_study

import autodistill as ad
from autodistill.core.errors import UserCodeError
from autodistill.core.records import Candidate, Report
from autodistill.engines.monitor import progress
from autodistill.engines.monitor.watch import Snapshot


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal on stderr is sent."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "err", lambda: Console(file=written, force_terminal=True, width=120))
    return written


def talking(candidate: Candidate) -> Iterator[Report]:
    print("the user's own words")
    yield from evaluate(candidate)


def test_a_search_prints_plain_lines_on_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    ad.search(make_study(), evaluate=evaluate, budget="6trials")
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert "on the front, best " in last
    assert " used" in last
    assert "\x1b" not in err


def test_false_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    ad.search(make_study(), evaluate=evaluate, budget="6trials", progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_progress_function_is_called_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Snapshot] = []
    ad.search(make_study(), evaluate=evaluate, budget="6trials", progress=seen.append)
    assert [snapshot.stage for snapshot in seen][-1] == "done"
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_live_panel_whose_last_state_stays_and_stdout_keeps_what_is_printed(
    terminal: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    ad.search(make_study(), evaluate=talking, budget="6trials")
    out, err = capsys.readouterr()
    assert set(out.splitlines()) == {"the user's own words"}  # stdout is no terminal: what is printed there is data
    assert err == ""
    assert "\x1b" in terminal.getvalue()
    assert "the user's own words" not in terminal.getvalue()
    last = terminal.getvalue().splitlines()[-1]
    assert "on the front, best " in last
    assert " used" in last


def test_a_search_that_fails_gives_the_terminal_back(terminal: io.StringIO) -> None:
    def broken(candidate: Candidate) -> Iterator[Report]:
        raise RuntimeError("a bug in the user's code")

    with pytest.raises(UserCodeError, match="a bug"):
        ad.search(make_study(), evaluate=broken, budget="20trials")
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert -1 < terminal.getvalue().rfind(hidden) < terminal.getvalue().rfind(shown)  # the cursor


def test_where_the_program_has_a_display_of_its_own_lines_are_plain(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Live, refresh: bool = False) -> None:
        raise LiveError("only one live display may be active at once")

    monkeypatch.setattr(Live, "start", refuse)
    ad.search(make_study(), evaluate=evaluate, budget="6trials")
    assert "on the front, best " in terminal.getvalue().splitlines()[-1]
