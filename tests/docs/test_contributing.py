"""The recipes of CONTRIBUTING.md are run as they stand there, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

RECIPES = re.findall(
    r"```python file=(\S+) name=(\w+):(\w+)\n(.*?)```",
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.DOTALL,
)

# What is asked of an entry once it is registered, by the kind of registry.
USES = {
    "losses": """
import torch
from autodistill.training.distillation.distillation_losses import losses
z = torch.tensor([[1.0, 2.0, 0.5]])
entry = losses.get(NAME)
assert entry(z, z, torch.tensor([1]), temperature=2.0).abs() < 1e-6
assert entry(z, z.flip(1), torch.tensor([1]), temperature=2.0) > 0
""",
    "families": """
import torch
from autodistill.training.students.build import build_student
net = build_student({"family": NAME, "width": 8, "depth": 2}, image_size=16, channels=3, num_classes=5)
assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
""",
    "objectives": """
from autodistill.search.objectives.objectives import resolve
assert resolve([NAME])[0].direction == "minimize"
""",
    "measures": """
import numpy as np
from autodistill.training.loop.measures import compute
logits, labels = np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([0, 1])
assert abs(compute(logits, labels)[NAME] - 0.5) < 1e-12
""",
    "engines": """
import autodistill as ad
study = ad.Study.create(space={"student": {"a": [1, 2, 3]}}, objectives=["accuracy"], sampler="random")
def evaluate(candidate):
    yield ad.Report(0, {})
    yield ad.Report(1, {"accuracy": candidate.student["a"] / 4}, 1, 0.0)
assert ad.search(study, evaluate=evaluate, engine=NAME).trials[0].values == {"accuracy": 0.75}
""",
    "data_sources": """
from autodistill.core.records import DataSpec
from autodistill.training.data.datasets import load_images
data = load_images(DataSpec(NAME, image_size=8))
assert (data.image_size, data.channels, data.classes) == (8, 1, ("horizontal", "vertical"))
""",
}


def test_there_is_a_recipe_for_each_extension_point() -> None:
    assert [kind for _, kind, _, _ in RECIPES] == list(USES)


@pytest.mark.parametrize(("file", "kind", "name", "code"), RECIPES, ids=[recipe[1] for recipe in RECIPES])
def test_the_recipe_registers_an_entry_that_works(file: str, kind: str, name: str, code: str, tmp_path: Path) -> None:
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    recipe = tmp_path / "recipe.py"
    recipe.write_text(code)
    script = tmp_path / "script.py"
    target = f"vars(importlib.import_module({module!r}))" if (ROOT / file).exists() else "{'__name__': 'recipe'}"
    script.write_text(
        "import __future__, importlib, pathlib\n"
        "flags = __future__.annotations.compiler_flag\n"
        f"code = compile(pathlib.Path({str(recipe)!r}).read_text(), 'recipe', 'exec', flags=flags)\n"
        f"exec(code, {target})\n"
        f"NAME = {name!r}\n" + USES[kind]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


STUDY = """
name: recipes
data: {source: stripes, image_size: 8, options: {count: 120}}
teacher: {source: auto, accept_weak: true, options: {model: {family: plain, width: 8, depth: 1}, epochs: 1}}
space:
  student: {family: plain, width: [4, 8], depth: 1}
  distillation: {loss: reverse_kd, temperature: 2.0, alpha: 0.5}
  train: {lr: {low: 0.005, high: 0.02}, batch_size: 32}
measures: {f2: "my_measures:f2"}
objectives: [brier, "f2:maximize", params]
engine: plain
sampler: random
survey: "off"
rungs: "off"
epochs: 1
"""
F2 = """
from sklearn.metrics import fbeta_score


def f2(logits, labels):
    return fbeta_score(labels, logits.argmax(1), beta=2, average="macro")
"""


def test_a_search_that_uses_all_recipes_ends_with_complete_trials(tmp_path: Path) -> None:
    """The recipes are added to the files that they name, in a copy of the package, and run from the command line."""
    code = tmp_path / "code"
    for name in ("autodistill", "search_spaces"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, _, _, text in RECIPES:
        with (code / file).open("a", encoding="utf-8") as stream:
            stream.write(f"\n\n{text}")
    (code / "my_measures.py").write_text(F2)
    (tmp_path / "study.yaml").write_text(STUDY)
    environment = {
        **os.environ, "PYTHONPATH": str(code), "AUTODISTILL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = ["search", str(tmp_path / "study.yaml"), "--dir", str(tmp_path / "run"), "--budget", "2trials", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "autodistill", *command],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "autodistill", "trials", str(tmp_path / "run"), "--json"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60, check=True,
    )  # fmt: skip
    trials = json.loads(listed.stdout)
    assert [trial["state"] for trial in trials] == ["COMPLETE", "COMPLETE"]
    for trial in trials:
        assert trial["distillation"]["loss"] == "reverse_kd"
        assert trial["student"]["family"] == "plain"
        assert 0 <= trial["values"]["brier"] <= 2
        assert 0 <= trial["values"]["f2"] <= 1
