"""Adipocytes that are made: brightfield planes through a field, and its three fluorescences."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, laplace
from tqdm import tqdm

from metaseg_monai.prepare.adipocyte import (
    INTENSITY,
    INTENSITY_LABELS,
    NUCLEI,
    STAINS,
    write_centres,
    write_ranges,
)
from metaseg_monai.prepare.names import well_name
from metaseg_monai.prepare.pipeline import MASK, TARGET
from metaseg_monai.rows import write_table
from metaseg_monai.simulate.cells.acquisition import BLUR_OF_DEFOCUS, LAMP, Acquisition
from metaseg_monai.simulate.cells.culture import (
    Crowd,
    Shape,
    distance_in,
    renumbered,
    ripples_of,
)
from metaseg_monai.simulate.generated import require, require_whole, write_generated, write_tiff

SMALLEST_SIDE = 32
PLATE = "AdipocytePlate"
COLUMNS_OF_PLATE = 24
MOST_WELLS = 384
DEPTH_UM = 6.0  # of the first and the last plane from the middle one


def generate_adipocyte(
    output: str | Path,
    train: int = 5,
    val: int = 1,
    test: int = 2,
    fields: int = 2,
    magnifications: Sequence[float] = (20, 40, 60),
    planes: int = 7,
    size: int = 256,
    camera_pixel_um: float = 16.0,
    seed: int = 0,
) -> Path:
    """Write simulated adipocytes: z-stacks of brightfield, and their nuclei, lipids and cytoplasm.

    Example:
        python -m metaseg_monai generate adipocyte --output adipocyte --size 128

    Real about them: droplets, nuclei and cell bodies have sizes and optical thickness in
    micrometres, at heights of their own; a plane shows their curvature, stronger the farther it is
    from them, turned over on their other side, and blurred (the transport-of-intensity equation);
    nuclei are hardly seen in it, lipids clearly. Stains and lamp differ by well, ranges of values
    by magnification; photon and read noise, 16 bit. Not real: cells are smooth ovals that hardly
    overlap, droplets are spheres, and no light is scattered twice.

    The folder is what `prepare adipocyte` makes of real data: table.csv with a row for each field
    and stain, masks and numbers of the nuclei (here as they were drawn), nuclei.csv, intensity.json
    and intensity_labels.json. The group is the well, in which all its magnifications are.

    Args:
        output: a new or empty folder, or one made with these arguments.
        train: training wells.
        val: validation wells.
        test: test wells.
        fields: of each well at each magnification.
        magnifications: of the objectives.
        planes: of a stack, evenly from 6 um below the cells to 6 um above them.
        size: pixels a side, at least 32.
        camera_pixel_um: side of a pixel of the camera, 16 for small images of some cells; the
            challenge's images have about 8.
        seed: the same arguments give the same bytes.

    Returns:
        The path of the table.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: the folder holds other files.
    """
    require_whole(
        train=(train, 0), val=(val, 0), test=(test, 0), fields=(fields, 1), planes=(planes, 1),
        size=(size, SMALLEST_SIDE), seed=(seed, 0),
    )  # fmt: skip
    numbers = [one for one in magnifications if isinstance(one, int | float)]
    wells = train + val + test
    require(
        (0 < wells <= MOST_WELLS, f"{wells} wells: expected 1 to {MOST_WELLS}"),
        (
            0 < len(set(numbers)) == len(magnifications)
            and 1 <= min(numbers) <= max(numbers) <= 200,
            f"magnifications={list(magnifications)}: expected different numbers from 1 to 200",
        ),
        (
            isinstance(camera_pixel_um, int | float) and 1 <= camera_pixel_um <= 100,
            f"camera_pixel_um={camera_pixel_um!r}: expected micrometres from 1 to 100",
        ),
    )
    settings: dict[str, Any] = {
        "recipe": "adipocyte",
        **{"train": train, "val": val, "test": test, "fields": fields},
        "magnifications": [float(one) for one in numbers],
        **{"planes": planes, "size": size, "camera_pixel_um": float(camera_pixel_um)},
        "seed": seed,
    }
    write_generated(Path(output), settings, partial(_write, settings=settings), once=True)
    return Path(output) / "table.csv"


def _write(folder: Path, settings: Mapping[str, Any]) -> None:
    splits = [name for name in ("train", "val", "test") for _ in range(settings[name])]
    jobs = [
        (well, split, magnification, field)
        for well, split in enumerate(splits)
        for magnification in settings["magnifications"]
        for field in range(1, settings["fields"] + 1)
    ]
    rows: list[dict[str, str]] = []
    for job in tqdm(jobs, desc="adipocyte", unit="field", disable=None):
        rows += _write_field(folder, settings, *job)
    write_table(rows, folder / "table.csv")
    write_centres(folder / NUCLEI)
    write_ranges(folder / INTENSITY, of="planes")
    write_ranges(folder / INTENSITY_LABELS, of="stains")


def _write_field(
    folder: Path,
    settings: Mapping[str, Any],
    well: int,
    split: str,
    magnification: float,
    field: int,
) -> list[dict[str, str]]:
    """Write one field with all its files, and return its rows."""
    culture = draw_well(np.random.default_rng([settings["seed"], 21, well]))
    random = np.random.default_rng([settings["seed"], 22, well, round(100 * magnification), field])
    pixel_um = settings["camera_pixel_um"] / magnification
    scene = draw_scene(random, culture, settings["size"], pixel_um)
    heights = np.linspace(-DEPTH_UM, DEPTH_UM, settings["planes"])
    if len(heights) == 1:
        heights = np.array([DEPTH_UM / 2])
    row, column = divmod(well, COLUMNS_OF_PLATE)
    name = well_name(str(row + 1), str(column + 1))
    case = f"{magnification:g}x_{PLATE}_{name}_F{field:03d}"
    files = {MASK: f"labels/{case}.tif", "instances": f"instances/{case}.tif"}
    planes = [f"images/{case}/Z{number:02d}.tif" for number in range(1, len(heights) + 1)]
    targets = {stain: f"targets/{stain}/{case}.tif" for stain in STAINS.values()}
    for file in (*files.values(), planes[0], *targets.values()):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    for file, height in zip(planes, heights, strict=True):
        plane = brightfield(random, scene, culture, magnification, float(height))
        write_tiff(folder / file, plane, pixel_um)
    for stain, file in targets.items():
        shown = fluorescence(random, scene, culture, magnification, stain)
        write_tiff(folder / file, shown, pixel_um)
    write_tiff(folder / files[MASK], (scene.objects > 0).astype(np.uint8))
    write_tiff(folder / files["instances"], scene.objects)
    known = {
        "magnification": f"{magnification:g}",
        "plate": PLATE,
        "well": name,
        "field": str(field),
        "pixel_um": f"{pixel_um:.6g}",
        "instances": files["instances"],
        "group": f"{PLATE}_{name}",
        "split": split,
    }
    image = ";".join(planes)
    return [
        {"image": image, "label": file, TARGET: stain, MASK: files[MASK], **known}
        for stain, file in targets.items()
    ]


class Well(NamedTuple):
    """What is the same for all fields of a well.

    Attributes:
        density_per_mm2: of cells.
        mature: part of the cells that are full of droplets.
        stains: brightness of each, 1 is common.
        lamp: brightness of the light, 1 is common.
        focus_um: how far the middle plane is from the cells.
    """

    density_per_mm2: float
    mature: float
    stains: Mapping[str, float]
    lamp: float
    focus_um: float


def draw_well(random: np.random.Generator) -> Well:
    """Draw what is the same for all fields of a well."""
    density, mature = random.uniform(900, 1400), random.uniform(0.5, 0.85)
    stains = {stain: float(random.lognormal(0, 0.12)) for stain in STAINS.values()}
    return Well(density, mature, stains, random.uniform(*LAMP), random.uniform(-0.8, 0.8))


BODY = Shape(19.0, 1.25, ripple=0.06)
YOUNG = Shape(16.0, 2.1, ripple=0.1)  # a cell before it fills with lipid
NUCLEUS = Shape(5.2, 1.3, flattened=0.1, ripple=0.03)
MOST_DROPLETS, DROPLET_UM = 45, (0.9, 5.0)  # of a cell; radii
LAYERS_UM = (-1.5, 0.0, 1.5)  # heights of droplets
NUCLEUS_HEIGHT_UM = 0.8
BODY_UM = 4.5  # thickness of a cell
INDEX = {"body": 0.018, "nucleus": 0.010, "lipid": 0.05}  # refractive index beyond that around


class Scene(NamedTuple):
    """What lies in a field; arrays are (H, W) float32, lengths in micrometres.

    Attributes:
        body: thickness of the cells.
        nuclei: thickness of the nuclei.
        brightness: of the stain of the nucleus of a pixel.
        droplets: thickness of the lipid of each of `LAYERS_UM`.
        chromatin: texture of nuclei, about 1.
        granules: texture of cytoplasm, about 1.
        objects: number of the nucleus of a pixel, uint16.
        pixel_um: side of a pixel.
    """

    body: np.ndarray
    nuclei: np.ndarray
    brightness: np.ndarray
    droplets: tuple[np.ndarray, ...]
    chromatin: np.ndarray
    granules: np.ndarray
    objects: np.ndarray
    pixel_um: float


def draw_scene(random: np.random.Generator, well: Well, size: int, pixel_um: float) -> Scene:
    """Draw the cells of a field of `size` pixels a side; cells at its border are cut."""
    shape = (size, size)
    textures = np.random.default_rng(random.integers(2**32))  # apart: cells are of no pixel size

    def empty() -> np.ndarray:
        return np.zeros(shape, np.float32)

    scene = Scene(
        body=empty(),
        nuclei=empty(),
        brightness=empty(),
        droplets=tuple(empty() for _ in LAYERS_UM),
        chromatin=_texture(textures, shape, 0.7 / pixel_um, 0.16),
        granules=_texture(textures, shape, 1.6 / pixel_um, 0.22),
        objects=np.zeros(shape, np.uint16),
        pixel_um=pixel_um,
    )
    margin_um = BODY.radius_um
    extent = (size * pixel_um + 2 * margin_um,) * 2
    crowd = Crowd(4 * BODY.radius_um)
    for number in range(1, 1 + random.poisson(well.density_per_mm2 * extent[0] ** 2 / 1e6)):
        scale = float(np.exp(np.clip(random.normal(0, 0.12), -0.3, 0.3)))
        own = np.random.default_rng(random.integers(2**32))  # one cell more leaves the others
        place = crowd.find_room(random, extent, 0.8 * BODY.radius_um * scale)
        if place is not None:
            centre = (place[0] - margin_um, place[1] - margin_um)
            _add_cell(own, scene, centre, scale, own.random() < well.mature, number)
    return scene._replace(objects=renumbered(scene.objects))


def _texture(
    random: np.random.Generator, shape: tuple[int, int], grain_px: float, contrast: float
) -> np.ndarray:
    noise = gaussian_filter(random.standard_normal(shape), max(0.6, grain_px))
    texture = 1 + contrast * noise / max(float(noise.std()), 1e-6)
    return np.asarray(np.clip(texture, 0.3, 1.8), np.float32)


def _add_cell(
    random: np.random.Generator,
    scene: Scene,
    centre_um: tuple[float, float],
    scale: float,
    mature: bool,
    number: int,
) -> None:
    body = BODY if mature else YOUNG
    angle, aside = random.uniform(0, np.pi), random.uniform(0, 2 * np.pi)
    outlines = [ripples_of(random, shape) for shape in (body, NUCLEUS)]
    # droplets push the nucleus to the rim
    off = (0.42 if mature else 0.08) * body.radius_um * scale * random.uniform(0.7, 1.1)
    nucleus_um = (off * np.sin(aside), off * np.cos(aside))
    nucleus_scale = scale * float(np.exp(np.clip(random.normal(0, 0.12), -0.3, 0.3)))
    brightness = float(random.lognormal(0, 0.18))
    reach = 2.0 * body.radius_um * scale * np.sqrt(body.elongation)
    first = np.floor((np.array(centre_um) - reach) / scene.pixel_um).astype(int).clip(0)
    last = np.ceil((np.array(centre_um) + reach) / scene.pixel_um).astype(int) + 1
    last = np.minimum(last, scene.body.shape)
    if (last <= first).any():
        return
    window = tuple(map(slice, first, last))
    y = (np.arange(first[0], last[0]) + 0.5)[:, None] * scene.pixel_um - centre_um[0]
    x = (np.arange(first[1], last[1]) + 0.5)[None, :] * scene.pixel_um - centre_um[1]
    outer = distance_in(body, outlines[0], y, x, angle, scale)
    inner = distance_in(
        NUCLEUS, outlines[1], y - nucleus_um[0], x - nucleus_um[1], aside, nucleus_scale
    )
    thickness = BODY_UM * np.clip(1 - outer**3, 0, 1)
    scene.body[window] = np.maximum(scene.body[window], thickness)
    lens = NUCLEUS.radius_um * np.sqrt(np.clip(1 - inner**6, 0, 1))  # flat, as in a culture
    inside = (inner < 1) & (scene.objects[window] == 0)
    scene.objects[window][inside] = number
    scene.nuclei[window] = np.where(inside, lens, scene.nuclei[window])
    scene.brightness[window][inside] = brightness
    for middle, radius in _droplets(random, body.radius_um * scale, nucleus_um, mature):
        layer = scene.droplets[int(random.integers(len(LAYERS_UM)))][window]
        distance = np.hypot(y - middle[0], x - middle[1])
        np.maximum(layer, 2 * np.sqrt(np.clip(radius**2 - distance**2, 0, None)), out=layer)


def _droplets(
    random: np.random.Generator,
    body_um: float,
    nucleus_um: tuple[float, float],
    mature: bool,
) -> list[tuple[np.ndarray, float]]:
    """Places and radii of droplets in a cell: none in the nucleus, hardly any in another."""
    placed: list[tuple[np.ndarray, float]] = []
    wanted = int(random.integers(15, MOST_DROPLETS)) if mature else int(random.integers(0, 7))
    largest = 1.0 if mature else 0.4
    for _ in range(wanted):
        radius = float(np.clip(random.lognormal(0.6, 0.55) * largest, *DROPLET_UM))
        for _ in range(8):
            angle, far = random.uniform(0, 2 * np.pi), np.sqrt(random.random()) * 0.8 * body_um
            middle = far * np.array([np.sin(angle), np.cos(angle)])
            clear = np.hypot(*(middle - nucleus_um)) > radius + 0.95 * NUCLEUS.radius_um
            if clear and all(
                np.hypot(*(middle - other)) > 0.85 * (radius + its) for other, its in placed
            ):
                placed.append((middle, radius))
                break
    return placed


# From what lies in a field to what a camera takes of it.

COUNTS = 2600.0  # of brightfield at 20x, as the challenge's mean
STAIN_COUNTS = {"nuclei": 9000.0, "lipids": 2600.0, "cytoplasm": 2000.0}  # of what is bright, 20x
STAIN_DARK = {"nuclei": 0.015, "lipids": 0.04, "cytoplasm": 0.06}  # of them, where nothing is
FAINTER = {"brightfield": 1.5, "nuclei": 0.4, "lipids": 0.2, "cytoplasm": 0.7}  # powers of 20 / mag
ELECTRONS = 2.0  # a count
READ_NOISE = 4.0  # electrons
SCATTER = 0.35  # loss of light at steep slopes of the optical thickness


def brightfield(
    random: np.random.Generator,
    scene: Scene,
    well: Well,
    magnification: float,
    height_um: float,
) -> np.ndarray:
    """Take a plane (H, W), uint16, at a height over the cells.

    A layer of optical thickness d at a distance z changes the light by -z laplace(d) (the transport
    of intensity), and slopes scatter some of it.
    """
    sharpness = Acquisition(magnification).sharpness_um
    layers = [
        (INDEX["body"] * scene.body * (0.9 + 0.1 * scene.granules), 0.0),
        (INDEX["nucleus"] * scene.nuclei * scene.chromatin, NUCLEUS_HEIGHT_UM),
        *((INDEX["lipid"] * one, z) for one, z in zip(scene.droplets, LAYERS_UM, strict=True)),
    ]
    signal, slopes = np.zeros(scene.body.shape), np.zeros(scene.body.shape)
    for thickness, layer_um in layers:
        distance = height_um + well.focus_um - layer_um
        blur_px = np.hypot(sharpness, BLUR_OF_DEFOCUS * abs(distance)) / scene.pixel_um
        smooth = gaussian_filter(thickness, max(0.5, blur_px))
        signal -= distance * laplace(smooth) / scene.pixel_um**2
        slopes += np.hypot(*np.gradient(smooth, scene.pixel_um))
    light = well.lamp * (1 + np.clip(signal, -0.75, 2.0)) * np.exp(-SCATTER * slopes)
    return _exposed(random, COUNTS * (20 / magnification) ** FAINTER["brightfield"] * light)


def fluorescence(
    random: np.random.Generator, scene: Scene, well: Well, magnification: float, stain: str
) -> np.ndarray:
    """Take the one plane (H, W), uint16, of a stain."""
    lipid = sum(scene.droplets[1:], scene.droplets[0])
    cell = scene.body / BODY_UM
    shown = {  # a little of every stain is all over a cell
        "nuclei": scene.brightness * scene.nuclei / NUCLEUS.radius_um * scene.chromatin
        + 0.02 * cell,
        "lipids": np.clip(lipid / 6.0, 0, 1.6) + 0.06 * cell,
        # neither in the lipid nor much in the nucleus
        "cytoplasm": scene.granules
        * np.clip(scene.body - 0.8 * lipid - 0.5 * scene.nuclei, 0, None)
        / BODY_UM,
    }[stain]
    away = {"nuclei": NUCLEUS_HEIGHT_UM, "lipids": 1.0, "cytoplasm": 0.5}[stain]
    sharpness = Acquisition(magnification).sharpness_um
    blur_px = np.hypot(sharpness, BLUR_OF_DEFOCUS * away) / scene.pixel_um
    haze = gaussian_filter(shown, 6.0 / scene.pixel_um)  # what lies out of the plane
    light = gaussian_filter(shown, max(0.5, blur_px)) + 0.06 * haze + STAIN_DARK[stain]
    counts = STAIN_COUNTS[stain] * (20 / magnification) ** FAINTER[stain]
    return _exposed(random, well.stains[stain] * counts * light)


def _exposed(random: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    electrons = random.poisson(np.clip(counts, 0, None) * ELECTRONS)
    noisy = (electrons + random.normal(0, READ_NOISE, counts.shape)) / ELECTRONS
    return np.asarray(np.clip(np.rint(noisy), 0, 65535), dtype=np.uint16)
