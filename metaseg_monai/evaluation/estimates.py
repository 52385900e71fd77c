"""How well one metadata field can be told from the image alone, and whether given values fit it."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.modes import PREDICTED, PREDICTED_NAMES, Unit, unit_of
from metaseg_monai.evaluation.per_case import Case
from metaseg_monai.evaluation.predicted import MaskRecord
from metaseg_monai.files import differences, file_sha256, read_json, write_json
from metaseg_monai.images.lazy import LazyTensor
from metaseg_monai.images.read import volumes_of
from metaseg_monai.metadata.fields import Continuous
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.agreement import agreement
from metaseg_monai.metrics.conformal import FEWEST, POOLED, bound, p_values
from metaseg_monai.metrics.statistics import auc_interval, share_interval
from metaseg_monai.networks.regressor import ImageRegressor
from metaseg_monai.rows import write_table
from metaseg_monai.training.collate import Told
from metaseg_monai.training.weights import LoadWeights, read_weights, write_fact

logger = logging.getLogger(__name__)
Item = Mapping[str, Any]
SCORES = "estimate_scores.json"  # estimate.json is the copy of the facts in estimate.pt
ALARM = "alarm"  # the fact, and the table of test cases
LEVEL = 0.05  # share of false alarms
SOFT = 0.9  # of true values within the range of mode soft
SHOWN, HIDDEN = 0.95, 0.05  # areas under the curve of an image that shows a value, or does not


def known_items(items: Sequence[dict[str, Any]], field: Told) -> list[dict[str, Any]]:
    """The items whose value of a field is known, from which a network can learn.

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


def _one_value(item: Item, field: Told) -> Any:
    """The value of a case, a number or a name; None where it is missing, or no single one."""
    raw = (item.get("metadata") or {}).get(field.name)
    if field.is_missing(raw) or field.softness(raw) or field.needs_unknown(raw):
        return None
    if isinstance(field, Continuous):
        return float(field.times(raw, 1))
    return str(field.decode(field.encode(raw)))


def true_values(items: Sequence[Item], field: Told) -> dict[Unit, Any]:
    """The true value of every group that has one.

    Raises:
        DataError: slices of one group have different values.
    """
    found: dict[Unit, Any] = {}
    for item in items:
        value = _one_value(item, field)
        if value is None:
            continue
        unit = unit_of(item)
        if found.setdefault(unit, value) != value:
            both = [f"{one:g}" if isinstance(one, float) else one for one in (found[unit], value)]
            raise DataError(
                f"Group {' '.join(unit).strip()!r} has {field.name} {both[0]} and {both[1]} "
                f"(case {item.get('case', '?')!r}), but the estimate is one value a group. Give "
                "the table a volume column, or each value a group of its own."
            )
    return found


