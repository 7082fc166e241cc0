"""Each promise of the page on reliability names its tests, and each of them exists."""

from __future__ import annotations

import ast
import re

import pytest
from page_text import DOCS
from places import ROOT

TEXT = (DOCS / "reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_every_promise_names_a_test() -> None:
    promises = re.split(r"\n(?=\*\*)", TEXT.partition("## Promises")[2].partition("## Repair")[0])[1:]
    assert len(promises) >= 10
    assert [text[:40] for text in promises if "- `tests/" not in text] == []


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
