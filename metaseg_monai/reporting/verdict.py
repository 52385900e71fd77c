"""The verdict: claim by claim, does metadata help, and how small an effect would have been found.

A claim sets a condition that reads metadata beside a control of the same backbone: the network
without metadata, its dummy of as many parameters, metadata as constant channels, its own scores
with foreign or unknown metadata, and experts. What the study's protocol planned keeps the plan's
tests and correction; the other claims are corrected among themselves and say so.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.files import read_json
from metaseg_monai.metrics.power import POWER, smallest_effect
from metaseg_monai.metrics.scores import F1, Score, case_scores
from metaseg_monai.metrics.statistics import (
    NAN,
    Spread,
    holm,
    joint_freedom,
    mean_squares,
    spread_of,
)
from metaseg_monai.networks.variants import METADATA_VARIANTS
from metaseg_monai.reporting.comparisons import Compared, compare_pair, compare_scores
from metaseg_monai.reporting.page import Details, Part
from metaseg_monai.reporting.runs import Results, each_training
from metaseg_monai.reporting.scores import rows_of
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.words import Asked
from metaseg_monai.study.design import EXPERTS, Protocol, Study, smallest_planned

Kind = Literal[
    "plain", "dummy", "constant-channel", "foreign", "unknown", "experts", "experts-steps"
]
Answer = Literal[
    "yes", "the opposite", "not shown", "these trainings only", "trainings disagree", "not tested",
    "not concluded",
]  # fmt: skip


class Wording(NamedTuple):
    """A claim as a table names it, and both sides as a sentence does."""

    claim: str
    first: str
    second: str


WORDINGS: Mapping[Kind, Wording] = {
    "dummy": Wording(
        "Metadata help, not the larger network",
        "the network that is told the metadata",
        "the same network told nothing",
    ),
    "plain": Wording(
        "The network with metadata beats the one without",
        "the network that is told the metadata",
        "the network without metadata",
    ),
    "constant-channel": Wording(
        "Gates beat metadata as constant channels",
        "the network that is told the metadata",
        "one that gets them as constant channels beside the image",
    ),
    "foreign": Wording(
        "The true values matter",
        "the network told the true metadata",
        "the same network told those of another case",
    ),
    "unknown": Wording(
        "Knowing the values matters",
        "the network told the metadata",
        "the same network told that they are unknown",
    ),
    "experts": Wording(
        "One network beats one expert for each domain",
        "one network for all domains that is told the metadata",
        "an expert network for each domain (as many epochs)",
    ),
    "experts-steps": Wording(
        "One network beats one expert for each domain, at equal steps",
        "one network for all domains that is told the metadata",
        "an expert network for each domain (as many steps)",
    ),
}
MODES: Mapping[Kind, str] = {"foreign": "shuffle", "unknown": "missing"}
OF_BUNDLE = "the bundle's"  # network, where no file tells its name


class Pair(NamedTuple):
    """A claim before it is tested: its kind and both conditions, the second maybe in a mode."""

    kind: Kind
    first: str
    second: str


class Claim(NamedTuple):
    """A claim with what was found.

    Attributes:
        pair: what is compared.
        network: the backbone's class.
        planned: whether the protocol planned the comparison.
        compared: None where it could not be made.
        why: it could not be made, or nothing is concluded of it; else "".
        spread: of the differences, NaN below two groups or trainings.
        smallest: effect that the study would have found with power `POWER`; infinite where none.
        level: that its p had to be below, in the worst case of Holm's correction.
        alpha: of the protocol.
        score: that is compared: F1, called Dice here, or an error of which less is better.
        test: of the protocol.
    """

    pair: Pair
    network: str
    planned: bool
    compared: Compared | None
    why: str
    spread: Spread
    smallest: float
    level: float
    alpha: float
    score: Score = F1
    test: str = "permutation"

    @property
    def gain(self) -> float:
        """By how much the first of both is better, whichever way the score goes."""
        if self.compared is None:
            return NAN
        mean = self.compared.overall.mean
        return mean if self.score.best == "high" else -mean

    @property
    def answer(self) -> Answer:
        """The claim in two words."""
        if self.compared is None:
            return "not tested"
        if self.why:
            return "not concluded"
        strength = self.compared.strength(self.alpha)
        if strength == "found":
            return "yes" if self.gain > 0 else "the opposite"
        answers: dict[str, Answer] = {
            "none": "not shown",
            "these trainings": "these trainings only",
            "mixed": "trainings disagree",
            "untested": "not tested",
        }
        return answers[strength]

    @property
    def row(self) -> dict[str, Any]:
        """The claim for other programs, and for the table."""
        one = self.compared
        low, high = (NAN, NAN) if one is None else one.joint
        return {
            "claim": WORDINGS[self.pair.kind].claim,
            "network": self.network,
            "first": self.pair.first,
            "second": self.pair.second,
            "planned": self.planned,
            "answer": self.answer,
            "score": self.score.name,
            "better": "higher" if self.score.best == "high" else "lower",
            "effect": NAN if one is None else one.overall.mean,
            "low": low,
            "high": high,
            "groups": 0 if one is None else one.overall.groups,
            "seeds": 0 if one is None else len(one.seeds),
            "smallest_effect": self.smallest if math.isfinite(self.smallest) else NAN,
            "alpha": self.level,
            "power": POWER,
            "spread": self.spread._asdict(),
        }


def claims_of(asked: Asked) -> list[Claim]:
    """Every claim of a study about metadata, those of its first comparison first.

    Without a study nothing was fixed, and nothing is claimed.
    """
    results, protocol = asked.results, asked.protocol
    if results.study is None:
        return []
    made, not_made = asked.computed
    by_name = {(one.first, one.second): one for one in made}
    found: dict[Pair, tuple[Compared | None, str]] = {}
    extra: dict[Pair, Compared] = {}
    for pair in pairs_of(results, results.study):
        names = (pair.first, pair.second)
        if names in by_name:
            found[pair] = by_name[names], ""
        elif why := not_made.get(f"{pair.first} - {pair.second}"):
            found[pair] = None, why
        else:
            try:
                extra[pair] = _compare(pair, results, protocol)
                found[pair] = extra[pair], ""
            except DataError as error:
                found[pair] = None, str(error)
    for pair, p in zip(extra, holm([one.p_holm for one in extra.values()]), strict=True):
        found[pair] = extra[pair]._replace(p_holm=p), ""
    claims = []
    for pair, (compared, why) in found.items():
        if compared is not None:
            why = results.not_concluded(pair.first, pair.second)
        planned = pair not in extra
        level = protocol.alpha / (len(protocol.comparisons) if planned else len(extra))
        spread, smallest = _power(None if why else compared, protocol, level)
        network = network_of(results, pair.first)
        found_out = (compared, why, spread, smallest, level, protocol.alpha)
        claims.append(Claim(pair, network, planned, *found_out, results.score, protocol.test))
    return claims


def pairs_of(results: Results, study: Study) -> list[Pair]:
    """Which claims a study can speak of: each condition that reads metadata, and its controls.

    A control has the same settings but for the variant, so it has the same backbone. The condition
    of the first planned comparison, or else the first, comes first with all that share its variant.
    """
    known = [name for name in study.conditions if name in results.conditions]
    steered = [name for name in known if _variant(study, name) in METADATA_VARIANTS]
    planned = [name for pair in study.protocol.comparisons for name in pair if name in steered]
    lead = _variant(study, (planned or steered)[0]) if steered else ""
    steered.sort(key=lambda name: _variant(study, name) != lead)
    pairs = []
    for name in steered:
        alike = [other for other in known if _others(study, other) == _others(study, name)]
        by_variant = {_variant(study, other): other for other in reversed(alike)}
        variant = _variant(study, name)
        plain = [one for one in ("se", "none") if one in by_variant]
        plain = plain[-1:] if variant == "constant-channel" else plain[:1]
        wanted: list[tuple[Kind, str | None]] = [
            ("dummy", by_variant.get(f"{variant}-dummy")),
            *(("plain", by_variant[one]) for one in plain),
            (
                "constant-channel",
                None if variant == "constant-channel" else by_variant.get("constant-channel"),
            ),
            *(
                (kind, _told(name, kind))
                for kind, mode in MODES.items()
                if mode in results.modes(name)
            ),
            *((one, one if one in alike else None) for one in ("experts", "experts-steps")),
        ]
        pairs += [Pair(kind, name, other) for kind, other in wanted if other is not None]
    return pairs


def _told(name: str, kind: Kind) -> str:
    return f"{name}, {kind}"


def _variant(study: Study, name: str) -> str:
    """The variant of a condition; of experts none, as they are no single network."""
    return "" if name in EXPERTS else str(study.conditions[name].get("variant", name))


def _others(study: Study, name: str) -> str:
    """The settings of a condition but for its variant."""
    own = {key: value for key, value in study.conditions[name].items() if key != "variant"}
    return json.dumps(own, sort_keys=True, default=str)


def network_of(results: Results, name: str) -> str:
    """The class of a condition's backbone, as the facts of its first weights tell."""
    for run in results.first_runs.get(name, []):
        file = run.folder / "model.json"
        if file.is_file():
            return network_class(read_json(file).get("network")) or OF_BUNDLE
    return OF_BUNDLE


