"""Plan, run and report studies: variants x seeds of a bundle."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_monai.bundle.overrides import entered, flatten, load_config
from metaseg_monai.bundle.run import resolve_bundle
from metaseg_monai.bundle.trust import refuse_untrusted
from metaseg_monai.errors import ConfigError, MetasegError, TrainingError, typed
from metaseg_monai.networks.variants import base_variant, reads_metadata
from metaseg_monai.owners import owned
from metaseg_monai.reporting.write import write_report
from metaseg_monai.sharing.whatif import whatif as write_page
from metaseg_monai.study.design import Study
from metaseg_monai.study.matrix import CONFIGS, Run, expand, folds_of_study, read_by_monai
from metaseg_monai.study.run import run_study
from metaseg_monai.study.tracking import track_study

VARIANTS = ("none", "se", "me", "sme", "sme-dummy", "film", "film-dummy")
logger = logging.getLogger(__name__)

DEMO = "synthetic_shapes_segmentation"


@dataclass(frozen=True)
class Report:
    """A report of finished runs.

    Attributes:
        html: the page; tables, figures, report.md and summary.json lie beside it.
        summary: what summary.json holds: scores, comparisons and what was found, as numbers.
    """

    html: Path
    summary: dict[str, Any]

    def __str__(self) -> str:
        left_out = [f"left out: {run} {why}" for run, why in self.summary["missing"].items()]
        return "\n".join([*left_out, f"report: {self.html}"])


@typed
def report(
    folder: str | Path, output: str | Path | None = None, title: str | None = None
) -> Report:
    """Recompute tables, tests, figures and the report from the files of finished runs.

    Example:
        python -m metaseg_monai report runs/shapes

    Args:
        folder: of a study, or a folder with one folder for each evaluated model.
        output: where the report goes; by default the same folder.
        title: heading of the report; by default the study's name.

    Returns:
        The page, and its numbers.

    Raises:
        DataError: no run has results, or a file of a run is damaged.
        ConfigError: the study's files are damaged, or nothing can be written there.
    """
    page = Path(folder if output is None else output) / "report.html"
    with owned(page, "is writing this report", wait=True):  # of what there is, while runs go on
        html = write_report(folder, output, title)
        summary = json.loads((html.parent / "summary.json").read_text(encoding="utf-8"))
        return Report(html, summary)


def demo(
    output: str | Path = "runs/demo",
    variants: str | Sequence[str] = ("se", "me", "sme", "film"),
    seed: int = 0,
    **settings: Any,
) -> Report:
    """Generate synthetic shapes, train and test the variants, and write a report.

    Example:
        python -m metaseg_monai demo --output runs/demo

    Args:
        output: folder for the runs and the report; the data go into the bundle's folder.
        variants: comma-separated variants to train.
        seed: of the training; the data always have seed 0.
        settings: of the bundle, such as --epochs 2.

    Returns:
        The report.

    Raises:
        TrainingError: some runs failed; the others are reported.
    """
    return study(DEMO, variants, [seed], output, **settings)


def study(
    target: str | Path,
    variants: str | Sequence[str] | None = None,
    seeds: Any = None,
    output: str | Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    cluster: str | None = None,
    cluster_settings: Mapping[str, Any] | None = None,
    tracking: str | None = None,
    *,
    folds: Any = None,
    whatif: bool = False,
    bundles: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> Report:
    """Run variants x seeds of a bundle, go on where it stopped, and report with tests.

    Example:
        python -m metaseg_monai study synthetic_shapes_segmentation \
