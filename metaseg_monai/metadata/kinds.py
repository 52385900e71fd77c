"""The kinds of field there are, and how one is read from JSON."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field as Setting
from pydantic import TypeAdapter, ValidationError

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata.categories import Categorical, MultiLabel, Ordinal
from metaseg_monai.metadata.fields import explain_validation
from metaseg_monai.metadata.quantities import Continuous, Vector

AnyField = Annotated[
    Categorical | MultiLabel | Ordinal | Continuous | Vector, Setting(discriminator="kind")
]
_FIELD: TypeAdapter[AnyField] = TypeAdapter(AnyField)


def read_field(place: int, content: Any) -> AnyField:
    """Make the field that JSON content describes, by its ``kind``; a field stays as it is.

    Args:
        place: Index of the field in its schema, for messages.
        content: The field's settings by name.

    Raises:
        MetadataError: The kind or a setting is unknown, absent or wrong.
    """
    try:
        return _FIELD.validate_python(content)
    except ValidationError as error:
        raise MetadataError(f"schema, field {place + 1}: {explain_validation(error)}") from error
