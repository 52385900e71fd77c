"""What becomes of a model's masks when their metadata are changed: one page, which needs no server.

The page holds, for each case, its picture, its true outline where the table has one, and the mask
for every value of every field, one field at a time. Its data, each part a script element that is
no script:

- ``model``: `weights_sha256`, what the model is, `classes`, `fields` with their `options` (`text`,
  `at` on a scale of numbers, `beyond`: why not to rely on it), steps of `guidance`, `gates`.
- ``case-<n>``: `pictures` of its `planes`, what is `given`, and `states`, which for each field (and
  guidance) list the place of each option's mask; 0 is the mask as given. `masks` is base64 of a
  zlib stream: the masks by state and plane, then the true classes by plane. Each begins with a
  byte, 1 where it is the change from the mask of the state before (their exclusive or), else 0;
  then come runs over its pixels, row by row, each an LEB128 number: length x base + class, where
  base is the power of two that holds the classes. `areas` are counts of pixels by state, plane
  and class, `volumes` of voxels by state and class. `intervals`, where there are any, have
  [low, high] by state, plane and class, in pixels, or null; `coverage` of the model, such as 0.9,
  says how often they are to hold the true area.
"""

import base64
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image as Picture
from tqdm import tqdm

from metaseg_monai.errors import ConfigError, DataError, MetasegError, Problem, typed
from metaseg_monai.explain import few_cases
from metaseg_monai.files import absolute, new_folder, replacing
from metaseg_monai.images import slice_items
from metaseg_monai.images.read import volumes_of
from metaseg_monai.metadata.fields import UNKNOWN, AnyField, Continuous, read_number
from metaseg_monai.naming import likened
from metaseg_monai.reporting.verdict import network_class
from metaseg_monai.rows import PROBLEMS, problems_of, write_problems
from metaseg_monai.sharing.asking import AskedModel, Planes, State, asking
from metaseg_monai.sharing.own_metadata import COUNT, NO_UNIT
from metaseg_monai.tables.table import CaseTable, scan_table, sift, tell
from metaseg_monai.training.collate import problem_of
from metaseg_monai.training.weights import LoadWeights

MOST_SIDE = 1024  # pixels of a picture's longer side; of larger ones every n-th is shown
MOST_CHANNELS = 64  # shown of a gate
QUALITY = 90  # of WebP
TEMPLATES = Path(__file__).with_name("templates")
SPACE = "README.md"


@dataclass(frozen=True)
class WhatIf:
    """A page.

    Attributes:
        html: its file.
        cases: the names of those it shows.
        masks: how many it holds.
        problems: of the cases that were left out, all in `problems_file`.
        problems_file: ``page.problems.csv`` beside page.html, ``problems.csv`` of a Space.
    """

    html: Path
    cases: Sequence[str]
    masks: int
    problems: Sequence[Problem] = ()
    problems_file: Path | None = None

    @property
    def folder(self) -> Path:
        """That the page lies in."""
        return self.html.parent

    def __str__(self) -> str:
        size = self.html.stat().st_size / 1e6
        return f"page: {self.html} ({len(self.cases)} cases, {self.masks} masks, {size:.1f} MB)"


