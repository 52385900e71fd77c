"""The comparisons that a study's protocol names: tests over cases, and what each seed says."""

from typing import NamedTuple

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.statistics import (
    Comparison,
    compare_cases,
    compare_subgroups,
    holm,
    seed_differences,
)
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.results import Replicate, Results, average_cases


class Compared(NamedTuple):
    """One planned comparison.

    Attributes:
        first: condition.
        second: condition it is compared with; the difference is first minus second.
        overall: on the domain of the protocol, or on all cases.
        p_holm: of the protocol's test, corrected for all planned comparisons.
        seeds: difference of each replicate.
        subgroups: the same in each domain, corrected over the domains; None for one domain.
        shared: number of cases that both were tested on, of those that either was.
    """

    first: str
    second: str
    overall: Comparison
    p_holm: float
    seeds: dict[Replicate, float]
    subgroups: pd.DataFrame | None
    shared: tuple[int, int]

    @property
    def name(self) -> str:
        """What the row is called."""
        return f"{self.first} - {self.second}"

    def seeds_agree(self) -> bool:
        """Tell whether the difference has the same sign with every seed."""
        signs = [value > 0 for value in self.seeds.values()]
        return bool(signs) and (all(signs) or not any(signs))

    def is_found(self, alpha: float) -> bool:
        """Tell whether a difference may be claimed: a small p, and no seed against it.

        Tests over cases say nothing about other trainings of the same networks, which is why the
        seeds must agree too.
        """
        return self.p_holm < alpha and self.seeds_agree()


def compare_all(results: Results, protocol: Protocol) -> list[Compared]:
    """Make every comparison of the protocol whose conditions have results.

    Raises:
        DataError: two conditions have no seed or no test case in common, or the protocol's domain
            has no case.
    """
    made = []
    for first, second in protocol.comparisons:
        if first not in results.conditions or second not in results.conditions:
            continue
        made.append(_compare(first, second, results, protocol))
    corrected = holm([p_value(compared.overall, protocol) for compared in made])
    return [one._replace(p_holm=p) for one, p in zip(made, corrected, strict=True)]


def _compare(first: str, second: str, results: Results, protocol: Protocol) -> Compared:
    """Compare two conditions on the replicates and the cases that both have."""
    ones, twos = results.by_seed(first), results.by_seed(second)
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
    return Compared(
        first,
        second,
        compare_cases(chosen(one), chosen(two)),
        float("nan"),
        seed_differences(
            {key: chosen(ones[key]) for key in replicates},
            {key: chosen(twos[key]) for key in replicates},
        ),
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
