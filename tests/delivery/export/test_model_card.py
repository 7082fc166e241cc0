"""Stored names in a model card are text and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from autodistill.delivery.export.checks import Checked
from autodistill.delivery.export.exported import Exported
from autodistill.delivery.export.model_card import card
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
