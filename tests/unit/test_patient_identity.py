"""Two IDs of one human, two humans under one ID: what is said of identities moves everything, and can be taken back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from dicom_node.ledger import (
    arrivals,
    cases,
    cohort,
    deliveries,
    identity,
    identity_changes,
    orders,
    patients,
    rejections,
    runs,
)
from dicom_node.ledger.database import Database
from dicom_node.ledger.identity_changes import By, Refused
from dicom_node.ledger.tables import (
    ArrivalState,
    CaseState,
    DeliveryState,
    LookupState,
    PriorState,
    arrival,
    audit,
    patient_alias,
    prior_lookup,
    prior_series,
    prior_study,
    rejected_instance,
)
from dicom_node.timeline.identity import IdentityState, compare_patients, is_safe_in_query, same_patient
from dicom_node.timeline.model import CohortFacts, Inputs, InputSeries, InputTimePoint, Role, RunState, TimePointKind
from tests.factories.facts import PATIENT, a_series, uid
from tests.factories.ledger import NOW, arrive, arrive_all, owners, read_again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from dicom_node.timeline.identity import Identity

BY = By(actor="admin", at=NOW + timedelta(days=1))
OLD = replace(PATIENT, patient_id="OLD-1")
THIRD = replace(PATIENT, patient_id="THIRD-1")
JUNE, JULY, AUGUST = date(2025, 6, 2), date(2025, 7, 2), date(2025, 8, 2)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger to copy: the migrations take longer than most of these tests."""
    path = tmp_path_factory.mktemp("empty") / "ledger.sqlite"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def ledger(empty: Path, tmp_path: Path) -> Iterator[Connection]:
    """A write transaction on a fresh ledger."""
    database = Database(f"sqlite:///{shutil.copy(empty, tmp_path)}")
    with database.write() as connection:
        yield connection
    database.close()


def row(ledger: Connection, facts: Any) -> int:
    """Return the row of an ID."""
    return patients.patient_row(ledger, *facts.key)


def study(facts: Any, day: date, **options: Any) -> list[Any]:
    """Return a small study of somebody."""
    return a_series(day, patient=facts, slices=2, **options)


def seen(ledger: Connection, patient_row: int) -> Identity:
    """Compare what the instances and registries say of a patient, as a decision does."""
    records = [each.patient for each in patients.facts_of(ledger, patient_row)]
    return compare_patients(
        [*records, *identity.stated(ledger, patient_row)], accepted=identity.accepted(ledger, patient_row)
    )


def everything(ledger: Connection) -> dict[str, Any]:
    """Return who owns what."""
    return {
        "instances": owners(ledger),
        "studies": {
            each.row_id: set(patients.receptions(ledger, each.row_id)) for each in patients.all_patients(ledger)
        },
        "arrivals": set(ledger.execute(select(arrival.c.id, arrival.c.patient, arrival.c.state))),
    }


def a_run(ledger: Connection, key: str, studies: list[list[Any]], *, frozen: bool = False) -> str:
    """Enter a queued run over some studies, oldest first, for whoever owns the newest."""
    points = tuple(
        InputTimePoint(
            acquired_on=each[0].acquired_on,
            acquired_time=None,
            kind=TimePointKind.FOLLOW_UP,
            studies=(each[0].study_instance_uid,),
            series=(
                InputSeries(
                    role=Role.FLAIR,
                    study_instance_uid=each[0].study_instance_uid,
                    series_instance_uid=each[0].series_instance_uid,
                    frame_of_reference_uid="",
                    instances=(),
                ),
            ),
            days_since_surgery=None,
        )
        for each in studies
    )
    proposal = runs.Proposal(
        run_key=key * 64,
        patient_row=owners(ledger)[studies[-1][0].sop_instance_uid],
        task="glioma-recurrence",
        stat=False,
        inputs=Inputs(time_points=points),
        inputs_key=key * 64,
        remarks=(),
        bundle_digest="b",
        task_digest="t",
    )
    assert runs.propose(ledger, proposal, NOW)
    if frozen:
        runs.freeze(ledger, proposal.run_key, "result", NOW)
    return proposal.run_key


