"""How well one metadata field can be told from the image alone, one value a group."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ignite.engine import Engine, Events

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.modes import Unit, unit_of
from metaseg_monai.files import replacing, write_table
from metaseg_monai.metadata.fields import Continuous
from metaseg_monai.metrics.agreement import agreement

Item = Mapping[str, Any]


class Estimate(NamedTuple):
    """The estimate for one group (and volume), in the unit of the field."""

    unit: Unit
    split: str
    predicted: float
    true: float | None
    clipped: bool
    slices: int


def known_items(items: Sequence[dict[str, Any]], field: Continuous) -> list[dict[str, Any]]:
    """The items whose value of a field is known, from which a regressor can learn.

    Args:
        items: cases of one split with raw `metadata`.
        field: the field to be estimated.

    Raises:
        DataError: none has a value, or slices of one group have different ones.
    """
    known = [item for item in items if not field.is_missing(item["metadata"].get(field.name))]
    if not known:
        raise DataError(
            f"No case of the split {items[0].get('split') if items else '?'!r} has a value of "
            f"{field.name!r}, from which it could be learned. Fill in the table, or choose "
            "another field with --estimate_field."
        )
    true_values(known, field)
    return known


def true_values(items: Sequence[Item], field: Continuous) -> dict[Unit, float]:
    """The true value of every group that has one.

    Raises:
        DataError: slices of one group have different values.
    """
    found: dict[Unit, float] = {}
    for item in items:
        raw = item["metadata"].get(field.name)
        if field.is_missing(raw):
            continue
        unit, value = unit_of(item), float(raw)
        if found.setdefault(unit, value) != value:
            raise DataError(
                f"Group {' '.join(unit).strip()!r} has {field.name} {found[unit]:g} and {value:g} "
                f"(case {item.get('case', '?')!r}), but the estimate is one value a group. Give "
                "the table a volume column, or each value a group of its own."
            )
    return found


class FieldEstimates:
    """Evaluator handler that writes ``predicted.csv`` and ``estimate.json`` at the end.

    The estimate of a group is the median of its slices' predicted codes. One beyond the field's
    range is clipped to the range and marked. The scores (`agreement`) stand beside those of a
    constant, the median of the training groups: what can be said without looking at the image.
    Only the test split is honest: the network learned from train and was chosen on val.

    Args:
        folder: where both files go.
        items: the evaluated cases of all splits, with raw `metadata`.
        field: the estimated field.

    Raises:
        DataError: slices of one group have different true values, or no training group has one.
    """

    def __init__(self, folder: str | Path, items: Sequence[Item], field: Continuous) -> None:
        self.folder = Path(folder)
        self.items = {str(item["case"]): item for item in items}
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
        self.codes: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Collect after every batch, write at the end."""
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget the estimates of an earlier run."""
        self.codes = {}

    def collect(self, engine: Engine) -> None:
        """Take up the predicted codes (B, 1) of a batch."""
        codes = engine.state.output["pred"].flatten().tolist()
        self.codes.update(zip(engine.state.batch["case"], codes, strict=True))

    def write(self, engine: Engine) -> None:
        """Write both files, each in one step."""
        estimates = self.estimates()
        rows = [
            {
                "group": estimate.unit[0],
                "volume": estimate.unit[1],
                "split": estimate.split,
                "field": self.field.name,
                "unit": self.field.unit,
                "predicted": estimate.predicted,
                "true": "" if estimate.true is None else estimate.true,
                "clipped": int(estimate.clipped),
                "slices": estimate.slices,
            }
            for estimate in estimates
        ]
        write_table(rows, self.folder / "predicted.csv")
        text = json.dumps(self.scores(estimates), indent=2, allow_nan=False) + "\n"
        with replacing(self.folder / "estimate.json") as part:
            part.write_text(text, encoding="utf-8")

    def estimates(self) -> list[Estimate]:
        """One estimate a group, in the order of the table."""
        codes: dict[Unit, list[float]] = defaultdict(list)
        split: dict[Unit, str] = {}
        for case, item in self.items.items():
            if case not in self.codes:
                raise DataError(
                    f"Case {case!r} was not evaluated; evaluate the items given to FieldEstimates."
                )
            codes[unit_of(item)].append(self.codes[case])
            split[unit_of(item)] = str(item.get("split", ""))
        made = []
        for unit, of_unit in codes.items():
            value, clipped = decoded(float(np.median(of_unit)), self.field)
            true = self.true.get(unit)
            made.append(Estimate(unit, split[unit], value, true, clipped, len(of_unit)))
        return made

    def scores(self, estimates: Sequence[Estimate]) -> dict[str, Any]:
        """Agreement with the true values in every split, of the network and of the constant."""
        splits = {}
        for split in dict.fromkeys(estimate.split for estimate in estimates):
            of_split = [estimate for estimate in estimates if estimate.split == split]
            pairs = [(each.predicted, each.true) for each in of_split if each.true is not None]
            true, log = [value for _, value in pairs], self.field.scale != "linear"
            splits[split] = {
                "groups": len(of_split),
                "missing": len(of_split) - len(pairs),
                "clipped": sum(estimate.clipped for estimate in of_split),
                "network": agreement([value for value, _ in pairs], true, log),
                "constant": agreement([self.constant] * len(pairs), true, log),
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
    """The scores of a folder's ``estimate.json`` in one line a split.

    Raises:
        DataError: there is none, or it is not one of `FieldEstimates`.
    """
    path = Path(folder) / "estimate.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no scores of an estimate ({error!r}); run python -m metaseg_monai estimate."
        ) from error
    return "\n".join(lines)
