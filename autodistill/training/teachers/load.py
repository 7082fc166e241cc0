"""Loading of every kind of teacher: folders of ``teach``, timm networks, factories, ONNX, stored logits, ensembles.

Reading a teacher never runs code from a file. The one exception is ``module:factory``, where the user names the code.
Pickled networks (TorchScript, ``.pkl``, whole-module ``.pt``, ``.pt2``) are refused; weight files are opened for
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

from autodistill.core.errors import TeacherError, UsageError, WeightsError, first_lines, unknown_name
from autodistill.core.records import MULTICLASS, MULTILABEL, TaskKind, TeacherSpec, stable_key
from autodistill.core.teacher_choice import ANSWER, CHOICE, INPUT, member
from autodistill.training.data.datasets import ImageData
from autodistill.training.data.sources.factory import is_reference, resolve
from autodistill.training.runtime.devices import parse_devices, spread_over
from autodistill.training.runtime.source_code import code_of
from autodistill.training.students import build as students
from autodistill.training.teachers.factory import made_by
from autodistill.training.teachers.folder import TEACHER_JSON, TEACHER_WEIGHTS, read_teacher, teacher_folder
from autodistill.training.teachers.keras_files import KERAS, TENSORFLOW, conversion, is_saved_model
from autodistill.training.teachers.onnx import load_onnx
from autodistill.training.teachers.options import (
    check_options,
    expected,
    keywords,
    members_of,
    only_cpu,
    refuse_weights,
)
from autodistill.training.teachers.teacher import Preprocessing, Teacher, TrainedOn, fingerprint_of, freeze
from autodistill.training.weights.files import (
    PICKLED,
    SUFFIXES,
    check_file,
    ending,
    fit,
    holds_weights,
    read_weights,
    why_refused,
)
from autodistill.training.weights.folders import StoredNetwork, find_network, find_trial
from autodistill.training.weights.loading import LoadedWeights, create_loaded, of_channels
from autodistill.training.weights.loading import read as read_source
from autodistill.training.weights.source import TRIAL, WeightSource, require
from autodistill.training.weights.source import resolve as resolve_weights

__all__ = ["Teacher", "check_teacher", "load_teacher", "read_weights"]

ENSEMBLE = "ensemble"

_FILES = (".onnx", ".npz", *SUFFIXES, *PICKLED, *KERAS, *TENSORFLOW)
"""Suffixes of files; a source with another one may be the name of a network in timm."""

Devices = tuple[torch.device, ...]


def load_teacher(spec: TeacherSpec, data: ImageData, device: torch.device | str = "cpu") -> Teacher:
    """Load the teacher of ``spec``, frozen; for a choice of teachers, the first one.

    Args:
        spec: source, weights, options and device of the teacher.
        data: the images; they give the task, and the classes and sizes that the source does not define.
        device: device to run on; ``spec.device`` takes precedence, and may name several devices.

    Raises:
        UsageError: the source or an option is invalid.
        TeacherError: a file is missing, damaged, unsafe, or has another class count, or it serves another task.
    """
    return replace(_loaded(spec, data, device), multilabel=data.kind == MULTILABEL)


def _loaded(spec: TeacherSpec, data: ImageData, device: torch.device | str) -> Teacher:
    _check_options(spec)
    where = parse_devices(spec.device) if spec.device is not None else (torch.device(device),)
    path = Path(spec.source).expanduser()
    if spec.source == "auto":
        raise UsageError("teacher 'auto' has to be trained first; run `autodistill teach`.")
    if spec.source == CHOICE:
        return load_teacher(member(spec, None), data, device)
    if spec.source == ENSEMBLE:
        return _ensemble(spec, data, where)
    if is_reference(spec.source):
        return _from_factory(spec, data, where)
    if (stored := _stored(spec.source)) is not None:
        return _from_stored(stored, spec, data, where)
    if _is_folder(path):
        return _from_folder(_teacher_folder(path), spec, data, where)
    _check_file(path)
    if path.suffix.lower() == ".onnx":
        only_cpu(spec, "an ONNX file")
        return load_onnx(path, spec, data)
    if path.suffix.lower() == ".npz":
        only_cpu(spec, "a file of logits")
        return _from_logits(path, spec, data)
    return _from_timm(spec, data, where)


def _unknown() -> int | None:
    """Return None: the number of classes is unknown before the images are read."""
    return None


def check_teacher(
    spec: TeacherSpec, classes: Callable[[], int | None] = _unknown, *, kind: TaskKind | None = None
) -> None:
    """Check, before images are read, that the source of a teacher exists and can be a teacher.

    Weights are read and compared with their network. :func:`load_teacher` and the preflight check the teacher on the
    images.

    Args:
        spec: source, weights and options of the teacher.
        classes: function that returns the number of classes of the images, or None if it is not known yet; called
            only if needed.
        kind: task of the study; ``None`` if it is not to be checked.

    Raises:
        UsageError: the source is neither a timm network nor an existing folder.
        TeacherError: a file does not exist or is of a refused kind, weights do not fit their network, or a folder has
            no complete teacher.
    """
    _check_options(spec)
    path = Path(spec.source).expanduser()
    if spec.source == ENSEMBLE:
        for one in members_of(spec):
            check_teacher(one, classes, kind=kind)
        return
    if spec.source in ("auto", CHOICE):
        return
    if is_reference(spec.source):
        if spec.weights is not None:
            weights = _given(spec.weights).tensors()
            network = made_by(spec.source, resolve(spec.source), keywords(spec))
            if isinstance(network, nn.Module):
                fit(weights, network.state_dict(), _pair(spec), classes=classes())
        return
    if (stored := _stored(spec.source)) is not None:
        _check_kind(spec.source, stored.task, kind)
        stored.tensors()
        return
    if _is_folder(path):
        folder = _teacher_folder(path)
        _check_kind(folder, read_teacher(folder)[0].get("task", MULTICLASS), kind)
        return
    if path.exists() or path.suffix.lower() in _FILES:
        _check_file(path)
        if path.suffix.lower() in (".onnx", ".npz"):
            return
    _check_timm(spec.source)
    if spec.weights is None:
        require([_published(spec.source)])
    else:
        source = _given(spec.weights)
        require([source])
        if source.is_here:
            _check_timm_weights(spec, source.tensors(), classes())


def _check_options(spec: TeacherSpec) -> None:
    """Refuse options and weights that would be ignored; architectures and factories check their own options."""
    path = Path(spec.source).expanduser()
    suffix = path.suffix.lower()
    if spec.source == ENSEMBLE:
        check_options(spec, "an ensemble", ("members", "shares"))
    elif spec.source in ("auto", CHOICE) or is_reference(spec.source):
        return
    elif _is_folder(path) or TRIAL.match(spec.source):
        check_options(spec, "a folder", INPUT)
    elif suffix == ".onnx":
        check_options(spec, "an ONNX file", INPUT)
    elif suffix == ".npz":
        check_options(spec, "a file of logits", ANSWER)


def _stored(source: str) -> StoredNetwork | None:
    """Return the network of an exported folder or of a trial (``STUDY#12``); ``None`` for any other source.

    Raises:
        WeightsError: the trial has no finished student.
    """
    if found := TRIAL.match(source):
        return find_trial(Path(found["study"]).expanduser(), int(found["number"]))
    path = Path(source).expanduser()
    if not path.is_dir() or any((one / TEACHER_JSON).is_file() for one in (path, path / "teacher")):
        return None
    try:
        return find_network(path)
    except WeightsError:
        return None  # reported as a folder without a teacher


def _given(text: str) -> WeightSource:
    """Find the weights that are given with an architecture; a file of a kind that is never opened is refused here."""
    path = Path(text).expanduser()
    if path.suffix.lower() in (*PICKLED, ".onnx", ".npz"):
        read_weights(path)
    return resolve_weights(text)


def _published(name: str) -> WeightSource:
    """Find timm's own weights of a teacher.

    Raises:
        WeightsError: there are none. The message says what to do.
    """
    try:
        return resolve_weights(name)
    except WeightsError as error:
        raise WeightsError(f"{error} Or give a file as weights, or teach a teacher: `autodistill teach`.") from error


def _is_folder(path: Path) -> bool:
    return path.is_dir() or path.name in (TEACHER_JSON, TEACHER_WEIGHTS)


def _teacher_folder(path: Path) -> Path:
    """Return the teacher's folder for ``path``; a saved model of TensorFlow is refused with its conversion."""
    if is_saved_model(path):
        raise TeacherError(f"teacher {conversion(path)}")
    return teacher_folder(path)


def _check_file(path: Path) -> None:
    """Refuse pickled files, files of unknown kind, and weights in place of an architecture."""
    suffix = path.suffix.lower()
    if not path.exists() and suffix not in _FILES:
        return  # a name in timm
    if path.is_file() and (convert := conversion(path)):
        raise TeacherError(f"teacher {convert}")
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
            f"teacher {path} is a file of an unsupported kind. A teacher is a folder of `autodistill teach`, an "
            "ONNX file, logits (.npz), a timm name with or without --teacher-weights FILE, or module:factory."
        )


