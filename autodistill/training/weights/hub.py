"""The Hugging Face hub: what of it is on this machine, whether it can be reached, and downloads.

Every question about the network has an answer within seconds; ``huggingface_hub`` alone would retry for a minute.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from autodistill.core.errors import WeightsError, first_lines

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files in a repository, in the order in which timm looks for them."""

_SECONDS = 3.0
_REMEMBERED = 60.0  # seconds for which an answer about the network holds


class _Question:
    """A question to the hub, asked in a thread of its own: the request's timeout does not limit the DNS lookup."""

    def __init__(self) -> None:
        self.when = time.monotonic()
        self._found: list[bool] = []
        self._thread = threading.Thread(target=lambda: self._found.append(_answers()), daemon=True)
        self._thread.start()

    def answer(self) -> bool:
        """Wait for the answer until three seconds after the question."""
        self._thread.join(max(0.0, self.when + _SECONDS - time.monotonic()))
        return self._found == [True]


_asked: dict[str, _Question] = {}
"""Address of the hub, to the last question."""


def cached(repository: str, names: tuple[str, ...] = WEIGHT_FILES) -> Path | None:
    """Return the first of the named files of a repository (``owner/name`` or ``owner/name@revision``) in the cache."""
    from huggingface_hub import try_to_load_from_cache

    owner_name, _, revision = repository.partition("@")
    for name in names:
        found = try_to_load_from_cache(owner_name, name, revision=revision or None)
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    return None


def offline() -> bool:
    """Return whether the user has switched the hub off (``HF_HUB_OFFLINE``)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def ask() -> None:
    """Ask whether the hub can be reached, without waiting for the answer."""
    if not offline():
        _question()


def reachable() -> bool:
    """Return whether the hub answers within three seconds; the answer is remembered for a minute."""
    return not offline() and _question().answer()


def _question() -> _Question:
    known = _asked.get(_endpoint())
    if known is None or time.monotonic() - known.when > _REMEMBERED:
        known = _asked[_endpoint()] = _Question()
    return known


def size(repository: str) -> int:
    """Ask the hub for the size of the weights of a repository, in bytes.

    Raises:
        WeightsError: the hub has no such repository, or no weights in it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    owner_name, _, revision = repository.partition("@")
    problem: Exception | None = None
    for name in WEIGHT_FILES:
        try:
            found = get_hf_file_metadata(hf_hub_url(owner_name, name, revision=revision or None), timeout=10)
        except Exception as error:  # huggingface_hub raises errors of the HTTP library beside its own
            problem = error
            continue
        return int(found.size or 0)
    raise WeightsError(_refused(repository, " or ".join(WEIGHT_FILES), problem)) from problem


def download(repository: str, names: tuple[str, ...] = WEIGHT_FILES) -> Path:
    """Download the first of the named files that the repository has into the hub's cache.

    Raises:
        WeightsError: the repository or the file does not exist, or the download failed.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    owner_name, _, revision = repository.partition("@")
    problem: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(owner_name, name, revision=revision or None))
        except EntryNotFoundError as error:
            problem = error
        except Exception as error:
            raise WeightsError(_refused(repository, name, error)) from error
    raise WeightsError(_refused(repository, " or ".join(names), problem)) from problem


def _refused(repository: str, name: str, error: Exception | None) -> str:
    why = f" ({type(error).__name__}: {first_lines(error)})" if error is not None else ""
    return f"weights hf-hub:{repository}: the hub does not give {name}{why}. Check the name, or set HF_TOKEN."


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _answers() -> bool:
    try:
        request = urllib.request.Request(_endpoint(), method="HEAD")
        urllib.request.urlopen(request, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # an error response also shows that the hub is reachable
    except (OSError, ValueError):
        return False
    return True
