"""What scores rest on: whence metadata come, what they give away, and whether a mask is sure."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import read_calibration
from metaseg_monai.evaluation.estimates import ALARM, SCORES, alarm_words
from metaseg_monai.evaluation.intervals import COVERAGE_FILE, read_coverage
from metaseg_monai.files import file_sha256, read_json
from metaseg_monai.metadata.fields import AnyField, Categorical, Continuous, Ordinal
from metaseg_monai.metrics.calibration import (
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
    reliability,
)
from metaseg_monai.metrics.conformal import POOLED, coverage, coverage_band
from metaseg_monai.metrics.leakage import (
    Association,
    Kinds,
    associate,
    associate_kinds,
    label_diameters,
    volume_names,
    volume_values,
)
from metaseg_monai.metrics.scores import Score, case_scores, pooled_f1
from metaseg_monai.naming import composed
from metaseg_monai.reporting.comparisons import lacking
from metaseg_monai.reporting.figures.curves import reliability as draw_reliability
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import (
    TRAINING,
    Given,
    Results,
    by_condition,
    class_text,
    given_values,
    listed,
    other_values,
    pixel_sizes,
)
from metaseg_monai.reporting.scores import Spread, of_trainings, over_groups, rows_of, spread
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.volumes import regions_of
from metaseg_monai.reporting.words import LITTLE

# True, predicted, unknown and inexact metadata in one table, for the same networks.

SOURCES = {"normal": "true", "predicted": "predicted", "missing": "unknown", "shuffle": "foreign"}
_ONE = {True: "reads no metadata and has one score", False: "read no metadata and have one score"}
LAST = ("foreign",)  # after the inexact values


def source_section(results: Results, label_class: int | None = None) -> Section | None:
    """What each source of the metadata is worth; None where no run has continuous metadata.

    Args:
        results: of all classes.
        label_class: that the protocol is about, which is told of first; None for all.
    """
    if not results.continuous:
        return None
    sources = _sources(set(results.counts["mode"]))
    if not set(sources.values()) & {"predicted", "unknown"} and len(sources) < 3:
        return None
    note = (
        "predicted: estimated from the image; unknown: marked as not known; x: true value times "
        "that factor; foreign: of another case; -: not tested. "
        "Mean over trainings, ± half the distance between the lowest and the highest."
    )
    if without := [name for name in results.conditions if not results.reads_metadata(name)]:
        note = f"{listed(without)} {_ONE[len(without) == 1]}. {note}"
    for field in results.continuous:
        if others := other_values(given_values(results, field), field):
            note += f" {others} For these, true is the value that was given."
    numbers = sorted(set(results.counts["class"]), key=lambda n: (n != label_class, n))
    names, of_modes = results.class_names, partial(_of_modes, sources)
    parts: list[Part] = []
    for number in numbers:
        of_class = spread(of_trainings(results.of_class(number).counts, of_modes))
        title = f"Pooled F1 of {class_text(names, number)} by the source of the metadata"
        stem = f"sources_class{number}"
        told = "As above." if parts else note
        parts.append(Table(stem, title, told, *of_class, first="condition"))
    volumes = _volume_parts(results, sources)
    of = "mean of the classes'" if label_class is None else class_text(names, label_class)
    head = f"Pooled F1, {of}: " if len(numbers) > 1 else "Pooled F1: "
    about = spread(of_trainings(results.of_class(label_class).counts, of_modes))
    learned = about.mean.drop(index=results.hardly_begun, errors="ignore")
    if words := _words(learned, head):
        parts.insert(0, words)
    intro = "The same trained networks; only where their metadata comes from differs."
    return Section("Where the metadata comes from", intro, [*parts, *volumes])


def _sources(modes: set[str]) -> dict[str, str]:
    """The modes that were evaluated, in the order of the columns, with their headings."""
    plain = {mode: head for mode, head in SOURCES.items() if mode in modes}
    factors = {m: float(m.partition(":")[2]) for m in modes if m.startswith("perturb:")}
    inexact = {mode: f"x{factors[mode]:g}" for mode in sorted(factors, key=factors.__getitem__)}
    foreign = {mode: head for mode, head in plain.items() if head in LAST}
    return {**{m: head for m, head in plain.items() if m not in foreign}, **inexact, **foreign}


def _of_modes(sources: Mapping[str, str], counts: pd.DataFrame) -> dict[str, float]:
    """Pooled F1 with each source; NaN where a training was not tested with one."""
    return {head: pooled_f1(counts[counts["mode"] == mode]) for mode, head in sources.items()}


def _volume_parts(results: Results, sources: Mapping[str, str]) -> list[Part]:
    """Mean Dice of volumes in their last, most special region, by source."""
    scored = results.normal_volumes
    if scored.empty:
        return []
    volumes = results.volumes.merge(scored[TRAINING].drop_duplicates(), on=TRAINING)
    region = regions_of(scored)[-1]

    def mean_dice(rows: pd.DataFrame) -> dict[str, float]:
        """Mean over groups; NaN without volumes."""
        rows = rows[rows["region"] == region]
        return {
            head: rows[rows["mode"] == mode].groupby("group")["dice"].mean().mean()
            for mode, head in sources.items()
        }

    told = "Mean over groups; else as above."
    if absent := lacking(results, scored, "volumes"):
        told += f" {absent}"
    title = f"Dice of whole volumes, {region}, by the source of the metadata"
    values = spread(of_trainings(volumes, mean_dice))
    values = Spread(*(frame.reindex(results.conditions) for frame in values))
    return [Table("sources_volumes", title, told, *values, first="condition")]


def _words(mean: pd.DataFrame, head: str) -> str:
    """Say what remains of each condition's score without the true value."""
    told = []
    for name, row in mean.iterrows():
        known = row.drop("true").dropna()
        if known.empty:
            continue
        ways = {"predicted": "with predicted values", "unknown": "with values marked unknown"}
        lost = [f"{way} {known[head]:.3f}" for head, way in ways.items() if head in known]
        if float((row["true"] - known).abs().max()) <= LITTLE:
            told.append(f"{name} scores the same whatever metadata it gets ({row['true']:.3f}).")
        elif lost:
            told.append(f"{name}: {row['true']:.3f} with true values, {', '.join(lost)}.")
    return head + " ".join(told) if told else ""