@typed
def whatif(
    folder: str | Path | Sequence[str | Path],
    table: str | Path,
    output: str | Path | None = None,
    cases: int = 20,
    planes: int = 12,
    space: str | Path | None = None,
    *,
    trust: bool = False,
    **settings: Any,
) -> WhatIf:
    """Write a page on which one changes the metadata of cases and sees the masks change.

    It is one file that opens from the disk, without a server or network. It holds the pictures of
    its cases and their names: give it only to whom you may give these.

    Example:
        python -m metaseg_monai whatif runs/me --table data/table.csv --output page.html
        python -m metaseg_monai whatif runs/me --table data/table.csv --space runs/space

    Args:
        folder: of the model; several, as runs/fold0,runs/fold1, predict together.
        table: of the cases, with their metadata as given, or the folder that holds it; of its
            split test where it has one, else of all.
        output: file of the page, such as page.html.
        cases: how many to show, of every value of the first named field by turns.
        planes: most shown of a volume, those around the largest foreground.
        space: new folder for the page as index.html, with the README of a static Space of Hugging
            Face: what is in it can be uploaded as it is.
        trust: as for train.
        settings: any setting of configs/inference.json, such as --device cpu.

    Returns:
        The page's file, and which cases it shows.

    Raises:
        ConfigError: no model's folder, the network reads no metadata, or neither output nor space
            is given.
        DataError: the table cannot be used, or none of its cases.
        MetadataError: a field is known only after an operation, unless --force True.
    """
    if (output is None) == (space is None):
        raise ConfigError(
            "give --output page.html for the page, or --space DIR for a folder with it that can be "
            "uploaded as a static Space; one of the two"
        )
    if min(cases, planes) < 1:
        raise ConfigError(f"--cases {cases} --planes {planes}: give whole numbers from 1")
    place = absolute(output if output is not None else space or "")
    if output is not None and (place.suffix.lower() not in (".html", ".htm") or place.is_dir()):
        raise ConfigError(f"--output {output}: give the page a name that ends in .html")
    source = absolute(table)
    with asking(folder, source, place, "is writing this page", settings, trust) as model:
        made = _Maker(model, table, cases, planes)
        text = made.page(place.stem if output is not None else place.name, Path(table).name)
    if output is not None:
        with replacing(place) as part:
            part.write_text(text, "utf-8", newline="\n")
        told = problems_of(place)
        write_problems(place.parent, made.problems, told.name)
    else:
        with new_folder(place) as part:
            (part / "index.html").write_text(text, "utf-8", newline="\n")
            readme = _rendered(SPACE, title=place.name, **made.told)
            (part / SPACE).write_text(readme, "utf-8", newline="\n")
            write_problems(part, made.problems)
        told, place = place / PROBLEMS, place / "index.html"
    return WhatIf(place, [one.name for one in made.shown], made.masks, made.problems, told)


# What is shown: cases with their pictures, masks and areas.


@dataclass
class _Shown:
    """A case on the page, or the planes of a volume.

    Attributes:
        name: of the case or volume.
        raw: its metadata, as given.
        trained: the split of the training that it was in; None for an image that was in none.
        numbers: of its planes in their volume, which has `of`.
        spacing_mm: of planes, rows and columns; None where it is unknown.
        pictures: (D, H, W) or (D, H, W, 3), 0..255, of every `step`-th row and column.
        truth: true classes (D, H, W); None where the table has none.
        masks: (S, D, H, W), as given first.
        places: of each field, and of guidance, the place of every option's mask.
        areas: pixels (S, D, K - 1) of the whole planes; with the true ones (D, K - 1).
        volumes: voxels (S, K - 1) of the whole volume, where all of it was predicted.
        gates: scales (C,) of every gate, of every mask.
        notes: what is to be known of the masks.
        intervals: [low, high] by state, plane and class, in pixels, or None where none is known.
    """

    name: str
    raw: dict[str, Any]
    trained: str | None
    numbers: list[int]
    of: int
    spacing_mm: tuple[float, ...] | None
    step: int
    pictures: np.ndarray
    truth: np.ndarray | None
    masks: np.ndarray
    places: dict[str, list[int]]
    areas: np.ndarray
    true_areas: np.ndarray | None
    volumes: np.ndarray | None
    gates: list[dict[str, np.ndarray]]
    notes: list[str]
    intervals: list[list[Any] | None] | None


