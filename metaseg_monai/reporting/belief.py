"""Whether a mask is to be believed: intervals of areas, an alarm, and what wrong metadata cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.estimates import ALARM, SCORES, alarm_words
from metaseg_monai.evaluation.intervals import COVERAGE_FILE, read_coverage
from metaseg_monai.files import file_sha256, read_json
from metaseg_monai.metrics.conformal import POOLED, coverage_band
from metaseg_monai.metrics.scores import case_f1
from metaseg_monai.reporting.page import Details, Part, Section
from metaseg_monai.reporting.runs import TRAINING, Results, class_text, listed
from metaseg_monai.reporting.scores import over_groups, rows_of
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.words import LITTLE

MUCH = 0.05  # F1; a case that loses more is worse off


def belief_section(results: Results, folder: Path) -> Section | None:
    """Intervals, alarm, and what to do when the table is wrong; None where nothing is known.

    Args:
        results: of all classes.
        folder: of the runs, in or below which estimates may lie.
    """
    parts = [*coverage_parts(results), *alarm_parts(folder), *wrong_parts(results)]
    intro = "How far off areas may be, whether metadata fit their image, and what wrong ones cost."
    return Section("Is this mask to be believed?", intro, parts) if parts else None


# Do intervals of areas hold?


def coverage_parts(results: Results) -> list[Part]:
    """Coverage of each value's intervals on the test cases, and their width beside one for all."""
    found = results.read(COVERAGE_FILE, read_coverage)
    if found.empty:
        return []
    rows, missed = {}, list[str]()
    several = found["class"].nunique() > 1
    keys = ["condition", "mode", "class", "value"]
    grouped: Any = found.groupby(keys, sort=False)
    for (condition, mode, number, value), part in grouped:
        what = "unknown" if mode == "missing" else value
        name = f"{condition}, {what}"
        if several:
            name += f", {class_text(results.class_names, int(number))}"
        level = float(part["level"].iloc[0])
        one = part.groupby([*TRAINING], sort=False)
        inside = part["low"].le(part["true"]) & part["true"].le(part["high"])
        share = inside.groupby([part[n] for n in TRAINING], sort=False).mean()
        first = one.get_group(next(iter(one.groups)))
        own, groups = int(first["groups"].iloc[0]), int(first["group"].nunique())
        low, high = coverage_band(groups, own, level)
        kept = bool(share.between(low - 1e-9, high + 1e-9).all())
        missed += [] if kept else [name]
        width = (part["high"] - part["low"]) / (part["predicted"] + 1)
        of_every = (part["high_all"] - part["low_all"]) / (part["predicted"] + 1)
        rows[name] = {
            "promised": level,
            "covered": float(share.mean()),
            "band low": low,
            "band high": high,
            "width": float(width.median()),
            "width for all": float(of_every.median()),
            "interval of": "all" if (part["interval_of"] == POOLED).all() else "own cases",
            "calibrated with": own,
            "tested on": groups,
            "foreground found": float(part["found"].mean()),
        }
    told = (
        "Every interval keeps its promise within what one calibration and one test can tell."
        if not missed
        else f"Outside of the band, so that the promise is not kept: {listed(missed)}."
    )
    note = (
        "covered: share of test cases whose true area lies in its interval, mean over trainings; "
        "band: where that share of one division lies 99 times of 100 if the promise is kept, by "
        "the numbers of groups (exact where each group is one case); width: median of the "
        "interval's width by the predicted area, and that of one interval for all values; "
        "foreground found: mean share at the calibrated threshold."
    )
    title = "Intervals of areas, by metadata value"
    return [told, Table("conformal", title, note, rows_of(rows), first="condition, value")]


# Do metadata fit the image?


def alarm_parts(folder: Path) -> list[Part]:
    """What estimates say of an alarm, each in its own words."""
    parts: list[Part] = []
    for file in sorted({*folder.glob(SCORES), *folder.glob(f"*/{SCORES}")}):
        try:
            told = read_json(file)
            alarm, files = told.get(ALARM), dict(told["files"])
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{file}: damaged ({error}); estimate again") from error
        for name, digest in files.items():
            if not (file.parent / name).is_file() or file_sha256(file.parent / name) != digest:
                raise DataError(f"{file}: {name} is not the file that it tells of; estimate again")
        if alarm:
            parts.append(alarm_words(str(told["field"]), alarm))
    return parts


# What wrong, missing, predicted and soft metadata cost, and what to do then.

NAMES = {"predicted": "predicted", "soft": "predicted, as a distribution", "missing": "unknown"}
WRONG = "shuffle"


def told_as(mode: str) -> str | None:
    """What a test mode is called here; None for one that is no part of this.

    >>> told_as("guided:0.5:shuffle"), told_as("guided:1.5"), told_as("zeros")
    ('wrong, guidance 0.5', 'true, guidance 1.5', None)
    """
    if mode.startswith("guided:"):
        _, strength, *inner = mode.split(":")
        of = {"": "true", WRONG: "wrong"}.get("".join(inner), "".join(inner))
        return f"{of}, guidance {strength}"
    return {"normal": "true", WRONG: "wrong", **NAMES}.get(mode)


