"""The damages of the fault campaign: each changes one file, and says in words what it did."""

import copy
import csv
import gzip
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import tifffile
import torch
from PIL import Image

Random = np.random.Generator
Damage = Callable[[Random, Path, Path], str]  # the chance, the file, and its world


def _place(random: Random, content: bytes | bytearray) -> int:
    """A byte; of long files one in three is in the first kilobyte, where headers are."""
    size = min(len(content), 1024) if random.random() < 1 / 3 else len(content)
    return int(random.integers(max(1, size)))


def flip_bit(random: Random, path: Path, world: Path) -> str:
    """One bit."""
    content = bytearray(path.read_bytes())
    place, bit = _place(random, content), int(random.integers(8))
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} flipped"


def flip_bits(random: Random, path: Path, world: Path) -> str:
    """Eight bits."""
    return "; ".join(flip_bit(random, path, world) for _ in range(8))


def cut_end(random: Random, path: Path, world: Path) -> str:
    """The last bytes are gone: a few, or up to all but one."""
    content = path.read_bytes()
    most = min(9, len(content)) if random.random() < 0.5 else len(content)
    lost = int(random.integers(1, max(2, most)))
    path.write_bytes(content[:-lost])
    return f"last {lost} of {len(content)} bytes cut"


def double_block(random: Random, path: Path, world: Path) -> str:
    """A block of bytes stands there twice."""
    content = path.read_bytes()
    place, length = _place(random, content), int(random.integers(1, 513))
    path.write_bytes(content[: place + length] + content[place:])
    return f"{length} bytes from byte {place} doubled"


def zero_block(random: Random, path: Path, world: Path) -> str:
    """A block of bytes is zero, as in a sparse copy."""
    content = bytearray(path.read_bytes())
    place, length = _place(random, content), int(random.integers(1, 513))
    length = min(length, len(content) - place)
    content[place : place + length] = bytes(length)
    path.write_bytes(content)
    return f"{length} bytes from byte {place} zeroed"


def empty(random: Random, path: Path, world: Path) -> str:
    """No byte is left."""
    path.write_bytes(b"")
    return "empty"


def as_folder(random: Random, path: Path, world: Path) -> str:
    """A folder has the file's name."""
    path.unlink()
    path.mkdir()
    return "a folder of this name"


def unreadable(random: Random, path: Path, world: Path) -> str:
    """Nobody may read it; the campaign drops root's right to do so."""
    path.chmod(0)
    return "mode 000"


def gone(random: Random, path: Path, world: Path) -> str:
    """A link that leads nowhere."""
    path.unlink()
    path.symlink_to("nowhere")
    return "a broken link"


def swapped(random: Random, path: Path, world: Path) -> str:
    """The content of another file of this ending."""
    ending = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    content = path.read_bytes()
    others = [p for p in sorted(world.rglob(f"*{ending}")) if p.is_file()]
    near = [p for p in others if p.parent == path.parent and p != path]
    pool = near if near and random.random() < 0.7 else others
    pool = [p for p in pool if p.read_bytes() != content] or [path]
    other = pool[int(random.integers(len(pool)))]
    path.write_bytes(other.read_bytes())
    return f"content of {other.parent.name}/{other.name}"


def renamed(random: Random, path: Path, world: Path) -> str:
    """The content of a file of another ending."""
    pool = [p for p in sorted(world.rglob("*.*")) if p.is_file() and p.suffix != path.suffix]
    other = pool[int(random.integers(len(pool)))]
    path.write_bytes(other.read_bytes())
    return f"content of {other.parent.name}/{other.name}"


BYTES: Sequence[Damage] = (
    flip_bit, flip_bits, cut_end, double_block, zero_block, empty, as_folder, unreadable, gone,
    swapped, renamed,
)  # fmt: skip


def _recoded(coding: str, name: str) -> Damage:
    def recode(random: Random, path: Path, world: Path) -> str:
        text = path.read_text(encoding="utf-8")
        path.write_bytes(text.encode(coding))
        return name

    recode.__name__ = name.replace(" ", "_")
    return recode


