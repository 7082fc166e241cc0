"""The page ``/enqueue`` of a dashboard with ``--write``: a form to add candidates that the next search trains first."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from autodistill.core import strict_yaml
from autodistill.core.errors import AutodistillError
from autodistill.delivery.dashboard.guard import App, StartResponse

if TYPE_CHECKING:
    from autodistill.search.study.study import Study

_LIMIT = 64_000  # largest size of a form in bytes; a candidate has a few hundred
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Add a candidate</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }}
textarea {{ width: 100%; height: 18rem; font: 14px/1.4 ui-monospace, monospace; }}
button {{ font: inherit; padding: .4rem 1rem; }} .message {{ border-left: 4px solid; padding-left: 1rem; }}
</style></head><body>
<h1>Add a candidate to {name}</h1>
{message}
<p>The next search on this study trains it first. Every active parameter of the space must be given.</p>
<form method="post" action="/enqueue">
<label for="text">Candidate (YAML)</label><br>
<textarea id="text" name="text" spellcheck="false">{text}</textarea><br>
<button>Add</button></form>
<p><a href="/dashboard">Back to the dashboard</a></p>
</body></html>
"""


def enqueue_page(app: App, study: Study) -> App:
    """Add the page ``/enqueue`` to ``app``."""

    def with_page(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").rstrip("/") != "/enqueue":
            return app(environ, start_response)
        if environ["REQUEST_METHOD"] != "POST":
            return _answer(start_response, "200 OK", study, _example(study))
        text = _form(environ)
        try:
            sections = strict_yaml.load(text, "the form")[0]
            study.enqueue(sections if isinstance(sections, dict) else {})
        except AutodistillError as error:
            return _answer(start_response, "400 Bad Request", study, text, str(error))
        return _answer(start_response, "200 OK", study, text, "Added. The next search on this study trains it first.")

    return with_page


def _form(environ: dict[str, Any]) -> str:
    length = min(int(environ.get("CONTENT_LENGTH") or 0), _LIMIT)
    body: bytes = environ["wsgi.input"].read(length)
    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get("text", [""])[0].replace("\r\n", "\n")


def _example(study: Study) -> str:
    """Return the knee of the front, or the latest trial, as YAML to edit."""
    trials = study.trials()
    trial = study.front().knee() or (trials[-1] if trials else None)
    sections = ("student", "distillation", "train")
    given = {name: dict(getattr(trial, name)) if trial is not None else {} for name in sections}
    text: str = strict_yaml.dump({name: values for name, values in given.items() if values})
    return text


def _answer(start_response: StartResponse, status: str, study: Study, text: str, message: str = "") -> list[bytes]:
    note = f'<p class="message" role="status">{escape(message)}</p>' if message else ""
    body = _PAGE.format(name=escape(study.name), message=note, text=escape(text)).encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"),
    ]
    start_response(status, headers)
    return [body]
