"""The words of a report."""

from __future__ import annotations

from autodistill.delivery.report.glossary import glossary
from autodistill.training.distillation.distillation_losses import losses


def test_every_distillation_loss_that_a_report_may_name_is_explained() -> None:
    words = {name.strip() for row in glossary().rows for name in row[0].split(",")}
    said = " ".join(" ".join(row) for row in glossary().rows)
    assert {"twin", "rung", "knee", "ECE", "alpha", "temperature", "hypervolume"} <= words
    assert [name for name in losses.names() if name not in words and f"'{name}'" not in said] == []


def test_only_a_verification_is_said_to_compare_twins() -> None:
    said = {row[0]: row[1] for row in glossary().rows}
    assert "In the search, against the best undistilled run of the same student, whatever its training" in said["gain"]
    assert said["twin"].startswith("in a verification, ")
