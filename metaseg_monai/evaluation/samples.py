"""Keep a few predictions of an evaluation, for reports that have pictures but no network."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.errors import DataError
from metaseg_monai.files import replacing


class Sample(NamedTuple):
    """One case: image (H, W) in 0..1, label (H, W), predicted classes (H, W) for each test mode."""

    case: str
    domain: str
    image: np.ndarray
    label: np.ndarray
    preds: dict[str, np.ndarray]


class PredictionSamples:
    """Evaluator handler that stores some cases of every domain with all their modes.

    Of each of the first groups (patients) it is one, that with the largest foreground, for
    neighbouring slices of a patient would show the same. The mode ``normal`` must come first.

    Args:
        path: ``samples.npz`` to write when the evaluation is complete.
        per_domain: largest number of cases kept for each domain, each of another group.
    """

    def __init__(self, path: str | Path, per_domain: int = 1) -> None:
        self.path = Path(path)
        self.per_domain = per_domain
        self.samples: dict[tuple[str, str], Sample] = {}  # by domain and group

    def attach(self, engine: Engine) -> None:
        """Collect after every batch, write at the end."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget the samples of an earlier evaluation."""
        self.samples = {}

    def collect(self, engine: Engine) -> None:
        """Keep the batch's cases that are still wanted."""
        batch, output = engine.state.batch, engine.state.output
        for index, case in enumerate(batch["case"]):
            domain, mode = batch["domain"][index], batch["mode"][index]
            place = domain, batch["group"][index]
            if mode == "normal" and self._is_wanted(place, output["label"][index, 0]):
                image = _plane(output["image"][index].float().mean(0))
                label = _plane(output["label"][index, 0]).astype(np.uint8)
                self.samples[place] = Sample(case, domain, _to_unit(image), label, {})
            if place in self.samples and self.samples[place].case == case:
                pred = _plane(output["pred"][index].argmax(0)).astype(np.uint8)
                self.samples[place].preds[mode] = pred

    def _is_wanted(self, place: tuple[str, str], label: Tensor) -> bool:
        """Whether a case is of a new group, while there is room, or shows more than its group's."""
        if place in self.samples:
            shown = np.count_nonzero(self.samples[place].label)
            return int(np.count_nonzero(_plane(label))) > int(shown)
        return sum(domain == place[0] for domain, _ in self.samples) < self.per_domain

    def write(self, engine: Engine) -> None:
        """Write the file in one step."""
        arrays: dict[str, Any] = {}
        index = []
        for number, sample in enumerate(self.samples.values()):
            arrays[f"image_{number}"] = sample.image
            arrays[f"label_{number}"] = sample.label
            for position, pred in enumerate(sample.preds.values()):
                arrays[f"pred_{number}_{position}"] = pred
            index.append(
                {"case": sample.case, "domain": sample.domain, "modes": list(sample.preds)}
            )
        with replacing(self.path) as part, part.open("wb") as file:
            np.savez_compressed(file, index=np.array(json.dumps(index)), **arrays)


def read_samples(path: str | Path) -> list[Sample]:
    """Read the file that `PredictionSamples` wrote.

    Raises:
        DataError: the file is damaged or is none.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [
                Sample(
                    entry["case"],
                    entry["domain"],
                    arrays[f"image_{number}"],
                    arrays[f"label_{number}"],
                    {
                        mode: arrays[f"pred_{number}_{position}"]
                        for position, mode in enumerate(entry["modes"])
                    },
                )
                for number, entry in enumerate(json.loads(str(arrays["index"])))
            ]
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise DataError(f"{path}: no samples ({error}); evaluate again, or remove it.") from error


def _plane(array: Tensor) -> np.ndarray:
    """Return (H, W): the array itself, or the middle plane of the last axis of a volume."""
    plane = array.detach().cpu().numpy()
    return plane if plane.ndim == 2 else plane[..., plane.shape[-1] // 2]


def _to_unit(image: np.ndarray) -> np.ndarray:
    low, high = np.quantile(image, [0.01, 0.99])
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float16)
