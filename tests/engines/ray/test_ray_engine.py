from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from toys import LEVELS, accuracy, costs, evaluate, evaluate_or_die, evaluate_or_fail, make_study

import autodistill as ad
from autodistill.core.errors import DivergedError, InfeasibleError, ResourceError, UsageError, UserCodeError
from autodistill.core.records import Candidate, Decision, Report, State, WorkerContext
from autodistill.engines.driving.slots import Slot, cpu_count
from autodistill.engines.driving.worker import pack_error
from autodistill.engines.monitor.watch import Snapshot, Watch
from autodistill.engines.ray import cluster as ray_cluster
from autodistill.engines.ray.bridge import StudyBridge
from autodistill.engines.ray.cluster import (
    WorkerResources,
    check_room,
    private_environment,
    refuse_open_door,
    resources_of,
)
from autodistill.search.rungs.levels import Rungs
from autodistill.search.study.study import Study

NODES: list[dict[str, Any]] = [
    {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
    {"Alive": True, "Resources": {"CPU": 2.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]


# -- the bridge, without Ray -------------------------------------------------------------------------------------------


def work(bridge: StudyBridge, key: str) -> None:
    """What Tune and a worker do with one job."""
    job = bridge.hand_out(key)
    assert job is not None
    bridge.started(key)
    message: tuple[Any, ...] = ("done",)
    try:
        for report in evaluate_or_fail(job.candidate):
            message = ("report", report)
            if bridge.report(key, report) is Decision.STOP:
                break
        else:
            message = ("done",)
    except Exception as error:
        message = pack_error(error)
    bridge.end(key, message)


def test_the_bridge_records_every_kind_of_end_as_the_local_engine_does() -> None:
    ends = {}
    for engine in ("local", "bridge"):
        study = make_study()
        if engine == "local":
            ad.search(study, evaluate=evaluate_or_fail, budget="25trials", workers=1)
        else:
            with study.running("25trials"):
                study.set_known_costs([])
                bridge = StudyBridge(study, Watch(), 1)
                while not bridge.finished:
                    if bridge.hand_out("probe") is None:
                        break
                    bridge.lose("probe", "", node=True)  # goes back to the queue, and is handed out again
                    work(bridge, "job")
            assert bridge.failure is None
        ends[engine] = [(t.state, t.reason, t.message, dict(t.values)) for t in study.trials()]
    assert ends["bridge"] == ends["local"]


def test_no_more_jobs_are_handed_out_than_there_are_slots_and_slots_are_used_again() -> None:
    study = make_study()
    with study.running("9trials"):
        bridge = StudyBridge(study, Watch(), 2)
        first, second = bridge.hand_out("a"), bridge.hand_out("b")
        assert first is not None
        assert second is not None
        assert (first.slot, second.slot) == (0, 1)
        assert bridge.hand_out("c") is None
        assert not bridge.finished
        bridge.end("a", ("done",))
        third = bridge.hand_out("c")
        assert third is not None
        assert third.slot == 0
        bridge.leave()
    assert [t.reason for t in study.trials()] == ["ENDED_EARLY", "INTERRUPTED", "INTERRUPTED"]


def test_a_lost_node_sends_its_trial_on_from_the_rung_it_had_reached_and_gives_up_the_third_time() -> None:
    study = make_study()
    with study.running("1trials"):
        bridge = StudyBridge(study, Watch(), 1)
        for attempt, rung in enumerate((1, 2, 2)):
            job = bridge.hand_out(f"attempt-{attempt}")
            assert job is not None
            assert job.candidate.number == 0
            assert job.candidate.start_rung == (0, 1, 2)[attempt]
            known = costs(job.candidate.student)
            bridge.report(f"attempt-{attempt}", Report(rung, {"accuracy": 0.9, **known}, LEVELS[rung - 1], 0.1))
            bridge.lose(f"attempt-{attempt}", "its node has died", node=True)
        assert bridge.hand_out("more") is None
    assert [(t.state, t.reason) for t in study.trials()] == [(State.FAIL, "WORKER_LOST")]


def test_a_student_whose_worker_dies_twice_is_given_up_and_too_many_end_the_search() -> None:
    study = make_study()
    with study.running("40trials"):
        bridge = StudyBridge(study, Watch(), 1)
        students, numbers = list[object](), list[int]()
        while bridge.failure is None:
            key = str(len(students))
            job = bridge.hand_out(key)
            assert job is not None
            students.append(job.candidate.student)
            numbers.append(job.candidate.number)
            bridge.lose(key, "its worker process has died", node=False)
        assert str(bridge.failure).startswith("5 different students lost their workers in a row")
        assert students == [students[i - i % 2] for i in range(9)]  # each twice, until the fifth one dies
        assert bridge.hand_out("more") is None
        assert bridge.finished
    assert [study.trials()[number].reason for number in numbers[::2]] == ["CRASH"] * 4 + ["INTERRUPTED"]


@pytest.mark.ray
def test_a_worker_whose_device_is_broken_leaves_the_next_candidate_to_another() -> None:
    from autodistill.engines.ray.tune import is_node_loss
    from autodistill.engines.ray.worker import RayWorker

    worker = RayWorker(None, WorkerContext())
    candidate = Candidate(0, {"width": 4}, {}, {"lr": 0.1}, 0)
    worker.begin(candidate)
    worker._broken = True
    with pytest.raises(RuntimeError) as told:
        worker.begin(candidate)
    assert is_node_loss(f"ray::Worker.reset()\nRuntimeError: {told.value}")


def test_a_wish_to_stop_reaches_the_workers_once_and_ends_trials_at_their_next_rung() -> None:
    study, watch, asked = make_study(rungs=Rungs(LEVELS, stopping=False)), Watch(), []
    with study.running("20trials"):
        bridge = StudyBridge(study, watch, 2, stop_workers=lambda: asked.append(1), grace=0.05)
        job = bridge.hand_out("a")
        assert job is not None
        watch.stop()
        bridge.tick()
        assert bridge.overdue  # no worker has begun: nothing is worth waiting for
        bridge.started("a")
        assert not bridge.overdue
        assert bridge.report("a", Report(1, {"accuracy": 0.9, **costs(job.candidate.student)}, 1, 0.1)) is Decision.STOP
        assert bridge.hand_out("b") is None
        bridge.tick()
        time.sleep(0.06)
        assert bridge.overdue
        bridge.end("a", ("report", None))
        assert bridge.finished
    assert asked == [1]
    assert [(t.state, t.reason, max(t.rungs)) for t in study.trials()] == [(State.PARTIAL, "INTERRUPTED", 1)]


def test_an_error_of_the_study_is_kept_for_after_tune_and_stops_the_search() -> None:
    study = make_study()
    with study.running("20trials"):
        bridge = StudyBridge(study, Watch(), 1)
        for number in range(6):
            if bridge.hand_out(str(number)) is None:
                break
            bridge.end(str(number), pack_error(RuntimeError("always the same")))
        assert isinstance(bridge.failure, UserCodeError)
        assert bridge.finished


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InfeasibleError("no"), "INFEASIBLE_BUILD"),
        (DivergedError("no"), "NAN"),
        (MemoryError(), "OOM"),
        (OSError("no"), "ERROR"),
    ],
)
def test_errors_cross_with_their_reason(error: Exception, reason: str) -> None:
    study = make_study()
    with study.running("1trials"):
        bridge = StudyBridge(study, Watch(), 1)
        assert bridge.hand_out("a") is not None
        bridge.end("a", pack_error(error))
    assert study.trials()[0].reason == reason


