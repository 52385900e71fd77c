"""The numbers of a study's tables: one value for each seed first, mean and spread after."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.scores import average_f1, case_f1, mode_matrix, pooled_f1
from metaseg_monai.metrics.statistics import worst_subgroup
from metaseg_monai.reporting.runs import Replicate, Result, Results, class_text
from metaseg_monai.study.design import Protocol

# What wrong, missing or inexact metadata costs, from the counts of an evaluation's test modes.

SHARES = tuple(np.linspace(0.0, 1.0, 21).round(2).tolist())


def wrong_share_curve(counts: pd.DataFrame, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """F1 of the expected counts when a share of the cases comes with foreign metadata.

    Args:
        counts: table of counts of one model and one training seed, with the modes ``normal`` and
            ``shuffle``.
        shares: shares in 0..1, of the cases.

    Returns:
        One row a share: ``share, f1, mode``, where mode names the foreign metadata.

    Raises:
        DataError: if a mode is absent or was counted on other cases than ``normal``.
    """
    return _share_curve(counts, "shuffle", shares)


def missing_share_curve(counts: pd.DataFrame, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """The same as `wrong_share_curve` for cases that come without metadata.

    Counts of the mode ``missing`` are used, or, where the metadata has no entry for an unknown
    value and that mode could not be run, those of ``zeros``; the column ``mode`` tells which.
    """
    absent = "missing" if (counts["mode"] == "missing").any() else "zeros"
    return _share_curve(counts, absent, shares)


def perturbation_curve(counts: pd.DataFrame) -> pd.DataFrame:
    """Pooled F1 against the factor that multiplies continuous metadata; ``normal`` is factor 1.

    Args:
        counts: table of counts of one model and one training seed, with modes such as
            ``perturb:0.8`` and ``perturb:1.25``.

    Returns:
        One row a factor, ascending: ``factor, f1``.

    Raises:
        DataError: if there is no ``normal`` or no ``perturb:<factor>``, or cases differ.
    """
    perturbed = [mode for mode in counts["mode"].unique() if str(mode).startswith("perturb:")]
    if not perturbed:
        raise DataError(_absent("perturb:<factor>", counts))
    normal = _mode(counts, "normal")
    scores = {float(mode.partition(":")[2]): pooled_f1(_mode(counts, mode)) for mode in perturbed}
    scores[1.0] = pooled_f1(normal)
    return pd.DataFrame(sorted(scores.items()), columns=["factor", "f1"])


def reliance(counts: pd.DataFrame) -> dict[str, float]:
    """Pooled F1 that is lost with foreign, with missing and with zero metadata.

    Near 0: the network hardly reads its metadata. Large: it cannot do without it. Only the modes
    that were evaluated appear, as ``normal - shuffle``, ``normal - missing``, ``normal - zeros``.

    Args:
        counts: table of counts of one model and one training seed.

    Raises:
        DataError: if mode ``normal`` is absent, or a mode was counted on other cases.
    """
    normal = pooled_f1(_mode(counts, "normal"))
    present = set(counts["mode"])
    return {
        f"normal - {mode}": normal - pooled_f1(_mode(counts, mode))
        for mode in ("shuffle", "missing", "zeros")
        if mode in present
    }


def _share_curve(counts: pd.DataFrame, foreign: str, shares: Sequence[float]) -> pd.DataFrame:
    true, false = _totals(_mode(counts, "normal")), _totals(_mode(counts, foreign))
    rows = []
    for share in shares:
        if not 0 <= share <= 1:
            raise DataError(f"A share of cases lies in 0..1; got {share}.")
        expected = (1 - share) * true + share * false
        rows.append((share, pooled_f1(expected.reset_index()), foreign))
    return pd.DataFrame(rows, columns=["share", "f1", "mode"])


def _totals(counts: pd.DataFrame) -> pd.DataFrame:
    return counts.groupby("class")[["tp", "fp", "fn"]].sum()


def _mode(counts: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The counts of one mode, checked to cover the same cases and classes as ``normal``."""
    part = counts[counts["mode"] == mode]
    if part.empty:
        raise DataError(_absent(mode, counts))
    normal = counts[counts["mode"] == "normal"]
    keys = ["case", "class"]
    if sorted(zip(*(part[key] for key in keys), strict=True)) != sorted(
        zip(*(normal[key] for key in keys), strict=True)
    ):
        raise DataError(
            f"Mode {mode} was counted on other cases than mode normal; evaluate both in one run."
        )
    return part


def _absent(mode: str, counts: pd.DataFrame) -> str:
    present = ", ".join(map(str, counts["mode"].unique())) or "none"
    return f"The counts have no mode {mode} (they have {present}); evaluate the run with it."


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
    from metaseg_monai.evaluation import read_counts
    from metaseg_monai.metrics.scores import pooled_f1_by

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


