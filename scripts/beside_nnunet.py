"""Train nnU-Net v2 on the cases of a table, and score its masks as one of our conditions.

nnU-Net is installed by its user in an environment of its own; this script runs in ours. See
docs/nnunet.md for the commands between `to` and `back`.
"""

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import tifffile
import torch

from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError, DataError, listing
from metaseg_monai.evaluation import KnownOfCases, count_pixels, read_counts
from metaseg_monai.evaluation.per_case import COUNTS, NAMES
from metaseg_monai.evaluation.provenance import SEEN, check_results, data_sha256
from metaseg_monai.files import absolute, file_sha256, new_folder, read_json, write_json
from metaseg_monai.images.geometry import axial_volume, same_grid
from metaseg_monai.images.image import Channels, Image
from metaseg_monai.images.read import read_label
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metrics.scores import case_f1, case_mean_f1
from metaseg_monai.metrics.statistics import compare_cases
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.nnunet import RECORD
from metaseg_monai.tables import CaseTable, fold_cases, read_table
from metaseg_monai.tables.check import LoadedCase, VolumeCache, load_case
from metaseg_monai.tables.columns import ColumnMap
from metaseg_monai.training.weights import EVALUATION

NAME = re.compile(r"Dataset\d{3}_\w+")
BESIDE = "beside.json"  # in nnU-Net's raw folder: which of our cases its cases are
METADATA = "metadata.csv"


def to(
    table: str,
    output: str,
    name: str,
    schema: str,
    columns: str | None = None,
    classes: int | None = None,
    channels: Channels = "stored",
    spatial_dims: int | None = None,
    channel_names: str | Sequence[str] | None = None,
    folds: int = 0,
) -> str:
    """Write the cases of a table in nnU-Net v2's form, with the same split.

    Example:
        python scripts/beside_nnunet.py to --table bundles/mine/data --output nnunet \
--name Dataset501_Mine --schema bundles/mine/configs/schema.json \
--columns bundles/mine/configs/columns.json

    Images become TIFF where they are planes and NIfTI where they are volumes, one file a channel;
    training and validation cases go to imagesTr, those of the test to imagesTs, the split into
    splits_final.json. The metadata stand in metadata.csv, for METASEG_TABLE.

    Args:
        table: the table, or its folder.
        output: new folder, which gets nnUNet_raw, nnUNet_preprocessed and nnUNet_results.
        name: of nnU-Net's data set, as Dataset501_Mine.
        schema: JSON file of the metadata.
        columns: JSON file of the column map, as each bundle of `new-bundle` has one.
        classes: number of classes, background included; by default those that the column map names,
            or two.
        channels: stored, grey or rgb, as of the bundle's LoadCased.
        spatial_dims: 3 leaves volumes as they are stored.
        channel_names: nnU-Net normalises by them (CT is known to it), with commas.
        folds: K: training cases are those of all folds, and splits_final.json has K splits; the
            test cases of fold k are in imagesFoldk.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the table or a case cannot be read.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name}: expected three digits and a word, as Dataset501_Mine")
    _refuse_filled(output)
    if classes is None:
        named = ColumnMap.load(columns).class_names if columns else {}
        classes = max([1, *map(int, named)]) + 1
    read: dict[str, Any] = {"table": table, "schema": schema, "columns": columns, "folds": folds}
    read |= {"classes": classes, "channels": channels, "spatial_dims": spatial_dims}
    files = {key: read[key] for key in ("table", "schema", "columns") if read[key]}
    read |= {key: str(absolute(file)) for key, file in files.items()}
    whole, splits = _splits(read)
    ids = _ids(whole)
    trained = {case for one in splits for case in (*one["train"], *one["val"])}
    tested = {case for case in ids if ids[case] not in trained}  # in no fold, or of the test
    if not all(one["train"] and one["val"] for one in splits):
        raise DataError(f"{table}: nnU-Net needs cases of the splits train and val; add such rows")
    with new_folder(output) as part:
        raw, prepared = part / "nnUNet_raw" / name, part / "nnUNet_preprocessed" / name
        for folder in (*(raw / one for one in ("imagesTr", "labelsTr")), prepared):
            folder.mkdir(parents=True)
        (part / "nnUNet_results").mkdir()
        sides, endings = set(), set()
        for row, loaded in _loaded(whole.rows, read):
            where = "Ts" if row["case"] in tested else "Tr"
            case = ids[row["case"]]
            sides.add(len(loaded.image))
            endings.add(_write_case(raw, where, case, loaded))
            for fold, one in enumerate(splits if folds else []):
                if case in one["test"]:
                    _link(raw, f"imagesFold{fold}", case)
        if len(endings) > 1 or len(sides) > 1:
            raise DataError(
                f"{table}: images of {sorted(sides)} channels, as {sorted(endings)}; nnU-Net takes "
                "one kind: choose --channels, or split the table"
            )
        described = _dataset(whole, classes, sides, endings, channel_names)
        write_json(raw / "dataset.json", {**described, "numTraining": len(ids) - len(tested)})
        write_json(
            prepared / "splits_final.json",
            [{key: one[key] for key in ("train", "val")} for one in splits],
        )
        known = MetadataSchema.load(read["schema"])
        rows = [
            {
                "case_id": ids[row["case"]],
                **{key: row["metadata"].get(key, "") or "" for key in known.names},
            }
            for row in whole.rows
        ]
        write_table(rows, raw / METADATA)
        write_json(raw / BESIDE, {"read": read, **_content(whole), "ids": ids, "splits": splits})
    return f"{len(ids)} cases: {output}"


def back(
    data: str,
    predictions: str | Sequence[str],
    checkpoint: str | Sequence[str],
    output: str,
    domain: str | None = None,
    force: bool = False,
) -> str:
    """Score nnU-Net's masks by our counts, as a condition that was trained elsewhere.

    Example:
        python scripts/beside_nnunet.py back --data nnunet/nnUNet_raw/Dataset501_Mine \
