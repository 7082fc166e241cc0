"""``repair``: rebuilds a damaged study from its copies and result files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autodistill.commands.console.output import command, print_json, say
from autodistill.commands.console.reading import JsonOption
from autodistill.core.wording import counted

REPAIR = """
  autodistill repair runs/digits
"""
_NAMED = 20  # most trials that a line lists


def repair(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the study.")],
    as_json: JsonOption = False,
) -> None:
    """Rebuild a damaged study from its database, the copies of it, and the result files of its trials.

    A healthy study is left as it is. The damaged database is kept under another name.
    """
    from autodistill.engines.setup.repair import repair as rebuild

    done = rebuild(study)
    if as_json:
        print_json(done.to_json())
    for name, what in done.sources.items():
        say(f"{name}: {what}")
    if not done.needed:
        say(f"nothing to repair: {counted(sum(done.trials.values()), 'trial')}")
        return
    if done.study_file:
        say("study.yaml: written again from the settings in the database")
    states = ", ".join(f"{count} {state}" for state, count in sorted(done.trials.items()))
    say(f"study.db: {counted(sum(done.trials.values()), 'trial')} now ({states})")
    if done.restored:
        say(f"put back: {_listed(done.restored)}")
    if done.lost:
        say(f"lost: {_listed(done.lost)}; nothing tells of them, and they are FAIL trials now")
    if done.kept not in ("", "none"):
        say(f"the damaged database is kept as {study / done.kept}")
    say("next:\n  " + command("front", str(study)) + "\n  " + command("search", "--dir", str(study)))


def _listed(numbers: object) -> str:
    known = list(numbers) if isinstance(numbers, (list, tuple)) else []
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f"{counted(len(known), 'trial')} ({', '.join(map(str, known[:_NAMED]))}{more})"
