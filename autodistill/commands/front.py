"""``front``: the Pareto front of a study as table, file or figure, or a comparison of several studies."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodistill.commands.console.output import check_drawing, check_file, command, number, print_json, print_table, say
from autodistill.commands.console.reading import DirOption, JsonOption, folder_of, read_study
from autodistill.commands.console.tables import found_by_verify, nearest_json, print_front, print_trial, say_nearest
from autodistill.core.errors import UsageError
from autodistill.core.teacher_distance import to_teacher
from autodistill.core.wording import counted, one_line, why_empty
from autodistill.search.results.gain import gain_over_undistilled

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from autodistill.core.records import TrialRecord
    from autodistill.search.analysis.compare import Comparison, Group
    from autodistill.search.results.front import Front
    from autodistill.search.results.front_member import FrontMember
    from autodistill.search.results.verified import VerifiedRow
    from autodistill.search.study.study import Study

FRONT = """
  autodistill front runs/digits
  autodistill front runs/digits --pick 'latency_ms <= 1 and params <= 1e5'
  autodistill front runs/digits --plot front.svg --csv -
  autodistill front runs/a runs/b --plot both.html
  autodistill front default=runs/a0,runs/a1 random=runs/b0,runs/b1 --plot seeds.png
"""
_ENDINGS = (".png", ".svg", ".pdf", ".html")


def front(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR]...",
            help="Folder of a study. Default: the newest study in runs/. Several studies are compared; NAME=DIR,DIR "
            "groups runs that differ only in their seed.",
        ),
    ] = None,
    directory: DirOption = None,
    pick: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR",
            help="Show only the best student that satisfies e.g. 'latency_ms <= 5 and params <= 2e6'.",
        ),
    ] = None,
    knee: Annotated[
        bool,
        typer.Option("--knee", help="Show only the best compromise: the student nearest to the ideal point."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the front to a .png, .svg, .pdf or (interactive) .html file."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the front as CSV; - writes to standard output.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write front.json, front.csv and front.png to this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the Pareto front: the students that no other beats in one objective without losing in another."""
    given = list(studies or [])
    if len(given) > 1 or (given and "=" in given[0] and not Path(given[0]).exists()):
        alone = {"--pick": pick, "--knee": knee, "--csv": csv, "--save": save, "--dir": directory}
        wrong = [flag for flag, value in alone.items() if value]
        if wrong:
            raise UsageError(f"{', '.join(wrong)} works on one study, but {len(given)} are given; give one.")
        _compare(given, plot, as_json)
        return
    if pick is not None and knee:
        raise UsageError("--pick and --knee both choose one student; use one of them.")
    _check_files(plot, csv, {"--json": as_json, "--pick": pick is not None, "--knee": knee})
    folder = folder_of(Path(given[0]) if given else None, directory)
    found = read_study(folder)
    result = found.front()
    _write(found, result, plot, csv, save)
    if pick is not None or knee:
        _one(found, result, _chosen(found, result, pick), as_json)
    elif as_json:
        print_json(
            {
                **_with_verdicts(result),
                **nearest_json(found),
                "range_bounds": [e.to_json() for e in found.range_bounds()],
            }
        )
    elif csv is not None and str(csv) == "-":
        return
    elif result.trials:
        rows, trouble = found_by_verify(result)
        print_front(result, found.trials(), rows)
        if bounds := found.bounds_line():
            say(bounds)
        say(f"hypervolume {result.hypervolume_share:.4f} of the reference box")
        _say_verified(folder, result, rows, trouble)
        say_nearest(found)
    else:
        say(f"The front is empty: {_why_empty(found)}.")
        say_nearest(found)


def _with_verdicts(front: Front) -> dict[str, Any]:
    """Return the front as JSON, each member with its result of ``verify`` (``null`` if it has none)."""
    from autodistill.search.results.picking import KEPT, row_of

    rows, trouble = found_by_verify(front)
    if trouble:
        say(f"verified: {trouble}")
    out = front.to_json()
    for trial, member in zip(front.trials, out["trials"], strict=True):
        member["verified"] = _verdict(row_of(trial, rows))
    kept = [number for number, row in rows.items() if row.verdict in KEPT]
    return {**out, "verified_front": kept if rows else None}


