"""Score predicted volumes against labels in the geometry of their files, as challenges do."""

import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from metaseg_monai.errors import (
    ConfigError,
    DataError,
    DataWarning,
    Problem,
    as_refusal,
    listing,
    system_refusal,
)
from metaseg_monai.evaluation import read_volumes
from metaseg_monai.evaluation.per_case import TEXT
from metaseg_monai.evaluation.predicted import MadeBy, predicted_masks
from metaseg_monai.evaluation.provenance import SEEN
from metaseg_monai.evaluation.volume_table import VOLUMES
from metaseg_monai.files import absolute, read_json
from metaseg_monai.images.geometry import axial_volume, same_grid, voxels_apart
from metaseg_monai.images.image import Image, image_suffix, unusable
from metaseg_monai.images.read import read_label
from metaseg_monai.metrics.volumes import (
    FOUND_SHARE,
    KITS_REGIONS,
    LARGEST_CLASS,
    Region,
    VolumeScore,
    fitting_regions,
    make_regions,
    score_volume,
)
from metaseg_monai.naming import composed
from metaseg_monai.owners import owned
from metaseg_monai.prepare.kits_source import (
    CASE_FOLDERS,
    CLASS_NAMES,
    IMAGE_NAMES,
    LABEL_NAMES,
    find_kits,
)
from metaseg_monai.rows import PROBLEMS, problems_of, write_problems
from metaseg_monai.tables.table import known_class_names, parse_class_names
from metaseg_monai.training.weights import EVALUATION

SCORES = replace(VOLUMES, columns={**VOLUMES.columns, "weights_sha256": TEXT})

# Which predicted mask belongs to which label.

SUFFIXES = (".nii", ".nii.gz")
FILE_NAMES = (*IMAGE_NAMES, *LABEL_NAMES)  # of one case, which its folder names
KITS_CASE = re.compile(r"case_\d{5}")
KITS = "kits"  # of the option regions
IMAGE_ENDING = "_imaging"
SHOWN = 5


class Pair(NamedTuple):
    """Files of one case."""

    case: str
    pred: Path
    label: Path


class Pairs(NamedTuple):
    """Pairs in the order of their names, and what has no partner; what classes are."""

    pairs: list[Pair]
    unpredicted: list[str]
    class_names: Mapping[int, str] = {}
    unlabelled: Sequence[Problem] = ()


def find_pairs(predictions: str | Path, labels: str | Path) -> Pairs:
    """Pair NIfTI masks by the names of their cases.

    A file ``case_00000.nii.gz`` or ``case_00000_imaging.nii.gz`` is of the case case_00000; one
    that is named as in a KiTS download (imaging, aggregated_MAJ_seg, segmentation) is of the case
    that names its folder. Folders are searched two levels deep. Links go by their own names.

    Args:
        predictions: folder of masks, or one mask.
        labels: folder of labels, a KiTS download (the aggregated_MAJ_seg, else the segmentation of
            each case), or, with one mask, its label.

    Raises:
        DataError: nothing is there, or no prediction has a label.
    """
    broken: dict[str, Problem] = {}
    found = _masks(Path(predictions), "predictions", broken)
    known, names = _labels(Path(labels), broken)
    for case in broken:
        found.pop(case, None)
        known.pop(case, None)
    if not found:
        raise DataError(f"nothing can be scored: {listing(broken.values(), 3, str)}")
    if Path(predictions).is_file() and Path(labels).is_file() and known:
        (pred,), ((case, label),) = found.values(), known.items()
        return Pairs([Pair(case, pred, label)], [], names)
    strangers = sorted(set(found) - set(known))
    held = listing(sorted(known), SHOWN, str)
    told = f"predicted, but without a label in {labels}, which has {held}"
    step = f"name labels and predictions alike, or remove what is no prediction from {predictions}"
    if len(strangers) == len(found):
        raise DataError(f"{listing(strangers, SHOWN, str)}: {told}; {step}")
    unlabelled = [Problem(case, str(found[case]), told, step) for case in strangers]
    unlabelled += broken.values()
    pairs = [Pair(case, found[case], known[case]) for case in sorted(set(found) & set(known))]
    return Pairs(pairs, sorted(set(known) - set(found)), names, unlabelled)


