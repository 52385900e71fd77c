"""How sure a study is of what it found, and what it does not show, in sentences for a reader."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.comparable import counted, same_cases, tested_on
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.run_files import listed
from metaseg_monai.study.report.words import TESTS, drawn_over
from metaseg_monai.study.results import Results


def how_sure(
    results: Results,
    protocol: Protocol,
    compared: Sequence[Compared],
    history: Sequence[Mapping[str, Any]],
    reasons: Sequence[str] = (),
) -> str:
    """Say on how many cases and seeds this rests, which test was made, and when it was fixed.

    Args:
        results: of the study.
        protocol: of the study.
        compared: what was compared.
        history: when something was fixed.
        reasons: why conditions cannot be compared, see `why_not_comparable`.
    """
    numbers = [len(by_seed) for by_seed in results.conditions.values()]
    trainings = _trainings(max(numbers))
    if min(numbers) < max(numbers):
        trainings = f"{min(numbers)} to {max(numbers)} trainings"
    cases, groups = _sizes(results)
    sentences = [f"{_tested(results)} {trainings} of each condition.", *reasons]
    if compared:
        planned = len(protocol.comparisons)
        sentences.append(
            f"Compared are F1 scores case by case, seeds averaged within a case and cases within "
            f"their group, by a {TESTS[protocol.test]}; intervals are 95 % and drawn over "
            f"{drawn_over(cases, groups)}."
            + (f" p-values are corrected for {planned} comparisons (Holm)." if planned > 1 else "")
        )
    left_out = max((one.overall.empty for one in compared), default=0)
    if left_out:
        sentences.append(
            f"Up to {left_out} cases are left out of a comparison: empty in the target and in a "
            "prediction, they have no score. See the table of false pixels on empty targets."
        )
    if not history:
        sentences.append("Nothing was fixed before these runs: read them as a first look.")
    else:
        first, last = history[0], history[-1]
        fixed = f"Conditions, settings, test and comparisons were fixed on {_day(first['at'])}"
        if len(history) == 1 and not first["finished_runs"]:
            sentences.append(f"{fixed}, before any run had a result.")
        else:
            seen = first["finished_runs"] if len(history) == 1 else last["finished_runs"]
            changed = f" and changed on {_day(last['at'])}" if len(history) > 1 else ""
            sentences.append(
                f"{fixed}{changed}, when {seen} runs had results: read the comparisons as "
                "exploratory."
            )
    if protocol.notes:
        sentences.append(f"Noted with it: {protocol.notes}")
    sentences += _sample_size(protocol, compared)
    if results.missing:
        sentences.append(
            f"Without result and left out are {len(results.missing)} of the planned runs: "
            f"{', '.join(list(results.missing)[:6])}{' ...' if len(results.missing) > 6 else ''}."
        )
    return " ".join(sentences)


def not_shown(results: Results, protocol: Protocol, compared: Sequence[Compared]) -> str:
    """Say what nobody should conclude from the report."""
    sentences = []
    replicates = min(len(by_seed) for by_seed in results.conditions.values())
    over = drawn_over(*_sizes(results))
    kind = over.partition(" ")[0]
    if compared:
        sentences.append(
            f"Intervals over {over} and p-values are about other {kind} like these, for the "
            f"networks that were trained. {_few_trainings(replicates)}"
        )
    elif len(results.conditions) > 1:
        sentences.append(
            "No comparison was planned: differences between rows are described, not tested."
        )
    if any(one.strength(protocol.alpha) != "found" for one in compared):
        sentences.append(
            f"A difference that was not found may still exist: the two intervals, over {kind} and "
            "over trainings, show how large it could be."
        )
    sentences.append("Other data, other networks and clinical use were not tested.")
    return " ".join(sentences)


def facts(results: Results) -> dict[str, str]:
    """What stands beside the lead of a report, in a few words each."""
    domains = results.cases(next(iter(results.conditions)))["domain"].nunique()
    told = {
        "Conditions": str(len(results.conditions)),
        "Tested on": _fact(results),
        "Domains": str(domains),
    }
    if results.study is not None:
        seeds = sorted({key.seed for by_seed in results.conditions.values() for key in by_seed})
        told["Training seeds"] = ", ".join(map(str, seeds))
        told["Bundle"] = Path(results.study.bundle).name
    return told


def _tested(results: Results) -> str:
    """What was tested on, by conditions where they differ, as the start of a sentence."""
    sets = same_cases(results)
    told = [
        f"{counted(cases)} in {_count(cases['group'].nunique(), 'group')}"
        + (f" for {listed(names)}" if len(sets) > 1 else "")
        for names, cases in sets.items()
    ]
    return "; ".join(told) + (";" if len(sets) > 1 else ",")


def _fact(results: Results) -> str:
    """The same in few words."""
    sets = same_cases(results)
    told = [
        (f"{listed(names)}: " if len(sets) > 1 else "")
        + f"{_count(len(cases), 'case')} of {_count(cases['group'].nunique(), 'group')} "
        + f"({listed(sorted(set(cases['split'])))})"
        for names, cases in sets.items()
    ]
    return "; ".join(told)


def _sizes(results: Results) -> tuple[int, int]:
    """Number of cases and of their groups, of all conditions together."""
    cases = pd.concat(tested_on(results).values())
    return cases["case"].nunique(), cases["group"].nunique()


def _few_trainings(replicates: int) -> str:
    if replicates == 1:
        return "One training says nothing about other trainings of the same networks."
    return (
        f"How other trainings would come out is judged from {replicates} of them only, by the "
        "interval over trainings."
    )


def _sample_size(protocol: Protocol, compared: Sequence[Compared]) -> list[str]:
    made_of = {one.overall.groups for one in compared}
    if protocol.sample_size is None or not made_of or made_of == {protocol.sample_size}:
        return []
    sizes = ", ".join(map(str, sorted(made_of)))
    return [
        f"Planned were comparisons of {protocol.sample_size} groups (patients, wells, or images "
        f"where each is its own); they are made of {sizes}."
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _trainings(count: int) -> str:
    return "one training" if count == 1 else f"{count} trainings"


def _day(timestamp: str) -> str:
    return timestamp[:16].replace("T", " ") + " UTC"
