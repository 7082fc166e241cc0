"""Soak test: a real small search whose driver, workers and process group are killed again and again.

The search trains students of scikit-learn's digits on two workers. At seeded random moments one of its processes, or
all of them, are ended (SIGKILL, or SIGTERM to the group); then the same command resumes it. Counted are trials that
were lost, doubled or changed after they had ended, processes that outlived their driver, and files that nobody
removes::

    python benchmarks/soak.py --json FILE [--minutes 30] [--seed 0] [--quick]

All five have to be 0. Printed beside them: the work that was repeated, and the time from a start to the first result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARK = "AUTODISTILL_SOAK"
STUDY = """
data: digits
teacher: {source: auto, options: {epochs: 2}, accept_weak: true}
space:
  student: {family: resnet, width: {low: 4, high: 16}, depth: [1, 2]}
  distillation: {loss: [none, kd], temperature: {low: 1, high: 8}, alpha: {low: 0.2, high: 0.9}}
  train: {lr: {low: 1.0e-3, high: 3.0e-2, log: true}}
objectives: [accuracy, params]
epochs: 9
rungs: {levels: [1, 3, 9]}
survey: "off"
"""
KINDS = ("driver", "driver", "worker", "worker", "group", "terminate")
"""What is ended: the driver, one worker or the whole group by SIGKILL, or the group by SIGTERM."""


@dataclass
class Counts:
    """What a soak test has seen."""

    kills: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    orphans: int = 0
    leftovers: int = 0
    failed: int = 0
    details: list[str] = field(default_factory=list)
    repeated_seconds: list[float] = field(default_factory=list)
    resume_seconds: list[float] = field(default_factory=list)


class Soak:
    """One soak test.

    Args:
        scratch: an empty folder for the study, its cache and its temporary files.
        seed: of the kills.
    """

    def __init__(self, scratch: Path, seed: int) -> None:
        self.study, self.temporary = scratch / "study", scratch / "tmp"
        self.temporary.mkdir()
        self.file = scratch / "study.yaml"
        self.file.write_text(STUDY)
        self.counts, self._rng = Counts(), random.Random(seed)
        self._ended: dict[int, Any] = {}
        self._shared = set(_shared_memory())
        self._env = {
            **os.environ,
            MARK: str(os.getpid()),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.temporary),
            "AUTODISTILL_CACHE": str(scratch / "cache"),
            "AUTODISTILL_LEASE": str(scratch / "lease"),
        }

    def run(self, seconds: float, *, between: tuple[float, float]) -> Counts:
        """Search and kill for so many seconds, finish the open trials, and count."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._one_life("100000trials", self._rng.uniform(*between), self._rng.choice(KINDS))
        spent = max((row["user_attrs"].get("spent", {}).get("trials", 0) for row in self._ended.values()), default=0)
        self._one_life(f"{int(spent) + 4}trials", None, "")
        self._count_leftovers()
        return self.counts

    def _one_life(self, budget: str, patience: float | None, kind: str) -> None:
        """Start the search; end it by ``kind`` so many seconds after its first result, or let it finish."""
        command = [sys.executable, "-m", "autodistill", "search", str(self.file), "--dir", str(self.study)]
        began = time.monotonic()
        with (self.study.parent / "search.log").open("ab") as log:
            driver = subprocess.Popen(
                [*command, "--budget", budget, "--workers", "2"],
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        before = self._progress()
        while self._progress() == before and driver.poll() is None and time.monotonic() - began < 300:
            time.sleep(0.2)
        self.counts.resume_seconds.append(time.monotonic() - began)
        if patience is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(patience)
            self._end(driver, kind)
        code = driver.wait(600)
        self._check(code, kind)

    def _end(self, driver: subprocess.Popen[bytes], kind: str) -> None:
        self.counts.kills[kind] = self.counts.kills.get(kind, 0) + 1
        repeated = self._unsaved()
        if kind == "worker":
            workers = [pid for pid in _children(driver.pid) if b"spawn_main" in _read(f"/proc/{pid}/cmdline")]
            if workers:
                os.kill(self._rng.choice(workers), signal.SIGKILL)
                self.counts.repeated_seconds.append(repeated / 2)
            time.sleep(self._rng.uniform(1.0, 4.0))  # the search goes on, and is then ended as a whole
            repeated = self._unsaved()
        number = signal.SIGTERM if kind == "terminate" else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            if kind in ("driver", "worker"):
                os.kill(driver.pid, number)
            else:
                os.killpg(driver.pid, number)
        if kind != "terminate":  # which saves
            self.counts.repeated_seconds.append(repeated)

    # -- what is there -------------------------------------------------------------------------------------------------

    def _trials(self) -> dict[int, Any]:
        from autodistill.search.storage.salvage import salvage

        return salvage(self.study / "study.db").trials

    def _progress(self) -> int:
        """Number of results in the study: reports at rungs."""
        return sum(key.startswith("rung:") for row in self._trials().values() for key in row["user_attrs"])

    def _unsaved(self) -> float:
        """Seconds since the last checkpoint or start of each open trial, summed: work that a kill repeats."""
        total = 0.0
        for number, row in self._trials().items():
            if row["state"] != "RUNNING" or row["user_attrs"].get("state") == "PARTIAL" or not row["started"]:
                continue
            saved = [path.stat().st_mtime for path in self.study.glob(f"checkpoints/trial-{number:05d}/*")]
            total += min(max(0.0, time.time() - max(saved)), 120.0) if saved else 1.0
        return total

    def _check(self, code: int, kind: str) -> None:
        """Compare the trials that have ended with what they were, and look for living processes."""
        deadline = time.monotonic() + 10
        while (alive := _marked(self._env[MARK])) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.counts.orphans += len(alive)
        for pid in alive:
            self.counts.details.append(f"orphan {pid}: {_read(f'/proc/{pid}/cmdline')[:200]!r}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        expected = {"": 0, "terminate": 143}.get(kind, -signal.SIGKILL)
        if code != expected:
            self.counts.failed += 1
            self.counts.details.append(f"exit code {code} after {kind or 'the end'}, not {expected}")
        now = self._trials()
        for number, row in self._ended.items():
            if number not in now:
                self.counts.lost += 1
            elif any(now[number][key] != row[key] for key in ("state", "values", "params", "user_attrs")):
                self.counts.changed += 1
                self.counts.details.append(f"trial {number} changed")
        self._ended = {n: row for n, row in now.items() if row["state"] in ("COMPLETE", "PRUNED", "FAIL")}
        keys = [row["user_attrs"]["candidate"]["key"] for row in self._ended.values() if row["state"] == "COMPLETE"]
        self.counts.doubled = len(keys) - len(set(keys)) + (len(now) - 1 - max(now, default=-1) if now else 0)

    def _count_leftovers(self) -> None:
        """Count what killed processes left: in the temporary folder, in shared memory, and beside the study's files."""
        left = [str(path) for path in self.temporary.iterdir() if not path.name.startswith("torchinductor")]
        left += [str(path) for path in self.study.rglob(".*")]
        mapped = _mapped()
        left += [name for name in _shared_memory() if name not in self._shared and name not in mapped]
        self.counts.leftovers = len(left)
        self.counts.details += [f"left over: {path}" for path in left]


def _shared_memory() -> list[str]:
    folder = Path("/dev/shm")
    return [str(path) for path in folder.iterdir() if path.stat().st_uid == os.getuid()] if folder.is_dir() else []


def _mapped() -> set[str]:
    """Files of shared memory that some living process uses: other programs run on this machine too."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        text = _read(f"/proc/{pid}/maps").decode(errors="replace")
        found |= {line.split()[-1] for line in text.splitlines() if "/dev/shm/" in line}
    return found


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _children(parent: int) -> list[int]:
    pids = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
    return [pid for pid in pids if _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1:2] == [b"%d" % parent]]


def _marked(mark: str) -> list[int]:
    """Living processes of this soak test, except itself."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        dead = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] == [b"Z"]
        if pid != os.getpid() and not dead and wanted in _read(f"/proc/{pid}/environ").split(b"\0"):
            found.append(pid)
    return found


def report(counts: Counts, trials: int) -> dict[str, Any]:
    """Print the figures and return them."""
    row: dict[str, Any] = {"kills": counts.kills, "trials": trials}
    row |= {name: getattr(counts, name) for name in ("lost", "doubled", "changed", "orphans", "leftovers", "failed")}
    repeated, resumed = counts.repeated_seconds, counts.resume_seconds
    row["repeated_s_median"] = statistics.median(repeated) if repeated else 0.0
    row["repeated_s_most"] = max(repeated, default=0.0)
    row["resume_s_median"] = statistics.median(resumed)
    row["resume_s_most"] = max(resumed)
    print(", ".join(f"{name} {value}" for name, value in row.items() if not isinstance(value, float)))
    print(", ".join(f"{name} {value:.1f}" for name, value in row.items() if isinstance(value, float)))
    for line in counts.details[:20]:
        print(f"  {line}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="half a minute of kills: checks only the script")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    scratch = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        soak = Soak(scratch, options.seed)
        minutes = 0.4 if options.quick else options.minutes
        counts = soak.run(60 * minutes, between=(0.0, 2.0) if options.quick else (0.0, 12.0))
        row = report(counts, len(soak._trials()))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(row, indent=2) + "\n")
    raise SystemExit(any(row[name] for name in ("lost", "doubled", "changed", "orphans", "leftovers", "failed")))


if __name__ == "__main__":
    main()