def state_of(ledger: Connection, run_key: str) -> tuple[int, RunState]:
    """Return whose a run is and where it stands."""
    found = runs.get(ledger, run_key)
    assert found is not None
    return found.patient_row, found.state


# merge and split ------------------------------------------------------------------------------------------------------


def test_a_merge_gives_everything_of_the_retired_id_to_the_surviving_one(ledger) -> None:
    """Instances, studies and files belong to one patient; what the instances say stays."""
    arrive_all(ledger, [*study(OLD, JUNE), *study(PATIENT, JULY)])
    change = identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    survivor, retired = row(ledger, PATIENT), row(ledger, OLD)
    assert (change.new, change.derived.instances, change.derived.studies) == (True, 2, 1)
    assert set(owners(ledger).values()) == {survivor}
    assert len(patients.receptions(ledger, survivor)) == 2
    assert set(ledger.scalars(select(arrival.c.patient))) == {survivor}
    assert {each.patient.key for each in patients.facts_of(ledger, survivor)} == {OLD.key, PATIENT.key}
    assert patients.facts_of(ledger, retired) == []
    assert identity.ids_of(ledger, survivor) == [PATIENT.key, OLD.key]


def test_what_comes_later_under_the_retired_id_is_the_survivors(ledger) -> None:
    """The scanner's worklist may lag behind the registry for days."""
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    arrive_all(ledger, study(OLD, JUNE))
    assert set(owners(ledger).values()) == {row(ledger, PATIENT)}


def test_a_split_brings_the_old_picture_back(ledger) -> None:
    """What was said is taken back, so that everything derived from it is as before."""
    arrive_all(ledger, [*study(OLD, JUNE), *study(PATIENT, JULY), *study(THIRD, AUGUST)])
    before = everything(ledger)
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert everything(ledger) != before
    identity_changes.split(ledger, OLD.key, BY)
    assert everything(ledger) == before


def test_a_chain_of_merges_ends_at_its_end_and_is_taken_back_link_by_link(ledger) -> None:
    """A into B, then B into C: all are C's. B taken out of C brings A along, as A was B's."""
    for each, day in ((OLD, JUNE), (THIRD, JULY), (PATIENT, AUGUST)):
        arrive_all(ledger, study(each, day))
    identity_changes.merge(ledger, OLD.key, THIRD.key, BY)
    identity_changes.merge(ledger, THIRD.key, PATIENT.key, BY)
    assert set(owners(ledger).values()) == {row(ledger, PATIENT)}
    assert identity.ids_of(ledger, row(ledger, PATIENT)) == [PATIENT.key, THIRD.key, OLD.key]
    identity_changes.split(ledger, THIRD.key, BY)
    assert sorted(owners(ledger).values()) == sorted([row(ledger, PATIENT)] * 2 + [row(ledger, THIRD)] * 4)


def test_an_id_merged_into_a_retired_one_goes_on_to_the_survivor(ledger) -> None:
    """Messages may come in either order."""
    arrive_all(ledger, study(OLD, JUNE))
    identity_changes.merge(ledger, THIRD.key, PATIENT.key, BY)
    identity_changes.merge(ledger, OLD.key, THIRD.key, BY)
    assert set(owners(ledger).values()) == {row(ledger, PATIENT)}


def test_the_same_merge_twice_is_one_merge(ledger) -> None:
    """A message that is sent again changes nothing and is audited once."""
    arrive_all(ledger, study(OLD, JUNE))
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    revision = patients.get(ledger, row(ledger, PATIENT)).revision
    assert identity_changes.merge(ledger, OLD.key, PATIENT.key, BY).new is False
    assert patients.get(ledger, row(ledger, PATIENT)).revision == revision
    assert len(ledger.execute(select(audit)).all()) == 1


