"""A sacrificial child process that reads untrusted files: what kills it, or never ends, costs one file.

The child has bounded memory, answers one file at a time over a pipe, and is replaced when it dies or is silent for
too long. Its answer is plain text, so nothing of the file's making is ever unpickled here.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Final, TypeVar

from dicom_node.priors.own_reports import OwnReport
from dicom_node.timeline.model import InstanceFacts
from dicom_node.timeline.rejection import RejectionNote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

TIMEOUT_S: Final = 60.0
MEMORY_BYTES: Final = 8 << 30
PIECE_BYTES: Final = 1 << 16
ReadT = TypeVar("ReadT", InstanceFacts, RejectionNote, OwnReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Why a file gave no facts: `not_an_input` means that nothing is wrong with it; `crashed`, that the child died."""

    reason: str
    not_an_input: bool = False
    crashed: bool = False


class Reader:
    """Reads files in a child process, made on first use and replaced when it is lost.

    `issuer_aliases` are other words for an issuer: whoever is read is named by the issuer itself.
    """

    def __init__(
        self,
        *,
        timeout_s: float = TIMEOUT_S,
        memory_bytes: float = MEMORY_BYTES,
        issuer_aliases: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._issuer_aliases = issuer_aliases
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, path: Path, default_issuer: str) -> InstanceFacts | RejectionNote | OwnReport | Unread:
        """Read one file; never raises for what is in it."""
        child = self._child = self._child or _start(self._memory_bytes)
        line = _ask(child, {"path": str(path), "default_issuer": default_issuer}, self._timeout_s)
        if not line:
            code = child.wait()
            self.close()
            return Unread(reason=f"the reader died or took over {self._timeout_s:.0f} s (exit {code})", crashed=True)
        answer = json.loads(line)
        if "facts" in answer:
            return self._named(InstanceFacts.from_json(answer["facts"]))
        if "note" in answer:
            return self._named(RejectionNote.from_json(answer["note"]))
        if "report" in answer:
            return self._named(OwnReport.from_json(answer["report"]))
        return Unread(reason=answer["reason"], not_an_input=answer["not_an_input"])

    def _named(self, read: ReadT) -> ReadT:
        """Name the issuer as the configuration does."""
        issuer = self._issuer_aliases.get(read.patient.issuer, read.patient.issuer)
        return replace(read, patient=replace(read.patient, issuer=issuer))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    _close_quietly(pipe)
            self._child.kill()
            self._child.wait()
            self._child = None


def _start(memory_bytes: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "dicom_node.receive.reader", str(int(memory_bytes))]
    return subprocess.Popen(  # noqa: S603 - our own module, no shell
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _ask(child: subprocess.Popen[bytes], question: dict[str, str], timeout_s: float) -> bytes:
    """Return the line that the child answers with; nothing if it died, or was killed because it took too long."""
    assert child.stdin is not None  # noqa: S101 - opened as a pipe above
    assert child.stdout is not None  # noqa: S101 - opened as a pipe above
    deadline = time.monotonic() + timeout_s
    try:
        child.stdin.write(json.dumps(question).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return b""
    answers, answer = select.poll(), bytearray()
    answers.register(child.stdout, select.POLLIN)
    while not answer.endswith(b"\n"):
        if not answers.poll(1000 * max(0.0, deadline - time.monotonic())):
            child.kill()
            return b""
        if not (piece := os.read(child.stdout.fileno(), PIECE_BYTES)):
            return b""
        answer += piece
    return bytes(answer)


def _close_quietly(pipe: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the child is gone and with it whatever was still in the pipe
        pipe.close()


def _answer(question: dict[str, str]) -> dict[str, object]:
    from dicom_node.receive.facts import NotAnInput, UnreadableInstance  # noqa: PLC0415 - child only

    try:
        return _read(Path(question["path"]), question["default_issuer"])
    except NotAnInput as error:
        return {"reason": error.kind, "not_an_input": True}
    except UnreadableInstance as error:
        return {"reason": str(error), "not_an_input": False}


def _read(path: Path, default_issuer: str) -> dict[str, object]:
    """Read an image, or what its SOP class says it is instead."""
    from dicom_node.priors.own_reports import STRUCTURED_REPORT, read_own_report  # noqa: PLC0415 - child only
    from dicom_node.receive.facts import (  # noqa: PLC0415 - child only
        KEY_OBJECT_SELECTION,
        NotAnInput,
        UnreadableInstance,
        read_facts,
    )
    from dicom_node.receive.notes import read_note  # noqa: PLC0415 - child only

    if path.is_symlink():
        raise UnreadableInstance("symbolic-link", "what was stored is a file")
    try:
        return {"facts": read_facts(path, default_issuer=default_issuer).to_json()}
    except NotAnInput as error:
        kind = error.kind
        if kind not in {KEY_OBJECT_SELECTION, STRUCTURED_REPORT}:
            raise
    if kind == STRUCTURED_REPORT:
        return {"report": read_own_report(path, default_issuer=default_issuer).to_json()}
    return {"note": read_note(path, default_issuer=default_issuer).to_json()}


def main() -> None:
    """Answer questions on standard input until it ends; nothing else may be written to standard output."""
    memory_bytes = int(sys.argv[1]) if len(sys.argv) > 1 else MEMORY_BYTES
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY:
        memory_bytes = min(memory_bytes, allowed)  # who started us may have less to give
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        output.write(json.dumps(_answer(json.loads(line))) + "\n")
        output.flush()


if __name__ == "__main__":
    main()
