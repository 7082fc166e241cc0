"""From the text that names weights to a frozen value: where they are, their network, licence, size and input.

A text is one of these, for students and teachers alike:

- ``mobilenetv3_small_100`` or ``mobilenetv3_small_100.lamb_in1k``: weights of timm, from the hub or its cache here;
- ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision``: a repository of the hub in timm's format;
- ``local-dir:FOLDER``, or a folder with a ``config.json`` of timm, such as one of ``autodistill export``;
- a folder of ``autodistill teach``;
- ``STUDY#12``: the student of a finished trial of another study;
- a file: ``.safetensors``, or one of torch that holds only tensors.

Resolving a text reads no weights. Only ``hf-hub:`` may ask the network, for the repository's configuration.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from autodistill.core.errors import TeacherError, WeightsError, nearest
from autodistill.training.weights import hub
from autodistill.training.weights.files import SUFFIXES, check_file, read_weights
from autodistill.training.weights.folders import (
    BESIDE,
    StoredNetwork,
    card_licence,
    find_network,
    find_trial,
    read_config,
)
from autodistill.training.weights.licences import OWN, UNKNOWN

Kind = Literal["timm", "hub", "folder", "file"]

HUB = ("hf-hub:", "hf_hub:")
LOCAL = "local-dir:"
TRIAL = re.compile(r"^(?P<study>.+)#(?P<number>\d+)$")
_LISTED = 8


@dataclass(frozen=True)
class WeightSource:
    """Weights that a text names.

    Attributes:
        text: the text.
        kind: ``timm`` (its table), ``hub`` (another repository), ``folder`` or ``file``.
        file: the file with the weights; ``None`` if it is not on this machine yet.
        licence: licence in lower case; ``unknown`` if none is stated, ``own`` if autodistill trained them from nothing.
        size: bytes of the file; ``None`` if it is not here and the hub was not asked.
        name: timm's name of their network; empty if unknown.
        student: family and parameters of their network, if autodistill made it.
        arguments: further keywords with which timm builds their network.
        image_size: pixels per side of the input that they were trained with; ``None`` if unknown.
        channels: channels of that input; ``None`` if unknown.
        mean: mean per channel that the input is normalized with, of pixels in [0, 1]; ``None`` if unknown.
        std: standard deviation per channel; ``None`` if unknown.
        classes: names of their classes; ``None`` if unknown.
        count: number of their classes; ``None`` if unknown.
        repository: repository of the hub that has them; empty if none.
        url: address outside the hub, if that is where timm has them.
    """

    text: str
    kind: Kind
    file: Path | None = None
    licence: str = UNKNOWN
    size: int | None = None
    name: str = ""
    student: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    count: int | None = None
    repository: str = ""
    url: str = ""
    stored: StoredNetwork | None = field(default=None, repr=False)

    @property
    def is_here(self) -> bool:
        """Whether the weights are on this machine."""
        return self.file is not None

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the file's content, which identify the weights.

        Raises:
            WeightsError: the weights are not here, or cannot be read.
        """
        if self.file is None:
            raise WeightsError(f"weights {self.text} are not on this machine yet.")
        try:
            status = self.file.stat()
            return _digest(self.file, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise WeightsError(f"weights {self.text} cannot be read: {error}.") from error

    @property
    def identity(self) -> str:
        """Text that is equal for equal weights: the name of published ones, else the hash of the file."""
        return self.text if self.kind in ("timm", "hub") else self.fingerprint

    @property
    def words(self) -> str:
        """The text with size and licence, for users."""
        size = "size unknown" if self.size is None else f"{self.size / 1e6:,.1f} MB"
        licence = "trained by autodistill" if self.licence == OWN else f"licence {self.licence}"
        return f"{self.text} ({size}, {licence})"

    def tensors(self) -> dict[str, Tensor]:
        """Read the named tensors; opening a file never runs its code.

        Raises:
            WeightsError: the weights are not here yet.
            TeacherError: the file is missing, damaged, or of a kind that is not opened.
        """
        if self.file is None:
            raise WeightsError(f"weights {self.text} are not on this machine yet.")
        return self.stored.tensors() if self.stored is not None else read_weights(self.file)

    def facts(self) -> dict[str, Any]:
        """Return what is stored with a network that started from these weights."""
        return {"source": self.text, "licence": self.licence, "fingerprint": self.fingerprint if self.is_here else ""}


def resolve(text: str) -> WeightSource:
    """Find the weights that a text names.

    Raises:
        WeightsError: the text names nothing, what it names is missing or damaged, or the configuration of a repository
            is neither here nor at a hub that can be reached. The message names the nearest names.
    """
    if text.startswith(HUB):
        return _of_repository(text)
    if text.startswith(LOCAL):
        return _of_network(text, find_network(Path(text.removeprefix(LOCAL)).expanduser()))
    if found := TRIAL.match(text):
        return _of_network(text, find_trial(Path(found["study"]).expanduser(), int(found["number"])))
    path = Path(text).expanduser()
    if path.is_dir():
        return _of_network(text, find_network(path))
    if path.is_file() or path.suffix.lower() in SUFFIXES or "/" in text:
        try:
            check_file(path)
        except TeacherError as error:
            raise WeightsError(str(error)) from error
        if (path.parent / BESIDE.get(path.name, "?")).is_file():
            return _of_network(text, find_network(path.parent))
        return WeightSource(text, "file", path, size=path.stat().st_size)
    return _of_timm(text)


def _of_timm(text: str) -> WeightSource:
    import timm

    architecture, _, tag = text.partition(".")
    if not timm.is_model(architecture):
        close = nearest(text, timm.list_models())
        raise WeightsError(
            f"weights {text!r}: neither a network of timm nor a file or folder here"
            + (f"; did you mean {' or '.join(map(repr, close))}?" if close else ".")
            + " Weights are a name of timm, a file, a folder, STUDY#TRIAL, hf-hub:OWNER/NAME or local-dir:FOLDER."
        )
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and text not in tags:
        have = f" has: {', '.join(tags[:_LISTED])}." if tags else " has none."
        raise WeightsError(f"weights {text!r}: timm has no weights with the tag {tag!r}; for {architecture} it{have}")
    config = timm.get_pretrained_cfg(text)
    if config is None or not config.has_weights:
        family = re.split(r"[_\d]", architecture)[0]
        near = sorted(
            {one.split(".")[0] for one in timm.list_pretrained(f"{family}*")}, key=lambda one: one != architecture
        )
        close = nearest(architecture, near, _LISTED)
        others = f" Networks like it that have: {', '.join(close)}." if close else ""
        raise WeightsError(f"timm has no pretrained weights for {architecture}.{others}")
    if config.hf_hub_filename or (config.custom_load and not config.hf_hub_id):
        usable = [one for one in tags if timm.get_pretrained_cfg(one).hf_hub_id and one != text]
        raise WeightsError(
            f"weights {text!r} are in a format of their own, which is not read here. Others of this network: "
            f"{', '.join(usable[:_LISTED]) or 'none'}."
        )
    repository = str(config.hf_hub_id or "")
    url = "" if repository else str(config.url)
    file = hub.cached(repository) if repository else _downloaded(url)
    channels, side = int(config.input_size[0]), int(config.input_size[-1])
    return WeightSource(
        text, "timm", file, str(config.license or UNKNOWN).lower(), None if file is None else file.stat().st_size,
        name=text, image_size=side, channels=channels, mean=tuple(config.mean), std=tuple(config.std),
        count=int(config.num_classes), repository=repository, url=url,
    )  # fmt: skip


def _of_repository(text: str) -> WeightSource:
    """Read the configuration of a repository of the hub, from the cache if it is there."""
    repository = text.split(":", 1)[1]
    config = hub.cached(repository, ("config.json",))
    if config is None:
        if not hub.reachable():
            raise WeightsError(unreachable([text]))
        config = hub.download(repository, ("config.json",))
    file = hub.cached(repository)
    stored = read_config(config.parent, file or config.parent / hub.WEIGHT_FILES[0])
    licence = stored.licence
    if not licence:
        card = hub.cached(repository, ("README.md",))
        licence = "" if card is None else card_licence(card)
    found = _of_network(text, replace(stored, licence=licence, verified=False))
    return replace(
        found, kind="hub", file=file, size=None if file is None else file.stat().st_size, repository=repository
    )


def _of_network(text: str, stored: StoredNetwork) -> WeightSource:
    size = stored.file.stat().st_size if stored.file.is_file() else None
    return WeightSource(
        text, "folder", stored.file if size is not None else None, stored.licence or UNKNOWN, size, stored.name,
        stored.student, stored.arguments, stored.image_size, stored.channels, stored.mean, stored.std,
        stored.classes, stored.count, stored=stored,
    )  # fmt: skip


def _downloaded(url: str) -> Path | None:
    """Return torch's copy of a file from an address outside the hub, if it is here."""
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1].split("?")[0]
    return path if path.is_file() else None


