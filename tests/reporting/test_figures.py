import io
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.samples import Sample
from metaseg_monai.explain.figure_style import CONDITIONS, ink_on, looks
from metaseg_monai.reporting.figures import (
    DifferenceRow,
    differences,
    label_grid,
    learning_curves,
    learning_rate,
    maps,
    mode_heatmap,
    overlay,
    perturbation_curves,
    prediction_grid,
    ranking,
    reliability,
    robustness_curves,
    similarity_map,
)
from metaseg_monai.reporting.figures import predictions as grids
from metaseg_monai.reporting.figures.predictions import FALSE, HIT, MISSED
from metaseg_monai.reporting.figures.ranking import BETTER, WORSE
from metaseg_monai.reporting.figures.ranking import _numbers as ranking_numbers


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def places(png, colour):
    """Rows and columns of the pixels of one colour."""
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return np.nonzero((np.abs(pixels(png).astype(float) - wanted) <= 1).all(axis=-1))


def log(epochs=4, every=1, scale=1.0):
    number = np.arange(1, epochs + 1)
    losses = pd.DataFrame({"epoch": number, "train_loss": scale / number, "lr": 1e-3 / number})
    return losses.assign(val_loss=np.where(number % every == 0, 1.2 * scale / number, np.nan))


def sample(case, domain, modes=("normal",)):
    label = np.zeros((8, 8), int)
    label[2:5, 2:5] = 1
    return Sample(
        case, domain, label * 0.5, label, {mode: np.roll(label, 1, axis=1) for mode in modes}
    )


def test_a_condition_keeps_its_colour_and_its_dummy_the_hue():
    alone, among = looks(["sme"])["sme"], looks(["none", "x", "sme", "sme-dummy"])
    assert alone.colour == among["sme"].colour == CONDITIONS["sme"]
    assert among["sme-dummy"].hatch
    assert not among["sme"].hatch
    dark, light = to_rgb(among["sme"].colour), to_rgb(among["sme-dummy"].colour)
    assert np.argsort(dark).tolist() == np.argsort(light).tolist()
    assert sum(light) > sum(dark)


def test_longest_variant_wins_and_lookalike_names_are_no_variants():
    found = looks(["film-ivadomed-dummy", "film-ivadomed", "film", "se", "second"])
    assert found["film-ivadomed"].colour == CONDITIONS["film-ivadomed"]
    assert found["film"].colour == CONDITIONS["film"]
    assert found["second"].colour != found["se"].colour == CONDITIONS["se"]
    many = looks([f"encoder{level}" for level in range(12)])
    assert len({look.colour for look in many.values()}) == 12


def test_ink_is_readable_on_light_and_dark():
    assert ink_on("#ffffd0") != "white"
    assert ink_on("#081d58") == "white"


def test_ranking_puts_the_best_on_top_and_starts_at_zero():
    png = ranking({"se": [0.2, 0.2], "sme": [0.1, 0.1], "none": [float("nan")]}, "title")
    best, second = places(png, CONDITIONS["sme"]), places(png, CONDITIONS["se"])
    assert best[0].max() < second[0].min()
    length = np.ptp(second[1]) / np.ptp(best[1])
    assert length == pytest.approx(2, rel=0.03)
    assert not len(places(png, CONDITIONS["none"])[0])


def test_ranking_draws_the_baseline_through_all_bars():
    errors = {"se": [0.1], "sme": [0.2]}
    assert ranking(errors, "title", baseline="se") != ranking(errors, "title")
    with pytest.raises(ConfigError, match="baseline me is not ranked; use one of se, sme"):
        ranking(errors, "title", baseline="me")
    with pytest.raises(DataError, match="No condition has a score"):
        ranking({"se": [float("nan")]}, "title")


def test_difference_is_coloured_only_if_its_adjusted_p_is_small():
    def colours(mean, p):
        png = differences([DifferenceRow("sme - se", mean, mean - 0.01, mean + 0.01, [mean], p)])
        return len(places(png, BETTER)[0]) > 0, len(places(png, WORSE)[0]) > 0

    assert colours(0.02, 0.01) == (True, False)
    assert colours(-0.02, 0.01) == (False, True)
    assert colours(0.02, 0.06) == colours(0.02, None) == colours(0.02, np.nan) == (False, False)


def test_a_difference_without_interval_is_drawn_and_written_without_one():
    row = DifferenceRow("sme - se", 0.1, np.nan, np.nan, (), 0.5)
    assert ranking_numbers(row, False) == "+0.100 p=0.500  "
    assert ranking_numbers(row._replace(low=0.0, high=0.2), False).startswith("+0.100 [+0.000")
    assert pixels(differences([row])).shape


def test_differences_take_groups_and_a_missing_score_and_refuse_none():
    rows = [DifferenceRow("sme - se", 0.1, 0.0, 0.2, (), 0.1)]
    grouped = [rows[0]._replace(group="10x"), DifferenceRow("a - b", *[np.nan] * 3, group="20x")]
    assert pixels(differences(grouped)).shape[0] > pixels(differences(rows)).shape[0]
    with pytest.raises(DataError, match="no difference to draw"):
        differences([])


