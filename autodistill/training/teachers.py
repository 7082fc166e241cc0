"""Reads every kind of teacher: taught folders, timm networks, factories, ONNX, stored logits, ensembles.

Nothing that is read can run code, with one exception that the user writes down as such: ``module:factory``.
Pickled networks (TorchScript, ``.pkl``, whole-module ``.pt``, ``.pt2``) are refused; ``.pth`` and ``.pt``
files are opened with ``weights_only`` and must hold tensors.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autodistill.errors import TeacherError, UsageError, first_lines, unknown_name
from autodistill.records import TeacherSpec, stable_key
from autodistill.teacher_choice import ANSWER, CHOICE, INPUT, member
from autodistill.training import students
from autodistill.training.builder_code import code_of
from autodistill.training.checkpoint import tensors_from
from autodistill.training.datasets import ImageData
from autodistill.training.devices import parse_devices, spread
from autodistill.training.hub import require_pretrained
from autodistill.training.sources.factory import is_reference, resolve
from autodistill.training.teacher import Preprocessing, Teacher, fingerprint_of, freeze
from autodistill.training.teacher_factory import made_by
from autodistill.training.teacher_folder import TEACHER_JSON, TEACHER_WEIGHTS, read_teacher, teacher_folder
from autodistill.training.teacher_onnx import load_onnx
from autodistill.training.teacher_options import (
    check_options,
    expected,
    keywords,
    members_of,
    only_cpu,
    refuse_weights,
)

__all__ = ["Teacher", "check", "load", "read_weights"]

ENSEMBLE = "ensemble"
_REFUSED = {".ts", ".torchscript", ".pt2", ".pkl", ".pickle", ".joblib", ".h5", ".keras", ".npy", ".jit"}
_MAX_BYTES = 16 * 2**30

Devices = tuple[torch.device, ...]


def load(spec: TeacherSpec, data: ImageData, device: torch.device | str = "cpu") -> Teacher:
    """The teacher of ``spec``, frozen; the first one of a choice.

    Args:
        spec: what and where.
        data: the images it will see; its classes and sizes are taken from them where a source has none of
            its own.
        device: where it runs; ``spec.device`` goes first, and may name several.

    Raises:
        UsageError: a source or option that cannot be.
        TeacherError: files that are missing, damaged, unsafe, or of another class count.
    """
    _check_options(spec)
    where = parse_devices(spec.device) if spec.device is not None else (torch.device(device),)
    path = Path(spec.source).expanduser()
    if spec.source == "auto":
        raise UsageError("teacher 'auto' has to be taught first; `autodistill teach` does that.")
    if spec.source == CHOICE:
        return load(member(spec, None), data, device)
    if spec.source == ENSEMBLE:
        return _ensemble(spec, data, where)
    if is_reference(spec.source):
        return _from_factory(spec, data, where)
    if _is_folder(path):
        return _from_folder(teacher_folder(path), spec, data, where)
    _check_file(path)
    if path.suffix.lower() == ".onnx":
        only_cpu(spec, "an ONNX file")
        return load_onnx(path, spec, data)
    if path.suffix.lower() == ".npz":
        only_cpu(spec, "a file of logits")
        return _from_logits(path, spec, data)
    return _from_timm(spec, data, where)


def check(spec: TeacherSpec) -> None:
    """Refuse a source that names nothing or cannot be a teacher, before images are read or a network is built.

    Whether a teacher fits the images is for :func:`load` to judge.

    Raises:
        UsageError: no timm network and no folder is called so.
        TeacherError: a file that does not exist, one that is never opened, or a folder without a whole teacher.
    """
    _check_options(spec)
    path = Path(spec.source).expanduser()
    if spec.source == ENSEMBLE:
        for one in members_of(spec):
            check(one)
        return
    if spec.weights is not None and not Path(spec.weights).expanduser().is_file():
        raise TeacherError(f"weights {spec.weights}: that file does not exist.")
    if spec.source in ("auto", CHOICE) or is_reference(spec.source):
        return
    if _is_folder(path):
        read_teacher(teacher_folder(path))
        return
    if path.exists():
        _check_file(path)
        return
    if path.suffix.lower() in (".onnx", ".npz", ".safetensors", ".pt", ".pth", *_REFUSED):
        raise TeacherError(f"teacher {spec.source}: that file does not exist.")
    _check_timm(spec.source)


def _check_options(spec: TeacherSpec) -> None:
    """Refuse options and weights that nothing would be done with; architectures and factories judge their own."""
    path = Path(spec.source).expanduser()
    suffix = path.suffix.lower()
    if spec.source == ENSEMBLE:
        check_options(spec, "an ensemble", ("members", "shares"))
    elif spec.source in ("auto", CHOICE) or is_reference(spec.source):
        return
    elif _is_folder(path):
        check_options(spec, "a folder", INPUT)
    elif suffix == ".onnx":
        check_options(spec, "an ONNX file", INPUT)
    elif suffix == ".npz":
        check_options(spec, "a file of logits", ANSWER)


def _is_folder(path: Path) -> bool:
    return path.is_dir() or path.name in (TEACHER_JSON, TEACHER_WEIGHTS)


def _check_file(path: Path) -> None:
    """Refuse files that are never opened, and weights where an architecture is wanted."""
    if path.suffix.lower() in _REFUSED:
        raise TeacherError(f"{path}: {_why_refused(path)}")
    if path.suffix.lower() in (".safetensors", ".pt", ".pth"):
        raise TeacherError(
            f"{path} holds weights only; give the architecture as teacher (a timm name or module:factory) and "
            f"this file as its weights: --teacher NAME --teacher-weights {path}."
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a ``.pt``/``.pth`` file that holds nothing else.

    A checkpoint that keeps them under ``state_dict``, ``model`` or ``model_ema`` is looked into;
    ``module.`` of parallel trainings is removed.

    Raises:
        TeacherError: missing, damaged, or a pickle of something else.
    """
    if path.suffix.lower() in _REFUSED:
        raise TeacherError(f"{path}: {_why_refused(path)}")
    try:
        content = path.read_bytes()
        loaded: Any = tensors_from(content) if path.suffix == ".safetensors" else _unpickled(path, content)
    except (OSError, ValueError) as error:
        raise TeacherError(f"weights {path} cannot be read: {error}") from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise TeacherError(f"weights {path} hold {type(loaded).__name__}; expected named tensors.")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _unpickled(path: Path, content: bytes) -> Any:
    if len(content) > _MAX_BYTES:
        raise TeacherError(f"weights {path} are larger than {_MAX_BYTES >> 30} GiB.")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler raises many types for hostile files
        raise TeacherError(f"{path}: {_why_refused(path)} ({type(error).__name__})") from error


