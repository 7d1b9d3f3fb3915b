"""A report template from outside is checked, and a wrong one is refused with key, value and rule."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from dicom_node.errors import ConfigError
from dicom_node.resources import task_file
from dicom_node.work.report_templates import find_template
from dicom_node.work.tasks import load_tasks
from sr_templates.errors import ReportError, TemplateError
from sr_templates.template import load_template, parse_template, shipped_templates
from sr_templates.words import plain

TEXT = resources.files("sr_templates").joinpath("glioma_recurrence.yaml").read_text(encoding="utf-8")
ENGLISH, *OTHERS = [load_template(name) for name in shipped_templates()]


def test_the_shipped_template_loads() -> None:
    """It is about recurrence within a year."""
    assert load_template("glioma_recurrence").primary == "recurrence_365d"


def test_an_unknown_template_names_those_there_are() -> None:
    """The reader of the error can choose."""
    with pytest.raises(ReportError, match=r"one of \['glioma_recurrence'.*\], found 'other'"):
        load_template("other")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lower: 0.33,", "lower: 0.4,", "expected to tile 0 to 1"),
        ("upper: 1.0,", "upper: 0.9,", "expected to tile 0 to 1"),
        ("primary: recurrence_365d", "primary: survival", "found 'survival'"),
        ("RECUR_P_365_PFX", "A_CODE_THAT_IS_TOO_LONG", "prefix_probability.value"),
        ("RECUR_P_365_PFX", "RECUR_P_365", "found RECUR_P_365 twice"),
        ("RECUR_P_365,", '"RECUR\\\\P_365",', "probability.value: expected text without backslash"),
        ("scheme: LN", "scheme: LOINC", "procedure.scheme: expected one of DCM, LN"),
        (
            "{value: RECUR_P_365, scheme: 99GLIOTEMP",
            "{value: P, scheme: 99HOSPITAL",
            "coding_schemes: expected 99HOSPITAL",
        ),
        ("designator: 99GLIOTEMP", "designator: GLIOTEMP", "coding_schemes.0.designator"),
        ("report: RUO AI", "report: AI", "series_descriptions.report"),
        ("saliency_threshold: 0.4", "saliency_threshold: 1.4", "saliency_threshold"),
        ("name: glioma_recurrence", "name: glioma_recurrence\ncolour: red", "colour: Extra inputs"),
        ("name: glioma_recurrence", "name: [", "not valid YAML"),
        ("  note: ", "  remark: ", r"wording\.note: Field required"),
    ],
)
def test_a_wrong_template_is_refused(old: str, new: str, message: str) -> None:
    """Bands with a gap, an unknown key, a code too long or of no scheme, a description that hides the warning."""
    assert old in TEXT
    with pytest.raises(ReportError, match=message):
        parse_template(TEXT.replace(old, new), origin="test.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Scan of {date}", "Scan of {day}", "wording.tracked_scan: places: expected {date}, found {day}"),
        ("Scan of {date}", "Scan", "expected {date}, found none"),
        ("Scan of {date}", '"{date} {date}"', "expected {date}, found {date}, {date}"),
        ("Scan of {date}", '"{date.year}"', "expected {date}, found {date.year}"),
        ("Scan of {date}", '"{date:%Y}"', "expected bare names"),
        ("Scan of {date}", '"{date!r}"', "expected bare names"),
        ("Scan of {date}", '"{date"', "braces: "),
        ("unknown: unknown}", 'unknown: "a {kind}"}', "wording.kinds.unknown: places: expected none, found {kind}"),
        ("Scan of {date}", '"Scan\\nof {date}"', "expected one line of printable text"),
    ],
)
def test_a_sentence_names_its_places_each_once_and_nothing_else(old: str, new: str, message: str) -> None:
    """A misspelt place, a missing one, a twofold one, and whatever reaches into a value are errors."""
    assert old in TEXT
    with pytest.raises(TemplateError) as caught:
        parse_template(TEXT.replace(old, new), origin="test.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("research_only: RESEARCH USE ONLY", "research_only: FOR CLINICAL USE"),
        ("research_only_short: RESEARCH USE ONLY", "research_only_short: AI"),
        ("synthetic_category: SYNTHETIC MODEL - NOT FOR CLINICAL USE", "synthetic_category: Low risk"),
        ("synthetic_model: SYNTHETIC PHANTOM MODEL", "synthetic_model: A MODEL"),
        ("phantom_patient: SYNTHETIC PHANTOM DATA", "phantom_patient: DATA"),
        (" - NOT FOR CLINICAL DIAGNOSIS - AI result, not verified by a physician", " does not apply, it is verified"),
        ("research_only_short: RESEARCH USE ONLY", 'research_only_short: "RESEARCH USE ONLY: NO"'),
        (" - trained on simulated images; its number says nothing about a human", " was validated on patients"),
        ("synthetic_short: SYNTHETIC PHANTOM", "synthetic_short: SYNTHETIC PHANTOM? NO"),
        ("category: SYNTHETIC MODEL - NOT FOR CLINICAL USE", '"category": SYNTHETIC MODEL - NOT FOR CLINICAL USE? No'),
        (" - simulated images, not a human patient", " of a human patient"),
        ('not_a_lesion: "AI saliency: not a lesion outline"', "not_a_lesion: AI tumour outline"),
        (
            '"NO ANSWER: {label}{horizon} was not assessed ({cause}). Reason: {reason}"',
            '"{label}{horizon}: 0 % - {cause} {reason}"',
        ),
        ('"NO ANSWER: ', '"NO ANSWER needed: '),
        ("    no_answer: No answer", "    no_answer: Low risk"),
        ("    synthetic: SYNTHETIC PHANTOM MODEL", "    synthetic: SYNTHETIC PHANTOM MODEL (validated)"),
    ],
)
def test_no_site_words_a_warning_away(old: str, new: str) -> None:
    """The English sentence stands whole and first in every language; nothing that turns it round follows it."""
    assert old in TEXT
    new = new.replace('"category"', "category")
    with pytest.raises(TemplateError, match="as it is, or with its translation behind ' / '"):
        parse_template(TEXT.replace(old, new), origin="test.yaml")


def test_a_site_may_translate_a_warning_behind_it() -> None:
    """Whole English sentence, stroke, translation."""
    own = TEXT.replace("a lesion outline", "a lesion outline / pas un contour").replace(
        '"NO ANSWER: ', '"NO ANSWER / RIEN: '
    )
    found = parse_template(own, origin="test.yaml").wording
    assert found.not_a_lesion == "AI saliency: not a lesion outline / pas un contour"
    assert found.no_answer.startswith("NO ANSWER / RIEN: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label: Glioma recurrence ", 'label: "Glioma\\r\\nVerified by a physician" ', "recurrence_365d.label"),
        ("label: Glioma recurrence ", 'label: "" ', "recurrence_365d.label"),
        ("label: Low risk,", 'label: "Low risk\\nVERIFIED",', "bands.0.label"),
        ("tracking_identifier: Glioma recurrence risk", 'tracking_identifier: "a\\nb"', "tracking_identifier"),
        ("report: RUO AI brain temporal report", "report: RUO AI\\brain", "series_descriptions.report"),
        ("a lesion outline", "a lesion outline / " + 40 * "x", "not_a_lesion: Value should have at most 60"),
        ("{value: RECUR_P_365, scheme: 99GLIOTEMP", '{value: "25173007", scheme: SCT', "found 25173007 of SCT"),
        ("{value: RECUR_CAT_365, scheme: 99GLIOTEMP", '{value: "25173007", scheme: SCT', "found 25173007 of SCT"),
    ],
)
def test_a_name_is_one_line_and_asserts_no_finding(old: str, new: str, message: str) -> None:
    """No line that passes for a sentence of the report, no two values in one, no code of a tumour as a name."""
    assert old in TEXT
    with pytest.raises(TemplateError, match=message):
        parse_template(TEXT.replace(old, new), origin="test.yaml")


LOW, HIGH = (
    '{value: "75976002", scheme: SCT, meaning: Low risk}',
    '{value: "15508007", scheme: SCT, meaning: High risk}',
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label: Low risk,", "label: High risk,", "75976002 of SCT is 'Low risk', which 'High risk' contradicts"),
        ("label: Low risk,", "label: HIGH,", "75976002 of SCT is 'Low risk', which 'HIGH' contradicts"),
        (LOW, LOW.replace("Low", "High"), "75976002 of SCT is 'Low risk', which 'High risk' contradicts"),
        (f"label: High risk, code: {HIGH}", f"label: Hohes Risiko, code: {LOW}", "found Low risk, Moderate risk, Low"),
        (f"label: Low risk, code: {LOW}", f"label: Gering, code: {HIGH}", "found High risk, Moderate risk, High"),
    ],
)
def test_a_band_does_not_contradict_its_code(old: str, new: str, message: str) -> None:
    """A viewer may show the label and a registry read the code: they must not say low and high of one patient."""
    assert old in TEXT
    with pytest.raises(TemplateError, match=message):
        parse_template(TEXT.replace(old, new), origin="test.yaml")


@pytest.mark.parametrize(
    ("probability", "label"),
    [(0.0, "Low risk"), (0.3299, "Low risk"), (0.33, "Moderate risk"), (0.66, "High risk"), (1.0, "High risk")],
)
def test_each_probability_has_one_band(probability: float, label: str) -> None:
    """The lower edge belongs to the band, and 1 to the last."""
    assert load_template("glioma_recurrence").main.band(probability).label == label


@pytest.mark.parametrize("other", OTHERS, ids=lambda each: each.language.value)
def test_languages_differ_in_words_and_in_nothing_else(other) -> None:  # type: ignore[no-untyped-def]
    """Codes, bands, threshold and questions are those of the English template; every sentence is its own."""
    assert [(each.value, each.scheme) for each in other.codes[1:]] == [
        (each.value, each.scheme) for each in ENGLISH.codes[1:]
    ]
    assert other.language != ENGLISH.language
    assert (other.primary, other.saliency_threshold) == (ENGLISH.primary, ENGLISH.saliency_threshold)
    for name, words in other.outputs.items():
        edges = [(band.lower, band.upper) for band in words.bands]
        assert edges == [(band.lower, band.upper) for band in ENGLISH.outputs[name].bands]
    for name in ("answer", "research_only", "no_answer", "scans", "note", "replaces", "updates", "training"):
        shared = getattr(other.wording, name) == getattr(ENGLISH.wording, name)
        assert shared is (name == "answer")


def test_standard_codes_keep_the_meaning_that_the_standard_gives_them() -> None:
    """Only our own codes are translated."""
    meanings = {(each.value, each.scheme): each.meaning for each in ENGLISH.codes[1:]}
    for other in OTHERS:
        for code in other.codes[1:]:
            same = meanings[code.value, code.scheme] == code.meaning
            assert same is not code.scheme.startswith("99")


def test_text_from_elsewhere_stays_on_its_line() -> None:
    """A line break, a tab, an escape sequence or a turn of direction cannot pass for a sentence of the report."""
    assert plain("gap\r\nLow risk\t\x1b[0m\u202e!") == "gap Low risk [0m !"
    assert plain(" Müller 神経膠腫 ") == "Müller 神経膠腫"


def task_with(template: str, folder: Path) -> Path:
    """Return a task file that names a report template."""
    text = task_file("glioma_recurrence").read_text(encoding="utf-8")
    assert "report_template: glioma_recurrence" in text
    file = folder / "task.yaml"
    file.write_text(
        text.replace("report_template: glioma_recurrence", f"report_template: {template}"), encoding="utf-8"
    )
    return file


def test_a_site_words_its_reports_in_a_file_of_its_own(tmp_path: Path) -> None:
    """The path is seen from the task file; wording and bands are the site's."""
    own = TEXT.replace("label: High risk", "label: Please look again").replace("0.66", "0.5")
    (tmp_path / "own.yaml").write_text(own, encoding="utf-8")
    served = load_tasks([str(task_with("./own.yaml", tmp_path))])
    (task,) = served.values()
    assert task.template.main.band(0.55).label == "Please look again"
    assert task.template.digest != load_template("glioma_recurrence").digest


