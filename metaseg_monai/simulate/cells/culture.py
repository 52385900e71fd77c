"""What lies in a field: cells of a line, anomalies over them, or the concrete of a wall."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter
from skimage.draw import disk, line

from metaseg_monai.errors import DataError

Cue = Literal["metadata", "image", "nothing"]
CUES: tuple[str, ...] = get_args(Cue)


@dataclass(frozen=True)
class Shape:
    """A body of smooth outline.

    Attributes:
        radius_um: of the disc of the same area.
        elongation: long over short axis.
        flattened: how much nearer the middle of one side is, a share of the radius.
        ripple: irregularity of the outline, a share of the radius.
    """

    radius_um: float
    elongation: float = 1.0
    flattened: float = 0.0
    ripple: float = 0.03


@dataclass(frozen=True)
class Line:
    """A cell line.

    Attributes:
        nucleus: what the label shows.
        body: what one sees of the cell.
        height: of the body's relief; 1 is common.
        grain: contrast of the granules inside; 1 is common.
        faintness: contrast of the nucleus' own relief, a share of the body's.
    """

    nucleus: Shape
    body: Shape
    height: float = 1.0
    grain: float = 1.0
    faintness: float = 0.12


LINES: dict[str, Line] = {
    "HeLa": Line(Shape(7.0, 1.25), Shape(12.0, 1.4, ripple=0.08), 1.1, 1.0),
    "MDCK": Line(Shape(4.6, 1.1), Shape(9.0, 1.1, ripple=0.03), 0.7, 0.5),
    "A549": Line(Shape(6.4, 1.6), Shape(12.5, 1.7, ripple=0.06), 0.8, 1.4),
    "HT1080": Line(Shape(5.6, 2.1), Shape(12.0, 2.3, ripple=0.12), 1.2, 0.8),
    "HepG2": Line(Shape(6.0, 1.05), Shape(10.0, 1.15, ripple=0.05), 1.4, 1.8),
    "MCF7": Line(Shape(5.4, 1.35, flattened=0.3), Shape(10.5, 1.3, ripple=0.05), 0.9, 1.2),
    "NIH3T3": Line(Shape(8.0, 1.7), Shape(14.5, 2.0, ripple=0.1), 0.6, 0.7),
    "AZ": Line(Shape(6.2, 1.3), Shape(11.0, 1.2, ripple=0.2), 1.6, 2.4),
}
SEVEN_LINES = ("HeLa", "MDCK", "A549", "HT1080", "HepG2", "MCF7", "NIH3T3")  # order of thesis 3.2
COMMON_BODY = Shape(13.0, 1.35, ripple=0.06)
COMMON_NUCLEUS = Shape(6.2, 1.35)


def line_as_seen(name: str, cue: Cue) -> Line:
    """The line as the generator draws it.

    Args:
        name: a key of `LINES`.
        cue: what tells the shape of the nucleus. "metadata": all lines look alike and nuclei are
            invisible, but their shape and size are those of their line, so that only its name
            tells them (the thought experiment of the thesis, chapter 5). "image": the body looks
            as the line does and the nucleus is faintly visible. "nothing": as "image", but all
            lines are one, so that the name says nothing (null control).
    """
    line = LINES[name]
    if cue == "metadata":
        return Line(line.nucleus, COMMON_BODY, faintness=0.0)
    if cue == "nothing":
        return Line(COMMON_NUCLEUS, COMMON_BODY)
    return line


CROWDING = 0.8  # least distance of two cells, a share of the sum of their radii
ATTEMPTS = 12
SIZE_SPREAD, LARGEST_SIZE = 0.08, 4.0  # of the logarithm; in spreads
MOST_OBJECTS = 65535
SMALLEST_OBJECT_PX = 4
HARMONICS = (3, 4, 5)


class Culture(NamedTuple):
    """What lies in one field of view; all arrays are (H, W).

    Attributes:
        relief: optical thickness of the cells, about 1 in the middle of one; float32.
        nuclei: share of a pixel that nuclei cover, for stains; float32.
        objects: number of the nucleus of a pixel, from 1, 0 for none; uint16.
    """

    relief: np.ndarray
    nuclei: np.ndarray
    objects: np.ndarray


def draw_culture(
    random: np.random.Generator,
    line: Line,
    size: tuple[int, int],
    pixel_um: float,
    density_per_mm2: float,
) -> Culture:
    """Draw the cells of a field (H, W); cells at its border are cut, those without room left out.

    Raises:
        DataError: more cells than 16 bits can number.
    """
    made = Culture(
        np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.uint16)
    )
    margin_um = line.body.radius_um
    extent = (size[0] * pixel_um + 2 * margin_um, size[1] * pixel_um + 2 * margin_um)
    wanted = random.poisson(density_per_mm2 * extent[0] * extent[1] / 1e6)
    crowd = Crowd(2 * CROWDING * line.body.radius_um * np.exp(LARGEST_SIZE * SIZE_SPREAD))
    number = 0
    for _ in range(max(1, wanted)):
        size_noise = np.clip(random.normal(), -LARGEST_SIZE, LARGEST_SIZE)
        scale = float(np.exp(SIZE_SPREAD * size_noise))
        place = crowd.find_room(random, extent, line.body.radius_um * scale)
        if place is None:
            continue
        number += 1
        if number > MOST_OBJECTS:
            raise DataError(
                f"a field of {size[0]} x {size[1]} pixels of {pixel_um:g} um holds more than "
                f"{MOST_OBJECTS} cells, which 16 bits cannot number; choose a smaller size"
            )
        middle = (place[0] - margin_um, place[1] - margin_um)
        _add_cell(random, line, made, middle, scale, pixel_um, number)
    return made._replace(objects=renumbered(made.objects))


class Crowd:
    """Cells (y, x, radius) by the square of `side` they lie in: neighbours are found at once."""

    def __init__(self, side: float) -> None:
        self.side = side
        self.squares: dict[tuple[int, int], list[tuple[float, float, float]]] = defaultdict(list)

    def find_room(
        self, random: np.random.Generator, extent: tuple[float, float], radius: float
    ) -> tuple[float, float] | None:
        """Place a cell away from all others; None where it finds no room."""
        for _ in range(ATTEMPTS):
            y, x = random.uniform(0, extent[0]), random.uniform(0, extent[1])
            row, column = int(y // self.side), int(x // self.side)
            near = (
                other
                for place in np.ndindex(3, 3)
                for other in self.squares.get((row + place[0] - 1, column + place[1] - 1), ())
            )
            if all(
                (y - other_y) ** 2 + (x - other_x) ** 2 > (CROWDING * (radius + other)) ** 2
                for other_y, other_x, other in near
            ):
                self.squares[row, column].append((y, x, radius))
                return y, x
        return None


def _add_cell(
    random: np.random.Generator,
    line: Line,
    made: Culture,
    centre_um: tuple[float, float],
    scale: float,
    pixel_um: float,
    number: int,
) -> None:
    angle = random.uniform(0, np.pi)
    tilt, drift = random.normal(0, 0.06), random.normal(0, 0.04, 2) * line.body.radius_um
    outlines = [ripples_of(random, shape) for shape in (line.body, line.nucleus)]
    grain_seed = int(random.integers(2**32))
    reach = 2.2 * line.body.radius_um * scale * np.sqrt(line.body.elongation)
    first = np.floor((np.array(centre_um) - reach) / pixel_um).astype(int).clip(0)
    last = np.ceil((np.array(centre_um) + reach) / pixel_um).astype(int) + 1
    last = np.minimum(last, made.relief.shape)
    if (last <= first).any():
        return
    window = tuple(map(slice, first, last))
    y = (np.arange(first[0], last[0]) + 0.5)[:, None] * pixel_um - centre_um[0]
    x = (np.arange(first[1], last[1]) + 0.5)[None, :] * pixel_um - centre_um[1]
    body = distance_in(line.body, outlines[0], y, x, angle, scale)
    nucleus = distance_in(
        line.nucleus, outlines[1], y - drift[0], x - drift[1], angle + tilt, scale
    )
    noise = np.random.default_rng(grain_seed).standard_normal(body.shape)
    grain = gaussian_filter(noise, max(0.5, 0.5 / pixel_um))
    grain = grain / max(float(grain.std()), 1e-6) * line.grain * (body < 0.95)
    height = np.sqrt(np.clip(1 - body**2, 0, 1)) * line.height
    dome = np.sqrt(np.clip(1 - nucleus**2, 0, 1)) * line.faintness
    made.relief[window] += height * (1 + 0.06 * grain) + dome
    made.nuclei[window] = np.maximum(made.nuclei[window], nucleus < 1)
    patch = made.objects[window]
    patch[(nucleus < 1) & (patch == 0)] = number


def ripples_of(random: np.random.Generator, shape: Shape) -> list[tuple[int, float, float]]:
    """Harmonics of an outline: (order, amplitude, phase)."""
    return [
        (
            order,
            float(random.normal(0, shape.ripple * HARMONICS[0] / order)),
            float(random.uniform(0, 2 * np.pi)),
        )
        for order in HARMONICS
    ]


def distance_in(
    shape: Shape,
    ripples: list[tuple[int, float, float]],
    y: np.ndarray,
    x: np.ndarray,
    angle: float,
    scale: float,
) -> np.ndarray:
    """Distance from the centre (h, w) in units of the outline's: 1 on the outline."""
    radius = shape.radius_um * scale
    along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(shape.elongation)
    across = (y * np.cos(angle) - x * np.sin(angle)) * np.sqrt(shape.elongation)
    theta = np.arctan2(across, along)
    edge = 1 - shape.flattened * np.exp(-(((theta - np.pi / 2) / 0.7) ** 2))
    for order, amplitude, phase in ripples:
        edge = edge + amplitude * np.cos(order * theta + phase)
    return np.asarray(np.hypot(along, across) / (radius * np.clip(edge, 0.2, None)))


