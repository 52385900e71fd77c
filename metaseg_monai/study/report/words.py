"""What a study found, how sure it is, and what it does not show, in sentences for a reader."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaseg_monai.blocks import METADATA_VARIANTS
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.comparisons import Compared, p_value
from metaseg_monai.study.report.scores import Spread
from metaseg_monai.study.results import Results

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


def found(protocol: Protocol, table: Spread, compared: Sequence[Compared]) -> list[str]:
    """Say which condition scored best, and what each planned comparison says, in paragraphs."""
    scores = table.mean[protocol.aggregate].dropna()
    if scores.empty:
        return ["No condition has a score: no test case holds a foreground pixel."]
    best, worst = str(scores.idxmax()), str(scores.idxmin())
    measure = "pooled F1" if protocol.aggregate == "combined" else "average F1 of the domains"
    said = [f"The {measure} of {best} is {scores[best]:.3f}."]
    if len(scores) > 1:
        said = [
            f"The highest {measure} is {scores[best]:.3f}, of {best}; the lowest "
            f"{scores.min():.3f}, of {worst}."
        ]
    where = f" on {protocol.domain}" if protocol.domain else ""
    said += [_compared(one, protocol, where) for one in compared]
    about = " ".join(_about_metadata(protocol, compared))
    return [*said, about] if about else said


def reliance_words(reliance: Spread | None) -> list[str]:
    """Say how far each condition depends on its metadata."""
    if reliance is None or "normal - shuffle" not in reliance.mean:
        return []
    losses = reliance.mean["normal - shuffle"]
    told = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return [f"With foreign metadata these networks lose pooled F1: {told}."]


def how_sure(
    results: Results,
    protocol: Protocol,
    compared: Sequence[Compared],
    history: Sequence[Mapping[str, Any]],
) -> str:
    """Say on how many cases and seeds this rests, which test was made, and when it was fixed."""
    numbers = [len(by_seed) for by_seed in results.conditions.values()]
    trainings = _trainings(max(numbers))
    if min(numbers) < max(numbers):
        trainings = f"{min(numbers)} to {max(numbers)} trainings"
    cases = results.cases(next(iter(results.conditions)))
    sentences = [
        f"{len(cases)} test cases in {cases['group'].nunique()} groups, {trainings} of each "
        "condition."
    ]
    if compared:
        planned = len(compared)
        sentences.append(
            f"Compared are F1 scores case by case, seeds averaged within a case and cases within "
            f"their group, by a {TESTS[protocol.test]}; intervals are 95 % and drawn over groups."
            + (f" p-values are corrected for {planned} comparisons (Holm)." if planned > 1 else "")
        )
    if not history:
        sentences.append("Nothing was fixed before these runs: read them as a first look.")
    else:
        first, last = history[0], history[-1]
        fixed = f"Conditions, test and comparisons were fixed on {_day(last['at'])}"
        if last["finished_runs"]:
            sentences.append(
                f"{fixed}, after {last['finished_runs']} runs had results (first fixed "
                f"{_day(first['at'])}): read the comparisons as exploratory."
            )
        else:
            sentences.append(f"{fixed}, before any run had a result.")
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
    if compared:
        sentences.append(
            "Intervals and p-values are about other cases like these, for the networks that were "
            f"trained. With {_trainings(replicates)} they say little about other trainings: a "
            "difference is claimed only where every seed shows it, which halves false claims "
            "where trainings vary much, but does not rule them out (docs/results.md, simulated "
            "studies)."
        )
    elif len(results.conditions) > 1:
        sentences.append(
            "No comparison was planned: differences between rows are described, not tested."
        )
    if any(not one.is_found(protocol.alpha) for one in compared):
        sentences.append(
            "A difference that was not found may still exist: the intervals show how large it "
            "could be."
        )
    sentences.append("Other data, other networks and clinical use were not tested.")
    return " ".join(sentences)


def p_text(p: float) -> str:
    """Write a p-value with three digits.

    >>> p_text(0.00004), p_text(0.0421), p_text(float("nan"))
    ('< 0.001', '0.042', '-')
    """
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _compared(one: Compared, protocol: Protocol, where: str) -> str:
    overall = one.overall
    interval = f"{overall.mean:+.3f} [{overall.low:+.3f}, {overall.high:+.3f}]"
    p = one.p_holm
    sure = f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"
    seeds = ", ".join(f"{value:+.3f}" for value in one.seeds.values())
    if one.is_found(protocol.alpha):
        verb = "scores higher than" if overall.mean > 0 else "scores lower than"
        return (
            f"{one.first} {verb} {one.second}{where}: mean case difference {interval}, {sure}, "
            f"{_every_seed(one)}."
        )
    if math.isnan(p_value(overall, protocol)):
        return f"{one.first} and {one.second}{where} cannot be tested: too few cases with a score."
    if p < protocol.alpha:
        return (
            f"{one.first} and {one.second}{where} differ by {interval} on average, but not in the "
            f"same direction with every training (seeds {seeds}): no difference is claimed."
        )
    return f"No difference of {one.first} to {one.second}{where} was shown: {interval}, {sure}."


def _every_seed(one: Compared) -> str:
    return "one seed" if len(one.seeds) == 1 else f"the same sign with all {len(one.seeds)} seeds"


def _about_metadata(protocol: Protocol, compared: Sequence[Compared]) -> list[str]:
    """Say of each metadata variant whether metadata helped, or whether a dummy explains it."""
    by_name = {(one.first, one.second): one for one in compared}
    sentences = []
    for name in METADATA_VARIANTS:
        against_se = by_name.get((name, "se"))
        against_dummy = by_name.get((name, f"{name}-dummy"))
        if against_se is None:
            continue
        gain = against_se.is_found(protocol.alpha) and against_se.overall.mean > 0
        if not gain:
            sentences.append(f"Metadata was not shown to help {name} against SE.")
        elif against_dummy is None:
            sentences.append(
                f"Whether the gain of {name} comes from the metadata or from the larger gates is "
                "open: it was not compared with its dummy."
            )
        elif against_dummy.is_found(protocol.alpha) and against_dummy.overall.mean > 0:
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


def _sample_size(protocol: Protocol, compared: Sequence[Compared]) -> list[str]:
    made_of = {one.overall.cases + one.overall.empty for one in compared}
    if protocol.sample_size is None or not made_of or made_of == {protocol.sample_size}:
        return []
    sizes = ", ".join(map(str, sorted(made_of)))
    return [f"Planned were comparisons of {protocol.sample_size} cases; they are made of {sizes}."]


def _trainings(count: int) -> str:
    return "one training" if count == 1 else f"{count} trainings"


def _day(timestamp: str) -> str:
    return timestamp[:16].replace("T", " ") + " UTC"
