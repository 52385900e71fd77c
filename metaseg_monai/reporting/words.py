"""What a condition, a score, a comparison and a p-value are called in the text of a report."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.networks.variants import METADATA_VARIANTS
from metaseg_monai.reporting.comparisons import Compared
from metaseg_monai.reporting.runs import Results, class_text, counted, listed, same_cases, tested_on
from metaseg_monai.reporting.scores import Spread
from metaseg_monai.study.design import Protocol

TESTS = {
    "t": "paired t-test",
    "wilcoxon": "Wilcoxon signed-rank test",
    "permutation": "paired permutation test",
}
CONDITIONS = {
    "none": "U-Net without gates and without metadata",
    "se": "channels weighted by the image alone (squeeze-and-excitation)",
    "me": "channels weighted by the metadata alone",
    "sme": "channels weighted by image and metadata together",
    "film": "channels scaled and shifted by the metadata (FiLM)",
    "film-ivadomed": "FiLM as ivadomed builds it, scale and shift between 0 and 1",
    "experts": "one SE network for each domain, trained for as many epochs",
    "experts-steps": "one SE network for each domain, trained for as many steps",
}


def glossary(conditions: Sequence[str]) -> dict[str, str]:
    """Say what the known conditions are.

    >>> glossary(["sme-dummy", "mine"])
    {'sme-dummy': 'as sme, but trained and tested with zeros instead of metadata'}
    """
    told = {}
    for name in conditions:
        if name in CONDITIONS:
            told[name] = CONDITIONS[name]
        elif (base := name.removesuffix("-dummy")) in CONDITIONS:
            told[name] = f"as {base}, but trained and tested with zeros instead of metadata"
    return told


def score_name(label_class: int | None, names: Mapping[int, str]) -> str:
    """Name the score of the label class that a protocol is about.

    >>> score_name(2, {2: "tumour"}), score_name(2, {}), score_name(None, {})
    ('F1 of tumour', 'F1 of class 2', 'F1')
    """
    return "F1" if label_class is None else f"F1 of {class_text(names, label_class)}"


def compared_text(one: Compared, protocol: Protocol, score: str = "F1") -> str:
    """Tell what one comparison says, and how far it reaches.

    Args:
        one: comparison of any score of cases.
        protocol: its domain, where it has one, is named: give one without it where `one` is of
            all cases.
        score: what was compared, as it is named in the middle of a sentence.
    """
    overall, trainings = one.overall, one.trainings
    where = f" on {protocol.domain}" if protocol.domain else ""
    pair = f"{one.first} and {one.second}"
    strength = one.strength(protocol.alpha)
    if strength == "untested":
        why = {0: "no case has a score in both", 1: "there is only one group"}
        reason = why.get(overall.groups, "the test gives no p-value")
        return f"{pair} cannot be compared in the {score}{where}: {reason}."
    interval = with_interval(overall.mean, overall.low, overall.high)
    if math.isnan(overall.low):
        interval = f"{overall.mean:+.3f} (too few groups for an interval)"
    p = f"p {p_text(one.p_holm)}" if one.p_holm < 0.001 else f"p = {p_text(one.p_holm)}"
    if strength == "none":
        return f"No difference of {pair} in the {score}{where} was shown: {interval}, {p}."
    seeds = by_training(one)
    higher = f"a {'higher' if overall.mean > 0 else 'lower'} {score} than {one.second}{where}"
    if strength == "found":
        return f"{one.first} has {higher}: {interval} on average, {p}, {seeds}."
    if len(one.seeds) == 1:
        return (
            f"{one.first} had {higher} in this one training: {interval}, {p}. Whether other "
            "trainings would is not tested."
        )
    over = (
        f"{seeds}; over trainings [{trainings.low:+.3f}, {trainings.high:+.3f}]; over "
        f"{drawn_over(overall.cases, overall.groups)} {interval}, {p}"
    )
    if strength == "these trainings":
        return (
            f"{one.first} had {higher} in each of these trainings ({over}), but they differ too "
            "much to say the same of others."
        )
    return (
        f"{pair} differ in the {score}{where}, but not in the same direction with every training "
        f"({over}): no difference is claimed."
    )


def with_interval(mean: float, low: float, high: float) -> str:
    """Write a difference with its interval, where it has one.

    >>> with_interval(0.1, 0.02, 0.2), with_interval(0.1, math.nan, math.nan)
    ('+0.100 [+0.020, +0.200]', '+0.100 (too few for an interval)')
    """
    if math.isnan(low):
        return f"{mean:+.3f} (too few for an interval)"
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def drawn_over(cases: int, groups: int) -> str:
    """Name what tests and intervals are made over.

    >>> drawn_over(437, 32), drawn_over(8, 8)
    ('groups (patients, wells)', 'cases')
    """
    return "groups (patients, wells)" if cases > groups else "cases"


def is_primary(one: Compared, protocol: Protocol) -> bool:
    """Tell whether a comparison is the protocol's first, whichever of them could be made."""
    return [one.first, one.second] == protocol.comparisons[0]


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


def by_training(one: Compared) -> str:
    """Write the difference of each training, with its seed."""
    several = len({key.data_seed for key in one.seeds}) > 1
    return ", ".join(
        f"seed {key.seed}{f' on data {key.data_seed}' if several else ''}: {value:+.3f}"
        for key, value in one.seeds.items()
    )


# What a study found, in sentences for a reader; how sure it is stands in `certainty`.

LITTLE = 0.005  # F1; what nobody would notice


