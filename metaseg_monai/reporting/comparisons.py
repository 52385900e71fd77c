"""The comparisons that a study's protocol names: may they be made, their tests, and their words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.scores import label_sizes
from metaseg_monai.metrics.statistics import (
    Comparison,
    SeedInterval,
    compare_cases,
    compare_subgroups,
    holm,
    joint_interval,
    seed_differences,
    seed_interval,
    seed_table,
)
from metaseg_monai.reporting.page import Part
from metaseg_monai.reporting.runs import (
    Replicate,
    Results,
    average_seeds,
    by_condition,
    by_replicate,
    by_training,
    class_text,
    listed,
)
from metaseg_monai.reporting.scores import rows_of
from metaseg_monai.reporting.tables import Table, signed
from metaseg_monai.study.design import Protocol

Strength = Literal["found", "these trainings", "mixed", "none", "untested"]
TESTS = {
    "t": "paired t-test",
    "wilcoxon": "Wilcoxon signed-rank test",
    "permutation": "paired permutation test",
}

# Whether all conditions were tested on the same, so that their rows may be ranked and compared.

NOT = "rows cannot be compared"
ROUNDING = 0.01  # of a label's pixels; a single pixel is always allowed


def why_not_comparable(results: Results) -> list[str]:
    """Say what conditions differ in that makes their scores no comparison; empty where nothing.

    Rows may be compared where all conditions were tested on the same cases of the same splits, and
    the labels of these cases hold as many pixels for all of them.
    """
    return [*_different_cases(results), *different_labels(results, results.class_names)]


def tested_on(results: Results) -> pd.DataFrame:
    """The cases that each condition was tested on, all seeds together."""
    return results.normal[["condition", "case", "group", "split"]].drop_duplicates()


def same_cases(results: Results) -> dict[tuple[str, ...], pd.DataFrame]:
    """The different sets of cases, as of `tested_on`, by the conditions that were tested on them.

    One entry where rows may be compared, as far as their cases go.
    """
    found: dict[frozenset[tuple[str, str]], list[str]] = {}
    tested = by_condition(tested_on(results))
    for name, cases in tested.items():
        key = frozenset(zip(cases["case"], cases["split"], strict=True))
        found.setdefault(key, []).append(name)
    return {tuple(names): tested[names[0]] for names in found.values()}


def different_labels(results: Results, names: Mapping[int, str]) -> list[str]:
    """Say of which cases the label has not the same size for all conditions, in a sentence.

    That is so after evaluations at different pixel sizes. Cases that only one condition has say
    nothing.
    """
    normal, place = results.normal, ["case", "class"]
    normal = normal.assign(pixels=label_sizes(normal))
    means = normal.groupby([*place, "condition"])["pixels"].mean()
    sizes = means.unstack("condition").reindex(columns=results.conditions)
    sizes = sizes[sizes.notna().sum(axis=1) > 1]  # what two or more of them have
    gap = sizes.max(axis=1) - sizes.min(axis=1)
    differ = gap > (ROUNDING * sizes.max(axis=1)).clip(lower=1)
    if not differ.any():
        return []
    worst: Any = gap[differ].idxmax()
    case, number = worst
    pixels_of = sizes.loc[worst].dropna().items()
    example = ", ".join(f"{pixels:.0f} for {name}" for name, pixels in pixels_of)
    of = sizes.index.get_level_values("case")
    return [
        f"The labels of {of[differ].nunique()} of {of.nunique()} cases are not of the same size "
        f"for all conditions (pixels of {class_text(names, number)} in {case}: {example}), as "
        f"where they were tested at different pixel sizes: {NOT}."
    ]


def _different_cases(results: Results) -> list[str]:
    if len(same_cases(results)) == 1:
        return []
    tested = by_condition(tested_on(results))
    told = ", ".join(f"{name} {counted(cases)}" for name, cases in tested.items())
    if len({frozenset(cases["case"]) for cases in tested.values()}) == 1:
        return [f"The same cases are of different splits in the conditions ({told}): {NOT}."]
    return [f"The conditions were tested on different cases ({told}): {NOT}."]


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


# The tests over cases, and what each training says.


class Compared(NamedTuple):
    """One comparison.

    Attributes:
        first: condition.
        second: condition it is compared with; the difference is first minus second.
        overall: on the domain of the protocol, or on all cases.
        p_holm: of the protocol's test, corrected for all planned comparisons.
        seeds: difference of each replicate.
        trainings: mean of `seeds` with its t interval, NaN below two.
        subgroups: the same in each domain, corrected over the domains; None for one domain.
        shared: number of cases that both were tested on, of those that either was.
        table: differences (groups, trainings), of the groups that all trainings have.
    """

    first: str
    second: str
    overall: Comparison
    p_holm: float
    seeds: dict[Replicate, float]
    trainings: SeedInterval
    subgroups: pd.DataFrame | None
    shared: tuple[int, int]
    table: np.ndarray

    @property
    def joint(self) -> tuple[float, float]:
        """95 % interval for other groups and other trainings at once.

        The wider, at each end, of `joint_interval` and the interval over groups, which knows of
        skew. Where trainings have no groups in common, as on data of their own, each is a sample
        of both, and the interval over trainings is it. NaN for one training.
        """
        if len(self.table):
            low, high = joint_interval(self.overall.mean, self.table)
        else:
            low, high = self.trainings.low, self.trainings.high
        ends = min(low, self.overall.low), max(high, self.overall.high)
        return (math.nan, math.nan) if math.isnan(sum(ends) + low + high) else ends

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.first} - {self.second}"

    def strength(self, alpha: float) -> Strength:
        """Tell how much may be claimed.

        A test over cases says nothing about other trainings of the same networks. So a difference
        is *found* where the corrected p is below alpha and the interval over groups and trainings
        (`joint`) lies on one side of 0 as well. *none* was shown where already the interval over
        groups holds 0, whatever the test says. Else it is one of *these trainings* where all of
        them have the same sign, and *mixed* where they do not.
        """
        if self.overall.groups < 2 or math.isnan(self.p_holm):
            return "untested"
        if self.p_holm >= alpha:
            return "none"
        low, high = self.joint
        if low > 0 or high < 0:
            return "found"
        if self.overall.low <= 0 <= self.overall.high:
            return "none"
        differences = self.seeds.values()
        one_sign = all(d > 0 for d in differences) or all(d < 0 for d in differences)
        return "these trainings" if one_sign else "mixed"


def compare_all(
    results: Results, protocol: Protocol, scores: pd.DataFrame | None = None
) -> tuple[list[Compared], dict[str, str]]:
    """Make every comparison of the protocol.

    Args:
        results: of the study.
        protocol: whose comparisons are made.
        scores: what is compared, as in `compare_scores`; None is the F1 of each case.

    Returns:
        Those that could be made, corrected for all that were planned, and of the others the name
        with the reason.
    """
    made, not_made = [], {}
    known = set(results.conditions if scores is None else scores["condition"])
    for first, second in protocol.comparisons:
        try:
            if absent := [name for name in (first, second) if name not in known]:
                raise DataError(f"{', '.join(absent)} has no results")
            if scores is None:
                made.append(compare_pair(first, second, results, protocol))
            else:
                made.append(compare_scores(first, second, scores, protocol))
        except DataError as error:
            not_made[f"{first} - {second}"] = str(error)
    # what could not be made still counts: otherwise a failed run would make the others look surer
    planned = [one.p_holm for one in made] + [1.0] * len(not_made)
    corrected = holm(planned)[: len(made)]
    return [one._replace(p_holm=p) for one, p in zip(made, corrected, strict=True)], not_made


def concluded(
    results: Results, made: Sequence[Compared], not_made: Mapping[str, str]
) -> tuple[list[Compared], dict[str, str]]:
    """Leave out comparisons of trainings that have hardly begun, of which nothing is concluded.

    Args:
        results: of the study.
        made: as of `compare_all`.
        not_made: as of `compare_all`.

    Returns:
        Both again, each that is left out among those not made, with the reason.
    """
    begun = {one.name: results.not_concluded(one.first, one.second) for one in made}
    kept = [one for one in made if not begun[one.name]]
    return kept, {**not_made, **{name: why for name, why in begun.items() if why}}


def compare_pair(first: str, second: str, results: Results, protocol: Protocol) -> Compared:
    """Compare the F1 of two conditions, see `compare_scores`.

    Raises:
        DataError: as there, or the labels of the cases that both have differ in size.
    """
    if reasons := different_labels(results.of(first, second), {}):
        raise DataError(reasons[0])
    return compare_scores(first, second, results.f1, protocol)


def compare_scores(first: str, second: str, scores: pd.DataFrame, protocol: Protocol) -> Compared:
    """Compare two conditions on the replicates and the cases that both have, uncorrected.

    Args:
        first: condition.
        second: condition.
        scores: rows as of `Results.f1`, of which f1 may be any score of any unit.
        protocol: whose test is made, in its domain.

    Raises:
        DataError: they have no seed or no test case in common, trainings of one were tested on
            different cases, or the protocol's domain has none.
    """
    ones, twos = by_replicate(scores, first), by_replicate(scores, second)
    both = [key for key in ones if key in twos]
    if not both:
        raise DataError(
            f"{first} and {second} have no training seed in common; run both with the same seeds."
        )
    one, two = (_average_same(pd.concat([of[key] for key in both])) for of in (ones, twos))
    shared, either = set(one["case"]) & set(two["case"]), set(one["case"]) | set(two["case"])
    if not shared:
        raise DataError(
            f"{first} and {second} have no test case in common; evaluate both on the same split "
            "of the same table."
        )
    if protocol.domain is not None and protocol.domain not in set(one["domain"]):
        raise DataError(
            f"The protocol's domain {protocol.domain!r} has no test case; there are "
            f"{', '.join(one['domain'].unique())}."
        )

    def chosen(cases: pd.DataFrame) -> pd.DataFrame:
        of_domain = cases["domain"] == protocol.domain if protocol.domain else True
        return cases[cases["case"].isin(shared) & of_domain]

    overall = compare_cases(chosen(one), chosen(two))
    trained = [{key: chosen(of[key]) for key in both} for of in (ones, twos)]
    seeds = seed_differences(*trained)
    one, two = one[one["case"].isin(shared)], two[two["case"].isin(shared)]
    several = one["domain"].nunique() > 1
    return Compared(
        first,
        second,
        overall,
        float(getattr(overall, f"p_{protocol.test}")),
        seeds,
        seed_interval(seeds),
        compare_subgroups(one, two, test=protocol.test) if several else None,
        (len(shared), len(either)),
        seed_table(*trained),
    )


def _average_same(scores: pd.DataFrame) -> pd.DataFrame:
    """Average the trainings of a condition, all of which must have the same cases."""
    trained = scores.groupby(["data_seed", "case"]).size().groupby("data_seed")
    if (trained.nunique() > 1).any():
        raise DataError(
            "The training seeds were evaluated on different cases; evaluate all on the same split."
        )
    return average_seeds(scores)


# What a comparison is called, says and holds, whatever score it is of.


def compared_text(one: Compared, protocol: Protocol, score: str = "F1") -> str:
    """Tell what one comparison says, and how far it reaches.

    Args:
        one: comparison of any score of cases.
        protocol: its domain, where it has one, is named: give one without it where `one` is of
            all cases.
        score: what was compared, as it is named in the middle of a sentence.
    """
    overall = one.overall
    where = f" on {protocol.domain}" if protocol.domain else ""
    pair = f"{one.first} and {one.second}"
    strength = one.strength(protocol.alpha)
    if strength == "untested":
        why = {0: "no case has a score in both", 1: "there is only one group"}
        reason = why.get(overall.groups, "the test gives no p-value")
        return f"{pair} cannot be compared in the {score}{where}: {reason}."
    ends = f"[{signed(overall.low)}, {signed(overall.high)}]"
    interval = "(too few groups for an interval)" if math.isnan(overall.low) else ends
    interval = f"{signed(overall.mean)} {interval}"
    p = f"p {p_text(one.p_holm)}" if one.p_holm < 0.001 else f"p = {p_text(one.p_holm)}"
    if strength == "none":
        though = ", but the interval holds 0" if one.p_holm < protocol.alpha else ""
        return f"No difference of {pair} in the {score}{where} was shown: {interval}, {p}{though}."
    seeds = seeds_text(one)
    higher = f"a {'higher' if overall.mean > 0 else 'lower'} {score} than {one.second}{where}"
    if strength == "found":
        return f"{one.first} has {higher}: {interval} on average, {p}, {seeds}."
    if len(one.seeds) == 1:
        return (
            f"{one.first} had {higher} in this one training: {interval}, {p}. Whether other "
            "trainings would is not tested."
        )
    low, high = one.joint
    kind = drawn_over(overall.cases, overall.groups)
    both = f"[{signed(low)}, {signed(high)}]"
    over = f"{seeds}; over {kind} {interval}, over these and trainings {both}, {p}"
    if strength == "these trainings":
        return (
            f"{one.first} had {higher} in each of these trainings ({over}), but they differ too "
            "much to say the same of others."
        )
    return (
        f"{pair} differ in the {score}{where}, but not in the same direction with every training "
        f"({over}): no difference is claimed."
    )


def drawn_over(cases: int, groups: int) -> str:
    """Name what tests and intervals are made over.

    >>> drawn_over(437, 32), drawn_over(8, 8)
    ('groups', 'cases')
    """
    return "groups" if cases > groups else "cases"


def primary_not_made(protocol: Protocol, not_made: Mapping[str, str]) -> str:
    """Say that the primary comparison is lacking and why; "" where it was made."""
    first = " - ".join(protocol.comparisons[0]) if protocol.comparisons else ""
    if first not in not_made:
        return ""
    return f"The primary comparison, {first}, was not made: {not_made[first].rstrip('.')}."


def p_text(p: float) -> str:
    """Write a p-value with three digits.

    >>> p_text(0.00004), p_text(0.0421), p_text(float("nan"))
    ('< 0.001', '0.042', '-')
    """
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seeds_text(one: Compared) -> str:
    """Write the difference of each training, with its seed."""
    several = len({key.data_seed for key in one.seeds}) > 1
    return ", ".join(
        f"seed {key.seed}{f' on data {key.data_seed}' if several else ''}: {signed(value)}"
        for key, value in one.seeds.items()
    )


def compared_row(one: Compared, cases: str = "cases", groups: str = "groups") -> dict[str, Any]:
    """The row of a comparison in every table of them.

    Args:
        one: the comparison.
        cases: what a case is called.
        groups: what a group is called.
    """
    return {
        "difference": one.overall.mean,
        "low": one.overall.low,
        "high": one.overall.high,
        "p corrected": p_text(one.p_holm),
        "by training": seeds_text(one),
        "with trainings, low": one.joint[0],
        "with trainings, high": one.joint[1],
        cases: one.overall.cases,
        groups: one.overall.groups,
    }


def compared_again(
    results: Results,
    protocol: Protocol,
    scores: pd.DataFrame | None,
    of: str,
    score: str,
    spoken: str = "",
    case: str = "case",
    group: str = "group",
) -> list[Part]:
    """The planned comparisons on another score than that of the protocol.

    Args:
        results: of the study.
        protocol: whose comparisons are made.
        scores: what is compared, see `compare_all`.
        of: what the score is of, as in the name of the table.
        score: its name.
        spoken: its name in the middle of a sentence; `score` where empty.
        case: what a case is called.
        group: what a group is called.
    """
    if not protocol.comparisons:
        return []
    made, not_made = concluded(results, *compare_all(results, protocol, scores))
    parts: list[Part] = []
    if made:
        note = (
            "Secondary to the planned comparisons above: the same pairs and test "
            f"({TESTS[protocol.test]}, corrected by Holm for {len(protocol.comparisons)} within "
            f"this table), with the {score} of each {case}. Difference: first minus second, seeds "
            f"averaged within a {case}, {case}s within a {group}; 95 % interval over {group}s."
        )
        names = (f"{case}s", f"{group}s")
        table = rows_of({one.name: compared_row(one, *names) for one in made})
        title = f"Planned comparisons on the {score}"
        parts = [
            " ".join(compared_text(one, protocol, spoken or score) for one in made),
            Table(f"{of}_comparisons", title, note, table, first="comparison"),
        ]
    return parts + [f"Planned but not made on {of}: {n} ({why})" for n, why in not_made.items()]


def lacking(results: Results, scores: pd.DataFrame, of: str) -> str:
    """Name the conditions, or how many of their trainings, that have no scores of something."""
    scored = Counter(name for name, *_ in by_training(scores))
    without = [name for name in results.conditions if name not in scored]
    told = [f"No {of} were scored of {listed(without)}."] if without else []
    told += [
        f"Of {name} only {scored[name]} of {number} trainings have scores of {of}."
        for name, number in results.trainings.items()
        if 0 < scored[name] < number
    ]
    return " ".join(told)