@pytest.mark.parametrize(
    ("before", "retired", "surviving", "message"),
    [
        ((), PATIENT.key, PATIENT.key, "the same one twice"),
        ((), PATIENT.key, (" HOSPITAL ", f"{PATIENT.patient_id} "), "the same one twice"),
        (((OLD.key, PATIENT.key),), PATIENT.key, OLD.key, "was merged into the retired one before"),
        (((OLD.key, THIRD.key), (THIRD.key, PATIENT.key)), PATIENT.key, OLD.key, "merged into the retired one before"),
        (((OLD.key, PATIENT.key),), OLD.key, THIRD.key, "merged into a third one before"),
        ((), ("HOSPITAL", ""), PATIENT.key, "PatientID: expected 1 to 64 printable characters, found 0"),
        ((), ("HOSPITAL", "x" * 65), PATIENT.key, "found 65"),
        ((), ("HOSPITAL", "a\x00b"), PATIENT.key, "printable"),
        ((), ("", "1"), PATIENT.key, "issuer: expected"),
    ],
)
def test_a_merge_that_contradicts_itself_is_refused(ledger, before, retired, surviving, message) -> None:
    """Into itself, in a ring, into a second survivor, or of what is no ID; the message names nobody."""
    for pair in before:
        identity_changes.merge(ledger, *pair, BY)
    known = len(ledger.execute(select(patient_alias)).all())
    with pytest.raises(Refused, match=message) as caught:
        identity_changes.merge(ledger, retired, surviving, BY)
    assert not any(word in str(caught.value) for word in ("SENTINEL", "OLD-1", "THIRD-1", "HOSPITAL"))
    assert len(ledger.execute(select(patient_alias)).all()) == known


def test_only_what_was_merged_can_be_split(ledger) -> None:
    """There is nothing to take back."""
    with pytest.raises(Refused, match="stands for itself"):
        identity_changes.split(ledger, PATIENT.key, BY)


def test_an_admin_who_asks_for_the_retired_id_finds_the_survivor(ledger) -> None:
    """The letter on the desk may still carry the old number."""
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert [each.patient_id for each in patients.find(ledger, OLD.patient_id)] == [PATIENT.patient_id]


def test_changes_are_audited_with_who_when_and_what(ledger) -> None:
    """Each change by hand or by message has its line."""
    arrive_all(ledger, study(OLD, JUNE))
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    identity_changes.split(ledger, OLD.key, BY)
    lines = ledger.execute(select(audit).order_by(audit.c.id)).all()
    assert [(each.action, each.actor, each.at, each.subject) for each in lines] == [
        ("patient merge", "admin", BY.at, "OLD-1^^^HOSPITAL"),
        ("patient split", "admin", BY.at, "OLD-1^^^HOSPITAL"),
    ]
    assert '"into": ["HOSPITAL", "SENTINEL-4711"]' in lines[0].details


def test_everybody_concerned_is_decided_anew_and_a_retired_case_is_gone(ledger) -> None:
    """A retired ID has no case: its history is the survivor's."""
    arrive_all(ledger, [*study(OLD, JUNE), *study(PATIENT, JULY), *study(THIRD, JULY)])
    for each in patients.undecided(ledger, NOW, 10):
        case = cases.Case(
            patient_row=each.row_id, task="t", state=CaseState.WAITING, reasons=(), decided_at=NOW, run_key=None
        )
        cases.set_case(ledger, case)
        patients.decided(ledger, each, None)
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert {each.patient_id for each in patients.undecided(ledger, NOW, 10)} == {OLD.patient_id, PATIENT.patient_id}
    assert cases.of_patient(ledger, row(ledger, OLD)) == []
    assert len(cases.of_patient(ledger, row(ledger, PATIENT))) == 1


# runs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_a_merge_while_runs_are_open_leaves_no_two_of_one_patient(ledger, frozen) -> None:
    """Both saw half a history: both are taken back, and the next tick derives the whole one."""
    june, july = study(OLD, JUNE), study(PATIENT, JULY)
    arrive_all(ledger, [*june, *july])
    keys = [a_run(ledger, "a", [june], frozen=frozen), a_run(ledger, "b", [july])]
    runs.set_state(ledger, keys[1], RunState.RUNNING)
    change = identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert sorted(change.derived.superseded) == keys
    assert runs.open_runs(ledger) == []
    survivor = row(ledger, PATIENT)
    assert {state_of(ledger, key) for key in keys} == {(survivor, RunState.SUPERSEDED)}
    kept = runs.get(ledger, keys[0])
    assert kept is not None
    assert kept.result is None  # frozen or not: nothing of it was issued