--predictions masks --checkpoint fold_0/checkpoint_final.pth --output "runs/mine/nnU-Net 2D"

    Args:
        data: the folder of the data set that `to` wrote.
        predictions: folder of masks of the test cases; with folds one for each, with commas.
        checkpoint: file of the weights that made them; one for each folder.
        output: new folder in that of a study (or of single runs), whose name is the condition's.
        domain: field whose value is the domain of a case, as in the study.
        force: take checkpoints of folds that do not lie in fold_0, fold_1 and so on.

    Whether the images were unseen is stated where ``metadata.json`` of our own prediction beside
    the masks names the weights; of what nnUNetv2_predict has made nobody knows, so it is unknown.

    Raises:
        ConfigError: the checkpoints are not one for each fold.
        DataError: a mask is missing, of another shape, of no class or of other weights; or the
            table, an image or a label has changed.
    """
    raw = Path(data)
    try:
        told = read_json(raw / BESIDE)
        read, ids, splits = told["read"], told["ids"], told["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{raw}: was not written by this script ({error}); name its data"
        ) from error
    folders, files = _listed(predictions), _listed(checkpoint)
    if not len(folders) == len(files) == len(splits):
        raise ConfigError(
            f"{len(folders)} folders of masks and {len(files)} checkpoints for {len(splits)} "
            "splits; give one of each for every split"
        )
    whole, _ = _splits(read)
    content = _content(whole)
    if any(told.get(key) != content[key] for key in content):
        raise DataError(
            f"{read['table']}: it, or an image or label of it, has changed since; write the data "
            "anew with `to`"
        )
    _refuse_filled(output)
    digests, bound = _weights(folders, files, force)
    schema = MetadataSchema.load(read["schema"])
    if domain is not None:
        schema.field(domain)
    ending = read_json(raw / "dataset.json")["file_ending"]
    masks = {
        case: Path(folder) / f"{case}{ending}"
        for folder, split in zip(folders, splits, strict=True)
        for case in split["test"]
    }
    if lacking := [str(mask) for mask in masks.values() if not mask.is_file()]:
        raise DataError(f"{listing(lacking)}: no mask; predict all test cases, {len(masks)}")
    rows = [row for row in whole.rows if ids[row["case"]] in masks]
    counts, spacing = [], []
    for row, loaded in _loaded(rows, read):
        value = "all" if domain is None else str(row["metadata"].get(domain))
        names = {**row, "split": "test", "mode": "normal", "domain": value}
        mask = masks[ids[row["case"]]]
        found = _mask(mask, loaded, read["classes"])
        for number, four in enumerate(found, 1):
            cells = dict(zip(("tp", "fp", "fn", "tn"), four, strict=True))
            counts.append({**{key: names[key] for key in NAMES}, "class": number, **cells})
        if (sides := _sides(row, loaded)) is not None:
            spacing.append((row["case"], [math.nan] * (3 - len(sides)) + list(sides)))
    with new_folder(output) as part:
        written = COUNTS.write(part / "counts.csv", counts)
        written += KnownOfCases(whole, schema).write(part / "cases.csv", spacing)
        record = {
            "weights_sha256": "+".join(digests),
            "model": {},
            "trained": "elsewhere, by nnU-Net v2",
            "split": "test",
            "images": "unseen" if bound else "unknown",
            "table_sha256": content["table_sha256"],
            "data_sha256": data_sha256(rows),
            "modes": ["normal"],
            "asked": ["normal"],
            "settings": {"domain": domain},
            "left_out": {},
            "files": {file.name: file_sha256(file) for file in written},
        }
        write_json(part / EVALUATION, record)
    mean = case_mean_f1(read_counts(Path(output) / "counts.csv"))
    return f"case mean F1 {mean.mean:.3f} ({mean.low:.3f} to {mean.high:.3f}): {output}"


def compare(first: Any, second: Any, margin: float | None = None) -> str:
    """Tell the difference of two evaluated models by case, with its paired interval.

    Example:
        python scripts/beside_nnunet.py compare runs/mine/none "runs/mine/nnU-Net 2D" --margin 0.01

    Args:
        first: folder with counts.csv, or several of folds, with commas.
        second: another one, of the same cases.
        margin: difference of the Dice that does not matter; the verdict is then told, too.
    """
    found = differences(_listed(first), _listed(second), margin)
    verdict = f": {found['verdict']}" if margin is not None else ""
    return f"{first} minus {second}{verdict}. {found['text']}"


def differences(
    first: Sequence[str], second: Sequence[str], margin: float | None = None
) -> dict[str, Any]:
    """The Dice of each case with true metadata, first minus second.

    Compared are the cases whose label holds foreground: averaged within each group, the interval
    draws groups. Of the others it is told on how many a model found what is not there.

    Args:
        first: folders with counts.csv, which together have every case once.
        second: the same cases of another model.
        margin: see `verdict_of`.

    Raises:
        DataError: the cases differ, one stands twice, or none has foreground; or a folder's results
            are not of the weights beside them, or of images of their training.
    """
    tables = [_normal(one) for one in (first, second)]
    cases = [case_f1(one) for one in tables]
    sizes = [one.assign(size=one["tp"] + one["fn"]).groupby("case")["size"].sum() for one in tables]
    if not sizes[0].sort_index().equals(sizes[1].sort_index()):
        raise DataError(
            f"{listing(first)} and {listing(second)}: other cases, or other labels of them; give "
            "models that were tested on the same"
        )
    full = sizes[0][sizes[0] > 0].index
    if full.empty:
        raise DataError(f"{listing(first)}: no case has foreground in its label")
    kept = [one[one["case"].isin(full)] for one in cases]
    found = compare_cases(kept[0], kept[1])
    means = [float(one["f1"].mean()) for one in kept]
    alarms = [
        int((one[~one["case"].isin(full)].groupby("case")["fp"].sum() > 0).sum()) for one in tables
    ]
    empty = len(sizes[0]) - len(full)
    text = (
        f"Dice {means[0]:.3f} and {means[1]:.3f}, difference {found.mean:+.3f} "
        f"({found.low:+.3f} to {found.high:+.3f}), {found.cases} cases of {found.groups} groups"
    )
    if empty:
        text += f"; of {empty} cases without foreground {alarms[0]} and {alarms[1]} were given some"
    told = {"dice": means, "difference": found.mean, "low": found.low, "high": found.high}
    told |= {"cases": found.cases, "groups": found.groups, "p_permutation": found.p_permutation}
    told |= {"empty": empty, "empty_with_false_positives": alarms, "text": text}
    if margin is not None:
        told |= {"margin": margin, "verdict": verdict_of(found.low, found.high, margin)}
    return told


def verdict_of(low: float, high: float, margin: float) -> str:
    """What an interval of a difference says of the first against the second.

    No worse: all of it lies above minus the margin. Worse: it reaches below that, and lies below 0.

    >>> verdict_of(-0.004, 0.02, 0.01), verdict_of(-0.03, -0.001, 0.01)
    ('no worse', 'worse')
    >>> verdict_of(-0.03, 0.02, 0.01), verdict_of(math.nan, math.nan, 0.01)
    ('cannot tell', 'cannot tell')
    """
    if low > -margin:
        return "no worse"
    return "worse" if low <= -margin and high < 0 else "cannot tell"


def _normal(folders: Sequence[str]) -> pd.DataFrame:
    for one in folders:
        seen = check_results(Path(one)).get("images")
        if seen in SEEN.values():
            raise DataError(
                f"{one}: tested on images that its weights were {seen}, so its scores are no test; "
                "give a folder of test cases"
            )
    counts = pd.concat([read_counts(Path(one) / "counts.csv") for one in folders])
    counts = counts[counts["mode"] == "normal"]
    if (twice := counts.duplicated(["case", "class"])).any():
        raise DataError(
            f"{listing(folders)}: case {counts['case'][twice].iloc[0]} stands twice; give each "
            "fold once"
        )
    return counts


def _splits(read: Mapping[str, Any]) -> tuple[CaseTable, list[dict[str, list[str]]]]:
    """The table, and nnU-Net's names of the cases of each split: one, or one for each fold."""
    schema = MetadataSchema.load(read["schema"])
    whole = read_table(read["table"], schema, read["columns"])
    ids = _ids(whole)
    parts = [whole]
    if read["folds"]:
        parts = [fold_cases(whole, fold) for fold in range(read["folds"])]
    return whole, [
        {
            split: [ids[row["case"]] for row in part.rows if row.get("split") == split]
            for split in ("train", "val", "test")
        }
        for part in parts
    ]