def network_class(network: Any) -> str:
    """The class of a network as its facts write it: the inner one where it is wrapped."""
    if not isinstance(network, Mapping):
        return ""
    return network_class(network.get("network")) or str(network.get("_target_", "")).split(".")[-1]


def _compare(pair: Pair, results: Results, protocol: Protocol) -> Compared:
    """Test a claim that the protocol did not plan, uncorrected."""
    if pair.kind not in MODES:
        return compare_pair(pair.first, pair.second, results, protocol)
    counts = results.counts[results.counts["condition"] == pair.first]
    modes = {"normal": pair.first, MODES[pair.kind]: pair.second}
    scores = [
        each_training(counts[counts["mode"] == mode], case_scores).assign(condition=name)
        for mode, name in modes.items()
    ]
    return compare_scores(pair.first, pair.second, pd.concat(scores), protocol)


def _power(compared: Compared | None, protocol: Protocol, level: float) -> tuple[Spread, float]:
    """The spread of a comparison's differences, and the smallest effect that it would find."""
    if compared is None or min(compared.table.shape) < 2:
        nothing = math.inf if compared is not None and len(compared.seeds) < 2 else NAN
        return Spread(NAN, NAN, NAN), nothing
    groups, seeds = compared.table.shape
    squares = mean_squares(compared.table)
    freedom = joint_freedom(squares, seeds)
    effect = smallest_effect(squares, groups, seeds, protocol.test, level, freedom)
    return spread_of(compared.table), effect


