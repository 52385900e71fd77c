"""What a regressor learns: the code of one continuous metadata field."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.metadata.fields import Continuous
from metaseg_monai.metadata.schema import MetadataSchema


def continuous_field(schema: MetadataSchema, name: str | None = None) -> Continuous:
    """The field to estimate: the one of that name, or the first continuous one.

    Raises:
        MetadataError: The named field is not in the schema or not continuous, or none is.
    """
    numbers = [field for field in schema.fields if isinstance(field, Continuous)]
    if name is None:
        if not numbers:
            raise MetadataError(
                "Only a continuous field can be estimated from the image; the schema has "
                f"{', '.join(f'{field.name} ({field.kind})' for field in schema.fields)}. Use a "
                "bundle or schema_file with a size, a magnification or the like."
            )
        return numbers[0]
    field = schema.field(name)
    if not isinstance(field, Continuous):
        raise MetadataError(
            f"estimate_field {name!r} is {field.kind}, but only a continuous field can be "
            f"estimated: {', '.join(number.name for number in numbers) or 'this schema has none'}."
        )
    return field


class FieldTarget(PrepareBatch):
    """Give a trainer or evaluator the image, and as its target the code of one field.

    Args:
        schema: that `meta` of the batch was encoded with.
        field: the continuous field, whose code has one entry for the value.

    Raises:
        MetadataError: the schema has no such field.
    """

    def __init__(self, schema: MetadataSchema, field: Continuous) -> None:
        schema.field(field.name)
        self.name = field.name
        self.entry = schema.slices[field.name].start

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return images (B, C, *S) and targets (B, 1), 0 to 1 inside the field's range.

        A missing value gives 0: leave such items out of training (`known_items`).

        Args:
            batchdata: with `image` and the encoded `meta` (B, M).
            device: where both go.
            non_blocking: as of `Tensor.to`.
            kwargs: further arguments of `Tensor.to`, from MONAI's `to_kwargs`.

        Raises:
            DataError: the batch has no `meta`.
        """
        if "meta" not in batchdata:
            raise DataError(
                f"The batch has no encoded metadata to learn {self.name!r} from; put "
                "EncodeMetadatad into the transforms."
            )
        target = batchdata["meta"][:, self.entry : self.entry + 1]
        move = {"device": device, "non_blocking": non_blocking, **kwargs}
        return batchdata["image"].to(**move), target.to(**move)
