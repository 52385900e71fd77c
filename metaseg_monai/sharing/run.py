"""Train, test, explain and use one bundle or one trained model, from a shell or a notebook."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import pandas as pd
import torch
from monai.bundle import ConfigWorkflow

from metaseg_monai.bundle.overrides import (
    SHORT,
    across_folds,
    as_data,
    check_overrides,
    fold_of,
    in_fold,
    load_config,
    unwrapped,
)
from metaseg_monai.bundle.run import (
    configs_of,
    configuration_file,
    resolve_bundle,
    run_bundle,
    running,
)
from metaseg_monai.bundle.trust import BORN, RECORD, REWRITING, birth_of, was_trained_here
from metaseg_monai.errors import ConfigError, DataError, MetasegError, Problem, listing, typed
from metaseg_monai.evaluation import read_counts
from metaseg_monai.evaluation.estimates import tell_estimate
from metaseg_monai.evaluation.intervals import MODES, tell_calibration
from metaseg_monai.evaluation.predicted import LEFT_OUT, told_empty
from metaseg_monai.evaluation.provenance import home_of, results_folder
from metaseg_monai.evaluation.shards import Shard, slurm_shard
from metaseg_monai.explain.draw import draw
from metaseg_monai.files import absolute, file_sha256, read_json, readable, write_json
from metaseg_monai.inferers.engines import FORMATS, choose
from metaseg_monai.inferers.exports import PARITY
from metaseg_monai.metadata.fields import UNKNOWN
from metaseg_monai.metrics.scores import (
    IMAGE_SCORES,
    average_f1,
    average_score,
    case_mean_f1,
    case_mean_medmae,
    pooled_f1,
    pooled_iou,
    pooled_score,
    score_of,
)
from metaseg_monai.owners import owned
from metaseg_monai.rows import write_problems
from metaseg_monai.sharing.vendored import code_name
from metaseg_monai.study.record import STUDY
from metaseg_monai.tables.select import dealt_folds
from metaseg_monai.tables.table import CaseTable
from metaseg_monai.training.weights import (
    CHECKPOINT,
    ensemble_sha256,
    read_weights,
    write_fact,
)

logger = logging.getLogger(__name__)

RECORDS = (RECORD, "run.json")  # of a training, and of a run of a study
PLACES = ("_dir", "_file", "_path", "#path", "predicted_metadata")  # ends of settings
SHOWN = 10  # files of earlier predictions
EXPORTS = "exports"  # folder in a model's, of what export makes
ENSEMBLE = "ensemble.json"  # of an evaluation of several models: their folders
CLINICAL_SUFFIXES = (".json", ".csv")


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        folder: with model.pt, its facts in model.json, log.csv and the checkpoint.
        log: a row for each epoch: losses, learning rate, seconds.
    """

    folder: Path
    log: pd.DataFrame

    def __str__(self) -> str:
        epochs = f"{len(self.log)} epoch{'s' * (len(self.log) != 1)}"
        f1 = self.log.get("val_f1", pd.Series(dtype=float)).dropna()
        nothing = (
            "; no validation found any foreground (val_f1 0), so these weights are of no use yet"
        )
        return f"trained {epochs}; {self.folder / 'model.pt'}" + nothing * bool(
            len(f1) and (f1 == 0).all()
        )


@dataclass(frozen=True)
class Evaluated:
    """The test of a model.

    Attributes:
        folder: of the model, with counts.csv and what else was measured.
        counts: a row for each case, test mode and class: true and false positives, false negatives.
        scores: a row for each test mode: F1 pooled over all cases, unweighted mean of the domains,
            and mean over cases with its 95 % interval; `left_out`, how many cases no score knows.
        problems: of the cases that were left out, all in ``problems.csv``.
    """

    folder: Path
    counts: pd.DataFrame
    scores: pd.DataFrame
    problems: Sequence[Problem] = ()

    def __str__(self) -> str:
        if home_of(self.folder) != self.folder:
            return (
                f"{self.scores.round(3).to_string()}\nevaluated {self.folder}: on images that the "
                "network was trained on, or chosen by. These scores are no test; no report has them"
            )
        return (
            f"{self.scores.round(3).to_string()}\nevaluated {self.folder}; python -m metaseg_monai "
            f"report {quote(str(self.folder.parent))} writes the tables"
        )


