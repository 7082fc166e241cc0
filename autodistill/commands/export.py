"""``autodistill export``: writes students as files for other programs and checks each file on real images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from autodistill.core.errors import AutodistillError, UsageError
from autodistill.core.wording import one_line, student_words, why_empty

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autodistill.core.records import TrialRecord
    from autodistill.delivery.export.exported import Exported
    from autodistill.search.results.front import Front
    from autodistill.search.study.study import Study

EXAMPLES = """
  autodistill export runs/digits --knee -o student
  autodistill export runs/digits --trial 12 -o student --formats safetensors,onnx,onnx-int8 --max-drop 0.005
  autodistill export runs/digits --pick 'latency_ms <= 1' -o student --formats all
  autodistill export runs/digits --front -o students        one folder per student
"""


def export(
    study: StudyArgument = None,
    directory: DirOption = None,
    trial: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Export the student of this trial, in fp32.")
    ] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR", help="Export the best student of the front that satisfies e.g. 'latency_ms <= 5'."
        ),
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Export the best compromise: the student nearest to the ideal point.")
    ] = False,
    front: Annotated[
        bool,
        typer.Option(
            "--front",
            help="Export every student of the front to OUT/trial-N, except those that fell off when verified.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="OUT", help="Folder to write to.")] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="safetensors, onnx, onnx-int8, onnx-fp16, torchscript, torch-export; or all. Default: "
            "safetensors,onnx; for an int8 student of the front onnx-int8, the file that was measured.",
        ),
    ] = None,
    weights: WeightsOption = "auto",
    max_drop: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0.0,
            max=1.0,
            help="Refuse int8 and fp16 files that lose more validation accuracy than this; 0.01 is 1 point.",
        ),
    ] = 0.01,
    latency: FileLatencyOption = True,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="NAME/REPO", help="Upload the folder to this repository of the Hugging Face Hub."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the uploaded repository private.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Export students as files for timm, ONNX Runtime and torch; each file is checked on validation images.

    The folder also gets the preprocessing, class names, provenance, a model card, and predict.py, which runs without
    autodistill.
    """
    from autodistill.delivery.export.variant import formats_for

    if out is None:
        raise UsageError("no folder to write to is given; add -o OUT, e.g. -o student.")
    if push_to_hub is not None and front:
        raise UsageError(
            "--push-to-hub uploads one student, but --front exports several; use --trial, --pick or --knee."
        )
    found = read_study(study, directory)
    chosen = chosen_trials(found, trial, pick, knee, front=front)
    names = [formats_for(record, formats) for record in chosen]
    if push_to_hub is not None and "safetensors" not in names[0]:
        number = chosen[0].number
        other = "" if chosen[0].variant == "fp32" else f" int8 students cannot be saved in it; use --trial {number}."
        raise UsageError(f"--push-to-hub needs the format safetensors.{other}")
    options = {"weights": weights, "max_drop": max_drop, "latency": latency}
    done = _export_all(found, chosen, out, names, options, apart=front)
    if as_json:
        print_json([one.to_json() for one in done])
    else:
        print_exported(done)
    address = _push(done[0], push_to_hub, private) if push_to_hub is not None else ""
    refused = [f"trial {one.trial}: {line}" for one in done for line in one.refused.splitlines()]
    if refused:
        raise AutodistillError("\n".join(["not everything was exported:", *(f"  {line}" for line in refused)]))
    _next(done, address)


def chosen_trials(study: Study, trial: int | None, pick: str | None, knee: bool, *, front: bool) -> list[TrialRecord]:
    """Return the trials that the options select.

    Raises:
        UsageError: No option or several are given, or the trial does not exist.
    """
    if sum([trial is not None, pick is not None, knee, front]) != 1:
        raise UsageError("choose the students with exactly one of --trial N, --pick EXPR, --knee and --front.")
    result = study.front()
    if trial is not None:
        record = next((one for one in study.trials() if one.number == trial), None)
        if record is None or not record.values:
            ready = ", ".join(str(one.number) for one in result.trials) or "none yet"
            state = f"is {record.state.value} and has no finished student" if record is not None else "does not exist"
            raise UsageError(f"trial {trial} {state}; students of the front: {ready}.")
        return [record]
    if not result.trials:
        reason = why_empty(study.trials(), study.constraints)
        raise UsageError(f"the front is empty: {reason}; run the search again with a larger budget.")
    if front:
        return _whole(result, study)
    chosen = result.pick(pick) if pick is not None else result.knee() or result.members[0]
    if chosen.picked:
        say(chosen.picked)
    return [chosen]


