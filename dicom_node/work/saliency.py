"""Whether a run's saliency maps are delivered, and what its report says of that.

A map that does not show what changed misleads more than none. A bundle tells what a check of its maps found; a task may
leave the choice to it, ask for maps all the same, or want none. Whatever is not plain is told in the report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference.results import QualityFlag

if TYPE_CHECKING:
    from dicom_node.timeline.task import SaliencyRule
    from inference.bundle_files import SaliencyEvidence

# What the remark is about: a report template may have words of its own for it.
WITHHELD: Final = "no-saliency-map"
UNPROVEN: Final = "saliency-map-unproven"

_NOT_ASKED: Final = "the task asks for none"
_FAILED: Final = "the model's maps did not pass the check that they show what changed"
_UNCHECKED: Final = "nobody has checked whether the model's maps show what changed"


def is_delivered(rule: SaliencyRule, evidence: SaliencyEvidence | None) -> bool:
    """Say whether maps are delivered: as the task says, else as the bundle does; of a bundle without a check, none."""
    if rule.deliver == "auto":
        return evidence is not None and evidence.delivered_by_default
    return rule.deliver == "always"


def remark(rule: SaliencyRule, evidence: SaliencyEvidence | None) -> QualityFlag | None:
    """Return what a report says: why there is no map, or that there is one without proof; None: a map that passed."""
    proven = evidence is not None and evidence.delivered_by_default
    reason = _UNCHECKED if evidence is None else _FAILED
    if is_delivered(rule, evidence):
        message = f"a saliency map is given because the task asks for it: {reason}"
        return None if proven else QualityFlag(code=UNPROVEN, message=message)
    why = _NOT_ASKED if rule.deliver == "never" else reason
    return QualityFlag(code=WITHHELD, message=f"no saliency map is given: {why}")


def told(rule: SaliencyRule, evidence: SaliencyEvidence | None) -> str:
    """Return in a line what `check` and `doctor` say of a task's maps, with what the bundle's check measured."""
    delivered = "delivered" if is_delivered(rule, evidence) else "not delivered"
    found = _UNCHECKED if evidence is None else f"{evidence.method}; {evidence.evidence}"
    return f"saliency maps {delivered} (saliency.deliver = {rule.deliver}): {found}"
