"""The comparisons that a study's protocol names: tests over cases, and what each seed says."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.statistics import (
    Comparison,
    SeedInterval,
    compare_cases,
    compare_subgroups,
    holm,
    seed_differences,
    seed_interval,
)
from metaseg_monai.reporting.runs import (
    Replicate,
    Results,
    average_cases,
    different_labels,
    of_conditions,
)
from metaseg_monai.study.design import Protocol

Strength = Literal["found", "these trainings", "mixed", "none", "untested"]


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
    """

    first: str
    second: str
    overall: Comparison
    p_holm: float
    seeds: dict[Replicate, float]
    trainings: SeedInterval
    subgroups: pd.DataFrame | None
    shared: tuple[int, int]

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.first} - {self.second}"

    def strength(self, alpha: float) -> Strength:
        """Tell how much may be claimed.

        A test over cases says nothing about other trainings of the same networks. So a difference
        is *found* where the corrected p is below alpha and the interval over trainings lies on one
        side of 0 as well; it is one of *these trainings* where all of them have the same sign but
        that interval holds 0, and *mixed* where they do not.
        """
        if self.overall.groups < 2 or math.isnan(self.p_holm):
            return "untested"
        if self.p_holm >= alpha:
            return "none"
        if self.trainings.low > 0 or self.trainings.high < 0:
            return "found"
        differences = self.seeds.values()
        one_sign = all(d > 0 for d in differences) or all(d < 0 for d in differences)
        return "these trainings" if one_sign else "mixed"


Scores = Mapping[str, Mapping[Replicate, pd.DataFrame]]
"""Tables with the columns case, group, domain and f1 (any score) by condition and replicate."""


def compare_all(
    results: Results, protocol: Protocol, scores: Scores | None = None
) -> tuple[list[Compared], dict[str, str]]:
    """Make every comparison of the protocol.

    Args:
        results: of the study.
        protocol: whose comparisons are made.
        scores: what is compared; None is the F1 of each case.

    Returns:
        Those that could be made, corrected for all that were planned, and of the others the name
        with the reason.
    """
    made, not_made = [], {}
    for first, second in protocol.comparisons:
        known = results.conditions if scores is None else scores
        absent = [name for name in (first, second) if name not in known]
        try:
            if absent:
                raise DataError(f"{', '.join(absent)} has no results")
            if scores is None:
                made.append(compare_pair(first, second, results, protocol))
            else:
                pair = (scores[first], scores[second])
                made.append(compare_scores(first, second, *pair, protocol))
        except DataError as error:
            not_made[f"{first} - {second}"] = str(error)
    # what could not be made still counts: otherwise a failed run would make the others look surer
    planned = [p_value(one.overall, protocol) for one in made] + [1.0] * len(not_made)
    corrected = holm(planned)[: len(made)]
    return [one._replace(p_holm=p) for one, p in zip(made, corrected, strict=True)], not_made


def compare_pair(first: str, second: str, results: Results, protocol: Protocol) -> Compared:
    """Compare the F1 of two conditions, see `compare_scores`.

    Raises:
        DataError: as there, or the labels of the cases that both have differ in size.
    """
    if reasons := different_labels(of_conditions(results, first, second), {}):
        raise DataError(reasons[0])
    ones, twos = results.by_seed(first), results.by_seed(second)
    return compare_scores(first, second, ones, twos, protocol)


def compare_scores(
    first: str,
    second: str,
    ones: Mapping[Replicate, pd.DataFrame],
    twos: Mapping[Replicate, pd.DataFrame],
    protocol: Protocol,
) -> Compared:
    """Compare two conditions on the replicates and the cases that both have, uncorrected.

    Raises:
        DataError: they have no seed or no test case in common, or the protocol's domain has none.
    """
    replicates = [key for key in ones if key in twos]
    if not replicates:
        raise DataError(
            f"{first} and {second} have no training seed in common; run both with the same seeds."
        )
    one = average_cases({key: ones[key] for key in replicates})
    two = average_cases({key: twos[key] for key in replicates})
    shared, either = set(one["case"]) & set(two["case"]), set(one["case"]) | set(two["case"])
    if not shared:
        raise DataError(
            f"{first} and {second} have no test case in common; evaluate both on the same split "
            "of the same table."
        )

    def chosen(cases: pd.DataFrame) -> pd.DataFrame:
        return _of_domain(cases[cases["case"].isin(shared)], protocol.domain)

    of_both = (one[one["case"].isin(shared)], two[two["case"].isin(shared)])
    several = of_both[0]["domain"].nunique() > 1
    overall = compare_cases(chosen(one), chosen(two))
    seeds = seed_differences(
        {key: chosen(ones[key]) for key in replicates},
        {key: chosen(twos[key]) for key in replicates},
    )
    return Compared(
        first,
        second,
        overall,
        p_value(overall, protocol),
        seeds,
        seed_interval(seeds),
        compare_subgroups(*of_both, test=protocol.test) if several else None,
        (len(shared), len(either)),
    )


def p_value(comparison: Comparison, protocol: Protocol) -> float:
    """Return the p-value of the protocol's test."""
    return {
        "t": comparison.p_t,
        "wilcoxon": comparison.p_wilcoxon,
        "permutation": comparison.p_permutation,
    }[protocol.test]


def _of_domain(cases: pd.DataFrame, domain: str | None) -> pd.DataFrame:
    if domain is None:
        return cases
    chosen = cases[cases["domain"] == domain]
    if chosen.empty:
        raise DataError(
            f"The protocol's domain {domain!r} has no test case; there are "
            f"{', '.join(cases['domain'].unique())}."
        )
    return chosen
