"""The numbers of a report's tables: one value for each training first, mean and spread after."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import read_counts
from metaseg_monai.metrics.scores import (
    DRAWS,
    average_score,
    mode_matrix,
    pooled_iou,
    pooled_score,
    pooled_score_by,
    score_of,
)
from metaseg_monai.metrics.statistics import (
    bootstrap_interval,
    score_interval,
    worst_subgroup,
)
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

    def mean(values: pd.Series) -> float:
        return float(values.to_numpy(float).mean())  # unknown where any is

    def half_range(values: pd.Series) -> float:
        return float(np.ptp(values.to_numpy(float)) / 2) if len(values) > 1 else float("nan")

    groups = rows.groupby(level=0, sort=False)
    return Spread(groups.agg(mean), groups.agg(half_range))


def of_trainings(
    counts: pd.DataFrame, score: Callable[[pd.DataFrame], Mapping[str, float]]
) -> pd.DataFrame:
    """Scores of the counts of each training, a row a training, by condition."""
    found = {training: score(rows) for training, rows in by_training(counts).items()}
    conditions = pd.Index([name for name, *_ in found], name="condition")
    return pd.DataFrame(list(found.values()), index=conditions)


def over_groups(means: pd.Series, bounded: bool = False) -> pd.DataFrame:
    """Mean over groups, with the ends of its 95 % interval.

    Args:
        means: of each group; the last level of the index is the group, those before are the rows.
            NaN is left out.
        bounded: whether they are scores from 0 to 1, as Dice, whose interval is that of
            `score_interval`; of others that of `bootstrap_interval`.

    Returns:
        Rows in the order of `means`; columns ``mean, low, high, groups``.
    """
    groups = means.groupby(level=means.index.names[:-1], sort=False)
    rows = []
    for _, of_row in groups:
        known = of_row.dropna().to_numpy(float)
        mean = float(known.mean()) if len(known) else float("nan")
        ends = score_interval(known) if bounded else bootstrap_interval(known, DRAWS, seed=0)
        rows.append((mean, *ends, len(known)))
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
    """Combined, average and each domain's pooled score of one result (contract 10)."""
    matrix = mode_matrix(counts)["normal"]
    domains = {str(name): float(value) for name, value in matrix.drop("combined").items()}
    return {"combined": matrix.loc["combined"], "average": average_score(counts), **domains}


def f1_table(results: Results) -> Spread:
    """The score with true metadata: conditions x combined, average and domains (paper table 1)."""
    return spread(of_trainings(results.normal, f1_scores))


def iou_table(results: Results) -> Spread:
    """Pixel IoU in the rows and columns of `f1_table` (thesis 3.4)."""

    def of(counts: pd.DataFrame) -> dict[str, float]:
        domains = {str(name): pooled_iou(part) for name, part in counts.groupby("domain")}
        known = [value for value in domains.values() if not np.isnan(value)]
        average = float(np.mean(known)) if known else float("nan")
        return {"combined": pooled_iou(counts), "average": average, **domains}

    return spread(of_trainings(results.normal, of))


def learned_table(results: Results, protocol: Protocol) -> pd.DataFrame | None:
    """Whether each condition learned its task with every seed, by the protocol's limits.

    Those that have hardly begun are left out: nothing is concluded of them.
    """
    if protocol.learned is None or results.only_begun:
        return None
    low, high = protocol.learned
    name_of, lower_is_better = results.score.name, results.score.best == "low"
    column = protocol.domain or protocol.aggregate
    scores = of_trainings(results.normal, f1_scores).reindex(columns=[column])
    lost = of_trainings(results.counts, reliance).reindex(columns=["normal - shuffle"])
    rows: dict[str, dict[str, Any]] = {}
    for name in results.conditions:
        if name in results.hardly_begun:
            continue
        of_name = scores.loc[[name], column]
        outcome = "unstable"
        if (of_name <= low if lower_is_better else of_name >= high).all():
            outcome = "learned"
        elif (of_name > high if lower_is_better else of_name < low).all():
            outcome = "not learned"
        rows[name] = {
            "outcome": outcome,
            f"lowest {name_of}": of_name.min(skipna=False),
            f"highest {name_of}": of_name.max(skipna=False),
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
        lambda counts: {told[n]: pooled_score(part) for n, part in counts.groupby("class")},
    )
    return spread(scores)