# What is said of a claim: one place decides it.


def sentence(claim: Claim, score: str = "Dice") -> str:
    """Say what a claim came to, as a clinician reads it, whichever way it went.

    Args:
        claim: of `claims_of`.
        score: what was compared, as it is called: from 0 to 1, or an error.
    """
    wording, one = WORDINGS[claim.pair.kind], claim.compared
    tell = _of_outlines if claim.score.best == "high" else _of_images
    words = tell(claim, wording, score)
    if one is None or claim.answer == "not tested":
        why = claim.why.rstrip(".") or "too few groups have a score in both"
        return f"Not tested: {why}."
    if claim.why:
        return f"Nothing is concluded: {claim.why}."
    others, (low, _) = words.others, one.joint
    if claim.answer in ("yes", "the opposite"):
        start = "Yes" if claim.answer == "yes" else "No, the opposite"
        return f"{start}: {words.found} ({others})."
    change, could = words.change, _could(claim, words)
    if claim.answer == "not shown":
        return f"Not shown: {change}{'' if math.isnan(low) else f' ({others})'}. {could}"
    if len(one.seeds) == 1:
        return f"In this one training only: {change}. {could}"
    if claim.answer == "these trainings only":
        return (
            f"In these {len(one.seeds)} trainings only: {change}, but they differ so much that "
            f"others may come out otherwise ({others}). {could}"
        )
    return (
        f"Open: {wording.first} is better than {wording.second} in some trainings and worse in "
        f"others ({others}). {could}"
    )


class _Words(NamedTuple):
    """A claim's numbers in words: the ends, the change, what a find says."""

    others: str
    change: str
    found: str
    smallest: str


def _of_outlines(claim: Claim, wording: Wording, score: str) -> _Words:
    """Of masks, in points of 100."""
    points = f"of 100 points of {score}"
    one = claim.compared
    (low, high), mean = (NAN, NAN) if one is None else one.joint, abs(100 * claim.gain)
    better = claim.gain >= 0
    return _Words(
        f"{100 * low:+.1f} to {100 * high:+.1f} for other groups and trainings",
        f"{wording.first} {'gained' if better else 'lost'} {mean:.1f} {points} against "
        f"{wording.second}",
        f"{wording.first} draws outlines {'closer to' if better else 'farther from'} the reference "
        f"than {wording.second}, for the average group by {mean:.1f} {points}",
        f"{100 * claim.smallest:.1f} {points}",
    )


def _of_images(claim: Claim, wording: Wording, score: str) -> _Words:
    """Of predicted images, by an error, of which less is better."""
    one = claim.compared
    (low, high), mean = (NAN, NAN) if one is None else one.joint, abs(claim.gain)
    better = claim.gain >= 0
    less = "lower" if better else "higher"
    return _Words(
        f"{low:+.3f} to {high:+.3f} for other groups and trainings",
        f"the {score} of {wording.first} was {less} by {mean:.3f} than that of {wording.second}",
        f"{wording.first} predicts images {'closer to' if better else 'farther from'} the true "
        f"ones than {wording.second}: for the average group their {score} is {less} by {mean:.3f}",
        f"{claim.smallest:.3f} of {score}",
    )