def _pair(spec: TeacherSpec) -> str:
    return f"teacher {spec.source} does not fit its weights {spec.weights}"


def _from_folder(folder: Path, spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    """Load a teacher written by ``teach``."""
    facts, weights = read_teacher(folder)
    _check_kind(folder, facts.get("task", MULTICLASS), data.kind)
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
        raise TeacherError(f"{folder} is not a complete teacher: {error}. Run `autodistill teach` again.") from error
    expects = expected(spec, made_for, data)
    if not expects.class_map:
        expects = replace(expects, class_map=_by_name(facts["classes"], data, str(folder)))
    found = _network_teacher(str(folder), network, expects, devices, facts["architecture"])
    origin = TrainedOn(data=str(facts.get("data", "")), held_out=str(facts.get("held_out", "")))
    return replace(found, trained_on=origin)


def _from_stored(stored: StoredNetwork, spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    """Load an exported student, the student of a trial, or a folder of timm's ``local-dir:`` as a teacher."""
    folder = stored.file.parent
    _check_kind(spec.source, stored.task, data.kind)
    if stored.student is None or stored.classes is None:
        return _from_timm(replace(spec, source=f"local-dir:{folder}"), data, devices)
    side, channels = stored.image_size or data.image_size, stored.channels or 3
    try:
        network = students.build_student(
            stored.student, image_size=side, channels=channels, num_classes=len(stored.classes)
        )
        network.load_state_dict(stored.tensors())
    except (RuntimeError, UsageError) as error:
        raise TeacherError(f"{folder} is not a complete network: {first_lines(error)}.") from error
    made_for = Preprocessing(side, channels, stored.mean or (0.0,), stored.std or (1.0,))
    expects = expected(spec, made_for, data)
    if not expects.class_map:
        expects = replace(expects, class_map=_by_name(list(stored.classes), data, str(folder)))
    return _network_teacher(spec.source, network, expects, devices, dict(stored.student))


def _check_kind(source: str | Path, trained: str, kind: TaskKind | None) -> None:
    """Refuse a teacher that was trained for another task than ``kind``, as far as both are known."""
    if trained and kind not in (None, trained):
        raise TeacherError(
            f"teacher {source} was trained for task: {trained}, and the study's task is {kind}. Train one for it: "
            f"autodistill teach{' --task multilabel' if kind == MULTILABEL else ''}."
        )


def _from_timm(spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    import timm

    name = spec.source
    _check_timm(name)
    own = keywords(spec)
    if spec.weights is None:
        read = read_source(_published(name))
        network = _timm_network(name, own, weights=read)
        channels = int(own.get("in_chans", read.source.channels or 3))
    else:
        read = read_source(_given(spec.weights))
        tensors = read.tensors
        own = {"num_classes": len(data.classes), "in_chans": _stem_channels(name, tensors), **own}
        network = _timm_network(name, own)
        network.load_state_dict(fit(tensors, network.state_dict(), _pair(spec), classes=len(data.classes)))
        channels = int(own["in_chans"])
    config = timm.data.resolve_model_data_config(network)
    source = read.source
    side = source.image_size or config["input_size"][-1]
    mean, std = (of_channels(value, channels) for value in (source.mean or config["mean"], source.std or config["std"]))
    expects = expected(spec, Preprocessing(side, channels, mean, std), data)
    found = _network_teacher(name, network, expects, devices, [name, own])
    return replace(found, trained_on=TrainedOn(elsewhere=True)) if spec.weights is None else found


def _timm_network(name: str, own: Mapping[str, Any], *, weights: LoadedWeights | None = None) -> nn.Module:
    """Build a network of timm, with its published weights if they are given."""
    import timm

    try:
        if weights is None:
            network: nn.Module = timm.create_model(name, pretrained=False, **own)
        else:
            source = weights.source
            shape = {"num_classes": source.count, "in_chans": source.channels or 3, **source.arguments, **own}
            network = create_loaded(source.name or name, weights, **shape)
    except TypeError as error:
        raise UsageError(f"teacher {name} does not take options {sorted(own)}: {error}") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise TeacherError(f"teacher {name} cannot be built: {first_lines(error)}") from error
    return network


def _check_timm_weights(spec: TeacherSpec, weights: Mapping[str, Tensor], classes: int | None) -> None:
    """Compare weights with their network, which is built on the meta device, without memory, if possible."""
    import timm

    name, own = spec.source, keywords(spec)
    if ":" in name:
        return
    count = classes if classes is not None else _head_rows(name, weights)
    own = {**({} if count is None else {"num_classes": count}), "in_chans": _stem_channels(name, weights), **own}
    try:
        with torch.device("meta"):
            network = timm.create_model(name, pretrained=False, **own)
    except Exception:  # some constructors compute with their weights, which the meta device does not have
        network = _timm_network(name, own)
    fit(weights, network.state_dict(), _pair(spec), classes=count, shapes="num_classes" in own)


def _head_rows(name: str, weights: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of the weights; None if timm does not give the name of the classifier."""
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
            weights = read_source(_given(spec.weights)).tensors
            network.load_state_dict(fit(weights, network.state_dict(), _pair(spec), classes=len(data.classes)))
        return _network_teacher(spec.source, network, expects, devices, identity)
    refuse_weights(spec, "its factory returns a function, and only a module can load weights")
    if len(devices) > 1:
        raise UsageError(f"teacher {spec.source!r} is a function; only a module can be spread over several devices.")
    return Teacher(spec.source, fingerprint_of(identity.encode(), expects), expects, devices[0], network)


def _from_logits(path: Path, spec: TeacherSpec, data: ImageData) -> Teacher:
    """Load stored ``logits (n, classes)`` and ``ids (n,)``; without ids, the logits are in the order of the pool."""
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
    """Load an ensemble from the options ``members`` (mappings with the keys of a teacher) and ``shares`` (numbers).

    The members are distributed over the devices in turn; a member may name its own device.
    """
    loaded: list[Teacher] = []
    for one in members_of(spec):
        loaded.append(load_teacher(one, data, devices[len(loaded) % len(devices)]))
    shares = [float(share) for share in spec.options.get("shares", [1.0] * len(loaded))]
    if len(shares) != len(loaded) or min(shares) <= 0:
        raise UsageError(f"an ensemble of {len(loaded)} needs {len(loaded)} shares above 0; got {shares}.")
    if any(member.by_id for member in loaded):
        raise UsageError("a file of logits cannot be a member of an ensemble; average the logits in the file.")
    pairs = tuple((share / sum(shares), member) for share, member in zip(shares, loaded, strict=True))
    key = stable_key([[share, member.fingerprint] for share, member in pairs])
    expects = Preprocessing(max(member.image_size for member in loaded), data.channels)
    return Teacher(f"ensemble of {len(loaded)}", key, expects, devices[0], members=pairs)


def _network_teacher(name: str, network: nn.Module, expects: Preprocessing, devices: Devices, identity: Any) -> Teacher:
    """Freeze a network as a teacher; ``identity`` and the weights together determine what the network computes."""
    print_ = fingerprint_of(network, expects, identity=identity)
    if len(devices) == 1:
        return Teacher(name, print_, expects, devices[0], freeze(network, devices[0]))
    return Teacher(name, print_, expects, devices[0], freeze(spread_over(network, devices), None))


def _by_name(classes: list[str], data: ImageData, where: str) -> tuple[int, ...]:
    """Return the positions of the data's classes in the teacher's classes; empty if both lists are equal."""
    if tuple(classes) == data.classes:
        return ()
    missing = [name for name in data.classes if name not in classes]
    if missing:
        raise TeacherError(
            f"teacher {where} has {len(classes)} classes ({', '.join(classes[:3])} …); the data's "
            f"{len(data.classes)} include {missing[0]!r}, which is not among them. Train a teacher on this data."
        )
    return tuple(classes.index(name) for name in data.classes)


def _stem_channels(name: str, weights: Mapping[str, Tensor]) -> int:
    """Return the number of input channels from the shape of the first convolution's weights; 3 if it is unknown."""
    import timm

    first = timm.get_pretrained_cfg_value(name, "first_conv") or ""
    names = first if isinstance(first, tuple | list) else (first,)
    found = [tensor for one in names if one and (tensor := ending(weights, f"{one}.weight")) is not None]
    return int(found[0].shape[1]) if found and found[0].ndim == 4 else 3
