"""Which figures a study's files allow, drawn with their captions."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.provenance import check_results
from metaseg_monai.evaluation.samples import Sample, read_samples
from metaseg_monai.metrics.scores import F1, Score
from metaseg_monai.reporting.comparisons import Compared, drawn_over
from metaseg_monai.reporting.figures import curves, values
from metaseg_monai.reporting.figures import predictions as grids
from metaseg_monai.reporting.figures import ranking as ranks
from metaseg_monai.reporting.figures.ranking import DifferenceRow
from metaseg_monai.reporting.page import Figure
from metaseg_monai.reporting.runs import Replicate, Results, by_replicate, is_expert, pixel_sizes
from metaseg_monai.reporting.scores import (
    Spread,
    cluster,
    domain_similarity,
    f1_scores,
    of_trainings,
    perturbation_curve,
    share_curve,
    with_modes,
)

ABSENT = {"missing": "metadata marked as unknown", "zeros": "zeros"}
LOGGED = ("epoch", "train_loss", "val_loss", "lr")
GATES = {
    "scale": "Scale by which every gate multiplies each channel: a strip for each gate, in it a "
    "row for each metadata value and a column for each channel. Rows alike: metadata change "
    "nothing there",
    "shift": "Shift that every gate adds to each channel, in the same order",
    "difference": "How far the scales lie apart under the two most different metadata values: a "
    "row for each gate, a column for each channel, on the right the mean. Light: metadata change "
    "nothing there",
    "gate_": "One gate: scales for two metadata values and their difference",
    "features_": "Feature maps at the explained gate for each metadata value",
}


def ranking(results: Results, aggregate: str, score: str = "F1") -> Figure | None:
    """Error of each condition, best first; None where no case has a score."""
    scores = of_trainings(results.normal, f1_scores)[aggregate]
    of_images = results.score.best == "low"
    errors = {
        name: list(scores[[name]] if of_images else 1 - scores[[name]])
        for name in results.conditions
    }
    if all(math.isnan(error) for of_seeds in errors.values() for error in of_seeds):
        return None
    title = f"{score}, {aggregate}" if of_images else f"Error of the {score}, {aggregate}"
    png = ranks.ranking(errors, title, results.score)
    what = f"{score}, which is an error" if of_images else f"Error of the {score} (1 - F1)"
    caption = f"{what}, lowest first; a dot for each training."
    return Figure("ranking", caption, png)


def differences(
    compared: Sequence[Compared], level: float, named: str = "F1", score: Score = F1
) -> Figure:
    """The planned comparisons as a forest plot; `named` as the protocol calls the score."""
    rows = [
        DifferenceRow(
            one.name,
            one.overall.mean,
            one.overall.low,
            one.overall.high,
            tuple(one.seeds.values()),
            one.p_holm,
            found=one.strength(level) == "found",
        )
        for one in compared
    ]
    over = _drawn_over(compared)
    caption = (
        f"Mean difference of the {named} with its 95 % interval over {over}; a dot for each "
        "training. "
        + ("Right" if score.best == "high" else "Left")
        + " of zero: the first one is better."
    )
    return Figure("differences", caption, ranks.differences(rows, level, over, score))


def subgroup_differences(
    compared: Sequence[Compared], level: float, score: Score = F1
) -> Figure | None:
    """The planned comparisons in each domain."""
    rows = [
        DifferenceRow(
            str(domain), row["mean"], row["low"], row["high"], (), row["p_holm"], one.name
        )
        for one in compared
        if one.subgroups is not None
        for domain, row in one.subgroups.iterrows()
    ]
    if not rows:
        return None
    caption = "The same in each domain; p-values corrected over the domains of a comparison."
    png = ranks.differences(rows, level, _drawn_over(compared), score)
    return Figure("subgroups", caption, png)


def mode_maps(tables: Mapping[str, Spread], units: Mapping[str, str], score: Score) -> list[Figure]:
    """Test-mode matrix of each condition that has one, mean over seeds; units by field."""
    drawn = []
    for name, (matrix, _) in tables.items():
        rows = "rows are the true domain, columns" if len(matrix) > 1 else "all cases; columns are"
        caption = f"Test modes of {name}, mean over seeds: {rows} the metadata given."
        png = values.mode_heatmap(matrix, name, units, score)
        drawn.append(Figure(f"modes_{name}", caption, png))
    return drawn


def similarity_maps(tables: Mapping[str, Spread]) -> list[Figure]:
    """Domain similarity as each metadata network sees it, clustered, from its test modes."""
    drawn = []
    for name, (matrix, _) in tables.items():
        similarity = domain_similarity(matrix)
        if similarity is None:
            continue
        linkage = cluster(similarity)
        caption = (
            f"Domains alike to {name}: the share of its score that a domain keeps under another "
            "domain's label, mean of both directions."
        )
        png = values.similarity_map(similarity, linkage, name)
        drawn.append(Figure(f"similarity_{name}", caption, png))
    return drawn


def robustness(results: Results) -> list[Figure]:
    """Score against the share of wrong and of missing metadata, and against inexact values."""
    wrong, missing, perturbed = {}, {}, {}
    tested = with_modes(results)
    for name in tested.conditions:
        modes, trainings = set(tested.modes(name)), by_replicate(tested.counts, name)
        if "shuffle" in modes:
            wrong[name] = _by_seed(trainings, partial(share_curve, mode="shuffle"))
        if modes & {"missing", "zeros"}:
            missing[name] = _by_seed(trainings, _missing_curve)
        if any(mode.startswith("perturb:") for mode in modes):
            perturbed[name] = _by_seed(trainings, perturbation_curve)
    drawn, pooled = [], f"{results.score.kind} {results.score.name}"
    if wrong:
        caption = (
            f"{pooled} when a share of the cases comes with foreign metadata, computed from "
            "the counts of the modes normal and shuffle."
        )
        png = curves.robustness_curves(wrong, score=results.score)
        drawn.append(Figure("robustness_wrong", caption, png))
    if missing:
        absent = sorted({str(curve["mode"].iloc[0]) for curve in missing.values()})
        told = " or ".join(ABSENT[mode] for mode in absent)
        caption = f"The same for cases with {told} in place of their metadata."
        xlabel = f"cases with {told}"
        png = curves.robustness_curves(missing, xlabel, results.score)
        drawn.append(Figure("robustness_missing", caption, png))
    if perturbed:
        caption = f"{pooled} when continuous metadata is multiplied by a factor."
        png = curves.perturbation_curves(perturbed, results.score)
        drawn.append(Figure("robustness_perturbed", caption, png))
    return drawn


def gates(results: Results) -> list[Figure]:
    """What the gates of each explained run do: `python -m metaseg_monai explain` draws it.

    Raises:
        DataError: they are not those of the weights beside them.
    """
    drawn = []
    for name, (run, *_) in results.first_runs.items():
        explained = run.folder / "explain"
        known = check_results(explained)["files"] if any(explained.glob("*.png")) else {}
        for file in sorted(explained / name for name in known if name.endswith(".png")):
            kind = next((told for start, told in GATES.items() if file.stem.startswith(start)), "")
            caption = f"{kind or file.stem}: {name}."
            drawn.append(Figure(f"gates_{name}_{file.stem}", caption, file.read_bytes()))
    return drawn


def training(results: Results) -> list[Figure]:
    """Learning curves of all conditions, and the learning rate."""
    logs = {}
    for name in results.conditions:
        paths = [run.folder / "log.csv" for run in results.runs if run.condition == name]
        if not is_expert(name) and all(path.is_file() for path in paths):
            logs[name] = [_read_log(path) for path in paths]
    if not logs:
        return []
    first = next(iter(logs.values()))[0]
    if max(len(log) for of_name in logs.values() for log in of_name) < 2:
        return []  # one point is no curve
    caption = "Loss over epochs; dashed: training, solid: validation; a line for each training."
    return [
        Figure("learning_curves", caption, curves.learning_curves(logs)),
        Figure(
            "learning_rate", "Learning rate at the end of each epoch.", curves.learning_rate(first)
        ),
    ]


def _read_log(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path).astype(dict.fromkeys(LOGGED, float))
    except (ValueError, KeyError) as error:  # pandas' errors of empty, broken and other files
        raise DataError(f"{path}: no log ({error}); remove it, or run this run again.") from error


def _by_seed(
    trainings: Mapping[Replicate, pd.DataFrame], curve: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    return pd.concat([curve(c).assign(seed=place) for place, c in enumerate(trainings.values())])


def _missing_curve(counts: pd.DataFrame) -> pd.DataFrame:
    """Of zeros where the metadata has no entry for an unknown value."""
    return share_curve(counts, "missing" if (counts["mode"] == "missing").any() else "zeros")


def _drawn_over(compared: Sequence[Compared]) -> str:
    """Name what the intervals are drawn over."""
    return drawn_over(
        sum(one.overall.cases for one in compared), sum(one.overall.groups for one in compared)
    )


# Pictures of what the networks predicted, from the samples that the runs stored.

CASES = 8  # rows of a grid of pictures
SHOWN = 8  # conditions side by side in it


def predictions(results: Results) -> list[Figure]:
    """Predictions of the first seed, and the same image under every label."""
    samples: dict[str, Sequence[Sample]] = {}
    for name in results.conditions:
        found = [
            sample
            for run in results.first_runs[name]
            if (run.folder / "samples.npz").is_file()
            for sample in read_samples(run.folder / "samples.npz")
            if not run.domain or sample.domain == run.domain
        ]
        if found:
            samples[name] = found
    drawn = []
    names = _most_telling(list(samples))
    if names:
        png = grids.prediction_grid(
            {name: samples[name] for name in names}, CASES, results.class_names
        )
        several = len(results.class_names) > 2
        caption = (
            f"Predictions of the first training{shown(samples, names)}. White: right, blue: missed"
            f"{', or of another class' if several else ''}, orange: false."
        )
        sizes = pixel_sizes(results.counted_cases())
        if sizes is not None and sizes.dims == 3:
            caption += (
                " Of volumes, side by side: the axial, coronal and sagittal plane through the "
                "middle of the truth."
            )
        most = max(one.channels for one in samples[names[0]])
        if most > 1:
            caption += f" An image of {most} channels is drawn as their mean."
        drawn.append(Figure("predictions", caption, png))
    first = {name: stored[0] for name, stored in samples.items()}
    asked = {n: s for n, s in first.items() if any(m.startswith("fixed:") for m in s.preds)}
    if asked and not results.continuous:  # of numbers the response section draws all
        caption = "One image, asked for each label in turn."
        drawn.append(Figure("labels", caption, grids.label_grid(asked)))
    return drawn


def shown(samples: Mapping[str, Sequence[Sample]], names: Sequence[str]) -> str:
    """Say how many cases and which conditions a grid of predictions shows, in half a sentence."""
    stored = samples[names[0]]
    domains = Counter(sample.domain for sample in stored)
    told = f" on {min(len(stored), CASES)} test {'case' if len(stored) == 1 else 'cases'}"
    if len(stored) > CASES:
        told += f" of {len(stored)} that are stored"
    if len(domains) > 1 and len(stored) <= CASES:
        told += f" ({', '.join(f'{count} of {domain}' for domain, count in domains.items())})"
    left_out = [name for name in samples if name not in names]
    return told + (f"; without {', '.join(left_out)}" if left_out else "")


def _most_telling(names: list[str]) -> list[str]:
    """Leave out dummies first, then the last ones, where a grid would be too wide."""
    if len(names) > SHOWN:
        names = [name for name in names if not name.endswith("-dummy")]
    return names[:SHOWN]
