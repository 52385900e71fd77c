"""Cracks in concrete, the foreign domain of thesis 4.5, as far as chance can draw them."""

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.draw import line

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
