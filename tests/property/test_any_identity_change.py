"""Whatever is said of identities, in any order: owners follow from what stands; taking all back restores all."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dicom_node.ledger import identity, identity_changes, patients
from dicom_node.ledger.database import Database
from dicom_node.ledger.identity_changes import By, Refused
from dicom_node.ledger.tables import arrival, patient_alias, study, study_owner
from tests.factories.facts import PATIENT, a_series
from tests.factories.ledger import NOW, arrive_all, owners

if TYPE_CHECKING:
    from sqlalchemy import Connection

BY = By(actor="admin", at=NOW)
HUMANS = tuple(replace(PATIENT, patient_id=name) for name in "ABCD")
FACTS = [
    instance
    for number, human in enumerate(HUMANS)
    for visit in range(2)
    for instance in a_series(date(2025, 6, 1) + timedelta(days=30 * visit + number), patient=human, slices=2)
]
STUDIES = sorted({each.study_instance_uid for each in FACTS})
KEYS = st.sampled_from([human.key for human in HUMANS])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("merge"), KEYS, KEYS),
        st.tuples(st.just("split"), KEYS, st.none()),
        st.tuples(st.just("give"), st.sampled_from(STUDIES), st.none() | KEYS),
        st.tuples(st.just("arrive"), st.integers(0, len(HUMANS) - 1), st.none()),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger to copy."""
    path = tmp_path_factory.mktemp("empty") / "ledger.sqlite"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


def change(ledger: Connection, what: str, which: object, whom: object) -> None:
    """Say one thing; what contradicts is refused and changes nothing."""
    with suppress(Refused):
        if what == "merge":
            identity_changes.merge(ledger, which, whom, BY)
        elif what == "split":
            identity_changes.split(ledger, which, BY)
        elif what == "give":
            identity_changes.give_study(ledger, which, whom, BY)
        else:
            arrive_all(ledger, [each for each in FACTS if each.patient == HUMANS[which]])


def owned(ledger: Connection) -> tuple[object, ...]:
    """Return whose instances, studies and files are."""
    return (
        owners(ledger),
        set(ledger.execute(select(study.c.study_instance_uid, study.c.patient))),
        set(ledger.execute(select(arrival.c.sop_instance_uid, arrival.c.patient))),
    )


@given(said=CHANGES)
@settings(max_examples=40, deadline=None)
def test_owners_follow_from_what_stands_and_nothing_else(empty: Path, said: list[tuple[str, object, object]]) -> None:
    """The same as if every image came after everything had been said; and as before, once all is taken back."""
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{shutil.copy(empty, Path(folder) / 'ledger.sqlite')}")
        with database.write() as ledger:
            for human in HUMANS:
                patients.patient_row(ledger, *human.key)
            for each in said:
                change(ledger, *each)
            arrive_all(ledger, FACTS)  # what had not come, comes now; the rest is a duplicate
            by_now = owned(ledger)
            for each in FACTS:
                assert by_now[0][each.sop_instance_uid] == identity.owner_row(
                    ledger, each.patient, each.study_instance_uid
                )
            studies = {row.study_instance_uid: row.patient for row in by_now[1]}
            assert all(by_now[0][each.sop_instance_uid] == studies[each.study_instance_uid] for each in FACTS)
            assert all(by_now[0][row.sop_instance_uid] == row.patient for row in by_now[2])
            _take_everything_back(ledger)
            rows = {human.key: patients.patient_row(ledger, *human.key) for human in HUMANS}
            assert owners(ledger) == {each.sop_instance_uid: rows[each.patient.key] for each in FACTS}
        database.close()


def _take_everything_back(ledger: Connection) -> None:
    for row in ledger.execute(select(patient_alias)).all():
        identity_changes.split(ledger, (row.issuer, row.patient_id), BY)
    for row in ledger.execute(select(study_owner)).all():
        identity_changes.give_study(ledger, row.study_instance_uid, None, BY)
