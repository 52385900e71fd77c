"""From what an explained run left in its folder to figures and a table."""

from pathlib import Path

import pandas as pd

from metaseg_monai.errors import ConfigError
from metaseg_monai.explain.activations import (
    Activations,
    difference,
    most_different,
    read_activations,
)
from metaseg_monai.explain.features import FeatureMaps, read_features
from metaseg_monai.explain.figures import (
    feature_maps,
    gate_activations,
    gate_differences,
    single_gate,
)
from metaseg_monai.files import replacing


def draw(
    folder: str | Path,
    output: str | Path | None = None,
    first: str | None = None,
    second: str | None = None,
) -> list[Path]:
    """Write the figures and ``gates.csv`` of a run whose gates were recorded.

    Args:
        folder: of the run, with ``activations.npz`` and ``features.npz``.
        output: folder to write to; None for ``explain`` inside `folder`.
        first: metadata value to compare; None, with `second`, for the two that differ most.
        second: the other one.

    Returns:
        The files written: ``gates.csv``, ``scale.png``, ``shift.png`` where gates shift,
        ``difference.png`` where there are two metadata values, with ``gate_<name>.png`` of the
        gate whose features were kept and of the one that differs most, and
        ``features_<case>_before.png`` and ``..._after.png`` for each kept case.

    Raises:
        DataError: the folder has no recorded gates.
        ConfigError: only one of the two values is given, or one is unknown.
    """
    if (first is None) != (second is None):
        raise ConfigError("To compare two metadata values give both first and second.")
    folder = Path(folder)
    output = folder / "explain" if output is None else Path(output)
    activations = read_activations(folder / "activations.npz")
    features = read_features(folder / "features.npz")
    pair = (first, second) if first and second else most_different(activations)
    pictures = _of_gates(activations, pair, _gate_shown(activations, features))
    for maps in features:
        for side in ("before", "after"):
            pictures[f"features_{_file_name(maps.case)}_{side}"] = feature_maps(maps, side)
    table = output / "gates.csv"
    with replacing(table) as part:
        gate_table(activations).to_csv(part, index=False)
    written = [table]
    for name, content in pictures.items():
        written.append(output / f"{name}.png")
        with replacing(written[-1]) as part:
            part.write_bytes(content)
    return written


def gate_table(activations: Activations) -> pd.DataFrame:
    """List the activations: gate, channel, mode, domain, cases, scale, and shift or nothing."""
    tables = []
    for gate, scale in activations.scale.items():
        shift = activations.shift.get(gate)
        for channel in range(scale.shape[1]):
            table = activations.rows.assign(gate=gate, channel=channel, scale=scale[:, channel])
            tables.append(table.assign(shift=None if shift is None else shift[:, channel]))
    columns = ["gate", "channel", "mode", "domain", "cases", "scale", "shift"]
    return pd.concat(tables, ignore_index=True)[columns]


def _of_gates(
    activations: Activations, pair: tuple[str, str] | None, gate: str
) -> dict[str, bytes]:
    gaps = difference(activations, *pair) if pair else {}  # refuses an unknown value at once
    pictures = {"scale": gate_activations(activations)}
    if activations.shift:
        pictures["shift"] = gate_activations(activations, "shift")
    if pair:
        pictures["difference"] = gate_differences(activations, *pair)
        sizes = {name: float(values.mean()) for name, values in gaps.items()}
        for one in dict.fromkeys([gate, max(sizes, key=lambda name: sizes[name])]):
            pictures[f"gate_{_file_name(one)}"] = single_gate(activations, one, *pair)
    return pictures


def _gate_shown(activations: Activations, features: list[FeatureMaps]) -> str:
    """The gate whose features were kept, or the last one."""
    return features[0].gate if features else list(activations.scale)[-1]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
