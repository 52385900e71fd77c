"""Files of predicted images: values, names, sizes, what they never replace, and their memory."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.image_scores import SaveImages
from metaseg_monai.images.read import read_image
from metaseg_monai.images.write import write_image
from metaseg_monai.transforms import AsImaged, IntensityStatistics, ScaleIntensityBy

BUNDLE = "bundles/adipocyte_fluorescence_translation"
RANGES = {"20/nuclei": [[100, 1100]], "20/lipids": [[0, 60000]]}
SCALING = ScaleIntensityBy(
    "magnification/channel",
    (0, 100),
    IntensityStatistics("magnification/channel", (0.0, 100.0), RANGES),
    "label",
)


def item_of(folder, case="a", **columns):
    """A case of two planes, of 8 by 6 pixels."""
    files = []
    for plane in range(2):
        files.append(str(folder / f"{case}{plane}.tif"))
        tifffile.imwrite(files[-1], np.arange(48, dtype=np.uint16).reshape(8, 6))
    cells = {"magnification": "20", "channel": "nuclei", "pixel_um": "0.25", **columns}
    return {"case": case, "group": case, "image": files, "columns": cells, "metadata": {}}


def pair(item, pred):
    batch = {"case": [item["case"]], "image": torch.zeros(1, 2, 8, 6)}
    return batch, {"pred": torch.as_tensor(pred, dtype=torch.float32)[None]}


def test_an_image_is_written_in_the_values_of_files_with_names_and_size(tmp_path, run):
    item = item_of(tmp_path, channel="lipids;nuclei")
    answer = torch.linspace(0, 1, 96).reshape(2, 8, 6)
    run(SaveImages(tmp_path / "out", [AsImaged(SCALING)]), [pair(item, answer)], [item])
    file = tmp_path / "out" / "a.ome.tif"
    written = tifffile.imread(file)
    assert (written.dtype, written.shape) == (np.uint16, (2, 8, 6))
    ramp = answer.double().numpy()
    np.testing.assert_array_equal(written[0], np.round(60000 * ramp[0]))
    np.testing.assert_array_equal(written[1], np.round(100 + 1000 * ramp[1]))
    with tifffile.TiffFile(file) as opened:
        assert opened.is_ome
        assert opened.series[0].axes == "CYX"
        told = opened.ome_metadata
    assert 'Name="lipids"' in told
    assert 'Name="nuclei"' in told
    assert 'PhysicalSizeX="0.25"' in told
    np.testing.assert_array_equal(read_image(file).array, written)
    assert "a.ome.tif" in (tmp_path / "out" / "predicted.sha256").read_text()


def test_own_files_are_made_anew_and_no_other_is_replaced(tmp_path, run):
    item = item_of(tmp_path)
    save = lambda: run(  # noqa: E731
        SaveImages(tmp_path / "out", [AsImaged(SCALING)]),
        [pair(item, torch.full((1, 8, 6), 0.5))],
        [item],
    )
    save()
    save()
    assert (tifffile.imread(tmp_path / "out" / "a.ome.tif") == 600).all()
    tifffile.imwrite(tmp_path / "out" / "a.ome.tif", np.zeros((8, 6), np.uint16))  # by hand
    with pytest.raises(DataError, match=r"a\.ome\.tif"):
        save()


def test_what_cannot_be_written_is_listed_and_the_others_are(tmp_path, run):
    items = [item_of(tmp_path, "a", magnification="100"), item_of(tmp_path, "b")]
    problems = []
    save = SaveImages(tmp_path / "out", [AsImaged(SCALING)], problems=problems)
    run(save, [pair(item, torch.zeros(1, 8, 6)) for item in items], items)
    (problem,) = problems
    assert problem.case == "a"
    assert "no intensity statistics of magnification/channel '100/nuclei'" in problem.problem
    assert [one.name for one in sorted((tmp_path / "out").glob("*.tif"))] == ["b.ome.tif"]


def test_a_form_that_is_none_is_refused(tmp_path):
    good = np.zeros((1, 4, 4), np.uint16)
    for image, name, channels in (
        (good, "a.tif", ["x"]),
        (good, "a.ome.tif", ["x", "y"]),
        (good[0], "a.ome.tif", ["x"]),
        (good.astype(np.int64), "a.ome.tif", ["x"]),
    ):
        with pytest.raises(DataError, match="expected"):
            write_image(image, tmp_path / name, channels)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # some minutes on an idle core
def test_a_field_of_six_planes_is_translated_within_2_gb(tmp_path):
    """1344 x 1024 x 6, the report's generator and tiles as the bundle has them; with imports."""
    config = Path(__file__).parents[2] / BUNDLE / "configs" / "pretrain_report_size.json"
    for plane in range(6):
        noise = np.random.default_rng(plane).integers(0, 5000, (1024, 1344), np.uint16)
        tifffile.imwrite(tmp_path / f"Z{plane}.tif", noise)
    program = f"""
        import resource, sys, torch
        from pathlib import Path
        from ignite.engine import Engine
        from metaseg_monai.evaluation.image_scores import SaveImages
        from monai.bundle import ConfigParser
        from metaseg_monai.networks import DenseUnetGenerator
        from metaseg_monai.transforms import AsImaged, LoadCased

        folder = Path({str(tmp_path)!r})
        files = [str(folder / f"Z{{plane}}.tif") for plane in range(6)]
        item = {{"case": "a", "group": "a", "image": files, "columns": {{}}, "metadata": {{}}}}
        network = DenseUnetGenerator(in_channels=6).eval()
        parser = ConfigParser()
        parser.read_config({str(config)!r})
        inferer = parser.get_parsed_content("window_inferer")
        save = SaveImages(folder / "out", [AsImaged()], ["nuclei"])

        def step(engine, _):
            image = LoadCased(target="image")(item)["image"].as_tensor()[None] / 5000
            with torch.no_grad():
                pred = inferer(image, network)
            engine.state.batch = {{"case": ["a"], "image": image}}
            return {{"pred": 60000 * pred}}

        class Loader(list):
            dataset = type("Data", (), {{"data": [item]}})

        engine = Engine(step)
        save.attach(engine)
        engine.run(Loader([0]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    peak = int(done.stdout.split()[-1])
    assert tifffile.imread(tmp_path / "out" / "a.ome.tif").shape == (1024, 1344)
    assert peak < 2e9, f"{peak / 1e9:.2f} GB"
