from __future__ import annotations

import inspect

import pytest

import autodistill as ad


def test_the_public_names_are_sorted_and_each_once() -> None:
    assert list(ad.__all__) == sorted(set(ad.__all__))


@pytest.mark.parametrize("name", ad.__all__)
def test_every_public_name_can_be_had_and_is_documented(name: str) -> None:
    value = getattr(ad, name)
    assert inspect.getdoc(value)
    assert name in dir(ad)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        _ = ad.Studdy  # type: ignore[attr-defined]


def test_search_is_both_the_room_and_the_function() -> None:
    import autodistill.core.budget

    assert callable(ad.search)
    assert autodistill.core.budget.Budget is not None
