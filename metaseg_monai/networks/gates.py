"""Gates: blocks that re-weight channels by what the image holds and by what its metadata say.

Every gate turns features x (B, C, *S) and metadata (B, M) into x * scale + shift, with one scale
and one shift for each image and channel. They differ in `excite`, which makes the two.
"""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.fused import fused_gate, fusible
from metaseg_monai.networks.meta_input import required_meta

# TorchScript reads the annotations, and knows only Optional[...]:
# ruff: noqa: UP045


class ChannelGate(nn.Module):
    """What all gates share: squeeze, then `excite` (left to each gate), then scale and shift.

    Args:
        meta_features: M, the entries of the metadata; 0 for a gate that reads none.
        needs_meta: whether `excite` reads the metadata.
        squeezes: whether `excite` reads z, the mean of the features over the pixels.
        shifts: whether `excite` gives a shift; if not, its scale must be a sigmoid.
        spatial_dims: 2 or 3.
        rectify: apply the ReLU that precedes the gate as part of it. As with
            `ReLU(inplace=True)`, the input is then overwritten.
        fused: run the gate as one autograd node in eager mode (`blocks.fused`; no second
            derivatives). False, TorchScript, tracing and compiling take plain operations.

    Raises:
        ConfigError: `spatial_dims` or `meta_features` is out of range.
    """

    def __init__(
        self,
        *,
        meta_features: int,
        needs_meta: bool,
        squeezes: bool,
        shifts: bool,
        spatial_dims: int,
        rectify: bool,
        fused: bool,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        if meta_features < 1 and needs_meta:
            raise ConfigError(
                f"{type(self).__name__} is steered by metadata: meta_features must be 1 or more, "
                f"got {meta_features}; give the width of the metadata schema"
            )
        self.meta_features = meta_features
        self.squeezes = squeezes
        self.shifts = shifts
        self.space = list(range(2, 2 + spatial_dims))
        self.rectify = rectify
        self.fused = fused

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Return scale (B, C), and shift (B, C) or None.

        Args:
            z: mean of the features over the pixels (B, C); (B, 0) for a gate without squeeze.
            meta: encoded metadata (B, M); (B, 0) for a gate without metadata.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, meta: Optional[Tensor] = None) -> Tensor:
        """Return x * scale + shift (B, C, *S).

        Args:
            x: features (B, C, *S).
            meta: encoded metadata (B, M); None for a gate without metadata.

        Raises:
            ValueError: the number of axes of `x`, or the batch or width of `meta`, is wrong.
        """
        if x.dim() != 2 + len(self.space):
            raise ValueError(
                f"expected features (B, C, *S) with {len(self.space)} spatial axes, "
                f"got {x.dim()} axes in all"
            )
        entries = required_meta(meta, x.shape[0], self.meta_features).to(x.dtype)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._plain(x, entries)
        return self._fused(x, entries) if self.fused and fusible(x) else self._plain(x, entries)

    def _plain(self, x: Tensor, meta: Tensor) -> Tensor:
        if self.rectify:
            x = F.relu(x)
        z = x.mean(self.space) if self.squeezes else x.new_empty((x.shape[0], 0))
        scale, shift = self.excite(z, meta)
        y = x * self._over_space(scale.to(x.dtype))
        if shift is not None:
            y = y + self._over_space(shift.to(x.dtype))
        return y

    def _over_space(self, values: Tensor) -> Tensor:
        for _ in self.space:
            values = values.unsqueeze(-1)
        return values

    @torch.jit.unused
    def _fused(self, x: Tensor, meta: Tensor) -> Tensor:
        in_place = self.rectify and not self.shifts
        if self.rectify and not in_place:
            x = F.relu(x, inplace=True)
        return fused_gate(
            x, meta, self.excite, tuple(self.parameters()), self.squeezes, rectify=in_place
        )


class NoGate(nn.Module):
    """The place of a gate left empty.

    Args:
        rectify: apply the ReLU that precedes the place, overwriting its input.
    """

    def __init__(self, rectify: bool = False) -> None:
        super().__init__()
        self.rectify = rectify

    def forward(self, x: Tensor, meta: Optional[Tensor] = None) -> Tensor:
        """Return x (B, C, *S), or relu(x); `meta` is for the gates at other places."""
        return F.relu(x, inplace=True) if self.rectify else x
