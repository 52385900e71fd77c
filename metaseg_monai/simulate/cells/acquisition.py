"""How a simulated field is taken: the acquisition metadata of the proposal (section 2.1)."""

from dataclasses import dataclass

import numpy as np

CAMERA_PIXEL_UM = 13.0  # two binned pixels of 6.5 um, on the camera
MODALITIES = ("brightfield", "fluorescence", "dpc")
MEDIA = ("air", "water")
ILLUMINATIONS = ("even", "tilted", "vignetted")
STAINS = ("none", "haematoxylin")
EXPOSURES_MS = (20, 5, 10, 40)  # the first is common
FOCUS_UM = {"focal": (2.0, 5.0), "non-focal": (8.0, 14.0)}  # distance from the plane of the cells
DENSITY_PER_MM2 = (500.0, 1500.0)
LAMP = (0.92, 1.08)


@dataclass(frozen=True)
class Acquisition:
    """What is the same for all fields of a well.

    Attributes:
        magnification: of the objective.
        modality: of `MODALITIES`; dpc is differential phase contrast.
        medium: of `MEDIA`; water gives the larger aperture.
        focal: "focal" or "non-focal".
        plane: "upper" or "lower", the side of the cells on which the focus lies.
        focus_um: distance of the focus from the cells, negative below them.
        exposure_ms: of the camera; 20 is common.
        staining: of `STAINS`; haematoxylin darkens nuclei.
        illumination: of `ILLUMINATIONS`.
        density_per_mm2: cells on a square millimetre.
        lamp: brightness; 1 is common.
        light_angle: in radians, direction from which tilted light comes.
    """

    magnification: float
    modality: str = "brightfield"
    medium: str = "air"
    focal: str = "focal"
    plane: str = "upper"
    focus_um: float = 3.0
    exposure_ms: int = 20
    staining: str = "none"
    illumination: str = "even"
    density_per_mm2: float = 1000.0
    lamp: float = 1.0
    light_angle: float = 0.0

    @property
    def pixel_um(self) -> float:
        """Side of a pixel in the plane of the cells."""
        return CAMERA_PIXEL_UM / self.magnification

    @property
    def sharpness_um(self) -> float:
        """Standard deviation of the blur of a plane in focus."""
        aperture = min(0.95, 0.08 * self.magnification**0.62)
        return 0.22 / (aperture * (1.25 if self.medium == "water" else 1.0))


def draw_acquisition(
    random: np.random.Generator, magnification: float, everything: bool
) -> Acquisition:
    """Draw how one well is taken.

    Args:
        random: the only source of chance.
        magnification: of the objective.
        everything: let all fields vary; otherwise unstained brightfield in focus through air at one
            exposure, with the density, the illumination and the exact focus by chance.
    """

    def one_of(values: tuple[str, ...]) -> str:
        return str(random.choice(values)) if everything else values[0]

    modality, medium, staining = one_of(MODALITIES), one_of(MEDIA), one_of(STAINS)
    focal = one_of(tuple(FOCUS_UM))
    plane = "upper" if not everything or random.random() < 0.5 else "lower"
    distance = random.uniform(*FOCUS_UM[focal])
    return Acquisition(
        magnification=magnification,
        modality=modality,
        medium=medium,
        focal=focal,
        plane=plane,
        focus_um=round(float(distance if plane == "upper" else -distance), 2),
        exposure_ms=int(random.choice(EXPOSURES_MS)) if everything else EXPOSURES_MS[0],
        staining=staining,
        illumination=str(random.choice(ILLUMINATIONS)),
        density_per_mm2=round(float(random.uniform(*DENSITY_PER_MM2))),
        lamp=float(random.uniform(*LAMP)),
        light_angle=float(random.uniform(0, 2 * np.pi)),
    )