def test_a_merge_that_moves_no_scan_takes_no_run_back(ledger) -> None:
    """A retired ID without images is an alias and nothing else."""
    july = study(PATIENT, JULY)
    arrive_all(ledger, july)
    key = a_run(ledger, "a", [july])
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert state_of(ledger, key) == (row(ledger, PATIENT), RunState.QUEUED)


def test_an_issued_report_follows_the_study_it_stands_in(ledger) -> None:
    """The next report names it as its predecessor, for it is the same patient's."""
    june = study(OLD, JUNE)
    arrive_all(ledger, june)
    key = a_run(ledger, "a", [june], frozen=True)
    runs.set_state(ledger, key, RunState.REPORTED)
    change = identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert state_of(ledger, key) == (row(ledger, PATIENT), RunState.REPORTED)
    assert change.derived.superseded == change.derived.mixed == ()
    identity_changes.split(ledger, OLD.key, BY)
    assert state_of(ledger, key) == (row(ledger, OLD), RunState.REPORTED)


def _issue(ledger: Connection, run_key: str) -> None:
    """Let a frozen run have been encoded."""
    report = runs.OutboxObject(
        position=0,
        kind="report",
        sop_class_uid="1.2.3",
        sop_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        study_instance_uid="2.25.3",
        path="x.dcm",
        sha256="0" * 64,
    )
    runs.record_objects(ledger, run_key, [report], NOW)


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
def test_a_report_that_is_encoded_anew_is_not_if_it_was_made_from_two_humans(ledger, state) -> None:
    """It was issued once, and stands as it was issued: predecessors count on it."""
    june, july = study(PATIENT, JUNE), study(PATIENT, JULY)
    arrive_all(ledger, [*june, *july])
    key = a_run(ledger, "a", [june, july], frozen=True)
    _issue(ledger, key)
    runs.set_state(ledger, key, state)
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert state_of(ledger, key) == (row(ledger, PATIENT), state)
    identity_changes.give_study(ledger, june[0].study_instance_uid, THIRD.key, BY)
    assert state_of(ledger, key) == (row(ledger, PATIENT), RunState.REPORTED)


def test_a_report_over_scans_of_two_humans_is_told_to_the_admin_and_sent_to_nobody_else(ledger) -> None:
    """Where it is, only a person can withdraw it; which one it is stands in the answer and in the audit."""
    june, july = study(PATIENT, JUNE), study(PATIENT, JULY)
    arrive_all(ledger, [*june, *july])
    key = a_run(ledger, "a", [june, july], frozen=True)
    _issue(ledger, key)
    deliveries.create(ledger, key, ["one", "two"], NOW)
    one, _ = deliveries.of_run(ledger, key)
    deliveries.sent(ledger, one, NOW)
    change = identity_changes.give_study(ledger, june[0].study_instance_uid, THIRD.key, BY)
    assert change.derived.mixed == (key,)
    assert state_of(ledger, key) == (row(ledger, PATIENT), RunState.REPORTED)
    assert [(each.state, each.error) for each in deliveries.of_run(ledger, key)] == [
        (DeliveryState.SENT, None),
        (DeliveryState.DEAD, "its scans are no longer one patient's"),
    ]
    assert key in ledger.scalars(select(audit.c.details)).all()[-1]


# two humans under one ID ----------------------------------------------------------------------------------------------