class _Maker:
    """Ask a model for all masks of the cases of a table.

    Args:
        model: to ask.
        table: of the cases.
        cases: how many.
        planes: most of a volume.

    Attributes:
        shown: the cases.
        problems: those that were left out.
    """

    def __init__(self, model: AskedModel, table: str | Path, cases: int, planes: int) -> None:
        self.model, self.planes = model, planes
        self.problems: list[Problem] = []
        content, self.split_of = rows_of(model, table, self.problems)
        rows = list(content.rows)
        tested = [row for row in rows if row.get("split") == "test"]
        items = slice_items(
            tested or rows, model.spatial_dims, self.problems, model.axis, at_least_one=True
        )
        units = self._chosen(items, cases)
        named = content.class_names or model.weights.class_names({})
        self.classes = [named.get(number, str(number)) for number in range(model.classes)]
        self.classes[0] = named.get(0, "background")
        self.shown: list[_Shown] = []
        states = 1 + sum(map(len, model.options.values())) + max(0, len(model.guidance) - 1)
        several = (min(planes, len(one)) if "plane" in one[0] else 1 for one in units)
        with tqdm(total=states * sum(several), unit="mask", desc="what if") as self.bar:
            for unit in units:
                try:
                    self.shown.append(self._show(unit))
                except (MetasegError, OSError) as error:
                    self.problems.append(problem_of(unit[0], error))
        if not self.shown:
            told = "; ".join(map(str, self.problems[:3])) or "it has no rows"
            raise DataError(f"{table}: no case can be shown: {told}")

    @property
    def masks(self) -> int:
        """How many masks there are."""
        return sum(one.masks.shape[0] * one.masks.shape[1] for one in self.shown)

    def _chosen(self, items: Sequence[dict[str, Any]], cases: int) -> list[list[dict[str, Any]]]:
        """Cases, and volumes with all planes whose metadata are alike, by turns of their domain."""
        units: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for item in items:
            of_volume = (str(item["volume"]), repr(item["metadata"])) if "plane" in item else None
            units.setdefault(of_volume or (str(item["case"]), ""), []).append(item)
        named = [one.name for one in self.model.schema.fields if getattr(one, "values", ())]
        told = [
            {"case": key, "domain": str(unit[0]["metadata"].get(named[0])) if named else ""}
            for key, unit in units.items()
        ]
        chosen = [units[one["case"]] for one in few_cases(told, cases)]
        return [sorted(unit, key=lambda item: int(item.get("plane", 0))) for unit in chosen]

    # one case

    def _show(self, unit: list[dict[str, Any]]) -> _Shown:
        model, item = self.model, unit[0]
        raw = {**model.default, **(item.get("metadata") or {})}
        states, places = model.states(raw, str(item["case"]))
        notes: list[str] = []
        whole, there = "plane" not in item and model.spatial_dims == 3, len(unit)
        if len(unit) > 1 and len(unit) > self.planes:
            unit = self._around_largest(unit)
        read = model.read_planes(unit)
        masks, gates = self._answers(read, states)
        pictures = np.stack(read.pictures)
        truth = None if read.truth is None else np.stack(read.truth)
        numbers, of = [int(one.get("plane", 0)) for one in unit], len(masks[0])
        there = of if whole else there
        volumes = None
        if whole:
            volumes, numbers = model.counts(masks).sum(1), list(range(of))
            if of > self.planes:
                by = truth if truth is not None and truth.any() else masks[0]
                kept = window(np.count_nonzero(by, axis=(1, 2)), self.planes)
                numbers = numbers[kept]
                masks, pictures = masks[:, kept], pictures[kept]
                truth = None if truth is None else truth[kept]
        else:
            of = int(unit[0].get("planes", len(unit))) if "plane" in item else 1
        if len(masks[0]) < there:
            notes.append(
                f"{len(masks[0])} of {there} slices are shown, around the one with the largest "
                f"{'true' if truth is not None else 'predicted'} foreground."
            )
        if model.cleaning.rules.cleans and volumes_of([item]):
            notes.append("Each slice is cleaned by itself; a prediction cleans the volume as one.")
        step = math.ceil(max(masks.shape[2:]) / MOST_SIDE)
        if step > 1:
            notes.append(f"Every {step}. row and column is shown; areas are of all pixels.")
        return _Shown(
            str(item.get("volume", item["case"])),
            raw,
            self.split_of(item),
            numbers,
            of,
            read.spacing_mm,
            step,
            np.stack([picture[::step, ::step] for picture in pictures]),
            None if truth is None else truth[:, ::step, ::step],
            masks[:, :, ::step, ::step],
            places,
            model.counts(masks),
            None if truth is None else model.counts(truth),
            volumes,
            gates,
            notes,
            self._intervals(read, states, masks),
        )

    def _intervals(
        self, read: Planes, states: Sequence[State], masks: np.ndarray
    ) -> list[list[Any] | None] | None:
        """Intervals of the areas of masks (S, D, H, W), one of each state and plane."""
        areas = self.model.counts(masks)
        found = [self.model.intervals(read, *one) for one in zip(states, areas[:, 0], strict=True)]
        every = [None if one is None else [one] for one in found]
        return every if any(every) else None

    def _answers(
        self, read: Planes, states: Sequence[State]
    ) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        """The masks (S, D, H, W) of all states, and what the gates did."""
        masks, gates = [], []
        for state in states:
            found, scales = self.model.answer(read, state)
            masks.append(found)
            gates.append(scales)
            self.bar.update(len(read.samples))
        return np.stack(masks), gates

    def _around_largest(self, unit: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The planes around that with the largest true foreground, or predicted as given."""
        sizes = []
        for item in unit:
            loaded, sample = self.model.read(item)
            found = loaded.get("label")
            if found is None:
                found = self.model.mask(sample, State(None, 1.0))[0]
            sizes.append(np.count_nonzero(np.asarray(found)))
        return unit[window(np.array(sizes), self.planes)]

    @property
    def told(self) -> dict[str, Any]:
        """What the page, and its README, say of the model."""
        return told_of(self.model)

    def page(self, title: str, table: str) -> str:
        """The page as text."""
        scales = [value for one in self.shown for of in one.gates for value in of.values()]
        ends = [float(end) for end in (min(map(np.min, scales), default=0.0), 1.0)]
        ends[1] = float(max(map(np.max, scales), default=1.0))
        own = {
            "gates": [
                {"name": name, "channels": len(scale), "shown": len(_some(len(scale)))}
                for name, scale in self.shown[0].gates[0].items()
            ],
            "scale": ends,
            "cases": [{"name": one.name, "trained": one.trained} for one in self.shown],
        }
        contents = [self._case(one, *ends) for one in self.shown]
        return page_of(self.model, self.classes, title, table, own, contents)

    def _case(self, one: _Shown, low: float, high: float) -> dict[str, Any]:
        scales = [
            np.concatenate([scale[_some(len(scale))] for scale in of.values()])
            for of in one.gates
            if of
        ]
        shades = np.round((np.array(scales) - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
        size = (one.masks.shape[2], one.masks.shape[3])
        frame = frame_of(self.model, one.raw, one.places, size, one.numbers, one.of, one.spacing_mm)
        return {
            **frame,
            "notes": one.notes,
            "pictures": [picture_url(plane) for plane in one.pictures],
            "masks": packed_masks(one.masks, one.truth, self.model.classes),
            "areas": one.areas.tolist(),
            "true_areas": None if one.true_areas is None else one.true_areas.tolist(),
            "volumes": None if one.volumes is None else one.volumes.tolist(),
            "gates": _zlib(shades.tobytes()) if scales else None,
            "gated": [place for place, of in enumerate(one.gates) if of],
            "intervals": one.intervals,
        }


def _some(channels: int) -> np.ndarray:
    """The places of the channels that are shown of a gate."""
    return np.unique(np.linspace(0, channels - 1, min(channels, MOST_CHANNELS)).round().astype(int))


def rows_of(
    model: AskedModel, table: str | Path, problems: list[Problem]
) -> tuple[CaseTable, Callable[[Mapping[str, Any]], str | None]]:
    """Read a table, from which the model learns what it was trained on.

    Args:
        model: takes up the values of its training rows.
        table: of the cases.
        problems: gets those that are wrong.

    Returns:
        The table, and a function that tells the split in which the training had an item.

    Raises:
        DataError: the table cannot be used.
    """
    unknown = model.weights.recorded.get("unknown_trained", False) or model.unknown
    content, wrong = scan_table(
        table, model.schema, model.columns, None, True, bool(unknown), model.default
    )
    sift(content, wrong, problems)
    tell(content)
    split_of = _split_of(model.weights)
    model.know(row for row in content.rows if split_of(row) == "train")
    return content, split_of


def _split_of(weights: LoadWeights) -> Callable[[Mapping[str, Any]], str | None]:
    """The split of a training in which an item's case or group was, as far as it is known."""
    record = weights.trained_on()
    of_name: dict[tuple[str, str], str] = {}
    for row in [] if record is None else record.to_dict("records"):
        for kind in ("group", "case"):
            of_name[kind, likened(str(row[kind]))] = str(row["split"])

    def split_of(item: Mapping[str, Any]) -> str | None:
        for kind in ("case", "group"):
            if (found := of_name.get((kind, likened(str(item.get(kind)))))) is not None:
                return found
        return None

    return split_of


def window(sizes: np.ndarray, most: int) -> slice:
    """At most so many neighbours around the largest.

    >>> window(np.array([0, 0, 1, 5, 2]), 3), window(np.array([9, 0, 0]), 2)
    (slice(2, 5, None), slice(0, 2, None))
    """
    first = int(np.argmax(sizes)) - most // 2
    first = max(0, min(first, len(sizes) - most))
    return slice(first, first + most)


# The page, whoever answers it.


def told_of(model: AskedModel) -> dict[str, Any]:
    """What a page says of a model."""
    facts = model.weights.recorded
    return {
        "weights_sha256": facts["weights_sha256"],
        "variant": model.variant,
        "network": network_class(facts.get("network")),
    }


def page_of(
    model: AskedModel,
    classes: Sequence[str],
    title: str,
    source: str,
    own: Mapping[str, Any],
    contents: Sequence[Mapping[str, Any]],
    scripts: Sequence[str] = ("whatif.js",),
) -> str:
    """The page as text.

    Args:
        model: that is asked.
        classes: their names.
        title: of the page.
        source: of its cases, in words.
        own: what is told beside the model: `cases`, `gates` and their `scale`.
        contents: of the cases.
        scripts: of the templates, in order; the live page has one more.
    """
    told, ran = told_of(model), model.runner.told
    content = {
        **told,
        "classes": classes,
        "fields": [_field(model, known) for known in model.schema.fields],
        "guidance": [{"text": f"{weight:g}", "at": weight} for weight in model.guidance],
        "guided": model.given,
        "coverage": None if model.calibrated is None else model.calibrated.fact["level"],
        **own,
    }
    return _rendered(
        "whatif.html",
        title=title,
        source=source,
        live=len(scripts) > 1,
        engine=f"{ran['engine']} in {ran['precision']}",
        style=(TEMPLATES / "whatif.css").read_text(encoding="utf-8"),
        scripts=[(TEMPLATES / name).read_text(encoding="utf-8") for name in scripts],
        model=as_data(content),
        contents=list(map(as_data, contents)),
        count=len(contents),
        **told,
    )


def _field(model: AskedModel, known: AnyField) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": known.name,
        "id": "field-" + re.sub(r"\s", "_", known.name),
        "kind": known.kind,
        "description": known.description,
        "cases": model.trained[known.name].cases,
        "options": [
            {"text": one.text, "at": one.at, "beyond": one.beyond}
            for one in model.options[known.name]
        ],
    }
    if isinstance(known, Continuous):
        low, high = model.trained[known.name].ends(known)
        unit = "" if known.unit in (NO_UNIT, COUNT) else known.unit
        told |= {"unit": unit, "log": known.scale != "linear", "trained": [low, high]}
    return told


