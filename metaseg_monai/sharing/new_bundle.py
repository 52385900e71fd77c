"""A bundle for a table of one's own: what was inferred, each with its reason, and what follows."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.stats import spearmanr
from tqdm import tqdm

from metaseg_monai.bundle.compose import compose, format_config, shared_folder
from metaseg_monai.errors import ConfigError, DataError, did_you_mean, listing, typed
from metaseg_monai.files import absolute, new_folder, writable, write_json
from metaseg_monai.images.image import (
    FORMAT_OF_SUFFIX,
    Channels,
    image_suffix,
    value_counts,
    whole_numbers,
)
from metaseg_monai.images.read import is_volume_file, read_label
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import KINDS, read_number, said, says_nothing
from metaseg_monai.metadata.fit import doubts, field_parts, widened
from metaseg_monai.naming import Folder, composed
from metaseg_monai.prepare.splits import dealt
from metaseg_monai.rows import read_lines, separator_of, write_table
from metaseg_monai.sharing.plan import (
    Fact,
    Fingerprint,
    Modality,
    Network,
    Plan,
    fingerprint,
    plan,
    steering,
)
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.table import CaseTable, case_name, known_class_names, parse_class_names

OF_IMAGES = ("image", "img", "ct", "mr", "mri", "scan", "volume", "slide", "file", "path")
OF_LABELS = ("label", "mask", "seg", "segmentation", "annotation", "gt", "truth", "roi")
OF_GROUPS = ("patient", "subject", "person", "donor", "animal", "well", "plate")
PERHAPS_GROUPS = ("group", "case", "study", "series", "volume")  # or an arm, a kind, a file
OF_SPLITS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "ts"),
}
OWN = ("split", "fold", "group")  # columns that the copy of a table gets
DRAWN = "new"  # instead of the column of splits
UNITS = ("mm", "cm", "um", "years", "months", "days", "kg", "g", "ms", "s", "hz", "kvp", "ma", "t")
FEW_NUMBERS = 6  # whole numbers of so few values are taken as names
MOST_NAMES = 30  # of a category
ASSOCIATED = 0.8  # rank correlation with what the label says from which a column is left out
BY_CHANCE = 1e-4  # probability above which an association may be
ENOUGH = 10  # rows that an association is judged by
FEW_EMPTY = 3  # empty labels, and others, that it takes to say that a column tells them apart
MOST_CLASSES = 32
STEPS = 2500  # of a training as planned: ten of nnU-Net's epochs of 250
VALIDATIONS = 50
KEPT_GB = 8.0  # of preprocessed images in memory
PIXEL_BYTES = 5  # of a preprocessed image, float32, and its label
SHARES = (0.7, 0.15, 0.15)
MARGIN = 0.2  # of a range at either end, for cases beyond those of the table
UNIT_OF = {"age": "years", "year": "years", "index": "count", "count": "count", "n": "count"}
UNIT_OF |= {"number": "count", "fraction": "fraction", "ratio": "fraction", "share": "fraction"}
NO_UNIT = "unit to be named"
MOST_TOLD = 20
_OUTCOME = re.compile(
    r"(^|[\W_])(death|dead|died|deceased|survival|outcome|recurrence|relapse)(?![a-z])", re.I
)
_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class NewBundle:
    """What was inferred and made.

    Attributes:
        folder: of the bundle; None where nothing was written.
        inferred: what was inferred of the table, by name: value and reason.
        left_out: columns that are no metadata, with the reason.
        schema: of the metadata.
        plan: of the training.
        next_steps: in words.
    """

    folder: Path | None
    inferred: Mapping[str, tuple[Any, str]]
    left_out: Mapping[str, str]
    schema: MetadataSchema
    plan: Plan
    next_steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{name}: {value} ({why})" for name, (value, why) in self.inferred.items()]
        for one in self.schema.fields:
            lines.append(f"metadata {one.name}: {one.kind}, {one.expected()}")
        lines += [f"left out {name}: {why}" for name, why in self.left_out.items()]
        lines.append(str(self.plan))
        return "\n".join([*lines, *self.next_steps])


@typed
def new_bundle(
    name: str,
    table: str | Path,
    bundles: str | Path = "bundles",
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    fields: str | Sequence[str] | None = None,
    dims: int | None = None,
    network: Network = "dynunet",
    split: str | None = None,
    folds: int | None = None,
    seed: int = 0,
    class_names: str | None = None,
    modality: Modality | None = None,
    channels: Channels = "stored",
    memory_gb: float = 4.0,
    dry_run: bool = False,
) -> NewBundle:
    """Make a bundle for your own table: columns, metadata, splits and a planned training.

    Example:
        python -m metaseg_monai new-bundle kidneys --table cohort.csv --bundles bundles

    What is inferred of the table is told with its reason, and each of it can be given instead.
    Images are not copied, and your table is not changed.

    Args:
        name: of the bundle, which becomes a folder.
        table: your CSV file (commas, semicolons or tabs): a row an image, with paths of image and
            label that are absolute, or relative to it.
        bundles: folder to make it in.
        image: column of image paths; several, separated by commas, are channels of one image.
        label: column of label paths.
        group: column of what stays in one split, such as the patient.
        fields: metadata to take, as column[:kind[:unit]], separated by commas; by default all
            columns that can be metadata; "none" for a bundle without.
        dims: 2 or 3, of the network; by default that of the files. With 2 the axial planes of
            volumes are read from them, and masks are volumes again.
        network: dynunet, segresnet, unet3 or ppunet.
        split: column of splits, by default `split` where there is one; "new" has them drawn.
        folds: so many folds instead of fixed splits; every case is then tested once, but those
            that a column of splits, if it is named, has as test.
        seed: of the splits.
        class_names: as "1=kidney,2=tumour".
        modality: CT, RGB or other; by default as values and headers say.
        channels: stored, or grey or rgb, to which images of one and three are converted.
        memory_gb: that training may take, beside what it keeps of images; measured by two steps.
        dry_run: tell what would be made, and write nothing.

    Returns:
        What was inferred and planned, and the folder.

    Raises:
        ConfigError: a name or setting is wrong, or a choice is yours to make; says which.
        DataError: the table or a file in it cannot be used, or the bundle is there already.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ConfigError(f"{name!r} cannot name a bundle; use letters, digits and underscores")
    target = Path(bundles) / name
    if not dry_run and target.exists() and any(target.iterdir()):
        raise DataError(f"{target}: exists already; delete it, or choose another name")
    found = _Table(Path(table), image, label, group, split)
    found.check_files()
    volumes = is_volume_file(found.image_paths(0)[0])
    if dims not in (None, 2, 3) or (dims == 3 and not volumes):
        raise ConfigError(f"dims={dims}: expected 2, or 3 where the images are volumes")
    planar = volumes and dims == 2
    found.scan_labels()
    schema, names_of, left_out = _schema(found, fields)
    split_of = _splits(found, schema, names_of, folds, seed)
    items = found.items(split_of)
    known = fingerprint(CaseTable(found.file, items), 3 if volumes else 2, modality, channels)
    planned = plan(_of_planes(known) if planar else known, network, memory_gb, schema)
    planned = _scheduled(planned, known)
    names = parse_class_names(class_names) or known_class_names(found.file.parent)
    names = {0: "background", **names}
    for number in range(planned["classes"]):
        names.setdefault(number, f"class_{number}")
    if max(names) >= planned["classes"]:
        raise ConfigError(
            f"class_names names class {max(names)}, but labels end at {planned['classes'] - 1}"
        )
    told = dict(found.inferred)
    told["classes"] = (", ".join(f"{n} {one}" for n, one in names.items()), found.why_classes)
    if any(one == f"class_{number}" for number, one in names.items()):
        told["classes"] = (told["classes"][0], f"{found.why_classes}; --class_names names them")
    told["dims"] = (
        f"{planned['spatial_dims']}{', axial planes of volumes' if planar else ''}",
        "as given" if dims else "the axes of the files",
    )
    made = NewBundle(None, told, left_out, schema, planned, ("nothing was written (dry run)",))
    if dry_run:
        return made
    settings = _settings(planned, schema, planar, channels)
    with writable(target), new_folder(target) as part:
        _write(part, target, found, schema, names_of, split_of, planned, names, left_out, settings)
    steps = [
        f"bundle: {target}",
        f"next: {_commands(target, found, schema)[0]}",
        f"review: {target / 'configs' / 'schema.json'}, and fill in {target / 'docs' / 'README.md'}"
        f" and {target / 'docs' / 'data_license.txt'}",
    ]
    if unnamed := [f.name for f in schema.fields if getattr(f, "unit", "") == NO_UNIT]:
        steps.append(f"units to name in schema.json, or in --fields: {', '.join(unnamed)}")
    return NewBundle(target, told, left_out, schema, planned, tuple(steps))


