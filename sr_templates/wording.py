"""What a report says, line by line: a template's sentences filled from values, for SR, captures and summary page."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from inference.results import AbstentionKind
from sr_templates.words import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset

    from inference.results import Abstention, Output, PrefixRisk, QualityFlag
    from sr_templates.sources import ReportContext, TimePointEvidence
    from sr_templates.template import ReportTemplate


_LEAST, _MOST = 0.01, 0.99  # beyond them no number is told in words
_DECIMALS = 6


def percent(probability: float, edges: Sequence[float] = ()) -> str:
    """Return a probability as a reader says it: whole percent, never a false 0 or 100.

    Decimals follow only where the rounded number would lie in another band than the probability, by the bands' `edges`.
    """
    if probability < _LEAST:
        return "<1 %"
    if probability > _MOST:
        return ">99 %"
    return f"{rounded(probability, edges, decimals=0):.10g} %"


def rounded(probability: float, edges: Sequence[float], *, decimals: int = 1) -> float:
    """Return a probability in percent, with as many more decimals as keep it on its side of every edge.

    The edges are those of the bands (lower <= probability < upper) and of what is told in words. Certainty is not told:
    the ends are 0.01 and 99.99.
    """
    inside = min(max(float(probability), 1e-4), 1 - 1e-4)
    for places in range(decimals, _DECIMALS + 1):
        found = round(inside * 100, places)
        if _side(found / 100, edges) == _side(inside, edges):
            return found
    step = 10.0**-_DECIMALS
    return round(found - step if found / 100 > inside else found + step, _DECIMALS)


def _side(probability: float, edges: Sequence[float]) -> tuple[bool, ...]:
    """Return on which side of each edge a probability lies."""
    words = (probability <= 0, probability < _LEAST, probability > _MOST, probability >= 1)
    return (*words, *(probability < each for each in edges))


def warnings(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return what must be read before anything else; research use comes first."""
    words = template.wording
    lines = [words.research_only]
    if context.result.model.synthetic:
        lines.append(words.synthetic_model)
    if context.phantom:
        lines.append(words.phantom_patient)
    return tuple(lines)


def short_warning(context: ReportContext, template: ReportTemplate) -> str:
    """Return the warnings in one line that fits above an image."""
    words = template.wording
    synthetic = context.result.model.synthetic or context.phantom
    return words.research_only_short + (f" - {words.synthetic_short}" if synthetic else "")


def newest_scan(context: ReportContext) -> date:
    """Return the day of the newest scan that was used; the horizon runs from it."""
    return context.time_points[-1].acquired.date()


def horizon(context: ReportContext, template: ReportTemplate) -> str:
    """Return the time the answer speaks about, with its end; empty if the task has no horizon."""
    days = context.result.horizon_days
    if days is None:
        return ""
    start = newest_scan(context)
    return template.wording.horizon.format(days=days, scan=start, end=start + timedelta(days=days))


def category(context: ReportContext, template: ReportTemplate, output: Output) -> str:
    """Return the risk band, or that a synthetic model has none."""
    if context.result.model.synthetic:
        return template.wording.synthetic_category
    return template.output(output.name).band(output.probability).label


def interval(output: Output, template: ReportTemplate) -> str:
    """Return the ensemble's interval in brackets, or nothing where there is none."""
    if output.lower is None or output.upper is None:
        return ""
    lower = percent(output.lower).removesuffix(" %")
    return template.wording.interval.format(lower=lower, upper=percent(output.upper))