def latin_1(random: Random, path: Path, world: Path) -> str:
    """An umlaut of another encoding within the text."""
    content = path.read_bytes()
    place = _place(random, content)
    path.write_bytes(content[:place] + "ü".encode("latin-1") + content[place:])
    return f"a latin-1 umlaut at byte {place}"


def line_ends(random: Random, path: Path, world: Path) -> str:
    """Lines end as on Windows, or as on an old Mac."""
    end = ("\r\n", "\r")[int(random.integers(2))]
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read().replace("\r\n", "\n")
    path.write_bytes(text.replace("\n", end).encode())
    return f"lines end with {end!r}"


TEXT: Sequence[Damage] = (
    _recoded("utf-16", "UTF-16"), _recoded("utf-8-sig", "byte order mark"), latin_1, line_ends,
)  # fmt: skip


def _csv_damage(name: str, change: Callable[[Random, list[list[str]]], str]) -> Damage:
    def damage(random: Random, path: Path, world: Path) -> str:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        told = change(random, rows)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        return told

    damage.__name__ = name
    return damage


def _cell(random: Random, rows: list[list[str]]) -> tuple[int, int]:
    return int(random.integers(1, max(2, len(rows)))) % len(rows), int(
        random.integers(len(rows[0]))
    )


def _set_cell(*values: str) -> Callable[[Random, list[list[str]]], str]:
    def change(random: Random, rows: list[list[str]]) -> str:
        row, column = _cell(random, rows)
        was, now = rows[row][column], values[int(random.integers(len(values)))]
        rows[row][column] = now
        return f"row {row + 1}, {rows[0][column]}: {was!r} -> {now!r}"

    return change


def _other_cell(random: Random, rows: list[list[str]]) -> str:
    row, column = _cell(random, rows)
    was, now = rows[row][column], rows[_cell(random, rows)[0]][column]
    rows[row][column] = now
    return f"row {row + 1}, {rows[0][column]}: {was!r} -> {now!r}"


def _scaled_cell(random: Random, rows: list[list[str]]) -> str:
    cells = [
        (i, j) for i, row in enumerate(rows[1:], 1) for j, c in enumerate(row) if _is_number(c)
    ]
    if not cells:
        return _other_cell(random, rows)
    row, column = cells[int(random.integers(len(cells)))]
    was, factor = rows[row][column], (-1, 10, 1000, 0, 1e300)[int(random.integers(5))]
    rows[row][column] = f"{float(was) * factor:g}"
    return f"row {row + 1}, {rows[0][column]}: {was!r} -> {rows[row][column]!r}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _drop_column(random: Random, rows: list[list[str]]) -> str:
    column = int(random.integers(len(rows[0])))
    name = rows[0][column]
    for row in rows:
        del row[column : column + 1]
    return f"column {name} deleted"


def _double_column(random: Random, rows: list[list[str]]) -> str:
    column, other = (int(random.integers(len(rows[0]))) for _ in range(2))
    for row in rows:
        row.append(row[other] if row is not rows[0] else rows[0][column])
    return f"a second column {rows[0][column]}"


def _rename_column(random: Random, rows: list[list[str]]) -> str:
    column = int(random.integers(len(rows[0])))
    was = rows[0][column]
    rows[0][column] = (was.upper(), f" {was}", f"{was}s", "")[int(random.integers(4))]
    return f"column {was} is called {rows[0][column]!r}"


def _double_row(random: Random, rows: list[list[str]]) -> str:
    row = _cell(random, rows)[0]
    rows.insert(int(random.integers(1, len(rows) + 1)), list(rows[row]))
    return f"row {row + 1} doubled"


def _drop_row(random: Random, rows: list[list[str]]) -> str:
    row = _cell(random, rows)[0]
    del rows[row]
    return f"row {row + 1} deleted"


