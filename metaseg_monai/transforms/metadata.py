"""How an item's raw metadata becomes `meta`, and how training hides some of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata.schema import MetadataSchema

NORMAL = "normal"  # the test mode with the case's own metadata


class EncodeMetadatad(MapTransform):
    """Encode the raw metadata of an item into `meta`, a float32 tensor of shape (M,).

    An item made for a test mode other than ``normal`` carries its ``meta`` already; it is kept as
    it is, after a check of its width.

    Args:
        schema: The fields and their order.
        dummy: Give zeros of shape (M,) instead, for the control variants that are trained and
            tested with zeros.
        allow_missing: False refuses missing values also where the schema knows "unknown": for a
            network that was trained without metadata dropout and never saw that entry.
        metadata_key: Key of the raw values, a mapping by field name.
        meta_key: Key of the encoded vector.

    Raises:
        MetadataError: The item has no metadata or values that the schema refuses, has a `meta` of
            another width, or has a `meta` although no test mode asked for it.

    >>> from metaseg_monai.metadata import Categorical
    >>> task = Categorical(name="task", values=("disc", "ring"),
    ...                    provenance="acquisition", availability="acquisition")
    >>> encode = EncodeMetadatad(MetadataSchema([task]))
    >>> encode({"case": "img_0", "metadata": {"task": "ring"}})["meta"]
    tensor([0., 1.])
    """

    def __init__(
        self,
        schema: MetadataSchema,
        dummy: bool = False,
        allow_missing: bool = True,
        metadata_key: str = "metadata",
        meta_key: str = "meta",
    ) -> None:
        super().__init__(keys=metadata_key)
        self.schema = schema
        self.dummy = dummy
        self.allow_missing = allow_missing
        self.metadata_key = metadata_key
        self.meta_key = meta_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with `meta`; the given item stays as it is."""
        mode = data.get("mode", NORMAL)
        place = f"case {data.get('case', 'without a name')!r} (mode {mode})"
        if (mode == NORMAL) == (self.meta_key in data):
            expected = "no" if mode == NORMAL else "an encoded"
            raise MetadataError(
                f"{place}: expected {expected} {self.meta_key!r} in the item, got keys "
                f"{sorted(map(str, data))}; an encoded vector comes with its test mode's name"
            )
        if self.dummy:
            meta = torch.zeros(self.schema.width)
        elif mode != NORMAL:
            meta = _checked(data[self.meta_key], self.schema, place)
        elif self.metadata_key not in data:
            raise MetadataError(
                f"{place}: expected raw metadata under {self.metadata_key!r}, got keys "
                f"{sorted(map(str, data))}; give each item its metadata"
            )
        else:
            raw = data[self.metadata_key]
            if not self.allow_missing:
                self._refuse_missing(raw, place)
            meta = torch.from_numpy(self.schema.encode(raw, case=str(data.get("case", ""))))
        return {**data, self.meta_key: meta}

    def _refuse_missing(self, raw: Mapping[str, Any], place: str) -> None:
        missing = [f.name for f in self.schema.fields if f.is_missing(raw.get(f.name))]
        if missing:
            raise MetadataError(
                f"{place}: no value of {', '.join(missing)}, and this network was trained without "
                "metadata dropout; give the value, train with --metadata_dropout 0.1, or pass "
                "--allow_missing True if its training table had missing values"
            )


class DropMetadatad(RandomizableTransform, MapTransform):
    """Replace fields of `meta` by the schema's unknown, each with its own probability.

    With it a network learns to do without some metadata, or without any (``meta=None``).

    Args:
        schema: The fields and their order.
        probability: One probability for every field, or a mapping from fields to theirs; fields
            left out of the mapping are never dropped.
        meta_key: Key of the encoded vector.

    Raises:
        MetadataError: A probability lies outside 0 to 1, names no field of the schema, or is above
            0 for a field whose policy is ``error``.
    """

    def __init__(
        self,
        schema: MetadataSchema,
        probability: float | Mapping[str, float],
        meta_key: str = "meta",
    ) -> None:
        RandomizableTransform.__init__(self, prob=1.0)
        MapTransform.__init__(self, keys=meta_key)
        given = (
            probability
            if isinstance(probability, Mapping)
            else dict.fromkeys(schema.names, probability)
        )
        for name, chance in given.items():
            field = schema.field(name)
            if not isinstance(chance, int | float) or not 0 <= chance <= 1:
                raise MetadataError(
                    f"probability of field {name!r}: expected 0 to 1, got {chance!r}; correct it"
                )
            if chance > 0:
                field.unknown()  # refuses a field without such a code
        self.schema = schema
        self.probability = {name: float(given.get(name, 0.0)) for name in schema.names}
        self.meta_key = meta_key
        self.dropped: tuple[str, ...] = ()  # names of the fields drawn last

    def randomize(self, data: Any = None) -> None:
        """Draw which fields to drop; always one number a field, so that runs replay."""
        draws = self.R.random_sample(len(self.probability))
        self.dropped = tuple(
            name
            for draw, (name, chance) in zip(draws, self.probability.items(), strict=True)
            if draw < chance
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with a new `meta`; the given item and its vector stay as they are."""
        self.randomize()
        place = f"case {data.get('case', 'without a name')!r}"
        if self.meta_key not in data:
            raise MetadataError(
                f"{place}: expected {self.meta_key!r}, got keys {sorted(map(str, data))}; put "
                f"EncodeMetadatad before DropMetadatad"
            )
        meta = _checked(data[self.meta_key], self.schema, place).clone()
        for name in self.dropped:
            entries = self.schema.slices[name]
            meta[entries] = torch.from_numpy(self.schema.field(name).unknown())
        return {**data, self.meta_key: meta}


def _checked(vector: Any, schema: MetadataSchema, place: str) -> Tensor:
    """The vector as a float32 tensor, if it is finite and as wide as the schema."""
    meta = torch.as_tensor(vector, dtype=torch.float32)
    if meta.shape != (schema.width,) or not bool(torch.isfinite(meta).all()):
        raise MetadataError(
            f"{place}: expected a finite meta of shape ({schema.width},), got shape "
            f"{tuple(meta.shape)}; encode it with the schema of this model"
        )
    return meta
