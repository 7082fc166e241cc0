"""Embeddings of a network: the inputs of its classifier, one vector per image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from autodistill.core.errors import UsageError


class EmbeddingTap:
    """Hook that keeps the classifier's input of the last forward pass of ``model``.

    Args:
        model: a timm network, or one whose last linear layer is its classifier.

    Raises:
        UsageError: The network has no classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        self._seen: Tensor | None = None
        self._hook = classifier_of(model).register_forward_pre_hook(self._note)

    def take(self) -> Tensor:
        """Return the embeddings ``(batch, width)`` of the last forward pass, and forget them.

        Raises:
            UsageError: The classifier has not been called since the last ``take``.
        """
        if self._seen is None:
            raise UsageError("the network's classifier was not called; its embedding cannot be used.")
        seen, self._seen = self._seen, None
        return seen

    def remove(self) -> None:
        """Remove the hook from the network."""
        self._hook.remove()

    def _note(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Keep the embeddings as vectors, and pass a view of them to the classifier.

        The logits then depend on these vectors, also if the classifier is a convolution on maps of one pixel.
        """
        given: Tensor = inputs[0]
        if given.ndim < 2 or given.numel() != given.shape[0] * given.shape[1]:
            raise UsageError(f"the classifier reads {tuple(given.shape)}; expected one vector per image.")
        self._seen = given.flatten(1)
        return (self._seen.view(given.shape), *inputs[1:])


def classifier_of(model: nn.Module) -> nn.Module:
    """Return the layer that computes the logits from the embedding.

    Raises:
        UsageError: The network has no classifier and no linear layer.
    """
    found = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    if isinstance(found, nn.Module) and not isinstance(found, nn.Identity):
        return found
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UsageError(f"{type(model).__name__} has no linear layer; embedding terms need a classifier.")
    return linear[-1]


def heads_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return all layers that compute logits: the classifier, or the two of networks made for distillation.

    Raises:
        UsageError: The network has no classifier and no linear layer.
    """
    found = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    if isinstance(found, tuple | list) and found and all(isinstance(one, nn.Module) for one in found):
        return tuple(found)
    return (classifier_of(model),)


def embedding_width(model: nn.Module) -> int:
    """Return the width of the embedding.

    Raises:
        UsageError: The input width of the classifier is unknown.
    """
    classifier = classifier_of(model)
    for name in ("in_features", "in_channels"):
        width = getattr(classifier, name, None)
        if isinstance(width, int):
            return width
    raise UsageError(f"the input width of classifier {type(classifier).__name__} is unknown.")
