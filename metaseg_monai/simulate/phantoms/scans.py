"""CT phantoms in the layout of KiTS21, in which the size of a tumour is known but hardly seen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from metaseg_monai.errors import DataError
from metaseg_monai.simulate.generated import write_generated
from metaseg_monai.simulate.phantoms.anatomy import Anatomy, draw_anatomy, render

FIELD_MM = 384.0  # side of the imaged square
SUPERSAMPLING = 2  # in every direction, for partial volume
NOISE_HU, NOISE_WIDTH_PX = 10.0, 0.6
SIZE_READING = 0.04  # relative error of a radiologist's diameter
SMALLEST_MATRIX = 32


def generate_phantoms(
    output: str | Path,
    cases: int = 24,
    matrix: int = 96,
    seed: int = 0,
    first: int = 0,
) -> Path:
    """Write CT phantoms as KiTS21 has its cases: two NIfTI files each, and kits.json.

    Example:
        python -m metaseg_monai generate kits21-phantom --cases 24 --output phantoms

    Real about them: attenuation of tissues in Hounsfield units, sizes of organs and tumours
    (log-normal, median 40 mm), partial volume, correlated noise, pixel sizes and plane distances
    that vary between cases, stored orientations that vary, one matrix in eight that is not square,
    kidneys on both sides, cysts, a second tumour in one case of seven, a clinical table with
    missing values. Not real: organs are ellipsoids, tumours are balls, and nothing else is ill.
    Above all, of a tumour only a core is visible, whose width is independent of the tumour's:
    beyond it the annotated tumour looks like what it grows into. The contrast of the core tells at
    which share of its radius a plane cuts the tumour, not the radius. So the tumour's extent
    cannot be read off a plane, and its size, as metadata, decides (positive control). In a whole
    volume it could be read from the number of planes.

    The clinical table has, beside radiographic_size (the largest tumour's diameter, read with an
    error of 4 %), the column unrelated_size: that of another, unrelated patient. A column map that
    reads it in place of the true size makes a null control on the same images.

    Args:
        output: a new or empty folder, or one made with these arguments.
        cases: number of patients.
        matrix: pixels a side; 96 gives pixels of about 4 mm, 512 those of a real scan.
        seed: of all chance; each case has a stream of its own.
        first: number of the first case; cases of other numbers are other patients.

    Returns:
        The folder.

    Raises:
        DataError: the folder holds other files, or an argument is out of its range.
    """
    settings = {"cases": cases, "matrix": matrix, "seed": seed, "first": first}
    check_settings(settings)
    numbers = range(first, first + cases)

    def write(folder: Path) -> None:
        write_phantoms(folder, numbers, matrix, seed)

    write_generated(Path(output), settings, write, once=True)
    return Path(output)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check settings of phantoms, whole numbers by their name.

    Raises:
        DataError: one is out of its range.
    """
    for name, value in settings.items():
        least = {"matrix": SMALLEST_MATRIX, "cases": 1, "train": 1}.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise DataError(f"{name}={value!r}: expected a whole number from {least}")


def write_phantoms(folder: Path, numbers: Sequence[int], matrix: int, seed: int) -> list[str]:
    """Write phantoms of checked settings into a folder; return their cases' names.

    Args:
        folder: gets a folder for each case, and kits.json.
        numbers: of the cases; each has a stream of its own.
        matrix: see `generate_phantoms`; so `seed`.
        seed: of all chance.
    """
    table = []
    for number in tqdm(numbers, desc="CT phantoms", unit="case", disable=None):
        case = f"case_{number:05d}"
        random = np.random.default_rng([seed, number])
        anatomy = draw_anatomy(random)
        image, label, affine = _scan(random, anatomy, matrix, number)
        (folder / case).mkdir(parents=True)
        for name, array in (("imaging", image), ("aggregated_MAJ_seg", label)):
            volume = nib.Nifti1Image(array, affine)
            volume.set_qform(None, 0)
            volume.set_sform(affine, 2)
            volume.to_filename(folder / case / f"{name}.nii.gz")
        stranger = draw_anatomy(np.random.default_rng([seed, number, 1]))
        table.append({"case_id": case, **_clinical(random, anatomy.largest_mm, stranger)})
    (folder / "kits.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return [row["case_id"] for row in table]


def _scan(
    random: np.random.Generator, anatomy: Anatomy, matrix: int, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One phantom as a scanner stores it: int16 HU, uint8 classes, affine."""
    pixel_mm = FIELD_MM / matrix * random.uniform(0.85, 1.15)
    plane_mm = float(random.choice([4.0, 5.0, 6.0]))
    rows, columns = matrix, matrix + (matrix // 4 if number % 8 == 5 else 0)
    planes = int(np.ceil((300 + random.uniform(-20, 20)) / plane_mm))
    z, y, x = (
        _positions(count, step)
        for count, step in zip((planes, rows, columns), (plane_mm, pixel_mm, pixel_mm), strict=True)
    )
    fine, _ = render(anatomy, *(_finer(axis) for axis in (z, y, x)))
    _, label = render(anatomy, z, y, x)
    n = SUPERSAMPLING
    blocks = fine.reshape(planes, n, rows, n, columns, n)
    hu = blocks.mean(axis=(1, 3, 5)) + _noise(random, (planes, rows, columns))
    affine = np.array(
        [[0, 0, -pixel_mm, -x[0]], [0, -pixel_mm, 0, -y[0]], [-plane_mm, 0, 0, -z[0]], [0, 0, 0, 1]]
    )
    turn = np.array([[0, 1], [1, 1], [2, 1]])
    if number % 2:  # every second file is stored along other axes
        turn = np.column_stack([random.permutation(3), random.choice([-1, 1], 3)])
    image = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    stored = [np.ascontiguousarray(apply_orientation(array, turn)) for array in (image, label)]
    return stored[0], stored[1], affine @ inv_ornt_aff(turn, image.shape)


def _positions(count: int, step: float) -> np.ndarray:
    """Middles of `count` steps around 0."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * step)


def _finer(positions: np.ndarray) -> np.ndarray:
    """Split every step in equal parts."""
    step = positions[1] - positions[0]
    offsets = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    return np.asarray((positions[:, None] + offsets * step).ravel())


def _noise(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Noise of CT: correlated within a plane, NOISE_HU strong."""
    white = random.standard_normal(shape, dtype=np.float32)
    blurred = gaussian_filter(white, (0, NOISE_WIDTH_PX, NOISE_WIDTH_PX))
    return np.asarray(blurred * (NOISE_HU / blurred.std()))


def _clinical(random: np.random.Generator, largest_mm: float, stranger: Anatomy) -> dict[str, Any]:
    """One row of kits.json; sizes in cm, as there."""
    size_cm = largest_mm / 10
    age = int(random.integers(30, 95))
    return {
        "age_at_nephrectomy": ">=90" if age >= 90 else age,
        "gender": str(random.choice(["male", "female"])),
        "body_mass_index": round(float(random.uniform(19, 42)), 2),
        "radiographic_size": round(size_cm * (1 + SIZE_READING * random.standard_normal()), 1),
        "unrelated_size": round(stranger.largest_mm / 10, 1),
        "pathologic_size": round(size_cm, 1) if random.uniform() < 0.9 else None,
        "malignant": bool(random.uniform() < 0.9),
        "tumor_histologic_subtype": str(random.choice(["clear_cell_rcc", "papillary_rcc"])),
    }