# -- resources, addresses, security, without starting Ray --------------------------------------------------------------


def test_workers_ask_for_their_threads_and_their_part_of_a_gpu() -> None:
    assert resources_of([Slot(0, "cpu", 3), Slot(1, "cpu", 2)]) == WorkerResources(3, 0)
    assert resources_of([Slot(i, f"cuda:{i % 2}", 1) for i in range(4)]) == WorkerResources(1, 0.5)
    assert resources_of([Slot(i, "cuda:0", 1) for i in range(3)]).gpus == 0.3333  # three of them still fit on one
    assert resources_of([Slot(0)], cpus=0.5, gpus=2) == WorkerResources(0.5, 2)
    pairs = [Slot(0, "cuda:0", 2, ("cuda:0", "cuda:1")), Slot(1, "cuda:2", 2, ("cuda:2", "cuda:3"))]
    assert resources_of(pairs) == WorkerResources(4, 2)
    assert resources_of([Slot(0, "cpu", 3, ("cpu", "cpu"))]) == WorkerResources(6, 0)
    assert resources_of(pairs, gpus=0) == WorkerResources(4, 0)
    with pytest.raises(UsageError, match=r"2 devices cannot be trained by a worker with 0\.5 GPUs.*gpus_per_worker=2"):
        resources_of(pairs, gpus=0.5)
    with pytest.raises(UsageError, match=r"1\.5 GPUs.*whole number of GPUs, or a fraction below 1"):
        resources_of([Slot(0)], gpus=1.5)


