"""What is to become of what an archive told: the patient first, then the limits, each refusal with its reason."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.ledger.tables import PriorState
from dicom_node.priors.archive import FoundSeries, FoundStudy
from dicom_node.priors.plan import Asked, plan_series, plan_studies
from dicom_node.settings import Priors
from dicom_node.timeline.model import PatientFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

TODAY = date(2026, 3, 1)
ASKED = Asked(
    ids=frozenset({("HOSPITAL", "SENTINEL-1"), ("CLINIC", "SENTINEL-OLD")}),
    default_issuer="HOSPITAL",
    birth_dates=frozenset({"20150101"}),
    sexes=frozenset({"F"}),
    held_studies=frozenset({"1.2.99"}),
    held_series={"1.2.99.1": 10},
    own_series=frozenset({"1.2.77"}),
)


def a_found(uid: str = "1.2.3", day: date | None = date(2025, 6, 1), **said: Any) -> FoundStudy:
    """Return a study as an archive tells it."""
    person: Mapping[str, str] = {"issuer": "", "patient_id": "SENTINEL-1"}
    named = {key: said.pop(key) for key in ("issuer", "patient_id", "birth_date", "sex", "name") if key in said}
    return FoundStudy(study_instance_uid=uid, day=day, patient=PatientFacts(**{**person, **named}), **said)


def judge(found: FoundStudy, **rules: Any) -> tuple[str, str]:
    """Return state and reason of the only study."""
    (study,) = plan_studies([found], ASKED, Priors(**rules), TODAY).studies
    return study.state.value, study.reason


@pytest.mark.parametrize(
    "said",
    [
        {"patient_id": "SENTINEL-2"},
        {"patient_id": "sentinel-1"},
        {"patient_id": "0SENTINEL-1"},
        {"patient_id": ""},
        {"issuer": "ELSEWHERE"},
        {"issuer": "CLINIC"},  # this ID is ours of another issuer only
        {"patient_id": "SENTINEL-OLD"},  # and this one is not the default issuer's
        {"uid": "1.2.03"},
        {"uid": "1.2.3; DROP"},
        {"uid": ""},
        {"uid": "1." + "2" * 63},
    ],
)
def test_an_answer_about_somebody_else_is_counted_and_nothing_more(said: dict[str, str]) -> None:
    """Another ID, another issuer, or a UID that is none."""
    plan = plan_studies([a_found(**said)], ASKED, Priors(), TODAY)
    assert (plan.studies, plan.foreign) == ((), 1)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"patient_id": "  SENTINEL-1 "},
        {"issuer": "HOSPITAL"},
        {"issuer": "CLINIC", "patient_id": "SENTINEL-OLD"},
        {"birth_date": "20150101", "sex": "F", "name": "SENTINEL^ANY"},
        {"birth_date": "", "sex": ""},
        {"modalities": ("SR", "MR")},
        {"day": None},
        {"day": date(2016, 3, 4)},
        {"description": ""},
    ],
)
def test_what_the_patient_and_the_rules_allow_is_wanted(said: dict[str, Any]) -> None:
    """Padding, a merged ID, and whatever the archive does not tell keep no study back."""
    assert judge(a_found(**said), study_description="brain") == ("wanted", "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"birth_date": "20150102"}, "birth date differs"),
        ({"sex": "M"}, "sex differs"),
        ({"modalities": ("CT", "SR")}, "modality CT/SR"),
        ({"day": date(2016, 3, 1)}, "older than 3650 days"),
        ({"description": "KNEE"}, "study description does not match"),
    ],
)
def test_each_refusal_has_its_reason(said: dict[str, Any], reason: str) -> None:
    """One line an admin can act on."""
    assert judge(a_found(**said), study_description="brain|neuro") == ("refused", reason)


def test_a_study_we_hold_is_held_whatever_the_rules_say() -> None:
    """Its series are still counted."""
    assert judge(a_found("1.2.99", date(2001, 1, 1), modalities=("CT",))) == ("held", "")


def test_only_the_newest_are_fetched_and_those_held_count() -> None:
    """Three of five, one of which we hold; refused ones take no place."""
    found = [a_found(f"1.2.{number}", date(2025, number, 1)) for number in range(1, 6)]
    found += [a_found("1.2.99", date(2025, 11, 1)), a_found("1.2.50", date(2025, 12, 1), birth_date="19000101")]
    plan = plan_studies(found, ASKED, Priors(max_studies=3), TODAY)
    states = {each.study_instance_uid: each.state for each in plan.studies}
    assert states == {
        "1.2.50": PriorState.REFUSED,
        "1.2.99": PriorState.HELD,
        "1.2.5": PriorState.WANTED,
        "1.2.4": PriorState.WANTED,
        "1.2.3": PriorState.REFUSED,
        "1.2.2": PriorState.REFUSED,
        "1.2.1": PriorState.REFUSED,
    }


@pytest.mark.parametrize(
    ("said", "state", "reason"),
    [
        ({}, "wanted", ""),
        ({"modality": "MR"}, "wanted", ""),
        ({"modality": "SR"}, "wanted", ""),
        ({"modality": "KO", "instances": 1, "description": "Rejected"}, "wanted", ""),
        ({"modality": "SR", "instances": 5}, "refused", "modality SR"),
        ({"modality": "SEG"}, "refused", "modality SEG"),
        ({"modality": "CT"}, "refused", "modality CT"),
        ({"series_instance_uid": "1.2.77", "modality": "MR"}, "refused", "our own report"),
        ({"description": "localizer"}, "refused", "series description does not match"),
        ({"series_instance_uid": "1.2.99.1", "instances": 10}, "held", ""),
        ({"series_instance_uid": "1.2.99.1", "instances": 9}, "held", ""),
        ({"series_instance_uid": "1.2.99.1"}, "held", ""),
        ({"series_instance_uid": "1.2.99.1", "instances": 11}, "wanted", ""),
        ({"series_instance_uid": "1.2.99.2", "instances": 0}, "wanted", ""),
    ],
)
def test_each_series_is_judged(said: dict[str, Any], state: str, reason: str) -> None:
    """Single documents always, our own never, what is here in full not again."""
    found = FoundSeries(**{"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4", **said})
    (verdict,) = plan_series([found], "1.2.3", ASKED, Priors(series_description="flair|t1"))
    assert (verdict.state.value, verdict.reason, verdict.instances) == (state, reason, said.get("instances"))


def test_segmentations_are_not_fetched_even_if_the_configuration_lists_them() -> None:
    """A modality that is never an image is never a prior."""
    found = FoundSeries(study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", modality="SEG")
    (verdict,) = plan_series([found], "1.2.3", ASKED, Priors(modalities=("MR", "SEG")))
    assert verdict.state is PriorState.REFUSED


def test_series_of_another_study_or_without_a_legal_uid_are_dropped() -> None:
    """A row of the ledger is named by its UID, and a URL is made of it."""
    found = [
        FoundSeries(study_instance_uid="1.2.4", series_instance_uid="1.2.4.1"),
        FoundSeries(study_instance_uid="1.2.3", series_instance_uid="../../instances"),
    ]
    assert plan_series(found, "1.2.3", ASKED, Priors()) == []


@given(st.permutations([a_found(f"1.2.{number}", date(2025, 1 + number % 12, 1)) for number in range(1, 20)]))
def test_the_order_of_answers_does_not_matter(found: list[FoundStudy]) -> None:
    """Told in any order, and twice, the same studies are chosen."""
    expected = plan_studies(sorted(found, key=lambda each: each.study_instance_uid), ASKED, Priors(), TODAY)
    assert plan_studies([*found, *found], ASKED, Priors(), TODAY) == expected
