"""The same slices under several values of a field, with the contours of what was predicted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.cases import read_cases
from metaseg_monai.evaluation.samples import Sample, read_samples
from metaseg_monai.metadata import Continuous
from metaseg_monai.metadata.quantities import read_number
from metaseg_monai.study.report.document import Figure
from metaseg_monai.study.report.figures.montage import montage
from metaseg_monai.study.report.run_files import CASES
from metaseg_monai.study.report.sweep import sweep_modes
from metaseg_monai.study.results import Results

SHOWN_CASES, SHOWN_VALUES, SHOWN_CONDITIONS = 5, 9, 3
T = TypeVar("T")


def montages(
    results: Results,
    field: Continuous,
    stem: str,
    classes: Mapping[int, str],
    trained: tuple[float, float] | None = None,
) -> list[Figure]:
    """Contours of the first training of the conditions that respond, dummies last.

    Args:
        results: of the study.
        field: whose value is asked.
        stem: of the files' names.
        classes: names of the label's classes.
        trained: lowest and highest value of the training cases; values beyond them are marked.
    """
    drawn: list[Figure] = []
    names = sorted(results.conditions, key=lambda name: name.endswith("-dummy"))
    for name in names:
        result = next(iter(results.conditions[name].values()))
        modes = sweep_modes(result.counts, field.name)
        path = result.folder / "samples.npz"
        if len(modes) < 2 or not path.is_file() or len(drawn) == SHOWN_CONDITIONS:
            continue
        wanted = _spread_out(list(modes), SHOWN_VALUES)
        samples = [s for s in read_samples(path) if any(modes[v] in s.preds for v in wanted)]
        if not samples:
            continue
        own = _own_values(result.folder / CASES, samples, field)
        samples = _spread_out(sorted(samples, key=lambda s: own.get(s.case, np.inf)), SHOWN_CASES)
        titles = [_title(sample.case, own.get(sample.case), field) for sample in samples]
        heads = {_head(value, field): modes[value] for value in wanted}
        low, high = trained or (-np.inf, np.inf)
        beyond = [_head(value, field) for value in wanted if not low <= value <= high]
        caption = (
            f"{name}, first training: the same slices, asked with each {field.name} in turn. "
            "Colour: prediction, dashed white: label; the case's own value stands on its left."
        )
        if beyond:
            caption += f" Hollow dot: beyond the training values, {low:g} to {high:g} {field.unit}."
        png = montage(samples, heads, titles, classes, beyond)
        drawn.append(Figure(f"montage_{stem}_{name}", caption, png))
    return drawn


def _own_values(path: Path, samples: Sequence[Sample], field: Continuous) -> dict[str, float]:
    """What the cases of samples have in a field, where that is known."""
    if not path.is_file():
        return {}
    cases = read_cases(path)
    if field.name not in cases:
        return {}
    values = dict(zip(cases["case"], cases[field.name].map(read_number), strict=True))
    return {
        sample.case: float(values[sample.case])
        for sample in samples
        if pd.notna(values.get(sample.case))
    }


def _head(value: float, field: Continuous) -> str:
    return f"{value:g} {field.unit}"


def _title(case: str, own: float | None, field: Continuous) -> str:
    return f"{case}\n" + ("own value unknown" if own is None else f"own: {own:g} {field.unit}")


def _spread_out(values: Sequence[T], most: int) -> list[T]:
    """At most so many of the values, evenly chosen, with both ends.

    >>> _spread_out([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(values) <= most:
        return list(values)
    return [values[place] for place in np.linspace(0, len(values) - 1, most).round().astype(int)]
