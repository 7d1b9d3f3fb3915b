"""What a cohort was made with, as its folder says: which scans were shown, in which space, by which preprocessing.

A bundle says the same of itself, so that nobody has to be believed: it is read from what `prepare` wrote beside the
cohort, and for phantoms from the cohort's own index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from inference.selection import SelectionRule
from inference.training.cohort import MAX_SCANS
from inference.training.eligibility import Rule

if TYPE_CHECKING:
    from pathlib import Path

    from inference.training.cohort import Cohort

ABOUT: Final = "about.json"
# As phantoms are drawn: follow-ups, on the template's own grid.
_PHANTOMS = SelectionRule(roles=("FLAIR",), kinds=("follow-up",), maximum=MAX_SCANS)
_PHANTOM_TEMPLATE = "mni152"


class ProvenanceError(ValueError):
    """Nobody knows how a cohort was made, or it was made in another way than its fellow."""


class _Document(BaseModel):
    """A piece of `about.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TemplateUsed(_Document):
    """The template that scans were registered to."""

    name: str
    digest: str


class Provenance(_Document):
    """`about.json`, as `prepare` writes it."""

    table: str  # "sha256:..." of the table's bytes
    rule: Rule
    shape: tuple[int, int, int]  # (Z, Y, X)
    template: TemplateUsed
    preprocessing_version: str


class MadeWith(_Document):
    """What a bundle must say of the scans that its networks learnt from; equal for all its cohorts."""

    synthetic: bool
    selection: SelectionRule
    template: str
    template_digest: str = ""  # phantoms are registered to none
    preprocessing_version: str = ""
    input_shape: tuple[int, int, int]


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `about.json`.

    Raises:
        OSError: if the disk says no.
    """
    (folder / ABOUT).write_text(provenance.model_dump_json(indent=2) + "\n", encoding="utf-8")


def made_with(folder: Path, cohort: Cohort) -> MadeWith:
    """Return what a cohort was made with.

    Raises:
        ProvenanceError: if patients' scans lie there and nobody wrote down how they were prepared.
    """
    z, y, x = cohort.volumes.shape[1:]
    if cohort.synthetic:
        return MadeWith(synthetic=True, selection=_PHANTOMS, template=_PHANTOM_TEMPLATE, input_shape=(z, y, x))
    try:
        told = Provenance.model_validate_json((folder / ABOUT).read_bytes())
    except OSError as error:
        raise ProvenanceError(f"{folder / ABOUT}: expected it as `prepare` writes it, found none") from error
    except ValidationError as error:
        raise ProvenanceError(f"{folder / ABOUT}: expected it as `prepare` writes it, found {error}") from error
    if told.shape != (z, y, x):
        raise ProvenanceError(f"{folder}: {ABOUT} says scans of {told.shape}, the cohort holds {(z, y, x)}")
    return MadeWith(
        synthetic=False,
        selection=_as_a_node_asks(told.rule),
        template=told.template.name.lower(),
        template_digest=told.template.digest,
        preprocessing_version=told.preprocessing_version,
        input_shape=told.shape,
    )


def _as_a_node_asks(rule: Rule) -> SelectionRule:
    """Return the rule by which a node shows the same scans: of a cohort of all scans, training reads the newest six."""
    selection = rule.selection
    if selection.maximum is None and selection.choose == "last":
        return selection.model_copy(update={"maximum": MAX_SCANS})
    return selection


def refuse_differences(one: MadeWith, other: MadeWith, names: tuple[str, str]) -> None:
    """Refuse cohorts that were not made in one way.

    Raises:
        ProvenanceError: with all that differs.
    """
    first, second = one.model_dump(mode="json"), other.model_dump(mode="json")
    differing = [f"{key}: {first[key]} and {second[key]}" for key in first if first[key] != second[key]]
    if differing:
        raise ProvenanceError(f"{' and '.join(names)}: expected cohorts made in one way, found {'; '.join(differing)}")
