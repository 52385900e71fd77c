"""What a prepared KiTS folder holds, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from metaseg_monai.data.columns import SPLITS
from metaseg_monai.data.kits.clinical import SIZE, ClinicalTable, SizeSource
from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.kits.slices import SliceRule

SHOWN = 20
FEWEST_CASES = 3  # of which a correlation is told
LEAST_SPEARMAN = 0.5  # of sizes that belong to their labels; KiTS21 has 0.94


def summary_of(
    cases: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    names: Sequence[str],
    split_of: Mapping[str, str],
    slice_rule: SliceRule,
    size: SizeSource,
    patients: ClinicalTable,
) -> str:
    """Describe a prepared folder.

    Args:
        cases: rows of cases.csv.
        problems: of the cases that are not in it.
        names: all cases of the source.
        split_of: {case: split}, of all cases that were asked for.
        slice_rule: which planes were written.
        size: which measurement `tumour_size_mm` is.
        patients: the clinical table; one without a path where there is none.
    """
    wrong = sorted({problem.case for problem in problems})
    lines = [f"{len(cases)} cases prepared, {len(wrong)} with problems"]
    left_out = [name for name in names if name not in split_of]
    if left_out:
        lines.append(f"left out, as no list names them: {listed(left_out)}")
    absent = sorted(set(split_of) - set(names))
    if absent:
        lines.append(
            f"{len(absent)} cases of the lists are not in the source: {listed(absent)}; get them, "
            "or go on without"
        )
    if cases:
        lines += [*_slice_lines(cases, slice_rule), *_case_lines(cases)]
        lines += _empty_splits(cases, names, split_of)
        lines += _size_lines(cases, size, patients)
        remarks = [f"  {case['case']}: {case['remarks']}" for case in cases if case["remarks"]]
        lines += [f"remarks on {len(remarks)} cases (cases.csv)"] if remarks else []
        lines += _shown(remarks)
    if problems:
        lines += ["problems (problems.csv; these cases contribute nothing):"]
        lines += _shown([f"  {problem}" for problem in problems])
    return "\n".join(lines)


def _slice_lines(cases: Sequence[Mapping[str, Any]], slice_rule: SliceRule) -> list[str]:
    total = {name: _sum(cases, name) for name in cases[0] if name.startswith("planes")}
    both = total["planes_tumour_and_cyst"]
    written = f"{_sum(cases, 'slices')} slices written (rule {slice_rule})"
    rules = (
        f"mass {total['planes_mass']}, kidney {total['planes_kidney_or_mass']}, "
        f"all {total['planes']}"
    )
    return [
        f"{written}; planes by rule: {rules}",
        f"planes with tumour {total['planes_tumour']}, with cyst {total['planes_cyst']}, with "
        f"both {both}, with kidney {total['planes_kidney']}",
    ]


def _case_lines(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    ranges = [
        f"{axis} {min(values):.4g} to {max(values):.4g}"
        for axis in "zyx"
        for values in [[float(case[f"spacing_{axis}_mm"]) for case in cases]]
    ]
    splits = Counter(str(case["split"]) for case in cases)
    slices = {s: sum(int(c["slices"]) for c in cases if c["split"] == s) for s in SPLITS}
    told = ", ".join(f"{s} {splits[s]} patients with {slices[s]} slices" for s in SPLITS)
    return [f"voxels in mm: {', '.join(ranges)}", f"splits: {told}"]


def _empty_splits(
    cases: Sequence[Mapping[str, Any]], names: Sequence[str], split_of: Mapping[str, str]
) -> list[str]:
    """Splits that were to have slices and have none; no case is moved to another split."""
    filled = {str(case["split"]) for case in cases if int(case["slices"])}
    lines = []
    for split in SPLITS:
        meant = [name for name in names if split_of.get(name) == split]
        if meant and split not in filled:
            lines.append(
                f"{split} is empty: its cases have problems or no slice ({listed(meant)}); mend "
                "them, or prepare another folder with lists of your own (--splits) or another "
                "--seed"
            )
    return lines


def _size_lines(
    cases: Sequence[Mapping[str, Any]], size: SizeSource, patients: ClinicalTable
) -> list[str]:
    if patients.path is None:
        return [f"no clinical table: {SIZE} is missing everywhere; name one (--clinical)"]
    missing = [str(case["case"]) for case in cases if not case[SIZE]]
    when = "after" if size == "pathologic" else "before"
    several = sum(int(case["tumour_components"]) > 1 for case in cases)
    absent = [str(case["case"]) for case in cases if case["case"] not in patients.rows]
    lines = [
        f"clinical table: {patients.path}"
        + (f"; it has no row for {len(absent)} cases ({listed(absent)})" if absent else ""),
        f"{SIZE}: the {size} size, known {when} surgery; missing in {len(missing)} cases"
        + (f" ({listed(missing)})" if missing else ""),
        f"{several} cases have several tumours; the size is that of the largest one",
    ]
    pairs = np.array(
        [
            (float(case[SIZE]), float(case["tumour_diameter_mm"]))
            for case in cases
            if case[SIZE] and case["tumour_diameter_mm"]
        ]
    )
    if len(pairs) >= FEWEST_CASES and np.all(np.ptp(pairs, axis=0) > 0):
        rank = float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
        squared = float(np.corrcoef(np.log(pairs), rowvar=False)[0, 1] ** 2)
        meaning = (
            "the size is partly derived from what the label shows"
            if rank >= LEAST_SPEARMAN
            else "size and label disagree: check the units and the case_id of the clinical table"
        )
        lines.append(
            f"{SIZE} against the largest in-plane diameter of the label ({len(pairs)} cases): "
            f"Spearman {rank:.2f}, R2 of the logarithms {squared:.2f}; {meaning}"
        )
    return lines


def _sum(cases: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(case[name]) for case in cases)


def listed(names: Sequence[str]) -> str:
    """Names joined by commas, the first of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shown(lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
