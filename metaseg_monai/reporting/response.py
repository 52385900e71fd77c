"""What a network makes of the same images when their metadata is set.

To each of a range of values (paper figure 2A), to one label after the other (paper 3.2), or to
values that were not trained.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.per_case import PLACE, SPACING, read_calibration, read_cases
from metaseg_monai.evaluation.samples import Sample, read_samples
from metaseg_monai.metadata.fields import Categorical, Continuous, Ordinal, read_number
from metaseg_monai.metrics.leakage import spearman
from metaseg_monai.reporting.figures.predictions import montage
from metaseg_monai.reporting.figures.values import (
    Response,
    requested_labels,
    response_curves,
    value_curves,
)
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import (
    CASES,
    REPLICATE,
    TRAINING,
    Given,
    Results,
    average_seeds,
    by_condition,
    by_training,
    class_text,
    each_training,
    given_values,
    listed,
    other_values,
    pixel_sizes,
)
from metaseg_monai.reporting.scores import ENDS, Spread, over_groups, spread
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.volumes import ML

T = TypeVar("T")

# How areas follow a continuous value: from the counts of the modes ``fixed:<field>=<value>``.

TOLERANCE = 0.02  # of a case's largest area; what a contour may shake without meaning it
FOLLOWS = 0.8  # share of the cases with the class; from which a network follows the value
FOLLOWING = ("monotone", "flat", "steps", "Spearman", "never predicted")


def sweep_modes(modes: Sequence[str], field: str) -> dict[float, str]:
    """The modes that fix a field to a number, by that number, ascending.

    >>> sweep_modes(["normal", "fixed:size=40", "fixed:size=7", "fixed:red"], "size")
    {7.0: 'fixed:size=7', 40.0: 'fixed:size=40'}
    """
    start = f"fixed:{field}="
    values = {m: read_number(m.removeprefix(start)) for m in modes if m.startswith(start)}
    return dict(sorted((value, mode) for mode, value in values.items() if value is not None))


def sweep_areas(counts: pd.DataFrame, field: str) -> pd.DataFrame:
    """Predicted area (tp + fp) of each case and class at each value of a field.

    Args:
        counts: of one training; with a column ``scale`` for the area of a pixel, else in pixels.
        field: name of a continuous field.

    Returns:
        Columns ``case, group, class, value, area, label``, values ascending within a case and
        class; label is the true area.

    Raises:
        DataError: there are fewer than two values, or they were counted on different cases.
    """
    values = {m: value for value, m in sweep_modes(list(counts["mode"].unique()), field).items()}
    if len(values) < 2:
        raise DataError(
            f"A response to {field} needs two modes fixed:{field}=<value> or more; evaluate with "
            "them."
        )
    rows = counts[counts["mode"].isin(values)]
    scale = rows.get("scale", 1.0)
    table = rows[["case", "group", "class"]].assign(
        value=rows["mode"].map(values),
        area=(rows["tp"] + rows["fp"]) * scale,
        label=(rows["tp"] + rows["fn"]) * scale,
    )
    sizes = table.groupby(["case", "class"])["value"].agg(["size", "nunique"])
    if not (sizes == len(values)).all(axis=None):
        case = sizes.index[(sizes != len(values)).any(axis=1)][0][0]
        raise DataError(
            f"Case {case} was not counted once at each value of {field}; evaluate all in one run."
        )
    return table.sort_values(["case", "class", "value"], ignore_index=True)


def measured(results: Results, modes: Collection[str]) -> tuple[pd.DataFrame, str]:
    """The counts of some modes, with the area of a pixel as ``scale``, and the unit of that.

    Areas are in mm2, volumes (of cases that are whole volumes) in ml; in pixels unless every case
    has a spacing and all are alike.
    """
    cases = results.counted_cases()
    sizes, unit = pixel_sizes(cases), "pixels"
    scale: pd.Series | float = 1.0
    if sizes is not None:
        scale, unit = (sizes.sizes, "mm²") if sizes.dims == 2 else (sizes.sizes / ML, "ml")
    counts = results.counts[results.counts["mode"].isin(list(modes))]
    place = [*TRAINING, "case"]
    return counts.merge(cases[place].assign(scale=scale), how="left", on=place), unit


def response_curve(areas: pd.DataFrame) -> pd.DataFrame:
    """Mean area at each value, seeds averaged within a case and cases within their group.

    Returns:
        Columns ``class, value`` and those of `over_groups`.
    """
    by_case = areas.groupby(["class", "value", "group", "case"])["area"].mean()
    return over_groups(by_case.groupby(["class", "value", "group"]).mean()).reset_index()


def monotonicity(areas: pd.DataFrame) -> pd.DataFrame:
    """Tell how the areas of each class follow a growing value.

    Args:
        areas: rows of `sweep_areas` of one training.

    Returns:
        A row a class, of the cases whose label holds it. ``monotone``: share of those that grow,
        by more than 2 % of their largest area from the lowest to the highest value, without a step
        that shrinks by more than that; ``flat``: share of those whose area never changes by more
        than that; ``never predicted``: share of those without a predicted pixel at any value, which
        are flat; of the others ``steps``: share of the steps, from one value to the next, without
        a smaller area, and ``Spearman``: mean of their rank correlations of area and value; a case
        whose area never changes has none. ``cases``: how many.
    """
    rows = {}
    for number, of_class in areas.groupby("class"):
        held = of_class[of_class["label"] > 0]
        table = held.pivot(index="case", columns="value", values="area").sort_index(axis=1)
        drawn, row = table.to_numpy(float), dict.fromkeys(FOLLOWING, float("nan"))
        if len(drawn):
            largest, steps = drawn.max(axis=1), np.diff(drawn, axis=1)
            allowed = TOLERANCE * largest
            grown = drawn[:, -1] - drawn[:, 0] > allowed
            ranks = np.array(
                [spearman(table.columns.to_numpy(float), of_case) for of_case in drawn]
            )
            known = ranks[~np.isnan(ranks)]
            row["monotone"] = (grown & (steps >= -allowed[:, None]).all(axis=1)).mean()
            row["flat"] = (np.ptp(drawn, axis=1) <= allowed).mean()
            row["never predicted"] = (largest == 0).mean()
            row["steps"] = (steps[largest > 0] >= 0).mean() if largest.any() else np.nan
            row["Spearman"] = known.mean() if len(known) else np.nan
        rows[number] = {**row, "cases": len(drawn)}
    return pd.DataFrame.from_dict(rows, orient="index")


def monotone_table(areas: pd.DataFrame, names: Mapping[int, str]) -> Spread:
    """The `monotonicity` of each condition and class; cases are those of all data."""
    rows = [
        monotonicity(rows).rename(lambda n, name=name: f"{name}, {class_text(names, n)}")  # type: ignore[misc]
        for (name, *_), rows in by_training(areas).items()
    ]
    mean, half_range = spread(pd.concat(rows))
    held = areas[areas["label"] > 0]
    of = held["condition"] + ", " + held["class"].map(partial(class_text, names))
    cases = held.groupby(of)["case"].nunique().reindex(mean.index, fill_value=0)
    return Spread(mean.assign(cases=cases), half_range.assign(cases=float("nan")))


def responses(
    normal: pd.DataFrame, curves: Mapping[str, pd.DataFrame], names: Mapping[int, str]
) -> dict[str, Response]:
    """What is drawn, by class: conditions without a curve are level lines, of `normal` counts."""
    areas = normal.assign(
        pred=(normal["tp"] + normal["fp"]) * normal["scale"],
        label=(normal["tp"] + normal["fn"]) * normal["scale"],
    )
    place = ["class", "condition"]  # means over groups of their cases' means, all seeds alike
    of_groups = areas.groupby([*place, "group"], sort=False)[["pred", "label"]].mean()
    means = of_groups.groupby(level=place, sort=False).mean()
    return {
        class_text(names, number): Response(
            {name: curve[curve["class"] == number] for name, curve in curves.items()},
            means.loc[number, "pred"].drop(list(curves), errors="ignore").to_dict(),
            float(means.loc[number, "label"].iloc[0]),
        )
        for number in sorted(set(normal["class"]))
    }


def response_section(results: Results) -> Section | None:
    """What is predicted when a continuous value is set to each of a range (paper figure 2A)."""
    intro = (
        "The same images, each given one value after the other in place of its own. A network that "
        "uses the value predicts more where the value is larger; one that does not stays flat."
    )
    parts = [part for field in results.continuous.values() for part in _swept(results, field)]
    return Section("Response to a continuous value", intro, parts) if parts else None


def _swept(results: Results, field: Continuous) -> list[Part]:
    names = results.class_names
    modes = sweep_modes(list(results.counts["mode"].unique()), field.name).values()
    counts, unit = measured(results, ["normal", *modes])
    fixed = counts[counts["mode"] != "normal"]
    fixed = fixed[fixed.groupby(TRAINING)["mode"].transform("nunique") > 1]
    if fixed.empty:
        return []
    areas = each_training(fixed, partial(sweep_areas, field=field.name))
    curves = {name: response_curve(rows) for name, rows in by_condition(areas).items()}
    # of a condition that reads metadata, but was not asked, nobody knows whether it is flat
    unasked = [n for n in results.conditions if n not in curves and results.reads_metadata(n)]
    normal = counts[(counts["mode"] == "normal") & ~counts["condition"].isin(unasked)]
    what, head = "volume" if unit == "ml" else "area", f"{field.name} ({field.unit})"
    given = given_values(results, field.name, list(curves))
    trained = _trained(given, field)
    caption = (
        f"Predicted {what} over the {field.name} that is given; mean over groups with its "
        "95 % interval over groups, seeds averaged within a case. Level lines: networks that read "
        "no metadata."
    )
    if unasked:
        caption += f" Not drawn, because asked with no other value: {listed(unasked)}."
    if trained is not None:
        caption += (
            f" Training values: {trained[0]:g} to {trained[1]:g} {field.unit}; points beyond them "
            "are hollow and their ground is shaded: there a network guesses."
        )
        if others := other_values(given, field.name):
            caption += f" {others} The training values are those of {listed(given[0].conditions)}."
    note = (
        "Of the cases whose label holds the class, which the column cases counts. monotone: share "
        f"whose {what} grows from the lowest to the highest value and which no step shrinks, "
        f"each by more than {100 * TOLERANCE:g} % of the case's largest; flat: share in which it "
        "never changes by more than that; never predicted: share without a pixel of the class at "
        "any value, which is flat and not monotone. Of the others: steps: share of all steps that "
        "do not shrink it; Spearman: mean of the cases' rank correlations with the value. Mean "
        "over trainings, ± half the distance between the lowest and the highest."
    )
    title = f"Does the {what} grow with {field.name}?"
    table = monotone_table(areas, names)
    png = response_curves(
        responses(normal, curves, names), head, unit, trained, field.scale != "linear", what
    )
    numbers: list[Part] = []
    for number in sorted({int(n) for curve in curves.values() for n in curve["class"]}):
        of_class = {n: c[c["class"] == number].set_index("value") for n, c in curves.items()}
        values = pd.concat({n: c[list(ENDS)] for n, c in of_class.items()}, axis=1).sort_index()
        if trained is not None:
            values["training", "holds it"] = values.index.to_series().between(*trained)
        told = f"{what.capitalize()} of {class_text(names, number)} ({unit}) at each "
        numbers.append(
            Table(
                f"response_{field.name}_class{number}",
                told + field.name,
                "Mean over groups with the ends of its 95 % interval.",
                values.set_axis([f"{value:g}" for value in values.index]),
                digits=1,
                first=head,
            )
        )
    return [
        _follows(table.mean, field, curves, names),
        Figure(f"response_{field.name}", caption, png),
        Table(f"monotone_{field.name}", title, note, *table, first="condition, class"),
        *montages(results, field, trained),
        Details("Response as numbers", numbers),
    ]


def _trained(given: Sequence[Given], field: Continuous) -> tuple[float, float] | None:
    """Lowest and highest value of the training cases of the most conditions; None if unknown."""
    if not given:
        return None
    cases = given[0].cases
    values = cases.loc[cases["split"] == "train", field.name].map(read_number).dropna()
    return (float(values.min()), float(values.max())) if len(values) else None


def _follows(
    values: pd.DataFrame,
    field: Continuous,
    curves: Mapping[str, pd.DataFrame],
    names: Mapping[int, str],
) -> str:
    """Say of each condition which class follows the value, and in how many of its cases."""
    told = []
    for name, curve in curves.items():
        rows = values.loc[[f"{name}, {class_text(names, n)}" for n in curve["class"].unique()]]
        share = rows["monotone"].dropna()
        if share.empty:
            told.append(f"No label holds a class, so {name} has nothing to follow.")
            continue
        if rows["never predicted"].min() == 1:
            told.append(f"{name} predicts nothing at any value.")
            continue
        best, most = str(share.idxmax()), float(share.max())
        grows = (
            f"{best.removeprefix(name + ', ')} grows with {field.name} in {100 * most:.0f} % of "
            f"the {int(rows['cases'].loc[best])} cases whose label holds it"
        )
        if most >= FOLLOWS:
            told.append(f"{name} follows {field.name}: {grows}.")
        elif rows["flat"].min() >= 1 - TOLERANCE:
            told.append(f"{name} does not respond to {field.name}.")
        else:
            told.append(f"{name} does not follow {field.name} reliably: {grows}.")
    return " ".join(told)


# The same slices under several values of a field, with the contours of what was predicted.

SHOWN_CASES, SHOWN_VALUES, SHOWN_CONDITIONS = 5, 9, 3


def montages(
    results: Results, field: Continuous, trained: tuple[float, float] | None
) -> list[Figure]:
    """Contours of the first training of the conditions that respond, dummies last.

    Values beyond those of the training cases (lowest, highest) are marked.
    """
    drawn: list[Figure] = []
    for name in sorted(results.conditions, key=lambda name: name.endswith("-dummy")):
        modes = sweep_modes(results.modes(name), field.name)
        path = results.first_runs[name][0].folder / "samples.npz"
        if len(modes) < 2 or not path.is_file() or len(drawn) == SHOWN_CONDITIONS:
            continue
        wanted = _spread_out(list(modes), SHOWN_VALUES)
        samples = [s for s in read_samples(path) if any(modes[v] in s.preds for v in wanted)]
        if not samples:
            continue
        own = _own_values(path.with_name(CASES), samples, field)
        samples = _spread_out(sorted(samples, key=lambda s: own.get(s.case, np.inf)), SHOWN_CASES)
        titles = [
            f"{s.case}\n"
            + (f"own: {own[s.case]:g} {field.unit}" if s.case in own else "own value unknown")
            for s in samples
        ]
        heads = {f"{value:g} {field.unit}": modes[value] for value in wanted}
        low, high = trained or (-np.inf, np.inf)
        beyond = [f"{value:g} {field.unit}" for value in wanted if not low <= value <= high]
        caption = (
            f"{name}, first training: the same slices, asked with each {field.name} in turn. "
            "Colour: prediction, dashed white: label; the case's own value stands on its left."
        )
        if beyond:
            caption += f" Hollow dot: beyond the training values, {low:g} to {high:g} {field.unit}."
        png = montage(samples, heads, titles, results.class_names, beyond)
        drawn.append(Figure(f"montage_{field.name}_{name}", caption, png))
    return drawn


def _own_values(path: Path, samples: Sequence[Sample], field: Continuous) -> dict[str, float]:
    """What the cases of samples have in a field, where that is known."""
    cases = read_cases(path) if path.is_file() else pd.DataFrame()
    if field.name not in cases:
        return {}
    values = cases.set_index("case")[field.name].map(read_number).dropna().astype(float)
    return {s.case: values[s.case] for s in samples if s.case in values}


def _spread_out(values: Sequence[T], most: int) -> list[T]:
    """At most so many of the values, evenly chosen, with both ends.

    >>> _spread_out([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(values) <= most:
        return list(values)
    return [values[place] for place in np.linspace(0, len(values) - 1, most).round().astype(int)]


# What a requested label draws: how large the masks are and how sure the network is.

OWN = "own value"  # what mode normal is called beside requested values
QUANTITIES = ("area", "inside", "outside")
LITTLE = 0.01  # of the true area; what a mask may shake without meaning it
GROUP = ["class", "asked", "group"]


def requested_modes(modes: Sequence[str], field: str, values: Sequence[str]) -> dict[str, str]:
    """The modes that ask for a label of a field, by mode, after that of the own label.

    >>> requested_modes(["normal", "zeros", "fixed:coarse"], "style", ["exact", "coarse"])
    {'normal': 'own value', 'fixed:coarse': 'coarse'}
    """
    found = {"normal": OWN}
    for value in values:
        found |= {m: value for m in (f"fixed:{value}", f"fixed:{field}={value}") if m in modes}
    return found


def by_group(counts: pd.DataFrame, bins: pd.DataFrame, modes: Mapping[str, str]) -> pd.DataFrame:
    """Area and probability of each group, its cases' pixels pooled, trainings averaged after.

    Args:
        counts: of all trainings of a condition.
        bins: their calibration bins of all modes; none of those that wrote none.
        modes: what is asked for, by mode.

    Returns:
        Index (class, asked, group); columns ``area`` (predicted area over that of the labels),
        ``inside`` and ``outside`` (mean probability of the class in and out of the labels, 0..1).
        NaN where no label of the group holds the class, and of probabilities that were not kept.
    """
    place = [*REPLICATE, *GROUP]
    asked = counts.assign(asked=counts["mode"].map(modes)).dropna(subset="asked")
    sums = asked.groupby(place, sort=False)[["tp", "fp", "fn"]].sum()
    true = (sums["tp"] + sums["fn"]).astype(float).replace(0.0, np.nan)
    table = pd.DataFrame({"area": (sums["tp"] + sums["fp"]) / true})
    table[["inside", "outside"]] = np.nan
    if not bins.empty:
        of_bins = bins.assign(asked=bins["mode"].map(modes)).dropna(subset="asked")
        columns = ["pixels", "confidence", "positives", "inside"]
        found = of_bins.groupby(place)[columns].sum(min_count=1).reindex(table.index)
        known = true.notna()
        table["inside"] = (found["inside"] / found["positives"])[known]
        rest = (found["pixels"] - found["positives"]).replace(0.0, np.nan)
        table["outside"] = ((found["confidence"] - found["inside"]) / rest)[known]
    return table.groupby(level=GROUP).mean()


def requested_section(results: Results) -> Section | None:
    """What each label of each field draws; None where no condition was asked for any."""
    intro = (
        "The same images, each asked with one label after the other in place of its own. A network "
        "that learned a style with its label draws as large, and is as sure, as that style was "
        "(paper 3.2)."
    )
    labels = [one for one in results.fields.values() if isinstance(one, Categorical | Ordinal)]
    parts = [part for field in labels for part in _requested(results, field)]
    return Section("What a requested label draws", intro, parts) if parts else None


def _requested(results: Results, field: Categorical | Ordinal) -> list[Part]:
    values = [str(value) for value in field.values]
    modes = requested_modes(list(results.counts["mode"].unique()), field.name, values)
    bins = results.read("calibration.csv", partial(read_calibration, mode=None))
    found, unasked = {}, []
    for name, counts in by_condition(results.counts).items():
        groups = by_group(counts, bins[bins["condition"] == name], modes)
        table = pd.concat({q: over_groups(groups[q]) for q in QUANTITIES}, axis=1)
        if len(table.index.unique("asked")) < 2 and results.reads_metadata(name):
            unasked.append(name)
        else:
            found[name] = table
    if all(len(table.index.unique("asked")) < 2 for table in found.values()):
        return []
    names, parts = results.class_names, list[Part]()
    areas = [table["area", "mean"].dropna() for table in found.values()]
    held = {int(n) for known in areas for n in known.index.unique("class")}  # by some label
    for number in sorted(held):
        of_class = {}
        for name, table in found.items():
            rows = table[table.index.get_level_values("class") == number].droplevel("class")
            of_class[name] = rows.loc[[one for one in (OWN, *values) if one in rows.index]]
        told = class_text(names, number) if len(held) > 1 else ""
        of, end = (f" of {told}", f"_class{number}") if told else ("", "")
        asked = [o for o in (OWN, *values) if any(o in t.index for t in of_class.values())]
        if words := _draws(of_class, field.name):
            parts.append(f"{told}: {words}" if told else words)
        caption = (
            f"Masks{of} for each {field.name} that is asked for; mean over groups with its 95 % "
            "interval over groups, seeds averaged before. Dotted: as large as the labels. The "
            "labels are those of the cases themselves, whatever is asked for. Level lines: "
            "networks that read no metadata."
        )
        if unasked:
            caption += f" Not drawn, because asked with no other label: {listed(unasked)}."
        png = requested_labels(of_class, asked, told)
        name = f"requested_{field.name}{end}"
        note = (
            "area: predicted area over that of the labels; inside, outside: mean probability of "
            "the class in and out of the labels. Mean over groups with the ends of its 95 % "
            "interval. -: not recorded, or fewer than five groups."
        )
        title, first = f"Masks{of} by {field.name}", "condition, asked for"
        parts.append(Figure(name, caption, png))
        parts.append(Table(name, title, note, _requested_table(of_class), first=first))
    return parts


def _draws(of_class: Mapping[str, pd.DataFrame], field: str) -> str:
    """Say for which label each condition draws least and most."""
    told = []
    for name, table in of_class.items():
        asked = table.drop(index=OWN, errors="ignore")
        areas = asked["area", "mean"].dropna()
        if len(areas) < 2:
            continue
        if areas.max() - areas.min() <= LITTLE:
            told.append(f"{name} draws as much for every {field}.")
            continue
        ends = []
        for label in (str(areas.idxmin()), str(areas.idxmax())):
            sure = asked["inside", "mean"][label]
            probability = "" if pd.isna(sure) else f", probability {sure:.2f}"
            ends.append(f"{label} ({areas[label]:.2f} of the labels' area{probability})")
        told.append(f"{name} draws least for {ends[0]} and most for {ends[1]}.")
    return " ".join(told)


def _requested_table(of_class: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(
        [t.set_axis([f"{name}, {label}" for label in t.index]) for name, t in of_class.items()]
    )
    table["groups", ""] = table["area", "groups"].astype(int)
    return table[[("groups", ""), *((q, end) for q in QUANTITIES for end in ENDS)]]


# What networks do at values that no training case had: between those it had, and beyond.

MOST_VALUES = 12  # of more distinct values hardly any is met twice: a continuum, see sweeps


class Values(NamedTuple):
    """The true value of each case, and which there are.

    Attributes:
        of_case: value by tested case.
        trained: number of training cases by value, ascending.
        unseen: values of tested cases that no training case has, ascending.
    """

    of_case: Mapping[str, float]
    trained: Mapping[float, int]
    unseen: list[float]


def encoding_section(results: Results, score: str = "F1") -> Section | None:
    """F1 (called `score`) at each value of a number of which some were not trained."""
    intro = (
        "Cases by their true value of a number. Some of these values no training case had: a "
        "network can only guess there, from how the value is encoded and from the image."
    )
    fields = results.cases.columns.difference([*TRAINING, *PLACE, *SPACING], sort=False)
    parts = [
        part
        for field in fields
        if field in results.numbers
        for part in _at_values(results, field, score)
    ]
    return Section("Values that were not trained", intro, parts) if parts else None


def unseen_values(results: Results, field: str) -> Values | None:
    """The true values of a field, if it is a number of few values and some were not trained.

    Conditions may have been told the nearest trained value in place of the true one, where their
    code has no other. What any condition was told of unseen values is true for all.
    """
    for given in given_values(results, field):
        told = given.cases[given.cases[field].str.strip() != ""]
        numbers = told[field].map(read_number)
        train = told["split"] == "train"
        if numbers.isna().any() or not train.any():
            continue
        numbers = numbers.astype(float).set_axis(told["case"])
        test = numbers[numbers.index.isin(results.normal["case"])]
        trained = numbers[train.to_numpy()].value_counts().sort_index()
        unseen = sorted(set(test) - set(trained.index))
        if unseen and len(trained) + len(unseen) <= MOST_VALUES:
            of_case: Any = test.to_dict()
            return Values(of_case, dict(zip(trained.index, trained, strict=True)), unseen)
    return None


def curve_by_value(cases: pd.DataFrame, values: Values, column: str = "f1") -> pd.DataFrame:
    """Mean of a column at each value, cases within their group first.

    Returns:
        Index: values, ascending; columns as of `over_groups`, and ``cases``. Cases without a value
        or number are left out.
    """
    known = cases.assign(value=cases["case"].map(values.of_case)).dropna(subset=["value", column])
    curve = over_groups(known.groupby(["value", "group"])[column].mean(), bounded=column == "f1")
    return curve.assign(cases=known.groupby("value").size())


def _at_values(results: Results, field: str, score: str) -> list[Part]:
    values = unseen_values(results, field)
    if values is None:
        return []
    scores = by_condition(average_seeds(results.f1))
    curves = {name: curve_by_value(cases, values) for name, cases in scores.items()}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        return []
    known = results.fields.get(field)
    head = f"{field} ({known.unit})" if isinstance(known, Continuous) else field
    note = (
        f"Mean {score} of the cases at each {field}, cases within a group first, seeds within a "
        "case; 95 % interval over groups, none below five of them."
    )
    if others := other_values(given_values(results, field), field):
        note += f" {others} Cases stand at their true {field}."
    figure = value_curves(curves, values.unseen, head, f"mean case {score}")
    hollow = f" Hollow: {_numbers(values.unseen)}, which no training case had."
    name, table = f"by_{field}", _values_table(curves, values, "score")
    parts: list[Part] = [
        _guesses(field, values, curves, score),
        Figure(name, note + hollow, figure),
        Table(name, f"{score} by {field}", note, table, first=head),
    ]
    pairs = [] if results.study is None else results.study.protocol.comparisons
    differences = {}
    for first, second in pairs:
        if {first, second} <= scores.keys() and not results.not_concluded(first, second):
            both = scores[first].merge(scores[second][["case", "f1"]], on="case")
            both["difference"] = both["f1_x"] - both["f1_y"]
            curve = curve_by_value(both, values, "difference")
            if len(curve):
                differences[f"{first} - {second}"] = curve
    if differences:
        title = f"Planned comparisons at each {field}"
        told = (
            f"Difference of the {score}, first minus second, of the cases that both were tested "
            "on; 95 % interval over groups, not corrected for the number of values."
        )
        table = _values_table(differences, values, "difference")
        details = Table(f"differences_{name}", title, told, table, first=head)
        parts.append(Details(title, [details]))
    return parts


def _values_table(curves: Mapping[str, pd.DataFrame], values: Values, score: str) -> pd.DataFrame:
    """Values x (how many; condition: mean and the ends of its interval)."""
    sizes = pd.concat(curves.values()).groupby(level="value")[["cases", "groups"]].max()
    trained = [values.trained.get(value, 0) for value in sizes.index]
    columns: dict[tuple[str, str], Any] = {("training", "cases"): trained}
    columns |= {("tested", name): sizes[name] for name in ("cases", "groups")}
    for name, curve in curves.items():
        for column, label in zip(ENDS, (score, "low", "high"), strict=True):
            columns[name, label] = curve[column].reindex(sizes.index)
    return pd.DataFrame(columns).set_axis([f"{value:g}" for value in sizes.index])


def _guesses(field: str, values: Values, curves: Mapping[str, pd.DataFrame], score: str) -> str:
    """What was trained, and how every condition does at each value that was not."""
    low, high = min(values.trained), max(values.trained)
    told = [f"Training cases have {field} {_numbers(list(values.trained))}."]
    for value in values.unseen:
        place = "between them" if low < value < high else "beyond them"
        known = {n: curve["mean"] for n, curve in curves.items() if value in curve.index}
        scores = [f"{name} {mean.loc[value]:.3f}" for name, mean in known.items()]
        if scores:
            told.append(f"At {value:g}, {place}, mean case {score}: {listed(scores)}.")
    return " ".join(told)


def _numbers(values: Sequence[float]) -> str:
    return listed([f"{value:g}" for value in values])
