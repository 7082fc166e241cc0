"""Images that are not square: crop, squash and letterbox, from the file to the exported ``predict.py``."""

from __future__ import annotations

import json
import runpy
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv
from typer.testing import CliRunner

from autodistill import cli
from autodistill.config.study_file import StudyConfig, differences
from autodistill.core.errors import ConfigError, UnknownNameError
from autodistill.core.records import DataSpec
from autodistill.delivery.export.companion_files import preprocessing
from autodistill.training.data import datasets
from autodistill.training.data.sources.decoding import decode
from autodistill.training.deployed.timm_files import _config

RESIZES = ("crop", "squash", "letterbox")
GREY = 114


def _noise(width: int, height: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, bands), dtype=np.uint8)


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_noise(40, 24)).save(path, exif=exif)


def _palette(path: Path) -> None:
    Image.fromarray(_noise(24, 40)).quantize(16).save(path)


ODD: dict[str, Any] = {
    "line.png": lambda path: Image.fromarray(_noise(5000, 1)).save(path),
    "column.png": lambda path: Image.fromarray(_noise(1, 5000)).save(path),
    "portrait.png": lambda path: Image.fromarray(_noise(48, 64)).save(path),
    "portrait.jpg": lambda path: Image.fromarray(_noise(480, 640)).save(path, quality=88),
    "turned.png": _turned,
    "turned.jpg": _turned,
    "alpha.png": lambda path: Image.fromarray(_noise(40, 24, 4), "RGBA").save(path),
    "deep.png": lambda path: Image.fromarray(_noise(40, 24, 1)[..., 0].astype(np.uint16) * 257).save(path),
    "palette.png": _palette,
    "square.png": lambda path: Image.fromarray(_noise(16, 16)).save(path),
    "tiny.png": lambda path: Image.fromarray(_noise(3, 2)).save(path),
}


def _by_torchvision(path: Path, side: int, resize: str) -> np.ndarray:
    """An independent implementation: torchvision's transforms of a Pillow image, made upright and put on white here."""
    picture = Image.open(path)
    picture.draft("RGB", (side, side))
    picture = {6: lambda p: p.rotate(-90, expand=True)}.get(picture.getexif().get(0x0112), lambda p: p)(picture)
    if picture.mode == "RGBA":
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        picture = white
    elif picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    picture = picture.convert("RGB")
    width, height = picture.size
    bicubic = InterpolationMode.BICUBIC
    if resize == "squash":
        picture = tv.resize(picture, [side, side], bicubic)
    elif resize == "crop":
        short = min(width, height)  # the middle is cut out first, so that nothing is rounded to whole target pixels
        box = ((width - short) / 2, (height - short) / 2, (width + short) / 2, (height + short) / 2)
        picture = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    else:
        inner = [max(1, round(length * side / max(width, height))) for length in (height, width)]
        picture = tv.resize(picture, inner, bicubic)
        left, top = (side - inner[1]) // 2, (side - inner[0]) // 2
        picture = tv.pad(picture, [left, top, side - inner[1] - left, side - inner[0] - top], fill=GREY)
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("resize", RESIZES)
def test_every_way_gives_the_pixels_of_torchvision(tmp_path: Path, name: str, resize: str) -> None:
    ODD[name](tmp_path / name)
    pixels = decode(tmp_path / name, 16, mode="RGB", resize=resize)
    expected = _by_torchvision(tmp_path / name, 16, resize)
    assert pixels.shape == (3, 16, 16)
    assert abs(pixels.astype(int) - expected).max() <= (1 if name == "alpha.png" else 0)  # two roundings of alpha


def test_the_default_crops_as_it_always_did(tmp_path: Path) -> None:
    from PIL import ImageOps

    for name, write in ODD.items():
        write(tmp_path / name)
        by_default = decode(tmp_path / name, 16, mode="RGB")
        assert np.array_equal(by_default, decode(tmp_path / name, 16, mode="RGB", resize="crop"))
    picture = Image.open(tmp_path / "portrait.png")
    fitted = ImageOps.fit(picture, (16, 16), Image.Resampling.BICUBIC)
    cropped = decode(tmp_path / "portrait.png", 16, mode="RGB")
    assert np.array_equal(cropped, np.asarray(fitted).transpose(2, 0, 1))


