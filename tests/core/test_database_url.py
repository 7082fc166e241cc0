from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodistill.config.study_file import StudyConfig
from autodistill.core.database_url import PASSWORD_VARIABLE, StorageUrl, without_password
from autodistill.core.errors import ConfigError

FULL = "postgresql://anna:s3cr%2Ft@db.example:5432/studies?sslmode=require"


def test_the_password_is_kept_apart_and_never_shown() -> None:
    url = StorageUrl.parse(FULL)
    assert str(url) == "postgresql://anna@db.example:5432/studies?sslmode=require"
    assert url.password == "s3cr/t"
    assert "s3cr" not in repr(url)
    assert url.connectable() == "postgresql+psycopg://anna:s3cr%2Ft@db.example:5432/studies?sslmode=require"
    assert url == StorageUrl.parse(str(url))


def test_without_a_password_it_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url = StorageUrl.parse("mysql://anna@db/studies")
    assert url.connectable() == "mysql+pymysql://anna@db/studies"
    monkeypatch.setenv(PASSWORD_VARIABLE, "p@ss")
    assert url.connectable() == "mysql+pymysql://anna:p%40ss@db/studies"
    assert StorageUrl.parse("postgres+pg8000:///studies").connectable() == "postgresql+pg8000:///studies"


@pytest.mark.parametrize(
    "wrong",
    [
        "sqlite:///s3cret.db",
        "s3cret",
        "postgresql://anna:s3cret@host",
        "postgresql://anna:s3cret/x@host/db",
        "postgresql://anna:s3#cret@host/db",
        "postgresql://anna@host/db?password=s3cret",
        "postgresql://anna:s3cret@[::1/db",
    ],
)
def test_a_wrong_address_is_refused_without_repeating_it(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        StudyConfig.load({"data": "digits", "storage": wrong})
    assert "s3" not in str(caught.value)


def test_a_configuration_is_written_without_the_password() -> None:
    config = StudyConfig.load({"data": "digits", "storage": FULL})
    assert "s3cr" not in repr(config) + str(config.resolved())
    assert StudyConfig.load(config.resolved()).storage == config.storage
    assert config.storage is not None
    assert config.storage.password == "s3cr/t"


def test_a_command_line_is_shown_without_the_password() -> None:
    assert without_password(f"--storage={FULL}") == f"--storage={StorageUrl.parse(FULL)}"
    assert without_password(FULL) == str(StorageUrl.parse(FULL))
    assert without_password("redis://me:s3cret@host") == "redis://host"
    assert without_password("--set") == "--set"
    assert without_password("student.family=resnet") == "student.family=resnet"


@given(st.text(min_size=1, max_size=40), st.sampled_from(["postgresql", "mysql+pymysql", "mariadb"]))
def test_whatever_the_password_is_the_shown_address_is_the_same(password: str, scheme: str) -> None:
    from urllib.parse import quote

    try:
        quoted = quote(password, safe="")
    except UnicodeEncodeError:
        return
    url = StorageUrl.parse(f"{scheme}://anna:{quoted}@host/db")
    assert (url.public, url.password) == (f"{scheme}://anna@host/db", password)
