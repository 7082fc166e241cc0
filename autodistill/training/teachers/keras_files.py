"""Recipes for networks of Keras and TensorFlow, which become teachers by way of ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KERAS = (".keras", ".h5", ".hdf5")
"""Suffixes of files that Keras writes."""

TENSORFLOW = (".tflite", ".pb")
"""Suffixes of files that TensorFlow writes."""

_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_FRAMEWORKS = ("keras", "tf_keras", "tensorflow")
_THEN = (
    "and give the file: --teacher own.onnx. Most Keras networks end in a softmax and take pixels from 0 to 255: --set "
    "'teacher.options={outputs: probabilities, std: 0.00392157}' (docs/how_to/other_frameworks.md)."
)


def is_saved_model(path: Path) -> bool:
    """Return whether ``path`` is a folder that TensorFlow saved a model in."""
    return path.is_dir() and any((path / name).is_file() for name in _SAVED_MODEL)


def conversion(path: Path) -> str:
    """Return how a file or folder of Keras or TensorFlow is converted to a teacher; empty for any other path."""
    suffix = path.suffix.lower()
    if is_saved_model(path):
        source = f"--saved-model {path}"
    elif suffix == ".tflite":
        source = f"--tflite {path}"
    elif suffix == ".pb":
        source = f"--graphdef {path} --inputs INPUT:0 --outputs OUTPUT:0"
    elif suffix in KERAS:
        return (
            f"{path} is a Keras network, which autodistill does not run. In the environment of Keras, convert it, "
            f"keras.models.load_model({str(path)!r}).export('own.onnx', format='onnx'), {_THEN}"
        )
    else:
        return ""
    return (
        f"{path} is a network of TensorFlow, which autodistill does not run. In the environment of TensorFlow, convert "
        f"it, python -m tf2onnx.convert {source} --output own.onnx --opset 18, {_THEN}"
    )


def keras_hint(value: Any) -> str:
    """Return how a network, or a result, of Keras or TensorFlow is converted; empty for any other value."""
    if type(value).__module__.partition(".")[0] not in _FRAMEWORKS:
        return ""
    return (
        " It is of Keras or TensorFlow. In their environment, convert the network, "
        f"network.export('own.onnx', format='onnx'), {_THEN}"
    )
