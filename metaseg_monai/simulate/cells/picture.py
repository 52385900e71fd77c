"""One image of a plan with its labels: everything that chance decides about it."""

from dataclasses import dataclass

import numpy as np

from metaseg_monai.simulate.cells.acquisition import Acquisition
from metaseg_monai.simulate.cells.anomalies import draw_anomalies
from metaseg_monai.simulate.cells.concrete import draw_concrete
from metaseg_monai.simulate.cells.culture import draw_culture
from metaseg_monai.simulate.cells.lines import Cue, line_as_seen
from metaseg_monai.simulate.cells.optics import expose
from metaseg_monai.simulate.cells.plan import ANOMALIES, CRACK, NUCLEI, Plan
from metaseg_monai.simulate.polygons import polygonise

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
