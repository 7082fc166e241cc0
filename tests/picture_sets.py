"""Small colour photographs in class folders, and the same pictures as a table, as Parquet and as tar files."""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("boot", "coat", "hat")
NAMES = ("a.jpg", "a-1.jpg", "b.png", "sub/z.jpg", "sub.jpg", "c.jpeg", "10.jpg", "9.jpg", "e.jpg", "f.jpg")
"""Names whose order by path is not that of their letters."""

PARTS = {"train": 10, "validation": 3, "test": 4}


def write_photos(root: Path, parts: dict[str, int] | None = None, classes: tuple[str, ...] = CLASSES) -> Path:
    """Photographs that are no squares, upright and lying, with a colour for each class."""
    rng = np.random.default_rng(0)
    for part, count in (PARTS if parts is None else parts).items():
        for label, name in enumerate(classes):
            for number in range(count):
                path = root / part / name / NAMES[number % len(NAMES)]
                path.parent.mkdir(parents=True, exist_ok=True)
                size = (12 + number % 3, 20, 3) if number % 2 else (20, 14, 3)
                pixels = rng.integers(0, 90, size, dtype=np.uint8)
                pixels[..., label % 3] += np.uint8(120)
                Image.fromarray(pixels).save(path)
    return root


def rows(root: Path) -> list[tuple[str, str, str]]:
    """Path, class and split of every photograph, in no particular order."""
    found = []
    for path in sorted(root.glob("*/*/**/*.*")):
        relative = path.relative_to(root)
        found.append((relative.as_posix(), relative.parts[1], relative.parts[0]))
    random.Random(1).shuffle(found)
    return found


def as_csv(root: Path) -> Path:
    """A table beside the folders of the splits."""
    table = root / "labels.csv"
    lines = rows(root)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *lines])
    return table


def as_jsonl(root: Path) -> Path:
    lines = [json.dumps(dict(zip(("file_name", "label", "split"), row, strict=True))) for row in rows(root)]
    table = root / "labels.jsonl"
    table.write_text("\n".join(lines))
    return table


def features(classes: tuple[str, ...]) -> dict[str, str]:
    """The schema's metadata that Hugging Face's datasets writes."""
    names = {"names": list(classes), "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": names}}})}


def as_parquet(root: Path, out: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """One file for each split, named as on Hugging Face's hub."""
    out.mkdir(parents=True)
    for split in sorted({row[2] for row in rows(root)}):
        members = [row for row in rows(root) if row[2] == split]
        images = [{"bytes": (root / path).read_bytes(), "path": path} for path, _, _ in members]
        labels = [classes.index(label) for _, label, _ in members]
        table = pa.table({"image": images, "label": labels}).replace_schema_metadata(features(classes))
        pq.write_table(table, out / f"{split}-00000-of-00001.parquet", row_group_size=4)
    return out


def as_tars(root: Path, out: Path, *, kind: str = "cls", ending: str = "tar") -> Path:
    """Two archives for each split, as WebDataset has them: KEY.jpg and its label."""
    out.mkdir(parents=True)
    files: dict[str, tarfile.TarFile] = {}
    for number, (path, label, split) in enumerate(rows(root)):
        name = f"{split}-{number % 2:04d}.{ending}"
        if name not in files:
            files[name] = tarfile.open(out / name, f"w:{ending.partition('.')[2]}")  # noqa: SIM115
        files[name].add(root / path, path)
        key = path.rpartition(".")[0]
        content = {"cls": label, "json": json.dumps({"label": label, "width": 3})}.get(kind)
        if content is not None:
            add_member(files[name], f"{key}.{kind}", content.encode())
    for file in files.values():
        file.close()
    return out


def add_member(file: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    file.addfile(info, io.BytesIO(content))


def same(first: Any, second: Any) -> None:
    """Check that two loaded sets of images are equal bit for bit."""
    assert first.classes == second.classes
    for part in ("train", "val"):
        one, other = getattr(first, part), getattr(second, part)
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.ids, other.ids)
    assert (first.fingerprint, first.mean, first.std) == (second.fingerprint, second.mean, second.std)
