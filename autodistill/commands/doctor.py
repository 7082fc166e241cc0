"""``doctor`` and ``repair``: is the machine ready, and a damaged study made whole again."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from autodistill.commands.console.output import command, print_json, print_table, say
from autodistill.commands.console.reading import JsonOption
from autodistill.core.errors import ResourceError
from autodistill.core.wording import counted

DOCTOR = """
  autodistill doctor
  autodistill doctor --dir runs --json
"""
REPAIR = """
  autodistill repair runs/digits
"""
MIN_FREE_GB = 2.0
_LISTED = 20  # most trials that a line of repair lists
_NEEDED = ("torch", "torchvision", "timm", "optuna", "pandas", "pydantic", "safetensors", "scikit-learn", "matplotlib")


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        what: Name of the check.
        state: ``ok``, ``note`` (worth knowing) or ``bad`` (prevents a search).
        found: What the check found.
        fix: What to do about it; empty if nothing.
    """

    what: str
    state: Literal["ok", "note", "bad"]
    found: str
    fix: str = ""


def doctor(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Folder in which studies are to be written.")
    ] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check versions, devices, disk, permissions and the built-in data. Exit code 5 if a problem must be fixed."""
    findings: list[Finding] = []
    for probe in (_python, _packages, _cores, _devices, _ray, _hugging_face, _data):
        findings += _guarded(probe)
    findings += _disk(directory)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(["", "what", "found", "fix"], [[f.state, f.what, f.found, f.fix] for f in findings])
    bad = [finding for finding in findings if finding.state == "bad"]
    if bad:
        raise ResourceError("this machine is not ready: " + "; ".join(f"{f.what}: {f.fix}" for f in bad))
    say("Ready. A first search: autodistill search --data digits --budget 5m")


def _guarded(probe: Callable[[], list[Finding]]) -> list[Finding]:
    """Run a check; report a check that fails as a finding, since a damaged installation shows here first."""
    try:
        return probe()
    except Exception as error:
        what = probe.__name__.strip("_")
        return [
            Finding(what, "bad", f"{type(error).__name__}: {error}", "reinstall: pip install -U autodistill-search")
        ]


def _python() -> list[Finding]:
    fine = sys.version_info >= (3, 10)
    fix = "" if fine else "use Python 3.10 or newer"
    return [Finding("python", "ok" if fine else "bad", platform.python_version(), fix)]


def _packages() -> list[Finding]:
    found, missing = [], []
    for name in _NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    out = [Finding("packages", "ok", ", ".join(found))] if found else []
    if missing:
        out.append(Finding("missing packages", "bad", ", ".join(missing), f"pip install {' '.join(missing)}"))
    return [*out, *_clash()]


def _clash() -> list[Finding]:
    """Find the unrelated package ``autodistill``, which installs the same module: the one installed last wins."""
    try:
        other = version("autodistill")
    except PackageNotFoundError:
        return []
    fix = "pip uninstall autodistill, then pip install --force-reinstall --no-deps autodistill-search"
    found = f"the unrelated package 'autodistill' {other} installs the same module"
    return [Finding("name clash", "bad", found, fix)]


def _cores() -> list[Finding]:
    import psutil

    from autodistill.engines.driving.slots import cpu_count

    memory = psutil.virtual_memory()
    found = f"{cpu_count()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GB memory free"
    tight = memory.available < 2**30
    return [Finding("machine", "note" if tight else "ok", found, "close other programs" if tight else "")]


def _devices() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return [Finding("devices", "ok", ", ".join(names))]
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        fix = "install a CUDA build of torch to use the GPU"
        return [Finding("devices", "note", "a GPU driver is installed, but torch is a CPU build", fix)]
    return [Finding("devices", "ok", "CPU only")]


def _ray() -> list[Finding]:
    try:
        return [Finding("ray", "ok", version("ray"))]
    except PackageNotFoundError:
        return [Finding("ray", "note", "not installed; --engine local works", "pip install 'ray[tune]' for clusters")]


def _hugging_face() -> list[Finding]:
    """Find the libraries of ``--data hf``, which are an extra."""
    try:
        return [Finding("hf", "ok", f"datasets {version('datasets')}, pyarrow {version('pyarrow')}")]
    except PackageNotFoundError as error:
        fix = "pip install 'autodistill-search[hf]' for --data hf (Parquet, Arrow, the hub)"
        return [Finding("hf", "note", f"{error.name} is not installed; other data sources work", fix)]


def _data() -> list[Finding]:
    from autodistill.core.records import DataSpec
    from autodistill.training.data.datasets import load_images

    with tempfile.TemporaryDirectory() as scratch:
        data = load_images(DataSpec("digits"), scratch)
    return [Finding("data digits", "ok", f"{len(data.train):,} training and {len(data.val):,} validation images")]


def _disk(directory: Path) -> list[Finding]:
    folder = directory.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    enough = free >= MIN_FREE_GB
    out = [
        Finding(
            "disk",
            "ok" if enough else "bad",
            f"{free:.1f} GB free in {folder}",
            "" if enough else f"free at least {MIN_FREE_GB:g} GB of disk space, or choose another --dir",
        )
    ]
    writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    fix = "" if writable else "choose another --dir, or change the permissions of the folder"
    return [*out, Finding("write permission", "ok" if writable else "bad", str(folder), fix)]


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
    say(
        "next:\n  "
        + command("front", str(study))
        + "\n  "
        + command("search", str(study / "study.yaml"), "--dir", str(study))
    )


def _listed(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"{counted(len(numbers), 'trial')} ({', '.join(map(str, numbers[:_LISTED]))}{more})"
