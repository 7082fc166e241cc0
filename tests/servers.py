"""A PostgreSQL server of a test's own: in a temporary folder, on a free loopback port, ended by its process number."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

PASSWORD = "canary/5ecret word"  # has to be quoted in an address


def programs() -> Path | None:
    """Folder of the server's programs, where it is installed and this user may start it."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    on_path = shutil.which("postgres")
    found += [Path(on_path).parent] if on_path else []
    usable = [folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()]
    return usable[0] if usable and (os.getuid() != 0 or _server_user() is not None) else None


def _server_user() -> int | None:
    """The server refuses to run as root; its package brings a user."""
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        return None


class Postgres:
    """A running server; a context manager.

    Attributes:
        port: on 127.0.0.1.
    """

    def __init__(self) -> None:
        bin_folder = programs()
        assert bin_folder is not None
        self._bin = bin_folder
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._user = _server_user() if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def url(self, database: str = "postgres", *, password: str | None = "canary%2F5ecret%20word") -> str:
        """Address of a database on it."""
        secret = f":{password}" if password is not None else ""
        return f"postgresql://tester{secret}@127.0.0.1:{self.port}/{database}"

    def __enter__(self) -> Postgres:
        secret = self._folder / "secret"
        secret.write_text(PASSWORD)
        if self._user is not None:
            for path in (self._folder, secret):
                os.chown(path, self._user, -1)
        options = ["--username=tester", f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", "-D", str(self._folder / "data"), *options, "--locale=C")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder), "-F"]
        self._process = subprocess.Popen(
            [str(self._bin / "postgres"), "-D", str(self._folder / "data"), *settings],
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            answer = subprocess.run(
                [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
            )
            if answer.returncode == 0:
                return
            time.sleep(0.1)
        raise TimeoutError("the PostgreSQL server does not start")

    def stop(self) -> None:
        """End it at once, as an administrator would: open connections are closed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # its "fast shutdown"
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def make_database(self, name: str) -> None:
        """An empty database."""
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "tester"]
        subprocess.run([str(self._bin / "createdb"), *place, name], env=environment, check=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            cwd=self._folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
