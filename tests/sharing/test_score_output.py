"""Where scores may be written: seen before any scoring, and nobody's own file is replaced."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import per_case, read_volumes
from metaseg_monai.sharing import score as scoring
from metaseg_monai.sharing.score import score


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((5, 6, 4), np.uint8), np.diag([-1.0, -1, -1, 1])), path)
    return path


@pytest.fixture
def unscored(monkeypatch):
    monkeypatch.setattr(scoring, "_score_pair", lambda *args: pytest.fail("scored"))


@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("own", r"own/volumes\.csv: would be replaced"),
        ("own/volumes.csv", r"own/volumes\.csv: would be replaced.*move it away"),
        ("file", r"--output .*file: .*file is a file; choose a folder"),
        ("file/deeper", r"file/deeper: .*file is a file; choose a folder"),
        ("folder.csv", r"folder\.csv: is a folder"),
    ],
)
def test_what_cannot_be_or_is_not_ours_is_refused(mask, tmp_path, output, message):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "own").mkdir()
    for name in ("own/volumes.csv", "file"):
        (tmp_path / name).write_text("patient,kidney_ml\n7,150\n")
    with pytest.raises(DataError, match=message):
        score(mask, mask, tmp_path / output)
    for name in ("own/volumes.csv", "file"):
        assert (tmp_path / name).read_text() == "patient,kidney_ml\n7,150\n"


@pytest.mark.usefixtures("unscored")
def test_a_folder_that_may_not_be_written_to_is_told(mask, tmp_path, monkeypatch):
    def forbidden(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", forbidden)
    with pytest.raises(DataError, match=r"--output .*/out: Permission denied; check"):
        score(mask, mask, tmp_path / "out")


@pytest.mark.usefixtures("unscored")
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_folder_of_the_system_is_no_output(mask):
    with pytest.raises(DataError, match=r"--output /proc/foo: .*; "):
        score(mask, mask, "/proc/foo")


def test_a_disk_that_fills_up_is_told(mask, tmp_path, monkeypatch):
    def full(rows, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(per_case, "write_table", full)
    with pytest.raises(DataError, match=r"No space left on device; free"):
        score(mask, mask, tmp_path / "out")


def test_problems_beside_a_table_are_its_own(mask, tmp_path):
    other = "case,file,problem,next_step\nz,z,of a prediction,\n"
    masks, labels = tmp_path / "masks", tmp_path / "labels"
    for folder in (masks, labels):
        folder.mkdir()
        for name in ("a", "b"):
            shutil.copy(mask, folder / f"{name}.nii.gz")
    (masks / "b.nii.gz").write_bytes(b"damaged")
    (tmp_path / "problems.csv").write_text(other)
    told = score(masks, labels, tmp_path / "scores.csv", "kits")
    assert told.problems_file == tmp_path / "scores.problems.csv"
    assert "b.nii.gz" in told.problems_file.read_text()
    shutil.copy(mask, masks / "b.nii.gz")
    score(masks, labels, tmp_path / "scores.csv", "kits")
    assert not told.problems_file.exists()
    assert (tmp_path / "problems.csv").read_text() == other


def test_earlier_scores_are_replaced(mask, tmp_path):
    for found_share in (0.5, 0.7):
        score(mask, mask, tmp_path / "out", "kits", found_share=found_share)
    assert len(read_volumes(tmp_path / "out" / "volumes.csv")) == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["volumes.csv"]
