"""The command line: which commands there are, and how errors and interrupts leave the program.

Arguments and printing only; the commands are in ``commands/``. Nothing heavy is imported here.
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
From a teacher, images and a budget to a Pareto front of students.

\b
  autodistill search --data digits --budget 5m      search with the embedded images, here and now
  autodistill front                                 the students it found
  autodistill init                                  write a commented study file to edit
  autodistill doctor                                is this machine ready?
"""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)  # of a file, by the system


class _Program(TyperGroup):
    """Turns errors into messages and exit codes; ``--debug`` may stand anywhere and keeps the traceback."""

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
        except BrokenPipeError:  # the reader of a pipe has seen enough, as in '| head -1'
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
            say(f"error: {error.name} is not installed. 'autodistill doctor' says what is missing and how to get it.")
            raise SystemExit(ResourceError.exit_code) from None
        except Exception as error:
            if self.debug or type(error).__module__.split(".")[0] in ("typer", "click"):
                raise
            if isinstance(error, OSError) and error.errno in _REFUSED:
                say(f"error: {error}. Give it room or permission, or choose another place.")
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
    """Show our own warnings as plain notes; those of libraries are for developers (``--debug``)."""
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
    """Let Python's own flush at exit find nothing to complain about."""
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
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Hold the options of the program itself."""
    del version, debug


for _function, _name, _summary, _example in (
    (search.search, "search", "Search students within a budget; the same command again resumes.", search.EXAMPLES),
    (teach.teach, "teach", "Make a teacher where there is none.", teach.TEACH),
    (front.front, "front", "Show the Pareto front, or several side by side.", front.FRONT),
    (study.trials, "trials", "List the trials.", study.TRIALS),
    (study.show, "show", "Show one trial.", study.SHOW),
    (study.importance, "importance", "Rank the parameters by importance.", study.IMPORTANCE),
    (browser.dashboard, "dashboard", "Open a study in the browser.", browser.DASHBOARD),
    (verify.verify, "verify", "Train the winners again; judge them on the test split.", verify.EXAMPLES),
    (browser.report, "report", "Write one HTML file that opens offline.", browser.REPORT),
    (export.export, "export", "Write a student as checked files for other programs.", export.EXAMPLES),
    (compress.compress, "compress", "Quantize and prune a student; see what joins the front.", compress.EXAMPLES),
    (survey.survey, "survey", "Show what students cost before training.", survey.SURVEY),
    (setup.init, "init", "Write a commented study file.", setup.INIT),
    (doctor.doctor, "doctor", "Check that this machine is ready.", doctor.DOCTOR),
):
    _said = " ".join((_function.__doc__ or "").split("\n\n")[0].split())
    app.command(_name, short_help=_summary, help=f"{_said}\n\n\b{_example}")(_function)
app.add_typer(spaces.app, name="spaces")
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Entry point of the ``autodistill`` command."""
    _open_streams()
    # A waiting OpenMP thread that spins takes the core from the thread it waits for: on a machine that does anything
    # else besides, two spinning threads trained 30 times slower than one. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # rather a ? for a letter that the terminal has not than no output
    app(prog_name="autodistill")