def frame_of(
    model: AskedModel,
    raw: Mapping[str, Any],
    places: Mapping[str, Sequence[int]],
    size: tuple[int, int],
    numbers: Sequence[int],
    of: int,
    spacing_mm: tuple[float, ...] | None,
) -> dict[str, Any]:
    """What a page knows of a case before anything is answered.

    Args:
        model: that is asked.
        raw: metadata, as given.
        places: of the options' states, see `AskedModel.states`.
        size: rows and columns that are shown.
        numbers: of the planes in their volume.
        of: how many it has.
        spacing_mm: of planes, rows and columns.
    """
    z, y, x = spacing_mm or (math.nan,) * 3
    given = {}
    for known in model.schema.fields:
        value = raw.get(known.name)
        missing = known.is_missing(value)
        at = read_number(value) if isinstance(known, Continuous) and not missing else None
        text = UNKNOWN if missing else str(value)
        beyond = model.trained[known.name].doubt(known, value)
        given[known.name] = {"text": text, "at": at, "beyond": beyond}
    return {
        "size": list(size),
        "planes": list(numbers),
        "of": of,
        "pixel_mm2": None if math.isnan(y * x) else y * x,
        "voxel_ml": None if math.isnan(z * y * x) else z * y * x / 1000,
        "given": given,
        "states": places,
    }


