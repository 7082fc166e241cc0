"""Nodes and drivers that die. Apart from the other tests with Ray: this process may hold no other Ray meanwhile.

A second Ray has a token of its own, and a process that is connected to the first would lose it, and be ended by Ray.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from places import TESTS
from test_ray_engine import Logged, check_values
from toys import make_study

import autodistill as ad
from autodistill.core.records import State
from autodistill.engines.monitor.watch import Snapshot
from autodistill.engines.ray import cluster as ray_cluster


class Remover:
    """Takes a node out of the cluster, without a word, once one of its trials has reached a rung.

    Not the node that the driver is attached to: which one that is of several on one machine, Ray decides.
    """

    def __init__(self, cluster: Any, work: Logged) -> None:
        self.cluster, self.work = cluster, work
        self.seen = 0

    def __call__(self, snapshot: Snapshot) -> None:
        import ray

        pids = {int(pid) for *_, pid in self.work.done()}
        if not pids or self.seen:
            return
        mine = ray.get_runtime_context().get_node_id()
        for node in [node for node in self.cluster.worker_nodes if node.node_id != mine]:
            if not self.seen and pids & {p.pid for p in _of_node(node)}:
                self.seen = len(self.work.done())
                self.cluster.remove_node(node, allow_graceful=False)


def _of_node(node: Any) -> list[psutil.Process]:
    try:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return raylet.children(recursive=True)
    except (psutil.Error, KeyError, IndexError):
        return []


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_goes_away_loses_no_trial_and_doubles_none(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    work = Logged(tmp_path / "log", 0.5)
    study = make_study(tmp_path / "study")
    with (
        ray_cluster.private_switches() as ray,
        ray_cluster._loopback(ray),
        ray_cluster._private_folder() as folder,
        ray_cluster.environment({"RAY_TMPDIR": str(folder)}),
    ):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            remover = Remover(cluster, work)
            ad.search(
                study,
                evaluate=work,
                budget="16trials",
                workers=3,
                engine="ray",
                address=cluster.address,
                progress=remover,
            )
        finally:
            cluster.shutdown()
    assert remover.seen
    trials = study.trials()
    assert [t.message for t in trials if t.state not in (State.COMPLETE, State.PRUNED)] == []
    assert sum(t.reason not in ("DUPLICATE", "INFEASIBLE") for t in trials) == 16
    check_values(study)
    repeated = [row for row, times in Counter(row[:2] for row in work.done()).items() if times > 1]
    assert len(repeated) <= 1  # at most the rung whose report died with the node


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_whose_driver_is_killed_goes_on_under_local(tmp_path: Path) -> None:
    work = Logged(tmp_path / "log", 0.3)
    code = (
        "from pathlib import Path\nimport autodistill as ad\nfrom test_ray_engine import Logged, make_study\n"
        "if __name__ == '__main__':\n"
        f"    study = make_study(Path({str(tmp_path / 'study')!r}))\n"
        f"    work = Logged(Path({str(work.path)!r}), 0.3)\n"
        "    ad.search(study, evaluate=work, budget='500trials', workers=2, engine='ray')\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    paths = os.pathsep.join([str(TESTS), str(Path(__file__).parent), str(Path(ad.__file__).parents[1])])
    with (
        tempfile.TemporaryDirectory(prefix="k") as short,
        subprocess.Popen(
            [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": paths, "TMPDIR": short}
        ) as driver,
    ):
        deadline = time.monotonic() + 120
        while len(work.done()) < 6 and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
        driver.wait()
        for process in psutil.wait_procs(family, timeout=30)[1]:  # Ray's agents outlive their raylet for a while
            process.kill()
    seen = len(work.done())
    assert seen >= 6
    study = make_study(tmp_path / "study")
    open_before = [t.number for t in study.trials() if t.state is State.RUNNING]
    assert 1 <= len(open_before) <= 2
    ad.search(study, evaluate=work, budget=f"{len(study.trials()) + 2}trials", workers=1)
    after = study.trials()
    assert {(t.state, t.reason) for t in after} <= {(State.COMPLETE, ""), (State.PRUNED, "RUNG_RULE")}
    check_values(study)
