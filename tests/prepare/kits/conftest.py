import json

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)

SHAPE = (6, 20, 24)
SPACING = (3.0, 1.5, 1.25)  # exact as float32


class Kits:
    """Writes tiny cases as KiTS does; planes (D, H, W) are in the order I, P, L."""

    shape, spacing = SHAPE, SPACING

    def image(self, seed=0):
        return np.random.default_rng(seed).integers(-1000, 300, SHAPE).astype(np.int16)

    def label(self):
        """Planes: nothing, kidney, kidney + tumour, tumour + cyst, cyst, nothing."""
        label = np.zeros(SHAPE, np.uint8)
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
def kits():
    return Kits()
