"""The numbers of a report's tables: one value for each training first, mean and spread after."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import read_counts
from metaseg_monai.metrics.scores import average_f1, mode_matrix, pooled_f1, pooled_f1_by
from metaseg_monai.metrics.statistics import bootstrap_interval, worst_subgroup
from metaseg_monai.reporting.runs import (
    COUNTS,
    TRAINING,
    Results,
    average_seeds,
    by_condition,
    by_replicate,
    by_training,
    class_text,
)
from metaseg_monai.study.design import Protocol

DRAWS = 2000
ENDS = ("mean", "low", "high")


class Spread(NamedTuple):
    """Mean over the trainings, and half the distance from the lowest to the highest of them.

    The half distance of a single training is NaN: nothing is known of others.
    """

    mean: pd.DataFrame
    half_range: pd.DataFrame


def spread(rows: pd.DataFrame) -> Spread:
    """Summarise a table with a row for each training, whose index says what it is a row of.

    >>> two = spread(pd.DataFrame({"f1": [0.4, 0.6]}, index=["se", "se"]))
    >>> round(float(two.mean.loc["se", "f1"]), 3), round(float(two.half_range.iloc[0, 0]), 3)
    (0.5, 0.1)
    """
    groups = rows.groupby(level=0, sort=False)
    return Spread(groups.agg(_mean), groups.agg(_half_range))


def _mean(values: pd.Series) -> float:
    """Unknown where any is."""
    return float(values.to_numpy(float).mean())


def _half_range(values: pd.Series) -> float:
    return float(np.ptp(values.to_numpy(float)) / 2) if len(values) > 1 else float("nan")


def of_trainings(
    counts: pd.DataFrame, score: Callable[[pd.DataFrame], Mapping[str, float]]
) -> pd.DataFrame:
    """Scores of the counts of each training, a row a training, by condition."""
    found = {training: score(rows) for training, rows in by_training(counts).items()}
    conditions = pd.Index([name for name, *_ in found], name="condition")
    return pd.DataFrame(list(found.values()), index=conditions)


def over_groups(means: pd.Series) -> pd.DataFrame:
    """Mean over groups, with the ends of its 95 % `bootstrap_interval`.

    Args:
        means: of each group; the last level of the index is the group, those before are the rows.
            NaN is left out.

    Returns:
        Rows in the order of `means`; columns ``mean, low, high, groups``.
    """
    groups = means.groupby(level=means.index.names[:-1], sort=False)
    rows = []
    for _, of_row in groups:
        known = of_row.dropna().to_numpy(float)
        mean = float(known.mean()) if len(known) else float("nan")
        rows.append((mean, *bootstrap_interval(known, DRAWS, seed=0), len(known)))
    return pd.DataFrame(rows, index=groups.size().index, columns=[*ENDS, "groups"])


def rows_of(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Make a table of rows by name, each column with a type of its own.

    >>> rows_of({"se": {"f1": 0.5, "cases": 3}}).dtypes.astype(str).to_dict()
    {'f1': 'float64', 'cases': 'int64'}
    """
    return pd.DataFrame(list(rows.values()), index=list(rows))


def seeds_note(results: Results) -> str:
    """Say what a score is the mean of, and what stands behind ±."""
    if max(results.trainings.values()) == 1:
        return "One training of each condition."
    return "Mean over trainings, ± half the distance between the lowest and the highest."


# F1 with true metadata, by condition.


def f1_scores(counts: pd.DataFrame) -> dict[str, float]:
    """Combined, average and each domain's pooled F1 of one result (contract 10)."""
    matrix = mode_matrix(counts)["normal"]
    domains = {str(name): float(value) for name, value in matrix.drop("combined").items()}
    return {"combined": matrix.loc["combined"], "average": average_f1(counts), **domains}


def f1_table(results: Results) -> Spread:
    """F1 with true metadata: conditions x combined, average and domains (paper table 1)."""
    return spread(of_trainings(results.normal, f1_scores))


def learned_table(results: Results, protocol: Protocol) -> pd.DataFrame | None:
    """Whether each condition learned its task with every seed, by the protocol's limits."""
    if protocol.learned is None:
        return None
    low, high = protocol.learned
    column = protocol.domain or protocol.aggregate
    scores = of_trainings(results.normal, f1_scores).reindex(columns=[column])
    lost = of_trainings(results.counts, reliance).reindex(columns=["normal - shuffle"])
    rows: dict[str, dict[str, Any]] = {}
    for name in results.conditions:
        of_name = scores.loc[[name], column]
        outcome = "unstable"
        if (of_name >= high).all():
            outcome = "learned"
        elif (of_name < low).all():
            outcome = "not learned"
        rows[name] = {
            "outcome": outcome,
            "lowest F1": of_name.min(skipna=False),
            "highest F1": of_name.max(skipna=False),
            "least lost by foreign metadata": lost.loc[[name]].min(axis=None, skipna=False),
            "trainings": len(of_name),
        }
    return rows_of(rows)


def class_table(results: Results, names: Mapping[int, str]) -> Spread | None:
    """Pooled F1 of each label class, by its name where it has one; None where there is only one."""
    numbers = sorted(set(results.counts["class"]))
    if len(numbers) < 2:
        return None
    told = {number: class_text(names, number) for number in numbers}
    if len(set(told.values())) < len(told):  # two classes of one name would be one column
        told = {number: class_text({}, number) for number in told}
    scores = of_trainings(
        results.normal,
        lambda counts: {told[n]: pooled_f1(part) for n, part in counts.groupby("class")},
    )
    return spread(scores)


