"""Who may get a result (invariant 10): asked before a run is made, and again when its deliveries are opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.settings import Settings
    from dicom_node.work.tasks import ServedTask


def recipients(settings: Settings, served: ServedTask, *, phantom: bool) -> list[str]:
    """Return the archives for a result: a phantom-trained model's reach phantoms' archives, or those opened to it."""
    validated = phantom or not served.synthetic
    return [pacs.name for pacs in settings.pacs if pacs.results and (validated or pacs.allow_unvalidated)]


def may_answer(settings: Settings, served: ServedTask, *, phantom: bool) -> bool:
    """Say whether a run may be made at all: shadow mode computes for everybody and delivers to nobody."""
    if phantom or not served.synthetic or settings.mode == "shadow":
        return True
    return bool(recipients(settings, served, phantom=phantom))
