"""The YAML that study files and search spaces are written in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill.core.errors import ConfigError
from autodistill.core.strict_yaml import MAX_CHARACTERS, dump, load


def read(text):
    return load(text, "s.yaml")[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1.0e-3", 1e-3), ("-2E+4", -2e4), (".5", 0.5), ("3.", 3.0), ("0.05", 0.05),
        ("7", 7), ("-7", -7), ("0", 0), ("+3", 3), ("true", True), ("False", False), ("null", None),
        ("~", None), ("", None),
        ("none", "none"), ("no", "no"), ("on", "on"), ("yes", "yes"), ("010", "010"), ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1h", "1h"), ("1e", "1e"), ("'5'", "5"), ("e3", "e3"), ("1_000", "1_000"),
        ("vit", "vit"), ("a: b", {"a": "b"}),
    ],
)  # fmt: skip
def test_a_plain_value_has_the_type_of_yaml_1_2(text, value):
    data, _ = load(f"key: {text}" if ": " not in text else f"key: {{{text}}}", "s.yaml")
    assert data["key"] == value
    assert type(data["key"]) is type(value)


def test_every_key_and_list_member_has_its_line():
    data, lines = load("a:\n  b: 1\n  c:\n    - x\n    - y\n# note\nd: [1,\n  2]\n", "s.yaml")
    assert data == {"a": {"b": 1, "c": ["x", "y"]}, "d": [1, 2]}
    assert lines == {"a": 1, "a.b": 2, "a.c": 3, "a.c.0": 4, "a.c.1": 5, "d": 7, "d.0": 7, "d.1": 8}


def test_an_empty_document_is_an_empty_mapping():
    assert load("# only a comment\n", "s.yaml") == ({}, {})


def test_keys_are_text_so_that_a_number_can_name_a_choice():
    assert read("width: [8, 16]\n8: {depth: 2}\ntrue: 1\n") == {
        "width": [8, 16],
        "8": {"depth": 2},
        "true": 1,
    }


def test_all_problems_are_reported_with_their_lines():
    with pytest.raises(ConfigError) as caught:
        load("a: 1\nb: .inf\na: 2\nc: {d: 1, d: 2}\n", "s.yaml")
    assert caught.value.problems == (
        "s.yaml:2: '.inf' is not a supported number or boolean; write a finite number, true or false.",
        "s.yaml:3: a: given twice, first in line 1; keep one.",
        "s.yaml:4: c.d: given twice, first in line 4; keep one.",
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !thing 3", "tag '!thing' is not supported"),
        ("a: !!int five", "'five' is not a supported number"),
        ("a: !!bool maybe", "'maybe' is not"),
        ("base: &b {x: 1}\na:\n  <<: *b\n", "s.yaml:3: merge keys"),
        ("? [1, 2]\n: x", "a key must be a name"),
        ("a: 1e999", "finite"),
        ("a: [1, 2", "s.yaml:1: not valid YAML"),
        ("a:\n\tb: 1", "s.yaml:2: not valid YAML: found character"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: *missing", "undefined alias"),
        ("a: &x [*x]", "nested deeper"),
        ("[" * 3000, "nested deeper|not valid"),
        ("a: \x00", "not valid YAML"),
        ("#" * (MAX_CHARACTERS + 1), "at most 1,000,000"),
    ],
)
def test_what_is_not_accepted_is_said_in_one_line(text, match):
    with pytest.raises(ConfigError, match=match) as caught:
        load(text, "s.yaml")
    assert all("\n" not in problem for problem in caught.value.problems)


def test_aliases_cannot_expand_without_bound():
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9))
    with pytest.raises(ConfigError, match="more than 20,000 values"):
        load("l0: &l0 [x, x, x, x, x, x, x, x, x]\n" + levels, "s.yaml")


def test_an_alias_used_twice_is_fine():
    assert read("a: &w [1, 2]\nb: *w\nc: *w\n") == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}


texts = st.text("aBé 0:'#-{[]},&*!|>%@`~\"\\", max_size=6)
awkward = st.sampled_from(["no", "010", "1:30", "1e-3", "2024-01-01", "null", "<<", "=", "0x1F", ".inf"])
numbers = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts | awkward
keys = texts | st.just("<<")


values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(keys, scalars, max_size=3)


@given(st.dictionaries(keys, values))
def test_what_is_dumped_is_read_back_the_same(data):
    back = read(dump(data))
    assert back == data
    assert repr(back) == repr(data)
