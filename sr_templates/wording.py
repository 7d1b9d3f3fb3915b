"""The sentences of a report: plain text from values, shared by the SR, the captures and the summary page.

The two warnings are constants and not part of a template, so that no site can word them away.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset

    from inference.results import Output, PrefixRisk
    from sr_templates.sources import ReportContext, TimePointEvidence
    from sr_templates.template import ReportTemplate

RESEARCH_ONLY = "RESEARCH USE ONLY - NOT FOR CLINICAL DIAGNOSIS"
UNVERIFIED_NOTE = "AI result, not verified by a physician"
NOT_A_LESION = "AI saliency: not a lesion outline"
SYNTHETIC_MODEL_LINE = "SYNTHETIC PHANTOM MODEL - trained on simulated images; its number says nothing about a human"
SYNTHETIC_CATEGORY = "SYNTHETIC MODEL - NOT FOR CLINICAL USE"
PHANTOM_PATIENT_LINE = "SYNTHETIC PHANTOM DATA - simulated images, not a human patient"


def percent(probability: float) -> str:
    """Return a probability as a reader says it: whole percent, never a false 0 or 100."""
    if probability < 0.01:
        return "<1 %"
    if probability > 0.99:
        return ">99 %"
    return f"{round(probability * 100)} %"


def warnings(context: ReportContext) -> tuple[str, ...]:
    """Return what must be read before anything else; research use comes first."""
    lines = [f"{RESEARCH_ONLY} - {UNVERIFIED_NOTE}"]
    if context.result.model.synthetic:
        lines.append(SYNTHETIC_MODEL_LINE)
    if context.phantom:
        lines.append(PHANTOM_PATIENT_LINE)
    return tuple(lines)


def short_warning(context: ReportContext) -> str:
    """Return the warnings in one line that fits above an image."""
    synthetic = context.result.model.synthetic or context.phantom
    return "RESEARCH USE ONLY" + (" - SYNTHETIC PHANTOM" if synthetic else "")


def newest_scan(context: ReportContext) -> date:
    """Return the day of the newest scan that was used; the horizon runs from it."""
    return context.time_points[-1].acquired.date()


def horizon(context: ReportContext) -> str:
    """Return the time the answer speaks about, with its end; empty if the task has no horizon."""
    days = context.result.horizon_days
    if days is None:
        return ""
    start = newest_scan(context)
    return (
        f" within {days} days of the scan of {start.isoformat()} (until {(start + timedelta(days=days)).isoformat()})"
    )


def category(context: ReportContext, template: ReportTemplate, output: Output) -> str:
    """Return the risk band, or that a synthetic model has none."""
    if context.result.model.synthetic:
        return SYNTHETIC_CATEGORY
    return template.output(output.name).band(output.probability).label


def interval(output: Output) -> str:
    """Return the ensemble's interval in brackets, or nothing where there is none."""
    if output.lower is None or output.upper is None:
        return ""
    return f" (95 % ensemble interval {percent(output.lower).removesuffix(' %')} to {percent(output.upper)})"


def answers(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return one sentence per output, or the sentence that there is no answer and why."""
    abstention = context.result.abstention
    if abstention is not None:
        return (f"NO ANSWER: {template.main.label}{horizon(context)} was not assessed. Reason: {abstention.reason}",)
    return tuple(
        f"{template.output(each.name).label}{horizon(context)}: {percent(each.probability)}{interval(each)}"
        f" - {category(context, template, each)}"
        for each in context.result.outputs
    )


def time_point(point: TimePointEvidence, number: int) -> str:
    """Return a time point in a line: number from 1, date, kind, place relative to surgery, roles."""
    days = point.days_from_surgery
    since = "" if days is None else f", day {days} after surgery" if days >= 0 else f", {-days} days before surgery"
    roles = ", ".join(series.role for series in point.series)
    return f"{number}. {point.acquired.date().isoformat()} {point.kind}{since}: {roles}"


def prefix_of(context: ReportContext, index: int) -> PrefixRisk | None:
    """Return the probability when the model sees the scans up to time point `index` (from 0), if there is one."""
    return next((each for each in context.result.trajectory if each.n_scans == index + 1), None)


def scans(context: ReportContext) -> tuple[str, ...]:
    """Return the used scans, one per line, each with the probability that the scans up to it give."""
    lines = [f"Scans used ({len(context.time_points)}), with the AI probability from the scans up to each:"]
    for index, point in enumerate(context.time_points):
        prefix = prefix_of(context, index)
        risk = "" if prefix is None else f" - {percent(prefix.probability)}"
        lines.append(time_point(point, index + 1) + risk)
    if not context.result.trajectory:
        lines[0] = f"Scans used ({len(context.time_points)}):"
    return tuple(lines)


def remarks(context: ReportContext) -> tuple[str, ...]:
    """Return quality flags, exclusions and notes, one per line."""
    lines = []
    for flag in context.result.flags:
        place = "" if flag.time_point is None else f" (scan {flag.time_point + 1})"
        lines.append(f"Caution{place}: {flag.message}")
    return (*lines, *(f"Note: {each}" for each in context.remarks))


def model(context: ReportContext) -> tuple[str, ...]:
    """Return which model answered and what it was trained on."""
    card = context.result.model
    return (f"Model: {card.name} {card.version}, {short_digest(card.digest)}", f"Trained on: {card.training_data}")


def short_digest(digest: str) -> str:
    """Return the digest with 12 hexadecimal digits, enough to tell models apart by eye."""
    scheme, _, value = digest.rpartition(":")
    return f"{scheme}:{value[:12]}" if scheme else value[:12]


def predecessor(context: ReportContext) -> tuple[str, ...]:
    """Return which earlier report this one replaces or follows."""
    earlier = context.record.predecessor
    if earlier is None:
        return ()
    if earlier.same_time_points:
        return (f"Replaces the report of {earlier.issued.isoformat()} on the same scans.",)
    return (f"Updates report of {earlier.issued.isoformat()}, which stays valid for its own scans.",)


def captures(images: Sequence[Dataset]) -> tuple[str, ...]:
    """Return where in the study the images of this result stand, for viewers that cannot follow a reference."""
    found = [f"series {each.SeriesNumber} ({each.SeriesDescription})" for each in images]
    return (f"Images of this result in this study: {', '.join(found)}",) if found else ()


def summary(context: ReportContext, template: ReportTemplate, images: Sequence[Dataset]) -> tuple[str, ...]:
    """Return the Summary of the report, line by line; `images` are the captures that it points at."""
    return (
        *warnings(context),
        *answers(context, template),
        *scans(context),
        *remarks(context),
        *captures(images),
        *predecessor(context),
        *model(context),
    )
