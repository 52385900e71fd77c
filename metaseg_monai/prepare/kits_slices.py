"""One volume to axial slices: which planes, their files, and their rows of the table."""

import glob
import hashlib
import io
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tifffile
import torch
from nibabel.orientations import ornt2axcodes

from metaseg_monai.errors import DataError
from metaseg_monai.files import PREFIX, file_sha256
from metaseg_monai.images.geometry import AxialVolume, resampled_shape, resize_label, resize_stored
from metaseg_monai.prepare.clinical import SIZE
from metaseg_monai.prepare.found import Problem
from metaseg_monai.prepare.kits_case import (
    CLASSES,
    TUMOUR,
    CaseVolumes,
    gathered,
    measure_tumour,
    read_case,
)
from metaseg_monai.prepare.kits_find import CHECK_RIGHTS, KitsCase

SliceRule = Literal["mass", "kidney", "all"]
Spacing = float | Literal["native"]

SLICE_NAME = re.compile(r"(?:\.part-(?:[0-9a-f]{32}-)?)?(?P<case>.+)_\d{4,}\.tif")
BLOCK = 32  # planes brought into their own order at a time
FIRST_COLUMNS = ("image", "label", SIZE, "group", "split", "volume", "plane", "planes")


def class_pixels(planes: np.ndarray) -> np.ndarray:
    """Pixels of every class in every plane.

    Args:
        planes: (D, H, W) classes 0..3, uint8.

    Returns:
        (D, 4) int64.
    """
    counts = np.zeros((len(planes), len(CLASSES)), dtype=np.int64)
    filled = np.flatnonzero(planes.any(axis=(1, 2)))
    for plane, pixels in _ordered(planes, filled):
        counts[plane, 1:] = [np.count_nonzero(pixels == k) for k in range(1, len(CLASSES))]
    counts[:, 0] = planes.shape[1] * planes.shape[2] - counts.sum(axis=1)
    return counts


def chosen_planes(pixels: np.ndarray, rule: SliceRule) -> np.ndarray:
    """The planes that a rule keeps.

    Args:
        pixels: (D, 4) from `class_pixels`.
        rule: "mass", those with tumour or cyst (the paper's 10,346 slices of KiTS21); "kidney",
            those with kidney, tumour or cyst (a few planes show a mass alone); "all".

    Raises:
        DataError: another rule.

    >>> pixels = np.array([[9, 0, 0, 0], [5, 4, 0, 0], [5, 3, 1, 0], [7, 0, 0, 2]])
    >>> [chosen_planes(pixels, rule).tolist() for rule in ("mass", "kidney", "all")]
    [[2, 3], [1, 2, 3], [0, 1, 2, 3]]
    """
    if rule == "mass":
        return np.flatnonzero(pixels[:, 2:].any(axis=1))
    if rule == "kidney":
        return np.flatnonzero(pixels[:, 1:].any(axis=1))
    if rule == "all":
        return np.arange(len(pixels))
    raise DataError(f"slice rule {rule!r}: expected one of {', '.join(get_args(SliceRule))}")


def write_slices(
    case: str,
    image: AxialVolume | None,
    label: AxialVolume,
    pixels: np.ndarray,
    folder: str | Path,
    rule: SliceRule = "mass",
    spacing: Spacing = 0.78,
) -> list[dict[str, Any]]:
    """Write the slices of one volume as uncompressed TIFF files.

    Images are int16 in images/, labels uint8 in labels/, both named <case>_<plane>.tif. Each file
    is whole or absent.

    Args:
        case: name of the volume.
        image: values that fit int16; None writes the labels alone.
        label: classes 0..3, uint8, on the grid of the image.
        pixels: (D, 4), `class_pixels(label.planes)`.
        folder: the prepared folder.
        rule: which planes, see `chosen_planes`.
        spacing: side in mm of the square pixels that slices are resampled to, the image linearly
            and the label by its nearest pixel; "native" writes the planes as they are.

    Returns:
        One row a slice, in the order of planes, for `table_row`; without image, `image` and
        `image_sha256` are left out.

    Raises:
        DataError: an unknown rule.
    """
    folder = Path(folder)
    chosen = chosen_planes(pixels, rule)
    shape = label.planes.shape[1:]
    z, y, x = label.spacing_mm
    new = (shape[0], shape[1])
    if spacing != "native":
        new = resampled_shape(new, (y, x), float(spacing))
    area = y * x
    rows: dict[int, dict[str, Any]] = {}
    for plane, classes in _ordered(label.planes, chosen):
        name = f"{case}_{plane:04d}.tif"
        kidney, tumour, cyst = (number(count * area) for count in pixels[plane, 1:])
        rows[plane] = {
            "image": f"images/{name}",
            "label": f"labels/{name}",
            "volume": case,
            "plane": plane,
            "planes": len(label.planes),
            "position_mm": number(label.position_mm(plane)),
            "spacing_z_mm": number(z),
            "spacing_y_mm": number(y * shape[0] / new[0]),
            "spacing_x_mm": number(x * shape[1] / new[1]),
            "kidney_mm2": kidney,
            "tumour_mm2": tumour,
            "cyst_mm2": cyst,
            "image_sha256": "",
            "label_sha256": write_tiff(folder / "labels" / name, _resized_label(classes, new)),
        }
    if image is None:
        kept = [key for key in next(iter(rows.values()), {}) if not key.startswith("image")]
        return [{key: row[key] for key in kept} for row in rows.values()]
    for plane, values in _ordered(image.planes, chosen):
        stored = _resized_image(values, new)
        rows[plane]["image_sha256"] = write_tiff(folder / rows[plane]["image"], stored)
    return list(rows.values())


