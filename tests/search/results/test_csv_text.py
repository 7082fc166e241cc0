"""CSV files that a spreadsheet shows and never runs."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from verified_values import VERIFIED

from autodistill.core.records import State, TrialRecord
from autodistill.delivery.verify.write import write_verified
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.csv_text import csv_text
from autodistill.search.results.front import Front


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", " =", "＝"])  # noqa: RUF001
def test_text_that_begins_like_a_formula_is_text(start: str) -> None:
    frame = pd.DataFrame([{"name": f"{start}1+1", f"{start}x": 2, "loss": -0.5, "count": 3, "none": None}])
    header, row = csv.reader(io.StringIO(csv_text(frame), newline=""))
    shown = start.replace("\t", "�").replace("\r", "�")
    assert header[1] == f"'{shown}x"
    assert row == [f"'{shown}1+1", "2", "-0.5", "3", ""]


def test_the_front_writes_no_formula(tmp_path: Path) -> None:
    values = {"accuracy": 0.9, "params": 10.0}
    student = {"family": "=cmd()", "+width": "@x"}
    front = Front.of(
        "toy", resolve(["accuracy", "params"]), [TrialRecord(0, State.COMPLETE, values, student, {}, {}, 0)]
    )
    front.save(tmp_path)
    (row,) = csv.DictReader((tmp_path / "front.csv").read_text().splitlines())
    assert row["student.family"] == "'=cmd()"
    assert row["student.+width"] == "'@x"
    assert row["accuracy"] == "0.9"


def test_the_table_of_verify_writes_no_formula(tmp_path: Path) -> None:
    rows = (replace(VERIFIED.rows[0], name="=1+1"), *VERIFIED.rows[1:])
    write_verified(replace(VERIFIED, rows=rows), tmp_path)
    assert "'=1+1" in (tmp_path / "verify.csv").read_text()
