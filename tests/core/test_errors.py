import pytest

from autodistill.core.errors import nearest


@pytest.mark.parametrize(
    ("got", "allowed", "expected"),
    [
        (4, ["8", "16", "24", "64"], "8"),  # by their letters 64 is as near as 24
        ("60", ["6", "8", "64", "600"], "64"),
        ("0.2", ["0.125", "0.25", "2"], "0.25"),
        ("fron", ["front", "random"], "front"),
        ("4", ["auto", "4.0x"], "4.0x"),  # one that is no number: letters again
    ],
)
def test_nearest_goes_by_distance_where_all_are_numbers_and_by_letters_elsewhere(got, allowed, expected):
    assert nearest(got, allowed, 1) == (expected,)


def test_a_name_without_a_near_match_gets_no_suggestion():
    assert nearest("zzz", ["front", "random"]) == ()
    assert nearest(3, []) == ()
