"""How two lists of fields differ, in words; what a model says when it refuses metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaseg_monai.metadata.fields import MetadataField


def settings_that_count(field: MetadataField) -> dict[str, Any]:
    """The settings of a field that change its code or its use, which leaves out its description."""
    return field.model_dump(mode="json", exclude={"description"})


def field_differences(
    fields: Sequence[MetadataField], others: Sequence[MetadataField]
) -> list[str]:
    """One sentence for each difference; empty where both give the same vectors."""
    here = {field.name: field for field in fields}
    there = {field.name: field for field in others}
    shared = [name for name in here if name in there]
    shared_there = [name for name in there if name in here]
    differences = [f"field {name!r} is only in this one" for name in here if name not in there]
    differences += [f"field {name!r} is only in the other" for name in there if name not in here]
    if shared != shared_there:
        differences.append(
            f"the order of the fields is {', '.join(shared)} in this one, "
            f"{', '.join(shared_there)} in the other"
        )
    for name in shared:
        differences += _setting_differences(here[name], there[name])
    return differences


def _setting_differences(field: MetadataField, other: MetadataField) -> list[str]:
    if field.kind != other.kind:
        return [f"field {field.name!r} is {field.kind} in this one, {other.kind} in the other"]
    settings, others = settings_that_count(field), settings_that_count(other)
    return [
        f"field {field.name!r}: {setting} is {settings[setting]!r} in this one, "
        f"{others[setting]!r} in the other"
        for setting in settings
        if settings[setting] != others[setting]
    ]
