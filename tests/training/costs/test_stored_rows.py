"""Rows in a JSON file that several processes read and replace."""

import json
from pathlib import Path

import pytest

from autodistill.training.costs import stored_rows
from autodistill.training.costs.stored_rows import read_rows, write_rows


def test_rows_are_read_as_they_were_written_and_invalid_ones_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    write_rows(path, {"a": {"x": 1}, "b": {"x": -1}})
    assert read_rows(path, lambda row: row["x"] > 0) == {"a": {"x": 1}}
    assert json.loads(path.read_text()) == {"a": {"x": 1}, "b": {"x": -1}}


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_a_damaged_file_has_no_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.json").write_bytes(content)
    assert read_rows(tmp_path / "rows.json", lambda row: True) == {}
    assert read_rows(tmp_path / "missing.json", lambda row: True) == {}


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows.json", {"a": {"x": 1}})

    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(stored_rows.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_rows(tmp_path / "rows.json", {"a": {"x": 2}})
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]
    assert read_rows(tmp_path / "rows.json", lambda row: True) == {"a": {"x": 1}}
