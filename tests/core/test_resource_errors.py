from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from toys import evaluate, make_study

import autodistill as ad
from autodistill.core.errors import ResourceError, UserCodeError
from autodistill.core.resource_errors import as_resource_error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("cannot write tensors: No space left on device"),  # a library's own
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError("out of memory"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_errors_of_the_machine_are_resource_errors(error: Exception) -> None:
    with pytest.raises(ResourceError, match=str(error.args[-1])) as told, as_resource_error():
        raise RuntimeError("a storage's own error") from error
    assert told.value.exit_code == 5


@pytest.mark.parametrize(
    "error",
    [
        UserCodeError("all alike"),
        ResourceError("said already"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        sqlite3.OperationalError("no such table: trials"),
        KeyboardInterrupt(),
    ],
)
def test_every_other_error_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as told, as_resource_error():
        raise error
    assert told.value is error


def test_a_database_without_room_ends_the_search_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    engine = study.storage.engine  # type: ignore[attr-defined]
    with engine.connect() as connection:
        pages = connection.execute(sqlalchemy.text("PRAGMA page_count")).scalar()
    sqlalchemy.event.listen(engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages + 5}"))
    engine.dispose()  # a connection that is open keeps its own limit
    with pytest.raises(ResourceError, match="database or disk is full"):
        ad.search(study, evaluate=evaluate, budget="500trials", workers=1)
    again = make_study(tmp_path)
    reported = len(again.trials())
    ad.search(again, evaluate=evaluate, budget=f"{again.spent.trials + 2}trials", workers=1)
    assert len(again.trials()) > reported > 3


OWN: dict[str, Any] = {"space": {"student": {"width": [1, 2]}}, "objectives": ["accuracy", "params"], "epochs": 1}


@pytest.mark.parametrize("resumed", [False, True])
def test_a_study_that_is_opened_on_a_full_disk_says_so(
    resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    if resumed:
        ad.Study.create(**OWN, directory=folder)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError) as told:
            ad.Study.create(**OWN, directory=folder)
    assert str(told.value).startswith("the study could not be opened: [Errno 28] No space left on device. ")
    assert ad.Study.create(**OWN, directory=folder).rungs.levels == (1,)
