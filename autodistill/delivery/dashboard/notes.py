"""Notes, figures and files for the Optuna dashboard, stored in the study's database.

They are study attributes in the format of optuna-dashboard 0.20 and later, so a plain ``optuna-dashboard`` on the
database shows them too. A note that a user has edited in the browser is never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import StoreError
from autodistill.core.records import Objective, TrialRecord
from autodistill.core.wording import counted, distillation_words, one_line, student_words, students_counted, why_empty
from autodistill.delivery.figures.study_figures import front_figure, hypervolume_figure, rung_curves_figure
from autodistill.delivery.figures.trial_facts import curve_of, figure_of
from autodistill.search.analysis.trajectory import trajectory
from autodistill.search.results.gain import BASIS, gain_over_undistilled
from autodistill.search.results.verified import read_verified
from autodistill.search.storage.study_folder import set_system_attributes

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from autodistill.search.results.verified import VerifiedRow
    from autodistill.search.study.study import Study

ARTIFACTS = "artifacts"
_CHUNK = 2045  # characters per attribute; the dashboard splits long texts
_OWN = "autodistill:note:"
_BARS = "▁▂▃▄▅▆▇█"


def annotate(study: Study) -> int:
    """Update notes and figures; return the number of notes written. The caller must hold the study's lock."""
    trials, front = study.trials(), study.front()
    members = {t.number for t in front.trials}
    verified = _verified_rows(study)
    written = 0
    with _Attributes(study) as attributes:
        for trial in trials:
            if trial.rungs or trial.reason:
                row, on_front = verified.get(trial.number), trial.number in members
                body = trial_note(trial, trials, study.objectives, on_front=on_front, verified=row)
                written += attributes.note(body, trial.number)
        written += attributes.note(study_note(study), None)
        for name, figure in _figures(study).items():
            attributes.text(f"dashboard:plot_data:{name}:", figure.to_json())
    return written


def attach(study: Study, number: int, files: Sequence[Path]) -> None:
    """Make exported files downloadable from a trial's page. The caller must hold the study's lock.

    Copies for the dashboard are written below ``DIR/artifacts``. They replace files attached before; files that users
    uploaded in the browser are kept.
    """
    if study.directory is None:
        return
    folder = study.directory / ARTIFACTS
    folder.mkdir(mode=0o700, exist_ok=True)
    with _Attributes(study) as attributes:
        prefix = f"dashboard:artifacts:{attributes.identifiers[number]}:"
        earlier = {facts["filename"]: key for key, facts in attributes.facts(prefix).items()}
        for name in earlier.keys() - {path.name for path in files}:
            identifier = _artifact(study, number, name)
            if earlier[name] == prefix + identifier:
                attributes.set(earlier[name], json.dumps(None))  # the dashboard's own mark of a deleted file
                (folder / identifier).unlink(missing_ok=True)
        for path in files:
            identifier = _artifact(study, number, path.name)
            temporary = folder / f".{identifier}.part"
            temporary.write_bytes(path.read_bytes())
            temporary.replace(folder / identifier)
            kind, encoding = mimetypes.guess_type(path.name)
            facts = {
                "artifact_id": identifier,
                "filename": path.name,
                "mimetype": kind or "application/octet-stream",
                "encoding": encoding,
            }
            attributes.set(prefix + identifier, json.dumps(facts))


