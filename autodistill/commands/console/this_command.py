"""Command line of this process, to be shown in messages."""

from __future__ import annotations

import sys

from autodistill.commands.console.output import command
from autodistill.core.database_url import without_password


def this_command(without: str = "", *, value: bool = False) -> str:
    """Return the command line of this process, quoted for a shell, without passwords.

    Args:
        without: Flag to leave out.
        value: Whether the value of this flag is left out too.
    """
    kept, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        if argument == without:
            if value:
                next(arguments, None)
        elif not (value and argument.startswith(f"{without}=")):
            kept.append(without_password(argument))
    return command(*kept)
