import re
import sys
from time import monotonic

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images.read import read_image
from metaseg_monai.prepare import found, prepare_cracks, prepare_names
from metaseg_monai.prepare.names import PRESETS, name_values
from metaseg_monai.tables.table import read_table

IMAGE = r"(?P<line>[A-Za-z]+)_(?P<well>[A-P]\d\d)_z(?P<z>\d+)\.tif"
MASK = r"(?P<line>[A-Za-z]+)_(?P<well>[A-P]\d\d)_mask\.png"
WELLS = {"group": ("line", "well")}
UUID = "0A1B2C3D-0123-4567-89AB-0123456789AB"


def told(preset, path, tmp_path):
    pattern = re.compile(PRESETS[preset])
    (values,) = name_values("pattern", pattern, [tmp_path / path], tmp_path)
    return values and {k: v for k, v in zip(pattern.groupindex, values, strict=True) if v}


def stacks(lab, folder, planes=("1", "2", "10")):
    for number, key in enumerate(["HeLa_A01", "HeLa_A02", "MCF_A01"]):
        for index, plane in enumerate(planes):
            lab.tif(folder / f"{key}_z{plane}.tif", lab.image(10 * number + index))
        lab.png(folder / "masks" / f"{key}_mask.png", lab.mask())
    return folder


@pytest.mark.parametrize(
    ("preset", "path", "expected"),
    [
        (
            "metaxpress",
            "plate_7_B02_s3_w1.tif",
            {"plate": "plate_7", "well": "B02", "field": "3", "channel": "1"},
        ),
        ("metaxpress", f"x/p_A01_s1_w2{UUID}.TIF", {"plate": "p", "well": "A01", "field": "1",
                                                    "channel": "2"}),
        ("metaxpress", f"p_A01_s1_w2_thumb{UUID}.tif", None),
        (
            "metaxpress",
            "a/TimePoint_4/ZStep_2/A01_w1.tif",
            {"timepoint": "4", "plane": "2", "well": "A01", "channel": "1"},
        ),
        ("metaxpress", "A01.tif", {"well": "A01"}),
        ("metaxpress", "A01.png", None),
        (
            "opera",
            "lab/plate7__2024/Images/r02c11f05p01-ch3sk1fk1fl1.tiff",
            {"plate": "plate7__2024", "row": "02", "column": "11", "field": "05", "plane": "01",
             "channel": "3", "timepoint": "1"},
        ),
        ("opera", "Index.idx.xml", None),
    ],
)  # fmt: skip
def test_presets(tmp_path, preset, path, expected):
    assert told(preset, path, tmp_path) == expected


def test_planes_are_joined_in_the_order_of_numbers(lab, tmp_path):
    source = stacks(lab, tmp_path / "src")
    (source / "notes.txt").write_text("x")
    made = prepare_names(source, tmp_path / "out", IMAGE, MASK, ("z",), **WELLS)
    assert made.problems == []
    row = lab.rows(made.table)[0]
    folder = "images/HeLa_A01"
    assert row["image"] == f"{folder}/1.tif;{folder}/2.tif;{folder}/10.tif"
    assert (row["line"], row["well"], row["z"]) == ("HeLa", "A01", "1;2;10")
    assert row["group"] == "HeLa_A01"
    item = read_table(made.table, None).rows[0]
    expected = np.stack([lab.image(index) for index in range(3)])
    np.testing.assert_array_equal(read_image(item["image"]).array, expected)
    assert "1 files that do not fit: notes.txt" in made.summary
    assert "uint16 with 3 channels: 3 cases" in made.summary


def test_missing_plane_and_mask_are_told(lab, tmp_path):
    source = stacks(lab, tmp_path / "src")
    (source / "HeLa_A01_z2.tif").unlink()
    (source / "masks" / "MCF_A01_mask.png").unlink()
    lab.png(source / "masks" / "MCF_A09_mask.png", lab.mask())
    made = prepare_names(source, tmp_path / "out", IMAGE, MASK, ("z",), **WELLS)
    assert made.problems[0].startswith("HeLa_A01: HeLa_A01_z1")
    assert "no plane 2; get it, or join less" in made.problems[0]
    assert "MCF_A01: MCF_A01_z1.tif: no mask with {'line': 'MCF'" in made.problems[1]
    assert len(lab.rows(made.table)) == 1
    assert "1 masks without image: masks/MCF_A09_mask.png" in made.summary


