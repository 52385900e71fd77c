"""The inputs of the golden scenarios: small data sets of every layout, and runs to report on."""

import csv
import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io
import tifffile
from PIL import Image

SHAPE = (24, 32)
TIME = "2026-01-01T00:00:0{}+00:00"
OME = (  # of one image, without the random identifier that tifffile gives
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="20"/>'
    '</Instrument><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
    f'SizeX="{SHAPE[1]}" SizeY="{SHAPE[0]}" SizeZ="1" SizeC="1" SizeT="1" PhysicalSizeX="{{}}">'
    '<Channel ID="Channel:0" Name="DAPI"/><TiffData/></Pixels></Image></OME>'
)
QUALITY = {
    "none": 0.64, "se": 0.68, "sme-dummy": 0.69, "me-dummy": 0.72, "me": 0.74, "experts": 0.77,
    "film": 0.78, "sme": 0.8, "log2": 0.78, "me-unrelated": 0.68,
}  # fmt: skip


def _image(seed: int, colours: int = 0) -> np.ndarray:
    """uint16 (H, W), or uint8 (H, W, colours)."""
    random = np.random.default_rng(seed)
    if colours:
        return random.integers(0, 255, (*SHAPE, colours)).astype(np.uint8)
    return random.integers(0, 60000, SHAPE).astype(np.uint16)


