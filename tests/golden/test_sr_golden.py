"""The whole report as text, UIDs masked: a change of wording or structure is seen and reviewed as a diff.

After a wanted change: `UPDATE_GOLDEN=1 pytest tests/golden/test_sr_golden.py`, then read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydicom import Dataset

from inference.results import Result
from sr_templates.measurement_report import build_report
from sr_templates.template import load_template
from tests.factories.results import answer, no_answer, report_context

CODED = ("ConceptCodeSequence", "NumericValueQualifierCodeSequence")
CASES = {"answer": answer(), "synthetic": answer(0.42, synthetic=True), "abstention": no_answer()}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_report_reads_as_reviewed(name: str) -> None:
    """Every attribute and content item, in order."""
    result: Result = CASES[name]
    ds = build_report(report_context(result, phantom=result.model.synthetic), load_template("glioma_recurrence"))
    found = masked("\n".join([*header(ds.file_meta, ""), *header(ds, ""), "", *tree(ds, "")]))
    path = Path(__file__).with_name(f"sr_{name}.txt")
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def header(ds: Dataset, indent: str) -> list[str]:
    """Return the attributes outside the content tree; of references to the same series only the first and the count."""
    lines = []
    for element in ds:
        if element.keyword == "ContentSequence":
            continue
        if element.VR != "SQ":
            lines.append(f"{indent}{element.keyword}: {element.value}")
            continue
        lines.append(f"{indent}{element.keyword}: {len(element.value)} items")
        shown = element.value[:1] if element.keyword == "ReferencedSOPSequence" else element.value
        lines += [line for item in shown for line in header(item, indent + "  - ")]
    return lines


def tree(item: Dataset, indent: str) -> list[str]:
    """Return the content tree, one line per item."""
    name, relationship = item.ConceptNameCodeSequence[0], item.get("RelationshipType", "ROOT")
    codes = [shown(each) for keyword in CODED for each in item.get(keyword, ())]
    codes += [str(item[keyword].value) for keyword in ("TextValue", "UID", "Date") if keyword in item]
    for measured in item.get("MeasuredValueSequence", ()):
        codes.append(f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}")
    codes += [each.ReferencedSOPInstanceUID for each in item.get("ReferencedSOPSequence", ())]
    lines = [f"{indent}{relationship} {item.ValueType} {shown(name)} = {' '.join(codes)}"]
    return lines + [line for child in item.get("ContentSequence", ()) for line in tree(child, indent + "  ")]


def shown(code: Dataset) -> str:
    """Return a code as (value, scheme, "meaning")."""
    return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'


def masked(text: str) -> str:
    """Number the UIDs in order of appearance, and show the Summary with its line breaks."""
    seen: dict[str, str] = {}
    text = re.sub(r"2\.25\.\d+", lambda match: seen.setdefault(match[0], f"UID-{len(seen) + 1}"), text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