def _refuse_filled(output: str) -> None:
    if Path(output).is_file() or (Path(output).is_dir() and any(Path(output).iterdir())):
        raise ConfigError(f"--output {output}: exists already; delete it, or name another folder")


def _content(table: CaseTable) -> dict[str, Any]:
    """What tells the table's file, and the files of its images and labels."""
    return {"table_sha256": file_sha256(table.path), "data_sha256": data_sha256(table.rows)}


def _weights(folders: Sequence[str], files: Sequence[str], force: bool) -> tuple[list[str], bool]:
    """The digests of the checkpoints, and whether all masks name the one that made them.

    Raises:
        ConfigError: two folds have the same weights or masks, or others than the fold's.
        DataError: masks were made by other weights.
    """
    if absent := [file for file in files if not Path(file).is_file()]:
        raise ConfigError(
            f"--checkpoint {absent[0]}: no such file; name that of the masks' weights"
        )
    digests = [file_sha256(file) for file in files]
    places = [str(Path(folder).resolve()) for folder in folders]
    for what, given in (("checkpoint", digests), ("folder of masks", places)):
        if len(set(given)) < len(given):
            raise ConfigError(
                f"the same {what} stands for several folds, so that cases would be tested that it "
                "was trained on; give each fold its own"
            )
    several, bound = len(files) > 1, True
    for fold, (folder, file, digest) in enumerate(zip(folders, files, digests, strict=True)):
        if several and not force and Path(file).resolve().parent.name != f"fold_{fold}":
            raise ConfigError(
                f"{file}: does not lie in fold_{fold}, on whose test it is to be tested; give "
                "the checkpoints in the order of the folds, or --force True where they were moved"
            )
        if not (Path(folder) / RECORD).is_file():
            bound = False
            continue
        made = read_json(Path(folder) / RECORD).get("checkpoints_sha256") or {}
        if list(made.values()) != [digest] or (several and list(made) != [str(fold)]):
            raise DataError(
                f"{folder}: its {RECORD} names other weights than {file} of fold {fold}; give the "
                "checkpoint that made these masks alone"
            )
    return digests, bound


