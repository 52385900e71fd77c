"""The CT bundle on real slices, where they are at hand."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.evaluation import read_counts
from metaseg_monai.metrics.scores import pooled_f1_by

DATA = Path(os.environ.get("METASEG_DATA", "../shared/data")) / "kits2d"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}; set METASEG_DATA"),
]


def test_eight_real_slices_are_learned_by_heart(copy_bundle, tmp_path):
    """Pooled F1 of kidney and tumour of at least 0.95 on the slices that were trained on."""
    manifest = pd.read_csv(DATA / "manifest.csv", dtype=str)
    has_both = manifest["tumor_px"].astype(int).gt(1000) & manifest["kidney_px"].astype(int).gt(
        1000
    )
    chosen = manifest[(manifest["split"] == "train") & has_both].drop_duplicates("case_id")[:8]
    assert len(chosen) == 8
    rows = []
    for split in ("train", "val"):  # the weights kept are those best on the same slices
        for row in chosen.to_dict("records"):
            for kind in ("image", "label"):
                file = tmp_path / split / row[kind]
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(DATA / row[kind], file)
            paths = {kind: f"{split}/{row[kind]}" for kind in ("image", "label")}
            size = f"{float(row['radiographic_size_cm']) * 10:g}"
            spacing = {name: row[name] for name in row if name.startswith("spacing_")}
            name = f"{split}-{row['case_id']}"
            place = {"volume": name, "plane": row["z_index"], "planes": row["z_total"]}
            group = {"group": name, "split": split}
            rows.append({**paths, "tumour_size_mm": size, **group, **place, **spacing})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    kits = copy_bundle("kits21_tumour_slices_segmentation")
    settings = {
        "intensity_range": [0, 255],
        "preprocessing#1#spacing_mm": 3.0,
        # gates pool over the whole image: what is learned by heart must be shown in the same frame
        "roi_size": [216, 216],
        "window_inferer#roi_size": [216, 216],
        "epochs": 400,
        "val_interval": 20,
        "dataset_dir": tmp_path,
        "output_dir": tmp_path / "run",
        "metadata_dropout": 0.0,
        "modes": ["normal"],
    }
    kits.run(kits.command("training", "train", generated=False, **settings), timeout=1500)
    settings |= {"split": "train"}
    kits.run(kits.command("evaluating", "train", "evaluate", generated=False, **settings))
    scores = pooled_f1_by(read_counts(tmp_path / "run/counts.csv"), "class")
    assert np.isfinite([scores["1"], scores["2"]]).all()
    assert min(scores["1"], scores["2"]) >= 0.95, scores
