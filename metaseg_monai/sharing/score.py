"""Score predicted volumes against labels in the geometry of their files, as challenges do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from tqdm import tqdm

from metaseg_monai.data import Image, read_image, write_table
from metaseg_monai.data.axial import axial_volume
from metaseg_monai.data.nifti import SAME_PLACE_VOXELS
from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.lesions import FOUND_SHARE
from metaseg_monai.evaluation.volume_scores import TEXT_COLUMNS, read_volumes, volume_row
from metaseg_monai.evaluation.volumes import (
    KITS_REGIONS,
    Region,
    VolumeScore,
    make_regions,
    score_volume,
)
from metaseg_monai.sharing.output_table import cannot_write, output_table
from metaseg_monai.sharing.pairs import Pair, find_pairs

FILE_NAME = "volumes.csv"


def score(
    predictions: str | Path,
    labels: str | Path,
    output: str | Path,
    regions: Mapping[str, Mapping[str, Any]] | None = None,
    found_share: float = FOUND_SHARE,
) -> str:
    """Score masks against labels, write ``volumes.csv`` and return a summary.

    Args:
        predictions: folder of NIfTI masks, or one, see `find_pairs`.
        labels: folder of NIfTI labels or a KiTS download, or one label.
        output: CSV file, or folder that gets ``volumes.csv``. Only scores of volumes are replaced.
        regions: ``{name: {"classes": [...], "tolerance_mm": ...}}``; None for those of KiTS.
        found_share: of a lesion's voxels that must be predicted for it to be found.

    Raises:
        DataError: files cannot be paired or read, a mask has another shape or place than its
            label, or values that are no classes of the regions; names the case. Or the output
            cannot be written, or would replace a file that is no table of scores.
        ConfigError: the regions or the share are none.
    """
    made = make_regions(KITS_REGIONS if regions is None else regions)
    found = find_pairs(predictions, labels)
    path = output_table(output, FILE_NAME, TEXT_COLUMNS)
    rows = []
    for pair in tqdm(found.pairs, desc="score", unit="case", disable=None):
        names = {"volume": pair.case, "group": pair.case, "split": "", "mode": "normal"}
        rows += [volume_row(names, one) for one in _score_pair(pair, made, found_share)]
    try:
        write_table(rows, path)
    except OSError as error:  # a full disk, say
        raise cannot_write(output, error) from error
    lines = [summarise_volumes(read_volumes(path)), f"all cases: {path}"]
    if found.unpredicted:
        missing = found.unpredicted
        lines.append(
            f"not scored: {len(missing)} labels without a prediction, such as {missing[0]}"
        )
    return "\n".join(lines)


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


def _score_pair(pair: Pair, regions: list[Region], found_share: float) -> list[VolumeScore]:
    try:
        pred, label = (read_image(path, spatial_dims=3) for path in (pair.pred, pair.label))
        _check_geometry(pair, pred, label)
        planes = []
        for image in (pred, label):
            classes = _classes(image, regions)
            planes.append(axial_volume(Image(classes, label.attributes)))
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
    ends = np.array(np.meshgrid(*[(0, size - 1) for size in pred.array.shape[1:]])).reshape(3, -1).T
    places = [apply_affine(image.attributes["affine"], ends) for image in (pred, label)]
    apart_mm = float(np.sqrt(((places[0] - places[1]) ** 2).sum(axis=1)).max())
    if apart_mm > SAME_PLACE_VOXELS * min(label.attributes["spacing_mm"]):
        raise DataError(
            f"{pair.pred} and its label lie up to {apart_mm:.3g} mm apart (affines differ); write "
            "the mask with the affine of the image"
        )


def _classes(image: Image, regions: list[Region]) -> np.ndarray:
    """The array (1, H, W, D) as uint8."""
    array = image.array
    highest = max(number for region in regions for number in region.classes)
    whole = array.dtype.kind in "iu" or bool((array % 1 == 0).all())
    if not whole or array.min() < 0 or array.max() > highest:
        raise DataError(
            f"{image.attributes['path']}: values from {array.min()} to {array.max()}; expected "
            f"whole numbers from 0 (background) to {highest}, the highest class of a region: give "
            "masks of classes"
        )
    return array.astype(np.uint8)
