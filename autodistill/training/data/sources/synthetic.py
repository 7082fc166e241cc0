"""Procedural shapes: any size, any number of classes, any number of images, no files.

``synthetic`` draws one shape per image, ``synthetic_scenes`` up to three, for several labels per image.

A class of ``synthetic`` is one of eight outlines in one of as many hues as the number of classes needs. Position,
size, rotation, background and noise vary. With up to eight classes the hue is random and only the outline identifies
the class. The images are always the same; the seed of the data only affects the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.records import MULTICLASS, MULTILABEL, DataSpec
from autodistill.training.data.sources.base import (
    LabelledImages,
    Part,
    check_options,
    class_readers,
    data_sources,
    label_kinds,
    option,
)

SHAPES = ("disc", "square", "triangle", "ring", "cross", "bar", "star", "crescent")
_CHUNK = 256
Array = NDArray[np.float64]


label_kinds.register("synthetic")(MULTICLASS)
label_kinds.register("synthetic_scenes")(MULTILABEL)


@data_sources.register("synthetic")
def synthetic(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
    """Draw the images of one part, ``(count, 3, size, size)``; the test part has a quarter as many.

    Options: ``classes`` (10), ``size`` (32, or the image size), ``count`` (2000), ``noise`` (0.1; standard deviation of
    the pixel noise, where black is 0 and white is 1).
    """
    del cache_dir
    check_options(spec, ("classes", "size", "count", "noise"))
    classes = option(spec, "classes", 10, low=2, high=10_000)
    size = spec.image_size or option(spec, "size", 32, low=4, high=1024)
    count = option(spec, "count", 2000, low=4 * classes)
    noise = option(spec, "noise", 0.1, low=0.0, high=2.0)
    count = count if part == "train" else max(count // 4, classes)
    labels = np.arange(count, dtype=np.int64) % classes
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    for start in range(0, count, _CHUNK):
        rng = np.random.default_rng([*part.encode(), start])
        block = slice(start, min(start + _CHUNK, count))
        images[block] = _draw(labels[block], size, classes=classes, noise=noise, rng=rng)
    return LabelledImages(images, labels, class_names(classes))


@class_readers.register("synthetic")
def synthetic_classes(spec: DataSpec) -> tuple[str, ...]:
    """Return the class names."""
    return class_names(option(spec, "classes", 10, low=2, high=10_000))


@data_sources.register("synthetic_scenes")
def synthetic_scenes(spec: DataSpec, part: Part, cache_dir: Path) -> LabelledImages:
    """Draw scenes ``(count, 3, size, size)`` of up to three shapes; the test part has a quarter as many.

    A label is an outline. An image has none to three of them, one to a quadrant, each in a hue of its own, so that
    nothing but the outline tells a label.

    Options: ``classes`` (6, at most 8), ``size`` (32, or the image size), ``count`` (2000), ``noise`` (0.1; standard
    deviation of the pixel noise, where black is 0 and white is 1).
    """
    del cache_dir
    check_options(spec, ("classes", "size", "count", "noise"))
    classes = option(spec, "classes", 6, low=2, high=len(SHAPES))
    size = spec.image_size or option(spec, "size", 32, low=8, high=1024)
    count = option(spec, "count", 2000, low=8 * classes)
    noise = option(spec, "noise", 0.1, low=0.0, high=2.0)
    count = count if part == "train" else max(count // 4, 2 * classes)
    rng = np.random.default_rng([*part.encode(), classes])
    labels = np.zeros((count, classes), dtype=np.int64)
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    for row in range(count):
        shown = rng.permutation(classes)[: rng.integers(0, min(3, classes) + 1)]
        labels[row, shown] = 1
        images[row] = _scene([SHAPES[label] for label in shown], size, noise=noise, rng=rng)
    return LabelledImages(images, labels, SHAPES[:classes])


@class_readers.register("synthetic_scenes")
def scene_labels(spec: DataSpec) -> tuple[str, ...]:
    """Return the names of the labels."""
    return SHAPES[: option(spec, "classes", 6, low=2, high=len(SHAPES))]


def class_names(classes: int) -> tuple[str, ...]:
    """Return the class names: outlines (``disc`` …) for up to eight classes, else with a hue (``disc-0`` …)."""
    if classes <= len(SHAPES):
        return SHAPES[:classes]
    return tuple(f"{SHAPES[label % len(SHAPES)]}-{label // len(SHAPES)}" for label in range(classes))


def _draw(
    labels: NDArray[np.int64], size: int, *, classes: int, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw images ``uint8 (b, 3, size, size)`` of the labels ``(b,)``."""
    count = len(labels)
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    scale = rng.uniform(0.45, 0.8, (count, 1, 1))
    angle = rng.uniform(-0.35, 0.35, (count, 1, 1))
    shift = rng.uniform(-0.25, 0.25, (2, count, 1, 1))
    x, y = axis[None, None, :] - shift[0], axis[None, :, None] - shift[1]
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / scale, (y * np.cos(angle) - x * np.sin(angle)) / scale
    depth = np.stack([_inside(SHAPES[label % len(SHAPES)], u[i], v[i]) for i, label in enumerate(labels)])
    cover = np.clip(depth * scale * size / 2 + 0.5, 0.0, 1.0)[:, None]  # antialiased over one pixel
    hues = -(-classes // len(SHAPES))
    hue = rng.random(count) if hues == 1 else (labels // len(SHAPES) + rng.uniform(-0.2, 0.2, count)) / hues
    ink = _rgb(hue, rng.uniform(0.7, 1.0, count))
    paper = rng.uniform(0.0, 0.35, (count, 3))
    picture = cover * ink[:, :, None, None] + (1 - cover) * paper[:, :, None, None]
    picture = picture + noise * rng.standard_normal(picture.shape)
    return np.rint(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)


def _scene(shapes: Sequence[str], size: int, *, noise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw an image ``uint8 (3, size, size)`` with each of the shapes in another quadrant."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    picture: Array = np.broadcast_to(rng.uniform(0.0, 0.35, (3, 1, 1)), (3, size, size))
    for shape, quadrant in zip(shapes, rng.permutation(4), strict=False):
        scale, angle = rng.uniform(0.36, 0.48), rng.uniform(-0.35, 0.35)
        across, down = quadrant % 2 - 0.5 + rng.uniform(-0.08, 0.08), quadrant // 2 - 0.5 + rng.uniform(-0.08, 0.08)
        x, y = axis[None, :] - across, axis[:, None] - down
        u, v = (x * np.cos(angle) + y * np.sin(angle)) / scale, (y * np.cos(angle) - x * np.sin(angle)) / scale
        cover = np.clip(_inside(shape, u, v) * scale * size / 2 + 0.5, 0.0, 1.0)
        ink = _rgb(rng.random(1), rng.uniform(0.7, 1.0, 1))[0]
        picture = cover * ink[:, None, None] + (1 - cover) * picture
    picture = picture + noise * rng.standard_normal(picture.shape)
    return np.rint(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)


def _inside(shape: str, u: Array, v: Array) -> Array:
    """Return the approximate signed distance to the outline, positive inside, of a shape that fits the unit disc."""
    radius: Array = np.hypot(u, v)
    across: Array = np.minimum(0.22 - abs(v), 0.9 - abs(u))
    along: Array = np.minimum(0.22 - abs(u), 0.9 - abs(v))
    distances: dict[str, Array] = {
        "disc": 0.85 - radius,
        "square": 0.72 - np.maximum(abs(u), abs(v)),
        "triangle": np.minimum(0.5 - v, 0.5 * v - 0.866 * abs(u) + 0.5),
        "ring": 0.2 - abs(radius - 0.68),
        "cross": np.maximum(across, along),
        "bar": across,
        "star": 0.58 + 0.3 * np.cos(5 * np.arctan2(u, -v)) - radius,
        "crescent": np.minimum(0.85 - radius, np.hypot(u - 0.45, v) - 0.65),
    }
    return distances[shape]


def _rgb(hue: Array, value: Array) -> Array:
    """Return saturated colours ``(b, 3)``, given hues in turns and values in [0, 1]."""
    phase = hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])
    saturated: Array = value[:, None] * np.clip(abs(phase % 6 - 3) - 1, 0.1, 1.0)
    return saturated