# What the metadata gives away of the answer, and whether a user has it in time.

ASSOCIATED = {
    "R2": "r_squared", "R2 low": "r_squared_low", "R2 high": "r_squared_high",
    "Spearman": "spearman", "low": "low", "high": "high", "volumes": "volumes", "groups": "groups",
}  # fmt: skip
OF_KINDS = {
    "share": "share", "low": "low", "high": "high", "values": "values", "volumes": "volumes",
    "groups": "groups",
}  # fmt: skip
CLOSE = 0.7  # Spearman, or root of a share; from which a value tells much of the label's size
DISC = (
    "the largest area over a volume's images as the diameter of a disc of that area, in {} (images "
    "without a volume are one of their group)"
)
BALL = "the volume of the label as the diameter of a ball of that volume, in mm"


def audit_section(results: Results) -> Section | None:
    """Origin of each field, and how closely its values follow the size of the label."""
    fields = results.fields
    if not fields:
        return None
    note = (
        "at inference: a field that is known only after the operation is refused, unless it is "
        "forced for a retrospective study."
    )
    rows = {name: _facts(field) for name, field in fields.items()}
    parts: list[Part] = [
        Table("metadata_fields", "Metadata fields", note, rows_of(rows), first="field")
    ]
    described = [f"{n}: {f.description}" for n, f in fields.items() if f.description]
    if described:
        parts.append(Details("What the schema says of each field", ["\n\n".join(described)]))
    told, units = list[str](), set[str]()
    table, kinds = dict[str, dict[str, Any]](), dict[str, dict[str, Any]]()
    few = list[str]()
    for name, field in fields.items():
        given = given_values(results, name)
        warned, found, unit = _audited(results, field, given)
        told += [*warned, *_who(results, field, given)]
        # a number of so few that there is no interval is chance
        shown = {row: of for row, of in found.items() if not np.isnan(of["low"])}
        (table if isinstance(field, Continuous) else kinds).update(shown)
        units |= unit if shown else set()
        few += [name] if found and not shown else []
    if table:
        note = (
            f"Size of the label: {listed(sorted(units))}. R2: of a straight line, of the "
            "logarithms where the field is encoded so; with 95 % intervals that draw groups, none "
            "below five of them. R2 is above 0 by chance alone. Volumes without the class or the "
            "value are left out."
        )
        title = "Metadata against the size of the label"
        parts.append(Table("leakage", title, note, rows_of(table), first="field, class"))
    if kinds:
        note = (
            f"Size of the label: {'as above' if table else listed(sorted(units))}. share: of the "
            "variance of the sizes' ranks, between the values of the field, less what as many "
            "values have by chance (epsilon squared); with 95 % intervals that draw groups, none "
            "below five of them. Volumes with several values are left out."
        )
        title = "Categories against the size of the label"
        parts.append(Table("leakage_names", title, note, rows_of(kinds), first="field, class"))
    if few:
        parts.append(f"Too few groups have a label and a value to tell anything of {listed(few)}.")
    return Section("Leakage audit", "What the metadata tells of the answer.", [*told, *parts])


