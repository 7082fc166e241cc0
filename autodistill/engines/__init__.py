"""Engines: they connect search and training by running the candidates of a passive study on workers.

An engine is a function ``fn(study, factory, slots, watch)``. It gets candidates from the study (any object with the
protocol of ``driving/driven.py``) until ``study.ask()`` returns ``None``, evaluates them on workers built with
``factory``, and passes every report and every end of a trial to the study. It makes no decisions of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import UnknownNameError
from autodistill.core.records import EvaluateFactory
from autodistill.core.registry import Registry
from autodistill.engines.ray.options import RayOptions

if TYPE_CHECKING:
    from autodistill.engines.driving.driven import Driven
    from autodistill.engines.driving.slots import Slot
    from autodistill.engines.monitor.watch import Watch

Engine = Callable[["Driven", EvaluateFactory, "Sequence[Slot]", "Watch"], None]

engines: Registry[Engine] = Registry("engine", "autodistill.engines")


@engines.register("local")
def run_locally(study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch) -> None:
    """Run on this machine: one worker in this process (for debuggers), several as spawned processes."""
    from autodistill.engines.local import run

    run(study, factory, slots, watch)


def _with_options(
    options: type[RayOptions],
) -> Callable[[Callable[[Driven, EvaluateFactory, Sequence[Slot], Watch, RayOptions], None]], Callable[..., None]]:
    """Return a decorator that makes an engine whose keywords are the fields of the dataclass ``options``."""

    def decorator(
        run: Callable[[Driven, EvaluateFactory, Sequence[Slot], Watch, RayOptions], None],
    ) -> Callable[..., None]:
        @functools.wraps(run)
        def engine(
            study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch, **keywords: Any
        ) -> None:
            run(study, factory, slots, watch, options(**keywords))

        own = list(inspect.signature(run).parameters.values())[:-1]
        keywords = [one.replace(kind=one.KEYWORD_ONLY) for one in inspect.signature(options).parameters.values()]
        vars(engine)["__signature__"] = inspect.Signature([*own, *keywords])
        return engine

    return decorator


@engines.register("ray")
@_with_options(RayOptions)
def run_with_ray(
    study: Driven, factory: EvaluateFactory, slots: Sequence[Slot], watch: Watch, options: RayOptions
) -> None:
    """Run with Ray Tune, on this machine or a cluster; :class:`RayOptions` explains the keywords."""
    from autodistill.engines.ray.engine import run

    run(study, factory, slots, watch, options)


def check_keywords(name: str, options: Iterable[str], caller: Callable[..., Any]) -> None:
    """Check that an engine accepts the given keywords; an engine with ``**options`` has to check them itself.

    Args:
        name: Name of the engine.
        options: Names of the keywords for the engine.
        caller: Function that passes them on; its own keywords are listed in the error message too.

    Raises:
        UnknownNameError: A keyword is unknown; the message lists the nearest names.
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
