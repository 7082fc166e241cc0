"""Parses device names, and spreads a teacher over several devices.

A network that does not fit on one device is split into consecutive parts of about equal bytes, one for each device.
Hooks move the inputs of a part to its device. The network is split between blocks only, because residual paths and
state inside a block could combine tensors of two devices. Parameters of the network itself (position embeddings, class
tokens) stay on the first device, where they are used. The parts run one after the other: this saves memory, not time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autodistill.core.errors import TeacherError, UnknownNameError, UsageError


def parse_devices(names: str | Sequence[str]) -> tuple[torch.device, ...]:
    """Return the torch devices called ``names``, one or several.

    Raises:
        UsageError: The list is empty, a name is not a device, or this machine does not have the device.
    """
    several = [names] if isinstance(names, str) else list(names)
    if not several:
        raise UsageError("teacher.device is an empty list; name a device, several, or leave the key out.")
    return tuple(_device(name) for name in several)


def spread_over(network: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
    """Move the blocks of ``network`` to ``devices``, in order and in place; return ``network``.

    Args:
        network: a network that has not been spread before.
        devices: target devices; a device may be listed twice.

    Raises:
        TeacherError: The network has fewer blocks than there are devices.
    """
    units = list(_units(network))
    if len(units) < len(devices):
        raise TeacherError(
            f"the teacher has {len(units)} blocks that can be put on different devices, and teacher.device names "
            f"{len(devices)} devices. Name fewer."
        )
    for tensor in itertools.chain(network.parameters(recurse=False), network.buffers(recurse=False)):
        tensor.data = tensor.data.to(devices[0])
    for unit, place in zip(units, _places(units, len(devices)), strict=True):
        unit.to(devices[place])
        unit.register_forward_pre_hook(_MoveInputs(devices[place]), with_kwargs=True)
    return network


def is_spread(network: nn.Module) -> bool:
    """Return whether ``network`` was spread over devices, so that it must not be moved as a whole."""
    return any(isinstance(hook, _MoveInputs) for part in network.modules() for hook in part._forward_pre_hooks.values())


class _MoveInputs:
    """Forward pre-hook that moves the arguments of a module to its device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, _module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return _moved(args, self.device), _moved(kwargs, self.device)


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that must not be split, in order: children, and the elements of plain containers of blocks."""
    for child in module.children():
        plain = isinstance(child, nn.Sequential | nn.ModuleList) and type(child) in (nn.Sequential, nn.ModuleList)
        if plain and len(list(child.children())) > 1:
            yield from _units(child)
        else:
            yield child


def _places(units: Sequence[nn.Module], count: int) -> list[int]:
    """Return the device index of each unit: consecutive, every device used, about equal bytes per device."""
    sizes = [1 + sum(t.nbytes for t in itertools.chain(unit.parameters(), unit.buffers())) for unit in units]
    total, done = sum(sizes), 0
    places: list[int] = []
    for index, size in enumerate(sizes):
        wanted = int((done + size / 2) / total * count)
        last = places[-1] if places else 0
        must = count - (len(sizes) - index)  # smallest index for which the units left still reach the last device
        places.append(max(min(wanted, last + 1 if places else 0), last, must))
        done += size
    return places


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(item, device) for item in value)
    return value


def _device(name: str) -> torch.device:
    present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UnknownNameError("device of the teacher", str(name), present) from error
    absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if absent or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise UnknownNameError("device of the teacher", str(name), present, "This machine has no other.")
    return device
