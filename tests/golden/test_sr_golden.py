"""The whole report as text, UIDs masked: a change of wording or structure is seen and reviewed as a diff.

After a wanted change: `UPDATE_GOLDEN=1 pytest tests/golden/test_sr_golden.py`, then read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from inference.results import Result
from sr_templates.measurement_report import build_report
from sr_templates.template import load_template
from tests.factories.results import answer, no_answer, report_context

CASES = {"answer": answer(), "synthetic": answer(0.42, synthetic=True), "abstention": no_answer()}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_report_reads_as_reviewed(name: str) -> None:
    """Every attribute and content item, in order."""
    result: Result = CASES[name]
    ds = build_report(report_context(result, phantom=result.model.synthetic), load_template("glioma_recurrence"))
    found = masked(f"{ds.file_meta}\n{ds}\n")
    path = Path(__file__).with_name(f"sr_{name}.txt")
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def masked(text: str) -> str:
    """Number the UIDs in order of appearance, and show the Summary with its line breaks."""
    seen: dict[str, str] = {}
    text = re.sub(r"2\.25\.\d+", lambda match: seen.setdefault(match[0], f"UID-{len(seen) + 1}"), text)
    text = re.sub(r"(\(0002,0000\).*?UL: )\d+", r"\1LENGTH", text)
    return "\n".join(line.rstrip() for line in text.replace("\\r\\n", "\n        ").splitlines()) + "\n"
