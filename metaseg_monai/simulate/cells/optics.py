"""From what lies in a field to the 16-bit image that a camera takes of it."""

import numpy as np
from scipy.ndimage import gaussian_filter, laplace

from metaseg_monai.simulate.cells.acquisition import Acquisition
from metaseg_monai.simulate.cells.culture import Culture

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
    """Take the image (H, W), uint16.

    Brightfield shows the curvature of the relief, with a contrast that grows with the distance of
    the focus and turns with its side (the transport-of-intensity equation); differential phase
    contrast shows its slope; fluorescence shows the nuclei themselves.

    Args:
        random: the only source of chance.
        culture: what lies in the field.
        acquisition: how it is taken.
        shadow: transmission (H, W) of anomalies, multiplied in after blurring; None for none.
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
