"""Named points at which a process of the node is killed, found from outside by what it does: no code of the node knows.

A point is an effect that a kill may fall before or after: a file written, synced, renamed, its folder synced; rows
entered, committed; an answer or an object on the wire; a step of the work. Effects are watched where they leave Python
(`os.fsync`, the dialect of SQLAlchemy, the sockets), so that the node may be rewritten and the points stay.

A point is armed by a file of its name in the folder `armed`; the first process that reaches it takes the file away,
writes down that it was there, and dies by SIGKILL, alone or with the whole process group, as the file says.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import json
import os
import re
import signal
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType

FOLDER_VARIABLE: Final = "DICOM_NODE_KILL_POINTS"
PREDICTOR_VARIABLE: Final = "DICOM_NODE_CONTENT_PREDICTOR"

FILES: Final = {"instances": "instance", "results": "saliency", "outbox": "object"}
FILE_EFFECTS: Final = ("written", "synced", "renamed", "durable")
ROWS: Final = {  # statement -> what is entered; the first that matches counts
    r"INSERT INTO arrival\b": "arrival",
    r"INSERT INTO instance\b": "facts",
    r"INSERT INTO run\b": "run",
    r"UPDATE run SET .*\bresult=": "result",
    r"UPDATE run SET .*\bdemographics=": "header",
    r"INSERT INTO outbox_object\b": "objects",
    r"INSERT INTO handed_over\b": "handing-over",
    r"UPDATE delivery SET .*\bsent_at=": "receipt",
    r"INSERT INTO (?:\w+\.)?workflow_status\b": "submission",
    r"INSERT INTO (?:\w+\.)?operation_outputs\b": "checkpoint",
}
ROW_EFFECTS: Final = ("entered", "committed")
WIRE: Final = ("answer.sending", "answer.sent", "delivery.sending", "delivery.sent", "delivery.answered")
STEPS: Final = ("file.read", "inference.begun", "inference.done")

POINTS: Final = (
    *(f"{kind}.{effect}" for kind in FILES.values() for effect in FILE_EFFECTS),
    *(f"{kind}.{effect}" for kind in ROWS.values() for effect in ROW_EFFECTS),
    *WIRE,
    *STEPS,
)

_ROWS: Final = [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in ROWS.items()]
_COMMAND: Final = b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes: PS3.7 E.1
_STORE_RQ, _STORE_RSP = _COMMAND + b"\x01\x00", _COMMAND + b"\x01\x80"
_P_DATA_TF: Final = 4  # PDU type, PS3.8 9.3.5
_LAST_OF_DATA: Final = 2  # message control header, PS3.8 E.2


class KillPoints:
    """The points of this process, as far as they are armed."""

    def __init__(self, folder: str) -> None:
        self._armed = os.path.join(folder, "armed")  # noqa: PTH118 - on the way of every write: no Path is made
        self._hits = os.path.join(folder, "hits.jsonl")  # noqa: PTH118
        self.role = role_of(sys.orig_argv)

    def reach(self, point: str) -> None:
        """Die here if the point is armed."""
        armed = f"{self._armed}/{point}"
        try:
            with open(armed, encoding="ascii") as file:  # noqa: PTH123
                whole_group = file.read() == "group"
            _unlink(armed)  # one process alone gets here
        except FileNotFoundError:
            return
        line = {"point": point, "role": self.role, "group": whole_group, "pid": os.getpid(), "at": time.time()}
        descriptor = os.open(self._hits, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, json.dumps(line).encode() + b"\n")
        os.close(descriptor)
        if whole_group:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


_unlink = os.unlink


def role_of(arguments: list[str]) -> str:
    """Return which of the node's processes has this command line."""
    if "dicom_node.receive.reader" in arguments:
        return "reader"
    if "--role" in arguments:
        return arguments[arguments.index("--role") + 1]
    return "supervisor" if "run" in arguments else "other"


def install(points: KillPoints) -> None:
    """Watch what this process does from now on."""
    _watch_files(points)
    _watch_sockets(points)
    finder = AfterImport(
        {
            "sqlalchemy.engine.default": lambda module: _watch_rows(points, module),
            "dicom_node.receive.facts": lambda module: _watch_call(points, module, "read_facts", after="file.read"),
            "inference.predictor": lambda module: _watch_call(
                points, module.Predictor, "predict", before="inference.begun", after="inference.done"
            ),
        }
    )
    sys.meta_path.insert(0, finder)