def test_a_letterbox_shows_the_whole_image_between_grey_borders(tmp_path: Path) -> None:
    Image.new("RGB", (48, 96), (200, 10, 30)).save(tmp_path / "x.png")
    pixels = decode(tmp_path / "x.png", 32, mode="RGB", resize="letterbox")
    assert (pixels[:, :, :8] == GREY).all()
    assert (pixels[:, :, 24:] == GREY).all()
    assert (pixels[:, :, 8:24] == np.array([200, 10, 30])[:, None, None]).all()
    grey = decode(tmp_path / "x.png", 32, mode="L", resize="letterbox")
    assert (grey[:, :, :8] == GREY).all()
    assert grey.shape == (1, 32, 32)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_predict_reads_odd_shapes_as_the_training_did(tmp_path: Path, resize: str, channels: int) -> None:
    template = files("autodistill.delivery.export").joinpath("templates", "predict.py.txt").read_text()
    (tmp_path / "predict.py").write_text(template)
    facts = {"image_size": 24, "channels": channels, "mean": [0.0], "std": [1.0], "classes": ["a"], "resize": resize}
    (tmp_path / "preprocess.json").write_text(json.dumps(preprocessing(facts)))
    read = runpy.run_path(str(tmp_path / "predict.py"))["read"]
    for name, write in ODD.items():
        write(tmp_path / name)
        pixels = decode(tmp_path / name, 24, mode="L" if channels == 1 else "RGB", resize=resize)
        assert np.array_equal(read(tmp_path / name), pixels.astype(np.float32) / 255), name


def test_predict_crops_where_an_earlier_export_does_not_say_how(tmp_path: Path) -> None:
    template = files("autodistill.delivery.export").joinpath("templates", "predict.py.txt").read_text()
    (tmp_path / "predict.py").write_text(template)
    facts = {"image_size": 8, "channels": 3, "mean": [0.0], "std": [1.0], "classes": ["a"]}
    spec = preprocessing(facts)
    assert spec["resize_mode"] == "crop"
    assert spec["resize"].startswith("shorter side to image_size")
    assert "padding" not in spec
    del spec["resize_mode"]
    (tmp_path / "preprocess.json").write_text(json.dumps(spec))
    ODD["portrait.png"](tmp_path / "x.png")
    pixels = runpy.run_path(str(tmp_path / "predict.py"))["read"](tmp_path / "x.png")
    assert np.array_equal(np.rint(pixels * 255), decode(tmp_path / "x.png", 8, mode="RGB"))
    (tmp_path / "preprocess.json").write_text(json.dumps({**spec, "resize_mode": "fold"}))
    with pytest.raises(ValueError, match="resize_mode 'fold'; allowed: crop, squash, letterbox"):
        runpy.run_path(str(tmp_path / "predict.py"))["read"](tmp_path / "x.png")


@pytest.mark.parametrize(("resize", "timms"), [("crop", "center"), ("squash", "squash"), ("letterbox", "border")])
def test_timm_files_state_how_images_become_square(resize: str, timms: str) -> None:
    facts = {"image_size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": ["a", "b"]}
    config = _config(torch.nn.Identity(), {**facts, "resize": resize}, "x", {})
    assert config["pretrained_cfg"]["crop_mode"] == timms
    assert _config(torch.nn.Identity(), facts, "x", {})["pretrained_cfg"]["crop_mode"] == "center"


def _photos(root: Path, size: tuple[int, int] = (12, 16), count: int = 8) -> DataSpec:
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 100, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels + np.uint8(100 * label)).save(root / name / f"{number}.png")
    return DataSpec("image_folder", root=str(root), image_size=8)


def _with(spec: DataSpec, resize: Any) -> DataSpec:
    return DataSpec(spec.source, root=spec.root, image_size=spec.image_size, resize=resize)


def test_each_way_is_another_data_set_in_its_own_place_of_the_cache(tmp_path: Path) -> None:
    spec = _photos(tmp_path / "photos")
    prints, places = set(), set()
    for resize in RESIZES:
        data = datasets.load_images(_with(spec, resize), tmp_path / "cache")
        prints.add(data.fingerprint)
        places |= {path.name for path in (tmp_path / "cache" / "images").iterdir()}
        file = next(iter(sorted((tmp_path / "photos" / "cat").iterdir())))
        shown = decode(file, 8, mode="RGB", resize=resize)
        pool = [
            *data.train.images,
            *data.val.images,
            *datasets.load_test(_with(spec, resize), tmp_path / "cache").images,
        ]
        assert any(np.array_equal(image, shown) for image in pool)
    assert len(prints) == 3
    again = datasets.load_images(spec, tmp_path / "cache")
    assert again.fingerprint == datasets.load_images(_with(spec, "crop"), tmp_path / "cache").fingerprint


