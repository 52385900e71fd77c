"""How a simulated field is taken: the acquisition metadata of the proposal (section 2.1)."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, laplace

from metaseg_monai.simulate.cells.culture import Culture

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

    Without `everything`, unstained brightfield in focus through air at one exposure, with the
    density, the illumination and the exact focus by chance.
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


# From what lies in a field to the 16-bit image that a camera takes of it.

ELECTRONS = 9000.0  # of the background at 20 ms, brightfield
FLUORESCENT = 0.35  # of them, from a nucleus in focus
DARK = 0.02
READ_NOISE = 6.0
OFFSET, GAIN = 200.0, 2.2  # counts, counts an electron
COMMON_EXPOSURE_MS = 20
PHASE = 0.55  # contrast of a relief of 1 um curvature at 1 um of defocus
ABSORPTION = 0.28  # of a stained nucleus
BLUR_OF_DEFOCUS = 0.07  # um of blur a um of defocus
SHEAR = 1.1  # contrast of differential phase


def expose(
    random: np.random.Generator,
    culture: Culture,
    acquisition: Acquisition,
    shadow: np.ndarray | None = None,
) -> np.ndarray:
    """Take the image (H, W), uint16, of which a shadow (H, W) is the transmission of anomalies.

    Brightfield shows the curvature of the relief, with a contrast that grows with the distance of
    the focus and turns with its side (the transport-of-intensity equation); differential phase
    contrast shows its slope; fluorescence shows the nuclei themselves.
    """
    pixel_um = acquisition.pixel_um
    blur = np.hypot(acquisition.sharpness_um, BLUR_OF_DEFOCUS * abs(acquisition.focus_um))
    blur_px = float(max(0.4, blur / pixel_um))
    if acquisition.modality == "fluorescence":
        light = DARK + FLUORESCENT * gaussian_filter(culture.nuclei, blur_px)
    else:
        relief = gaussian_filter(culture.relief, blur_px)
        if acquisition.modality == "dpc":
            signal = SHEAR * np.gradient(relief, pixel_um, axis=1)
        else:
            signal = -PHASE * acquisition.focus_um / 3 * laplace(relief) / pixel_um**2
        light = 1 + np.clip(signal, -0.75, 1.5)
        if acquisition.staining == "haematoxylin":
            light = light * (1 - ABSORPTION * gaussian_filter(culture.nuclei, blur_px))
    light = light * illumination(culture.relief.shape, acquisition)
    if shadow is not None:
        light = light * shadow
    expected = ELECTRONS * light * acquisition.exposure_ms / COMMON_EXPOSURE_MS
    electrons = random.poisson(np.clip(expected, 0, None))
    counts = OFFSET + GAIN * (electrons + random.normal(0, READ_NOISE, electrons.shape))
    return np.asarray(np.clip(np.rint(counts), 0, 65535), dtype=np.uint16)


def illumination(shape: tuple[int, ...], taken: Acquisition) -> np.ndarray:
    """The light (H, W) that falls on an empty field of a well: the same for all its images."""
    y = np.linspace(-1, 1, shape[0])[:, None]
    x = np.linspace(-1, 1, shape[1])[None, :]
    light = np.ones(shape)
    if taken.illumination == "tilted":
        light += 0.18 * (y * np.sin(taken.light_angle) + x * np.cos(taken.light_angle))
    elif taken.illumination == "vignetted":
        light += 0.05 - 0.16 * (y**2 + x**2)
    return taken.lamp * light
