"""Containers as viewers need them: highdicom marks each CONTINUOUS, and viewers then drop the labels in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import ContainerContentItem, ContentSequence, RelationshipTypeValues

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept


def container(name: CodedConcept) -> ContainerContentItem:
    """Return an empty container whose items a viewer shows one by one."""
    item = ContainerContentItem(name, is_content_continuous=False, relationship_type=RelationshipTypeValues.CONTAINS)
    item.ContentSequence = ContentSequence()
    return item
