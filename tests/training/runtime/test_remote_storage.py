from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from autodistill.core.errors import ResourceError, StoreError, UsageError
from autodistill.training.runtime.remote_storage import RemoteFolder


@pytest.fixture(params=["folder", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteFolder]:
    """A folder of this machine, and an object store in memory through fsspec."""
    if request.param == "folder":
        yield RemoteFolder.at((tmp_path / "storage").as_uri())
        return
    yield RemoteFolder.at("fsspec+memory:///storage")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def damage(remote: RemoteFolder, name: str) -> None:
    """Flip the last bit of an object."""
    files, path = remote._files, f"{remote._root}/{name}"
    with files.open_input_stream(path) as stream:
        data = stream.read()
    with files.open_output_stream(path) as stream:
        stream.write(data[:-1] + bytes([data[-1] ^ 1]))


def test_a_folder_comes_back_as_it_was_under_its_name(remote: RemoteFolder, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "step", a="1", b="2")
    folder_with(folder / "deep", c="3")
    remote.put("trial/step", folder)
    remote.below("trial").get("step", tmp_path / "elsewhere" / "step")
    assert content(tmp_path / "elsewhere" / "step") == {"a": "1", "b": "2", "deep/c": "3"}
    assert remote.names() == ["trial/step"]
    assert remote.names("trial") == ["trial/step"]
    assert remote.below("trial").names() == ["step"]
    assert remote.names("other") == []


def test_what_is_there_is_replaced_as_a_whole_on_both_sides(remote: RemoteFolder, tmp_path: Path) -> None:
    remote.put("x", folder_with(tmp_path / "one", a="1"))
    remote.put("x", folder_with(tmp_path / "two", b="2"))
    remote.get("x", folder_with(tmp_path / "there", old="0"))
    assert content(tmp_path / "there") == {"b": "2"}
    assert remote.names() == ["x"]


def test_a_single_file_travels_in_a_folder_of_its_own(remote: RemoteFolder, tmp_path: Path) -> None:
    path = folder_with(tmp_path / "one", weights="w", other="o") / "weights"
    remote.put("inputs/1", path)
    remote.get("inputs/1", tmp_path / "there")
    assert content(tmp_path / "there") == {"weights": "w"}


def test_a_damaged_object_is_named_and_nothing_of_it_is_unpacked(remote: RemoteFolder, tmp_path: Path) -> None:
    remote.put("trial/step", folder_with(tmp_path / "step", a="1"))
    damage(remote, "trial/step")
    there = folder_with(tmp_path / "there", old="0")
    with pytest.raises(StoreError, match=r"trial/step at .*storage is damaged: its hash differs"):
        remote.get("trial/step", there)
    assert content(there) == {"old": "0"}
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "storage") == ["step", "there"]


def test_objects_are_removed_alone_or_with_all_below_a_name(remote: RemoteFolder, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "step", a="1")
    for name in ("one/a", "one/b", "two/a"):
        remote.put(name, folder)
    remote.remove("one/a")
    remote.remove("one/a")
    assert remote.names() == ["one/b", "two/a"]
    remote.below("one").remove("")
    remote.below("one").remove("")
    assert remote.names() == ["two/a"]


class Breaks(MemoryFileSystem):
    """An object store whose connection breaks before the last step of a write."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def mv(self, *args: Any, **options: Any) -> None:
        raise OSError("connection reset")


def test_a_write_that_breaks_off_leaves_what_was_there_and_no_rubbish(tmp_path: Path) -> None:
    broken = Breaks(skip_instance_cache=True)
    remote = RemoteFolder("fsspec+memory:///storage")
    remote.__dict__["_place"] = (PyFileSystem(FSSpecHandler(broken)), "/storage")
    broken.pipe_file("/storage/x", b"what was there")
    with pytest.raises(ResourceError, match=r"cannot write x to .*nothing that was there is lost: .*connection reset"):
        remote.put("x", folder_with(tmp_path / "step", a="1"))
    assert broken.find("/storage") == ["/storage/x"]
    assert broken.cat_file("/storage/x") == b"what was there"


def test_half_written_objects_of_a_dead_worker_are_not_seen(remote: RemoteFolder, tmp_path: Path) -> None:
    remote.put("trial/step", folder_with(tmp_path / "step", a="1"))
    with remote._files.open_output_stream(f"{remote._root}/trial/step.0a.part") as stream:
        stream.write(b"half")
    assert remote.names() == ["trial/step"]


def test_what_is_there_already_is_not_sent_again(remote: RemoteFolder, tmp_path: Path) -> None:
    remote.put("x", folder_with(tmp_path / "one", a="1", b="2"))
    before = remote._files.get_file_info(f"{remote._root}/x").mtime
    remote.put("x", folder_with(tmp_path / "two", b="2", a="1"))
    assert remote._files.get_file_info(f"{remote._root}/x").mtime == before


def test_places_that_cannot_be_used_say_what_can(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nosuch://x cannot be used as a storage.*s3://bucket/folder"):
        RemoteFolder.at("nosuch://x")
    with pytest.raises(UsageError, match=r"URL of the storage at .* contains a password") as caught:
        RemoteFolder.at("s3://key:secret@bucket/folder")
    assert "secret" not in str(caught.value)
    assert RemoteFolder.at(str(tmp_path / "runs")).url == (tmp_path / "runs").as_uri()
    with pytest.raises(ResourceError, match="cannot fetch x from"):
        RemoteFolder.at(str(tmp_path)).get("x", tmp_path / "y")
