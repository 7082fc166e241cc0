"""Procedural shapes: any size, any number of classes, any number of images, no files.

A class is one of eight outlines in one of as many hues as the number of classes needs. Position, size, rotation,
background and noise vary. With up to eight classes the hue is random and only the outline identifies the class. The
images are always the same; the seed of the data only affects the split.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autodistill.core.records import DataSpec
from autodistill.training.data.sources.base import LabelledImages, Part, check_options, data_sources, option

SHAPES = ("disc", "square", "triangle", "ring", "cross", "bar", "star", "crescent")
_CHUNK = 256
Array = NDArray[np.float64]


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