# How it is packed.


def packed_masks(states: np.ndarray, truth: np.ndarray | None, classes: int) -> str:
    """Masks (S, D, H, W) and true classes (D, H, W) as base64 of a zlib stream, see above.

    >>> states = np.array([[[[0, 1]]], [[[1, 1]]]], np.uint8)
    >>> zlib.decompress(base64.b64decode(packed_masks(states, None, 2))).hex(" ")
    '00 02 03 00 05'
    """
    base = 1 << (classes - 1).bit_length()
    parts = list[bytes]()
    for place, planes in enumerate(states):
        for plane, mask in enumerate(planes):
            own = b"\0" + _runs(mask, base)
            change = b"\1" + _runs(mask ^ states[place - 1][plane], base) if place else own
            parts.append(min(own, change, key=len))
    parts += [b"\0" + _runs(mask, base) for mask in (() if truth is None else truth)]
    return _zlib(b"".join(parts))


def _runs(mask: np.ndarray, base: int) -> bytes:
    values = mask.ravel().astype(np.int64)
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    numbers = np.diff(starts, append=len(values)) * base + values[starts]
    sevens = numbers[:, None] >> np.arange(0, 42, 7) & 127  # LEB128, lowest first
    used = 6 - np.argmax(sevens[:, ::-1] > 0, axis=1)
    places = np.arange(6)
    sevens |= np.where(places < used[:, None] - 1, 128, 0)
    return bytes(sevens[places < used[:, None]].astype(np.uint8).tobytes())


def _zlib(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def picture_url(plane: np.ndarray) -> str:
    """A picture (H, W) or (H, W, 3), 0..255, as an address that is its content: lossy WebP."""
    file = io.BytesIO()
    Picture.fromarray(plane).save(file, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def as_data(content: Any) -> Markup:
    r"""JSON that a script element may hold, whatever texts are in it.

    >>> print(as_data({"name": "</script>"}))
    {"name":"\u003c/script>"}
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _rendered(name: str, **content: Any) -> str:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["digest"] = _digest
    return made.get_template(name).render(**content)


def _digest(text: str) -> str:
    """What the page's policy allows a style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
