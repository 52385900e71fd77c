"""A package: what is in it, what is not, and that it runs without this package."""

import gzip
import hashlib
import json
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import nibabel as nib
import numpy as np
import pandas as pd
import PIL.Image
import PIL.PngImagePlugin
import pytest
import tifffile
import torch

from metaseg_monai import train
from metaseg_monai.errors import CheckpointError, ConfigError, DataError
from metaseg_monai.files import write_json
from metaseg_monai.images.read import read_image
from metaseg_monai.images.tiff import tiff_pixel_um
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.owners import owned
from metaseg_monai.sharing.export import export
from metaseg_monai.sharing.package import _without_texts, package
from metaseg_monai.sharing.unpack import OURS, unpack
from metaseg_monai.training import read_weights, write_weights
from tests.extras import needed

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
NAME = "synthetic_shapes_segmentation"
packing = sys.modules[package.__module__]  # the function has the module's name


@pytest.fixture(scope="module")
def root(bundle, tmp_path_factory):
    """The bundle, whose simulator draws few images."""
    folder = shutil.copytree(bundle, tmp_path_factory.mktemp("bundles") / NAME)
    file = folder / "configs/simulate.json"
    few = {"train": 12, "val": 6, "test": 6, "size": 32}
    write_json(file, {**json.loads(file.read_text()), **few})
    return folder


@pytest.fixture(scope="module")
def model(root, tiny, tmp_path_factory):
    """A model that was trained for a moment."""
    folder = tmp_path_factory.mktemp("runs") / "sme"
    train(root, folder, **{**tiny, "epochs": 1, "dataset_dir": str(folder.parent / "data")})
    return folder


@pytest.fixture(scope="module")
def packed(model, tmp_path_factory):
    """It, packed and verified as by default, and unzipped."""
    made = package(model, tmp_path_factory.mktemp("packed"))
    with zipfile.ZipFile(made.archive) as archive:
        archive.extractall(made.folder)
    return made, made.folder / NAME


def pack(model, output, **settings):
    return package(model, output, verify="no", **settings)


def test_it_runs_where_this_package_is_not(packed):
    made, _ = packed
    assert not made.problems
    verdicts = {rule.rule: rule.verdict for rule in made.rules}
    assert verdicts["inference runs without metaseg_monai"] == "pass"
    assert [v for v in verdicts.values() if v != "pass"] == ["not checked"]  # no schema given
    assert "--schema" in str(made)


def test_the_layout_is_that_of_the_zoo(packed):
    _, folder = packed
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    plain = {name for name in there if "_code_" not in name}
    assert {
        *("LICENSE", "SHA256SUMS", "requirements.txt", "docs/README.md", "docs/data_license.txt"),
        *("configs/metadata.json", "configs/inference.json", "configs/train.json"),
        *("models/model.pt", "models/model.json", "models/model.ts", "samples/table.csv"),
    } <= plain
    assert not [n for n in plain if n.startswith("data/") or "trained_on" in n or "check" in n]
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    assert {line.partition("  ")[2] for line in sums} == there - {"SHA256SUMS"}
    digest, _, name = sums[0].partition("  ")
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_it_is_unpacked_without_trust_and_tells_of_its_programs(packed, tmp_path):
    made, folder = packed
    told = unpack(made.archive, tmp_path, made.sha256)
    assert told.trusted is None
    exports = [name for name in ("model.onnx", "model.ts") if (folder / "models" / name).is_file()]
    assert [one.file for one in told.programs] == [f"models/{name}" for name in exports]
    assert "models/model.ts is a program" in str(told)


def test_the_same_makes_the_same_bytes(model, packed, tmp_path):
    made, _ = packed
    again = pack(model, tmp_path)
    assert again.archive.read_bytes() == made.archive.read_bytes()


