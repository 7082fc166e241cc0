"""What stands in the pages of the documentation: code blocks, commands, prose. For tests/docs/."""

from __future__ import annotations

import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from places import ROOT

DOCS = ROOT / "docs"
PAGES = [
    *sorted(path for path in DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md")),
]
_BLOCK = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced code block.

    Attributes:
        language: the word behind the fence.
        info: the rest of that line.
        text: what is inside.
    """

    language: str
    info: str
    text: str


def name_of(path: Path) -> str:
    """The path of a page from the root of the project."""
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    """The code blocks of a page in one language."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(kind, info.strip(), text) for _, kind, info, text in found if kind == language]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def commands(text: str) -> list[list[str]]:
    """The simple commands of a shell script as lists of words, without comments and assignments before them."""
    out = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", "|", ";")), len(words))
            command, words = words[:end], words[end + 1 :]
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command = command[1:]
            if command:
                out.append(command)
    return out


def load_generator() -> ModuleType:
    """``docs/generate.py``, which is in no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
