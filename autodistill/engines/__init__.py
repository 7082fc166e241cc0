"""CONNECTS search and training: engines drive a passive study with workers.

An engine is ``fn(study, factory, slots, watch)``: it asks the study (or what answers as one, ``driven.py``) for
candidates until it answers ``None``, has them evaluated by workers built with ``factory``, and hands every report and
every end back. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autodistill.records import EvaluateFactory
from autodistill.registry import Registry

if TYPE_CHECKING:
    from autodistill.engines.driven import Driven
    from autodistill.engines.slots import Slot
    from autodistill.engines.watch import Watch

Engine = Callable[["Driven", EvaluateFactory, "Sequence[Slot]", "Watch"], None]

engines: Registry[Engine] = Registry("engine", "autodistill.engines")


@engines.register("local")
def local(study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch, **options: Any) -> None:
    """This machine: one slot runs in this process (debuggable), several run as spawned processes."""
    from autodistill.engines.local import run

    run(study, factory, slots, watch, **options)


@engines.register("ray")
def ray(study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch, **options: Any) -> None:
    """Ray Tune, on this machine or on a cluster."""
    from autodistill.engines.ray import run

    run(study, factory, slots, watch, **options)
