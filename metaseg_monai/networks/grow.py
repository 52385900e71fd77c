"""A trained network learns further metadata values, and keeps what it gives for those it knows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError, MetadataError, listing
from metaseg_monai.metadata import Categorical, MetadataSchema, Ordinal
from metaseg_monai.metadata.fields import AnyField
from metaseg_monai.networks.gates import ChannelGate
from metaseg_monai.networks.mechanisms import Mechanism
from metaseg_monai.networks.meta_input import MetaInput


def grow(
    network: nn.Module,
    before: MetadataSchema,
    after: MetadataSchema,
    old: Mapping[str, str] | None = None,
) -> nn.Module:
    """Let a network take the metadata of a schema with further values or fields.

    Wherever a gate has W m, it then has W m + V m_new, where m are the entries it knows and m_new
    those that are new; hidden widths stay. For metadata without a new value m_new is 0, so that all
    outputs are what they were, to the bit. V begins as the mean of W over the values that the field
    had, so that a new category begins as a mixture of these; and as 0 for a new step of a scale,
    which begins as the highest step, and for a new field.

    Args:
        network: with gates or mechanisms that read metadata; changed in place and returned.
        before: the schema it was made with.
        after: `before` with further values at the end of categorical or ordinal fields, and with
            further categorical fields.
        old: of each further field the value that stands for all that was before. It has no weights
            of its own, nor has unknown.

    Raises:
        ConfigError: the network reads metadata in another way, or was made with other schemas.
        MetadataError: `after` is not `before` with further values and fields.

    >>> from metaseg_monai.networks import Unet3
    >>> known = {"provenance": "acquisition", "availability": "acquisition"}
    >>> before, after = (
    ...     MetadataSchema([Categorical(name="line", values=values, **known)])
    ...     for values in (("HeLa", "MDCK"), ("HeLa", "MDCK", "U2OS"))
    ... )
    >>> network = Unet3(before, channels=4, levels=1).eval()
    >>> image = torch.rand(1, 1, 8, 8)
    >>> was = network(image, torch.tensor([[0.0, 1.0]]))
    >>> grown = grow(network, before, after)
    >>> torch.equal(grown(image, torch.tensor([[0.0, 1.0, 0.0]])), was)
    True
    """
    kept, added, likes = _entries(before, after, old or {})
    doors = [module for module in network.modules() if isinstance(module, MetaInput)]
    readers = [
        module
        for module in network.modules()
        if isinstance(module, ChannelGate | Mechanism) and module.meta_features
    ]
    by_layers = [reader for reader in readers if not _has_gate(reader)]
    if not by_layers or any(not reader.meta_layer for reader in by_layers):
        others = {type(reader).__name__ for reader in by_layers if not reader.meta_layer}
        raise ConfigError(
            f"this {type(network).__name__} cannot grow: {listing(others) or 'it'} does not take "
            "metadata by a layer of neurons, as gates (me, sme, film ...), adaptive-norm, low-rank "
            "and hyper do; train one of these anew on all domains"
        )
    widths = {module.meta_features for module in (*doors, *readers)}
    if widths != {before.width}:
        raise ConfigError(
            f"this {type(network).__name__} has metadata of width {listing(sorted(widths), 5, str)}"
            f", and the schema that it is to grow from has {before.width} entries; name the schema "
            "that it was trained with"
        )
    for reader in by_layers:
        path, _, name = reader.meta_layer.rpartition(".")
        owner = reader.get_submodule(path)
        layer = owner.get_submodule(name)
        widths_of = (before.width, after.width, int(getattr(reader, "copies", 1)))
        setattr(owner, name, GrownLinear(layer, *widths_of, kept, added, likes))
    for door in doors:
        door.grow(after)
    for module in network.modules():
        if getattr(module, "meta_features", 0) == before.width:
            module.meta_features = after.width  # type: ignore[assignment]
    return network


def _has_gate(module: nn.Module) -> bool:
    return any(isinstance(one, ChannelGate) for one in module.modules() if one is not module)


class GrownLinear(nn.Module):
    """A linear layer whose last inputs are metadata, with a term of its own for new entries.

    Args:
        layer: the layer that there was, or one that has grown already.
        before: the entries of metadata that it reads, once or several times over.
        after: those that it is given now.
        copies: how many times over.
        kept: of these, which it knows, in its order.
        added: of these, which get weights of their own.
        likes: for each of `added` the known entries whose mean weights it begins with; none for 0.
    """

    known: Tensor
    fresh: Tensor

    def __init__(
        self,
        layer: nn.Module,
        before: int,
        after: int,
        copies: int,
        kept: Sequence[int],
        added: Sequence[int],
        likes: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        weight = _whole_weight(layer)
        first = weight.shape[1] - copies * before  # of the inputs that are metadata
        starts = [first + copy * after for copy in range(copies)]
        self.in_features, self.out_features = first + copies * after, len(weight)
        self.old = layer
        self.new = nn.Linear(len(added) * copies, len(weight), bias=False).to(weight)
        known = [*range(first), *(start + one for start in starts for one in kept)]
        fresh = [start + one for start in starts for one in added]
        for name, places in (("known", known), ("fresh", fresh)):
            self.register_buffer(name, torch.tensor(places, device=weight.device), persistent=False)
        with torch.no_grad():
            self.new.weight.zero_()
            for copy in range(copies):
                for place, like in enumerate(likes):
                    if like:
                        columns = [first + copy * before + one for one in like]
                        self.new.weight[:, copy * len(added) + place] = weight[:, columns].mean(1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return W d + b + V d_new (B, N) for inputs (B, D)."""
        old: Tensor = self.old(inputs.index_select(1, self.known))
        return old + self.new(inputs.index_select(1, self.fresh))


