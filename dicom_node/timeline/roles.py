"""Say what a series is: the first rule that matches decides, and every rule tried before it says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.timeline.model import RuleTrace, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dicom_node.timeline.model import InstanceFacts, Value
    from dicom_node.timeline.selection import Rule, Selection

UNRECOGNISED = "unrecognised"


def classify_series(instances: Sequence[InstanceFacts], selection: Selection) -> Verdict:
    """Apply the rules to the attributes of all instances of a series; their order does not matter."""
    return classify(series_attributes(instances), selection)


def classify(attributes: Mapping[str, Value], selection: Selection) -> Verdict:
    """Apply the rules to attributes under their classic DICOM keywords."""
    trace: list[RuleTrace] = []
    for rule in selection.rules:
        trace.append(_try(rule, attributes))
        if trace[-1].matched:
            return Verdict(role=rule.role, name=rule.series_is, rule=rule.name, trace=tuple(trace))
    return Verdict(role=None, name=UNRECOGNISED, rule="", trace=tuple(trace))


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
        because = "needs one of: " + "; ".join(condition.describe() for condition in rule.any)
        return RuleTrace(rule=rule.name, matched=False, because=because)
    conditions = (*rule.all, *holding[:1])
    because = "; ".join(f"{each.describe()} (found {each.found(attributes)})" for each in conditions)
    return RuleTrace(rule=rule.name, matched=True, because=because)


def _flat(value: Value | tuple[()]) -> tuple[str | float, ...]:
    return value if isinstance(value, tuple) else (value,)
