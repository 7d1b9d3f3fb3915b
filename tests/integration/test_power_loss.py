"""The power fails while a listener receives: what was acknowledged survives, and a missing sync would be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.inject.mutants import NO_FILE_SYNC, NO_FOLDER_SYNC, NO_LEDGER_SYNC
from tests.soak.power.record import compiler
from tests.soak.power_loss import Plan, PowerLoss, table

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.peer,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(compiler() is None, reason="no C compiler: writes cannot be recorded"),
]


def test_what_was_acknowledged_survives_a_power_failure_at_any_write(tmp_path: Path) -> None:
    """The node's own calls are replayed up to random cuts, without what was not synced."""
    report = PowerLoss(Plan(patients=1, cuts=40, seed=1, role="listener"), tmp_path / "run").run()
    assert report["verdict"] == "kept", table(report) + str(report["broken"])


@pytest.mark.parametrize("mutant", [NO_FILE_SYNC, NO_FOLDER_SYNC, NO_LEDGER_SYNC])
def test_a_node_that_forgets_a_sync_is_found_out(tmp_path: Path, mutant: str) -> None:
    """The same cuts find a node that syncs no file, no folder, or not its ledger."""
    report = PowerLoss(Plan(patients=1, cuts=12, seed=1, role="listener", mutant=mutant), tmp_path / "run").run()
    assert report["broken"]["acknowledged instances survive"]
    assert report["broken"]["the record is complete"] == []
