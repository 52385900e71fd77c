"""What a study found, how sure it is, and what it does not show, in sentences for a reader."""

import math
from collections.abc import Mapping, Sequence

from metaseg_monai.blocks import METADATA_VARIANTS
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.scores import Spread

TESTS = {
    "t": "paired t-test",
    "wilcoxon": "Wilcoxon signed-rank test",
    "permutation": "paired permutation test",
}


LITTLE = 0.005  # F1; what nobody would notice
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


def found(
    protocol: Protocol, table: Spread, compared: Sequence[Compared], not_made: Mapping[str, str]
) -> list[str]:
    """Say which condition scored best, and what each planned comparison says, in paragraphs."""
    domain = protocol.domain
    column = protocol.aggregate if domain is None or domain not in table.mean else domain
    scores = table.mean[column].dropna()
    if scores.empty:
        return ["No condition has a score: no test case holds a foreground pixel."]
    best, worst = str(scores.idxmax()), str(scores.idxmin())
    measure = {"combined": "F1 pooled over all cases", "average": "average F1 of the domains"}.get(
        column, f"F1 on {column}"
    )
    said = [f"The {measure} of {best} is {scores[best]:.3f} (0: no overlap, 1: perfect)."]
    if len(scores) > 1:
        said = [
            f"The highest {measure} is {scores[best]:.3f}, of {best}; the lowest "
            f"{scores.min():.3f}, of {worst} (0: no overlap with the truth, 1: perfect)."
        ]
    where = f" on {protocol.domain}" if protocol.domain else ""
    for number, one in enumerate(compared):
        primary = "Primary comparison: " if number == 0 and len(protocol.comparisons) > 1 else ""
        said.append(primary + _compared(one, protocol, where))
    if not_made:
        said.append(f"Planned but not made: {', '.join(not_made)}.")
    if about := " ".join(_about_metadata(protocol, compared)):
        said.append(about)
    if others := _not_planned(protocol, table, column):
        said.append(others)
    if told := glossary([n for n in table.mean.index if any(n in p for p in protocol.comparisons)]):
        said.append("In short: " + "; ".join(f"{name} - {text}" for name, text in told.items()))
    return said


def reliance_words(reliance: Spread | None) -> list[str]:
    """Say how far each condition depends on its metadata, where there are not too many."""
    if reliance is None or "normal - shuffle" not in reliance.mean or len(reliance.mean) > 6:
        return []
    losses, spreads = (frame["normal - shuffle"] for frame in reliance)
    told = [
        f"{name} loses {loss:.3f} (± {spread:.3f})"
        if loss > max(spread, LITTLE)
        else f"{name} hardly depends on it ({-loss:+.3f})"
        for name, loss, spread in zip(losses.index, losses, spreads, strict=True)
    ]
    return [f"Pooled F1 with foreign instead of true metadata: {', '.join(told)}."]


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


def _compared(one: Compared, protocol: Protocol, where: str) -> str:
    overall, pair = one.overall, f"{one.first} and {one.second}{where}"
    strength = one.strength(protocol.alpha)
    if strength == "untested":
        why = "one group" if overall.groups == 1 else "too few cases with a score"
        return f"{pair} cannot be tested: {why}."
    interval = f"{overall.mean:+.3f} [{overall.low:+.3f}, {overall.high:+.3f}]"
    p = f"p {p_text(one.p_holm)}" if one.p_holm < 0.001 else f"p = {p_text(one.p_holm)}"
    seeds = by_training(one)
    higher = "higher" if overall.mean > 0 else "lower"
    trainings = one.trainings
    if strength == "found":
        return (
            f"{one.first} scores {higher} than {one.second}{where}: mean case difference "
            f"{interval}, {p}, {seeds}."
        )
    if strength == "none":
        return f"No difference of {one.first} to {one.second}{where} was shown: {interval}, {p}."
    if len(one.seeds) == 1:
        return (
            f"{one.first} scored {higher} than {one.second}{where} in this one training: {interval}"
            f", {p}. Whether other trainings would is not tested."
        )
    over = f"over trainings [{trainings.low:+.3f}, {trainings.high:+.3f}]"
    if strength == "these trainings":
        return (
            f"{one.first} scored {higher} than {one.second}{where} in each of these trainings "
            f"({seeds}; {over}; over cases {interval}, {p}), but they differ too much to say the "
            "same of others."
        )
    return (
        f"{pair} differ, but not in the same direction with every training ({seeds}; {over}; over "
        f"cases {interval}, {p}): no difference is claimed."
    )


def _not_planned(protocol: Protocol, table: Spread, column: str) -> str:
    """Give the scores of metadata variants that no planned comparison is about."""
    planned = {name for pair in protocol.comparisons for name in pair}
    others = [name for name in METADATA_VARIANTS if name in table.mean.index]
    others = [name for name in others if name not in planned]
    if not others or not planned:
        return ""
    told = ", ".join(
        f"{name} {table.mean[column][name]:.3f} ± {table.half_range[column][name]:.3f}"
        for name in others
    )
    return f"Not compared by plan, only described: {told}."


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