def test_a_task_may_name_another_language(tmp_path: Path) -> None:
    """The German template ships with the node."""
    (task,) = load_tasks([str(task_with("glioma_recurrence.de", tmp_path))]).values()
    assert task.template.language.value == "de"


def test_every_fault_of_a_sites_file_is_told_at_once(tmp_path: Path) -> None:
    """One line each, with task file, template, key, rule and what was found."""
    own = TEXT.replace("lower: 0.33,", "lower: 0.4,").replace("{date}", "{day}").replace("scheme: LN", "scheme: LOINC")
    (tmp_path / "own.yaml").write_text(own, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_tasks([str(task_with("own.yaml", tmp_path))])
    problems = caught.value.problems
    assert all(each.startswith(f"{tmp_path / 'task.yaml'}: report_template: ") for each in problems)
    for key in ("outputs.recurrence_365d", "wording.tracked_scan", "wording.updates", "procedure.scheme"):
        assert sum(f"{tmp_path / 'own.yaml'}: {key}" in each for each in problems) == 1


@pytest.mark.parametrize("name", ["missing.yaml", "other"])
def test_a_template_that_is_not_there_is_a_fault_of_the_configuration(name: str, tmp_path: Path) -> None:
    """Whether a path or a name, the task file that asks for it is told."""
    with pytest.raises(ConfigError, match="report_template: "):
        find_template(name, tmp_path / "task.yaml")


def test_a_template_without_words_for_an_output_of_the_bundle_is_refused(tmp_path: Path) -> None:
    """A number must never be left without a name on the day that it comes."""
    own = TEXT.replace("recurrence_365d", "recurrence_180d")
    (tmp_path / "own.yaml").write_text(own, encoding="utf-8")
    with pytest.raises(ConfigError, match="expected words for the output recurrence_365d, found none"):
        load_tasks([str(task_with("own.yaml", tmp_path))])
