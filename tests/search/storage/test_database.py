"""The same store, whatever it lies in: a folder, memory, a PostgreSQL server."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from servers import PASSWORD, Postgres, programs
from toys import LEVELS, evaluate, evaluate_slowly, make_study

import autodistill as ad
from autodistill.config.study_file import StudyConfig
from autodistill.core.database_url import StorageUrl
from autodistill.core.errors import ResourceError, StudyInUseError, UsageError
from autodistill.core.records import Candidate, State
from autodistill.engines.setup import study_setup as opening
from autodistill.search.storage import database
from autodistill.search.storage import study_folder as store
from autodistill.search.study.study import Study

needs_server = pytest.mark.skipif(programs() is None, reason="no PostgreSQL server is installed")
MakeStudy = Callable[[str], Study]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture
def url(server: Postgres, request: pytest.FixtureRequest) -> StorageUrl:
    """A database of this test's own."""
    name = f"t{abs(hash(request.node.name)) % 10**9}_{time.monotonic_ns() % 10**6}"
    server.make_database(name)
    return StorageUrl.parse(server.url(name))


@pytest.fixture(
    params=[
        "sqlite",
        "memory",
        pytest.param("postgres", marks=[pytest.mark.postgres, needs_server]),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStudy:
    """Opens the study of the given name, anew at every call where the storage outlives it."""
    if request.param == "postgres":
        url = request.getfixturevalue("url")
        return lambda name: make_study(storage=store.open_storage(None, url), name=name)
    if request.param == "sqlite":
        return lambda name: make_study(tmp_path / name, name=name)
    shared = store.open_storage(None)
    return lambda name: make_study(storage=shared, name=name)


def facts(study: Study) -> list[object]:
    """What a reader sees of every trial."""
    return [(t.number, t.state, t.reason, dict(t.values), dict(t.student), dict(t.rungs)) for t in study.trials()]


def test_what_was_written_is_read_back_by_another_connection(make: MakeStudy) -> None:
    study = make("a")
    ad.search(study, evaluate=evaluate, budget="12trials")
    again = make("a")
    assert facts(again) == facts(study)
    assert again.spent.trials == study.spent.trials == 12
    assert again.scale() == study.scale()
    assert [t.values for t in again.front().trials] == [t.values for t in study.front().trials]


def test_every_storage_gives_the_same_trials(make: MakeStudy) -> None:
    study, oracle = make("a"), make_study()
    for one in (study, oracle):
        ad.search(one, evaluate=evaluate, budget="12trials")
    assert [f[1:] for f in map(list, facts(study))] == [f[1:] for f in map(list, facts(oracle))]  # type: ignore[call-overload]


def test_an_interrupted_trial_goes_on_under_its_own_number(make: MakeStudy) -> None:
    study = make("a")
    with study.running("3trials"):
        candidate = study.ask()
        assert candidate is not None
        study.report(candidate, next(iter(evaluate(candidate))))
        assert study.close(candidate) is State.PARTIAL
    again = make("a")
    ad.search(again, evaluate=evaluate, budget="3trials")
    assert again.trials()[0].number == candidate.number
    assert all(t.state in (State.COMPLETE, State.PRUNED) for t in again.trials())


def test_a_queued_candidate_is_the_next_one(make: MakeStudy) -> None:
    study = make("a")
    study.enqueue({"student": {"width": 64}, "train": {"lr": 0.5}})
    with study.running("3trials"):
        candidate = study.ask()
    assert candidate is not None
    assert (candidate.student["width"], candidate.train["lr"]) == (64, 0.5)


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.mark.postgres
@needs_server
class TestServer:
    def test_several_studies_share_a_database(self, url: StorageUrl) -> None:
        studies = [make_study(storage=store.open_storage(None, url), name=name, seed=i) for i, name in enumerate("ab")]
        for study in studies:
            ad.search(study, evaluate=evaluate, budget="5trials")
        for study in studies:
            assert study.spent.trials == 5
            assert [t.number for t in study.trials()] == list(range(len(study.trials())))

    def test_a_second_driver_is_refused_and_another_study_is_not(self, url: StorageUrl) -> None:
        first, second = (database.open_database(url) for _ in range(2))
        with first.only_writer("a"):
            used = rf"study a in .* is in use by process {os.getpid()} on"
            with pytest.raises(StudyInUseError, match=used), second.only_writer("a"):
                pass
            with second.only_writer("b"):
                pass
        with second.only_writer("a"):
            pass

    def test_a_driver_that_is_killed_frees_its_study(self, url: StorageUrl) -> None:
        hold = (
            "import sys, time; from autodistill.search.storage.database import *\n"
            "with open_database(StorageUrl.parse(sys.argv[1])).only_writer('a'):\n"
            "    print('held', flush=True); time.sleep(60)"
        )
        other = subprocess.Popen([sys.executable, "-c", hold, url.connectable()], stdout=subprocess.PIPE, text=True)
        ours = database.open_database(url)
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(StudyInUseError, match=f"process {other.pid} "), ours.only_writer("a"):
                pass
        finally:
            other.kill()
            other.communicate()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with ours.only_writer("a"):
                    return
            except StudyInUseError:
                time.sleep(0.1)
        pytest.fail("the lock outlived its holder")

    def test_a_restart_in_mid_search_loses_nothing(
        self, server: Postgres, url: StorageUrl, caplog: pytest.LogCaptureFixture
    ) -> None:
        study = make_study(storage=store.open_storage(None, url), name="a")
        restarted = threading.Event()

        def restart() -> None:
            deadline = time.monotonic() + 60
            while len(study.trials()) < 4 and time.monotonic() < deadline:
                time.sleep(0.02)
            server.stop()
            time.sleep(1.0)
            server.start()
            restarted.set()

        thread = threading.Thread(target=restart)
        thread.start()
        with caplog.at_level(logging.WARNING, logger="autodistill"):
            ad.search(study, evaluate=evaluate_slowly, budget="15trials")
        thread.join()
        assert restarted.is_set()
        assert "does not answer" in caplog.text
        assert "answers again" in caplog.text
        assert PASSWORD not in caplog.text
        check_nothing_lost(study, make_study(storage=store.open_storage(None, url), name="a"))

    def test_after_a_restart_the_study_is_held_again_before_anything_is_written(
        self, server: Postgres, url: StorageUrl
    ) -> None:
        first, second = (database.open_database(url) for _ in range(2))
        study = optuna.create_study(storage=first, study_name="a", directions=["maximize"])
        with first.only_writer("a"):
            server.stop()
            server.start()
            study.set_user_attr("written", 1)
            with pytest.raises(StudyInUseError), second.only_writer("a"):
                pass

    def test_a_driver_that_lost_its_study_to_another_writes_no_more(self, server: Postgres, url: StorageUrl) -> None:
        first, second = (database.open_database(url) for _ in range(2))
        study = optuna.create_study(storage=first, study_name="a", directions=["maximize"])
        with first.only_writer("a"):
            server.stop()
            server.start()
            with second.only_writer("a"), pytest.raises(StudyInUseError):
                study.set_user_attr("written", 1)
        assert optuna.load_study(storage=second, study_name="a").user_attrs == {}

    def test_a_write_whose_answer_was_lost_is_not_made_twice(
        self, url: StorageUrl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        psycopg = pytest.importorskip("psycopg")
        storage = database.open_database(url)
        study = optuna.create_study(storage=storage, study_name="a", directions=["maximize"])
        study.ask()
        losing = {"left": 1}
        commit = storage.engine.dialect.do_commit

        def commit_and_lose_the_answer(connection: Any) -> None:
            commit(connection)
            if losing["left"]:
                losing["left"] = 0
                connection.dbapi_connection.close()  # of the pool's proxy
                raise psycopg.OperationalError("the answer to COMMIT got lost")

        monkeypatch.setattr(storage.engine.dialect, "do_commit", commit_and_lose_the_answer)
        trial = study.ask()
        assert losing["left"] == 0
        assert (trial.number, len(study.trials)) == (1, 2)
        losing["left"] = 1
        study.tell(trial, 0.5)
        assert losing["left"] == 0
        assert [(t.state.name, t.value) for t in study.trials] == [("RUNNING", None), ("COMPLETE", 0.5)]

    def test_waiting_for_a_server_has_an_end(self, url: StorageUrl, server: Postgres) -> None:
        storage = database.open_database(url, patience=0.3)
        study = optuna.create_study(storage=storage, study_name="a", directions=["maximize"])
        server.stop()
        try:
            with pytest.raises(ResourceError, match=r"has not answered for .* the same command resumes"):
                study.set_user_attr("written", 1)
        finally:
            server.start()

    def test_an_error_of_a_wrong_password_or_address_does_not_contain_the_password(self, server: Postgres) -> None:
        for wrong in (
            server.url(password="wr0ng"),
            server.url("nowhere"),
            server.url().replace("127.0.0.1", "127.0.0.9"),
        ):
            with pytest.raises(ResourceError, match="cannot open the database postgresql://tester@127") as caught:
                database.open_database(StorageUrl.parse(wrong))
            assert "wr0ng" not in str(caught.value)
            assert "5ecret" not in str(caught.value)

    def test_the_folder_of_a_study_names_the_database_and_not_the_password(
        self, url: StorageUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = {
            "space": {"student": {"width": [4, 8, 16]}},
            "objectives": ["accuracy:maximize", "params"],
            "name": "mine",
            "rungs": {"eta": 3, "levels": list(LEVELS)},
            "storage": url.connectable().replace("postgresql+psycopg", "postgresql"),
        }
        study = opening.study_from(keys, {"directory": tmp_path / "s"})
        ad.search(study, evaluate=evaluate, budget="3trials")
        for path in (tmp_path / "s").rglob("*"):
            assert not path.is_file() or b"5ecret" not in path.read_bytes(), path
        assert not (tmp_path / "s" / "study.db").exists()
        assert store.database_of(tmp_path / "s") == url
        monkeypatch.setenv("AUTODISTILL_STORAGE_PASSWORD", PASSWORD)
        assert facts(Study.open(tmp_path / "s")) == facts(study)
        from autodistill.commands.console.reading import read_study

        assert facts(read_study(tmp_path / "s")) == facts(study)
        # The database outlives the folder: elsewhere the same settings go on with it, others are refused by name.
        assert facts(opening.study_from(keys, {"directory": tmp_path / "t"})) == facts(study)
        with pytest.raises(
            UsageError, match=r"another study called 'mine':\n  - seed: the study has 0, this run has 1"
        ):
            opening.build_study(StudyConfig.load({**keys, "seed": 1}), tmp_path / "u")


def check_nothing_lost(study: Study, stored: Study) -> None:
    """Every trial ended once, with the values of the formula, in memory and in the database."""
    from toys import accuracy

    assert study.spent.trials == 15
    assert facts(stored) == facts(study)
    assert [t.number for t in stored.trials()] == list(range(len(stored.trials())))
    assert all(t.state in (State.COMPLETE, State.PRUNED) for t in stored.trials())
    for trial in stored.trials():
        for rung, values in trial.rungs.items():
            if rung:
                candidate = Candidate(trial.number, trial.student, trial.distillation, trial.train, trial.seed)
                assert values["accuracy"] == accuracy(candidate, LEVELS[rung - 1])