def require(sources: Iterable[WeightSource]) -> None:
    """Check that all weights are on this machine or can be fetched; takes seconds at most.

    Raises:
        WeightsError: some are not here and the hub cannot be reached. The message names them, and those that are here.
    """
    every = list(sources)
    missing = [one.text for one in every if not one.is_here]
    if missing and not hub.reachable():
        raise WeightsError(unreachable(missing, [one.text for one in every if one.is_here]))


def unreachable(missing: list[str], here: Iterable[str] = ()) -> str:
    """Return the message about weights that are not here while the hub cannot be reached."""
    have = list(here)
    cause = "cannot be reached (HF_HUB_OFFLINE is set)" if hub.offline() else "cannot be reached"
    listed = f" Weights that are here: {', '.join(have)}." if have else ""
    return (
        f"the pretrained weights of {', '.join(missing)} are not on this machine and the hub {cause}.{listed} Bring "
        "them into the hub's cache (the folder HF_HOME) from a machine with a network, or give a file or folder as "
        "weights."
    )


def sized(source: WeightSource) -> WeightSource:
    """Return the source with its size, which the hub is asked for if the weights are not here.

    Raises:
        WeightsError: the hub does not have them.
    """
    if source.size is not None or not source.repository:
        return source
    return replace(source, size=hub.size(source.repository))


def fetch(source: WeightSource) -> WeightSource:
    """Return the source with its file, which is downloaded if it is not here.

    Raises:
        WeightsError: the hub cannot be reached, or does not have the weights.
    """
    if source.is_here:
        return source
    require([source])
    file = hub.download(source.repository) if source.repository else _download(source)
    stored = None if source.stored is None else replace(source.stored, file=file)
    return replace(source, file=file, size=file.stat().st_size, stored=stored)


def _download(source: WeightSource) -> Path:
    """Download weights from an address outside the hub to where torch keeps them."""
    from timm.models._hub import download_cached_file

    try:
        return Path(download_cached_file(source.url, progress=False))
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"weights {source.text} cannot be downloaded from {source.url}: {error}.") from error


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    """Return 16 hex digits of a file's content; size and time of change tell a cached answer from a new file."""
    del size, changed
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
