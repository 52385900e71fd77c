"""Masks replace nothing but masks as a prediction wrote them before."""

import hashlib

import pytest
from ignite.engine import Events

from metaseg_monai.errors import DataError
from metaseg_monai.images.axial import slice_items
from metaseg_monai.tables.find import find_cases


def test_masks_never_replace_images_nor_each_other(tmp_path, phantom, save, predict):
    save(tmp_path / "in" / "v.nii", phantom())
    before = (tmp_path / "in" / "v.nii").read_bytes()
    with pytest.raises(DataError, match=r"would replace the image .*v\.nii"):
        predict(tmp_path / "in", tmp_path / "in")[0].run()
    assert (tmp_path / "in" / "v.nii").read_bytes() == before
    save(tmp_path / "in" / "w.nii", phantom())
    items = slice_items(find_cases(tmp_path / "in", None))
    for item in items:
        item["mask"] = "one.nii"
    with pytest.raises(DataError, match="v, w would have the one mask"):
        predict(tmp_path / "in", tmp_path / "out", items=items)[0].run()
    assert not (tmp_path / "out").exists()


def test_only_unchanged_masks_of_before_are_replaced(tmp_path, phantom, save, predict):
    for name in ("v.nii", "sub/w.nii"):
        save(tmp_path / "in" / name, phantom())
    out = tmp_path / "out"
    for _ in range(2):  # the second time, its own masks are replaced
        predict(tmp_path / "in", out)[0].run()
    lines = (out / "predicted.sha256").read_text().splitlines()
    assert [line[66:] for line in lines] == ["sub/w.nii", "v.nii"]
    assert lines[1][:64] == hashlib.sha256((out / "v.nii").read_bytes()).hexdigest()
    before = (out / "sub" / "w.nii").read_bytes()
    save(out / "v.nii", phantom(seed=1))  # a scan, or a mask corrected by hand
    scan = (out / "v.nii").read_bytes()
    with pytest.raises(DataError, match=r"1 file\(s\) would be replaced .*'v\.nii'; choose"):
        predict(tmp_path / "in", out)[0].run()
    assert (out / "v.nii").read_bytes() == scan
    assert (out / "sub" / "w.nii").read_bytes() == before
    (out / "v.nii").unlink()
    predict(tmp_path / "in", out)[0].run()


def test_masks_of_a_stopped_run_may_be_written_again(tmp_path, phantom, save, predict):
    for name in ("v.nii", "w.nii"):
        save(tmp_path / "in" / name, phantom())
    engine, _ = predict(tmp_path / "in", tmp_path / "out", batch_size=1)

    def stop(engine):
        raise ValueError("power cut")

    engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), stop)
    with pytest.raises(ValueError, match="power cut"):
        engine.run()
    predict(tmp_path / "in", tmp_path / "out")[0].run()
    assert len(list((tmp_path / "out").glob("*.nii"))) == 2


def test_linked_volumes_are_never_replaced(tmp_path, phantom, save, predict):
    save(tmp_path / "store" / "v.nii", phantom())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "v.nii").symlink_to(tmp_path / "store" / "v.nii")
    with pytest.raises(DataError, match="would replace the image"):
        predict(tmp_path / "in", tmp_path / "store")[0].run()


def test_a_damaged_list_of_masks_is_told(tmp_path, phantom, save, predict):
    save(tmp_path / "in" / "v.nii", phantom())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predicted.sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"predicted\.sha256: no list of masks"):
        predict(tmp_path / "in", tmp_path / "out")[0].run()
