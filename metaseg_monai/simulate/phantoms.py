"""CT phantoms in the layout of KiTS21, in which the size of a tumour is known but hardly seen.

Axes of the abdomen are (z, y, x) in mm from the middle of the body: z toward the feet, y toward the
back, x toward the patient's left.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.ndimage import label as connected
from tqdm import tqdm

from metaseg_monai.errors import DataError
from metaseg_monai.files import file_sha256, read_json
from metaseg_monai.images.geometry import AxialVolume
from metaseg_monai.prepare.found import FoundCase
from metaseg_monai.prepare.kits import prepare_kits21
from metaseg_monai.prepare.kits_case import SliceRule, read_case
from metaseg_monai.prepare.kits_source import find_clinical, find_kits
from metaseg_monai.simulate.generated import require, require_whole, write_generated
from metaseg_monai.tables.licenses import data_license

# The abdomen: body, organs, tumours and cysts, in mm and Hounsfield units.

Point = tuple[float, float, float]

AIR, FAT, MUSCLE, BONE, CORTEX = -1000.0, -100.0, 55.0, 180.0, 450.0
LIVER, VESSEL, BOWEL, KIDNEY, TUMOUR, CYST = 105.0, 170.0, 40.0, 165.0, 70.0, 8.0
SIZE_MM = (14.0, 120.0)  # of tumours
MEDIAN_MM, SPREAD = 40.0, 0.6  # log-normal; KiTS23's table has 39 mm and 0.62
CORE_MM = (7.0, 10.0)
POLE_CONTRAST = 0.5
PELVIS = 0.35  # share of the kidney's semi-axes
KIDNEY_CLASS, TUMOUR_CLASS, CYST_CLASS = 1, 2, 3


class Ellipsoid(NamedTuple):
    """A body of one attenuation: centre and semi-axes (z, y, x) in mm, value in HU."""

    centre: Point
    axes: Point
    hu: float


class Lesion(NamedTuple):
    """A tumour: a ball whose extent is `radius_mm`, and the width of the core that one sees."""

    centre: Point
    radius_mm: float
    core_mm: float


@dataclass(frozen=True)
class Anatomy:
    """What one phantom is made of; drawn by `draw_anatomy`, put on a grid by `render`."""

    trunk: tuple[Ellipsoid, ...]
    cavity: Ellipsoid
    spine: Ellipsoid
    organs: tuple[Ellipsoid, ...]
    kidneys: tuple[Ellipsoid, ...]
    tumours: tuple[Lesion, ...]
    cysts: tuple[Ellipsoid, ...]

    @property
    def largest_mm(self) -> float:
        """Diameter of the largest tumour, which the clinical table names."""
        return 2 * max(tumour.radius_mm for tumour in self.tumours)


def draw_anatomy(random: np.random.Generator) -> Anatomy:
    """Draw one abdomen: one or two tumours on a kidney, no to two cysts, all else by chance."""
    u = random.uniform
    body = Ellipsoid((0, 0, 0), (1e4, u(100, 122), u(148, 178)), FAT)
    spine_y = body.axes[1] - u(48, 55)
    wall = Ellipsoid((0, 0, 0), (1e4, body.axes[1] - u(12, 18), body.axes[2] - u(14, 22)), MUSCLE)
    cavity = Ellipsoid((0, -4, 0), (1e4, body.axes[1] - u(26, 32), body.axes[2] - u(28, 36)), FAT)
    spine = Ellipsoid((0, spine_y, 0), (1e4, 19, 21), CORTEX)
    organs = [
        Ellipsoid((0, spine_y, 0), (1e4, 16, 18), BONE),
        Ellipsoid((0, spine_y - 32, u(4, 10)), (1e4, 9, 9), VESSEL),
        Ellipsoid((u(-70, -40), u(-35, -20), -72), (70, 45, 52), LIVER),
    ]
    organs += [
        Ellipsoid((u(-90, 90), u(-60, -25), u(-50, 90)), (u(15, 40), u(9, 16), u(12, 25)), BOWEL)
        for _ in range(8)
    ]
    kidneys = tuple(
        Ellipsoid(
            (u(-12, 12), u(26, 40), side * u(60, 72)), (u(46, 58), u(24, 29), u(24, 29)), KIDNEY
        )
        for side in (-1, 1)
    )
    sick = int(random.integers(2))
    tumours = [_draw_tumour(random, kidneys[sick])]
    if u() < 0.15:  # multifocal: a small second one on the other kidney
        second = _draw_tumour(random, kidneys[1 - sick])
        radius = min(second.radius_mm, 0.6 * tumours[0].radius_mm)
        tumours.append(second._replace(radius_mm=max(radius, SIZE_MM[0] / 2)))
    number = int(random.choice(3, p=(0.5, 0.35, 0.15)))
    cysts = [_draw_cyst(random, kidneys[int(random.integers(2))]) for _ in range(number)]
    cysts = [
        cyst
        for cyst in cysts
        if all(
            np.linalg.norm(np.subtract(cyst.centre, tumour.centre))
            > cyst.axes[0] + tumour.radius_mm
            for tumour in tumours
        )
    ]
    return Anatomy(
        (body, wall), cavity, spine, tuple(organs), kidneys, tuple(tumours), tuple(cysts)
    )


def render(
    anatomy: Anatomy, z: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put an abdomen on a grid of planes (D,), rows (H,) and columns (W,) in mm, without noise.

    Returns:
        HU (D, H, W) float32, and classes (D, H, W) uint8: 1 kidney, 2 tumour, 3 cyst.
    """
    grid = (z[:, None, None], y[None, :, None], x[None, None, :])
    shape = (len(z), len(y), len(x))
    hu = np.full(shape, AIR, dtype=np.float32)
    label = np.zeros(shape, dtype=np.uint8)
    for part in (*anatomy.trunk, anatomy.cavity, anatomy.spine, *anatomy.organs):
        hu[_within(part, grid)] = part.hu
    cavity = _within(anatomy.cavity, grid) & ~_within(anatomy.spine, grid)
    for kidney in anatomy.kidneys:
        inside = _within(kidney, grid)
        hu[inside] = kidney.hu
        label[inside] = KIDNEY_CLASS
        hu[_within(kidney, grid, PELVIS)] = FAT / 2
    for tumour in anatomy.tumours:
        # The core's width says nothing of the tumour's; its contrast falls from the middle plane
        # to the pole, so that a plane shows how far from the middle it lies, as a share of the
        # radius.
        dz, dy, dx = (axis - centre for axis, centre in zip(grid, tumour.centre, strict=True))
        depth, across = (dz / tumour.radius_mm) ** 2, dy**2 + dx**2
        contrast = np.where(depth <= 1, POLE_CONTRAST + (1 - POLE_CONTRAST) * (1 - depth), 0)
        weight = contrast * np.exp(-across / (2 * tumour.core_mm**2))
        hu += weight.astype(np.float32) * (TUMOUR - hu) * cavity
        label[(dz**2 + across <= tumour.radius_mm**2) & cavity] = TUMOUR_CLASS
    for cyst in anatomy.cysts:
        inside = _within(cyst, grid)
        hu[inside] = cyst.hu
        label[inside] = CYST_CLASS
    return hu, label


