import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from torch import nn

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import predicted, read_volumes
from metaseg_monai.evaluation.predicted import MaskRecord
from metaseg_monai.images.geometry import AXES as BY_AXIS
from metaseg_monai.metrics.volumes import KITS_REGIONS, make_regions, score_volume
from metaseg_monai.prepare.kits_source import CLASS_NAMES
from metaseg_monai.sharing.score import score
from metaseg_monai.training import LoadWeights

AXES = BY_AXIS["axial"]

SPACING = (3.0, 0.8, 0.5)  # z, y, x


def label_of(seed):
    label = np.zeros((6, 14, 12), np.uint8)
    label[1:5, 2:12, 2:10] = 1
    label[2:4, 3 + seed : 7 + seed, 3:8] = 2
    label[4, 10, 5] = 3
    return label


def saved(path, planes, codes=AXES, dtype=np.uint8, shift_mm=0.0):
    """Store planes (D, H, W) in another order and direction of axes."""
    affine = np.diag([-SPACING[0], -SPACING[1], -SPACING[2], 1])[[2, 1, 0, 3]]
    affine[0, 3] = shift_mm
    volume = nib.Nifti1Image(planes.astype(dtype), affine)
    assert nib.aff2axcodes(affine) == AXES
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(AXES), nib.orientations.axcodes2ornt(codes)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(volume.as_reoriented(turn), path)
    return path


@pytest.mark.parametrize("codes", ["IPL", "RAS", "LPS", "SAR"])
def test_scores_are_those_of_the_planes_whatever_the_order_of_axes(tmp_path, codes):
    for seed in (0, 1):
        label = label_of(seed)
        pred = np.roll(label, 1, axis=0)
        saved(tmp_path / "l" / f"case_{seed}" / "aggregated_MAJ_seg.nii.gz", label, codes)
        saved(tmp_path / "p" / f"case_{seed}.nii.gz", pred, codes)
    text = score(tmp_path / "p", tmp_path / "l", tmp_path / "out")
    table = read_volumes(tmp_path / "out" / "volumes.csv")
    assert table["volume"].tolist() == ["case_0"] * 3 + ["case_1"] * 3
    assert set(table["mode"]) == {"normal"}
    for seed in (0, 1):
        label = label_of(seed)
        expected = score_volume(
            np.roll(label, 1, axis=0), label, SPACING, make_regions(KITS_REGIONS, CLASS_NAMES)
        )
        rows = table[table["volume"] == f"case_{seed}"][list(expected[0]._fields)]
        for row, one in zip(rows.to_numpy().tolist(), expected, strict=True):
            assert row[0] == one.region
            assert row[1:] == pytest.approx(list(one[1:]), rel=1e-5)
    assert str(tmp_path / "out" / "volumes.csv") in text


def test_the_summary_has_means_and_their_numbers(tmp_path):
    with_tumour, without = label_of(0), np.minimum(label_of(0), 1)
    saved(tmp_path / "l" / "a.nii.gz", with_tumour)
    saved(tmp_path / "l" / "b.nii.gz", without)
    saved(tmp_path / "l" / "c.nii.gz", with_tumour)
    saved(tmp_path / "p" / "a.nii.gz", with_tumour)
    saved(tmp_path / "p" / "b.nii.gz", with_tumour)
    text = score(tmp_path / "p", tmp_path / "l", tmp_path / "scores.csv", "kits")
    (tumour,) = [line.split() for line in text.splitlines() if line.startswith("tumour")]
    # Dice 1 and 0; a distance only of a; one lesion, found; one invented
    assert tumour == ["tumour", "2", "0.5000", "0.5000", "0.00", "(1)", "1", "of", "1", "1"]
    assert "not scored: 1 labels without a prediction, such as c" in text
    assert len(read_volumes(tmp_path / "scores.csv")) == 6


def test_masks_of_whole_floats_are_classes(tmp_path):
    saved(tmp_path / "l.nii.gz", label_of(0))
    saved(tmp_path / "p.nii.gz", label_of(0), dtype=np.float32)
    score(tmp_path / "p.nii.gz", tmp_path / "l.nii.gz", tmp_path / "out")
    assert read_volumes(tmp_path / "out" / "volumes.csv")["dice"].tolist() == [1, 1, 1]