def test_requests_that_can_never_be_met_are_refused_with_what_the_cluster_has() -> None:
    check_room(NODES, 6, WorkerResources(1, 0))
    check_room(NODES, 3, WorkerResources(1, 0.3333))
    with pytest.raises(ResourceError, match=r"7 workers with 1 CPUs each.*room for 6.*4 CPUs, 1 GPUs; 2 CPUs, 0 GPUs"):
        check_room(NODES, 7, WorkerResources(1, 0))
    with pytest.raises(ResourceError, match="room for 0"):
        check_room(NODES, 1, WorkerResources(5, 0))  # no node has five, though the cluster has six
    with pytest.raises(ResourceError, match="room for 2"):
        check_room(NODES, 3, WorkerResources(1, 0.5))


def test_a_ray_without_a_token_is_refused_unless_the_network_is_trusted() -> None:
    refuse_open_door({}, trust_network=False)
    refuse_open_door({"RAY_AUTH_MODE": "disabled"}, trust_network=True)
    with pytest.raises(UsageError, match=r"RAY_AUTH_MODE=disabled.*--trust-network"):
        refuse_open_door({"RAY_AUTH_MODE": "Disabled"}, trust_network=False)


def test_the_engine_refuses_an_open_door_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    study = make_study()
    with pytest.raises(UsageError, match="trust-network"):
        ad.search(study, evaluate=evaluate, budget="2trials", workers=1, engine="ray")
    assert not study.trials()


def test_each_private_ray_has_its_own_token_and_stays_on_loopback() -> None:
    one, two = private_environment({}), private_environment({})
    assert one["RAY_AUTH_MODE"] == "token"
    assert len(one["RAY_AUTH_TOKEN"]) == 64
    assert one["RAY_AUTH_TOKEN"] != two["RAY_AUTH_TOKEN"]
    assert one["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "RAY_AUTH_TOKEN" not in private_environment({"RAY_AUTH_MODE": "disabled"})


def test_a_ray_client_address_says_where_the_driver_belongs() -> None:
    with (
        pytest.raises(UsageError, match="on a node of the cluster"),
        ray_cluster.cluster([Slot(0)], WorkerResources(), address="ray://h:1"),
    ):
        pass


def test_without_ray_the_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ResourceError, match=r'pip install "ray\[tune\]>=2\.60"'):
        ad.search(make_study(), evaluate=evaluate, budget="2trials", workers=1, engine="ray")
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_an_old_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        __version__ = "2.9.3"

    monkeypatch.setattr(ray_cluster.importlib, "import_module", lambda name: Old)
    with pytest.raises(ResourceError, match=r"2\.60 or newer, got 2\.9\.3"):
        ray_cluster.import_ray()


def test_a_temporary_folder_too_deep_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ResourceError, match="set TMPDIR to a shorter one"), ray_cluster._private_folder():
        pass
    assert list(deep.iterdir()) == []


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AD_ONE", "1")
    with ray_cluster.environment({"AD_ONE": "2", "AD_TWO": "3"}):
        assert (os.environ["AD_ONE"], os.environ["AD_TWO"]) == ("2", "3")
    assert os.environ["AD_ONE"] == "1"
    assert "AD_TWO" not in os.environ


@pytest.mark.parametrize(
    ("text", "words", "node"),
    [
        (
            "Failure # 1\nThe actor is dead because its worker process has died. Worker exit detail: End of file. "
            "Some common causes include: … to prevent node deaths",
            "The actor is dead because its worker process has died. Worker exit detail: End of file.",
            False,
        ),
        ("x\nThe actor died because its node has died. Node Id: ab", "its node has died. Node Id: ab", True),
        ("The actor 14 is unavailable: RPC error: Connection reset by peer", "Connection reset by peer", True),
        ("", "a worker died", False),
    ],
)
def test_lost_processes_and_lost_nodes_are_distinguished_by_rays_message(text: str, words: str, node: bool) -> None:
    shapes = pytest.importorskip("autodistill.engines.ray.tune")
    assert shapes.words_of_loss(text).endswith(words)
    assert shapes.is_node_loss(text) is node


def test_a_worker_loads_ray_and_nothing_else_that_is_heavy() -> None:
    pytest.importorskip("ray")
    heavy = "{'torch', 'optuna', 'sqlalchemy', 'sklearn', 'matplotlib'}"
    code = f"import sys, autodistill.engines.ray.worker; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -- with Ray ----------------------------------------------------------------------------------------------------------