def _sides(row: Mapping[str, Any], loaded: LoadedCase) -> Sequence[float] | None:
    """Sides of a pixel or voxel in mm, as z, y, x or as y, x; None where nobody knows."""
    known = loaded.attributes
    if "plane" in known or loaded.image.ndim == 3:
        found: Sequence[float] | None = known.get("spacing_mm") or row.get("spacing_mm")
        return found
    if known.get("affine") is None:
        return None
    try:
        return axial_volume(Image(np.asarray(loaded.image[:1]), dict(known))).spacing_mm
    except DataError:  # so tilted that no stored axis is the body's z, y or x
        return None


def _ids(table: CaseTable) -> dict[str, str]:
    """A name for each case that any file system takes, distinct and telling."""
    width = len(str(len(table.rows)))
    return {
        str(row["case"]): f"{number:0{width}}_{re.sub('[^A-Za-z0-9-]+', '-', row['case'])[-60:]}"
        for number, row in enumerate(table.rows)
    }


def _loaded(
    rows: Sequence[Mapping[str, Any]], read: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], LoadedCase]]:
    volumes = VolumeCache()
    for row in rows:
        loaded = load_case(
            row, read["channels"], read["classes"], read["spatial_dims"], volumes=volumes
        )
        if loaded.label is None:
            raise DataError(f"{row['case']}: has no label; leave it out of the table")
        yield row, loaded


