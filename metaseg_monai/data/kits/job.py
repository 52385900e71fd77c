"""Preparing one case so that a kill at any moment leaves it done or not begun."""

import glob
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.orientations import ornt2axcodes

from metaseg_monai.data.kits.case import CLASSES, CaseVolumes, read_case
from metaseg_monai.data.kits.find import CHECK_RIGHTS, KitsCase, Problem
from metaseg_monai.data.kits.measure import TUMOUR, measure_tumour
from metaseg_monai.data.kits.slices import (
    SliceRule,
    Spacing,
    case_of_slice,
    class_pixels,
    number,
    write_slices,
    write_unflushed,
)
from metaseg_monai.files import file_sha256

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