def test_a_study_of_another_human_is_given_away_and_back(ledger) -> None:
    """Two humans with one PatientID: held, then one study goes to the other, and both are clear."""
    stranger = replace(PATIENT, name="OTHER^HUMAN", birth_date="19440505", sex="M")
    june, july = study(PATIENT, JUNE), study(stranger, JULY)
    arrive_all(ledger, [*june, *july])
    first = row(ledger, PATIENT)
    found = seen(ledger, first)
    assert (found.state, found.fields) == (
        IdentityState.CONFLICT,
        ("PatientBirthDate", "PatientSex", "PatientName"),
    )
    identity_changes.give_study(ledger, july[0].study_instance_uid, ("HOSPITAL", "4711-B"), BY)
    (other,) = patients.find(ledger, "4711-B")
    assert seen(ledger, first).state == seen(ledger, other.row_id).state == IdentityState.CLEAR
    assert {owners(ledger)[each.sop_instance_uid] for each in july} == {other.row_id}
    late = study(stranger, JULY, name="2")
    arrive_all(ledger, late)
    assert {owners(ledger)[each.sop_instance_uid] for each in late} == {other.row_id}
    identity_changes.give_study(ledger, july[0].study_instance_uid, None, BY)
    assert seen(ledger, first).state is IdentityState.CONFLICT


def test_a_study_given_to_a_retired_id_is_its_survivors(ledger) -> None:
    """What is said of a study and what is said of an ID hold together."""
    july = study(PATIENT, JULY)
    arrive_all(ledger, july)
    identity_changes.merge(ledger, OLD.key, THIRD.key, BY)
    identity_changes.give_study(ledger, july[0].study_instance_uid, OLD.key, BY)
    assert set(owners(ledger).values()) == {row(ledger, THIRD)}


def test_only_a_study_that_is_here_and_was_given_can_be_given_back(ledger) -> None:
    """Mistyped UIDs are told."""
    arrive_all(ledger, study(PATIENT, JULY))
    with pytest.raises(Refused, match="no such study"):
        identity_changes.give_study(ledger, "1.2.3", OLD.key, BY)
    with pytest.raises(Refused, match="under the ID it carries"):
        identity_changes.give_study(ledger, uid(PATIENT.key, JULY, "A"), None, BY)


# the same instance under another ID -----------------------------------------------------------------------------------


def test_an_instance_sent_again_under_another_id_holds_both_patients(ledger) -> None:
    """It is kept aside and audited; whose it is, nobody here can know."""
    (first, _) = june = study(OLD, JUNE)
    again = replace(first, patient=PATIENT)
    arrive_all(ledger, june)
    assert arrive(ledger, again) is ArrivalState.CONFLICT
    assert arrivals.conflicts(ledger, row(ledger, OLD)) == arrivals.conflicts(ledger, row(ledger, PATIENT)) == 1
    assert owners(ledger)[first.sop_instance_uid] == row(ledger, OLD)
    (line,) = ledger.execute(select(audit)).all()
    assert (line.action, line.actor) == ("instance conflict", "SCANNER")


def test_a_merge_turns_such_a_conflict_into_a_duplicate_and_a_split_turns_it_back(ledger) -> None:
    """Until the file was compared again the case stays held."""
    (first, _) = june = study(OLD, JUNE)
    again = replace(first, patient=PATIENT)
    arrive_all(ledger, june)
    arrive(ledger, again)
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    survivor = row(ledger, PATIENT)
    assert arrivals.conflicts(ledger, survivor) == 1
    revision = patients.get(ledger, survivor).revision
    assert read_again(ledger, [first, again]) == [ArrivalState.DUPLICATE]
    assert arrivals.conflicts(ledger, survivor) == 0
    assert patients.get(ledger, survivor).revision > revision
    identity_changes.split(ledger, OLD.key, BY)
    assert read_again(ledger, [first, again]) == [ArrivalState.CONFLICT]
    assert arrivals.conflicts(ledger, row(ledger, OLD)) == 1


def test_a_file_to_be_compared_again_counts_as_received_now(ledger) -> None:
    """Nobody is judged as of the day it first came."""
    (first, _) = june = study(OLD, JUNE)
    arrive_all(ledger, june)
    arrive(ledger, replace(first, patient=PATIENT))
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert arrivals.oldest_pending(ledger) == BY.at


def test_a_duplicate_under_the_same_id_is_no_news(ledger) -> None:
    """A study that is sent again is not decided again."""
    june = study(PATIENT, JUNE)
    arrive_all(ledger, june)
    revision = patients.get(ledger, row(ledger, PATIENT)).revision
    assert {arrive(ledger, each) for each in june} == {ArrivalState.DUPLICATE}
    assert patients.get(ledger, row(ledger, PATIENT)).revision == revision
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert arrivals.pending(ledger, 10) == []