def _short_row(random: Random, rows: list[list[str]]) -> str:
    row, column = _cell(random, rows)
    del rows[row][column]
    return f"row {row + 1} lacks its cell of {(*rows[0], '?')[column]}"


NONSENSE = ("???", "x" * 300, "a,b", '"', "$__import__('os')", "@x", "=1+1")
CSV: Sequence[Damage] = (
    _csv_damage("nonsense_cell", _set_cell(*NONSENSE)),
    _csv_damage("no_number", _set_cell("nan", "inf", "-inf", "1e999")),
    _csv_damage("missing_cell", _set_cell("", "NA", "none", "-", " ")),
    _csv_damage("other_cell", _other_cell), _csv_damage("scaled_cell", _scaled_cell),
    _csv_damage("column_deleted", _drop_column), _csv_damage("column_doubled", _double_column),
    _csv_damage("column_renamed", _rename_column), _csv_damage("row_doubled", _double_row),
    _csv_damage("row_deleted", _drop_row), _csv_damage("row_short", _short_row),
)  # fmt: skip


def _json_damage(name: str, change: Callable[[Random, Any, Any], tuple[Any, str]]) -> Damage:
    """A damage of one place in a JSON file: `change` gives the new value for the old one."""

    def damage(random: Random, path: Path, world: Path) -> str:
        content = json.loads(path.read_text(encoding="utf-8"))
        places = list(_places(content))
        place = places[int(random.integers(len(places)))] if places else ()
        holder = {"": content}
        inner: Any = holder
        for key in ("", *place)[:-1]:
            inner = inner[key]
        last = ("", *place)[-1]
        old = inner[last]
        new, told = change(random, old, last)
        if new is _NOTHING:
            del inner[last]
        elif isinstance(new, _Key) and isinstance(inner, dict):
            inner[new.name] = inner.pop(last)
        else:
            inner[last] = None if isinstance(new, _Key) else new
        text = json.dumps(holder.get(""), indent=2)
        path.write_text(text.replace('"<deep>"', "[" * 5000 + "]" * 5000), encoding="utf-8")
        return f"{'.'.join(map(str, place)) or 'all'}: {told}"

    damage.__name__ = name
    return damage


class _Key(NamedTuple):
    name: str


_NOTHING = object()


def _places(content: Any, before: tuple[Any, ...] = ()) -> Any:
    holds = isinstance(content, dict | list)
    items = enumerate(content) if isinstance(content, list) else content.items() if holds else ()
    for key, value in items:
        yield (*before, key)
        yield from _places(value, (*before, key))


def _wrong_type(random: Random, old: Any, key: Any) -> tuple[Any, str]:
    pool: list[Any] = [None, True, 7, -1.5, "text", [], {}, [old], {"a": old}, str(old)]
    pool = [one for one in pool if type(one) is not type(old)]
    new = pool[int(random.integers(len(pool)))]
    return copy.deepcopy(new), f"{old!r:.60} -> {new!r:.60}"


def _odd_value(random: Random, old: Any, key: Any) -> tuple[Any, str]:
    pool: list[Any] = [float("nan"), float("inf"), -1, 0, 10**30, "", "ü#@%$x", "$1/0", "x" * 999]
    new = pool[int(random.integers(len(pool)))]
    return new, f"{old!r:.60} -> {new!r:.30}"


JSON: Sequence[Damage] = (
    _json_damage("key_deleted", lambda r, old, key: (_NOTHING, "deleted")),
    _json_damage("key_misspelt", lambda r, old, key: (_Key(f"{key}x"), f"is called {key}x")),
    _json_damage("wrong_type", _wrong_type), _json_damage("odd_value", _odd_value),
    _json_damage("deep", lambda r, old, key: ("<deep>", "5,000 lists within each other")),
)  # fmt: skip


# Pictures: the array is read, changed and written again in its own format.


