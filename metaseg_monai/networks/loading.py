"""Weights of something else are refused, also by programs that load what fits and skip the rest."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from metaseg_monai.errors import CheckpointError, listing

SHOWN = 3  # names in the message


def refuse_strange_weights(network: nn.Module) -> None:
    """Have a network refuse `load_state_dict` where no name is its own, strict or not.

    MONAI Label and others load with ``strict=False``, and would go on with a network that learned
    nothing, without a word, where a user names the checkpoint of a run instead of its weights.

    Args:
        network: as it is called; loaded as a part of another one it takes what that gives it.

    >>> layer = nn.Linear(1, 1)
    >>> refuse_strange_weights(layer)
    >>> layer.load_state_dict({"objects": {}, "iteration": 3}, strict=False)
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.CheckpointError: these are no weights of Linear: it has 'weight', 'bias', \
and is given 'objects', 'iteration', none of them, so that it would stay untrained; load model.pt \
of the training (checkpoint.pt beside it is for --resume alone)
    """
    network.register_load_state_dict_pre_hook(_refuse)


def _refuse(network: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    own = network.state_dict().keys()
    if not prefix and own and not own & state.keys():
        raise CheckpointError(
            f"these are no weights of {type(network).__name__}: it has {listing(own, SHOWN)}, and "
            f"is given {listing(state, SHOWN) or 'nothing'}, none of them, so that it would stay "
            "untrained; load model.pt of the training (checkpoint.pt beside it is for --resume "
            "alone)"
        )