def _within(part: Ellipsoid, grid: tuple[np.ndarray, ...], share: float = 1.0) -> np.ndarray:
    """The voxels (D, H, W) within a share of the semi-axes."""
    terms = [
        ((axis - centre) / (share * side)) ** 2
        for axis, centre, side in zip(grid, part.centre, part.axes, strict=True)
    ]
    return np.asarray(terms[0] + terms[1] + terms[2] <= 1)


def _on_surface(random: np.random.Generator, kidney: Ellipsoid, depth: float) -> Point:
    """A point at a share of the kidney's semi-axes from its middle."""
    direction = random.normal(size=3)
    direction[0] *= 0.6  # seldom at the very poles
    direction /= np.linalg.norm(direction)
    centre, axes = np.array(kidney.centre), np.array(kidney.axes)
    z, y, x = centre + depth * axes * direction
    return float(z), float(y), float(x)


def _draw_tumour(random: np.random.Generator, kidney: Ellipsoid) -> Lesion:
    size = float(np.clip(random.lognormal(np.log(MEDIAN_MM), SPREAD), *SIZE_MM))
    centre = _on_surface(random, kidney, random.uniform(0.5, 0.9))
    return Lesion(centre, size / 2, float(random.uniform(*CORE_MM)))


def _draw_cyst(random: np.random.Generator, kidney: Ellipsoid) -> Ellipsoid:
    radius = float(random.uniform(6, 16))
    return Ellipsoid(_on_surface(random, kidney, 1.0), (radius, radius, radius), CYST)


# Scans of it, as files.

FIELD_MM = 384.0  # side of the imaged square
SUPERSAMPLING = 2  # in every direction, for partial volume
NOISE_HU, NOISE_WIDTH_PX = 10.0, 0.6
SIZE_READING = 0.04  # relative error of a radiologist's diameter
Seen = Literal["core", "whole"]
FIRST_CASE = {"train": 0, "val": 10000, "test": 20000}  # more training cases: the same test cases


