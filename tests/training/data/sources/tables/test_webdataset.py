from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from picture_sets import CLASSES, add_member, as_tars, same, write_photos

from autodistill.core.errors import DataError, UsageError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets


def spec(path: Path | str, /, **options: object) -> DataSpec:
    return DataSpec("webdataset", root=str(path), image_size=8, options=options)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            add_member(file, name, content)
    return path


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    return next(write_photos(tmp_path / "one", {"train": 3}).rglob("*.png")).read_bytes()


def test_patterns_name_archives_as_a_shell_does(tmp_path: Path) -> None:
    root = as_tars(write_photos(tmp_path / "photos"), tmp_path / "tars")
    whole = datasets.load_images(spec(root), tmp_path / "cache")
    for pattern in ("{train,validation,test}-{0000..0001}.tar", "*.tar"):
        same(whole, datasets.load_images(spec(root / pattern), tmp_path / "cache"))
    with pytest.raises(DataError, match=r"2 of 4 archives do not exist, e.g. .*train-0002.tar"):
        datasets.check_source(spec(root / "train-{0000..0003}.tar"))
    with pytest.raises(DataError, match=r"no archives at .*; expected tar files with the members KEY.jpg and KEY.cls"):
        datasets.check_source(spec(tmp_path / "photos"))
    with pytest.raises(UsageError, match=r"needs tar files .*--data-root PATH"):
        datasets.check_source(DataSpec("webdataset"))


def test_numbers_stand_for_the_names_beside_the_archives(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    named = as_tars(photos, tmp_path / "named")
    out = tmp_path / "numbered"
    out.mkdir()
    for path in named.iterdir():
        with tarfile.open(path) as source, tarfile.open(out / path.name, "w") as target:
            for member in source:
                content = source.extractfile(member).read()
                number = str(CLASSES.index(content.decode())).encode() if member.name.endswith(".cls") else content
                add_member(target, member.name, number)
    assert datasets.load_images(spec(out), tmp_path / "cache").classes == ("0", "1", "2")
    (out / "classes.txt").write_text("\n".join(CLASSES))
    expected = datasets.load_images(spec(named), tmp_path / "cache")
    same(expected, datasets.load_images(spec(out), tmp_path / "cache"))


def test_problems_are_named_by_member(tmp_path: Path, png: bytes) -> None:
    good = {
        f"{n}.{kind}": png if kind == "png" else b"ab"[n % 2 : n % 2 + 1] for n in range(8) for kind in ("png", "cls")
    }
    path = archive(tmp_path / "x.tar", {**good, "8.png": png, "9.cls": b"a", "10.png": png, "10.cls": b" "})
    with pytest.raises(DataError) as refused:
        datasets.load_images(spec(path), tmp_path / "cache")
    message = str(refused.value)
    assert message.startswith("3 of 11 rows of x.tar cannot be used:\n  x.tar: 8.png: no label: the sample has no .cls")
    assert "x.tar: 9: no picture; it has cls" in message
    assert "x.tar: 10.png: no label" in message
    path = archive(tmp_path / "y.tar", {**good, "3.png": b"no image"})
    with pytest.raises(DataError, match=r"1 of 8 images cannot be read(.|\n)*y.tar: 3.png \(not an image that Pillow"):
        datasets.check_files(spec(path), tmp_path / "cache")
    path.write_bytes(b"no archive" * 99)
    with pytest.raises(DataError, match=r"cannot read .*y.tar: .* It is damaged or no tar file"):
        datasets.load_images(spec(path), tmp_path / "cache")


def test_hidden_members_links_and_pickles_are_left_alone(tmp_path: Path, png: bytes) -> None:
    good = {
        f"{n}.{kind}": png if kind == "png" else b"ab"[n % 2 : n % 2 + 1] for n in range(8) for kind in ("png", "cls")
    }
    path = tmp_path / "x.tar"
    archive(path, {**good, "._0.png": b"x", "__MACOSX/0.png": b"x", "0.pyd": b"cos\nsystem\n", "readme.md": b"x"})
    with tarfile.open(path, "a") as file:
        for name, kind in (("99.png", tarfile.FIFOTYPE), ("98.png", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
    datasets.check_files(spec(path), tmp_path / "cache")
    data = datasets.load_images(spec(path), tmp_path / "cache")
    assert len(data.train) + len(data.val) + len(datasets.load_test(spec(path), tmp_path / "cache")) == 8


def test_several_labels_and_the_choice_of_the_picture(tmp_path: Path, png: bytes) -> None:
    black = next(write_photos(tmp_path / "two", {"train": 3}).rglob("a.jpg")).read_bytes()
    members = {}
    for number in range(12):
        members |= {f"{number}.mask.png": png, f"{number}.jpg": black}
        members[f"{number}.json"] = b'{"tags": ["red", "round"]}' if number % 2 else b'{"tags": ["red"]}'
    path = archive(tmp_path / "x.tar", members)
    data = datasets.load_images(spec(path, label="json.tags"), tmp_path / "cache")
    assert data.classes == ("red", "round")
    assert data.train.labels[:, 0].all()
    mask = datasets.load_images(spec(path, label="json.tags", image="mask.png"), tmp_path / "cache")
    assert not np.array_equal(mask.train.images, data.train.images)
    with pytest.raises(DataError, match=r"its .json has no tag; it has tags"):
        datasets.load_images(spec(path, label="json.tag"), tmp_path / "cache")


def test_the_list_of_a_compressed_archive_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = as_tars(write_photos(tmp_path / "photos"), tmp_path / "tars", ending="tar.gz")
    datasets.check_files(spec(root), tmp_path / "cache")
    monkeypatch.setattr(tarfile, "open", lambda *args, **keys: pytest.fail("read again"))
    assert datasets.load_images(spec(root), tmp_path / "cache").classes == CLASSES
