"""A report as one HTML page without scripts or outside resources; every text from the document is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from sr_templates.read_report import concept

if TYPE_CHECKING:
    from pydicom import Dataset

_SUMMARY, _IMAGE_LIBRARY, _LANGUAGE = "121111", "111028", "121049"
_TEXTS = {
    "TEXT": "TextValue", "UIDREF": "UID", "DATE": "Date", "TIME": "Time", "DATETIME": "DateTime", "PNAME": "PersonName",
}  # fmt: skip
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2329;background:#fff}
header{border-bottom:1px solid #cfd6db;margin-bottom:1rem}
.summary{background:#fff8e1;border-left:4px solid #f9a825;padding:.8rem 1rem}
.summary p:first-child{font-weight:700;color:#8a1c1c}
.summary p{margin:.15rem 0}
ul{list-style:none;padding-left:1.1rem;border-left:1px solid #e1e6ea}
.name{color:#52606a}
.value{font-weight:600}
summary{cursor:pointer;font-weight:600;margin-top:.5rem}
"""


def to_html(sr: Dataset) -> str:
    """Return the page: document header, summary, then the content tree with groups that fold."""
    title = escape(_meaning(sr))
    flags = " · ".join(
        escape(str(sr.get(keyword, "")))
        for keyword in ("CompletionFlag", "VerificationFlag", "PreliminaryFlag", "ContentQualification")
    )
    issued = escape(f"{sr.get('ContentDate', '')} {sr.get('ContentTime', '')}")
    children = list(sr.get("ContentSequence", ()))
    named = [item.ConceptCodeSequence[0].CodeValue for item in children if concept(item) == _LANGUAGE]
    language = escape(str(named[0])) if named else "en"
    summaries = "".join(_summary(item) for item in children if concept(item) == _SUMMARY)
    tree = "".join(_item(item) for item in children if concept(item) != _SUMMARY)
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<header><h1>{title}</h1><p>{flags}<br>{issued}</p></header>\n"
        f'{summaries}\n<ul class="tree">{tree}</ul>\n</body>\n</html>\n'
    )


def _summary(item: Dataset) -> str:
    """Return the Summary, one paragraph per line."""
    lines = str(item.TextValue).splitlines()
    return '<section class="summary">' + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</section>"


def _item(item: Dataset) -> str:
    """Return one content item and what is below it."""
    below = "".join(_item(child) for child in item.get("ContentSequence", ()))
    name = escape(_meaning(item))
    if item.ValueType == "CONTAINER":
        unfolded = "" if concept(item) == _IMAGE_LIBRARY else " open"
        return f"<li><details{unfolded}><summary>{name}</summary><ul>{below}</ul></details></li>\n"
    nested = f"<ul>{below}</ul>" if below else ""
    return f'<li><span class="name">{name}:</span> <span class="value">{escape(_value(item))}</span>{nested}</li>\n'


def _meaning(item: Dataset) -> str:
    """Return the meaning of an item's concept name."""
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeMeaning", "")) if names else "Item"


def _value(item: Dataset) -> str:
    """Return an item's value as text."""
    kind = item.ValueType
    if kind == "NUM":
        return _number(item)
    if kind == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    if kind in ("IMAGE", "COMPOSITE"):
        return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    keyword = _TEXTS.get(kind)
    return str(item.get(keyword, "")) if keyword else f"({kind})"


def _number(item: Dataset) -> str:
    """Return a number with its unit, or why there is none."""
    measured = item.get("MeasuredValueSequence")
    if measured:
        unit = measured[0].MeasurementUnitsCodeSequence[0]
        shown = "" if unit.CodeValue == "1" else f" {unit.CodeValue}"
        return f"{float(measured[0].NumericValue):g}{shown}"
    qualifier = item.get("NumericValueQualifierCodeSequence")
    return f"no value: {qualifier[0].CodeMeaning}" if qualifier else "no value"
