"""The model card of an exported student: its description, accuracy with uncertainty, and instructions for use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autodistill.core.wording import counted, distillation_words, one_line, student_words
from autodistill.delivery.export.weights import verified_note

if TYPE_CHECKING:
    from autodistill.delivery.export.exported import Exported
    from autodistill.search.results.verified import ClassFigures, Figure, Verified, VerifiedRow

_SHOWN_CLASSES = 20
_MATRIX_CLASSES = 12  # classes up to which the confusion matrices are tables


def card(
    found: Exported,
    origin: Mapping[str, Any],
    facts: Mapping[str, Any],
    names: Collection[str],
    verified: Verified | None,
) -> str:
    """Return the card as Markdown, with the front matter that the Hugging Face Hub reads.

    Args:
        found: the export.
        origin: origin of the student, from ``companion_files.provenance``.
        facts: facts of the student.
        names: names of the other files in the folder.
        verified: the study's verification; ``None`` if it does not include this trial.
    """
    student, plain = _plain(student_words(origin["student"])), found.variant == "fp32"
    parts = [
        _front_matter(names, several="thresholds" in facts),
        f"# {student}, {'' if plain else f'{found.variant}, '}distilled for {_plain(origin['data']['source'])}",
        _what(origin, facts)
        + ("" if plain else f" This is its {found.variant} form: the file that the search measured."),
        "## Accuracy",
        _verified(verified, found) if verified is not None else _unverified(found) if plain else _of_variant(found),
        *(["## Labels", _labels(facts, verified, found.trial)] if "thresholds" in facts else []),
        "## Files",
        _files(found),
        "## Use",
        _use(found, names),
        "## Origin",
        _origin(origin),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(names: Collection[str], *, several: bool = False) -> str:
    library = "library_name: timm\n" if "config.json" in names else ""
    kinds = ["image-classification", *(["multi-label-image-classification"] if several else [])]
    tags = [*kinds, "knowledge-distillation", *(["timm"] if library else [])]
    return "---\n" + library + "pipeline_tag: image-classification\ntags:\n" + "".join(f"- {t}\n" for t in tags) + "---"


def _what(origin: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    classes = [str(name) for name in facts["classes"]]
    shown = ", ".join(_plain(name) for name in classes[:_SHOWN_CLASSES])
    shown += f", … ({len(classes)} in total)" if len(classes) > _SHOWN_CLASSES else ""
    colour = "grey" if facts["channels"] == 1 else "colour"
    params = origin["search_values"].get("params")
    size = f" {params:,.0f} parameters once deployed." if params else ""
    loss = distillation_words(origin["distillation"]) or "cross-entropy"
    side = f"{facts['image_size']} x {facts['image_size']} px"
    task = f"Classifies {colour} images of {side} into {len(classes)} classes: {shown}."
    if "thresholds" in facts:
        task = f"Finds which of {len(classes)} labels {colour} images of {side} have, any number of them: {shown}."
    return (
        f"{task}{size}{_smaller(facts)} Chosen by autodistill among many students; trained with the loss "
        f"`{_code(loss)}` for {counted(round(origin['epochs']), 'epoch')}."
    )


def _smaller(facts: Mapping[str, Any]) -> str:
    first = facts.get("decoded_size")
    return "" if first is None else f" Images are cut to {first} x {first} px first, and scaled to that size then."


def _labels(facts: Mapping[str, Any], verified: Verified | None, trial: int) -> str:
    """Describe the threshold of each label, and its figures on the validation images, the worst F1 score first."""
    found = facts["label_figures"]
    rows = list(
        zip(
            facts["classes"], facts["thresholds"], found["precision"], found["recall"], found["f1"], found["images"],
            strict=True,
        )
    )  # fmt: skip
    rows.sort(key=lambda row: row[4])
    shown = [
        f"| {_cell(name)} | {limit:.3f} | {precision:.3f} | {recall:.3f} | {f1:.3f} | {images:,} |"
        for name, limit, precision, recall, f1, images in rows[:_SHOWN_CLASSES]
    ]
    more = len(rows) - _SHOWN_CLASSES
    whole = facts["average_precision"]
    return "\n".join(
        [
            "A label counts as present if the sigmoid of its logit is above its threshold. Each threshold was chosen "
            f"so that the F1 score of its label is highest on {facts['thresholds_on']}, so these figures are "
            "optimistic: expect less on new images.",
            "",
            "| label | threshold | precision | recall | F1 | images |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *shown,
            *(["", f"{more} more thresholds are in `preprocess.json`."] if more > 0 else []),
            "",
            f"Mean average precision (mAP) on these images, which needs no threshold: {whole:.4f}.",
            *_labels_on_test(verified, trial),
        ]
    )


def _labels_on_test(verified: Verified | None, trial: int) -> list[str]:
    """State what the verification measured of the labels on the test images."""
    if verified is None:
        return []
    figures = verified.student(trial).measures
    names = {"average_precision": "mAP", "tuned_macro_f1": "mean F1 score with such thresholds"}
    known = [f"{words} {_mean(figures[name])}" for name, words in names.items() if name in figures]
    return ["", f"On the test images, mean of the verified trainings: {', '.join(known)}."] if known else []


def _unverified(found: Exported) -> str:
    return (
        f"**Not verified: figures are from the search's validation split.** Accuracy there: {found.accuracy:.4f} on "
        f"{found.images:,} images.\n\n"
        "The search selected this student by this accuracy, so it is optimistic: expect less on new images. "
        "`autodistill verify` trains it again with several seeds and measures it once on test images that were not "
        "used before. Export it again afterwards to get the verified accuracy with its spread here."
    )


def _of_variant(found: Exported) -> str:
    """Describe the accuracy of a variant as the search measured it; ``verify`` measures the fp32 student only."""
    accuracy = next((one.accuracy for one in found.checked if one.accuracy is not None), None)
    value = "not measured" if accuracy is None else f"{accuracy:.4f}"
    return (
        "**Not verified: figures are from the search's validation split.** "
        f"Accuracy of this {found.variant} form there, on {found.images:,} images: {value}; "
        f"of the network that it was made from: {found.accuracy:.4f}.\n\n"
        "The search selected it by such figures, so they are optimistic: expect less on new images. `autodistill "
        "verify` trains and measures students in fp32 only, so it has no figures for this file."
    )


def _verified(verified: Verified, found: Exported) -> str:
    row = verified.student(found.trial)
    lines = [
        f"Verified: trained again from scratch with {counted(len(row.seeds), 'seed')}, and measured on "
        f"{verified.test_images:,} test images that the search never opened.",
        "",
        "| what | accuracy on test | 95 % interval |",
        "| --- | --- | --- |",
        _row_line("this student", row),
    ]
    twin, teacher = verified.twin(found.trial), verified.teacher_row()
    lines += [_row_line("the same without distillation", twin)] if twin is not None else []
    lines += [_row_line("its teacher", teacher)] if teacher is not None else []
    if row.gain is not None:
        gain = row.gain
        doubt = "which may be chance" if gain.telling else "which may be chance: one seed is not enough"
        sure = "more than chance" if gain.certain else doubt
        interval = f"95 % interval {gain.low:+.4f} to {gain.high:+.4f}"
        lines += ["", f"Distillation changed its accuracy by {gain.mean:+.4f} ({interval}), {sure}."]
    if row.searched is not None:
        by = f"; new seeds on the same images give {row.flattered:.4f} less" if (row.flattered or 0) > 0 else ""
        lines += ["", f"The search had reported {row.searched:.4f} on its validation images{by}."]
    if row.ece is not None:
        lines += ["", f"Expected calibration error: {row.ece.mean:.4f} (0 is perfect)."]
    lines += _measured(verified, row)
    lines += _classes(verified, row)
    return "\n".join([*lines, "", verified_note(found.source, row)])


def _measured(verified: Verified, row: VerifiedRow) -> list[str]:
    """The further measures that the search optimised, with their intervals."""
    figures = [(name, row.figures[name]) for name in verified.measured if name in row.figures]
    return [
        line
        for name, figure in figures
        for line in ("", f"{name}: {_mean(figure)} (95 % interval {_interval(figure)}).")
    ]


def _classes(verified: Verified, row: VerifiedRow) -> list[str]:
    """Figures of each class on the test images and the confusion matrices, the largest loss to the teacher first."""
    known = [one for one in verified.by_class(row) if one.recall is not None]
    if not known:
        return []
    lines = [
        "",
        "### Classes",
        "",
        "On the test images, the classes that it loses most against its teacher first. Recall: share of the images of "
        "a class that are decided as it; precision: share of the images decided as a class that are of it.",
        "",
        "| class | recall | recall of the teacher | precision | precision of the teacher | most often taken for |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in known[:_SHOWN_CLASSES]:
        taken = f"{_cell(one.taken_for)} ({one.share:.1%})" if one.taken_for else ""
        shares = (one.recall, one.teacher_recall, one.precision, one.teacher_precision)
        lines.append(f"| {_cell(one.name)} | {' | '.join(map(_share, shares))} | {taken} |")
    more = len(known) - _SHOWN_CLASSES
    if more > 0:
        lines += ["", f"{more} more classes, and the confusion matrices, are in `verify.json` of the study."]
    if row.confusion and len(known) <= _MATRIX_CLASSES:
        teacher = verified.teacher_row()
        lines += _matrix("this student", verified, row, known)
        lines += _matrix("its teacher", verified, teacher, known) if teacher is not None and teacher.confusion else []
    return lines


def _matrix(whose: str, verified: Verified, row: VerifiedRow, known: Sequence[ClassFigures]) -> list[str]:
    """Confusion matrix: test images of each class by the class that they were decided to be, mean over the seeds."""
    matrix = verified.confusion(row)
    names = [_cell(one.name) for one in known]
    lines = ["", f"Decisions of {whose}: test images of each class (row) by decision (column).", ""]
    lines += [f"| | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    lines += [
        f"| {name} | {' | '.join(f'{matrix[one.index][other.index]:.4g}' for other in known)} |"
        for name, one in zip(names, known, strict=True)
    ]
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _row_line(name: str, row: VerifiedRow) -> str:
    return f"| {name} | {_mean(row.accuracy)} | {_interval(row.accuracy)} |"


def _mean(figure: Figure | None) -> str:
    if figure is None:
        return "not measured"
    return f"{figure.mean:.4f}" + (f" ± {figure.std:.4f}" if figure.std is not None else "")


def _interval(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return "-"
    return f"{figure.low:.4f} to {figure.high:.4f}"


def _files(found: Exported) -> str:
    lines = [
        f"Each was run on {found.images:,} validation images and compared with the PyTorch network "
        f"(accuracy {found.accuracy:.4f}); the difference is the largest of any logit on 256 images. Latency "
        "is the median per batch on the CPU of the machine that exported them.",
        "",
        "| file | bytes | accuracy | difference | latency | |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in found.checked:
        if one.state == "ok":
            time = f"{one.latency_ms:.3g} ms" if one.latency_ms is not None else "not measured"
            remark = _cell(one.remark)
            lines.append(
                f"| `{one.file}` | {one.bytes:,} | {one.accuracy:.4f} | {one.max_diff:.1e} | {time} | {remark} |"
            )
        else:
            lines.append(f"| `{one.file}` | | | | | not exported: {_cell(one.remark)} |")
    return "\n".join(lines)


def _use(found: Exported, names: Collection[str]) -> str:
    parts = []
    if "predict.py" in names:
        parts.append(
            "```\npip install onnxruntime numpy pillow\npython predict.py image.png\n```\n\n"
            "`preprocess.json` describes the model's input, for programs in other languages."
        )
    if "config.json" in names:
        plain = all("import" not in one.remark for one in found.checked if one.format == "safetensors")
        needed = "" if plain else "import autodistill.training.deployed.timm_files  # its strides differ from timm's\n"
        parts.append(
            f"```python\nimport timm\n{needed}"
            "model = timm.create_model('local-dir:THIS_FOLDER', pretrained=True).eval()\n```\n\n"
            + ("" if plain else "Without that import, timm does not find the architecture. ")
            + "`autodistill.load('THIS_FOLDER')` gives the same network. Its input is images normalized as described "
            "in `preprocess.json`."
        )
    return "\n\n".join(parts) or "`preprocess.json` describes the models' input."


def _origin(origin: Mapping[str, Any]) -> str:
    data, teacher = origin["data"], origin["teacher"]
    started = origin.get("initial_weights")
    initial = (
        f"- training started from the weights `{_code(started['source'])}`, licence `{_code(started['licence'])}`\n"
        if started
        else ""
    )
    return (
        f"- study `{_code(origin['study'])}`, trial {origin['trial']}, seed {origin['seed']}\n"
        f"- data `{_code(data['source'])}`, fingerprint `{_code(data['fingerprint'])}`, "
        f"{data['training_images']:,} training images"
        + (f" and {data['unlabelled_images']:,} unlabelled ones" if data.get("unlabelled_images") else "")
        + "\n"
        f"- teacher `{_code(teacher['source'])}`, fingerprint `{_code(teacher['fingerprint'] or 'unknown')}`\n"
        f"{initial}"
        "- `provenance.json` has everything else, and the SHA-256 of each file"
    )


def _plain(text: str) -> str:
    """Escape a name from a file so that Markdown does not interpret it."""
    return "".join(c if c.isalnum() or c in " -_.,:+=" else f"&#{ord(c)};" for c in str(text) if c.isprintable())


def _code(text: object) -> str:
    """Return a name that stays inside a code span, where Markdown reads no entity: without backticks, on one line."""
    return one_line(text).replace("`", "'")


def _cell(text: str) -> str:
    """Return a remark that stays inside its table cell: one line without column marks, HTML, links and code."""
    shown = one_line(" ".join(text.splitlines()))
    return "".join(f"&#{ord(c)};" if c in "|<>`[]" else c for c in shown)
