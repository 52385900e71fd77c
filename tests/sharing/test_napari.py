"""napari finds our reader and opens what a prediction wrote."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

import metaseg_monai
from metaseg_monai.files import file_sha256
from metaseg_monai.sharing.napari import napari_get_reader
from tests.extras import needed

MANIFEST = Path(metaseg_monai.__file__).parent / "napari.yaml"


@pytest.fixture
def masks(tmp_path):
    """A folder of predictions: a volume and a plane, and an image of somebody else."""
    folder = tmp_path / "masks"
    (folder / "a").mkdir(parents=True)
    volume = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 4
    nib.save(nib.Nifti1Image(volume, np.diag([1.5, 2, 5, 1])), folder / "a/scan.nii.gz")
    plane = np.eye(5, dtype=np.uint16) * 300
    tifffile.imwrite(folder / "cell.tif", plane, resolution=(20000, 20000), resolutionunit=3)
    tifffile.imwrite(folder / "photo.tif", plane)
    names = ("a/scan.nii.gz", "cell.tif")
    lines = []
    for name in names:
        lines += ['# {"case": "x", "weights_sha256": "0"}', f"{file_sha256(folder / name)}  {name}"]
    (folder / "predicted.sha256").write_text("\n".join(lines) + "\n")
    return folder, volume, plane


def test_masks_are_layers_of_labels_with_their_scale(masks):
    folder, volume, plane = masks
    found = {}
    for data, known, kind in napari_get_reader(str(folder))(str(folder)):
        assert kind == "labels"
        assert data.dtype.kind == "u"
        found[known["name"]] = (data, known["scale"])
    np.testing.assert_array_equal(found["scan"][0], volume)
    np.testing.assert_allclose(found["scan"][1], [1.5, 2, 5])
    np.testing.assert_array_equal(found["cell"][0], plane)
    np.testing.assert_allclose(found["cell"][1], [0.5, 0.5])
    one = str(folder / "cell.tif")
    ((data, _, _),) = napari_get_reader([one])([one])
    np.testing.assert_array_equal(data, plane)


def test_images_of_others_are_left_to_others(masks, tmp_path):
    folder, _, _ = masks
    assert napari_get_reader(str(folder / "photo.tif")) is None
    assert napari_get_reader(str(tmp_path)) is None


@pytest.mark.filterwarnings("ignore")  # of npe2 itself
def test_npe2_takes_the_manifest_and_reads_by_it(masks):
    npe2 = needed("npe2")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    manager = npe2.PluginManager.instance()
    manager.register(manifest)
    folder, _, _ = masks
    one = str(folder / "cell.tif")
    assert "metaseg-monai.read" in [x.command for x in manager.iter_compatible_readers([one])]
    layers = npe2.read([str(folder)], stack=False, plugin_name="metaseg-monai")
    assert len(layers) == 2