def _artifact(study: Study, number: int, name: str) -> str:
    """Return the identifier of a trial's file, which is the same in every call."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{study.name}/{number}/{name}"))


def trial_note(
    trial: TrialRecord,
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    *,
    on_front: bool,
    verified: VerifiedRow | None = None,
) -> str:
    """Describe a trial in Markdown: student, loss mix, costs, rung curve, final state and its reason."""
    units = {o.name: o.unit for o in objectives}
    title = f"## Trial {trial.number}: {_plain(student_words(trial.student))}"
    state = "on the front" if on_front else f"{trial.state.value} {_plain(trial.reason)}".strip()
    lines = [title, "", f"**{state}**" + (f": {_plain(trial.message)}" if trial.message else ""), ""]
    gain = gain_over_undistilled(trial, trials, objectives[0])
    facts = {
        "distillation": distillation_words(trial.distillation),
        "recipe": student_words(trial.train),
        **{name: figure_of(value, units.get(name, "")) for name, value in trial.latest.items()},
        "gain": "" if gain is None else f"{gain:+.4f} {BASIS}",
        **_verified_facts(verified),
        "trained": f"{counted(round(trial.epochs), 'epoch')}, {trial.seconds:.1f} s",
    }
    lines += ["| | |", "|---|---|", *(f"| {_plain(k)} | {_plain(v)} |" for k, v in facts.items() if v), ""]
    lines += _curve_lines(trial, objectives)
    return "\n".join(lines)


def _verified_rows(study: Study) -> dict[int | None, VerifiedRow]:
    """Return the rows of ``verify`` by trial; empty if its file is missing or damaged."""
    try:
        found = read_verified(study.directory) if study.directory is not None else None
    except StoreError:
        found = None
    return {row.trial: row for row in found.students} if found is not None else {}


def _verified_facts(row: VerifiedRow | None) -> dict[str, str]:
    """Return the verified figures of a trial on the test split, for its note."""
    if row is None or row.accuracy is None:
        return {}
    figure = row.accuracy
    seeds = f"{len(row.seeds)} seed{'' if len(row.seeds) == 1 else 's'}"
    spread = "" if figure.std is None else f" ± {figure.std:.4f}"
    out = {"verified accuracy on test": f"{figure.mean:.4f}{spread}, {seeds}"}
    if row.gain is not None:
        sure = f"95 % interval {row.gain.low:+.4f} to {row.gain.high:+.4f}"
        out["verified gain from distillation"] = f"{row.gain.mean:+.4f}, {sure}"
    return out


def study_note(study: Study) -> str:
    """Describe the study in Markdown: number of trials, hypervolume, and the front as a table."""
    front = study.front()
    lines = [
        f"## {_plain(study.name)}",
        "",
        f"{students_counted(front.trials)} on the front, {counted(len(study.trials()), 'trial')}.",
    ]
    lines += [f"Hypervolume {front.hypervolume_share:.4f} of the reference box.", ""]
    if not front.trials:
        return "\n".join([*lines, f"The front is empty: {_plain(why_empty(study.trials(), study.constraints))}."])
    names = [_plain(o.name) for o in study.objectives]
    lines += [f"| trial | student | distillation | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for t in front.trials:
        values = " | ".join(figure_of(t.values[o.name], o.unit) for o in study.objectives)
        words = f"{_plain(student_words(t.student))} | {_plain(distillation_words(t.distillation)) or '-'}"
        lines.append(f"| {_plain(t.called)} | {words} | {values} |")
    return "\n".join([*lines, "", "Only COMPLETE trials are on the front; accuracies are of the validation split."])


def _curve_lines(trial: TrialRecord, objectives: Sequence[Objective]) -> list[str]:
    """Show the rungs as a table and as a bar chart of text characters."""
    shown = next((o for o in objectives if o.stage == "trained" and curve_of(trial, o.name)), None)
    if shown is None:
        return []
    curve = curve_of(trial, shown.name)
    values = [value for _, value in curve]
    low, span = min(values), (max(values) - min(values)) or 1.0
    bars = "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)
    rows = [f"| {rung} | {epochs:g} | {figure_of(v, shown.unit)} |" for rung, (epochs, v) in enumerate(curve, 1)]
    name = _plain(shown.name)
    return [f"`{bars}` {name} by rung", "", f"| rung | epochs | {name} |", "|---|---|---|", *rows]


def _plain(words: str) -> str:
    """Escape text for Markdown, so that names from files cannot make tables, links or HTML."""
    shown = one_line(" ".join(words.splitlines()))
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!~" else c for c in shown)


def _figures(study: Study) -> dict[str, go.Figure]:
    front = study.front()
    out: dict[str, go.Figure] = {}
    if front.trials:
        out["front"] = front_figure(front, study.trials())
        steps = trajectory(front)
        if steps:
            out["hypervolume"] = hypervolume_figure(steps)
    shown = next((o for o in study.objectives if o.stage == "trained"), None)
    if shown is not None and any(curve_of(t, shown.name) for t in study.trials()):
        members, dominated = [t.number for t in front.trials], [t.number for t in front.others]
        out["rung_curves"] = rung_curves_figure(study.trials(), shown, on_front=members, dominated=dominated)
    for figure in out.values():
        figure.update_layout(template="none")  # Plotly's template would double the size, and is white in dark mode
    return out


class _Attributes:
    """The study's system attributes: read once, and changes written together when the ``with`` block ends."""

    def __init__(self, study: Study) -> None:
        self._storage, self._study_id = study.optuna._storage, study.optuna._study_id
        self._changed: dict[str, Any] = {}
        self._known: dict[str, Any] = dict(self._storage.get_study_system_attrs(self._study_id))
        stored = study.optuna.get_trials(deepcopy=False)
        self.identifiers: Mapping[int, int] = {t.number: t._trial_id for t in stored}

    def __enter__(self) -> _Attributes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the changes, unless the block raised an error."""
        if kind is None and self._changed:
            set_system_attributes(self._storage, self._study_id, self._changed)

    def set(self, key: str, value: Any) -> None:
        """Set an attribute; it is written at the end of the block if it differs from the stored value."""
        if self._known.get(key) != value:
            self._changed[key] = self._known[key] = value

    def facts(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Return the facts of the files below ``prefix`` that are not deleted, by key."""
        known = {key: json.loads(value) for key, value in self._known.items() if key.startswith(prefix)}
        return {key: facts for key, facts in known.items() if facts}

    def text(self, prefix: str, body: str) -> None:
        """Set a long text in numbered parts; further parts of an earlier, longer text are set to ""."""
        parts = [body[i : i + _CHUNK] for i in range(0, len(body), _CHUNK)]
        before = sum(1 for key in self._known if key.startswith(prefix))
        for index, part in enumerate([*parts, *[""] * (before - len(parts))]):
            self.set(f"{prefix}{index}", part)

    def note(self, body: str, number: int | None) -> int:
        """Set the note of a trial, or of the study if ``number`` is None; return 1 if it changed, else 0.

        Version and hash of the written note are stored, so that a later version is recognised as a user's edit.
        """
        place = "" if number is None else f"{self.identifiers[number]}:"
        key, own = f"dashboard:{place}note_ver", f"{_OWN}{place}"
        digest = hashlib.sha256(body.encode()).hexdigest()[:16]
        version = int(self._known.get(key, 0))
        mine = self._known.get(own)
        if (mine is None and version > 0) or (mine is not None and (version != mine[0] or digest == mine[1])):
            return 0
        self.text(f"dashboard:{place}note_str:", body)
        self.set(key, version + 1)
        self.set(own, [version + 1, digest])
        return 1
