"""The pages say what is so: their commands parse, their Python imports what exists, their files are where they say."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from page_text import DOCS, PAGES, blocks, commands, name_of, prose
from places import ROOT
from typer.main import get_command

import autodistill as ad
from autodistill.cli import app
from autodistill.config.study_file import StudyConfig
from autodistill.core import strict_yaml
from autodistill.search.space.builtin import compose
from autodistill.search.space.space import SECTIONS, Space

PACKAGE = ROOT / "autodistill"
PROGRAM = get_command(app)
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words behind its name."""
    found: Any = PROGRAM
    rest = list(words)
    while hasattr(found, "commands") and rest:
        assert rest[0] in found.commands, f"there is no command {' '.join(words)}"
        found = found.commands[rest.pop(0)]
    return found, rest


@EVERY_PAGE
def test_every_command_of_a_page_parses(page: Path) -> None:
    for block in blocks(page, "bash"):
        for words in commands(block.text):
            if words[0].rpartition("/")[2] == "autodistill":
                found, rest = command_of(words[1:])
                found.make_context(words[1], [word for word in rest if word != "--debug"])


@EVERY_PAGE
def test_every_command_in_the_text_of_a_page_exists_and_has_its_flags(page: Path) -> None:
    for text in re.findall(r"`(autodistill [a-z][^`]*)`", prose(page)):
        words = [word.strip("'\"") for word in text.split()[1:]]
        found, rest = command_of(words[:2] if words[0] in ("spaces", "cache") else words[:1])
        assert rest == []
        flags = {name for one in found.params for name in [*one.opts, *one.secondary_opts]} | {"--help"}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= flags, text


def test_commands_that_do_not_exist_are_found(tmp_path: Path) -> None:
    found, rest = command_of(["search", "--bugdet", "5m"])
    with pytest.raises(Exception, match="bugdet"):
        found.make_context("search", rest)
    with pytest.raises(AssertionError, match="no command"):
        command_of(["serach"])


@EVERY_PAGE
def test_python_of_a_page_compiles_and_its_imports_of_autodistill_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(block.text, filename=name_of(page))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "autodistill":
                module = importlib.import_module(str(node.module))
                assert [one.name for one in node.names if not hasattr(module, one.name)] == []
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ad":
                assert node.attr in ad.__all__, f"autodistill.{node.attr}"


@EVERY_PAGE
def test_yaml_of_a_page_is_a_study_file_or_a_search_space(page: Path) -> None:
    for block in blocks(page, "yaml"):
        mapping = strict_yaml.load(block.text, name_of(page))[0]
        if set(mapping) <= {*SECTIONS, "include", "weights"}:
            alone = {"student": {"width": [1, 2]}}  # of a page that shows the other sections
            assert Space.parse({**alone, **compose(mapping)}).parameters
        else:
            assert StudyConfig.load(mapping).name


@EVERY_PAGE
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    names = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.py)`", prose(page))
    beside = {block.text.partition("\n")[0].removeprefix("# ") for block in blocks(page, "python")}
    written = {*beside, "predict.py"}  # what a reader writes, or an export
    missing = [name for name in names if name not in written and not _exists(name)]
    assert missing == []


def _exists(name: str) -> bool:
    if "/" in name:
        return any((folder / name).is_file() for folder in (ROOT, PACKAGE))
    return any(PACKAGE.rglob(name)) or (ROOT / name).is_file()


def test_every_public_name_has_an_entry_in_the_api_page_under_the_module_that_it_is_from() -> None:
    text = (DOCS / "reference" / "python_api.md").read_text(encoding="utf-8")
    homes = {**ad._PUBLIC, "search": "autodistill.api"}
    assert set(re.findall(r"^ +heading: autodistill\.(\w+)$", text, re.MULTILINE)) == set(ad.__all__)
    for name in ad.__all__:
        assert f"::: {homes[name]}.{name}\n" in text
        assert hasattr(importlib.import_module(homes[name]), name)


def test_every_page_is_in_the_navigation_and_every_entry_of_it_is_a_page() -> None:
    def leaves(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [leaf for one in (node.values() if isinstance(node, dict) else node) for leaf in leaves(one)]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    decisions = {page for page in pages if re.match(r"development/decisions/\d{4}-\d\d-\d\d-", page)}
    assert sorted(listed) == sorted(pages - decisions)


def test_every_decision_is_listed_and_says_its_day() -> None:
    folder = DOCS / "development" / "decisions"
    index = (folder / "index.md").read_text(encoding="utf-8")
    for page in sorted(folder.glob("2*.md")):
        assert f"]({page.name})" in index
        assert f"\n\n*{page.name[:10]}" in page.read_text(encoding="utf-8")


def test_every_environment_variable_of_the_code_is_on_its_page() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    assert set(re.findall(r"AUTODISTILL_[A-Z_]+", code)) == set(re.findall(r"`(AUTODISTILL_[A-Z_]+)`", page))


def test_every_page_that_the_code_names_exists() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").glob("*.py")]
    named = {name for path in files for name in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("english", "chinese"), [("README.md", "README.zh.md"), ("docs/getting_started.md", "docs/getting_started.zh.md")]
)
def test_the_chinese_page_has_the_commands_and_the_code_of_the_english_one(english: str, chinese: str) -> None:
    one, other = ROOT / english, ROOT / chinese

    def shell(page: Path) -> list[list[str]]:
        return [words for block in blocks(page, "bash") for words in commands(block.text)]

    assert shell(one) == shell(other)
    assert blocks(one, "python") == blocks(other, "python")
    links = [
        [target.replace(".zh.md", ".md") for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))]
        for page in (one, other)
    ]
    assert set(links[0]) ^ set(links[1]) <= {english.rpartition("/")[2]}  # each page links to the other


def test_the_evaluation_of_the_page_runs_as_it_stands_there(tmp_path: Path) -> None:
    (block,) = blocks(DOCS / "how_to" / "own_evaluation.md", "python")
    script = tmp_path / "own.py"
    script.write_text(block.text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AUTODISTILL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


SMALL = ["--train-size", "300", "--epochs", "3", "--survey", "6", "--set", "student.family=resnet"]


@pytest.mark.slow
def test_the_commands_of_the_first_page_run(tmp_path: Path) -> None:
    """Those of the first ten minutes on a smaller problem; the search itself is shorter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AUTODISTILL_CACHE": str(tmp_path / "cache")}
    ran = []
    for block in blocks(DOCS / "getting_started.md", "bash"):
        for words in commands(block.text):
            if words[0] != "autodistill" or words[1] in ("doctor", "verify"):
                continue
            short = {"5m": "60s", "12": "0"}
            line = [short.get(word, word) for word in words[1:]] + (SMALL if words[1] == "search" else [])
            done = subprocess.run(
                [sys.executable, "-m", "autodistill", *line],
                capture_output=True,
                text=True,
                env=environment,
                cwd=tmp_path,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            ran.append(words[1])
    assert ran == ["search", "front", "front", "front", "trials", "show", "report", "export"]
    assert (tmp_path / "student" / "model.onnx").is_file()