# what follows the patient ---------------------------------------------------------------------------------------------


def test_rejections_and_priors_follow_the_patient(ledger) -> None:
    """What a note took out of use stays out of use; what an archive told of counts for the survivor."""
    june = study(OLD, JUNE)
    arrive_all(ledger, june)
    retired = row(ledger, OLD)
    note = {"note_sop_instance_uid": "1.9", "patient": retired, "code": "113001", "noted_at": NOW}
    ledger.execute(rejected_instance.insert().values(sop_instance_uid=june[0].sop_instance_uid, **note))
    ledger.execute(rejected_instance.insert().values(sop_instance_uid="1.2.3.not.here", **note))
    _prior(ledger, retired, june[0].study_instance_uid)
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    survivor = row(ledger, PATIENT)
    assert rejections.rejected(ledger, survivor) == {june[0].sop_instance_uid, "1.2.3.not.here"}
    assert set(ledger.scalars(select(prior_series.c.patient))) == {survivor}
    assert set(ledger.scalars(select(prior_study.c.patient))) == {survivor}
    identity_changes.split(ledger, OLD.key, BY)
    assert rejections.rejected(ledger, retired) == {june[0].sop_instance_uid, "1.2.3.not.here"}
    assert set(ledger.scalars(select(prior_series.c.patient))) == {retired}


def _prior(ledger: Connection, patient_row: int, study_uid: str) -> None:
    lookup = ledger.execute(
        prior_lookup.insert().values(
            patient=patient_row, pacs="p", state=LookupState.DONE, opened_at=NOW, attempts=1, next_attempt_at=NOW,
            held="[]", found=1, wanted=1, refused=0,
        )
    ).inserted_primary_key  # fmt: skip
    assert lookup is not None
    common = {"pacs": "p", "study_instance_uid": study_uid, "patient": patient_row, "lookup": lookup[0]}
    common |= {"state": PriorState.FETCHED, "reason": ""}
    ledger.execute(prior_study.insert().values(**common))
    ledger.execute(
        prior_series.insert().values(
            **common, series_instance_uid="1.8", attempts=1, next_attempt_at=NOW, fetched=2, instances=2
        )
    )


def test_a_case_held_by_hand_stays_held_after_a_merge(ledger) -> None:
    """The reason to hold it did not go away with the number."""
    arrive_all(ledger, [*study(OLD, JUNE), *study(PATIENT, JULY)])
    hold = orders.Order(kind=orders.OrderKind.HOLD, given_at=NOW, actor="admin", reason="asked to")
    orders.give(ledger, row(ledger, OLD), "glioma-recurrence", hold)
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert orders.of_case(ledger, row(ledger, PATIENT), "glioma-recurrence") == {orders.OrderKind.HOLD: hold}


def test_cohort_facts_stay_under_their_id_and_a_difference_is_told(ledger) -> None:
    """Facts that come under a retired ID have the survivor decided anew."""
    cohort.replace(ledger, *PATIENT.key, CohortFacts(diagnosis="glioma"))
    cohort.replace(ledger, *OLD.key, CohortFacts(diagnosis="meningioma"))
    change = identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert "the cohort says different things" in change.remarks[0]
    assert cohort.read(ledger, *OLD.key).diagnosis == "meningioma"
    revision = patients.get(ledger, row(ledger, PATIENT)).revision
    cohort.replace(ledger, *OLD.key, CohortFacts(diagnosis="glioma"))
    assert patients.get(ledger, row(ledger, PATIENT)).revision > revision


# accept ---------------------------------------------------------------------------------------------------------------


