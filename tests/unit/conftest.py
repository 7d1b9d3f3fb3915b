"""What unit tests share: small studies, and the data folder of a node that reported on them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.factories.flair import flair_studies

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small FLAIR studies of one patient, oldest first, a file per slice: to be read, never changed."""
    return flair_studies(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory, studies: list[Path]) -> Path:
    """The data folder of a node that reported on the four studies, and has nothing left to decide: to be copied."""
    from tests.factories.bench import Bench  # noqa: PLC0415 - brings torch, which most unit tests do without

    folder = tmp_path_factory.mktemp("reported")
    bench = Bench(folder)
    bench.receive(*studies)
    bench.now += timedelta(minutes=5)
    for _ in range(3):
        bench.tick()
    bench.database.close()
    return folder