def _whole_weight(layer: nn.Module) -> Tensor:
    """The weights (N, D) of a layer for all its inputs, 0 for those that it does not read."""
    if not isinstance(layer, GrownLinear):
        return layer.weight.detach()  # type: ignore[operator]
    old, new = _whole_weight(layer.old), layer.new.weight.detach()
    whole = new.new_zeros((len(new), layer.in_features))
    return whole.index_copy(1, layer.known, old).index_copy(1, layer.fresh, new)


def _entries(
    before: MetadataSchema, after: MetadataSchema, old: Mapping[str, str]
) -> tuple[list[int], list[int], list[list[int]]]:
    """Where the known entries stand now, where the new ones, and which known ones those are like.

    Raises:
        MetadataError: `after` is not `before` with further values and fields.
    """
    if after.names[: len(before.names)] != before.names:
        raise MetadataError(
            f"a network that knows {listing(before.names)} can grow by fields behind these only, "
            f"got {listing(after.names)}; keep their order"
        )
    kept: list[int] = []
    added: list[int] = []
    likes: list[list[int]] = []
    for field in after.fields:
        start = after.slices[field.name].start
        if field.name not in before.names:
            stands = old.get(field.name)
            values = [place for place, value in enumerate(_values(field)) if value != stands]
            if not isinstance(field, Categorical) or not 0 < len(values) < len(field.values):
                raise MetadataError(
                    f"field {field.name!r}: a network grows by categorical fields of two values or "
                    "more, of which one (old) stands for all that was before; name it"
                )
            added += [start + place for place in values]
            likes += [[] for _ in values]
            continue
        was = before.field(field.name)
        there = before.slices[field.name].start
        known = len(_values(was))
        same = [one.model_dump(exclude={"values", "description"}) for one in (was, field)]
        if same[0] != same[1] or _values(field)[:known] != _values(was):
            raise MetadataError(
                f"field {field.name!r}: may only get further values at its end, of the kinds "
                "categorical and ordinal; keep all else"
            )
        fresh = range(known, len(_values(field)))
        added += [start + place for place in fresh]
        like = list(range(there, there + known)) if isinstance(field, Categorical) else []
        likes += [like for _ in fresh]
        places = range(field.width)
        kept += [start + place for place in places if place not in fresh]
    if not added:
        raise MetadataError("there is no new value: name one that the schema does not have")
    return kept, added, likes


def _values(field: AnyField) -> tuple[str, ...]:
    return field.values if isinstance(field, Categorical | Ordinal) else ()