def test_settings_of_the_training_are_in_their_places(model, packed):
    _, folder = packed
    configs = {
        name: json.loads((folder / f"configs/{name}.json").read_text())
        for name in ("train", "inference", "metadata", "simulate")
    }
    for name in ("train", "inference"):
        assert configs[name]["network_def"]["channels"] == 4
        assert configs[name]["roi_size"] == [32, 32]
        assert "_code_" in configs[name]["network_def"]["_target_"]
    assert configs["train"]["table"]["path"] == "@dataset_dir"  # no simulator of the run
    assert configs["train"]["dataset_dir"] == "$@bundle_root + '/data'"
    image = configs["metadata"]["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == [32, 32]
    assert "metaseg-monai" not in configs["metadata"]["required_packages_version"]
    assert "numpy==2.2.6" in (folder / "requirements.txt").read_text().splitlines()
    assert (folder / "models/model.pt").read_bytes() == (model / "model.pt").read_bytes()


def test_exports_are_those_of_export(model, packed, tmp_path):
    needed("onnxruntime")
    made, folder = packed
    assert "exports: model.ts (parity" in str(made)
    for kind, name in (("torchscript", "model.ts"), ("onnx", "model.onnx")):
        exported = export(model, kind, tmp_path / kind)
        assert exported.file.read_bytes() == (folder / "models" / name).read_bytes()
    assert not (folder / "models/parity.json").exists()


def test_a_package_has_no_export_that_strays_or_cannot_be(model, tmp_path, monkeypatch):
    def strays(given, kind, folder):
        raise CheckpointError(f"{kind} differs")

    monkeypatch.setattr("metaseg_monai.sharing.package.write_export", strays)
    needs = "metaseg_monai.sharing.package.lacking_for"
    monkeypatch.setattr(needs, lambda kind: "--to onnx needs onnx" if kind == "onnx" else "")
    made = pack(model, tmp_path)
    assert "exports: none" in made.remarks
    assert "model.ts is left out: torchscript differs" in made.remarks
    assert "model.onnx is left out: --to onnx needs onnx" in made.remarks
    with zipfile.ZipFile(made.archive) as archive:
        assert not [one for one in archive.namelist() if one.endswith((".ts", ".onnx"))]


def test_its_page_is_the_card(packed):
    _, folder = packed
    page = (folder / "docs/README.md").read_text()
    front = page.split("---\n")[1]
    assert 'license: "apache-2.0"' in front
    for part in ("## Intended use", "## Metadata", "Not tested: no evaluation", "## The bundle"):
        assert part in page
    assert "pip install -r requirements.txt" in page
    assert "from_pretrained" not in page  # which is of this package


def test_samples_are_none_of_the_training(model, packed):
    _, folder = packed
    table = pd.read_csv(folder / "samples/table.csv")
    assert len(table) == 3
    assert table["task"].is_unique
    trained = [tifffile.imread(path) for path in (model.parent / "data/images").iterdir()]
    for name in table["image"]:
        sample = tifffile.imread(folder / "samples" / name)
        assert not any(np.array_equal(sample, image) for image in trained)


def test_cases_of_the_user_are_packed_under_neutral_names(root, model, tmp_path):
    pack(root, tmp_path, samples=model.parent / "data")
    with zipfile.ZipFile(tmp_path / f"{NAME}_v0.1.0.zip") as archive:
        names = [name for name in archive.namelist() if "/samples/" in name]
        assert [name.rpartition("/")[2] for name in names] == [
            *(f"sample_{number}.tif" for number in (1, 2, 3)),
            "table.csv",
        ]


def test_series_of_patients_are_packed_without_their_names(root, model, tmp_path):
    needed("pydicom", reason="needs the extra [dicom]")
    from tests.images.test_dicom import AFFINE, SECRETS, VOLUME, saved, series

    saved(tmp_path / "scans" / "1.2.840.1", series())
    made = pack(root, tmp_path / "out", samples=tmp_path / "scans")
    with zipfile.ZipFile(made.archive) as archive:
        names = [one for one in archive.namelist() if "/samples/images/" in one]
        content = archive.read(names[0])
    assert [name.rpartition("/")[2] for name in names] == ["sample_1.nii.gz"]
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(image.dataobj), VOLUME)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert not any(secret.encode() in gzip.decompress(content) for secret in SECRETS)
    again = pack(root, tmp_path / "again", samples=tmp_path / "scans")
    assert again.archive.read_bytes() == made.archive.read_bytes()


SECRET = "Jane Roe 1970-01-01"


