"""Stored names in a model card are text and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from class_values import FOUR, verified

from autodistill.delivery.export.checks import Checked
from autodistill.delivery.export.exported import Exported
from autodistill.delivery.export.model_card import _verified, card
from autodistill.delivery.export.weights import Source

HOSTILE = "<img src=x>`|[a](b)\n# b\x1b[31m"


def test_stored_names_are_not_markup_in_a_card() -> None:
    checked = Checked("onnx", state="refused", file="model.onnx", remark=HOSTILE)
    found = Exported(Path(), 0, {"family": HOSTILE}, 0.9, 10, (checked,), Source.__new__(Source))
    origin = {
        "student": {"family": HOSTILE, HOSTILE: HOSTILE},
        "distillation": {"loss": HOSTILE},
        "data": {"source": HOSTILE, "fingerprint": HOSTILE, "training_images": 10},
        "teacher": {"source": HOSTILE, "fingerprint": HOSTILE},
        "search_values": {},
        "study": HOSTILE,
        "trial": 0,
        "seed": 0,
        "epochs": 1.0,
    }
    facts = {"classes": [HOSTILE], "channels": 1, "image_size": 8}
    text = card(found, origin, facts, (), None)
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "<img" not in outside
    assert "[a](b)" not in outside
    assert "`" not in outside
    assert "# b" not in text.replace("&#", "").splitlines()
    assert [c for c in text if c != "\n" and not c.isprintable()] == []
    assert all(line.count("|") == 7 for line in text.splitlines() if line.startswith("|"))


def card_of(found_in: object) -> str:
    source = Source("verified", 5, 0.9)
    return _verified(found_in, Exported(Path(), 3, {}, 0.9, 10, (), source))  # type: ignore[arg-type]


def test_a_card_has_the_classes_the_lost_ones_first_and_both_confusion_matrices() -> None:
    text = card_of(FOUR)
    assert "balanced_accuracy: 0.6000 ± 0.0100 (95 % interval 0.5500 to 0.6500)." in text
    rows = [line for line in text.splitlines() if line.startswith(("| owl", "| dog", "| cat", "| yak"))]
    assert rows[0] == "| owl | 0.000 | 0.800 | 0.000 | 0.889 | yak (100.0%) |"
    assert [row.split()[1] for row in rows[:4]] == ["owl", "dog", "cat", "yak"]
    assert rows[5] == "| dog | 20 | 20 | 0 | 0 |"  # columns in the same order: owl, dog, cat, yak
    assert "Decisions of this student" in text
    assert "Decisions of its teacher" in text


def test_a_card_of_many_classes_has_the_first_and_says_where_the_others_are() -> None:
    many = verified(tuple(map(str, range(30))), [0.5] * 30, [0.9] * 30)
    text = card_of(many)
    assert "10 more classes, and the confusion matrices, are in `verify.json` of the study." in text
    assert "Decisions of" not in text
