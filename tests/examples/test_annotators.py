"""The script of docs/examples/annotators, on tiny masks."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.tables import ColumnMap, read_table

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "annotators"
LABELS = ("label", "label_kits19", "label_ann1", "label_ann2", "label_ann3")


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("styles", EXAMPLE / "styles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path):
    """Three slices; annotator 3 has left out the last, and drawn the tumour twice as high."""
    folder, rows = tmp_path / "kits2d", []
    for number, split in enumerate(("train", "val", "test", "train")):
        name = f"case_{number}.png"
        row = {"image": f"images/{name}", "case_id": f"case_{number}", "split": split}
        row |= dict.fromkeys(("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"), "0.7")
        row |= {"source": "made up", "licence": "none"}
        for column in LABELS:
            if number == 3 and column == "label_ann3":
                row[column] = ""
                continue
            mask = np.zeros((8, 8), dtype=np.uint8)
            mask[2:4, :] = 1
            mask[4 : 8 if column == "label_ann3" else 6, :4] = 2
            row[column] = f"{column}s/{name}"
            (folder / f"{column}s").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / row[column])
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 9, dtype=np.uint8)).save(folder / row["image"])
        rows.append(row)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_every_slice_that_all_have_drawn_stands_once_for_each(script, source, tmp_path, capsys):
    script.styles(str(source), str(tmp_path / "new"))
    schema = MetadataSchema.load(EXAMPLE / "schema.json")
    columns = ColumnMap.load(EXAMPLE / "columns.json")
    table = read_table(tmp_path / "new", schema, columns)
    assert len(table.rows) == 3 * 5
    for split in ("train", "val", "test"):
        items = table.items(split)
        assert [item["metadata"]["style"] for item in items] == list(schema.field("style").values)
        assert len({item["group"] for item in items}) == 1
        assert len({item["image"] for item in items}) == 1
        assert len({item["case"] for item in items}) == len({item["label"] for item in items}) == 5
        third = next(item for item in items if item["metadata"]["style"] == "annotator3")
        assert (np.asarray(Image.open(third["label"])) == 2).sum() == 16
    told = capsys.readouterr().out
    assert "tumour: annotator2 / annotator3: 0.667, 0.500" in told  # 8 pixels in 16
    assert "kidney and masses: annotator1 / kits23: 1.000, 1.000" in told
    assert "3 slices of 3 patients, 15 rows" in told


def test_wrong_folders_are_refused(script, source, tmp_path):
    with pytest.raises(SystemExit, match=r"expected .*manifest.csv"):
        script.styles(str(tmp_path / "nowhere"), str(tmp_path / "new"))
    with pytest.raises(SystemExit, match="no folder"):
        script.styles(str(source), str(source))
    (source / "manifest.csv").write_text("image,label\na,b\n")
    with pytest.raises(SystemExit, match="lacks the columns case_id, label_ann1"):
        script.styles(str(source), str(tmp_path / "new"))
