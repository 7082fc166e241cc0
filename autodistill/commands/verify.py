"""``autodistill verify``: retrains the front of a search with new seeds and evaluates it on the test split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodistill.commands.console.output import command, number, print_json, print_table, say
from autodistill.commands.console.reading import DirOption, JsonOption, StudyArgument, folder_of
from autodistill.commands.console.tables import VERDICTS
from autodistill.core.errors import UsageError
from autodistill.core.wording import counted, distillation_words

if TYPE_CHECKING:
    from autodistill.core.records import Params
    from autodistill.search.results.verified import ClassFigures, Difference, Figure, Verified, VerifiedRow

EXAMPLES = """
  autodistill verify runs/digits
  autodistill verify runs/digits --seeds 5 --workers 2 --budget 30m
  autodistill verify runs/digits --trials 3,7 --baseline resnet18,mobilenetv3_small_100
  autodistill verify runs/digits --dry-run        list what would be trained, and how long it would take
"""


CLASSES_NAMED = 3
"""Classes with the largest loss against the teacher that are named."""


def verify(
    study: StudyArgument = None,
    directory: DirOption = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Number of trainings of each student, each with its own random seed.")
    ] = 3,
    refit: Annotated[str, typer.Option(help="Images to train on: train, or train+val.")] = "train",
    top: Annotated[
        int | None,
        typer.Option(metavar="K", help="Verify at most K students on or near the front. Default: all of them."),
    ] = None,
    trials: Annotated[
        str | None, typer.Option(metavar="3,7", help="Verify these trials instead of the front and its neighbours.")
    ] = None,
    twins: Annotated[
        bool, typer.Option(help="Also train each student without distillation, to measure what distillation gains.")
    ] = True,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="timm networks to train for comparison, without distillation."),
    ] = None,
    inherit: Annotated[
        bool,
        typer.Option(
            "--inherit", help="Students with init: inherit start as in the search. Default: from random weights."
        ),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="Time limit, e.g. 30m; the most important runs come first. Default: no limit."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of students trained in parallel. Default: as in the study."),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray. Default: as in the study.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be trained, with its time; train nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Retrain the students on and near the front with new seeds, and evaluate them on the test split.

    No other command opens the test split before. Finished runs are never repeated: run the same command again to
    continue after an interruption.
    """
    folder = folder_of(study, directory)
    options: dict[str, Any] = {
        "seeds": seeds,
        "refit": refit,
        "top": top,
        "trials": numbers(trials),
        "twins": twins,
        "inherit": inherit,
        "baselines": tuple(name.strip() for name in (baseline or "").split(",") if name.strip()),
    }
    if dry_run:
        _dry_run(folder, options, workers, as_json)
    else:
        run(folder, as_json=as_json, budget=budget, workers=workers, engine=engine, **options)


def run(folder: Path, *, as_json: bool = False, show: bool = True, again: str = "", **options: Any) -> Verified:
    """Verify the study in a folder, show progress on stderr, print the results and the next commands.

    Args:
        folder: Folder of the study.
        as_json: Print JSON instead of the table.
        show: Print the results (table or JSON) at all.
        again: Command that continues the verification; empty for the command line of this process.
        options: Keywords of ``delivery.verify.run.verify``.
    """
    from autodistill.commands.console.this_command import this_command
    from autodistill.delivery.verify.run import verify as run_verify
    from autodistill.engines.monitor.progress import Progress

    again = again or this_command()
    try:
        with Progress() as progress:
            verified = run_verify(folder, progress=progress, **options)
    except (KeyboardInterrupt, SystemExit) as stop:
        say(f"Stopped; finished runs are kept. Continue: {again}")
        raise typer.Exit(stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130) from None
    if show and as_json:
        print_json(verified.to_json())
    elif show:
        print_verified(verified)
    for line in findings(verified):
        say(line)
    say("files: " + "  ".join(str(folder / f"verify.{ending}") for ending in ("png", "csv", "json")))
    best = verified.front[0] if verified.front else None
    if not verified.complete:
        say(f"next: {again}   (continue)")
    elif best is not None:
        say("next: " + command("report", folder))
        say("      " + command("export", folder, "--trial", best.trial, "-o", "student"))
    return verified


def numbers(text: str | None) -> tuple[int, ...]:
    """Parse trial numbers such as ``3,7``.

    Raises:
        UsageError: A part is not a number.
    """
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    wrong = [part for part in parts if not part.isdecimal()]
    if wrong:
        raise UsageError(f"--trials takes trial numbers such as 3,7; got {wrong[0]!r}.")
    return tuple(int(part) for part in parts)


