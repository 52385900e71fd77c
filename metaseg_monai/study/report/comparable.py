"""Whether all conditions were tested on the same, so that their rows may be ranked and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from metaseg_monai.study.report.document import Details, Part, Section
from metaseg_monai.study.report.run_files import class_text, listed
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results

NOT = "rows cannot be compared"
ROUNDING = 0.01  # of a label's pixels; a single pixel is always allowed


def why_not_comparable(results: Results, names: Mapping[int, str] | None = None) -> list[str]:
    """Say what conditions differ in that makes their scores no comparison; empty where nothing.

    Rows may be compared where all conditions were tested on the same cases of the same splits, and
    the labels of these cases hold as many pixels for all of them.

    Args:
        results: of all classes.
        names: of the label's classes.
    """
    return [*_different_cases(results), *different_labels(results, names or {})]


def tested_on(results: Results) -> dict[str, pd.DataFrame]:
    """The cases that each condition was tested on, all seeds together: ``case, group, split``."""
    columns = ["case", "group", "split"]
    return {
        name: pd.concat(r.in_mode("normal")[columns] for r in by_seed.values()).drop_duplicates()
        for name, by_seed in results.conditions.items()
    }


def same_cases(results: Results) -> dict[tuple[str, ...], pd.DataFrame]:
    """The different sets of cases, as of `tested_on`, by the conditions that were tested on them.

    One entry where rows may be compared, as far as their cases go.
    """
    found: dict[frozenset[tuple[str, str]], list[str]] = {}
    tested = tested_on(results)
    for name, cases in tested.items():
        key = frozenset(zip(cases["case"], cases["split"], strict=True))
        found.setdefault(key, []).append(name)
    return {tuple(names): tested[names[0]] for names in found.values()}


def different_labels(results: Results, names: Mapping[int, str]) -> list[str]:
    """Say of which cases the label has not the same size for all conditions, in a sentence.

    That is so after evaluations at different pixel sizes. Cases that only one condition has say
    nothing.
    """
    if len(results.conditions) < 2:
        return []
    sizes = _label_sizes(results)
    gap = sizes.max(axis=1) - sizes.min(axis=1)
    differ = gap > (ROUNDING * sizes.max(axis=1)).clip(lower=1)
    if not differ.any():
        return []
    worst = gap.index.get_loc(gap[differ].idxmax())
    case, number = gap.index.tolist()[worst]
    example = ", ".join(
        f"{pixels:.0f} for {name}" for name, pixels in sizes.iloc[worst].dropna().items()
    )
    of = sizes.index.get_level_values("case")
    return [
        f"The labels of {of[differ].nunique()} of {of.nunique()} cases are not of the same size "
        f"for all conditions (pixels of {class_text(names, number)} in {case}: {example}), as "
        f"where they were tested at different pixel sizes: {NOT}."
    ]


def unranked(sections: Sequence[Section]) -> list[Section]:
    """The sections without marks for the best of a column, for rows that cannot be compared."""
    return [replace(section, parts=_unranked(section.parts)) for section in sections]


def of_conditions(results: Results, *names: str) -> Results:
    """The results of some conditions only."""
    return replace(results, conditions={name: results.conditions[name] for name in names})


def counted(cases: pd.DataFrame) -> str:
    """Number of cases with their split, as of `tested_on`.

    >>> counted(pd.DataFrame({"split": ["test"] * 3})), counted(pd.DataFrame({"split": ["test"]}))
    ('3 test cases', '1 test case')
    >>> counted(pd.DataFrame({"split": ["val", "test", "test"]}))
    '3 cases (2 test and 1 val)'
    """
    number = cases["split"].value_counts().sort_index()
    noun = "case" if len(cases) == 1 else "cases"
    if len(number) == 1:
        return f"{len(cases)} {number.index[0]} {noun}"
    return f"{len(cases)} {noun} ({listed([f'{n} {split}' for split, n in number.items()])})"


def _unranked(parts: Sequence[Part]) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Table):
            found.append(replace(part, best=None))
        elif isinstance(part, Details):
            found.append(replace(part, parts=_unranked(part.parts)))
        else:
            found.append(part)
    return found


def _label_sizes(results: Results) -> pd.DataFrame:
    """Pixels of each label: (case, class) x conditions, only what two or more of them have."""
    columns = {}
    for name, by_seed in results.conditions.items():
        rows = pd.concat(result.in_mode("normal") for result in by_seed.values())
        pixels = rows["tp"] + rows["fn"]
        columns[name] = pixels.groupby([rows["case"], rows["class"]]).mean()
    sizes = pd.DataFrame(columns)
    return sizes[sizes.notna().sum(axis=1) > 1]


def _different_cases(results: Results) -> list[str]:
    if len(same_cases(results)) == 1:
        return []
    tested = tested_on(results)
    told = ", ".join(f"{name} {counted(cases)}" for name, cases in tested.items())
    cases = {frozenset(table["case"]) for table in tested.values()}
    if len(cases) == 1:
        return [f"The same cases are of different splits in the conditions ({told}): {NOT}."]
    return [f"The conditions were tested on different cases ({told}): {NOT}."]