class FieldEstimates:
    """Measure of ``predicted.csv``, with ``estimate_scores.json`` and ``alarm.csv`` beside it.

    The estimate of a group is the median of its slices' predicted codes; of names the one with the
    highest mean log-probability. A code beyond the field's range is clipped to the range and
    marked. `soft` says how sure that is: a distribution over names, or a range that holds nine of
    ten true values. The scores (`agreement`, or the share of right names) stand beside those of a
    constant, the median or the most frequent name of the training groups: what can be said without
    looking at the image. Only the test split is honest: the network learned from train and was
    chosen on val.

    How far estimates are from the values of cases of the split calibration, or else of val, becomes
    a fact of the weights, ``alarm``: by it a given value gets a p-value (see `p_value`). Names have
    cases of their own, and those with fewer than 20 groups take all. ``alarm.csv`` has the p-value
    of each test case for the true value, and for one or all wrong ones.

    Args:
        items: the evaluated cases of all splits, with raw `metadata`.
        field: the estimated field.
        weights: of the network that estimates, whose SHA-256 stands in ``estimate_scores.json``,
            with that of ``predicted.csv``.

    Raises:
        DataError: slices of one group have different true values, or no training group has one.
    """

    def __init__(
        self, items: Sequence[Item], field: Told, weights: LoadWeights | None = None
    ) -> None:
        self.items = items
        self.weights = weights
        self.field = field
        self.true = true_values(items, field)
        train = [
            self.true[unit]
            for unit in {unit_of(item): None for item in items if item.get("split") == "train"}
            if unit in self.true
        ]
        if not train:
            raise DataError(
                f"No training case has a value of {field.name!r}: there is nothing to compare the "
                "estimates with. Fill in the table, or choose another field."
            )
        self.constant: Any = max(sorted(set(train)), key=train.count)
        if isinstance(field, Continuous):
            middle = float(np.median([field.encode(value)[0] for value in train]))
            self.constant = decoded(middle, field)[0]

    def __call__(self, case: Case) -> Iterator[tuple[str, Any]]:
        """The case's name and predicted code, of `pred` (1,), or logits of names (K,)."""
        pred = case["pred"].flatten().tolist()
        yield case["case"], pred[0] if len(pred) == 1 else pred

    def write(self, path: Path, found: list[tuple[str, Any]]) -> list[Path]:
        """Write all files, and the fact."""
        codes = dict(found)
        cases = self.cases(codes)
        fact = alarm_of(cases, self.field)
        table = self.estimates(codes, fact)
        scores, tested = path.with_name(SCORES), path.with_name(f"{ALARM}.csv")
        kind = PREDICTED if isinstance(self.field, Continuous) else PREDICTED_NAMES
        kind.write(path, table.to_dict("records"))
        known = None if self.weights is None else self.weights.recorded.get("weights_sha256")
        told = self.scores(table)
        files = [path]
        if fact is not None:
            rows = _tested(cases[cases["split"] == "test"], fact, self.field)
            if len(rows):
                told[ALARM] = _alarm_scores(rows, fact)
                files.append(write_table(_records(rows), tested))
            if self.weights is not None and known is not None:
                write_fact(self.weights.path, ALARM, fact)
        bound_to = {"weights_sha256": known, "files": {one.name: file_sha256(one) for one in files}}
        write_json(scores, {**bound_to, **told}, allow_nan=False)
        return [*files, scores]

    def cases(self, codes: Mapping[str, Any]) -> pd.DataFrame:
        """A row for each case, or volume: `case`, `group`, `split`, `code` and `true`."""
        volumes, parts = volumes_of(self.items), dict[tuple[str, str], list[Item]]()
        for item in self.items:
            name = volumes.get(item["case"]) or item.get("volume") or item["case"]
            parts.setdefault((unit_of(item)[0], str(name)), []).append(item)
        return pd.DataFrame(
            [
                {
                    "case": name,
                    "group": group,
                    "split": str(own[-1].get("split", "")),
                    "code": joined([codes[item["case"]] for item in own]),
                    "true": next(
                        (v for v in (_one_value(i, self.field) for i in own) if v is not None), None
                    ),
                }
                for (group, name), own in parts.items()
            ]
        )

    def estimates(
        self, codes: Mapping[str, Any], fact: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """The rows of ``predicted.csv``, one a group (and volume), in the order of the table.

        Args:
            codes: by case.
            fact: of `alarm_of`, which says how far off quantities are; None for nobody.
        """
        slices = pd.DataFrame([unit_of(item) for item in self.items], columns=["group", "volume"])
        slices["split"] = [str(item.get("split", "")) for item in self.items]
        slices["code"] = [codes[item["case"]] for item in self.items]
        table = slices.groupby(["group", "volume"], sort=False).agg(
            split=("split", "last"), code=("code", lambda of: joined(list(of))),
            slices=("code", "size"),
        )  # fmt: skip
        found = [looked(code, self.field) for code in table["code"]]
        soft = [self._soft(code, fact) for code in table.pop("code")]
        absent = math.nan if isinstance(self.field, Continuous) else ""
        return table.assign(
            field=self.field.name,
            unit=getattr(self.field, "unit", ""),
            predicted=[value for value, _ in found],
            true=[self.true.get(unit, absent) for unit in table.index],
            clipped=[int(clipped) for _, clipped in found],
            soft=soft,
        ).reset_index()

    def _soft(self, code: Any, fact: Mapping[str, Any] | None) -> str:
        """What `soft` says of an estimate, as `--meta` takes it; "" where nobody knows."""
        if not isinstance(self.field, Continuous):
            shares = np.round(np.exp(code), 4)
            shares[shares.argmax()] += 1 - shares.sum()
            told = zip(self.field.values, shares.tolist(), strict=True)
            return "|".join(f"{name}:{share:.4f}" for name, share in told if share > 0)
        if fact is None:
            return ""
        own = fact["values"][POOLED]
        off = bound(own["scores"], own["groups"], SOFT)
        if not math.isfinite(off):
            return ""
        low, high = (decoded(code + step, self.field)[0] for step in (-off, off))
        return f"{low:.9g}..{high:.9g}"

    def scores(self, table: pd.DataFrame) -> dict[str, Any]:
        """Agreement with the true values in every split, of the network and of the constant."""
        splits: dict[str, Any] = {}
        for split, rows in table.groupby("split", sort=False):
            missing = rows["true"].isna() | (rows["true"] == "")
            known = rows[~missing]
            splits[str(split)] = {
                "groups": len(rows),
                "missing": int(missing.sum()),
                "clipped": int(rows["clipped"].sum()),
                "network": self._score(known["predicted"], known["true"]),
                "constant": self._score([self.constant] * len(known), known["true"]),
            }
        named = {
            "field": self.field.name,
            "unit": getattr(self.field, "unit", ""),
            "scale": getattr(self.field, "scale", ""),
        }
        return {**named, "constant": self.constant, "splits": splits}

    def _score(self, predicted: Any, true: Any) -> dict[str, float | None]:
        if isinstance(self.field, Continuous):
            return agreement(predicted, true, self.field.scale != "linear")
        right = [one == other for one, other in zip(predicted, true, strict=True)]
        return {"right": float(np.mean(right)) if right else None}


def joined(codes: Sequence[Any]) -> Any:
    """The code of several slices: the median, or normalised mean log-probabilities of names."""
    if not isinstance(codes[0], Sequence | np.ndarray):
        return float(np.median(codes))
    logits = torch.tensor(np.asarray(codes), dtype=torch.float64)
    return logits.log_softmax(1).mean(0).log_softmax(0).numpy()


def looked(code: Any, field: Told) -> tuple[Any, bool]:
    """What an image looks like: a value clipped to the range, and whether it was; or a name."""
    if isinstance(field, Continuous):
        return decoded(float(code), field)
    return field.values[int(np.argmax(code))], False


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


# Whether a value that is given fits the image.


def off_by(code: Any, value: Any, field: Told) -> float:
    """How far a value is from what the image looks like: in codes, or -log of its probability."""
    if isinstance(field, Continuous):
        return abs(float(code) - float(field.encode(value)[0]))
    return -float(code[field.values.index(value)])


def alarm_of(cases: pd.DataFrame, field: Told) -> dict[str, Any] | None:
    """What p-values are told by: how far off the values of cases are that were set apart.

    Args:
        cases: of `FieldEstimates.cases`.
        field: that is estimated.

    Returns:
        `field`, `level` of the alarm, `split`, `cases`, `groups` and `values`: scores and numbered
        groups by name, and of all; None where no such case has a value.
    """
    known = cases[cases["true"].notna()]
    split = next((one for one in ("calibration", "val") if (known["split"] == one).any()), None)
    if split is None:
        return None
    own = known[known["split"] == split]
    groups = pd.factorize(own["group"])[0]
    scores = [
        round(off_by(code, value, field), 6)
        for code, value in zip(own["code"], own["true"], strict=True)
    ]
    table = pd.DataFrame({"score": scores, "group": groups, "value": list(own["true"])})
    parts = {POOLED: table}
    if not isinstance(field, Continuous):
        parts |= {
            f"={name}": rows
            for name, rows in table.groupby("value", sort=False)
            if rows["group"].nunique() >= FEWEST
        }
    return {
        "field": field.name,
        "level": LEVEL,
        "split": split,
        "cases": len(own),
        "groups": int(own["group"].nunique()),
        "values": {
            name: {"scores": rows["score"].tolist(), "groups": rows["group"].tolist()}
            for name, rows in parts.items()
        },
    }


def p_value(fact: Mapping[str, Any], code: Any, value: Any, field: Told) -> float:
    """How often a true value is as far from what its image looks like as this one.

    Of true values at most a share of `a` has a p-value of `a` or less: so many false alarms there
    are. It tells nothing of how probable a value is.

    Args:
        fact: of `alarm_of`.
        code: of the image.
        value: that is given, a number in the field's unit or a name.
        field: that is estimated.
    """
    own = fact["values"].get(f"={value}") or fact["values"][POOLED]
    return float(p_values([off_by(code, value, field)], own["scores"], own["groups"])[0])


def _tested(cases: pd.DataFrame, fact: Mapping[str, Any], field: Told) -> pd.DataFrame:
    """A row for each test case and value that it is told: the true one, and wrong ones.

    Wrong are all other names, or the quantity of the case that is half the test away by size.
    """
    known = cases[cases["true"].notna()].reset_index(drop=True)
    if isinstance(field, Continuous):
        order = known["true"].astype(float).argsort().to_numpy()
        places = np.empty(len(order), int)
        places[order] = np.roll(order, len(order) // 2)
        wrong = [[known["true"][place]] for place in places]
    else:
        wrong = [[name for name in field.values if name != true] for true in known["true"]]
    rows = []
    for row, others in zip(known.itertuples(), wrong, strict=True):
        for value in (row.true, *(one for one in others if one != row.true)):
            p = p_value(fact, row.code, value, field)
            names = {"case": row.case, "group": row.group, "field": field.name, "told": value}
            like = looked(row.code, field)[0]
            rows.append({**names, "right": int(value == row.true), "p": p, "looks_like": like})
    return pd.DataFrame(rows)


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False)]