def test_own_regions_and_share(tmp_path):
    saved(tmp_path / "a.nii.gz", label_of(0))
    regions = {"all": {"classes": [1, 2, 3], "tolerance_mm": 2}}
    a = tmp_path / "a.nii.gz"
    text = score(a, a, tmp_path / "out", regions)
    assert "all" in text
    assert "tumour" not in text
    with pytest.raises(ConfigError, match="found_share"):
        score(a, a, tmp_path / "out", found_share=2)
    with pytest.raises(ConfigError, match="regions is empty"):
        score(a, a, tmp_path / "out", {})


@pytest.mark.parametrize(
    ("names", "told", "regions"),
    [
        (None, None, ["class 1", "class 2", "class 3"]),
        ("1=spleen,2=liver,3=gut", None, ["spleen", "liver", "gut"]),
        (None, {"0": "background", "2": "liver"}, ["liver"]),
        ({1: "kidney", 2: "tumour", 3: "cyst"}, None, list(KITS_REGIONS)),
    ],
)
def test_regions_are_those_of_the_classes_that_the_data_have(tmp_path, names, told, regions):
    saved(tmp_path / "l" / "a.nii.gz", np.minimum(label_of(0), 2))
    saved(tmp_path / "p" / "a.nii.gz", label_of(0))
    if told:
        saved(tmp_path / "p" / "a.nii.gz", np.minimum(label_of(0), 2))
        content = {"labels": told} if names is None else told
        (tmp_path / "l" / "dataset.json").write_text(json.dumps(content))
    score(tmp_path / "p", tmp_path / "l", tmp_path / "out", class_names=names)
    assert read_volumes(tmp_path / "out" / "volumes.csv")["region"].tolist() == regions


def test_regions_may_name_classes_and_stand_in_a_file(tmp_path):
    a = saved(tmp_path / "a.nii.gz", label_of(0))
    file = tmp_path / "regions.json"
    file.write_text('{"both": {"classes": ["liver", 1], "tolerance_mm": 2}}')
    score(a, a, tmp_path / "out", str(file), "1=spleen,2=liver,3=gut")
    assert read_volumes(tmp_path / "out" / "volumes.csv")["region"].tolist() == ["both"]
    with pytest.raises(ConfigError, match="no class is named 'liver'"):
        score(a, a, tmp_path / "out", str(file))
    with pytest.raises(ConfigError, match=r"regions gone\.json"):
        score(a, a, tmp_path / "out", "gone.json")
    with pytest.raises(ConfigError, match=r"class_names is .*1=kidney,2=liver"):
        score(a, a, tmp_path / "out", class_names="liver")


def refused(tmp_path, pred, message, **stored):
    saved(tmp_path / "l" / "case_7.nii.gz", label_of(0))
    saved(tmp_path / "p" / "case_7.nii.gz", pred, **stored)
    with pytest.raises(DataError, match=f"case case_7: .*{message}"):
        score(tmp_path / "p", tmp_path / "l", tmp_path / "out", "kits")
    assert not (tmp_path / "out").exists()


def test_another_shape_is_refused(tmp_path):
    refused(tmp_path, label_of(0)[:5], r"shape \(5, 14, 12\), its label \(6, 14, 12\)")


@pytest.mark.parametrize("voxels", [0.7, 0.15])
def test_another_place_is_refused(tmp_path, voxels):
    shift_mm = voxels * SPACING[2]
    refused(tmp_path, label_of(0), f"lie up to {voxels} voxels apart", shift_mm=shift_mm)


def test_another_direction_is_refused(tmp_path):
    cube = np.zeros((6, 6, 6), np.uint8)
    saved(tmp_path / "l" / "a.nii.gz", cube)
    saved(tmp_path / "p" / "a.nii.gz", cube, codes="SPL")
    with pytest.raises(DataError, match=r"case a: .*affines differ"):
        score(tmp_path / "p", tmp_path / "l", tmp_path / "out")


