"""True, predicted, unknown and inexact metadata in one table, for the same networks."""

from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd

from metaseg_monai.evaluation import pooled_f1
from metaseg_monai.study.report.document import Part, Section
from metaseg_monai.study.report.findings import LITTLE
from metaseg_monai.study.report.run_files import (
    class_names,
    class_text,
    continuous_fields,
    given_values,
    listed,
    other_values,
    reads_metadata,
)
from metaseg_monai.study.report.scores import Spread, over_seeds
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.volume_conditions import lacking
from metaseg_monai.study.report.volumes import averaged, regions_of, volume_tables
from metaseg_monai.study.results import Result, Results

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