def class_shares(results: Results, names: Mapping[int, str]) -> str:
    """How much of the foreground of the truth each label class is, in words.

    A class of few pixels has an F1 that few pixels decide.
    """
    held = (results.normal["tp"] + results.normal["fn"]).groupby(results.normal["class"]).sum()
    shares = zip(held.index.tolist(), held / held.sum(), strict=True)
    told = [f"{class_text(names, number)} {share:.1%}" for number, share in shares]
    return f"Of the foreground's pixels in the truth: {', '.join(told)}." if held.sum() else ""


def case_table(results: Results) -> pd.DataFrame:
    """Mean over cases with seeds averaged within each, and how many cases were left out as empty.

    Empty in target and prediction: no score, counted; only one of them empty: 0 (contract 11).
    Empty targets are cases whose label holds no class; with false pixels: by any training.
    """
    normal, names = results.normal, results.conditions
    scores = average_seeds(results.f1).groupby("condition")["f1"]
    if results.score.best == "low":
        missing = results.f1["f1"].isna().groupby(results.f1["condition"]).sum()
        of_images = {
            f"mean case {results.score.name}": scores.apply(lambda values: values.mean()),
            **{"median": scores.median(), "highest": scores.max(), "cases": scores.count()},
            "without a score, over all seeds": missing,
        }
        return pd.DataFrame(of_images).reindex(names)
    held = (normal["tp"] + normal["fn"]).groupby([normal["condition"], normal["case"]])
    empty = normal[held.transform("max") == 0]
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
    """The domain with the worst mean case score of each condition; None with one domain."""
    rows = {}
    sign = 1 if results.score.best == "high" else -1
    for name, cases in by_condition(average_seeds(results.f1)).items():
        if cases["domain"].nunique() > 1 and cases["f1"].notna().any():
            domain, mean = worst_subgroup(cases.assign(f1=sign * cases["f1"]))
            told = {"worst domain": domain, f"mean case {results.score.name}": sign * mean}
            rows[name] = told
    return rows_of(rows) if rows else None


def experts_elsewhere(results: Results, condition: str) -> Spread:
    """Each expert (columns) on every domain (rows), its own and the foreign ones (thesis 4.1)."""
    tables = []
    for runs in results.of(condition).by_training.values():
        files: dict[str, list[pd.DataFrame]] = {}
        for run in runs:
            files.setdefault(run.domain, []).append(read_counts(run.folder / COUNTS))
        tested = {own: pooled_score_by(pd.concat(of), "domain") for own, of in files.items()}
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
    """The pooled score that one training loses with foreign, with missing and with zero metadata.

    Near 0: the network hardly reads its metadata. Large: it cannot do without it. Only the modes
    that were evaluated appear, as ``normal - shuffle``, ``normal - missing``, ``normal - zeros``;
    of a score of which less is better it is what that rises by.
    """
    sign = 1 if score_of(counts).best == "high" else -1
    normal = pooled_score(in_mode(counts, "normal"))
    modes = [mode for mode in ("shuffle", "missing", "zeros") if (counts["mode"] == mode).any()]
    return {
        f"normal - {mode}": sign * (normal - pooled_score(in_mode(counts, mode))) for mode in modes
    }


def reliance_table(results: Results) -> Spread | None:
    """How much pooled F1 is lost by wrong or missing metadata; None where no condition can."""
    lost = of_trainings(with_modes(results).counts, reliance)
    return None if lost.empty else spread(lost.dropna(how="all"))


def share_curve(counts: pd.DataFrame, mode: str) -> pd.DataFrame:
    """Pooled F1 of the expected counts of one training when a share of its cases is in a mode.

    Returns:
        One row a share: ``share`` (0..1), ``f1`` and ``mode``.
    """
    true, false = (_expected(in_mode(counts, name)) for name in ("normal", mode))
    f1 = [pooled_score(((1 - share) * true + share * false).reset_index()) for share in SHARES]
    return pd.DataFrame({"share": SHARES, "f1": f1, "mode": mode})


def _expected(counts: pd.DataFrame) -> pd.DataFrame:
    """What a mixture of modes mixes by class: counts, or the mean medMAE."""
    classes = counts.groupby("class")
    if score_of(counts).best == "low":
        return classes[["medmae"]].mean()
    return classes[["tp", "fp", "fn"]].sum()


def perturbation_curve(counts: pd.DataFrame) -> pd.DataFrame:
    """Pooled F1 of one training against the factor of its continuous metadata: ``factor, f1``.

    The factors are those of the modes ``perturb:<factor>``, ascending, and 1 of ``normal``.
    """
    modes = [mode for mode in counts["mode"].unique() if mode.startswith("perturb:")]
    factors = {float(mode.partition(":")[2]): mode for mode in modes} | {1.0: "normal"}
    scores = {factor: pooled_score(in_mode(counts, mode)) for factor, mode in factors.items()}
    return pd.DataFrame(sorted(scores.items()), columns=["factor", "f1"])


