"""What a study found, how sure it is, and what it does not show, in sentences for a reader."""

import math
from collections.abc import Mapping, Sequence

from metaseg_monai.blocks import METADATA_VARIANTS
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.run_files import class_text
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


def score_name(label_class: int | None, names: Mapping[int, str]) -> str:
    """Name the score of the label class that a protocol is about.

    >>> score_name(2, {2: "tumour"}), score_name(2, {}), score_name(None, {})
    ('F1 of tumour', 'F1 of class 2', 'F1')
    """
    return "F1" if label_class is None else f"F1 of {class_text(names, label_class)}"


def found(
    protocol: Protocol,
    table: Spread,
    compared: Sequence[Compared],
    not_made: Mapping[str, str],
    score: str = "F1",
) -> list[str]:
    """Say which condition scored best, and what each planned comparison says, in paragraphs."""
    domain = protocol.domain
    column = protocol.aggregate if domain is None or domain not in table.mean else domain
    scores = table.mean[column].dropna()
    if scores.empty:
        return ["No condition has a score: no test case holds a foreground pixel."]
    best, worst = str(scores.idxmax()), str(scores.idxmin())
    measure = {
        "combined": f"{score} pooled over all cases",
        "average": f"average {score} over the domains",
    }.get(column, f"{score} on {column}")
    said = [f"The {measure} of {best} is {scores[best]:.3f} (0: no overlap, 1: perfect)."]
    if len(scores) > 1:
        said = [
            f"The highest {measure} is {scores[best]:.3f}, of {best}; the lowest "
            f"{scores.min():.3f}, of {worst} (0: no overlap with the truth, 1: perfect)."
        ]
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
    interval = f"{overall.mean:+.3f} [{overall.low:+.3f}, {overall.high:+.3f}]"
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
