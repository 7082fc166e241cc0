from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill.core.budget import Budget, Spent, format_seconds
from autodistill.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", Budget(seconds=90)),
        ("30m", Budget(seconds=1800)),
        ("2h", Budget(seconds=7200)),
        ("1h30m", Budget(seconds=5400)),
        ("1d", Budget(seconds=86400)),
        ("40trials", Budget(trials=40)),
        ("40 trials", Budget(trials=40)),
        ("600epochs", Budget(epochs=600)),
        ("3gpu-hours", Budget(device_seconds=3 * 3600)),
        ("2h, 40trials,600epochs,1.5gpu-hours", Budget(7200, 40, 600, 5400)),
        (None, Budget()),
        ("", Budget()),
    ],
)
def test_every_form_of_the_grammar_is_read(text: str | None, expected: Budget) -> None:
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["2", "h", "2 hours long", "-3h", "0s", "2h,3h", "1.5trials", "2h,,3trials", "nan", "1e9h"]
)
def test_an_impossible_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="budget"):
        Budget.parse(text)


@given(
    st.one_of(st.none(), st.integers(1, 10**6)),
    st.one_of(st.none(), st.integers(1, 10**6)),
    st.one_of(st.none(), st.integers(1, 10**6)),
)
def test_printing_and_reading_a_budget_agree(seconds: int | None, trials: int | None, epochs: int | None) -> None:
    budget = Budget(seconds, trials, epochs)
    assert Budget.parse(str(budget)) == budget


def test_the_first_limit_reached_ends_the_search() -> None:
    budget = Budget.parse("1h,10trials")
    assert budget.exhausted(Spent(seconds=3599, trials=9)) == ""
    assert "10 trials" in budget.exhausted(Spent(seconds=10, trials=10))
    assert "time" in budget.exhausted(Spent(seconds=3600, trials=0))
    assert "gpu-hours" in Budget.parse("1gpu-hour").exhausted(Spent(device_seconds=3600))


@pytest.mark.parametrize(
    ("seconds", "text"), [(5400, "1h 30m"), (42, "42s"), (61, "1m 1s"), (90000, "1d 1h"), (0.5, "0.5s")]
)
def test_seconds_are_written_in_words(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
