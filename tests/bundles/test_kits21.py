"""What only the CT bundle promises: volumes in, volumes out, in 2D and 3D."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import create_workflow
from monai.data import MetaTensor
from monai.transforms import Compose

from metaseg_monai.evaluation import read_cases, read_counts, read_volumes

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 itself, while it reads a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


@pytest.fixture(scope="module")
def kits(copy_bundle):
    """The bundle after a tiny training and evaluation."""
    copy = copy_bundle("kits21_tumour_slices_segmentation")
    copy.run(copy.command("training", "train"))
    copy.run(copy.command("evaluating", "train", "evaluate"))
    return copy


def test_the_default_data_are_phantoms_and_their_slices(kits):
    data = kits.root / "data"
    table = pd.read_csv(data / "table.csv")
    assert set(table["split"]) == {"train", "val", "test"}
    assert (table[["tumour_mm2", "cyst_mm2"]].sum(axis=1) > 0).all()  # rule mass
    assert len(list(data.glob("volumes/case_*/imaging.nii.gz"))) == 4


def test_evaluation_writes_slices_cases_and_volumes(kits):
    models = kits.root / "models"
    counts, cases = read_counts(models / "counts.csv"), read_cases(models / "cases.csv")
    volumes = read_volumes(models / "volumes.csv")
    assert set(counts["class"]) == {1, 2, 3}
    names = json.loads((models / "classes.json").read_text())
    assert names == {"0": "background", "1": "kidney", "2": "tumour", "3": "cyst"}
    assert set(cases["split"]) == {"train", "val", "test"}
    modes = {"normal", "missing", "fixed:tumour_size_mm=40"}
    assert set(counts["mode"]) == set(volumes["mode"]) == modes
    assert set(volumes["region"]) == {"kidney_and_masses", "masses", "tumour"}
    assert set(volumes["volume"]) == set(cases[cases["split"] == "test"]["group"])
    normal = counts[(counts["mode"] == "normal") & (counts["class"] == 2)]
    voxel_mm3 = cases.set_index("case")[["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]].prod(
        axis=1
    )
    true_mm3 = ((normal["tp"] + normal["fn"]) * voxel_mm3.loc[normal["case"]].to_numpy()).sum()
    tumour = volumes[(volumes["mode"] == "normal") & (volumes["region"] == "tumour")]
    assert tumour["true_mm3"].sum() == pytest.approx(true_mm3, rel=1e-3)


@pytest.mark.parametrize("metadata", [None, {"tumour_size_mm": "unknown"}])
def test_volumes_are_predicted_in_their_own_geometry(kits, tmp_path, metadata):
    source = kits.root / "data/volumes"
    given = {} if metadata is None else {"metadata": metadata}
    kits.run(kits.command(None, "inference", dataset_dir=source, output_dir=tmp_path, **given))
    masks = sorted(tmp_path.rglob("*.nii.gz"))
    assert len(masks) == 4
    for path in masks:
        case = path.name.removesuffix(".nii.gz")  # named by the case, not as its scan
        scan = nib.load(source / case / "imaging.nii.gz")
        mask = nib.load(path)
        assert mask.shape == scan.shape
        np.testing.assert_array_equal(mask.affine, scan.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2, 3}


def test_an_application_gets_the_same_mask_of_a_whole_volume(kits, tmp_path):
    """As MONAI Label and Deploy: preprocessing, inferer and postprocessing, without a table."""
    path = kits.root / "data/volumes/case_00001/imaging.nii.gz"
    command = kits.command(None, "inference", dataset_dir=path, output_dir=tmp_path)
    kits.run([*command, "--metadata", "{'tumour_size_mm': 'unknown'}"])
    (predicted,) = tmp_path.rglob("*.nii.gz")
    config = kits.configs("inference")[0]
    workflow = create_workflow(config_file=config, workflow_type="infer", device="cpu")
    network = workflow.parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(kits.root / "models/model.pt", weights_only=True))
    load, finish = Compose(workflow.preprocessing), Compose(workflow.postprocessing)
    stored = nib.load(path)
    array = MetaTensor(np.asarray(stored.dataobj, np.float32)[None], affine=stored.affine)
    for image in (str(path), array):
        item = load({"image": image})
        with torch.no_grad():
            batch, meta = item["image"][None], item["meta"][None]
            item["pred"] = workflow.inferer(batch, network, meta=meta)[0]
            without = workflow.inferer(batch, network)[0]
        mask = finish(item)["pred"]
        np.testing.assert_array_equal(mask[0], nib.load(predicted).dataobj)
        np.testing.assert_allclose(mask.affine, stored.affine, rtol=1e-6)
        torch.testing.assert_close(without, item["pred"])


def test_a_size_known_only_after_the_operation_is_refused(kits, tmp_path):
    schema = json.loads((kits.root / "configs/schema.json").read_text())
    schema["fields"][0] |= {"name": "pathologic_size_mm", "availability": "post-operative"}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    command = kits.command(
        None,
        "inference",
        dataset_dir=kits.root / "data/volumes",
        output_dir=tmp_path / "masks",
        schema_file=tmp_path / "schema.json",
        metadata={"pathologic_size_mm": 40},
    )
    with pytest.raises(AssertionError, match="known only later"):
        kits.run(command)


@pytest.mark.parametrize(
    "network",
    [(), *(pytest.param((name,), marks=pytest.mark.slow) for name in ("segresnet", "dynunet"))],
)
def test_a_3d_network_with_metadata_trains_and_is_tested_on_whole_volumes(kits, tmp_path, network):
    small = {
        "dataset_dir": kits.root / "data/volumes",
        "output_dir": tmp_path,
        "preprocessing#1#spacing_mm": [12, 12, 12],
        "roi_size": [32, 32, 16],
    }
    for stage, *configs in (("training",), ("evaluating", "evaluate")):
        names = ("train", "train_3d", *network, *configs)
        kits.run(kits.command(stage, *names, generated=False, **small))
    volumes = read_volumes(tmp_path / "volumes.csv")
    assert (volumes["complete"] == 1).all()
    assert len(volumes["volume"].unique()) == 1
    assert {"normal", "missing"} <= set(volumes["mode"])
    source = kits.root / "data/volumes/case_00001"  # stored along other axes than its planes
    small |= {"dataset_dir": source, "output_dir": tmp_path / "masks"}
    known = {"ckpt_path": tmp_path / "model.pt", "metadata": {"tumour_size_mm": 40}}
    names = ("inference", "train_3d", *network)
    kits.run(kits.command(None, *names, generated=False, **small, **known))
    (path,) = (tmp_path / "masks").rglob("*.nii.gz")
    scan, mask = nib.load(source / "imaging.nii.gz"), nib.load(path)
    assert mask.shape == scan.shape
    np.testing.assert_array_equal(mask.affine, scan.affine)


def test_tumour_free_slices_for_networks_of_whole_volumes(kits, tmp_path):
    settings = {
        "table#path#slice_rule": "all",
        "dataset_dir": tmp_path / "data",
        "output_dir": tmp_path / "run",
        "cases": {
            "_target_": "metaseg_monai.tables.limit_empty",
            **{"table": "@table", "share": 0.5, "columns": ["tumour_mm2", "cyst_mm2"]},
        },
        "epochs": 1,
    }
    said = kits.run(kits.command("training", "train", **settings))
    table = pd.read_csv(tmp_path / "data/table.csv")
    train = table[table["split"] == "train"]
    full = int((train[["tumour_mm2", "cyst_mm2"]].sum(axis=1) > 0).sum())
    assert len(train) > 2 * full
    assert f"/{-(-2 * full // 4)} " in said  # steps of one epoch, batches of 4


def test_the_size_is_estimated_from_any_folder(kits, tmp_path):
    names = ("train", "estimate")
    kits.run(kits.command("estimating", *names, output_dir=tmp_path))
    volumes = pd.read_csv(kits.root / "data/table.csv")["group"].nunique()
    assert len(pd.read_csv(tmp_path / "predicted.csv")) == volumes