def _facts(field: AnyField) -> dict[str, Any]:
    unit = values = ""
    if isinstance(field, Continuous):
        unit, values = field.unit, f"{field.range[0]:g} to {field.range[1]:g}"
    return {
        "kind": field.kind,
        "unit": unit,
        "range": values,
        "provenance": field.provenance,
        "available": field.availability,
        "if missing": "unknown" if field.missing == "unknown" else "refused",
        "at inference": "used" if field.known_at("pre-operative") else "refused unless forced",
    }


def _audited(
    results: Results, field: AnyField, given: Sequence[Given]
) -> tuple[list[str], dict[str, dict[str, Any]], set[str]]:
    """Warnings of a field, the associations of each set of its values, and what sizes are."""
    warned, rows, units, names = [], {}, set(), results.class_names
    heads = ASSOCIATED if isinstance(field, Continuous) else OF_KINDS
    for place, one in enumerate(given):
        found: dict[int, Association | Kinds] = {}
        of_masks = results.score.best == "high"  # labels that are images have no size
        if of_masks and isinstance(field, Continuous | Categorical | Ordinal):
            sizes, told = label_sizes(results, one.conditions)
            for number in map(int, sizes.columns.tolist()):
                association = _associated(field, one.cases, sizes[number])
                if association.groups:
                    found[number] = association
                    units.add(told)
        whose = f" ({listed(one.conditions)})" if len(given) > 1 else ""
        for number, association in found.items():
            rows[f"{field.name}{whose}, {class_text(names, number)}"] = {
                head: getattr(association, name) for head, name in heads.items()
            }
        # the origin that the schema tells is that of the usual values
        warned.append(_warning(field, found, names, f"{field.name}{whose}", first=place == 0))
    if not given:
        warned.append(_warning(field, {}, names, field.name, first=True))
    return [*filter(None, warned)], rows, units


def _associated(
    field: Continuous | Categorical | Ordinal, cases: pd.DataFrame, sizes: pd.Series
) -> Association | Kinds:
    """How a field of the cases goes with sizes by volume."""
    if isinstance(field, Continuous):
        return associate(volume_values(cases, field.name), sizes, field.scale != "linear")
    declared = {str(one) for one in field.values}
    texts = cases[field.name].map(lambda cell: composed(str(cell).strip()))
    told = cases.assign(**{field.name: texts.where(texts.isin(declared), None)})
    return associate_kinds(volume_names(told, field.name), sizes)


def _who(results: Results, field: AnyField, given: Sequence[Given]) -> list[str]:
    """Say which conditions were given other values of a field than most, or have no such field."""
    told = [other_values(given, field.name)] if len(given) > 1 else []
    having = [name for one in given for name in one.conditions]
    known = set(results.cases["condition"])
    told += [
        f"{name} has no field {field.name}."
        for name in results.conditions
        if having and name not in having and name in known
    ]
    return told