def _whole(front: Front, study: Study) -> list[TrialRecord]:
    """Return all students of the (verified) front; print on stderr which are left out, and how to include them."""
    from autodistill.search.results.picking import UNVERIFIED, whole

    chosen = whole(front)
    if chosen.said:
        say(chosen.said)
    left = [trial for members in chosen.left_out.values() for trial in members]
    if left:
        form = "; in its int8 form: --pick 'number == N'" if any(t.variant == "int8" for t in left) else ""
        say(f"  to export one of them anyway: --trial N{form}")  # --trial is always fp32
    if (chosen.unverified or UNVERIFIED in chosen.left_out) and study.directory is not None:
        say("  to verify them too: " + command("verify", study.directory))
    return list(chosen.members)


def _export_all(
    study: Study,
    chosen: Sequence[TrialRecord],
    out: Path,
    names: Sequence[Sequence[str]],
    options: Mapping[str, Any],
    *,
    apart: bool,
) -> list[Exported]:
    from autodistill.delivery.export import write as exporting
    from autodistill.delivery.export.variant import folder_name
    from autodistill.delivery.export.weights import source_of
    from autodistill.training.data import datasets

    assert study.directory is not None
    if study.config is None or study.config.data is None:
        raise UsageError(f"study {one_line(study.name)} has no images; only students of image studies can be exported.")
    targets = [out / folder_name(one) if apart else out for one in chosen]
    for record, target in zip(chosen, targets, strict=True):  # report errors before any work
        exporting.refuse_foreign(target)
        source_of(study.directory, record, options["weights"])
    data = datasets.load_images(study.config.data)
    done = []
    for record, target, wanted in zip(chosen, targets, names, strict=True):
        say(f"trial {record.called}: {student_words(record.student)}")
        done.append(
            exporting.export(
                study.directory, record, target, formats=wanted, data=data,
                progress=lambda text: say(f"  {text}"), **options,
            )
        )  # fmt: skip
        say(f"  {done[-1].source.words}")
    _attach(study, done)
    return done


def _attach(study: Study, done: Sequence[Exported]) -> None:
    """Add the files to the page of their trial in the dashboard."""
    from autodistill.core.errors import ResourceError, StudyInUseError
    from autodistill.delivery.dashboard.notes import attach
    from autodistill.search.storage.study_folder import folder_lock

    assert study.directory is not None
    try:
        with folder_lock(study.directory):
            for number in dict.fromkeys(one.trial for one in done):
                attach(study, number, offered([one for one in done if one.trial == number]))
    except StudyInUseError:
        say("a search is running on this study, so the dashboard does not list these files; export again afterwards")
    except ResourceError:
        say("the study cannot be written, so the dashboard does not list these files")


def offered(forms: Sequence[Exported]) -> list[Path]:
    """List the files of one trial: all of its fp32 form, then those of other forms under names that are not taken."""
    files: dict[str, Path] = {}
    for one in sorted(forms, key=lambda form: form.variant != "fp32"):
        for path in sorted(one.folder.iterdir()):
            if path.name != "MANIFEST.json":
                files.setdefault(path.name, path)
    return list(files.values())


def print_exported(done: Sequence[Exported]) -> None:
    """Print one line per file."""
    rows = []
    for one in done:
        for file in one.checked:
            fine = file.state == "ok"
            rows.append(
                [
                    str(one.trial),
                    file.format,
                    file.file if fine else file.state.upper(),
                    number(file.bytes, "bytes") if file.bytes else "-",
                    number(file.accuracy, "fraction"),
                    "-" if file.drop is None else f"{file.drop:+.4f}" if abs(file.drop) > 5e-5 else "0",
                    "-" if file.max_diff is None else f"{file.max_diff:.1e}" if file.max_diff else "0",
                    number(file.latency_ms),
                    file.remark,
                ]
            )
    columns = ["trial", "format", "file", "bytes", "accuracy", "drop", "max diff", "latency ms", ""]
    print_table(columns, rows, right=("trial", "bytes", "accuracy", "drop", "max diff", "latency ms"))
    say(
        f"accuracy on {done[0].images:,} validation images; drop and max diff relative to the PyTorch network; "
        "latency on this machine's CPU"
    )


def _push(done: Exported, repository: str, private: bool) -> str:
    from autodistill.delivery.export.hub_push import plan_upload, push

    upload = plan_upload(done.folder, repository, private=private)
    say(f"uploading {len(upload.files)} files to {upload.repository}")
    return push(upload)


def _next(done: Sequence[Exported], address: str) -> None:
    for one in done:
        say(f"wrote {one.folder}")
    if address:
        say(f"uploaded to {address}")
    first = done[0].folder
    if (first / "predict.py").is_file():
        say(f"next:\n  python {shlex.quote(str(first / 'predict.py'))} IMAGE.png")
    elif (first / "config.json").is_file():
        say(f"next:\n  autodistill.load({str(first)!r}) in Python returns the network")
