"""Reception measured: the same images by storescu into our node and its peers, in turn, each round on empty folders.

A measurement starts a receiver on a new folder, sends it a few images to warm up, then times the sending of all the
others over some associations, and ends with a comparison of what lies there with what was sent. Our node must hold
every data set byte by byte; if it does not, there is no figure but an error.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from dicom_node.benchmark.figures import there_and_back
from dicom_node.benchmark.images import Amount, write_images
from dicom_node.benchmark.load import inferring
from dicom_node.benchmark.node_state import unread, wait_until_read
from dicom_node.benchmark.processes import Memory, processor_s
from dicom_node.benchmark.senders import storescu
from dicom_node.benchmark.servers import serving
from dicom_node.benchmark.stored import compare
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dicom_node.benchmark.servers import Running, Server
    from dicom_node.benchmark.stored import Comparison

WARM_UP: Final = Amount(series=1, slices=8)
MEGA: Final = 1e6
LEAST_LEFT: Final = 0.3  # of the instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Under what a rate is measured; `table` is where it is shown."""

    associations: int
    nagle: bool = False  # sender and receiver as they are installed
    inferring: bool = False  # beside a worker's load

    @property
    def table(self) -> str:
        """Without Nagle's algorithm, with it, or while inference runs."""
        if self.inferring:
            return "while_inferring"
        return "nagle" if self.nagle else "nodelay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is sent to whom, and how often."""

    servers: Sequence[Server]
    settings: Sequence[Setting]
    rounds: int
    amount: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One sending. Processor time is of the receiver with its children, user and system, by instance sent."""

    receiver: str
    setting: Setting
    round: int
    instances: int
    bytes: int
    seconds: float
    processor_ms: float  # until the last answer; our node's with what it read of the images meanwhile
    processor_indexed_ms: float | None  # our node's, until it had read everything: attributes, pixels, content digest
    processor_door_ms: float | None  # our node's, without the reading: told from what the rest of the reading took
    process_peak_mb: float
    tree_peak_mb: float
    stored: Comparison

    @property
    def rate(self) -> float:
        """Instances a second."""
        return self.instances / self.seconds

    def to_json(self) -> dict[str, object]:
        """Return it as plain data."""
        content = asdict(self)
        setting = content.pop("setting")
        return {"table": self.setting.table, **setting, **content, "rate": self.rate}


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What there is to send."""

    folders: Sequence[Path]
    warm_up: Sequence[Path]

    def sent(self, setting: Setting, server: Server) -> Sequence[Path]:
        """Return the series to send; a peer that stalls with Nagle's algorithm, 40 ms an instance, gets one."""
        return self.folders[:1] if setting.nagle and not server.is_ours else self.folders


def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> list[Measurement]:
    """Measure everything, in turn.

    Raises:
        NodeError: if our node does not hold what it answered for.
        UpstreamError: if a receiver or sender fails.
    """
    say(f"making {plan.amount.instances} images")
    images = Images(
        folders=write_images(folder / "images", "ingest", plan.amount),
        warm_up=write_images(folder / "warm-up", "warm-up", WARM_UP),
    )
    found: list[Measurement] = []
    for number in range(plan.rounds):
        for setting in there_and_back(plan.settings, number):
            for server in there_and_back(plan.servers, number):
                found.append(_measure(server, setting, number, images, folder / f"receiver-{len(found)}"))
                say(f"round {number + 1}, {_named(setting)}: {server.name} {found[-1].rate:.0f} instances/s")
    return found


def _named(setting: Setting) -> str:
    kind = {"nodelay": "", "nagle": ", with Nagle", "while_inferring": ", while inferring"}[setting.table]
    return f"{setting.associations} associations{kind}"


def _measure(server: Server, setting: Setting, number: int, images: Images, folder: Path) -> Measurement:
    folders = images.sent(setting, server)
    files = _all(folders)
    with inferring(wanted=setting.inferring), serving(server, folder, nagle=setting.nagle) as running:
        storescu(running, images.warm_up, nagle=setting.nagle)
        if server.is_ours:
            wait_until_read(running)  # so that the reader has started
        before_s = processor_s(running.pid)
        with Memory(running.pid) as memory:
            seconds = storescu(running, folders, associations=setting.associations, nagle=setting.nagle)
            used_s = processor_s(running.pid) - before_s
        reading = None
        if server.is_ours and not setting.inferring:
            reading = _read_the_rest(running, before_s, used_s, len(files))
        stored = compare([*files, *_all(images.warm_up)], running.files())
    _empty(folder)
    if server.is_ours and not stored.faithful:
        msg = f"{server.name}: expected every instance once, byte by byte, found {asdict(stored)}"
        raise NodeError(msg)
    return Measurement(
        receiver=server.name,
        setting=setting,
        round=number,
        instances=len(files),
        bytes=sum(path.stat().st_size for path in files),
        seconds=seconds,
        processor_ms=1000 * used_s / len(files),
        processor_indexed_ms=reading.indexed_ms if reading else None,
        processor_door_ms=reading.door_ms if reading else None,
        process_peak_mb=memory.process_bytes / MEGA,
        tree_peak_mb=memory.tree_bytes / MEGA,
        stored=stored,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What our node used by instance, in milliseconds: with all its reading, and without any."""

    indexed_ms: float
    door_ms: float | None  # None where too little was left after the last answer to tell what reading takes


def _read_the_rest(running: Running, before_s: float, used_s: float, instances: int) -> _Reading:
    """Wait until our node has read all that it received.

    Args:
        running: our node.
        before_s: its processor time when the first instance came.
        used_s: what it used from then until its last answer.
        instances: how many came.

    Raises:
        NodeError: if it does not come to an end.
    """
    left = unread(running)
    wait_until_read(running)
    indexed_s = processor_s(running.pid) - before_s
    reading_s = (indexed_s - used_s) / left * instances if left >= instances * LEAST_LEFT else None
    return _Reading(
        indexed_ms=1000 * indexed_s / instances,
        door_ms=None if reading_s is None else 1000 * (indexed_s - reading_s) / instances,
    )


def _empty(folder: Path) -> None:
    """Give the space back and keep the names; nothing of this receiver is left to be written beside the next one.

    ext4 takes no inode again within minutes of its deletion, and looks for another one at length: whoever is measured
    after files were deleted pays 0.3 ms for each that it makes, ten times the usual.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)
    os.sync()


def _all(folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for path in folder.iterdir()]
