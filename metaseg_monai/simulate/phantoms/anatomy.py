"""The abdomen of a CT phantom: body, organs, tumours and cysts, in mm and Hounsfield units.

Axes are (z, y, x) in mm from the middle of the body: z toward the feet, y toward the back, x toward
the patient's left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
    """Draw one abdomen: one or two tumours on a kidney, no to two cysts, all else by chance.

    Args:
        random: the only source of chance.
    """
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
    cysts = [
        cyst
        for _ in range(int(random.choice(3, p=(0.5, 0.35, 0.15))))
        if _is_clear(cyst := _draw_cyst(random, kidneys[int(random.integers(2))]), tumours)
    ]
    return Anatomy(
        (body, wall), cavity, spine, tuple(organs), kidneys, tuple(tumours), tuple(cysts)
    )


def render(
    anatomy: Anatomy, z: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put an abdomen on a grid, without noise.

    Args:
        anatomy: what to draw.
        z: positions of planes (D,) in mm; `y` (H,) of rows and `x` (W,) of columns likewise.
        y: see `z`.
        x: see `z`.

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
        z_axis, y_axis, x_axis = kidney.axes
        pelvis = kidney._replace(axes=(PELVIS * z_axis, PELVIS * y_axis, PELVIS * x_axis))
        hu[_within(pelvis, grid)] = FAT / 2
    for tumour in anatomy.tumours:
        weight, inside = _tumour(tumour, grid)
        hu += weight * (TUMOUR - hu) * cavity
        label[inside & cavity] = TUMOUR_CLASS
    for cyst in anatomy.cysts:
        inside = _within(cyst, grid)
        hu[inside] = cyst.hu
        label[inside] = CYST_CLASS
    return hu, label


def _tumour(tumour: Lesion, grid: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the visible core (D, H, W), and which voxels the tumour takes.

    The core's width says nothing of the tumour's; its contrast falls from the middle plane to the
    pole, so that a plane shows how far from the middle it lies, as a share of the radius.
    """
    dz, dy, dx = (axis - centre for axis, centre in zip(grid, tumour.centre, strict=True))
    depth = (dz / tumour.radius_mm) ** 2
    across = dy**2 + dx**2
    contrast = np.where(depth <= 1, POLE_CONTRAST + (1 - POLE_CONTRAST) * (1 - depth), 0)
    weight = contrast * np.exp(-across / (2 * tumour.core_mm**2))
    return weight.astype(np.float32), dz**2 + across <= tumour.radius_mm**2


def _within(part: Ellipsoid, grid: tuple[np.ndarray, ...]) -> np.ndarray:
    terms = [
        ((axis - centre) / side) ** 2
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


def _is_clear(cyst: Ellipsoid, tumours: list[Lesion]) -> bool:
    """Whether a cyst lies apart from every tumour."""
    return all(
        float(np.linalg.norm(np.subtract(cyst.centre, tumour.centre)))
        > cyst.axes[0] + tumour.radius_mm
        for tumour in tumours
    )
