"""``survey``: shows what the students of a study or of a search space cost, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autodistill.commands.console.output import check_drawing, number, print_json, print_table, say
from autodistill.commands.console.reading import JsonOption, StudyArgument, folder_of
from autodistill.commands.spaces import SetOption, narrowed
from autodistill.core.errors import UsageError
from autodistill.core.records import LATENCY

if TYPE_CHECKING:
    from autodistill.core.records import LatencyTarget, SurveyRow

SURVEY = """
  autodistill survey runs/digits --png survey.png
  autodistill survey --space tiny --image-size 28 --pool 50
"""
_ENDINGS = (".png", ".svg", ".pdf")
_UNITS = {"params": "count", "macs": "count", "activations": "count", "bytes": "bytes", "onnx_bytes": "bytes"}


def survey(
    study: StudyArgument = None,
    space: Annotated[
        str | None, typer.Option(metavar="NAME", help="Survey this search space instead of a study.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=1,
            help="With --space: side of the square input, in pixels. Default: the smallest that the space states.",
        ),
    ] = None,
    channels: Annotated[
        int, typer.Option(min=1, help="With --space: channels of the images, 1 for grey, 3 for colour.")
    ] = 3,
    classes: Annotated[int, typer.Option(min=2, help="With --space: number of classes.")] = 10,
    pool: Annotated[int, typer.Option(min=1, help="With --space: number of students to measure.")] = 50,
    set_: SetOption = None,
    counted: Annotated[
        bool, typer.Option("--counted", help="With --space: only count parameters and MACs; do not measure latency.")
    ] = False,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw latency against parameters to a .png, .svg or .pdf file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what students cost (parameters, MACs, latency) before any of them is trained."""
    from autodistill.search.storage.survey_file import read_survey

    if png is not None:
        check_drawing(png, _ENDINGS)
    trust = ""
    if space is None:
        rows, target = read_survey(folder_of(study, None))
    elif study is not None:
        raise UsageError("a study and --space are given; give one of them.")
    else:
        rows, target, trust = _survey_space(space, set_, image_size, channels, classes, pool, timed=not counted)
    if as_json:
        print_json({"latency": asdict(target), "students": [asdict(row) for row in rows]})
    else:
        _show(rows, target)
        if trust:
            say(f"latency predicted for other students, leave-one-out error on these: {trust}")
    if png is not None:
        from autodistill.delivery.figures.survey_png import survey_png

        survey_png(rows, png)
        say(f"wrote {png}")


def _survey_space(
    name: str, texts: list[str] | None, image_size: int | None, channels: int, classes: int, pool: int, *, timed: bool
) -> tuple[list[SurveyRow], LatencyTarget, str]:
    """Survey a search space; return its rows, the latency target, and how well latency is predicted (or ``""``)."""
    from autodistill.core.records import LatencyTarget
    from autodistill.engines.timing.survey_pool import draw_pool
    from autodistill.search.space.builtin import load_space
    from autodistill.training.costs.cost_memory import CostMemory, cache_folder
    from autodistill.training.survey.predicted_costs import fitted
    from autodistill.training.survey.survey import survey as run

    mapping = load_space(name)
    side = image_size or int(mapping.get("image_sizes", [32])[0])
    target, memory = LatencyTarget(), CostMemory(cache_folder())
    found = run(
        draw_pool(narrowed(mapping, texts, name, side), pool, seed=0),
        image_size=side,
        channels=channels,
        num_classes=classes,
        metrics=["params", "macs", *([LATENCY] if timed else [])],
        target=target,
        memory=memory,
        progress=lambda done, total: say(f"{done} of {total} students"),
    )
    shape = {"image_size": side, "channels": channels}
    model = fitted(found, shape, classes, memory) if timed else None
    return found, target, str(model.leave_one_out()) if model is not None else ""


def _show(rows: Sequence[SurveyRow], target: LatencyTarget) -> None:
    from autodistill.core.wording import student_words

    known = sorted((row for row in rows if row.costs), key=lambda row: next(iter(row.costs.values())))
    metrics = list(dict.fromkeys(name for row in known for name in row.costs))
    cells = [
        [
            student_words(row.student),
            *(number(row.costs.get(name), _UNITS.get(name, "")) for name in metrics),
            "noisy" if row.noisy else "",
        ]
        for row in known
    ]
    print_table(["student", *metrics, ""], cells, right=metrics)
    for row in rows:
        if row.error:
            say(f"infeasible, will not be trained: {row.error}")
    if LATENCY in metrics:
        say(
            f"latency: {target.runtime} on {target.device}, batch {target.batch}, {target.precision}, "
            f"{target.threads} thread(s)"
        )
