"""``spaces ls|show|cp|check``: the built-in search spaces, and the check of your own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autodistill.commands.output import command, print_json, print_table, say
from autodistill.commands.reading import JsonOption
from autodistill.errors import ConfigError, UsageError

app = typer.Typer(no_args_is_help=True, help="List, show, copy and check search spaces.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A built-in space, or a YAML file.")]


@app.command("ls")
def ls(as_json: JsonOption = False) -> None:
    """List the built-in search spaces."""
    from autodistill.search.spaces import load, names

    spaces = {name: load(name) for name in names()}
    if as_json:
        print_json([{"name": name, "description": str(s.get("description", ""))} for name, s in spaces.items()])
        return
    print_table(
        ["space", "description"],
        [[name, " ".join(str(s.get("description", "")).split())] for name, s in spaces.items()],
    )


@app.command("show")
def show(name: Name, as_json: JsonOption = False) -> None:
    """Print a space: its file, or as JSON what was read from it."""
    from autodistill.search.spaces import load, path_of

    if as_json:
        print_json(load(name))
    else:
        sys.stdout.write(path_of(name).read_text(encoding="utf-8"))


@app.command("cp")
def cp(
    name: Name,
    to: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where to; NAME.yaml here by default.")] = None,
) -> None:
    """Copy a space to edit it; an existing file is never overwritten."""
    from autodistill.search.spaces import path_of

    source = path_of(name)
    target = to or Path(source.name)
    write_new(target, source.read_text(encoding="utf-8"))
    say(f"wrote {target}. Use it: " + command("search", "--data", "digits", "--space", target))


@app.command("check")
def check(name: Name, as_json: JsonOption = False) -> None:
    """Check a space: its grammar, and every family, loss and setting in it. Exit code 2 with all problems."""
    from autodistill.config_names import space_problems
    from autodistill.search.space import Space, describe
    from autodistill.search.spaces import load

    space = Space.parse(load(name), name)
    problems = space_problems(space)
    if problems:
        raise ConfigError(problems, f"search space {name}")
    size = space.size()
    if as_json:
        rows = [{"name": p.name, "values": describe(p.distribution)} for p in space.parameters]
        print_json({"name": name, "candidates": size, "parameters": rows})
        return
    print_table(["parameter", "values"], [[p.name, describe(p.distribution)] for p in space.parameters])
    say(f"{name} is fine: {'infinitely many' if size is None else f'{size:,}'} candidates.")


def write_new(target: Path, text: str) -> None:
    """Write a file that must not exist yet.

    Raises:
        UsageError: it exists, or its folder cannot be written.
    """
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{target} exists already; give another name, or remove it first.") from None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}. Choose another place.") from error