def _alarm_scores(rows: pd.DataFrame, fact: Mapping[str, Any]) -> dict[str, Any]:
    """False alarms among right values, and what wrong ones show, with 95 % intervals over groups.

    Ends are None of fewer than five groups.
    """
    right, wrong = rows[rows["right"] == 1], rows[rows["right"] == 0]
    alarms = (right["p"] <= fact["level"]).groupby(right["group"])
    low, high = share_interval(alarms.sum().to_numpy(float), alarms.size().to_numpy(float))
    told: dict[str, Any] = {
        "level": fact["level"],
        "calibrated_with": fact["cases"],
        "cases": len(right),
        "groups": int(right["group"].nunique()),
        "false_alarms": float((right["p"] <= fact["level"]).mean()),
        "low": low,
        "high": high,
        "found": None,
        "auc": None,
    }
    if len(wrong):
        values = [one["p"].to_numpy(float) for one in (wrong, right)]
        groups = [one["group"].to_numpy(str) for one in (wrong, right)]
        told["auc"], told["auc_low"], told["auc_high"] = auc_interval(*values, *groups)
        told["found"] = float((wrong["p"] <= fact["level"]).mean())
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in told.items()}


def alarm_words(field: str, alarm: Mapping[str, Any]) -> str:
    """Say whether images show a field, and what an alarm is worth."""
    auc, rate = alarm["auc"], f"{100 * alarm['level']:g} %"
    if auc is None:
        return f"{field}: no wrong value was tried."

    def ends(low: str, high: str, factor: int, digits: int) -> str:
        if alarm.get(low) is None:
            return "no interval, of fewer than five groups"
        both = (f"{factor * alarm[end]:.{digits}f}" for end in (low, high))
        return f"95 % interval over groups {' to '.join(both)}"

    told = (
        f"Of {alarm['cases']} test cases with their true {field} {100 * alarm['false_alarms']:.1f} "
        f"% were alarms (stated: {rate}; {ends('low', 'high', 100, 1)}); of wrong values "
        f"{100 * alarm['found']:.0f} % were (area under the curve {auc:.3f}, "
        f"{ends('auc_low', 'auc_high', 1, 3)})."
    )
    low, high = (alarm.get(end) for end in ("auc_low", "auc_high"))
    wide = low is None or high is None or max(0.5 - low, high - 0.5) > 2 * HIDDEN
    if low is None or high is None or (low <= 0.5 <= high and wide):
        return f"Whether the images show {field} is not known from these cases. {told}"
    if low <= 0.5 <= high:
        return (
            f"This estimate does not see {field} in the images: it can notice no wrong value, and "
            f"its silence means nothing. {told}"
        )
    if high < 0.5:
        return f"This estimate takes wrong values of {field} for right ones: use no alarm. {told}"
    noticed = f"at the level of the alarm {100 * alarm['found']:.0f} % of wrong values are noticed"
    seen = "show" if auc >= SHOWN else "show something of"
    return f"The images {seen} {field}; {noticed}. {told}"


