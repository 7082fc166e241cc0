"""Real training under Ray: checkpoints in a storage, one candidate on several devices."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import autodistill as ad
from autodistill.core.errors import InterruptedTrialError, UsageError
from autodistill.core.records import Candidate, DataSpec, State, TeacherSpec, WorkerContext
from autodistill.engines.driving import remote_study
from autodistill.engines.driving.slots import cpu_count
from autodistill.engines.monitor.watch import Snapshot
from autodistill.engines.ray import cluster as ray_cluster
from autodistill.search.study.study import Study
from autodistill.training.runtime import durable_files as checkpoint
from autodistill.training.runtime.durable_files import read_folder
from autodistill.training.runtime.remote_storage import RemoteFolder
from autodistill.training.trials.evaluate import Trial, evaluator, load_student
from autodistill.training.trials.remote_trials import copy_of, send_inputs, task_of
from autodistill.training.trials.trial_files import save_student, student_facts, trial_folder

EPOCHS = 3


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> TeacherSpec:
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder
    from autodistill.training.trials.teach import teach

    data = datasets.load_images(DataSpec("digits", train_size=400), cache_folder())
    return teach(data, TeacherSpec(options={"epochs": 3}), directory=tmp_path_factory.mktemp("teacher") / "net")


def make(directory: Path, teacher: TeacherSpec, **changes: Any) -> Study:
    """Small students of the digits, every one trained to the end."""
    keys: dict[str, Any] = {
        "name": "far",
        "data": {"source": "digits", "train_size": 400},
        "teacher": {"source": teacher.source, "accept_weak": True},
        "space": {
            "student": {"family": "resnet", "width": 8, "depth": 1},
            "distillation": {"loss": "kd", "temperature": 4.0, "alpha": 0.5},
            "train": {"lr": {"low": 1e-3, "high": 1e-2, "log": True}},
        },
        "objectives": ["accuracy", "params"],
        "epochs": EPOCHS,
        "rungs": "off",
        "sampler": "random",
        "survey": "off",
    }
    return ad.Study.create(**{**keys, **changes}, directory=directory)


def values(study: Study) -> list[tuple[State, dict[str, float]]]:
    return [(t.state, dict(t.values)) for t in study.trials()]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Trial to the epoch at which its training in this process begins."""
    found: dict[int, float] = {}
    real = Trial._resume

    def resume(trial: Trial, trainer: Any) -> None:
        real(trial, trainer)
        found[trial.spec.number] = trainer.epoch

    monkeypatch.setattr(Trial, "_resume", resume)
    return found


def factory_of(study: Study) -> Any:
    from autodistill.engines.monitor.watch import Watch
    from autodistill.engines.setup.prepare import prepare

    return prepare(study, Watch())


# -- the two places of a study, without Ray ----------------------------------------------------------------------------


def test_what_a_dead_search_left_in_a_storage_is_found_by_the_next_one_under_any_engine(
    tmp_path: Path, teacher: TeacherSpec, begun: dict[int, float]
) -> None:
    whole = make(tmp_path / "whole", teacher)
    ad.search(whole, budget="2trials", workers=1)
    study = make(tmp_path / "study", teacher)
    with study.running("2trials"):
        factory = factory_of(study)
        task = task_of(factory)
        assert task is not None
        remote_folder = remote_study._own_folder(tmp_path / "study", str(tmp_path / "storage"), study.name)
        send_inputs(task, remote_folder)
        first, second = study.ask(), study.ask()
        assert first is not None
        assert second is not None
        asked = iter([False] * 8 + [True] * 1000)
        there = WorkerContext(storage=remote_folder.url, should_stop=lambda: next(asked))
        with pytest.raises(InterruptedTrialError):
            list(evaluator(task, there)(first))
        list(
            evaluator(task, WorkerContext(storage=remote_folder.url))(second)
        )  # trained to the end, and never reported
    assert not (tmp_path / "study" / "checkpoints").exists()
    again = make(tmp_path / "study", teacher)
    begun.clear()
    ad.search(again, budget="2trials", workers=1)
    assert values(again) == values(whole)
    assert list(begun) == [first.number]  # the other one was only reported
    assert 0 < begun[first.number] < EPOCHS