def test_without_join_or_masks_every_file_is_a_case(lab, tmp_path):
    source = stacks(lab, tmp_path / "src", planes=("1", "2"))
    made = prepare_names(source, tmp_path / "a", IMAGE, MASK, **WELLS)
    assert len(read_table(made.table, None).rows) == 6  # one mask for both planes
    bare = prepare_names(source, tmp_path / "b", IMAGE, **WELLS)
    assert "label" not in lab.rows(bare.table)[0]
    assert "3 files that do not fit: masks/HeLa_A01_mask.png" in bare.summary


def test_split_and_group_from_names(lab, tmp_path):
    for n, split in enumerate(["train", "val", "test", "holdout"]):
        lab.tif(tmp_path / "src" / split / f"im{n}.tif", lab.image(n))
    pattern = r"(?P<split>\w+)/im(?P<number>\d)\.tif"
    made = prepare_names(tmp_path / "src", tmp_path / "out", pattern)
    assert [r["split"] for r in lab.rows(made.table)] == ["test", "train", "val"]
    assert "unknown split 'holdout'" in made.problems[0]


def test_refusals(lab, tmp_path):
    source, out = stacks(lab, tmp_path / "src"), tmp_path / "out"
    with pytest.raises(DataError, match=r"pattern: fits none of 12 files .*HeLa_A01_z1\.tif"):
        prepare_names(source, out, r"(?P<well>nothing)")
    with pytest.raises(DataError, match=r"mask_pattern: fits none of 12 files"):
        prepare_names(source, out, IMAGE, r"(?P<well>nothing)")
    with pytest.raises(DataError, match=r"HeLa_A01_z10.*HeLa_A01_z1.* give the same values"):
        prepare_names(source, out, r"(?P<line>[A-Za-z]+)_(?P<well>[A-P]\d\d)_z\d+\.tif")
    with pytest.raises(DataError, match=r"pattern='\.\*': no named group"):
        prepare_names(source, out, ".*")
    with pytest.raises(DataError, match="the group image is a column of its own"):
        prepare_names(source, out, "(?P<image>.*)")
    with pytest.raises(DataError, match=r"no regular expression"):
        prepare_names(source, out, "(")
    with pytest.raises(DataError, match="join: dish is no named group"):
        prepare_names(source, out, IMAGE, join=("dish",))
    with pytest.raises(DataError, match=r"mask_pattern: z is no named group .* line, well"):
        prepare_names(source, out, IMAGE, r"(?P<z>.)", ("z",))
    with pytest.raises(DataError, match="join: all named groups"):
        prepare_names(source, out, IMAGE, join=("line", "well", "z"))
    assert not out.exists()


ENDLESS = r"(?P<line>([A-Za-z]+)+)[.]tif"


@pytest.mark.parametrize(
    ("setting", "command", "more"),
    [
        ("pattern", prepare_names, {"pattern": ENDLESS}),
        ("mask_pattern", prepare_names, {"pattern": "(?P<line>.+).tif", "mask_pattern": ENDLESS}),
        ("photo", prepare_cracks, {"photo": "(([a-z]+)+)$"}),
    ],
)
def test_a_pattern_that_would_be_tried_for_ever_is_stopped(
    lab, tmp_path, monkeypatch, setting, command, more
):
    monkeypatch.setattr(found, "SEARCH_S", 0.3)
    for folder in (tmp_path / "in" / "rgb", tmp_path / "in" / "BW"):
        lab.png(folder / f"b{'a' * 40}-1.png", lab.mask())
    begun = monotonic()
    with pytest.raises(
        DataError, match=rf"^{setting}=.*stopped at '[^']*baaa.* as it can be tried"
    ):
        command(tmp_path / "in", tmp_path / "out", **more)
    assert monotonic() - begun < 5
    assert not (tmp_path / "out").exists()


def test_time_grows_with_the_files_not_with_their_pairs(lab, tmp_path):
    pixels = lab.image()
    lab.tif(tmp_path / "in" / "s0_p0.tif", pixels)
    content = (tmp_path / "in" / "s0_p0.tif").read_bytes()

    def steps(count):  # calls of functions: no clock of a busy machine
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"s{number}_p{number}.tif").write_bytes(content)
        calls = [0]

        def count_call(frame, event, argument):
            calls[0] += event == "call"

        sys.setprofile(count_call)
        try:
            copies = prepare_names(folder, tmp_path / f"{count}c", r"(?P<s>s\d+)_p\d+[.]tif")
            apart = prepare_names(
                folder, tmp_path / f"{count}a", r"(?P<s>s\d+)_(?P<p>p\d+)[.]tif", join=["p"]
            )
        finally:
            sys.setprofile(None)
        assert len(copies.problems) == len(apart.problems) == count
        return calls[0]

    assert steps(240) < 2.3 * steps(120)
