"""One Markdown table over several training seeds of the same comparison.

Each folder is the output of ``demo`` or ``compare`` with one seed. Pooled F1 is the mean over the
seeds with the lowest and highest; the difference to the first variant is the mean over cases of the
F1 averaged over seeds, with a 95 % bootstrap interval that draws whole groups.

Example:
    python scripts/summarise_seeds.py runs/cells/seed0 runs/cells/seed1 runs/cells/seed2
"""

from pathlib import Path

import fire
import pandas as pd

from metaseg_monai.blocks import ALL_VARIANTS
from metaseg_monai.evaluation import (
    average_seeds,
    case_f1,
    mode_matrix,
    paired_difference,
    read_counts,
)


def main(*runs: str, mode: str = "normal") -> str:
    """Print the table.

    Args:
        runs: folders, one for each seed, with one folder for each variant.
        mode: test mode whose counts are used.
    """
    found = {path.parent.name for path in Path(runs[0]).glob("*/counts.csv")}
    variants = [name for name in ALL_VARIANTS if name in found]
    tables = {
        name: [read_counts(Path(run) / name / "counts.csv") for run in runs] for name in variants
    }
    variants = [name for name in variants if all(mode in set(t["mode"]) for t in tables[name])]
    if not variants:
        raise SystemExit(f"no variant in {runs[0]} was evaluated in mode {mode}")
    matrices = {name: [mode_matrix(table)[mode] for table in tables[name]] for name in variants}
    domains = list(matrices[variants[0]][0].index)
    cases = {name: average_seeds([_cases(t, mode) for t in tables[name]]) for name in variants}
    head = ["variant", *domains, f"mean case difference to {variants[0]}"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name in variants:
        scores = pd.DataFrame(matrices[name])
        cells = [
            f"{scores[d].mean():.3f} ({scores[d].min():.3f}-{scores[d].max():.3f})" for d in domains
        ]
        difference = paired_difference(cases[name], cases[variants[0]])
        shown = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        lines.append("| " + " | ".join([name, *cells, "" if name == variants[0] else shown]) + " |")
    return "\n".join(lines)


def _cases(counts: pd.DataFrame, mode: str) -> pd.DataFrame:
    return case_f1(counts[counts["mode"] == mode])


if __name__ == "__main__":
    fire.Fire(main)
