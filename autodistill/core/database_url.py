"""URL of a database that holds studies. Its password is kept apart, so that it is never shown or stored."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

DRIVERS = {"postgresql": "psycopg", "postgres": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
"""Supported databases, each with the Python driver that is used if the URL names none."""

PASSWORD_VARIABLE = "AUTODISTILL_STORAGE_PASSWORD"
_EXAMPLE = "postgresql://user@host/database"


@dataclass(frozen=True)
class StorageUrl:
    """URL ``dialect[+driver]://user@host:port/database``; comparisons ignore the password.

    Attributes:
        public: The URL without its password.
        password: Password given in the URL; ``None`` if it has to come from elsewhere.
    """

    public: str
    password: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> StorageUrl:
        """Parse a URL, and separate its password.

        Raises:
            ValueError: It is not the URL of a supported database. The message shows no part of a password.
        """
        scheme, slashes, _ = text.partition("://")
        name = scheme.partition("+")[0]
        if not slashes or name not in DRIVERS:
            got = repr(name) if slashes else "no scheme"
            raise ValueError(
                f"expected the URL of a database such as {_EXAMPLE} or mysql://user@host/database, got {got}; "
                "without a URL a study stores its trials in its folder (SQLite)"
            )
        try:
            parts = urlsplit(text)
            named = parts.path.strip("/") != ""
            secret_keys = [key for key, _ in parse_qsl(parts.query) if "password" in key.lower()]
        except ValueError:
            raise ValueError(f"the URL cannot be parsed; write it as {_EXAMPLE}, special characters as %XX") from None
        if not named or "@" in parts.path or "@" in parts.fragment:
            raise ValueError(
                f"the URL has no database; write it as {_EXAMPLE}, and '/', '@', '#', '?' in a password as %XX"
            )
        if secret_keys:
            raise ValueError(
                f"the password is given as {secret_keys[0]}=; write it before the host, or set {PASSWORD_VARIABLE}"
            )
        place = parts.netloc.rpartition("@")[2]
        user = parts.netloc.rpartition("@")[0].partition(":")[0]
        query = f"?{parts.query}" if parts.query else ""
        public = f"{scheme}://{user}{'@' if user else ''}{place}{parts.path}{query}"
        return cls(public, None if parts.password is None else unquote(parts.password))

    def connectable(self) -> str:
        """Return the URL for SQLAlchemy, with driver and password. It must not be shown or stored.

        The password is that of the URL, else that of the environment variable :data:`PASSWORD_VARIABLE`. PostgreSQL
        itself also uses ``PGPASSWORD`` and ``~/.pgpass``.
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
    """Remove the password from a URL in one argument of a command line, so that it can be shown."""
    before, equals, after = text.partition("=")
    start, url = (before + equals, after) if equals and "://" in after else ("", text)
    try:
        return start + StorageUrl.parse(url).public if "://" in url else text
    except ValueError:
        scheme, _, rest = url.partition("://")
        return f"{start}{scheme}://{rest.rpartition('@')[2]}" if "@" in rest else text
