"""A report template from outside is checked, and a wrong one is refused with key, value and rule."""

from __future__ import annotations

from importlib import resources

import pytest

from sr_templates.errors import ReportError
from sr_templates.template import load_template, parse_template

TEXT = resources.files("sr_templates").joinpath("glioma_recurrence.yaml").read_text(encoding="utf-8")


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
        ("report: RUO AI", "report: AI", "series_descriptions.report"),
        ("saliency_threshold: 0.4", "saliency_threshold: 1.4", "saliency_threshold"),
        ("name: glioma_recurrence", "name: glioma_recurrence\ncolour: red", "colour: Extra inputs"),
        ("name: glioma_recurrence", "name: [", "not valid YAML"),
    ],
)
def test_a_wrong_template_is_refused(old: str, new: str, message: str) -> None:
    """Bands with a gap, an unknown key, a code too long, a description that hides the warning."""
    assert old in TEXT
    with pytest.raises(ReportError, match=message):
        parse_template(TEXT.replace(old, new), origin="test.yaml")


@pytest.mark.parametrize(
    ("probability", "label"),
    [(0.0, "Low risk"), (0.3299, "Low risk"), (0.33, "Moderate risk"), (0.66, "High risk"), (1.0, "High risk")],
)
def test_each_probability_has_one_band(probability: float, label: str) -> None:
    """The lower edge belongs to the band, and 1 to the last."""
    assert load_template("glioma_recurrence").main.band(probability).label == label
