"""What a report says before its tables."""

from dataclasses import replace

import pandas as pd
import pytest

from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.words import (
    Asked,
    facts,
    found,
    heading,
    how_sure,
    not_shown,
    reliance_words,
)
from metaseg_monai.reporting.write import comparison_section, metadata_section
from metaseg_monai.study.design import Study

BEFORE = {"at": "2026-01-01T00:00:00+00:00", "finished_runs": 0}


def counts(hits, modes, groups):
    """Eight cases of two domains; `hits` of ten pixels are found with true metadata, else none."""
    rows = [
        (f"case{n}", f"p{n % groups}", "test", mode, "xy"[n % 2], 1, tp, fp, 10 - tp, 50)
        for n in range(8)
        for mode in modes
        for tp, fp in [(max(0, hits - n % 2), 1) if mode == "normal" else (0, 9)]
    ]
    return pd.DataFrame(rows, columns=COUNT_COLUMNS)


@pytest.fixture
def ask(results_of, made):
    """Results whose trainings find so many of ten pixels, and what was planned."""

    def make(hits, modes=None, groups=8, missing=None, history=(BEFORE,), short=(), **protocol):
        conditions = list(hits)
        study = Study(name="s", bundle="b/c", conditions=conditions, protocol=protocol)
        trainings = {}
        for name, of_seeds in hits.items():
            tested = (modes or {}).get(name, ("shuffle",) if name in ("me", "sme") else ())
            known = {(0, s): n for s, n in enumerate(of_seeds) if n is not None}
            made_of = {s: made(counts(n, ("normal", *tested), groups)) for s, n in known.items()}
            trainings |= {name: made_of} if made_of else {}
        results = results_of(study, **trainings)
        results = replace(results, missing=missing or {}, short=dict(short))
        return Asked(results, study.protocol, history)

    return make


def said(asked):
    parts = [*found(asked), *reliance_words(asked), how_sure(asked), not_shown(asked)]
    return " ".join(parts)


