"""Stored costs depend on the code that builds a network, not on the name of the family."""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from places import ROOT

from autodistill.core.records import LatencyTarget, SurveyRow
from autodistill.search.storage.survey_file import earlier_survey, write_survey
from autodistill.training.costs import family_code as family_code_module
from autodistill.training.costs.cost_memory import CostMemory
from autodistill.training.costs.family_code import family_code
from autodistill.training.runtime import source_code as builder_code
from autodistill.training.runtime.source_code import code_key, code_of
from autodistill.training.runtime.source_values import values_of

SHAPE = {"image_size": 8, "channels": 1}
FAMILY = """
from torch import nn
from autodistill.training.students.families.schema import family, width
{head}

@family("mine", width(8, 4, 64), kind="convolutional")
def mine(p, shape):
    \"\"\"My net.\"\"\"
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * shape.channels, {units}), nn.Linear({units}, shape.num_classes))
"""
SURVEY = """
import json, sys
from pathlib import Path
import {module}
from autodistill.core.records import LatencyTarget
from autodistill.training.costs.cost_memory import CostMemory
from autodistill.training.survey.survey import survey
rows = survey([{{"family": "mine", "width": 8}}], image_size=8, channels=1, num_classes=3, metrics=["params"],
              target=LatencyTarget(), memory=CostMemory(Path("memory")))
print(json.dumps(rows[0].costs))
"""


def surveyed(folder: Path, module: str = "nets", **variables: str) -> float:
    """Parameters of the single student, counted or read from the stored costs in a new process."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", SURVEY.format(module=module)],
        capture_output=True, text=True, check=True, cwd=folder, env=environment,
    )  # fmt: skip
    return float(json.loads(done.stdout)["params"])


def rows_in(folder: Path) -> int:
    return len(json.loads((folder / "memory" / "costs.json").read_text()))


def test_an_edited_builder_is_counted_again_and_an_unedited_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FAMILY.format(head="", units=2))
    small = surveyed(tmp_path)
    assert surveyed(tmp_path) == small == 64 * 2 + 2 + 2 * 3 + 3
    assert rows_in(tmp_path) == 1
    (tmp_path / "nets.py").write_text(FAMILY.format(head="", units=16))
    assert surveyed(tmp_path) == 64 * 16 + 16 + 16 * 3 + 3


def test_a_builder_with_blocks_in_another_module_of_its_package_is_counted_again(tmp_path: Path) -> None:
    package = tmp_path / "own"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(FAMILY.format(head="from own.blocks import UNITS, Block", units="UNITS"))
    (package / "blocks.py").write_text("UNITS = 2\nclass Block: pass\n")
    small = surveyed(tmp_path, "own.nets")
    (package / "blocks.py").write_text("UNITS = 16\nclass Block: pass\n")
    assert surveyed(tmp_path, "own.nets") > small


def test_a_builder_that_reads_its_width_from_another_module_is_counted_again(tmp_path: Path) -> None:
    head = "import os\nUNITS = int(os.environ['UNITS'])\ndef units(): return UNITS"
    (tmp_path / "nets.py").write_text(FAMILY.format(head=head, units="units()"))
    small = surveyed(tmp_path, UNITS="2")
    assert surveyed(tmp_path, UNITS="16") > small
    assert surveyed(tmp_path, UNITS="2") == small
    assert rows_in(tmp_path) == 2


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Writes a module (and neighbours of it) and imports it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str, **neighbours: str) -> ModuleType:
        for name, content in {**neighbours, "freshly_written": text}.items():
            (tmp_path / f"{name}.py").write_text(content)
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("freshly_written")

    return write


def test_the_code_of_a_family_is_its_module_and_local_imports_and_no_library(module: Callable[..., ModuleType]) -> None:
    alone = "import json\nimport torch\nimport autodistill\ndef build(): return json\n"
    assert code_of(module(alone).build) == alone
    text = "import first_neighbour\ndef build(): return first_neighbour\n"
    first, second = "from second_neighbour import Block\n", "class Block: pass\n"
    found = code_of(module(text, first_neighbour=first, second_neighbour=second).build)
    assert found == "\n".join([text, first, second])


def test_a_partial_function_has_the_code_of_its_function(module: Callable[..., ModuleType]) -> None:
    build = module("def build(): return 1\n").build
    assert code_of(functools.partial(build)) == code_of(build) != ""


READS = """
import functools, math, torch
import first_neighbour as settings
WIDTH, KINDS, UNUSED = 3, {"b", "a"}, object()
class Block:
    scale = 2
    def units(self): return [first(WIDTH) for _ in KINDS]