# How alike two domains are to a trained network, read from its scores under foreign labels.


def domain_similarity(matrix: pd.DataFrame, symmetric: bool = True) -> pd.DataFrame:
    """Share of its own score that each domain keeps when it is given another domain's label.

    s(d, l) = F1(d given label l) / F1(d given its own label), clipped to 0..1. One direction can
    be high and the other low: in thesis table 4.11 cracks keep part of their score under a cell
    line's label, but cells keep nothing under the label of cracks.

    Args:
        matrix: rows domains, columns modes, as `evaluation.mode_matrix` returns it. Columns count
            that are ``fixed:<domain>`` or ``fixed:<field>=<domain>``; the row ``combined`` and
            domains without such a column are left out.
        symmetric: give both directions their mean (or, if one is unknown, the other one).

    Returns:
        Square table of the domains in the order of the rows, 1 on the diagonal. A domain that
        scores 0 or nothing under its own label has no measurable share: NaN.

    Raises:
        DataError: if fewer than two domains have a mode with their own label, or if two fields
            name their labels like the domains equally often.

    >>> scores = {"fixed:cell": {"cell": 0.8, "crack": 0.6}, "fixed:crack": {"cell": 0, "crack": 1}}
    >>> domain_similarity(pd.DataFrame(scores), symmetric=False).loc["crack", "cell"]
    np.float64(0.6)
    >>> domain_similarity(pd.DataFrame(scores)).loc["crack", "cell"]
    np.float64(0.3)
    """
    columns = _label_columns(matrix)
    domains = [str(row) for row in matrix.index if row in columns]
    if len(domains) < 2:
        raise DataError(
            f"Similarity needs two domains that were tested with their own label; "
            f"{', '.join(domains) or 'none'} was. Modes of the matrix: "
            f"{', '.join(map(str, matrix.columns)) or 'none'}. Evaluate with the mode fixed:*, on "
            "data whose domains are the labels of one field."
        )
    scores = matrix.loc[domains, [columns[domain] for domain in domains]].to_numpy(float)
    own = np.diag(scores)[:, None]
    share = np.divide(scores, own, out=np.full_like(scores, np.nan), where=own > 0).clip(0, 1)
    if symmetric:
        share = np.where(np.isnan(share), share.T, share)
        share = (share + share.T) / 2
    np.fill_diagonal(share, 1.0)
    return pd.DataFrame(share, index=domains, columns=domains)


def cluster(similarity: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Cluster domains by average linkage on the distance 1 - s, most alike side by side.

    Args:
        similarity: symmetric table of `domain_similarity`; an unknown similarity counts as 0,
            because nothing shows that the two domains share anything.

    Returns:
        The domains in the best order of the leaves, and the linkage (domains - 1, 4) of
        `scipy.cluster.hierarchy`, whose leaves are numbered in the order of the table.

    Raises:
        DataError: if there are fewer than two domains or the table is not symmetric.
    """
    values = similarity.fillna(0.0).to_numpy(float)
    if len(values) < 2:
        raise DataError("Clustering needs at least two domains; draw a single domain without it.")
    if values.shape[0] != values.shape[1] or not np.allclose(values, values.T):
        raise DataError(
            "Clustering needs one similarity for each pair of domains; the two directions differ. "
            "Use domain_similarity(matrix, symmetric=True)."
        )
    distance = 1.0 - (values + values.T) / 2
    np.fill_diagonal(distance, 0.0)
    linkage = hierarchy.linkage(squareform(distance), method="average", optimal_ordering=True)
    order = [str(similarity.index[leaf]) for leaf in hierarchy.leaves_list(linkage)]
    return order, linkage


def _label_columns(matrix: pd.DataFrame) -> dict[str, str]:
    """Map each domain to the column of its own label.

    Every field may have fixed labels; the domain is the field that names most rows.
    """
    fields: dict[str, dict[str, str]] = {}
    for mode in map(str, matrix.columns):
        kind, _, argument = mode.partition(":")
        if kind != "fixed":
            continue
        field, _, value = argument.rpartition("=")
        name, label = ("", argument) if argument in matrix.index else (field, value)
        if label in matrix.index and label != "combined":
            fields.setdefault(name, {})[label] = mode
    best = max(map(len, fields.values()), default=0)
    owners = [name for name, labels in fields.items() if len(labels) == best]
    if len(owners) > 1:
        raise DataError(
            f"The fields {', '.join(owners)} have the same labels as the domains; it is unclear "
            "which of them the domains are. Evaluate fixed labels of one of them only."
        )
    return fields[owners[0]] if owners else {}