def generate_phantoms(
    output: str | Path,
    cases: int | None = None,
    matrix: int = 96,
    seed: int = 0,
    first: int = 0,
    labels: str | Path | None = None,
    seen: Seen = "core",
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

    With `labels` the kidneys, tumours and cysts are those of real patients, and only their
    attenuation is simulated: a KiTS folder's label volumes, thinned to planes of 4 mm or more and
    to `matrix` pixels a side, painted into the simulated abdomen. Sizes and all other columns are
    then the patients' own, and the data are under the licence of the labels.

    Args:
        output: a new or empty folder, or one made with these arguments.
        cases: number of patients; by default 24, or all that have a label.
        matrix: pixels a side; 96 gives pixels of about 4 mm, 512 those of a real scan.
        seed: of all chance; each case has a stream of its own.
        first: number of the first case; cases of other numbers are other patients.
        labels: a KiTS folder, of which labels and clinical table are read; images are not needed.
        seen: "core" paints of a tumour what the phantoms show, so that its size decides; "whole"
            paints all of it, as CT with contrast mostly shows it. Of real labels only.

    Returns:
        The folder.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: the folder holds other files, or a label or the clinical table cannot be read.
    """
    require(
        (seen in get_args(Seen), f"seen={seen!r}: expected {' or '.join(get_args(Seen))}"),
        (
            labels is not None or seen == "core",
            "seen=whole is of real labels; name them (labels), or leave it out",
        ),
    )
    require_whole(matrix=(matrix, 32), seed=(seed, 0), first=(first, 0))
    if cases is not None or labels is None:
        cases = 24 if cases is None else cases
        require_whole(cases=(cases, 1))
    settings: dict[str, Any] = {"cases": cases, "matrix": matrix, "seed": seed, "first": first}
    write: Callable[[Path], object]
    if labels is None:
        numbers = range(first, first + (cases or 0))
        write = partial(_write_volumes, numbers=numbers, matrix=matrix, seed=seed)
        licenses = None
    else:
        real = _labelled(Path(labels), first, cases)
        settings |= {"seen": seen, "labels": real.digest}
        write = partial(_paint_volumes, real=real, matrix=matrix, seed=seed, seen=seen)
        licenses = data_license(real.folder)
    write_generated(Path(output), settings, write, once=True, licenses=licenses)
    return Path(output)


def generate_phantom_slices(
    output: str | Path,
    train: int = 16,
    val: int = 4,
    test: int = 4,
    matrix: int = 96,
    seed: int = 0,
    slice_rule: SliceRule = "mass",
) -> Path:
    """Write CT phantoms, and the slices that `prepare_kits21` makes of them.

    Args:
        output: a new or empty folder, or one made with these arguments.
        train: number of training patients; so `val` and `test`.
        val: number of validation patients.
        test: number of test patients.
        matrix: pixels a side, see `generate_phantoms`.
        seed: of the phantoms.
        slice_rule: which slices become rows, see `prepare_kits21`; "all" for volume scores.

    Returns:
        The path of the table.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: the folder holds other files, or phantoms cannot be prepared.
    """
    counts = {"train": train, "val": val, "test": test}
    require_whole(train=(train, 1), val=(val, 0), test=(test, 0), matrix=(matrix, 32))
    require_whole(seed=(seed, 0))
    settings = {**counts, "matrix": matrix, "seed": seed, "slice_rule": slice_rule}
    write_generated(Path(output), settings, partial(_write_slices, settings=settings), once=True)
    return Path(output) / "table.csv"


def _write_slices(folder: Path, settings: Mapping[str, Any]) -> None:
    split_of = {
        number: split
        for split, first in FIRST_CASE.items()
        for number in range(first, first + settings[split])
    }
    with TemporaryDirectory(dir=folder.parent, prefix=".volumes-") as beside:
        volumes, lists = Path(beside) / "volumes", Path(beside) / "splits.json"
        cases = _write_volumes(volumes, list(split_of), settings["matrix"], settings["seed"])
        lists.write_text(json.dumps(dict(zip(cases, split_of.values(), strict=True))) + "\n")
        rule = settings["slice_rule"]
        made = prepare_kits21(volumes, folder, slice_rule=rule, spacing="native", splits=lists)
        if made.problems:
            raise DataError(
                f"{len(made.problems)} problems of generated phantoms, such as "
                f"{made.problems[0]}; give another seed or matrix"
            )
        volumes.rename(folder / "volumes")


def _write_volumes(folder: Path, numbers: Sequence[int], matrix: int, seed: int) -> list[str]:
    """Write phantoms as KiTS21 has its cases; return their names."""
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
    shape, steps = (planes, rows, columns), (plane_mm, pixel_mm, pixel_mm)
    axes = [  # middles of the steps around 0
        (np.arange(count) - (count - 1) / 2) * step
        for count, step in zip(shape, steps, strict=True)
    ]
    n = SUPERSAMPLING
    offsets = (np.arange(n) + 0.5) / n - 0.5
    finer = [(axis[:, None] + offsets * (axis[1] - axis[0])).ravel() for axis in axes]
    fine, _ = render(anatomy, *finer)
    _, label = render(anatomy, *axes)
    blocks = fine.reshape(planes, n, rows, n, columns, n)
    white = random.standard_normal(shape, dtype=np.float32)
    noise = gaussian_filter(white, (0, NOISE_WIDTH_PX, NOISE_WIDTH_PX))  # within a plane, as in CT
    hu = blocks.mean(axis=(1, 3, 5)) + noise * (NOISE_HU / noise.std())
    z, y, x = axes
    affine = np.array(
        [[0, 0, -pixel_mm, -x[0]], [0, -pixel_mm, 0, -y[0]], [-plane_mm, 0, 0, -z[0]], [0, 0, 0, 1]]
    )
    turn = np.array([[0, 1], [1, 1], [2, 1]])
    if number % 2:  # every second file is stored along other axes
        turn = np.column_stack([random.permutation(3), random.choice([-1, 1], 3)])
    image = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    stored = [np.ascontiguousarray(apply_orientation(array, turn)) for array in (image, label)]
    return stored[0], stored[1], affine @ inv_ornt_aff(turn, image.shape)


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


# Real labels, painted: shapes and sizes of patients, attenuation of the phantoms.

THINNED_MM = 4.0  # at least, between planes
KIDNEYS_MM = (0.0, 33.0, 0.0)  # the middle of both in an abdomen, as `draw_anatomy` puts them
PARTIAL_VOLUME = (0.0, 0.5, 0.5)  # blur in pixels, for what supersampling does to phantoms


class RealLabels(NamedTuple):
    """Label volumes of patients, and what their clinical table says of each.

    Attributes:
        folder: of the clinical table.
        cases: in the order of their names.
        table: rows of kits.json by case, as they are there.
        digest: of the table and the names of the cases.
    """

    folder: Path
    cases: Sequence[FoundCase]
    table: Mapping[str, Mapping[str, Any]]
    digest: str


def _labelled(source: Path, first: int, count: int | None) -> RealLabels:
    """The cases of a KiTS folder that have a label and a row in the clinical table."""
    found = find_kits(source, labels_only=True)
    clinical = find_clinical(source, found.root)
    if clinical is None:
        raise DataError(f"{source}: no clinical table; put kits.json beside the cases")
    try:
        table = {str(row["case_id"]): row for row in read_json(clinical)}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{clinical}: no list of rows with a case_id ({error}); get it anew") from (
            error
        )
    cases = [case for case in found.cases if case.case in table]
    chosen = cases[first : None if count is None else first + count]
    if not chosen or (count is not None and len(chosen) < count):
        raise DataError(
            f"{source}: {len(cases)} cases with a label and a row in {clinical.name}, asked for "
            f"{count or 1} from number {first}; ask for fewer (cases, first)"
        )
    digest = f"{file_sha256(clinical)} {chosen[0].case}-{chosen[-1].case} {len(chosen)}"
    return RealLabels(clinical.parent, chosen, table, digest)


def _paint_volumes(folder: Path, real: RealLabels, matrix: int, seed: int, seen: Seen) -> None:
    """Write painted labels as KiTS21 has its cases, with their rows of the clinical table."""
    names = [case.case for case in real.cases]
    strangers = np.roll(np.random.default_rng(seed).permutation(names), 1)
    stranger_of = dict(zip(np.roll(strangers, -1).tolist(), strangers.tolist(), strict=True))
    table = []
    for case in tqdm(real.cases, desc="painted labels", unit="case", disable=None):
        volumes, problems = read_case(case)
        if volumes is None:
            raise DataError("; ".join(map(str, problems)))
        label = _thinned(volumes.label, matrix)
        random = np.random.default_rng([seed, int(case.case.removeprefix("case_"))])
        (folder / case.case).mkdir(parents=True)
        image = paint(random, label.planes, label.spacing_mm, seen)
        for name, array in (("imaging", image), ("aggregated_MAJ_seg", label.planes)):
            volume = nib.Nifti1Image(array, label.affine)
            volume.set_qform(None, 0)
            volume.set_sform(label.affine, 2)
            volume.to_filename(folder / case.case / f"{name}.nii.gz")
        unrelated = real.table[stranger_of[case.case]].get("radiographic_size")
        table.append({**real.table[case.case], "unrelated_size": unrelated})
    (folder / "kits.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _thinned(volume: AxialVolume, matrix: int) -> AxialVolume:
    """Every n-th plane, row and column, from the middle of each block."""
    planes, rows, columns = volume.planes.shape
    across = max(round(min(rows, columns) / matrix), 1)
    along = max(int(np.ceil(THINNED_MM / volume.spacing_mm[0] - 1e-6)), 1)
    steps = [min(step, count) for step, count in ((along, planes), (across, rows))]
    steps.append(steps[1])
    thin = volume.planes[tuple(slice(step // 2, None, step) for step in steps)]
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ [step // 2 for step in steps]
    affine[:3, :3] *= steps
    return AxialVolume(np.ascontiguousarray(thin), affine, volume.orientation)


def paint(
    random: np.random.Generator,
    label: np.ndarray,
    spacing_mm: Sequence[float],
    seen: Seen = "core",
) -> np.ndarray:
    """Give a label the attenuation of CT, within a simulated abdomen.

    What of a tumour is not seen looks like the tissue next to it, kidney or fat.

    Args:
        random: draws the abdomen, the widths of cores and the noise.
        label: (D, H, W) uint8, 1 kidney, 2 tumour, 3 cyst, as `AxialVolume` has its planes.
        spacing_mm: of planes, rows and columns.
        seen: of tumours, see `generate_phantoms`.

    Returns:
        HU, (D, H, W) int16.
    """
    places = np.argwhere(label > 0)
    middle = places.mean(0) if len(places) else (np.array(label.shape) - 1) / 2
    axes = [
        (np.arange(count) - at) * step + mm
        for count, at, step, mm in zip(label.shape, middle, spacing_mm, KIDNEYS_MM, strict=True)
    ]
    drawn = draw_anatomy(random)
    bare = Anatomy(drawn.trunk, drawn.cavity, drawn.spine, drawn.organs, (), (), ())
    hu, _ = render(bare, *axes)
    hu[label == KIDNEY_CLASS] = KIDNEY
    hu[label == CYST_CLASS] = CYST
    tumour = label == TUMOUR_CLASS
    if tumour.any():
        next_to = (label == KIDNEY_CLASS) | ((label == 0) & (hu <= 0) & (hu > AIR))
        if next_to.any():
            nearest = distance_transform_edt(
                ~next_to, sampling=spacing_mm, return_distances=False, return_indices=True
            )
            hu[tumour] = hu[tuple(axis[tumour] for axis in nearest)]
        weight = tumour.astype(np.float32) if seen == "whole" else _core(random, tumour, spacing_mm)
        hu += weight * (TUMOUR - hu)
    hu = gaussian_filter(hu, PARTIAL_VOLUME)
    white = random.standard_normal(label.shape, dtype=np.float32)
    noise = gaussian_filter(white, (0, NOISE_WIDTH_PX, NOISE_WIDTH_PX))
    return np.clip(np.rint(hu + noise * (NOISE_HU / noise.std())), -1024, 3071).astype(np.int16)


def _core(
    random: np.random.Generator, tumour: np.ndarray, spacing_mm: Sequence[float]
) -> np.ndarray:
    """How much of a tumour is seen, (D, H, W) in [0, 1]: a core of a width that says nothing.

    Its contrast falls from the middle plane to the poles, as in `render`.
    """
    lesions, count = connected(tumour)
    weight = np.zeros(tumour.shape, dtype=np.float32)
    rows, columns = (
        np.arange(length)[shape] * step
        for length, step, shape in zip(
            tumour.shape[1:],
            spacing_mm[1:],
            ((slice(None), None), (None, slice(None))),
            strict=True,
        )
    )
    for number in range(1, count + 1):
        width = float(random.uniform(*CORE_MM))
        own = lesions == number
        planes = np.flatnonzero(own.any((1, 2)))
        middle, reach = planes.mean(), max((len(planes) + 1) / 2, 1)
        for plane in planes:
            y, x = (
                places.mean() * step
                for places, step in zip(np.nonzero(own[plane]), spacing_mm[1:], strict=True)
            )
            share = POLE_CONTRAST + (1 - POLE_CONTRAST) * (1 - ((plane - middle) / reach) ** 2)
            seen = share * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
            weight[plane] = np.maximum(weight[plane], seen * own[plane])
    return weight
