"""Reads every kind of teacher: taught folders, timm networks, factories, ONNX, stored logits, ensembles.

Nothing that is read can run code, with one exception that the user writes down as such: ``module:factory``.
Pickled networks (TorchScript, ``.pkl``, whole-module ``.pt``, ``.pt2``) are refused; ``.pth`` and ``.pt``
files are opened with ``weights_only`` and must hold tensors.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autodistill.errors import TeacherError, UsageError, unknown_name
from autodistill.records import TeacherSpec, stable_key
from autodistill.teacher_choice import CHOICE, INPUT, member
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
        _only_cpu(spec, "an ONNX file")
        return _from_onnx(path, spec, data)
    if path.suffix.lower() == ".npz":
        _only_cpu(spec, "a file of logits")
        return _from_logits(path, data)
    return _from_timm(spec, data, where)


def check(spec: TeacherSpec) -> None:
    """Refuse a source that names nothing or cannot be a teacher, before images are read or a network is built.

    Whether a teacher fits the images is for :func:`load` to judge.

    Raises:
        UsageError: no timm network and no folder is called so.
        TeacherError: a file that does not exist, one that is never opened, or a folder without a whole teacher.
    """
    path = Path(spec.source).expanduser()
    if spec.source == ENSEMBLE:
        for one in _members(spec):
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


def _only_cpu(spec: TeacherSpec, what: str) -> None:
    if spec.device not in (None, "cpu"):
        raise UsageError(f"teacher.device is {spec.device!r}; {what} runs on the CPU, leave the key out.")


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
        expects = Preprocessing(
            facts["image_size"], facts["channels"], tuple(facts["mean"]), tuple(facts["std"])
        ).override(_only_input(spec))
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise TeacherError(f"{folder} is no complete teacher: {error}. Teach it again.") from error
    if not expects.class_map:
        expects = replace(expects, class_map=_by_name(facts["classes"], data, str(folder)))
    return _network_teacher(str(folder), network, expects, data, devices, facts["architecture"])


def _from_timm(spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    import timm

    name = spec.source
    _check_timm(name)
    keywords = {key: value for key, value in spec.options.items() if key not in INPUT}
    weights = None if spec.weights is None else read_weights(Path(spec.weights).expanduser())
    if weights is None:
        require_pretrained(name)
    else:
        keywords = {"num_classes": len(data.classes), "in_chans": _stem_channels(name, weights), **keywords}
    try:
        network = timm.create_model(name, pretrained=weights is None, **keywords)
        if weights is not None:
            network.load_state_dict(weights)
    except TypeError as error:
        raise UsageError(f"teacher {name} does not take options {sorted(keywords)}: {error}") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise TeacherError(f"teacher {name} does not fit its weights: {_first_lines(error)}") from error
    config = timm.data.resolve_model_data_config(network)
    channels = int(keywords.get("in_chans", config["input_size"][0]))
    expects = Preprocessing(
        config["input_size"][-1],
        channels,
        _of_channels(config["mean"], channels),
        _of_channels(config["std"], channels),
    )
    expects = expects.override(_only_input(spec))
    return _network_teacher(name, network, expects, data, devices, [name, keywords])


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
    keywords = {key: value for key, value in spec.options.items() if key not in INPUT}
    network = made_by(spec.source, factory, keywords)
    expects = Preprocessing(data.image_size, data.channels).override(_only_input(spec))
    identity = stable_key([spec.source, dict(spec.options), code_of(factory)])
    if isinstance(network, nn.Module):
        if spec.weights is not None:
            weights = read_weights(Path(spec.weights).expanduser())
            try:
                network.load_state_dict(weights)
            except RuntimeError as error:
                raise TeacherError(f"teacher {spec.source} does not fit its weights: {_first_lines(error)}") from error
        return _network_teacher(spec.source, network, expects, data, devices, identity)
    if len(devices) > 1:
        raise UsageError(f"teacher {spec.source!r} is a function; only a module can be spread over several devices.")
    return Teacher(spec.source, fingerprint_of(identity.encode(), expects), expects, devices[0], network)


def _from_onnx(path: Path, spec: TeacherSpec, data: ImageData) -> Teacher:
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("an ONNX teacher needs onnxruntime: pip install onnxruntime.") from error
    try:
        content = path.read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # From bytes: a model that keeps tensors in other files, at any path, cannot reach them.
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TeacherError(f"ONNX teacher {path} cannot be loaded: {_first_lines(error)}") from error
    entry = session.get_inputs()[0]
    shape = [side if isinstance(side, int) else None for side in entry.shape]
    if len(shape) != 4:
        raise TeacherError(f"ONNX teacher {path} takes {entry.shape}; expected (batch, channels, side, side).")
    expects = Preprocessing(shape[2] or data.image_size, shape[1] or data.channels).override(_only_input(spec))
    run = _onnx_function(session, entry.name, shape[0])
    return Teacher(str(path), fingerprint_of(content, expects), expects, torch.device("cpu"), run)


def _onnx_function(session: Any, name: str, batch: int | None) -> Callable[[Tensor], Tensor]:
    """The session as a function of a batch; a fixed batch size is fed in pieces, the last one padded."""

    def run(images: Tensor) -> Tensor:
        size = batch or len(images)
        out = []
        for start in range(0, len(images), size):
            piece = images[start : start + size]
            missing = size - len(piece)
            padded = torch.cat([piece, piece[-1:].expand(missing, -1, -1, -1)]) if missing else piece
            answer = session.run(None, {name: padded.contiguous().numpy()})[0]
            out.append(torch.from_numpy(np.array(answer))[: len(piece)])
        return torch.cat(out)

    return run


def _from_logits(path: Path, data: ImageData) -> Teacher:
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
    expects = Preprocessing(data.image_size, data.channels)
    print_ = fingerprint_of(logits.tobytes() + ids.tobytes(), expects)
    return Teacher(str(path), print_, expects, stored=table)


def _ensemble(spec: TeacherSpec, data: ImageData, devices: Devices) -> Teacher:
    """Options: ``members`` (mappings with the keys of a teacher) and ``shares`` (one number each).

    Several devices take the members in turn; a member may name its own.
    """
    loaded: list[Teacher] = []
    for one in _members(spec):
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


def _members(spec: TeacherSpec) -> list[TeacherSpec]:
    """The teachers of an ensemble."""
    given = spec.options.get("members")
    if not isinstance(given, list | tuple) or not given:
        raise UsageError("an ensemble needs options.members, a list such as [{source: runs/a}, {source: runs/b}].")
    try:
        return [TeacherSpec(**one) if isinstance(one, Mapping) else TeacherSpec(str(one)) for one in given]
    except TypeError as error:
        raise UsageError(f"a member of the ensemble {list(given)}: {error}.") from error


def _network_teacher(
    name: str, network: nn.Module, expects: Preprocessing, data: ImageData, devices: Devices, identity: Any
) -> Teacher:
    """``identity``: what beside the weights says what the network computes."""
    if len(expects.class_map) not in (0, len(data.classes)):
        raise UsageError(f"class_map has {len(expects.class_map)} entries; expected {len(data.classes)}.")
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


def _only_input(spec: TeacherSpec) -> dict[str, Any]:
    return {key: value for key, value in spec.options.items() if key in INPUT}


def _stem_channels(name: str, weights: Mapping[str, Tensor]) -> int:
    """Input channels, from the shape of the first convolution's weights."""
    import timm

    first = timm.get_pretrained_cfg_value(name, "first_conv") or ""
    names = first if isinstance(first, tuple | list) else (first,)
    found = [weights[f"{one}.weight"] for one in names if f"{one}.weight" in weights]
    return int(found[0].shape[1]) if found and found[0].ndim == 4 else 3


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def _first_lines(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines()[:4] if line.strip())[:400]