def read_pixels(path: Path) -> np.ndarray:
    """The stored array, by libraries of their own."""
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asanyarray(nib.load(path).dataobj)
    if path.suffix in (".tif", ".tiff"):
        return tifffile.imread(path) if _is_plain(path) else np.asarray(Image.open(path))
    return np.asarray(Image.open(path))


def _is_plain(path: Path) -> bool:
    with tifffile.TiffFile(path) as file:
        return file.pages[0].compression in (1, 8, 32946)


def _write_pixels(path: Path, array: np.ndarray) -> str:
    """Write an array; in another format's clothes where its own cannot hold it."""
    if path.name.endswith((".nii", ".nii.gz")):
        stored = nib.load(path)
        with_header = nib.Nifti1Image(array, stored.affine)
        nib.save(with_header, path)
        return ""
    for_picture = array.dtype in (np.uint8, np.uint16) and array.shape[2:] in ((), (3,))
    if path.suffix in (".tif", ".tiff") or not for_picture:
        rgb = array.ndim == 3 and array.shape[-1] == 3
        tifffile.imwrite(path, array, photometric="rgb" if rgb else "minisblack")
        return "" if path.suffix in (".tif", ".tiff") else " (as TIFF)"
    Image.fromarray(array).save(path)
    return ""


def _pixel_damage(name: str, change: Callable[[Random, np.ndarray], np.ndarray]) -> Damage:
    def damage(random: Random, path: Path, world: Path) -> str:
        array = change(random, read_pixels(path))
        return name.replace("_", " ") + _write_pixels(path, array)

    damage.__name__ = name
    return damage


def _with(value: float, kind: Any = None) -> Callable[[Random, np.ndarray], np.ndarray]:
    def change(random: Random, array: np.ndarray) -> np.ndarray:
        array = array.astype(kind or array.dtype).copy()
        array.reshape(-1)[int(random.integers(array.size))] = value
        return array

    return change


def _rgb(random: Random, array: np.ndarray) -> np.ndarray:
    return np.stack([array] * 3, axis=-1)


PIXELS: Sequence[Damage] = (
    _pixel_damage("a_nan", _with(np.nan, np.float32)),
    _pixel_damage("an_inf", _with(np.inf, np.float32)),
    _pixel_damage("a_half", _with(0.5, np.float32)), _pixel_damage("a_255", _with(255)),
    _pixel_damage("a_minus_1", _with(-1, np.int16)),
    _pixel_damage("cropped", lambda r, a: a[:-1].copy()),
    _pixel_damage("transposed", lambda r, a: np.ascontiguousarray(np.swapaxes(a, 0, 1))),
    _pixel_damage("in_colour", _rgb), _pixel_damage("two_pages", lambda r, a: np.stack([a, a])),
    _pixel_damage("constant", lambda r, a: np.full_like(a, 7)),
    _pixel_damage("all_zero", lambda r, a: np.zeros_like(a)),
    _pixel_damage("times_255", lambda r, a: (a.astype(np.int64) * 255 % 256).astype(np.uint8)),
    _pixel_damage("offset_1024", lambda r, a: (a.astype(np.int64) + 1024).astype(np.int16)),
    _pixel_damage("as_share", lambda r, a: (a / max(1, a.max())).astype(np.float32)),
)  # fmt: skip


def tiff_tag(random: Random, path: Path, world: Path) -> str:
    """A TIFF with another tag: turned, min-is-white, a palette, a resolution."""
    array = read_pixels(path)
    choice = int(random.integers(4))
    if choice == 0 or array.dtype != np.uint8:
        orientation = int(random.integers(2, 9))
        tag = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(path, array, photometric="minisblack", extratags=tag)
        return f"Orientation {orientation}"
    if choice == 1:
        tifffile.imwrite(path, array, photometric="miniswhite")
        return "min-is-white"
    if choice == 2:
        ramp = np.linspace(65535, 0, 256).astype(np.uint16)
        tifffile.imwrite(path, array, photometric="palette", colormap=np.stack([ramp] * 3))
        return "a palette, inverted"
    tifffile.imwrite(path, array, photometric="minisblack", resolution=(1e-9, 1e9))
    return "resolution 1e-9 x 1e9"


