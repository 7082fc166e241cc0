"""The generated parts of the reference hold everything that the code has."""

from __future__ import annotations

import re
import typing

import pytest
from page_text import DOCS, PAGES, load_generator

from autodistill.config.study_file import StudyConfig

generate = load_generator()


def first_column(name: str) -> set[str]:
    """What stands in the first column of the tables that a generator makes, without backticks."""
    rows = re.findall(r"^\| (.+?) \| ", generate.GENERATORS[name](), re.MULTILINE)
    return {row.strip("`") for row in rows}


def test_every_marker_of_a_page_has_a_generator_and_every_generator_a_page() -> None:
    used = [name for page in PAGES for name in generate.MARKER.findall(page.read_text(encoding="utf-8"))]
    assert sorted(used) == sorted(generate.GENERATORS)


@pytest.mark.parametrize("name", sorted(generate.GENERATORS))
def test_rows_of_a_generated_table_have_as_many_cells_as_its_head(name: str) -> None:
    for table in re.findall(r"(?:^\|.*\|$\n?)+", generate.GENERATORS[name](), re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) for line in table.splitlines()}
        assert len(counts) == 1


def test_every_key_of_a_study_file_is_there_with_a_meaning() -> None:
    assert set(StudyConfig.model_fields) <= first_column("study_file")
    assert not re.search(r"\|  \|$", generate.study_file(), re.MULTILINE)


def test_keys_that_take_more_than_one_form_are_described_by_hand_and_no_others() -> None:
    hints = typing.get_type_hints(StudyConfig)
    free = {name for name in StudyConfig.model_fields if hints[name] is typing.Any}
    assert set(generate.FREE_FORM) == free
    assert set(generate.COMPUTED) <= set(StudyConfig.model_fields)


def test_a_key_has_its_type_its_default_and_whether_it_may_change() -> None:
    text = generate.study_file()
    assert "| `seed` | integer | `0` | no |" in text
    assert "| `workers` | integer or nothing | `nothing` | yes |" in text
    assert "| `val_fraction` | number, above 0 below 1 | `0.15` |" in text


def test_every_command_and_option_is_there() -> None:
    text = generate.command_line()
    for name, command in generate.commands().items():
        section = text.split(f"## {name}\n", 1)[1].split("\n## ")[0]
        for parameter in command.params:
            for option in [*parameter.opts, *parameter.secondary_opts]:
                if option.startswith("--") and option != "--help":
                    assert f"`{option}" in section, f"{name} {option}"


def test_every_space_family_loss_and_objective_is_there() -> None:
    from autodistill.search.objectives.objectives import objectives
    from autodistill.search.space.builtin import space_names
    from autodistill.training.distillation.distillation_losses import losses
    from autodistill.training.distillation.embedding_losses import embedding_losses
    from autodistill.training.students.families.schema import families

    assert set(space_names()) <= first_column("search_spaces")
    assert {*losses.names(), *embedding_losses.names()} <= first_column("losses")
    assert set(objectives.names()) <= first_column("objectives")
    assert "resnet" in first_column("families")
    assert set(families.names()) <= first_column("families")


def test_every_reason_code_that_ends_a_trial_is_there() -> None:
    from autodistill.search.study.trial_ends import FREE

    assert {*FREE, "RUNG_RULE", "NAN", "OOM", "ERROR", "PAUSED"} <= first_column("reason_codes")


def test_every_exit_code_of_an_error_is_there() -> None:
    assert {"0", "1", "2", "3", "4", "5", "6", "130", "143"} <= first_column("exit_codes")


def test_links_of_the_contributing_page_lead_to_the_same_files() -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", generate.contributing())
    missing = [target for target in targets if not (DOCS / "development" / target).exists()]
    assert targets
    assert missing == []
