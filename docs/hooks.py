"""Hooks of the documentation site: fill the generated pages, and adapt what is written for a repository browser."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import generate  # noqa: E402  (mkdocs loads this file by its path)

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):<code>~?([^<]*)</code>")
_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the markers of a page, and turn links to files outside ``docs/``, which the site lacks, into text."""
    folder = posixpath.dirname(page.file.src_uri)

    def as_text(match: re.Match[str]) -> str:
        words, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith("docs/"):
            return match.group(0)
        return f"`{path}`" if path.startswith(words.strip("`")) else f"{words}, `{path}`"

    return _LINK.sub(as_text, generate.fill(markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Show ``:class:`Report``` of a docstring as code."""
    return _ROLE.sub(r"<code>\1</code>", html)