def test_up_to_four_curves_share_a_panel_and_more_get_their_own():
    names = ["none", "se", "me", "sme", "film"]
    logs = {name: [log(scale=n), log(scale=n + 0.1)] for n, name in enumerate(names, start=1)}
    five = learning_curves(logs)
    del logs["film"]
    four = learning_curves(logs)
    spans = [[np.ptp(places(png, CONDITIONS[n])[1]) for n in names[1:4]] for png in (four, five)]
    assert min(spans[0]) > 0.7 * pixels(four).shape[1]
    assert max(spans[1]) < 0.35 * pixels(five).shape[1]


def test_learning_curves_take_sparse_validation_and_a_loss_of_zero():
    sparse = log(6, every=3)
    sparse.loc[5, "train_loss"] = 0.0
    assert len(places(learning_curves({"se": [sparse]}), CONDITIONS["se"])[0])


def test_learning_curves_refuse_logs_without_losses():
    with pytest.raises(DataError, match="log of se has no column val_loss"):
        learning_curves({"se": [log().drop(columns="val_loss")]})
    with pytest.raises(DataError, match="no loss to draw"):
        learning_curves({"se": []})


def test_learning_rate_is_drawn_or_refused():
    assert len(places(learning_rate(log()), "#1b7fbd")[0])
    with pytest.raises(DataError, match="column lr is empty"):
        learning_rate(log().assign(lr=np.nan))


def test_mode_heatmap_frames_the_own_label_and_leaves_nan_blank():
    table = pd.DataFrame(
        0.0, index=["combined", "a", "b"], columns=["normal", "fixed:k=a", "fixed:k=b"]
    )
    light = len(places(mode_heatmap(table, ""), "#ffffd9")[0])
    blank = table.copy()
    blank.iloc[0, 0] = np.nan
    assert len(places(mode_heatmap(blank, ""), "#ffffd9")[0]) < 0.95 * light
    foreign = table.set_axis(["combined", "c", "d"])
    framed, unframed = (len(places(mode_heatmap(t, ""), "#222222")[0]) for t in (table, foreign))
    assert framed > unframed + 200
    with pytest.raises(DataError, match="no test mode"):
        mode_heatmap(pd.DataFrame(), "")


def test_similarity_map_is_ordered_by_its_tree():
    values = [[1, 0.2, 0.9], [0.2, 1, 0], [0.9, 0, 1]]
    table = pd.DataFrame(values, index=list("abc"), columns=list("abc"))
    tree = np.array([[0, 2, 0.1, 2], [1, 3, 0.9, 3]])  # a with c, then b with both
    moved = np.array([[1, 2, 0.1, 2], [0, 3, 0.9, 3]])  # the same of the table b, a, c
    assert similarity_map(table, tree) == similarity_map(table.loc[list("bac"), list("bac")], moved)
    assert pixels(similarity_map(table, tree)).shape[0] > pixels(similarity_map(table)).shape[0]
    with pytest.raises(DataError, match="square table"):
        similarity_map(table.iloc[:2])


def test_robustness_curves_draw_means_over_seeds_from_zero_up():
    seeds = pd.DataFrame({"share": [0, 1, 0, 1], "f1": [0.9, 0.4, 0.9, 0.6], "seed": [0, 0, 1, 1]})
    png = robustness_curves({"sme": seeds, "sme-dummy": seeds.drop(columns="seed")})
    assert len(places(png, CONDITIONS["sme"])[0])
    with pytest.raises(DataError, match="curve of sme has no column share"):
        robustness_curves({"sme": pd.DataFrame({"f1": [1.0]})})
    with pytest.raises(DataError, match="no curve"):
        robustness_curves({})


def test_perturbation_axis_is_logarithmic():
    curve = pd.DataFrame({"factor": [0.25, 1.0, 4.0], "f1": [0.0, 0.8, 0.0]})
    png = perturbation_curves({"me": curve})
    rows, columns = places(png, CONDITIONS["me"])
    plot = columns < 0.85 * pixels(png).shape[1]  # the legend stands right of it
    rows, columns = rows[plot], columns[plot]
    peak = columns[rows <= rows.min() + 6].mean()
    assert peak == pytest.approx((columns.min() + columns.max()) / 2, abs=12)


def test_reliability_shows_the_calibration_error():
    perfect = pd.DataFrame({"pixels": [90, 10], "confidence": [0.1, 0.9], "frequency": [0.1, 0.9]})
    off = perfect.assign(frequency=[0.3, 0.9])
    empty = pd.concat([off, pd.DataFrame({"pixels": [0], "confidence": [np.nan], "frequency": 0})])
    assert reliability({"se": off}) != reliability({"se": perfect})
    assert reliability({"se": off}) == reliability({"se": empty})
    many = reliability({f"domain {n}": off for n in range(7)})
    assert pixels(many).shape[0] > 500
    with pytest.raises(DataError, match="no column frequency"):
        reliability({"se": off.drop(columns="frequency")})


