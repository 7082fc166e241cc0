"""Reads every kind of teacher: taught folders, timm networks, factories, ONNX, stored logits, ensembles.

Nothing that is read can run code, with one exception that the user writes down as such: ``module:factory``.
Pickled networks (TorchScript, ``.pkl``, whole-module ``.pt``, ``.pt2``) are refused; files of weights are opened for
tensors only (``weight_files.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autodistill.core.errors import TeacherError, UsageError, first_lines, unknown_name
from autodistill.core.records import TeacherSpec, stable_key
from autodistill.core.teacher_choice import ANSWER, CHOICE, INPUT, member
from autodistill.training.data.datasets import ImageData
from autodistill.training.data.sources.factory import is_reference, resolve
from autodistill.training.runtime.devices import parse_devices, spread_over
from autodistill.training.runtime.source_code import code_of
from autodistill.training.students import build as students
from autodistill.training.students.pretrained import require_pretrained
from autodistill.training.teachers.factory import made_by
from autodistill.training.teachers.folder import TEACHER_JSON, TEACHER_WEIGHTS, read_teacher, teacher_folder
from autodistill.training.teachers.onnx import load_onnx
from autodistill.training.teachers.options import (
    check_options,
    expected,
    keywords,
    members_of,
    only_cpu,
    refuse_weights,
)
from autodistill.training.teachers.teacher import Preprocessing, Teacher, fingerprint_of, freeze
from autodistill.training.teachers.weight_files import (
    PICKLED,
    SUFFIXES,
    check_file,
    ending,
    fit,
    holds_weights,
    read_weights,
    why_refused,
)

__all__ = ["Teacher", "check_teacher", "load_teacher", "read_weights"]

ENSEMBLE = "ensemble"

Devices = tuple[torch.device, ...]


def load_teacher(spec: TeacherSpec, data: ImageData, device: torch.device | str = "cpu") -> Teacher:
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
        return load_teacher(member(spec, None), data, device)
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


def _unknown() -> int | None:
    """The number of classes before the images are read."""
    return None


def check_teacher(spec: TeacherSpec, classes: Callable[[], int | None] = _unknown) -> None:
    """Refuse a source that names nothing or cannot be a teacher, before images are read.

    Weights are read and compared with the network that they are for. Whether a teacher is any good on the images is
    for :func:`load_teacher` and the preflight to judge.

    Args:
        spec: what and where.
        classes: gives the number of the images' classes where it is known already; asked only where it is needed.

    Raises:
        UsageError: no timm network and no folder is called so.
        TeacherError: a file that does not exist, one that is never opened, weights that do not fit their network, or a
            folder without a whole teacher.
    """
    _check_options(spec)
    path = Path(spec.source).expanduser()
    if spec.source == ENSEMBLE:
        for one in members_of(spec):
            check_teacher(one, classes)
        return
    if spec.source in ("auto", CHOICE):
        return
    if is_reference(spec.source):
        if spec.weights is not None:
            weights = read_weights(Path(spec.weights).expanduser())
            network = made_by(spec.source, resolve(spec.source), keywords(spec))
            if isinstance(network, nn.Module):
                fit(weights, network.state_dict(), _pair(spec), classes=classes())
        return
    if _is_folder(path):
        read_teacher(teacher_folder(path))
        return
    if path.exists() or path.suffix.lower() in (".onnx", ".npz", *SUFFIXES, *PICKLED):
        _check_file(path)
        if path.suffix.lower() in (".onnx", ".npz"):
            return
    _check_timm(spec.source)
    if spec.weights is not None:
        _check_timm_weights(spec, read_weights(Path(spec.weights).expanduser()), classes())


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
    """Refuse files that are never opened or of no known kind, and weights where an architecture is wanted."""
    suffix = path.suffix.lower()
    if not path.exists() and suffix not in (".onnx", ".npz", *SUFFIXES, *PICKLED):
        return  # a name of timm's
    check_file(path, "teacher")
    if suffix in PICKLED:
        raise TeacherError(f"{path}: {why_refused(path)}")
    if suffix in (".onnx", ".npz"):
        return
    if holds_weights(path):
        raise TeacherError(
            f"{path} holds weights only; give the architecture as teacher (a timm name or module:factory) and "
            f"this file as its weights: --teacher NAME --teacher-weights {path}."
        )
    if not _is_timm(str(path)):
        raise TeacherError(
            f"teacher {path} is a file of a kind that is not read. A teacher is a folder of `autodistill teach`, an "
            "ONNX file, logits (.npz), a timm name with or without --teacher-weights FILE, or module:factory."
        )


def _pair(spec: TeacherSpec) -> str:
    return f"teacher {spec.source} does not fit its weights {spec.weights}"


def _from_folder(folder: Path, spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    """What ``teach`` wrote."""
    facts, weights = read_teacher(folder)
    try:
        network = students.build_student(
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
    network = _timm_network(name, own, pretrained=weights is None)
    if weights is not None:
        network.load_state_dict(fit(weights, network.state_dict(), _pair(spec), classes=len(data.classes)))
    config = timm.data.resolve_model_data_config(network)
    channels = int(own.get("in_chans", config["input_size"][0]))
    mean, std = (_of_channels(config[key], channels) for key in ("mean", "std"))
    expects = expected(spec, Preprocessing(config["input_size"][-1], channels, mean, std), data)
    return _network_teacher(name, network, expects, devices, [name, own])


def _timm_network(name: str, own: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
    import timm

    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **own)
    except TypeError as error:
        raise UsageError(f"teacher {name} does not take options {sorted(own)}: {error}") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise TeacherError(f"teacher {name} cannot be built: {first_lines(error)}") from error
    return network


def _check_timm_weights(spec: TeacherSpec, weights: Mapping[str, Tensor], classes: int | None) -> None:
    """Compare weights with their network, which is built without memory for its own where that is possible."""
    import timm

    name, own = spec.source, keywords(spec)
    if ":" in name:
        return
    count = classes if classes is not None else _head_rows(name, weights)
    own = {**({} if count is None else {"num_classes": count}), "in_chans": _stem_channels(name, weights), **own}
    try:
        with torch.device("meta"):
            network = timm.create_model(name, pretrained=False, **own)
    except Exception:  # networks whose constructor computes with its weights
        network = _timm_network(name, own, pretrained=False)
    fit(weights, network.state_dict(), _pair(spec), classes=count, shapes="num_classes" in own)


def _head_rows(name: str, weights: Mapping[str, Tensor]) -> int | None:
    """Classes that weights are for, where timm says what the classifier is called."""
    import timm

    head = timm.get_pretrained_cfg_value(name, "classifier") or ""
    found = ending(weights, f"{head}.weight") if isinstance(head, str) and head else None
    return None if found is None or found.ndim < 2 else int(found.shape[0])


def _is_timm(name: str) -> bool:
    import timm

    return bool(timm.is_model(name.split(".")[0]))


def _check_timm(name: str) -> None:
    import timm

    if ":" in name or _is_timm(name):
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
            network.load_state_dict(fit(weights, network.state_dict(), _pair(spec), classes=len(data.classes)))
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
        loaded.append(load_teacher(one, data, devices[len(loaded) % len(devices)]))
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
    return Teacher(name, print_, expects, devices[0], freeze(spread_over(network, devices), None))


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
    found = [tensor for one in names if one and (tensor := ending(weights, f"{one}.weight")) is not None]
    return int(found[0].shape[1]) if found and found[0].ndim == 4 else 3


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