def exif_tag(random: Random, path: Path, world: Path) -> str:
    """A PNG or JPEG that is to be turned."""
    exif = Image.Exif()
    exif[274] = int(random.integers(2, 9))
    Image.open(path).save(path, exif=exif)
    return f"EXIF Orientation {exif[274]}"


def palette(random: Random, path: Path, world: Path) -> str:
    """A PNG of one grey value becomes a palette picture whose first colour is white."""
    array = read_pixels(path)
    made = Image.fromarray((array == 0).astype(np.uint8), "P")
    made.putpalette([255, 255, 255, 0, 0, 0])
    made.save(path, format="PNG")
    return "a palette of two colours, the first is white"


def nifti_header(random: Random, path: Path, world: Path) -> str:
    """A NIfTI whose header says something else."""
    stored = nib.load(path)
    array, affine = np.asanyarray(stored.dataobj), np.array(stored.affine)
    choice = int(random.integers(9))
    made, told = nib.Nifti1Image(array, affine), ""
    if choice == 0:
        made.header["pixdim"][1 + int(random.integers(3))] = 0
        made.set_sform(None, 0)
        told = "pixdim 0"
    elif choice == 1:
        affine[0, 3] += 30
        made.set_sform(affine, 1)
        made.set_qform(stored.affine, 1)
        told = "sform and qform 30 mm apart"
    elif choice == 2:
        made.set_sform(affine, 1)
        content = bytearray(made.to_bytes())
        place = 280 + 4 * int(random.integers(12))  # of srow_x, srow_y, srow_z
        content[place : place + 4] = np.float32(np.nan).tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return "a NaN in the affine"
    elif choice == 3:
        affine[:, 3] += [5, 0, 0, 0]
        made, told = nib.Nifti1Image(array, affine), "moved by 5 mm"
    elif choice == 4:
        affine[:3, 1] += 0.5 * affine[:3, 0]
        made = nib.Nifti1Image(array, affine)
        made.set_sform(affine, 1)
        made.set_qform(None, 0)
        told = "sheared"
    elif choice == 5:
        affine[:3, :3] *= 1000
        made, told = nib.Nifti1Image(array, affine), "voxels 1,000 times as large"
    elif choice == 6:
        made.set_sform(None, 0)
        made.set_qform(None, 0)
        told = "sform_code and qform_code 0"
    elif choice == 7:
        affine[:3, 0] *= -1
        made, told = nib.Nifti1Image(array, affine), "one axis turned in the affine"
    else:
        array = np.stack([array, array], axis=-1)
        made, told = nib.Nifti1Image(array, affine), "one axis more"
    nib.save(made, path)
    return told