def test_overlay_colours_hits_misses_and_false_pixels():
    picture = overlay(np.array([[1, 0, 1, 0, 2]]), np.array([[1, 1, 0, 0, 1]]))
    assert picture.tolist() == [[list(HIT), list(MISSED), list(FALSE), [0, 0, 0], list(MISSED)]]


def test_prediction_grid_gives_every_domain_its_turn_and_stops_at_its_rows():
    cases = [sample("1", "a"), sample("2", "a"), sample("3", "b")]
    two = prediction_grid({"sme": cases}, rows=2)
    assert two == prediction_grid({"sme": [cases[0], cases[2]]})
    assert len(places(two, MISSED)[0])
    assert len(places(two, FALSE)[0])


def test_prediction_grid_leaves_a_place_empty_where_a_prediction_is_absent():
    whole = prediction_grid({"se": [sample("1", "a")], "sme": [sample("1", "a")]})
    other_case = prediction_grid({"se": [sample("1", "a")], "sme": [sample("2", "a")]})
    no_mode = prediction_grid({"se": [sample("1", "a")], "sme": [sample("1", "a", ["zeros"])]})
    assert len(places(other_case, FALSE)[0]) < len(places(whole, FALSE)[0])
    assert other_case == no_mode
    with pytest.raises(DataError, match="no stored prediction"):
        prediction_grid({})


def test_label_grid_has_a_row_for_each_condition_that_takes_metadata():
    fixed = [sample("1", "a", ["normal", "fixed:a", "fixed:b"])]
    one = label_grid({"sme": fixed, "none": [sample("1", "a")]})
    assert one == label_grid({"sme": fixed})
    assert pixels(label_grid({"sme": fixed, "me": fixed})).shape[0] > pixels(one).shape[0]
    with pytest.raises(DataError, match=r"fixed:\*"):
        label_grid({"none": [sample("1", "a")]})


def test_long_names_and_many_conditions_stay_within_the_page():
    names = [f"film-ivadomed-dummy-{number}" for number in range(13)]
    png = prediction_grid({name: [sample("1", "a")] for name in names})
    edge = pixels(png)[:, -3:]
    assert (edge == 255).all()


def test_narrow_figures_are_as_wide_as_the_page():
    table = pd.DataFrame([[1.0]], index=["a"], columns=["normal"])
    assert pixels(mode_heatmap(table, "")).shape[1] == pixels(learning_rate(log())).shape[1]


def boxes(figure):
    """Left and width of the panels, in rows from the top."""
    found = [axes.get_position() for axes in figure.axes]
    rows = sorted({round(box.y0, 6) for box in found}, reverse=True)
    return [[(b.x0, b.width) for b in found if round(b.y0, 6) == row] for row in rows]


def test_images_of_any_shape_stand_under_their_heads(monkeypatch):
    monkeypatch.setattr(grids, "png", lambda figure: figure)
    stored = [sample(f"case_{n}", "all") for n in range(3)]
    wide = np.zeros((12, 20))
    stored[2] = Sample("case_2", "all", wide, wide.astype(np.uint8), {"normal": wide})
    figure = prediction_grid({"se": stored, "sme": stored})
    first, *others = boxes(figure)
    assert len(first) == 4
    for row in others:
        np.testing.assert_allclose(row, first)
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["case_0", "case_1", "case_2"]
    high, *_, low = (axes.get_position().height for axes in figure.axes)
    assert low == pytest.approx(12 / 20 * high)
    last = first[-1]
    assert 1 - sum(last) < 0.1  # no empty strip on the right
    two = [sample("case_0", "x"), sample("case_1", "y")]
    assert [axes.get_ylabel() for axes in prediction_grid({"se": two}).axes[::3]] == ["x", "y"]


def test_fixed_numbers_are_told_with_their_field_and_unit(monkeypatch):
    monkeypatch.setattr(maps, "png", lambda figure: figure)

    def texts(*modes, units=None):
        matrix = pd.DataFrame([[0.5] * len(modes)], index=["combined"], columns=modes)
        return [text.get_text() for text in mode_heatmap(matrix, "sme", units).axes[0].texts]

    modes = ("normal", "fixed:size=10", "fixed:size=20")
    assert texts(*modes, units={"size": "mm"})[-1] == "size (mm)"
    assert texts(*modes)[-1] == "size"
    for others in (("normal", "fixed:a", "fixed:b"), ("fixed:size=10", "fixed:line=HeLa")):
        assert set(texts(*others, units={"size": "mm"})) == {"0.50"}


def test_a_difference_without_interval_is_written_without(monkeypatch):
    module = sys.modules[DifferenceRow.__module__]  # the package names the function alike
    monkeypatch.setattr(module, "png", lambda figure: figure)
    row = DifferenceRow("sme - se", 0.1, float("nan"), float("nan"), (0.1,), 0.5)
    (axes,) = differences([row]).axes
    assert [text.get_text().strip() for text in axes.texts] == ["+0.100 p=0.500"]