def _dry_run(folder: Path, options: dict[str, Any], workers: int | None, as_json: bool) -> None:
    from autodistill.delivery.verify.prepare import plan_verification

    plan = plan_verification(folder, **options)
    count = workers or plan.study.config.workers or 1
    if as_json:
        members = [{"kind": m.kind, "trial": m.trial, "name": m.name, "before": m.before} for m in plan.members]
        print_json(
            {
                "rows": members,
                "seeds": list(plan.seeds),
                "runs": len(plan.distinct),
                "waiting": len(plan.waiting),
                "seconds": plan.seconds(count),
            }
        )
        return
    rows = [
        ["-" if m.trial is None else str(m.trial), m.kind, m.name, distillation_words(m.distillation) or "-"]
        for m in plan.members
    ]
    print_table(["trial", "row", "student", "distillation"], rows, right=("trial",))
    say(plan.words(count))
    say("Nothing was trained, and the test split was not opened.")


def print_verified(verified: Verified) -> None:
    """Print one line per student, with its undistilled twin; then the baselines and the teacher."""
    columns = ["trial", "student", "loss", "test accuracy", "95 %", *verified.measured, "undistilled", "gain"]
    columns += ["params", "onnx bytes", "onnx ms", "agrees", "ECE", "flattered", "verdict"]
    rows = [_student_cells(row, verified) for row in verified.students]
    others = [row for row in verified.rows if row.kind in ("baseline", "teacher")]
    rows += [_other_cells(row, verified) for row in others]
    right = tuple(name for name in columns if name not in ("student", "loss", "verdict"))
    print_table(columns, rows, right=right)


def _measure_cells(row: VerifiedRow, verified: Verified) -> list[str]:
    """Return the further trained objectives with their intervals."""
    cells = []
    for name in verified.measured:
        figure = row.figures.get(name)
        interval = _interval(figure)
        cells.append(_spread(figure) if interval == "-" else f"{_spread(figure)} {interval}")
    return cells


def _student_cells(row: VerifiedRow, verified: Verified) -> list[str]:
    twin = verified.twin(row.trial) if row.trial is not None else None
    return [
        str(row.trial),
        row.name,
        _loss(row.distillation),
        _spread(row.accuracy),
        _interval(row.accuracy),
        *_measure_cells(row, verified),
        "-" if twin is None else _spread(twin.accuracy),
        _gain(row.gain),
        *_cost_cells(row),
        "-" if row.flattered is None else f"{row.flattered:+.4f}",
        _verdict(row),
    ]


def _loss(distillation: Params) -> str:
    """Return the loss and the embedding term, if any: ``kd``, ``none+embed_cosine``."""
    terms = [str(distillation[name]) for name in ("loss", "embedding") if name in distillation]
    return "+".join([*terms[:1], *(term for term in terms[1:] if term != "none")]) or "-"


def _other_cells(row: VerifiedRow, verified: Verified) -> list[str]:
    error = row.error.splitlines()[0][:60] if row.error else ""
    name = f"baseline {row.name}" if row.kind == "baseline" else "teacher"
    loss = "none" if row.kind == "baseline" else "-"
    cells = ["-", name, loss, _spread(row.accuracy), _interval(row.accuracy), *_measure_cells(row, verified)]
    cells += ["-", "-", *_cost_cells(row), "-"]
    return [*cells, error or _missing(row)]


def _cost_cells(row: VerifiedRow) -> list[str]:
    return [
        number(row.costs.get("params"), "count"),
        number(row.file_bytes, "bytes"),
        number(row.file_latency_ms),
        "-" if row.agreement is None else f"{row.agreement.mean:.3f}",
        "-" if row.ece is None else f"{row.ece.mean:.3f}",
    ]


