"""Which cases stay together, and what is told of columns and splits."""

import pytest

from metaseg_monai.prepare import PrepareOptions, prepare_cells, prepare_names

LEFT_OUT = "columns of the table that are left out, as table.csv has its own of these names: "


def with_columns(lab, tmp_path, count=12, **columns):
    """A lab folder whose table has further columns, each a function of the image's number."""
    source, rows = lab.cells(tmp_path / "lab", count, split=False)
    added = [{name: make(n) for name, make in columns.items()} for n in range(count)]
    lab.csv(source / "lab.csv", [{**row, **more} for row, more in zip(rows, added, strict=True)])
    return source


def test_own_columns_of_a_table_are_told_where_they_are_left_out(lab, tmp_path):
    source = with_columns(lab, tmp_path, label=str, instances=str, group=lambda n: f"g{n // 2}")
    wells = PrepareOptions(group=("plate", "well"))
    made = prepare_cells(source, tmp_path / "a", options=wells)
    assert f"{LEFT_OUT}label, instances, group; rename them" in made.summary
    assert "column group makes the groups" not in made.summary
    made = prepare_cells(source, tmp_path / "b")
    assert f"{LEFT_OUT}label, instances; rename them" in made.summary
    assert "the table's column group makes the groups" in made.summary
    assert {row["image"]: row["group"] for row in lab.rows(made.table)}["images/im2.tif"] == "g1"


def test_a_split_column_beside_the_one_asked_for_is_told(lab, tmp_path):
    source = with_columns(
        lab, tmp_path, 3, split=lambda n: "train", fold=lambda n: ["train", "val", "test"][n]
    )
    made = prepare_cells(source, tmp_path / "a", split="fold")
    assert f"{LEFT_OUT}split; rename them" in made.summary
    assert [row["split"] for row in lab.rows(made.table)] == ["train", "val", "test"]
    assert LEFT_OUT not in prepare_cells(source, tmp_path / "b").summary


def test_the_column_group_can_be_named(lab, tmp_path):
    source = with_columns(lab, tmp_path, group=lambda n: f"g{n // 2}")
    made = prepare_cells(source, tmp_path / "a", options=PrepareOptions(group=("group",)))
    assert made.problems == []
    groups = {row["image"]: row["group"] for row in lab.rows(made.table)}
    assert [groups[f"images/im{n}.tif"] for n in range(3)] == ["g0", "g0", "g1"]
    assert LEFT_OUT not in made.summary
    both = PrepareOptions(group=("plate", "group"))
    made = prepare_cells(source, tmp_path / "b", options=both)
    assert lab.rows(made.table)[0]["group"] == "p1_g0"


def test_a_split_that_stays_empty_is_warned_of(lab, tmp_path):
    source = with_columns(lab, tmp_path, group=lambda n: "all")
    warning = "WARNING: no case in val and test: 12 cases are 1 group;"
    for dry_run in (True, False):
        made = prepare_cells(source, tmp_path / "a", options=PrepareOptions(dry_run=dry_run))
        assert warning in made.summary
    sound = prepare_cells(source, tmp_path / "b", options=PrepareOptions(group=("well",)))
    assert "WARNING" not in sound.summary
    wanted = prepare_cells(source, tmp_path / "c", options=PrepareOptions(shares=(1.0, 0.0, 0.0)))
    assert "WARNING" not in wanted.summary


def plate(lab, root, names):
    for number, name in enumerate(names):
        lab.tif(root / name, lab.image(number))
    return root


