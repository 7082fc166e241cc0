"""The address of a database that holds studies, with its password kept apart: what is shown and stored has none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

DRIVERS = {"postgresql": "psycopg", "postgres": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
"""Databases that studies can be kept in, with the Python driver that is used where the address names none."""

PASSWORD_VARIABLE = "AUTODISTILL_STORAGE_PASSWORD"
_EXAMPLE = "postgresql://user@host/database"


@dataclass(frozen=True)
class StorageUrl:
    """``dialect[+driver]://user@host:port/database``; equal for equal places, whatever the password.

    Attributes:
        public: the address without its password.
        password: as it was given in the address; ``None`` where it has to come from elsewhere.
    """

    public: str
    password: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> StorageUrl:
        """Take the password out of an address.

        Raises:
            ValueError: it is no address of a database that can be used; the message shows no part of a password.
        """
        scheme, slashes, _ = text.partition("://")
        name = scheme.partition("+")[0]
        if not slashes or name not in DRIVERS:
            got = repr(name) if slashes else "no scheme"
            raise ValueError(
                f"expected the address of a database such as {_EXAMPLE} or mysql://user@host/database, got {got}; "
                "without it a study keeps its trials in its folder (SQLite)"
            )
        try:
            parts = urlsplit(text)
            named = parts.path.strip("/") != ""
            secret_keys = [key for key, _ in parse_qsl(parts.query) if "password" in key.lower()]
        except ValueError:
            raise ValueError(f"the address cannot be read; write it as {_EXAMPLE}, special characters as %XX") from None
        if not named or "@" in parts.path or "@" in parts.fragment:
            raise ValueError(
                f"the address names no database; write it as {_EXAMPLE}, and '/', '@', '#', '?' in a password as %XX"
            )
        if secret_keys:
            raise ValueError(
                f"a password belongs before the host, not into {secret_keys[0]}=; or set {PASSWORD_VARIABLE}"
            )
        place = parts.netloc.rpartition("@")[2]
        user = parts.netloc.rpartition("@")[0].partition(":")[0]
        query = f"?{parts.query}" if parts.query else ""
        public = f"{scheme}://{user}{'@' if user else ''}{place}{parts.path}{query}"
        return cls(public, None if parts.password is None else unquote(parts.password))

    def connectable(self) -> str:
        """The address for SQLAlchemy, with driver and password; not for any eye.

        The password is the address's own, else that in the environment; PostgreSQL also looks into ``PGPASSWORD``
        and ``~/.pgpass`` by itself.
        """
        scheme, _, rest = self.public.partition("://")
        name, _, driver = scheme.partition("+")
        name = "postgresql" if name == "postgres" else name
        user, at, place = rest.rpartition("@")
        password = self.password if self.password is not None else os.environ.get(PASSWORD_VARIABLE)
        if at and password:
            user += ":" + quote(password, safe="")
        return f"{name}+{driver or DRIVERS[name]}://{user}{at}{place}"

    def __str__(self) -> str:
        return self.public


def without_password(text: str) -> str:
    """A word of a command line, for showing: an address in it loses its password."""
    before, equals, after = text.partition("=")
    start, url = (before + equals, after) if equals and "://" in after else ("", text)
    try:
        return start + StorageUrl.parse(url).public if "://" in url else text
    except ValueError:
        scheme, _, rest = url.partition("://")
        return f"{start}{scheme}://{rest.rpartition('@')[2]}" if "@" in rest else text
