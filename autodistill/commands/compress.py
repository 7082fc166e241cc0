"""``autodistill compress``: quantizes and prunes one student, and compares the variants with the study's front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autodistill.commands.console.output import command, number, print_json, print_table, say
from autodistill.commands.console.reading import (
    DirOption,
    FileLatencyOption,
    JsonOption,
    StudyArgument,
    WeightsOption,
    read_study,
)
from autodistill.commands.export import chosen_trials
from autodistill.core.errors import UsageError
from autodistill.core.wording import student_words

if TYPE_CHECKING:
    from autodistill.delivery.export.compress import Compressed
    from autodistill.delivery.export.compress_variants import Variant

_EXPORTED = {"int8-static": "onnx-int8", "fp16": "onnx-fp16"}
"""Variants that ``export`` can write too, mapped to its name of the format."""
EXAMPLES = """
  autodistill compress runs/digits --knee
  autodistill compress runs/digits --trial 12 --methods int8-static,channels --ratios 0.3,0.5
"""


def compress(
    study: StudyArgument = None,
    directory: DirOption = None,
    trial: Annotated[int | None, typer.Option(metavar="N", min=0, help="Compress the student of this trial.")] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR", help="Compress the best student of the front that satisfies e.g. 'latency_ms <= 5'."
        ),
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Compress the best compromise: the student nearest to the ideal point.")
    ] = False,
    methods: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="int8-static, int8-dynamic, fp16 (quantization); weights, channels (pruning).",
        ),
    ] = "int8-static,int8-dynamic,fp16,weights,channels",
    ratios: Annotated[
        str, typer.Option(metavar="X,Y", help="Shares of weights or channels that pruning removes, between 0 and 1.")
    ] = "0.3,0.5,0.7",
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Epochs of each fine-tuning. Default: a fifth of the trial's epochs."),
    ] = None,
    weights: WeightsOption = "auto",
    max_drop: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0.0,
            max=1.0,
            help="Keep variants off the front that lose more validation accuracy than this; 0.01 is 1 point.",
        ),
    ] = 0.01,
    latency: FileLatencyOption = True,
    as_json: JsonOption = False,
) -> None:
    """Compress a student by quantization (int8, fp16) and pruning, fine-tuned with its own loss mix and teacher.

    Finished variants are kept: run the same command again to continue. 'front' marks variants that lose no more than
    --max-drop and that no other variant and no student of the study dominates in accuracy, file size and latency.
    """
    from autodistill.delivery.export.compress import compress as run_compress

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
        weights=weights,
        max_drop=max_drop,
        latency=latency,
        progress=lambda text: say(f"  {text}"),
    )
    if as_json:
        print_json(done.to_json())
    else:
        print_compressed(done)
    say(f"files below {found.directory / 'compress'}, figures in {found.directory / 'compress.json'}")
    _say_next(done, found.directory)


def _say_next(done: Compressed, folder: Path) -> None:
    """Print the files of the variants that joined the front, and the ``export`` command for those it can write."""
    joined = _joined(done)
    for one in joined:
        if one.name not in _EXPORTED:
            say(f"{one.name}: {folder / one.file}")
    formats = [_EXPORTED[one.name] for one in joined if one.name in _EXPORTED]
    if formats:
        from autodistill.delivery.export.write import MAX_DROP

        limit = () if done.max_drop == MAX_DROP else ("--max-drop", f"{done.max_drop:g}")
        names = ",".join(["onnx", *formats])
        same = () if done.wanted == "auto" else ("--weights", done.wanted)
        options = ("--trial", done.trial, "--formats", names, *same, *limit)
        say("next:\n  " + command("export", folder, *options, "-o", "student"))


def _joined(done: Compressed) -> list[Variant]:
    return [one for one in done.variants if one.front and one.name != "fp32"]


def print_compressed(done: Compressed) -> None:
    """Print one line per variant, then one per student of the study's front, as exported files."""
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
                "front" if one.front else f"loses more than {done.max_drop:g}" if one.loses(done.max_drop) else "",
                one.remark if fine else f"FAILED: {one.remark}",
            ]
        )
    for trial, accuracy, size, time in done.members:
        cells = [f"trial {trial}", number(accuracy, "fraction"), "", "", "", number(size, "bytes"), "", number(time)]
        rows.append([*cells, "" if trial in done.beaten else "front", "student of the study"])
    columns = ["variant", "accuracy", "drop", "nonzero", "MACs", "bytes", "zipped", "latency ms", "", " "]
    print_table(columns, rows, right=tuple(columns[1:8]))
    joined = ", ".join(one.name for one in _joined(done)) or "no variant"
    say(f"joint front of {', '.join(done.axes)} (validation): {joined} joined, of those within --max-drop")


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"--ratios got {text!r}; give shares between 0 and 1, e.g. 0.3,0.5,0.7.") from None
