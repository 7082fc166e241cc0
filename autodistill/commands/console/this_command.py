"""The command line of this process, ready to paste."""

from __future__ import annotations

import sys

from autodistill.commands.console.output import command
from autodistill.core.database_url import without_password


def this_command(without: str = "", *, value: bool = False) -> str:
    """The command line of this process, ready to paste, without one of its flags (and the flag's value)."""
    kept, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        if argument == without:
            if value:
                next(arguments, None)
        elif not (value and argument.startswith(f"{without}=")):
            kept.append(without_password(argument))
    return command(*kept)
