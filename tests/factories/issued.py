"""Everything that is issued of one run, as files beside the images it was made from: for validators and viewers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.timeline.task import SaliencyRule
from dicom_node.work.encode import encode_objects
from sr_templates.headers import to_bytes
from sr_templates.template import load_template
from tests.factories.results import DAYS, SLICES, mr_header, saliency_map

if TYPE_CHECKING:
    from pathlib import Path

    from sr_templates.sources import ReportContext

ROLES = ("T1c", "FLAIR")


def source_images(folder: Path) -> list[Path]:
    """Write the images that every test report speaks of, a file per slice."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for day in DAYS:
        for role in ROLES:
            for z in range(SLICES):
                ds = mr_header(day, role, z)
                ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
                ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
                written.append(folder / f"{ds.SOPInstanceUID}.dcm")
                written[-1].write_bytes(to_bytes(ds))
    return written


def issue(
    context: ReportContext,
    folder: Path,
    images: list[Path],
    *,
    template: str = "glioma_recurrence",
    saliency: SaliencyRule | None = None,
) -> dict[str, Path]:
    """Encode a run as a worker does and write each object; return kind -> file, of several of a kind the first."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = [] if context.result.abstention else [saliency_map()]
    paths = {each.stem: each for each in images}
    rule = saliency or SaliencyRule()
    written: dict[str, Path] = {}
    for each in encode_objects(context, maps, load_template(template), paths, saliency=rule):
        if each.kind not in written:
            written[each.kind] = folder / f"{each.kind}.dcm"
            written[each.kind].write_bytes(each.content)
    return written