--variants none,se,me,sme,sme-dummy,film,film-dummy,experts --seeds 3 --output runs/shapes

    Args:
        target: JSON file of a study, or name or folder of a bundle.
        variants: none, se, me, sme, sme-duplicated, sme-deep, sme-late, me-direct, film,
            film-ivadomed, adaptive-norm, low-rank, hyper, constant-channel, weight-noise,
            meta-image; those that take metadata also with -dummy; experts (one SE network a
            domain, equal epochs), experts-steps (equal steps). Only for a bundle.
        seeds: how many training seeds, or which, as 4,7.
        output: folder of the study, by default runs/<name>; a finished run in it is kept.
        workers: runs beside each other; by default one for each GPU or group of cores.
        threads: cores of a run.
        cluster: slurm submits the runs as jobs (pip install "metaseg-monai[slurm]").
        cluster_settings: of the jobs, as '{"timeout_min": 60, "slurm_partition": "gpu"}'.
        tracking: MLflow store, as sqlite:///runs/mlflow.db
            (pip install "metaseg-monai[tracking]").
        folds: of a bundle whose table deals folds: all (each case is tested once, one training a
            fold for each condition and seed), or which, as 0,1,2.
        whatif: also write whatif.html, the page of ``whatif``, beside the first model of each
            condition that reads metadata.
        bundles: folder in which a bundle's name is looked for; by default ./bundles, then those
            installed with the package.
        trust: run a study, or a bundle, that holds more than what is known to be harmless.
        settings: of the bundle for all runs, those of its train.json and evaluate.json: as
            --epochs 50 --batch_size 4 --domain scanner.

    Returns:
        The report.

    Raises:
        ConfigError: a wrong argument, before anything is trained.
        TrainingError: some runs failed; the others are reported.
    """
    made = make_study(target, variants, seeds, settings, bundles, trust, folds)
    folder = Path(output or f"runs/{made.name.lower().replace(' ', '_')}").resolve()
    with owned(folder, "is running this study"):
        where = (workers, threads, cluster, cluster_settings)
        failed = run_study(made, folder, *where, tracking, trust)
        runs = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
        told = f"{runs} failed; the same command tries again ({folder})"
        told += "".join(f"\n  {run}: {why}" for run, why in failed.items())
        try:
            found = report(folder)
        except MetasegError as error:
            if failed:
                raise TrainingError(f"{told}\nno report: {error}") from error
            raise
        if whatif:
            _write_pages(made, folder, trust)
        if tracking is not None:
            track_study(tracking, made, folder)
        if failed:
            raise TrainingError(f"{told}\nreport of the others: {found.html}")
        return found


def _write_pages(made: Study, folder: Path, trust: bool) -> None:
    """Write the page of the first model of each condition that reads metadata; tell which fail."""
    first: dict[str, Run] = {}
    for run in expand(made, trust):
        first.setdefault(run.condition, run)
    for run in first.values():
        variant, model = run.settings["variant"], folder / run.folder
        if not reads_metadata(variant) or variant != base_variant(variant):
            continue
        try:
            logger.warning("%s", write_page(model, run.table, model / "whatif.html", trust=trust))
        except MetasegError as error:
            logger.warning("%s: no page: %s", run.folder, error)


def make_study(
    target: str | Path,
    variants: str | Sequence[str] | None,
    seeds: Any,
    overrides: Mapping[str, Any],
    bundles: str | Path | None = None,
    trust: bool = False,
    folds: Any = None,
) -> Study:
    """Return the study that a command line describes.

    Args:
        target: JSON file of a study, or name or folder of a bundle.
        variants: conditions, comma-separated; only for a bundle.
        seeds: how many training seeds, or which ones; None for those of the file, or three.
        overrides: settings of the bundle for all runs; they win over those of the file.
        bundles: folder in which a bundle's name is looked for.
        trust: take settings that MONAI would read, with ``$``, ``@`` or ``%``, from a file.
        folds: "all", or which ones; None only where the bundle's table deals none.

    Returns:
        The study, with settings in MONAI's language.

    Raises:
        ConfigError: a wrong argument, or the file is no study, or one that needs trust.
    """
    target = str(target)
    given = Study.load(target) if target.endswith(".json") else None
    if given is not None and variants is not None:
        raise ConfigError(f"{target} names its conditions itself; leave --variants out.")
    if given is not None and folds is not None:
        raise ConfigError(f"{target} names its folds itself (folds); leave --folds out.")
    bundle = resolve_bundle(target if given is None else given.bundle, bundles)
    defaults = dict(flatten(load_config([bundle / "configs" / name for name in CONFIGS])))
    settings = {
        key: entered(name, value, defaults.get(name))
        for key, value in overrides.items()
        for name in [key.lstrip("+").replace("::", "#")]
    }
    if given is None:
        made = Study(
            name=Path(target).name.removesuffix("_segmentation").replace("_", " ").capitalize(),
            bundle=target if bundles is None else str(bundle),
            conditions=names(VARIANTS if variants is None else variants),
            seeds=_seeds(3 if seeds is None else seeds),
            settings=settings,
        )
        return Study(**{**made.model_dump(), "folds": _folds(folds, made, trust)})
    if told := refuse_untrusted(read_by_monai(given, target), trust, f"The study {target}"):
        logger.warning("%s", told)
    study = given.model_dump()
    study["settings"] |= settings
    study["bundle"] = given.bundle if bundles is None else str(bundle)
    if seeds is not None:
        study["seeds"] = _seeds(seeds)
    return Study(**study)


def _folds(asked: Any, made: Study, trust: bool) -> list[int] | None:
    """The folds that a study tests: those that were asked for, of those that its table deals.

    A table that deals folds has one of them as its split test, too: which are meant must be said.
    """
    table, known = folds_of_study(made, trust)
    if asked is None and not known:
        return None
    every = ", ".join(map(str, known))
    if not known:
        raise ConfigError(
            f"--folds {asked}: {table} deals no folds to test on; leave --folds out, or make the "
            "bundle with new-bundle --folds 5."
        )
    if asked is None:
        raise ConfigError(
            f"{made.bundle}: its table deals the folds {every} ({table}); say which the study "
            f"tests: --folds all (every case is tested once, {len(known)} trainings for each "
            f"condition and seed), or --folds {known[0]} (the cases of that fold alone)."
        )
    try:
        given = [asked] if isinstance(asked, int) else names(asked)
        chosen = known if given == ["all"] else [int(fold) for fold in given]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--folds {asked}: give all, or some of {every}.") from error
    if isinstance(asked, bool) or not chosen or set(chosen) - set(known):
        raise ConfigError(f"--folds {asked}: {table} deals the folds {every}; give all, or these.")
    return chosen


def _seeds(seeds: Any) -> list[int]:
    """Three is 0, 1, 2; a list is itself.

    >>> _seeds(2), _seeds("4,7"), _seeds((1, 2))
    ([0, 1], [4, 7], [1, 2])
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return list(range(seeds))
    try:
        return [int(seed) for seed in names(seeds)]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--seeds {seeds}: give a number of seeds, or a list as 4,7.") from error


def names(text: str | Sequence[str]) -> list[str]:
    """Split a comma-separated argument; a sequence is itself.

    >>> names("se, sme")
    ['se', 'sme']
    """
    parts = text.split(",") if isinstance(text, str) else map(str, text)
    return [part.strip() for part in parts if part.strip()]
