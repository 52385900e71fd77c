"""The world of the fault campaign: small inputs and results of every kind, and what reads them.

Which files are damaged and which commands are tried on them stands in faults.json.
"""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import tifffile
from goldens_inputs import write_bowl, write_cracks, write_lab, write_plates
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FIXED: Mapping[str, Any] = json.loads(Path(__file__).with_name("faults.json").read_text())
SHAPES, KITS = "synthetic_shapes_segmentation", "kits21_tumour_slices_segmentation"
SHAPE = (32, 40)
FORMATS = (
    "strip.tif", "tiled.tif", "lzw.tif", "ome.tif", "deflate.tif", "grey.png", "photo.jpg",
    "plain.nii", "packed.nii.gz",
)  # fmt: skip


class Target(NamedTuple):
    """Files of one kind, and the commands that read them.

    Attributes:
        kind: a word for the table.
        often: how many tickets the target has.
        files: pattern of the paths, relative to the world.
        parts: what of the world the commands need.
        commands: behind ``python -m metaseg_monai``; one of them is tried at a time.
        outputs: patterns of what they write, which is compared.
    """

    kind: str
    often: int
    files: str
    parts: Sequence[str]
    commands: Sequence[str]
    outputs: Sequence[str]


class Job(NamedTuple):
    """A command that is killed, run twice at once and given no room.

    Attributes:
        kind: a word for the table.
        often: how many tickets it has.
        parts: what of the world it needs.
        command: that is stopped.
        outputs: patterns of the files that are compared.
        again: the command that goes on afterwards, where it is another one.
        kept: folder whose files are to be somewhere in it afterwards.
    """

    kind: str
    often: int
    parts: Sequence[str]
    command: str
    outputs: Sequence[str]
    again: str = ""
    kept: str = ""


def spoken(command: str) -> str:
    """The command with what its first word stands for, as @train does."""
    name, space, rest = command.partition(" ")
    return f"{FIXED['commands'][name[1:]]}{space}{rest}" if name.startswith("@") else command


MADE = [spoken(one) for one in FIXED["made"]]
TARGETS = [
    Target(**{**one, "parts": one["parts"].split(), "commands": [*map(spoken, one["commands"])]})
    for one in FIXED["targets"]
]
JOBS = [
    Job(
        **{
            **one,
            "parts": one["parts"].split(),
            "command": spoken(one["command"]),
            "again": spoken(one.get("again", "")),
        }
    )
    for one in FIXED["jobs"]
]


