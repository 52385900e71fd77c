"""How the files that two sides wrote are compared, and what is said of a difference."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import tifffile
import torch
from PIL import Image

LONGEST = 100  # characters of a cell or line that are shown
TIMES = ("seconds",)  # columns of logs that no two runs have in common
IDENTIFIER = re.compile(  # of an OME-TIFF, and when weights were made: another in each file
    rb'urn:uuid:[0-9a-f-]{36}|"born": [0-9]+'
)
SUM = re.compile(r"^[0-9a-f]{64} ", re.MULTILINE)
PICTURE = re.compile(r"base64,([A-Za-z0-9+/=]+)")


def differences(old: Path, new: Path, compared: Sequence[str]) -> list[str]:
    """Compare two folders.

    Args:
        old: folder of one side.
        new: folder of the other.
        compared: patterns of the paths that are compared, relative to the folders; what is hidden
            is not.

    Returns:
        A line for each file that differs or is on one side only; it names what differs first.
    """
    sides = [_files(folder, compared) for folder in (old, new)]
    told = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        if name not in sides[1] or name not in sides[0]:
            told.append(f"{name}: on the {'old' if name in sides[0] else 'new'} side only")
        elif how := _file_difference(sides[0][name], sides[1][name]):
            told.append(f"{name}: {how}")
    return told if any(sides) else ["no file at all"]


def _files(folder: Path, compared: Sequence[str]) -> dict[str, Path]:
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: path
        for name, path in paths.items()
        if any(fnmatch(name, one) for one in compared) and "/." not in f"/{name}"
    }


def _file_difference(old: Path, new: Path) -> str | None:
    """What differs; files of the same bytes never do."""
    first, second = (IDENTIFIER.sub(b"", path.read_bytes()) for path in (old, new))
    if first == second:
        return None
    for endings, compare in KINDS.items():
        if old.name.endswith(endings):
            return compare(first, second)
    return f"{len(first)} and {len(second)} bytes differ"


def _lines(old: bytes, new: bytes) -> str:
    sides = [PICTURE.sub(_short, text.decode()).splitlines() for text in (old, new)]
    for number, (one, other) in enumerate(zip(*sides, strict=False), start=1):
        if one != other:
            start = max(0, _first_difference(one, other) - LONGEST // 3)
            shown = [repr(line[start : start + LONGEST]) for line in (one, other)]
            return f"line {number}: {shown[0]} -> {shown[1]}"
    if len(sides[0]) == len(sides[1]):
        return "line endings"
    return f"{len(sides[0])} and {len(sides[1])} lines, the first are equal"


def _names(old: bytes, new: bytes) -> str | None:
    """Compare a list of sums by the names of the files, which are compared themselves."""
    first, second = (SUM.sub("", text.decode()).encode() for text in (old, new))
    return None if first == second else _lines(first, second)


def _short(match: re.Match[str]) -> str:
    """A picture within a page is named by its digest."""
    return f"picture {hashlib.sha256(match[1].encode()).hexdigest()[:8]}"


def _first_difference(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _cells(old: bytes, new: bytes) -> str | None:
    tables: list[pd.DataFrame] = []
    for content in (old, new):
        if not content.strip():
            return "empty on one side"
        table = pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False)
        tables.append(table.drop(columns=[name for name in TIMES if name in table]))
    first, second = tables
    if list(first) != list(second):
        apart = [f"{'-' if name in first else '+'}{name}" for name in {*first} ^ {*second}]
        return f"columns: {' '.join(sorted(apart)) or 'another order'}"
    if len(first) != len(second):
        return f"{len(first)} and {len(second)} rows"
    wrong = first.to_numpy() != second.to_numpy()
    if not wrong.any():
        timed = len(first.columns) < len(pd.read_csv(BytesIO(old), nrows=0).columns)
        return None if timed else "other bytes, same cells"
    row, column = np.argwhere(wrong)[0]
    shown = [str(table.iat[row, column])[:LONGEST] for table in tables]
    return (
        f"row {row + 1}, {first.columns[column]}: {shown[0]!r} -> {shown[1]!r}; "
        f"{int(wrong.sum())} cells differ{_largest(first, second, wrong)}"
    )


def _largest(first: pd.DataFrame, second: pd.DataFrame, wrong: np.ndarray) -> str:
    """How far numbers are apart, where all that differ are numbers."""
    one, other = (
        pd.to_numeric(pd.Series(t.to_numpy()[wrong]), errors="coerce").to_numpy(float)
        for t in (first, second)
    )
    apart = np.abs(one - other) / np.maximum(np.abs(one), np.abs(other))
    return "" if np.isnan(apart).any() else f", relatively by {apart.max():.1e} at most"


def _arrays(old: bytes, new: bytes) -> str | None:
    sides = []
    for content in (old, new):
        with np.load(BytesIO(content)) as stored:
            sides.append({name: stored[name] for name in stored.files})
    return _named_arrays(*sides)


def _weights(old: bytes, new: bytes) -> str | None:
    """Compare the tensors of two weights files, whatever stands around them."""
    sides = []
    for content in (old, new):
        stored = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
        sides.append({name: t.float().numpy() for name, t in state_of(stored).items()})
    if sides[0].keys() != sides[1].keys():
        values = [[(a.shape, a.tobytes()) for a in side.values()] for side in sides]
        if values[0] == values[1]:
            pair = next(p for p in zip(*sides, strict=True) if p[0] != p[1])
            return f"same values in the same order, other names: {pair[0]} -> {pair[1]}"
    return _named_arrays(*sides)


def state_of(stored: Any) -> dict[str, torch.Tensor]:
    """Find the state in what torch.load gave: the mapping that holds the most tensors itself."""
    if not isinstance(stored, Mapping):
        return {}
    own = {str(name): value for name, value in stored.items() if isinstance(value, torch.Tensor)}
    return max([own, *map(state_of, stored.values())], key=len)


def _named_arrays(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> str | None:
    if old.keys() != new.keys():
        apart = sorted(f"{'-' if name in old else '+'}{name}" for name in old.keys() ^ new.keys())
        return f"names: {' '.join(apart[:6])}"
    wrong = [name for name in old if _values(old[name], new[name])]
    if not wrong:
        return None
    return f"{len(wrong)} of {len(old)} differ, {wrong[0]}: {_values(old[wrong[0]], new[wrong[0]])}"


def _values(old: np.ndarray, new: np.ndarray) -> str | None:
    if old.dtype != new.dtype or old.shape != new.shape:
        return f"{old.dtype} {old.shape} -> {new.dtype} {new.shape}"
    if old.tobytes() == new.tobytes():
        return None
    if old.ndim == 0:
        return f"{str(old)[:LONGEST]} -> {str(new)[:LONGEST]}"
    wrong = (old != new) & ~((old != old) & (new != new))
    if not wrong.any():
        return "the sign of 0 or the bits of nan"
    place = tuple(map(int, np.argwhere(wrong)[0]))
    return f"{int(wrong.sum())} of {old.size} values, {place}: {old[place]} -> {new[place]}"


def _pixels(read: Callable[[BytesIO], Any]) -> Callable[[bytes, bytes], str]:
    def compare(old: bytes, new: bytes) -> str:
        try:
            how = _values(*(np.asarray(read(BytesIO(content))) for content in (old, new)))
        except Exception as error:  # a damaged file is compared as bytes
            how = f"{len(old)} and {len(new)} bytes differ ({type(error).__name__})"
        return how or "other bytes, same pixels"

    return compare


def _volume(stream: BytesIO) -> np.ndarray:
    import gzip

    return np.asanyarray(nib.Nifti1Image.from_bytes(gzip.decompress(stream.read())).dataobj)


KINDS: dict[tuple[str, ...], Callable[[bytes, bytes], str | None]] = {
    (".csv",): _cells,
    (".json", ".md", ".tex", ".txt", ".html"): _lines,
    (".sha256",): _names,
    (".npz",): _arrays,
    (".pt",): _weights,
    (".tif", ".tiff"): _pixels(tifffile.imread),
    (".png", ".jpg"): _pixels(Image.open),
    (".nii.gz",): _pixels(_volume),
}
