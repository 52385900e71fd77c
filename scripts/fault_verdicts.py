"""The verdicts of the fault campaign: what became of a damage, and what nobody could detect."""

import contextlib
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import tifffile
from fault_damages import read_pixels
from fault_world import Target
from PIL import Image

FAULTS = ("silent", "unnamed", "traceback", "unforeseen", "hang", "crash", "lost", "not mended")
NOISE = re.compile(r".*(it/s|s/it|\?step|step/s|case/s|image/s|unit/s|/s[,\]]|INFO|%\|).*")
CODES = {0: "done", 2: "refused", 3: "done with problems"}


class Ended(NamedTuple):
    """A command that ended: its exit status, what it said, how long it took."""

    code: int
    text: str
    seconds: float


def judge(
    target: Target,
    command: str,
    damage: str,
    told: str,
    before: Path,
    path: Path,
    came: Ended,
    unharmed: Ended,
    apart: Sequence[str],
) -> str:
    """Tell what became of a damage.

    Args:
        target: what the file is.
        command: that was run.
        damage: name of the damage.
        told: what it did.
        before: the file as it was.
        path: the file as it is.
        came: how the command ended.
        unharmed: how it ends without the damage.
        apart: how its outputs differ from those without the damage.
    """
    if verdict := broken(came):
        return verdict
    names = {path.name, path.stem.partition(".")[0], path.parent.name}
    names |= {path.stem.rpartition("_")[0]} if "_" in path.stem else set()
    names |= set(re.findall(r"[A-Za-z]\w+|row \d+", told.partition(": ")[0]))  # place in the file
    names |= {"case_", "clinical table"} if target.kind.startswith(("kits", "clinical")) else set()
    names |= {"in the configuration"} if target.kind.startswith(("own", "bundle")) else set()
    lines = lines_of(came.text) - lines_of(unharmed.text)
    named = any(name in line for name in names if len(name) > 2 for line in lines)
    if came.code:
        return "told" if named else "unnamed"
    if not apart:
        return "harmless" if not named else "remark"
    words = ["warning", "nobody knows"]
    words += ["missing"] if target.kind.startswith(("kits", "clinical")) else []
    if named or any(word in line.lower() for word in words for line in lines):
        return "remark"
    if "Orientation" in told and not command.startswith(("check", "prepare")):
        return "turned as its tag says"  # which `check` tells of
    why = undetectable(target, command, damage, before, path)
    return f"undetectable: {why}" if why else "silent"


def broken(came: Ended) -> str:
    """What no command may do, whatever it was given."""
    if "Traceback (most recent call last)" in came.text:
        return "traceback"
    if came.code == 124:
        return "hang"
    if came.code < 0:
        return "crash"
    return "" if came.code in CODES else "unforeseen"


USERS = ("table.csv", "schema", "column", "own", "bundle", "study.json", "clinical", "kits", "lab")
FREE = ("group", "well", "plate", "case", "case_id", "description", "image", "label", "File")
IMAGES = (
    "image",
    "label",
    "scan",
    "mask",
    "DICOM",
    "stack",
    "bowl",
    "cracks",
    "gates",
    "lab image",
    "lab mask",
)
MISSING = ("", "na", "nan", "n/a", "null", "none", "-", ".")


def undetectable(target: Target, command: str, damage: str, before: Path, path: Path) -> str:
    """Why nobody can know that the file is damaged; "" where one can."""
    try:
        if path.suffix == ".csv":
            return _legal_table(target, damage, before, path)
        if path.suffix == ".json":
            return (
                _legal_json(target, damage, before, path) if target.kind.startswith(USERS) else ""
            )
        if target.kind.startswith(IMAGES):
            return _legal_pixels(target, command, damage, before, path)
    except Exception:  # no other reader can read it either
        return ""
    return ""