def first(n): return n * math.pi
def outer(factor):
    def build(p, shape, *, gain=7): return Block(), settings.DEPTH, factor, torch.float32
    return build
build = functools.partial(outer(5), extra=9)
"""


def test_values_are_those_that_a_builder_and_its_own_helpers_read(module: Callable[..., ModuleType]) -> None:
    made = module(READS, first_neighbour="DEPTH, OTHER = 4, 5\n")
    found = values_of(made.build, {"freshly_written", "first_neighbour"}.__contains__)
    assert found == sorted([
        "Block.scale = 2", "KINDS = ['a', 'b']", "WIDTH = 3", f"math.pi = {math.pi}", "settings.DEPTH = 4",
        "factor = 5", "extra = 9", "arguments = ()", "defaults = [('gain', 7)]", "defaults = []",
        "torch.float32 = torch.float32",
    ])  # fmt: skip


def test_without_a_file_nothing_is_remembered_beyond_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": "nowhere_at_all"}
    exec("def build(): return 1", names)
    key = code_key(names["build"])
    assert code_of(names["build"]) == ""
    assert code_key(names["build"]) == key
    monkeypatch.setattr(builder_code, "_this_process", lambda: "another")
    assert code_key(names["build"]) != key


def test_the_sources_of_built_in_families_count(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, student = CostMemory(None), {"family": "resnet", "width": 4}
    key = memory.key(student, SHAPE, 3)
    assert CostMemory(None).key(student, SHAPE, 3) == key
    monkeypatch.setattr(family_code_module, "_built_in", lambda: "edited")
    assert CostMemory(None).key(student, SHAPE, 3) != key


def test_the_versions_of_torch_and_of_this_package_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from autodistill.training.costs import cost_memory

    keys = {CostMemory(None).key({"family": "resnet"}, SHAPE, 3)}
    for package in ("torch", "timm", "autodistill-search"):
        monkeypatch.setattr(cost_memory, "version_of", lambda name, package=package: "9" if name == package else "1")
        keys.add(CostMemory(None).key({"family": "resnet"}, SHAPE, 3))
    assert len(keys) == 4


def test_asking_for_two_hundred_students_takes_no_time() -> None:
    memory = CostMemory(None)
    started = time.perf_counter()
    for width in range(200):
        memory.key({"family": ("resnet", "timm", "vit")[width % 3], "width": width}, SHAPE, 3)
    assert time.perf_counter() - started < 1.0


def test_a_survey_kept_with_a_study_is_of_the_code_that_it_was_made_with(tmp_path: Path) -> None:
    rows = [SurveyRow({"family": name}, {"params": 1.0}) for name in ("mine", "resnet")]
    write_survey(tmp_path, rows, LatencyTarget(), machine="here", code={"mine": "old", "resnet": "same"})
    now = {"mine": "new", "resnet": "same"}
    assert earlier_survey(tmp_path, LatencyTarget(), machine="here", code=now) == rows[1:]


def test_the_code_of_a_family_is_the_same_before_and_after_torch_is_loaded() -> None:
    code = "from autodistill.training.costs.family_code import family_code\nprint(family_code('resnet'))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == family_code("resnet")
