"""The page of a report: one HTML file that opens offline, with everything it needs inside.

Every word from a study is escaped by the template engine; scripts run only by the hashes that the page's content
policy names, so a class called ``<script>`` stays a class name.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TEMPLATES = Path(__file__).parent / "templates"


def render(facts: Mapping[str, Any], figures: Mapping[str, go.Figure], extra: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        facts: what the template shows, by its names.
        figures: Plotly figures by the id of their place.
        extra: further values for the script.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(_TEMPLATES, encoding="utf-8")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    plotly = _plotly() if figures else ""
    data = {**extra, "figures": {name: plain(figure) for name, figure in figures.items()}}
    return environment.get_template("report.html").render(
        **facts,
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup(script),
        plotly=Markup(plotly),
        data=Markup(script_json(data)),
        policy=policy([text for text in (plotly, script) if text]),
    )


def policy(scripts: list[str]) -> str:
    """A content policy without network in which only these scripts run; Plotly sets styles of its own."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def plain(figure: go.Figure) -> dict[str, Any]:
    """A figure as JSON values, without the template whose colours the page replaces by its own."""
    out: dict[str, Any] = json.loads(figure.to_json())
    out["layout"].pop("template", None)
    return out


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=list)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text.replace("\r\n", "\n").replace("</script", "<\\/script")