def _legal_table(target: Target, damage: str, before: Path, path: Path) -> str:
    if target.kind == "lab table" and damage in ("column_deleted", "column_renamed"):
        return "a column that no setting names"
    old, new = (list(csv.reader(io.StringIO(p.read_text("utf-8")))) for p in (before, path))
    if not new or old[0] != new[0]:
        return ""
    kept = [row for row in new if row in old]
    if len(kept) == len(new) < len(old) and len({*map(tuple, new)}) == len(new):
        return "a row deleted"
    if len(old) != len(new):
        return ""
    known = {name: {row[j] for row in old} for j, name in enumerate(old[0])}
    for one, other in zip(old, new, strict=True):
        for name, was, now in zip(old[0], one, other, strict=True):
            number = _finite(was) and _finite(now) and float(was) * float(now) >= 0
            free = name in FREE and now.strip().lower() not in MISSING
            if was != now and not (now in known[name] or number or free):
                return ""
    return "a cell with another legal value"


def _finite(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(np.isfinite(float(text)))
    return False


def _legal_json(target: Target, damage: str, before: Path, path: Path) -> str:
    if target.kind.startswith(("kits", "clinical")) and damage in ("key_deleted", "key_misspelt"):
        return "an entry of a patient deleted"
    if target.kind.startswith(("own", "bundle", "study.json")) and damage == "key_deleted":
        return "a setting with another legal value"
    old, new = (pd.json_normalize(json.loads(p.read_text("utf-8"))) for p in (before, path))
    if list(old) != list(new) or old.shape != new.shape:
        return ""
    for name in old:
        for was, now in zip(old[name], new[name], strict=True):
            numbers = _finite(str(was)) and _finite(str(now))
            alike = numbers or type(was) is type(now)
            if str(was) != str(now) and (not alike or now != now):
                return ""
    return "a setting with another legal value"


def _legal_pixels(target: Target, command: str, damage: str, before: Path, path: Path) -> str:
    if path.suffix == ".dcm":
        import pydicom

        headers = []
        for one in (before, path):
            plane = pydicom.dcmread(one)
            del plane.PixelData
            headers.append(str(plane))
        return "other pixels" if headers[0] == headers[1] else ""
    old, new = read_pixels(before), read_pixels(path)
    if "label" in target.kind or "mask" in target.kind:
        legal = bool((new % 1 == 0).all()) and new.min() >= 0 and new.max() <= max(1, old.max())
        if not legal:
            return ""
    elif not command.startswith("prepare") and damage in (
        "constant",
        "all_zero",
        "as_share",
        "offset_1024",
        "a_nan",
        "an_inf",
    ):
        return ""
    alone = command.startswith("predict")  # a picture of its own, whatever its size and type
    if not alone and old.shape != new.shape:
        return ""
    oriented = damage in ("tiff_tag", "exif_tag", "nifti_header", "palette")
    same_tags = _tags(before) == _tags(path) or damage in ("swapped", "renamed")
    return "other pixels" if same_tags or (alone and not oriented) else ""


def _tags(path: Path) -> Any:
    if path.name.endswith((".nii", ".nii.gz")):
        header = nib.load(path).header
        codes = [int(header[name]) for name in ("sform_code", "qform_code")]
        return np.asarray(header.get_best_affine()).tolist(), codes
    if path.suffix.startswith(".tif"):
        with tifffile.TiffFile(path) as file:
            names = ("ImageWidth", "ImageLength", "PhotometricInterpretation", "Orientation")
            return [file.pages[0].tags.valueof(name) for name in names], len(file.pages)
    with Image.open(path) as image:
        return image.mode, image.size, dict(image.getexif())


def same(before: Path, path: Path) -> bool:
    """Whether nothing has changed."""
    if path.is_dir() or path.is_symlink() or path.stat().st_mode & 0o777 == 0:
        return False
    return before.read_bytes() == path.read_bytes()


def lines_of(text: str) -> set[str]:
    """The lines of a text, without progress and log."""
    return {line.strip() for line in text.splitlines() if not NOISE.match(line)}