def table_row(
    row: Mapping[str, Any], clinical: Mapping[str, str], split: str, group: str | None = None
) -> dict[str, Any]:
    """A row of table.csv, columns in the order of the contract.

    Args:
        row: of `write_slices`.
        clinical: of the case, from `read_clinical`; columns that the table has already, such as
            `split`, become `clinical_<name>`.
        split: train, val or test.
        group: what must stay in one split; by default the volume.
    """
    whole = {
        **row,
        SIZE: clinical.get(SIZE, ""),
        "group": row["volume"] if group is None else group,
        "split": split,
    }
    first = [name for name in FIRST_COLUMNS if name in whole]
    ordered = {name: whole[name] for name in [*first, *(n for n in row if n not in first)]}
    reserved = {*ordered, *FIRST_COLUMNS, "image_sha256"}
    for name, text in clinical.items():
        if name != SIZE:
            ordered[f"clinical_{name}" if name in reserved else name] = text
    return ordered


def case_of_slice(name: str) -> str | None:
    """The case that a file of images/ or labels/ belongs to, half-written or whole; None if none.

    >>> case_of_slice("case_00001_0003.tif"), case_of_slice("case_00001_01_0003.tif")
    ('case_00001', 'case_00001_01')
    >>> case_of_slice("notes.tif")
    """
    found = SLICE_NAME.fullmatch(name)
    return None if found is None else found["case"]


def write_tiff(path: Path, plane: np.ndarray) -> str:
    """Write a plane (H, W) uncompressed, as `write_unflushed`; return the file's SHA-256."""
    head, tail = _tiff_frame(plane.shape, plane.dtype.newbyteorder("<").str)
    content = head + plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes() + tail
    write_unflushed(path, content)
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=64)
def _tiff_frame(shape: tuple[int, ...], dtype: str) -> tuple[bytes, bytes]:
    """What an uncompressed TIFF has before and after its pixels; the same for equal planes."""
    stream = io.BytesIO()
    blank = np.zeros(shape, dtype)
    tifffile.imwrite(stream, blank, photometric="minisblack", metadata=None, byteorder="<")
    content = stream.getvalue()
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        start = int(file.pages[0].dataoffsets[0])
    return content[:start], content[start + blank.nbytes :]