def dicom_element(random: Random, path: Path, world: Path) -> str:
    """One element of a plane is gone or says something else."""
    import pydicom

    names = {
        "PixelSpacing": [0.8, 1.6], "ImagePositionPatient": [10, 20, 500], "RescaleSlope": 2,
        "RescaleIntercept": 0, "Rows": 16, "ImageOrientationPatient": [0, 1, 0, 1, 0, 0],
        "PhotometricInterpretation": "MONOCHROME1", "SeriesInstanceUID": "1.2.99",
        "BitsStored": 16, "PixelRepresentation": 1, "Modality": "SEG", "RescaleType": "US",
    }  # fmt: skip
    one = pydicom.dcmread(path)
    name = list(names)[int(random.integers(len(names)))]
    if random.random() < 0.5:
        delattr(one, name)
        told = f"{name} deleted"
    else:
        told = f"{name}: {getattr(one, name)} -> {names[name]}"
        setattr(one, name, names[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one.save_as(path)
    return told


def npz_array(random: Random, path: Path, world: Path) -> str:
    """One array of an archive is gone, of another shape or type, or NaN."""
    with np.load(path) as stored:
        arrays: dict[str, Any] = dict(stored)
    name = list(arrays)[int(random.integers(len(arrays)))]
    choice, old = int(random.integers(6)), arrays.pop(name)
    told = f"{name} deleted"
    if choice == 1:
        arrays[name], told = old[..., :-1] if old.ndim else old[None], f"{name}: another shape"
    elif choice == 2:
        arrays[f"{name}x"], told = old, f"{name} is called {name}x"
    elif choice == 3 and old.dtype.kind in "fiub":
        arrays[name], told = np.full(old.shape, np.nan), f"{name}: all NaN"
    elif choice == 4:
        arrays[name], told = np.array([{"a": 1}], dtype=object), f"{name}: a pickled object"
    elif choice == 5:
        arrays[name], told = old.astype(str), f"{name}: text"
    np.savez(path, **arrays)
    return told


def zip_member(random: Random, path: Path, world: Path) -> str:
    """One member of a zip archive is gone or stands there twice."""
    with zipfile.ZipFile(path) as archive:
        members = [(one, archive.read(one)) for one in archive.namelist()]
    place = int(random.integers(len(members)))
    twice = random.random() < 0.5
    kept = [*members, members[place]] if twice else members[:place] + members[place + 1 :]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in kept:
            archive.writestr(name, content)
    path.write_bytes(made.getvalue())
    return f"member {members[place][0]} {'doubled' if twice else 'deleted'}"


def tensor(random: Random, path: Path, world: Path) -> str:
    """One tensor of weights or of a checkpoint is gone, NaN, of another shape, or another value."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key, value in list(inner.items()) if isinstance(inner, dict) else ():
            if isinstance(value, torch.Tensor):
                places.append((inner, key))
            walk(value)

    walk(stored)
    inner, key = places[int(random.integers(len(places)))]
    choice, value = int(random.integers(6)), inner[key]
    if choice == 0:
        del inner[key]
        told = "deleted"
    elif choice == 1:
        inner[key], told = torch.full_like(value.float(), float("nan")), "NaN"
    elif choice == 2:
        inner[key], told = value[None], "one axis more"
    elif choice == 3:
        inner[key], told = value + 1, "plus one"
    elif choice == 4:
        inner[f"{key}x"], told = inner.pop(key), f"called {key}x"
    else:
        inner[key], told = "text", "text"
    torch.save(stored, path)
    return f"tensor {key}: {told}"


def as_pickle(random: Random, path: Path, world: Path) -> str:
    """A pickle of a whole object, as other tools save it."""
    torch.save({"model": Path("/tmp"), "epoch": 3}, path, pickle_protocol=2)
    return "a pickled object"


def damages_of(path: Path) -> Sequence[Damage]:
    """The damages that a file can have."""
    name = path.name
    if name.endswith((".csv", ".sha256")):
        return (*BYTES, *TEXT, *CSV, *CSV) if name.endswith(".csv") else (*BYTES, *TEXT)
    if name.endswith(".json"):
        return (*BYTES, *TEXT, *JSON, *JSON, *JSON)
    if name.endswith((".nii", ".nii.gz")):
        return (*BYTES, *PIXELS, *[nifti_header] * 9)
    if name.endswith((".tif", ".tiff")):
        return (*BYTES, *PIXELS, *[tiff_tag] * 5)
    if name.endswith((".png", ".jpg")):
        return (*BYTES, *PIXELS, exif_tag, exif_tag, palette)
    if name.endswith(".dcm"):
        return (*BYTES, *[dicom_element] * 14)
    if name.endswith(".npz"):
        return (*BYTES, *[npz_array] * 6, zip_member, zip_member)
    if name.endswith(".pt"):
        return (*BYTES, *[tensor] * 6, zip_member, zip_member, as_pickle)
    return (*BYTES, *TEXT) if name.endswith(".conf") else BYTES