def test_one_human_with_two_spellings_is_asked_about_and_accepted(ledger) -> None:
    """`patient accept` settles the spellings seen, and a third one asks again."""
    arrive_all(ledger, [*study(PATIENT, JUNE), *study(replace(PATIENT, name="SENTINEL-MARRIED^PATIENT"), JULY)])
    patient = row(ledger, PATIENT)
    assert (seen(ledger, patient).state, seen(ledger, patient).fields) == (IdentityState.ASK, ("PatientName",))
    found = identity_changes.accept(ledger, patient, ["PatientName"], BY)
    assert found == {"PatientName": ("SENTINEL-MARRIED^PATIENT", "SENTINEL^PATIENT")}
    assert seen(ledger, patient).state is IdentityState.CLEAR
    assert identity_changes.accept(ledger, patient, ["PatientName"], BY) == {}
    arrive_all(ledger, study(replace(PATIENT, name="THIRD^PATIENT"), AUGUST))
    assert seen(ledger, patient).state is IdentityState.ASK


def test_a_birth_date_is_accepted_only_when_it_is_named(ledger) -> None:
    """Accepting names settles no conflict."""
    arrive_all(ledger, [*study(PATIENT, JUNE), *study(replace(PATIENT, birth_date="20100302", name="X^Y"), JULY)])
    patient = row(ledger, PATIENT)
    identity_changes.accept(ledger, patient, ["PatientName"], BY)
    assert (seen(ledger, patient).state, seen(ledger, patient).fields) == (
        IdentityState.CONFLICT,
        ("PatientBirthDate",),
    )
    identity_changes.accept(ledger, patient, ["PatientBirthDate"], BY)
    assert seen(ledger, patient).state is IdentityState.CLEAR


def test_what_was_accepted_of_a_retired_id_counts_for_the_survivor(ledger) -> None:
    """A merge asks nothing again that a person has answered."""
    arrive_all(ledger, [*study(OLD, JUNE), *study(replace(OLD, name="MARRIED^PATIENT"), JULY)])
    identity_changes.accept(ledger, row(ledger, OLD), ["PatientName"], BY)
    arrive_all(ledger, study(PATIENT, AUGUST))
    identity_changes.merge(ledger, OLD.key, PATIENT.key, BY)
    assert seen(ledger, row(ledger, PATIENT)).state is IdentityState.CLEAR


# what a registry says -------------------------------------------------------------------------------------------------


def test_a_registry_corrects_a_name(ledger) -> None:
    """Old and new spelling are one human from then on, whichever the scanners send."""
    arrive_all(ledger, study(PATIENT, JUNE))
    corrected = replace(PATIENT, name="SENTINEL-MARRIED^PATIENT")
    assert identity_changes.state(ledger, corrected, BY).new
    arrive_all(ledger, study(corrected, JULY))
    assert seen(ledger, row(ledger, PATIENT)).state is IdentityState.CLEAR
    assert identity_changes.state(ledger, corrected, BY).new is False


@pytest.mark.parametrize(("field", "value"), [("birth_date", "20100302"), ("sex", "M")])
def test_a_registry_that_contradicts_birth_date_or_sex_holds_the_case(ledger, field, value) -> None:
    """It may be right, and the images may be another human's: a person looks. Taken back, the hold is gone."""
    arrive_all(ledger, study(PATIENT, JUNE))
    changed = replace(PATIENT, name="OTHER^NAME", **{field: value})
    identity_changes.state(ledger, changed, BY)
    patient = row(ledger, PATIENT)
    assert seen(ledger, patient).state is IdentityState.CONFLICT
    assert identity.accepted(ledger, patient) == {}
    identity_changes.state(ledger, PATIENT, BY)
    assert seen(ledger, patient).state is IdentityState.CLEAR


def test_a_registry_settles_no_doubt_that_was_open_before(ledger) -> None:
    """Two spellings that nobody accepted stay asked about, whatever an update repeats."""
    arrive_all(ledger, [*study(PATIENT, JUNE), *study(replace(PATIENT, name="OTHER^NAME"), JULY)])
    identity_changes.state(ledger, PATIENT, BY)
    assert seen(ledger, row(ledger, PATIENT)).state is IdentityState.ASK


