"""Feature maps before and behind a gate, for one image under several metadata values."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.explain.activations import compared_modes
from metaseg_monai.explain.inferer import RecordGates, one_case
from metaseg_monai.files import replacing


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
    """Evaluator handler that stores the feature maps of the first cases in every mode.

    Until the end of the evaluation it holds all channels of these cases in memory, as float16.

    Args:
        path: ``features.npz`` to write when the evaluation is complete.
        recorder: the evaluator's inferer; it names the gate.
        cases: number of cases kept.
        channels: number of channels kept, those whose maps differ most between metadata values.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(
        self, path: str | Path, recorder: RecordGates, cases: int = 1, channels: int = 16
    ) -> None:
        if cases < 1 or channels < 1:
            raise ConfigError(
                f"cases and channels must be 1 or more, got cases={cases}, channels={channels}"
            )
        self.path = Path(path)
        self.recorder = recorder
        self.cases = cases
        self.channels = channels
        self.maps: dict[str, FeatureMaps] = {}

    def attach(self, engine: Engine) -> None:
        """Collect after every case, write at the end."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget the features of an earlier evaluation."""
        self.maps = {}

    def collect(self, engine: Engine) -> None:
        """Keep the features of the batch's case if it is still wanted.

        Raises:
            ConfigError: the batch holds several cases.
        """
        case, mode, domain = one_case(engine)
        record, gate = self.recorder.record, self.recorder.gate
        if gate is None or gate not in record.after or record.image is None:
            return
        if case not in self.maps:
            if len(self.maps) >= self.cases:
                return
            image = _to_unit(_plane(record.image.mean(0)))
            self.maps[case] = FeatureMaps(case, domain, gate, record.images, image, [], {}, {})
        self.maps[case].before[mode] = _planes(record.before[gate])
        self.maps[case].after[mode] = _planes(record.after[gate])

    def write(self, engine: Engine) -> None:
        """Choose the channels and write the file in one step."""
        arrays: dict[str, Any] = {}
        index = []
        for number, maps in enumerate(self.maps.values()):
            channels = _most_changed(maps.after)[: self.channels]
            arrays[f"image_{number}"] = maps.image
            for position, mode in enumerate(maps.after):
                arrays[f"before_{number}_{position}"] = maps.before[mode][channels]
                arrays[f"after_{number}_{position}"] = maps.after[mode][channels]
            index.append(
                {
                    "case": maps.case,
                    "domain": maps.domain,
                    "gate": maps.gate,
                    "windows": maps.windows,
                    "channels": channels,
                    "modes": list(maps.after),
                }
            )
        with replacing(self.path) as part, part.open("wb") as file:
            np.savez_compressed(file, index=np.array(json.dumps(index)), **arrays)


def read_features(path: str | Path) -> list[FeatureMaps]:
    """Read the file that `GateFeatures` wrote.

    Raises:
        DataError: if there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There are no feature maps at {path}: run explain on this model first.")
    with np.load(path, allow_pickle=False) as arrays:
        return [
            FeatureMaps(
                entry["case"],
                entry["domain"],
                entry["gate"],
                entry["windows"],
                arrays[f"image_{number}"],
                entry["channels"],
                *(
                    {
                        mode: arrays[f"{side}_{number}_{position}"]
                        for position, mode in enumerate(entry["modes"])
                    }
                    for side in ("before", "after")
                ),
            )
            for number, entry in enumerate(json.loads(str(arrays["index"])))
        ]


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
    return np.stack([_plane(channel) for channel in features]).astype(np.float16)


def _plane(image: Tensor) -> np.ndarray:
    array = image.numpy()
    return array if array.ndim == 2 else array[..., array.shape[-1] // 2]


def _to_unit(image: np.ndarray) -> np.ndarray:
    low, high = np.quantile(image, [0.01, 0.99])
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float16)
