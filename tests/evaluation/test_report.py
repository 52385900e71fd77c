import json
import re

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.figures import learning_curves
from metaseg_monai.evaluation.report import write_report
from metaseg_monai.evaluation.scores import COUNT_COLUMNS

MODES = ("normal", "shuffle", "fixed:x", "fixed:y")


def make_run(folder, hits, modes=MODES):
    """Write the files of a run that finds `hits` of ten pixels in mode normal and none else."""
    folder.mkdir(parents=True)
    rows = []
    for mode in modes:
        found = hits if mode == "normal" else 0
        for case, domain in (("a", "x"), ("b", "y")):
            rows.append((case, case, "test", mode, domain, 1, found, 0, 10 - found, 5))
    pd.DataFrame(rows, columns=COUNT_COLUMNS).to_csv(folder / "counts.csv", index=False)
    log = {"epoch": [1, 2], "train_loss": [1.0, 0.5], "val_loss": [1.1, 0.6]}
    pd.DataFrame(log).to_csv(folder / "log.csv", index=False)
    mask = np.eye(8, dtype=np.uint8)
    samples = {"index": json.dumps([{"case": "a", "domain": "x", "modes": list(modes)}])}
    samples |= {f"pred_0_{i}": mask for i in range(len(modes))}
    np.savez(folder / "samples.npz", image_0=mask.astype(np.float16), label_0=mask, **samples)
    return folder


def test_report_can_be_recomputed_and_is_self_contained(tmp_path):
    runs = {"se": make_run(tmp_path / "se", 2, ("normal",)), "sme": make_run(tmp_path / "sme", 9)}
    page = write_report(runs, tmp_path, "Shapes").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "0.947" in page  # 2 * 9 / (18 + 1)
    assert "<b>0.947</b>" in page
    assert "sme goes from 0.947 to 0.000" in page
    summary = json.loads((tmp_path / "summary.json").read_text())["variants"]
    assert summary["sme"]["pooled_f1"] == pytest.approx(18 / 19)
    assert summary["sme"]["modes"]["fixed:x"]["per_class"] == {"x": 0.0, "y": 0.0}
    table = pd.read_csv(tmp_path / "tables" / "f1.csv", index_col="variant")
    assert table.loc["se", "combined"] == pytest.approx(4 / 12, abs=1e-6)
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["labels.png", "learning_curves.png", "modes_sme.png", "predictions.png"]
    assert "**0.947**" in (tmp_path / "report.md").read_text()


def edited(folder, **columns):
    counts = pd.read_csv(folder / "counts.csv")
    counts.assign(**columns).to_csv(folder / "counts.csv", index=False)
    return folder


def test_names_are_escaped(tmp_path):
    run = edited(make_run(tmp_path / "se", 2), domain="<script>|")
    (run / "samples.npz").unlink()
    page = write_report({"se": run}, tmp_path, "<b>").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\\|" in (tmp_path / "report.md").read_text()


def test_empty_masks_give_null_not_nan(tmp_path):
    run = edited(make_run(tmp_path / "se", 2), tp=0, fp=0, fn=0)
    write_report({"se": run}, tmp_path, "Empty")
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["variants"]["se"]["pooled_f1"] is None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"mode": "shuffle"}, "no counts of mode normal"),
        ({"split": "val"}, "different cases"),
        ({"domain": "average"}, "'average'"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, columns, reason):
    runs = {"se": make_run(tmp_path / "se", 2), "sme": make_run(tmp_path / "sme", 9)}
    edited(runs["sme"], **columns)
    with pytest.raises(DataError, match=reason):
        write_report(runs, tmp_path, "Shapes")


def test_a_curve_joins_the_epochs_that_were_validated():
    nothing = float("nan")
    sparse = {"epoch": [1, 2, 3], "train_loss": [nothing] * 3, "val_loss": [1.0, nothing, 0.5]}
    dense = {"epoch": [1, 3], "train_loss": [nothing] * 2, "val_loss": [1.0, 0.5]}
    drawn = [learning_curves({"sme": pd.DataFrame(log)}) for log in (sparse, dense)]
    assert drawn[0] == drawn[1]


def test_report_without_runs_or_counts_is_refused(tmp_path):
    with pytest.raises(DataError, match="no run"):
        write_report({}, tmp_path, "Shapes")
    with pytest.raises(DataError, match=r"counts\.csv"):
        write_report({"se": tmp_path}, tmp_path, "Shapes")
