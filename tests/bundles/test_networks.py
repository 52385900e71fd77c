"""The networks of the texts, switched on in their bundles by a delta of a few lines."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from monai.bundle import ConfigParser

from metaseg_monai import evaluate, predict, train
from metaseg_monai.simulate import generate_cells
from metaseg_monai.training import read_weights

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
TINY = {
    "epochs": 2,
    "network_def#channels": 4,
    "network_def#levels": 2,
    "roi_size": [32, 32],
    "train#augmentation#0#spatial_size": [32, 32],
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Folders of a few cells each, by recipe."""
    made = {}

    def of_recipe(recipe):
        if recipe not in made:
            made[recipe] = tmp_path_factory.mktemp(recipe) / "data"
            generate_cells(str(made[recipe]), recipe=recipe, train=8, val=4, test=4, size=48)
        return str(made[recipe])

    return of_recipe


def trained(bundle, configuration, data, folder, **settings):
    folder = folder / configuration.replace(",", "_")
    settings = {**TINY, "dataset_dir": data, **settings}
    done = train(bundle, str(folder), configuration=configuration, bundles=str(BUNDLES), **settings)
    return Path(done.folder), read_weights(Path(done.folder) / "model.pt")[1]


@pytest.mark.parametrize("configuration", ["heads", "heads_parallel"])
def test_two_heads_train_in_sequence_and_in_parallel(configuration, cells, tmp_path):
    folder, facts = trained(
        "nuclei_anomalies_segmentation",
        configuration,
        cells("anomalies_curtailed"),
        tmp_path,
        **{"network_def#bifurcation": "high"},
    )
    assert facts["variant"] == "multi-head"
    assert facts["network"]["_target_"] == "metaseg_monai.networks.MultiHeadUnet3"
    assert (facts["network"]["heads"], facts["network"]["bifurcation"]) == ("task", "high")
    log = pd.read_csv(folder / "log.csv")
    assert log["train_loss"].between(0.2, 4).all()
    if configuration == "heads_parallel":  # the sum of two
        assert log["train_loss"].iloc[0] > 1.3 * log["val_loss"].iloc[0]
    evaluate(str(folder), bundles=str(BUNDLES))
    counts = pd.read_csv(folder / "counts.csv")
    assert set(counts["mode"]) == {"normal", "shuffle", "fixed:nuclei", "fixed:anomalies"}
    assert set(counts["domain"]) == {"nuclei", "anomalies"}
    source = tmp_path / "images"
    source.mkdir()
    image = next((Path(cells("anomalies_curtailed")) / "images").glob("test_*.tif"))
    shutil.copy(image, source / "a.tif")
    done = predict(
        str(folder),
        str(source),
        str(tmp_path / "masks"),
        configuration=f"{configuration},each_task",
        bundles=str(BUNDLES),
        **{name: TINY[name] for name in TINY if name.startswith("network_def")},
        **{"network_def#bifurcation": "high"},
    )
    assert done.cases["case"].tolist() == ["a_nuclei", "a_anomalies"]
    assert all(Path(mask).is_file() for mask in done.masks)


def test_dynamic_parameters_train_and_are_tested_without_metadata(cells, tmp_path):
    folder, facts = trained(
        "magnification_nuclei_segmentation", "dynamic", cells("magnification"), tmp_path
    )
    assert facts["variant"] == "dynamic"
    assert facts["network"]["product"] == "matrix"
    evaluate(str(folder), bundles=str(BUNDLES), modes=["normal", "zeros", "missing"])
    assert set(pd.read_csv(folder / "counts.csv")["mode"]) == {"normal", "zeros", "missing"}


def test_the_pilot_trains_with_a_plateau_schedule_and_goes_on(cells, tmp_path):
    data = cells("two_lines")
    settings = {"variant": "weight-noise"}
    bundle, configuration = "seven_lines_nuclei_segmentation", "pilot,sgd"
    folder, facts = trained(bundle, configuration, data, tmp_path, **settings)
    assert facts["variant"] == "weight-noise"
    before = pd.read_csv(folder / "log.csv")
    trained(bundle, configuration, data, tmp_path, **settings, epochs=3, resume=True)
    after = pd.read_csv(folder / "log.csv")
    assert after["epoch"].tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(after[:2], before)
    assert (after["lr"] == 0.01).all()


@pytest.mark.parametrize(
    ("bundle", "section"),
    [
        ("magnification_nuclei_segmentation", "4.3"),
        ("synthetic_shapes_segmentation", "4.6"),
        ("nuclei_anomalies_segmentation", "4.7"),
    ],
)
def test_thesis_size_has_the_network_of_its_section(bundle, section):
    configs = BUNDLES / bundle / "configs"
    parser = ConfigParser(json.loads((configs / "train.json").read_text()))
    for name, value in json.loads((configs / "thesis_size.json").read_text()).items():
        parser[name] = value
    parser["bundle_root"] = str(BUNDLES / bundle)
    network = parser.get_parsed_content("network_def")
    assert type(network).__name__ == "PPUnet", section
    parameters = sum(weight.numel() for weight in network.parameters())
    assert 2.20e6 < parameters < 2.32e6  # 2.25 million with SE (thesis 3.3), here with metadata
