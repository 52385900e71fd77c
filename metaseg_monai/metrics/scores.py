"""Scores from per-case counts: small formulas over tables, nothing that needs an image.

A table of counts has the columns of `COUNT_COLUMNS`: one row for each case, test mode and
foreground class. The aggregates are named as in the contract of the project: *pooled* (counts
added over all cases), *average* (unweighted mean of the domains' pooled scores) and *case mean*.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from metaseg_monai.metrics.statistics import group_interval, score_interval

DRAWS = 2000  # bootstrap samples of an interval
AGGREGATES = {"combined", "average"}  # which no domain may be named as
COUNT_COLUMNS = ["case", "group", "split", "mode", "domain", "class", "tp", "fp", "fn", "tn"]


IMAGE_SCORES = ("medmae", "psnr", "ssim", "pearson", "sharpness")  # see `metrics.images`


class Score(NamedTuple):
    """The score that conditions are ranked by: its name, whether high or low is best, the ends."""

    name: str
    best: Literal["high", "low"]
    ends: str

    @property
    def kind(self) -> str:
        """What `pooled_score` is: of an error the mean, as nothing of it can be pooled."""
        return "Pooled" if self.best == "high" else "Mean"


F1 = Score("F1", "high", "0: no overlap, 1: perfect")
MEDMAE = Score("medMAE", "low", "0: perfect; lower is better")


def score_of(counts: pd.DataFrame) -> Score:
    """What the rows of a ``counts.csv`` are scored by: F1, or medMAE where labels are images."""
    return MEDMAE if "medmae" in counts else F1


def pooled_score(counts: pd.DataFrame) -> float:
    """`pooled_f1`; where labels are images the mean medMAE over cases, and over channels then.

    medMAE has no counts that could be pooled: each image has a median of its own.
    """
    if score_of(counts) is F1:
        return pooled_f1(counts)
    means = counts.groupby("class")["medmae"].mean()
    return _mean_of_known(means)


def pooled_score_by(counts: pd.DataFrame, column: str) -> dict[str, float]:
    """`pooled_score` of each value of a column (``domain``, ``mode``), in table order."""
    return {str(key): pooled_score(part) for key, part in counts.groupby(column, sort=False)}


def average_score(counts: pd.DataFrame) -> float:
    """Unweighted mean of the domains' pooled scores (paper table 1, column "Average")."""
    return _mean_of_known(pooled_score_by(counts, "domain").values())


def case_scores(counts: pd.DataFrame) -> pd.DataFrame:
    """`case_f1`; where labels are images, ``f1`` is the mean medMAE of a case's channels."""
    if score_of(counts) is F1:
        return case_f1(counts)
    of_case = counts.groupby(["case", "group", "domain"], sort=False)["medmae"].mean()
    return of_case.rename("f1").reset_index()


def label_sizes(counts: pd.DataFrame) -> "pd.Series[int]":
    """How many pixels of its class, or where labels are images how many pixels, a label has."""
    return counts["tp"] + counts["fn"] if score_of(counts) is F1 else counts["pixels"]


class CaseMean(NamedTuple):
    """Mean over cases, its interval over groups, and how many cases it is made of."""

    mean: float
    low: float
    high: float
    cases: int
    empty: int


def f1(tp: float, fp: float, fn: float) -> float:
    """F1 (Dice) score 2TP / (2TP + FP + FN), thesis 3.4; NaN if target and prediction are empty.

    >>> f1(tp=3, fp=1, fn=1)
    0.75
    """
    denominator = 2 * tp + fp + fn
    return float(2 * tp / denominator) if denominator else math.nan


def iou(tp: float, fp: float, fn: float) -> float:
    """Intersection over union TP / (TP + FP + FN); NaN if target and prediction are empty.

    >>> iou(tp=3, fp=1, fn=1)
    0.6
    """
    denominator = tp + fp + fn
    return float(tp / denominator) if denominator else math.nan


def pooled_f1(counts: pd.DataFrame) -> float:
    """F1 of the counts added over all cases; with several classes the mean of the classes' F1.

    NaN when no case has a foreground pixel in target or prediction.
    """
    of, cells = counts["class"].to_numpy(), counts[["tp", "fp", "fn"]].to_numpy()
    return _mean_of_known(f1(*cells[of == number].sum(axis=0)) for number in np.unique(of))


def pooled_iou(counts: pd.DataFrame) -> float:
    """IoU of the counts added over all cases, as `pooled_f1` (thesis 3.4)."""
    of, cells = counts["class"].to_numpy(), counts[["tp", "fp", "fn"]].to_numpy()
    return _mean_of_known(iou(*cells[of == number].sum(axis=0)) for number in np.unique(of))


def pooled_counts(counts: pd.DataFrame) -> dict[str, float]:
    """Counts of one class added over all cases, with their F1, F1 error (thesis 3.4) and IoU."""
    cells = {name: int(counts[name].sum()) for name in ("tp", "fp", "fn")}
    return {**cells, "f1": f1(**cells), "f1_error": 1 - f1(**cells), "iou": iou(**cells)}


