"""Tiny folders as laboratories and KiTS have them, and what comes of them."""

import csv
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)

SHAPE = (20, 30)
SPACING = (3.0, 1.5, 1.25)  # of KiTS, exact as float32


@pytest.fixture(scope="session")
def real():
    """The folder of real data; without it the test is skipped."""
    folder = Path(os.environ.get("METASEG_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (set METASEG_DATA)")
    return folder


class Written:
    """What a preparation wrote."""

    def rows(self, path):
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def content(self, folder):
        """Every file but the lock by its path."""
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".lock")
        }


class Lab(Written):
    """Writes tiny folders of images, masks and tables."""

    shape = SHAPE

    def image(self, seed=0, shape=SHAPE, dtype=np.uint16):
        return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)

    def mask(self, value=1):
        mask = np.zeros(SHAPE, np.uint8)
        mask[4:9, 5:12] = value
        return mask

    def tif(self, path, array, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
        return path

    def png(self, path, array):
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(array).save(path)
        return path

    def csv(self, path, rows):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    def cells(self, folder, count=6, split=True):
        """images/im<n>.tif, masks/im<n>.png (0 and 1) and lab.csv of two lines and three wells."""
        rows = []
        for n in range(count):
            self.tif(folder / "images" / f"im{n}.tif", self.image(n))
            self.png(folder / "masks" / f"im{n}.png", self.mask())
            row = {"File": f"im{n}.tif", "cell_line": ["HeLa", "A549"][n % 2]}
            row |= {"plate": "p1", "well": f"B0{n // 2}"}
            rows.append({**row, "split": ["train", "val", "test"][n // 2 % 3]} if split else row)
        self.csv(folder / "lab.csv", rows)
        return folder, rows


@pytest.fixture(scope="session")
def lab():
    return Lab()


class Kits(Written):
    """Writes tiny cases as KiTS does; planes (D, H, W) are in the order I, P, L."""

    shape, spacing = (6, 20, 24), SPACING

    def image(self, seed=0):
        return np.random.default_rng(seed).integers(-1000, 300, self.shape).astype(np.int16)

    def label(self):
        """Planes: nothing, kidney, kidney + tumour, tumour + cyst, cyst, nothing."""
        label = np.zeros(self.shape, np.uint8)
        label[1:3, 2:9, 3:10] = 1
        label[2:4, 4:14, 5:15] = 2
        label[3:5, 15:18, 16:20] = 3
        return label

    def save(self, path, planes, codes=("I", "P", "L"), spacing=SPACING, shift=0.0):
        affine = np.array(
            [[0, 0, -spacing[2], 50], [0, -spacing[1], 0, 20], [-spacing[0], 0, 0, shift]]
        )
        affine = np.vstack([affine, [0, 0, 0, 1.0]])
        turn = ornt_transform(axcodes2ornt(("I", "P", "L")), axcodes2ornt(codes))
        turned = affine @ inv_ornt_aff(turn, planes.shape)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(apply_orientation(planes, turn), turned), path)
        return path

    def case(self, folder, number=0, image=None, label=None, **options):
        case = folder / f"case_{number:05d}"
        image = self.image(number) if image is None else image
        self.save(case / "imaging.nii.gz", image, **options)
        self.save(
            case / "aggregated_MAJ_seg.nii.gz", self.label() if label is None else label, **options
        )
        return case

    def clinical(self, folder, count, **changed):
        """kits.json with sizes 2.0, 3.0, ... cm."""
        entries = [
            {"case_id": f"case_{n:05d}", "radiographic_size": 2.0 + n, "gender": "male"}
            for n in range(count)
        ]
        for name, values in changed.items():
            entries[int(name.removeprefix("case_"))].update(values)
        (folder / "kits.json").write_text(json.dumps(entries))
        return folder / "kits.json"

    def folder(self, folder, count=3, **changed):
        for number in range(count):
            self.case(folder, number)
        self.clinical(folder, count, **changed)
        return folder


@pytest.fixture(scope="session")
def scans():
    return Kits()