@dataclass(frozen=True)
class Predicted:
    """The masks of a prediction.

    Attributes:
        folder: of the masks.
        cases: a row for each case: its name and the file of its mask.
        problems: of the cases that were left out, all in ``problems.csv``.
        shard: that was predicted, such as 3/16; None for all cases.
        problems_in: folder of ``problems.csv``, where it is that of a shard.
        unknown: the cases of which the network was not told a field, by field.
        untrained: the cases with a value that no image of the training had, by field=value.
        earlier: files of the folder that earlier predictions made and this one does not stand for,
            by what they are: of cases left out now, by other weights or settings.
        told: what was predicted.
        empty: the cases whose mask has no foreground; masks of a release before do not tell.
        trained: the cases whose image, name or group was in the training.
        replaced: the cases whose mask took the place of one by other weights.
    """

    folder: Path
    cases: pd.DataFrame
    problems: Sequence[Problem] = ()
    shard: str | None = None
    problems_in: Path | None = None
    unknown: Mapping[str, Sequence[str]] = field(default_factory=dict)
    untrained: Mapping[str, Sequence[str]] = field(default_factory=dict)
    earlier: Mapping[str, Sequence[str]] = field(default_factory=dict)
    told: Literal["masks", "images"] = "masks"
    empty: Sequence[str] = ()
    trained: Sequence[str] = ()
    replaced: Sequence[str] = ()

    @property
    def masks(self) -> list[Path]:
        """Files of the masks, in the order of `cases`."""
        return list(map(Path, self.cases["mask"]))

    def __str__(self) -> str:
        count = len(self.cases)

        def said(what: str, cases_of: Mapping[str, Sequence[str]]) -> str:
            told = (
                f"{name} (in {f'all {count}' if len(of) == count else f'{len(of)} of {count}'})"
                for name, of in cases_of.items()
            )
            return f"\n{what}: {', '.join(told)}" if cases_of else ""

        more = told_empty(self.empty, count)
        more += said("unknown to the network", self.unknown)
        more += said("in no image of its training", self.untrained)
        if self.trained:
            shown = listing(self.trained, SHOWN, str)
            more += f"\nno test, as they were in the training: {len(self.trained)} ({shown})"
        if self.replaced:
            more += f"\nin the place of masks by other weights: {len(self.replaced)}"
        for what, names in self.earlier.items():
            more += f"\nof earlier predictions {what}, still there: {len(names)} "
            more += f"({listing(names, SHOWN)})"
        if self.shard is None:
            return f"{count} {self.told}: {self.folder}{more}"
        return (
            f"{count} {self.told} of shard {self.shard}: {self.folder}; when all shards are "
            f"done: python -m metaseg_monai merge {quote(str(self.folder))}{more}"
        )


class Drawn(list[Path]):
    """The files that `explain` wrote.

    Attributes:
        folder: of the files.
        problems: of the cases that were left out, all in ``problems.csv``.
    """

    folder: Path
    problems: Sequence[Problem] = ()