def answers(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return one sentence per output, or the sentence that there is no answer and why."""
    words, until = template.wording, horizon(context, template)
    abstention = context.result.abstention
    if abstention is not None:
        cause = abstention_cause(abstention.kind, template)
        reason = abstention_reason(abstention, template)
        return (words.no_answer.format(label=template.main.label, horizon=until, cause=cause, reason=reason),)
    return tuple(
        words.answer.format(
            label=template.output(each.name).label,
            horizon=until,
            probability=percent(each.probability, template.output(each.name).edges),
            interval=interval(each, template),
            category=category(context, template, each),
        )
        for each in context.result.outputs
    )


def abstention_cause(kind: AbstentionKind, template: ReportTemplate) -> str:
    """Return in words what kind of abstention it is."""
    causes = template.wording.causes
    by_kind = {
        AbstentionKind.NOT_ATTEMPTED: causes.not_attempted,
        AbstentionKind.INDETERMINATE: causes.indeterminate,
        AbstentionKind.FAILURE: causes.failure,
    }
    return by_kind[kind]


def abstention_reason(abstention: Abstention, template: ReportTemplate) -> str:
    """Return why there is no answer, in the template's language where it has words for what the reason is about."""
    return _in_own_words(abstention.code, abstention.reason, template)


def time_point(point: TimePointEvidence, number: int, template: ReportTemplate) -> str:
    """Return a time point in a line: number from 1, date, kind, place relative to surgery, roles."""
    words, days = template.wording, point.days_from_surgery
    since = ""
    if days is not None:
        since = words.after_surgery.format(days=days) if days >= 0 else words.before_surgery.format(days=-days)
    return words.scan.format(
        number=number,
        date=point.acquired.date(),
        kind=getattr(words.kinds, point.kind.replace("-", "_"), words.kinds.unknown),
        since=since,
        roles=", ".join(series.role for series in point.series),
    )


def prefix_of(context: ReportContext, index: int) -> PrefixRisk | None:
    """Return the probability when the model sees the scans up to time point `index` (from 0), if there is one."""
    return next((each for each in context.result.trajectory if each.n_scans == index + 1), None)


def scans(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return the used scans, one per line, each with the probability that the scans up to it give."""
    words, points = template.wording, context.time_points
    title = words.scans_with_probability if context.result.trajectory else words.scans
    lines = [title.format(count=len(points))]
    for index, point in enumerate(points):
        prefix = prefix_of(context, index)
        said = "" if prefix is None else percent(prefix.probability, template.main.edges)
        risk = words.scan_probability.format(probability=said) if said else ""
        lines.append(time_point(point, index + 1, template) + risk)
    return tuple(lines)


def caution(flag: QualityFlag, template: ReportTemplate, *, placed: bool = True) -> str:
    """Return a quality flag in the template's language, or as it was raised where that has no words for it."""
    words = template.wording
    place = "" if flag.time_point is None or not placed else words.caution_place.format(number=flag.time_point + 1)
    return words.caution.format(place=place, message=_in_own_words(flag.code, flag.message, template))


def _in_own_words(code: str, message: str, template: ReportTemplate) -> str:
    return template.wording.cautions.get(code, "{message}").format(message=plain(message))


def notes(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return what was not used and why, and whatever else the reader must know of the selection, one per line."""
    return tuple(template.wording.note.format(message=plain(each)) for each in context.remarks)


def remarks(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return quality flags, exclusions and notes, one per line."""
    return (*(caution(flag, template) for flag in context.result.flags), *notes(context, template))


def model(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return which model answered and what it was trained on."""
    card, words = context.result.model, template.wording
    name, version = plain(card.name), plain(card.version)
    return (
        words.model.format(name=name, version=version, digest=short_digest(card.digest)),
        words.training.format(data=plain(card.training_data)),
    )


def short_digest(digest: str) -> str:
    """Return the digest with 12 hexadecimal digits, enough to tell models apart by eye."""
    scheme, _, value = digest.rpartition(":")
    return f"{scheme}:{value[:12]}" if scheme else value[:12]


def predecessor(context: ReportContext, template: ReportTemplate) -> tuple[str, ...]:
    """Return which earlier report this one replaces or follows, and whether that may still be used."""
    earlier, words = context.record.predecessor, template.wording
    if earlier is None:
        return ()
    followed = words.replaces if earlier.replaced else words.updates
    return ((words.taken_back if earlier.taken_back else followed).format(date=earlier.issued),)


def captures(images: Sequence[Dataset], template: ReportTemplate) -> tuple[str, ...]:
    """Return where in the study the images of this result stand, for viewers that cannot follow a reference."""
    words = template.wording
    series = {each.SeriesInstanceUID: (each.SeriesNumber, each.SeriesDescription) for each in images}
    found = [words.capture.format(number=number, description=text) for number, text in series.values()]
    return (words.captures.format(images=", ".join(found)),) if found else ()


def summary(context: ReportContext, template: ReportTemplate, images: Sequence[Dataset]) -> tuple[str, ...]:
    """Return the Summary of the report, line by line; `images` are the captures that it points at."""
    return (
        *warnings(context, template),
        *answers(context, template),
        *scans(context, template),
        *remarks(context, template),
        *captures(images, template),
        *predecessor(context, template),
        *model(context, template),
    )
