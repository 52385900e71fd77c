"""Feature maps before and behind a gate, for one image under several metadata values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from metaseg_monai.errors import ConfigError
from metaseg_monai.evaluation.per_case import Case
from metaseg_monai.evaluation.samples import middle_plane, read_arrays, to_unit, write_arrays
from metaseg_monai.explain.activations import compared_modes
from metaseg_monai.explain.recorder import RecordGates


class FeatureMaps(NamedTuple):
    """The features of one case at one gate, some channels of them.

    Attributes:
        case: whose image it is.
        domain: its true one.
        gate: where the features were kept.
        windows: how many windows the image was cut into; the maps are of the first.
        image: what the network was given (h, w), mean over its channels, in 0..1.
        channels: numbers of the k kept channels; those that the metadata change most come first.
        before: features (k, h, w) that the gate scales, for each test mode.
        after: features (k, h, w) behind the gate, for each test mode.
    """

    case: str
    domain: str
    gate: str
    windows: int
    image: np.ndarray
    channels: list[int]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]


class GateFeatures:
    """Measure of ``features.npz``: the feature maps of the first cases in every mode.

    Until the end of the evaluation it holds all channels of these cases in memory, as float16.

    Args:
        recorder: the evaluator's inferer; it names the gate.
        cases: number of cases kept.
        channels: number of channels kept, those whose maps differ most between metadata values.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(self, recorder: RecordGates, cases: int = 1, channels: int = 16) -> None:
        if cases < 1 or channels < 1:
            raise ConfigError(
                f"cases and channels must be 1 or more, got cases={cases}, channels={channels}"
            )
        self.recorder = recorder
        self.cases = cases
        self.channels = channels
        self.maps: dict[str, FeatureMaps] = {}

    def start(self, items: Sequence[Any]) -> None:
        """Forget the features of an earlier evaluation."""
        self.maps = {}

    def __call__(self, case: Case) -> tuple[()]:
        """Keep the features of the case if it is still wanted."""
        name, record, gate = case["case"], self.recorder.record, self.recorder.gate
        if gate is None or record.before is None or record.after is None or record.image is None:
            return ()
        if name not in self.maps:
            if len(self.maps) >= self.cases:
                return ()
            image = to_unit(middle_plane(record.image).mean(0).detach().cpu().numpy())
            told = name, case["domain"], gate, record.images, image
            self.maps[name] = FeatureMaps(*told, [], {}, {})
        self.maps[name].before[case["mode"]] = _planes(record.before)
        self.maps[name].after[case["mode"]] = _planes(record.after)
        return ()

    def write(self, path: Path, found: list[Any]) -> list[Path]:
        """Choose the channels and write the file."""
        arrays: dict[str, np.ndarray] = {}
        index = []
        for number, maps in enumerate(self.maps.values()):
            channels = _most_changed(maps.after)[: self.channels]
            arrays[f"image_{number}"] = maps.image
            for position, mode in enumerate(maps.after):
                arrays[f"before_{number}_{position}"] = maps.before[mode][channels]
                arrays[f"after_{number}_{position}"] = maps.after[mode][channels]
            told = {name: getattr(maps, name) for name in ("case", "domain", "gate", "windows")}
            index.append({**told, "channels": channels, "modes": list(maps.after)})
        return write_arrays(path, index, arrays)


def read_features(path: str | Path) -> list[FeatureMaps]:
    """Read the file that `GateFeatures` wrote.

    Raises:
        DataError: there is none, or it is damaged.
    """
    index, arrays = read_arrays(path, "feature maps", "explain")
    found = []
    for number, told in enumerate(index):
        modes, image = told.pop("modes"), arrays[f"image_{number}"]
        before, after = (
            {mode: arrays[f"{side}_{number}_{place}"] for place, mode in enumerate(modes)}
            for side in ("before", "after")
        )
        found.append(FeatureMaps(**told, image=image, before=before, after=after))
    return found


def _most_changed(maps: dict[str, np.ndarray]) -> list[int]:
    """Order the channels by how much their maps (C, h, w) vary between metadata values.

    With one value only, the channels that are most active come first.
    """
    values = compared_modes(list(maps))
    low, high = maps[values[0]], maps[values[0]]
    for mode in values[1:]:
        low, high = np.minimum(low, maps[mode]), np.maximum(high, maps[mode])
    change = high - low if len(values) > 1 else np.abs(high)
    size = change.mean(axis=(1, 2), dtype=np.float64)
    return np.argsort(-size, kind="stable").tolist()


def _planes(features: Tensor) -> np.ndarray:
    """Return (C, h, w): the features themselves, or the middle planes of volumes."""
    return middle_plane(features).detach().cpu().numpy().astype(np.float16)