def _could(claim: Claim, words: _Words) -> str:
    """Say how small an effect the study would have found."""
    if math.isnan(claim.smallest):
        return "How small an effect it could have found is not known."
    if math.isinf(claim.smallest) or (claim.score.best == "high" and claim.smallest > 1):
        groups = 0 if claim.compared is None else claim.compared.overall.groups
        least = 0.0 if claim.test == "t" else 2.0 ** (1 - groups)  # p, of swapped pairs or ranks
        if groups > 0 and least > claim.level:
            return (
                f"With {groups} groups no p falls below its alpha of {claim.level:.3g}, whatever "
                "the effect: test more of them, as by folds (new-bundle --folds)."
            )
        if claim.compared is not None and len(claim.compared.seeds) < 2:
            return "Whether other trainings come out alike takes two seeds at least."
        return "So few groups and trainings could not have shown any effect, however large."
    return (
        f"Such a study finds an effect of {words.smallest} or more in about {100 * POWER:.0f} of "
        "100 repetitions, as far as its few trainings tell that (within a factor of about two); a "
        "smaller one may exist."
    )


def verdict_rows(asked: Asked, claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """The claims for ``summary.json``, each with its sentence."""
    return [{**one.row, "sentence": sentence(one, score_name(asked))} for one in claims]


def score_name(asked: Asked) -> str:
    """What F1 of pixels is called where a case is scored by itself."""
    return asked.score.replace("F1", "Dice", 1)


def verdict_parts(asked: Asked, claims: Sequence[Claim]) -> list[Part]:
    """The table that a report leads with; nothing where the study claims nothing of metadata."""
    study = asked.results.study
    if not claims or study is None:
        return []
    first = claims[0].pair.first
    variant = _variant(study, first)
    lead, rest = dict[int, Claim](), dict[int, Claim]()
    for number, one in enumerate(claims, 1):
        (lead if _variant(study, one.pair.first) == variant else rest)[number] = one
    score = score_name(asked)
    where = f" on {asked.protocol.domain}" if asked.protocol.domain else ""
    errors = asked.results.score.best == "low"
    note = (
        f"Effect: difference of the {score} of a group, first minus second (mean of a group's "
        "cases, seeds averaged; a group: a patient, a well)"
        f"{'; less is better: below 0 the first is' * errors}. low, high: 95 % interval for other "
        "groups and other trainings at once. smallest: the effect, either way, that a study of "
        "these groups, trainings and spread finds "
        f"with power {POWER:g} at its alpha, by simulation; - where no effect could be found. "
        "Claims that the protocol did not plan are corrected among themselves (Holm)."
    )
    if before := smallest_planned(study, bounded=not errors):
        note += f" Before the study: {before}."
    parts = _shown("verdict", f"Does metadata help{where}?", note, lead, score)
    if rest:
        more = _shown("verdict_more", "Other ways to give metadata", "As above.", rest, score)
        parts.append(Details("The same claims of the other ways to give metadata", more))
    spreads = {
        f"{number}. {_name(one)}": {**one.spread._asdict(), "alpha of the claim": one.level}
        for number, one in enumerate(claims, 1)
        if one.answer != "not concluded"
    }
    told = (
        "Standard deviations of the difference between groups, between trainings, and of the "
        "rest: what the smallest effect is computed from, and what `pilot` in the protocol of a "
        "next study may state."
    )
    table = Table("verdict_spread", "Spread of the differences", told, rows_of(spreads), digits=4)
    last: list[Part] = [Details("Where the smallest effect comes from", [table])]
    return [*parts, *(last if spreads else [])]


def _name(claim: Claim) -> str:
    second = claim.pair.kind if claim.pair.kind in MODES else claim.pair.second
    return f"{claim.pair.first} against {second}"


def _shown(name: str, title: str, note: str, claims: Mapping[int, Claim], score: str) -> list[Part]:
    """A table of numbered claims, and below it what each says."""
    columns = ("answer", "effect", "low", "high", "groups", "seeds", "smallest_effect")
    rows, said = {}, []
    for number, one in claims.items():
        row = one.row | ({"low": NAN, "high": NAN} if one.answer == "not concluded" else {})
        cells = {key.removesuffix("_effect"): row[key] for key in columns}
        rows[f"{number}. {_name(one)}"] = {"network": one.network, **cells}
        planned = "" if one.planned else ", not planned"
        claim = WORDINGS[one.pair.kind].claim
        said.append(f"{number}. {claim} ({one.network}{planned})? {sentence(one, score)}")
    return [Table(name, title, note, rows_of(rows), first="compared"), "\n\n".join(said)]