def _objects(seed: int) -> np.ndarray:
    """uint16 (H, W): the numbers of three ellipses."""
    random = np.random.default_rng(seed)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    numbers = np.zeros(SHAPE, np.uint16)
    for number, (row, column) in enumerate([(6, 7), (7, 24), (17, 14)], start=1):
        high, wide = random.uniform(3, 6, 2)
        numbers[((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 <= 1] = number
    return numbers


def _save(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.startswith(".tif"):
        tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    else:
        Image.fromarray(array).save(path, **options)
    return path


def _rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_lab(work: Path) -> None:
    """Write lab/: 14 images of seven wells, four of them damaged or unlike; colour/: RGB, grey."""
    rows = []
    for n in range(14):
        name = f"im{n:02d}"
        tags = {"description": OME.format(0.325 * (1 + n % 2)), "metadata": None} if n % 3 else {}
        _save(work / f"lab/images/{name}.tif", _image(n), **tags)
        label = _objects(n) > 0 if n != 3 else np.zeros((5, 5), bool)
        _save(work / f"lab/masks/{name}.png", label.astype(np.uint8) * (7 if n == 4 else 1))
        row = {"File": f"{name}.tif", "cell_line": ("HeLa", "A549")[n % 2], "plate": "p1"}
        split = ("train", "train", "val", "test")[n // 2 % 4]
        rows.append({**row, "well": f"B0{n // 2}", "split": split})
    broken = work / "lab/images/im01.tif"
    broken.write_bytes(broken.read_bytes()[:900])
    (work / "lab/masks/im06.png").unlink()
    _save(work / "lab/images/extra.tif", _image(99))
    _rows(work / "lab/lab.csv", [*rows, {**rows[0], "File": "gone.tif"}])
    _rows(work / "undivided.csv", [{k: v for k, v in row.items() if k != "split"} for row in rows])
    colours = [{"name": f"c{n}", "site": "ab"[n % 2], "group": f"g{n // 2}"} for n in range(8)]
    for n, row in enumerate(colours):
        _save(work / f"colour/images/{row['name']}.png", _image(n, 3))
        grey = (_objects(n) > 0) * np.uint8(200) + np.uint8(n)
        _save(work / f"colour/masks/{row['name']}.png", grey)
    _rows(work / "colour/sheet.csv", colours)


def write_plates(work: Path) -> None:
    """Write stacks of planes with masks, one plane missing; an Opera and a MetaXpress plate."""
    for number, key in enumerate(["HeLa_A01", "HeLa_A02", "MCF_A01", "MCF_B01"]):
        for index, plane in enumerate(("1", "2", "10")):
            _save(work / f"stacks/{key}_z{plane}.tif", _image(10 * number + index))
        label = (_objects(number) > 0).astype(np.uint8)
        _save(work / f"stacks/masks/{key}_mask.png", label)
    (work / "stacks/MCF_B01_z2.tif").unlink()
    (work / "stacks/notes.txt").write_text("x")
    for n in range(8):
        name = f"lab/plate7__2024/Images/r02c0{n // 2 + 1}f01p01-ch{n % 2 + 1}sk1fk1fl1.tiff"
        _save(work / "opera" / name, _image(n))
        _save(work / f"meta/TimePoint_1/plate_7_B0{n // 2}_s{n % 2 + 1}_w1.TIF", _image(n + 20))


def write_bowl(work: Path) -> None:
    """Write stage1_train of the Data Science Bowl: RGBA images, a file an object, some overlap."""
    for number in range(6):
        folder = work / f"stage1_train/id{number}"
        image = _image(number, 4)
        image[..., 3] |= 0 if number == 3 else 255  # alpha, opaque in all but one
        _save(folder / f"images/id{number}.png", image)
        numbers = _objects(number)
        for one in range(1, 4):
            mask = (numbers == one).astype(np.uint8) * 255
            if number == 2 and one == 1:
                mask[4:12, 4:30] = 255
            _save(folder / f"masks/{number}{'zab'[one - 1]}.png", mask)


def write_cracks(work: Path) -> None:
    """Write the three public layouts; CrackForest with a damaged file."""
    (work / "forest/groundTruth").mkdir(parents=True)
    for n in range(8):
        crack = (_objects(n) == 1).astype(np.uint8)
        if n < 4:
            _save(work / f"mendeley/rgb/00{n}.{'jpg' if n % 2 else 'JPG'}", _image(n, 3))
            _save(work / f"mendeley/BW/00{n}.jpg", crack * 255, quality=95)
            _save(work / f"forest/image/00{n}.jpg", _image(n + 9, 3))
            truth = {"groundTruth": {"Segmentation": crack + np.uint8(1), "Boundaries": crack}}
            scipy.io.savemat(work / f"forest/groundTruth/00{n}.mat", truth)
        part, name = ("train" if n < 5 else "test"), f"{n // 2 + (n > 4)}Q-{n % 2}"
        _save(work / f"deep/{part}_img/{name}.jpg", _image(n + 20, 3))
        _save(work / f"deep/{part}_lab/{name}.png", crack * 255)
    (work / "forest/groundTruth/003.mat").write_bytes(b"MATLAB 5.0 damaged")


def write_table(work: Path) -> None:
    """Write cells/: a folder with a table, three magnifications, two lines, wells of two images."""
    rows = []
    for n in range(36):
        name, split = f"w{n}.tif", "train" if n < 24 else ("val", "test")[n // 2 % 2]
        numbers = np.kron(_objects(n), np.ones((2, 2), np.uint16))
        image = np.kron(_image(n), np.ones((2, 2), np.uint16))
        _save(work / "cells/images" / name, image)
        _save(work / "cells/labels" / name, (numbers > 0).astype(np.uint8))
        _save(work / "cells/objects" / name, numbers)
        row: dict[str, Any] = {
            "image": f"images/{name}",
            "label": f"labels/{name}",
            "instances": f"objects/{name}",
        }
        row |= {
            "cell_line": ("HeLa", "MDCK", "A549")[n // 2 % 3],
            "magnification": 10 << n // 2 % 3,
        }
        row |= {"size_mm": 6 + n % 20 if n % 5 else "", "stains": ("dapi;gfp", "dapi")[n % 2]}
        rows.append(
            {**row, "pixel_um": 6.5 / (10 << n // 2 % 3), "group": f"w{n // 2}", "split": split}
        )
    _rows(work / "cells/table.csv", rows)
    line = {"kind": "categorical", "name": "cell_line", "values": ["HeLa", "MDCK"]}
    known = {"provenance": "acquisition", "availability": "acquisition", "missing": "error"}
    content = {"fields": [{**line, **known, "description": "lacks A549"}]}
    (work / "cells/fewer.json").write_text(json.dumps(content))


def write_nuclei(work: Path, field: str, values: str) -> None:
    """Write data/: images that a tiny network learns in seconds, told what to segment.

    Every second value asks for the bright objects alone, the others for all of them.
    """
    rows, known = [], values.split(",")
    for n in range(56):
        random, place = np.random.default_rng(n), n % len(known)
        split = "train" if n < 28 else "val" if n < 35 else "test"
        image, numbers = random.normal(6000, 1500, (48, 48)), np.zeros((48, 48), np.uint16)
        for number in range(1, 6):
            row, column, high, wide = random.uniform([6, 6, 3, 3], [42, 42, 8, 8])
            y, x = np.ogrid[:48, :48]
            inside = ((y - row) / high) ** 2 + ((x - column) / wide) ** 2 <= 1
            image[inside] = 60000 - 28000 * (number % 2) + random.normal(0, 1500, inside.sum())
            numbers[inside] = 0 if place % 2 and number % 2 else number
        name = f"{split}{n}.tif"
        _save(work / "data/images" / name, image.clip(0, 65535).astype(np.uint16))
        _save(work / "data/labels" / name, (numbers > 0).astype(np.uint8))
        _save(work / "data/objects" / name, numbers)
        row_of = {"image": f"images/{name}", "label": f"labels/{name}", field: known[place]}
        row_of |= {"instances": f"objects/{name}", "pixel_um": "0.65" if n % 9 else "0.325"}
        well = f"{'AB'[n % 2]}{n // 4:02d}"
        row_of |= {"plate": f"p{n // 28}", "well": well, "group": f"{split}{well}", "split": split}
        rows.append(row_of)
    _rows(work / "data/table.csv", rows)


def write_lists(work: Path) -> None:
    """Write lists.json: which of the phantoms are for training, which for the tests."""
    parts = {"train": range(5), "val": range(5, 6), "test": range(6, 13)}
    lists = {part: [f"case_{n:05d}" for n in numbers] for part, numbers in parts.items()}
    (work / "lists.json").write_text(json.dumps(lists))


def damage_phantoms(work: Path) -> None:
    """Damage seven cases of phantoms/ in ways that real downloads are, and write lists of cases."""
    folder = work / "phantoms"
    cases = sorted(path for path in folder.iterdir() if path.is_dir())
    image, label = "imaging.nii.gz", "aggregated_MAJ_seg.nii.gz"
    sums = [
        f"{hashlib.sha256((c / image).read_bytes()).hexdigest()}  {c.name}/{image}" for c in cases
    ]
    (work / "sums.txt").write_text("\n".join(sums[:12]) + "\n")
    splits = [
        {"case": c.name, "split": ("train", "val", "test")[n % 3]} for n, c in enumerate(cases[12:])
    ]
    _rows(work / "splits.csv", splits)
    _rows(
        work / "clinical.csv",
        [{"case_id": c.name, "radiographic_size": 2.5 + 0.1 * n} for n, c in enumerate(cases)],
    )
    (cases[1] / image).write_bytes((cases[1] / image).read_bytes()[:2000])
    (cases[2] / label).unlink()
    for number, change in ((3, lambda a: a[:-1]), (4, lambda a: a * 0 + 9), (5, lambda a: a * 0)):
        stored = nib.load(cases[number] / label)
        voxels = change(np.asanyarray(stored.dataobj))
        content = nib.Nifti1Image(voxels, stored.affine, dtype=np.uint8).to_bytes()
        (cases[number] / label).write_bytes(gzip.compress(content, mtime=0))
    for name in (image, label):
        shutil.copy(cases[7] / name, cases[6] / name)
        for number, codes in ((10, "LPS"), (11, "SRA")):  # stored along other axes
            path = cases[number] / name
            stored = nib.load(path)
            turn = nib.orientations.ornt_transform(
                nib.io_orientation(stored.affine), nib.orientations.axcodes2ornt(codes)
            )
            content = stored.as_reoriented(turn).to_bytes()
            path.write_bytes(gzip.compress(content, mtime=0))
    entries = json.loads((folder / "kits.json").read_text())
    entries[8]["radiographic_size"] = "large"
    (folder / "kits.json").write_text(json.dumps([e for n, e in enumerate(entries) if n != 9]))


def write_masks(work: Path) -> None:
    """Write masks/: the labels of phantoms/, moved, and smaller in the second case."""
    (work / "masks").mkdir()
    for number, case in enumerate(sorted((work / "phantoms").glob("case_*"))):
        stored = nib.load(case / "aggregated_MAJ_seg.nii.gz")
        voxels = np.roll(np.asanyarray(stored.dataobj), (1, 0, number), axis=(0, 1, 2))
        voxels[:: 2 if number == 1 else 99] = 0
        content = nib.Nifti1Image(voxels, stored.affine, dtype=np.uint8).to_bytes()
        (work / "masks" / f"{case.name}.nii.gz").write_bytes(gzip.compress(content, mtime=0))


def draw_runs(work: Path, seeds: int = 3) -> None:
    """Make of the runs of a study with one seed those of several, with scores as networks have.

    Tiny trainings give nothing to report. The columns and cases stay; the numbers are drawn anew
    from fixed seeds, so that conditions differ, sizes are followed and seeds vary.

    Args:
        work: its trained/runs holds the study, which becomes out/runs; with out/bundles/ and
            out/docs/, which a report reads, and out/single, runs without a study.
        seeds: how many; on several data sets the last one lacks two runs, one of which failed.
    """
    runs = work / "out/runs"
    shutil.copytree(work / "trained/runs", runs)
    for name in ("bundles", "docs"):
        shutil.copytree(work / name, work / "out" / name)
    study, plan, history = (_read(runs / f"{n}.json") for n in ("study", "plan", "protocol"))
    study["seeds"] = list(range(seeds))
    history[0]["at"] = TIME.format(0)
    history[0]["protocol"]["seeds"] = ", ".join(map(str, range(seeds)))
    made = []
    for seed in range(seeds):
        for run in plan:
            own = {**run, "seed": seed, "folder": run["folder"].replace("seed0", f"seed{seed}")}
            own |= {
                "settings": {**run["settings"], "seed": seed},
                "explain": run["explain"] and not seed,
            }
            made.append(own)
            if seed:
                ignored = shutil.ignore_patterns("explain")
                shutil.copytree(runs / run["folder"], runs / own["folder"], ignore=ignored)
    for run in made:
        folder = runs / run["folder"]
        _draw_scores(folder, run["condition"], run["seed"])
        record = _read(folder / "run.json")
        record |= {"seed": run["seed"], "settings": run["settings"], "seconds": 60.4 + run["seed"]}
        record |= {"started": TIME.format(1), "ended": TIME.format(2)}
        (folder / "run.json").write_text(json.dumps(record, indent=2))
        bound = _read(folder / "evaluation.json")
        bound["files"] = {name: _sha256(folder / name) for name in bound["files"]}
        bound["log_sha256"] = _sha256(folder / "log.csv")
        (folder / "evaluation.json").write_text(json.dumps(bound, indent=2))
    if len(study["data_seeds"]) > 1:
        shutil.rmtree(runs / made[-1]["folder"])
        lost = runs / made[-2]["folder"] / "run.json"
        lost.write_text(json.dumps({**_read(lost), "state": "failed", "error": "loss is nan"}))
    for name, content in (("study", study), ("plan", made), ("protocol", history)):
        (runs / f"{name}.json").write_text(json.dumps(content, indent=2))
    for path in [*runs.glob("*.html"), *runs.glob("*.md"), *runs.rglob("checkpoint.pt")]:
        path.unlink()
    for name in ("figures", "tables"):
        shutil.rmtree(runs / name)
    for condition in ("se", "me", "sme-dummy"):
        if (runs / condition / "seed0").is_dir():
            shutil.copytree(runs / condition / "seed0", work / "out/single" / condition)
            (work / "out/single" / condition / "run.json").unlink()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _draw_scores(folder: Path, condition: str, seed: int) -> None:
    """Draw the numbers of one run anew."""
    random = np.random.default_rng([seed, *condition.encode(), *folder.name.encode()])
    counts = pd.read_csv(folder / "counts.csv", keep_default_na=False)
    quality = QUALITY.get(condition, 0.73) + 0.01 * random.normal()
    drawn = [_counted(row, quality, random) for row in counts.itertuples(index=False)]
    counts[["tp", "fp", "fn", "tn"]] = drawn
    counts.to_csv(folder / "counts.csv", index=False)
    log = pd.read_csv(folder / "log.csv")
    log = log.assign(train_loss=(log["train_loss"] * (1 + 0.05 * seed)).round(9), seconds=0.5)
    log.to_csv(folder / "log.csv", index=False)
    bins = pd.read_csv(folder / "calibration.csv", keep_default_na=False)
    share = (bins["confidence"] / bins["pixels"] * (0.7 + 0.1 * seed)).clip(0, 1)
    bins.assign(positives=random.binomial(bins["pixels"], share)).to_csv(
        folder / "calibration.csv", index=False
    )
    with np.load(folder / "samples.npz") as stored:
        samples = dict(stored)
    for name in [name for name in samples if name.startswith("pred_")]:
        _, case, mode = name.split("_")
        shift = (int(mode) + 1, seed + len(condition) % 3)
        samples[name] = np.roll(samples[f"label_{case}"], shift, axis=(-2, -1))
    np.savez(folder / "samples.npz", **samples)
    if (folder / "volumes.csv").is_file():
        volumes = pd.read_csv(folder / "volumes.csv", keep_default_na=False)
        loss = volumes["mode"].map(lambda mode: 0.0 if mode == "normal" else 0.2)
        dice = (quality - loss + 0.05 * random.normal(size=len(volumes))).clip(0, 1).round(6)
        volumes = volumes.assign(dice=dice, surface_dice=(0.9 * dice).round(6))
        volumes["pred_mm3"] = (volumes["true_mm3"] * (0.6 + 0.5 * dice)).round(3)
        volumes["hd95_mm"] = (30 * (1 - dice)).round(3).where(random.random(len(volumes)) > 0.1)
        volumes["lesions_found"] = random.binomial(volumes["lesions"], dice)
        volumes["lesions_false"] = random.poisson(0.4, len(volumes))
        volumes.to_csv(folder / "volumes.csv", index=False)
    if (folder / "objects_scores.csv").is_file():
        _draw_objects(folder / "objects_scores.csv", quality, random)


def _counted(row: Any, quality: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Pixels found, of as many true ones and pixels as before."""
    case = np.random.default_rng([*str(row.case).encode()])
    quality += 0.1 * case.normal() + 0.02 * random.normal()
    mode, grown = str(row.mode), 1.0
    told = mode.rpartition("=" if "=" in mode else ":")[2]
    if mode.startswith(("fixed", "perturb")) and told.replace(".", "").isdigit():
        grown = float(told) / (40 if "=" in mode else 1)
    elif mode not in ("normal", f"fixed:{row.domain}", "predicted"):
        quality -= 0.25
    true, every = row.tp + row.fn, row.tp + row.fp + row.fn + row.tn
    area = min(int(true * grown**0.5), every)
    tp = int(min(true, area) * min(max(quality, 0.02), 0.98))
    fp = min(area - tp, every - true) if true else int(every * max(0.0, 0.02 * random.normal()))
    return tp, fp, true - tp, every - true - fp


def _draw_objects(path: Path, quality: float, random: np.random.Generator) -> None:
    table = pd.read_csv(path, keep_default_na=False)
    levels = [f"tp_{level}" for level in range(50, 100, 5)]
    found = table["true"].to_numpy()
    for place, level in enumerate(levels):
        found = random.binomial(found, min(max(quality - 0.05 * place, 0.0), 1.0))
        table[level] = found
    table["pred"] = table["tp_50"] + random.poisson(0.6, len(table))
    table["fp_50"], table["fn_50"] = table["pred"] - table["tp_50"], table["true"] - table["tp_50"]
    either = table["true"] + table["pred"]
    every = pd.DataFrame({level: 2 * table[level] / either.where(either > 0) for level in levels})
    table["f1_50"], table["f1_50_95"] = every["tp_50"], every.mean(axis=1, skipna=False)
    table["precision_50"] = table["tp_50"] / table["pred"].where(table["pred"] > 0)
    table["recall_50"] = table["tp_50"] / table["true"].where(table["true"] > 0)
    ious = 0.5 + 0.4 * random.random(len(table))
    table["matched_iou"] = np.where(table["tp_50"] > 0, ious, np.nan)
    table.to_csv(path, index=False)
