"""The numbers of a study's tables: one value for each seed first, mean and spread after."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metaseg_monai.evaluation import average_f1, case_f1, mode_matrix, pooled_f1
from metaseg_monai.evaluation.statistics import worst_subgroup
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.robustness import reliance
from metaseg_monai.study.report.run_files import class_text
from metaseg_monai.study.results import Replicate, Result, Results


class Spread(NamedTuple):
    """Mean over the replicates, and half the distance from the lowest to the highest of them.

    The half distance of a single replicate is NaN: nothing is known of others.
    """

    mean: pd.DataFrame
    half_range: pd.DataFrame


def over_seeds(tables: Mapping[Replicate, pd.DataFrame]) -> Spread:
    """Summarise tables of the same form, one for each replicate.

    >>> one, two = (pd.DataFrame({"f1": [value]}, index=["se"]) for value in (0.4, 0.6))
    >>> spread = over_seeds({Replicate(0, 0): one, Replicate(0, 1): two})
    >>> round(float(spread.mean.loc["se", "f1"]), 3), round(float(spread.half_range.iloc[0, 0]), 3)
    (0.5, 0.1)
    """
    first = next(iter(tables.values()))
    values = np.stack([table.loc[first.index, first.columns] for table in tables.values()])
    spread = np.ptp(values, axis=0) / 2 if len(values) > 1 else np.full(values.shape[1:], np.nan)
    frames = (values.mean(axis=0), spread)
    return Spread(*(pd.DataFrame(f, index=first.index, columns=first.columns) for f in frames))


def seeds_note(results: Results) -> str:
    """Say what a score is the mean of, and what stands behind ±."""
    if max(map(len, results.conditions.values())) == 1:
        return "One training of each condition."
    return "Mean over trainings, ± half the distance between the lowest and the highest."


def f1_scores(counts: pd.DataFrame) -> dict[str, float]:
    """Combined, average and each domain's pooled F1 of one result (contract 10)."""
    matrix = mode_matrix(counts)["normal"]
    domains = {str(name): float(value) for name, value in matrix.drop("combined").items()}
    return {"combined": matrix.loc["combined"], "average": average_f1(counts), **domains}


def f1_table(results: Results) -> Spread:
    """F1 with true metadata: conditions x combined, average and domains (paper table 1)."""
    return _of_conditions(results, lambda result: f1_scores(result.in_mode("normal")))


def learned_table(results: Results, protocol: Protocol) -> pd.DataFrame | None:
    """Whether each condition learned its task with every seed, by the protocol's limits."""
    if protocol.learned is None:
        return None
    low, high = protocol.learned
    column = protocol.domain or protocol.aggregate
    rows = {}
    for name, by_seed in results.conditions.items():
        scores = [
            f1_scores(r.in_mode("normal")).get(column, float("nan")) for r in by_seed.values()
        ]
        outcome = "unstable"
        if min(scores) >= high:
            outcome = "learned"
        elif max(scores) < low:
            outcome = "not learned"
        lost = scores_lost(by_seed)
        rows[name] = {
            "outcome": outcome,
            "lowest F1": min(scores),
            "highest F1": max(scores),
            "least lost by foreign metadata": lost,
            "trainings": len(scores),
        }
    return rows_of(rows)


def scores_lost(by_seed: Mapping[Replicate, Result]) -> float:
    """Least pooled F1 that any training loses by foreign metadata; NaN where not tested."""
    losses = [reliance(r.counts).get("normal - shuffle", float("nan")) for r in by_seed.values()]
    return float(min(losses))


def class_table(results: Results, names: Mapping[int, str]) -> Spread | None:
    """Pooled F1 of each label class, by its name where it has one; None where there is only one."""
    if results.first.counts["class"].nunique() < 2:
        return None
    told = {number: class_text(names, number) for number in set(results.first.counts["class"])}
    if len(set(told.values())) < len(told):  # two classes of one name would be one column
        told = {number: class_text({}, number) for number in told}
    return _of_conditions(
        results,
        lambda result: {
            told[number]: pooled_f1(part)
            for number, part in result.in_mode("normal").groupby("class")
        },
    )


def errors_by_seed(results: Results, aggregate: str) -> dict[str, list[float]]:
    """F1 error 1 - F1 of each condition and replicate (thesis figures 4.2, 4.3, 4.8)."""
    return {
        name: [1 - f1_scores(result.in_mode("normal"))[aggregate] for result in by_seed.values()]
        for name, by_seed in results.conditions.items()
    }