def _of_planes(known: Fingerprint) -> Fingerprint:
    """What the axial planes of volumes have in common: as many as there are."""
    shapes, spacings = known.shapes, known.spacings_mm
    if len(known.values) != 1:
        raise ConfigError(
            f"dims=2: the volumes have {len(known.values)} channels, and planes are read from "
            "volumes of one; leave dims out"
        )
    planes = [shape[2] for shape in shapes]
    return replace(
        known,
        spatial_dims=2,
        shapes=tuple(shape[:2] for shape, n in zip(shapes, planes, strict=True) for _ in range(n)),
        spacings_mm=spacings
        and tuple(one[:2] for one, n in zip(spacings, planes, strict=True) for _ in range(n)),
    )


def _scheduled(planned: Plan, known: Fingerprint) -> Plan:
    """The plan with how long is trained, and whether images stay in memory."""
    cases, sizes = len(known.shapes), np.prod(known.shapes, axis=1)
    items = (
        sum(shape[2] for shape in known.shapes)
        if len(known.shapes[0]) > planned["spatial_dims"]
        else cases
    )
    steps = -(-items // planned["batch_size"])
    epochs = -(-STEPS // steps)
    grown = 1.0
    if planned["spacing_mm"] is not None and known.spacings_mm is not None:
        wanted = planned["spacing_mm"]
        grown = float(
            np.prod(np.median(known.spacings_mm, axis=0)[: len(wanted)]) / np.prod(wanted)
        )
    taken = float(sizes.sum()) * grown * (4 * len(known.values) + 1) / 1e9
    facts = {
        "epochs": Fact(
            epochs,
            f"{epochs * steps} steps of {planned['batch_size']} of {items} training "
            f"{'planes' if items > cases else 'images'}: a first result; nnU-Net takes 250,000",
        ),
        "cached": Fact(
            taken <= KEPT_GB,
            f"preprocessed training images take {taken:.3g} GB of memory; up to {KEPT_GB:g} they "
            "are kept",
        ),
    }
    return replace(planned, facts={**planned.facts, **facts})


class _Table:
    """A user's table: which column holds what, and what its labels hold."""

    def __init__(
        self,
        file: Path,
        image: str | None,
        label: str | None,
        group: str | None,
        split: str | None,
    ) -> None:
        self.file = file
        separator = separator_of(file) if file.is_file() else ","
        self.header, lines, broken = read_lines(file, separator)
        if broken:
            raise DataError(f"{file}: {'; '.join(broken)}; mend these rows")
        self.rows = [cells for _, cells in lines]
        self.numbers = [number for number, _ in lines]
        self.files = Folder(file.parent)
        self.inferred: dict[str, tuple[Any, str]] = {}
        if separator != ",":
            told = {";": "semicolons", "\t": "tabs"}[separator]
            self.inferred["cells"] = (
                f"separated by {told}",
                "of the header; by commas in the copy",
            )
        images = [one.strip() for one in (image or "").split(",") if one.strip()]
        for given in filter(None, (*images, label, group, None if split == DRAWN else split)):
            if given not in self.header:
                raise ConfigError(
                    f"{file}: no column {given!r}; {did_you_mean(given, self.header)}"
                )
        self.of_paths = [name for name in self.header if self._holds_files(name)]
        self.images, self.label = self._images_and_label(images, label)
        self.image = self.images[0] if len(self.images) == 1 else "image"
        self._points_for_commas()
        self.split_named = split
        self.own_split = self._own_split(split)
        self.group = self._group(group)
        self.groups = [
            composed(cells[self.group].strip()) if self.group else f"row {number}"
            for number, cells in zip(self.numbers, self.rows, strict=True)
        ]
        if lacking := [n for n, one in zip(self.numbers, self.groups, strict=True) if not one]:
            raise DataError(
                f"{file}: row {listing(lacking, 5, str)}: no {self.group}, which keeps rows of one "
                "group in one split; fill it in"
            )
        self.counts: list[dict[int, int]] = []  # of each row: {value of the label: pixels}
        self.shapes: list[tuple[int, ...]] = []
        self.objects: list[tuple[int, int]] = []  # connected parts, and the longest side
        self.label_values: list[int] | str = []
        self.why_classes = ""

    def paths(self, row: int, column: str) -> list[Path]:
        """The files that a cell names, as they lie on the disk; none where one is missing."""
        cell = self.rows[row][column].strip()
        if said(cell) == "":
            return []
        whole = self._path(cell)
        parts = [whole] if whole is not None else [self._path(p) for p in cell.split(";")]
        return [] if None in parts else [one for one in parts if one is not None]

    def image_paths(self, row: int) -> list[Path]:
        """The files of a row's image, a channel each where there are several."""
        return [path for column in self.images for path in self.paths(row, column)]

    def check_files(self) -> None:
        """Refuse a table of which a file is missing; all are told at once."""
        lacking = [
            f"  row {number}, column {column!r}: no such file {self.rows[row][column].strip()!r}"
            for row, number in enumerate(self.numbers)
            for column in (*self.images, self.label)
            if not self.paths(row, column)
        ]
        if lacking:
            more = [f"  and {len(lacking) - MOST_TOLD} more"] if len(lacking) > MOST_TOLD else []
            raise DataError(
                "\n".join([f"{self.file}: {len(lacking)} files", *lacking[:MOST_TOLD], *more])
                + "\nmend the paths, which are relative to the table, or remove the rows"
            )

    def _points_for_commas(self) -> None:
        """Write 1,5 as 1.5 in columns of such numbers; thousands (1,234) stay what they are."""
        mended = []
        for column in (one for one in self.header if one not in self.of_paths):
            present = [cells[column].strip() for cells in self.rows]
            present = [one for one in present if not says_nothing(one)]
            with_comma = [one for one in present if _COMMA.fullmatch(one)]
            whole = all(_COMMA.fullmatch(one) or one.lstrip("+-").isdecimal() for one in present)
            thousands = all(len(one.partition(",")[2]) == 3 for one in with_comma)
            if with_comma and whole and not thousands:
                mended.append(column)
                for cells in self.rows:
                    if not says_nothing(cells[column]):
                        cells[column] = cells[column].strip().replace(",", ".")
        if mended:
            self.inferred["decimals"] = (listing(mended, 8, str), "1,5 is read and copied as 1.5")

    def _path(self, text: str) -> Path | None:
        path = self.file.parent / text.strip()
        if text.strip() and path.exists():
            return path
        if Path(text.strip()).is_absolute() or ".." in text:
            return None
        near = self.files.find(text.strip()) if text.strip() else None
        return None if near is None else self.file.parent / near

    def _holds_files(self, column: str) -> bool:
        cells = [one[column].strip() for one in self.rows if not says_nothing(one[column])][:20]
        first = [cell.split(";")[0] for cell in cells]
        of_images = [one for one in first if image_suffix(one) in FORMAT_OF_SUFFIX]
        return len(of_images) > 0.5 * len(cells) and any(self._path(one) for one in of_images)

    def _images_and_label(self, images: list[str], label: str | None) -> tuple[list[str], str]:
        labels = [one for one in self.of_paths if _is_of(one, OF_LABELS) and one not in images]
        others = [one for one in self.of_paths if one not in labels and one != label]
        why_image = why_label = "as given"
        if label is None:
            if len(labels) != 1:
                known = listing(self.of_paths) or "none"
                raise ConfigError(
                    f"{self.file}: which column holds the labels is not plain; columns of image "
                    f"files: {known}; name it with --label"
                )
            label, why_label = labels[0], "files, and a name as labels have"
        if not images:
            likely = [one for one in others if _is_of(one, OF_IMAGES)] or others
            if len(others) > 1 or len(likely) != 1:
                known = listing(others) or "none"
                raise ConfigError(
                    f"{self.file}: which column holds the images is not plain: {known}; name it "
                    f"with --image, or all that are channels of one image: --image "
                    f"{','.join(others) or 'a,b'}"
                )
            images, why_image = likely, "files, and not those of the labels"
        elif len(images) > 1:
            why_image = "as given, channels in this order"
        self.inferred |= {"image": (", ".join(images), why_image), "label": (label, why_label)}
        return images, label

    def _own_split(self, split: str | None) -> dict[int, str] | None:
        """The split of every row as the table has it; None where it has none that is meant."""
        column = split or "split"
        if split == DRAWN or column not in self.header:
            return None
        names = {name: one for one, known in OF_SPLITS.items() for name in known}
        told = [cells[column].strip() for cells in self.rows]
        if strangers := sorted({one for one in told if one.lower() not in names}):
            raise ConfigError(
                f"{self.file}: column {column!r}: {listing(strangers, 5)}, expected train, val and "
                "test; mend it, or have splits drawn: --split new"
            )
        return {row: names[one.lower()] for row, one in enumerate(told)}

    def _group(self, group: str | None) -> str | None:
        if group is not None:
            self.inferred["group"] = (group, "as given")
            return group
        others = [one for one in self.header if one not in self.of_paths]
        doubtful = ""
        for words, sure in ((OF_GROUPS, True), (PERHAPS_GROUPS, False)):
            for one in (o for word in words for o in others if _is_of(o, (word,))):
                values = [cells[one].strip() for cells in self.rows]
                times = Counter(values)
                if not all(values) or len(times) < 2:
                    continue
                if len(times) == len(values):
                    if sure:
                        self.inferred["group"] = (one, "its name, and a value in each row")
                        return one
                    continue
                most = max(times.values())
                why = f"{len(times)} values in {len(values)} rows, up to {most} each"
                if not sure and self._divided(values):
                    doubtful = doubtful or f"; {one} ({why}) is in several splits of the table"
                elif sure or one == "group" or most <= max(2, len(values) // 20):
                    self.inferred["group"] = (one, f"its name, and {why}")
                    return one
                else:
                    doubtful = (
                        doubtful or f"; if rows of one {one} ({why}) belong together, --group"
                    )
        told = f"no column of patients or the like: each row by itself{doubtful}"
        self.inferred["group"] = (None, told)
        return None

    def _divided(self, values: Sequence[str]) -> bool:
        """Whether the table's own splits divide rows of one value."""
        of_value: dict[str, set[str]] = defaultdict(set)
        for row, value in enumerate(values):
            of_value[value].add((self.own_split or {}).get(row, ""))
        return any(len(one) > 1 for one in of_value.values())

    def scan_labels(self) -> None:
        """Count the values of every label, and decide what they mean."""
        for row in tqdm(range(len(self.rows)), desc="labels", unit="file", disable=None):
            path = self.paths(row, self.label)[0]
            array = whole_numbers(read_label(path).array, str(path))
            self.counts.append(value_counts(array))
            self.shapes.append(array.shape[1:])
            self.objects.append(_objects(array))
        values = sorted({int(value) for counts in self.counts for value in counts})
        objects = [one for one in values if one > 0]
        shown = listing(values, 8, str)
        if values[0] < 0 or not objects:
            raise DataError(f"{self.file}: label values {shown}, expected 0 and numbers above it")
        if len(objects) == 1:
            self.label_values = [] if objects == [1] else objects
            self.why_classes = f"label values {shown}: one foreground"
        elif len(objects) <= MOST_CLASSES and objects[-1] <= MOST_CLASSES:
            self.why_classes = f"label values {shown}: a class each"
        elif all(sorted(one)[-1] == len(set(one) - {0}) for one in self.counts if set(one) - {0}):
            self.label_values = "instances"
            self.why_classes = "each label counts its objects from 1: one foreground"
        else:
            raise ConfigError(
                f"{self.file}: label values {shown}: neither classes from 1 to {MOST_CLASSES} nor "
                "objects counted from 1; save the classes as 0, 1, 2 ..."
            )

    def sizes(self) -> np.ndarray:
        """Foreground of every row, in pixels or voxels."""
        return np.array([sum(n for v, n in one.items() if v > 0) for one in self.counts])

    @cached_property
    def said_by_labels(self) -> dict[str, np.ndarray]:
        """What the labels say of every row, (N,) each, in words."""
        sizes, areas = self.sizes(), np.array([np.prod(shape) for shape in self.shapes])
        parts, sides = np.array(self.objects).T
        if self.label_values == "instances":
            parts = np.array([len(set(one) - {0}) for one in self.counts])
        of_row = {"the label's size": sizes}
        if not self.label_values:
            numbers = sorted({n for one in self.counts for n in one if n > 0})[:8]
            of_row |= {
                f"the size of class {n}": np.array([one.get(n, 0) for one in self.counts])
                for n in (numbers if len(numbers) > 1 else ())
            }
        of_row |= {
            "the label's share of the image": sizes / areas,
            "the number of the label's objects": parts,
            "the mean size of the label's objects": sizes / np.maximum(parts, 1),
            "the extent of the label": sides,
        }
        found = dict(of_row)
        if len(set(self.groups)) < len(self.groups):
            for what, measured in of_row.items():
                of_group: dict[str, list[float]] = defaultdict(list)
                for group, one in zip(self.groups, measured.tolist(), strict=True):
                    of_group[group].append(one)
                for how, join in (("largest", max), ("sum", sum)):
                    found[f"{what} ({how} of its group)"] = np.array(
                        [join(of_group[group]) for group in self.groups]
                    )
        return found

    def items(self, split_of: Mapping[str, tuple[str, str]]) -> tuple[dict[str, Any], ...]:
        """The rows as a fingerprint reads them."""
        items = []
        for row, group in enumerate(self.groups):
            paths = self.image_paths(row)
            item: dict[str, Any] = {
                "image": str(paths[0]) if len(paths) == 1 else [str(one) for one in paths],
                "label": str(self.paths(row, self.label)[0]),
                "case": case_name(paths[0].name, paths[0].is_dir()),
                "split": split_of[group][0],
            }
            if self.label_values:
                item["label_values"] = self.label_values
            items.append(item)
        return tuple(items)


def _objects(label: np.ndarray) -> tuple[int, int]:
    """Connected parts of the foreground, and the longest side of a box around all of it."""
    inside = np.greater(label[0], 0)
    if not inside.any():
        return 0, 0
    axes = range(inside.ndim)
    sides = [np.flatnonzero(inside.any(tuple(a for a in axes if a != axis))) for axis in axes]
    return int(ndimage.label(inside)[1]), max(int(side[-1] - side[0]) + 1 for side in sides)


def _is_of(column: str, words: Sequence[str]) -> bool:
    parts = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", column)
    return any(part.lower() in words or part.lower().rstrip("s") in words for part in parts)


# Metadata: which columns, of which kind.


def _schema(
    found: _Table, fields: str | Sequence[str] | None
) -> tuple[MetadataSchema, dict[str, str], dict[str, str]]:
    """The schema of the given fields, or of all columns that can be metadata.

    Returns:
        The schema, the column of each field, and why others are left out.
    """
    taken = {*found.images, found.label, found.group, *OWN, *found.of_paths, found.split_named}
    left_out: dict[str, str] = {}
    settings, names_of = [], {}
    if fields is not None:
        specs = fields.split(",") if isinstance(fields, str) else list(fields)
        specs = [] if list(specs) == ["none"] else specs
        for column, kind, unit in (field_parts(one.strip()) for one in specs):
            if column not in found.header:
                raise ConfigError(
                    f"{found.file}: no column {column!r}; {did_you_mean(column, found.header)}"
                )
            derived = _derived(found, column)
            settings.append(_field(found, column, kind, unit, derived is not None))
            names_of[settings[-1]["name"]] = column
    else:
        rows = [
            {**cells, "group": group} for cells, group in zip(found.rows, found.groups, strict=True)
        ]
        for column in found.header:
            if column in taken:
                continue
            if why := _no_metadata(found, rows, column):
                why = re.sub("[;,] leave (it|the field) out.*$", "", why)
                left_out[column] = f"{why}; --fields takes it all the same"
            else:
                settings.append(_field(found, column, "", "", False))
                names_of[settings[-1]["name"]] = column
    if twice := [name for name, n in Counter(one["name"] for one in settings).items() if n > 1]:
        raise ConfigError(
            f"{found.file}: several columns make the field {listing(twice)}; rename one"
        )
    if not settings:
        why = "as asked for" if fields is not None else "no column can be metadata"
        found.inferred["metadata"] = (None, f"{why}: the variants none and se, no others")
    return MetadataSchema(settings), names_of, left_out


def _no_metadata(found: _Table, rows: Sequence[Mapping[str, str]], column: str) -> str | None:
    """Why a column is left out, or None."""
    present = _present(found, column)
    if not present:
        return "no value at all"
    kind = _kind(column, present)
    if told := doubts(rows, column, kind, present):
        return told[0]
    if kind == "categorical" and len(set(present)) > MOST_NAMES:
        return f"{len(set(present))} different texts, which nobody has seen often enough"
    if _OUTCOME.search(column):
        return "an outcome by its name, which nobody knows when an image is taken"
    for axis in range(2):
        sides = [shape[axis] for shape in found.shapes]
        if [read_number(cells[column]) for cells in found.rows] == sides:
            return "the size of the image in pixels, which it shows by itself"
    return _derived(found, column)


def _present(found: _Table, column: str) -> list[str]:
    return [cells[column].strip() for cells in found.rows if not says_nothing(cells[column])]


def _kind(column: str, present: Sequence[str]) -> str:
    numbers = [read_number(one) for one in present]
    if any(one is None for one in numbers):
        return "categorical"
    whole = all(one is not None and one.is_integer() for one in numbers)
    few = whole and len(set(present)) <= FEW_NUMBERS and _unit(column) == NO_UNIT
    return "categorical" if few or len(set(numbers)) < 2 else "continuous"


def _field(found: _Table, column: str, kind: str, unit: str, derived: bool) -> dict[str, Any]:
    present = _present(found, column)
    kind = kind or _kind(column, present)
    gaps = len(found.rows) - len(present)
    proposed = KINDS[kind].propose(column, present)
    numbers = kind == "categorical" and all(read_number(one) is not None for one in present)
    if kind == "continuous":
        proposed["range"] = widened(proposed["range"], MARGIN, "linear")
        proposed |= {"unit": unit or _unit(column), "out_of_range": "flag"}
    return {
        "kind": kind,
        "name": re.sub(r"[^\w .\-]+", "_", column).strip(" _.-") or "field",
        "description": f"of {len(found.rows)} rows {gaps} say nothing; "
        + ("its few numbers are taken as names; " if numbers else "")
        + "review provenance and availability",
        "provenance": "label-derived" if derived else "acquisition",
        "availability": "acquisition",
        "missing": "unknown",
        **proposed,
    }


def _unit(column: str) -> str:
    words = [one for one in re.split(r"[\W_]+", column.lower()) if one]
    if told := [UNIT_OF[one] for one in words if one in UNIT_OF]:
        return told[0]
    return words[-1] if len(words) > 1 and words[-1] in UNITS else NO_UNIT


def _derived(found: _Table, column: str) -> str | None:
    """Why a column seems to be computed from the labels, or None.

    Its values are held against what the label of each row says, and against the largest and the
    sum of it in the row's group.
    """
    given = [not says_nothing(cells[column]) for cells in found.rows]
    texts = [cells[column].strip() for cells, told in zip(found.rows, given, strict=True) if told]
    if len(texts) < ENOUGH or len(set(texts)) < 2:
        return None
    numbers = [read_number(one) for one in texts]
    if None not in numbers and len(set(numbers)) > FEW_NUMBERS:
        for what, measured in found.said_by_labels.items():
            known = measured[given]
            if len(set(known.tolist())) > FEW_NUMBERS:
                tested = spearmanr(numbers, known)
                if abs(tested.statistic) >= ASSOCIATED and tested.pvalue < BY_CHANCE:
                    return (
                        f"goes with {what} (rank correlation {tested.statistic:.2f} in "
                        f"{len(known)} rows), as if computed from it: at prediction nobody knows it"
                    )
    empty = found.sizes()[given] == 0
    kinds: dict[str, set[bool]] = defaultdict(set)
    for text, one in zip(texts, empty.tolist(), strict=True):
        kinds[text].add(one)
    both = min(int(empty.sum()), int((~empty).sum())) >= FEW_EMPTY
    if both and 3 * len(kinds) <= len(texts) and all(len(one) == 1 for one in kinds.values()):
        return "tells which labels are empty, as if computed from them"
    return None


# Splits.


def _splits(
    found: _Table,
    schema: MetadataSchema,
    names_of: Mapping[str, str],
    folds: int | None,
    seed: int,
) -> dict[str, tuple[str, str]]:
    """{group: (split, fold as text)}."""
    groups = list(dict.fromkeys(found.groups))
    own = _of_groups(found, found.split_named or "split", found.own_split)
    known = _own_folds(found) if folds is None and found.split_named != DRAWN else {}
    names = [names_of[one.name] for one in schema.fields if one.kind == "categorical"]
    kinds: dict[str, tuple[str, ...]] = {}
    for group, cells in zip(found.groups, found.rows, strict=True):
        kinds.setdefault(group, tuple(cells[one].strip() for one in names))
    alike = f"groups dealt out in the order of {listing(names, 5, str)}" if names else "by chance"
    alike = f"{alike}, seed {seed}"
    fixed: set[str] = set()
    if known:
        found.inferred["fold"] = (f"{len(set(known.values()) - {''})} folds", "as in the table")
        first = min((one for one in known.values() if one), key=int)
        if own:
            found.inferred["split"] = ("as in the table", "`--fold` makes others")
            return {group: (own[group], known[group]) for group in groups}
        rest = [group for group in groups if known[group] not in ("", first)]
        val = dealt({group: kinds[group] for group in rest}, (0.85, 0.15), seed)
        return {
            group: (("train", "val")[val[group]] if group in val else "test", known[group])
            for group in groups
        }
    if folds is not None:
        if found.split_named not in (None, DRAWN):
            fixed = {group for group, one in (own or {}).items() if one == "test"}
        free = {group: kind for group, kind in kinds.items() if group not in fixed}
        if len(free) < 3 or not 2 <= folds <= len(free):
            raise ConfigError(
                f"folds={folds}: expected 2 to {len(free)}, the number of groups, of which there "
                "must be three"
            )
        fold_of = dealt(free, [1 / folds] * folds, seed)
        val = dealt({one: free[one] for one in free if fold_of[one] != 0}, (0.85, 0.15), seed)
        tested = "every case is tested once"
        if own and not fixed:
            tested += "; the table's column split is not used (--split names it)"
        elif fixed:
            tested = f"{len(fixed)} groups of the table's test stay a test set of their own"
        found.inferred["fold"] = (f"{folds} folds", f"{alike}; {tested}")
        return {
            group: (
                "test" if group in fixed or fold_of[group] == 0 else ("train", "val")[val[group]],
                "" if group in fixed else str(fold_of[group]),
            )
            for group in groups
        }
    if own:
        return {
            group: (one, "") for group, one in _with_val(found, own, kinds, alike, seed).items()
        }
    if len(groups) < 3:
        raise DataError(
            f"{found.file}: {len(groups)} group(s) by {found.group}; train, val and test need "
            "three at least: name a finer --group, or add cases"
        )
    dealt_out = dealt(kinds, SHARES, seed)
    counts = Counter(dealt_out.values())
    found.inferred["split"] = (
        ", ".join(f"{SPLITS[n]} {counts[n]}" for n in range(3)) + " groups",
        alike,
    )
    return {group: (SPLITS[number], "") for group, number in dealt_out.items()}


def _of_groups(found: _Table, column: str, of_row: Mapping[int, str] | None) -> dict[str, str]:
    """What a column says of each group; refused where it divides one."""
    told: dict[str, set[str]] = defaultdict(set)
    for row, group in enumerate(found.groups):
        if of_row is not None:
            told[group].add(of_row[row])
    if divided := [group for group, one in told.items() if len(one) > 1]:
        raise ConfigError(
            f"{found.file}: column {column!r} divides {len(divided)} groups of {found.group!r}, as "
            f"{divided[0]!r} ({', '.join(sorted(told[divided[0]]))}): a patient in several would "
            "be tested by what it was trained on; name another --group, mend the column, or have "
            "it drawn: --split new, or --folds 5"
        )
    return {group: next(iter(one)) for group, one in told.items()}


def _own_folds(found: _Table) -> dict[str, str]:
    """The fold of each group as the table has it; empty where it has none."""
    if "fold" not in found.header:
        return {}
    cells = [said(one["fold"]) for one in found.rows]
    right = all(one == "" or (one.isascii() and one.isdecimal()) for one in cells)
    fixed = [n for n, one in enumerate(cells) if not one]
    untested = [n for n in fixed if (found.own_split or {}).get(n, "test") != "test"]
    if not right or len({*cells} - {""}) < 2 or untested:
        raise ConfigError(
            f"{found.file}: column 'fold': {listing(sorted({*cells}), 5)}, expected 0, 1, ..., or "
            "nothing for cases of the split test; mend it, or have folds drawn: --folds 5, or "
            "splits: --split new"
        )
    numbers = {n: str(int(one)) if one else "" for n, one in enumerate(cells)}
    return _of_groups(found, "fold", numbers)


def _with_val(
    found: _Table,
    own: Mapping[str, str],
    kinds: Mapping[str, tuple[str, ...]],
    alike: str,
    seed: int,
) -> dict[str, str]:
    """The table's own splits; without val some groups of train become it."""
    present = set(own.values())
    why = f"the table's column {found.split_named or 'split'!r}, which keeps groups together"
    split_of = dict(own)
    training = {group: kinds[group] for group, one in own.items() if one == "train"}
    if "val" not in present and len(training) > 1:
        val = dealt(training, (0.85, 0.15), seed)
        split_of |= {group: ("train", "val")[number] for group, number in val.items()}
        why += f"; it has no val, which is part of train: {alike}"
        present = set(split_of.values())
    if not {"train", "val"} <= present:
        raise ConfigError(
            f"{found.file}: the column of splits has {', '.join(sorted(present))}, and train and "
            "val are needed; mend it, or have splits drawn: --split new"
        )
    if "test" not in present:
        why += "; there is no test: evaluate --split val"
    counts = Counter(split_of.values())
    told = ", ".join(f"{one} {counts[one]}" for one in SPLITS if counts[one])
    found.inferred["split"] = (f"{told} groups", why)
    return split_of


# The files of the bundle.


def _write(
    part: Path,
    target: Path,
    found: _Table,
    schema: MetadataSchema,
    names_of: Mapping[str, str],
    split_of: Mapping[str, tuple[str, str]],
    planned: Plan,
    names: Mapping[int, str],
    left_out: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    for folder in ("configs", "data", "docs"):
        (part / folder).mkdir()
    root = _write_table(part / "data" / "table.csv", found, split_of)
    columns: dict[str, Any] = {"root": _root(root, target / "data")}
    columns |= {"image": found.image, "label": found.label}
    if found.label_values:
        columns["label_values"] = found.label_values
    if renamed := {name: column for name, column in names_of.items() if name != column}:
        columns["metadata"] = renamed
    columns["class_names"] = {str(number): one for number, one in names.items()}
    write_json(part / "configs" / "columns.json", columns)
    schema.save(part / "configs" / "schema.json")
    write_json(part / "configs" / "plan.json", planned.to_dict())
    facts = {
        "settings": settings,
        "recipe": _augmented(planned),
        "metadata": _told(target.name, found, planned, names),
    }
    (part / "configs" / "facts.json").write_text(format_config(facts) + "\n", encoding="utf-8")
    for file, text in compose(part, shared_folder()).items():
        (part / file).write_text(text, encoding="utf-8")
    page = _page(target, found, schema, planned, left_out)
    (part / "docs" / "README.md").write_text(page, encoding="utf-8")
    (part / "docs" / "data_license.txt").write_text(LICENSE_OF_DATA, encoding="utf-8")


def _write_table(path: Path, found: _Table, split_of: Mapping[str, tuple[str, str]]) -> Path:
    """Write the copy with its splits; the folder that its paths are relative to."""
    places = [
        {
            found.image: [absolute(one) for one in found.image_paths(row)],
            found.label: [absolute(one) for one in found.paths(row, found.label)],
        }
        for row in range(len(found.rows))
    ]
    root = absolute(found.file.parent)
    every = [one for place in places for paths in place.values() for one in paths]
    if not all(one.is_relative_to(root) for one in every):
        root = Path(os.path.commonpath([one.parent for one in every]))
    rows = []
    for cells, place, group in zip(found.rows, places, found.groups, strict=True):
        split, fold = split_of[group]
        row = {name: cell for name, cell in cells.items() if name not in ("split", "fold")}
        for column, paths in place.items():
            row[column] = ";".join(one.relative_to(root).as_posix() for one in paths)
        rows.append({**row, "group": group, "split": split, "fold": fold})
    write_table(rows, path)
    return root


def _root(root: Path, data: Path) -> str:
    """The root of the paths: relative to the table where both lie in one project, else absolute."""
    project = data.absolute().parents[2]
    if root.is_relative_to(project) and project != Path(project.anchor):
        return Path(os.path.relpath(root, data.absolute())).as_posix()
    return root.as_posix()


def _settings(
    planned: Plan, schema: MetadataSchema, planar: bool, channels: Channels
) -> dict[str, Any]:
    """Where the shared configurations are set otherwise."""
    spacing, dims = planned["spacing_mm"], planned["spatial_dims"]
    scale = dict(planned["normalisation"])
    intensity_range = scale.get("intensity_range")
    if intensity_range is not None:
        scale["intensity_range"] = "@intensity_range"
    load: dict[str, Any] = {
        "_target_": "metaseg_monai.transforms.LoadCased",
        "classes": "@classes",
        "in_channels": "@in_channels",
    }
    if channels != "stored":
        load["channels"] = channels
    steps: list[Any] = [load]
    if dims == 3:
        load["spatial_dims"] = 3
        y, x, z = spacing
        steps.append({"_target_": "metaseg_monai.transforms.AxialVolumed", "spacing_mm": [z, y, x]})
    elif spacing is not None:
        steps.append(
            {"_target_": "metaseg_monai.transforms.ResampleToSpacingd", "spacing_mm": spacing[0]}
        )
    inferer = "metaseg_monai.inferers.SlidingWindowMetadataInferer"
    settings: dict[str, Any] = {
        "columns_file": "$@bundle_root + '/configs/columns.json'",
        "table#simulate": None,
        "in_channels": planned["in_channels"],
        "classes": planned["classes"],
        "roi_size": planned["patch"],
        "batch_size": planned["batch_size"],
        "val_batch_size": 1,
        "epochs": planned["epochs"],
        "val_interval": f"$-(-@epochs // {VALIDATIONS})",
        "foreground_share": planned["foreground_share"],
        "intensity_range": intensity_range,
        **steering(planned.network, planned["network"], schema),
        "preprocessing": [*steps, scale, "@encode"],
        "window_inferer": {"_target_": inferer, "roi_size": "@roi_size"},
        "modes": ["normal", "missing", "shuffle"] if schema.fields else ["normal"],
    }
    if planar:
        settings["cases"] = {"_target_": "metaseg_monai.tables.slices", "table": "@table"}
    if not planned["cached"]:
        settings["train#dataset#cache"] = False
        settings["validate#dataset#cache_rate"] = 0.0
    return settings


def _augmented(planned: Plan) -> dict[str, Any]:
    """What the planned images ask of `strong_augmentation`."""
    scaled = "intensity_range" in planned["normalisation"]
    spacing = planned["spacing_mm"] if planned["spatial_dims"] == 3 else None
    return {"spacing": spacing, "deviation": 0.25 if scaled else 1.0}


def _told(name: str, found: _Table, planned: Plan, names: Mapping[int, str]) -> dict[str, str]:
    """What metadata.json tells."""
    label = ", ".join(f"{number} {one}" for number, one in names.items())
    scaled = planned.facts["normalisation"].reason
    kinds = sorted({image_suffix(str(found.image_paths(0)[0])).lstrip(".") or "dicom"})
    plain = {number: one.replace(",", " ") for number, one in names.items()}
    return {
        "name": name.replace("_", " ").capitalize(),
        "task": f"Segment {', '.join(one for number, one in names.items() if number)}",
        "description": "Segmentation steered by metadata, planned from its training files "
        "(configs/plan.json).",
        "data_source": "to be told by whoever gives the data; the table is data/table.csv",
        "data_type": ", ".join(kinds),
        "image_classes": f"{planned['in_channels']} channel(s), {planned['modality']}; {scaled}",
        "label_classes": label,
        "pred_classes": ", ".join(f"channel {number} {one}" for number, one in plain.items()),
    }


LICENSE_OF_DATA = """To be filled in: under which licence, or by whose permission, the images,
labels and clinical data of this bundle may be used, and by whom. Weights trained on
them inherit the question.
"""


def _commands(bundle: Path, found: _Table, schema: MetadataSchema) -> list[str]:
    """Train, compare and predict."""
    runs, start = f"runs/{bundle.name}", "python -m metaseg_monai"
    variants = "none,sme,sme-dummy" if schema.fields else "none,se"
    return [
        f"{start} train {bundle} --output_dir {runs}"
        + (" --fold 0" if "fold" in found.inferred else ""),
        f"{start} evaluate {runs}",
        f"{start} predict {runs} --source IMAGES --output masks",
        f"{start} study {bundle} --variants {variants} --seeds 3 --output {runs}-study",
    ]


def _page(
    bundle: Path,
    found: _Table,
    schema: MetadataSchema,
    planned: Plan,
    left_out: Mapping[str, str],
) -> str:
    lines = [
        f"# {bundle.name.replace('_', ' ').capitalize()}",
        "",
        "## Intended use",
        "",
        "To be filled in: for which patients or samples, scanners or microscopes, and by whom it",
        "is meant, and for what it is not. Research only; not a medical device.",
        "",
        "## Data",
        "",
        f"{len(found.rows)} rows of `{found.file.name}`, copied with their splits to",
        "`data/table.csv`; the images stay where they are. Their licence: `data_license.txt`.",
        "",
        "| inferred | value | why |",
        "| --- | --- | --- |",
        *(f"| {what} | {value} | {why} |" for what, (value, why) in found.inferred.items()),
        "",
        "## Metadata",
        "",
        "| field | kind | expected |",
        "| --- | --- | --- |",
        *(f"| {one.name} | {one.kind} | {one.expected()} |" for one in schema.fields),
        "",
        "All may be unknown. Review provenance and availability in `configs/schema.json`."
        if schema.fields
        else "None: the variants `none` and `se` can be trained.",
        "",
    ]
    if left_out:
        lines += ["Left out:", "", *(f"- `{one}`: {why}" for one, why in left_out.items()), ""]
    lines += [
        "## Plan",
        "",
        "| fact | value | why |",
        "| --- | --- | --- |",
        *(
            f"| {what} | {fact.value if what != 'normalisation' else fact.value['_target_']} | "
            f"{fact.reason} |"
            for what, fact in planned.facts.items()
        ),
        "",
        "## Commands",
        "",
        "```",
        *_commands(bundle, found, schema),
        "```",
        "",
    ]
    return "\n".join(lines)