def found(
    protocol: Protocol,
    table: Spread,
    compared: Sequence[Compared],
    not_made: Mapping[str, str],
    score: str = "F1",
    reasons: Sequence[str] = (),
    classes: int = 1,
) -> list[str]:
    """Say which condition scored best, and what each planned comparison says, in paragraphs.

    Args:
        protocol: of the study.
        table: F1 of the conditions.
        compared: comparisons that were made.
        not_made: why the others were not.
        score: what the F1 is called.
        reasons: why conditions cannot be compared, which are then not ranked.
        classes: number of the label's classes that the F1 is the mean of.
    """
    domain = protocol.domain
    column = protocol.aggregate if domain is None or domain not in table.mean else domain
    scores = table.mean[column].dropna()
    if scores.empty:
        return ["No condition has a score: no test case holds a foreground pixel."]
    measure = {
        "combined": f"{score} pooled over all cases",
        "average": f"average {score} over the domains",
    }.get(column, f"{score} on {column}")
    measure += f" (mean of {classes} classes)" if classes > 1 else ""
    said = [_scores_text(scores, measure, ranked=not reasons), *reasons]
    if lacking := primary_not_made(protocol, not_made):
        said.append(lacking + (" The others are secondary." if compared else ""))
    for one in compared:
        primary = is_primary(one, protocol) and len(protocol.comparisons) > 1
        said.append(
            f"{'Primary comparison: ' if primary else ''}{compared_text(one, protocol, score)}"
        )
    if others := [name for name in not_made if name not in lacking]:
        said.append(f"Planned but not made: {', '.join(others)}.")
    if about := " ".join(_about_metadata(protocol, compared)):
        said.append(about)
    if described := _not_planned(protocol, table, column):
        said.append(described)
    if told := glossary([n for n in table.mean.index if any(n in p for p in protocol.comparisons)]):
        said.append("In short: " + "; ".join(f"{name} - {text}" for name, text in told.items()))
    return said


def reliance_words(reliance: Spread | None, score: str = "F1") -> list[str]:
    """Say how far each condition depends on its metadata, where there are not too many."""
    if reliance is None or "normal - shuffle" not in reliance.mean or len(reliance.mean) > 6:
        return []
    losses, spreads = (frame["normal - shuffle"] for frame in reliance)
    losses = losses.dropna()  # a condition may have been tested without foreign metadata
    told = [
        f"{name} loses {loss:.3f}{_half_range(spread, ' (', ')')}"
        if loss > LITTLE and not loss <= spread  # the spread of one training is unknown
        else f"{name} hardly depends on it ({-loss:+.3f})"
        for name, loss, spread in zip(losses.index, losses, spreads[losses.index], strict=True)
    ]
    return [f"Pooled {score} with foreign instead of true metadata: {', '.join(told)}."]


def _scores_text(scores: pd.Series, measure: str, ranked: bool) -> str:
    best, worst = str(scores.idxmax()), str(scores.idxmin())
    if len(scores) == 1:
        return f"The {measure} of {best} is {scores[best]:.3f} (0: no overlap, 1: perfect)."
    if not ranked:
        told = ", ".join(f"{value:.3f} of {name}" for name, value in scores.items())
        return f"The {measure} is {told} (0: no overlap with the truth, 1: perfect)."
    return (
        f"The highest {measure} is {scores[best]:.3f}, of {best}; the lowest "
        f"{scores[worst]:.3f}, of {worst} (0: no overlap with the truth, 1: perfect)."
    )


def _not_planned(protocol: Protocol, table: Spread, column: str) -> str:
    """Give the scores of metadata variants that no planned comparison is about."""
    planned = {name for pair in protocol.comparisons for name in pair}
    others = [name for name in METADATA_VARIANTS if name in table.mean.index]
    others = [name for name in others if name not in planned]
    if not others or not planned:
        return ""
    told = ", ".join(
        f"{name} {table.mean[column][name]:.3f}{_half_range(table.half_range[column][name], ' ')}"
        for name in others
    )
    return f"Not compared by plan, only described: {told}."


def _half_range(value: float, before: str, after: str = "") -> str:
    return "" if math.isnan(value) else f"{before}± {value:.3f}{after}"


def _about_metadata(protocol: Protocol, compared: Sequence[Compared]) -> list[str]:
    """Say of each metadata variant whether metadata helped, or whether a dummy explains it."""
    by_name = {(one.first, one.second): one for one in compared}
    sentences = []
    for name in METADATA_VARIANTS:
        against_se = by_name.get((name, "se"))
        against_dummy = by_name.get((name, f"{name}-dummy"))
        if against_se is None:
            continue
        if not _higher(against_se, protocol):
            sentences.append(f"Metadata was not shown to help {name} against SE.")
        elif against_dummy is None:
            sentences.append(
                f"Whether the gain of {name} comes from the metadata or from the larger gates is "
                "open: it was not compared with its dummy."
            )
        elif _higher(against_dummy, protocol):
            sentences.append(
                f"{name} also scores higher than the same network fed zeros, so the metadata "
                "helped, not the larger gates."
            )
        else:
            sentences.append(
                f"{name} was not shown to score higher than the same network fed zeros: the dummy "
                "may explain its gain over SE."
            )
    return sentences


def _higher(one: Compared, protocol: Protocol) -> bool:
    return one.strength(protocol.alpha) == "found" and one.overall.mean > 0


# How sure a study is of what it found, and what it does not show, in sentences for a reader.


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


# The row that every table of planned comparisons has for one of them.


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
        "d_z": one.overall.effect,
        "p corrected": p_text(one.p_holm),
        "by training": by_training(one),
        "trainings, low": one.trainings.low,
        "trainings, high": one.trainings.high,
        cases: one.overall.cases,
        groups: one.overall.groups,
    }
