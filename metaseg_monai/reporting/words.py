"""What a study found, how sure it is and what it does not show, in sentences for a reader."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.metrics.scores import Score
from metaseg_monai.networks.variants import METADATA_VARIANTS
from metaseg_monai.reporting.comparisons import (
    TESTS,
    Compared,
    compare_all,
    compared_text,
    concluded,
    counted,
    drawn_over,
    primary_not_made,
    same_cases,
    tested_on,
    why_not_comparable,
)
from metaseg_monai.reporting.page import Details, Lead, Section, markdown_page
from metaseg_monai.reporting.runs import Results, class_text, listed
from metaseg_monai.reporting.scores import Spread, f1_table, reliance_table
from metaseg_monai.reporting.tables import Table, signed
from metaseg_monai.study.design import Protocol

LITTLE = 0.005  # F1, or medMAE; what nobody would notice
PLAIN = {  # conditions without metadata: what is larger in those that have them, and its name
    "se": ("the larger gates", "SE"),
    "none": ("the larger network", "the network without gates"),
}
CONDITIONS = {
    "none": "the network without gates and without metadata",
    "se": "channels weighted by the image alone (squeeze-and-excitation)",
    "me": "channels weighted by the metadata alone",
    "sme": "channels weighted by image and metadata together",
    "sme-duplicated": "as sme, with the metadata 20 times beside the image's channels",
    "sme-deep": "as sme, with one more hidden layer",
    "sme-late": "as se, with the metadata beside the hidden layer",
    "me-direct": "as me, without a hidden layer",
    "film": "channels scaled and shifted by the metadata (FiLM)",
    "film-ivadomed": "FiLM as ivadomed builds it, scale and shift between 0 and 1",
    "adaptive-norm": "scale and shift of the normalisations made by the metadata",
    "low-rank": "convolutions plus such of low rank, weighted by the metadata",
    "hyper": "kernels of the first and last level made by a small network from the metadata",
    "constant-channel": "the metadata as constant channels beside the image",
    "dynamic": "weights of some convolutions made from the metadata (the proposal)",
    "multi-head": "a head of the network for each value of the metadata, which choose one",
    "weight-noise": "fixed noise for each value of the metadata in the middle's weights, a control",
    "meta-image": "the metadata drawn as a picture beside the image, a control",
    "experts": "one SE network for each domain, trained for as many epochs",
    "experts-steps": "one SE network for each domain, trained for as many steps",
}

TERMS = {  # words of a report that a reader of images may not know, as patterns
    "Bland-Altman": "differences of two measurements over their means: bias, limits of agreement",
    "calibration": "whether of pixels told 0.8 sure, 8 of 10 are right",
    "case": "one row of the table: an image, or a volume, with its mask",
    "condition": "one way to train: a network with its settings, with or without metadata",
    "Dice": "2 x overlap / (predicted + true area), of one case or group; 0 none, 1 perfect",
    "domain": "the cases of one value of a metadata field, such as one scanner",
    "dummy": "the same network fed zeros: as many parameters, but no metadata",
    "ECE": "expected calibration error: mean distance of told and observed probability",
    "F1": "the same as Dice, of pixels; pooled: of the pixels of all cases together",
    "foreign": "metadata of another case in place of its own (test mode shuffle)",
    "gate": "part of a network that weights its channels, by the image, the metadata or both",
    "group": "cases that belong together, as of one patient or well, and stay in one split",
    "HD95": "distance between both outlines below which 95 % of them lie",
    "Holm": "correction of p-values for how many comparisons were made",
    "IoU": "overlap / area of both together; lower than F1, in the same order",
    "medMAE": "mean absolute error by the median of the true image; 0 is perfect",
    "NSD": "share of both outlines that lies within a tolerance of the other",
    "permutation test": "how often chance alone gives such a difference, by swapping pairs",
    "pooled": "counted over all pixels of all cases at once; large masks count more",
    "seed": "number that fixes all chance of a training: another seed, another training",
    "unknown": "metadata marked as not known (test mode missing)",
}


def terms_section(lead: Lead, body: Sequence[Section]) -> Section:
    """What the words of a report mean, of those that it has."""
    text = markdown_page("", lead, body)
    used = {
        term: {"meaning": told}
        for term, told in sorted(TERMS.items(), key=lambda one: one[0].casefold())
        if re.search(rf"\b{term}(s|ies)?\b", text, re.IGNORECASE)
    }
    table = Table("words", "Words", "", pd.DataFrame.from_dict(used, orient="index"), first="word")
    return Section("Words", "", [Details("What the words of this page mean", [table])])


def glossary(conditions: Sequence[str]) -> dict[str, str]:
    """Say what the known conditions are.

    >>> glossary(["sme-dummy", "mine"])
    {'sme-dummy': 'as sme, but trained and tested with zeros instead of metadata'}
    """
    told = {}
    for name in conditions:
        if name in CONDITIONS:
            told[name] = CONDITIONS[name]
        elif (base := name.removesuffix("-dummy")) in CONDITIONS:
            told[name] = f"as {base}, but trained and tested with zeros instead of metadata"
    return told


@dataclass(frozen=True)
class Asked:
    """What was asked of some results, and what came out.

    Attributes:
        every: the results, of all classes of the label.
        protocol: what was planned; without a study nothing.
        history: when it was fixed, see `read_history`.
    """

    every: Results
    protocol: Protocol
    history: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def results(self) -> Results:
        """Those of the class that the protocol is about."""
        return self.every.of_class(self.protocol.label_class)

    @cached_property
    def score(self) -> str:
        """What its score is called: that of the class that the protocol is about."""
        number = self.protocol.label_class
        name = self.every.score.name
        return name if number is None else f"{name} of {class_text(self.every.class_names, number)}"

    @cached_property
    def f1(self) -> Spread:
        """F1 of the conditions."""
        return f1_table(self.results)

    @cached_property
    def computed(self) -> tuple[list[Compared], dict[str, str]]:
        """The planned comparisons that could be made, and why the others could not."""
        return compare_all(self.results, self.protocol)

    @cached_property
    def comparisons(self) -> tuple[list[Compared], dict[str, str]]:
        """Those of `computed` of which something is concluded, and why nothing of the others."""
        return concluded(self.results, *self.computed)

    @cached_property
    def reasons(self) -> list[str]:
        """Why conditions cannot be compared, which are then not ranked."""
        return why_not_comparable(self.every)


def trained_text(results: Results) -> str:
    """Say which conditions had fewer steps than their bundle plans, and what that allows.

    Returns:
        Sentences for the top of a report, "" where all were trained as planned or nobody knows.
    """
    alike: dict[tuple[int, int], list[str]] = {}
    for name in results.conditions:
        if name in results.short:
            alike.setdefault(results.short[name], []).append(name)
    told = []
    for (epochs, planned), names in alike.items():
        every = len(names) == len(results.conditions)
        verb = "was" if len(names) == 1 else "were"
        who = "All networks were" if every else f"{listed(names)} {verb}"
        told.append(f"{who} trained for {epochs} of the {planned} planned epochs")
    if not told:
        return ""
    if hardly := results.hardly_begun:
        if len(hardly) < len(results.conditions):
            return f"{'; '.join(told)}: nothing is concluded of {listed(hardly)}."
        return (
            f"{'; '.join(told)}: nothing is concluded of these conditions, nor of their metadata. "
            "The numbers below only show that everything runs."
        )
    return f"{'; '.join(told)}: what follows holds of trainings of that length."


def _after(results: Results, *names: str) -> str:
    """The epochs of the shortest of some trainings, to stand behind a sentence; or nothing.

    >>> results = Results(pd.DataFrame(), [], {}, short={"sme": (2, 358)})
    >>> _after(results, "none", "sme"), _after(results, "none")
    (' (After 2 of 358 planned epochs.)', '')
    """
    short = [results.short[name] for name in names if name in results.short]
    if not short:
        return ""
    epochs, planned = min(short)
    return f" (After {epochs} of {planned} planned epochs.)"


def found(asked: Asked) -> list[str]:
    """Say which condition scored best, and what each planned comparison says, in paragraphs."""
    protocol, table, score = asked.protocol, asked.f1, asked.score
    (compared, not_made), reasons = asked.comparisons, asked.reasons
    classes = asked.results.counts["class"].nunique()
    first = protocol.comparisons[0] if protocol.comparisons else []
    domain = protocol.domain
    column = protocol.aggregate if domain is None or domain not in table.mean else domain
    scores = table.mean[column].dropna()
    if scores.empty:
        if asked.every.score.best == "low":
            return ["No condition has a score: the median of every label is 0."]
        return ["No condition has a score: no test case holds a foreground pixel."]
    of_images = asked.every.score.best == "low"
    measure = {
        "combined": f"mean {score} over all cases"
        if of_images
        else f"{score} pooled over all cases",
        "average": f"average {score} over the domains",
    }.get(column, f"{score} on {column}")
    measure += f" (mean of {classes} classes)" if classes > 1 else ""
    trained = trained_text(asked.results)
    said = [trained] if trained else []
    said += [_scores_text(scores, measure, asked.every.score, ranked=not reasons), *reasons]
    if asked.results.only_begun:
        return said
    if lacking := primary_not_made(protocol, not_made):
        said.append(lacking + (" The others are secondary." if compared else ""))
    for one in compared:
        primary = [one.first, one.second] == first and len(protocol.comparisons) > 1
        told = compared_text(one, protocol, score) + _after(asked.results, one.first, one.second)
        said.append(f"Primary comparison: {told}" if primary else told)
    if others := [name for name in not_made if name != " - ".join(first)]:
        said.append(f"Planned but not made: {', '.join(others)}.")
    if about := " ".join(_about_metadata(protocol, compared, asked.results)):
        said.append(about)
    if described := _not_planned(protocol, table, column):
        said.append(described)
    planned = {name for pair in protocol.comparisons for name in pair}
    if names := glossary([name for name in table.mean.index if name in planned]):
        said.append("In short: " + "; ".join(f"{name} - {text}" for name, text in names.items()))
    return said


def heading(results: Results) -> str:
    """What stands over that which was found: nothing is, where all trainings have hardly begun."""
    return "Nothing yet" if results.only_begun else "Found"


def reliance_words(asked: Asked) -> list[str]:
    """Say how far each condition depends on its metadata, where there are not too many."""
    reliance = reliance_table(asked.results)
    if reliance is None or "normal - shuffle" not in reliance.mean or len(reliance.mean) > 6:
        return []
    losses, spreads = (frame["normal - shuffle"] for frame in reliance)
    losses = losses.dropna()  # a condition may have been tested without foreign metadata
    if asked.results.only_begun:
        return []
    hardly = asked.results.hardly_begun
    told = [
        f"{name} loses {loss:.3f}{_half_range(spread, ' (', ')')}"
        if loss > LITTLE and not loss <= spread  # the spread of one training is unknown
        else f"{name} changes by {signed(-loss)}, which is nothing to conclude from"
        if name in hardly
        else f"{name} hardly depends on it ({signed(-loss)})"
        for name, loss, spread in zip(losses.index, losses, spreads[losses.index], strict=True)
    ]
    after = _after(asked.results, *map(str, losses.index))
    pooled = f"{asked.results.score.kind} {asked.score}"
    return [f"{pooled} with foreign instead of true metadata: {', '.join(told)}.{after}"]


def _scores_text(scores: pd.Series, measure: str, score: Score, ranked: bool) -> str:
    highest, lowest = str(scores.idxmax()), str(scores.idxmin())
    if len(scores) == 1:
        return f"The {measure} of {highest} is {scores[highest]:.3f} ({score.ends})."
    ends = score.ends.replace("no overlap", "no overlap with the truth")
    if not ranked:
        told = ", ".join(f"{value:.3f} of {name}" for name, value in scores.items())
        return f"The {measure} is {told} ({ends})."
    if scores[highest] == scores[lowest]:
        return f"The {measure} of all {len(scores)} conditions is {scores[highest]:.3f} ({ends})."
    if score.best == "low":
        return (
            f"The lowest {measure} is {scores[lowest]:.3f}, of {lowest}; the highest "
            f"{scores[highest]:.3f}, of {highest} ({ends})."
        )
    return (
        f"The highest {measure} is {scores[highest]:.3f}, of {highest}; the lowest "
        f"{scores[lowest]:.3f}, of {lowest} ({ends})."
    )


def _not_planned(protocol: Protocol, table: Spread, column: str) -> str:
    """Give the scores of metadata variants that no planned comparison is about."""
    planned = {name for pair in protocol.comparisons for name in pair}
    others = [n for n in METADATA_VARIANTS if n in table.mean.index and n not in planned]
    if not others or not planned:
        return ""
    told = ", ".join(
        f"{name} {table.mean[column][name]:.3f}{_half_range(table.half_range[column][name], ' ')}"
        for name in others
    )
    return f"Not compared by plan, only described: {told}."


def _half_range(value: float, before: str, after: str = "") -> str:
    return "" if math.isnan(value) else f"{before}± {value:.3f}{after}"


def _about_metadata(
    protocol: Protocol, compared: Sequence[Compared], results: Results
) -> list[str]:
    """Say of each metadata variant whether metadata helped, or whether a dummy explains it."""
    by_name = {(one.first, one.second): one for one in compared}
    sentences = []
    better = "higher" if results.score.best == "high" else "better"
    for name in METADATA_VARIANTS:
        plain = next((other for other in PLAIN if (name, other) in by_name), None)
        if plain is None:
            continue
        against_plain = by_name[name, plain]
        against_dummy = by_name.get((name, f"{name}-dummy"))
        larger, spoken = PLAIN[plain]
        if not _better(against_plain, protocol, results):
            sentences.append(_not_found(name, against_plain, protocol, results))
        elif against_dummy is None:
            sentences.append(
                f"Whether the gain of {name} comes from the metadata or from {larger} is open: it "
                "was not compared with its dummy."
            )
        elif _better(against_dummy, protocol, results):
            sentences.append(
                f"{name} also scores {better} than the same network fed zeros, so the metadata "
                f"helped, not {larger}."
            )
        else:
            sentences.append(
                f"{name} was not shown to score {better} than the same network fed zeros: the "
                f"dummy may explain its gain over {spoken}."
            )
    return sentences


def _not_found(name: str, against_plain: Compared, protocol: Protocol, results: Results) -> str:
    """The verdict on a variant that was not found to score better than one without metadata."""
    strength, seeds = against_plain.strength(protocol.alpha), len(against_plain.seeds)
    larger, spoken = PLAIN[against_plain.second]
    if strength == "these trainings" and _gain(against_plain, results) > 0:
        where = "this one training" if seeds == 1 else f"these {seeds} trainings"
        return (
            f"Metadata, or {larger}, helped {name} against {spoken} in {where}; whether they "
            "help other trainings is open."
        )
    if strength == "mixed":
        return (
            f"Whether metadata helps {name} against {spoken} is open: its trainings do not agree."
        )
    return f"Metadata was not shown to help {name} against {spoken}."


def _better(one: Compared, protocol: Protocol, results: Results) -> bool:
    return one.strength(protocol.alpha) == "found" and _gain(one, results) > 0


def _gain(one: Compared, results: Results) -> float:
    """By how much the first of both is better, whichever way the score goes."""
    return one.overall.mean if results.score.best == "high" else -one.overall.mean


def how_sure(asked: Asked) -> str:
    """Say on how many cases and seeds this rests, which test was made, and when it was fixed."""
    results, protocol, history = asked.results, asked.protocol, asked.history
    compared, _ = asked.comparisons
    fewest, most = min(results.trainings.values()), max(results.trainings.values())
    trainings = "one training" if most == 1 else f"{most} trainings"
    if fewest < most:
        trainings = f"{fewest} to {most} trainings"
    cases, groups = _sizes(results)
    sentences = [f"{_tested(results)} {trainings} of each condition.", *asked.reasons]
    if compared:
        planned = len(protocol.comparisons)
        sentences.append(
            f"Compared are {results.score.name} scores case by case, seeds averaged within a case "
            f"and cases within their group, by a {TESTS[protocol.test]}; intervals are 95 % and "
            f"drawn over {drawn_over(cases, groups)}."
            + (f" p-values are corrected for {planned} comparisons (Holm)." if planned > 1 else "")
        )
    left_out = max((one.overall.empty for one in compared), default=0)
    if left_out:
        sentences.append(
            f"Up to {left_out} cases are left out of a comparison: "
            + (
                "their median is 0, so that they have no score."
                if results.score.best == "low"
                else "empty in the target and in a prediction, they have no score. See the table "
                "of false pixels on empty targets."
            )
        )
    if not history:
        sentences.append("Nothing was fixed before these runs: read them as a first look.")
    else:
        first, last = history[0], history[-1]
        fixed = f"Conditions, settings, test and comparisons were fixed on {_day(first['at'])}"
        if len(history) == 1 and not first["finished_runs"]:
            sentences.append(f"{fixed}, before any run had a result.")
        else:
            seen = first["finished_runs"] if len(history) == 1 else last["finished_runs"]
            changed = f" and changed on {_day(last['at'])}" if len(history) > 1 else ""
            sentences.append(
                f"{fixed}{changed}, when {seen} runs had results: read the comparisons as "
                "exploratory."
            )
    if protocol.notes:
        sentences.append(f"Noted with it: {protocol.notes}")
    groups_of = {one.overall.groups for one in compared}
    if protocol.sample_size is not None and groups_of and groups_of != {protocol.sample_size}:
        sentences.append(
            f"Planned were comparisons of {protocol.sample_size} groups; they are made of "
            f"{', '.join(map(str, sorted(groups_of)))}."
        )
    if folds := results.untested_folds:
        sentences.append(f"Not tested, as the study has other folds: {listed(folds)}.")
    if runs := [name for name in results.missing if name not in folds]:
        sentences.append(
            f"Without result and left out are {len(runs)} of the planned runs: "
            f"{', '.join(runs[:6])}{' ...' if len(runs) > 6 else ''}."
        )
    return " ".join(sentences)


def not_shown(asked: Asked) -> str:
    """Say what nobody should conclude from the report."""
    results, (compared, _), sentences = asked.results, asked.comparisons, list[str]()
    replicates = min(results.trainings.values())
    kind = drawn_over(*_sizes(results))
    if compared:
        sentences.append(
            f"Intervals over {kind} and p-values are about other {kind} like these, for the "
            "networks that were trained. "
            + (
                "One training says nothing about other trainings of the same networks."
                if replicates == 1
                else f"How other trainings would come out is judged from {replicates} of them "
                "only, by the interval over these and trainings at once."
            )
        )
    elif len(results.conditions) > 1:
        planned = asked.protocol.comparisons
        why = "No planned comparison was made" if planned else "No comparison was planned"
        sentences.append(f"{why}: differences between rows are described, not tested.")
    if any(one.strength(asked.protocol.alpha) != "found" for one in compared):
        sentences.append(
            f"A difference that was not found may still exist: the interval over {kind} and "
            "trainings shows how large it could be."
        )
    sentences.append("Other data, other networks and clinical use were not tested.")
    return " ".join(sentences)


def facts(results: Results) -> dict[str, str]:
    """What stands beside the lead of a report, in a few words each."""
    first = results.normal[results.normal["condition"] == results.conditions[0]]
    told = {
        "Conditions": str(len(results.conditions)),
        "Tested on": _fact(results),
        "Domains": str(first["domain"].nunique()),
    }
    if field := results.domain_field:
        told["Domains"] += f" of {field}"
    if "val" in set(results.normal["split"]):
        told["No test"] = "the split val chose the weights of each training; it is for settings"
    short = set(results.short.values())
    if short and results.short.keys() >= set(results.conditions):
        fewest, most = min(short), max(short)
        epochs = f"{fewest[0]}" if len(short) == 1 else f"{fewest[0]} to {most[0]}"
        told["Epochs"] = f"{epochs} of {most[1]} that the bundle plans"
    if results.study is not None:
        told["Trainings"] = _trainings(results)
        told["Bundle"] = Path(results.study.bundle).name
    return told


def _trainings(results: Results) -> str:
    """How many there are of each condition, with their seeds."""
    fewest, most = min(results.trainings.values()), max(results.trainings.values())
    seeds = sorted(set(results.counts["seed"]))
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    named = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    return f"{number} of each condition ({named})"


def _tested(results: Results) -> str:
    """What was tested on, by conditions where they differ, as the start of a sentence."""
    sets = same_cases(results)
    told = [
        f"{counted(cases)} in {_count(cases['group'].nunique(), 'group')}"
        + (f" for {listed(names)}" if len(sets) > 1 else "")
        for names, cases in sets.items()
    ]
    return "; ".join(told) + (";" if len(sets) > 1 else ",")


def _fact(results: Results) -> str:
    """The same in few words."""
    sets = same_cases(results)
    told = [
        (f"{listed(names)}: " if len(sets) > 1 else "")
        + f"{_count(len(cases), 'case')} of {_count(cases['group'].nunique(), 'group')} "
        + f"({listed(sorted(set(cases['split'])))})"
        for names, cases in sets.items()
    ]
    return "; ".join(told)


def _sizes(results: Results) -> tuple[int, int]:
    """Number of cases and of their groups, of all conditions together."""
    cases = tested_on(results)
    return cases["case"].nunique(), cases["group"].nunique()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _day(timestamp: str) -> str:
    return timestamp[:16].replace("T", " ") + " UTC"
