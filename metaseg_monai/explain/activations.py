"""Scale and shift of every channel of every gate, for each metadata value on the same images."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from torch import Tensor, cat

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.explain.inferer import RecordGates, one_case
from metaseg_monai.files import replacing


class Activations(NamedTuple):
    """What the gates of one network gave, as means over cases.

    Attributes:
        rows: one row for each test mode and domain: ``mode``, ``domain``, and ``cases``, how many
            cases the mean is over.
        scale: scales (rows, C) of each gate, gates in the order an image passes them.
        shift: the same of the shifts, for gates that have one.
    """

    rows: pd.DataFrame
    scale: dict[str, np.ndarray]
    shift: dict[str, np.ndarray]


class GateActivations:
    """Evaluator handler that writes the mean activation of every gate, mode and domain.

    Where an image is cut into windows, its windows are averaged first.

    Args:
        path: ``activations.npz`` to write when the evaluation is complete.
        recorder: the evaluator's inferer.
    """

    def __init__(self, path: str | Path, recorder: RecordGates) -> None:
        self.path = Path(path)
        self.recorder = recorder
        self.sums: dict[tuple[str, str, str], np.ndarray] = {}
        self.cases: dict[tuple[str, str], int] = {}

    def attach(self, engine: Engine) -> None:
        """Collect after every case, write at the end."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget the activations of an earlier evaluation."""
        self.sums, self.cases = {}, {}

    def collect(self, engine: Engine) -> None:
        """Add the case of the batch.

        Raises:
            ConfigError: the batch holds several cases.
        """
        _, mode, domain = one_case(engine)
        self.cases[mode, domain] = self.cases.get((mode, domain), 0) + 1
        record = self.recorder.record
        for part, of_gates in (("scale", record.scale), ("shift", record.shift)):
            for gate, calls in of_gates.items():
                key = (f"{part}_{gate}", mode, domain)
                self.sums[key] = self.sums.get(key, 0) + _mean_of_windows(calls)

    def write(self, engine: Engine) -> None:
        """Write the file in one step."""
        names = list(dict.fromkeys(name for name, _, _ in self.sums))
        arrays: dict[str, Any] = {
            f"values_{number}": np.stack(
                [self.sums[(name, *row)] / cases for row, cases in self.cases.items()]
            ).astype(np.float32)
            for number, name in enumerate(names)
        }
        rows = [
            {"mode": mode, "domain": domain, "cases": cases}
            for (mode, domain), cases in self.cases.items()
        ]
        index = json.dumps({"rows": rows, "values": names})
        with replacing(self.path) as part, part.open("wb") as file:
            np.savez_compressed(file, index=np.array(index), **arrays)


def read_activations(path: str | Path) -> Activations:
    """Read the file that `GateActivations` wrote.

    Raises:
        DataError: if there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There are no activations at {path}: run explain on this model first.")
    with np.load(path, allow_pickle=False) as arrays:
        index = json.loads(str(arrays["index"]))
        values = {name: arrays[f"values_{n}"] for n, name in enumerate(index["values"])}
    parts: dict[str, dict[str, np.ndarray]] = {"scale": {}, "shift": {}}
    for name, array in values.items():
        part, _, gate = name.partition("_")
        parts[part][gate] = array
    return Activations(pd.DataFrame(index["rows"]), parts["scale"], parts["shift"])


def compared_modes(modes: Sequence[str]) -> list[str]:
    """Choose the test modes that stand for metadata values: the fixed labels if there are two.

    >>> compared_modes(["normal", "fixed:disc", "fixed:ring"])
    ['fixed:disc', 'fixed:ring']
    >>> compared_modes(["normal", "perturb:0.5"])
    ['normal', 'perturb:0.5']
    """
    distinct = list(dict.fromkeys(modes))
    fixed = [mode for mode in distinct if mode.startswith("fixed:")]
    return fixed if len(fixed) > 1 else distinct


def by_value(activations: Activations, part: str = "scale") -> dict[str, pd.DataFrame]:
    """Average the domains, so that each metadata value has one row.

    Where the network was run in one mode only, as one without metadata is, the domains stand in
    for the values; they are then different images.

    Args:
        activations: of one network.
        part: "scale" or "shift".

    Returns:
        For each gate a table, values x channels; the ``fixed:`` of the modes is left out.
    """
    rows = activations.rows
    modes = compared_modes(list(rows["mode"]))
    key = rows["mode"].where(rows["mode"].isin(modes)) if len(modes) > 1 else rows["domain"]
    names = list(dict.fromkeys(key.dropna()))
    tables = {}
    for gate, values in _part(activations, part).items():
        means = [
            np.average(values[chosen], axis=0, weights=rows["cases"].to_numpy()[chosen])
            for chosen in ((key == name).to_numpy(bool) for name in names)
        ]
        tables[gate] = pd.DataFrame(means, index=[name.removeprefix("fixed:") for name in names])
    return tables


def difference(
    activations: Activations, first: str, second: str, part: str = "scale"
) -> dict[str, np.ndarray]:
    """Absolute difference of the activations under two metadata values (thesis figure 4.13).

    Args:
        activations: of one network.
        first: a value as in the index of `by_value`, with or without ``fixed:``.
        second: another.
        part: "scale" or "shift".

    Returns:
        For each gate (C,).

    Raises:
        ConfigError: there is no such value; names those there are.
    """
    tables = by_value(activations, part)
    one, other = first.removeprefix("fixed:"), second.removeprefix("fixed:")
    for table in tables.values():
        for name in (one, other):
            if name not in table.index:
                raise ConfigError(
                    f"The activations hold no metadata value {name!r}; choose two of "
                    f"{', '.join(table.index)}."
                )
    return {
        gate: np.abs(table.loc[one].to_numpy() - table.loc[other].to_numpy())
        for gate, table in tables.items()
    }


def most_different(activations: Activations) -> tuple[str, str] | None:
    """The two metadata values whose scales differ most over all gates; None if there is one."""
    tables = by_value(activations)
    names = next(iter(tables.values())).index
    pairs = list(combinations(names, 2))
    sizes = [
        sum(float(values.mean()) for values in difference(activations, *pair).values())
        for pair in pairs
    ]
    return pairs[int(np.argmax(sizes))] if pairs else None


def _part(activations: Activations, part: str) -> dict[str, np.ndarray]:
    if part not in ("scale", "shift"):
        raise ConfigError(f"part must be scale or shift, got {part!r}")
    return activations.scale if part == "scale" else activations.shift


def _mean_of_windows(calls: Sequence[Tensor]) -> np.ndarray:
    """Average (B, C) of one call or more over all windows: (C,)."""
    return cat(list(calls)).double().mean(0).numpy()
