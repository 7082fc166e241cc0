"""Initialisation of a student from its teacher's weights, as far as their shapes allow.

``students/matching.py`` copies what fits. A classifier is copied only if its classes are the same. A student of the
teacher's architecture starts at the teacher's accuracy if both get the same input: its images are normalized as the
teacher's are. Students take the image size of the data; if the teacher's differs, the copied weights fit less well.
"""

from __future__ import annotations

from torch import nn

from autodistill.core.errors import UsageError
from autodistill.training.data.datasets import ImageData
from autodistill.training.students.matching import Copied, copy_fitting
from autodistill.training.teachers.teacher import Teacher
from autodistill.training.weights.loading import of_channels


def initialise(student: nn.Module, teacher: Teacher) -> Copied:
    """Copy the fitting weights of ``teacher`` into ``student``, in place.

    Raises:
        UsageError: the teacher is not a network, or no layer fits.
    """
    if not isinstance(teacher.network, nn.Module):
        raise UsageError(f"init: teacher needs a network; {teacher.name} is not one. Choose init: random.")
    source = {name.removeprefix("network."): value for name, value in teacher.network.state_dict().items()}
    copied = copy_fitting(student, source, same_classes=not teacher.preprocessing.class_map)
    if not copied.layers:
        raise UsageError(
            f"init: teacher found no layer of {teacher.name} that fits {type(student).__name__}. "
            "Choose init: random, or a student of the teacher's family."
        )
    return copied


def statistics_of_teacher(teacher: Teacher, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation per channel of a teacher's input; ``None`` if it is no network."""
    if not isinstance(teacher.network, nn.Module):
        return None
    expects = teacher.preprocessing
    return of_channels(expects.mean, channels), of_channels(expects.std, channels)


def unlike_teacher(teacher: Teacher, data: ImageData) -> str:
    """Return a warning if students that start from ``teacher`` get other input than it; else an empty string."""
    theirs, ours = teacher.preprocessing, (data.image_size, data.channels)
    if not isinstance(teacher.network, nn.Module) or (theirs.image_size, theirs.channels) == ours:
        return ""
    channels = f"{data.channels} channel{'s' * (data.channels > 1)}"
    return (
        f"init: teacher copies weights of {teacher.name}, whose input is {theirs}; students get {data.image_size} px, "
        f"{channels}, so they start below its accuracy. A teacher trained by autodistill on these images has the input "
        "of the students."
    )
