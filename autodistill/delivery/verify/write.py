"""Writing of a verification's results to the study's folder."""

from __future__ import annotations

from pathlib import Path

from autodistill.delivery.verify.plot import verify_png
from autodistill.search.results.csv_text import csv_text
from autodistill.search.results.verified import VERIFY_FILE, Verified
from autodistill.search.storage.study_folder import dump_json, write_atomically


def write_verified(verified: Verified, directory: str | Path) -> dict[str, Path]:
    """Write ``verify.json``, ``verify.csv`` and ``verify.png``; return their paths by suffix."""
    folder = Path(directory)
    write_atomically(folder / "verify.csv", csv_text(verified.to_pandas()))
    verify_png(verified, folder / "verify.png")
    write_atomically(folder / VERIFY_FILE, dump_json(verified.to_json()))
    return {ending: folder / f"verify.{ending}" for ending in ("json", "csv", "png")}
