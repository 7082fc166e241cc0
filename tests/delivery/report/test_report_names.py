"""Names of classes come from folders, which may be no UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import evaluate, make_study

import autodistill as ad
from autodistill.delivery.report import page
from autodistill.delivery.report.write import write_report


def test_a_name_that_is_no_utf8_does_not_stop_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = page.render

    def with_name(*arguments: Any) -> str:
        return f"{render(*arguments)}<p>caf\udce9</p>"  # as os.fsdecode gives a folder called b"caf\xe9"

    monkeypatch.setattr(page, "render", with_name)
    study = make_study(tmp_path / "study")
    ad.search(study, evaluate=evaluate, budget="4trials", progress=False)
    found = write_report(study, tmp_path / "report.html")
    assert "<p>caf?</p>" in found.path.read_text(encoding="utf-8")