def case_table(results: Results) -> pd.DataFrame:
    """Mean over cases with seeds averaged within each, and how many cases were left out as empty.

    Empty in target and prediction: no score, counted; only one of them empty: 0 (contract 11).
    Empty targets are cases whose label holds no class; with false pixels: by any training.
    """
    normal = results.normal
    held = (normal["tp"] + normal["fn"]).groupby([normal["condition"], normal["case"]])
    empty = normal[held.transform("max") == 0]
    names = results.conditions
    scores = average_seeds(results.f1).groupby("condition")["f1"]
    targets, false = (
        rows.groupby("condition")["case"].nunique().reindex(names, fill_value=0)
        for rows in (empty, empty[empty["fp"] > 0])
    )
    table = {
        "mean case F1": scores.apply(lambda f1: f1.mean()),
        "median": scores.median(),
        "lowest": scores.min(),
        "cases": scores.count(),
        "empty, over all seeds": results.f1["f1"].isna().groupby(results.f1["condition"]).sum(),
        "empty targets": targets,
        "with false pixels": false,
    }
    return pd.DataFrame(table).reindex(names)


def worst_table(results: Results) -> pd.DataFrame | None:
    """The domain with the lowest mean case F1 of each condition; None with one domain."""
    rows = {}
    for name, cases in by_condition(average_seeds(results.f1)).items():
        if cases["domain"].nunique() > 1 and cases["f1"].notna().any():
            domain, mean = worst_subgroup(cases)
            rows[name] = {"worst domain": domain, "mean case F1": mean}
    return rows_of(rows) if rows else None


def experts_elsewhere(results: Results, condition: str) -> Spread:
    """Each expert (columns) on every domain (rows), its own and the foreign ones (thesis 4.1)."""
    tables = []
    for runs in results.of(condition).by_training.values():
        files = {run.domain: run.folder / COUNTS for run in runs}
        tested = {own: pooled_f1_by(read_counts(file), "domain") for own, file in files.items()}
        tables.append(pd.DataFrame(tested).reindex(index=list(files)))
    return spread(pd.concat(tables))


# What wrong, missing or inexact metadata costs, from the counts of an evaluation's test modes.

SHARES = tuple(np.linspace(0.0, 1.0, 21).round(2).tolist())


def with_modes(results: Results) -> Results:
    """The results of conditions of which every training was tested in more modes than normal."""
    modes = results.counts.groupby(TRAINING, sort=False)["mode"].nunique()
    several = (modes > 1).groupby(level="condition", sort=False).all()
    return results.of(*several.index[several])


def mode_tables(results: Results) -> dict[str, Spread]:
    """Test-mode matrix of the conditions that were tested in several modes, by condition.

    Thesis tables 4.2, 4.6, 4.11, 4.13. With a single domain only its row ``combined``, which is
    the same as that of the domain.
    """
    tested = with_modes(results)
    found = {}
    for name in tested.conditions:
        matrices = map(mode_matrix, by_replicate(tested.counts, name).values())
        table = spread(pd.concat(list(matrices)))
        if len(table.mean) <= 2:
            table = Spread(*(frame.loc[["combined"]] for frame in table))
        found[name] = table
    return found


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


def reliance_table(results: Results) -> Spread | None:
    """How much pooled F1 is lost by wrong or missing metadata; None where no condition can."""
    tested = with_modes(results)
    lost = of_trainings(tested.counts, reliance)
    return None if lost.empty else spread(lost[lost.notna().any(axis=1)])


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
    scores = {float(mode.partition(":")[2]): pooled_f1(_mode(counts, mode)) for mode in perturbed}
    scores[1.0] = pooled_f1(_mode(counts, "normal"))
    return pd.DataFrame(sorted(scores.items()), columns=["factor", "f1"])


def _share_curve(counts: pd.DataFrame, foreign: str, shares: Sequence[float]) -> pd.DataFrame:
    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise DataError(f"A share of cases lies in 0..1; got {wrong[0]}.")
    true, false = (
        _mode(counts, mode).groupby("class")[["tp", "fp", "fn"]].sum()
        for mode in ("normal", foreign)
    )
    f1 = [pooled_f1(((1 - share) * true + share * false).reset_index()) for share in shares]
    return pd.DataFrame({"share": shares, "f1": f1, "mode": foreign})


def _mode(counts: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The counts of one mode, checked to cover the same cases and classes as ``normal``."""
    part = counts[counts["mode"] == mode]
    if part.empty:
        raise DataError(_absent(mode, counts))
    one, other = (
        rows[["case", "class"]].sort_values(["case", "class"]).to_numpy().tolist()
        for rows in (part, counts[counts["mode"] == "normal"])
    )
    if one != other:
        raise DataError(
            f"Mode {mode} was counted on other cases than mode normal; evaluate both in one run."
        )
    return part


def _absent(mode: str, counts: pd.DataFrame) -> str:
    present = ", ".join(map(str, counts["mode"].unique())) or "none"
    return f"The counts have no mode {mode} (they have {present}); evaluate the run with it."


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
