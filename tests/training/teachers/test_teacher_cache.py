"""The teacher cache: every view is asked once, and damage, crashes and other processes change no answer."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from autodistill.core.errors import ResourceError, StoreError, TeacherError, UsageError
from autodistill.training.distillation.distillation_losses import losses
from autodistill.training.runtime.cache_folder import teacher_cache_bytes
from autodistill.training.runtime.row_locks import RowLocks
from autodistill.training.teachers.cache import cache as teacher_cache
from autodistill.training.teachers.cache import folders as cache_files
from autodistill.training.teachers.cache.cache import TeacherCache
from autodistill.training.teachers.cache.folders import CacheKey, estimate, list_caches, make_room, remove
from autodistill.training.teachers.cache.rows import RowFormat

KEY = CacheKey(data="d41d8cd9", teacher="teacher-1", views="crop", seed=0, preprocessing="28px")


class Teacher:
    """Answers are a function of (image, view); counts what it is asked."""

    def __init__(self, classes: int = 10, view: int = 0, scale: float = 8.0) -> None:
        self.classes, self.view, self.scale = classes, view, scale
        self.asked: list[int] = []

    def answer(self, ids: Tensor) -> Tensor:
        place = torch.arange(self.classes).float()
        return self.scale * torch.sin(ids[:, None].float() * 0.37 + place * 1.7 + self.view)

    def __call__(self, ids: Tensor) -> Tensor:
        self.asked += ids.tolist()
        return self.answer(ids)


def opened(root: Path, key: CacheKey = KEY, **changes) -> TeacherCache:
    return TeacherCache.open(root, key, **{"images": 50, "classes": 10, "views": 3, **changes})


def test_the_teacher_computes_each_view_of_each_image_once(tmp_path) -> None:
    with opened(tmp_path) as cache:
        for view in range(3):
            teacher = Teacher(view=view)
            first = cache.targets(torch.arange(30), view, teacher)
            again = cache.targets(torch.arange(20, 50), view, teacher)
            assert sorted(teacher.asked) == list(range(50))
            assert torch.equal(first[20:], again[:10])
        assert cache.forwards == cache.total_forwards() == 150
    with opened(tmp_path) as warm:
        assert torch.equal(warm.targets(torch.arange(30), 2, _never), first)
        assert warm.forwards == 0
        assert warm.total_forwards() == 150


def _never(ids: Tensor) -> Tensor:
    raise AssertionError(f"the teacher was asked about {ids.tolist()}")


def test_bug_12_answers_belong_to_their_ids_in_whatever_order_they_come(tmp_path) -> None:
    ids = torch.tensor([7, 3, 7, 49, 0, 3])
    with opened(tmp_path) as cache:
        teacher = Teacher()
        answers = cache.targets(ids, 0, teacher)
        assert teacher.asked == [0, 3, 7, 49]
        assert torch.allclose(answers, teacher.answer(ids), atol=0.01)
        assert cache.targets(ids[:0], 0, _never).shape == (0, 10)


def test_a_cold_cache_gives_the_same_numbers_as_a_warm_one(tmp_path) -> None:
    with opened(tmp_path) as cache:
        cold = cache.targets(torch.arange(50), 0, Teacher())
        assert torch.equal(cache.targets(torch.arange(50), 0, _never), cold)
        assert cold.dtype == torch.float32


@pytest.mark.parametrize("level", [0.0, 1000.0, -9000.0])
def test_dense_logits_come_back_within_half_precision_of_their_distance_from_the_top(tmp_path, level) -> None:
    logits = torch.randn(50, 100, generator=torch.Generator().manual_seed(0)) * 5 + level
    with opened(tmp_path, classes=100) as cache:
        back = cache.targets(torch.arange(50), 0, lambda ids: logits[ids])
    distance = logits.amax(1, keepdim=True) - logits
    assert ((back - logits).abs() <= distance * 2**-11 + abs(level) * 2**-22 + 1e-6).all()
    assert (back.softmax(1) - logits.softmax(1)).abs().max() < 1e-3
    assert torch.equal(back.argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
    ("loss", "keywords"),
    [
        ("kd", {"temperature": 1.0}),
        ("kd", {"temperature": 4.0}),
        ("dkd", {"temperature": 4.0}),
        ("logit_std", {"temperature": 2.0}),
        ("logit_mse", {}),
        ("dist", {"temperature": 4.0}),
    ],
)
def test_with_a_thousand_classes_a_student_that_equals_its_teacher_has_the_loss_that_it_has_online(
    tmp_path, loss, keywords
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(50, 1000, generator=generator) * 2, torch.arange(50)
    logits[torch.arange(50), target] += 10
    with opened(tmp_path, classes=1000) as cache:
        back = cache.targets(torch.arange(50), 0, lambda ids: logits[ids])
        assert cache.bytes_per_view() == 4 + 4 + 1000 * 2 + 1
    online, cached = (losses.get(loss)(logits, teacher, target, **keywords).item() for teacher in (logits, back))
    assert cached == pytest.approx(online, abs=1e-4)


def test_rows_of_many_classes_are_checked_a_few_at_a_time(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(teacher_cache, "_CHUNK_BYTES", 7 * RowFormat(10).dtype.itemsize)
    checked: list[int] = []
    intact = RowFormat.intact
    with opened(tmp_path) as cache:
        for view in range(2):
            cache.targets(torch.arange(50), view, Teacher(view=view))
        monkeypatch.setattr(
            RowFormat, "intact", lambda self, rows, *rest: checked.append(len(rows)) or intact(self, rows, *rest)
        )
        again = cache.targets(torch.arange(50), 0, _never)
    assert checked == [7] * 7 + [1]
    assert torch.allclose(again, Teacher().answer(torch.arange(50)), atol=0.01)


def test_logits_that_half_precision_cannot_hold_are_cut_below_and_kept_above(tmp_path) -> None:
    logits = torch.tensor([[1e5, 0.0, -1e5, 99_999.0]])
    with opened(tmp_path, classes=4) as cache:
        back = cache.targets(torch.tensor([0]), 0, lambda ids: logits)
    assert back[0, 0].item() == 1e5
    assert back[0, 3].item() == 99_999.0
    assert back.isfinite().all()
    assert torch.allclose(back.softmax(1), logits.softmax(1))


def test_the_embedding_is_stored_on_request(tmp_path) -> None:
    embedding = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    teacher = Teacher()
    with opened(tmp_path, embedding=6) as cache:
        logits, back = cache.fetch(torch.arange(5), 0, lambda ids: (teacher(ids), embedding[ids]))
        assert torch.allclose(back, embedding[:5], atol=2e-3)
        assert torch.allclose(logits, teacher.answer(torch.arange(5)), atol=0.01)
    with opened(tmp_path) as other:
        assert other.folder != cache.folder
        assert other.fetch(torch.arange(5), 0, lambda ids: (teacher(ids), embedding[ids]))[1] is None


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(CacheKey)])
def test_any_change_of_the_key_is_another_cache(tmp_path, field) -> None:
    other = dataclasses.replace(KEY, **{field: 1 if field == "seed" else "other"})
    with opened(tmp_path) as cache, opened(tmp_path, other) as second:
        cache.targets(torch.arange(5), 0, Teacher())
        asked = Teacher(view=1)
        second.targets(torch.arange(5), 0, asked)
        assert len(asked.asked) == 5
        assert cache.folder != second.folder


def test_more_views_can_be_asked_for_later(tmp_path) -> None:
    with opened(tmp_path, views=1) as small, opened(tmp_path, views=4) as large:
        first = small.targets(torch.arange(50), 0, Teacher())
        assert torch.equal(large.targets(torch.arange(50), 0, _never), first)
        large.targets(torch.arange(50), 3, Teacher(view=3))
        assert small.views == 1
    with opened(tmp_path, views=2) as between:
        assert torch.equal(between.targets(torch.arange(50), 0, _never), first)
    with opened(tmp_path, views=4) as again:
        again.targets(torch.arange(50), 3, _never)


@pytest.mark.parametrize("where", ["check", "level", "logits"])
def test_a_flipped_bit_is_found_reported_and_filled_again(tmp_path, caplog, where) -> None:
    with opened(tmp_path) as cache:
        clean = cache.targets(torch.arange(50), 1, Teacher())
    form = RowFormat(10)
    offset = form.dtype.itemsize * (50 + 17) + form.dtype.fields[where][1]
    with (cache.folder / "rows.bin").open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
    with opened(tmp_path) as cache, caplog.at_level(logging.WARNING):
        teacher = Teacher()
        assert torch.equal(cache.targets(torch.arange(50), 1, teacher), clean)
        assert teacher.asked == [17]
        assert "1 damaged rows of the teacher cache" in caplog.text
        assert torch.equal(cache.targets(torch.arange(50), 1, _never), clean)


def test_every_single_bit_of_a_row_counts_and_so_does_its_place() -> None:
    form = RowFormat(5, embedding=3)  # an odd number of halves: the last word is padded
    logits = np.arange(5, dtype=np.float32)[None]
    row = form.encode(logits, np.ones((1, 3), np.float32), np.array([4]), 9)
    assert form.intact(row, np.array([4]), 9).all()
    assert not form.intact(row, np.array([5]), 9).any()
    assert not form.intact(row, np.array([4]), 8).any()
    for bit in range(8 * form.dtype.itemsize):
        raw = bytearray(row.tobytes())
        raw[bit // 8] ^= 1 << bit % 8
        assert not form.intact(np.frombuffer(bytes(raw), form.dtype), np.array([4]), 9).any()


def test_a_file_cut_short_is_filled_again(tmp_path) -> None:
    with opened(tmp_path) as cache:
        clean = cache.targets(torch.arange(50), 0, Teacher())
    os.truncate(cache.folder / "rows.bin", 10 * RowFormat(10).dtype.itemsize)
    with opened(tmp_path) as cache:
        teacher = Teacher()
        assert torch.equal(cache.targets(torch.arange(50), 0, teacher), clean)
        assert teacher.asked == list(range(10, 50))


CHILD = """
import os, signal, sys, time, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from test_teacher_cache import *
root, seed, out = Path({root!r}), int(sys.argv[1]), sys.argv[2]
"""

FILL = """
cache = opened(root, views=2)
answers = torch.zeros(2, 50, 10)
for view, shuffle in ((0, seed), (1, 7)):  # different orders in view 0, the same in view 1
    order = torch.randperm(50, generator=torch.Generator().manual_seed(shuffle))
    for batch in order.split(8):
        def slow(ids):
            time.sleep(0.02)
            return Teacher(view=view).answer(ids)
        answers[view, batch] = cache.targets(batch, view, slow)
