"""What a condition, a score, a comparison and a p-value are called in the text of a report."""

import math
from collections.abc import Mapping, Sequence

from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.run_files import class_text

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