# fmt: off
HELPED = {"se": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (5, 6, 5)}
PAIR = {"se": (5, 5, 6), "sme": (8, 9, 9)}
LACKING = {"se": (5, 5, 5), "sme": (8, 8, 8), "me": (None, None, None)}
THREE = [["sme", "se"], ["me", "se"], ["me", "sme"]]
SAID = {  # hits of each training, the protocol, what is said, and what is not
    "metadata helped": (
        HELPED, {},
        ["sme has a higher F1 than se", "seed 0: +0.", "sme loses 0.",
         "so the metadata helped, not the larger gates", "before any run had a result"],
        ["Not compared by plan"],
    ),
    "scores that are all the same have no highest": (
        {"se": (0, 0, 0), "sme": (0, 0, 0)}, {},
        ["The F1 pooled over all cases of all 2 conditions is 0.000 ("], ["The highest F1"],
    ),
    "a dummy explains the gain": (
        {**HELPED, "sme-dummy": (9, 8, 9)}, {},
        ["sme has a higher F1 than se", "the dummy may explain its gain over SE"], [],
    ),
    "metadata helped against a plain network": (
        {"none": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (5, 6, 5)}, {},
        ["Primary comparison: sme has a higher F1 than none",
         "so the metadata helped, not the larger network"],
        ["SE"],
    ),
    "metadata did not help against a plain network": (
        {"none": (6, 6, 6), "sme": (6, 6, 6)}, {},
        ["Metadata was not shown to help sme against the network without gates"], [],
    ),
    "trainings that have hardly begun": (
        HELPED, {"short": dict.fromkeys(HELPED, (2, 358))},
        ["All networks were trained for 2 of the 358 planned epochs: nothing is "
         "concluded of these conditions, nor of their metadata."],
        ["the metadata helped", "what follows holds", "planned epochs.)", "Whether metadata help"],
    ),
    "no dependence is concluded of one that has hardly begun": (
        {"se": (6, 6, 6), "sme": (0, 0, 0)}, {"short": {"sme": (1, 9)}},
        ["sme was trained for 1 of the 9 planned epochs: nothing is concluded of sme",
         "sme changes by 0.000, which is nothing to conclude from"],
        ["hardly depends on it", "was not shown to help"],
    ),
    "trainings that were shorter than planned": (
        HELPED, {"short": dict.fromkeys(HELPED, (16, 24))},
        ["All networks were trained for 16 of the 24 planned epochs: what follows "
         "holds of trainings of that length.", "(After 16 of 24 planned epochs.)",
         "so the metadata helped, not the larger gates"],
        ["nothing is concluded"],
    ),
    "no comparison that was planned could be made": (
        {"se": (5, 5, 5), "sme": (8, 8, 8), "me": (None, None, None)},
        {"comparisons": [["me", "se"]]},
        ["The primary comparison, me - se, was not made", "No planned comparison was made: diff"],
        ["No comparison was planned"],
    ),
    "nothing was planned": (
        {"none": (5, 5, 5), "se": (8, 8, 8)}, {},
        ["No comparison was planned: differences between rows are described"], ["was not made"],
    ),
    "metadata did not help": (
        {"se": (6, 6, 6), "sme": (6, 6, 6)}, {},
        ["No difference of sme and se in the F1 was shown", "may still exist",
         "Metadata was not shown to help sme"], [],
    ),
    "metadata harmed": (
        {"se": (9, 9, 9), "me": (3, 4, 3)}, {},
        ["me has a lower F1 than se", "Metadata was not shown to help me"], [],
    ),
    "one training disagrees": (
        {"se": (6, 6, 6), "sme": (9, 9, 5)}, {},
        ["not in the same direction with every training (seed 0: +0.",
         "Whether metadata helps sme against SE is open: its trainings do not agree"],
        ["has a higher F1", "not shown to help"],
    ),
    "trainings differ too much": (
        {"se": (4, 4, 4), "sme": (5, 5, 9)}, {},
        ["sme had a higher F1 than se in each of these trainings",
         "differ too much to say the same of others",
         "helped sme against SE in these 3 trainings; whether they help other trainings is open"],
        ["has a higher F1", "so the metadata helped", "not shown to help"],
    ),
    "a difference of zero is no direction": (
        {"se": (6, 6, 6), "sme": (6, 5, 5)}, {}, [], ["in each of these trainings"],
    ),
    "one training": (
        {"se": (4, None, None), "sme": (8, None, None), "sme-dummy": (4, None, None)}, {},
        ["in this one training", "One training says nothing about other trainings", "sme loses 0.",
         "helped sme against SE in this one training; whether they help other trainings is open"],
        ["so the metadata helped", "±", "nan", "not shown to help"],
    ),
    "what could not be compared": (
        LACKING, {"comparisons": THREE},
        ["Planned but not made: me - se, me - sme", "Primary comparison: sme has"], [],
    ),
    "a secondary comparison is never called primary": (
        {**LACKING, "sme": (None, None, None), "me": (8, 8, 8)}, {"comparisons": THREE},
        ["The primary comparison, sme - se, was not made: sme has no results.",
         "Planned but not made: me - sme."],
        ["Primary comparison: "],
    ),
    "a secondary comparison whose name is part of the primary's": (
        {"se": (5, 5, 5), "sme": (8, 8, 8), "me": (8, 8, 8)},
        {"comparisons": THREE, "short": {"se": (1, 100)}},
        ["The primary comparison, sme - se, was not made: the training of se had hardly begun "
         "after 1 of 100 planned epochs; conclusions begin at 25. The others are secondary.",
         "Planned but not made: me - se."],
        ["Primary comparison: "],
    ),
    "a wrong domain does not lose the report": (
        {"se": (5, 5, 5), "sme": (8, 8, 8)}, {"domain": "cross"},
        ["The primary comparison, sme - se, was not made: The protocol's domain 'cross'"], [],
    ),
    "the primary comparison": (
        {"se": (5, 5, 5), "sme": (8, 8, 8), "me": (8, 8, 8)},
        {"comparisons": [["me", "se"], ["sme", "se"]]},
        ["Primary comparison: me has a higher F1 than se"], [],
    ),
    "another sample size": (
        PAIR, {"sample_size": 4},
        ["Planned were comparisons of 4 groups", "Intervals over cases"], [],
    ),
    "a sample is made of groups, not of cases": (
        PAIR, {"sample_size": 4, "groups": 4},
        ["drawn over groups", "Intervals over groups"],
        ["Planned were", "Intervals over cases"],
    ),
    "what was not tested": (
        {"se": (5, 5, 5), "sme": (8, 8, 8), "me": (8, 8, 8)}, {"modes": {"me": ("missing",)}},
        ["foreign instead of true metadata: sme loses"], ["me hardly"],
    ),
    "what was not compared by plan": (
        {"se": (5, 5, 5), "me": (6, 6, 6), "film": (6, 7, 6)},
        {"comparisons": [["me", "se"]], "notes": "A pilot.", "modes": {"me": ("shuffle",)}},
        ["Not compared by plan, only described: film 0.", "Noted with it: A pilot.",
         "me loses 0."],
        [],
    ),
    "what departs from the protocol": (
        {"se": (5, 5, 6), "sme": (8, None, 9)},
        {"sample_size": 20, "missing": {"sme/seed1": "interrupted", "fold 2": "is none"},
         "history": [{**BEFORE, "finished_runs": 2}]},
        ["when 2 runs had results", "read the comparisons as exploratory",
         "Planned were comparisons of 20 groups", "they are made of 8",
         "2 to 3 trainings of each condition", "left out are 1 of the planned runs: sme/seed1.",
         "Not tested, as the study has other folds: fold 2."],
        [],
    ),
}
# fmt: on