def write_world(world: Path) -> None:
    """Write the inputs; the results are made of them by the commands of `MADE`.

    Args:
        world: an empty folder.
    """
    for name in (SHAPES, KITS):
        ignored = shutil.ignore_patterns("data", "data_*", "models", "eval", "studies")
        shutil.copytree(ROOT / "bundles" / name, world / "bundles" / name, ignore=ignored)
    write_cells(world / "cells")
    rest = {"dataset_dir": "cells", "schema_file": "cells/schema.json", "epochs": 1}
    rest |= {"intensity_range": [0, 255], "roi_size": [32, 32], "batch_size": 4}
    rest |= {"network_def#channels": 4, "network_def#levels": 2, "val_batch_size": 1}
    settings = {**rest, "modes": ["normal"]}
    study: dict[str, Any] = {"name": "s", "question": "does it?", "bundle": f"bundles/{SHAPES}"}
    study |= {"settings": settings, "conditions": ["se", "me"], "seeds": [0]}
    study["protocol"] = {"aggregate": "combined", "comparisons": [["me", "se"]], "test": "t"}
    study["protocol"] |= {"sample_size": 4, "tuned_on": "val"}
    _json(world / "study.json", study)
    _json(world / "mine.json", {"base_lr": 0.001, "network_def#reduction": 2.0})
    cases = [f"case_{n:05d}" for n in range(6)]
    sizes = [{"case_id": case, "radiographic_size": 2 + 0.5 * n} for n, case in enumerate(cases)]
    _table(world / "clinical.csv", sizes)
    _json(world / "clinical.json", sizes)
    _write_dicom(world / "dicom" / "series")
    write_lab(world)
    broken = [f"im{n:02d}" for n in (1, 3, 4, 6)]  # a sound laboratory: only damages are to show
    lines = (world / "lab/lab.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("gone", *broken))]
    (world / "lab/lab.csv").write_text("\n".join(kept) + "\n")
    for name in (*broken, "extra"):
        (world / f"lab/images/{name}.tif").unlink()
        (world / f"lab/masks/{name}.png").unlink(missing_ok=True)
    write_plates(world)
    for path in (world / "stacks").glob("*MCF_B01*"):
        path.unlink()
    (world / "stacks/notes.txt").unlink()
    (world / "stacks/masks/MCF_B01_mask.png").unlink()
    write_bowl(world)
    shutil.rmtree(world / "stage1_train/id2")
    write_cracks(world)
    for name in ("opera", "meta", "mendeley", "forest", "colour", "undivided.csv"):
        path = world / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_cells(folder: Path) -> None:
    """Images of all formats with labels, a table, a schema and a column map."""
    rows = []
    for n in range(27):
        random, form = np.random.default_rng(n), FORMATS[n % 9]
        label = np.zeros(SHAPE, np.uint8)
        top, left = random.integers(2, 12, 2)
        label[top : top + 16, left : left + 18] = 1
        image = (random.integers(0, 80, SHAPE) + 120 * label).astype(np.uint8)
        name = f"cell{n:02d}_{form}"
        _write_format(folder / "images" / name, image, form)
        told = name.rpartition("_")[0]
        packed = form.endswith((".nii", ".gz"))
        ending = "map.nii.gz" if packed else ("mask.tif", "mask.png")[n % 2]
        _write_format(folder / "labels" / f"{told}_{ending}", label, ending)
        split = "train" if n < 9 else "val" if n < 14 else "test"
        row = {"image": f"images/{name}", "label": f"labels/{told}_{ending}"}
        row |= {"task": ("disc", "ring")[n // 2 % 2], "size_um": str(5 + n % 20) if n % 7 else ""}
        rows.append({**row, "group": f"well{n}", "split": split})
    _table(folder / "table.csv", rows)
    known = {"provenance": "acquisition", "availability": "acquisition", "description": "of cells"}
    task = {"kind": "categorical", "name": "task", "values": ["disc", "ring"], "missing": "error"}
    size = {"kind": "continuous", "name": "size_um", "unit": "um", "range": [2, 40]}
    size |= {"scale": "log", "missing": "unknown", "out_of_range": "error"}
    _json(folder / "schema.json", {"fields": [{**task, **known}, {**size, **known}]})
    columns = {"table": "table.csv", "group": "group", "exclude": ["images/cell01_tiled.tif"]}
    _json(folder / "columns.json", columns)


def _write_format(path: Path, array: np.ndarray, form: str) -> None:
    """Write an array (H, W) in one of the formats."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "lzw.tif":
        Image.fromarray(array).save(path, compression="tiff_lzw")
    elif form.endswith(".tif"):
        options: dict[str, Any] = {"photometric": "minisblack"}
        options |= {"tile": (16, 16)} if form == "tiled.tif" else {}
        options |= {"compression": "zlib"} if form == "deflate.tif" else {}
        if form == "ome.tif":
            options |= {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.5}}
        tifffile.imwrite(path, array, **options)
    elif form.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, np.diag([0.5, 0.5, 1, 1])), path)
    else:
        Image.fromarray(array).save(path)


def _write_dicom(folder: Path) -> None:
    """A CT series of eight planes, where pydicom is there."""
    try:
        import pydicom
    except ImportError:
        return
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(0).integers(-200, 300, (8, 32, 32)) + 1024
    for n, plane in enumerate(voxels):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.SOPClassUID = pydicom.uid.CTImageStorage
        one.SOPInstanceUID = pydicom.uid.UID(f"1.2.9.{n + 1}")
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.Modality, one.SeriesInstanceUID, one.FrameOfReferenceUID = "CT", "1.2.3", "1.2.4"
        one.SeriesNumber, one.SeriesDescription, one.PatientID = 3, "abdomen", "p1"
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [10, 20, 3 * n]
        one.PixelSpacing, one.Rows, one.Columns = [0.8, 0.8], 32, 32
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
        one.PixelData = plane.astype("<u2").tobytes()
        one.save_as(folder / f"IM{n:04d}.dcm", enforce_file_format=True)


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
