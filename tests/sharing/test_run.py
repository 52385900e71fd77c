"""Volumes through the KiTS bundle's own configuration, with random weights."""

import json
import math
import shutil
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from metaseg_monai.errors import CheckpointError, ConfigError, DataError, MetadataError
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.sharing import run as running
from metaseg_monai.sharing.run import Trained, evaluate, predict
from metaseg_monai.training import read_weights, write_weights
from metaseg_monai.training.weights import write_fact
from tests.extras import needed

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/kits21_tumour_slices_segmentation"
AFFINE = np.array([[0, 0, -0.75, 40], [0, -0.75, 0, 30], [-4.0, 0, 0, 7], [0, 0, 0, 1]])
POST_OPERATIVE = {
    "kind": "continuous",
    "name": "tumour_size_mm",
    "unit": "mm",
    "range": [5, 250],
    "provenance": "clinical prior",
    "availability": "post-operative",
    "missing": "unknown",
}

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


def give_weights(bundle, further=None, **settings):
    """Random weights as a training with these settings would leave them."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(bundle), **settings})
    weights = parser.get_parsed_content("weights")
    draw = torch.Generator().manual_seed(0)
    for values in (
        weights.network.parameters() if further else ()
    ):  # so that masks are not of one class
        values.data.normal_(generator=draw)
    write_weights(weights.path, weights.network, {**weights.facts, **(further or {})})


@pytest.fixture
def tiny(tmp_path):
    """A copy of the bundle, and settings that make its network and images small."""
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("data", "models", "eval"))
    return bundle, {
        "network_def#channels": 4,
        "network_def#levels": 2,
        "preprocessing#1#spacing_mm": 1.5,
    }


@pytest.fixture
def kits(tmp_path):
    """Two cases of different shapes, one with a size in kits.json."""
    for number, shape in enumerate([(5, 20, 24), (3, 28, 24)]):
        folder = tmp_path / "kits" / f"case_{number:05d}"
        folder.mkdir(parents=True)
        voxels = np.random.default_rng(number).integers(-100, 300, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, AFFINE), folder / "imaging.nii.gz")
        nib.save(nib.Nifti1Image(voxels * 0, AFFINE), folder / "segmentation.nii.gz")
    rows = [{"case_id": "case_00000", "radiographic_size": 4.1}]
    (tmp_path / "kits" / "kits.json").write_text(json.dumps(rows))
    return tmp_path / "kits"


def masks_of(folder):
    return {
        path.relative_to(folder).as_posix(): nib.load(path) for path in folder.rglob("*.nii.gz")
    }


@pytest.mark.filterwarnings("ignore:.*taken as unknown")
def test_volumes_come_back_as_they_were(tiny, kits, tmp_path):
    bundle, settings = tiny
    give_weights(bundle, **settings)
    predict(str(bundle), str(kits), str(tmp_path / "own"), None, **settings)
    masks = masks_of(tmp_path / "own")
    assert sorted(masks) == ["case_00000.nii.gz", "case_00001.nii.gz"]
    for name, mask in masks.items():
        image = nib.load(kits / name.removesuffix(".nii.gz") / "imaging.nii.gz")
        assert mask.shape == image.shape
        assert mask.affine.tobytes() == image.affine.tobytes()
        assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2, 3}
    given = {"own": None, "file": str(kits / "kits.json"), "mm": "tumour_size_mm=41"}
    given["unknown"] = "tumour_size_mm=unknown"
    for name, meta in given.items():
        predict(str(bundle), str(kits), str(tmp_path / name), meta, **settings)
    found = {name: masks_of(tmp_path / name) for name in given}
    for case, like in (("case_00000", "mm"), ("case_00001", "unknown")):
        mask = f"{case}.nii.gz"
        for other in ("own", "file"):
            np.testing.assert_array_equal(
                np.asarray(found[other][mask].dataobj), np.asarray(found[like][mask].dataobj)
            )


@pytest.fixture
def series(tmp_path):
    """Two DICOM series, their tags, and a NIfTI volume beside them."""
    needed("highdicom", reason="needs the extra [dicom]")
    dicom, seg = (import_module(f"tests.images.test_{name}") for name in ("dicom", "dicom_seg"))
    source = tmp_path / "scans"
    for number, shape in enumerate([(24, 20, 4), (20, 24, 3)]):
        draw = np.random.default_rng(number)
        voxels = np.kron(draw.integers(-80, 310, [side // 2 for side in shape]), np.ones((2, 2, 2)))
        planes = dicom.series(np.resize(voxels, shape).astype(np.int16))
        for plane in planes:
            plane.StudyInstanceUID, plane.SliceThickness = "1.2.5", str(10 * (number + 2))
        draw.shuffle(planes)
        dicom.saved(source / f"patient{number}" / "ct", planes)
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), AFFINE), source / "other.nii.gz")
    return source, seg.masks_by_position


def test_segmentations_are_the_masks_and_know_tags_and_weights(tiny, series, tmp_path, capsys):
    bundle, settings = tiny
    source, masks_by_position = series
    (field,) = json.loads((bundle / "configs" / "schema.json").read_text())["fields"]
    fields = [{**field, "tag": "SliceThickness"}]
    (tmp_path / "schema.json").write_text(json.dumps({"fields": fields}))
    settings["schema_file"] = str(tmp_path / "schema.json")
    names = {"1": "kidney", "2": "tumour", "3": "lump"}
    give_weights(bundle, {"class_names": names}, **settings)
    with pytest.warns(MetadataWarning, match=r"unknown for 1 of 3 image\(s\) \('other'\)"):
        predict(str(bundle), str(source), str(tmp_path / "masks"), **settings)
    asked = {**settings, "prediction_form": "dicom-seg"}
    with pytest.warns(MetadataWarning):
        made = predict(str(bundle), str(source), str(tmp_path / "segs"), **asked)
    assert made.unknown == {}  # but of the one that has no segmentation
    told = capsys.readouterr().out
    assert "no codes of 'lump', which are written in the private scheme" in told
    assert "codes of 'cyst', but the model's classes are" in told
    (problem,) = made.problems
    assert (problem.case, "is no DICOM series" in problem.problem) == ("other", True)
    assert [path.name for path in made.masks] == ["ct.dcm", "ct.dcm"]
    weights = read_weights(bundle / "models" / "model.pt")[1]["weights_sha256"]
    classes = set()
    for path in made.masks:
        mask = nib.load(tmp_path / "masks" / path.parent.name / "ct.nii.gz")
        voxels = np.asarray(mask.dataobj)
        classes |= set(np.unique(voxels).tolist())
        seg = import_module("pydicom").dcmread(path)
        found = masks_by_position(seg, mask.affine, mask.shape)
        np.testing.assert_array_equal(found, [voxels == one for one in (1, 2, 3)])
        assert [one.SegmentLabel for one in seg.SegmentSequence] == list(names.values())
        for segment in seg.SegmentSequence:
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            assert algorithm.AlgorithmParameters == f"weights_sha256={weights}"
        code = seg.SegmentSequence[1].AnatomicRegionSequence[0]
        assert (code.CodeValue, code.CodeMeaning) == ("64033007", "Kidney")
    assert len(classes) > 1
    for number in range(2):  # the tag was what the network was told
        case = source / f"patient{number}"
        told = f"tumour_size_mm={10 * (number + 2)}"
        like = predict(str(bundle), str(case), str(tmp_path / f"{number}"), told, **settings)
        own = tmp_path / "masks" / f"patient{number}" / "ct.nii.gz"
        np.testing.assert_array_equal(
            np.asarray(nib.load(like.masks[0]).dataobj), np.asarray(nib.load(own).dataobj)
        )
    before = [path.read_bytes() for path in made.masks]
    with pytest.warns(MetadataWarning):
        again = predict(str(bundle), str(source), str(tmp_path / "segs"), **asked)
    assert [path.read_bytes() for path in again.masks] == before  # not made again
    with pytest.raises(ConfigError, match="'mask' or 'dicom-seg'"):
        predict(str(bundle), str(case), str(tmp_path / "x"), prediction_form="dicom", **settings)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("tumour_size_mm=4.1", "is it in cm"),
        ("tumour_size_mm=300", "from 5 to 250"),
        ("size=41", "'size' is no field"),
    ],
)
def test_wrong_sizes_are_refused(tiny, kits, tmp_path, meta, message):
    bundle, settings = tiny
    give_weights(bundle, **settings)
    with pytest.raises(MetadataError, match=message):
        predict(str(bundle), str(kits), str(tmp_path / "out"), meta, **settings)
    assert not (tmp_path / "out").exists()


def test_a_table_without_a_column_says_which_field_was_unknown(tiny, kits, tmp_path):
    bundle, settings = tiny
    give_weights(bundle, **settings)
    (kits / "new.csv").write_text("image,age\ncase_00001/imaging.nii.gz,61\n")
    arguments = (str(bundle), str(kits / "new.csv"), str(tmp_path / "out"))
    with pytest.warns(MetadataWarning, match="no column 'tumour_size_mm'; taken as unknown"):
        made = predict(*arguments, **settings)
    assert made.unknown == {"tumour_size_mm": ["case_00001_imaging"]}
    assert str(made).startswith(f"1 masks: {tmp_path / 'out'}\n")
    assert str(made).endswith("\nunknown to the network: tumour_size_mm (in all 1)")
    told = (tmp_path / "out" / "predicted.sha256").read_text().splitlines()[0]
    assert json.loads(told.removeprefix("# "))["unknown"] == ["tumour_size_mm"]
    made = predict(*arguments, "tumour_size_mm=41", **settings)
    assert (made.unknown, "unknown" in str(made)) == ({}, False)
    assert '"unknown"' not in (tmp_path / "out" / "predicted.sha256").read_text()
    settings["metadata_dropout"] = 0.0
    give_weights(bundle, **settings)
    with pytest.raises(DataError, match=r"no column 'tumour_size_mm'.*--meta tumour_size_mm=VALUE"):
        predict(*arguments, **settings)


def test_masks_without_foreground_are_told(tiny, kits, tmp_path):
    bundle, settings = tiny
    give_weights(bundle, **settings)
    arguments = (str(bundle), str(kits), str(tmp_path / "out"), "tumour_size_mm=41")
    settings["clean_up"] = {"object_px": 10**9}  # what is left is nothing
    made = predict(*arguments, **settings)
    every = list(made.cases["case"])
    assert (len(every), list(made.empty)) == (2, every)
    assert not any(np.asarray(nib.load(mask).dataobj).any() for mask in made.masks)
    assert f"no foreground in 2 of 2 masks: {every[0]}, {every[1]}" in str(made)
    assert not (tmp_path / "out" / "predictions.csv").exists()
    again = predict(*arguments, **settings)  # nothing is predicted anew, and as much is known
    assert list(again.empty) == every
    settings["clean_up"] = {"threshold": 0.01}
    made = predict(*arguments, **settings)
    assert all(np.asarray(nib.load(mask).dataobj).any() for mask in made.masks)
    assert (list(made.empty), "no foreground" in str(made)) == ([], False)


def test_masks_in_the_place_of_those_by_other_weights_are_told(tiny, kits, tmp_path):
    bundle, settings = tiny
    arguments = (str(bundle), str(kits), str(tmp_path / "out"), "tumour_size_mm=41")
    for times in range(2):
        give_weights(bundle, **settings)
        made = predict(*arguments, **settings)
        assert list(made.replaced) == (list(made.cases["case"]) if times else [])
        assert ("in the place of masks by other weights: 2" in str(made)) == bool(times)
    made = predict(*arguments, **settings)  # of the same
    assert not made.replaced


def test_a_study_is_no_model_and_names_one(tmp_path):
    (tmp_path / "study" / "sme" / "seed0").mkdir(parents=True)
    (tmp_path / "study" / "study.json").write_text("{}")
    told = "is a study of several models; give the folder of one"
    with pytest.raises(ConfigError, match=f"{told}$"):
        predict(tmp_path / "study", tmp_path / "study", tmp_path / "out")
    (tmp_path / "study" / "sme" / "seed0" / "model.pt").touch()
    with pytest.raises(ConfigError, match=rf"{told}, such as .*study/sme/seed0$"):
        evaluate(tmp_path / "study")


def test_a_training_that_finds_nothing_says_so(tmp_path):
    def said(*f1):
        return str(Trained(tmp_path, pd.DataFrame({"epoch": range(1, 1 + len(f1)), "val_f1": f1})))

    assert said(0.0).startswith("trained 1 epoch; ")
    assert said(math.nan, 0.0).endswith("(val_f1 0), so these weights are of no use yet")
    assert "of no use" not in said(0.0, 0.1)
    assert "of no use" not in said(math.nan)


def test_a_scanner_that_no_training_image_had_is_told_with_its_cases(tiny, kits, tmp_path, capsys):
    bundle, settings = tiny
    scanner = {"kind": "categorical", "name": "scanner", "values": ["GE", "Siemens", "Canon"]}
    scanner |= {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
    (tmp_path / "schema.json").write_text(json.dumps({"fields": [scanner]}))
    settings = {**settings, "schema_file": str(tmp_path / "schema.json")}
    give_weights(bundle, **settings)
    write_fact(bundle / "models" / "model.pt", "untrained", {"scanner": ["Canon", "Siemens"]})
    rows = "case_00000/imaging.nii.gz,GE\ncase_00001/imaging.nii.gz,Canon\n"
    (kits / "new.csv").write_text(f"image,scanner\n{rows}")
    made = predict(str(bundle), str(kits / "new.csv"), str(tmp_path / "out"), **settings)
    assert made.untrained == {"scanner=Canon": ["case_00001_imaging"]}
    assert str(made).endswith("\nin no image of its training: scanner=Canon (in 1 of 2)")
    (told,) = [one for one in capsys.readouterr().out.splitlines() if "answers untrained" in one]
    assert told.startswith("case_00001_imaging: no training image of these weights had scanner=Can")
    assert "leave the value empty, which is taken as unknown" in told
    lines = (tmp_path / "out" / "predicted.sha256").read_text().splitlines()
    known = [json.loads(line.removeprefix("# ")) for line in lines if line.startswith("# ")]
    assert [one.get("untrained") for one in known] == [None, ["scanner=Canon"]]
    (kits / "plain.csv").write_text("image\ncase_00000/imaging.nii.gz\n")

    def untrained(scanner):
        source, output = str(kits / "plain.csv"), str(tmp_path / scanner[:3])
        return [*predict(str(bundle), source, output, f"scanner={scanner}", **settings).untrained]

    assert untrained("GE:0.5|Siemens:0.5") == ["scanner=Siemens"]
    assert untrained("unknown") == []


def test_a_scanner_that_training_never_had_is_unknown_where_that_is_asked_for(tiny, kits, tmp_path):
    bundle, settings = tiny
    when = {"provenance": "acquisition", "availability": "acquisition"}
    scanner = {"kind": "categorical", "name": "scanner", "values": ["GE", "Siemens"]}
    scanner |= {**when, "missing": "unknown"}
    (tmp_path / "schema.json").write_text(json.dumps({"fields": [scanner]}))
    settings = {**settings, "schema_file": str(tmp_path / "schema.json")}
    give_weights(bundle, **settings)
    rows = "case_00000/imaging.nii.gz,GE\ncase_00001/imaging.nii.gz,Canon\n"
    (kits / "new.csv").write_text(f"image,scanner\n{rows}")
    arguments = (str(bundle), str(kits / "new.csv"), str(tmp_path / "out"))
    made = predict(*arguments, **settings)
    assert list(made.cases["case"]) == ["case_00000_imaging"]
    (problem,) = made.problems
    assert "'scanner': expected one of 'GE', 'Siemens'" in problem.problem
    assert "take such values as unknown (--out_of_range flag)" in problem.next_step
    with pytest.warns(MetadataWarning, match="case_00001.*'Canon', which is taken as unknown"):
        made = predict(*arguments, out_of_range="flag", **settings)
    assert (len(made.cases), made.problems) == (2, [])
    assert made.unknown == {"scanner": ["case_00001_imaging"]}
    assert str(made).endswith("unknown to the network: scanner (in 1 of 2)")
    like = predict(
        arguments[0], arguments[1], str(tmp_path / "like"), "scanner=unknown", **settings
    )
    np.testing.assert_array_equal(
        *(np.asarray(nib.load(one.masks[1]).dataobj) for one in (made, like))
    )


def test_unknown_is_refused_by_a_model_that_never_saw_it(tiny, kits, tmp_path):
    bundle, settings = tiny
    settings = {**settings, "metadata_dropout": 0.0}
    give_weights(bundle, **settings)
    meta = "tumour_size_mm=unknown"
    with pytest.raises(DataError, match="trained without metadata dropout"):
        predict(str(bundle), str(kits), str(tmp_path / "out"), meta, **settings)
    known = {key: value for key, value in settings.items() if key != "metadata_dropout"}
    with pytest.raises(CheckpointError, match="unknown"):  # nor by weights of another training
        predict(str(bundle), str(kits), str(tmp_path / "out"), meta, **known)


def test_post_operative_metadata_are_refused_unless_forced(tiny, kits, tmp_path):
    bundle, settings = tiny
    (tmp_path / "schema.json").write_text(json.dumps({"fields": [POST_OPERATIVE]}))
    settings = {**settings, "schema_file": str(tmp_path / "schema.json")}
    give_weights(bundle, **settings)
    arguments = (str(bundle), str(kits), str(tmp_path / "out"), "tumour_size_mm=41")
    with pytest.raises(MetadataError, match=r"known only later: 'tumour_size_mm' \(post-operative"):
        predict(*arguments, **settings)
    assert not (tmp_path / "out").exists()
    predict(*arguments, force=True, **settings)
    assert len(masks_of(tmp_path / "out")) == 2


def test_a_tilted_volume_is_left_out_and_the_other_predicted(tiny, kits, tmp_path):
    bundle, settings = tiny
    give_weights(bundle, **settings)
    turn, angle = np.eye(4), np.deg2rad(40)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = kits / "case_00001" / "imaging.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), turn @ AFFINE), path)
    arguments = (str(bundle), str(kits), str(tmp_path / "out"), "tumour_size_mm=41")
    made = predict(*arguments, **settings)
    assert list(made.cases["case"]) == ["case_00000"]
    assert [problem.case for problem in made.problems] == ["case_00001"]
    assert "tilted by 40 degrees" in made.problems[0].problem
    assert (tmp_path / "out" / "problems.csv").is_file()
    before = made.masks[0].stat().st_mtime_ns
    shutil.rmtree(path.parent)
    made = predict(*arguments, **settings)
    assert not made.problems
    assert made.masks[0].stat().st_mtime_ns == before
    assert not (tmp_path / "out" / "problems.csv").exists()


def test_the_earlier_mask_of_a_scan_that_is_left_out_now_is_told(tiny, kits, tmp_path):
    bundle, settings = tiny
    give_weights(bundle, **settings)
    arguments = (str(bundle), str(kits), str(tmp_path / "out"), "tumour_size_mm=41")
    made = predict(*arguments, **settings)
    assert len(made.masks) == 2
    assert "still there" not in str(made)
    name = made.masks[1].name
    (kits / "case_00001" / "imaging.nii.gz").write_bytes(b"\x1f\x8b cut")
    made = predict(*arguments, **settings)
    assert made.earlier == {"of cases left out now": [name]}
    assert f"of earlier predictions of cases left out now, still there: 1 ({name!r})" in str(made)
    told = f"{name} is the earlier mask of this case, still there"
    assert [problem.next_step.endswith(told) for problem in made.problems] == [True]
    assert told in (tmp_path / "out" / "problems.csv").read_text()


def test_a_variant_without_metadata_refuses_them(tiny, kits, tmp_path):
    bundle, settings = tiny
    settings = {**settings, "variant": "se"}
    give_weights(bundle, **settings)
    with pytest.raises(ConfigError, match="variant takes no metadata"):
        predict(str(bundle), str(kits), str(tmp_path / "out"), "tumour_size_mm=99999", **settings)
    predict(str(bundle), str(kits), str(tmp_path / "out"), None, **settings)
    assert len(masks_of(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("source", "output"), [("cl/monday", "cl"), ("cl/monday", "."), ("cl/scan.nii.gz", "cl")]
)
def test_an_output_that_holds_the_source_is_refused(tmp_path, source, output):
    for name in ("cl/scan.nii.gz", "cl/monday/scan.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"scan")
    (tmp_path / "link").symlink_to(tmp_path / source)
    for given in (tmp_path / source, tmp_path / "link"):
        with pytest.raises(DataError, match=r"--output .* holds the images .*elsewhere"):
            predict("bundle", str(given), str(tmp_path / output), None)


def test_an_output_among_the_images_is_refused_through_a_link_too(tmp_path):
    (tmp_path / "images" / "masks").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for source, output in (("images", "images/masks"), ("link", "images/masks"), ("link", "link")):
        with pytest.raises(DataError, match="lies in the folder of the images"):
            predict("bundle", str(tmp_path / source), str(tmp_path / output), None)


def test_the_source_keeps_the_names_of_links(kits, tmp_path, monkeypatch):
    seen = {}

    def run(bundle, names, settings, **_):
        seen.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "running", run)
    monkeypatch.chdir(tmp_path)
    Path("case_00007").symlink_to(kits / "case_00001")
    with pytest.raises(KeyboardInterrupt):
        predict(str(BUNDLE), "case_00007", "kits/../out", "tumour_size_mm=41")
    assert seen["dataset_dir"] == str(tmp_path / "case_00007")
    assert str(seen["output_dir"]) == str(tmp_path / "out")


def test_what_is_no_path_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"source is \['a.tif', 'b.tif'\] .*; expected str"):
        predict(tmp_path, ["a.tif", "b.tif"], tmp_path / "out")
    for given in (None, 3, {"a": 1}):
        with pytest.raises(ConfigError, match=r"folder is .*; expected str"):
            evaluate(given)