def renumbered(objects: np.ndarray) -> np.ndarray:
    """Number the objects without gaps, without those of which only a few pixels are left."""
    sizes = np.bincount(objects.ravel())
    kept = np.flatnonzero(sizes[1:] >= SMALLEST_OBJECT_PX) + 1
    numbers = np.zeros(len(sizes), np.uint16)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[objects]


# What does not belong into a field: fibres, dust, bubbles, smears, and their mask.

VISIBLE = 0.06  # loss of light from which a pixel counts as anomalous


def draw_anomalies(
    random: np.random.Generator, size: tuple[int, int], pixel_um: float, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw anomalies of random kinds, whose sizes are in micrometres.

    Returns:
        Transmission (H, W) float32, 1 where nothing is, and the mask (H, W) uint8 of 0 and 1.
    """
    transmission = np.ones(size, np.float32)
    for _ in range(number):
        draw = (_fibre, _dust, _bubble, _smear)[random.choice(4)]
        transmission *= draw(random, size, pixel_um)
    return transmission, (np.abs(transmission - 1) > VISIBLE).astype(np.uint8)


def _fibre(random: np.random.Generator, size: tuple[int, int], pixel_um: float) -> np.ndarray:
    canvas = np.zeros(size, bool)
    place = random.uniform(0, 1, 2) * size
    heading, step = random.uniform(0, 2 * np.pi), max(2.0, 6 / pixel_um)
    for _ in range(int(random.integers(6, 16))):
        heading += random.normal(0, 0.35)
        following = place + step * np.array([np.sin(heading), np.cos(heading)])
        _draw_line(canvas, place, following)
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


def _draw_line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """Draw a line of one pixel, as far as it lies in the picture."""
    rows, columns = line(*np.rint(start).astype(int), *np.rint(end).astype(int))
    kept = (rows >= 0) & (rows < canvas.shape[0]) & (columns >= 0) & (columns < canvas.shape[1])
    canvas[rows[kept], columns[kept]] = True


# Cracks in concrete, the foreign domain of thesis 4.5, as far as chance can draw them.

CONCRETE = 24000.0  # counts
CRACK_PX = (1.0, 3.5)


def draw_concrete(random: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Draw a square wall with some cracks, (H, W) uint16, and their mask of 0 and 1, uint8."""
    wall = np.ones(size)
    for width, strength in ((1, 0.04), (4, 0.04), (max(size) / 6, 0.06)):
        noise = gaussian_filter(random.standard_normal(size), width)
        wall += strength * noise / max(float(noise.std()), 1e-6)
    mask = np.zeros(size, bool)
    for _ in range(int(random.integers(1, 4))):
        mask |= _crack(random, size)
    wall *= 1 - 0.55 * gaussian_filter(mask.astype(float), 0.7)
    image = np.clip(np.rint(CONCRETE * wall), 0, 65535).astype(np.uint16)
    return image, mask.astype(np.uint8)


def _crack(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A walk from one side of the picture to the other, wide in some parts."""
    canvas = np.zeros(size, bool)
    place = np.array([random.uniform(0, size[0]), 0.0])
    step = max(3.0, size[1] / 24)
    while place[1] < size[1] - 1:
        heading = random.normal(0, 0.6)
        following = place + step * np.array([np.sin(heading), np.cos(heading)])
        _draw_line(canvas, place, following)
        place = following
    if random.random() < 0.5:
        canvas = canvas.T
    if not canvas.any():
        return canvas
    return np.asarray(distance_transform_edt(~canvas) < random.uniform(*CRACK_PX))
