"""The page of a report: one self-contained HTML file that opens offline.

The template engine escapes all text from a study, and the page's content security policy allows only scripts with
known hashes, so that e.g. a class named ``<script>`` is shown as text.
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
    """Render the whole page.

    Args:
        facts: variables of the template.
        figures: Plotly figures by the id of their element.
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
    """Return a content security policy without network access that allows only these scripts, and inline styles.

    Plotly needs inline styles.
    """
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def plain(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as JSON values, without its template, because the page sets its own colours."""
    out: dict[str, Any] = json.loads(figure.to_json())
    out["layout"].pop("template", None)
    return out


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element: it cannot end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=list)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text.replace("\r\n", "\n").replace("</script", "<\\/script")
