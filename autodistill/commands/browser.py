"""``dashboard`` and ``report``: a study in the browser, live or as one HTML file."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from autodistill.commands.console.output import command, print_json, say
from autodistill.commands.console.reading import DirOption, JsonOption, StudyArgument, folder_of, read_study
from autodistill.core.errors import UsageError
from autodistill.core.wording import one_line

DASHBOARD = """
  autodistill dashboard runs/digits
  autodistill dashboard runs/digits --port 8080 --write
"""


def dashboard(
    study: StudyArgument = None,
    directory: DirOption = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 chooses a free port.", min=0, max=65535)] = 0,
    write: Annotated[
        bool, typer.Option("--write", help="Allow comments and new candidates from the browser. Without it: read-only.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Show a study in the Optuna dashboard: on this machine only, protected by a token, read-only by default."""
    from autodistill.delivery.dashboard.server import dashboard as serve

    found = read_study(study, directory)
    with serve(found, port=port, write=write) as running:
        say(f"dashboard of {one_line(found.name)}: {running.url}")
        say("  It can be opened on this machine only, and only with this address. Press Ctrl-C to stop it.")
        if running.busy:
            say("  A search is running: trials are live; notes and figures are as they were last stored.")
        if write:
            say(f"  --write: comments are stored; add a candidate of your own at {running.enqueue_url}.")
        if browser:
            threading.Thread(target=webbrowser.open, args=(running.url,), daemon=True).start()
        try:
            running.server.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.")
            if found.directory is not None:
                say("next:\n  " + command("front", found.directory))


REPORT = """
  autodistill report runs/digits -o report.html
  autodistill report runs/digits --price-per-hour 2.50 --json
"""


def report(
    study: StudyArgument = None,
    directory: DirOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write. Default: DIR/report.html.")
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-hour", metavar="X", help="Price of one device-hour in any currency, to state costs.", min=0
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study as one HTML file that opens offline: summary, front, gains, costs, environment.

    Works while the study runs. After ``verify`` the verified figures are used.
    """
    from autodistill.delivery.report.write import write_report

    folder = folder_of(study, directory)
    path = output if output is not None else folder / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"a report is an HTML file, but {path} ends in {path.suffix or 'nothing'}; write e.g. -o report.html."
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(
            f"the folder {path.absolute().parent} of the report does not exist; create it, or choose another -o."
        )
    written = write_report(read_study(folder), path, price_per_hour=price_per_hour, folder=_portable(folder))
    say(f"wrote {written.path} ({written.bytes / 2**20:.1f} MB; open it in a browser, it needs no network)")
    if as_json:
        print_json({"path": str(written.path), "bytes": written.bytes, **written.facts})
    elif not written.facts["verified"] and written.facts["best"] is not None:
        part = "Figures of unverified students" if written.facts["unverified"] else "Its figures"
        say(f"{part} come from the search and are optimistic; verify the front.")
        say(f"next:\n  {command('verify', folder)}")
    else:
        say(f"next:\n  {command('front', folder)}")


def _portable(folder: Path) -> Path:
    """Return the folder as commands in the report name it, without the private path of this machine."""
    if not folder.is_absolute():
        return folder
    inside = folder.is_relative_to(Path.cwd())
    return folder.relative_to(Path.cwd()) if inside else Path(folder.name)
