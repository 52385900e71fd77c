"""MultiHeadUnet3: one U-Net for several tasks, each with a head of its own."""

from typing import Literal

import torch
from monai.networks.layers.factories import Pool
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError, MetadataError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import Categorical
from metaseg_monai.networks.gates import HiddenFrom, Start
from metaseg_monai.networks.loading import refuse_strange_weights
from metaseg_monai.networks.meta_input import required_meta
from metaseg_monai.networks.unet3 import ToNearest, Unet3, check_axes

VARIANT = "multi-head"


class MultiHeadUnet3(nn.Module):
    """`Unet3` with a head for each task (thesis 4.7, figure 4.9; paper, table 3).

    The image decides all features; metadata, the one-hot code of the task, only tell which head
    answers. With high bifurcation the last decoder level and the 1x1 convolution are doubled, with
    low bifurcation the whole decoder is.

    - Sequential training: batches of one task (`EpochDraw(homogeneous=...)`) go to its head, and
      no other head gets a gradient; of a mixed batch each image goes to its own. The trainer needs
      `optim_set_to_none`, for a gradient of zero would let an optimiser with momentum move the
      other heads; and several processes `find_unused_parameters` of DistributedDataParallel.
    - Parallel training: without metadata all heads answer, for labels of all tasks
      (`metaseg_monai.training.join_heads`, `metaseg_monai.losses.HeadsCrossEntropy`). A head that
      has no label in a batch has a gradient of zero, and moves on by the optimiser's momentum.

    Args:
        heads: with a schema: its field, the only one, whose values are the tasks, in that order.
            Without: T, how many tasks there are.
        bifurcation: "low" or "high".
        schema: the metadata's schema.
        variant: "multi-head", as it is called in studies and records.
        in_channels: channels of the image.
        out_channels: K, the classes of each head, background included.
        channels: C, the filters of every convolution.
        levels: how often the image is halved.
        reduction: r of the gates' hidden width.
        spatial_dims: 2 or 3.
        gates: "se" (thesis) or "none".
        hidden_from: as of `Unet3`, whose SE gates have no use for it.
        shift: the gates give x * s + b.
        start: "paper" or "neutral".
        unknown_trained: False; an unknown task has no head.

    Attributes:
        tasks: names of the heads, in order; without a schema their numbers.
        meta_features: T, the width of `meta`.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another; the schema has
            other fields, which no head reads, or an entry for unknown, which has no head.
        MetadataError: the schema has no such field.

    >>> network = MultiHeadUnet3(2, "high", channels=8, levels=2)
    >>> image = torch.rand(3, 1, 33, 47)
    >>> network(image, torch.eye(2)[[0, 1, 1]]).shape, network(image).shape
    (torch.Size([3, 2, 33, 47]), torch.Size([3, 4, 33, 47]))
    """

    def __init__(
        self,
        heads: str | int,
        bifurcation: Literal["high", "low"] = "low",
        schema: MetadataSchema | None = None,
        variant: str = VARIANT,
        in_channels: int = 1,
        out_channels: int = 2,
        channels: int = 64,
        levels: int = 5,
        reduction: float = 4,
        spatial_dims: int = 2,
        *,
        gates: Literal["none", "se"] = "se",
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "paper",
        unknown_trained: bool = False,
    ) -> None:
        super().__init__()
        refuse_strange_weights(self)
        if bifurcation not in ("high", "low"):
            raise ConfigError(f"bifurcation must be 'high' or 'low', got {bifurcation!r}")
        if gates not in ("none", "se"):
            raise ConfigError(
                f"gates must be 'se' or 'none', got {gates!r}: metadata only choose the head; "
                "for gates that read them take Unet3, which has one head"
            )
        if variant != VARIANT:
            raise ConfigError(
                f"variant of MultiHeadUnet3 is {VARIANT!r}, got {variant!r}: set it to that, or "
                "take Unet3"
            )
        if unknown_trained:
            raise ConfigError(
                "unknown_trained is nothing for MultiHeadUnet3, for an unknown task has no head: "
                "set metadata_dropout to 0"
            )
        self.variant = variant
        self.spatial_dims = spatial_dims
        self.tasks = _tasks(heads, schema)
        self.meta_features = len(self.tasks)
        decoders = [
            Unet3(
                variant=gates,
                in_channels=in_channels,
                out_channels=out_channels,
                channels=channels,
                levels=levels,
                reduction=reduction,
                spatial_dims=spatial_dims,
                hidden_from=hidden_from,
                shift=shift,
                start=start,
            )
            for _ in self.tasks
        ]
        trunk, shared = decoders[0], levels - 1 if bifurcation == "high" else 0
        self.encoder = trunk.encoder
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2, ceil_mode=True)
        self.middle = trunk.middle
        self.decoder = Decoder(trunk.decoder[:shared], nn.Identity())
        self.heads = nn.ModuleList(Decoder(one.decoder[shared:], one.head) for one in decoders)

    def forward(self, image: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return the logits of each image's own head (B, K, *S), or of all heads (B, T * K, *S).

        Those of head t are the channels from t * K, T the number of heads.

        Args:
            image: images (B, in_channels, *S).
            meta: one-hot rows (B, T), which head answers; None for all of them. In exports rows
                are not checked, and the heads are added up by them.

        Raises:
            ValueError: the number of axes of `image`, or the batch or width of `meta`, is wrong.
            MetadataError: a row names no head, or several, such as that of an unknown task.
        """
        check_axes(image, self.spatial_dims)
        x = image
        skips: list[Tensor] = []
        for level in self.encoder:
            skips.append(level(x))
            x = self.pool(skips[-1])
        x, skips = self.middle(x), skips[::-1]
        x = self.decoder(x, skips)
        skips = skips[self.decoder.depth :]
        if meta is None:
            return torch.cat([head(x, skips) for head in self.heads], dim=1)
        entries = required_meta(meta, image.shape[0], self.meta_features)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            recording = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined]
            if not (recording or entries.is_meta):  # a tensor of a shape alone
                return self._routed(x, skips, entries)
        pred = torch.zeros_like(image[:, :1])
        for task, head in enumerate(self.heads):
            chosen = entries[:, task].to(x.dtype)
            for _ in range(self.spatial_dims + 1):
                chosen = chosen.unsqueeze(-1)
            pred = pred + chosen * head(x, skips)
        return pred

    @torch.jit.unused
    def checked(self, meta: Tensor | None, images: int) -> Tensor:
        """The rows (B, T) that choose heads for so many images.

        Raises:
            ValueError: the rows are missing, or of another shape.
            MetadataError: a row names no head, or several.
        """
        rows = required_meta(meta, images, self.meta_features)
        one_hot = ((rows == 1).sum(dim=1) == 1) & ((rows != 0).sum(dim=1) == 1)
        if not bool(one_hot.all()):
            row = int(one_hot.int().argmin())
            raise MetadataError(
                f"expected one head for each image, got meta {rows[row].tolist()} of image {row}: "
                f"give a 1 for one of {', '.join(self.tasks)} and 0 for the others, or leave meta "
                "out, which gives all heads (test modes: normal, shuffle, fixed:*)"
            )
        return rows

    @torch.jit.unused
    def _routed(self, x: Tensor, skips: list[Tensor], meta: Tensor) -> Tensor:
        """Run each head on its own images only."""
        self.checked(meta, meta.shape[0])
        task = meta.argmax(dim=1)
        present = task.unique().tolist()
        if len(present) == 1:
            return self.heads[present[0]](x, skips)
        of_head = [torch.nonzero(task == number).flatten() for number in present]
        preds = [
            self.heads[number](x[rows], [skip[rows] for skip in skips])
            for number, rows in zip(present, of_head, strict=True)
        ]
        return torch.cat(preds)[torch.cat(of_head).argsort()]


class Decoder(nn.Module):
    """Levels of a decoder, from the deepest, and what ends them."""

    def __init__(self, levels: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.depth = len(levels)
        self.up = ToNearest()
        self.levels = levels
        self.head = head

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Return head(levels(x)), (B, K, *S), for x (B, C, ...) and skips, the deepest first."""
        for number, level in enumerate(self.levels):
            skip = skips[number]
            x = level(torch.cat([self.up(x, skip), skip], dim=1))
        return self.head(x)


def _tasks(heads: str | int, schema: MetadataSchema | None) -> tuple[str, ...]:
    """Return the names of the heads."""
    if schema is None:
        if isinstance(heads, bool) or not isinstance(heads, int) or heads < 2:
            raise ConfigError(
                f"heads must be 2 or more without a schema, got {heads!r}: give their number, or "
                "the schema and its field"
            )
        return tuple(str(number) for number in range(heads))
    if not isinstance(heads, str):
        raise ConfigError(
            f"heads={heads!r}: with a schema it is the name of a field, one of "
            f"{', '.join(schema.names)}"
        )
    field = schema.field(heads)
    if others := [name for name in schema.names if name != heads]:
        raise ConfigError(
            f"the schema has {', '.join(others)} beside {heads!r}, which no head would read: give "
            "a schema of that field alone (schema_file)"
        )
    if not isinstance(field, Categorical) or field.width != len(field.values):
        why = "has an entry for unknown" if isinstance(field, Categorical) else field.kind
        raise ConfigError(
            f"heads={heads!r} is {why}, which has no head: give a categorical field with missing "
            "'error' (schema_file, such as the bundle's configs/schema_texts.json, and "
            "metadata_dropout 0)"
        )
    if len(field.values) < 2:
        raise ConfigError(f"heads={heads!r} has one value, {field.values[0]!r}: take Unet3")
    return field.values
