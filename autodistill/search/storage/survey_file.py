"""The file of a study's survey: JSON with every student, its costs, and the reason if it cannot be built."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autodistill.core.errors import StoreError, UsageError
from autodistill.core.records import LatencyTarget, SurveyRow
from autodistill.search.storage.study_folder import dump_json, write_atomically

SURVEY_FILE = "survey.json"
_FORMAT = 1


def write_survey(
    directory: Path,
    rows: Sequence[SurveyRow],
    target: LatencyTarget,
    *,
    machine: str = "",
    code: Mapping[str, str] | None = None,
) -> None:
    """Write a survey to a study's folder, replacing an older one.

    Args:
        directory: folder of the study.
        rows: one row per student.
        target: how latency was measured.
        machine: description of the machine that the latencies depend on.
        code: family to a key of the code that builds its students, which all costs depend on.
    """
    facts = {"format": _FORMAT, "latency": asdict(target), "machine": machine, "code": dict(code or {})}
    write_atomically(directory / SURVEY_FILE, dump_json({**facts, "students": [asdict(row) for row in rows]}))


def earlier_survey(
    directory: Path, target: LatencyTarget, *, machine: str, code: Mapping[str, str] | None = None
) -> list[SurveyRow]:
    """Return students that were measured before for this target on this machine, so that no latency is measured twice.

    Students of a family whose code has changed since are left out. An unreadable file counts as absent: the survey is
    repeated.
    """
    with contextlib.suppress(UsageError, StoreError, OSError, ValueError, TypeError):
        rows, measured = read_survey(directory)
        facts = json.loads((directory / SURVEY_FILE).read_text(encoding="utf-8"))
        if measured == target and facts.get("machine") == machine:
            then, now = dict(facts.get("code", {})), code or {}
            same = {family for family in map(_family, rows) if then.get(family) == now.get(family)}
            return [row for row in rows if not row.error and _family(row) in same]
    return []


def read_survey(directory: Path) -> tuple[list[SurveyRow], LatencyTarget]:
    """Return the survey of a study, and the target of its latencies.

    Raises:
        UsageError: the study has no survey.
        StoreError: the file cannot be read.
    """
    path = directory / SURVEY_FILE
    if not path.is_file():
        raise UsageError(
            f"{directory} has no survey: it was turned off, or the study has no costs known before training."
        )
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise StoreError(
                f"{path} has format {data['format']}, and this version reads {_FORMAT}; update autodistill."
            )
        return [SurveyRow(**row) for row in data["students"]], LatencyTarget(**data["latency"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Remove it; the next search surveys again.") from error


def _family(row: SurveyRow) -> str:
    return str(row.student.get("family", ""))
