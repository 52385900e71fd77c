"""True, predicted, unknown and inexact metadata in one table, for the same networks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.evaluation import read_calibration
from metaseg_monai.metadata.fields import AnyField, Continuous
from metaseg_monai.metrics.calibration import (
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
    reliability,
)
from metaseg_monai.metrics.leakage import Association, associate, label_diameters, volume_values
from metaseg_monai.metrics.scores import pooled_f1
from metaseg_monai.reporting import figures
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import (
    Given,
    Result,
    Results,
    cases_of,
    class_names,
    class_text,
    continuous_fields,
    fields_of,
    given_values,
    listed,
    other_values,
    pixel_sizes,
    reads_metadata,
)
from metaseg_monai.reporting.scores import Spread, over_seeds, rows_of
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.volumes import averaged, lacking, regions_of, volume_tables
from metaseg_monai.reporting.words import LITTLE

SOURCES = {"normal": "true", "predicted": "predicted", "missing": "unknown", "shuffle": "foreign"}
_ONE = {True: "reads no metadata and has one score", False: "read no metadata and have one score"}
LAST = ("foreign",)  # after the inexact values


def source_section(results: Results, label_class: int | None = None) -> Section | None:
    """What each source of the metadata is worth; None where no run has continuous metadata.

    Args:
        results: of all classes.
        label_class: that the protocol is about, which is told of first; None for all.
    """
    if not continuous_fields(results):
        return None
    sources = _sources(results)
    if not set(sources.values()) & {"predicted", "unknown"} and len(sources) < 3:
        return None
    note = (
        "predicted: estimated from the image; unknown: marked as not known; x: true value times "
        "that factor; foreign: of another case; -: not tested. "
        "Mean over trainings, ± half the distance between the lowest and the highest."
    )
    if without := [name for name in results.conditions if not reads_metadata(results, name)]:
        note = f"{listed(without)} {_ONE[len(without) == 1]}. {note}"
    for field in continuous_fields(results):
        if others := other_values(given_values(results, field), field):
            note += f" {others} For these, true is the value that was given."
    names, numbers = class_names(results), sorted(results.first.counts["class"].unique())
    numbers.sort(key=lambda number: number != label_class)
    parts: list[Part] = []
    for number in numbers:
        of_class = _table(results, sources, partial(_class_f1, number=number))
        title = f"Pooled F1 of {class_text(names, number)} by the source of the metadata"
        stem = f"sources_class{number}"
        told = "As above." if parts else note
        parts.append(Table(stem, title, told, *of_class, first="condition"))
    volumes = _volume_parts(results, sources)
    of = "mean of the classes'" if label_class is None else class_text(names, label_class)
    head = f"Pooled F1, {of}: " if len(numbers) > 1 else "Pooled F1: "
    about = _table(results.of_class(label_class), sources, _foreground_f1).mean
    if words := _words(about, head):
        parts.insert(0, words)
    intro = "The same trained networks; only where their metadata comes from differs."
    return Section("Where the metadata comes from", intro, [*parts, *volumes])


def _sources(results: Results) -> dict[str, str]:
    """The modes that were evaluated, in the order of the columns, with their headings."""
    modes = {
        str(mode)
        for by_seed in results.conditions.values()
        for result in by_seed.values()
        for mode in result.counts["mode"].unique()
    }
    plain = {mode: head for mode, head in SOURCES.items() if mode in modes}
    factors = sorted(float(m.partition(":")[2]) for m in modes if m.startswith("perturb:"))
    named = {float(m.partition(":")[2]): m for m in modes if m.startswith("perturb:")}
    inexact = {named[factor]: f"x{factor:g}" for factor in factors}
    return {
        **{mode: head for mode, head in plain.items() if head not in LAST},
        **inexact,
        **{mode: head for mode, head in plain.items() if head in LAST},
    }


def _table(
    results: Results, sources: Mapping[str, str], score: Callable[[Result, str], float]
) -> Spread:
    """Scores of conditions x sources; NaN where a condition was not tested with one."""
    rows = []
    for name, by_seed in results.conditions.items():
        scored = {
            key: pd.DataFrame([{h: score(r, m) for m, h in sources.items()}], index=[name])
            for key, r in by_seed.items()
        }
        rows.append(over_seeds(scored))
    return Spread(*(pd.concat(frames) for frames in zip(*rows, strict=True)))


def _class_f1(result: Result, mode: str, number: int) -> float:
    counts = result.in_mode(mode)
    return pooled_f1(counts[counts["class"] == number])


def _foreground_f1(result: Result, mode: str) -> float:
    return pooled_f1(result.in_mode(mode))


def _volume_parts(results: Results, sources: Mapping[str, str]) -> list[Part]:
    """Mean Dice of volumes in their last, most special region, by source."""
    of_modes = {head: volume_tables(results, mode) for mode, head in sources.items()}
    scored = volume_tables(results)
    if not scored:
        return []
    region = regions_of({name: averaged(by_seed) for name, by_seed in scored.items()})[-1]
    rows = []
    for name, by_seed in results.conditions.items():
        frames = {
            key: pd.DataFrame(
                [{h: _mean_dice(of.get(name, {}).get(key), region) for h, of in of_modes.items()}],
                index=[name],
            )
            for key in scored.get(name, by_seed)
        }
        rows.append(over_seeds(frames))
    told = "Mean over groups; else as above."
    if absent := lacking(results, scored):
        told += f" {absent}"
    title = f"Dice of whole volumes, {region}, by the source of the metadata"
    values = Spread(*(pd.concat(frames) for frames in zip(*rows, strict=True)))
    return [Table("sources_volumes", title, told, *values, first="condition")]


def _mean_dice(table: pd.DataFrame | None, region: str) -> float:
    """Mean over groups; NaN without volumes."""
    if table is None:
        return float("nan")
    rows = table[table["region"] == region]
    return float(rows.groupby("group")["dice"].mean().mean())


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

CLOSE = 0.7  # Spearman; from which a value tells much of the size of the label
DISC = (
    "the largest area over a volume's images as the diameter of a disc of that area, in {} (images "
    "without a volume are one of their group)"
)
BALL = "the volume of the label as the diameter of a ball of that volume, in mm"


def audit_section(results: Results) -> Section | None:
    """Origin of each field, and how closely quantities follow the size of the label."""
    fields = fields_of(results)
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
        parts.append("\n\n".join(described))
    names, told = class_names(results), list[str]()
    table, units = dict[str, dict[str, Any]](), set[str]()
    for name, field in fields.items():
        given = given_values(results, name)
        warned, found, unit = _audited(results, field, given, names)
        told += [*warned, *_who(results, field, given)]
        table |= found
        units |= unit
    if table:
        note = (
            f"Size of the label: {listed(sorted(units))}. R2: of a straight line, of the "
            "logarithms where the field is encoded so; with 95 % intervals that draw groups, none "
            "below five of them. R2 is above 0 by chance alone. Volumes without the class or the "
            "value are left out."
        )
        title = "Metadata against the size of the label"
        parts.append(Table("leakage", title, note, rows_of(table), first="field, class"))
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
    results: Results, field: AnyField, given: Sequence[Given], names: Mapping[int, str]
) -> tuple[list[str], dict[str, dict[str, Any]], set[str]]:
    """Warnings of a field, the associations of each set of its values, and what sizes are."""
    warned, rows, units = [], {}, set()
    for place, one in enumerate(given):
        found: dict[int, Association] = {}
        if isinstance(field, Continuous):
            sizes, told = _label_sizes(results, one.conditions)
            values = volume_values(one.cases, field.name)
            for number in map(int, sizes.columns.tolist()):
                association = associate(values, sizes[number], field.scale != "linear")
                if association.groups:
                    found[number] = association
                    units.add(told)
        whose = f" ({listed(one.conditions)})" if len(given) > 1 else ""
        for number, association in found.items():
            rows[f"{field.name}{whose}, {class_text(names, number)}"] = _numbers(association)
        # the origin that the schema tells is that of the usual values
        warned.append(_warning(field, found, names, f"{field.name}{whose}", first=place == 0))
    if not given:
        warned.append(_warning(field, {}, names, field.name, first=True))
    return [*filter(None, warned)], rows, units


def _who(results: Results, field: AnyField, given: Sequence[Given]) -> list[str]:
    """Say which conditions were given other values of a field than most, or have no such field."""
    told = [other_values(given, field.name)] if len(given) > 1 else []
    having = [name for one in given for name in one.conditions]
    for name, by_seed in results.conditions.items():
        key, result = next(iter(by_seed.items()))
        if having and name not in having and cases_of(result, key) is not None:
            told.append(f"{name} has no field {field.name}.")
    return told


def _label_sizes(results: Results, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Diameters of the evaluated labels of some conditions, of all their data; what they are."""
    chosen: dict[int, tuple[Result, pd.DataFrame]] = {}  # each data once
    for name in names:
        for key, result in results.conditions[name].items():
            cases = cases_of(result, key)
            if cases is not None:
                chosen.setdefault(key.data_seed, (result, cases))
    found = [pixel_sizes(cases, result.counts) for result, cases in chosen.values()]
    scales = [size for size in found if size is not None]
    known = len(scales) == len(found) and len({size.dims for size in scales}) == 1
    dims = scales[0].dims if known else 2
    tables = [
        label_diameters(
            result.in_mode("normal"),
            size.of_case if known and size is not None else None,
            cases.set_index("case")["volume"],
            dims,
        )
        for (result, cases), size in zip(chosen.values(), found, strict=True)
    ]
    # other data may hold other slices of a volume; the same data give the same sizes
    joined = pd.concat(tables).groupby(level=[0, 1]).max()
    return joined, BALL if dims == 3 else DISC.format("mm" if known else "pixels")


