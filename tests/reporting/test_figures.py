"""What figures show: colours, places and words, asked of their pixels or of their parts."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.samples import Sample
from metaseg_monai.explain.figure_style import CONDITIONS, ink_on, looks
from metaseg_monai.metrics.agreement import Limits, bland_altman
from metaseg_monai.metrics.scores import MEDMAE
from metaseg_monai.reporting.figures import curves, predictions, ranking, values
from metaseg_monai.reporting.figures.predictions import CLASSES, FALSE, HIT, HOLLOW, MISSED
from metaseg_monai.reporting.figures.ranking import DifferenceRow, Panel
from metaseg_monai.reporting.figures.values import Response
from metaseg_monai.reporting.page import figures_of
from metaseg_monai.reporting.pictures import shown
from metaseg_monai.reporting.response import response_section

NAN = float("nan")


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def places(png, colour):
    """Rows and columns of the pixels of one colour."""
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return np.nonzero((np.abs(pixels(png).astype(float) - wanted) <= 1).all(axis=-1))


def area(png, colour):
    return len(places(png, colour)[0])


@pytest.fixture
def undrawn(monkeypatch):
    """Figures stay figures, whose parts can be asked."""
    for module in (curves, predictions, ranking, values):
        monkeypatch.setattr(module, "png", lambda figure: figure)


def words(texts):
    return [text.get_text().strip() for text in texts]


# One look for all.


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


def test_narrow_figures_are_as_wide_as_the_page():
    table = pd.DataFrame([[1.0]], index=["a"], columns=["normal"])
    drawn = values.mode_heatmap(table, "", {}), curves.learning_rate(log())
    assert len({pixels(png).shape[1] for png in drawn}) == 1


# Ranks and differences.


def test_ranking_puts_the_best_on_top_and_starts_at_zero():
    png = ranking.ranking({"film": [0.2, 0.2], "sme": [0.1, 0.1], "none": [NAN]}, "title")
    best, second = places(png, CONDITIONS["sme"]), places(png, CONDITIONS["film"])
    assert best[0].max() < second[0].min()
    length = np.ptp(second[1]) / np.ptp(best[1])
    assert length == pytest.approx(2, rel=0.03)
    assert not area(png, CONDITIONS["none"])


def test_ranking_draws_the_mean_of_se_through_all_bars(undrawn):
    def lines(**errors):
        (axes,) = ranking.ranking(errors, "title").axes
        return [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1
                and line.get_linestyle() == "--"]  # fmt: skip

    assert lines(se=[0.1, 0.3], sme=[0.2]) == [pytest.approx(0.2)]
    assert lines(se=[NAN], sme=[0.2]) == lines(sme=[0.2]) == []


def drawn_differences(*rows):
    return ranking.differences(rows, 0.05, "cases")


def test_difference_is_coloured_only_if_its_adjusted_p_is_small():
    def colours(mean, p):
        row = DifferenceRow("sme - se", mean, mean - 0.01, mean + 0.01, [mean], p)
        png = drawn_differences(row)
        return area(png, ranking.BETTER) > 0, area(png, ranking.WORSE) > 0

    assert colours(0.02, 0.01) == (True, False)
    assert colours(-0.02, 0.01) == (False, True)
    assert colours(0.02, 0.06) == colours(0.02, None) == colours(0.02, NAN) == (False, False)


def test_differences_take_groups_and_are_written_without_an_interval_or_score(undrawn):
    row = DifferenceRow("sme - se", 0.1, NAN, NAN, (0.1,), 0.5)
    rows = [row, row._replace(low=0.0, high=0.2), DifferenceRow("a - b", NAN, NAN, NAN, group="x")]
    (axes,) = drawn_differences(*rows).axes
    told = ["+0.100 p=0.500", "+0.100 [0.000, +0.200] p=0.500", "no score"]
    assert words(axes.texts) == told
    assert words(axes.get_yticklabels()) == ["sme - se", "sme - se", "x", "a - b"]


def test_agreement_draws_each_condition_about_its_bias():
    true, unknown = np.array([10.0, 20, 30, 40]), Limits(4, 4, *[NAN] * 12)
    less, more = Panel(true, true - 5, unknown), Panel(true, true + 5, unknown)
    png = ranking.agreement({"se": less, "sme": more})  # dots alone
    se, sme = (places(png, CONDITIONS[name])[0] for name in ("se", "sme"))
    assert se.min() > sme.max()  # further down: predicted too small
    lines = bland_altman(true.tolist(), (true - 5).tolist(), "abcd")
    drawn = ranking.agreement({"se": less._replace(limits=lines), "sme": more})
    assert area(drawn, CONDITIONS["se"]) > len(se)
    alone = Panel(true[:1], true[:1], bland_altman([10.0], [10.0], "a"))
    assert ranking.agreement({"se": alone})


# Curves.


def log(epochs=4, every=1, scale=1.0):
    number = np.arange(1, epochs + 1)
    losses = pd.DataFrame({"epoch": number, "train_loss": scale / number, "lr": 1e-3 / number})
    return losses.assign(val_loss=np.where(number % every == 0, 1.2 * scale / number, NAN))


def test_up_to_four_curves_share_a_panel_and_more_get_their_own():
    names = ["none", "se", "me", "sme", "film"]
    logs = {name: [log(scale=n), log(scale=n + 0.1)] for n, name in enumerate(names, start=1)}
    five = curves.learning_curves(logs)
    del logs["film"]
    four = curves.learning_curves(logs)
    spans = [[np.ptp(places(png, CONDITIONS[n])[1]) for n in names[1:4]] for png in (four, five)]
    assert min(spans[0]) > 0.7 * pixels(four).shape[1]
    assert max(spans[1]) < 0.35 * pixels(five).shape[1]


def test_a_training_of_many_epochs_leaves_the_others_their_width():
    names = ["none", "se", "me", "sme", "film"]
    for epochs in (8, 200):
        logs = {name: [log(epochs=4 if name != "film" else epochs)] for name in names}
        png = curves.learning_curves(logs)
        width = np.ptp(places(png, CONDITIONS["se"])[1]) / pixels(png).shape[1]
        assert width > (0.06 if epochs == 8 else 0.15)  # half of a panel; all of it


def test_learning_curves_take_sparse_validation_and_a_loss_of_zero_but_need_a_loss():
    sparse = log(6, every=3)
    sparse.loc[5, "train_loss"] = 0.0
    assert area(curves.learning_curves({"se": [sparse]}), CONDITIONS["se"])
    with pytest.raises(DataError, match="no loss to draw"):
        curves.learning_curves({"se": [log().assign(train_loss=0.0, val_loss=NAN)]})


def test_learning_rate_is_drawn_or_refused():
    assert area(curves.learning_rate(log()), "#1b7fbd")
    with pytest.raises(DataError, match="column lr is empty"):
        curves.learning_rate(log().assign(lr=NAN))


def test_robustness_curves_draw_every_training_and_their_mean_from_zero_up(undrawn):
    trainings = {"share": [0, 1, 0, 1], "f1": [0.9, 0.4, 0.9, 0.6], "seed": [0, 0, 1, 1]}
    (axes,) = curves.robustness_curves({"sme": pd.DataFrame(trainings)}).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.9, 0.4], [0.9, 0.6], [0.9, 0.5]]
    assert axes.get_ylim()[0] == 0


def test_perturbation_axis_is_logarithmic():
    curve = pd.DataFrame({"factor": [0.25, 1.0, 4.0], "f1": [0.0, 0.8, 0.0], "seed": 0})
    png = curves.perturbation_curves({"me": curve})
    rows, columns = places(png, CONDITIONS["me"])
    plot = columns < 0.85 * pixels(png).shape[1]  # the legend stands right of it
    rows, columns = rows[plot], columns[plot]
    peak = columns[rows <= rows.min() + 6].mean()
    assert peak == pytest.approx((columns.min() + columns.max()) / 2, abs=12)


def test_reliability_shows_the_calibration_error():
    perfect = pd.DataFrame({"pixels": [90, 10], "confidence": [0.1, 0.9], "frequency": [0.1, 0.9]})
    off = perfect.assign(frequency=[0.3, 0.9])
    empty = pd.concat([off, pd.DataFrame({"pixels": [0], "confidence": [NAN], "frequency": 0})])
    assert curves.reliability({"se": off}) != curves.reliability({"se": perfect})
    assert curves.reliability({"se": off}) == curves.reliability({"se": empty})
    many = curves.reliability({f"domain {n}": off for n in range(7)})
    assert pixels(many).shape[0] > 500


# Scores of which less is better.


def test_an_error_is_named_and_is_not_cut_at_1(undrawn):
    curve = pd.DataFrame({"share": [0, 1], "factor": [0.5, 2], "f1": [1.5, 2.5], "seed": 0})
    table = pd.DataFrame([[1.5, 2.5]], index=["combined"], columns=["normal", "shuffle"])
    (shares,) = curves.robustness_curves({"sme": curve}, score=MEDMAE).axes
    (factors,) = curves.perturbation_curves({"sme": curve}, score=MEDMAE).axes
    heat, bar = values.mode_heatmap(table, "", {}, MEDMAE).axes
    (ranked,) = ranking.ranking({"sme": [1.5], "se": [2.5]}, "title", MEDMAE).axes
    named = "mean medMAE (lower is better)"
    assert {shares.get_ylabel(), factors.get_ylabel(), bar.get_ylabel()} == {named}
    assert ranked.get_xlabel().startswith(named)
    assert shares.get_ylim() == factors.get_ylim() == (0, 2.75)
    dark, light = heat.images[0].to_rgba([1.5, 2.5])[:, :3].sum(axis=1)
    assert heat.images[0].get_clim() == (0, 2.5)
    assert dark < light


def test_a_difference_of_errors_is_better_left_of_zero(undrawn):
    rows = [DifferenceRow("sme - se", mean, mean, mean, (), 0.01) for mean in (-0.2, 0.2)]
    (axes,) = ranking.differences(rows, 0.05, "cases", MEDMAE).axes
    colours = [line.get_color() for line in axes.lines if line.get_marker() == "s"]
    assert colours == [ranking.BETTER, ranking.WORSE]
    assert axes.get_xlabel() == "difference of medMAE (left of 0: the first is better)"


# Maps.


def test_mode_heatmap_frames_the_own_label_and_leaves_nan_blank():
    table = pd.DataFrame(
        0.0, index=["combined", "a", "b"], columns=["normal", "fixed:k=a", "fixed:k=b"]
    )
    light = area(values.mode_heatmap(table, "", {}), "#ffffd9")
    blank = table.copy()
    blank.iloc[0, 0] = NAN
    assert area(values.mode_heatmap(blank, "", {}), "#ffffd9") < 0.95 * light
    foreign = table.set_axis(["combined", "c", "d"])
    framed, unframed = (area(values.mode_heatmap(t, "", {}), "#222222") for t in (table, foreign))
    assert framed > unframed + 200


def test_fixed_numbers_are_told_with_their_field_and_unit(undrawn):
    def texts(*modes, units):
        matrix = pd.DataFrame([[0.5] * len(modes)], index=["combined"], columns=modes)
        return words(values.mode_heatmap(matrix, "sme", units).axes[0].texts)

    modes = ("normal", "fixed:size=10", "fixed:size=20")
    assert texts(*modes, units={"size": "mm"})[-1] == "size (mm)"
    assert texts(*modes, units={})[-1] == "size"
    for others in (("normal", "fixed:a", "fixed:b"), ("fixed:size=10", "fixed:line=HeLa")):
        assert set(texts(*others, units={"size": "mm"})) == {"0.50"}


def test_similarity_map_is_ordered_by_its_tree():
    similar = [[1, 0.2, 0.9], [0.2, 1, 0], [0.9, 0, 1]]
    table = pd.DataFrame(similar, index=list("abc"), columns=list("abc"))
    tree = np.array([[0, 2, 0.1, 2], [1, 3, 0.9, 3]])  # a with c, then b with both
    moved = np.array([[1, 2, 0.1, 2], [0, 3, 0.9, 3]])  # the same of the table b, a, c
    other = table.loc[list("bac"), list("bac")]
    assert values.similarity_map(table, tree, "") == values.similarity_map(other, moved, "")


# Pictures of predictions.


def sample(case, domain="all", modes=("normal",)):
    label = np.zeros((8, 8), int)
    label[2:5, 2:5] = 1
    return Sample(
        case, domain, label * 0.5, label, {mode: np.roll(label, 1, axis=1) for mode in modes}
    )


def test_overlay_colours_hits_misses_and_false_pixels():
    picture = predictions.overlay(np.array([[1, 0, 1, 0, 2]]), np.array([[1, 1, 0, 0, 1]]))
    told = [list(HIT), list(MISSED), list(FALSE), [0, 0, 0], list(MISSED)]
    assert picture.tolist() == [told]


def test_prediction_grid_gives_every_domain_its_turn_and_stops_at_its_rows():
    cases = [sample("1", "a"), sample("2", "a"), sample("3", "b")]
    two = predictions.prediction_grid({"sme": cases}, 2, {})
    assert two == predictions.prediction_grid({"sme": [cases[0], cases[2]]}, 8, {})
    assert area(two, MISSED)
    assert area(two, FALSE)


def test_prediction_grid_leaves_a_place_empty_where_a_prediction_is_absent():
    def beside(other):
        return predictions.prediction_grid({"se": [sample("1")], "sme": [other]}, 8, {})

    others = sample("1"), sample("2"), sample("1", modes=["zeros"])
    whole, other_case, no_mode = map(beside, others)
    assert area(other_case, FALSE) < area(whole, FALSE)
    assert other_case == no_mode


def test_label_grid_has_a_row_for_each_condition(undrawn):
    fixed, fewer = sample("1", "a", ["normal", "fixed:a", "fixed:b"]), sample("1", "a", ["fixed:a"])
    figure = predictions.label_grid({"sme": fixed, "me": fewer})
    heads = [axes.get_title(loc="center") for axes in figure.axes]
    assert heads == ["image", "a", "b", *[""] * 3]
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["sme", "me"]
    assert [words(axes.texts) for axes in figure.axes] == [[]] * 5 + [["none"]]


def test_long_names_and_many_conditions_stay_within_the_page():
    names = [f"film-ivadomed-dummy-{number}" for number in range(13)]
    png = predictions.prediction_grid({name: [sample("1", "a")] for name in names}, 8, {})
    edge = pixels(png)[:, -3:]
    assert (edge == 255).all()


def boxes(figure):
    """Left and width of the panels, in rows from the top."""
    found = [axes.get_position() for axes in figure.axes]
    rows = sorted({round(box.y0, 6) for box in found}, reverse=True)
    return [[(b.x0, b.width) for b in found if round(b.y0, 6) == row] for row in rows]


def test_images_of_any_shape_stand_under_their_heads(undrawn):
    stored = [sample(f"case_{n}") for n in range(3)]
    wide = np.zeros((12, 20))
    stored[2] = Sample("case_2", "all", wide, wide.astype(np.uint8), {"normal": wide})
    figure = predictions.prediction_grid({"se": stored, "sme": stored}, 8, {})
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
    assert [
        axes.get_ylabel() for axes in predictions.prediction_grid({"se": two}, 8, {}).axes[::3]
    ] == ["x", "y"]


@pytest.mark.parametrize(
    ("count", "domains", "told"),
    [
        (1, ["all"], " on 1 test case"),
        (3, ["all"], " on 3 test cases"),
        (3, ["x", "y"], " on 3 test cases (2 of x, 1 of y)"),
        (12, ["x", "y"], " on 8 test cases of 12 that are stored"),
    ],
)
def test_a_picture_says_which_cases_it_shows_and_which_conditions_not(count, domains, told):
    stored = [sample(f"c{n}", domains[n % len(domains)]) for n in range(count)]
    assert shown({"se": stored}, ["se"]) == told
    assert shown({"se": stored, "sme": stored}, ["se"]) == f"{told}; without sme"


# Montages of values.


def disc(radius=8, modes=("a", "b")):
    """A disc cut by the upper edge, drawn larger in every further mode."""
    rows, columns = np.mgrid[:40, :48]
    distance = np.hypot(rows - 4, columns - 20)
    label = (distance < radius).astype(np.uint8)
    preds = {mode: (distance < radius + 2 * n).astype(np.uint8) for n, mode in enumerate(modes)}
    return Sample("case", "all", np.full(label.shape, 0.3), label, preds)


def contours(one, modes, names=None, beyond=()):
    return predictions.montage([one], modes, ["case"], names or {}, beyond)


def test_a_montage_shows_all_of_planes_side_by_side():
    label = np.zeros((8, 24), np.uint8)
    label[3, [2, 20]] = 1
    one = Sample("c", "x", np.zeros(label.shape), label, {"normal": label})
    assert predictions._window(one, ["normal"]) == (slice(None), slice(None))


def test_montage_shows_a_contour_in_each_column_and_says_none_where_a_mode_is_absent():
    both, one = (contours(disc(), {"10": "a", "20": mode}) for mode in ("b", "absent"))
    middle = Image.open(io.BytesIO(both)).width / 2
    assert places(both, CLASSES[0])[1].min() < middle / 2
    assert area(one, CLASSES[0]) < area(both, CLASSES[0])
    assert contours(disc(radius=0, modes=()), {"10": "a"})


def test_a_montage_names_classes_and_marks_the_columns_beyond_training(undrawn):
    def drawn(**settings):
        figure = contours(disc(), {"10 mm": "a", "40 mm": "b"}, **settings)
        heads = [axes.title.get_text() for axes in figure.axes]
        return heads, words(figure.legends[0].get_texts())

    heads, key = drawn(names={1: "tumour"}, beyond=["10 mm"])
    assert heads == [f"{HOLLOW} 10 mm", "40 mm"]
    assert key == ["tumour", "label", "beyond training values"]
    assert drawn() == (["10 mm", "40 mm"], ["class 1", "label"])


def test_a_runs_montage_is_in_the_order_of_its_own_values(monkeypatch, volumes):
    asked = {}

    def watched(samples, modes, titles, classes, beyond):
        asked.update(cases=[one.case for one in samples], titles=titles, beyond=beyond)
        return predictions.montage(samples, modes, titles, classes, beyond)

    monkeypatch.setattr("metaseg_monai.reporting.response.montage", watched)
    run = volumes.run("sme", follows=1)
    volumes.samples(run)

    def caption():
        section = response_section(volumes.results(sme=[run]))
        return figures_of([section])["montage_size_sme"].caption

    assert "beyond the training values, 15 to 80 mm" in caption()
    assert asked["cases"] == ["p0_0", "p3_0"]
    assert asked["beyond"] == ["10 mm", "160 mm"]
    own = {"p0_0": 99.0, "t0": 10.0, "t1": 160.0}
    run.edit(lambda cases: cases.assign(size=cases["case"].map(own).fillna(cases["size"])))
    assert "beyond" not in caption()
    assert asked["cases"] == ["p3_0", "p0_0"]
    assert asked["titles"][1] == "p0_0\nown: 99 mm"
    assert asked["beyond"] == []


# Scores and areas over a value.


def curve(areas):
    table = pd.DataFrame({"value": [10.0, 40.0, 160.0], "mean": areas, "class": 2})
    return table.assign(low=table["mean"] - 1, high=table["mean"] + 1)


def responding(classes, trained=None, log=False):
    return values.response_curves(classes, "size (mm)", "mm²", trained, log, "area")


def test_values_beyond_training_are_shaded_and_hollow_on_both_sides(undrawn):
    def drawn(trained):
        (axes,) = responding({"one": Response({"sme": curve([1, 2, 3])}, {}, 2.0)}, trained).axes
        shaded = [
            (patch.get_x(), patch.get_x() + patch.get_width())
            for patch in axes.patches
            if to_hex(patch.get_facecolor()) == values.BEYOND
        ]
        fills = {
            float(value): to_hex(line.get_markerfacecolor())
            for line in axes.lines
            if line.get_linestyle() == "None"
            for value in line.get_xdata()
        }
        return shaded, fills

    shaded, fills = drawn((20, 80))
    assert shaded == [(10, 20), (80, 160)]
    assert fills[10] == fills[160] == "#ffffff"
    assert fills[40] != "#ffffff"
    assert drawn((10, 160)) == ([], {10: fills[40], 40: fills[40], 160: fills[40]})
    assert drawn(None)[0] == []


def test_response_draws_a_panel_a_class_with_the_level_lines_of_others(undrawn):
    rising = Response({"sme": curve([10, 20, 30])}, {"se": 15.0}, 18.0)
    figure = responding({"one": rising, "two": rising._replace(flat={}, true=NAN)}, log=True)
    levels = [
        {line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1}
        for axes in figure.axes
    ]
    assert {15.0, 18.0} <= levels[0]
    assert not {15.0, 18.0} & levels[1]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}


def test_labels_of_ticks_stand_apart():
    sizes = [10, 14, 20, 28, 40, 57, 80, 113, 160]
    assert values.ticks_apart(sizes, True, 6.0) == sizes
    assert values.ticks_apart(sizes, True, 2.0) == [10, 20, 40, 80, 160]
    assert values.ticks_apart([1, 2, 3, 4, 5, 100], False, 2.0) == [1, 100]


def test_unseen_values_are_hollow_and_those_below_zero_on_a_straight_axis(undrawn):
    def drawn(unseen, *at):
        scores = pd.DataFrame({"mean": 0.5, "low": NAN, "high": NAN}, index=at)
        (axes,) = values.value_curves({"sme": scores}, unseen, "focus (um)", "F1").axes
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        hollow = {line.get_markerfacecolor(): len(line.get_xdata()) for line in dots}
        return hollow["white"], axes.get_xscale()

    assert drawn([15.0], 10.0, 15.0, 20.0) == (1, "log")
    assert drawn([4.0, 0.0], -4.0, 0.0, 4.0) == (2, "linear")
