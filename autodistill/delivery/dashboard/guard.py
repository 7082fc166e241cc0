"""Who may see the dashboard, and what they may do: a WSGI wrapper around optuna-dashboard, which asks nobody.

Bound to loopback, it still meets other users of the machine and every web page that the user's browser has open. So:
only the expected ``Host`` (DNS rebinding), a secret token (other users), reading only unless asked, and with writing an
``Origin`` of our own (forged requests from other pages).
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
# With --write: notes and the form for candidates of one's own; never deleting, renaming or telling results. A trial's
# attributes cannot be set: its results are among them (rung:3), and the pages of the dashboard set none.
_WRITABLE = (
    ("PUT", re.compile(r"/api/studies/\d+/note")),
    ("PUT", re.compile(r"/api/studies/\d+/\d+/note")),
    ("POST", re.compile(r"/enqueue")),
)
_READ_ONLY = "The dashboard is read-only. Start it with --write to comment and to add candidates."
_NOT_WITH_WRITE = "This cannot be done here. Comments can be written, and candidates added at /enqueue; results stay."


def new_token() -> str:
    """A secret of 128 bits."""
    return secrets.token_urlsafe(16)


def guard(app: App, *, token: str, port: int, write: bool = False) -> App:
    """``app`` for those who know ``token`` only.

    The first visit carries it in the address (``/?token=…``); it moves into a cookie that scripts cannot read and
    other sites cannot send, and leaves the address.
    """
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    cookie = f"{COOKIE}-{port}"

    def guarded(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
        if environ.get("HTTP_HOST", "") not in hosts:
            return _refuse(start_response, "421 Misdirected Request", "This address is not the dashboard's own.")
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
    """Put the token into a cookie and send the browser to the address without it."""
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
    """Headers that keep other sites from reading or framing a page.

    Under ``no-referrer`` browsers send the form's POST with ``Origin: null``, which is refused; hence ``same-origin``.
    """

    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
        own = [("X-Frame-Options", "DENY"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "same-origin")]
        return start_response(status, kept + own, *rest)

    return start
