"""Scale and shift of every channel of every gate, for each metadata value on the same images."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from torch import cat

from metaseg_monai.evaluation.per_case import Case
from metaseg_monai.evaluation.samples import read_arrays, write_arrays
from metaseg_monai.explain.recorder import RecordGates

Part = Literal["scale", "shift"]
Given = tuple[str, str, dict[str, np.ndarray]]  # mode, domain, values (C,) by part and gate


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
    """Measure of ``activations.npz``: the mean activation of every gate, mode and domain.

    Where an image is cut into windows, its windows are averaged first.

    Args:
        recorder: the evaluator's inferer.
    """

    def __init__(self, recorder: RecordGates) -> None:
        self.recorder = recorder

    def __call__(self, case: Case) -> Iterator[Given]:
        """The values of every gate for a case."""
        parts = {"scale": self.recorder.record.scale, "shift": self.recorder.record.shift}
        values = {
            f"{part}_{gate}": cat(calls).double().mean(0).numpy()  # over all windows (B, C)
            for part, of_gates in parts.items()
            for gate, calls in of_gates.items()
        }
        yield case["mode"], case["domain"], values

    def write(self, path: Path, found: list[Given]) -> list[Path]:
        """Write the means over the cases."""
        of_rows: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}
        for mode, domain, values in found:
            of_rows.setdefault((mode, domain), []).append(values)
        names = list(found[0][2])
        means = {
            f"values_{number}": np.stack(
                [sum(one[name] for one in of_row) / len(of_row) for of_row in of_rows.values()]
            ).astype(np.float32)
            for number, name in enumerate(names)
        }
        rows = [
            {"mode": mode, "domain": domain, "cases": len(of_row)}
            for (mode, domain), of_row in of_rows.items()
        ]
        return write_arrays(path, {"rows": rows, "values": names}, means)


def read_activations(path: str | Path) -> Activations:
    """Read the file that `GateActivations` wrote.

    Raises:
        DataError: there is none, or it is damaged.
    """
    index, arrays = read_arrays(path, "activations", "explain")
    parts: dict[str, dict[str, np.ndarray]] = {"scale": {}, "shift": {}}
    for number, name in enumerate(index["values"]):
        part, _, gate = name.partition("_")
        parts[part][gate] = arrays[f"values_{number}"]
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


def by_value(activations: Activations, part: Part = "scale") -> dict[str, pd.DataFrame]:
    """Average the domains, so that each metadata value has one row.

    Where the network was run in one mode only, as one without metadata is, the domains stand in
    for the values; they are then different images.

    Returns:
        For each gate a table, values x channels; the ``fixed:`` of the modes is left out.
    """
    rows = activations.rows
    modes = compared_modes(list(rows["mode"]))
    key = rows["mode"].where(rows["mode"].isin(modes)) if len(modes) > 1 else rows["domain"]
    names = list(dict.fromkeys(key.dropna()))
    cases, chosen = rows["cases"].to_numpy(), [(key == name).to_numpy(bool) for name in names]
    return {
        gate: pd.DataFrame(
            [np.average(values[rows_], axis=0, weights=cases[rows_]) for rows_ in chosen],
            index=[name.removeprefix("fixed:") for name in names],
        )
        for gate, values in getattr(activations, part).items()
    }


def difference(activations: Activations, first: str, second: str) -> dict[str, np.ndarray]:
    """Absolute difference (C,) of each gate's scales under two values (thesis figure 4.13).

    Args:
        activations: of one network.
        first: a value in the index of `by_value`.
        second: another.
    """
    return {
        gate: np.abs(table.loc[first].to_numpy() - table.loc[second].to_numpy())
        for gate, table in by_value(activations).items()
    }


def most_different(activations: Activations) -> tuple[str, str] | None:
    """The two metadata values whose scales differ most over all gates; None if there is one."""
    values = next(iter(by_value(activations).values())).index
    pairs = list(combinations(values, 2))
    sizes = [
        sum(float(gap.mean()) for gap in difference(activations, *pair).values()) for pair in pairs
    ]
    return pairs[int(np.argmax(sizes))] if pairs else None
