"""``autodistill compress``: quantized and pruned variants of one student, beside the study's own front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from autodistill.commands.export import chosen_trials
from autodistill.commands.output import command, number, print_json, print_table, say
from autodistill.commands.reading import DirOption, JsonOption, StudyArgument, read_study
from autodistill.errors import UsageError
from autodistill.words import student_words

if TYPE_CHECKING:
    from autodistill.delivery.compress import Compressed

EXAMPLES = """
  autodistill compress runs/digits --knee
  autodistill compress runs/digits --trial 12 --methods int8-static,channels --ratios 0.3,0.5
"""


def compress(
    study: StudyArgument = None,
    directory: DirOption = None,
    trial: Annotated[int | None, typer.Option(metavar="N", min=0, help="The student of this trial.")] = None,
    pick: Annotated[
        str | None, typer.Option(metavar="EXPR", help="The best of the front with e.g. 'latency_ms <= 5'.")
    ] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The front's fairest compromise.")] = False,
    methods: Annotated[
        str,
        typer.Option(metavar="A,B", help="int8-static, int8-dynamic, fp16, weights (pruned), channels (pruned)."),
    ] = "int8-static,int8-dynamic,fp16,weights,channels",
    ratios: Annotated[str, typer.Option(metavar="X,Y", help="Shares that pruning takes away.")] = "0.3,0.5,0.7",
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of each fine-tuning; a fifth of the trial's by default.")
    ] = None,
    latency: Annotated[bool, typer.Option(help="Measure the files; trainers of this machine pause meanwhile.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Compress a student: int8, fp16, pruned weights and channels, fine-tuned with its own loss mix and teacher.

    What is made already is kept: the same command goes on where it was stopped. 'front' marks variants that no other
    one and no student of the study beats in accuracy, bytes and latency of the file.
    """
    from autodistill.delivery.compress import compress as run_compress

    found = read_study(study, directory)
    record = chosen_trials(found, trial, pick, knee, front=False)[0]
    assert found.directory is not None
    say(f"trial {record.number}: {student_words(record.student)}")
    done = run_compress(
        found.directory,
        record,
        front=found.front().trials,
        methods=[one.strip() for one in methods.split(",") if one.strip()],
        ratios=_shares(ratios),
        epochs=epochs,
        latency=latency,
        progress=lambda text: say(f"  {text}"),
    )
    if as_json:
        print_json(done.to_json())
    else:
        print_compressed(done)
    say(f"files below {found.directory / 'compress'}, figures in {found.directory / 'compress.json'}")
    say("next:\n  " + command("export", found.directory, "--trial", record.number, "--formats", "all", "-o", "student"))


def print_compressed(done: Compressed) -> None:
    """One line per variant, then the study's own students as files."""
    rows = []
    for one in done.variants:
        fine = one.state == "ok"
        rows.append(
            [
                one.name,
                number(one.accuracy, "fraction"),
                "-" if one.drop is None else f"{one.drop:+.4f}",
                number(one.nonzero, "count"),
                number(one.macs, "count"),
                number(one.bytes, "bytes") if fine else "-",
                number(one.zipped, "bytes") if fine else "-",
                number(one.latency_ms),
                "front" if one.front else "",
                one.remark if fine else f"FAILED: {one.remark}",
            ]
        )
    for trial, accuracy, size, time in done.members:
        cells = [f"trial {trial}", number(accuracy, "fraction"), "", "", "", number(size, "bytes"), "", number(time)]
        rows.append([*cells, "" if trial in done.beaten else "front", "of the study, as it is"])
    columns = ["variant", "accuracy", "drop", "nonzero", "MACs", "bytes", "zipped", "latency ms", "", " "]
    print_table(columns, rows, right=tuple(columns[1:8]))
    joined = [one.name for one in done.variants if one.front and one.name != "fp32"]
    axes = ", ".join(done.axes)
    say(f"joint front of {axes}, on validation: {', '.join(joined) or 'no variant'} joined")


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"--ratios is {text!r}; give shares between 0 and 1, e.g. 0.3,0.5,0.7.") from None