def _labels(source: Path, broken: dict[str, Problem]) -> tuple[dict[str, Path], Mapping[int, str]]:
    """The labels by their cases, and the names of their classes, as far as the data tell them."""
    inside = (path for name in CASE_FOLDERS for path in (source / name).glob("case_*"))
    if source.is_dir() and any(path.is_dir() for path in inside):
        cases = find_kits(source, labels_only=True).cases
        if cases:
            return {case.case: case.masks[0] for case in cases}, CLASS_NAMES
    known = [source / name for name in LABEL_NAMES if (source / name).is_file()]
    if known:  # the folder of one case, with its scan beside the label
        return {composed(absolute(source).name): known[0]}, _of_kits(known)
    folder = source if source.is_dir() else source.parent
    found = _masks(source, "labels", broken)
    return found, known_class_names(folder) or _of_kits(found.values())


def _of_kits(labels: Iterable[Path]) -> Mapping[int, str]:
    """KiTS' classes, where all labels have the names that only KiTS gives them."""
    of_kits = (
        label.name.startswith("aggregated_")
        or (label.name in LABEL_NAMES and KITS_CASE.fullmatch(absolute(label).parent.name))
        for label in labels
    )
    return CLASS_NAMES if all(of_kits) else {}


def _masks(source: Path, what: str, broken: dict[str, Problem]) -> dict[str, Path]:
    """The NIfTI files of a folder by the names of their cases; others are `broken`."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; check the path of the {what}")
    paths = [source] if source.is_file() else sorted([*source.glob("*"), *source.glob("*/*")])
    files = [
        path
        for path in paths
        if image_suffix(path) in SUFFIXES
        and not path.name.startswith(".")
        and not (path.is_dir() and any(image_suffix(one) in SUFFIXES for one in path.iterdir()))
    ]
    if not files:
        raise DataError(
            f"{source}: no NIfTI masks; expected {what} as case_00000.nii.gz or "
            "case_00000/segmentation.nii.gz"
        )
    named: dict[str, Path] = {}
    for path in files:
        case = _case_of(path)
        if why := unusable(path):
            broken[case] = Problem(case, str(path), *why)
        elif named.setdefault(case, path) != path:
            told = f"both {named[case]} and this are its {what}"
            broken[case] = Problem(case, str(path), told, "keep one")
    return named


def _case_of(path: Path) -> str:
    if path.name in FILE_NAMES:
        return composed(absolute(path).parent.name)
    return composed(path.name[: -len(image_suffix(path))].removesuffix(IMAGE_ENDING))


# The table that a command is to write: a free place, or a table that the command wrote before.


def output_table(output: str | Path) -> Path:
    """The file to write; seen to be possible before long work, and to replace nobody's own file.

    Nothing is made: a command that fails leaves no folder behind.

    Args:
        output: CSV file, or folder that gets ``volumes.csv``.

    Raises:
        DataError: a file is there that begins otherwise, or none can be written there.
    """
    path = Path(output) if Path(output).suffix == ".csv" else Path(output) / FILE_NAME
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; choose another output, or remove it")
        if path.exists() and not VOLUMES.begins(path):
            raise DataError(
                f"{path}: would be replaced, but does not begin with {','.join(VOLUMES.first)} as "
                "a table of scores does; choose another output, or move it away"
            )
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        if not folder.is_dir():
            raise DataError(
                f"--output {output}: {folder} is a file; choose a folder, or a file named .csv"
            )
        if (path.parent / EVALUATION).exists():
            raise DataError(
                f"{path}: belongs to the evaluation beside it ({EVALUATION}); choose another output"
            )
        with tempfile.TemporaryFile(dir=folder):
            return path
    except OSError as error:
        raise system_refusal(error, f"--output {output}") from error


FILE_NAME = "volumes.csv"


class Scored(str):
    """What `score` tells: means of each region, and where the table is.

    Attributes:
        folder: of the table.
        problems: of what could not be scored, all in `problems_file`.
        problems_file: ``problems.csv`` in a folder of scores, ``scores.problems.csv`` beside
            a table scores.csv.
    """

    folder: Path
    problems: list[Problem]
    problems_file: Path


def score(
    predictions: str | Path,
    labels: str | Path,
    output: str | Path,
    regions: Mapping[str, Mapping[str, Any]] | str | None = None,
    class_names: str | Mapping[str, str] | None = None,
    found_share: float = FOUND_SHARE,
    samples: bool = False,
) -> Scored:
    """Score predicted volumes against labels as challenges do, and write ``volumes.csv``.

    Example:
        python -m metaseg_monai score --predictions masks --labels kits21/data --output scores
        python -m metaseg_monai score --predictions masks --labels labels --output scores \