def _numbers(one: Association) -> dict[str, Any]:
    return {
        "R2": one.r_squared,
        "R2 low": one.r_squared_low,
        "R2 high": one.r_squared_high,
        "Spearman": one.spearman,
        "low": one.low,
        "high": one.high,
        "volumes": one.volumes,
        "groups": one.groups,
    }


def _warning(
    field: AnyField,
    found: Mapping[int, Association],
    names: Mapping[int, str],
    called: str,
    first: bool,
) -> str:
    """Warn where a field is read off the label (of its first values), or follows its size."""
    ranks = {n: one.spearman for n, one in found.items() if not np.isnan(one.spearman)}
    closest = max(ranks, key=lambda n: abs(ranks[n]), default=None)
    close = closest is not None and abs(ranks[closest]) > CLOSE
    reasons = []
    if first and field.provenance == "label-derived":
        reasons.append("its provenance is the label")
    if close and closest is not None:
        size = f"the size of {class_text(names, closest)}"
        reasons.append(f"it follows {size} (Spearman {ranks[closest]:.2f})")
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
    tables = calibration_tables(results)
    if not tables:
        return None
    rows = {
        name: {
            "ECE": expected_calibration_error(table),
            "ECE without sure background": foreground_calibration_error(table),
        }
        for name, table in tables.items()
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
        Table(
            "calibration",
            "Calibration",
            note,
            rows_of(rows),
            best="low",
            first="condition",
        ),
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
    if not tables:
        return []
    caption = (
        "Foreground probability against how often it was right, all seeds pooled. On the diagonal: "
        "a probability can be taken at its word."
    )
    curves = {name: reliability(table) for name, table in tables.items()}
    drawn = [Figure("reliability", caption, figures.reliability(curves))]
    for name, table in tables.items():
        if table["domain"].nunique() > 1:
            of_domains = {str(d): reliability(part) for d, part in table.groupby("domain")}
            png = figures.reliability(of_domains, name)
            drawn.append(Figure(f"reliability_{name}", f"The same for each domain: {name}.", png))
    return drawn


def calibration_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Calibration bins of each condition, over all seeds; experts on their own domains."""
    tables = {}
    for name, by_seed in results.conditions.items():
        parts = []
        for result in by_seed.values():
            for domain, folder in result.folders.items():
                if (folder / "calibration.csv").is_file():
                    table = read_calibration(folder / "calibration.csv")
                    parts.append(table[table["domain"] == domain] if domain else table)
        if parts:
            tables[name] = pd.concat(parts, ignore_index=True)
    return tables
