"""A PostgreSQL cluster of our own in a folder, on the loopback interface: made, started, stopped and deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from dicom_node.demo_pacs import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
OWNER = "postgres"  # the server refuses to run as root


class Cluster:
    """A running server; `new_database` gives the URL of an empty database."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))  # not pytest's: that one only its owner may enter
        self._port = free_port()
        self._count = 0
        if os.getuid() == 0:
            shutil.chown(self._folder, OWNER)
        try:
            self._call("initdb", "--auth=trust", f"--username={OWNER}", "--encoding=UTF8", "--locale=C", "--no-sync")
            self.resume()
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        self._count += 1
        server = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE node{self._count}"))
        server.dispose()
        return self._url(f"node{self._count}")

    def halt(self) -> None:
        """End the server at once, as a crash would."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate")

    def resume(self) -> None:
        """Start the server, with what it wrote before."""
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder} -c fsync=off"
        self._call("pg_ctl", "start", "-w", "-t", "60", "-l", str(self._folder / "log"), "-o", options)

    def stop(self) -> None:
        """End the server, whoever is still connected, and delete what it wrote."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(self._folder)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{OWNER}@127.0.0.1:{self._port}/{database}"

    def _call(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs on the cluster, as a user who is not root."""
        as_owner = ("runuser", "-u", OWNER, "--") if os.getuid() == 0 else ()
        command = (*as_owner, str(PROGRAMS / program), "-D", str(self._folder / "data"), *arguments)
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)


def a_cluster() -> Iterator[Cluster]:
    """Give a server for as long as a fixture lasts."""
    if not (PROGRAMS / "initdb").is_file() or shutil.which("runuser") is None:
        pytest.skip("PostgreSQL 15 is not installed (Debian package postgresql)")
    found = Cluster()
    yield found
    found.stop()