@typed
def train(
    bundle: str | Path,
    output_dir: str | Path | None = None,
    configuration: Any = None,
    *,
    fold: int | None = None,
    bundles: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> Trained:
    """Train one variant of a bundle.

    Example:
        python -m metaseg_monai train synthetic_shapes_segmentation --variant me --epochs 20 \
--output_dir runs/me

    Args:
        bundle: its name or folder.
        output_dir: folder of the model; by default the bundle's own.
        configuration: further configurations of the bundle, as pilot or pilot,paper_size, and
            files of yours, as mine.json; merged last in that order.
        fold: of the table's column of folds: its cases are the test set, a share of the others
            the validation set (see `metaseg_monai.tables.fold_cases`); None takes the table's own
            splits.
        bundles: folder in which a bundle's name is looked for; by default ./bundles, then those
            installed with the package.
        trust: run a bundle or settings that hold more than what is known to be harmless.
        settings: any setting of the bundle's configs/train.json; misspelt ones are refused.
            --resume True goes on with an interrupted run.

    Returns:
        The model's folder and the log of its training.

    Raises:
        ConfigError: no such bundle, configuration or setting.
        DataError: the table or its images cannot be used.
        TrainingError: the loss is not finite, or no epoch was validated.
    """
    given = dict(settings) if output_dir is None else {**settings, "output_dir": output_dir}
    root, further = _own_bundle(bundle, bundles), configs_of(more=configuration)
    names, doing = ["train.json", *further], "is training here"
    files = [configuration_file(root, name) for name in names]
    named = [file.stem if file.parent == root / "configs" else str(file) for file in files[1:]]
    digests = [file_sha256(file) if file.is_file() else None for file in files[1:]]
    if fold is not None:
        if output_dir is None:
            raise ConfigError(
                "with --fold give --output_dir, a folder for the model of this fold, as runs/fold0"
            )
        if parts := [name for name in given if name.startswith("cases#")]:
            raise ConfigError(
                f"--{parts[0]} with --fold: give cases as a whole, in a configuration"
            )
        cases = given.get("cases", load_config(files, root).get("cases", "@table"))
        given = {**given, "cases": in_fold(cases, fold)}
    with running(root, names, given, doing, trust=trust, ready=_tell_folds) as workflow:
        folder = absolute(workflow.parser.get_parsed_content("output_dir"))
        record = {
            "bundle": str(root),
            "configuration": named,
            "configuration_sha256": digests,
            "settings": check_overrides(load_config(files, root), _lasting(given)),
            "weights_sha256": read_weights(folder / "model.pt")[1]["weights_sha256"],
            BORN: birth_of(folder / "model.pt"),
        }
        write_json(folder / RECORDS[0], record)
        return Trained(folder, pd.read_csv(folder / "log.csv"))


def _tell_folds(workflow: ConfigWorkflow) -> None:
    """Tell whoever trains on the splits of a table that it deals folds, too."""
    parser = workflow.parser
    table = parser.get_parsed_content("table") if "table" in parser else None
    if not isinstance(table, CaseTable) or fold_of(parser.config.get("cases")) is not None:
        return
    try:
        folds = dealt_folds(table)
    except MetasegError:  # a column that is called so, and tells no folds
        return
    if folds:
        logger.warning(
            "trained on the column split of %s, not on its folds %s: --fold %d takes one",
            *(table.path, listing(folds), folds[0]),
        )


@typed
def evaluate(
    folder: str | Path | Sequence[str | Path],
    split: str | None = None,
    modes: Any = None,
    configuration: Any = None,
    *,
    bundles: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> Evaluated:
    """Test a trained model in all test modes; write counts.csv, samples.npz and more beside it.

    Example:
        python -m metaseg_monai evaluate runs/me
        python -m metaseg_monai evaluate synthetic_shapes_segmentation --variant me \
--output_dir runs/me
        python -m metaseg_monai evaluate runs/seed0,runs/seed1 --output_dir runs/ensemble

    Args:
        folder: of the model; or name or folder of a bundle, with the settings of the training.
            Several models, as runs/seed0,runs/seed1 with --output_dir: the mean of their
            probabilities, tested on the cases that the first was; models of several folds on the
            fixed test set, which none was trained on. The output folder lists its members in
            ensemble.json, and evaluate and predict take it as a model.
        split: of the table, by default test.
        modes: test modes such as normal,shuffle or a list; by default those of the bundle.
        configuration: that of the training, where a bundle is given.
        bundles: folder in which a bundle's name is looked for; by default ./bundles, then those
            installed with the package.
        trust: as for train.
        settings: any setting of train.json or evaluate.json, such as --guidance 0.5, see predict.

    Returns:
        Counts of every case, and scores of every mode.

    Raises:
        ConfigError: neither a model nor a bundle; no such setting; weights of something else.
        DataError: the table cannot be used, or the model was trained on one of its images.
    """
    if isinstance(modes, str):  # as the command line takes them
        try:
            modes = json.loads(modes) if modes.startswith("[") else modes.split(",")
        except ValueError:  # names without quotation marks
            modes = [mode.strip(" '\"") for mode in modes.strip("[] ").split(",")]
    chosen = {"split": split, "modes": modes}
    settings |= {name: value for name, value in chosen.items() if value is not None}
    given = folder if isinstance(folder, str | Path) else None
    folder, *members = models_of(folder)
    root, further, recorded = _known(folder, configuration, bundles)
    if members:
        of_list = given is not None and (Path(given) / ENSEMBLE).is_file()
        recorded |= _ensemble([folder, *members], recorded, given if of_list else None, settings)
    names, doing = configs_of("train", "evaluate", more=further), "is evaluating here"
    with running(root, names, settings, doing, recorded, trust) as workflow:
        if members:
            home = absolute(workflow.parser.get_parsed_content("output_dir"))
            every = [os.path.relpath(absolute(one), home) for one in (folder, *members)]
            digest = workflow.parser.get_parsed_content("weights").recorded["weights_sha256"]
            told = {"members": every, "weights_sha256": digest}
            write_json(home / ENSEMBLE, told)
        results = absolute(workflow.parser.get_parsed_content("results_dir"))
        counts = read_counts(results / "counts.csv")
        problems = workflow.parser.get_parsed_content("problems").found
        lacking = len({problem.case for problem in problems})
        scores = scores_by_mode(counts).assign(left_out=lacking)
        return Evaluated(results, counts, scores, problems)


def scores_by_mode(counts: pd.DataFrame) -> pd.DataFrame:
    """Scores of each test mode of one model (contract of aggregates: pooled, average, case mean).

    Where labels are images, medMAE so, of which less is better, and mean PSNR, SSIM, Pearson's
    correlation and sharpness.

    Args:
        counts: of `metaseg_monai.evaluation.read_counts`.
    """
    rows: dict[Any, dict[str, float]] = {}
    for mode, part in counts.groupby("mode", sort=False):
        if score_of(part).best == "low":
            means = {name: float(part[name].mean()) for name in IMAGE_SCORES[1:]}
            mean = case_mean_medmae(part)
            rows[mode] = {
                "medmae": pooled_score(part),
                "average_medmae": average_score(part),
                "case_mean_medmae": mean.mean,
                "low": mean.low,
                "high": mean.high,
                **means,
                "cases": part["case"].nunique(),
            }
            continue
        mean = case_mean_f1(part)
        rows[mode] = {
            "pooled_f1": pooled_f1(part),
            "pooled_iou": pooled_iou(part),
            "average_f1": average_f1(part),
            "case_mean_f1": mean.mean,
            "low": mean.low,
            "high": mean.high,
            "cases": mean.cases,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("mode")


@typed
def clean_up(
    folder: str | Path,
    configuration: Any = None,
    *,
    off: bool = False,
    trust: bool = False,
    **settings: Any,
) -> str:
    """Choose on the validation cases how masks of a model are cleaned; write it into the model.

    Tried are thresholds, of each class the largest object alone and smallest sizes, and filled
    holes; a step is kept if it raises the mean case score of the validation cases, volumes as a
    whole. A gain that may be chance is none: it must be above its standard error over the groups,
    of which there must be two. evaluate and predict then clean masks so; --clean_up {} there takes
    the plain ones. Other weights, such as those of a further training, do not inherit it.

    Example:
        python -m metaseg_monai clean-up runs/me
        python -m metaseg_monai clean-up runs/me --off True

    Args:
        folder: of the model.
        configuration: as for evaluate.
        off: forget what was chosen before, and choose nothing.
        trust: as for train.
        settings: where the data of the training lie now, and how they are computed: dataset_dir,
            device, num_workers. No other, since a choice counts for what evaluate and predict do by
            default.

    Returns:
        What was tried and kept, with the scores.

    Raises:
        ConfigError: no model's folder, or a setting that it does not take.
        DataError: there are no validation cases, none of them has a score, or they are not those
            by which the training chose the weights.
    """
    if off:
        _forget(folder, "clean_up", settings)
        return f"masks of {folder} are not cleaned"
    asked = {**settings, "split": "val", "modes": ["normal"]}
    chosen = _chosen(folder, "clean-up", CHOOSING, 1, configuration, asked, trust)
    steps = [
        f"  {json.dumps(one['step'])}: {one['score']:.4f}{', kept' if one['kept'] else ''}"
        for one in chosen["steps"]
    ]
    told = f"{chosen['cases']} validation cases, mean case F1 {chosen['score_before']:.4f}"
    return "\n".join([f"{told}; with", *steps, f"masks of {folder}: {json.dumps(chosen['rules'])}"])


@typed
def conformal(
    folder: str | Path,
    configuration: Any = None,
    *,
    by: str | None = None,
    level: float = 0.9,
    found: float = 0.9,
    bins: int = 4,
    split: str = "val",
    off: bool = False,
    trust: bool = False,
    **settings: Any,
) -> str:
    """Calibrate how far off a model's areas may be, by metadata value; write it into the model.

    For each value of a field (a quantity: bins) cases that were set apart give an interval that
    holds the true area of a new case with the stated probability, and a threshold at which the
    stated share of the foreground is found, on average. Patients and wells are the units; a value
    with fewer than 20 of them takes what holds for all, which is told. predict then writes
    predictions.csv beside the masks, and evaluate tests the intervals. They hold for masks of these
    weights as predict and evaluate make them by default: others refuse them. Of unknown metadata
    they are calibrated too, where the model knows that.

    Example:
        python -m metaseg_monai conformal runs/me --by line
        python -m metaseg_monai conformal runs/me --split calibration --level 0.95
        python -m metaseg_monai conformal runs/me --off True

    Args:
        folder: of the model.
        configuration: as for evaluate.
        by: field whose values are kept apart; by default the first that has one value a case.
        level: share of the cases whose area is to lie within its interval.
        found: share of the foreground that is to be found at the threshold.
        bins: of a quantity, with about as many cases each.
        split: of the table, of which no case was trained on and none is of the test: val, by which
            the training chose its weights, or better one that was set apart for this.
        off: forget what was calibrated before, and calibrate nothing.
        trust: as for train.
        settings: as for clean-up.

    Returns:
        What was calibrated, a line a value.

    Raises:
        ConfigError: no model's folder, no such field, or a setting that it does not take.
        DataError: the split is train or test, has no cases, or a case was trained on.
    """
    if off:
        _forget(folder, "conformal", settings)
        return f"areas of {folder} have no intervals"
    measure = {
        "_target_": "metaseg_monai.evaluation.CalibrateAreas",
        "weights": "@weights",
        "classes": "@classes",
        "field": {
            "_target_": "metaseg_monai.evaluation.chosen_field",
            "schema": "@schema",
            "by": as_data(by),
            "reads": "$@prepare_batch.reads_metadata",
        },
        "split": as_data(split),
        "level": level,
        "found": found,
        "bins": bins,
    }
    home = _model_home(folder, "conformal", settings)
    knows = read_weights(absolute(home) / "model.pt")[1].get("unknown_trained")
    asked = {**settings, "split": split, "modes": list(MODES if knows else MODES[:1])}
    handlers = [CHOOSING[0], REFUSE_TRAINED, CLEAN, measure, *CHOOSING[2:]]
    return tell_calibration(_chosen(folder, "conformal", handlers, 3, configuration, asked, trust))


OF_PREDICT = {"metadata": "--meta", "dataset_dir": "--source", "output_dir": "--output"}
WHERE = ("dataset_dir", "device", "num_workers")  # settings of `clean_up` and `conformal`


def _chosen(
    folder: str | Path,
    command: str,
    handlers: Sequence[Any],
    place: int,
    configuration: Any,
    given: Mapping[str, Any],
    trust: bool,
) -> dict[str, Any]:
    """Run an evaluation one of whose handlers chooses something, and return what it chose."""
    home = _model_home(folder, command, given)
    root, further, recorded = _known(folder, configuration, None)
    names, doing = configs_of("train", "evaluate", more=further), f"is choosing a {command} here"
    aside = results_folder(str(absolute(folder)), "val")  # never beside the results of a test
    recorded = {**recorded, "validate#handlers": list(handlers), "results_dir": as_data(aside)}
    with (
        owned(home, doing),
        rewriting(home),
        running(root, names, given, doing, recorded, trust) as workflow,
    ):
        chosen: dict[str, Any] = workflow.parser.get_parsed_content(
            f"validate#handlers#{place}"
        ).chosen
        return chosen


def _forget(folder: str | Path, fact: str, settings: Mapping[str, Any]) -> None:
    home = _model_home(folder, fact, settings)
    with owned(home, "is writing into the model here"), rewriting(home):
        write_fact(absolute(folder) / "model.pt", fact, None)


def _model_home(folder: str | Path, command: str, settings: Mapping[str, Any]) -> Path:
    """The folder of a model that is given a fact, by a command that takes few settings."""
    if strange := sorted(settings.keys() - {*WHERE, "split", "modes"}):
        raise ConfigError(
            f"{command} takes no --{strange[0]}, as what is chosen counts for the model as "
            f"evaluate and predict use it by default; it takes {', '.join(WHERE)}"
        )
    if not (absolute(folder) / "model.pt").is_file():
        raise ConfigError(f"{folder} holds no model.pt; give the folder of a trained model")
    return Path(folder)


@contextmanager
def rewriting(home: Path) -> Iterator[None]:
    """Let the record of weights that were trained here know them while they get a further fact.

    A kill at any moment leaves a record that knows the weights, or a file that lies beside them
    since they were rewritten.
    """
    if not was_trained_here(home):
        yield
        return
    marker, record = home / REWRITING, read_json(home / RECORD)
    if not marker.exists():
        marker.touch()
    write_json(home / RECORD, {**record, BORN: birth_of(marker)})
    try:
        yield
    finally:
        write_json(home / RECORD, {**record, BORN: birth_of(home / "model.pt")})
        marker.unlink(missing_ok=True)


CHOOSING = [
    {"_target_": "metaseg_monai.training.StopOnNonFinite"},
    {
        "_target_": "metaseg_monai.evaluation.ChooseCleanUp",
        "weights": "@weights",
        "classes": "@classes",
    },
    "@problems",
    {"_target_": "metaseg_monai.training.RunProgress", "title": "validation", "unit": "image"},
]
REFUSE_TRAINED = {
    "_target_": "metaseg_monai.training.RefuseTrained",
    "weights": "@weights",
    "items": "$@cases.items(@split)",
}
CLEAN = {
    "_target_": "metaseg_monai.evaluation.CleanUpPredictions",
    "sizes": "@clean_up",
    "weights": "@weights",
}


@typed
def explain(
    folder: str | Path,
    output_dir: str | Path | None = None,
    configuration: Any = None,
    *,
    bundles: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> Drawn:
    """Draw what every gate of a trained model does for each metadata value.

    Example:
        python -m metaseg_monai explain runs/me
        python -m metaseg_monai explain synthetic_shapes_segmentation --variant me \
--output_dir runs/me

    Args:
        folder: of the model; or name or folder of a bundle, with the settings of the training.
        output_dir: folder of the model, where a bundle is given; figures and gates.csv go to
            explain/ in it.
        configuration: that of the training, where a bundle is given.
        bundles: folder in which a bundle's name is looked for; by default ./bundles, then those
            installed with the package.
        trust: as for train.
        settings: those of the training, and of configs/explain.json, such as --explain_cases 20
            or --explain_gate middle.

    Returns:
        The files written.

    Raises:
        ConfigError: neither a model nor a bundle, no such setting, or a network without gates.
    """
    if output_dir is not None:
        settings["output_dir"] = output_dir
    root, further, recorded = _known(folder, configuration, bundles)
    names, doing = configs_of("train", "evaluate", "explain", more=further), "is explaining here"
    with running(root, names, settings, doing, recorded, trust) as workflow:
        drawn = Drawn(draw(workflow.parser.get_parsed_content("output_dir")))
        listed = workflow.parser.get_parsed_content("problems")
        drawn.folder, drawn.problems = listed.folder, listed.found
        return drawn


@typed
def estimate(
    bundle: str | Path,
    output_dir: str | Path,
    configuration: Any = None,
    *,
    bundles: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> str:
    """Learn to tell a continuous field, such as a size, from the image alone.

    Writes predicted.csv (for the test mode predicted) and estimate_scores.json with its scores
    beside those of a constant.

    Example:
        python -m metaseg_monai estimate kits21_tumour_slices_segmentation --output_dir runs/size

    Args:
        bundle: its name or folder.
        output_dir: folder for the estimates.
        configuration: further files of the bundle's configs/, as for train.
        bundles: folder in which a bundle's name is looked for; by default ./bundles, then those
            installed with the package.
        trust: as for train.
        settings: any setting of train.json or estimate.json, such as --estimate_field NAME.

    Returns:
        The scores in words.

    Raises:
        ConfigError: no such bundle, configuration, setting or field.
    """
    configs = configs_of("train", "estimate", more=configuration)
    given = {**settings, "output_dir": output_dir}
    run_bundle(resolve_bundle(bundle, bundles), configs, given, trust=trust)
    return tell_estimate(str(output_dir))


@typed
def predict(
    folder: str | Path | Sequence[str | Path],
    source: str | Path,
    output: str | Path | None = None,
    meta: Any = None,
    configuration: Any = None,
    *,
    bundles: str | Path | None = None,
    trust: bool = False,
    shard: str | None = None,
    engine: str = "torch",
    precision: str | None = None,
    exported: str | Path | None = None,
    **settings: Any,
) -> Predicted:
    """Segment a folder of images, one image, or the cases of a table.

    Example:
        python -m metaseg_monai predict runs/me --source images --output masks --meta task=disc
        python -m metaseg_monai predict runs/me --source scans --output masks --shard 0/16
        python -m metaseg_monai predict synthetic_shapes_segmentation --source images \
--output masks --meta task=disc --ckpt_path runs/me/model.pt
        python -m metaseg_monai predict runs/me --source scans --output masks --engine auto

    Args:
        folder: of the model; or name or folder of a bundle, with ckpt_path. Several models, as
            runs/fold0,runs/fold1: the mean of their probabilities; they must be of one network.
        source: folder of images, KiTS cases, DICOM series or OME-Zarr; image; or table.csv with the
            metadata of each case. Volumes are cut into axial slices and put together again.
        output: folder for the masks, apart from the images; by default masks/ in the model's
            folder. Its list predicted.sha256 tells which files are masks of an earlier prediction;
            no other file is ever replaced, and a mask of the same weights, settings, metadata and
            image is not predicted again. What cannot be read goes to problems.csv.
        meta: field=value[,field=value] for all images (a value may be unknown, a distribution as
            phase=arterial:0.7|venous:0.3, or a range as size_mm=20..40), or a JSON or CSV file with
            a row a case; of KiTS cases their own kits.json by default, of DICOM series the elements
            that the schema names (tag).
        configuration: that of the training, where a bundle is given.
        bundles: folder in which a bundle's name is looked for; by default ./bundles, then those
            installed with the package.
        trust: as for train.
        shard: i/n predicts every n-th case from the i-th, counted from 0, beside others that
            predict the others into the same output; then ``merge``. By default the task of a Slurm
            array is its shard; 0/1 is all cases.
        engine: torch, or one that runs an export of the model on the CPU: onnxruntime, openvino;
            auto is torch on a GPU, else the first that is installed of openvino, onnxruntime and
            torch. All masks of a folder are of one engine and precision.
        precision: float32, bf16 or int8 (of openvino, see export); by default bf16 of torch (as
            the bundle says) and openvino, float32 of onnxruntime.
        exported: folder of an export; by default that in the model's folder, else one is made for
            this run.
        settings: any setting of configs/inference.json, such as --guidance 0.5: how far the masks
            follow the metadata, from 0 (as if they were unknown) by 1 (plainly) to 2; for models
            that know unknown metadata. --mirror [0,1] also predicts the image mirrored along rows
            and columns, and averages. --save_probabilities True also writes those of every class,
            <mask>_probabilities.npz. --prediction_form dicom-seg writes a DICOM Segmentation of
            each series, labels and ome-labels write numbered objects of 2D images.

    Returns:
        The cases and the files of their masks.

    Raises:
        DataError: the source does not exist, the masks would lie among the images, or a file that
            is no earlier mask would be replaced.
        ConfigError: neither a model nor a bundle, or `meta` is neither field=value nor a file.
    """
    for name, flag in OF_PREDICT.items():
        if name in settings:
            raise ConfigError(f"{name} is what {flag} sets; give {flag} in its place")
    home = folder if isinstance(folder, str | Path) else None
    folders = models_of(folder)
    folder, *members = folders
    asked = {**settings, **engine_of(folders, engine, precision, exported, settings.get("device"))}
    settings = dict(asked)
    if shard is None and (shard := slurm_shard()) is not None:
        logger.warning("this task of a Slurm array predicts shard %s; --shard 0/1: all", shard)
    shard = None if shard == "0/1" else shard
    if members:
        if output is None and home is not None and (Path(home) / ENSEMBLE).is_file():
            output = Path(home) / "masks"
        settings["members"] = [str(absolute(one) / "model.pt") for one in members]
    with readable(source):
        is_there = Path(source).exists()
    if not is_there:
        raise DataError(f"There is no image, folder or table at {source}.")
    if output is None:
        if not any((Path(folder) / name).is_file() for name in RECORDS):
            raise ConfigError("output is not given; name a folder for the masks.")
        output = Path(folder) / "masks"
    _keep_apart(absolute(source), absolute(output))
    root, further, recorded = _known(folder, configuration, bundles)
    names = configs_of("inference", more=further)
    files = [configuration_file(root, name) for name in names]
    named = [file.stem if file.parent == root / "configs" else str(file) for file in files[1:]]
    models = [absolute(folder) if recorded else root, *map(absolute, members)]
    if recorded:  # a model; what concerned its training alone does not matter here
        ids = load_config(files, root).keys()
        recorded = {k: v for k, v in recorded.items() if SHORT.get(k, k).partition("#")[0] in ids}
        settings = {"ckpt_path": absolute(folder) / "model.pt", **settings}
    given = {
        **settings,
        "dataset_dir": str(absolute(source)),
        "output_dir": str(absolute(output)),
        "metadata": None if meta is None else metadata_source(meta),
    }
    if shard is not None:
        Shard(shard, output)  # refuse what is none
        told = {"source": absolute(source), "output": absolute(output), "meta": meta}
        if isinstance(meta, str | Path) and not isinstance(given["metadata"], Mapping):
            told["meta"] = absolute(meta)  # a file
        told["configuration"] = None if configuration is None else named
        command = _command(models, {**told, "trust": trust or None, **_lasting(asked)})
        given["shard"] = {"part": shard, "command": command}
    with running(root, names, given, recorded=recorded, trust=trust) as workflow:
        parts = workflow.parser
        record, problems = (parts.get_parsed_content(name) for name in ("record", "problems"))
        listed: list[Problem] = problems.found
        earlier = record.earlier({problem.case for problem in listed})
        if stays := earlier.get(LEFT_OUT):
            listed = [_with_mask(one, stays.get(one.case)) for one in listed]
            write_problems(record.home, listed)
    rows = [{"case": case, "mask": str(record.files[case])} for case in record.cases_done]
    cases = pd.DataFrame(rows, columns=["case", "mask"])
    problems_in = None if shard is None else record.home
    unknown: dict[str, list[str]] = {}
    untrained: dict[str, list[str]] = {}
    for case in record.cases_done:
        for name in record.unknown(case):
            unknown.setdefault(name, []).append(case)
        for value in record.never_trained(case):
            untrained.setdefault(value, []).append(case)
    what: Literal["masks", "images"] = "images" if parts.get("target") == "image" else "masks"
    stay = {kind: sorted(of_case.values()) for kind, of_case in earlier.items()}
    return Predicted(
        absolute(output),
        cases,
        listed,
        shard,
        problems_in,
        unknown,
        untrained,
        stay,
        what,
        record.empty,
        record.trained,
        record.replaced,
    )


def _with_mask(problem: Problem, mask: str | None) -> Problem:
    """A problem that says so where a mask of its case is there from before."""
    if mask is None:
        return problem
    stays = f"{mask} is the earlier mask of this case, still there"
    return problem._replace(next_step="; ".join(filter(None, (problem.next_step, stays))))


def export_folder(model: str | Path, to: str, precision: str | None) -> Path:
    """Where an export of a model lies by default."""
    return Path(model) / EXPORTS / (f"{to}-int8" if precision == "int8" else to)


def engine_of(
    models: Sequence[str | Path],
    engine: str,
    precision: str | None,
    exported: str | Path | None,
    device: str | None,
) -> dict[str, Any]:
    """The settings of an engine; none where the bundle's own network runs as it says."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen, precision = choose(engine, precision, device)
    if chosen == "torch":
        if exported is not None:
            raise ConfigError("--exported is for the engines that run exports; give --engine too")
        return {} if precision is None else {"engine": chosen, "precision": precision}
    if engine == "auto":
        logger.warning("engine auto: %s in %s", chosen, precision)
    settings: dict[str, Any] = {"engine": chosen, "precision": precision}
    one, *members = models
    if members and (exported is not None or precision == "int8"):
        raise ConfigError(
            f"{'--exported' if exported else '--precision int8'} is of one model, and there are "
            f"{len(models)}; leave it out: each model is exported for the run"
        )
    if members:
        return settings
    place = export_folder(one, FORMATS[chosen], precision)
    if exported is not None or (place / PARITY).is_file():
        return {**settings, "exported": str(absolute(exported or place))}
    if precision == "int8":
        raise ConfigError(
            f"{one} has no export in int8 ({place}); make one: python -m metaseg_monai export "
            f"{quote(str(one))} --to openvino --precision int8"
        )
    return settings


def _command(models: Sequence[Path], options: Mapping[str, Any]) -> str:
    """The command of a prediction as a shell takes it, from whatever working directory."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return json.dumps(dict(value), default=str)
        if isinstance(value, list | tuple) and all(isinstance(one, str | Path) for one in value):
            return ",".join(map(str, value))
        return str(value)

    words = ["python", "-m", "metaseg_monai", "predict", text(models)]
    for name, value in options.items():
        words += [f"--{name}", text(value)] if value is not None else []
    return " ".join(map(quote, words))


def _ensemble(
    folders: Sequence[str | Path],
    recorded: Mapping[str, Any],
    home: str | Path | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings of the evaluation of several models, beside those recorded of the first."""
    if home is None and "output_dir" not in settings:
        raise ConfigError(
            "several models without --output_dir; name a folder for the results of the ensemble"
        )
    output = absolute(home if home is not None else settings["output_dir"])
    if (output / "model.pt").is_file():
        raise ConfigError(
            f"--output_dir {output} holds a model of its own; name another folder for the results "
            "of the ensemble"
        )
    first, *others = (str(absolute(one) / "model.pt") for one in folders)
    cases = [_known(one, None, None)[2].get("cases", "@table") for one in folders]
    given = {"output_dir": as_data(output), "ckpt_path": as_data(first), "members": as_data(others)}
    tested = {fold_of(one): str(folder) for one, folder in zip(cases, folders, strict=True)}
    if len(tested) > 1 and None in tested:
        others = [folder for fold, folder in tested.items() if fold is not None]
        raise ConfigError(
            f"{others[0]} was trained on folds of the table and {tested[None]} on its splits, so "
            "no test set is known that both have not seen; make an ensemble of models of one kind"
        )
    several = len(tested) > 1
    return {**given, "cases": across_folds(recorded["cases"])} if several else given


def models_of(given: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """The folders of one model, or of those of an ensemble, also as its folder lists them.

    >>> models_of("runs/fold0")
    ['runs/fold0']
    """
    if isinstance(given, str) and "," in given and not Path(given).exists():
        given = [part.strip() for part in given.split(",") if part.strip()]
    folders = [given] if isinstance(given, str | Path) else list(given)
    if len(folders) == 1 and (Path(folders[0]) / ENSEMBLE).is_file():
        folders = _listed(Path(folders[0]))
    if not folders:
        raise ConfigError("folder is empty; name a model, or several for an ensemble")
    for folder in folders[1:]:
        if not (Path(folder) / "model.pt").is_file():
            raise ConfigError(
                f"{folder} holds no model.pt; an ensemble is made of the folders of trained models"
            )
    return folders


def _listed(home: Path) -> list[str | Path]:
    """The models that an evaluated ensemble lists, if their weights are still the same."""
    file = home / ENSEMBLE
    try:
        told = read_json(file)
        folders: list[str | Path] = [home / str(one) for one in told["members"]]
        known = str(told["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); name the models instead") from error
    files = [Path(one) / "model.pt" for one in folders]
    if known != ensemble_sha256([read_weights(one)[1]["weights_sha256"] for one in files]):
        named = ",".join(os.path.normpath(one) for one in folders)
        raise ConfigError(
            f"{file}: a model that it lists has other weights than the ensemble that was "
            f"evaluated; evaluate anew: evaluate {quote(named)} --output_dir {quote(str(home))}"
        )
    return folders


def metadata_source(given: object) -> dict[str, Any] | str:
    """What ``--meta`` gives: values for all images, or the path of a file with a row a case.

    Args:
        given: a mapping, or text; whatever else the command line made of it is refused.

    Raises:
        ConfigError: the file is missing, or it is neither a file nor field=value.

    >>> metadata_source("tumour_size_mm=41")
    {'tumour_size_mm': '41'}
    """
    if isinstance(given, Mapping):
        return {
            str(field): unwrapped(value) if isinstance(value, Mapping) else str(value)
            for field, value in given.items()
        }
    text = str(given).strip() if isinstance(given, str | Path) else ""
    if "=" not in text and Path(text).suffix.lower() not in CLINICAL_SUFFIXES:
        if given is True or (isinstance(given, str) and not text):
            came = "--meta has no value"
        else:
            came = f"--meta {given} names no field"
        value = text if text == UNKNOWN else "value"
        raise ConfigError(
            f"{came}; write --meta field={value}, or give a "
            f"{' or '.join(CLINICAL_SUFFIXES)} file with a row a case."
        )
    if "=" in text:
        return parse_metadata(text)
    if not Path(text).is_file():
        raise ConfigError(
            f"--meta {text}: no such file; give field=value, or a file of {CLINICAL_SUFFIXES}."
        )
    return str(Path(text).resolve())


def parse_metadata(text: str, flag: str = "--meta") -> dict[str, str]:
    """Split ``field=value,field=value``, the value of a flag.

    Raises:
        ConfigError: for a part without ``=`` or a field that is named twice.

    >>> parse_metadata("line=HeLa,size_mm=41")
    {'line': 'HeLa', 'size_mm': '41'}
    """
    values: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        field, equals, value = part.partition("=")
        if not equals or not field or field in values:
            raise ConfigError(f"{flag} {part!r}: write each field once, as field=value.")
        values[field.strip()] = value.strip()
    return values


def _known(
    folder: str | Path,
    configuration: Any,
    bundles: str | Path | None,
) -> tuple[Path, Any, dict[str, Any]]:
    """Bundle, further configurations and recorded settings of a model's folder, or of a bundle."""
    home = Path(folder)
    if home.is_file():
        raise ConfigError(f"{folder} is a file; give the folder that it is in: {home.parent}")
    if "," in str(folder) and not home.exists():
        raise ConfigError(f"{folder} names several models, and one is taken here; give one of them")
    if (home / ENSEMBLE).is_file():
        raise ConfigError(
            f"{folder} lists the models of an ensemble ({ENSEMBLE}) and holds none itself; give "
            "the folder of one of them"
        )
    if (home / STUDY).is_file():
        models = sorted(file.parent for file in home.glob("**/model.pt"))
        such = f", such as {models[0]}" if models else ""
        raise ConfigError(f"{folder} is a study of several models; give the folder of one{such}")
    finish = (
        f"python -m metaseg_monai train BUNDLE --output_dir {quote(str(folder))} --resume True, "
        "with the settings that it began with"
    )
    if (home / CHECKPOINT).is_file() and not (home / "model.pt").is_file():
        raise ConfigError(
            f"{folder} holds a training that has kept no weights yet; go on: {finish}"
        )
    for file in (Path(folder) / name for name in RECORDS):
        if file.is_file():
            try:
                record = read_json(file)
                place, recorded = str(record["bundle"]), record["settings"]
                known = {**recorded, "output_dir": as_data(absolute(folder))}
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{file}: damaged ({error}); give the bundle instead.") from error
            root = resolve_bundle(place)
            _check_described(Path(folder), file, record.get("weights_sha256"))
            if configuration is None:
                configuration = record.get("configuration")
                _check_unchanged(folder, root, configuration, record.get("configuration_sha256"))
            return root, configuration, known
    above = absolute(folder).parent
    if home.name == "models" and (above / "configs").is_dir():
        raise ConfigError(f"{folder} is a part of the bundle {above}; give the bundle's folder")
    if (Path(folder) / "model.pt").is_file() and not (Path(folder) / "configs").is_dir():
        raise ConfigError(
            f"{folder} does not say how it was trained ({' or '.join(RECORDS)}); give the bundle "
            f"and the settings of the training, with --output_dir {folder}; or, where the training "
            f"was stopped, finish it: {finish}"
        )
    return _own_bundle(folder, bundles), configuration, {}


def _own_bundle(bundle: str | Path, bundles: str | Path | None) -> Path:
    """The folder of a bundle that runs by this package, as packages do not."""
    root = resolve_bundle(bundle, bundles)
    if (code := code_name(root)) is not None:
        raise ConfigError(
            f"{root} is a package, which runs by its own code ({code}), not by this command; in "
            "its folder: python -m monai.bundle run --config_file configs/inference.json "
            "--dataset_dir IMAGES --output_dir MASKS, or run training with configs/train.json"
        )
    return root


def _check_unchanged(
    folder: str | Path, root: Path, names: Sequence[str] | None, digests: Sequence[str] | None
) -> None:
    """Refuse a configuration that has changed since a model was trained with it."""
    for name, digest in zip(names or (), digests or (), strict=False):
        file = configuration_file(root, name)
        if digest is not None and (not file.is_file() or file_sha256(file) != digest):
            raise ConfigError(
                f"{file} is not as it was when {folder} was trained with it; put that content "
                f"back, or name it to use it as it is: --configuration {','.join(names or ())}"
            )


def _check_described(folder: Path, file: Path, described: str | None) -> None:
    """Refuse a record of other weights, left there where a later training was stopped."""
    if described is None:
        return
    if described != read_weights(folder / "model.pt")[1]["weights_sha256"]:
        raise ConfigError(
            f"{file} tells how other weights were trained than model.pt beside it, which a "
            "later training left. Finish that one (--resume True), or give the bundle and its "
            f"settings, with --output_dir {folder}."
        )


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as another command can use them, from another working directory."""
    kept = {name: value for name, value in settings.items() if name not in ("resume", "output_dir")}
    for name, value in kept.items():
        is_path = name.endswith(PLACES) and isinstance(value, str | Path)
        if is_path:
            kept[name] = str(absolute(value))
    return kept


def _keep_apart(source: Path, output: Path) -> None:
    """Refuse masks among images: an output in the folder of the images, or above the source."""
    for images, masks in ((source, output), (source.resolve(), output.resolve())):
        if images.is_dir() and masks.is_relative_to(images):
            raise DataError(
                f"--output {output} lies in the folder of the images ({source}), where masks would "
                "replace images or be taken for them; choose a folder elsewhere."
            )
        if images.is_relative_to(masks):
            raise DataError(
                f"--output {output} holds the images ({source}), so masks would lie among images, "
                "replace them or be taken for them; choose a folder elsewhere."
            )