@pytest.mark.parametrize(("hits", "protocol", "told", "untold"), SAID.values(), ids=SAID)
def test_what_is_said(ask, hits, protocol, told, untold):
    text = said(ask(hits, **protocol))
    assert [words for words in told if words not in text] == []
    assert [words for words in untold if words in text] == []


def test_sections_name_the_primary_comparison_and_the_modes_that_were_tested(ask):
    hits, told, _, _ = SAID["the primary comparison"]
    asked = ask(hits, **told, groups=4, modes={"me": ("missing",)})
    section = comparison_section(asked)
    assert section.intro.endswith("The primary comparison is me - se.")
    assert "95 % interval over groups" in section.parts[1].caption
    lost = next(part for part in metadata_section(asked).parts if part.name == "reliance")
    given = "foreign metadata (shuffle), or metadata marked as unknown (missing). Mean over"
    assert given in lost.note
    hits, told, _, _ = SAID["a wrong domain does not lose the report"]
    section = comparison_section(ask(hits, **told))
    assert "The primary comparison, sme - se, was not made" in section.intro


def test_short_trainings_stand_first_and_beside_the_comparisons(ask):
    asked = ask(HELPED, short=dict.fromkeys(HELPED, (2, 358)))
    assert (heading(asked.every), heading(ask(HELPED).every)) == ("Nothing yet", "Found")
    assert found(asked)[0].startswith("All networks were trained for 2 of the 358 planned epochs")
    assert comparison_section(asked).intro.startswith("All networks were trained for 2 of the 358")
    assert facts(asked.every)["Epochs"] == "2 of 358 that the bundle plans"


def test_the_correction_counts_what_could_not_be_compared(ask):
    made, not_made = ask(LACKING, comparisons=THREE).comparisons
    assert [one.name for one in made] == ["sme - se"]
    assert list(not_made) == ["me - se", "me - sme"]
    assert made[0].p_holm == pytest.approx(3 * made[0].overall.p_permutation)


def test_facts(ask):
    asked = ask({"se": (5, 5, 6), "sme": (8, 9, 9)}, groups=4)
    assert facts(asked.every) == {
        "Conditions": "2",
        "Tested on": "8 cases of 4 groups (test)",
        "Domains": "2",
        "Trainings": "3 of each condition (seeds 0, 1, 2)",
        "Bundle": "c",
    }


def test_no_case_with_a_foreground_pixel(ask):
    asked = ask({"se": (8, 8, 8)})
    empty = asked.every.counts.assign(tp=0, fp=0, fn=0)
    asked = Asked(replace(asked.every, counts=empty), asked.protocol)
    assert found(asked) == ["No condition has a score: no test case holds a foreground pixel."]
