"""Delivery: every status read, what may pass is tried again, what cannot is told."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from dicom_node.deliver import dimse, orthanc
from dicom_node.deliver.outcome import Load, Parcel, Verdict, judge_store_status, next_wait
from dicom_node.demo_pacs import free_port
from dicom_node.priors.archive import CannotBeAsked
from dicom_node.priors.dimse_find import DimseArchive
from dicom_node.settings import Dimse, Retry
from dicom_node.settings import Orthanc as OrthancSettings
from tests.factories.mr import classic_series, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.factories.peers import Orthanc


@pytest.fixture
def parcels(tmp_path: Path) -> list[Parcel]:
    """Two small objects of an outbox."""
    series = classic_series(np.zeros((2, 8, 8), dtype=np.uint16), np.eye(4))
    return [
        Parcel(path=path, sop_class_uid=MRImageStorage, sop_instance_uid=str(ds.SOPInstanceUID))
        for path, ds in zip(write(series, tmp_path / "outbox"), series, strict=True)
    ]


class Archive:
    """A real SCP that answers as told."""

    def __init__(self) -> None:
        self.port = free_port()
        self.statuses: list[int] = []
        self.received: list[str] = []
        self.hear: Callable[[evt.Event], None] = lambda _event: None
        self.ae = AE(ae_title="ARCHIVE")
        self.ae.add_supported_context(MRImageStorage)

    def start(self) -> None:
        """Serve."""
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DATA_RECV, self._hear),
        ]
        self.ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _hear(self, event: evt.Event) -> None:
        self.hear(event)

    def _store(self, event: evt.Event) -> int:
        self.received.append(str(event.request.AffectedSOPInstanceUID))
        return self.statuses.pop(0) if self.statuses else 0x0000

    @property
    def destination(self) -> Dimse:
        """How to reach it."""
        return Dimse(ae_title="ARCHIVE", host="127.0.0.1", port=self.port, timeout_s=5)


@pytest.fixture
def archive() -> Iterator[Archive]:
    """A serving archive."""
    found = Archive()
    found.start()
    yield found
    found.ae.shutdown()


def test_every_object_goes_in_order_over_one_association(archive: Archive, parcels: list[Parcel]) -> None:
    """Delivered means that the archive took each of them."""
    assert dimse.send(Load(objects=tuple(parcels)), archive.destination, "NODE").verdict is Verdict.DELIVERED
    assert archive.received == [each.sop_instance_uid for each in parcels]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.DELIVERED),
        (0xB000, Verdict.DELIVERED),
        (0xB006, Verdict.DELIVERED),
        (0x0111, Verdict.DELIVERED),
        (0xA700, Verdict.RETRY),
        (0x0110, Verdict.RETRY),
        (0xA900, Verdict.FAILED),
        (0xC000, Verdict.FAILED),
        (0x0122, Verdict.FAILED),
    ],
)
def test_each_status_has_its_consequence(
    archive: Archive, parcels: list[Parcel], status: int, verdict: Verdict
) -> None:
    """Read from a real response, and judged the same without one."""
    archive.statuses = [status]
    assert dimse.send(Load(objects=tuple(parcels)), archive.destination, "NODE").verdict is verdict
    assert judge_store_status(status).verdict is verdict


@pytest.mark.parametrize("end", ["breaks", "reads no more"])
def test_an_archive_that_ends_in_the_middle_of_an_object_is_tried_again(
    archive: Archive, tmp_path: Path, end: str
) -> None:
    """It is noticed while we still write, within the time-out."""
    (ds,) = classic_series(np.zeros((1, 4000, 4000), dtype=np.uint16), np.eye(4))  # more than both sides buffer
    uid = str(ds.SOPInstanceUID)
    large = Parcel(path=write([ds], tmp_path)[0], sop_class_uid=MRImageStorage, sop_instance_uid=uid)
    done = threading.Event()

    def hear(event: evt.Event) -> None:
        connection: Any = event.assoc.dul.socket.socket  # type: ignore[union-attr] # it is connected
        if len(event.data) > 10_000 and end == "breaks":
            connection.shutdown(socket.SHUT_RDWR)
        elif len(event.data) > 10_000:
            done.wait(60)

    archive.hear = hear
    began = time.monotonic()
    outcome = dimse.send(Load(objects=(large,)), archive.destination, "NODE")
    took_s = time.monotonic() - began
    done.set()
    assert outcome.verdict is Verdict.RETRY
    assert took_s < 30
    assert archive.received == []


def test_an_archive_that_is_away_is_tried_again(parcels: list[Parcel]) -> None:
    """No connection is nobody's fault for good."""
    away = Dimse(ae_title="ARCHIVE", host="127.0.0.1", port=free_port(), timeout_s=2)
    outcome = dimse.send(Load(objects=tuple(parcels)), away, "NODE")
    assert outcome.verdict is Verdict.RETRY
    assert "no connection" in outcome.reason


def test_an_archive_that_knows_no_such_class_fails_the_delivery(archive: Archive, parcels: list[Parcel]) -> None:
    """The reason names the SOP class, so that an admin can act."""
    (first, _) = parcels
    other = Parcel(path=first.path, sop_class_uid=SecondaryCaptureImageStorage, sop_instance_uid="1.2")
    outcome = dimse.send(Load(objects=(other,)), archive.destination, "NODE")
    assert outcome.verdict in {Verdict.FAILED, Verdict.RETRY}
    assert outcome.reason


def test_an_archive_that_only_stores_cannot_be_asked_whose_study_it_is(archive: Archive) -> None:
    """It is not taken for one that is away, which would hold back every report."""
    with pytest.raises(CannotBeAsked, match="no presentation context"):
        DimseArchive(archive.destination, "NODE").find_study("1.2.3")


def test_waits_double_up_to_the_longest() -> None:
    """With at most 10 % jitter downwards."""
    retry = Retry(first_s=5, longest_s=60)
    for attempts, expected_s in ((0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (400, 60)):
        wait = next_wait(attempts, retry)
        assert timedelta(seconds=0.9 * expected_s) <= wait <= timedelta(seconds=expected_s)


@pytest.mark.peer
def test_orthanc_takes_objects_over_rest_and_again(orthanc: Orthanc, parcels: list[Parcel]) -> None:
    """A second upload of the same bytes is delivered too."""
    destination = OrthancSettings(url=f"http://127.0.0.1:{orthanc.http_port}")
    for _ in range(2):
        assert orthanc_send(parcels, destination) is Verdict.DELIVERED
    assert len(orthanc.client.instances.get_all_ids()) == 2


def test_an_orthanc_that_is_away_is_tried_again(parcels: list[Parcel]) -> None:
    """REST has the same verdicts as DIMSE."""
    assert orthanc_send(parcels, OrthancSettings(url=f"http://127.0.0.1:{free_port()}")) is Verdict.RETRY


def orthanc_send(parcels: list[Parcel], destination: OrthancSettings) -> Verdict:
    """Send over REST and return the verdict."""
    return orthanc.send(Load(objects=tuple(parcels)), destination).verdict
