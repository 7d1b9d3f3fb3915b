"""Say what a series is: the first rule that matches decides, and every rule tried before it says why not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dicom_node.timeline.model import RuleTrace, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dicom_node.timeline.model import InstanceFacts, Value
    from dicom_node.timeline.selection import Rule, Selection

UNRECOGNISED = "unrecognised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Instances of a series that are judged together: all of them, or those of one value of a splitting attribute."""

    instances: tuple[InstanceFacts, ...]
    verdict: Verdict
    name: str = ""  # "EchoTime 90"; empty: the whole series


def classify_parts(instances: Sequence[InstanceFacts], selection: Selection) -> tuple[Part, ...]:
    """Apply the rules to a series; where one splits it, to each of its parts, in order of the splitting value.

    The order of the instances does not matter.
    """
    return _judge(series_attributes(instances), instances, selection)


def classify_series(instances: Sequence[InstanceFacts], selection: Selection) -> Verdict:
    """Apply the rules to the attributes of all instances of a series, unsplit; their order does not matter."""
    return classify(series_attributes(instances), selection)


def classify(attributes: Mapping[str, Value], selection: Selection) -> Verdict:
    """Apply the rules to attributes under their classic DICOM keywords; without instances nothing can be split."""
    (whole,) = _judge(attributes, (), selection)
    return whole.verdict


def series_attributes(instances: Sequence[InstanceFacts]) -> dict[str, Value]:
    """Merge the attributes of a series' instances: one value where all agree, else the distinct values in order.

    Numbers are compared to a hundredth, since scanners jitter the last digits. Image Type keeps each instance's
    values, so the union of all is what `contains` looks at.
    """
    merged: dict[str, Value] = {}
    for keyword in sorted({keyword for each in instances for keyword in each.attributes}):
        found = {value for each in instances for value in _flat(each.attributes.get(keyword, ()))}
        numbers = sorted({round(value, 2) for value in found if not isinstance(value, str)})
        texts = sorted({value for value in found if isinstance(value, str)})
        values: Value = tuple(numbers) if numbers else tuple(texts)
        merged[keyword] = values[0] if isinstance(values, tuple) and len(values) == 1 else values
    return merged


def _judge(
    attributes: Mapping[str, Value], instances: Sequence[InstanceFacts], selection: Selection
) -> tuple[Part, ...]:
    trace: list[RuleTrace] = []
    for rule in selection.rules:
        tried = _try(rule, attributes)
        if tried.matched and rule.split_by is not None:
            groups = _groups(instances, rule.split_by)
            if len(groups) > 1:
                return tuple(_part(value, group, rule, tried, selection) for value, group in sorted(groups.items()))
            tried = replace(tried, matched=False, because=f"cannot part the instances by {rule.split_by}")
        trace.append(tried)
        if tried.matched:
            verdict = Verdict(role=rule.role, name=rule.series_is, rule=rule.name, trace=tuple(trace))
            return (Part(instances=tuple(instances), verdict=verdict),)
    verdict = Verdict(role=None, name=UNRECOGNISED, rule="", trace=tuple(trace))
    return (Part(instances=tuple(instances), verdict=verdict),)


def _part(value: float, instances: Sequence[InstanceFacts], rule: Rule, tried: RuleTrace, selection: Selection) -> Part:
    """Judge one part; its trace begins with the rule that split the series."""
    name = f"{rule.split_by} {value:g}"
    verdict = classify(series_attributes(instances), selection)
    split = replace(tried, because=f"{tried.because}; split by {rule.split_by}, this part is {name}")
    return Part(instances=tuple(instances), verdict=replace(verdict, trace=(split, *verdict.trace)), name=name)


def _groups(instances: Sequence[InstanceFacts], keyword: str) -> dict[float, list[InstanceFacts]]:
    """Part instances by one number each; none where an instance has no number, or several (a multi-frame object)."""
    groups: dict[float, list[InstanceFacts]] = defaultdict(list)
    for each in instances:
        value = each.attributes.get(keyword)
        if not isinstance(value, int | float):
            return {}
        groups[round(value, 2)].append(each)
    return groups


def _try(rule: Rule, attributes: Mapping[str, Value]) -> RuleTrace:
    for condition in rule.all:
        if not condition.holds(attributes):
            because = f"needs {condition.describe()}; found {condition.found(attributes)}"
            return RuleTrace(rule=rule.name, matched=False, because=because)
    for condition in rule.none:
        if condition.holds(attributes):
            because = f"refuses {condition.describe()}; found {condition.found(attributes)}"
            return RuleTrace(rule=rule.name, matched=False, because=because)
    holding = [condition for condition in rule.any if condition.holds(attributes)]
    if rule.any and not holding:
        found = {condition.tag: condition.found(attributes) for condition in rule.any}
        because = "needs one of: " + "; ".join(condition.describe() for condition in rule.any)
        because += ". Found " + "; ".join(f"{tag}: {value}" for tag, value in found.items())
        return RuleTrace(rule=rule.name, matched=False, because=because)
    conditions = (*rule.all, *holding[:1])
    because = "; ".join(f"{each.describe()} (found {each.found(attributes)})" for each in conditions)
    return RuleTrace(rule=rule.name, matched=True, because=because)


def _flat(value: Value | tuple[()]) -> tuple[str | float, ...]:
    return value if isinstance(value, tuple) else (value,)
