"""From volume files through a tiny random network and back into volume files."""

import hashlib
import itertools
import threading
import weakref

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from metaseg_monai.errors import DataError, TrainingError
from metaseg_monai.evaluation import SaveMasks, masks
from metaseg_monai.images.read import slice_items
from metaseg_monai.inferers import SlidingWindowMetadataInferer, sliding
from metaseg_monai.tables.find import find_cases
from metaseg_monai.training import VolumeBatches, collate_cases
from metaseg_monai.transforms import (
    AsMaskd,
    AxialVolumed,
    LoadCased,
    ResampleToSpacingd,
    ScaleIntensityCased,
)

SPACING = (4.0, 0.75, 0.625)  # exact in binary, so that no orientation rounds another way
CANONICAL = np.array(  # planes toward the feet, rows toward the back, columns toward the left
    [[0, 0, -SPACING[2], 31], [0, -SPACING[1], 0, 17], [-SPACING[0], 0, 0, 200], [0, 0, 0, 1.0]]
)
ORIENTATIONS = [
    tuple(pair[turn] for pair, turn in zip(axes, turns, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for turns in itertools.product((0, 1), repeat=3)
]


class TinyNetwork(torch.nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(5)
        self.layer = torch.nn.Conv2d(1, classes, 3, padding=1)

    def forward(self, image):
        return self.layer(image)


def phantom(shape=(3, 10, 12), seed=0):
    return np.random.default_rng(seed).integers(-200, 300, shape).astype(np.int16)


def save(path, planes=None, codes=("I", "P", "L"), **codes_of_form):
    """Store planes (D, H, W) with axes toward the given sides of the body."""
    planes = phantom() if planes is None else planes
    turn = ornt_transform(io_orientation(CANONICAL), axcodes2ornt(codes))
    array = apply_orientation(planes, turn)
    image = nib.Nifti1Image(array, CANONICAL @ inv_ornt_aff(turn, planes.shape))
    for form, code in codes_of_form.items():
        getattr(image, f"set_{form}")(image.affine, code=code)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return turn


@pytest.mark.parametrize("spacing_mm", [None, 1.25])
@pytest.mark.parametrize("blend", ["gaussian", "discard"])
def test_classes_told_band_by_band_are_those_of_the_logits(
    tmp_path, monkeypatch, spacing_mm, blend
):
    monkeypatch.setattr(sliding, "LARGE_PIXELS", 100)
    save(tmp_path / "in" / "v.nii", phantom((2, 31, 22)))
    windows = SlidingWindowMetadataInferer((8, 8), blend=blend, overlap=0.5)
    shapes = []
    for output, inferer in (("whole", None), ("bands", windows)):
        engine, _ = predict(tmp_path, output, spacing_mm, 1, windows=windows, reduced=inferer)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: shapes.append(len(e.state.output["pred"][0]))
        )
        engine.run()
    assert shapes == ([3, 3, 3, 3] if spacing_mm else [3, 3, 1, 1])
    whole, bands = (nib.load(tmp_path / name / "v.nii") for name in ("whole", "bands"))
    assert len(np.unique(whole.dataobj)) == 3
    assert np.array_equal(whole.dataobj, bands.dataobj)


def test_a_band_that_is_not_finite_names_the_case(tmp_path):
    save(tmp_path / "in" / "v.nii")
    network, windows = TinyNetwork(), SlidingWindowMetadataInferer((8, 8))
    torch.nn.init.constant_(network.layer.bias, float("nan"))
    engine, _ = predict(tmp_path, batch_size=1, network=network, windows=windows, reduced=windows)
    with pytest.raises(TrainingError, match=r"v_0000 holds NaN or Inf \(though the image"):
        engine.run()


def predict(folder, output="out", spacing_mm=None, batch_size=2, workers=0, **given):
    """Make an evaluator of the cases in folder/in, and the handler that writes their masks."""
    items = given.get("items") or slice_items(find_cases(folder / "in", None))
    scale = ScaleIntensityCased([-150, 250], clip=True)
    load = given.get("load", [LoadCased(), ResampleToSpacingd(spacing_mm), scale])
    loader = DataLoader(
        Dataset(items, Compose(load)),
        batch_sampler=VolumeBatches(items, batch_size),
        collate_fn=collate_cases,
        num_workers=workers,
    )
    handler = SaveMasks(folder / output, inferer=given.get("reduced"))
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=given.get("network") or TinyNetwork(),
        inferer=given.get("windows"),
        val_handlers=[handler],
        decollate=False,
    )
    engine.logger.propagate = True
    return engine, handler


def classes_of(planes):
    """The masks of planes (D, H, W), with nothing of what is tested here."""
    scaled = (np.clip(planes, -150, 250).astype(np.float32) + 150) / 400
    with torch.no_grad():
        return TinyNetwork()(torch.from_numpy(scaled)[:, None]).argmax(1).numpy()


@pytest.fixture
def two(tmp_path):
    """A folder with two volumes of the same voxels in `in`."""
    for name in ("v.nii", "w.nii"):
        save(tmp_path / "in" / name)
    return tmp_path


@pytest.mark.parametrize("codes", ORIENTATIONS, ids="".join)
def test_every_orientation_gives_the_same_mask_in_its_own_geometry(tmp_path, codes):
    planes = phantom()
    turn = save(tmp_path / "in" / "v.nii.gz", planes, codes)
    predict(tmp_path)[0].run()
    mask, image = nib.load(tmp_path / "out" / "v.nii.gz"), nib.load(tmp_path / "in" / "v.nii.gz")
    assert nib.aff2axcodes(mask.affine) == codes
    assert mask.shape == image.shape
    assert mask.affine.tobytes() == image.affine.tobytes()
    expected = apply_orientation(classes_of(planes), turn)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), expected)
    assert len(np.unique(expected)) == 3


