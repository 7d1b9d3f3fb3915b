"""What a disk holds after a power failure, by hand: a replay that forgets nothing would prove nothing."""

from __future__ import annotations

import random

from tests.soak.power.record import Call
from tests.soak.power.replay import Disk

ROOT = "/r"


def call(kind: str, path: str, *, inode: int = 1, offset: int = 0, data: bytes = b"", other: str = "") -> Call:
    """Return a call as the recorder writes it down."""
    return Call(kind=kind, inode=inode, offset=offset, data=data, path=path, other=other)


def synced(kind: str, path: str, *, inode: int = 1, token: int = 7) -> list[Call]:
    """Return the two calls of a sync."""
    return [call("B", path, inode=inode, offset=token), call(kind, path, inode=inode, offset=token)]


def after(*calls: Call, rng: random.Random | None = None) -> dict[str, bytes | None]:
    """Return what is left of files after these calls."""
    disk = Disk(ROOT)
    disk.play(calls)
    return {path: content for path, content in disk.after_cut(rng).items() if path != ROOT}


WRITTEN = (call("C", "/r/part"), call("W", "/r/part", data=b"whole"))
FILE_SYNC = synced("S", "/r/part")
RENAMED = call("R", "/r/part", other="/r/name")
FOLDER_SYNC = synced("D", "/r", inode=2)


def test_a_file_synced_renamed_and_named_durably_is_whole() -> None:
    """The order of `write_durably`."""
    assert after(*WRITTEN, *FILE_SYNC, RENAMED, *FOLDER_SYNC) == {"/r/name": b"whole"}


def test_without_the_sync_of_the_file_its_name_is_there_and_its_bytes_are_not() -> None:
    """The classic empty file after a crash."""
    assert after(*WRITTEN, RENAMED, *FOLDER_SYNC) == {"/r/name": b""}


def test_without_the_sync_of_the_folder_its_name_is_gone() -> None:
    """Bytes that nobody finds."""
    assert after(*WRITTEN, *FILE_SYNC, RENAMED) == {}


def test_what_is_written_while_a_sync_is_under_way_is_not_kept_by_it() -> None:
    """A sync keeps what was there when it began."""
    begun, ended = FILE_SYNC
    late = call("W", "/r/part", offset=5, data=b" and more")
    assert after(*WRITTEN, begun, late, ended, RENAMED, *FOLDER_SYNC) == {"/r/name": b"whole"}


def test_a_torn_cut_keeps_some_pages_of_a_write() -> None:
    """Two pages, not synced: over many cuts all four outcomes come."""
    pages = call("W", "/r/part", data=b"a" * 4096 + b"b" * 4096)
    found = {after(call("C", "/r/part"), *FOLDER_SYNC, pages, rng=random.Random(seed))["/r/part"] for seed in range(40)}
    assert found == {b"", b"a" * 4096, bytes(4096) + b"b" * 4096, b"a" * 4096 + b"b" * 4096}


def test_a_torn_cut_never_loses_both_names_of_a_rename() -> None:
    """A rename is one step, between two folders too."""
    calls = [
        *(call("M", "/r/in"), call("M", "/r/out"), *FOLDER_SYNC, call("C", "/r/in/part")),
        *(*synced("D", "/r/in", inode=3), call("R", "/r/in/part", other="/r/out/name")),
    ]
    for seed in range(40):
        left = after(*calls, rng=random.Random(seed))
        assert {"/r/in/part", "/r/out/name"} & set(left)


def test_a_file_in_a_folder_whose_own_name_was_lost_is_lost() -> None:
    """However well it was synced itself."""
    calls = (call("M", "/r/new"), call("C", "/r/new/name"), *synced("D", "/r/new", inode=3))
    assert after(*calls) == {}
    assert after(calls[0], *FOLDER_SYNC, *calls[1:]) == {"/r/new": None, "/r/new/name": b""}