def _verdict(row: VerifiedRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    accuracy = None if row.accuracy is None else row.accuracy.mean
    return {"verdict": row.verdict, "accuracy": accuracy, "rivals": list(row.rivals)}


def _say_verified(folder: Path, front: Front, rows: Mapping[int, VerifiedRow], trouble: str) -> None:
    """Print the state of the verification: its front, the students that joined it, and those still unverified."""
    from autodistill.search.results.picking import KEPT, unverified
    from autodistill.search.results.verified import read_verified

    if trouble:
        say(f"verified: {trouble}")
        return
    found = read_verified(folder) if rows else None
    if found is None:
        return
    done = "" if found.complete else f", {found.finished} of {counted(found.planned, 'run')} finished"
    joined = [str(number) for number, row in rows.items() if row.verdict == "joins"]
    more = f" (trial {', '.join(joined)} joined it)" if joined else ""
    kept = sum(row.verdict in KEPT for row in rows.values())
    state = f"{counted(kept, 'student')} on the verified front{more}{done}"
    missing, size = len(unverified(front, rows)), len(front.trained())
    if missing:
        state = f"{size - missing} of {counted(size, 'student')} on the front{more}{done}"
    say(f"verified: {state}; see {folder / 'verify.csv'}, or: {command('report', folder)}")
    if missing:
        say(
            "  until all are verified, --pick and --knee use the figures of the search and skip students that fell "
            f"off: {command('verify', folder)}"
        )


def _chosen(study: Study, front: Front, pick: str | None) -> FrontMember:
    """Return the best member that satisfies ``pick``, else the knee; print on stderr how ``verify`` affected it."""
    if not front.trials:
        raise UsageError(f"the front of {one_line(front.study)} is empty: {_why_empty(study)}.")
    chosen = front.pick(pick) if pick is not None else front.knee() or front.members[0]
    if chosen.picked:
        say(chosen.picked)
    return chosen


def _why_empty(study: Study) -> str:
    return why_empty(study.trials(), study.constraints)


def _one(study: Study, front: Front, trial: TrialRecord, as_json: bool) -> None:
    from autodistill.search.results.picking import row_of

    gain = gain_over_undistilled(trial, study.trials(), front.objectives[0])
    if as_json:
        rows, _ = found_by_verify(front)
        points = to_teacher(trial.values, front.teacher)
        verdict = _verdict(row_of(trial, rows))
        print_json({**trial.to_json(), "gain": gain, "to_teacher": points, "verified": verdict})
    else:
        print_trial(trial, front.objectives, gain, front.teacher)


def _write(study: Study, front: Front, plot: Path | None, csv: Path | None, save: Path | None) -> None:
    """Write the files that the options name."""
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        for path in front.save(save, empty=_why_empty(study)).values():
            say(f"wrote {path}")
    if csv is not None and str(csv) == "-":
        from autodistill.search.results.csv_text import csv_text

        sys.stdout.write(csv_text(front.to_pandas()))
    elif csv is not None:
        from autodistill.search.results.csv_text import csv_text
        from autodistill.search.storage.study_folder import write_atomically

        write_atomically(csv, csv_text(front.to_pandas()))
        say(f"wrote {csv}")
    if plot is not None:
        if plot.suffix == ".html":
            from autodistill.delivery.figures.study_figures import front_figure

            _write_page(front_figure(front, study.trials(), empty=_why_empty(study)), plot)
        else:
            front.plot(plot, empty=_why_empty(study))
        say(f"wrote {plot}")


def _write_page(figure: go.Figure, path: Path) -> None:
    figure.write_html(path, include_plotlyjs=True)  # include the library, so that the page opens offline


def _check_files(plot: Path | None, csv: Path | None, shown: Mapping[str, bool]) -> None:
    """Refuse files that cannot be written, and two documents on standard output."""
    if plot is not None:
        check_drawing(plot, _ENDINGS)
    if csv is not None and str(csv) != "-":
        check_file(csv)
    if csv is not None and str(csv) == "-" and (others := [flag for flag, given in shown.items() if given]):
        raise UsageError(
            f"--csv - and {', '.join(others)} both write to standard output; give --csv a file, or use one of them."
        )


def _compare(given: Sequence[str], plot: Path | None, as_json: bool) -> None:
    from autodistill.search.analysis.compare import compare

    if plot is not None:
        check_drawing(plot, _ENDINGS)
    groups = [_group(text) for text in given]
    names = [group.name for group in groups]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two groups are called {', '.join(twice)}; give each its own name: NAME=DIR,DIR.")
    result = compare(groups)
    if result.warning:
        say(f"warning: {result.warning}.")
    if plot is not None:
        _draw_comparison(result, plot)
        say(f"wrote {plot}")
    if as_json:
        print_json(result.to_json())
    else:
        _print_comparison(result)
        if plot is None:
            say("next:\n  " + command("front", *given, "--plot", "comparison.png"))


def _draw_comparison(comparison: Comparison, plot: Path) -> None:
    if plot.suffix == ".html":
        from autodistill.delivery.figures.study_figures import comparison_figure

        _write_page(comparison_figure(comparison), plot)
    else:
        from autodistill.delivery.figures.comparison_png import comparison_png

        comparison_png(comparison, plot)


def _group(text: str) -> Group:
    """Parse ``DIR`` or ``NAME=DIR,DIR`` and read its studies."""
    from autodistill.search.analysis.compare import Group

    name, equals, folders = text.partition("=")
    if not equals or Path(text).exists():
        folder = Path(text)
        return Group.of(folder.name, [read_study(folder_of(folder, None))])
    parts = [part.strip() for part in folders.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{text!r} lists no folder; write NAME=DIR or NAME=DIR,DIR.")
    return Group.of(name, [read_study(Path(part)) for part in parts])


def _print_comparison(comparison: Comparison) -> None:
    first = comparison.objectives[0]
    rows = [
        [
            row.name,
            str(row.runs),
            f"{row.complete:g}" if row.complete == int(row.complete) else f"{row.complete:.1f}",
            number(row.best, first.unit),
            f"{row.mean:.4f}" + ("" if row.std is None else f" ± {row.std:.4f}"),
            str(row.joint),
        ]
        for row in comparison.rows
    ]
    columns = ["group", "runs", "complete", f"best {first.name}", "hypervolume", "on joint front"]
    print_table(columns, rows, right=columns[1:])
    box = "  ".join(
        f"{o.name} {number(worst, o.unit)} … {number(best, o.unit)}"
        for o, worst, best in zip(
            comparison.objectives, comparison.scale.reference, comparison.scale.ideal, strict=True
        )
    )
    say(f"hypervolume: share of the common box {box}; ±: standard deviation over the runs")
