"""What all tests share: a missing peer is a reason to skip, and in CI a failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

REQUIRED = "DICOM_NODE_REQUIRE_PEERS"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test of a real peer that would be skipped where all peers are required."""
    report = yield
    if report.skipped and os.environ.get(REQUIRED) == "1" and item.get_closest_marker("peer"):
        report.outcome = "failed"
        report.longrepr = f"{REQUIRED}=1, but this test would be skipped: {report.longrepr}"
    return report