np.save(out, answers.numpy())
"""

DIE_HALFWAY = """
write = os.pwrite
def pwrite(file, data, offset):
    if data == b"\\x01":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(file, data, offset)
os.pwrite = pwrite
opened(root).targets(torch.arange(20), 0, Teacher())
"""

HOLD = """
def hang(ids):
    Path(out).touch()
    time.sleep(60)
opened(root).targets(torch.arange(20), 0, hang)
"""


def _child(root: Path, script: str, seed: int, out: Path) -> subprocess.Popen[bytes]:
    code = CHILD.format(tests=str(Path(__file__).parent), root=str(root)) + script
    return subprocess.Popen([sys.executable, "-c", code, str(seed), str(out)])


def test_two_processes_fill_one_cache_together_and_get_the_same(tmp_path) -> None:
    outs = [tmp_path / f"{k}.npy" for k in range(2)]
    children = [_child(tmp_path / "caches", FILL, seed, out) for seed, out in enumerate(outs)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    first, second = (np.load(out) for out in outs)
    assert np.array_equal(first, second)
    with opened(tmp_path / "caches", views=2) as cache:
        assert cache.total_forwards() == 100
        assert np.array_equal(cache.targets(torch.arange(50), 1, _never).numpy(), first[1])


def test_a_process_killed_between_data_and_mark_leaves_nothing_wrong(tmp_path) -> None:
    assert _child(tmp_path, DIE_HALFWAY, 0, tmp_path).wait(timeout=120) == -signal.SIGKILL
    with opened(tmp_path) as cache:
        teacher = Teacher()
        answers = cache.targets(torch.arange(50), 0, teacher)
        assert teacher.asked == list(range(50))
        assert torch.allclose(answers, teacher.answer(torch.arange(50)), atol=0.01)


def test_the_rows_locked_by_a_process_that_died_are_filled_by_another(tmp_path) -> None:
    child = _child(tmp_path, HOLD, 0, tmp_path / "holding")
    while not (tmp_path / "holding").exists():
        assert child.poll() is None
        time.sleep(0.05)
    with opened(tmp_path) as cache:
        free = Teacher()
        cache.targets(torch.arange(20, 50), 0, free)  # does not wait for the others
        assert len(free.asked) == 30
        child.kill()
        child.wait(timeout=30)
        taken = Teacher()
        cache.targets(torch.arange(50), 0, taken)
        assert sorted(taken.asked) == list(range(20))


def test_row_locks_exclude_each_other_row_by_row(tmp_path) -> None:
    first, second = RowLocks(tmp_path / "locks"), RowLocks(tmp_path / "locks")
    assert first.try_acquire([1, 2, 3]) == [1, 2, 3]
    if sys.platform == "linux":
        assert second.try_acquire([3, 4]) == [4]
    first.release_all()
    assert second.try_acquire([1, 2, 3]) == [1, 2, 3]
    first.close()
    second.close()


def test_a_teacher_that_fails_leaves_its_rows_free(tmp_path) -> None:
    with opened(tmp_path) as cache, opened(tmp_path) as other:
        with pytest.raises(AssertionError):
            cache.targets(torch.arange(5), 0, _never)
        assert other.targets(torch.arange(5), 0, Teacher()).shape == (5, 10)


def test_what_it_takes_is_known_before_and_bounded(tmp_path, caplog) -> None:
    per_view = estimate(images=50, classes=10, views=1)
    assert per_view == 50 * (4 + 4 + 10 * 2 + 1)
    assert estimate(images=1000, classes=1000, views=50) == 1000 * 50 * 2009
    with caplog.at_level(logging.WARNING), opened(tmp_path, views=9, max_bytes=4 * per_view + 7) as cache:
        assert cache.views == 4
        assert "holds 4 of 9 views" in caplog.text
        assert "raise training.cache_mb or set training.teacher_mode to online" in caplog.text
    with pytest.raises(ResourceError, match=r"one view of 50 images takes 0\.0 MiB.*Raise the limit"):
        opened(tmp_path, dataclasses.replace(KEY, seed=9), max_bytes=per_view - 1)


def test_a_cache_is_not_begun_on_a_disk_without_room(tmp_path, monkeypatch) -> None:
    usage = cache_files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache_files.shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(ResourceError, match="allowed or free at"):
        opened(tmp_path)


def test_a_disk_that_fills_up_is_an_error_that_says_so(tmp_path, monkeypatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path) as cache:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceError, match=r"No space left on device.*autodistill cache ls"):
            cache.targets(torch.arange(5), 0, Teacher())
        monkeypatch.undo()
        assert cache.targets(torch.arange(5), 0, Teacher()).shape == (5, 10)


def test_files_grow_only_with_what_is_filled(tmp_path) -> None:
    with opened(tmp_path, images=100_000, views=50) as cache:
        cache.targets(torch.arange(10), 0, Teacher())
        (info,) = list_caches(tmp_path)
        assert info.bytes < 100_000
        assert (info.filled, info.views, info.images, info.classes) == (10, 50, 100_000, 10)


def test_caches_are_listed_and_removed_by_the_beginning_of_their_name(tmp_path) -> None:
    assert list_caches(tmp_path / "nowhere") == ()
    (tmp_path / "notes").mkdir()
    with opened(tmp_path) as cache:
        cache.targets(torch.arange(10), 0, Teacher())
    with opened(tmp_path, dataclasses.replace(KEY, seed=1)) as other:
        other.targets(torch.arange(10), 0, Teacher())
    os.utime(cache.folder / "cache.json", (1, 1))
    listed = list_caches(tmp_path)
    assert [info.key.seed for info in listed] == [1, 0]
    assert remove(tmp_path, cache.folder.name[:6]) == listed[1].bytes
    assert [info.name for info in list_caches(tmp_path)] == [other.folder.name]
    with pytest.raises(UsageError, match=f"0 teacher caches are called 'zzz'; there are: {other.folder.name}"):
        remove(tmp_path, "zzz")
    with pytest.raises(UsageError, match="0 teacher caches are called ''"):
        remove(tmp_path, "")


def test_a_cache_in_use_is_not_removed(tmp_path) -> None:
    with (
        opened(tmp_path) as cache,
        pytest.raises(ResourceError, match="is in use; end its study first"),
    ):
        remove(tmp_path, cache.folder.name)
    remove(tmp_path, cache.folder.name)
    assert list_caches(tmp_path) == ()


def test_a_folder_that_is_something_else_is_refused(tmp_path) -> None:
    with opened(tmp_path) as cache:
        pass
    (cache.folder / "cache.json").write_text("{}")
    with pytest.raises(StoreError, match="is not a teacher cache of this version; delete this folder"):
        opened(tmp_path)


@pytest.mark.parametrize(("ids", "view"), [([50], 0), ([-1], 0), ([0], 3), ([0], -1)])
def test_an_id_or_view_out_of_range_is_refused(tmp_path, ids, view) -> None:
    with opened(tmp_path) as cache, pytest.raises(UsageError, match="holds views 0 to 2 of images 0 to 49; got"):
        cache.targets(torch.tensor(ids), view, _never)


def test_answers_of_another_shape_or_not_finite_are_refused_and_not_stored(tmp_path) -> None:
    with opened(tmp_path) as cache:
        with pytest.raises(TeacherError, match=r"answered 2 images with logits \(2, 7\).*opened for 10 classes"):
            cache.targets(torch.arange(2), 0, Teacher(classes=7))
        with pytest.raises(TeacherError, match="logits are not finite"):
            cache.targets(torch.arange(2), 0, lambda ids: torch.full((2, 10), torch.nan))
        teacher = Teacher()
        cache.targets(torch.arange(2), 0, teacher)
        assert teacher.asked == [0, 1]
    with opened(tmp_path, embedding=4) as cache, pytest.raises(TeacherError, match=r"embedding \(2, 0\)"):
        cache.targets(torch.arange(2), 0, Teacher())


def test_nothing_in_a_cache_is_a_pickle(tmp_path) -> None:
    with opened(tmp_path) as cache:
        cache.targets(torch.arange(50), 0, Teacher())
        assert {path.name for path in cache.folder.iterdir()} == {
            *("cache.json", "rows.bin", "filled.bin", "forwards.bin", "locks"),
        }


def test_room_is_made_by_removing_what_was_unused_for_longest(tmp_path, caplog) -> None:
    for age, name in enumerate("abc"):
        key = CacheKey(name, "t", "v", 0, "p")
        with TeacherCache.open(tmp_path, key, images=512, classes=10, views=4) as cache:
            cache.targets(torch.arange(512), 0, lambda ids: torch.zeros(len(ids), 10))
        os.utime(cache.folder / "cache.json", (1000 - age, 1000 - age))
    sizes = {info.key.data: info.bytes for info in list_caches(tmp_path)}
    with TeacherCache.open(tmp_path, CacheKey("b", "t", "v", 0, "p"), images=512, classes=10, views=4):
        os.utime(
            next(tmp_path / info.name / "cache.json" for info in list_caches(tmp_path) if info.key.data == "b"), (1, 1)
        )
        assert make_room(tmp_path, sum(sizes.values())) == 0
        freed = make_room(tmp_path, sizes["a"] + sizes["b"])  # b is the oldest, but open
    assert freed == sizes["c"]
    assert {info.key.data for info in list_caches(tmp_path)} == {"a", "b"}
    assert "AUTODISTILL_CACHE_MB" in caplog.text


def test_the_limit_of_the_shared_caches_is_a_number(monkeypatch) -> None:
    monkeypatch.setenv("AUTODISTILL_CACHE_MB", "lots")
    with pytest.raises(UsageError, match="AUTODISTILL_CACHE_MB is 'lots'; allowed: a whole number"):
        teacher_cache_bytes()
    monkeypatch.setenv("AUTODISTILL_CACHE_MB", "3")
    assert teacher_cache_bytes() == 3 * 2**20
