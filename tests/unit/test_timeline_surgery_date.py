"""A surgery date from the images: found by rule, shown with its source, decided on by nobody but a person."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
import yaml
from pydantic import ValidationError

from dicom_node.timeline.build import build_time_line
from dicom_node.timeline.decide import decide
from dicom_node.timeline.decision import Circumstances, Held
from dicom_node.timeline.model import Surgery
from dicom_node.timeline.selection import Selection
from dicom_node.timeline.surgery_date import DateRule, surgery_from_images, with_surgery_from_images
from tests.factories.facts import (
    BUNDLE_DIGEST,
    CONFIG,
    FLAIR,
    GLIOMA,
    PATIENT,
    SELECTION,
    SURGERY,
    a_cohort,
    a_series,
    follow_ups,
)

TEXT = DateRule(
    tag="StudyDescription", regex=r"(?i)\b(?:op|resection) (?P<date>\d{2}\.\d{2}\.\d{4})", format="%d.%m.%Y"
)
HISTORY = DateRule(tag="AdditionalPatientHistory", regex=r"surgery:? ?(?P<date>\d{8})", format="%Y%m%d")
APRIL, JULY, OCTOBER = date(2025, 4, 1), date(2025, 7, 1), date(2025, 10, 1)
NOBODY = a_cohort(surgeries=())


def _saying(day, **attributes):
    return a_series(day, {**FLAIR, **attributes}, slices=18)


def _found(*instances, rules=(TEXT, HISTORY)):
    return surgery_from_images([each for several in instances for each in several], rules)


@pytest.mark.parametrize(
    "attributes",
    [
        {"StudyDescription": "MR Kopf, Z.n. OP 10.01.2025"},
        {"StudyDescription": "mr brain after resection 10.01.2025"},
        {"AdditionalPatientHistory": "glioma, surgery: 20250110"},
        {"StudyDescription": ("MR Kopf", "OP 10.01.2025")},
    ],
)
def test_a_rule_finds_the_day_and_says_where(attributes) -> None:
    """The attribute and the number of the rule are the source."""
    found = _found(_saying(APRIL, **attributes), a_series(JULY))
    assert found.surgery == Surgery(on=SURGERY)
    (tag,) = attributes
    assert found.source == f"{tag} (rule {1 if tag == 'StudyDescription' else 2} of surgery_date)"


@pytest.mark.parametrize(
    "text",
    ["MR Kopf", "OP 31.02.2025", "COOP 10.01.2025", "OP 10.01.25", "OP 12.05.2025"],
    ids=["none", "no such day", "part of a word", "another format", "planned after the scan"],
)
def test_what_is_no_past_surgery_date_is_not_found(text) -> None:
    """An impossible day, another word, a plan."""
    assert _found(_saying(APRIL, StudyDescription=text)).surgery is None


def test_a_planned_day_counts_once_a_later_scan_names_it() -> None:
    """The order's text is the same before and after the operation."""
    planned = {"StudyDescription": "OP 12.05.2025"}
    assert _found(_saying(APRIL, **planned), _saying(JULY, **planned)).surgery == Surgery(on=date(2025, 5, 12))


def test_contradictory_days_are_told_and_none_is_taken() -> None:
    """Two rules, or two studies, that name different days."""
    found = _found(
        _saying(APRIL, StudyDescription="OP 10.01.2025"), _saying(JULY, AdditionalPatientHistory="surgery 20250111")
    )
    assert found.surgery is None
    assert found.contradiction is not None
    assert found.contradiction.text == (
        "the images name several surgery dates: 2025-01-10 in StudyDescription (rule 1 of surgery_date); "
        "2025-01-11 in AdditionalPatientHistory (rule 2 of surgery_date)"
    )


def test_the_cohorts_own_date_is_never_touched() -> None:
    """The images are asked only where a person has said nothing."""
    instances = _saying(APRIL, StudyDescription="OP 11.01.2025")
    assert with_surgery_from_images(a_cohort(), instances, (TEXT,)) == a_cohort()
    assert with_surgery_from_images(NOBODY, instances, ()) == NOBODY


def _decide(instances):
    cohort = with_surgery_from_images(NOBODY, instances, (TEXT, HISTORY))
    line = build_time_line(instances, selection=SELECTION, task=GLIOMA, cohort=cohort)
    circumstances = Circumstances(patient=PATIENT, bundle_digest=BUNDLE_DIGEST)
    return decide(line, GLIOMA, cohort, (), datetime(2026, 1, 20, tzinfo=UTC), circumstances=circumstances)


def test_a_found_date_holds_the_case_until_it_is_confirmed() -> None:
    """Three follow-ups are there, and yet nothing runs on a guess."""
    decision = _decide([*_saying(APRIL, StudyDescription="OP 10.01.2025"), *follow_ups(JULY, OCTOBER)])
    assert isinstance(decision, Held)
    assert [reason.code for reason in decision.reasons] == ["surgery-date-unconfirmed"]
    assert "StudyDescription (rule 1 of surgery_date)" in decision.reasons[0].text


def test_contradictory_dates_hold_the_case_and_say_so() -> None:
    """The admin sees both days, and enters the right one."""
    instances = [
        *_saying(APRIL, StudyDescription="OP 10.01.2025"),
        *_saying(JULY, StudyDescription="OP 11.01.2025"),
        *follow_ups(OCTOBER),
    ]
    decision = _decide(instances)
    assert isinstance(decision, Held)
    assert [reason.code for reason in decision.reasons] == ["surgery-dates-contradict"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tag": "Nonsense"}, "expected a text attribute read from the images"),
        ({"tag": "EchoTime"}, "expected a text attribute read from the images"),
        ({"regex": "("}, "not a regular expression"),
        ({"regex": "op"}, "expected a group"),
        ({"format": "%d.%m."}, "with day, month and year"),
        ({"format": "day"}, "expected a date format"),
    ],
)
def test_a_rule_that_can_find_nothing_is_refused(change, message) -> None:
    """At the start, with what is expected."""
    with pytest.raises(ValidationError, match=message):
        DateRule(**{**TEXT.model_dump(), **change})


def test_the_rules_stand_in_the_selection_file() -> None:
    """Optional, and absent by default."""
    rule = {"name": "any", "is": "not MR", "all": [{"tag": "Modality", "present": True}]}
    content = {"rules": [rule], "surgery_date": [TEXT.model_dump()]}
    assert Selection.model_validate(content).surgery_date == (TEXT,)
    assert Selection.model_validate({"rules": [rule]}).surgery_date == ()


def test_the_example_in_the_selection_file_is_a_rule() -> None:
    """What a site copies out of the comment works."""
    lines = (CONFIG / "selection.yaml").read_text(encoding="utf-8").splitlines()
    start = lines.index("# surgery_date:")
    (rule,) = yaml.safe_load("\n".join(line[2:] for line in lines[start : start + 2]))["surgery_date"]
    assert DateRule(**rule) == TEXT
