"""Whatever the language of the report, the script of the name, or what somebody typed into an attribute: it holds."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from inference.results import AbstentionKind, Result
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import SOP_CLASS_UIDS, SopClass, build_report, build_reports
from sr_templates.read_report import concept, read_report
from sr_templates.render_html import to_html
from sr_templates.saliency_capture import build_saliency
from sr_templates.summary_page import build_summary, render_summary
from sr_templates.template import load_template, shipped_templates
from sr_templates.words import RESEARCH_SENTENCE
from tests.factories.results import DAYS, answer, model_card, mr_header, no_answer, report_context, saliency_map

TEMPLATES = {name: load_template(name) for name in shipped_templates()}
GERMAN = TEMPLATES["glioma_recurrence.de"]
SCRIPT = "<script>alert(1)</script>"
every_language = pytest.mark.parametrize("name", TEMPLATES)
needs_validators = pytest.mark.skipif(
    not (shutil.which("dciodvfy") and shutil.which("dsrdump")), reason="needs dicom3tools and dcmtk"
)


def assert_valid(ds: Dataset, folder: Path) -> str:
    """Hold an SR against dciodvfy and dsrdump; return what dsrdump reads."""
    path = folder / "report.dcm"
    path.write_bytes(to_bytes(ds))
    verified = subprocess.run(["dciodvfy", path], capture_output=True, check=False).stderr.decode(errors="replace")
    assert "Error" not in verified, verified
    dump = subprocess.run(["dsrdump", "+Pl", path], capture_output=True, check=False)
    complaints = dump.stderr.decode(errors="replace").splitlines()
    assert dump.returncode == 0
    assert not [line for line in complaints if line.startswith(("E:", "F:"))]
    return dump.stdout.decode("utf-8")


def texts(ds: Dataset) -> list[str]:
    """Return the text items of a report but the Summary."""
    children = [each for child in ds.get("ContentSequence", ()) for each in (texts(child))]
    own = [str(ds.TextValue)] if "TextValue" in ds and concept(ds) != "121111" else []
    return own + children


def test_a_german_report_says_it_all_in_german() -> None:
    """Warning, answer, horizon, scans, cautions and notes; the date of what it continues."""
    report = read_report(build_report(report_context(), GERMAN))
    text = "\n".join(report.summary)
    assert report.summary[0].startswith(f"{RESEARCH_SENTENCE} / NUR FÜR DIE FORSCHUNG")
    assert "Gliomrezidiv innerhalb von 365 Tagen nach der Aufnahme vom 2024-10-18 (bis 2025-10-18): 71 %" in text
    assert "(95-%-Intervall des Ensembles 62 bis 80 %) - Hohes Risiko" in text
    assert "1. 2024-01-10 Verlaufskontrolle, Tag 62 nach Operation: T1c, FLAIR - 31 %" in text
    assert "Vorsicht (Aufnahme 2): dicke Schichten (slices of 5 mm" in text
    assert "Hinweis: T2 of 2024-10-18 not used" in text
    assert not any(word in text for word in ("Scans used", "Caution", "Note:", "Trained on", "follow-up"))


def test_the_language_changes_words_and_uid_and_leaves_what_is_tracked() -> None:
    """Two languages of one run are two objects, and speak of one question."""
    english, german = (
        build_report(report_context(template_digest=each.digest), each)
        for each in (TEMPLATES["glioma_recurrence"], GERMAN)
    )
    assert english.SOPInstanceUID != german.SOPInstanceUID
    assert english.SeriesInstanceUID != german.SeriesInstanceUID
    one, other = read_report(english), read_report(german)
    assert (one.tracking_uid, one.probability, one.trajectory) == (
        other.tracking_uid,
        other.probability,
        other.trajectory,
    )


@every_language
def test_an_abstention_tells_its_cause_in_the_language_of_the_report(name: str) -> None:
    """The three causes of CID 42 are three different words, in the Summary and beside the missing number."""
    told = set()
    for kind in AbstentionKind:
        ds = build_report(report_context(no_answer(kind)), TEMPLATES[name])
        line = next(line for line in read_report(ds).summary if "images unlike" in line)
        cause = line.rpartition("(")[2].partition(")")[0]
        comment = next(text for text in texts(ds) if text.endswith("images unlike those the model was trained on"))
        assert comment == f"{cause}: images unlike those the model was trained on"
        told.add(cause)
    assert len(told) == len(AbstentionKind)


@pytest.mark.parametrize("code", ["out-of-distribution", "both-answers-possible", "neither-answer-likely"])
def test_the_reason_of_an_abstention_is_told_in_the_language_of_the_report(code: str) -> None:
    """By what it is about; the numbers follow as they were raised. What has no words of its own stands as it is."""
    result = no_answer()
    assert result.abstention is not None
    coded = replace(result, abstention=replace(result.abstention, code=code, reason="limit 2.00"))
    plain = replace(result, abstention=replace(result.abstention, code="another", reason="limit 2.00"))
    for template, told in ((GERMAN, coded), (GERMAN, plain), (TEMPLATES["glioma_recurrence"], coded)):
        summary = read_report(build_report(report_context(told), template)).summary
        (line,) = [each for each in summary if each.startswith("NO ANSWER")]
        own = template is GERMAN and told is coded
        assert line.endswith("(limit 2.00)" if own else ": limit 2.00")


@every_language
def test_a_synthetic_model_has_no_risk_band_in_any_language(name: str) -> None:
    """Its category says so in English first; no code or word of a band is anywhere in SR or captures."""
    template = TEMPLATES[name]
    context = report_context(answer(0.9, synthetic=True))
    ds = build_report(context, template)
    report = read_report(ds)
    assert report.category == "SYNTHETIC MODEL - NOT FOR CLINICAL USE"
    line = next(line for line in report.summary if "90 %" in line)
    assert "SYNTHETIC MODEL - NOT FOR CLINICAL USE" in line
    page = build_summary(context, render_summary(context, template, None), template=template)
    saliency = build_saliency(context, saliency_map(), mr_header(DAYS[-1], "T1c", 0), template=template)
    for each in (ds, page, saliency):
        text = str(each)
        assert "SYNTHETIC PHANTOM MODEL" in text
        for band in template.main.bands:
            assert band.label not in text
            assert band.code.value not in text


@every_language
def test_reports_of_every_language_are_marked_as_research_first(name: str) -> None:
    """Summary, series descriptions and captures."""
    context, template = report_context(), TEMPLATES[name]
    page = build_summary(context, render_summary(context, template, None), template=template)
    assert page.ImageComments.startswith("RESEARCH USE ONLY")
    assert page.SeriesDescription.startswith("RUO ")
    assert read_report(build_report(context, template)).summary[0].startswith("RESEARCH USE ONLY")
    assert "<html lang=" in to_html(build_report(context, template))


@pytest.mark.peer
@needs_validators
@every_language
@pytest.mark.parametrize("result", [answer(), answer(synthetic=True), no_answer()], ids=["answer", "synthetic", "none"])
@pytest.mark.parametrize("sop_class", sorted(SOP_CLASS_UIDS))
def test_every_language_is_legal_and_read_by_dcmtk(
    name: str, result: Result, sop_class: SopClass, tmp_path: Path
) -> None:
    """Umlauts are UTF-8 (ISO_IR 192) in the file and on the screen."""
    context = report_context(result, requested_by="jdoe")
    ds = build_report(context, TEMPLATES[name], sop_class=sop_class)
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    shown = assert_valid(ds, tmp_path)
    assert "RESEARCH USE ONLY" in shown
    assert "jdoe^" in shown
    if name.endswith(".de"):
        assert "NUR FÜR DIE FORSCHUNG" in shown
        assert "FÜR".encode() in to_bytes(ds)


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("dsr2html"), reason="needs dcmtk")
@every_language
def test_dcmtk_renders_every_language_as_a_page(name: str, tmp_path: Path) -> None:
    """Warning, answer and number can be read in any browser; a script tag in a remark is text there too."""
    report = tmp_path / "report.dcm"
    report.write_bytes(to_bytes(build_report(report_context(remarks=(SCRIPT,)), TEMPLATES[name])))
    subprocess.run(["dsr2html", report, tmp_path / "report.html"], capture_output=True, check=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert TEMPLATES[name].wording.research_only in page
    assert f"71 % {TEMPLATES[name].wording.interval.format(lower=62, upper='80 %').strip()}" in page
    assert "71.3 %" in page
    assert "<script" not in page


NAMES = {
    "Japanese": ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
    "Korean": ("Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
    "Cyrillic": ("Юрий^Жуков", "ISO_IR 144"),
    "Arabic": ("قباني^لنزار", "ISO_IR 127"),
    "Greek": ("Διονυσιος", "ISO_IR 126"),
    "Chinese": ("Wang^XiaoDong=王^小东", "GB18030"),
    "accents": ("Buc^Jérôme", "ISO_IR 100"),
    "UTF-8": ("Ngô^Thị=𠮷野^家", "ISO_IR 192"),
}


@pytest.mark.peer
@needs_validators
@pytest.mark.parametrize("script", NAMES)
def test_a_name_in_any_script_stands_unchanged_in_a_legal_report(script: str, tmp_path: Path) -> None:
    """It is read in the scanner's character set and written in ours, every component group."""
    name, character_set = NAMES[script]
    header = mr_header(DAYS[-1], "T1c", 0)
    header.SpecificCharacterSet, header.PatientName = character_set, name
    source = dcmread(BytesIO(to_bytes(header)))
    ds = build_report(report_context(patient_study=source), GERMAN)
    assert_valid(ds, tmp_path)
    again = dcmread(tmp_path / "report.dcm")
    assert str(again.PatientName) == name
    assert again.SpecificCharacterSet == "ISO_IR 192"
    assert name.partition("^")[0] not in to_html(again)


