"""The comparison of recipes on photographs: its own loss, and the whole script on drawn images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import ROOT

from autodistill.training.distillation.distillation_losses import losses


def test_the_plain_scripts_distillation_loss_is_hintons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from photo_recipe import soft_loss

    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)).unbind()
    ours = losses.get("kd")(student, teacher, torch.zeros(6, dtype=torch.int64), temperature=3.0)
    assert soft_loss(student, teacher, 3.0).item() == pytest.approx(ours.item(), rel=1e-5)


@pytest.mark.slow
def test_every_kind_of_arm_trains_and_what_is_done_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    given = ["--train", '{"augment": "photo"}', "--distillation", '{"loss": "dkd"}', "--split", "test"]
    command = [sys.executable, ROOT / "benchmarks" / "photo_recipe.py", "--quick", "--json", file, *given]
    environment = {**os.environ, "AUTODISTILL_CACHE": str(tmp_path / "cache")}
    arms = ["none", "kd_cutmix", "plain", "plain_kd", "given"]
    once = subprocess.run(
        [*command, "--arms", ",".join(arms)], capture_output=True, text=True, env=environment, check=True
    )
    found = json.loads(file.read_text())
    assert set(found["arms"]) == set(arms)
    assert all(0 <= row["mean"] <= 1 and len(row["accuracy"]) == 1 for row in found["arms"].values())
    assert once.stdout.startswith("accuracy on test, 2 epochs")
    again = subprocess.run(
        [*command, "--arms", "none,plain"], capture_output=True, text=True, env=environment, check=True
    )
    assert "seed 0" not in again.stderr
