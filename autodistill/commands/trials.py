"""``trials``, ``show`` and ``importance``: commands that read a study, also while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autodistill.commands.console.output import print_json, print_table, say
from autodistill.commands.console.reading import DirOption, JsonOption, StudyArgument, read_study
from autodistill.commands.console.tables import print_trial, print_trials
from autodistill.core.errors import UsageError, nearest
from autodistill.core.teacher_distance import to_teacher
from autodistill.core.wording import one_line
from autodistill.search.results.gain import gain_over_undistilled

TRIALS = """
  autodistill trials runs/digits --state COMPLETE --json
"""
SHOW = """
  autodistill show 12 runs/digits
"""
IMPORTANCE = """
  autodistill importance runs/digits
"""
_NAMED = 12  # most parameters that a note lists
_STATES = ("COMPLETE", "PRUNED", "FAIL", "PARTIAL", "RUNNING")


def trials(
    study: StudyArgument = None,
    directory: DirOption = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="List only trials in this state: COMPLETE, PRUNED, FAIL, PARTIAL or RUNNING. May be repeated.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the trials with state, reason, student, distillation, objectives, epochs and seconds."""
    wanted = tuple(one.upper() for one in state or ())
    for one in wanted:
        if one not in _STATES:
            close = nearest(one, _STATES)
            meant = f" did you mean {close[0]}?" if close else ""
            raise UsageError(f"unknown state {one!r};{meant} allowed: {', '.join(_STATES)}.")
    found = read_study(study, directory)
    records = [t for t in found.trials() if not wanted or t.state.value in wanted]
    if as_json:
        teacher = found.teacher_values()
        print_json([{**t.to_json(), "to_teacher": to_teacher(t.latest, teacher)} for t in records])
    elif records:
        print_trials(records, found.objectives, found.teacher_values())
    else:
        say("No trial yet." if not wanted else f"No trial is {' or '.join(wanted)}.")


def show(
    first: Annotated[str, typer.Argument(metavar="N", help="Number of the trial; DIR may also come first.")],
    second: Annotated[
        str | None, typer.Argument(metavar="DIR", help="Folder of the study. Default: the newest study in runs/.")
    ] = None,
    directory: DirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one trial: how it ended and why, its settings, and its metrics at each rung."""
    number, study = _number_and_folder(first, second)
    found = read_study(study, directory)
    records = found.trials()
    trial = next((t for t in records if t.number == number), None)
    if trial is None:
        last = f"its trials are 0 to {records[-1].number}" if records else "it has no trial yet"
        raise UsageError(
            f"there is no trial {number} in study {one_line(found.name)}; {last}. 'autodistill trials' lists them."
        )
    gain, teacher = gain_over_undistilled(trial, records, found.objectives[0]), found.teacher_values()
    if as_json:
        print_json({**trial.to_json(), "gain": gain, "to_teacher": to_teacher(trial.latest, teacher)})
    else:
        print_trial(trial, found.objectives, gain, teacher)


def _number_and_folder(first: str, second: str | None) -> tuple[int, Path | None]:
    """Parse ``12 runs/digits`` in either order.

    Raises:
        UsageError: Neither part is a number.
    """
    if not first.isdecimal() and second is not None and second.isdecimal():
        first, second = second, first
    if not first.isdecimal():
        folder = second or first
        raise UsageError(f"show needs the number of a trial, got {first!r}; write e.g. 'autodistill show 3 {folder}'.")
    return int(first), None if second is None else Path(second)


def importance(study: StudyArgument = None, directory: DirOption = None, as_json: JsonOption = False) -> None:
    """Rank the searched parameters by the share of each objective's variance they explain (fANOVA, COMPLETE trials).

    A conditional parameter is rated on the trials that have it. A parameter is left out, and listed, if fewer than
    four COMPLETE trials have it or if all of them have the same value.
    """
    from autodistill.search.analysis.importance import importance_shares, left_out

    found = read_study(study, directory)
    complete = [t for t in found.trials() if t.state.value == "COMPLETE"]
    if len(complete) < 4:
        raise UsageError(
            f"importance needs at least 4 COMPLETE trials, but study {one_line(found.name)} has {len(complete)}; "
            "run the search again with a larger budget."
        )
    shares, missing = importance_shares(found), left_out(found)
    if as_json:
        print_json({"study": found.name, "trials": len(complete), "importance": shares, "left_out": missing})
        return
    names = list(dict.fromkeys(name for part in shares.values() for name in part))
    names.sort(key=lambda name: -max(part.get(name, 0.0) for part in shares.values()))
    rows = [[name, *(f"{part[name]:.3f}" if name in part else "-" for part in shares.values())] for name in names]
    print_table(["parameter", *shares], rows, right=tuple(shares))
    if missing:
        more = f" and {len(missing) - _NAMED} more, see --json" if len(missing) > _NAMED else ""
        named = ", ".join(missing[:_NAMED])
        say(f"left out (in fewer than 4 COMPLETE trials, or with one value in all): {named}{more}")
