import numpy as np
import PIL.Image
import pytest
import scipy.io
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.prepare import prepare_cracks
from metaseg_monai.prepare.cracks import LAYOUTS
from metaseg_monai.prepare.found import FoundCase
from metaseg_monai.prepare.splits import with_splits
from metaseg_monai.tables.licenses import data_license, may_share, statement, weights_license
from metaseg_monai.tables.table import read_table


def jpg(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path, format="JPEG", quality=95)


def colours(seed):
    return np.random.default_rng(seed).integers(0, 255, (20, 30, 3)).astype(np.uint8)


def test_mendeley_in_grey_with_masks_that_jpeg_blurred(lab, tmp_path):
    root = tmp_path / "download" / "concreteCrackSegmentationDataset"
    for n, suffix in enumerate(["jpg", "JPG", "jpg", "JPG"]):  # as published
        jpg(root / "rgb" / f"00{n}.{suffix}", colours(n))
        jpg(root / "BW" / f"00{n}.jpg", lab.mask(255))
    assert len(np.unique(np.asarray(PIL.Image.open(root / "BW" / "000.jpg")))) > 2
    made = prepare_cracks(tmp_path / "download", tmp_path / "out")
    assert made.problems == []
    assert data_license(tmp_path / "out") == [statement("concrete-cracks", "cc-by-4.0")]
    table = read_table(made.table, None)
    assert {row["columns"]["domain"] for row in table.rows} == {"CRACK"}
    assert [row["group"] for row in table.rows] == ["000", "001", "002", "003"]
    image = tifffile.imread(table.rows[0]["image"])
    stored = np.asarray(PIL.Image.open(root / "rgb" / "000.jpg"))
    np.testing.assert_array_equal(image, np.rint(stored @ [0.299, 0.587, 0.114]).astype(np.uint8))
    np.testing.assert_array_equal(tifffile.imread(table.rows[0]["label"]), lab.mask())


def test_numbers_of_the_thesis():
    """333 / 56 / 56 of 445 images, and of the 458 published ones with 13 left out."""
    for count, shares in ((445, LAYOUTS["mendeley"].shares), (458, (333, 56, 56))):
        cases = [FoundCase(f"{n:03d}", (), group=f"{n:03d}") for n in range(count)]
        divided, problems, remarks = with_splits(cases, shares, 0)
        splits = [case.split for case in divided]
        assert [splits.count(s) for s in ("train", "val", "test")] == [333, 56, 56]
        assert problems == []
        assert len(remarks) == (count == 458)


def test_crackforest_reads_matlab_and_takes_values_above_1(lab, tmp_path):
    root = tmp_path / "CrackForest-dataset"
    for n in range(3):
        jpg(root / "image" / f"00{n}.jpg", colours(n))
        (root / "groundTruth").mkdir(exist_ok=True)
        truth = {"Segmentation": lab.mask(n + 1) + np.uint8(1), "Boundaries": lab.mask()}
        scipy.io.savemat(root / "groundTruth" / f"00{n}.mat", {"groundTruth": truth})
    (root / "groundTruth" / "003.mat").write_bytes(b"MATLAB 5.0 damaged")
    jpg(root / "image" / "003.jpg", colours(3))
    scipy.io.savemat(root / "groundTruth" / "004.mat", {"other": [1]})
    jpg(root / "image" / "004.jpg", colours(4))
    jpg(root / "image" / "118.jpg", colours(5))  # as 37 of the download
    made = prepare_cracks(root, tmp_path / "out", layout="crackforest")
    assert len(made.problems) == 2
    said = data_license(tmp_path / "out")
    assert (weights_license(said), may_share(said)) == ("other", False)
    assert "1 photographs without a mask, left out: 118.jpg" in made.summary
    assert ["groundTruth/003.mat" in made.problems[0], "004.mat" in made.problems[1]] == [True] * 2
    assert "no groundTruth.Segmentation" in made.problems[1]
    for row in read_table(made.table, None).rows:
        np.testing.assert_array_equal(tifffile.imread(row["label"]), lab.mask())


def test_deepcrack_keeps_its_test_part_and_photographs_together(lab, tmp_path):
    for part, names in (("train", ["7Q-1", "7Q-2", "8R-1", "9S-1"]), ("test", ["11-1", "11-2"])):
        for n, name in enumerate(names):
            jpg(tmp_path / "dc" / f"{part}_img" / f"{name}.jpg", colours(n + 10 * len(part)))
            lab.png(tmp_path / "dc" / f"{part}_lab" / f"{name}.png", lab.mask(255))
    made = prepare_cracks(
        tmp_path / "dc",
        tmp_path / "out",
        layout="deepcrack",
        photo=r"(.+?)(-\d+)?$",
    )
    assert made.problems == []
    rows = {row["image"]: (row["group"], row["split"]) for row in lab.rows(made.table)}
    assert rows["images/test_11-1.tif"] == rows["images/test_11-2.tif"] == ("11", "test")
    assert rows["images/train_7Q-1.tif"] == rows["images/train_7Q-2.tif"]
    assert sorted({split for _, split in rows.values()}) == ["test", "train", "val"]
    jpg(tmp_path / "dc" / "test_img" / "7Q-9.jpg", colours(77))
    lab.png(tmp_path / "dc" / "test_lab" / "7Q-9.png", lab.mask(255))
    made = prepare_cracks(
        tmp_path / "dc", tmp_path / "b", layout="deepcrack", photo=r"(.+?)(-\d+)?$"
    )
    assert len(made.problems) == 3
    assert "its group '7Q' is in several splits: none, test" in made.problems[0]


def test_refusals(lab, tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    with pytest.raises(DataError, match="layout='roads': expected one of mendeley, crackforest"):
        prepare_cracks(source, tmp_path / "out", layout="roads")
    with pytest.raises(DataError, match="expected the folders rgb, BW, or images, masks of"):
        prepare_cracks(source, tmp_path / "out")
    jpg(source / "rgb" / "1.jpg", colours(0))
    lab.png(source / "BW" / "1.png", lab.mask())
    lab.png(source / "BW" / "2.png", lab.mask())
    made = prepare_cracks(source, tmp_path / "out")
    assert "values up to 1, of which none is above 127; give threshold=0" in made.problems[0]
    assert "1 masks without image in BW: 2" in made.summary
    with pytest.raises(DataError, match="expected a group in brackets"):
        prepare_cracks(source, tmp_path / "out", photo=".+")
    with pytest.raises(DataError, match="threshold='abc': expected a number"):
        prepare_cracks(source, tmp_path / "out", threshold="abc")
    with pytest.raises(DataError, match="no regular expression"):
        prepare_cracks(source, tmp_path / "out", photo="(")