@pytest.mark.parametrize(
    ("pattern", "names", "groups", "told"),
    [
        (
            "metaxpress",
            [f"p7_A{w:02d}_s{s}_w{c}.tif" for w in range(1, 9) for s in (1, 2) for c in (1, 2)],
            [f"p7_A{w:02d}" for w in range(1, 9)],
            "plate and well make the groups",
        ),
        (
            "metaxpress",
            [f"TimePoint_{t}/A0{w}_w1.tif" for w in (1, 2, 3, 4) for t in (1, 2)],
            ["A01", "A02", "A03", "A04"],  # no plate is told
            "plate and well make the groups",
        ),
        (
            "opera",
            [f"p7__x/Images/r27c0{w}f01p0{z}-ch1sk1fk1fl1.tiff" for w in "123" for z in "12"],
            [f"p7__x_AA0{w}" for w in "123"],
            "plate and well make the groups",
        ),
        (
            r"(?P<line>[A-Z]+)_f(?P<field>\d)_z(?P<z>\d)\.tif",
            [f"HELA_f{f}_z{z}.tif" for f in (1, 2, 3, 4) for z in (1, 2, 3)],
            [f"HELA_{f}" for f in (1, 2, 3, 4)],
            "line and field make the groups",
        ),
        (
            r"(?P<time>\d)\.tif",
            [f"{t}.tif" for t in range(5)],
            ["all"],
            "all images are one group",
        ),
    ],
)  # fmt: skip
def test_channels_planes_and_times_of_a_field_stay_together(
    lab, tmp_path, pattern, names, groups, told
):
    made = prepare_names(plate(lab, tmp_path / "s", names), tmp_path / "out", pattern)
    assert made.problems == []
    rows = lab.rows(made.table)
    assert len(rows) == len(names)
    assert sorted({row["group"] for row in rows}) == groups
    assert len({(row["group"], row["split"]) for row in rows}) == len(groups)
    assert f"no group is named: {told}" in made.summary


def test_groups_that_are_named_or_needless_stay_as_they_are(lab, tmp_path):
    names = [f"p7_A0{w}_s1_w{c}.tif" for w in (1, 2, 3) for c in (1, 2)]
    source = plate(lab, tmp_path / "s", names)
    options = PrepareOptions(group=("plate", "channel"))
    made = prepare_names(source, tmp_path / "a", "metaxpress", options=options)
    assert {row["group"] for row in lab.rows(made.table)} == {"p7_1", "p7_2"}
    assert "no group is named" not in made.summary
    pattern = r"p7_(?P<group>[A-P]\d\d)_s1_w(?P<channel>\d)\.tif"
    made = prepare_names(source, tmp_path / "b", pattern)
    assert {row["group"] for row in lab.rows(made.table)} == {"A01", "A02", "A03"}
    assert "no group is named" not in made.summary
    numbers = plate(lab, tmp_path / "n", [f"im{n}.tif" for n in range(3)])
    made = prepare_names(numbers, tmp_path / "c", r"im(?P<number>\d)\.tif")
    assert "every image is its own group" in made.summary
    assert "no group is named" not in made.summary


@pytest.mark.parametrize("in_table", ["Zu\u0308rich", "Z\u00fcrich"])
def test_accents_are_compared_in_one_form(lab, tmp_path, in_table):
    """A file system that takes names apart, a table typed on a keyboard or made from names."""
    apart, whole = "Zu\u0308rich", "Z\u00fcrich"
    source, rows = lab.cells(tmp_path / "lab", 3, split=False)
    lab.tif(source / "images" / f"{apart}.tif", lab.image(9))
    lab.png(source / "masks" / f"{whole}.png", lab.mask())
    rows.append({**rows[0], "File": f"{in_table}.tif", "cell_line": apart})
    lab.csv(source / "lab.csv", rows)
    made = prepare_cells(source, tmp_path / "out")
    assert made.problems == []
    (row,) = (row for row in lab.rows(made.table) if row["cell_line"] == whole)
    assert row["image"] == f"images/{whole}.tif"
    assert (tmp_path / "out" / row["image"]).is_file()
    pattern = rf"(?P<place>{whole})\.tif"
    named = prepare_names(source / "images", tmp_path / "b", pattern)
    assert [row["place"] for row in lab.rows(named.table)] == [whole]


def test_images_and_masks_in_one_folder(lab, tmp_path):
    rows = []
    for n in range(3):
        lab.tif(tmp_path / "s" / f"im{n}.tif", lab.image(n))
        lab.png(tmp_path / "s" / f"im{n}_mask.png", lab.mask())
        rows.append({"file": f"im{n}.tif", "dose": n})
    lab.csv(tmp_path / "s" / "t.csv", rows)
    where = {"images": ".", "masks": "."}
    made = prepare_cells(tmp_path / "s", tmp_path / "out", **where, mask_suffix="_mask")
    assert made.problems == []
    assert [row["label"] for row in lab.rows(made.table)] == [f"labels/im{n}.png" for n in range(3)]
    label = (tmp_path / "out" / "labels" / "im0.png").read_bytes()
    assert label == (tmp_path / "s" / "im0_mask.png").read_bytes()
    with pytest.raises(ValueError, match="images and masks in one folder; say with --mask_suffix"):
        prepare_cells(tmp_path / "s", tmp_path / "b", **where)
