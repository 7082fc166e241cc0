"""Entry point of the command line: the list of commands, and how errors and interrupts end the program.

The commands themselves are in ``commands/``. No heavy library is imported here.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from autodistill import __version__
from autodistill.commands import (
    browser,
    cache,
    compress,
    doctor,
    export,
    front,
    search,
    spaces,
    survey,
    teach,
    verify,
)
from autodistill.commands import init as setup
from autodistill.commands import trials as study
from autodistill.commands.console.output import say
from autodistill.core.errors import AutodistillError, ResourceError

HELP = """
Distil an image classifier (the teacher) into small networks (students) within a time budget.

The result is a Pareto front: the students with the best trade-offs of accuracy, size and latency.

\b
  autodistill search --data digits --budget 5m      search on the built-in images for five minutes
  autodistill front                                 show the students that the search found
  autodistill init                                  write a commented study file to edit
  autodistill doctor                                check that this machine is ready
"""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)  # the system refused to write a file


class _Program(TyperGroup):
    """Command group that turns errors into messages and exit codes; ``--debug``, at any place, keeps the traceback."""

    debug = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        self.debug = "--debug" in args
        parsed: list[str] = super().parse_args(ctx, [argument for argument in args if argument != "--debug"])
        return parsed

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                if not self.debug:
                    warnings.showwarning = _note
                result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # the reader closed the pipe, as in '| head -1'
            _close_stdout()
            raise SystemExit(0) from None
        except KeyboardInterrupt:
            say("Stopped.")
            raise SystemExit(130) from None
        except AutodistillError as error:
            if self.debug:
                raise
            say(f"error: {error}")
            raise SystemExit(error.exit_code) from None
        except ModuleNotFoundError as error:
            if self.debug or str(error.name).startswith("autodistill"):
                raise
            say(f"error: {error.name} is not installed. Run 'autodistill doctor': it lists what is missing.")
            raise SystemExit(ResourceError.exit_code) from None
        except Exception as error:
            if self.debug or type(error).__module__.split(".")[0] in ("typer", "click"):
                raise
            if isinstance(error, OSError) and error.errno in _REFUSED:
                say(f"error: {error}. Free disk space, grant permission, or choose another place.")
                raise SystemExit(ResourceError.exit_code) from None
            say(
                f"internal error: {type(error).__name__}: {error}\nRun the same command with --debug for the traceback."
            )
            raise SystemExit(1) from None


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print warnings of this package as notes; hide those of libraries, which are for developers (``--debug``)."""
    del lineno, file, line
    if issubclass(category, UserWarning) and Path(filename).is_relative_to(Path(__file__).parent):
        say(f"note: {message}")


def _open_streams() -> None:
    """Open standard streams that the caller has closed: else a study's database could become descriptor 1."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest descriptor that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the program's life


def _close_stdout() -> None:
    """Redirect stdout to the null device, so that Python's own flush at exit does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"autodistill {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere on the command line.")
    ] = False,
) -> None:
    """Declare the options of the program itself."""
    del version, debug


for _function, _name, _summary, _example in (
    (search.search, "search", "Search for students within a budget, or resume a search.", search.EXAMPLES),
    (teach.teach, "teach", "Train or fine-tune a teacher on your images.", teach.TEACH),
    (front.front, "front", "Show the Pareto front of a study, or compare studies.", front.FRONT),
    (study.trials, "trials", "List the trials of a study.", study.TRIALS),
    (study.show, "show", "Show one trial in full.", study.SHOW),
    (study.importance, "importance", "Rank the searched parameters by importance.", study.IMPORTANCE),
    (browser.dashboard, "dashboard", "Open a study in the browser.", browser.DASHBOARD),
    (verify.verify, "verify", "Retrain the best students and test them on the test split.", verify.EXAMPLES),
    (browser.report, "report", "Write a study as one HTML file that opens offline.", browser.REPORT),
    (export.export, "export", "Write a student as checked files for other programs.", export.EXAMPLES),
    (compress.compress, "compress", "Quantize and prune a student.", compress.EXAMPLES),
    (survey.survey, "survey", "Show what students cost before training.", survey.SURVEY),
    (doctor.repair, "repair", "Rebuild a damaged study from its copies and result files.", doctor.REPAIR),
    (setup.init, "init", "Write a commented study file.", setup.INIT),
    (doctor.doctor, "doctor", "Check that this machine is ready.", doctor.DOCTOR),
):
    _purpose = " ".join((_function.__doc__ or "").split("\n\n")[0].split())
    app.command(_name, short_help=_summary, help=f"{_purpose}\n\n\b{_example}")(_function)
app.add_typer(spaces.app, name="spaces")
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the ``autodistill`` command."""
    _open_streams()
    # A waiting OpenMP thread that spins takes the core from the thread it waits for: on a machine with other work,
    # two spinning threads trained 30 times slower than one. The variable is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # print '?' for a letter that the terminal cannot show
    app(prog_name="autodistill")