class AfterImport(importlib.abc.MetaPathFinder):
    """Changes modules right after they were imported, before whoever imports them sees them."""

    def __init__(self, changes: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._changes = dict(changes)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find it as everybody does, and have it changed once it is loaded."""
        change = self._changes.pop(fullname, None)  # once: another of our kind asks everybody, us too
        if change is None:
            return None
        others = (each.find_spec(fullname, path, target) for each in sys.meta_path if each is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            change(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def _kind_of(path: str) -> str | None:
    parts = path.split("/")
    return next((FILES[each] for each in reversed(parts) if each in FILES), None)


def _watch_files(points: KillPoints) -> None:
    rename, replace, sync = os.rename, os.replace, os.fsync  # a mutant's own, where it broke one

    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        folder = stat.S_ISDIR(os.fstat(number).st_mode)
        kind = None if path.endswith("/instances") else _kind_of(path)  # that folder is synced once, at the start
        if kind and not folder:
            points.reach(f"{kind}.written")
        sync(number)
        if kind:
            points.reach(f"{kind}.{'durable' if folder else 'synced'}")

    def moving(move: Callable[..., None]) -> Callable[..., None]:
        def moved(source: Any, target: Any, **options: Any) -> None:
            move(source, target, **options)
            kind = _kind_of(os.fsdecode(target))
            if kind:
                points.reach(f"{kind}.renamed")

        return moved

    os.fsync = os.fdatasync = fsync
    os.rename, os.replace = moving(rename), moving(replace)


def _watch_rows(points: KillPoints, module: ModuleType) -> None:
    dialect = module.DefaultDialect
    execute, execute_many, commit = dialect.do_execute, dialect.do_executemany, dialect.do_commit
    rollback = dialect.do_rollback
    here = threading.local()

    def note(statement: str) -> None:
        for pattern, kind in _ROWS:
            if pattern.match(statement):
                here.entered = [*getattr(here, "entered", []), kind]
                points.reach(f"{kind}.entered")
                return

    def do_execute(self: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        execute(self, cursor, statement, parameters, context)
        note(statement)

    def do_executemany(self: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        execute_many(self, cursor, statement, parameters, context)
        note(statement)

    def do_commit(self: Any, connection: Any) -> None:
        entered, here.entered = getattr(here, "entered", []), []
        commit(self, connection)
        for kind in dict.fromkeys(entered):
            points.reach(f"{kind}.committed")

    def do_rollback(self: Any, connection: Any) -> None:
        here.entered = []
        rollback(self, connection)

    dialect.do_execute, dialect.do_executemany = do_execute, do_executemany
    dialect.do_commit, dialect.do_rollback = do_commit, do_rollback


def _watch_call(points: KillPoints, owner: Any, name: str, *, before: str | None = None, after: str) -> None:
    call = getattr(owner, name)

    def called(*arguments: Any, **options: Any) -> Any:
        if before:
            points.reach(before)
        answer = call(*arguments, **options)
        points.reach(after)
        return answer

    setattr(owner, name, called)


def _watch_sockets(points: KillPoints) -> None:
    import socket  # noqa: PLC0415 - every process of the node needs it, this module for its names does not

    kind = socket.socket
    receive, receive_into = kind.recv, kind.recv_into

    def recv(self: Any, *arguments: Any) -> bytes:
        data: bytes = receive(self, *arguments)
        if len(data) < 400 and _STORE_RSP in data:
            points.reach("delivery.answered")
        return data

    def recv_into(self: Any, buffer: Any, *arguments: Any) -> int:
        count: int = receive_into(self, buffer, *arguments)
        if count < 400 and _STORE_RSP in bytes(memoryview(buffer)[:count]):
            points.reach("delivery.answered")
        return count

    kind.send, kind.sendall = _sending(points, kind.send), _sending(points, kind.sendall)  # type: ignore[method-assign]
    kind.recv, kind.recv_into = recv, recv_into  # type: ignore[method-assign]


def _sending(points: KillPoints, write: Callable[..., Any]) -> Callable[..., Any]:
    def sent(self: Any, data: Any, *flags: Any) -> Any:
        head = bytes(memoryview(data)[:400])
        if head[:2] != bytes((_P_DATA_TF, 0)):
            return write(self, data, *flags)
        answer = _STORE_RSP in head
        if answer or _STORE_RQ in head:
            points.reach("answer.sending" if answer else "delivery.sending")
        count = write(self, data, *flags)
        if answer or _ends_an_object(data):
            points.reach("answer.sent" if answer else "delivery.sent")
        return count

    return sent


def _ends_an_object(data: Any) -> bool:
    """Say whether one of the PDUs holds the last fragment of a data set."""
    view, offset = memoryview(data), 0
    while offset + 12 <= len(view) and view[offset] == _P_DATA_TF:
        if view[offset + 11] == _LAST_OF_DATA:
            return True
        offset += 6 + int.from_bytes(view[offset + 2 : offset + 6], "big")
    return False


def arm(folder: str, point: str, *, group: bool) -> None:
    """Have the next process that reaches a point killed."""
    os.makedirs(f"{folder}/armed", exist_ok=True)  # noqa: PTH103
    temporary = f"{folder}/.{point}"
    with open(temporary, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("group" if group else "one")
    os.rename(temporary, f"{folder}/armed/{point}")  # noqa: PTH104


def disarm(folder: str, point: str) -> bool:
    """Take a point back; False where somebody has just reached it."""
    with contextlib.suppress(FileNotFoundError):
        _unlink(f"{folder}/armed/{point}")
        return True
    return False
