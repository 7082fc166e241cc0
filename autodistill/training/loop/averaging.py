"""Exponential moving average of weights. The averaged weights are evaluated at rungs and saved.

The decay rises with the step, ``min(decay, (1 + step) / (10 + step))``, so that the random initial weights do not
dominate short trainings. Normalization statistics are averaged as well; counters are copied.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """The average of a model's weights and float buffers.

    Args:
        model: the model, already on its device; its tensors must stay the same objects afterwards.
        decay: largest decay; 0 turns averaging off.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        state = model.state_dict()
        self._live = [value.detach() for value in state.values() if value.is_floating_point()]
        self._counters = {name: value for name, value in state.items() if not value.is_floating_point()}
        names = [name for name, value in state.items() if value.is_floating_point()]
        self.values: dict[str, Tensor] = (
            {name: value.clone() for name, value in zip(names, self._live, strict=True)} if decay > 0 else {}
        )
        self._shadows = list(self.values.values())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the model's weights after ``step`` steps."""
        if self._shadows:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self._shadows, self._live, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Load the averaged weights into ``model``, a copy of the averaged model; do nothing if averaging is off."""
        if self.values:
            model.load_state_dict({**self.values, **self._counters})

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Restore stored ``values``.

        Raises:
            KeyError: a tensor is missing.
        """
        for name, shadow in self.values.items():
            shadow.copy_(values[name])