def write_unflushed(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent after a kill, but may be lost in a power cut.

    Flushing tens of small files a case to the disk takes longer than all the rest; the reader
    must tell by a digest, or by the form of the content, whether the file arrived.
    """
    part = path.with_name(f"{PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        part.write_bytes(content)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
    part.replace(path)


def number(value: float) -> str:
    """A number as text, to six places, without trailing zeros.

    >>> number(0.5), number(3.0), number(-1e-9)
    ('0.5', '3', '0')
    """
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _ordered(planes: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The chosen planes (in rising order) one by one, each contiguous in memory.

    A file may hold neighbours of a plane far apart (KiTS does); planes are gathered in blocks, as
    one alone takes as long as all of its block.
    """
    block: list[int] = []
    for plane in [*chosen.tolist(), -1]:
        if block and (plane < 0 or plane - block[0] >= BLOCK):
            together = gathered(planes[block[0] : block[-1] + 1])
            yield from ((member, together[member - block[0]]) for member in block)
            block = []
        block.append(plane)


def _resized_image(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    resized = resize_stored(plane if plane.dtype.kind == "f" else plane.astype(np.int16), shape)
    return (np.rint(resized) if resized.dtype.kind == "f" else resized).astype(np.int16)


def _resized_label(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if plane.shape == shape:
        return plane
    return resize_label(torch.from_numpy(plane)[None, None], shape)[0, 0].numpy()


# Preparing one case so that a kill at any moment leaves it done or not begun.

RECORDS = ".cases"


@dataclass(frozen=True)
class Job:
    """One case to prepare.

    Attributes:
        case: its files.
        output: the prepared folder.
        rule: which planes become slices.
        spacing: see `write_slices`.
        expected: SHA-256 of source files by "case/name", where a list of them was given.
    """

    case: KitsCase
    output: Path
    rule: SliceRule
    spacing: Spacing
    expected: Mapping[str, str]

    @property
    def record(self) -> Path:
        """The file whose presence says that the case is done."""
        return self.output / RECORDS / f"{self.case.case}.json"


def is_done(job: Job) -> bool:
    """Whether the case was prepared from these very files, and all that was written is there.

    A source file whose size and time are those of the record is taken as the same, any other is
    hashed, and so are all slices: they may have been lost in a power cut.
    """
    record = read_record(job.record)
    if record is None or set(record["source"]) != set(job.case.files):
        return False
    try:
        return all(
            _is_same(path, record["source"][name], job.expected.get(name))
            for name, path in job.case.files.items()
        ) and all(
            file_sha256(job.output / row[key]) == row[f"{key}_sha256"]
            for row in record["slices"]
            for key in ("image", "label")
            if key in row
        )
    except OSError:  # one is missing, or cannot be read
        return False


def _is_same(path: Path, known: Mapping[str, Any], expected: str | None) -> bool:
    state = path.stat()
    if state.st_size != known["bytes"] or expected not in (None, known["sha256"]):
        return False
    return state.st_mtime_ns == known["mtime_ns"] or file_sha256(path) == known["sha256"]


def run_job(job: Job) -> list[Problem]:
    """Prepare a case: checks, then its slices, then its record.

    Returns:
        Why the case cannot be used; then nothing of it is left in the folder.
    """
    before = read_record(job.record)
    discard(job)
    source, problems = _source_of(job)
    volumes, found = read_case(job.case)
    problems += [told for told in found if told.file in source]  # once, if it cannot be read
    if problems or volumes is None:
        return problems
    with _one_thread():
        record = _prepared(job, volumes)
    record["remarks"] += _changes(before, source)
    record["source"] = source
    write_unflushed(job.record, (json.dumps(record, indent=1) + "\n").encode())
    return []


def read_record(path: Path) -> dict[str, Any] | None:
    """What is known of a case that is done; None where there is no whole record."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def discard(job: Job) -> None:
    """Remove what the folder holds of a case, its record first."""
    job.record.unlink(missing_ok=True)
    for kind in ("images", "labels"):
        for path in (job.output / kind).glob(f"{glob.escape(job.case.case)}_*.tif"):
            if case_of_slice(path.name) == job.case.case:
                path.unlink(missing_ok=True)


def _source_of(job: Job) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Size, time and SHA-256 of the source files, and those that are not as listed."""
    source, problems = {}, []
    for name, path in job.case.files.items():
        try:
            state = path.stat()  # before reading: a later change is seen the next time
            sha256 = file_sha256(path)
        except OSError as error:
            found = f"cannot be read ({error.strerror})"
            problems.append(Problem(job.case.case, name, found, CHECK_RIGHTS))
            continue
        source[name] = {"sha256": sha256, "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        if job.expected.get(name, sha256) != sha256:
            found = f"SHA-256 {sha256}, the list of checksums has {job.expected[name]}"
            problems.append(Problem(job.case.case, name, found, "copy the file anew"))
    return source, problems


def _changes(before: dict[str, Any] | None, source: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Source files that are others than when the case was prepared last."""
    known = before["source"] if before else {}
    return [
        f"{name} has changed since it was prepared (SHA-256 {known[name]['sha256'][:12]}, now "
        f"{now['sha256'][:12]}); if that was not meant, copy it anew"
        for name, now in source.items()
        if name in known and known[name]["sha256"] != now["sha256"]
    ]


def _prepared(job: Job, volumes: CaseVolumes) -> dict[str, Any]:
    """Write the slices; return the case's row of cases.csv and the rows of its slices."""
    label = volumes.label
    pixels = class_pixels(label.planes)
    slices = write_slices(
        job.case.case, volumes.image, label, pixels, job.output, job.rule, job.spacing
    )
    inside = np.flatnonzero(pixels[:, TUMOUR])
    with_tumour = slice(inside[0], inside[-1] + 1) if len(inside) else slice(0)
    tumour = measure_tumour(label.planes[with_tumour], label.spacing_mm)
    voxel = float(np.prod(label.spacing_mm))
    z, y, x = map(number, label.spacing_mm)
    present = pixels > 0
    row: dict[str, Any] = {
        "case": job.case.case,
        "shape": "x".join(map(str, volumes.stored_shape)),
        "orientation": "".join(ornt2axcodes(label.orientation)),
        "spacing_z_mm": z,
        "spacing_y_mm": y,
        "spacing_x_mm": x,
        "planes": len(pixels),
        "slices": len(slices),
    }
    for k, name in enumerate(CLASSES[1:], start=1):
        row[f"planes_{name}"] = int(present[:, k].sum())
    row["planes_tumour_and_cyst"] = int((present[:, 2] & present[:, 3]).sum())
    row["planes_mass"] = int(present[:, 2:].any(axis=1).sum())
    row["planes_kidney_or_mass"] = int(present[:, 1:].any(axis=1).sum())
    for k, name in enumerate(CLASSES[1:], start=1):
        row[f"{name}_mm3"] = number(int(pixels[:, k].sum()) * voxel)
    row["tumour_components"] = tumour.components
    row["tumour_diameter_mm"] = number(tumour.diameter_mm) if tumour.components else ""
    return {
        "row": row,
        "content": volumes.content,
        "remarks": list(volumes.remarks),
        "slices": slices,
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Resample on one core, as many cases as there are workers being prepared at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
