"""Which metadata reach the gates: those given, the unknown vector, or none; all else is refused."""

import math
from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError

# TorchScript reads the annotations, and knows only Optional[...]:
# ruff: noqa: UP045


def required_meta(meta: Optional[Tensor], images: int, width: int) -> Tensor:
    """Return `meta` once its batch and width are those of the images and of the model.

    Args:
        meta: encoded metadata (B, M), or None.
        images: B, the number of images.
        width: M, the number of entries the model was built for. With 0, `meta` must be None and
            an empty (B, 0) comes back.

    Raises:
        ValueError: `meta` is missing, not wanted, or of another shape. Nothing is broadcast.

    >>> required_meta(torch.zeros(1, 3), images=4, width=3)
    Traceback (most recent call last):
    ...
    ValueError: expected meta of shape (4, 3), one row for each image, got (1, 3)
    """
    if width == 0:
        if meta is not None:
            raise ValueError(
                "this model takes no metadata (meta_features=0) but meta was given: leave it "
                "out, or train a variant that reads it (me, sme, film)"
            )
        return torch.empty((images, 0))
    if meta is None:
        raise ValueError(
            f"this model was trained with metadata of width {width}: pass meta of shape "
            f"({images}, {width}); meta=None is accepted only by a network built with unknown_meta"
        )
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return meta  # sizes are symbols while tracing and cannot be compared
    if meta.dim() != 2 or meta.shape[0] != images or meta.shape[1] != width:
        came = ", ".join([str(size) for size in meta.shape])
        raise ValueError(
            f"expected meta of shape ({images}, {width}), one row for each image, got ({came})"
        )
    return meta


class MetaInput(nn.Module):
    """The door through which metadata enter a network, checked once for all its gates.

    Args:
        meta_features: M, the number of metadata entries; 0 for a network without metadata.
        unknown_meta: the M entries that stand for `meta=None`, as the model's schema encodes
            "unknown"; only for a network trained with metadata dropout. Without them `meta=None`
            is refused.

    Raises:
        ConfigError: `meta_features` is negative, or `unknown_meta` has not M finite entries.

    >>> MetaInput(2, unknown_meta=[0, 1])(None, torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 2])
    """

    unknown: Optional[Tensor]

    def __init__(self, meta_features: int, unknown_meta: Sequence[float] | None = None) -> None:
        super().__init__()
        if meta_features < 0:
            raise ConfigError(f"meta_features must be 0 or more, got {meta_features}")
        self.meta_features = meta_features
        if unknown_meta is None:
            self.register_buffer("unknown", None, persistent=False)
            return
        entries = [float(entry) for entry in unknown_meta]
        if meta_features == 0 or len(entries) != meta_features:
            raise ConfigError(
                f"unknown_meta needs one number for each of the meta_features={meta_features} "
                f"entries, got {len(entries)}: take schema.unknown() of the model's own schema, "
                "and leave it out of a network without metadata"
            )
        if not all(math.isfinite(entry) for entry in entries):
            raise ConfigError(f"unknown_meta must be finite numbers, got {entries}")
        self.register_buffer("unknown", torch.tensor(entries), persistent=False)

    def forward(self, meta: Optional[Tensor], image: Tensor) -> Optional[Tensor]:
        """Return the metadata (B, M) for images (B, C, *S); None where the network reads none.

        Raises:
            ValueError: `meta` is missing, not wanted, or of another shape than (B, M).
        """
        unknown = self.unknown
        if meta is None and unknown is not None:
            return unknown.expand(image.shape[0], self.meta_features)
        entries = required_meta(meta, image.shape[0], self.meta_features)
        return entries if self.meta_features > 0 else None
