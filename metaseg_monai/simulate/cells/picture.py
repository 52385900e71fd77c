"""One image of a plan with its labels: everything that chance decides about it."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.draw import line

from metaseg_monai.simulate.cells.acquisition import Acquisition, expose
from metaseg_monai.simulate.cells.culture import Cue, draw_anomalies, draw_culture, line_as_seen
from metaseg_monai.simulate.cells.plan import ANOMALIES, CRACK, NUCLEI, Plan
from metaseg_monai.simulate.polygons import polygonise

# Cracks in concrete, the foreign domain of thesis 4.5, as far as chance can draw them.

LEVEL, SATURATION = 24000.0, 65535
WIDTH_PX = (1.0, 3.5)


def draw_concrete(random: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Draw a wall with one to three cracks.

    Returns:
        The image (H, W) uint16 and the mask (H, W) uint8 of 0 and 1.
    """
    wall = np.ones(size)
    for width, strength in ((1, 0.04), (4, 0.04), (max(size) / 6, 0.06)):
        noise = gaussian_filter(random.standard_normal(size), width)
        wall += strength * noise / max(float(noise.std()), 1e-6)
    mask = np.zeros(size, bool)
    for _ in range(int(random.integers(1, 4))):
        mask |= _crack(random, size)
    wall *= 1 - 0.55 * gaussian_filter(mask.astype(float), 0.7)
    image = np.clip(np.rint(LEVEL * wall), 0, SATURATION).astype(np.uint16)
    return image, mask.astype(np.uint8)


def _crack(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A walk from one side of the picture to the other, wide in some parts."""
    canvas = np.zeros(size, bool)
    place = np.array([random.uniform(0, size[0]), 0.0])
    step = max(3.0, size[1] / 24)
    while place[1] < size[1] - 1:
        heading = random.normal(0, 0.6)
        following = place + step * np.array([np.sin(heading), np.cos(heading)])
        rows, columns = line(*np.rint(place).astype(int), *np.rint(following).astype(int))
        kept = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        canvas[rows[kept], columns[kept]] = True
        place = following
    if random.random() < 0.5:
        canvas = canvas.T if size[0] == size[1] else canvas[::-1]
    if not canvas.any():
        return canvas
    return np.asarray(distance_transform_edt(~canvas) < random.uniform(*WIDTH_PX))


STYLE_TOLERANCE_PX = {"exact": 0.0, "fine": 2.0, "coarse": 3.5}  # at 20x (paper 3.2)
STYLE_MAGNIFICATION = 20.0
SPOILT = 0.2  # share of the images without a label of anomalies that have some all the same


@dataclass(frozen=True)
class Picture:
    """What is written of one image.

    Attributes:
        image: (H, W) uint16.
        labels: task -> mask (H, W) uint8 of 0 and 1.
        objects: (H, W) uint16, numbers of the nuclei as the style draws them; None for cracks.
    """

    image: np.ndarray
    labels: dict[str, np.ndarray]
    objects: np.ndarray | None


def draw_picture(
    random: np.random.Generator, plan: Plan, acquisition: Acquisition, size: int, cue: Cue
) -> Picture:
    """Draw one image.

    Args:
        random: the only source of chance.
        plan: what to draw.
        acquisition: how it is taken.
        size: pixels a side.
        cue: what tells the nucleus' shape, see `line_as_seen`.
    """
    shape = (size, size)
    if plan.line == CRACK:
        image, mask = draw_concrete(random, shape)
        return Picture(image, dict.fromkeys(plan.tasks, mask), None)
    pixel_um = acquisition.pixel_um
    line = line_as_seen(plan.line, cue)
    culture = draw_culture(random, line, shape, pixel_um, acquisition.density_per_mm2)
    annotated = ANOMALIES in plan.tasks
    spoilt = random.random() < SPOILT
    number = int(random.integers(1, 5)) if annotated or spoilt else 0
    shadow, anomalous = draw_anomalies(random, shape, pixel_um, number)
    image = expose(random, culture, acquisition, shadow)
    tolerance = STYLE_TOLERANCE_PX[plan.style] * acquisition.magnification / STYLE_MAGNIFICATION
    objects = polygonise(culture.objects, tolerance).astype(np.uint16)
    labels = {NUCLEI: (objects > 0).astype(np.uint8), ANOMALIES: anomalous}
    return Picture(image, {task: labels[task] for task in plan.tasks}, objects)
