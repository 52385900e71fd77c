"""Plates and wells: images of a well share their line and how they are taken."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metaseg_monai.simulate.cells.acquisition import Acquisition, draw_acquisition
from metaseg_monai.simulate.cells.plan import Plan
from metaseg_monai.tables.columns import SPLITS

WELLS_OF_PLATE = (4, 6)  # rows, columns


@dataclass(frozen=True)
class Place:
    """Where an image was taken.

    Attributes:
        plate: name; all wells of a plate are in one split.
        well: row letter and column number.
        field: number of the image in the well, from 1.
        acquisition: of the whole well.
        unrelated_line: line of another, unrelated well (null control).
    """

    plate: str
    well: str
    field: int
    acquisition: Acquisition
    unrelated_line: str

    @property
    def group(self) -> str:
        """Plate and well."""
        return f"{self.plate}_{self.well}"


def place_images(
    plans: Sequence[Plan],
    fields_per_well: int,
    seed: int,
    everything: bool,
    unrelated: Sequence[str],
) -> list[Place]:
    """Fill wells with the images of one line and magnification, in their order.

    Args:
        plans: the images.
        fields_per_well: most images of a well.
        seed: of all chance.
        everything: let all fields of acquisition vary, see `draw_acquisition`.
        unrelated: lines among which the null control draws.
    """
    filling: dict[tuple[str, str, float], list[int]] = defaultdict(list)
    wells: dict[str, int] = defaultdict(int)
    well_of: list[tuple[str, int, int]] = []
    for plan in plans:
        key = (plan.split, plan.line, plan.magnification)
        if not filling[key] or filling[key][1] == fields_per_well:
            filling[key] = [wells[plan.split], 0]
            wells[plan.split] += 1
        filling[key][1] += 1
        well_of.append((plan.split, filling[key][0], filling[key][1]))
    known: dict[tuple[str, int], tuple[Acquisition, str]] = {}
    places = []
    for plan, (split, well, field) in zip(plans, well_of, strict=True):
        if (split, well) not in known:
            random = np.random.default_rng([seed, 8, SPLITS.index(split), well])
            taken = draw_acquisition(random, plan.magnification, everything)
            known[split, well] = (taken, str(random.choice(unrelated)))
        plate, inside = divmod(well, WELLS_OF_PLATE[0] * WELLS_OF_PLATE[1])
        row, column = divmod(inside, WELLS_OF_PLATE[1])
        name = f"{'ABCDEFGH'[row]}{column + 1:02d}"
        places.append(Place(f"{split}{plate + 1:02d}", name, field, *known[split, well]))
    return places
