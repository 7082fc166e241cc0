"""``spaces ls|show|cp|check``: lists, copies and checks search spaces."""

from __future__ import annotations

import itertools
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodistill.commands.console.output import command, number, print_json, print_table, say
from autodistill.commands.console.reading import RUNS, JsonOption
from autodistill.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autodistill.core.records import Params
    from autodistill.search.space.space import Space
    from autodistill.training.survey.space_check import FamilyRange

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Narrow the space, e.g. student.family=resnet,convnext. May be repeated."
    ),
]
METRICS = ("params", "macs")
_USUAL_SIDE = 32  # image size in pixels if the space states none
app = typer.Typer(no_args_is_help=True, help="List, show, copy and check search spaces.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a built-in space, or a YAML file.")]


@app.command("ls")
def ls(as_json: JsonOption = False) -> None:
    """List the built-in search spaces."""
    from autodistill.search.space.builtin import load_space, space_names

    spaces = {name: load_space(name) for name in space_names()}
    if as_json:
        print_json([{"name": name, "description": str(s.get("description", ""))} for name, s in spaces.items()])
        return
    print_table(
        ["space", "description"],
        [[name, " ".join(str(s.get("description", "")).split())] for name, s in spaces.items()],
    )


@app.command("show")
def show(name: Name, as_json: JsonOption = False) -> None:
    """Print the YAML file of a space, or its parsed content as JSON."""
    from autodistill.search.space.builtin import load_space, path_of

    if as_json:
        print_json(load_space(name))
    else:
        sys.stdout.write(path_of(name).read_text(encoding="utf-8"))


@app.command("cp")
def cp(
    name: Name,
    to: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File to write. Default: NAME.yaml in the current folder.")
    ] = None,
) -> None:
    """Copy a space so that you can edit it. An existing file is never overwritten."""
    from autodistill.search.space.builtin import path_of

    source = path_of(name)
    target = to or Path(source.name)
    text = source.read_text(encoding="utf-8")
    write_new(target, text)
    say(f"wrote {target}. Use it:\n  " + _use(text, target))


def _use(text: str, target: Path) -> str:
    """Return the command in the head comment of a space, with ``target`` as the space and a new study folder."""
    head = [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())]
    starts = [index for index, line in enumerate(head) if line.startswith("Command ")]
    if not starts:
        return command("search", "--data", "image_folder", "--data-root", "photos", "--space", target)
    words = shlex.split(" ".join(head[starts[0] :]))[2:]  # drop 'Command autodistill'
    for flag, value in (("--space", str(target)), ("--dir", str(_free(RUNS / target.stem)))):
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return command(*words)


def _free(folder: Path) -> Path:
    """Return ``folder``, or the folder with a number appended if it exists."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], names) if not path.exists())


@app.command("check")
def check(
    name: Name,
    image_size: Annotated[
        list[int] | None,
        typer.Option(
            "--image-size",
            metavar="PIXELS",
            help="Side of the square input, in pixels. Default: the smallest and largest that the space states.",
        ),
    ] = None,
    channels: Annotated[
        int, typer.Option("--channels", min=1, help="Channels of the images: 1 for grey, 3 for colour.")
    ] = 3,
    classes: Annotated[int, typer.Option("--classes", min=2, help="Number of classes.")] = 10,
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="Number of random students to build per family.")
    ] = 2,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a space: its grammar, all names, and its smallest and largest students, which are built and counted.

    All problems are reported together, with exit code 2.
    """
    from autodistill.engines.setup.check_names import space_problems
    from autodistill.engines.setup.initial_weights import with_weights
    from autodistill.search.space.builtin import load_space
    from autodistill.search.space.distributions import describe
    from autodistill.search.space.extremes import extreme_students
    from autodistill.search.space.fitting.to_study import within_images
    from autodistill.search.space.priors import words

    mapping = load_space(name)
    space = narrowed(mapping, set_, name)
    problems = space_problems(space)
    if problems:
        raise ConfigError(problems, f"search space {name}")
    space, _ = with_weights(space, {}, ask=False)
    sides = list(dict.fromkeys(image_size or mapping.get("image_sizes") or [_USUAL_SIDE]))
    pools = {side: extreme_students(within_images(space, side), samples=samples) for side in sides}
    ranges = _ranges(pools, channels, classes)
    size = space.size()
    if as_json:
        rows = [
            {
                "name": p.name,
                "values": describe(p.distribution),
                **({"prior": prior} if (prior := words(p)) else {}),
                **({"when": {name: list(allowed) for name, allowed in p.condition}} if p.condition else {}),
            }
            for p in space.parameters
        ]
        costs = [asdict(one) for one in ranges]
        print_json({"name": name, "candidates": size, "parameters": rows, "costs": costs})
    else:
        _show_parameters(space)
        _show_ranges(ranges)
    failed = [f"{one.family} at {one.image_size} px: {one.problems[0]}" for one in ranges if not one.built]
    if failed:
        raise ConfigError(failed, f"search space {name}")
    if not as_json:
        say(f"{name} is valid: {'infinitely many' if size is None else f'{size:,}'} candidates.")


def _show_parameters(space: Space) -> None:
    """Print the parameters; those with a condition that their names do not tell have it in a further column."""
    from autodistill.search.space.conditions import in_words
    from autodistill.search.space.distributions import describe
    from autodistill.search.space.priors import words

    lines = [[p.name, describe(p.distribution), words(p), in_words(p.condition, p.name)] for p in space.parameters]
    columns = ["parameter", "values", "expected", "only where"]
    shown = len(columns) if any(line[-1] for line in lines) else len(columns) - 1
    print_table(columns[:shown], [line[:shown] for line in lines])


def narrowed(mapping: Mapping[str, Any], texts: list[str] | None, name: str, side: int | None = None) -> Space:
    """Return a space with the restrictions of ``--set``, for images of ``side`` pixels if that is given.

    Raises:
        ConfigError: Some restrictions cannot be parsed or are not in the space; all are listed, with the nearest names.
    """
    from autodistill.commands.search import settings
    from autodistill.search.space.fitting.to_study import fitted

    given = settings(texts or [])
    others = [f"--set {key}: not part of a search space; names begin with student., distillation. or train."
              for key in given if key != "set"]  # fmt: skip
    if others:
        raise ConfigError(others, "the flags")
    chosen = given.get("set", {})
    space = fitted(mapping, name, choices=chosen, image_size=side)
    return space.restrict(chosen) if chosen else space


def _ranges(pools: Mapping[int, dict[str, list[Params]]], channels: int, classes: int) -> list[FamilyRange]:
    from autodistill.training.survey.space_check import family_range

    return [
        family_range(family, pool, image_size=side, channels=channels, num_classes=classes)
        for side, families in pools.items()
        for family, pool in families.items()
    ]


def _show_ranges(ranges: list[FamilyRange]) -> None:
    rows = []
    for one in ranges:
        costs = [
            f"{number(low, 'count')} to {number(high, 'count')}"
            for low, high in (one.costs.get(m, (0.0, 0.0)) for m in METRICS)
        ]
        built = f"{one.built} of {one.built + len(one.problems)}"
        rows.append([one.family, f"{one.image_size} px", built, *(costs if one.built else ["none", "none"])])
    print_table(["family", "images", "built", *METRICS], rows)
    for problem in (problem for one in ranges for problem in one.problems):
        say(f"infeasible, will not be trained: {problem}")


def write_new(target: Path, text: str) -> None:
    """Write a new file.

    Raises:
        UsageError: The file exists, or its folder cannot be written.
    """
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{target} already exists; choose another name, or remove it first.") from None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}. Choose another place.") from error
