"""Studies that several processes make at once, and study files that were changed since."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from toys import SPACE, costs, evaluate

import autodistill as ad
from autodistill.core.errors import StudyInUseError, UsageError
from autodistill.engines.setup import study_setup
from autodistill.engines.timing import top_rung
from autodistill.search.storage import study_folder as store

KEYS: dict[str, Any] = {"name": "toy", "space": SPACE, "objectives": ["accuracy", "params"], "epochs": 9}


def test_the_process_that_makes_a_study_is_named_to_all_others(tmp_path: Path) -> None:
    store.make_folder(tmp_path)
    with store.folder_lock(tmp_path), pytest.raises(StudyInUseError, match=r"in use by process \d+ on "):
        ad.create_study(**KEYS, directory=tmp_path)
    assert not (tmp_path / store.DATABASE).exists()
    ad.create_study(**KEYS, directory=tmp_path)
    with store.folder_lock(tmp_path):  # one that is there can be opened while it is searched
        assert ad.open_study(tmp_path).name == "toy"


@pytest.mark.parametrize(("seed", "refused"), [(0, False), (1, True)])
def test_a_study_that_another_process_made_meanwhile_is_resumed_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, refused: bool
) -> None:
    settle = top_rung.choose_length

    def slowly(*arguments: Any, **keywords: Any) -> Any:
        monkeypatch.setattr(top_rung, "choose_length", settle)
        other = ad.create_study(**KEYS, directory=tmp_path)
        ad.search(other, evaluate=evaluate, costs=costs, budget="2trials", progress=False)
        return settle(*arguments, **keywords)

    monkeypatch.setattr(top_rung, "choose_length", slowly)
    if refused:
        with pytest.raises(UsageError, match="seed"):
            ad.create_study(**KEYS, seed=seed, directory=tmp_path)
    else:
        assert len(ad.create_study(**KEYS, seed=seed, directory=tmp_path).trials()) == 2


def test_tables_that_another_process_makes_at_the_same_moment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = store.FileStorage.__init__
    calls: list[int] = []

    def late(self: Any, *arguments: Any, **keywords: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise sqlalchemy.exc.OperationalError("CREATE", {}, Exception("table studies already exists"))
        make(self, *arguments, **keywords)

    monkeypatch.setattr(store.FileStorage, "__init__", late)
    assert ad.create_study(**KEYS, directory=tmp_path).trials() == []
    assert len(calls) == 2


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    study = ad.create_study(**KEYS, directory=tmp_path)
    ad.search(study, evaluate=evaluate, costs=costs, budget="3trials", progress=False)
    return tmp_path


EDITS = [("epochs: 9", "epochs: 27"), ("seed: 0", "seed: 7"), ("- params", "- latency_ms"), ("- params\n", "")]


def edit(folder: Path, old: str, new: str) -> str:
    file = folder / "study.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return text


@pytest.mark.parametrize(("old", "new"), EDITS)
def test_a_study_file_that_was_edited_is_compared_with_what_the_trials_were_run_under(
    searched: Path, old: str, new: str
) -> None:
    text = edit(searched, old, new)
    key = old.partition(":")[0] if ":" in old else "objectives"
    with pytest.raises(UsageError, match=rf"study\.yaml was changed since its trials were run:\n  - {key}"):
        ad.open_study(searched)
    assert len(ad.create_study(**KEYS, directory=searched).trials()) == 3  # the settings it was made with
    assert (searched / "study.yaml").read_text() == text


@pytest.mark.parametrize(("old", "new"), EDITS)
def test_reading_goes_by_what_the_trials_were_run_under(searched: Path, old: str, new: str) -> None:
    before = study_setup.open_to_read(searched)
    edit(searched, old, new)
    with pytest.warns(UserWarning, match="changed since its trials were run"):
        study = study_setup.open_to_read(searched)
    assert study.rungs == before.rungs
    assert study.config == before.config
    assert study.front().to_json() == before.front().to_json()


def test_what_may_change_may_be_edited_and_a_new_name_makes_no_second_study(searched: Path) -> None:
    edit(searched, "name: toy", "name: other\nbudget: 5trials")
    study = ad.open_study(searched)
    assert (study.name, str(study.budget), len(study.trials())) == ("toy", "5trials", 3)
    assert len(study.storage.get_all_studies()) == 1


def test_a_study_of_an_earlier_version_is_kept_by_its_file(searched: Path) -> None:
    with contextlib.closing(sqlite3.connect(searched / "study.db")) as connection, connection:
        connection.execute("DELETE FROM study_user_attributes WHERE key = 'configuration'")
    assert len(ad.open_study(searched).trials()) == 3
    edit(searched, "seed: 0", "seed: 7")
    with pytest.raises(UsageError, match="seed: the study has 0"):
        ad.open_study(searched)
