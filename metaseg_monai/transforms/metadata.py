"""How an item's raw metadata becomes `meta`, and how training hides some of it."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata.fields import UNKNOWN, Categorical
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.networks.variants import base_variant, reads_metadata
from metaseg_monai.tables.find import field_values
from metaseg_monai.transforms.load import named

logger = logging.getLogger(__name__)

NORMAL = "normal"  # the test mode with the case's own metadata


class EncodeMetadatad(MapTransform):
    """Encode the raw `metadata` of an item into `meta`, a float32 tensor of shape (M,).

    Where a value is a range, it is (2, M): the vectors of both ends, from which
    `DropMetadatad` draws in training and `metaseg_monai.inferers.SteeredInferer` in use.

    An application may hand over `meta` itself, as the input of a network that metadata.json names:
    it is decoded, and then obeys what raw values obey.

    An item made for a test mode other than ``normal`` carries its ``meta`` already; it is kept as
    it is, after a check of its width. For the variants "none" and "se" nothing is encoded, for a
    ``<variant>-dummy`` the vector is zeros.

    Args:
        schema: The fields and their order.
        variant: Of the network (contract 5).
        unknown_trained: False refuses missing values also where the schema knows "unknown": for
            the use of a network that was trained without metadata dropout and never saw that entry.
        default: Raw values, as an application's user sets them (`displayable_configs`, see
            `metaseg_monai.tables.find.field_values`), of fields that an item's `metadata` does not
            name. None refuses items without metadata. With them `result` of an item, which MONAI
            Label shows its user, tells the metadata that the network was given.

    Attributes:
        calibrated: which metadata an engine was calibrated for (`metaseg_monai.inferers.Runner`);
            items with others are refused. None for all.
        untrained: the values by field that no training image of the weights had
            (`metaseg_monai.training.LoadWeights`), of which the log tells once where one is given.

    Raises:
        ConfigError: There is no such variant, or a default is no field.
        MetadataError: The item has no metadata or values that the schema refuses, has a `meta` of
            another width, or has a `meta` although no test mode asked for it.

    >>> from metaseg_monai.metadata import Categorical
    >>> task = Categorical(name="task", values=("disc", "ring"),
    ...                    provenance="acquisition", availability="acquisition")
    >>> encode = EncodeMetadatad(MetadataSchema([task]))
    >>> encode({"case": "img_0", "metadata": {"task": "ring"}})["meta"]
    tensor([0., 1.])
    """

    takes_lazy = True  # images, which it leaves alone

    def __init__(
        self,
        schema: MetadataSchema,
        variant: str = "sme",
        unknown_trained: bool = True,
        default: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__("metadata", allow_missing_keys=True)
        self.schema = schema
        self.reads = reads_metadata(variant)
        self.dummy = variant != base_variant(variant)  # is given zeros
        self.unknown_trained = unknown_trained
        self.default = None if default is None else field_values(default, schema)
        self.calibrated: Any = None
        self.untrained: dict[str, set[str]] = {}
        self._told: set[str] = set()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with `meta`; the given item stays as it is."""
        if not self.reads:
            return dict(data)
        data = self._handed_over(data)
        mode = data.get("mode", NORMAL)
        place = f"{named(data)} (mode {mode})"
        if (mode == NORMAL) == ("meta" in data):
            expected = "no" if mode == NORMAL else "an encoded"
            raise MetadataError(
                f"{place}: expected {expected} 'meta' in the item, got keys "
                f"{sorted(map(str, data))}; an encoded vector comes with its test mode's name"
            )
        if self.dummy:
            meta = torch.zeros(self.schema.width)
        elif mode != NORMAL:
            meta = _checked(data["meta"], self.schema, place)
        else:
            raw = self._raw(data, place)
            whole = data.get("volume") if "plane" in data else None  # its planes say the same
            case = str(data.get("case", "") if whole is None else whole)
            low, high = torch.from_numpy(self.schema.span(raw, case=case))
            self._tell(self.never_trained(data), case)
            meta = low if torch.equal(low, high) else torch.stack([low, high])
        if self.calibrated is not None:
            self.calibrated.check(meta, str(data.get("case", "")))
        return {**data, **self._shown(data, mode), "meta": meta}

    def told(self) -> Tensor | None:
        """The vector (M,) of an image of which nothing is known but what the user has set.

        None where the network reads no metadata, or there is no `default`.

        Raises:
            MetadataError: as of an item.
        """
        if not self.reads or self.default is None:
            return None
        vector: Tensor = self({"case": "the image", "metadata": {}})["meta"]
        return vector

    def _handed_over(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """An item whose encoded vector, of an application, has become its metadata."""
        if self.default is None or "meta" not in data or {"mode", "metadata"} & data.keys():
            return data
        vector = _checked(data["meta"], self.schema, named(data))
        rest = {key: one for key, one in data.items() if key != "meta"}
        return {**rest, "metadata": self.schema.decode(np.asarray(vector))}

    def _shown(self, data: Mapping[Hashable, Any], mode: str) -> dict[Hashable, Any]:
        """What an application shows its user of the metadata."""
        if self.default is None or mode != NORMAL:
            return {}
        raw = {**self.default, **(data.get("metadata") or {})}
        asked = {one.name: raw.get(one.name) for one in self.schema.fields}
        absent = {one.name for one in self.schema.fields if one.needs_unknown(asked[one.name])}
        told = {name: UNKNOWN if name in absent else one for name, one in asked.items()}
        return {"result": {**(data.get("result") or {}), "metadata": told}}

    def unknown(self, item: Mapping[str, Any]) -> list[str]:
        """The fields of an item, as far as the network reads them, that are encoded as unknown."""
        if not self.reads or self.dummy:
            return []
        raw = {**(self.default or {}), **(item.get("metadata") or {})}
        return [one.name for one in self.schema.fields if one.needs_unknown(raw.get(one.name))]

    def never_trained(self, item: Mapping[Any, Any]) -> list[str]:
        """The values of an item, as ``field=value``, that no training image had."""
        if not self.reads or self.dummy:
            return []
        raw = {**(self.default or {}), **(item.get("metadata") or {})}
        fields = [self.schema.field(name) for name in self.untrained]
        return [
            f"{field.name}={value}"
            for field in fields
            if isinstance(field, Categorical)
            if not field.is_missing(raw.get(field.name))
            for value, share in zip(field.values, field.encode(raw[field.name]), strict=False)
            if share > 0 and value in self.untrained[field.name]
        ]

    def _tell(self, values: Sequence[str], case: str) -> None:
        """Log values that were never trained, each once."""
        for value in (one for one in values if one not in self._told):
            self._told.add(value)
            logger.warning(
                "%s: no training image of these weights had %s, so the network answers untrained; "
                "%suse a model that was trained on it",
                case,
                value,
                "leave the value empty, which is taken as unknown, or " * self.unknown_trained,
            )

    def _raw(self, data: Mapping[Hashable, Any], place: str) -> Mapping[str, Any]:
        raw = data.get("metadata")
        if self.default is not None:
            raw = {**self.default, **(raw or {})}
        if raw is None:
            raise MetadataError(
                f"{place}: expected raw metadata under 'metadata', got keys "
                f"{sorted(map(str, data))}; give each item its metadata"
            )
        missing = [f.name for f in self.schema.fields if f.needs_unknown(raw.get(f.name))]
        if missing and not self.unknown_trained:
            raise MetadataError(
                f"{place}: no value of {', '.join(missing)}, and this network was trained without "
                "metadata dropout; give the value, train with --metadata_dropout 0.1, or pass "
                "--encode#unknown_trained True if its training table had missing values"
            )
        return raw


class DropMetadatad(RandomizableTransform, MapTransform):
    """Replace fields of `meta` by the schema's unknown: each field by itself, and all together.

    With it a network learns to do without some metadata, or without any (``meta=None``): of several
    fields, each dropped on its own, the latter would hardly ever be trained (contract 3). Items of
    the variants "none", "se" and ``<variant>-dummy`` stay as they are.

    Of a value that is a range, any within it is drawn, another one each time.

    Args:
        schema: The fields and their order.
        probability: That a field is dropped, and all are together: one number for every field
            whose policy is ``unknown``, or a mapping from fields to theirs; fields left out of the
            mapping are never dropped, the others together as often as the rarest of them.
        variant: Of the network (contract 5).

    Raises:
        ConfigError: There is no such variant.
        MetadataError: A probability lies outside 0 to 1, names no field of the schema, or is above
            0 for a field whose policy is ``error``.
    """

    def __init__(
        self,
        schema: MetadataSchema,
        probability: float | Mapping[str, float],
        variant: str = "sme",
    ) -> None:
        RandomizableTransform.__init__(self, prob=1.0)
        MapTransform.__init__(self, "meta", allow_missing_keys=True)
        each = isinstance(probability, Mapping)
        given: dict[str, Any] = dict.fromkeys(schema.names, probability)
        if isinstance(probability, Mapping):
            given = dict(probability)
        for name, chance in given.items():
            field = schema.field(name)
            if not isinstance(chance, int | float) or not 0 <= chance <= 1:
                raise MetadataError(
                    f"probability of field {name!r}: expected 0 to 1, got {chance!r}; correct it"
                )
            if each and chance > 0:
                field.unknown()  # refuses a field without such a code
        self.schema = schema
        self.is_on = reads_metadata(variant) and variant == base_variant(variant)  # no dummy
        self.probability = {
            field.name: float(given.get(field.name, 0.0)) if field.missing == "unknown" else 0.0
            for field in schema.fields
        }
        self.droppable = tuple(name for name, chance in self.probability.items() if chance > 0)
        self.together = min((self.probability[name] for name in self.droppable), default=0.0)
        self.dropped: tuple[str, ...] = ()  # names of the fields drawn last

    def randomize(self, data: Any = None) -> None:
        """Draw which fields to drop; always as many numbers, so that runs replay."""
        draws = self.R.random_sample(len(self.probability))
        chances = zip(draws, self.probability.items(), strict=True)
        self.dropped = tuple(name for draw, (name, chance) in chances if draw < chance)
        if len(self.probability) > 1:  # one field alone is all of them already
            together = self.R.random_sample() < self.together and len(self.droppable) > 1
            self.dropped = self.droppable if together else self.dropped

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with a new `meta`; the given item and its vector stay as they are."""
        if not self.is_on:
            return dict(data)
        self.randomize()
        if "meta" not in data:
            raise MetadataError(
                f"{named(data)}: expected 'meta', got keys {sorted(map(str, data))}; put "
                "EncodeMetadatad before DropMetadatad"
            )
        meta = _checked(data["meta"], self.schema, named(data)).clone()
        if meta.dim() == 2:  # both ends of a range
            places = torch.from_numpy(self.R.random_sample(self.schema.width)).float()
            meta = meta[0] + places * (meta[1] - meta[0])
        for name in self.dropped:
            entries = self.schema.slices[name]
            meta[entries] = torch.from_numpy(self.schema.field(name).unknown())
        return {**data, "meta": meta}


def _checked(vector: Any, schema: MetadataSchema, place: str) -> Tensor:
    """The vector as a float32 tensor, if it is finite and as wide as the schema."""
    meta = torch.as_tensor(vector, dtype=torch.float32)
    # of a value, of both ends of a range, and with a guidance of its own
    shapes = ((schema.width,), (2, schema.width), (3, schema.width))
    if meta.shape not in shapes or not bool(torch.isfinite(meta).all()):
        raise MetadataError(
            f"{place}: expected a finite meta of shape ({schema.width},), got shape "
            f"{tuple(meta.shape)}; encode it with the schema of this model"
        )
    return meta
