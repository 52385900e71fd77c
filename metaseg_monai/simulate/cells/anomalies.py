"""What does not belong into a field: fibres, dust, bubbles, smears, and their mask."""

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.draw import disk, line

VISIBLE = 0.06  # loss of light from which a pixel counts as anomalous
KINDS = ("fibre", "dust", "bubble", "smear")


def draw_anomalies(
    random: np.random.Generator, size: tuple[int, int], pixel_um: float, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw anomalies of random kinds.

    Args:
        random: the only source of chance.
        size: (H, W) in pixels.
        pixel_um: side of a pixel; anomalies have sizes in micrometres.
        number: of anomalies.

    Returns:
        Transmission (H, W) float32, 1 where nothing is, and the mask (H, W) uint8 of 0 and 1.
    """
    transmission = np.ones(size, np.float32)
    for _ in range(number):
        draw = {"fibre": _fibre, "dust": _dust, "bubble": _bubble, "smear": _smear}
        transmission *= draw[str(random.choice(KINDS))](random, size, pixel_um)
    return transmission, (np.abs(transmission - 1) > VISIBLE).astype(np.uint8)


def _fibre(random: np.random.Generator, size: tuple[int, int], pixel_um: float) -> np.ndarray:
    canvas = np.zeros(size, bool)
    place = random.uniform(0, 1, 2) * size
    heading, step = random.uniform(0, 2 * np.pi), max(2.0, 6 / pixel_um)
    for _ in range(int(random.integers(6, 16))):
        heading += random.normal(0, 0.35)
        following = place + step * np.array([np.sin(heading), np.cos(heading)])
        rows, columns = line(*np.rint(place).astype(int), *np.rint(following).astype(int))
        kept = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        canvas[rows[kept], columns[kept]] = True
        place = following
    wide = binary_dilation(canvas, iterations=max(1, round(1.2 / pixel_um)))
    return _shaded(wide, random.uniform(0.3, 0.6), random.uniform(0.4, 1.5) / pixel_um)


def _dust(random: np.random.Generator, size: tuple[int, int], pixel_um: float) -> np.ndarray:
    canvas = np.zeros(size, bool)
    middle = random.uniform(0, 1, 2) * size
    for _ in range(int(random.integers(1, 6))):
        centre = middle + random.normal(0, 5 / pixel_um, 2)
        canvas[disk(centre, max(1.5, random.uniform(1.5, 5) / pixel_um), shape=size)] = True
    return _shaded(canvas, random.uniform(0.4, 0.8), random.uniform(0.3, 1.0) / pixel_um)


def _bubble(random: np.random.Generator, size: tuple[int, int], pixel_um: float) -> np.ndarray:
    """A dark rim with a bright heart."""
    centre = random.uniform(0, 1, 2) * size
    radius = max(3.0, random.uniform(6, 16) / pixel_um)
    whole, heart = np.zeros(size, bool), np.zeros(size, bool)
    whole[disk(centre, radius, shape=size)] = True
    heart[disk(centre, 0.75 * radius, shape=size)] = True
    blur = 0.4 / pixel_um
    rim = _shaded(whole & ~heart, 0.6, blur)
    return np.asarray(rim * (2 - _shaded(heart, 0.25, blur)), dtype=np.float32)


def _smear(random: np.random.Generator, size: tuple[int, int], pixel_um: float) -> np.ndarray:
    """A large body far out of focus."""
    canvas = np.zeros(size, bool)
    centre = random.uniform(0, 1, 2) * size
    canvas[disk(centre, max(4.0, random.uniform(10, 25) / pixel_um), shape=size)] = True
    return _shaded(canvas, random.uniform(0.25, 0.45), random.uniform(2, 5) / pixel_um)


def _shaded(canvas: np.ndarray, depth: float, blur_px: float) -> np.ndarray:
    soft = gaussian_filter(canvas.astype(np.float32), max(0.4, blur_px))
    return np.asarray(1 - depth * soft, dtype=np.float32)