def label_sizes(results: Results, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Diameters of the evaluated labels of some conditions, of all their data; what they are."""
    chosen = results.of(*names)
    first = chosen.cases.drop_duplicates("data_seed")[TRAINING]  # each data once
    cases = chosen.counted_cases().merge(first, on=TRAINING)
    found = pixel_sizes(cases)
    of_case = cases.assign(size=1.0 if found is None else found.sizes).set_index("case")
    # other data may hold other slices of a volume; the same data give the same sizes
    of_case = of_case[~of_case.index.duplicated()]
    counts, dims = chosen.normal.merge(first, on=TRAINING), 2 if found is None else found.dims
    sizes = label_diameters(counts, of_case["size"], of_case["volume"], dims)
    return sizes, BALL if dims == 3 else DISC.format("pixels" if found is None else "mm")


def _warning(
    field: AnyField,
    found: Mapping[int, Association | Kinds],
    names: Mapping[int, str],
    called: str,
    first: bool,
) -> str:
    """Warn where a field is read off the label (of its first values), or follows its size.

    Of so few groups that there is no interval, every class may follow it by chance: nothing is
    said of them.
    """
    known = {n: one for n, one in found.items() if not np.isnan(one.low)}
    closest = max(known, key=lambda n: known[n].closeness, default=None)
    reasons = []
    if first and field.provenance == "label-derived":
        reasons.append("its provenance is the label")
    if closest is not None and known[closest].closeness > CLOSE:
        size = f"the size of {class_text(names, closest)}"
        reasons.append(f"it follows {size} ({known[closest].told})")
    if not reasons:
        return ""
    return (
        f"Warning: {called} is partly the answer: {' and '.join(reasons)}. A network that is "
        "given it knows something of the mask before it sees the image. Its scores hold only where "
        "a user has such a value of the same quality; compare them with those of predicted and "
        "unknown values, and do not read them as a gain of the image analysis."
    )


# Whether probabilities can be taken at their word: calibration by condition and domain.


def calibration_section(results: Results) -> Section | None:
    """Whether probabilities can be taken at their word."""
    bins = results.read("calibration.csv", read_calibration)
    if bins.empty:
        return None
    tables = by_condition(bins)
    errors = {
        "ECE": expected_calibration_error,
        "ECE without sure background": foreground_calibration_error,
    }
    rows = {
        name: {e: error(table) for e, error in errors.items()} for name, table in tables.items()
    }
    note = (
        "Expected calibration error of the foreground probability, ten bins, pixels of all seeds "
        "pooled; without sure background: bins above 0.1 only."
    )
    by_domain: dict[str, Any] = {
        name: calibration_errors(table)["foreground_error"].to_dict()
        for name, table in tables.items()
    }
    first, *others = diagrams(tables)
    parts: list[Part] = [
        Table("calibration", "Calibration", note, rows_of(rows), best="low", first="condition"),
        first,
    ]
    if others:
        table = rows_of(by_domain)
        title = "ECE without sure background, by domain"
        of_domains = Table("calibration_domains", title, "", table, best="low", first="condition")
        parts.append(Details("For each metadata value", [of_domains, *others]))
    return Section("Calibration", "", parts)


def diagrams(tables: Mapping[str, pd.DataFrame]) -> list[Figure]:
    """Reliability diagram of the conditions, and of the domains of each."""
    caption = (
        "Foreground probability against how often it was right, all seeds pooled. On the diagonal: "
        "a probability can be taken at its word."
    )
    curves = {name: reliability(table) for name, table in tables.items()}
    drawn = [Figure("reliability", caption, draw_reliability(curves))]
    for name, table in tables.items():
        if table["domain"].nunique() > 1:
            of_domains = {str(d): reliability(part) for d, part in table.groupby("domain")}
            png = draw_reliability(of_domains, name)
            drawn.append(Figure(f"reliability_{name}", f"The same for each domain: {name}.", png))
    return drawn


# Is a mask to be believed: intervals, alarm, and what wrong metadata cost.

MUCH = 0.05  # F1, or medMAE; a case that loses more is worse off


def belief_section(results: Results, folder: Path) -> Section | None:
    """Intervals, alarm, and what to do when the table is wrong; None where nothing is known.

    Args:
        results: of all classes.
        folder: of the runs, in or below which estimates may lie.
    """
    parts = [*coverage_parts(results), *alarm_parts(results, folder), *wrong_parts(results)]
    intro = "How far off areas may be, whether metadata fit their image, and what wrong ones cost."
    return Section("Is this mask to be believed?", intro, parts) if parts else None


# Do intervals of areas hold?


def coverage_parts(results: Results) -> list[Part]:
    """Coverage of each value's intervals on the test cases, and their width beside one for all."""
    found = results.read(COVERAGE_FILE, read_coverage)
    if found.empty:
        return []
    rows, missed = {}, list[str]()
    several = found["class"].nunique() > 1
    keys = ["condition", "mode", "class", "value"]
    grouped: Any = found.groupby(keys, sort=False)
    # a value of too few groups takes the bound of all, which promises nothing of it alone
    own_promise = (found["interval_of"] != POOLED) | (found["value"] == POOLED)
    judged = found[own_promise].groupby([*dict.fromkeys([*keys, *TRAINING])], sort=False).ngroups
    for (condition, mode, number, value), part in grouped:
        what = "unknown" if mode == "missing" else value
        name = f"{condition}, {what}"
        if several:
            name += f", {class_text(results.class_names, int(number))}"
        level = float(part["level"].iloc[0])
        shares, ends = [], []
        for _, one in part.groupby([*TRAINING], sort=False):
            inside = one["low"].le(one["true"]) & one["true"].le(one["high"])
            shares.append(coverage(inside, one["group"]))
            groups = int(one["group"].nunique())
            own = int(one["groups"].iloc[0])
            ends.append(coverage_band(groups, own, level, 1 - 0.01 / max(1, judged)))
        pooled = not own_promise[part.index].all()
        bands = zip(shares, ends, strict=True)
        kept = pooled or all(low - 1e-9 <= one <= high + 1e-9 for one, (low, high) in bands)
        missed += [] if kept else [name]
        low, high = (math.nan, math.nan) if pooled else ends[0]
        width = (part["high"] - part["low"]) / (part["predicted"] + 1)
        of_every = (part["high_all"] - part["low_all"]) / (part["predicted"] + 1)
        rows[name] = {
            "promised": level,
            "covered": float(np.mean(shares)),
            "band low": low,
            "band high": high,
            "width": float(width.median()),
            "width for all": float(of_every.median()),
            "interval of": "all" if (part["interval_of"] == POOLED).all() else "own cases",
            "calibrated with": own,
            "tested on": groups,
            "foreground found": float(part["found"].mean()),
        }
    told = (
        "Every interval keeps its promise within what one calibration and one test can tell."
        if not missed
        else f"Outside of the band, so that the promise is not kept: {listed(missed)}."
    )
    note = (
        "covered: share of test cases whose true area lies in its interval, each group counted "
        "once, mean over trainings; band: where that share of one division lies if the promise is "
        "kept, all rows and trainings together 99 times of 100, by the numbers of groups (exact "
        "where each group is one case, else too wide); none where a value of too few groups takes "
        "the interval of all, which promises nothing of it alone; width: median of the "
        "interval's width by the predicted area, and that of one interval for all values; "
        "foreground found: mean share at the calibrated threshold."
    )
    title = "Intervals of areas, by metadata value"
    return [told, Table("conformal", title, note, rows_of(rows), first="condition, value")]


# Do metadata fit the image?


def alarm_parts(results: Results, folder: Path) -> list[Part]:
    """What estimates say of an alarm, each in its own words.

    Raises:
        DataError: one is damaged, or was tested on none of the cases of these runs.
    """
    tested = {*results.counts["case"].astype(str)}
    parts: list[Part] = []
    for file in sorted({*folder.glob(SCORES), *folder.glob(f"*/{SCORES}")}):
        try:
            told = read_json(file)
            alarm, files = told.get(ALARM), dict(told["files"])
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{file}: damaged ({error}); estimate again") from error
        for name, digest in files.items():
            if not (file.parent / name).is_file() or file_sha256(file.parent / name) != digest:
                raise DataError(f"{file}: {name} is not the file that it tells of; estimate again")
        of_cases = f"{ALARM}.csv"
        if of_cases in files and tested.isdisjoint(
            pd.read_csv(file.with_name(of_cases), dtype=str)["case"]
        ):
            raise DataError(
                f"{file}: was tested on none of the cases of these runs, so that it is of other "
                "data; move it out of the folder of the report"
            )
        if alarm:
            parts.append(alarm_words(str(told["field"]), alarm))
    return parts


# What wrong, missing, predicted and soft metadata cost, and what to do then.

NAMES = {"predicted": "predicted", "soft": "predicted, as a distribution", "missing": "unknown"}
WRONG = "shuffle"


def told_as(mode: str) -> str | None:
    """What a test mode is called here; None for one that is no part of this.

    >>> told_as("guided:0.5:shuffle"), told_as("guided:1.5"), told_as("zeros")
    ('wrong, guidance 0.5', 'true, guidance 1.5', None)
    """
    if mode.startswith("guided:"):
        _, strength, *inner = mode.split(":")
        of = {"": "true", WRONG: "wrong"}.get("".join(inner), "".join(inner))
        return f"{of}, guidance {strength}"
    return {"normal": "true", WRONG: "wrong", **NAMES}.get(mode)


def wrong_parts(results: Results) -> list[Part]:
    """One comparison of all ways to be told the metadata, on average and case by case."""
    modes = [mode for mode in results.counts["mode"].unique() if told_as(mode)]
    if not {WRONG, "missing"} & set(modes):
        return []
    rows, advice = {}, list[str]()
    cases: dict[str, pd.Series] = {}
    score = results.score
    sign = 1 if score.best == "high" else -1  # what is lost of an error is what it rises by
    for name in results.conditions:
        if not results.reads_metadata(name):
            continue
        own = results.counts[results.counts["condition"] == name]
        scores = {mode: _by_case(own[own["mode"] == mode]) for mode in modes}
        true = scores.get("normal")
        if true is None or true.empty:
            continue
        lost = {mode: sign * (true - one).dropna() for mode, one in scores.items() if len(one)}
        costs = {}
        for mode, loss in lost.items():
            if mode == "normal":
                continue
            of_groups = loss.groupby(level=["group"]).mean()
            of_groups.index = pd.MultiIndex.from_product([[name], of_groups.index])
            ends = over_groups(of_groups).iloc[0]
            costs[mode] = Lost(*(float(ends[one]) for one in ("mean", "low", "high")))
            rows[f"{name}, {told_as(mode)}"] = {
                score.name: float(scores[mode].mean()),
                "lost": float(ends["mean"]),
                "low": float(ends["low"]),
                "high": float(ends["high"]),
                "cases worse": float((loss > MUCH).mean()),
                "cases better": float((loss < -MUCH).mean()),
                "worst case": float(loss.max()),
                "cases": len(loss),
            }
        cases |= {f"{name}, {told_as(mode)}": one for mode, one in scores.items() if len(one)}
        words = _advice(name, costs, score)
        if words and name in results.hardly_begun:
            words = f"What wrong metadata cost {name} is not known: its training has hardly begun."
        advice += [words] if words else []
    if not rows:
        return []
    note = (
        f"Mean case {score.name}, seeds averaged within a case; lost: "
        f"{'true minus this' if sign > 0 else 'this minus true'}, mean over groups with "
        f"its 95 % interval; worse, better: share of the cases that change by more than {MUCH:g}."
    )
    title = "Told true, wrong, unknown, predicted and guided metadata"
    table = Table("told", title, note, rows_of(rows), first="condition, told")
    each = pd.DataFrame(cases).reset_index("group", drop=True)
    by_case = Table("told_cases", "Case by case", f"{score.name} of each case.", each, first="case")
    return [*advice, table, Details("Case by case", [by_case])]


def _by_case(counts: pd.DataFrame) -> pd.Series:
    """The score of each case, seeds averaged, by ``case, group``."""
    if counts.empty:
        return pd.Series(dtype=float)
    scored = pd.concat([case_scores(rows) for _, rows in counts.groupby(TRAINING, sort=False)])
    return scored.groupby(["case", "group"], sort=False)["f1"].mean()


class Lost(NamedTuple):
    """What a mode costs: the mean over groups, with the ends of its 95 % interval.

    Attributes:
        mean: of the groups.
        low: NaN of fewer than five groups, as `high`.
        high: likewise.
    """

    mean: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether it differs from 0 by more than chance."""
        return self.low > 0 or self.high < 0

    def told(self, of: str = "") -> str:
        """In words, with what is lost."""
        lost = f"{self.mean:.3f} {of}".strip()
        if math.isnan(self.low):
            return f"{lost} (of too few groups for an interval)"
        return f"{lost} (95 % interval {self.low:.3f} to {self.high:.3f})"


def _advice(name: str, lost: Mapping[str, Lost], score: Score) -> str:
    """What to do when the table is wrong, by what this study lost of the score by mode."""
    of = f"of {score.name}" if score.best == "high" else f"in {score.name}"
    wrong = lost.get(WRONG)
    if wrong is None:
        return ""
    start = f"When the table is wrong: {name}"
    if wrong.high < -LITTLE:
        return (
            f"{start} gains {Lost(-wrong.mean, -wrong.high, -wrong.low).told(of)} with wrong "
            "metadata. It has not learned what they mean."
        )
    if abs(wrong.low) <= LITTLE and abs(wrong.high) <= LITTLE:
        return f"{start} loses {wrong.told(of)}, which nobody would notice; nothing need be done."
    if not wrong.low > 0:
        return f"{start} loses {wrong.told(of)}: whether that costs anything is not known."
    told = [f"{start} loses {wrong.told(of)} on average in a case whose metadata are wrong."]
    ways: Sequence[tuple[str, str]] = [
        ("missing", "leaving the value unknown"),
        ("predicted", "taking it from the image"),
        ("soft", "taking a distribution from the image"),
    ]
    for mode, way in ways:
        cost = lost.get(mode)
        if cost is None:
            continue
        costs = f"{way.capitalize()} costs {cost.told()}"
        if not cost.shown:
            told.append(f"{costs} in every case: nothing that this study could see.")
        elif cost.mean >= wrong.mean:
            told.append(f"{costs}, more than a wrong value.")
        elif cost.low > 0:
            told.append(
                f"{costs} in every case, and is the better choice where more than about "
                f"{100 * cost.mean / wrong.mean:.0f} % of the table is wrong."
            )
        else:
            told.append(f"{costs}: less than nothing, it is the better choice.")
    told += _guided(lost, wrong)
    return " ".join(told)


def _guided(lost: Mapping[str, Lost], wrong: Lost) -> list[str]:
    """What a weaker guidance saves in wrong cases, and costs in right ones."""
    told = []
    for mode, of_wrong in lost.items():
        if not mode.startswith("guided:") or not mode.endswith(f":{WRONG}"):
            continue
        right = mode.removesuffix(f":{WRONG}")
        if right not in lost:
            continue
        saved, cost = wrong.mean - of_wrong.mean, lost[right]
        strength = right.partition(":")[2]
        if saved <= 0:
            told.append(f"Guidance {strength} saves nothing in wrong cases.")
            continue
        said = (
            f"Guidance {strength} saves {saved:.3f} in a wrong case and costs {cost.told()} in a "
            "right one"
        )
        if cost.low > 0 and of_wrong.high < wrong.low:
            even = cost.mean / (cost.mean + saved)
            said += f": it pays where more than about {100 * even:.0f} % of the table is wrong"
        told.append(f"{said}.")
    return told
