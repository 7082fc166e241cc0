"""Formats of exported students; each entry has a function that writes a file and one that runs it.

For its check, a file is run by the library that users will run it with (timm, ONNX Runtime, torch's loaders), never by
the network in memory.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autodistill.core.errors import InfeasibleError, UsageError, first_line
from autodistill.core.records import MULTILABEL
from autodistill.core.registry import Registry
from autodistill.training.loop import decisions

if TYPE_CHECKING:
    from torch import nn

Images = NDArray[np.float32]
Predict = Callable[[Images], Images]
"""Function from normalized images ``(n, channels, side, side)`` to logits ``(n, classes)``."""

ONNX = "model.onnx"
_CALIBRATED = 0.99  # agreement with fp32 at which no further kinds of ranges are tried
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Subject:
    """The student to export.

    Attributes:
        model: the student, in eval mode on the CPU.
        facts: facts of the student, see ``training.trials.trial_files.student_facts``.
        calibration: normalized training images ``float32 (n, channels, side, side)``.
    """

    model: nn.Module
    facts: Mapping[str, Any]
    calibration: Images

    @property
    def several(self) -> bool:
        """Whether an image has any number of labels."""
        return bool(self.facts.get("task") == MULTILABEL)

    @property
    def shape(self) -> dict[str, int]:
        """Image size and channels as keywords."""
        return {"image_size": int(self.facts["image_size"]), "channels": int(self.facts["channels"])}


@dataclass(frozen=True)
class Format:
    """One export format.

    Attributes:
        file: name of the file in the exported folder.
        write: function that writes the file, and further files it needs, into a folder; returns a remark or "".
        predict: function that opens the file with a number of threads.
        exact: whether it computes in fp32, so that its logits must equal those of the network.
        needs: format from whose file it is made; empty if there is none.
    """

    file: str
    write: Callable[[Subject, Path], str]
    predict: Callable[[Path, int], Predict]
    exact: bool = True
    needs: str = ""


BUILT_IN = ("safetensors", "onnx", "onnx-int8", "onnx-fp16", "torchscript", "torch-export")
formats: Registry[Format] = Registry("export format", "autodistill.export_formats")


def _write_timm(subject: Subject, folder: Path) -> str:
    from autodistill.training.deployed.timm_files import timm_files

    files, plain = timm_files(subject.model, subject.facts)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return "" if plain else "timm reads it after 'import autodistill.training.deployed.timm_files'"


def _run_timm(path: Path, threads: int) -> Predict:
    from autodistill.training.deployed.timm_files import read_timm

    return _torch(read_timm(path.parent), threads)


def _write_onnx(subject: Subject, folder: Path) -> str:
    from autodistill.training.deployed.onnx_files import export_onnx

    size, channels = subject.shape["image_size"], subject.shape["channels"]
    return f"opset {export_onnx(subject.model, folder / ONNX, image_size=size, channels=channels).opset}"


def _run_onnx(path: Path, threads: int) -> Predict:
    from autodistill.training.deployed.onnx_files import open_session

    session = open_session(path, threads=threads)
    name = session.get_inputs()[0].name

    def predict(images: Images) -> Images:
        logits: Images = session.run(None, {name: images})[0]
        return logits

    return predict


def _write_int8(subject: Subject, folder: Path) -> str:
    """Quantize with static ranges; if predictions on the calibration images change, try the other kinds of ranges."""
    from autodistill.training.deployed.onnx_files import run_onnx
    from autodistill.training.deployed.quantize import RANGES, quantize_int8

    source, out = folder / ONNX, folder / formats.get("onnx-int8").file
    wanted = run_onnx(source, subject.calibration)
    best, remark, kept = -1.0, "", b""
    for ranges in RANGES:
        try:
            quantize_int8(source, out, calibration=subject.calibration, ranges=ranges)
        except InfeasibleError as error:
            if ranges == RANGES[0]:
                raise
            remark = remark or str(error)
            continue
        agreed = decisions.agreement(run_onnx(out, subject.calibration), wanted, several=subject.several)
        if agreed > best:
            best, remark, kept = agreed, f"static, {ranges} ranges", out.read_bytes()
        if best >= _CALIBRATED:
            break
    out.write_bytes(kept)
    if len(kept) >= source.stat().st_size:
        remark += f"; no smaller than {ONNX}: it has too few weights to offset the quantization parameters"
    return remark


def _write_fp16(_subject: Subject, folder: Path) -> str:
    from autodistill.training.deployed.quantize import to_fp16

    to_fp16(folder / ONNX, folder / formats.get("onnx-fp16").file)
    return ""


def _write_torchscript(subject: Subject, folder: Path) -> str:
    import torch

    model, images = _example(subject)
    with _quietly(f"{type(subject.model).__name__} cannot be traced"):
        traced = torch.jit.freeze(torch.jit.trace(model, images))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(folder / formats.get("torchscript").file))
    return "torch has deprecated TorchScript; prefer torch-export"


def _run_torchscript(path: Path, threads: int) -> Predict:
    import torch

    with _quietly(f"{path.name} cannot be loaded"):
        return _torch(torch.jit.load(str(path), map_location="cpu"), threads)  # type: ignore[no-untyped-call]


def _write_torch_export(subject: Subject, folder: Path) -> str:
    import torch

    model, images = _example(subject)
    with _quietly(f"{type(subject.model).__name__} cannot be captured by torch.export"):
        batch = torch.export.Dim("batch", min=1, max=4096)
        program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
        torch.export.save(program, folder / formats.get("torch-export").file)
    return "load it only from sources that you trust: torch.export.load can run code"


def _run_torch_export(path: Path, threads: int) -> Predict:
    import torch

    with _quietly(f"{path.name} cannot be loaded"):
        return _torch(torch.export.load(path).module(), threads)


def _example(subject: Subject) -> tuple[nn.Module, Any]:
    """Return the deployed form and two images, because torch would treat a batch of one as fixed."""
    import torch

    from autodistill.training.deployed.form import deploy

    return deploy(subject.model, **subject.shape), torch.from_numpy(subject.calibration[:2].copy())


def _torch(model: nn.Module, threads: int) -> Predict:
    import torch

    from autodistill.training.deployed.runtimes import threads as on_threads

    def predict(images: Images) -> Images:
        with on_threads(threads), torch.inference_mode():
            logits: Images = model(torch.from_numpy(images)).numpy()
        return logits

    return predict


@contextlib.contextmanager
def _quietly(what: str) -> Iterator[None]:
    """Convert any exception of torch to one sentence, and suppress its warnings.

    Raises:
        InfeasibleError: the code in the context failed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise InfeasibleError(f"{what}: {first_line(error)}") from error


