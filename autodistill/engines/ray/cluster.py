"""Connection to Ray: a running cluster, or a private instance that lives as long as the search.

A private Ray requires a random token, listens on loopback only, has no dashboard, keeps its files in a folder that only
this user can enter, sends no usage statistics, and leaves no process or file behind.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodistill.core.errors import ResourceError, UsageError
from autodistill.engines.driving.environment import environment
from autodistill.engines.driving.slots import Slot

MIN_RAY = (2, 60)
_SOCKET_LIMIT = 107  # bytes in the path of a Unix socket
_SOCKET_TAIL = len("/r/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
_REMOVAL_SECONDS = 10.0
_REMOVAL_PAUSE = 0.1
_PRECISION = 10_000  # Ray's unit of resources is one ten-thousandth


@dataclass(frozen=True)
class WorkerResources:
    """Resources that one worker requests from the cluster.

    Attributes:
        cpus: Number of cores.
        gpus: Number of GPUs; a fraction lets several workers share one.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


def resources_of(slots: Sequence[Slot], cpus: float | None = None, gpus: float | None = None) -> WorkerResources:
    """Return the resources of each worker.

    Args:
        slots: Slots of all workers.
        cpus: Cores per worker; ``None``: the threads of its processes.
        gpus: GPUs per worker; ``None``: its share of a GPU or its GPUs on this machine.

    Raises:
        UsageError: Ray cannot provide them (e.g. 1.5 GPUs), or they are too few for the devices of a trial.
    """
    together = len(slots[0].devices) or 1
    sharing = Counter(slot.device for slot in slots if slot.device.startswith("cuda"))
    if gpus is None:
        part = (_PRECISION // max(sharing.values())) / _PRECISION if sharing else 0.0
        gpus = part if together == 1 else float(together if sharing else 0)
    threads = max(slot.threads for slot in slots)
    share = WorkerResources(float(cpus if cpus is not None else threads * together), float(gpus))
    if together > 1 and 0 < share.gpus < together:
        raise UsageError(
            f"a trial on {together} devices cannot be trained by a worker with {share.gpus:g} GPUs: use "
            f"gpus_per_worker={together}, or 0 to train on CPUs."
        )
    if share.cpus < 0 or share.gpus < 0 or (share.gpus > 1 and share.gpus % 1):
        raise UsageError(f"a worker cannot have {share}: use a whole number of GPUs, or a fraction below 1.")
    return share


def import_ray() -> Any:
    """Import and return the ``ray`` module.

    Raises:
        ResourceError: Ray is not installed, or too old to be started privately.
    """
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.tune")
    except ImportError as error:
        raise ResourceError(
            f"the engine ray needs Ray Tune, which cannot be imported ({error}). Run "
            'pip install "ray[tune]>=2.60", or use --engine local.'
        ) from error
    version = tuple(int(part) for part in str(ray.__version__).split(".")[:2])
    if version < MIN_RAY:
        raise ResourceError(
            f"the engine ray needs Ray 2.60 or newer, got {ray.__version__}; older versions cannot be started "
            'privately. Run pip install -U "ray[tune]>=2.60", or use --engine local.'
        )
    return ray


def refuse_open_door(environment: Mapping[str, str], *, trust_network: bool) -> None:
    """Refuse a Ray without authentication, where everyone who reaches a port can run code.

    Raises:
        UsageError: Token authentication is disabled in the environment, and the network is not trusted.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled" and not trust_network:
        raise UsageError(
            "RAY_AUTH_MODE=disabled lets everyone who can reach this Ray run code as you. Unset it (each run then uses "
            "a token of its own), or use --trust-network if no other person has access to this network."
        )


@contextlib.contextmanager
def cluster(
    slots: Sequence[Slot], share: WorkerResources, *, address: str | None = None, trust_network: bool = False
) -> Iterator[Any]:
    """Connect to a Ray with room for every slot, and disconnect or end it afterwards.

    Args:
        slots: One slot per worker.
        share: Resources of each worker.
        address: ``host:port`` of a cluster, or ``auto``; ``None``: ``RAY_ADDRESS``, else a private Ray.
        trust_network: Whether a Ray without authentication is allowed.

    Yields:
        The ``ray`` module.

    Raises:
        ResourceError: Ray is missing, no cluster answers at the address, or it has too few resources.
        UsageError: Authentication is disabled, or the address is a Ray Client address.
    """
    refuse_open_door(os.environ, trust_network=trust_network)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise UsageError(
            f"{address} is a Ray Client address, but a search must be started on a node of the cluster. "
            "Start it there with --ray-address auto."
        )
    running = sys.modules.get("ray")
    if running is not None and running.is_initialized():  # started by the caller, so leave it running
        check_room(running.nodes(), len(slots), share)
        yield running
        return
    with contextlib.ExitStack() as stack:
        if address == "local":
            ray = stack.enter_context(private_switches())
            stack.enter_context(_private(ray, slots, share))
        else:
            ray = import_ray()
            stack.enter_context(_connected(ray, address))
        check_room(ray.nodes(), len(slots), share)
        yield ray


@contextlib.contextmanager
def private_switches() -> Iterator[Any]:
    """Yield the ``ray`` module under the variables of :func:`private_environment`, which are restored afterwards."""
    try:
        with environment(private_environment(os.environ)):  # Ray reads some of them on import
            ray = import_ray()
            _read_switches_again()
            yield ray
    finally:
        _read_switches_again()


def _read_switches_again() -> None:
    """Make Ray read mode and token again; it does so once per process, so a second run would use an old token."""
    raylet: Any = getattr(sys.modules.get("ray"), "_raylet", None)
    if hasattr(raylet, "Config") and hasattr(raylet, "AuthenticationTokenLoader"):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def private_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a private Ray: its own token, loopback only, no statistics."""
    switches = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    if environment.get("RAY_AUTH_MODE", "").lower() != "disabled":  # refuse_open_door has checked that case
        switches |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return switches


def check_room(nodes: Sequence[Mapping[str, Any]], count: int, share: WorkerResources) -> None:
    """Check that the cluster has enough resources; Ray itself would wait for them without a message.

    Args:
        nodes: Nodes as listed by ``ray.nodes()``.
        count: Number of workers.
        share: Resources of each worker.

    Raises:
        ResourceError: The workers do not fit at the same time; the message lists the resources of the nodes.
    """
    alive = [node["Resources"] for node in nodes if node.get("Alive")]
    room = sum(_fitting(resources, share) for resources in alive)
    if room < count:
        has = "; ".join(f"{r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs" for r in alive) or "none alive"
        raise ResourceError(
            f"{count} workers with {share} each do not fit this Ray cluster: it has room for {room}. "
            f"Its nodes: {has}. Use fewer workers or smaller shares (cpus_per_worker, gpus_per_worker)."
        )


def _fitting(resources: Mapping[str, float], share: WorkerResources) -> int:
    requested = {"CPU": share.cpus, "GPU": share.gpus}
    counts = [int(round(resources.get(name, 0.0) / part, 6)) for name, part in requested.items() if part > 0]
    return min(counts, default=1 << 30)


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    with _own_signals():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"no Ray cluster answers at {address}: {error}. Start one with `ray start --head`, "
                "or give no address to use a private Ray on this machine."
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _private(ray: Any, slots: Sequence[Slot], share: WorkerResources) -> Iterator[None]:
    import psutil

    here = psutil.Process()
    before = set(here.children())
    with _private_folder() as folder, _loopback(ray):
        try:
            with _own_signals():
                ray.init(
                    address="local",
                    num_cpus=max(1, round(len(slots) * share.cpus)),
                    num_gpus=_whole_gpus(slots, share),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=str(folder / "r"),
                )
            yield
        finally:
            roots = [child for child in here.children() if child not in before]
            ours = [p for root in roots for p in [root, *_descendants(root)] if _is_ray(p)]
            ray.shutdown()
            for process in psutil.wait_procs(ours, timeout=5)[1]:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(ours, timeout=5)


def _descendants(process: Any) -> list[Any]:
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _is_ray(process: Any) -> bool:
    """Return whether a child process belongs to Ray; the user's code may have started other children."""
    import psutil

    try:
        return any("ray" in part for part in process.cmdline()[:2])
    except psutil.Error:
        return False


def _whole_gpus(slots: Sequence[Slot], share: WorkerResources) -> int:
    devices = {device for slot in slots for device in (slot.device, *slot.devices)}
    return sum(device.startswith("cuda") for device in devices) if share.gpus else 0


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder of mode 0700, with a path short enough for sockets, around Ray's world-writable folder."""
    folder = Path(tempfile.mkdtemp(prefix="ad-"))  # mode 0700
    try:
        length = len(os.fsencode(folder)) + _SOCKET_TAIL
        if length > _SOCKET_LIMIT:
            raise ResourceError(
                f"{tempfile.gettempdir()} is too long a path for Ray's sockets ({length} bytes, the limit is "
                f"{_SOCKET_LIMIT}); set TMPDIR to a shorter one."
            )
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the folder; a process of Ray that is about to end may still write to it, so try for some seconds."""
    end = time.monotonic() + _REMOVAL_SECONDS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_REMOVAL_PAUSE)
        if not folder.exists() or time.monotonic() > end:
            return


@contextlib.contextmanager
def _loopback(ray: Any) -> Iterator[None]:
    """Keep every port on 127.0.0.1 even if Ray was imported before the environment variables were set."""
    constants = getattr(getattr(ray, "_private", None), "ray_constants", None)
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    if before is None:
        yield
        return
    constants.ENABLE_RAY_CLUSTER = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before  # type: ignore[union-attr]


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the signal handlers of the search, since ``ray.init`` replaces the one of SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
