"""The flag that stops workers: raised once, seen by all, and also once the driver is gone."""

from __future__ import annotations

import multiprocessing
import os

from autodistill.engines.driving.stop_flag import StopSwitch


def test_a_raised_flag_is_seen_and_stays_raised() -> None:
    switch = StopSwitch(multiprocessing.get_context("spawn"))
    assert not switch.flag.is_set()
    switch.set()
    switch.set()
    assert [switch.flag.is_set() for _ in range(3)] == [True] * 3


def test_a_flag_counts_as_raised_once_the_driver_is_gone() -> None:
    switch = StopSwitch(multiprocessing.get_context("spawn"))
    switch._writer.close()
    assert switch.flag.is_set()


def test_a_flag_has_no_file_in_shared_memory() -> None:
    before = set(os.listdir("/dev/shm"))
    switch = StopSwitch(multiprocessing.get_context("spawn"))
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("sem.")}
    assert not switch.flag.is_set()
