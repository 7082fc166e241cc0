from __future__ import annotations

import os
import signal

import pytest
from toys import evaluate, make_study

import autodistill as ad
from autodistill.engines.monitor.watch import Snapshot, Watch


def test_snapshots_have_states_front_and_time() -> None:
    seen: list[Snapshot] = []
    ad.search(make_study(), evaluate=evaluate, budget="6trials,1h", progress=seen.append)
    last = seen[-1]
    assert last.stage == "done"
    assert sum(last.states.values()) >= 6
    assert last.front_size >= 1
    assert last.best_accuracy is not None
    assert 0 < last.best_accuracy <= 1
    assert last.seconds_left is not None
    assert last.seconds_left + last.seconds_used == pytest.approx(3600)
    assert "6 trials" in last.message


def test_the_first_signal_asks_to_stop_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    watch = Watch()
    with watch.signals():
        assert not watch.should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.should_stop()
        assert watch.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
