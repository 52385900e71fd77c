"""The verdict: which claims a study can speak of, and what is said of each, yes or no."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.page import Section, tables_of
from metaseg_monai.reporting.verdict import Pair, claims_of, pairs_of, sentence, verdict_parts
from metaseg_monai.reporting.words import Asked
from metaseg_monai.reporting.write import write_report
from metaseg_monai.study import Study

STRONG = {"network_def": {"_target_": "metaseg_monai.networks.condition", "network": "DynUNet"}}
EVERY = {
    "none": {},
    "se": {},
    "sme": {},
    "sme-dummy": {},
    "constant-channel": {},
    "experts": {},
    "strong": {"variant": "none", **STRONG},
    "strong-sme": {"variant": "sme", **STRONG},
    "strong-sme-dummy": {"variant": "sme-dummy", **STRONG},
    "film": {},
}


def counts(mean, patients=12, noise=0.02, seed=0, modes=("normal",), spread=0.0, of=1000):
    """One training: two cases a patient, so many of a thousand pixels found, fewer in a mode."""
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(7).normal(size=patients) * spread
    rows = []
    for mode, lost in zip(modes, (0.0, 0.2, 0.1), strict=False):
        for case in range(2 * patients):
            share = mean - lost + own[case // 2] + noise * rng.normal()
            tp = int(np.clip(share, 0, 1) * of)
            place = (f"c{case}", f"p{case // 2}", "test", mode, "all", 1)
            rows.append((*place, tp, of - tp, of - tp, 10**5))
    return pd.DataFrame(rows, columns=COUNT_COLUMNS)


@pytest.fixture
def asked(results_of, made):
    """What a study of three trainings asked, with the mean Dice of each condition."""

    def make(means, noise=0.02, seeds=3, spread=0.0, shifts=(0.0,) * 5, **protocol):
        study = Study(
            name="s", bundle="b", conditions={name: EVERY[name] for name in means},
            protocol=protocol,
        )  # fmt: skip
        steered = {"sme", "strong-sme", "film", "constant-channel"}
        trainings = {
            name: [
                made(
                    counts(
                        mean + (shifts[seed] if name in steered else 0), noise=noise,
                        seed=100 * seed + len(name), spread=spread * (name in steered),
                        modes=("normal", "shuffle", "missing") if name == "sme" else ("normal",),
                    )
                )
                for seed in range(seeds)
            ]
            for name, mean in means.items()
        }  # fmt: skip
        results = results_of(study, **{name.replace("-", "_"): t for name, t in trainings.items()})
        return Asked(results, study.protocol)

    return make


def by_kind(claims, first="sme"):
    return {one.pair.kind: one for one in claims if one.pair.first == first}


def test_every_control_of_the_same_backbone_is_a_claim(asked):
    of = asked(dict.fromkeys(EVERY, 0.8), comparisons=[["strong-sme", "strong"]])
    pairs = pairs_of(of.results, of.results.study)
    assert pairs[:6] == [
        Pair("dummy", "sme", "sme-dummy"),
        Pair("plain", "sme", "se"),
        Pair("constant-channel", "sme", "constant-channel"),
        Pair("foreign", "sme", "sme, foreign"),
        Pair("unknown", "sme", "sme, unknown"),
        Pair("experts", "sme", "experts"),
    ]
    assert pairs[6:8] == [
        Pair("dummy", "strong-sme", "strong-sme-dummy"),
        Pair("plain", "strong-sme", "strong"),
    ]
    assert pairs[8:] == [
        Pair("plain", "constant-channel", "none"),
        Pair("experts", "constant-channel", "experts"),
        Pair("plain", "film", "se"),
        Pair("constant-channel", "film", "constant-channel"),
        Pair("experts", "film", "experts"),
    ]


def test_what_is_found_is_said_in_points_with_the_range_and_the_claims_are_marked(asked):
    of = asked({"se": 0.7, "sme": 0.8, "sme-dummy": 0.7}, comparisons=[["sme", "sme-dummy"]])
    claims = by_kind(claims_of(of))
    dummy = claims["dummy"]
    assert (dummy.answer, dummy.planned, dummy.row["groups"], dummy.row["seeds"]) == (
        "yes", True, 12, 3
    )  # fmt: skip
    assert dummy.row["effect"] == pytest.approx(0.1, abs=0.01)
    assert 0 < dummy.row["low"] < 0.1 < dummy.row["high"] < 0.12
    told = sentence(dummy)
    assert told.startswith("Yes: the network that is told the metadata draws outlines closer to")
    assert "by 10." in told or "by 9." in told
    assert "for other groups and trainings" in told
    plain = claims["plain"]
    assert (plain.planned, plain.answer) == (False, "yes")
    assert plain.level == pytest.approx(0.05 / 3)  # with foreign and unknown metadata
    assert claims["foreign"].compared.overall.mean == pytest.approx(0.2, abs=0.01)
    assert claims["unknown"].compared.overall.mean == pytest.approx(0.1, abs=0.01)
    worse = by_kind(claims_of(asked({"se": 0.8, "sme": 0.7})))["plain"]
    assert worse.answer == "the opposite"
    assert sentence(worse).startswith("No, the opposite: ")
    assert "farther from the reference" in sentence(worse)


def test_what_is_not_shown_says_what_the_study_could_have_found(asked):
    claim = by_kind(claims_of(asked({"se": 0.8, "sme": 0.8}, spread=0.05)))["plain"]
    assert claim.answer == "not shown"
    assert 0.02 < claim.smallest < 0.1
    told = sentence(claim)
    assert told.startswith("Not shown: ")
    assert f"an effect of {100 * claim.smallest:.1f} of 100 points of Dice or more" in told
    assert claim.spread.patients == pytest.approx(0.05, rel=0.4)
    assert claim.spread.trainings < 0.02


def test_trainings_that_differ_count_in_the_interval_and_in_the_smallest_effect(asked):
    alike = by_kind(claims_of(asked({"se": 0.75, "sme": 0.8})))["plain"]
    apart = asked({"se": 0.75, "sme": 0.8}, shifts=(0.06, 0.0, -0.04, 0, 0))
    claim = by_kind(claims_of(apart))["plain"]
    assert (alike.answer, claim.answer) == ("yes", "these trainings only")
    assert claim.compared.overall.low > 0 > claim.compared.joint[0]
    assert claim.smallest > 4 * alike.smallest
    assert sentence(claim).startswith("In these 3 trainings only: ")
    far = asked({"se": 0.75, "sme": 0.8}, shifts=(0.1, 0.05, -0.1, 0, 0))
    assert "in some trainings and worse in others" in sentence(by_kind(claims_of(far))["plain"])


def medmae(level, seed, wells=12, mode="normal"):
    """One training that predicts images: a case of each well, with this error."""
    noise = np.random.default_rng(seed).normal(size=wells) * 0.01
    rows = {
        "case": [f"c{n}" for n in range(wells)], "group": [f"w{n}" for n in range(wells)],
        "split": "test", "mode": mode, "domain": "20", "class": 1, "channel": "nuclei",
        "pixels": 100, "medmae": level + noise, "psnr": 20.0, "ssim": 0.9, "pearson": 0.8,
        "sharpness": 0.7,
    }  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def asked_of_images(results_of, made):
    """What a study of images asked, with the mean error of each condition."""

    def make(means, foreign=2.5, **protocol):
        study = Study(name="s", bundle="b", conditions=list(means), protocol=protocol)
        trainings = {}
        for place, (name, level) in enumerate(means.items()):
            of_name = []
            for seed in range(3):
                parts = [medmae(level, 10 * seed + place)]
                if name == "sme":
                    parts.append(medmae(foreign, 50 + seed, mode="shuffle"))
                of_name.append(made(pd.concat(parts)))
            trainings[name.replace("-", "_")] = of_name
        return Asked(results_of(study, **trainings), study.protocol)

    return make


def test_where_images_are_predicted_the_lower_error_is_the_better_one(asked_of_images):
    means = {"se": 1.8, "sme": 1.5, "sme-dummy": 1.8}
    of = asked_of_images(means, comparisons=[["sme", "sme-dummy"]])
    claims = by_kind(claims_of(of))
    dummy = claims["dummy"]
    assert (dummy.answer, dummy.planned) == ("yes", True)
    assert (dummy.row["score"], dummy.row["better"]) == ("medMAE", "lower")
    assert dummy.row["effect"] == pytest.approx(-0.3, abs=0.02)
    assert dummy.row["low"] < -0.3 < dummy.row["high"] < 0 < dummy.row["smallest_effect"] < 0.1
    told = sentence(dummy, "medMAE")
    assert told.startswith(
        "Yes: the network that is told the metadata predicts images closer to the true ones than "
        "the same network told nothing: for the average group their medMAE is lower by 0."
    )
    assert "(-0.3" in told
    assert "Dice" not in told
    assert claims["foreign"].answer == "yes"
    assert claims["foreign"].row["effect"] == pytest.approx(-1.0, abs=0.02)
    worse = by_kind(claims_of(asked_of_images({"se": 1.5, "sme": 1.8})))["plain"]
    assert worse.answer == "the opposite"
    told = sentence(worse, "medMAE")
    assert told.startswith("No, the opposite: ")
    assert "farther from the true ones" in told
    assert "is higher by 0.3" in told or "is higher by 0.29" in told


def test_an_error_that_is_not_shown_to_differ_says_what_could_have_been_found(asked_of_images):
    of = asked_of_images({"se": 1.5, "sme": 1.5}, pilot={
        "patients": 2.0, "trainings": 0.1, "residual": 0.1}, sample_size=12)  # fmt: skip
    claim = by_kind(claims_of(of))["plain"]
    told = sentence(claim, "medMAE")
    assert told.startswith("Not shown: the medMAE of the network that is told the metadata was ")
    assert f"an effect of {claim.smallest:.3f} of medMAE or more" in told
    whole = str(verdict_parts(of, claims_of(of)))
    assert "less is better: below 0 the first is" in whole
    assert "find a difference of 1." in whole or "find a difference of 2." in whole  # above 1


def test_one_training_shows_nothing_of_others_and_could_not(asked):
    claim = by_kind(claims_of(asked({"se": 0.7, "sme": 0.8}, seeds=1)))["plain"]
    told = sentence(claim)
    assert told.startswith("In this one training only: ")
    assert told.endswith("Whether other trainings come out alike takes two seeds at least.")


def test_too_few_groups_are_told_before_too_few_trainings(asked):
    of = asked({"se": 0.7, "sme": 0.8}, seeds=1)
    groups = of.results.counts["group"]
    few = of.results.counts[groups.isin(groups.unique()[:2])]
    claim = by_kind(claims_of(Asked(replace(of.results, counts=few), of.protocol)))["plain"]
    assert claim.compared.overall.groups == 2
    told = sentence(claim)
    assert "With 2 groups no p falls below its alpha of 0.05, whatever the effect" in told
    assert told.endswith("test more of them, as by folds (new-bundle --folds).")
    assert "no p falls below" not in sentence(claim._replace(test="t"))  # whose p has no least


def test_a_claim_whose_comparison_could_not_be_made_says_why(asked):
    of = asked({"se": 0.7, "sme": 0.8}, comparisons=[["sme", "se"]])
    other = of.results.counts["condition"] == "se"
    of.results.counts.loc[other, "case"] = "other" + of.results.counts.loc[other, "case"]
    claim = by_kind(claims_of(of))["plain"]
    assert claim.answer == "not tested"
    assert sentence(claim).startswith("Not tested: sme and se have no test case in common")
    assert verdict_parts(of, [claim])  # and the table is drawn


def test_of_trainings_that_have_hardly_begun_nothing_is_concluded(asked):
    of = asked({"se": 0.7, "sme": 0.8})
    short = Asked(replace(of.results, short={"sme": (2, 14)}), of.protocol)
    told = sentence(by_kind(claims_of(short))["plain"])
    assert told == (
        "Nothing is concluded: the training of sme had hardly begun after 2 of 14 planned epochs; "
        "conclusions begin at 4."
    )
    claims = claims_of(short)
    table, *rest = verdict_parts(short, claims)
    assert table.values[["low", "high", "smallest"]].isna().all(axis=None)
    assert table.values["effect"].notna().all()
    assert "verdict_spread" not in tables_of([Section("Verdict", "", [table, *rest])])


def test_without_a_study_or_metadata_nothing_is_claimed(asked):
    of = asked({"se": 0.7, "none": 0.8})
    assert claims_of(of) == []
    assert verdict_parts(of, []) == []


def test_a_report_leads_with_the_verdict_and_other_programs_read_it(studied, one_pixel):
    hits = {"se": (5, 5, 5), "sme": (8, 9, 9), "sme-dummy": (5, 6, 5), "me": (8, 8, 8)}
    folder = studied(hits, pilot={"patients": 0.05, "trainings": 0.01, "residual": 0.02})
    plan = json.loads((folder / "plan.json").read_text())
    for run in plan:
        del run["planned_epochs"]
    (folder / "plan.json").write_text(json.dumps(plan))
    page = write_report(folder).read_text(encoding="utf-8")
    order = ['id="table-verdict"', ">Verdict<", "Before the study: 8 patients", "What was found"]
    places = [page.index(one) for one in order]
    assert places[1] < places[0] < places[2] < places[3]
    claims = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    wanted = {"claim", "network", "effect", "low", "high", "groups", "seeds", "smallest_effect"}
    assert all(wanted | {"sentence"} <= one.keys() for one in claims["verdict"])
    assert {one["first"] for one in claims["verdict"]} == {"sme", "me"}
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.index("## Verdict") < text.index("## What was found")
    rows = pd.read_csv(folder / "tables" / "verdict.csv")
    assert len(rows) + len(pd.read_csv(folder / "tables" / "verdict_more.csv")) == len(
        claims["verdict"]
    )
