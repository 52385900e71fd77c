"""True, predicted, unknown and inexact metadata in one table, for the same networks."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd

from metaseg_monai.evaluation import pooled_f1
from metaseg_monai.study.report.document import Part, Section
from metaseg_monai.study.report.run_files import continuous_fields, volumes_of
from metaseg_monai.study.report.scores import Spread, over_seeds
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.words import LITTLE
from metaseg_monai.study.results import Replicate, Result, Results

SOURCES = {"normal": "true", "predicted": "predicted", "missing": "unknown", "shuffle": "foreign"}
LAST = ("foreign",)  # after the inexact values


def source_section(results: Results) -> Section | None:
    """What each source of the metadata is worth; None where no run has continuous metadata."""
    if not continuous_fields(results):
        return None
    sources = _sources(results)
    if not set(sources.values()) & {"predicted", "unknown"} and len(sources) < 3:
        return None
    note = (
        "predicted: estimated from the image; unknown: marked as not known; x: true value times "
        "that factor; foreign: of another case. Conditions that read no metadata have one score. "
        "Mean over trainings, ± half the distance between the lowest and the highest."
    )
    numbers = sorted(results.first.counts["class"].unique())
    parts: list[Part] = []
    for number in numbers:
        of_class = _table(results, sources, partial(_class_f1, number=number))
        title = f"Pooled F1 of class {number} by the source of the metadata"
        stem = f"sources_class{number}"
        told = "As above." if parts else note
        parts.append(Table(stem, title, told, *of_class, first="condition"))
    volumes = _volume_parts(results, sources)
    if words := _words(_table(results, sources, _foreground_f1).mean):
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
    tables: dict[tuple[str, Replicate], Any] = {
        (name, key): volumes_of(result, key)
        for name, by_seed in results.conditions.items()
        for key, result in by_seed.items()
    }
    if any(table is None for table in tables.values()):
        return []
    region = str(next(iter(tables.values()))["region"].iloc[-1])
    by_folder = {
        results.conditions[name][key].folder: table for (name, key), table in tables.items()
    }

    def dice(result: Result, mode: str) -> float:
        table = by_folder[result.folder]
        rows = table[(table["mode"] == mode) & (table["region"] == region)]
        return float(rows.groupby("group")["dice"].mean().mean())

    title = f"Dice of whole volumes, {region}, by the source of the metadata"
    told = "Mean over groups; else as above."
    values = _table(results, sources, dice)
    return [Table("sources_volumes", title, told, *values, first="condition")]


def _words(mean: pd.DataFrame) -> str:
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
    return f"Mean of the classes' pooled F1. {' '.join(told)}" if told else ""
