"""From images through a network that thresholds them to label images and back."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.object_table import SaveObjects, tiff_pixel_um, write_labels
from metaseg_monai.images.read import read_image
from metaseg_monai.tables.find import find_cases
from metaseg_monai.training import collate_cases
from metaseg_monai.transforms import KeepForBatchd, LoadCased

PICTURE = np.zeros((20, 30), np.uint16)
PICTURE[2:6, 3:8], PICTURE[8:14, 10:14], PICTURE[8:14, 14:19] = 900, 700, 800
SETTINGS = {"method": "watershed", "min_distance_px": 2}


class Bright(torch.nn.Module):
    """Foreground where a pixel is above 500."""

    def forward(self, image):
        return torch.cat([500 - image, image - 500], dim=1)


def save(path, image=PICTURE, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack", **settings)


def predict(source, handler):
    items = find_cases(source, None)
    chain = Compose([LoadCased(), KeepForBatchd()])
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, chain), 1, collate_fn=collate_cases),
        network=Bright(),
        val_handlers=[handler],
        decollate=False,
    ).run()


@pytest.mark.parametrize(
    ("form", "name"), [("labels", "a_objects.tif"), ("ome-labels", "a_objects.ome.tif")]
)
def test_labels_have_the_shape_and_pixel_size_of_the_image(tmp_path, form, name):
    save(tmp_path / "in" / "a.tif", resolution=(20000, 20000), resolutionunit="CENTIMETER")
    predict(tmp_path / "in", SaveObjects(tmp_path / "out", form, SETTINGS))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        name, "objects.csv", "wells.csv", "predicted.sha256",
    }  # fmt: skip
    labels = read_image(tmp_path / "out" / name).array[0]
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels > 0, PICTURE > 500)
    assert tiff_pixel_um(tmp_path / "out" / name) == pytest.approx(0.5)
    with tifffile.TiffFile(tmp_path / "out" / name) as file:
        assert file.is_ome is (form == "ome-labels")
        assert file.series[0].axes == "YX"
    table = pd.read_csv(tmp_path / "out" / "objects.csv")
    for _, row in table.iterrows():
        assert row["area_px"] == (labels == row["object"]).sum()
    assert table["max_intensity"].max() == 900
    assert pd.read_csv(tmp_path / "out" / "wells.csv").loc[0, "objects"] == labels.max()


def test_an_unknown_pixel_size_is_not_invented(tmp_path):
    for name in ("a.tif", "a.ome.tif"):
        write_labels(tmp_path / name, PICTURE)
        assert tiff_pixel_um(tmp_path / name) is None


def test_ome_metadata_are_those_of_the_standard(tmp_path):
    write_labels(tmp_path / "a.ome.tif", PICTURE, 0.325)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        text = file.ome_metadata
    for told in ('PhysicalSizeX="0.325"', 'PhysicalSizeYUnit="µm"', 'SizeX="30"', 'SizeY="20"'):
        assert told in text
    assert 'Type="uint16"' in text


def test_more_objects_than_16_bits_hold_are_written_with_32(tmp_path):
    labels = np.arange(66000, dtype=np.int32).reshape(220, 300)
    for name in ("a.tif", "a.ome.tif"):
        write_labels(tmp_path / name, labels)
        stored = tifffile.imread(tmp_path / name)
        assert stored.dtype == np.uint32
        np.testing.assert_array_equal(stored, labels)
    write_labels(tmp_path / "b.tif", labels[:218])
    assert tifffile.imread(tmp_path / "b.tif").dtype == np.uint16


def test_only_earlier_predictions_are_replaced(tmp_path):
    save(tmp_path / "in" / "a.tif")
    out = tmp_path / "out"
    for _ in range(2):
        predict(tmp_path / "in", SaveObjects(out, objects=SETTINGS))
    lines = (out / "predicted.sha256").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["a_objects.tif", "objects.csv", "wells.csv"]
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    for name in ("a_objects.tif", "objects.csv"):
        before = (out / name).read_bytes()
        (out / name).write_bytes(b"corrected by hand")
        with pytest.raises(DataError, match=f"no masks as predicted before .*{name}"):
            predict(tmp_path / "in", SaveObjects(out))
        (out / name).write_bytes(before)


def test_images_and_names_in_common_are_refused(tmp_path):
    save(tmp_path / "in" / "a.tif")
    save(tmp_path / "in" / "a_objects.tif")
    with pytest.raises(DataError, match="The objects of 'a' would replace the image"):
        predict(tmp_path / "in", SaveObjects(tmp_path / "in"))
    save(tmp_path / "volume" / "v.nii.gz")
    with pytest.raises(DataError, match="objects are made of 2D images"):
        predict(tmp_path / "volume", SaveObjects(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_no_image_is_held_while_the_next_is_read(tmp_path):
    held = []

    class Watched(SaveObjects):
        def attach(self, engine):
            super().attach(engine)
            engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.look)

        def look(self, engine):
            held.append(engine.state.output)

    for name in "abc":
        save(tmp_path / "in" / f"{name}.tif")
    predict(tmp_path / "in", Watched(tmp_path / "out"))
    assert held == [None] * 3


def test_another_form_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'mask' .* labels, ome-labels, not 'label'"):
        SaveObjects(tmp_path, "label")