@pytest.mark.parametrize("codes", ORIENTATIONS[::5], ids="".join)
@pytest.mark.parametrize("spacing_mm", [SPACING, (2.0, 1.5, 0.625)])
def test_masks_of_3d_networks_come_back_in_their_own_geometry(tmp_path, codes, spacing_mm):
    blocks = np.zeros((4, 10, 12), np.int16)  # nothing symmetric, and coarse enough to come back
    blocks[:2, 2:6, 2:4] = 250
    turn = save(tmp_path / "in" / "v.nii.gz", blocks, codes)
    load = [LoadCased(spatial_dims=3), AxialVolumed(spacing_mm), ScaleIntensityCased([0, 250])]
    items = find_cases(tmp_path / "in", None)
    bright = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        bright.weight[:, 0, 0, 0, 0] = torch.tensor([-1.0, 1.0])
        bright.bias[:] = torch.tensor([0.5, -0.5])
    predict(tmp_path, items=items, network=bright, load=load)[0].run()
    mask, image = nib.load(tmp_path / "out" / "v.nii.gz"), nib.load(tmp_path / "in" / "v.nii.gz")
    assert mask.affine.tobytes() == image.affine.tobytes()
    expected = apply_orientation((blocks > 0).astype(np.uint8), turn)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), expected)


def test_orientations_agree_where_planes_are_resampled(tmp_path):
    masks = []
    for number, codes in enumerate(ORIENTATIONS[::5]):
        folder = tmp_path / str(number)
        save(folder / "in" / "v.nii", codes=codes)
        predict(folder, spacing_mm=0.9)[0].run()
        mask = np.asarray(nib.load(folder / "out" / "v.nii").dataobj)
        back = ornt_transform(axcodes2ornt(codes), axcodes2ornt(("I", "P", "L")))
        masks.append(apply_orientation(mask, back))
    assert masks[0].shape == (3, 10, 12)  # the stored size, though the network saw 8 x 8
    assert all((mask == masks[0]).all() for mask in masks)
    assert (masks[0] != classes_of(phantom())).any()


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 2), (4, 1)])
def test_header_of_the_mask_is_that_of_its_image(tmp_path, sform, qform):
    save(tmp_path / "in" / "v.nii", codes=("L", "P", "S"), sform=sform, qform=qform)
    predict(tmp_path)[0].run()
    mask, image = (nib.load(tmp_path / folder / "v.nii").header for folder in ("out", "in"))
    assert mask.get_data_dtype() == np.uint8
    for entry in (
        *("sform_code", "qform_code", "pixdim", "xyzt_units", "srow_x", "srow_y", "srow_z"),
        *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    ):
        np.testing.assert_array_equal(mask[entry], image[entry], entry)


