"""What all tests share: a missing peer is a reason to skip, and in CI a failure; processes side by side get along."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

REQUIRED = "DICOM_NODE_REQUIRE_PEERS"
LONG = "DICOM_NODE_LONG"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several: their processes share the cores, so each gets one thread
    for variable in THREADS:  # before anything that reads them is imported, and for the nodes that tests start
        os.environ.setdefault(variable, "1")

# How long an example takes says how busy the machine is.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long forms out where nobody asked for them."""
    if os.environ.get(LONG) == "1":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test of a real peer that would be skipped where all peers are required."""
    report = yield
    if report.skipped and os.environ.get(REQUIRED) == "1" and item.get_closest_marker("peer"):
        report.outcome = "failed"
        report.longrepr = f"{REQUIRED}=1, but this test would be skipped: {report.longrepr}"
    return report