def in_mode(counts: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The counts of one training in a mode.

    Raises:
        DataError: it was not tested in it, or on other cases or classes than in ``normal``.
    """
    part, normal = (
        counts[counts["mode"] == name].sort_values(["case", "class"]) for name in (mode, "normal")
    )
    if part.empty:
        present = ", ".join(counts["mode"].unique()) or "none"
        names = [str(counts[name].iloc[0]) for name in ("condition", "seed") if name in counts]
        raise DataError(
            f"The counts of {', seed '.join(names) or 'a run'} have no mode {mode} (they have "
            f"{present}), which others have; evaluate the run with it."
        )
    if any(part[name].tolist() != normal[name].tolist() for name in ("case", "class")):
        raise DataError(
            f"Mode {mode} was counted on other cases than mode normal; evaluate both in one run."
        )
    return part


# How alike two domains are to a trained network, read from its scores under foreign labels.


def domain_similarity(matrix: pd.DataFrame, symmetric: bool = True) -> pd.DataFrame | None:
    """Share of its own score that each domain keeps when it is given another domain's label.

    s(d, l) = F1(d given label l) / F1(d given its own label), clipped to 0..1. One direction can
    be high and the other low: in thesis table 4.11 cracks keep part of their score under a cell
    line's label, but cells keep nothing under the label of cracks.

    Args:
        matrix: of `mode_tables`; columns count that are ``fixed:<domain>`` or
            ``fixed:<field>=<domain>``, and the domains that have one.
        symmetric: give both directions their mean (or, if one is unknown, the other one).

    Returns:
        Square table, 1 on the diagonal. A domain that scores 0 or nothing under its own label has
        no measurable share: NaN. None where fewer than two domains have a mode with their own
        label, or two fields name their labels like the domains equally often.

    >>> scores = {"fixed:cell": {"cell": 0.8, "crack": 0.6}, "fixed:crack": {"cell": 0, "crack": 1}}
    >>> domain_similarity(pd.DataFrame(scores), symmetric=False).loc["crack", "cell"]
    np.float64(0.6)
    >>> domain_similarity(pd.DataFrame(scores)).loc["crack", "cell"]
    np.float64(0.3)
    """
    columns = _label_columns(matrix)
    domains = [str(row) for row in matrix.index if row in columns]
    if len(domains) < 2:
        return None
    scores = matrix.loc[domains, [columns[domain] for domain in domains]].to_numpy(float)
    own = np.diag(scores)[:, None]
    share = np.divide(scores, own, out=np.full_like(scores, np.nan), where=own > 0).clip(0, 1)
    if symmetric:
        share = np.where(np.isnan(share), share.T, share)
        share = (share + share.T) / 2
    np.fill_diagonal(share, 1.0)
    return pd.DataFrame(share, index=domains, columns=domains)


def cluster(similarity: pd.DataFrame) -> np.ndarray:
    """Cluster domains by average linkage on the distance 1 - s, most alike side by side.

    Args:
        similarity: symmetric table of `domain_similarity`; an unknown similarity counts as 0,
            because nothing shows that the two domains share anything.

    Returns:
        Linkage (domains - 1, 4) of `scipy.cluster.hierarchy`, leaves in the order of the table.
    """
    distance = 1.0 - similarity.fillna(0.0).to_numpy(float)
    np.fill_diagonal(distance, 0.0)
    return hierarchy.linkage(squareform(distance), method="average", optimal_ordering=True)


def _label_columns(matrix: pd.DataFrame) -> dict[str, str]:
    """Map each domain to the column of its own label.

    Every field may have fixed labels; the domain is the only field that names most rows.
    """
    fields: dict[str, dict[str, str]] = {}
    for mode in matrix.columns:
        if mode.startswith("fixed:"):
            label = mode.removeprefix("fixed:")
            name, label = ("", label) if label in matrix.index else label.rpartition("=")[::2]
            if label in matrix.index.drop("combined", errors="ignore"):
                fields.setdefault(name, {})[label] = mode
    best = max(map(len, fields.values()), default=0)
    owners = [name for name, labels in fields.items() if len(labels) == best]
    return fields[owners[0]] if len(owners) == 1 else {}