def test_rounding_of_an_affine_is_no_difference(tmp_path):
    saved(tmp_path / "l.nii.gz", label_of(0))
    saved(tmp_path / "p.nii.gz", label_of(0), shift_mm=0.01)
    score(tmp_path / "p.nii.gz", tmp_path / "l.nii.gz", tmp_path / "out")


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        (label_of(0) / 3.0, "label value 0.333333, expected whole numbers"),
        (label_of(0) * 80, "to 3, the highest class"),
        (label_of(0).astype(float) - 1024, "values from -1024"),
        (np.full((6, 14, 12), np.nan), "expected whole numbers"),
    ],
)
def test_what_is_no_mask_of_classes_is_refused(tmp_path, pred, message):
    refused(tmp_path, pred, message, dtype=np.float32)


def test_a_damaged_file_names_its_case(tmp_path):
    saved(tmp_path / "l" / "a.nii.gz", label_of(0))
    path = saved(tmp_path / "p" / "a.nii.gz", label_of(0))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"case a: .*truncated"):
        score(tmp_path / "p", tmp_path / "l", tmp_path / "out")


def test_volumes_of_a_slightly_sheared_scan_are_those_of_its_determinant(tmp_path):
    affine = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
    affine[1, 0] = 3 * np.tan(np.radians(0.8))
    cube = np.zeros((6, 9, 9), np.uint8)
    cube[1:5, 2:7, 2:7] = 1
    for name in ("p", "l"):
        volume = nib.Nifti1Image(cube, affine)
        volume.set_qform(None, 0)
        nib.save(volume, tmp_path / f"{name}.nii.gz")
    score(tmp_path / "p.nii.gz", tmp_path / "l.nii.gz", tmp_path / "out")
    true_mm3 = pd.read_csv(tmp_path / "out" / "volumes.csv")["true_mm3"].max()
    assert true_mm3 == pytest.approx(100 * 3 * 0.8 * 0.8, rel=1e-6)


def test_official_tolerances_are_those_of_the_challenge():
    """neheller/kits21, configuration/labels.py."""
    assert [region["tolerance_mm"] for region in KITS_REGIONS.values()] == [
        1.0330772532390826,
        1.1328796488598762,
        1.1498198361434828,
    ]


def test_samples_are_averaged_as_in_the_challenge(tmp_path):
    case = tmp_path / "l" / "case_00007"
    label = saved(case / "aggregated_MAJ_seg.nii.gz", label_of(0))
    saved(tmp_path / "p" / "case_00007.nii.gz", label_of(0))
    with pytest.raises(DataError, match=r"case case_00007: .*sample_segmentations\.py"):
        score(tmp_path / "p", tmp_path / "l", tmp_path / "out", samples=True)
    for number, seed in enumerate((0, 1, 1)):
        group = case / "segmentation_samples" / f"group_{number // 2}"
        saved(group / f"sample_{number}.nii.gz", label_of(seed))
    score(tmp_path / "p", tmp_path / "l", tmp_path / "out", samples=True)
    mean = read_volumes(tmp_path / "out" / "volumes.csv").set_index("region")["dice"]["tumour"]
    score(tmp_path / "p", label, tmp_path / "one")
    other = score_volume(label_of(0), label_of(1), SPACING, make_regions(KITS_REGIONS, CLASS_NAMES))
    assert mean == pytest.approx((1 + 2 * other[2].dice) / 3)


def test_what_cannot_be_scored_is_listed_and_the_others_are_scored(tmp_path):
    for case in "abcd":
        saved(tmp_path / "l" / f"{case}.nii.gz", label_of(0))
        saved(tmp_path / "p" / f"{case}.nii.gz", label_of(0))
    (tmp_path / "p" / "a.nii.gz").write_bytes(b"")
    saved(tmp_path / "p" / "b.nii.gz", label_of(0)[:5])
    saved(tmp_path / "l" / "c.nii.gz", label_of(0), shift_mm=9)
    unlabelled = saved(tmp_path / "p" / "e.nii.gz", label_of(0))
    told = score(tmp_path / "p", tmp_path / "l", tmp_path / "out")
    assert [problem.case for problem in told.problems] == ["e", "a", "b", "c"]
    assert set(read_volumes(tmp_path / "out" / "volumes.csv")["volume"]) == {"d"}
    rows = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert list(rows["case"]) == ["e", "a", "b", "c"]
    assert list(rows["next_step"].str.len() > 0) == [True] * 4
    unlabelled.unlink()
    for case in "abc":
        saved(tmp_path / "p" / f"{case}.nii.gz", label_of(0))
        saved(tmp_path / "l" / f"{case}.nii.gz", label_of(0))
    assert score(tmp_path / "p", tmp_path / "l", tmp_path / "out").problems == []
    assert not (tmp_path / "out" / "problems.csv").exists()