def _why_refused(path: Path) -> str:
    return (
        f"{path.suffix} files can run code when they are opened, and this one holds more than tensors; it was "
        "not opened. Save the weights with safetensors.torch.save_file(model.state_dict(), 'teacher.safetensors')."
    )


def _from_folder(folder: Path, spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    """What ``teach`` wrote."""
    facts, weights = read_teacher(folder)
    try:
        network = students.build(
            facts["architecture"],
            image_size=facts["image_size"],
            channels=facts["channels"],
            num_classes=len(facts["classes"]),
        )
        network.load_state_dict(weights)
        made_for = Preprocessing(facts["image_size"], facts["channels"], tuple(facts["mean"]), tuple(facts["std"]))
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise TeacherError(f"{folder} is no complete teacher: {error}. Teach it again.") from error
    expects = expected(spec, made_for, data)
    if not expects.class_map:
        expects = replace(expects, class_map=_by_name(facts["classes"], data, str(folder)))
    return _network_teacher(str(folder), network, expects, devices, facts["architecture"])


def _from_timm(spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    import timm

    name = spec.source
    _check_timm(name)
    own = keywords(spec)
    weights = None if spec.weights is None else read_weights(Path(spec.weights).expanduser())
    if weights is None:
        require_pretrained(name)
    else:
        own = {"num_classes": len(data.classes), "in_chans": _stem_channels(name, weights), **own}
    try:
        network = timm.create_model(name, pretrained=weights is None, **own)
        if weights is not None:
            network.load_state_dict(weights)
    except TypeError as error:
        raise UsageError(f"teacher {name} does not take options {sorted(own)}: {error}") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise TeacherError(f"teacher {name} does not fit its weights: {first_lines(error)}") from error
    config = timm.data.resolve_model_data_config(network)
    channels = int(own.get("in_chans", config["input_size"][0]))
    mean, std = (_of_channels(config[key], channels) for key in ("mean", "std"))
    expects = expected(spec, Preprocessing(config["input_size"][-1], channels, mean, std), data)
    return _network_teacher(name, network, expects, devices, [name, own])


def _check_timm(name: str) -> None:
    import timm

    if ":" in name or timm.is_model(name.split(".")[0]):
        return
    if "/" in name or name.startswith((".", "~")):
        raise UsageError(f"teacher {name}: that folder or file does not exist. `autodistill teach` makes one.")
    hint = "A teacher is a timm name, a folder or file, or module:factory."
    raise UsageError(unknown_name("teacher", name, timm.list_models(), hint))


def _from_factory(spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    factory = resolve(spec.source)
    network = made_by(spec.source, factory, keywords(spec))
    expects = expected(spec, Preprocessing(data.image_size, data.channels), data)
    identity = stable_key([spec.source, dict(spec.options), code_of(factory)])
    if isinstance(network, nn.Module):
        if spec.weights is not None:
            weights = read_weights(Path(spec.weights).expanduser())
            try:
                network.load_state_dict(weights)
            except RuntimeError as error:
                raise TeacherError(f"teacher {spec.source} does not fit its weights: {first_lines(error)}") from error
        return _network_teacher(spec.source, network, expects, devices, identity)
    refuse_weights(spec, "its factory returns a function, which only a module could take them from")
    if len(devices) > 1:
        raise UsageError(f"teacher {spec.source!r} is a function; only a module can be spread over several devices.")
    return Teacher(spec.source, fingerprint_of(identity.encode(), expects), expects, devices[0], network)


def _from_logits(path: Path, spec: TeacherSpec, data: ImageData) -> Teacher:
    """``logits (n, classes)`` and, unless they are in the order of the pool, ``ids (n,)``."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            logits = np.asarray(stored["logits"], dtype=np.float32)
            ids = np.asarray(stored["ids"]) if "ids" in stored.files else np.arange(len(logits))
    except (OSError, ValueError, KeyError) as error:
        raise TeacherError(
            f"logits {path} cannot be read: {error}. Expected arrays logits (n, classes) and ids (n,)."
        ) from error
    if logits.ndim != 2 or ids.shape != (len(logits),) or ids.dtype.kind not in "iu":
        raise TeacherError(
            f"logits {path} have shapes {logits.shape} and ids {ids.shape}; expected (n, classes), (n,)."
        )
    if len(ids) and not 0 <= ids.min() <= ids.max() < data.pool_size:
        raise TeacherError(f"logits {path} have ids {ids.min()} to {ids.max()}; allowed: 0 to {data.pool_size - 1}.")
    table = torch.full((data.pool_size, logits.shape[1]), float("nan"))
    table[torch.from_numpy(ids.astype(np.int64))] = torch.from_numpy(logits)
    expects = expected(spec, Preprocessing(data.image_size, data.channels), data)
    if max(expects.class_map, default=0) >= logits.shape[1]:
        raise UsageError(f"class_map {list(expects.class_map)} names columns beyond the {logits.shape[1]} of {path}.")
    print_ = fingerprint_of(logits.tobytes() + ids.tobytes(), expects)
    return Teacher(str(path), print_, expects, stored=table)


def _ensemble(spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    """Options: ``members`` (mappings with the keys of a teacher) and ``shares`` (one number each).

    Several devices take the members in turn; a member may name its own.
    """
    loaded: list[Teacher] = []
    for one in members_of(spec):
        loaded.append(load(one, data, devices[len(loaded) % len(devices)]))
    shares = [float(share) for share in spec.options.get("shares", [1.0] * len(loaded))]
    if len(shares) != len(loaded) or min(shares) <= 0:
        raise UsageError(f"an ensemble of {len(loaded)} needs as many shares above 0; got {shares}.")
    if any(member.by_id for member in loaded):
        raise UsageError("a file of logits cannot be a member of an ensemble; average the logits in the file.")
    pairs = tuple((share / sum(shares), member) for share, member in zip(shares, loaded, strict=True))
    key = stable_key([[share, member.fingerprint] for share, member in pairs])
    expects = Preprocessing(max(member.image_size for member in loaded), data.channels)
    return Teacher(f"ensemble of {len(loaded)}", key, expects, devices[0], members=pairs)


def _network_teacher(name: str, network: nn.Module, expects: Preprocessing, devices: Devices, identity: Any) -> Teacher:
    """``identity``: what beside the weights says what the network computes."""
    print_ = fingerprint_of(network, expects, identity=identity)
    if len(devices) == 1:
        return Teacher(name, print_, expects, devices[0], freeze(network, devices[0]))
    return Teacher(name, print_, expects, devices[0], freeze(spread(network, devices), None))


def _by_name(classes: list[str], data: ImageData, where: str) -> tuple[int, ...]:
    """Positions of the data's classes in the teacher's; empty where both are equal."""
    if tuple(classes) == data.classes:
        return ()
    missing = [name for name in data.classes if name not in classes]
    if missing:
        raise TeacherError(
            f"teacher {where} knows {len(classes)} classes ({', '.join(classes[:3])} …); the data's "
            f"{len(data.classes)} include {missing[0]!r}, which it does not know. Teach one on this data."
        )
    return tuple(classes.index(name) for name in data.classes)


def _stem_channels(name: str, weights: Mapping[str, Tensor]) -> int:
    """Input channels, from the shape of the first convolution's weights."""
    import timm

    first = timm.get_pretrained_cfg_value(name, "first_conv") or ""
    names = first if isinstance(first, tuple | list) else (first,)
    found = [weights[f"{one}.weight"] for one in names if f"{one}.weight" in weights]
    return int(found[0].shape[1]) if found and found[0].ndim == 4 else 3


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
