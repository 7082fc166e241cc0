"""Benchmark of a search beside a process that measures latencies all the time.

    python benchmarks/beside_a_survey.py --json out.json [--quick]

The second process surveys new students of the space ``tiny`` until the search ends. The search uses digits and trains
its own teacher. It must end within 30 s of its deadline, and its progress must name the process that it waited for. The
script also prints the number of completed trials.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LATE_SECONDS = 30.0
SURVEYOR = """
from autodistill.engines.timing.survey_pool import draw_pool
from autodistill.core.records import LatencyTarget
from autodistill.search.space.space import Space
from autodistill.search.space.builtin import load_space
from autodistill.training.survey.survey import survey
space, seed = Space.parse(load_space("tiny"), "tiny"), 0
while True:
    survey(draw_pool(space, 40, seed=seed), image_size=28, channels=1, num_classes=10, metrics=["params", "latency_ms"],
           target=LatencyTarget())
    seed += 1
    print(seed, flush=True)
"""


def run(seconds: int, workers: int, folder: Path) -> dict[str, object]:
    """Search for ``seconds`` beside a surveying process; both use a separate cache and measurement lock."""
    env = {**os.environ, "AUTODISTILL_CACHE": str(folder / "cache"), "AUTODISTILL_LEASE": str(folder / "lease")}
    search = [sys.executable, "-m", "autodistill", "search", "--data", "digits", "--dir", str(folder / "study")]
    search += ["--budget", f"{seconds}s", "--workers", str(workers)]
    beside = subprocess.Popen([sys.executable, "-c", SURVEYOR], stdout=subprocess.DEVNULL, env=env)
    try:
        begun = time.monotonic()
        done = subprocess.run(search, capture_output=True, text=True, env=env, check=False)
        took = time.monotonic() - begun
    finally:
        beside.kill()
        beside.wait()
    output = done.stdout + done.stderr
    waited = re.findall(r"\(((?:\d+h )?(?:\d+m )?\d+s) of work waited", output)
    return {
        "budget_seconds": seconds,
        "workers": workers,
        "exit_code": done.returncode,
        "seconds": took,
        "named_the_process": f"waiting for a latency measurement of process {beside.pid}" in output,
        "waited": waited[-1] if waited else "",
        "complete": max((int(n) for n in re.findall(r"(\d+) COMPLETE", output)), default=0),
        "in_time": took <= seconds + LATE_SECONDS,
        "last_lines": output.splitlines()[-8:],
    }


def main() -> None:
    """Print the figures; exit with 1 if the search was late or did not name the other process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one minute instead of five")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(60 if arguments.quick else 300, 2, Path(folder))
    for name, value in found.items():
        if name != "last_lines":
            print(f"{name:<20}{value}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if found["in_time"] and found["named_the_process"] else 1)


if __name__ == "__main__":
    main()