def test_patients_of_the_training_are_scored_apart(tmp_path):
    """As `predict` lists them, by their names, which people write in one way or another."""
    masks, model = tmp_path / "p", tmp_path / "model"
    masks.mkdir()
    model.mkdir()
    (model / "trained_on.csv").write_text(
        "pixels,split,group,case\n1,train,Case 7,case_7_slice_1\n2,val,g8,case_8\n3,train,'=9,x\n"
    )
    weights = LoadWeights(model / "model.pt", nn.Identity())
    weights.recorded = {"weights_sha256": "5a"}
    record = MaskRecord(masks, weights)
    items = [
        {"case": f"case_{number}", "group": f"g{number}", "image": str(tmp_path / "none")}
        for number in (6, 7, 8)
    ] + [{"case": "case_9", "group": "=9", "image": str(tmp_path / "none")}]
    record.missing(items)
    intact = (model / "trained_on.csv").read_text()
    (model / "trained_on.csv").write_text(intact.replace("group", "gro\0up"))
    with pytest.raises(DataError, match=r"trained_on\.csv: damaged"):
        record.claim({}, items)
    (model / "trained_on.csv").write_text(intact)
    record.claim({}, items)
    for number in (5, 6, 7, 8, 9):
        saved(tmp_path / "l" / f"case_{number}.nii.gz", label_of(0))
        if number > 5:
            with record.listed(masks / f"case_{number}.nii.gz", f"case_{number}") as part:
                saved(part, label_of(0))
    text = score(masks, tmp_path / "l", tmp_path / "out", "kits")
    rows = read_volumes(tmp_path / "out" / "volumes.csv").drop_duplicates("volume")
    assert rows["split"].tolist() == ["", "train", "val", "train"]
    assert rows["weights_sha256"].tolist() == ["5a"] * 4
    assert "different weights" not in text
    assert "1 of 4 patients, which the network has not seen" in text
    assert "3 of 4 patients by whose image or name the network was trained" in text
    assert "nobody knows" not in text
    saved(masks / "case_6.nii.gz", label_of(1))  # by hand
    (tmp_path / "out" / "evaluation.json").touch()
    with pytest.raises(DataError, match=r"belongs to the evaluation beside it"):
        score(masks, tmp_path / "l", tmp_path / "out", "kits")
    text = score(masks, tmp_path / "l", tmp_path / "other", "kits")
    assert "nobody knows of 1 of 4 masks whether the network was trained" in text
    assert "the masks are of 2 different weights" in text
    rows = read_volumes(tmp_path / "other" / "volumes.csv").drop_duplicates("volume")
    assert rows["weights_sha256"].tolist() == ["", "5a", "5a", "5a"]


def test_the_names_of_the_training_are_likened_once_for_all_masks(tmp_path, monkeypatch):
    rows = [f"{number},train,g{number},c{number}" for number in range(50)]
    (tmp_path / "trained_on.csv").write_text("\n".join(["pixels,split,group,case", *rows]))
    record = MaskRecord(tmp_path / "p", LoadWeights(tmp_path / "model.pt", nn.Identity()))
    items = [{"case": f"x{number}", "image": str(tmp_path / "none")} for number in range(20)]
    likened, names = predicted.likened, []
    monkeypatch.setattr(predicted, "likened", lambda name: names.append(name) or likened(name))
    record.claim({}, items)
    for item in items:
        with record.listed(tmp_path / "p" / f"{item['case']}.png", item["case"]) as part:
            part.touch()
    assert len(names) == 2 * 50 + 20