def _spread(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return f"{figure.mean:.4f}" + ("" if figure.std is None else f" ± {figure.std:.4f}")


def _interval(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return "-"
    return f"[{figure.low:.3f}, {figure.high:.3f}]"


def _gain(gain: Difference | None) -> str:
    if gain is None:
        return "-"
    return f"{gain.mean:+.4f}" + ("" if gain.certain else " ?")


def _verdict(row: VerifiedRow) -> str:
    if row.error:
        return row.error.splitlines()[0][:60]
    verdict = VERDICTS.get(row.verdict, "")
    if row.rivals and row.verdict:
        verdict += f", within noise of {', '.join(map(str, row.rivals[:4]))}{' …' if len(row.rivals) > 4 else ''}"
    return "; ".join(part for part in (verdict, _missing(row)) if part)


def _missing(row: VerifiedRow) -> str:
    return "" if row.complete else f"{len(row.seeds)} of {row.planned} runs"


def class_words(verified: Verified) -> list[str]:
    """Return sentences about the classes that students on the verified front recognise worst."""
    out = []
    never = [
        f"trial {row.trial}: {', '.join(names)}"
        for row in verified.front
        if (names := [name for name, recall in zip(verified.classes, row.recalls, strict=False) if recall == 0.0])
    ]
    if never:
        out.append(f"warning: classes that are never recognised on the test images: {'; '.join(never)}.")
    best = verified.front[0] if verified.front else None
    losing = verified.losing_classes(best)[:CLASSES_NAMED] if best is not None else []
    if best is not None and losing:
        named = ", ".join(f"{one.name} {one.recall:.2f} ({one.teacher_recall:.2f}{_taken(one)})" for one in losing)
        out.append(f"Trial {best.trial} falls furthest below its teacher (in brackets) in the recall of: {named}.")
    return out


def _taken(one: ClassFigures) -> str:
    """Say what most of the other images of a class are taken for."""
    return f"; {one.share:.0%} taken for {one.taken_for}" if one.taken_for else ""


def flattered_teacher(verified: Verified) -> list[str]:
    """Say by how much the validation images flattered the teacher, where the test images tell the difference."""
    row = verified.teacher_row()
    if row is None or row.accuracy is None or row.validation is None or row.accuracy.high is None:
        return []
    shares, counts = (row.validation.mean, row.accuracy.mean), (verified.validation_images, verified.test_images)
    mean = sum(s * n for s, n in zip(shares, counts, strict=True)) / max(sum(counts), 1)
    error = math.sqrt(mean * (1 - mean) * sum(1 / max(n, 1) for n in counts))  # two shares, if they were equal
    if shares[0] - shares[1] <= 1.96 * error:
        return []
    return [
        f"The teacher is right on {shares[0]:.4f} of the validation images and on {shares[1]:.4f} of the test images, "
        "which is beyond chance: it has probably seen the validation images in its training, so that bounds relative "
        "to it were too high."
    ]


def findings(verified: Verified) -> list[str]:
    """Summarise the table in sentences."""
    out = [
        f"{counted(verified.seeds, 'seed')}, trained on {verified.refit}, {counted(verified.epochs, 'epoch')}; "
        f"{verified.test_images:,} test images; 95 % interval over seeds and test images (Banerjee); "
        f"latency of the file: {verified.latency}; ECE with 15 bins of equal mass."
    ]
    if verified.judged:
        out.append(verified.judged)
    if not verified.complete:
        out.append(f"{verified.finished} of {verified.planned} runs are finished; the table lacks the others.")
    ready = [row for row in verified.students if row.verdict]
    if not ready:
        return out
    fallen = ", ".join(str(row.trial) for row in verified.fallen)
    joined = ", ".join(str(row.trial) for row in verified.front if row.verdict == "joins")
    out.append(
        f"{verified.seen} of {verified.front_before} students on the front of the search were verified; "
        + (
            f"{len(verified.front)} of {len(ready)} are on the verified front"
            if verified.whole
            else "they are compared with each other only"
        )
        + (f"; fell off: {fallen}" if fallen else "")
        + (f"; joined: {joined}" if joined else "")
        + "."
    )
    unsure = [row for row in verified.front if row.rivals]
    if unsure:
        named = ", ".join(str(row.trial) for row in unsure)
        out.append(f"Accuracy within noise of a student that is at least as cheap in every cost: {named}.")
    if verified.flattery:
        out.append(verified.flattery)
    elif verified.refit != "train":
        out.append(
            "The students were trained on the validation images too, so the optimism of the search cannot be estimated."
        )
    if gains := [row.gain for row in ready if row.gain is not None]:
        out.append(_gained(gains))
    out += flattered_teacher(verified)
    out += class_words(verified)
    if verified.seeds == 1:
        out.append("One seed does not show how much seeds differ; use at least three.")
    return out


def _gained(gains: Sequence[Difference]) -> str:
    """State the mean gain of distillation, and for how many students it is statistically significant."""
    several_seeds = [one for one in gains if one.telling]
    mean = f"Distillation gained {_mean([one.mean for one in gains]):+.4f} accuracy on average"
    if not several_seeds:
        return f"{mean} over {counted(len(gains), 'student')}; with one seed this may be chance ('?')."
    helped, harmed = (sum(one.certain and one.mean * sign > 0 for one in several_seeds) for sign in (1, -1))
    rest = len(gains) - len(several_seeds)
    alone = f", or only one seed: {rest}" if rest else ""
    return (
        f"{mean}: beyond noise it helped {helped} and harmed {harmed} of {len(several_seeds)} students "
        f"('?': within noise{alone})."
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
