"""Access control of the dashboard: a WSGI wrapper around optuna-dashboard, which has none.

On the loopback interface, other users of the machine and every web page open in the user's browser can send requests.
The wrapper therefore checks the ``Host`` (against DNS rebinding) and a secret token (against other users). It is
read-only by default; with writing, it checks that the ``Origin`` is the dashboard (against forged requests from other
pages).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

StartResponse = Callable[..., Any]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

COOKIE = "autodistill-dashboard"
_READ = ("GET", "HEAD")
# With --write, notes and the form for candidates are allowed, but never deleting, renaming or setting results. A
# trial's attributes cannot be set, because its results are among them (rung:3); the pages of the dashboard set none.
_WRITABLE = (
    ("PUT", re.compile(r"/api/studies/\d+/note")),
    ("PUT", re.compile(r"/api/studies/\d+/\d+/note")),
    ("POST", re.compile(r"/enqueue")),
)
_READ_ONLY = "The dashboard is read-only. Start it with --write to comment and to add candidates."
_NOT_WITH_WRITE = "This is not allowed. You can write comments, and add candidates at /enqueue; results cannot change."


def new_token() -> str:
    """Return a random secret of 128 bits."""
    return secrets.token_urlsafe(16)


def guard(app: App, *, token: str, port: int, write: bool = False) -> App:
    """Wrap ``app`` so that only requests with ``token`` reach it.

    The first visit has the token in the address (``/?token=…``). The wrapper stores it in a cookie that scripts cannot
    read and other sites cannot send, and redirects to the address without it.
    """
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    cookie = f"{COOKIE}-{port}"

    def guarded(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
        if environ.get("HTTP_HOST", "") not in hosts:
            return _refuse(start_response, "421 Misdirected Request", "This is not the address of the dashboard.")
        query = parse_qs(environ.get("QUERY_STRING", ""))
        given = query.pop("token", [""])[0]
        if given and method in _READ and _same(given, token):
            return _welcome(start_response, path, query, f"{cookie}={token}")
        if not _same(_cookie(environ, cookie), token):
            message = "A token is missing or wrong. Open the address that 'autodistill dashboard' printed."
            return _refuse(start_response, "401 Unauthorized", message)
        if method not in _READ and not (write and _may_write(method, path)):
            return _refuse(start_response, "403 Forbidden", _NOT_WITH_WRITE if write else _READ_ONLY)
        if method not in _READ and environ.get("HTTP_ORIGIN", "") not in {f"http://{host}" for host in hosts}:
            return _refuse(start_response, "403 Forbidden", "The request comes from another site.")
        if not (environ.get("CONTENT_LENGTH") or "0").isdecimal():
            return _refuse(start_response, "400 Bad Request", "The length of the request is no number.")
        return app(environ, _hardened(start_response))

    return guarded


def _may_write(method: str, path: str) -> bool:
    return any(method == allowed and pattern.fullmatch(path.rstrip("/")) for allowed, pattern in _WRITABLE)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _cookie(environ: Mapping[str, Any], name: str) -> str:
    try:
        jar = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def _welcome(start_response: StartResponse, path: str, query: Mapping[str, list[str]], cookie: str) -> list[bytes]:
    """Set the token as a cookie and redirect the browser to the address without it."""
    local = "/" + path.lstrip("/\\")  # "//host" would leave this server
    where = local + (f"?{urlencode(query, doseq=True)}" if query else "")
    headers = [
        ("Location", where.encode("ascii", "replace").decode()),
        ("Set-Cookie", f"{cookie}; Path=/; HttpOnly; SameSite=Strict"),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("Content-Length", "0"),
    ]
    start_response("303 See Other", headers)
    return []


def _refuse(start_response: StartResponse, status: str, message: str) -> list[bytes]:
    body = f"{message}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


def _hardened(start_response: StartResponse) -> StartResponse:
    """Add headers that prevent other sites from reading or framing a page.

    The referrer policy is ``same-origin``: with ``no-referrer``, browsers send the form's POST with ``Origin: null``,
    which the guard refuses.
    """

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
        own = [("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "same-origin")]
        return start_response(status, kept + own, *rest)

    return start