def pooled_f1_by(counts: pd.DataFrame, column: str) -> dict[str, float]:
    """`pooled_f1` of each value of a column (``domain``, ``class``, ``mode``), in table order."""
    return {str(key): pooled_f1(part) for key, part in counts.groupby(column, sort=False)}


def average_f1(counts: pd.DataFrame) -> float:
    """Unweighted mean of the domains' pooled F1 (paper table 1, column "Average")."""
    return _mean_of_known(pooled_f1_by(counts, "domain").values())


def _mean_of_known(scores: Iterable[float]) -> float:
    known = [score for score in scores if not np.isnan(score)]
    return float(np.mean(known)) if known else math.nan


def case_f1(counts: pd.DataFrame) -> pd.DataFrame:
    """One row for each case: ``case, group, domain, f1``.

    A case is empty (F1 is NaN) where target and prediction are empty in every class; where only
    one of them is empty, F1 is 0. Several classes: mean of the classes that are not empty.
    """
    tp, fp, fn = (counts[name] for name in ("tp", "fp", "fn"))
    scored = counts.assign(f1=2 * tp / (2 * tp + fp + fn))  # NaN of 0 / 0
    return scored.groupby(["case", "group", "domain"], sort=False)["f1"].mean().reset_index()


def case_mean_f1(counts: pd.DataFrame) -> CaseMean:
    """Mean of `case_f1` with its 95 % `score_interval`, the unit of which is the group.

    Args:
        counts: counts of one model, one seed and one test mode.

    Returns:
        mean, interval, number of cases with a score and number of empty cases left out.
    """
    cases = case_f1(counts)
    empty = int(cases["f1"].isna().sum())
    scored = cases.dropna(subset="f1")
    if scored.empty:
        return CaseMean(math.nan, math.nan, math.nan, 0, empty)
    sums, sizes = scored.groupby("group")["f1"].agg(["sum", "size"]).to_numpy(float).T
    low, high = score_interval(sums / sizes, sizes)
    return CaseMean(float(scored["f1"].mean()), low, high, len(scored), empty)


def case_mean_medmae(counts: pd.DataFrame) -> CaseMean:
    """Mean of the cases' medMAE with its 95 % `group_interval`, the unit of which is the group.

    Args:
        counts: scores of predicted images of one model, one seed and one test mode.

    Returns:
        As `case_mean_f1`; empty are the cases whose label has a median of 0, which have no medMAE.
    """
    cases = case_scores(counts)
    scored = cases.dropna(subset="f1")
    empty = len(cases) - len(scored)
    if scored.empty:
        return CaseMean(math.nan, math.nan, math.nan, 0, empty)
    sums, sizes = scored.groupby("group")["f1"].agg(["sum", "size"]).to_numpy(float).T
    low, high = group_interval(
        lambda times: (times @ sums) / (times @ sizes), len(sums), DRAWS, seed=0
    )
    return CaseMean(float(scored["f1"].mean()), low, high, len(scored), empty)


def mode_matrix(counts: pd.DataFrame) -> pd.DataFrame:
    """Test-mode matrix (thesis table 4.13): rows ``combined`` and each domain, columns the modes.

    ``combined`` is the pooled F1 over all cases of the mode. The domains stand in the order of the
    fixed labels, so that each label's own domain lies on the diagonal.
    """
    modes = list(dict.fromkeys(counts["mode"]))
    fixed = [mode.partition(":")[2].rpartition("=")[2] for mode in modes if "fixed:" in mode]
    present = list(dict.fromkeys(counts["domain"].astype(str)))
    domains = sorted(present, key=lambda name: fixed.index(name) if name in fixed else len(fixed))
    columns = {}
    for mode in modes:
        part = counts[counts["mode"] == mode]
        columns[mode] = {"combined": pooled_score(part), **pooled_score_by(part, "domain")}
    return pd.DataFrame(columns, index=["combined", *domains])


def summarise(counts: pd.DataFrame) -> dict[str, object]:
    """All scores of one model as plain numbers for ``summary.json``.

    ``per_class`` holds the domains (for tasks that name a class, its classes); ``pooled`` holds
    the label classes.
    """
    normal = counts[counts["mode"] == "normal"]
    if score_of(counts) is not F1:
        names = list(IMAGE_SCORES)
        return {
            "mean": normal[names].mean().to_dict(),
            "average_medmae": average_score(normal),
            "channels": normal.groupby("channel", sort=False)[names].mean().to_dict("index"),
            "per_domain": normal.groupby("domain", sort=False)[names].mean().to_dict("index"),
            "modes": {
                str(mode): {"medmae": pooled_score(part), **pooled_score_by(part, "domain")}
                for mode, part in counts.groupby("mode", sort=False)
            },
        }
    mean = case_mean_f1(normal)
    return {
        "pooled_f1": pooled_f1(normal),
        "average_f1": average_f1(normal),
        "case_mean_f1": mean._asdict(),
        "pooled": [
            {"class": number, **pooled_counts(part)} for number, part in normal.groupby("class")
        ],
        "per_class": pooled_f1_by(normal, "domain"),
        "modes": {
            str(mode): {"pooled_f1": pooled_f1(part), "per_class": pooled_f1_by(part, "domain")}
            for mode, part in counts.groupby("mode", sort=False)
        },
    }