def _write_case(raw: Path, where: str, case: str, loaded: LoadedCase) -> str:
    """Write image and label of a case; return the ending of their names."""
    label: Any = loaded.label
    planes = [*loaded.image, label[0].astype(np.uint8)]
    names = [f"images{where}/{case}_{number:04}" for number in range(len(loaded.image))]
    ending = ".tif" if loaded.image.ndim == 3 else ".nii.gz"
    for name, plane in zip([*names, f"labels{where}/{case}"], planes, strict=True):
        file = raw / f"{name}{ending}"
        file.parent.mkdir(exist_ok=True)
        if ending == ".tif":
            tifffile.imwrite(file, _small(plane), compression="zlib")
        else:
            affine = loaded.attributes["affine"]
            nib.save(nib.Nifti1Image(_small(plane), np.eye(4) if affine is None else affine), file)
    return ending


def _small(plane: Any) -> Any:
    """Whole numbers of up to 16 bits as such, all else as float32."""
    array = np.asarray(plane)
    if array.dtype != np.float32:
        return array
    whole = array.min() >= 0 and array.max() <= 65535 and not np.any(array % 1)
    return array.astype(np.uint16) if whole else array


def _link(raw: Path, folder: str, case: str) -> None:
    (raw / folder).mkdir(exist_ok=True)
    for file in (raw / "imagesTr").glob(f"{case}_*"):
        try:
            os.link(file, raw / folder / file.name)
        except OSError:  # a file system without links
            shutil.copy2(file, raw / folder / file.name)


def _dataset(
    table: CaseTable, classes: int, sides: set[int], endings: set[str], names: Any
) -> dict[str, Any]:
    (channels,), (ending,) = sides, endings
    given = _listed(names) if names else [f"channel{number}" for number in range(channels)]
    if len(given) != channels:
        raise ConfigError(f"--channel_names {names}: expected {channels}, got {len(given)}")
    labels = {table.class_names.get(one, f"class{one}"): one for one in range(1, classes)}
    reader = "NaturalImage2DIO" if ending == ".tif" else "SimpleITKIO"
    return {
        "channel_names": {str(number): name for number, name in enumerate(given)},
        "labels": {"background": 0, **labels},
        "file_ending": ending,
        "overwrite_image_reader_writer": reader,
    }


def _mask(file: Path, loaded: LoadedCase, classes: int) -> list[list[int]]:
    label: Any = loaded.label
    read = read_label(file)
    mask = read.array[0]
    if mask.shape != label.shape[1:]:
        raise DataError(f"{file}: of shape {mask.shape}, the label of {label.shape[1:]}")
    if not same_grid(read.attributes["affine"], loaded.attributes["affine"], mask.shape):
        raise DataError(
            f"{file}: its affine is not that of the label, so that it lies elsewhere; give the "
            "masks that nnU-Net wrote of the images of `to`"
        )
    if mask.min() < 0 or mask.max() >= classes:
        raise DataError(f"{file}: value {mask.max()}, expected classes 0 to {classes - 1}")
    pred, true = (torch.from_numpy(one.astype(np.int64))[None] for one in (mask, label[0]))
    counts: list[list[int]] = count_pixels(pred, true, classes)[0].tolist()
    return counts


def _listed(given: Any) -> list[str]:
    return given.split(",") if isinstance(given, str) else [str(one) for one in given]


if __name__ == "__main__":
    run_script(to, back, compare)