@pytest.mark.parametrize("workers", [0, 2])
def test_volumes_of_two_shapes_in_folders_of_their_own(tmp_path, workers):
    shapes = {"case_00000": (3, 10, 12), "case_00007": (5, 9, 11)}
    for seed, (case, shape) in enumerate(shapes.items()):
        save(tmp_path / "in" / case / "imaging.nii.gz", phantom(shape, seed))
    predict(tmp_path, workers=workers)[0].run()
    written = sorted(path.relative_to(tmp_path / "out") for path in tmp_path.rglob("out/*/*"))
    assert [str(path) for path in written] == [f"{case}/imaging.nii.gz" for case in shapes]
    for seed, (case, shape) in enumerate(shapes.items()):
        mask = nib.load(tmp_path / "out" / case / "imaging.nii.gz")
        np.testing.assert_array_equal(np.asarray(mask.dataobj), classes_of(phantom(shape, seed)))


def test_slices_and_volumes_in_one_run(tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", phantom()[0])
    save(tmp_path / "in" / "sub" / "v.nii.gz")
    predict(tmp_path)[0].run()
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out" / "a.tif"), classes_of(phantom()[:1])[0]
    )
    assert nib.load(tmp_path / "out" / "sub" / "v.nii.gz").shape == (3, 10, 12)


def test_2d_images_come_back_in_their_stored_size(tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", phantom()[0])
    items = [{**item, "spacing_mm": SPACING} for item in find_cases(tmp_path / "in", None)]
    predict(tmp_path, spacing_mm=1.5, items=items)[0].run()
    assert tifffile.imread(tmp_path / "out" / "a.tif").shape == (10, 12)


def test_a_network_that_changes_the_size_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", phantom()[0])
    network = torch.nn.Conv2d(1, 3, 3)
    with pytest.raises(DataError, match=r"mask of shape \(8, 10\), expected the image's"):
        predict(tmp_path, network=network)[0].run()


def test_a_missing_plane_leaves_no_mask_and_is_named(two):
    items = slice_items(find_cases(two / "in", None))
    del items[1]
    with pytest.raises(DataError, match=r"missing are v: 1 of 3 planes \(1\)"):
        predict(two, items=items)[0].run()
    assert [path.name for path in (two / "out").glob("*.nii")] == ["w.nii"]


def test_a_stopped_run_says_which_volume_it_left(two, caplog):
    engine, handler = predict(two, batch_size=1)

    def stop(engine):
        raise ValueError("power cut")

    engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), stop)
    with pytest.raises(ValueError, match="power cut"):
        engine.run()
    assert "w: 1 of 3 planes (2)" in caplog.text
    assert [path.name for path in (two / "out").glob("*.nii")] == ["v.nii"]
    assert not handler._stacks
    predict(two)[0].run()  # its masks may be written again
    assert len(list((two / "out").glob("*.nii"))) == 2


def test_a_plane_that_comes_twice_is_refused(tmp_path):
    save(tmp_path / "in" / "v.nii")
    items = slice_items(find_cases(tmp_path / "in", None))
    with pytest.raises(DataError, match="expected each plane once"):
        predict(tmp_path, items=[items[0], items[0]])[0].run()


def test_memory_of_a_volume_is_given_back_when_it_is_written(two):
    engine, handler = predict(two, batch_size=1)
    held, arrays = [], []

    def look(engine):
        held.append(list(handler._stacks))
        arrays.extend(weakref.ref(stack.classes) for stack in handler._stacks.values())

    engine.add_event_handler(Events.ITERATION_COMPLETED, look)
    engine.run()
    assert held == [["v"], ["v"], [], ["w"], ["w"], []]
    assert all(array() is None for array in arrays)


def test_broken_voxels_name_case_and_plane(tmp_path):
    planes = phantom().astype(np.float32)
    planes[2, 4, 4] = np.nan
    save(tmp_path / "in" / "v.nii", planes)
    with pytest.raises(RuntimeError) as caught:
        predict(tmp_path)[0].run()
    assert "case 'v_0002'" in str(caught.value.__cause__)
    assert "v.nii, plane 2: 1 of 120 pixels" in str(caught.value.__cause__)


