"""Whatever the result, its texts and the language: it is written, encoded, decoded and read back as what it said."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.results import AbstentionKind, Output, PrefixRisk, QualityFlag, Result
from sr_templates.headers import to_bytes
from sr_templates.measurement_report import build_report
from sr_templates.read_report import read_report
from sr_templates.render_html import to_html
from sr_templates.template import ReportTemplate, load_template, shipped_templates
from sr_templates.words import plain
from tests.factories.results import DAYS, answer, model_card, no_answer, report_context

TEMPLATES = [load_template(name) for name in shipped_templates()]
PROBABILITY = st.floats(0, 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(plain)  # line breaks, controls and all


@st.composite
def results(draw: st.DrawFn) -> Result:
    """Draw an answer with any interval, trajectory and flags, by a real or a synthetic model."""
    probability = draw(PROBABILITY)
    lower, upper = sorted((draw(PROBABILITY), draw(PROBABILITY)))
    interval = draw(st.booleans())
    first = draw(st.integers(0, len(DAYS)))
    return replace(
        answer(),
        model=model_card(synthetic=draw(st.booleans())),
        outputs=(
            Output(
                name="recurrence_365d",
                probability=probability,
                raw_probability=draw(PROBABILITY),
                lower=lower if interval else None,
                upper=upper if interval else None,
            ),
        ),
        trajectory=tuple(
            PrefixRisk(n_scans=n + 1, acquired=DAYS[n].date(), probability=draw(PROBABILITY))
            for n in range(first, len(DAYS))
        ),
        flags=tuple(QualityFlag(code="any", message=text) for text in draw(st.lists(TEXT, max_size=3))),
    )


@settings(max_examples=25, deadline=None)
@given(result=results(), remark=TEXT, template=st.sampled_from(TEMPLATES))
def test_a_result_is_read_back_as_it_was_written(result: Result, remark: str, template: ReportTemplate) -> None:
    """Probability, trajectory, category and every remark survive the file; no remark adds a line of its own."""
    context = report_context(result, remarks=(remark,))
    data = to_bytes(build_report(context, template))
    assert data == to_bytes(build_report(context, template))
    ds = pydicom.dcmread(BytesIO(data))
    report = read_report(ds)
    probability = result.outputs[0].probability
    assert report.probability == pytest.approx(probability, abs=0.000501)
    expected = [
        (f"{each.acquired:%Y%m%d}", pytest.approx(each.probability, abs=0.000501)) for each in result.trajectory
    ]
    assert list(report.trajectory) == expected
    assert report.summary[0].startswith("RESEARCH USE ONLY")
    assert template.wording.note.format(message=plain(remark)) in report.summary
    warnings = 2 if result.model.synthetic else 1
    assert len(report.summary) == warnings + 1 + 1 + len(DAYS) + len(result.flags) + 1 + 2
    band = template.main.band(probability).code.meaning
    assert (report.category == band) is not result.model.synthetic
    assert "RESEARCH USE ONLY" in to_html(ds)


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(AbstentionKind), reason=TEXT, template=st.sampled_from(TEMPLATES))
def test_an_abstention_is_read_back_as_a_reason(kind: AbstentionKind, reason: str, template: ReportTemplate) -> None:
    """Never as a number."""
    result = no_answer(kind)
    assert result.abstention is not None
    result = replace(result, abstention=replace(result.abstention, reason=reason))
    report = read_report(pydicom.dcmread(BytesIO(to_bytes(build_report(report_context(result), template)))))
    assert (report.probability, report.qualifier) == (None, kind.value)
    assert any(line.endswith(f": {plain(reason)}") for line in report.summary)