def test_cropped_images_keep_the_place_in_the_cache_that_they_had(tmp_path: Path) -> None:
    from autodistill.core.records import stable_key
    from autodistill.training.data.sources.decoding import DECODER
    from autodistill.training.data.sources.image_folder import list_images

    spec = _photos(tmp_path / "photos")
    datasets.load_images(spec, tmp_path / "cache")
    listing = list_images(Path(str(spec.root)), "train")
    key = stable_key([listing.key(), (len(listing.files), 3, 8, 8), "RGB", DECODER])
    assert (tmp_path / "cache" / "images" / key).is_dir()


def test_square_images_are_equal_in_every_way(tmp_path: Path) -> None:
    spec = _photos(tmp_path / "photos", (12, 12))
    prints = {datasets.load_images(_with(spec, resize), tmp_path / "cache").fingerprint for resize in RESIZES}
    assert len(prints) == 1


def test_what_cropping_cuts_off_is_said_with_the_alternatives(tmp_path: Path) -> None:
    spec = _photos(tmp_path / "photos", (12, 16))
    data = datasets.load_images(spec, tmp_path / "cache")
    # 12 x 12 of 12 x 16 are left; three of the 16 images are for testing, and their headers are not read
    message = r"cuts off 25% of their pixels on average; 13 of 13 images lose .* --resize squash .* --resize letterbox"
    with pytest.warns(UserWarning, match=message):
        datasets.warn_of_cut(spec, data)


@pytest.mark.parametrize(("size", "resize"), [((15, 16), "crop"), ((12, 16), "squash"), ((12, 16), "letterbox")])
def test_nothing_is_said_where_little_or_nothing_is_cut_off(tmp_path: Path, size: tuple[int, int], resize: str) -> None:
    spec = _with(_photos(tmp_path / "photos", size), resize)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datasets.warn_of_cut(spec, datasets.load_images(spec, tmp_path / "cache"))


ARRAYS = """
import numpy as np

def tall(part, classes=2):
    rng = np.random.default_rng(part == "test")
    labels = np.arange(40) % classes
    return rng.integers(0, 256, (40, 3, 18, 9), dtype=np.uint8), labels
"""


@pytest.mark.parametrize("resize", RESIZES)
def test_arrays_that_are_not_square_become_so_in_the_same_way(
    tmp_path: Path, resize: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tall_arrays.py").write_text(ARRAYS)
    monkeypatch.syspath_prepend(tmp_path)
    raw = np.random.default_rng(False).integers(0, 256, (40, 3, 18, 9), dtype=np.uint8)
    spec = DataSpec("tall_arrays:tall", image_size=12, resize=resize)
    data = datasets.load_images(spec)
    first = int(data.train.ids[0])
    Image.fromarray(raw[first].transpose(1, 2, 0)).save(tmp_path / "x.png")
    assert np.array_equal(data.train.images[0], decode(tmp_path / "x.png", 12, mode="RGB", resize=resize))
    assert datasets.load_images(DataSpec("tall_arrays:tall", resize=resize)).image_size == 9  # the shorter side
    assert datasets.load_test(spec).images.shape == (40, 3, 12, 12)
    if resize == "crop":
        with pytest.warns(UserWarning, match="cuts off 50% of their pixels on average; 40 of 40 images"):
            datasets.warn_of_cut(spec, data)
    else:
        datasets.warn_of_cut(spec, data)


def test_a_misspelt_way_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'leterbox'; did you mean 'letterbox'"):
        datasets.load_images(DataSpec("digits", resize="leterbox"))  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"--resize: got 'sqash'; did you mean 'squash'\? allowed: squash, crop, letter"
    ):
        StudyConfig.load(None, {"data": "digits", "data.resize": "sqash"}, flags={"data.resize": "--resize"})


def test_a_study_of_before_crops_and_another_way_is_refused_by_its_name(tmp_path: Path) -> None:
    config = StudyConfig.load({"data": {"source": "digits"}})
    stored = config.resolved()
    del stored["data"]["resize"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(stored))
    before = StudyConfig.load(tmp_path / "study.yaml")
    assert before.data is not None
    assert before.data.resize == "crop"
    assert differences(before, config) == []
    other = StudyConfig.load({"data": {"source": "digits", "resize": "squash"}})
    assert differences(before, other) == ["data.resize: the study has 'crop', this run has 'squash'"]


@pytest.mark.parametrize("command", ["search", "teach"])
def test_the_flag_is_checked_before_anything_is_read(command: str, tmp_path: Path) -> None:
    spec = _photos(tmp_path / "photos", count=4)
    flags = ["--data", "image_folder", "--data-root", str(spec.root), "--image-size", "8", "--resize", "crup"]
    result = CliRunner().invoke(cli.app, [command, *flags, "--dir", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "--resize: got 'crup'; did you mean 'crop'?" in result.output
    assert not (tmp_path / "out").exists()
