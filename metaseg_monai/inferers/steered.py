"""How far a prediction follows its metadata, and what becomes of metadata known as a range only."""

from collections.abc import Callable
from typing import Any

from monai.inferers import Inferer
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers.sliding import each_tensor, map_tensors
from metaseg_monai.networks.meta_input import MetaInput

STRONGEST = 2.0  # guidance


class SteeredInferer(Inferer):
    """Run another inferer's network with guidance.

    With guidance w the logits are u + w (v - u), where v are those with the metadata and u those
    with unknown metadata: 0 leaves the metadata out, 1 is the plain prediction, above 1 their
    effect is exaggerated. It is what classifier-free guidance does for diffusion models (Ho and
    Salimans 2022), and needs a network trained with metadata dropout. All that the wrapped inferer
    does, such as windows and their blending, it does with these logits. 0 and 1 run the network
    once and give what it gives, bit for bit; all else takes two runs.

    Args:
        inferer: to wrap, such as `SlidingWindowMetadataInferer`.
        network: that will be run, also inside DistributedDataParallel; tells the unknown vector.
        guidance: w, from 0 to 2; None is the plain prediction of any network.

    Raises:
        ConfigError: `guidance` is out of range, or the network knows no unknown metadata.
    """

    def __init__(self, inferer: Inferer, network: nn.Module, guidance: float | None = None) -> None:
        super().__init__()
        self.inferer = inferer
        self.guidance = checked_guidance(guidance)
        doors = [module for module in network.modules() if isinstance(module, MetaInput)]
        self.door = doors[0] if doors else None
        if guidance is not None and (self.door is None or self.door.unknown is None):
            raise ConfigError(
                f"guidance {guidance:g} needs a prediction without metadata, and {self._lack()}; "
                "leave guidance out, or train with --metadata_dropout 0.1 and a schema in which "
                "every field has missing='unknown'"
            )

    def __call__(self, inputs: Tensor, network: Any, meta: Tensor | None = None) -> Any:
        """Return the wrapped inferer's output, steered: logits (B, K, *S), or several of them.

        Args:
            inputs: images (B, C, *S).
            network: called by the wrapped inferer.
            meta: encoded metadata (B, M), or None where the network takes none.
        """
        if meta is None:
            return self.inferer(inputs, network)
        guided = self._guided(network)
        return self.inferer(inputs, guided, meta=meta)

    def _guided(self, network: Any) -> Callable[..., Any]:
        """The network under guidance, called as it is itself."""
        w, unknown = self.guidance, None if self.door is None else self.door.unknown
        if w is None or w == 1 or unknown is None:
            return lambda images, meta: network(images, meta=meta)

        def guided(images: Tensor, meta: Tensor) -> Any:
            rows = unknown.to(meta).expand_as(meta)
            without = network(images, meta=rows)
            if w == 0:
                return without
            return combined(lambda u, v: u + w * (v - u), without, network(images, meta=meta))

        return guided

    def _lack(self) -> str:
        if self.door is None:
            return "this network is not known to have one"
        if self.door.meta_features == 0:
            return "this network reads no metadata"
        return f"it has no such vector, which {self.door.no_unknown}"


def checked_guidance(guidance: Any) -> float | None:
    """Return the guidance as a number; None stays.

    Raises:
        ConfigError: it is no number from 0 to 2.
    """
    is_number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
    if guidance is None or (is_number and 0 <= guidance <= STRONGEST):
        return guidance
    raise ConfigError(
        f"guidance must be a number from 0 (as if the metadata were unknown) to {STRONGEST:g}, 1 "
        f"being the plain prediction, got {guidance!r}; correct it, or leave it out"
    )


def combined(function: Callable[[Tensor, Tensor], Tensor], first: Any, second: Any) -> Any:
    """Apply a function to each tensor of two outputs of one form."""
    others = iter(each_tensor(second))
    return map_tensors(lambda one: function(one, next(others)), first)
