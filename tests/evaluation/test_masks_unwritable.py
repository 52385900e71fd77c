"""Where masks cannot be written, the run says so: before it starts, or with what is finished."""

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import masks


def test_an_output_that_is_a_file_is_refused_before_anything_runs(tmp_path, phantom, save, predict):
    save(tmp_path / "in" / "v.nii", phantom())
    (tmp_path / "out").write_text("mine")
    engine, _ = predict(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match=r"out: cannot be written .*choose another output"):
        engine.run()
    assert engine.state.iteration == 0
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_is_told_and_finished_masks_stay(
    tmp_path, phantom, save, predict, monkeypatch, caplog
):
    for name in ("v.nii", "w.nii"):
        save(tmp_path / "in" / name, phantom())
    write = masks.write_mask

    def full(path, *given):
        if path.name == "w.nii":
            raise OSError(28, "No space left on device")
        return write(path, *given)

    monkeypatch.setattr(masks, "write_mask", full)
    with pytest.raises(DataError, match=r"out: cannot be written .*No space.*finished stay"):
        predict(tmp_path / "in", tmp_path / "out")[0].run()
    assert (tmp_path / "out" / "v.nii").is_file()
    assert "planes miss" not in caplog.text  # all planes of w came