def parse_formats(text: str | Sequence[str]) -> tuple[str, ...]:
    """Parse names of formats, in order and without repetition; ``all`` means every format.

    Raises:
        UnknownNameError: a format does not exist.
        UsageError: no format is given.
    """
    names = [part.strip() for part in text.split(",")] if isinstance(text, str) else list(text)
    names = [name for name in names if name]
    if "all" in names:
        names = [*BUILT_IN, *(name for name in formats.names() if name not in BUILT_IN)]
    if not names:
        raise UsageError(f"no format is given; allowed: {', '.join(formats.names())}, all.")
    for name in names:
        formats.get(name)
    return tuple(dict.fromkeys(names))


def in_batches(predict: Predict, images: Images) -> Images:
    """Apply ``predict`` to any number of images in batches."""
    return np.concatenate([predict(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])


formats.register("safetensors")(Format("model.safetensors", _write_timm, _run_timm))
formats.register("onnx")(Format(ONNX, _write_onnx, _run_onnx))
formats.register("onnx-int8")(Format("model-int8.onnx", _write_int8, _run_onnx, exact=False, needs="onnx"))
formats.register("onnx-fp16")(Format("model-fp16.onnx", _write_fp16, _run_onnx, exact=False, needs="onnx"))
formats.register("torchscript")(Format("model.torchscript.pt", _write_torchscript, _run_torchscript))
formats.register("torch-export")(Format("model.pt2", _write_torch_export, _run_torch_export))
