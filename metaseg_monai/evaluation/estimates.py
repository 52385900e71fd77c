"""How well one metadata field can be told from the image alone, one value a group."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.modes import PREDICTED, Unit, unit_of
from metaseg_monai.evaluation.per_case import Case
from metaseg_monai.files import file_sha256, read_json, write_json
from metaseg_monai.metadata.fields import Continuous
from metaseg_monai.metrics.agreement import agreement
from metaseg_monai.training.weights import LoadWeights

Item = Mapping[str, Any]
SCORES = "estimate_scores.json"  # estimate.json is the copy of the facts in estimate.pt


def known_items(items: Sequence[dict[str, Any]], field: Continuous) -> list[dict[str, Any]]:
    """The items whose value of a field is known, from which a regressor can learn.

    Args:
        items: cases of one split with raw `metadata`.
        field: the field to be estimated.

    Raises:
        DataError: none has a value, or slices of one group have different ones.
    """
    known = [item for item in items if _one_value(item, field) is not None]
    if not known:
        raise DataError(
            f"No case of the split {items[0].get('split') if items else '?'!r} has a value of "
            f"{field.name!r}, from which it could be learned. Fill in the table, or choose "
            "another field with --estimate_field."
        )
    true_values(known, field)
    return known


def _one_value(item: Item, field: Continuous) -> float | None:
    """The value of a case; None where it is missing, or known to lie in a range only."""
    raw = item["metadata"].get(field.name)
    return None if field.is_missing(raw) or field.softness(raw) else float(field.times(raw, 1))


def true_values(items: Sequence[Item], field: Continuous) -> dict[Unit, float]:
    """The true value of every group that has one.

    Raises:
        DataError: slices of one group have different values.
    """
    found: dict[Unit, float] = {}
    for item in items:
        value = _one_value(item, field)
        if value is None:
            continue
        unit = unit_of(item)
        if found.setdefault(unit, value) != value:
            raise DataError(
                f"Group {' '.join(unit).strip()!r} has {field.name} {found[unit]:g} and {value:g} "
                f"(case {item.get('case', '?')!r}), but the estimate is one value a group. Give "
                "the table a volume column, or each value a group of its own."
            )
    return found


class FieldEstimates:
    """Measure of ``predicted.csv``, with ``estimate_scores.json`` beside it.

    The estimate of a group is the median of its slices' predicted codes. One beyond the field's
    range is clipped to the range and marked. The scores (`agreement`) stand beside those of a
    constant, the median of the training groups: what can be said without looking at the image.
    Only the test split is honest: the network learned from train and was chosen on val.

    Args:
        items: the evaluated cases of all splits, with raw `metadata`.
        field: the estimated field.
        weights: of the network that estimates, whose SHA-256 stands in ``estimate_scores.json``,
            with that of ``predicted.csv``.

    Raises:
        DataError: slices of one group have different true values, or no training group has one.
    """

    def __init__(
        self, items: Sequence[Item], field: Continuous, weights: LoadWeights | None = None
    ) -> None:
        self.items = items
        self.weights = weights
        self.field = field
        self.true = true_values(items, field)
        train = [
            field.encode(self.true[unit])[0]
            for unit in {unit_of(item): None for item in items if item.get("split") == "train"}
            if unit in self.true
        ]
        if not train:
            raise DataError(
                f"No training case has a value of {field.name!r}: there is nothing to compare the "
                "estimates with. Fill in the table, or choose another field."
            )
        self.constant = decoded(float(np.median(train)), field)[0]

    def __call__(self, case: Case) -> Iterator[tuple[str, float]]:
        """The case's name and predicted code, of `pred` (1,)."""
        yield case["case"], float(case["pred"])

    def write(self, path: Path, found: list[tuple[str, float]]) -> list[Path]:
        """Write both files."""
        table = self.estimates(dict(found))
        scores = path.with_name(SCORES)
        PREDICTED.write(path, table.to_dict("records"))
        known = None if self.weights is None else self.weights.recorded.get("weights_sha256")
        bound = {"weights_sha256": known, "files": {path.name: file_sha256(path)}}
        write_json(scores, {**bound, **self.scores(table)}, allow_nan=False)
        return [path, scores]

    def estimates(self, codes: Mapping[str, float]) -> pd.DataFrame:
        """The rows of ``predicted.csv``, one a group (and volume), in the order of the table.

        Args:
            codes: by case.
        """
        slices = pd.DataFrame([unit_of(item) for item in self.items], columns=["group", "volume"])
        slices["split"] = [str(item.get("split", "")) for item in self.items]
        slices["code"] = [codes[item["case"]] for item in self.items]
        table = slices.groupby(["group", "volume"], sort=False).agg(
            split=("split", "last"), code=("code", "median"), slices=("code", "size")
        )
        values = [decoded(code, self.field) for code in table.pop("code")]
        return table.assign(
            field=self.field.name,
            unit=self.field.unit,
            predicted=[value for value, _ in values],
            true=[self.true.get(unit, math.nan) for unit in table.index],
            clipped=[int(clipped) for _, clipped in values],
        ).reset_index()

    def scores(self, table: pd.DataFrame) -> dict[str, Any]:
        """Agreement with the true values in every split, of the network and of the constant."""
        splits, log = {}, self.field.scale != "linear"
        for split, rows in table.groupby("split", sort=False):
            known = rows.dropna(subset="true")
            splits[split] = {
                "groups": len(rows),
                "missing": len(rows) - len(known),
                "clipped": int(rows["clipped"].sum()),
                "network": agreement(known["predicted"], known["true"], log),
                "constant": agreement([self.constant] * len(known), known["true"], log),
            }
        named = {"field": self.field.name, "unit": self.field.unit, "scale": self.field.scale}
        return {**named, "constant": self.constant, "splits": splits}


def decoded(code: float, field: Continuous) -> tuple[float, bool]:
    """The value of a code in the field's unit, clipped to its range, and whether it had to be.

    >>> size = Continuous(name="size", unit="mm", range=(10, 1000), scale="log",
    ...                   provenance="acquisition", availability="acquisition")
    >>> [decoded(code, size) for code in (0.5, 1.5)]
    [(100.0, False), (1000.0, True)]
    """
    inside = min(max(code, 0.0), 1.0)
    value = field.decode_value(np.asarray([inside], dtype=np.float64))
    low, high = field.range
    return min(max(float(f"{value:.9g}"), low), high), inside != code


def tell_estimate(folder: str | Path) -> str:
    """The scores in ``estimate_scores.json`` of a folder, by `FieldEstimates`; a line a split."""
    content = read_json(Path(folder) / SCORES)
    lines = [f"{content['field']} in {content['unit']}, estimated from the image:"]
    for split, scores in content["splits"].items():
        network, constant = scores["network"], scores["constant"]
        if network["mae"] is None:
            lines.append(f"  {split}: no true value in {scores['groups']} groups")
            continue
        told = [f"mean absolute error {network['mae']:.3g} (constant {constant['mae']:.3g})"]
        for name, word in (("r2", "R2"), ("spearman", "Spearman")):
            told.append(f"{word} " + ("-" if network[name] is None else f"{network[name]:.2f}"))
        known = scores["groups"] - scores["missing"]
        lines.append(f"  {split}: {', '.join(told)}; {known} groups")
    return "\n".join(lines)
