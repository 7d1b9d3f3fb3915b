"""What is to become of the studies and series an archive told us of: held, wanted or refused, each with its reason.

Pure. Every answer is a claim: it must name exactly the patient that was asked for, and legal UIDs, before its wishes
count; then the limits of the configuration apply, the newest studies first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Final

from dicom_node.ledger.prior_series import Verdict
from dicom_node.ledger.priors import PriorStudy
from dicom_node.ledger.tables import PriorState
from dicom_node.receive.uids import is_uid
from dicom_node.timeline.identity import same_patient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dicom_node.priors.archive import FoundSeries, FoundStudy
    from dicom_node.settings import Priors

DOCUMENTS: Final = frozenset({"SR", "KO"})  # reports of ours that the ledger may have lost, and rejection notes
MOST_DOCUMENTS: Final = 4  # a report or note is alone in its series; long series are other systems'
NEVER_AN_IMAGE: Final = frozenset({"SR", "KO", "PR", "SEG", "DOC", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE", "AU"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom an archive was asked about, and what we hold of them.

    `birth_dates` and `sexes` are all that is known or accepted of the patient; empty: anything goes. `held_series` maps
    series to the number of instances held.
    """

    ids: frozenset[tuple[str, str]]  # (issuer, PatientID), with all merged into them, under every alias
    default_issuer: str  # of the IDs the archive names no issuer for
    birth_dates: frozenset[str] = frozenset()
    sexes: frozenset[str] = frozenset()
    held_studies: frozenset[str] = frozenset()
    held_series: Mapping[str, int] = field(default_factory=dict)
    own_series: frozenset[str] = frozenset()  # that we made ourselves


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """The patient's studies, the newest first, and how many answers were about nobody we asked for."""

    studies: tuple[PriorStudy, ...]
    foreign: int


def plan_studies(found: Iterable[FoundStudy], asked: Asked, rules: Priors, today: date) -> StudyPlan:
    """Judge the studies of an answer; one told twice is judged once."""
    told = list(found)
    ours = {each.study_instance_uid: each for each in told if _is_about(each, asked)}
    foreign = sum(1 for each in told if each.study_instance_uid not in ours)
    newest_first = sorted(ours.values(), key=lambda each: (each.day or date.min, each.study_instance_uid), reverse=True)
    judged, taken = [], 0
    for each in newest_first:
        state, reason = _judge_study(each, asked, rules, today)
        if state is not PriorState.REFUSED:
            taken += 1
            if state is PriorState.WANTED and taken > rules.max_studies:
                state, reason = PriorState.REFUSED, f"not among the newest {rules.max_studies} studies"
        judged.append(PriorStudy(study_instance_uid=each.study_instance_uid, day=each.day, state=state, reason=reason))
    return StudyPlan(studies=tuple(judged), foreign=foreign)


def plan_series(found: Iterable[FoundSeries], study_instance_uid: str, asked: Asked, rules: Priors) -> list[Verdict]:
    """Judge the series of one study; answers about another study, or without a legal UID, are dropped."""
    ours = {
        each.series_instance_uid: each
        for each in found
        if each.study_instance_uid == study_instance_uid and is_uid(each.series_instance_uid)
    }
    return [_judge_series(each, asked, rules) for _, each in sorted(ours.items())]


def _is_about(found: FoundStudy, asked: Asked) -> bool:
    """Compare the patient of an answer with those asked for: exactly, but for spaces around the ID."""
    issuer = found.patient.issuer or asked.default_issuer
    return is_uid(found.study_instance_uid) and any(
        issuer == asked_issuer and same_patient(asked_id, found.patient.patient_id)
        for asked_issuer, asked_id in asked.ids
    )


def _judge_study(found: FoundStudy, asked: Asked, rules: Priors, today: date) -> tuple[PriorState, str]:
    if found.study_instance_uid in asked.held_studies:
        return PriorState.HELD, ""
    reason = _other_human(found, asked) or _against_the_rules(found, rules, today)
    return (PriorState.REFUSED, reason) if reason else (PriorState.WANTED, "")


def _other_human(found: FoundStudy, asked: Asked) -> str:
    """Return which demographics contradict the patient's; an empty value conflicts with nothing."""
    person = found.patient
    if person.birth_date and asked.birth_dates and person.birth_date not in asked.birth_dates:
        return "birth date differs"
    if person.sex and asked.sexes and person.sex not in asked.sexes:
        return "sex differs"
    return ""


def _against_the_rules(found: FoundStudy, rules: Priors, today: date) -> str:
    """Return which limit of the configuration a study does not keep; what the archive does not tell keeps any."""
    if found.modalities and not set(found.modalities) & _wanted_modalities(rules):
        return f"modality {'/'.join(sorted(found.modalities))}"
    if rules.max_age_days is not None and found.day is not None and (today - found.day).days > rules.max_age_days:
        return f"older than {rules.max_age_days} days"
    if not _matches(rules.study_description, found.description):
        return "study description does not match"
    return ""


def _judge_series(found: FoundSeries, asked: Asked, rules: Priors) -> Verdict:
    state, reason = _series_state(found, asked, rules)
    return Verdict(
        study_instance_uid=found.study_instance_uid,
        series_instance_uid=found.series_instance_uid,
        state=state,
        reason=reason,
        instances=found.instances,
    )


def _series_state(found: FoundSeries, asked: Asked, rules: Priors) -> tuple[PriorState, str]:
    if found.series_instance_uid in asked.own_series:
        return PriorState.REFUSED, "our own report"
    if found.modality in DOCUMENTS and (found.instances or 1) <= MOST_DOCUMENTS:
        return PriorState.WANTED, ""  # whose report it is, only the report says
    if found.modality and found.modality not in _wanted_modalities(rules):
        return PriorState.REFUSED, f"modality {found.modality}"
    if not _matches(rules.series_description, found.description):
        return PriorState.REFUSED, "series description does not match"
    held = asked.held_series.get(found.series_instance_uid, 0)
    if held > 0 and held >= (found.instances or 0):
        return PriorState.HELD, ""
    return PriorState.WANTED, ""


def _wanted_modalities(rules: Priors) -> set[str]:
    return set(rules.modalities) - NEVER_AN_IMAGE


def _matches(pattern: str | None, text: str) -> bool:
    """Say whether a told text matches; no pattern, or nothing told: yes."""
    return pattern is None or not text or re.search(pattern, text, re.IGNORECASE) is not None
