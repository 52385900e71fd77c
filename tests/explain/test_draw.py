import json

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from monai.inferers import SimpleInferer
from PIL import Image

from metaseg_monai.bundle import run_bundle
from metaseg_monai.errors import DataError
from metaseg_monai.explain import (
    GateActivations,
    GateFeatures,
    RecordGates,
    read_activations,
    read_features,
)
from metaseg_monai.explain import draw as drawing
from metaseg_monai.explain.activations import Activations
from metaseg_monai.explain.draw import draw, gate_table
from metaseg_monai.networks.unet3 import gate_places

FIXED = {"fixed:a": [0.0, 1.0, 0.5], "fixed:b": [0.0, 0.25, 0.5]}


def recorded(folder, network, evaluate, modes):
    recorder = RecordGates(SimpleInferer())
    measures = {
        folder / "explain" / "activations.npz": GateActivations(recorder),
        folder / "explain" / "features.npz": GateFeatures(recorder),
    }
    image = torch.rand(1, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    cases = [("a/1", mode, "x", image, torch.tensor([meta])) for mode, meta in modes.items()]
    evaluate(network, recorder, measures, cases)
    return folder


def names(files):
    return sorted(file.name for file in files)


def test_all_figures_and_the_table(tmp_path, echo, evaluate):
    folder = recorded(tmp_path, echo, evaluate, FIXED)
    files = draw(folder)
    assert names(files) == [
        "difference.png",
        "features_a_1-773232ab_after.png",
        "features_a_1-773232ab_before.png",
        "gate_echo.png",
        "gates.csv",
        "scale.png",
        "shift.png",
    ]
    for file in files:
        assert file.parent == folder / "explain"
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert picture.width == 1110  # 7.4 inches
    table = pd.read_csv(folder / "explain" / "gates.csv")
    row = table[(table["channel"] == 1) & (table["mode"] == "fixed:b")].iloc[0]
    assert row.to_dict() == {
        "gate": "echo", "channel": 1, "mode": "fixed:b", "domain": "x", "cases": 1,
        "scale": 0.25, "shift": 0.5,
    }  # fmt: skip
    assert len(table) == 2 * 3


def test_one_value_alone_is_drawn_without_differences(tmp_path, echo, evaluate):
    folder = recorded(tmp_path, echo, evaluate, {"normal": [1.0, 2.0, 3.0]})
    files = draw(folder)
    assert "scale.png" in names(files)
    assert not any("difference" in name or "gate_" in name for name in names(files))


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(DataError, match="explain this model first"):
        draw(tmp_path)


FIRST, SECOND = "tumour_size_mm=10", "tumour_size_mm=160"
LONG = ("one name of many words " * 3, "another name of words " * 3)


def activations(first, second):
    rows = pd.DataFrame(
        {"mode": [f"fixed:{first}", f"fixed:{second}"], "domain": "all", "cases": 3}
    )
    scale = {f"gate{n}": np.linspace(0, 1, 16 * 2).reshape(2, 16) for n in range(5)}
    return Activations(rows, scale, {})


def box(figure, text):
    return text.get_window_extent(figure.canvas.get_renderer())


@pytest.mark.parametrize(("first", "second"), [(FIRST, SECOND), LONG])
@pytest.mark.parametrize("single", [True, False])
def test_titles_are_within_the_picture_and_apart(monkeypatch, first, second, single):
    monkeypatch.setattr(drawing, "png", lambda figure: figure)
    gates = activations(first, second)
    figure = (
        drawing.single_gate(gates, "gate1", first, second)
        if single
        else drawing.gate_differences(gates, first, second)
    )
    FigureCanvasAgg(figure).draw()
    lefts = [axes.title if single else axes._left_title for axes in figure.axes]
    written = [figure._suptitle, *[title for title in lefts if title.get_text()]]
    found = [box(figure, text) for text in written]
    if single:
        found.append(figure.legends[0].get_window_extent(figure.canvas.get_renderer()))
    for place, one in enumerate(found):
        assert one.x0 >= 0
        assert one.x1 <= figure.bbox.width
        assert not any(one.overlaps(other) for other in found[place + 1 :])


def test_values_that_begin_with_an_underscore_are_in_the_legend(monkeypatch):
    monkeypatch.setattr(drawing, "png", lambda figure: figure)
    figure = drawing.single_gate(activations("_t_", "__"), "gate1", "_t_", "__")
    told = [text.get_text().lstrip("\u200b") for text in figure.legends[0].get_texts()]
    assert told == ["_t_", "__"]


def test_a_field_is_named_once(monkeypatch):
    monkeypatch.setattr(drawing, "png", lambda figure: figure)
    figure = drawing.gate_differences(activations(FIRST, SECOND), FIRST, SECOND)
    told = "All gates: scale under tumour_size_mm=10 and 160, same images"
    assert figure._suptitle.get_text() == told


# MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:parsing config_file:UserWarning"
)
def test_a_trained_run_is_explained(bundle, tiny, tmp_path):
    folders = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "run")}
    settings = {**tiny, **folders, "epochs": 1, "variant": "sme"}
    run_bundle(bundle, ["train.json"], settings)
    explained = ["train.json", "evaluate.json", "explain.json"]
    run_bundle(bundle, explained, {**settings, "explain_cases": 3})
    shapes = json.loads((bundle / "configs" / "schema.json").read_text())["fields"][0]["values"]
    table = gate_table(read_activations(tmp_path / "run" / "explain" / "activations.npz"))
    assert list(table["mode"].unique()) == ["normal", *(f"fixed:{name}" for name in shapes)]
    assert list(table["gate"].unique()) == list(gate_places(2))
    one_channel = table[(table["gate"] == "middle") & (table["channel"] == 0)]
    assert one_channel.groupby("mode")["cases"].sum().tolist() == [3] * 7
    (maps,) = read_features(tmp_path / "run" / "explain" / "features.npz")
    assert (maps.gate, len(maps.after), maps.image.shape) == ("decoder1", 7, (32, 32))
    assert not (tmp_path / "run" / "counts.csv").exists()
