"""Exclusion of students that crashed on this machine in earlier studies, and storage of new crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autodistill.core.wording import counted, student_words
from autodistill.engines.monitor.watch import Watch
from autodistill.search.study.crashes import GivenUp
from autodistill.search.study.study import Study

if TYPE_CHECKING:
    from autodistill.training.data.datasets import ImageData

FORGET = "autodistill cache rm crashes"
_NAMED = 3


def leave_out_crashed(study: Study, data: ImageData, watch: Watch, device: str) -> None:
    """Exclude students that are known to crash, report them, and store crashes of this study for later ones.

    Args:
        study: Study before its survey.
        data: Images of the study.
        watch: Receives the list of excluded students.
        device: Torch device of the trainings.
    """
    from autodistill.training.costs.crash_memory import CrashMemory
    from autodistill.training.runtime.cache_folder import cache_folder

    memory = CrashMemory(cache_folder(), image_size=data.image_size, channels=data.channels, device=device)

    def remember(found: GivenUp) -> None:
        memory.put(found.student, found.how)

    study.on_crash = remember
    known = [crash for crash in memory.known() if study.space.holds(crash.student)]
    for crash in known:
        words = student_words(crash.student)
        study.forbid(
            crash.student,
            f"{words} crashed its workers on this machine in an earlier study ({crash.how}); "
            f"'{FORGET}' clears the list of such students",
        )
    if known:
        named = ", ".join(f"{student_words(one.student)} ({one.how})" for one in known[:_NAMED])
        more = ", …" if len(known) > _NAMED else ""
        watch.stage(
            "survey",
            f"{counted(len(known), 'student')} left out, after crashes on this machine: {named}{more}; "
            f"'{FORGET}' clears the list",
        )
