"""Server of ``autodistill dashboard``: the Optuna dashboard of a study on loopback, by default read-only."""

from __future__ import annotations

import contextlib
import copy
import socketserver
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autodistill.core.errors import ResourceError, StudyInUseError
from autodistill.delivery.dashboard.enqueue_page import enqueue_page
from autodistill.delivery.dashboard.guard import App, guard, new_token
from autodistill.delivery.dashboard.notes import ARTIFACTS, annotate
from autodistill.search.storage.study_folder import folder_lock

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from autodistill.search.study.study import Study

HOST = "127.0.0.1"
_BOOKKEEPING = ("candidate", "attempts", "counted", "spent", "rung:", "decision:", "variant:")


@dataclass(frozen=True)
class Running:
    """A dashboard that is ready to serve.

    Attributes:
        url: address of the study with the token, which gives access.
        server: the server; ``serve_forever()`` serves until ``shutdown()``.
        busy: whether a search is writing to the study, so that the notes were not updated.
    """

    url: str
    server: WSGIServer
    busy: bool

    @property
    def enqueue_url(self) -> str:
        """Address of the form for candidates, for a browser that has opened ``url`` before."""
        return f"http://{HOST}:{self.server.server_address[1]}/enqueue"


@contextlib.contextmanager
def dashboard(study: Study, *, port: int = 0, write: bool = False) -> Iterator[Running]:
    """Create the dashboard of ``study`` on loopback; the caller runs the server.

    Args:
        study: study, opened for reading.
        port: TCP port; 0 selects a free one.
        write: allow comments and new candidates.

    Raises:
        ResourceError: the port is in use.
    """
    busy = False
    if study.directory is not None:
        try:
            with folder_lock(study.directory):
                annotate(study)
        except StudyInUseError:
            busy = True
        except ResourceError:
            pass  # the folder is read-only, so the notes are not updated
    token = new_token()
    holder: list[App] = []
    server = _server(port, lambda environ, start: holder[0](environ, start))
    with server:
        bound = server.server_address[1]
        holder.append(guard(_app(study, write), token=token, port=int(bound), write=write))
        page = f"dashboard/studies/{study.optuna._study_id}"
        yield Running(f"http://{HOST}:{bound}/{page}?token={token}", server, busy)


def _app(study: Study, write: bool) -> App:
    """Build optuna-dashboard for the study's storage, with the form for candidates if ``write``."""
    from optuna.artifacts import FileSystemArtifactStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of its optional dependencies
        from optuna_dashboard import wsgi
    store = None
    if study.directory is not None:
        folder = study.directory / ARTIFACTS
        with contextlib.suppress(OSError):  # a read-only study
            folder.mkdir(mode=0o700, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "experimental" since Optuna 3.3
            store = FileSystemArtifactStore(str(folder))
    inner: App = wsgi(_readable(study.optuna._storage), artifact_store=store)
    return enqueue_page(inner, study) if write else inner


def _readable(storage: BaseStorage) -> BaseStorage:
    """Hide internal attributes of the trials; the notes contain the same facts in words."""
    inner = storage.get_all_trials

    def visible(*args: Any, **kwargs: Any) -> list[FrozenTrial]:
        out = []
        for stored in inner(*args, **{**kwargs, "deepcopy": False}):
            trial = copy.copy(stored)
            trial.user_attrs = _shown(stored.user_attrs)
            out.append(trial)
        return out

    vars(storage)["get_all_trials"] = visible  # on this storage object only
    return storage


def _shown(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if not key.startswith(_BOOKKEEPING)}


class _Quiet(WSGIRequestHandler):
    """Request handler without log lines, because the address with the token must not be logged."""

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


class _Threading(socketserver.ThreadingMixIn, WSGIServer):
    """Server with one thread per request, so that a slow importance plot does not block the page."""

    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that a browser closes early."""
        del request, client_address


def _server(port: int, app: App) -> WSGIServer:
    try:
        return make_server(HOST, port, app, server_class=_Threading, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise ResourceError(
            f"cannot listen on {HOST}:{port}: {error}. Choose another --port; 0 selects a free one."
        ) from None
