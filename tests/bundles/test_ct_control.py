"""The positive control of the CT bundle: where the size decides, a network that is told it wins."""

import json

import pytest

from metaseg_monai.evaluation import read_counts
from metaseg_monai.metrics.scores import pooled_f1_by
from metaseg_monai.reporting.response import monotonicity, sweep_areas

TUMOUR = 2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]  # minutes on idle cores


@pytest.fixture(scope="module")
def tested(copy_bundle):
    """Counts of SE and SME after the training of the shipped study, with its first seed."""
    kits = copy_bundle("kits21_tumour_slices_segmentation")
    study = json.loads((kits.root / "studies" / "controls.json").read_text())
    common = {key: study["settings"][key] for key in ("epochs", "val_interval", "table#path")}
    common["seed"] = study["seeds"][0]
    modes = [mode for mode in study["settings"]["modes"] if mode.startswith("fixed:")]
    counts = {}
    for variant in ("se", "sme"):
        names = ("train", "evaluate")
        settings = {"variant": variant, "output_dir": kits.root / "models" / variant, **common}
        kits.run(
            ["-m", "monai.bundle", "run", "training", *flags(kits, "train", **settings)],
            timeout=3000,
        )
        settings["modes"] = ["normal", *modes]
        kits.run(
            ["-m", "monai.bundle", "run", "evaluating", *flags(kits, *names, **settings)],
            timeout=3000,
        )
        counts[variant] = read_counts(settings["output_dir"] / "counts.csv")
    return counts


def flags(kits, *names, **settings):
    files = kits.configs(*names)
    words = ["--config_file", files[0] if len(files) == 1 else str(files)]
    return words + [part for key, value in settings.items() for part in (f"--{key}", str(value))]


def test_sme_finds_the_extent_that_only_the_size_tells(tested):
    f1 = {
        variant: pooled_f1_by(counts[counts["mode"] == "normal"], "class")[str(TUMOUR)]
        for variant, counts in tested.items()
    }
    assert f1["sme"] > f1["se"] + 0.05, f1  # 0.17 to 0.40 in three trainings


def test_the_area_grows_with_the_size_in_four_of_five_slices(tested):
    found = monotonicity(sweep_areas(tested["sme"], "tumour_size_mm")).loc[TUMOUR]
    assert found.cases >= 300
    assert found.monotone >= 0.8, found
