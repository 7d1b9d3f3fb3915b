"""A file system of a few megabytes that a test can fill, free, and make read-only: a real one, in memory."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class SmallDisk:
    """A tmpfs at `folder`."""

    folder: Path

    def mount(self, size_mb: int) -> None:
        """Mount it, or skip the test where that is not allowed."""
        self.folder.mkdir(mode=0o700)
        options = f"size={size_mb}m,mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")

    def unmount(self) -> None:
        """Give it back, whoever still has a file open on it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self, *, leave_kb: int = 0) -> None:
        """Leave so much room and no more."""
        room = os.statvfs(self.folder)
        size = room.f_bavail * room.f_frsize - leave_kb * 1024
        with (self.folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 4096))

    def free(self) -> None:
        """Make room again."""
        (self.folder / "filler").unlink()

    def make(self, *, read_only: bool) -> None:
        """Let nobody write, or everybody again."""
        option = "remount,ro" if read_only else "remount,rw"
        subprocess.run(["mount", "-o", option, str(self.folder)], check=True, capture_output=True)