@pytest.mark.peer
@needs_validators
def test_script_tags_in_attributes_stay_text_and_reach_no_page(tmp_path: Path) -> None:
    """Name, description, remark, reason, model and the person who ordered: legal in the SR, escaped in the page."""
    header = mr_header(DAYS[-1], "T1c", 0)
    header.PatientName, header.StudyDescription, header.ReferringPhysicianName = (f"{SCRIPT}^X", SCRIPT, f"{SCRIPT}^D")
    card = replace(model_card(), name=f"net {SCRIPT}", training_data=f"1,200 {SCRIPT}")
    result = replace(no_answer(), model=card)
    assert result.abstention is not None
    result = replace(result, abstention=replace(result.abstention, reason=f"because {SCRIPT}"))
    ds = build_report(
        report_context(result, patient_study=header, remarks=(f"not used: {SCRIPT}",), requested_by=SCRIPT),
        TEMPLATES["glioma_recurrence"],
    )
    assert_valid(ds, tmp_path)
    page = to_html(ds)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert ds.StudyDescription == SCRIPT  # an archive files by it: passed on as it is


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_frozen_record_gives_the_same_bytes_in_every_language_and_class(name: str) -> None:
    """Encoded twice, each of the three reports is one file."""
    first, second = (
        [to_bytes(ds) for ds in build_reports(report_context(), TEMPLATES[name], ()).values()] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == len(SOP_CLASS_UIDS)