def test_masks_never_replace_images_nor_each_other(tmp_path):
    save(tmp_path / "in" / "v.nii")
    before = (tmp_path / "in" / "v.nii").read_bytes()
    with pytest.raises(DataError, match=r"would replace the image .*v\.nii"):
        predict(tmp_path, "in")[0].run()
    assert (tmp_path / "in" / "v.nii").read_bytes() == before
    save(tmp_path / "in" / "w.nii")
    items = slice_items(find_cases(tmp_path / "in", None))
    for item in items:
        item["mask"] = "one.nii"
    with pytest.raises(DataError, match="v, w would have the one mask"):
        predict(tmp_path, items=items)[0].run()
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "v.nii").rename(tmp_path / "v.nii")
    (tmp_path / "in" / "v.nii").symlink_to(tmp_path / "v.nii")
    with pytest.raises(DataError, match="would replace the image"):
        predict(tmp_path, "")[0].run()


def test_only_unchanged_masks_of_before_are_replaced(tmp_path):
    for name in ("v.nii", "sub/w.nii"):
        save(tmp_path / "in" / name)
    out = tmp_path / "out"
    for _ in range(2):  # the second time, its own masks are replaced
        predict(tmp_path)[0].run()
    lines = (out / "predicted.sha256").read_text().splitlines()
    assert [line[66:] for line in lines] == ["sub/w.nii", "v.nii"]
    assert lines[1][:64] == hashlib.sha256((out / "v.nii").read_bytes()).hexdigest()
    before = (out / "sub" / "w.nii").read_bytes()
    save(out / "v.nii", phantom(seed=1))  # a scan, or a mask corrected by hand
    scan = (out / "v.nii").read_bytes()
    with pytest.raises(DataError, match=r"1 file\(s\) were changed since .*'v\.nii'; choose"):
        predict(tmp_path)[0].run()
    assert (out / "v.nii").read_bytes() == scan
    assert (out / "sub" / "w.nii").read_bytes() == before
    (out / "v.nii").unlink()
    predict(tmp_path)[0].run()


def test_a_damaged_list_of_masks_is_told(tmp_path):
    save(tmp_path / "in" / "v.nii")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predicted.sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"predicted\.sha256: no list of masks"):
        predict(tmp_path)[0].run()


def test_an_output_that_is_a_file_is_refused_before_anything_runs(tmp_path):
    save(tmp_path / "in" / "v.nii")
    (tmp_path / "out").write_text("mine")
    engine, _ = predict(tmp_path)
    with pytest.raises(DataError, match=r"out: .*; .*finished stay"):
        engine.run()
    assert engine.state.iteration == 0
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_is_told_and_finished_masks_stay(two, monkeypatch, caplog):
    write = masks.write_mask

    def full(mask, path, like):
        if path.name.endswith("-w.nii"):
            raise OSError(28, "No space left on device")
        return write(mask, path, like)

    monkeypatch.setattr(masks, "write_mask", full)
    with pytest.raises(DataError, match=r"out: No space.*; free some room.*finished stay"):
        predict(two)[0].run()
    assert (two / "out" / "v.nii").is_file()
    assert "planes miss" not in caplog.text  # all planes of w came


def test_a_mask_is_written_while_the_next_is_made_and_its_fault_ends_the_run(
    run, tmp_path, monkeypatch
):
    items = [{"case": name, "image": str(tmp_path / f"{name}.tif")} for name in "abc"]
    for item in items:
        tifffile.imwrite(item["image"], np.zeros((4, 5), np.uint8))
    began, write = [], masks.write_mask
    may_end = threading.Event()

    def slowly(mask, path, like):
        began.append(path.name[-5])
        assert may_end.wait(10)
        if path.name.endswith("b.tif"):
            raise OSError(28, "No space left on device", str(path))
        write(mask, path, like)

    monkeypatch.setattr(masks, "write_mask", slowly)

    def of_the_second(item):
        if item["case"] == "b":  # the first is being written still
            may_end.set()
        return item

    zeros = {"image": torch.zeros(1, 1, 4, 5)}
    pairs = [
        ({**zeros, "case": [item["case"]]}, {"pred": torch.zeros(1, 2, 4, 5)}) for item in items
    ]
    handler = SaveMasks(tmp_path / "masks", [AsMaskd(), of_the_second])
    with pytest.raises(DataError, match="No space left"):
        run(handler, pairs, items)
    assert began == ["a", "b"]
    assert [path.name for path in (tmp_path / "masks").glob("*.tif")] == ["a.tif"]
