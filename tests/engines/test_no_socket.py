from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
from places import TESTS

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from toys import evaluate_slowly, make_study
import autodistill as ad
if __name__ == "__main__":
    ad.search(make_study(Path(sys.argv[1])), evaluate=evaluate_slowly, budget="40trials", workers=2)
"""


def inet_sockets(process: psutil.Process) -> list[str]:
    """Every internet socket of a process and its descendants, listening or connected, by program."""
    out = []
    for one in [process, *process.children(recursive=True)]:
        try:
            out += [f"{one.name()} {c.laddr} {c.status}" for c in one.net_connections("inet")]
        except psutil.Error:
            continue
    return out


def test_a_local_search_with_two_workers_opens_no_internet_socket_in_any_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, str(script), str(tmp_path / "study"), str(TESTS)]
    search = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    seen: set[int] = set()
    sockets: list[str] = []
    try:
        process = psutil.Process(search.pid)
        deadline = time.monotonic() + 120
        while search.poll() is None and time.monotonic() < deadline:
            seen.update(child.pid for child in process.children(recursive=True))
            sockets += inet_sockets(process)
            time.sleep(0.05)
        assert search.poll() == 0
    finally:
        search.kill()
        search.communicate()
    assert len(seen) >= 2  # both workers were looked at
    assert sockets == []
