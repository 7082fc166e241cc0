"""``dashboard``: a study in the browser."""

from __future__ import annotations

import threading
import webbrowser
from typing import Annotated

import typer

from autodistill.commands.console.output import command, say
from autodistill.commands.console.reading import DirOption, StudyArgument, read_study

DASHBOARD = """
  autodistill dashboard runs/digits
  autodistill dashboard runs/digits --port 8080 --write
"""


def dashboard(
    study: StudyArgument = None,
    directory: DirOption = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)] = 0,
    write: Annotated[
        bool, typer.Option("--write", help="Let those with the address comment and add candidates.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
) -> None:
    """Open a study in the Optuna dashboard: on this machine only, behind a token, read-only unless asked."""
    from autodistill.delivery.dashboard.server import dashboard as serve

    found = read_study(study, directory)
    with serve(found, port=port, write=write) as running:
        say(f"dashboard of {found.name}: {running.url}")
        say("  Only this machine can reach it, and only with this address. Ctrl-C ends it.")
        if running.busy:
            say("  A search is running: notes and figures are as it last left them; trials are live.")
        if write:
            say(f"  --write: comments are kept; {running.enqueue_url} adds a candidate of your own.")
        if browser:
            threading.Thread(target=webbrowser.open, args=(running.url,), daemon=True).start()
        try:
            running.server.serve_forever()
        except KeyboardInterrupt:
            say("Ended.")
            if found.directory is not None:
                say("next:\n  " + command("front", found.directory))
