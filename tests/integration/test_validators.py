"""Every object of every template and language is legal, by every validator there is; and the validators can say no."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread

from dicom_node.timeline.task import SaliencyRule
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import build_reports
from sr_templates.template import load_template
from tests.factories.issued import issue, source_images
from tests.factories.results import answer, no_answer, report_context

if TYPE_CHECKING:
    from inference.results import Result

pytestmark = pytest.mark.peer

TEMPLATES = sorted(each.stem for each in (Path(__file__).parents[2] / "sr_templates").glob("*.yaml"))
RESULTS = {"answer": answer(), "synthetic": answer(0.42, synthetic=True), "abstention": no_answer()}
IMAGES = ("saliency", "summary", "parametric-map")
SINGLE = ("single", "saliency")
VALIDATE = "DICOM_NODE_VALIDATE"
GEOMETRY = ("18,0x0050", "20,0x0032", "20,0x0037", "20,0x0052", "20,0x1040", "20,0x1041")  # of a slice, on a capture
# What dciodvfy says of right objects: private schemes, a Device UID newer than the tool, geometry in a capture.
KNOWN = (
    "Unrecognized defined term <99",
    "Device UID",
    "Standard Extended SOP Class",
    "QUANTITY",
    *(f"Attribute is not present in standard DICOM IOD - (0x00{tag})" for tag in GEOMETRY),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The source images."""
    return source_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, images: list[Path]) -> list[Path]:
    """Every kind of object of every template: an answer, a synthetic model's, an abstention; reports in 3 classes."""
    folder = tmp_path_factory.mktemp("objects")
    made: list[Path] = []
    for template in TEMPLATES:
        for name, result in RESULTS.items():
            made += _reports(folder / template / name, template, result)
        every = SaliencyRule(parametric_map=True)
        made += issue(
            report_context(answer()), folder / template / "all", images, template=template, saliency=every
        ).values()
    single = SaliencyRule(format="single-frame")
    made.append(issue(report_context(answer()), folder / "single" / "single", images, saliency=single)["saliency"])
    return made


def _reports(folder: Path, template: str, result: Result) -> list[Path]:
    folder.mkdir(parents=True)
    context = report_context(result, phantom=result.model.synthetic)
    paths = []
    for kind, ds in build_reports(context, load_template(template), ()).items():
        paths.append(folder / f"{kind}.dcm")
        paths[-1].write_bytes(to_bytes(ds))
    return paths


def complaints(*files: Path) -> list[str]:
    """Return what dciodvfy calls an error or warns of beside what is known, and what dsrdump calls an error."""
    found = []
    for file in files:
        lines = _output("dciodvfy", file)
        found += [each for each in lines if each.startswith(("Error", "Warning")) and not any(k in each for k in KNOWN)]
        if dcmread(file, stop_before_pixels=True).Modality == "SR":
            found += [each for each in _output("dsrdump", file) if each.startswith(("E:", "F:"))]
    return found


def _output(tool: str, file: Path) -> list[str]:
    done = subprocess.run([tool, str(file)], capture_output=True, text=True, errors="replace", check=False)
    return (done.stderr + (done.stdout if tool == "dciodvfy" else "")).splitlines()


@pytest.fixture(scope="module")
def debian_tools() -> None:
    """Skip without them."""
    missing = [each for each in ("dciodvfy", "dsrdump") if shutil.which(each) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian packages dicom3tools, dcmtk)")


@pytest.mark.usefixtures("debian_tools")
def test_every_object_passes_dciodvfy_and_dsrdump(objects: list[Path]) -> None:
    """Attributes, enumerated values, evidence against tree, relationships: nothing but what is known and wanted."""
    assert len(objects) >= len(TEMPLATES) * (3 * len(RESULTS) + 4) + 1
    assert complaints(*objects) == []


@pytest.mark.usefixtures("debian_tools")
def test_the_same_tools_complain_of_a_report_without_its_flags(objects: list[Path], tmp_path: Path) -> None:
    """So that their silence means something."""
    ds = dcmread(next(each for each in objects if each.stem == "report"))
    del ds.VerificationFlag
    ds.CompletionFlag = "DONE"
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(to_bytes(ds))
    found = "\n".join(complaints(broken))
    assert "Verification" in found
    assert "Completion" in found


@pytest.fixture(scope="module")
def validate() -> str:
    """Return the command that runs every validator at hand on files: its exit code 0 means clean."""
    command = os.environ.get(VALIDATE, "")
    if not command:
        pytest.skip(f"{VALIDATE} names no validator command")
    return command


def _validate(command: str, images: list[Path], *files: Path) -> subprocess.CompletedProcess[str]:
    """Run the validators; they hold a report against the images it speaks of, too."""
    environment = os.environ | {"SOURCES": " ".join(map(str, images))}
    return subprocess.run(
        [command, *map(str, files)], capture_output=True, text=True, errors="replace", check=False, env=environment
    )


@pytest.mark.timeout(900)
def test_every_object_passes_every_validator(validate: str, objects: list[Path], images: list[Path]) -> None:
    """dicom-validator and PixelMed's templates beside the above: each kind of image, each result in each language."""
    with_number = [each for each in objects if each.parent.name in {"all", "single", "synthetic"} and _is_chosen(each)]
    done = _validate(validate, images, *with_number)
    assert (done.returncode, _complaints_in(done)) == (0, [])
    without = [each for each in objects if each.parent.name == "abstention" and each.stem == "report"]
    done = _validate(validate, images, *without)  # its rules of our own stop, not complain, where there is no number
    assert _complaints_in(done) == []


def _is_chosen(file: Path) -> bool:
    """Choose each image once, and per language the report of an answer; of the classes, one: they differ in no item."""
    what = file.parent.name
    language = file.parent.parent.name
    if file.stem == "report":
        return what == "all" or (what == "synthetic" and language == TEMPLATES[0])
    return (what == "all" and language == TEMPLATES[0] and file.stem in IMAGES) or (what, file.stem) == SINGLE


def _complaints_in(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if not line.startswith("semantic ok")]


def test_the_validators_complain_of_evidence_that_was_dropped(
    validate: str, objects: list[Path], images: list[Path], tmp_path: Path
) -> None:
    """The tree refers to older images that no sequence lists any more."""
    ds = dcmread(next(each for each in objects if each.stem == "report"))
    del ds.PertinentOtherEvidenceSequence
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(to_bytes(ds))
    done = _validate(validate, images, broken)
    assert done.returncode == 1
    assert _complaints_in(done)
