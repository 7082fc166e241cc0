"""Decoding of image files: depth, transparency, orientation; and the same in the ``predict.py`` of an export."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autodistill.core.errors import DataError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.data.sources import pictures
from autodistill.training.data.sources.decoding import decode, decode_sized

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
SQUARE = np.zeros((16, 16), dtype=np.uint8)
SQUARE[4:12, 4:12] = 255


def _twelve_bits(path: Path) -> None:
    """TIFF with 12 bits per pixel, from 0 to 4095; Pillow reads it but writes none."""
    import struct

    values = np.linspace(0, 4095, 256).astype(int)
    data = int("".join(f"{value:012b}" for value in values), 2).to_bytes(384, "big")
    sizes = {256: 16, 257: 16, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes.items())
    head = struct.pack("<H", len(sizes)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + head)


def _pgm(path: Path, most: int) -> None:
    path.write_bytes(b"P5 16 16 %d\n" % most + np.linspace(0, most, 256).astype(">u2").tobytes())


def _transparent(path: Path, mode: str) -> None:
    """A black square that is drawn in the alpha channel alone."""
    alpha = Image.fromarray(SQUARE)
    picture = Image.new("LA", (16, 16))
    picture.putalpha(alpha)
    picture.convert(mode).save(path)


def _key_colour(path: Path, mode: str) -> None:
    """A black square on a background whose colour is the transparent one."""
    Image.fromarray(255 - SQUARE).point(lambda value: 7 if value else 0).convert(mode).save(path, transparency=7)


DEEP: dict[str, Callable[[Path], None]] = {
    "grey16.png": lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path),
    "grey16.tif": lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path),
    "int32.tiff": lambda path: Image.fromarray(RAMP.astype(np.int32) * 257).save(path),
    "float.tif": lambda path: Image.fromarray(RAMP.astype(np.float32) / 255).save(path),
    "grey12.tif": _twelve_bits,
    "deep.pgm": lambda path: _pgm(path, 65535),
    "grey12.pgm": lambda path: _pgm(path, 4095),
}
CLEAR: dict[str, Callable[[Path], None]] = {
    "rgba.png": lambda path: _transparent(path, "RGBA"),
    "la.png": lambda path: _transparent(path, "LA"),
    "rgba.tif": lambda path: _transparent(path, "RGBA"),
    "rgba.webp": lambda path: Image.merge("RGBA", [Image.new("L", (16, 16))] * 3 + [Image.fromarray(SQUARE)]).save(
        path, lossless=True, exact=True
    ),
    "palette.png": lambda path: _key_colour(path, "P"),
    "grey.png": lambda path: _key_colour(path, "L"),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_deep_grey_keeps_its_shades(tmp_path: Path, name: str, mode: str) -> None:
    DEEP[name](tmp_path / name)
    pixels = decode(tmp_path / name, 16, mode=mode).astype(int)
    assert (abs(pixels - RAMP) <= 1).all()  # 12 bits and 16 bits do not meet every 8-bit value


@pytest.mark.parametrize("name", CLEAR)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_is_transparent_is_white(tmp_path: Path, name: str, mode: str) -> None:
    CLEAR[name](tmp_path / name)
    pixels = decode(tmp_path / name, 16, mode=mode)
    assert (pixels == 255 - SQUARE).all()


def test_half_transparent_black_is_grey_and_opaque_colours_stay(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "half.png")
    assert (decode(tmp_path / "half.png", 8, mode="L") == 127).all()
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    colours[..., 3] = 255
    Image.fromarray(colours).save(tmp_path / "opaque.png")
    assert (decode(tmp_path / "opaque.png", 8, mode="RGB") == colours[..., :3].transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 70_000, np.int32), "values from 70000 to 70000; allowed: 0 to 65535"),
        (np.full((4, 4), -1, np.int32), "values from -1 to -1; allowed: 0 to 65535"),
        (np.full((4, 4), 128, np.float32), "values from 128 to 128; allowed: 0 to 1"),
        (np.full((4, 4), np.nan, np.float32), "values from nan to nan; allowed: 0 to 1"),
    ],
)
def test_values_of_an_unknown_range_are_not_guessed_at(tmp_path: Path, values: np.ndarray, message: str) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=message):
        decode(tmp_path / "x.tif", 4, mode="L")


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png"])
def test_a_turned_image_is_upright(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(SQUARE[4:8, 2:6].repeat(4, 0).repeat(4, 1))  # the right half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turned clockwise
    picture.save(tmp_path / f"x.{suffix}", exif=exif)
    halves = decode(tmp_path / f"x.{suffix}", 16, mode="L")[0].reshape(2, 8, 16).mean((1, 2))
    assert halves == pytest.approx([0, 255], abs=2)


def test_predict_reads_files_as_the_training_did(tmp_path: Path) -> None:
    predict = files("autodistill.delivery.export").joinpath("templates", "predict.py.txt").read_text()
    (tmp_path / "predict.py").write_text(predict)
    colours = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "photo.jpg", quality=90)
    for name, write in (DEEP | CLEAR).items():
        write(tmp_path / name)
    for mode, channels in (("RGB", 3), ("L", 1)):
        spec = {"image_size": 12, "mode": mode, "mean": [0.0] * channels, "std": [1.0] * channels, "classes": []}
        (tmp_path / "preprocess.json").write_text(json.dumps(spec))
        read = runpy.run_path(str(tmp_path / "predict.py"))["read"]
        for name in ("photo.jpg", *DEEP, *CLEAR):
            pixels = decode(tmp_path / name, 12, mode=mode)
            assert np.array_equal(np.rint(read(tmp_path / name) * 255), pixels), name
    Image.fromarray(np.full((4, 4), 128, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="values from 128 to 128; allowed: 0 to 1"):
        read(tmp_path / "x.tif")


def test_pixels_that_another_decoder_left_in_the_cache_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, level in (("a", 0), ("b", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (8, 8), level).save(tmp_path / "images" / name / f"{number}.png")
    spec = DataSpec("image_folder", root=str(tmp_path / "images"), image_size=8)
    opened: list[Path] = []
    monkeypatch.setattr(
        pictures, "decode_sized", lambda path, *args, **keys: opened.append(path) or decode_sized(path, *args, **keys)
    )
    for _ in range(2):
        datasets.load_images(spec, tmp_path / "cache")
    assert len(opened) == 10  # a sixth of these are test images
    monkeypatch.setattr(pictures, "DECODER", pictures.DECODER + 1)
    datasets.load_images(spec, tmp_path / "cache")
    assert len(opened) == 20
