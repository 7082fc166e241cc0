"""CONNECTS search and training: engines drive a passive study with workers.

An engine is ``fn(study, factory, slots, watch)``: it asks the study (or what answers as one, ``driven.py``) for
candidates until it answers ``None``, has them evaluated by workers built with ``factory``, and hands every report and
every end back. It decides nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import UnknownNameError
from autodistill.core.records import EvaluateFactory
from autodistill.core.registry import Registry

if TYPE_CHECKING:
    from autodistill.engines.driving.driven import Driven
    from autodistill.engines.driving.slots import Slot
    from autodistill.engines.monitor.watch import Watch

Engine = Callable[["Driven", EvaluateFactory, "Sequence[Slot]", "Watch"], None]

engines: Registry[Engine] = Registry("engine", "autodistill.engines")


@engines.register("local")
def local(study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch) -> None:
    """This machine: one slot runs in this process (debuggable), several run as spawned processes."""
    from autodistill.engines.local import run

    run(study, factory, slots, watch)


@engines.register("ray")
def ray(
    study: Driven,
    factory: EvaluateFactory,
    slots: Sequence[Slot],
    watch: Watch,
    *,
    address: str | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    trust_network: bool = False,
    storage: str | None = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Ray Tune, on this machine or on a cluster; the keywords are explained in ``ray.py``."""
    from autodistill.engines.ray.engine import run

    run(
        study,
        factory,
        slots,
        watch,
        address=address,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        trust_network=trust_network,
        storage=storage,
        callbacks=callbacks,
    )


def check_keywords(name: str, options: Iterable[str], caller: Callable[..., Any]) -> None:
    """Refuse keywords that an engine does not take; an engine with ``**options`` says itself what it takes.

    Args:
        name: of the engine.
        options: the keywords that it is to be given.
        caller: the function that passes them on, whose own keywords may have been meant.

    Raises:
        UnknownNameError: the first that is unknown, with the nearest.
    """
    parameters = list(inspect.signature(engines.get(name)).parameters.values())[4:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    taken = [p.name for p in parameters]
    own = [p.name for p in inspect.signature(caller).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in taken:
            hint = f"The engine is {name!r}."
            raise UnknownNameError(f"keyword of {caller.__name__}", option, [*own, *taken], hint)