def wrong_parts(results: Results) -> list[Part]:
    """One comparison of all ways to be told the metadata, on average and case by case."""
    modes = [mode for mode in results.counts["mode"].unique() if told_as(mode)]
    if not {WRONG, "missing"} & set(modes):
        return []
    rows, advice = {}, list[str]()
    cases: dict[str, pd.Series] = {}
    for name in results.conditions:
        if not results.reads_metadata(name):
            continue
        own = results.counts[results.counts["condition"] == name]
        scores = {mode: _by_case(own[own["mode"] == mode]) for mode in modes}
        true = scores.get("normal")
        if true is None or true.empty:
            continue
        lost = {mode: (true - one).dropna() for mode, one in scores.items() if len(one)}
        for mode, loss in lost.items():
            if mode == "normal":
                continue
            of_groups = loss.groupby(level=["group"]).mean()
            of_groups.index = pd.MultiIndex.from_product([[name], of_groups.index])
            ends = over_groups(of_groups).iloc[0]
            rows[f"{name}, {told_as(mode)}"] = {
                "F1": float(scores[mode].mean()),
                "lost": float(ends["mean"]),
                "low": float(ends["low"]),
                "high": float(ends["high"]),
                "cases worse": float((loss > MUCH).mean()),
                "cases better": float((loss < -MUCH).mean()),
                "worst case": float(loss.max()),
                "cases": len(loss),
            }
        cases |= {f"{name}, {told_as(mode)}": one for mode, one in scores.items() if len(one)}
        if words := _advice(name, {mode: float(one.mean()) for mode, one in lost.items()}):
            advice.append(words)
    if not rows:
        return []
    note = (
        "Mean case F1, seeds averaged within a case; lost: true minus this, mean over groups with "
        f"its 95 % interval; worse, better: share of the cases that change by more than {MUCH:g}."
    )
    title = "Told true, wrong, unknown, predicted and guided metadata"
    table = Table("told", title, note, rows_of(rows), first="condition, told")
    each = pd.DataFrame(cases).reset_index("group", drop=True)
    by_case = Table("told_cases", "Case by case", "F1 of each case.", each, first="case")
    return [*advice, table, Details("Case by case", [by_case])]


def _by_case(counts: pd.DataFrame) -> pd.Series:
    """F1 of each case, seeds averaged, by ``case, group``."""
    if counts.empty:
        return pd.Series(dtype=float)
    scored = pd.concat([case_f1(rows) for _, rows in counts.groupby(TRAINING, sort=False)])
    return scored.groupby(["case", "group"], sort=False)["f1"].mean()


def _advice(name: str, lost: dict[str, float]) -> str:
    """What to do when the table is wrong, by what this study lost (F1 by mode)."""
    wrong = lost.get(WRONG)
    if wrong is None:
        return ""
    if wrong <= LITTLE:
        return (
            f"When the table is wrong: {name} loses {wrong:.3f} of F1 with wrong metadata, which "
            "nobody would notice; nothing need be done."
        )
    told = [
        f"When the table is wrong: {name} loses {wrong:.3f} of F1 on average in a case whose "
        "metadata are wrong."
    ]
    ways: Sequence[tuple[str, str]] = [
        ("missing", "leaving the value unknown"),
        ("predicted", "taking it from the image"),
        ("soft", "taking a distribution from the image"),
    ]
    better = []
    for mode, way in ways:
        if mode not in lost:
            continue
        even = max(0.0, lost[mode]) / wrong
        if even < 1:
            better.append(
                f"{way} costs {lost[mode]:.3f} in every case, and is the better choice where more "
                f"than {100 * even:.0f} % of the table is wrong"
            )
        else:
            told.append(f"{way.capitalize()} costs {lost[mode]:.3f}, more than a wrong value.")
    told += [f"{one[:1].upper()}{one[1:]}." for one in better]
    told += _guided(lost, wrong)
    return " ".join(told)


def _guided(lost: dict[str, float], wrong: float) -> list[str]:
    """What a weaker guidance saves in wrong cases, and costs in right ones."""
    told = []
    for mode, of_wrong in lost.items():
        if not mode.startswith("guided:") or not mode.endswith(f":{WRONG}"):
            continue
        right = mode.removesuffix(f":{WRONG}")
        if right not in lost:
            continue
        saved, cost = wrong - of_wrong, lost[right]
        strength = right.partition(":")[2]
        if saved <= 0:
            told.append(f"Guidance {strength} saves nothing in wrong cases.")
            continue
        even = max(0.0, cost) / (max(0.0, cost) + saved)
        told.append(
            f"Guidance {strength} saves {saved:.3f} in a wrong case and costs {cost:.3f} in a "
            f"right one: it pays where more than {100 * even:.0f} % of the table is wrong."
        )
    return told