def test_two_studies_in_one_storage_have_parts_of_their_own_and_each_keeps_its_own(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    url = str(tmp_path / "storage")
    first = remote_study._own_folder(one, url, "a name")
    assert remote_study._own_folder(two, url, "a name") != first
    assert remote_study._own_folder(one, url, "a name") == first
    assert remote_study._own_folder(one, str(tmp_path / "other"), "a name") != first


def test_a_trial_that_failed_leaves_nothing_in_the_storage(tmp_path: Path, teacher: TeacherSpec) -> None:
    study = make(tmp_path / "study", teacher)
    factory = factory_of(study)
    with remote_study.workers_elsewhere(study, factory, str(tmp_path / "storage")) as url:
        remote_folder = RemoteFolder(str(url))
        for number in range(2):
            work = trial_folder(tmp_path / "work", number)
            copy_of(remote_folder, work, tmp_path / "work").keep(save_student(work, {}, {"key": "k", "number": number}))
        study.after(0, State.FAIL)
        study.after(1, State.COMPLETE)
    assert remote_folder.names("checkpoints") == ["checkpoints/trial-00001/student-k"]
    assert student_facts(tmp_path / "study", 1)["number"] == 1
    assert not trial_folder(tmp_path / "study", 0).exists()


def test_what_was_stopped_elsewhere_meanwhile_is_removed_and_names_cannot_lead_outside(
    tmp_path: Path, teacher: TeacherSpec
) -> None:
    study = make(tmp_path / "study", teacher)
    remote_folder = remote_study._own_folder(tmp_path / "study", str(tmp_path / "storage"), study.name)
    (tmp_path / "x").mkdir()
    for name in (
        "checkpoints/trial-00000/step-000000001-k",
        "checkpoints/trial-00001/step-000000001-k",
        "other/student",
    ):
        remote_folder.put(name, tmp_path / "x")
    with study.running("2trials"):
        for error in (RuntimeError("it failed"), None):
            candidate = study.ask()
            assert candidate is not None
            study.close(candidate, error)
    assert remote_study.fetch_files(study) == ""
    assert remote_folder.names() == ["checkpoints/trial-00001/step-000000001-k", "other/student"]
    assert [p.name for p in (tmp_path / "study" / "checkpoints").iterdir()] == ["trial-00001"]
    assert not (tmp_path / "study" / "other").exists()


def test_a_storage_that_is_gone_is_said_and_what_is_damaged_is_passed_over(
    tmp_path: Path, teacher: TeacherSpec
) -> None:
    study = make(tmp_path / "study", teacher)
    remote_folder = remote_study._own_folder(tmp_path / "study", str(tmp_path / "storage"), study.name)
    for name in ("checkpoints/trial-00000/student-k", "checkpoints/trial-00001/student-k"):
        remote_folder.put(name, tmp_path / "study" / "study.yaml")
    first, _ = sorted(p for p in (tmp_path / "storage").rglob("*") if p.is_file())
    first.write_bytes(b"short")
    with pytest.warns(UserWarning, match="trial-00000.*is damaged.*trained again"):
        assert remote_study.fetch_files(study) == ""
    assert [p.name for p in (tmp_path / "study" / "checkpoints").iterdir()] == ["trial-00001"]
    (tmp_path / "study" / "storage.json").write_text('{"url": "nosuch://x"}')
    assert "nosuch://x cannot be used as a storage" in remote_study.fetch_files(study)


def test_a_storage_needs_a_study_in_a_folder(teacher: TeacherSpec, tmp_path: Path) -> None:
    study = make(tmp_path / "study", teacher)
    factory = factory_of(study)
    study.directory = None
    with (
        pytest.raises(UsageError, match="needs a study in a folder"),
        remote_study.workers_elsewhere(study, factory, "x"),
    ):
        pass


# -- with Ray ----------------------------------------------------------------------------------------------------------


class Interrupt:
    """Ctrl-C once every worker has trained for an epoch; looks where the workers keep their files."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = places
        self.used: set[Path] = set()
        self.pressed = False

    def __call__(self, snapshot: Snapshot) -> None:
        self.used |= {place for place in self.places if list(place.glob("autodistill-work-*"))}
        if not self.pressed and len([line for line in snapshot.workers if line.epoch >= 1]) == len(self.places):
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[Path]]]:
    """Two nodes whose workers have different temporary folders, as on two machines."""
    from ray.cluster_utils import Cluster

    places = [tmp_path_factory.mktemp(name) for name in ("north", "south")]
    with (
        ray_cluster.private_switches() as ray,
        ray_cluster._loopback(ray),
        ray_cluster._private_folder() as folder,
        ray_cluster.environment({"RAY_TMPDIR": str(folder)}),
    ):
        head, other = ({"num_cpus": 1, "env_vars": {"TMPDIR": str(place)}} for place in places)
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(**other)
            cluster.wait_for_nodes()
            yield cluster, places
        finally:
            cluster.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_trials_of_nodes_without_the_study_s_folder_are_kept_in_the_storage_and_go_on_under_local(
    tmp_path: Path, teacher: TeacherSpec, nodes: tuple[Any, list[Path]], begun: dict[int, float]
) -> None:
    cluster, places = nodes
    study = make(tmp_path / "study", teacher, epochs=2000)  # long enough to be interrupted, twice
    interrupt = Interrupt(places)
    with pytest.raises(KeyboardInterrupt):
        ad.search(
            study,
            budget="2trials",
            workers=2,
            engine="ray",
            address=cluster.address,
            storage=(tmp_path / "storage").as_uri(),
            progress=interrupt,
        )
    assert interrupt.used == set(places)  # both workers worked, in folders of their own node
    assert [t.state for t in study.trials()] == [State.PARTIAL] * 2
    steps = {p.parent.name: int(p.name.split("-")[1]) for p in (tmp_path / "study").glob("checkpoints/*/step-*")}
    assert sorted(steps) == ["trial-00000", "trial-00001"]  # brought home
    assert not [left for place in places for left in place.glob("autodistill-work-*")]
    again = make(tmp_path / "study", teacher, epochs=2000)

    def stop(snapshot: Snapshot) -> None:
        if begun:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ad.search(again, budget="2trials", workers=1, progress=stop)
    batches = -(-again.config.data.train_size // 64)
    (number,) = begun
    assert 1 <= begun[number] == pytest.approx(steps[f"trial-{number:05d}"] / batches, rel=0.2)


@pytest.mark.ray
def test_a_study_begun_locally_goes_on_in_folders_that_never_saw_it(tmp_path: Path, teacher: TeacherSpec) -> None:
    whole = make(tmp_path / "whole", teacher)
    ad.search(whole, budget="1trials", workers=1)
    study = make(tmp_path / "study", teacher)
    with study.running("1trials"):
        factory, candidate = factory_of(study), study.ask()
        assert candidate is not None
        asked = iter([False] * 8 + [True] * 1000)
        here = WorkerContext(threads=cpu_count(), should_stop=lambda: next(asked))
        with pytest.raises(InterruptedTrialError) as stopped:
            list(factory(here)(candidate))
        study.close(candidate, stopped.value)
    folder = trial_folder(tmp_path / "study", 0)
    (step,) = folder.iterdir()
    found = checkpoint.load(folder, key=read_folder(step)[1]["key"])
    assert found is not None
    checkpoint.save(folder, replace(found, facts={**found.facts, "seconds": 10_000.0}))  # a mark that is handed on
    again = make(tmp_path / "study", teacher)
    front = ad.search(again, budget="1trials", workers=1, engine="ray", storage=str(tmp_path / "storage"))
    assert len(front) == 1
    assert 10_000 < again.trials()[0].seconds < 11_000
    assert [p.name for p in folder.iterdir()] == ["student"]  # brought home
    assert load_student(tmp_path / "study", 0) is not None
    assert values(again) == values(whole)


@pytest.mark.ray
def test_a_candidate_on_two_devices_of_a_ray_worker_reports_what_it_reports_on_one(
    tmp_path: Path, teacher: TeacherSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make(tmp_path / "alone", teacher, epochs=2)  # over more epochs roundings grow, those of threads too
    ad.search(alone, budget="2trials", workers=1)
    together = make(tmp_path / "together", teacher, epochs=2, devices_per_trial=2)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))  # of the workers; this process has looked already
    ad.search(together, budget="2trials", workers=1, engine="ray", storage=str(tmp_path / "storage"))
    assert [state for state, _ in values(together)] == [State.COMPLETE] * 2
    assert candidates(together) == candidates(alone)
    assert list(scratch.glob("ad-*")) == []  # the helpers and their meeting point are gone, and the worker's folder
    for one, two in zip(alone.trials(), together.trials(), strict=True):
        for metric in ("accuracy", "loss", "agreement"):
            assert two.rungs[1][metric] == pytest.approx(one.rungs[1][metric], abs=1e-4), metric


def candidates(study: Study) -> list[Candidate]:
    return [Candidate(t.number, t.student, t.distillation, t.train, t.seed) for t in study.trials()]
