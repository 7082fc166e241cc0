"""``dashboard`` and ``report``: a study in the browser, alive or as one file."""

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
        say(f"dashboard of {one_line(found.name)}: {running.url}")
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


REPORT = """
  autodistill report runs/digits -o report.html
  autodistill report runs/digits --price-per-hour 2.50 --json
"""


def report(
    study: StudyArgument = None,
    directory: DirOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The file; DIR/report.html without it.")
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option("--price-per-hour", metavar="X", help="Money per device-hour, in any currency.", min=0),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study into one HTML file that opens offline: the answers, the front, gains, cost, environment.

    Works while the study runs and after verify, whose figures it prefers.
    """
    from autodistill.delivery.report.write import write_report

    folder = folder_of(study, directory)
    path = output if output is not None else folder / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"a report is an HTML file, and {path} ends in {path.suffix or 'nothing'}; write e.g. -o report.html."
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(
            f"the folder {path.absolute().parent} of the report does not exist; make it, or choose another -o."
        )
    written = write_report(read_study(folder), path, price_per_hour=price_per_hour, folder=_portable(folder))
    say(f"wrote {written.path} ({written.bytes / 2**20:.1f} MB; open it in a browser, it needs no network)")
    if as_json:
        print_json({"path": str(written.path), "bytes": written.bytes, **written.facts})
    elif not written.facts["verified"] and written.facts["best"] is not None:
        part = "Figures of students that were not verified" if written.facts["unverified"] else "Its figures"
        say(f"{part} are from the search, and they flatter; have the front verified.")
        say(f"next:\n  {command('verify', folder)}")
    else:
        say(f"next:\n  {command('front', folder)}")


def _portable(folder: Path) -> Path:
    """The folder as commands name it in a page for others: without the folders of its owner."""
    if not folder.is_absolute():
        return folder
    inside = folder.is_relative_to(Path.cwd())
    return folder.relative_to(Path.cwd()) if inside else Path(folder.name)
