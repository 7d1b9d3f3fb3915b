"""The whole node, as deploy/compose.yaml has it: on a real PostgreSQL server, which is killed while the node works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom.uid import Comprehensive3DSRStorage

from sr_templates.read_report import read_report
from tests.factories.peers import Node, Orthanc, PhantomStudies, destination, flair_uids, storescu, wait_until
from tests.factories.postgresql import Cluster, a_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.peer


cluster = pytest.fixture(a_cluster)


@pytest.mark.usefixtures("dcmtk")
def test_a_server_that_is_killed_while_a_run_is_inferred_costs_no_report(
    orthanc: Orthanc, make_node: Callable[..., Node], phantom: PhantomStudies, cluster: Cluster
) -> None:
    """Received, inferred and delivered; the node's processes find the server again by themselves, without a restart."""
    node = make_node(pacs=[destination(orthanc)], database={"url": cluster.new_database()})
    node.import_cohort(phantom.cohort_row)
    node.start()
    supervisor = node.process
    storescu(phantom.folders[:3], node)
    wait_until("a run to be inferred", lambda: any(line.get("event") == "step.started" for line in node.log_lines()))
    cluster.halt()
    cluster.resume()
    wait_until("its report", lambda: orthanc.instances(Comprehensive3DSRStorage), timeout_s=180)
    (sr,) = orthanc.instances(Comprehensive3DSRStorage)
    for folder in phantom.folders[:3]:
        assert flair_uids(folder) <= read_report(sr).input_sop_instance_uids
    wait_until("the receipt", lambda: node.status()["deliveries"] == {"sent": 1}, timeout_s=60)
    assert node.status()["runs"] == {"reported": 1}
    assert not (node.folder / "data" / "ledger.sqlite").exists()
    assert node.process is supervisor
    assert supervisor is not None
    assert supervisor.poll() is None