@pytest.mark.parametrize("told_by_images", ["", PATIENT.birth_date])
@pytest.mark.parametrize("told_by_registry", ["", PATIENT.birth_date])
def test_a_new_name_is_a_correction_only_where_both_tell_the_same_birth_date(
    ledger, told_by_images, told_by_registry
) -> None:
    """Where nobody ever told one, another name may be another human's: a person decides."""
    arrive_all(ledger, study(replace(PATIENT, birth_date=told_by_images, sex=""), JUNE))
    said = replace(PATIENT, name="SENTINEL-MARRIED^PATIENT", birth_date=told_by_registry, sex="")
    assert identity_changes.state(ledger, said, BY).new
    expected = IdentityState.CLEAR if told_by_images and told_by_registry else IdentityState.ASK
    assert seen(ledger, row(ledger, PATIENT)).state is expected


def test_a_birth_date_told_afterwards_makes_the_new_name_a_correction(ledger) -> None:
    """The registry's second message says what the first left open; what it said once counts for no later name."""
    arrive_all(ledger, study(PATIENT, JUNE))
    renamed = replace(PATIENT, name="SENTINEL-MARRIED^PATIENT", birth_date="")
    identity_changes.state(ledger, renamed, BY)
    assert seen(ledger, row(ledger, PATIENT)).state is IdentityState.ASK
    identity_changes.state(ledger, replace(renamed, birth_date=PATIENT.birth_date), BY)
    assert seen(ledger, row(ledger, PATIENT)).state is IdentityState.CLEAR
    identity_changes.state(ledger, replace(renamed, name="SENTINEL-THIRD^PATIENT"), BY)
    assert seen(ledger, row(ledger, PATIENT)).state is IdentityState.ASK


def test_what_a_registry_leaves_empty_stays_as_said_before(ledger) -> None:
    """Empty means unchanged in an update (HL7 v2.5.1 chapter 2.5.3)."""
    arrive_all(ledger, study(PATIENT, JUNE))
    identity_changes.state(ledger, PATIENT, BY)
    assert identity_changes.state(ledger, replace(PATIENT, name="", birth_date="", sex=""), BY).new is False
    assert identity.statement(ledger, *PATIENT.key) == PATIENT


def test_a_registry_may_speak_of_everybody_but_only_those_we_know_are_kept(ledger) -> None:
    """A node in a hospital hears of all its patients."""
    assert identity_changes.state(ledger, PATIENT, BY).new is False
    assert patients.all_patients(ledger) == []
    assert ledger.execute(select(audit)).all() == []


# exactly, and by issuer -----------------------------------------------------------------------------------------------


def test_the_same_patient_id_of_two_issuers_never_meets(ledger) -> None:
    """Two hospitals number from 1."""
    elsewhere = replace(PATIENT, issuer="ELSEWHERE", birth_date="19990909")
    arrive_all(ledger, [*study(PATIENT, JUNE), *study(elsewhere, JULY)])
    assert row(ledger, PATIENT) != row(ledger, elsewhere)
    assert len(set(owners(ledger).values())) == 2
    for each in (PATIENT, elsewhere):
        assert seen(ledger, row(ledger, each)).state is IdentityState.CLEAR
    assert len(patients.find(ledger, PATIENT.patient_id)) == 2


@pytest.mark.parametrize("patient_id", ["04711", "4711A", "4711a", "47 11"])
def test_ids_that_look_alike_are_different_patients(ledger, patient_id) -> None:
    """Zeros, case and inner spaces count (PS3.4 C.2.2.2.1)."""
    arrive_all(ledger, study(replace(PATIENT, patient_id="4711"), JUNE))
    arrive_all(ledger, study(replace(PATIENT, patient_id=patient_id), JULY))
    assert len(set(owners(ledger).values())) == 2
    assert not same_patient("4711", patient_id)


@pytest.mark.parametrize("patient_id", ["47*", "47?1", "47\\11"])
def test_an_id_with_a_wild_card_is_a_patient_who_is_never_queried(ledger, patient_id) -> None:
    """It can be received, merged and shown; no archive is asked for it."""
    wild = replace(PATIENT, patient_id=patient_id)
    arrive_all(ledger, study(wild, JUNE))
    identity_changes.merge(ledger, wild.key, PATIENT.key, BY)
    asked = [key for key in identity.ids_of(ledger, row(ledger, PATIENT)) if is_safe_in_query(key[1])]
    assert asked == [PATIENT.key]