class TellFit:
    """Handler of a prediction that notes how well the given value of a field fits each image.

    It stands before what writes masks; `MaskRecord` writes what is noted: the p-value, and words
    such as "told HeLa, looks like MDCK" where that is at most the level of the alarm.

    Args:
        folder: of an estimate (``estimate.pt``); None for no alarm.
        weights: those that predict.
        schema: of their metadata.
        record: of the masks.
        window: pixels to which smaller images are padded, as the estimate's training did.
        device: that the network runs on.
    """

    def __init__(
        self,
        folder: str | Path | None,
        weights: LoadWeights,
        schema: MetadataSchema,
        record: MaskRecord,
        window: Sequence[int] = (),
        device: str | torch.device = "cpu",
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.weights, self.schema, self.record = weights, schema, record
        self.window, self.device = tuple(window), torch.device(device)
        self.fact: dict[str, Any] = {}
        self._network: nn.Module | None = None
        self._codes: dict[str, list[Any]] = {}
        self._items: dict[str, Item] = {}
        self._volumes: dict[str, str] = {}

    def begin(self) -> None:
        """Take up the network that estimates.

        Raises:
            ConfigError: it tells no alarm, or was trained on images or values of another kind.
            CheckpointError: there is none, or it is damaged.
        """
        if self.folder is None:
            return
        path = self.folder / "estimate.pt"
        if not path.is_file():
            raise ConfigError(
                f"--alarm_dir {self.folder}: holds no estimate.pt; make one: python -m "
                "metaseg_monai estimate BUNDLE --estimate_field NAME --output_dir DIR"
            )
        state, facts = read_weights(path)
        network, fact = dict(facts.get("network") or {}), facts.get(ALARM)
        again = "estimate again, on the table of the training"
        kind = str(network.pop("_target_", ""))
        if not isinstance(fact, Mapping) or not kind.endswith(".ImageRegressor"):
            raise ConfigError(f"{path}: holds no p-values of an alarm; {again}")
        then = {"preprocessing": facts.get("preprocessing")}
        now = {"preprocessing": self.weights.recorded.get("preprocessing")}
        own = {one["name"]: one for one in self.schema.settings}
        trained = MetadataSchema.from_dict(facts["schema"]).with_policy("error").settings
        then["field"] = next((one for one in trained if one["name"] == fact["field"]), None)
        now["field"] = own.get(fact["field"])
        if lines := differences(then, now):
            raise ConfigError(
                f"{path} was trained for something else than the masks: {'; '.join(lines)}; {again}"
            )
        made = ImageRegressor(**network)
        made.load_state_dict(state)
        self._network, self.fact = made.eval().to(self.device), dict(fact)
        self.record.marks["alarm"] = {"weights": facts["weights_sha256"], "fact": self.fact}

    def attach(self, engine: Engine) -> None:
        """Look at every batch."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Learn the metadata, and which cases are planes of volumes."""
        items = list(engine.state.dataloader.dataset.data)
        self._codes, self._volumes = {}, volumes_of(items)
        self._items = {item["case"]: item for item in items}

    def __call__(self, engine: Engine) -> None:
        """Note how well the metadata of the batch fit."""
        batch = engine.state.batch
        if self._network is None or "image" not in batch or "pred" not in engine.state.output:
            return
        image = batch["image"]
        if isinstance(image, LazyTensor):
            for name in batch["case"]:
                self._note(name, None)
            return
        for name, code in zip(batch["case"], self._estimated(image), strict=True):
            self._note(name, code)

    def _estimated(self, image: Tensor) -> list[Any]:
        """The code, or logits, of each image (B, C, *S)."""
        network: Any = self._network
        images = torch.as_tensor(image).to(self.device).float()
        planes = 1
        if images.ndim == 5 and network.spatial_dims == 2:
            planes = images.shape[-1]
            images = images.movedim(-1, 1).flatten(0, 1)
        sides = images.shape[2:]
        least = [max(network.smallest, w) for w in (*self.window, *[1] * len(sides))][: len(sides)]
        short = [max(0, want - have) for want, have in zip(least, sides, strict=True)]
        ends = [end for lack in reversed(short) for end in (lack // 2, lack - lack // 2)]
        with torch.no_grad():
            found = network(nn.functional.pad(images, ends)).cpu()
        codes = [one[0] if len(one) == 1 else one for one in found.tolist()]
        return [joined(codes[at : at + planes]) for at in range(0, len(codes), planes)]

    def _note(self, case: str, code: Any) -> None:
        name = str(self._volumes.get(case, case))
        field: Any = self.schema.field(self.fact["field"])
        value = _one_value(self._items[case], field)
        if code is None:
            self.record.note(name, fit={"p": None, "told": "the image is too large to judge"})
            return
        self._codes.setdefault(name, []).append(code)
        found = joined(self._codes[name])
        like, unit = looked(found, field)[0], getattr(field, "unit", "")
        like = f"{like:.3g} {unit}" if unit else like
        if value is None:
            self.record.note(name, fit={"p": None, "told": f"looks like {like}"})
            return
        p = p_value(self.fact, found, value, field)
        given = f"told {value:g} {unit}" if unit else f"told {value}"
        doubt = p <= self.fact["level"]
        self.record.note(
            name, fit={"p": round(p, 6), "told": f"{given}, looks like {like}" if doubt else ""}
        )


def tell_estimate(folder: str | Path) -> str:
    """The scores in ``estimate_scores.json`` of a folder, by `FieldEstimates`; a line a split."""
    content = read_json(Path(folder) / SCORES)
    unit = f" in {content['unit']}" if content["unit"] else ""
    lines = [f"{content['field']}{unit}, estimated from the image:"]
    for split, scores in content["splits"].items():
        network, constant = scores["network"], scores["constant"]
        known = scores["groups"] - scores["missing"]
        if not known:
            lines.append(f"  {split}: no true value in {scores['groups']} groups")
            continue
        if "right" in network:
            told = [
                f"{100 * network['right']:.1f} % right (constant {100 * constant['right']:.1f})"
            ]
        else:
            told = [f"mean absolute error {network['mae']:.3g} (constant {constant['mae']:.3g})"]
            for name, word in (("r2", "R2"), ("spearman", "Spearman")):
                told.append(f"{word} " + ("-" if network[name] is None else f"{network[name]:.2f}"))
        lines.append(f"  {split}: {', '.join(told)}; {known} groups")
    if ALARM in content:
        lines.append(alarm_words(content["field"], content[ALARM]))
    return "\n".join(lines)
