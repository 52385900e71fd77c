"""What a study found, in sentences for a reader; how sure it is stands in `certainty`."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_monai.blocks import METADATA_VARIANTS
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.scores import Spread
from metaseg_monai.study.report.words import (
    compared_text,
    glossary,
    is_primary,
    primary_not_made,
)

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