def mode_table(by_seed: Mapping[Replicate, Result]) -> Spread:
    """Test-mode matrix of one condition over its seeds (thesis tables 4.2, 4.6, 4.11, 4.13).

    With a single domain only its row ``combined``, which is the same as that of the domain.
    """
    table = over_seeds({key: mode_matrix(result.counts) for key, result in by_seed.items()})
    if len(table.mean) > 2:
        return table
    return Spread(*(frame.loc[["combined"]] for frame in table))


def with_modes(results: Results) -> dict[str, Mapping[Replicate, Result]]:
    """The conditions that were tested in more modes than normal."""
    return {
        name: by_seed
        for name, by_seed in results.conditions.items()
        if all(result.counts["mode"].nunique() > 1 for result in by_seed.values())
    }


def reliance_table(results: Results) -> Spread | None:
    """How much pooled F1 is lost by wrong or missing metadata; None where no condition can."""
    told = {
        name: {
            key: pd.DataFrame([reliance(result.counts)], index=[name])
            for key, result in by_seed.items()
        }
        for name, by_seed in with_modes(results).items()
    }
    told = {name: rows for name, rows in told.items() if not next(iter(rows.values())).empty}
    return _stacked([over_seeds(rows) for rows in told.values()]) if told else None


def rows_of(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Make a table of rows by name, each column with a type of its own.

    >>> rows_of({"se": {"f1": 0.5, "cases": 3}}).dtypes.astype(str).to_dict()
    {'f1': 'float64', 'cases': 'int64'}
    """
    return pd.DataFrame(list(rows.values()), index=list(rows))


def worst_table(results: Results) -> pd.DataFrame | None:
    """The domain with the lowest mean case F1 of each condition; None with one domain."""
    rows = {}
    for name in results.conditions:
        cases = results.cases(name)
        if cases["domain"].nunique() > 1 and cases["f1"].notna().any():
            domain, mean = worst_subgroup(cases)
            rows[name] = {"worst domain": domain, "mean case F1": mean}
    return rows_of(rows) if rows else None


def case_table(results: Results) -> pd.DataFrame:
    """Mean over cases with seeds averaged within each, and how many cases were left out as empty.

    Empty in target and prediction: no score, counted; only one of them empty: 0 (contract 11).
    Empty targets are cases whose label holds no class; with false pixels: by any training.
    """
    rows = {}
    for name in results.conditions:
        scores = results.cases(name)["f1"]
        empty = sum(
            int(case_f1(result.in_mode("normal"))["f1"].isna().sum())
            for result in results.conditions[name].values()
        )
        normal = pd.concat(r.in_mode("normal") for r in results.conditions[name].values())
        held = (normal["tp"] + normal["fn"]).groupby(normal["case"]).transform("max")
        empty_targets = normal[held == 0]
        false = empty_targets[empty_targets["fp"] > 0]
        rows[name] = {
            "mean case F1": float(scores.mean()),
            "median": float(scores.median()),
            "lowest": float(scores.min()),
            "cases": int(scores.notna().sum()),
            "empty, over all seeds": empty,
            "empty targets": empty_targets["case"].nunique(),
            "with false pixels": false["case"].nunique(),
        }
    return rows_of(rows)


def experts_elsewhere(by_seed: Mapping[Replicate, Result]) -> Spread:
    """Each expert (columns) on every domain (rows), its own and the foreign ones (thesis 4.1)."""
    from metaseg_monai.evaluation import pooled_f1_by, read_counts

    tables = {}
    for key, result in by_seed.items():
        tested = {
            domain: pooled_f1_by(read_counts(folder / "counts.csv"), "domain")
            for domain, folder in result.folders.items()
        }
        tables[key] = pd.DataFrame(tested).reindex(index=list(result.folders))
    return over_seeds(tables)


def _of_conditions(results: Results, score: Callable[[Result], Mapping[str, float]]) -> Spread:
    rows = []
    for name, by_seed in results.conditions.items():
        scored = {key: pd.DataFrame([score(r)], index=[name]) for key, r in by_seed.items()}
        rows.append(over_seeds(scored))
    return _stacked(rows)


def _stacked(rows: list[Spread]) -> Spread:
    mean, half_range = (pd.concat(frames) for frames in zip(*rows, strict=True))
    return Spread(mean.rename_axis("condition"), half_range.rename_axis("condition"))