--class_names "1=kidney,2=liver"

    Dice, surface Dice, HD95, volumes and lesions of each case and region, in the geometry of the
    files, and the SHA-256 of the weights that made the mask, where its list tells it. KiTS21's own
    evaluation takes the mean over sampled segmentations of each case by default, and so did its
    test; against the majority vote (aggregated_MAJ_seg), which is what is taken here, it is its
    --use_maj_voting_as_gt. --samples True takes the samples.

    Args:
        predictions: folder of NIfTI masks, or one, see `find_pairs`.
        labels: folder of NIfTI labels or a KiTS download, or one label.
        output: CSV file, or folder that gets ``volumes.csv``. Only scores of volumes are replaced.
        regions: ``{name: {"classes": [...], "tolerance_mm": ...}}``, classes by number or name,
            or a JSON file of that; kits for those of KiTS. By default those of KiTS for a KiTS
            download, else each class alone, within 1 mm.
        class_names: of the labels; by default those that they tell themselves (KiTS, classes.json,
            dataset.json), else classes are told by number.
        found_share: of a lesion's voxels that must be predicted for it to be found.
        samples: of a KiTS21 download in which its sample_segmentations.py was run: the mean over
            all files of each case's segmentation_samples/.

    A prediction without a label, two files of one case, and a pair that cannot be read, or whose
    mask has another shape or place than its label or values that are no classes of the regions, are
    left out and told of.

    Raises:
        DataError: files cannot be paired, no pair can be scored, or the output cannot be written,
            or would replace a file that is no table of scores.
        ConfigError: the regions, names or the share are none.
    """
    given, asked = _regions(regions), parse_class_names(class_names)
    found = find_pairs(predictions, labels)
    path = output_table(output)
    named = asked or (CLASS_NAMES if regions == KITS else found.class_names)
    if given is not None:
        made = make_regions(given, named)
    else:
        made = fitting_regions(KITS_REGIONS, named, _present(found, named))
    folder = Path(predictions) if Path(predictions).is_dir() else Path(predictions).parent
    predicted = predicted_masks(folder)
    highest = max([number for region in made for number in region.classes] + list(named))
    told_in = problems_of(path) if path == Path(output) else path.parent / PROBLEMS
    with owned(output, "is writing scores here"):
        rows: list[dict[str, Any]] = []
        problems = list(found.unlabelled)
        for pair in tqdm(found.pairs, desc="score", unit="case", disable=None):
            file = Path(os.path.relpath(pair.pred, folder)).as_posix()
            made_by = predicted.get(file, MadeBy())
            names = {"volume": pair.case, "group": pair.case, "split": made_by.trained or ""}
            names |= {"mode": "normal", "weights_sha256": made_by.weights_sha256}
            try:
                pairs = _samples(pair) if samples else [pair]
                scores = _mean([_score_pair(one, made, found_share, highest) for one in pairs])
            except (DataError, OSError) as error:
                if not rows and pair is found.pairs[-1]:
                    raise
                text = str(as_refusal(error) or error).removeprefix(f"case {pair.case}: ")
                faulty = [file for file in (pair.pred, pair.label) if text.startswith(f"{file}: ")]
                file = faulty[0] if faulty else pair.pred
                problems.append(Problem.of_error(pair.case, str(file), file, DataError(text)))
                continue
            rows += [{**names, **one._asdict()} for one in scores]
        try:
            SCORES.write(path, rows)
            write_problems(told_in.parent, problems, told_in.name)
        except OSError as error:  # a full disk, say
            raise system_refusal(error, f"--output {output}") from error
    lines = [*_by_seen(read_volumes(path)), f"all cases: {path}"]
    files = [Path(os.path.relpath(pair.pred, folder)).as_posix() for pair in found.pairs]
    of = {predicted.get(name, MadeBy()).weights_sha256 for name in files}
    if len(of) > 1:
        lines.append(
            f"the masks are of {len(of)} different weights (or of unknown ones), whose scores are "
            "mixed here; the column weights_sha256 tells them apart"
        )
    if unknown := [name for name in files if predicted.get(name, MadeBy()).trained is None]:
        lines.append(
            f"nobody knows of {len(unknown)} of {len(files)} masks whether the network was trained "
            "on their patients"
        )
    if found.unpredicted:
        missing = found.unpredicted
        lines.append(
            f"not scored: {len(missing)} labels without a prediction, such as {missing[0]}"
        )
    told = Scored("\n".join(lines))
    told.folder, told.problems, told.problems_file = path.parent, problems, told_in
    return told


def _by_seen(volumes: pd.DataFrame) -> list[str]:
    """The summary, apart for patients that the network was trained on, or chosen by."""
    seen = volumes["split"].isin(SEEN)
    if not seen.any():
        return [summarise_volumes(volumes)]
    number, of = (table["volume"].nunique() for table in (volumes[seen], volumes))
    lines = [f"{of - number} of {of} patients, which the network has not seen:"] * (number < of)
    lines += [summarise_volumes(volumes[~seen])] * (number < of)
    lines.append(
        f"{number} of {of} patients by whose image or name the network was trained (split train) "
        "or chosen (val); these are no test, and the column split tells them apart:"
    )
    return [*lines, summarise_volumes(volumes[seen])]


def _samples(pair: Pair) -> list[Pair]:
    """The prediction of a case beside each of its sampled segmentations, as KiTS21 lays them."""
    files = sorted(pair.label.parent.glob("segmentation_samples/group*/*.nii.gz"))
    if not files:
        raise DataError(
            f"case {pair.case}: {pair.label.parent}/segmentation_samples has no group*/*.nii.gz; "
            "run KiTS21's annotation/sample_segmentations.py, or leave --samples out"
        )
    return [pair._replace(label=file) for file in files]


def _mean(scores: list[list[VolumeScore]]) -> list[VolumeScore]:
    """The mean of every number of each region; of HD95 over those that have one."""
    if len(scores) == 1:
        return scores[0]
    means = []
    for one in zip(*scores, strict=True):
        numbers = pd.DataFrame([score[1:] for score in one]).mean()  # leaves out NaN
        means.append(VolumeScore(one[0].region, *numbers))
    return means


def _regions(given: Mapping[str, Any] | str | None) -> Mapping[str, Any] | None:
    """Regions as they are written, in words, in a file, or as a mapping."""
    if given == KITS:
        return KITS_REGIONS
    if given is None or isinstance(given, Mapping):
        return given
    try:
        content = read_json(given)
        if not isinstance(content, dict):
            raise ValueError("no object")
        return content
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'regions {given}: {error}; give {KITS}, or a JSON file {{"liver": {{"classes": [2], '
            '"tolerance_mm": 1.0}}}'
        ) from error


def _present(found: Pairs, named: Mapping[int, str]) -> list[int]:
    """The classes besides the background: those with a name, or all that a file holds."""
    if named:
        return [number for number in named if number > 0]
    highest = 1
    for pair in found.pairs:
        for path in (pair.pred, pair.label):
            with suppress(DataError):  # told where its case is scored
                highest = max(highest, int(read_label(path, spatial_dims=3).array.max()))
    return list(range(1, min(highest, LARGEST_CLASS) + 1))


def summarise_volumes(volumes: pd.DataFrame) -> str:
    """Means over the volumes of one mode as text, a line for each region.

    Args:
        volumes: of `read_volumes`.
    """
    lines = [
        f"{'region':<20}{'n':>5}{'Dice':>8}{'surface Dice':>14}{'HD95 mm (n)':>15}"
        f"{'lesions found':>15}{'false':>7}"
    ]
    for region, part in volumes.groupby("region", sort=False):
        distances = part["hd95_mm"].dropna()
        far = f"{distances.mean():.2f} ({len(distances)})" if len(distances) else "- (0)"
        lesions = f"{part['lesions_found'].sum()} of {part['lesions'].sum()}"
        lines.append(
            f"{region:<20}{len(part):>5}{part['dice'].mean():>8.4f}"
            f"{part['surface_dice'].mean():>14.4f}{far:>15}{lesions:>15}"
            f"{part['lesions_false'].sum():>7}"
        )
    lines.append("Dice and surface Dice: 1 where label and mask are empty, 0 where one is;")
    lines.append("HD95: only of volumes where neither is.")
    return "\n".join(lines)


def _score_pair(
    pair: Pair, regions: list[Region], found_share: float, highest: int
) -> list[VolumeScore]:
    try:
        pred, label = (read_label(path, spatial_dims=3) for path in (pair.pred, pair.label))
        _check_geometry(pair, pred, label)
        planes = []
        for image in (pred, label):
            classes = _classes(image, highest)
            planes.append(axial_volume(Image(classes, label.attributes)))
        for remark in planes[1].remarks:
            warnings.warn(f"case {pair.case}: {pair.label}: {remark}", DataWarning, stacklevel=2)
        spacing = planes[1].spacing_mm
        return score_volume(
            planes[0].planes, planes[1].planes, spacing, regions, found_share=found_share
        )
    except DataError as error:
        raise DataError(f"case {pair.case}: {error}") from error


def _check_geometry(pair: Pair, pred: Image, label: Image) -> None:
    if pred.array.shape != label.array.shape:
        raise DataError(
            f"{pair.pred} has the shape {pred.array.shape[1:]}, its label {label.array.shape[1:]}; "
            "resample the mask to the grid of the label"
        )
    for image in (pred, label):
        if image.attributes["affine"] is None:
            raise DataError(
                f"{image.attributes['path']}: has no affine (sform_code and qform_code are 0), so "
                "mask and label cannot be laid over each other; save it with its true affine"
            )
    grids = pred.attributes["affine"], label.attributes["affine"]
    if not same_grid(*grids, label.array.shape[1:]):
        apart = voxels_apart(*grids, label.array.shape[1:])
        raise DataError(
            f"{pair.pred} and its label lie up to {apart:.3g} voxels apart (affines differ); write "
            "the mask with the affine of the image"
        )


def _classes(image: Image, highest: int) -> np.ndarray:
    """The array (1, H, W, D) as uint8."""
    array = image.array
    if array.min() < 0 or array.max() > highest:
        raise DataError(
            f"{image.attributes['path']}: values from {array.min()} to {array.max()}; expected "
            f"whole numbers from 0 (background) to {highest}, the highest class of a region or "
            "with a name: give masks of classes"
        )
    return array.astype(np.uint8)
