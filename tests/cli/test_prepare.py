"""The commands of prepare as a user types them."""

import numpy as np
import PIL.Image
import pytest
import scipy.io

from metaseg_monai.cli.commands import run
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.tables.table import read_table

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")


def picture(path, seed, size=(20, 30)):
    array = np.random.default_rng(seed).integers(0, 255, size).astype(np.uint8)
    return saved(path, array)


def mask(path):
    return saved(path, (np.arange(600).reshape(20, 30) > 300).astype(np.uint8) * 255)


def saved(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path)


def call(*arguments):
    return run(["prepare", *map(str, arguments)])


@pytest.fixture
def lab_folder(tmp_path):
    lines = ["name,plate,well,dose"]
    for n in range(4):
        picture(tmp_path / "lab" / "images" / f"im{n}.png", n)
        mask(tmp_path / "lab" / "masks" / f"im{n}.png")
        lines.append(f"im{n},1,A0{n},{n}")
    (tmp_path / "lab" / "lab.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "lab"


def test_cells(lab_folder, tmp_path, capsys):
    out = tmp_path / "out"
    common = ["cells", "--source", lab_folder, "--output", out, "--group", "plate,well"]
    call(*common, "--labels", "binary", "--dry-run")
    assert "name,plate,well,dose,group,split" in capsys.readouterr().out
    assert not out.exists()
    with pytest.raises(DataError, match=r"4 problems, all in .*problems\.csv"):
        call(*common)
    assert "problem: im0: masks/im0.png: label values 255" in capsys.readouterr().out
    out = tmp_path / "second"
    call("cells", lab_folder, out, "--group", "plate,well", "--labels", "binary", "--seed", 3)
    assert "4 cases prepared" in capsys.readouterr().out
    assert {row["group"] for row in read_table(out, None).rows} == {f"1_A0{n}" for n in range(4)}


def test_problems_of_a_dry_run(lab_folder, tmp_path, capsys):
    (lab_folder / "masks" / "im2.png").unlink()
    assert call("cells", lab_folder, tmp_path / "out", "--dry-run") == 3
    assert "im2: images/im2.png: no mask" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_shares_that_are_no_numbers(lab_folder, tmp_path):
    with pytest.raises(ConfigError, match="--train most: expected a number"):
        call("cells", lab_folder, tmp_path / "out", "--train", "most")


def test_dsb2018(tmp_path):
    for name in "abc":
        picture(tmp_path / "s" / name / "images" / f"{name}.png", ord(name))
        mask(tmp_path / "s" / name / "masks" / "1.png")
    call("dsb2018", tmp_path / "s", tmp_path / "out", "--overlap", "smaller")
    assert len(read_table(tmp_path / "out", None).rows) == 3


def test_cracks_of_every_layout(tmp_path):
    for n in range(4):
        picture(tmp_path / "m" / "rgb" / f"{n}.jpg", n, (20, 30, 3))
        mask(tmp_path / "m" / "BW" / f"{n}.png")
        picture(tmp_path / "f" / "image" / f"{n}.jpg", n, (20, 30, 3))
        (tmp_path / "f" / "groundTruth").mkdir(exist_ok=True)
        truth = {"groundTruth": {"Segmentation": np.full((20, 30), 1 + n % 2, np.uint8)}}
        scipy.io.savemat(tmp_path / "f" / "groundTruth" / f"{n}.mat", truth)
        part = "test" if n == 3 else "train"
        picture(tmp_path / "d" / f"{part}_img" / f"{n}-1.jpg", n, (20, 30, 3))
        mask(tmp_path / "d" / f"{part}_lab" / f"{n}-1.png")
    call("cracks", tmp_path / "m", tmp_path / "a", "--train", 1, "--val", 1, "--test", 1)
    assert len(read_table(tmp_path / "a", None).rows) == 3
    call("cracks", tmp_path / "f", tmp_path / "b", "--layout", "crackforest")
    assert len(read_table(tmp_path / "b", None).rows) == 4
    photo = ["--photo", r"(.+?)(-\d+)?$"]
    call("cracks", tmp_path / "d", tmp_path / "c", "--layout", "deepcrack", *photo)
    table = read_table(tmp_path / "c", None)
    assert [row["group"] for row in table.items("test")] == ["3"]
    assert table.splits == ("train", "val", "test")


def test_names(tmp_path, capsys):
    for n in range(3):
        for channel in (1, 2):
            picture(tmp_path / "src" / f"p_A0{n + 1}_s1_w{channel}.tif", 10 * n + channel)
        mask(tmp_path / "src" / f"p_A0{n + 1}_mask.png")
    pattern = r"(?P<plate>.+)_(?P<well>[A-P]\d\d)_mask\.png"
    call(
        "names", tmp_path / "src", tmp_path / "out", "--pattern", "metaxpress", "--mask-pattern",
        pattern, "--join", "channel", "--group", "plate,well", "--labels", "binary",
    )  # fmt: skip
    assert "3 cases prepared, 0 problems" in capsys.readouterr().out
    rows = read_table(tmp_path / "out", None).rows
    assert [len(row["image"]) for row in rows] == [2, 2, 2]
    assert [row["columns"]["well"] for row in rows] == ["A01", "A02", "A03"]