def evaluate_with_log(path: Path, seconds: float, candidate: Candidate) -> Iterator[Report]:
    """As the toys' evaluation, with a line per rung of work in a file."""
    for report in evaluate(candidate):
        if report.rung:
            time.sleep(seconds)
            with path.open("a") as file:
                file.write(f"{candidate.number} {report.rung} {os.environ.get('OMP_NUM_THREADS')} {os.getpid()}\n")
        yield report


class Logged:
    """A picklable evaluation that writes down what it does."""

    def __init__(self, path: Path, seconds: float = 0.0) -> None:
        self.path, self.seconds = path, seconds

    def __call__(self, candidate: Candidate) -> Iterator[Report]:
        return evaluate_with_log(self.path, self.seconds, candidate)

    def done(self) -> list[tuple[int, int, str, str]]:
        rows = [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return [(int(number), int(rung), threads, pid) for number, rung, threads, pid in rows]


def check_values(study: Study) -> None:
    """Every trial ended once, and COMPLETE ones hold the formula's values."""
    trials = study.trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    for t in trials:
        if t.state is State.COMPLETE:
            candidate = Candidate(t.number, t.student, t.distillation, t.train, t.seed)
            assert t.values["accuracy"] == accuracy(candidate, LEVELS[-1])


def listening(process: psutil.Process) -> list[str]:
    """Addresses on which a process and its children listen."""
    out = []
    for each in [process, *process.children(recursive=True)]:
        try:
            out += [c.laddr.ip for c in each.net_connections() if c.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue
    return out


class Spy:
    """Looks at the private Ray from the driver, once, while it runs."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.tokens: list[str] = []
        self.modes: list[int] = []
        self.intruder = ""

    def __call__(self, snapshot: Snapshot) -> None:
        import ray

        if not ray.is_initialized() or os.environ["RAY_AUTH_TOKEN"] in self.tokens:
            return
        self.tokens.append(os.environ["RAY_AUTH_TOKEN"])
        self.addresses += listening(psutil.Process())
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        self.modes.append(session.parents[1].stat().st_mode & 0o777)
        if not self.intruder:
            address = ray.get_runtime_context().gcs_address
            code = f"from ray._raylet import GcsClient; GcsClient(address={address!r})"  # the first step of ray.init
            environment = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
            caught = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            self.intruder = caught.stderr.strip().splitlines()[-1]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of this test alone; its path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_a_folder_in_which_a_dying_process_still_writes_is_removed(temporary: Path) -> None:
    """A worker that Ray started last may write a log while the folder is being removed."""
    code = (
        "import pathlib, sys, time\n"
        "folder, end = pathlib.Path(sys.argv[1]), time.monotonic() + 1.0\n"
        "print(flush=True)\n"
        "while time.monotonic() < end:\n"
        "    folder.mkdir(parents=True, exist_ok=True)\n"
        "    (folder / f'{time.monotonic_ns()}.log').write_text('')\n"
    )
    with ray_cluster._private_folder() as folder:
        logs = folder / "r" / "logs"
        writer = subprocess.Popen([sys.executable, "-c", code, str(logs)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
    assert list(temporary.iterdir()) == []
    assert writer.wait() == 0 or not folder.exists()
    writer.stdout.close()


@pytest.mark.ray
def test_a_private_ray_is_private_and_leaves_nothing_behind(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's own")
    spy, study = Spy(), make_study(tmp_path / "study")
    for budget in ("4trials", "8trials"):  # twice in one process, with two tokens
        ad.search(study, evaluate=evaluate, budget=budget, workers=2, engine="ray", progress=spy)
    ad.search(study, evaluate=evaluate, budget="12trials", workers=1)
    assert sum(t.reason not in ("DUPLICATE", "INFEASIBLE") for t in study.trials()) == 12
    check_values(study)
    assert len(set(spy.tokens)) == 2
    assert spy.modes == [0o700, 0o700]
    assert spy.addresses
    assert {address.removeprefix("::ffff:") for address in spy.addresses} == {"127.0.0.1"}
    assert spy.intruder.startswith("ray.exceptions.AuthenticationError")
    assert not [path for path in home.rglob("*") if "ray" in path.name]
    assert not psutil.Process().children(recursive=True)
    assert [path for path in temporary.iterdir() if path.name.startswith("ad-")] == []
    assert signal.getsignal(signal.SIGTERM) == handler
    assert os.environ["RAY_AUTH_TOKEN"] == "the user's own"
    assert not [name for name in os.environ if name.startswith("TUNE_") or name == "RAY_AUTH_MODE"]


@pytest.fixture(scope="module")
def shared_ray() -> Iterator[Any]:
    """One private Ray for the tests that do not look at how it is started."""
    with ray_cluster.cluster([Slot(0), Slot(1)], WorkerResources()) as ray:
        yield ray
    assert not psutil.Process().children(recursive=True)


@pytest.mark.ray
def test_failures_end_their_trials_and_not_the_search(shared_ray: Any) -> None:
    study = make_study()
    ad.search(study, evaluate=evaluate_or_fail, budget="25trials", workers=2, engine="ray")
    by_width = {t.student["width"]: t for t in study.trials()}
    assert by_width[4].reason == "INFEASIBLE_BUILD"
    assert by_width[8].reason == "NON_FINITE"
    assert by_width[16].reason == "OOM"
    assert (by_width[32].reason, by_width[32].message) == ("ERROR", "RuntimeError: a bug in the user's code")
    assert all(t.state is not State.RUNNING for t in study.trials())
    check_values(study)


@pytest.mark.ray
def test_a_student_whose_worker_dies_twice_is_given_up_and_the_worker_replaced(shared_ray: Any) -> None:
    study = make_study()
    ad.search(study, evaluate=evaluate_or_die, budget="12trials", workers=2, engine="ray")
    lost = [t for t in study.trials() if t.student["width"] == 32]
    assert lost
    assert all((t.state, t.reason) == (State.PRUNED, "CRASH") for t in lost)
    assert all("worker process has died" in t.message and "common causes" not in t.message for t in lost)
    assert any(t.state is State.COMPLETE for t in study.trials())


@pytest.mark.ray
def test_a_stopped_search_leaves_partial_trials_that_go_on_under_local(shared_ray: Any, tmp_path: Path) -> None:
    work = Logged(tmp_path / "log", 0.4)
    study = make_study(tmp_path / "study", rungs=Rungs(LEVELS, stopping=False))  # nothing else may stop a trial
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])  # by then the next trial has begun

    def press_ctrl_c(snapshot: Snapshot) -> None:
        both = len({pid for *_, pid in work.done()}) == 2
        if snapshot.states.get("COMPLETE") and both and timer.ident is None:
            timer.start()

    with pytest.raises(KeyboardInterrupt):
        ad.search(study, evaluate=work, budget="500trials", workers=2, engine="ray", progress=press_ctrl_c)
    states = Counter((t.state, t.reason) for t in study.trials())
    assert 1 <= states[State.PARTIAL, "INTERRUPTED"] <= 2
    assert states[State.COMPLETE, ""] >= 1
    assert not any(state is State.RUNNING for state, _ in states)
    assert {threads for _, _, threads, _ in work.done()} == {str(max(1, cpu_count() // 2))}
    assert len({pid for *_, pid in work.done()}) == 2  # one process per slot, used again for every trial
    ended = states.total() - states[State.PARTIAL, "INTERRUPTED"]
    partial = [t.number for t in study.trials() if t.state is State.PARTIAL]
    again = make_study(tmp_path / "study", rungs=Rungs(LEVELS, stopping=False))
    ad.search(again, evaluate=work, budget=f"{ended + len(partial)}trials", workers=1)
    assert all(again.trials()[n].state is State.COMPLETE for n in partial)
    assert len({row[:2] for row in work.done()}) == len(work.done())  # no rung was worked on twice
    check_values(again)


@pytest.mark.ray
def test_a_request_that_cannot_be_met_fails_at_once(shared_ray: Any) -> None:
    start = time.monotonic()
    with pytest.raises(ResourceError, match=r"2 workers with 3 CPUs each do not fit .* room for 0.*2 CPUs, 0 GPUs"):
        ad.search(make_study(), evaluate=evaluate, budget="2trials", workers=2, engine="ray", cpus_per_worker=3)
    assert time.monotonic() - start < 5


@pytest.mark.ray
def test_a_function_that_cannot_be_sent_says_what_to_do(shared_ray: Any) -> None:
    lock = threading.Lock()

    def hopeless(candidate: Candidate) -> Iterator[Report]:
        with lock:
            yield from evaluate(candidate)

    with pytest.raises(UsageError, match=r"cannot be sent to Ray's workers.*top level of a module"):
        ad.search(make_study(), evaluate=hopeless, budget="2trials", workers=2, engine="ray")
