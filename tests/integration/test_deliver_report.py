"""Delivery of a whole report: SR classes settled before anything is sent, each destination on its own."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

from dicom_node.demo_pacs import free_port
from dicom_node.ledger import deliveries
from dicom_node.ledger.tables import DeliveryState
from tests.factories.archives import IMAGES, ScriptedArchive
from tests.factories.outgoing import Outgoing
from tests.factories.peers import NODE_AE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.factories.peers import Orthanc

SENT, RETRYING, DEAD = DeliveryState.SENT, DeliveryState.RETRYING, DeliveryState.DEAD


def test_of_the_reports_classes_the_first_that_is_accepted_is_sent(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Images first, one report last, over one association; which class it was is remembered."""
    main = archive()
    node = outgoing(main.configuration)
    node.later()
    assert (node.delivery().state, node.delivery().report_class) == (SENT, Comprehensive3DSRStorage)
    assert main.associations == 1
    assert main.uids[-1] == node.objects("report")[0].sop_instance_uid
    assert [ds.Modality for ds in main.received].count("SR") == 1
    assert set(main.syntaxes) == {ExplicitVRLittleEndian}
    assert node.held_by()[-1] == "report"


def test_an_archive_that_rejects_comprehensive_3d_gets_the_same_report_in_another_class(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """It holds that one and no other, and each destination on its own."""
    main = archive(classes=(*IMAGES, ComprehensiveSRStorage, EnhancedSRStorage))
    second = archive(name="second", classes=(*IMAGES, EnhancedSRStorage))
    node = outgoing(main.configuration, second.configuration)
    node.later()
    assert [node.delivery(name).report_class for name in ("main", "second")] == [
        ComprehensiveSRStorage,
        EnhancedSRStorage,
    ]
    assert main.received[-1].SOPClassUID == ComprehensiveSRStorage
    assert second.received[-1].SOPClassUID == EnhancedSRStorage
    assert node.held_by("main")[-1] == "report-compr"
    assert node.held_by("second")[-1] == "report-enhanced"
    assert [node.delivery(name).state for name in ("main", "second")] == [SENT, SENT]


def test_an_archive_that_takes_no_report_at_all_is_sent_no_images_either(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Images without a report would say nothing; the dead letter names the classes, and it holds nothing."""
    main = archive(classes=IMAGES)
    node = outgoing(main.configuration)
    node.later()
    assert node.delivery().state is DEAD
    for sop_class_uid in (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage):
        assert sop_class_uid in (node.delivery().error or "")
    assert main.received == []
    assert node.held_by() == []


def test_the_class_is_remembered_when_the_archive_learns_another(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """A report that is sent again is the one that lies there, not a second one beside it."""
    main = archive(classes=(*IMAGES, ComprehensiveSRStorage))
    node = outgoing(main.configuration)
    node.later()
    main.stop()
    grown = ScriptedArchive(port=main.port).start()
    try:
        with node.bench.database.write() as ledger:
            deliveries.revive(ledger, node.delivery(), node.bench.now)
        node.later(seconds=1)
        assert grown.received[-1].SOPClassUID == ComprehensiveSRStorage
    finally:
        grown.stop()


def test_an_archive_that_lacks_resources_twice_gets_everything_at_the_third_attempt(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """0xA700 is waited out; what it had taken before is sent again, and harmless."""
    main = archive(statuses=[0x0000, 0xA700, 0x0000, 0xA700])
    node = outgoing(main.configuration)
    node.later()
    assert (node.delivery().state, node.delivery().attempts) == (RETRYING, 1)
    assert "0xA700" in (node.delivery().error or "")
    assert len(node.held_by()) == 1
    node.later(seconds=2)
    node.later(seconds=2)
    assert (node.delivery().state, node.delivery().attempts) == (SENT, 3)
    assert set(main.uids) == {each.sop_instance_uid for each in node.objects() if each.kind in node.held_by()}
    assert node.delivery().error is None


def test_an_archive_that_aborts_in_the_middle_may_hold_what_it_did_not_answer(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Tried again; until then the object without an answer counts as there, what came after does not."""
    main = archive(abort_at=2)
    node = outgoing(main.configuration)
    node.later()
    assert node.delivery().state is RETRYING
    kinds = [each.kind for each in node.objects()]
    assert node.held_by() == kinds[:2]
    main.abort_at = None
    node.later(seconds=2)
    assert node.delivery().state is SENT


def test_a_dead_letter_is_shown_and_retried_by_hand(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """0xC000 ends it; the log says so without a name; a person's `retry` delivers it."""
    main = archive(statuses=[0xC000])
    node = outgoing(main.configuration)
    node.later()
    assert node.delivery().state is DEAD
    assert "0xC000" in (node.delivery().error or "")
    node.later(hours=100)
    assert node.delivery().attempts == 1
    with node.bench.database.write() as ledger:
        deliveries.revive(ledger, node.delivery(), node.bench.now)
    node.later()
    assert node.delivery().state is SENT


def test_bytes_that_are_not_those_that_were_encoded_are_never_sent(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """The ledger knows the digest of each object: a dead letter says which file differs."""
    main = archive()
    node = outgoing(main.configuration)
    changed = node.objects("report")[0]
    path = node.bench.folders.outbox / changed.path
    path.write_bytes(path.read_bytes() + b"\0\0")
    node.later()
    assert node.delivery().state is DEAD
    assert f"{changed.path}: expected sha256 {changed.sha256}" in (node.delivery().error or "")
    assert main.associations == 0
    assert node.held_by() == []


def test_an_end_comes_to_an_archive_that_stays_away(outgoing: Callable[..., Outgoing]) -> None:
    """After `give_up_after_h` the delivery is dead, with the last reason."""
    node = outgoing(ScriptedArchive(port=free_port()).configuration)
    node.later()
    node.later(hours=73)
    assert node.delivery().state is DEAD
    assert "given up: no connection" in (node.delivery().error or "")
    assert node.held_by() == []


def test_one_dead_archive_holds_no_other_back(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Each destination on its own."""
    second = archive(name="second")
    node = outgoing(ScriptedArchive(port=free_port()).configuration, second.configuration)
    node.later()
    assert [node.delivery(name).state for name in ("main", "second")] == [RETRYING, SENT]


def test_saliency_goes_in_jpeg_ls_where_the_archive_takes_it_and_the_site_wants_it(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """The same instance, bit for bit the same pixels; everything else as it was encoded."""
    main, second = archive(jpeg_ls=True), archive(name="second")
    node = outgoing(*({**each.configuration, "compress_saliency": True} for each in (main, second)))
    node.later()
    assert node.delivery("main").state is node.delivery("second").state is SENT
    (saliency,) = node.objects("saliency")
    for each, syntax in ((main, JPEGLSLossless), (second, ExplicitVRLittleEndian)):
        index = each.uids.index(saliency.sop_instance_uid)
        assert each.syntaxes[index] == syntax
        assert [other for place, other in enumerate(each.syntaxes) if place != index].count(syntax) in {
            0,
            len(each.syntaxes) - 1,
        }
        sent = dcmread(node.bench.folders.outbox / saliency.path)
        np.testing.assert_array_equal(each.received[index].pixel_array, sent.pixel_array)


def test_without_the_sites_wish_nothing_is_compressed(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Uncompressed by default, whatever the archive could take."""
    main = archive(jpeg_ls=True)
    node = outgoing(main.configuration)
    node.later()
    assert set(main.syntaxes) == {ExplicitVRLittleEndian}
    assert MultiFrameTrueColorSecondaryCaptureImageStorage in {ds.SOPClassUID for ds in main.received}


def test_a_killed_attempt_leaves_on_record_what_may_have_been_sent(
    outgoing: Callable[..., Outgoing], archive: Callable[..., ScriptedArchive]
) -> None:
    """Killed while sending, before the ledger knew: everything may be there; the repeated attempt settles it."""
    main = archive()
    node = outgoing(main.configuration)
    main.on_store = lambda: setattr(node, "alive", False)
    with pytest.raises(KeyboardInterrupt):
        node.later()
    node.alive, main.on_store = True, lambda: None
    assert set(node.held_by()) == {each.kind for each in node.objects()}
    node.later()
    assert node.delivery().state is SENT
    assert node.held_by()[-1] == "report"


@pytest.mark.peer
@pytest.mark.usefixtures("dcmtk")
def test_dcmtks_storescp_takes_the_report(outgoing: Callable[..., Outgoing], tmp_path: Path) -> None:
    """What lands in its folder is what was encoded, down to the data set."""
    folder, port = tmp_path / "storescp", free_port()
    folder.mkdir()
    command = ["/usr/bin/storescp", "-aet", "MAIN", "-od", str(folder), "+xe", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        node = outgoing(ScriptedArchive(port=port).configuration)
        node.later()

        def delivered() -> bool:
            node.later(seconds=2)
            return node.delivery().state is SENT

        wait_until("storescp to take it", delivered, timeout_s=20)
    finally:
        server.terminate()
        server.wait(timeout=10)
    stored = {str(ds.SOPInstanceUID): ds for ds in map(dcmread, folder.iterdir())}
    with node.bench.database.read() as ledger:
        held = deliveries.held_by(ledger, node.delivery())
    assert set(stored) == {each.sop_instance_uid for each in held}
    for each in held:
        assert stored[each.sop_instance_uid] == dcmread(node.bench.folders.outbox / each.path)


@pytest.mark.peer
@pytest.mark.parametrize("way", ["dimse", "orthanc", "dicomweb"])
def test_orthanc_takes_the_report_by_every_way_and_again(
    outgoing: Callable[..., Outgoing], orthanc: Orthanc, way: str
) -> None:
    """C-STORE, its REST API and STOW-RS; a second delivery of the same bytes is a success and changes nothing."""
    orthanc.dicomweb = True
    orthanc.stop()
    orthanc.start()
    url = f"http://127.0.0.1:{orthanc.http_port}"
    ways: dict[str, dict[str, Any]] = {
        "dimse": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port},
        "orthanc": {"url": url},
        "dicomweb": {"url": f"{url}/dicom-web"},
    }
    node = outgoing({"name": "main", way: ways[way]}, ae_title=NODE_AE)
    node.later()
    assert node.delivery().state is SENT, node.delivery().error
    stored = set(orthanc.client.instances.get_all_ids())
    assert len(stored) == len(node.held_by())
    (report,) = orthanc.instances(Comprehensive3DSRStorage)
    assert report == dcmread(node.bench.folders.outbox / node.objects("report")[0].path)
    with node.bench.database.write() as ledger:
        deliveries.revive(ledger, node.delivery(), node.bench.now)
    node.later(seconds=1)
    assert node.delivery().state is SENT
    assert set(orthanc.client.instances.get_all_ids()) == stored
    assert node.bench.now - timedelta(seconds=1) < (node.delivery().sent_at or node.bench.now)