def nifti(folder, values):
    """A volume that is scaled, off the origin, and named in each text and an extension."""
    affine = np.array([[0, 2, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(values, affine)
    image.header.set_slope_inter(0.5, -10)
    for entry in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[entry] = SECRET[: image.header[entry].dtype.itemsize].encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode()))
    nib.save(image, folder / "a.nii.gz")
    return folder / "a.nii.gz"


def tiff(folder, values):
    """Planes of fluorescence, whose OME metadata name somebody and tell the size of a pixel."""
    sizes = {f"PhysicalSize{axis}": 0.3 for axis in "XY"}
    described = {"axes": "CYX", "Description": SECRET, **sizes}
    tifffile.imwrite(
        folder / "a.ome.tif", values, ome=True, metadata=described, photometric="minisblack"
    )
    return folder / "a.ome.tif"


def stack(folder, values):
    texts = [(270, "s", 0, SECRET, True), (315, "s", 0, SECRET, True)]  # description, artist
    given = {"extratags": texts, "photometric": "minisblack", "metadata": None}
    tifffile.imwrite(folder / "a.tif", values, **given)
    return folder / "a.tif"


def picture(folder, values, kind):
    exif, told = PIL.Image.Exif(), PIL.PngImagePlugin.PngInfo()
    exif[0x013B], exif[0x0112] = SECRET, 6  # artist; turned
    told.add_text("Comment", SECRET)
    more = {"pnginfo": told} if kind == "png" else {"comment": SECRET.encode()}
    PIL.Image.fromarray(values).save(folder / f"a.{kind}", exif=exif, **more)
    return folder / f"a.{kind}"


@pytest.mark.parametrize(
    ("made", "shape", "dtype", "axes", "suffix"),
    [
        (nifti, (6, 5, 4), "int16", 3, ".nii.gz"),
        (tiff, (4, 6, 5), "uint16", 2, ".tif"),
        (stack, (4, 6, 5), "float32", 3, ".tif"),
        (lambda *given: picture(*given, "png"), (6, 5, 4), "uint8", 2, ".png"),
        (lambda *given: picture(*given, "png"), (6, 5), "uint16", 2, ".png"),
        (lambda *given: picture(*given, "jpg"), (16, 8, 3), "uint8", 2, ".png"),
    ],
)
def test_samples_hold_values_and_place_and_no_text(tmp_path, made, shape, dtype, axes, suffix):
    values = np.random.default_rng(3).integers(0, 200, shape).astype(dtype)
    file = made(tmp_path, values)
    assert SECRET.encode()[:9] in opened(file)
    written = _without_texts(file, tmp_path, "sample_1", axes)
    assert written.name == f"sample_1{suffix}"
    assert SECRET.encode()[:9] not in opened(written)
    dims = axes if made in (tiff, stack) else None
    was, now = (read_image(one, dims) for one in (file, written))
    assert now.array.dtype == was.array.dtype
    np.testing.assert_array_equal(now.array, was.array)
    assert now.attributes["spacing_mm"] == was.attributes["spacing_mm"]
    np.testing.assert_array_equal(now.attributes["affine"], was.attributes["affine"])
    assert OURS.fullmatch(f"samples/images/{written.name}")
    if made is tiff:
        assert tiff_pixel_um(written) == pytest.approx(0.3)
    first = written.read_bytes()
    assert _without_texts(file, tmp_path, "sample_1", axes).read_bytes() == first


def opened(file):
    content = file.read_bytes()
    return gzip.decompress(content) if file.name.endswith(".gz") else content


def test_a_zarr_image_is_packed_as_tiff_with_the_size_of_its_pixels(tmp_path):
    needed("zarr", reason="needs the extra [zarr]")
    from tests.images.test_ome_zarr import image

    values = np.random.default_rng(3).integers(0, 200, (2, 3, 6, 5)).astype("uint16")
    file = image(tmp_path / "a.zarr", values[:, :1])
    written = _without_texts(file, tmp_path, "sample_1", 2)
    np.testing.assert_array_equal(read_image(written, 2).array, values[:, 0])
    assert tiff_pixel_um(written) == pytest.approx(0.5)
    file = image(tmp_path / "b.zarr", values[:1])
    written = _without_texts(file, tmp_path, "sample_2", 3)
    assert written.name == "sample_2.nii.gz"
    assert read_image(written).attributes["spacing_mm"] == pytest.approx((5e-4, 5e-4, 2e-3))


def test_a_sample_that_a_plain_file_cannot_hold_is_refused(tmp_path, monkeypatch):
    file = tiff(tmp_path, np.zeros((4, 6, 5), np.uint16))
    monkeypatch.setattr("metaseg_monai.sharing.package.tiff_resolution", lambda path: None)
    with pytest.raises(DataError, match=r"a.ome.tif: cannot be packed without the texts"):
        _without_texts(file, tmp_path, "sample_1", 2)


def test_a_package_is_no_bundle_of_our_commands(packed, tmp_path):
    _, folder = packed
    for command in (lambda: pack(folder, tmp_path / "out"), lambda: train(folder, tmp_path / "x")):
        with pytest.raises(ConfigError, match=r"is a package.*python -m monai.bundle run"):
            command()


def test_the_copy_of_the_facts_is_written_anew(model, packed, tmp_path):
    copied = shutil.copytree(model, tmp_path / "model")
    (copied / "model.json").write_text("{}")  # only a copy
    made = pack(copied, tmp_path / "out")
    with zipfile.ZipFile(made.archive) as archive:
        facts = archive.read(f"{NAME}/models/model.json")
    assert facts == (packed[1] / "models/model.json").read_bytes()


@pytest.mark.parametrize("moment", ["_samples", "_exports"])
def test_weights_that_are_exchanged_meanwhile_are_refused(model, tmp_path, monkeypatch, moment):
    copied = shutil.copytree(model, tmp_path / "model")
    made = getattr(packing._Source, moment)

    def exchanged(self, *given):
        state, facts = read_weights(copied / "model.pt")
        del facts["weights_sha256"]
        for values in state.values():
            values += 1
        network = torch.nn.Module()
        monkeypatch.setattr(network, "state_dict", lambda: state)
        write_weights(copied / "model.pt", network, facts)
        return made(self, *given)

    monkeypatch.setattr(packing._Source, moment, exchanged)
    with pytest.raises(CheckpointError, match="exchanged while they were packed"):
        pack(copied, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_model_at_which_another_is_at_work_is_not_packed(model, tmp_path):
    with ThreadPoolExecutor(1) as other, ExitStack() as stack:
        other.submit(stack.enter_context, owned(model, "trains here")).result()
        with pytest.raises(DataError, match="another thread"):
            pack(model, tmp_path)
        other.submit(stack.close).result()


def test_the_list_of_the_training_goes_along_only_if_asked(model, tmp_path):
    made = pack(model, tmp_path, training_list=True)
    with zipfile.ZipFile(made.archive) as archive:
        assert f"{NAME}/models/trained_on.csv" in archive.namelist()
    assert "trained_on.csv" in str(made)


def test_scores_are_those_of_these_weights(model, bind, tmp_path):
    tested = shutil.copytree(model, tmp_path / "tested")
    rows = [
        (f"c{case}", f"c{case}", "test", "normal", "x", 1, 20 - case, 1, 1, 90)
        for case in range(12)
    ]
    pd.DataFrame(rows, columns=COUNT_COLUMNS).to_csv(tested / "counts.csv", index=False)
    bind(tested)
    made = pack(tested, tmp_path)
    with zipfile.ZipFile(made.archive) as archive:
        metadata = json.loads(archive.read(f"{NAME}/configs/metadata.json"))
    scores = metadata["eval_metrics"]
    assert scores["test_cases"] == 12
    low, high = scores["test_case_mean_f1_interval_95"]
    assert low < scores["test_case_mean_f1"] < high
    bind(tested, weights_sha256="of others")
    with pytest.raises(DataError, match="Evaluate anew: python -m metaseg_monai evaluate"):
        pack(tested, tmp_path / "other")


@pytest.fixture
def other(root, model, tmp_path):
    """A bundle without a simulator, and a model that was trained with it."""
    root = shutil.copytree(root, tmp_path / "bundles" / NAME)
    (root / "configs/simulate.json").unlink()
    folder = shutil.copytree(model, tmp_path / "model")
    record = json.loads((folder / "training.json").read_text())
    write_json(folder / "training.json", {**record, "bundle": str(root)})
    return root, folder


def test_of_own_data_noise_is_packed(other, tmp_path):
    _, folder = other
    made = pack(folder, tmp_path / "out")
    assert "noise" in str(made)
    with zipfile.ZipFile(made.archive) as archive:
        image = tifffile.imread(archive.open(f"{NAME}/samples/images/sample_1.tif"))
    assert image.shape == (32, 32)
    assert image.dtype == np.uint8
    assert image.std() > 50


def test_the_column_map_of_a_table_stays(other, tmp_path):
    root, _ = other
    for name in ("train", "inference"):
        file = root / f"configs/{name}.json"
        own = {"columns_file": "$@bundle_root + '/configs/columns.json'"}  # as of new-bundle
        write_json(file, {**json.loads(file.read_text()), **own})
    write_json(root / "configs/columns.json", {"image": "scan of Dr. A"})
    made = pack(root, tmp_path / "out")
    assert "the column map of your table is not packed" in str(made)
    with zipfile.ZipFile(made.archive) as archive:
        assert not [one for one in archive.namelist() if one.endswith("columns.json")]
        for name in ("train", "inference"):
            config = json.loads(archive.read(f"{NAME}/configs/{name}.json"))
            assert config["columns_file"] is None


def change(root, **changes):
    file = root / "configs/metadata.json"
    write_json(file, {**json.loads(file.read_text()), **changes})


def test_what_nobody_could_use_is_refused(other, tmp_path):
    root, _ = other
    pins = json.loads((root / "configs/metadata.json").read_text())["required_packages_version"]
    change(root, required_packages_version={k: v for k, v in pins.items() if k != "scipy"})
    with pytest.raises(ConfigError, match="required_packages_version has no scipy"):
        pack(root, tmp_path / "out")
    change(root, required_packages_version=pins)
    train_file = root / "configs/train.json"
    config = json.loads(train_file.read_text())
    write_json(train_file, {**config, "loss": {"_target_": "mine.losses.Loss"}})
    with pytest.raises(ConfigError, match=r"train.json, loss: mine.losses.Loss is of no package"):
        pack(root, tmp_path / "out")
    write_json(train_file, config)
    (root / "docs/data_license.txt").write_text("To be filled in: under which licence\n")
    with pytest.raises(ConfigError, match="says nothing on the licence of the data"):
        pack(root, tmp_path / "out")
    given = tmp_path / "licence.txt"
    with pytest.raises(ConfigError, match=r"--data_license .*licence.txt: no such file"):
        pack(root, tmp_path / "out", data_license=given)
    given.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"licence.txt: no text in UTF-8"):
        pack(root, tmp_path / "out", data_license=given)
    given.write_text("CC0\n")
    made = pack(root, tmp_path / "out", data_license=given)
    with zipfile.ZipFile(made.archive) as archive:
        assert archive.read(f"{NAME}/docs/data_license.txt") == b"CC0\n"


@pytest.mark.parametrize("path", ["{root}/data", "/home/anna/data"])
def test_a_path_of_a_machine_is_refused(other, tmp_path, path):
    root, _ = other
    page = root / "docs/README.md"
    page.write_text(f"{page.read_text()}\nData lie in {path.format(root=root)}.\n")
    with pytest.raises(DataError, match=r"docs/README.md of the package would hold a path of this"):
        pack(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_package_that_does_not_run_is_refused(other, tmp_path):
    root, folder = other
    file = root / "configs/inference.json"
    config = json.loads(file.read_text())
    write_json(file, {**config, "run": [*config["run"], "$1 / 0"]})
    with pytest.raises(DataError, match="does not run by itself: inference ends with"):
        package(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_weights_is_packed(root, tmp_path):
    made = pack(root, tmp_path)
    with zipfile.ZipFile(made.archive) as archive:
        assert not [name for name in archive.namelist() if "/models/" in name]
        page = archive.read(f"{NAME}/docs/README.md").decode()
    assert "## How to use it" in page
    made.archive.write_bytes(b"of another author")
    with pytest.raises(DataError, match="another package of this name and version"):
        pack(root, tmp_path)
    assert made.archive.read_bytes() == b"of another author"


@pytest.mark.slow
def test_it_runs_in_an_empty_environment(model, tmp_path):
    made = package(model, tmp_path, verify="full")
    assert not made.problems
    rules = {rule.rule for rule in made.rules if rule.verdict == "pass"}
    for call in ("load", "create_workflow", "download, file://", "download, http://"):
        assert f"monai.bundle.{call}, in an empty environment" in rules
    assert "an epoch of training, in an empty environment" in rules
