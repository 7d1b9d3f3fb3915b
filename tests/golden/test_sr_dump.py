"""The report as DCMTK's dsrdump reads it, UIDs and dates masked: what others see of every language, reviewed as a diff.

After a wanted change: `UPDATE_GOLDEN=1 pytest tests/golden/test_sr_dump.py`, then read the diff.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sr_templates.headers import to_bytes
from sr_templates.measurement_report import build_report
from sr_templates.template import load_template, shipped_templates
from tests.factories.results import answer, no_answer, report_context

CASES = {"answer": answer(), "abstention": no_answer()}


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("dsrdump"), reason="needs dcmtk")
@pytest.mark.parametrize("template", shipped_templates())
@pytest.mark.parametrize("case", sorted(CASES))
def test_others_read_the_report_as_reviewed(template: str, case: str, tmp_path: Path) -> None:
    """Document header and tree, with all codes, templates and references."""
    report = tmp_path / "report.dcm"
    report.write_bytes(to_bytes(build_report(report_context(CASES[case]), load_template(template))))
    dump = subprocess.run(["dsrdump", "+Pl", "+Pc", "+Pu", "+Pt", report], capture_output=True, check=True)
    found = masked(dump.stdout.decode("utf-8"))
    path = Path(__file__).with_name(f"dsrdump_{template}_{case}.txt")
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def masked(text: str) -> str:
    """Number UIDs and dates in order of appearance, and give each line of the Summary a line of its own."""
    seen: dict[str, str] = {}
    for kind, pattern in (("UID", r"2\.25\.\d+"), ("DATE", r"\b20\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])\b")):
        text = re.sub(pattern, lambda match, kind=kind: _number(seen, kind, match[0]), text)  # type: ignore[misc]
    return text.replace("\\r\\n", "\n").rstrip() + "\n"


def _number(seen: dict[str, str], kind: str, found: str) -> str:
    """Return the number under which a value goes; a date is one however it is written."""
    key = found.replace("-", "")
    return seen.setdefault(key, f"{kind}-{1 + sum(each.startswith(kind) for each in seen.values())}")
