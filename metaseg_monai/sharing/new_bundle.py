"""A bundle for a table of one's own: what was inferred, each with its reason, and what follows."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from metaseg_monai.bundle.compose import compose, format_config, shared_folder
from metaseg_monai.errors import ConfigError, DataError, did_you_mean, listing, typed
from metaseg_monai.files import absolute, new_folder, writable, write_json
from metaseg_monai.images.image import FORMAT_OF_SUFFIX, image_suffix, value_counts, whole_numbers
from metaseg_monai.images.read import is_volume_file, read_label
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import KINDS, read_number, says_nothing
from metaseg_monai.metadata.fit import doubts, field_parts, widened
from metaseg_monai.naming import Folder, composed
from metaseg_monai.prepare.splits import dealt
from metaseg_monai.rows import read_lines, write_table
from metaseg_monai.sharing.plan import Modality, Network, Plan, fingerprint, plan
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.table import (
    CaseTable,
    case_name,
    known_class_names,
    parse_class_names,
    save_class_names,
)

OF_IMAGES = ("image", "img", "ct", "mr", "mri", "scan", "volume", "slide", "file", "path")
OF_LABELS = ("label", "mask", "seg", "segmentation", "annotation", "gt", "truth", "roi")
OF_GROUPS = ("group", "patient", "subject", "person", "donor", "animal", "well", "plate", "case")
OWN = ("split", "fold", "group")  # columns that the copy of a table gets
UNITS = ("mm", "cm", "um", "years", "months", "days", "kg", "g", "ms", "s", "hz", "kvp", "ma", "t")
FEW_NUMBERS = 6  # whole numbers of so few values are taken as names
MOST_NAMES = 30  # of a category
ASSOCIATED = 0.8  # rank correlation with the label's size from which a column is left out
ENOUGH = 10  # rows that an association is judged by
FEW_EMPTY = 3  # empty labels, and others, that it takes to say that a column tells them apart
MOST_CLASSES = 32
SHARES = (0.7, 0.15, 0.15)
MARGIN = 0.2  # of a range at either end, for cases beyond those of the table
NO_UNIT = "unit to be named"


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
    folds: int | None = None,
    seed: int = 0,
    class_names: str | None = None,
    modality: Modality | None = None,
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
        table: your CSV file: a row an image, with paths of image and label relative to it.
        bundles: folder to make it in.
        image: column of image paths.
        label: column of label paths.
        group: column of what stays in one split, such as the patient.
        fields: metadata to take, as column[:kind[:unit]], separated by commas; by default all
            columns that can be metadata.
        dims: 2 or 3, of the network; by default that of the files.
        network: dynunet, segresnet, unet3 or ppunet.
        folds: so many folds instead of fixed splits; every case is then tested once.
        seed: of the splits.
        class_names: as "1=kidney,2=tumour".
        modality: CT, RGB or other; by default as values and headers say.
        memory_gb: that one training step may take.
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
    found = _Table(Path(table), image, label, group)
    volumes = is_volume_file(found.paths(0, found.image)[0])
    if dims not in (None, 2, 3) or (dims == 3 and not volumes):
        raise ConfigError(f"dims={dims}: expected 2, or 3 where the images are volumes")
    if dims == 2 and volumes:
        # The place of `metaseg_monai.tables.slices`: items of planes read from the volume.
        raise ConfigError(
            "dims=2: the images are volumes, and planes of them are not planned yet; leave dims out"
        )
    found.scan_labels()
    schema, left_out = _schema(found, fields)
    split_of = _splits(found, schema, folds, seed)
    items = found.items(split_of)
    planned = plan(
        fingerprint(CaseTable(found.file, items), 3 if volumes else 2, modality), network, memory_gb
    )
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
    made = NewBundle(None, told, left_out, schema, planned, ("nothing was written (dry run)",))
    if dry_run:
        return made
    with writable(target), new_folder(target) as part:
        _write(part, target, found, schema, split_of, planned, names, left_out)
    steps = (
        f"bundle: {target}",
        f"next: python -m metaseg_monai train {target} --output_dir runs/{name}",
        f"review: {target / 'configs' / 'schema.json'}, and fill in {target / 'docs' / 'README.md'}"
        f" and {target / 'docs' / 'data_license.txt'}",
    )
    return NewBundle(target, told, left_out, schema, planned, steps)


class _Table:
    """A user's table: which column holds what, and what its labels hold."""

    def __init__(self, file: Path, image: str | None, label: str | None, group: str | None) -> None:
        self.file = file
        self.header, lines, broken = read_lines(file)
        if broken:
            raise DataError(f"{file}: {'; '.join(broken)}; mend these rows")
        self.rows = [cells for _, cells in lines]
        self.numbers = [number for number, _ in lines]
        self.files = Folder(file.parent)
        self.inferred: dict[str, tuple[Any, str]] = {}
        for given in filter(None, (image, label, group)):
            if given not in self.header:
                raise ConfigError(
                    f"{file}: no column {given!r}; {did_you_mean(given, self.header)}"
                )
        self.of_paths = [name for name in self.header if self._holds_files(name)]
        self.image, self.label = self._image_and_label(image, label)
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
        self.counts: list[dict[int, int]] = []
        self.label_values: list[int] | str = []
        self.why_classes = ""

    def paths(self, row: int, column: str) -> list[Path]:
        """The files that a cell names, as they lie on the disk."""
        cell = self.rows[row][column].strip()
        whole = self._path(cell)
        parts = [whole] if whole is not None else [self._path(p) for p in cell.split(";")]
        if not cell or None in parts:
            raise DataError(
                f"{self.file}: row {self.numbers[row]}, column {column!r}: no such file {cell!r}; "
                "mend the path, which is relative to the table, or remove the row"
            )
        return [one for one in parts if one is not None]

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

    def _image_and_label(self, image: str | None, label: str | None) -> tuple[str, str]:
        labels = [one for one in self.of_paths if _is_of(one, OF_LABELS) and one != image]
        images = [one for one in self.of_paths if one not in labels and one != label]
        why_image = why_label = "as given"
        if label is None:
            if len(labels) != 1:
                known = listing(self.of_paths) or "none"
                raise ConfigError(
                    f"{self.file}: which column holds the labels is not plain; columns of image "
                    f"files: {known}; name it with --label"
                )
            label, why_label = labels[0], "files, and a name as labels have"
        if image is None:
            likely = [one for one in images if _is_of(one, OF_IMAGES)] or images
            if len(likely) != 1:
                known = listing(likely) or "none"
                raise ConfigError(
                    f"{self.file}: which column holds the images is not plain: {known}; name it "
                    "with --image"
                )
            image, why_image = likely[0], "files, and not those of the labels"
        self.inferred |= {"image": (image, why_image), "label": (label, why_label)}
        return image, label

    def _group(self, group: str | None) -> str | None:
        if group is not None:
            self.inferred["group"] = (group, "as given")
            return group
        others = [one for one in self.header if one not in self.of_paths]
        likely = [one for words in OF_GROUPS for one in others if _is_of(one, (words,))]
        for one in dict.fromkeys(likely):
            values = [cells[one].strip() for cells in self.rows]
            times = Counter(values)
            if all(values) and len(times) > 1:
                most = max(times.values())
                why = f"its name, and {len(times)} values in {len(values)} rows, up to {most} each"
                self.inferred["group"] = (one, why)
                return one
        self.inferred["group"] = (None, "no column of patients or the like: each row by itself")
        return None

    def scan_labels(self) -> None:
        """Count the values of every label, and decide what they mean."""
        for row in tqdm(range(len(self.rows)), desc="labels", unit="file", disable=None):
            path = self.paths(row, self.label)[0]
            stored = read_label(path)
            self.counts.append(value_counts(whole_numbers(stored.array, str(path))))
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

    def items(self, split_of: Mapping[str, tuple[str, str]]) -> tuple[dict[str, Any], ...]:
        """The rows as a fingerprint reads them."""
        items = []
        for row, group in enumerate(self.groups):
            paths = self.paths(row, self.image)
            item: dict[str, Any] = {
                "image": str(paths[0]) if len(paths) == 1 else [str(one) for one in paths],
                "label": str(self.paths(row, self.label)[0]),
                "case": case_name(self.rows[row][self.image].split(";")[0]),
                "split": split_of[group][0],
            }
            if self.label_values:
                item["label_values"] = self.label_values
            items.append(item)
        return tuple(items)


def _is_of(column: str, words: Sequence[str]) -> bool:
    parts = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", column)
    return any(part.lower() in words or part.lower().rstrip("s") in words for part in parts)


# Metadata: which columns, of which kind.


def _schema(
    found: _Table, fields: str | Sequence[str] | None
) -> tuple[MetadataSchema, dict[str, str]]:
    """The schema of the given fields, or of all columns that can be metadata; what is left out."""
    taken = {found.image, found.label, found.group, *OWN, *found.of_paths}
    left_out: dict[str, str] = {}
    settings = []
    if fields is not None:
        specs = fields.split(",") if isinstance(fields, str) else list(fields)
        for column, kind, unit in (field_parts(one.strip()) for one in specs):
            if column not in found.header:
                raise ConfigError(
                    f"{found.file}: no column {column!r}; {did_you_mean(column, found.header)}"
                )
            derived = _derived(found, column)
            settings.append(_field(found, column, kind, unit, derived is not None))
    else:
        rows = [
            {**cells, "group": group} for cells, group in zip(found.rows, found.groups, strict=True)
        ]
        for column in found.header:
            if column in taken:
                continue
            present = _present(found, column)
            kind = _kind(present) if present else "categorical"
            why = None
            if not present:
                why = "no value at all"
            elif told := doubts(rows, column, kind, present):
                why = told[0]
            elif kind == "categorical" and len(set(present)) > MOST_NAMES:
                why = f"{len(set(present))} different texts, which nobody has seen often enough"
            else:
                why = _derived(found, column)
            if why is not None:
                why = re.sub("[;,] leave (it|the field) out.*$", "", why)
                left_out[column] = f"{why}; --fields takes it all the same"
            else:
                settings.append(_field(found, column, kind, "", False))
    if not settings:
        raise ConfigError(
            f"{found.file}: no column can be metadata ("
            + "; ".join(f"{name}: {why}" for name, why in left_out.items())
            + "); name some with --fields"
        )
    return MetadataSchema(settings), left_out


def _present(found: _Table, column: str) -> list[str]:
    return [cells[column].strip() for cells in found.rows if not says_nothing(cells[column])]


def _kind(present: Sequence[str]) -> str:
    numbers = [read_number(one) for one in present]
    if any(one is None for one in numbers):
        return "categorical"
    whole = all(one is not None and one.is_integer() for one in numbers)
    return "categorical" if whole and len(set(present)) <= FEW_NUMBERS else "continuous"


def _field(found: _Table, column: str, kind: str, unit: str, derived: bool) -> dict[str, Any]:
    present = _present(found, column)
    kind = kind or _kind(present)
    gaps = len(found.rows) - len(present)
    proposed = KINDS[kind].propose(column, present)
    if kind == "continuous":
        proposed["range"] = widened(proposed["range"], MARGIN, "linear")
        proposed |= {"unit": unit or _unit(column), "out_of_range": "flag"}
    return {
        "kind": kind,
        "name": column,
        "description": f"of {len(found.rows)} rows {gaps} say nothing; review provenance and "
        "availability",
        "provenance": "label-derived" if derived else "acquisition",
        "availability": "acquisition",
        "missing": "unknown",
        **proposed,
    }


def _unit(column: str) -> str:
    last = re.split(r"[\W_]+", column.lower())[-1]
    return (
        "years"
        if "age" in re.split(r"[\W_]+", column.lower())
        else (last if last in UNITS else NO_UNIT)
    )


def _derived(found: _Table, column: str) -> str | None:
    """Why a column seems to be computed from the labels, or None.

    Its values are held against the label's size in each row, and the largest and all of it in the
    row's group.
    """
    given = [not says_nothing(cells[column]) for cells in found.rows]
    texts = [cells[column].strip() for cells, told in zip(found.rows, given, strict=True) if told]
    sizes = found.sizes()
    of_group: dict[str, list[int]] = defaultdict(list)
    for group, size in zip(found.groups, sizes, strict=True):
        of_group[group].append(int(size))
    beside = {
        "the label's size": sizes,
        "the largest label of its group": np.array([max(of_group[one]) for one in found.groups]),
        "all labels of its group": np.array([sum(of_group[one]) for one in found.groups]),
    }
    if len(texts) < ENOUGH or len(set(texts)) < 2:
        return None
    numbers = [read_number(one) for one in texts]
    if None not in numbers and len(set(numbers)) > FEW_NUMBERS:
        for what, measured in beside.items():
            known = measured[given]
            if len(set(known.tolist())) > FEW_NUMBERS:
                rank = float(spearmanr(numbers, known).statistic)
                if abs(rank) >= ASSOCIATED:
                    return (
                        f"goes with {what} (rank correlation {rank:.2f} in {len(known)} rows), as "
                        "if computed from it: at prediction nobody knows it"
                    )
    empty = sizes[given] == 0
    kinds: dict[str, set[bool]] = defaultdict(set)
    for text, one in zip(texts, empty.tolist(), strict=True):
        kinds[text].add(one)
    both = min(int(empty.sum()), int((~empty).sum())) >= FEW_EMPTY
    if both and 3 * len(kinds) <= len(texts) and all(len(one) == 1 for one in kinds.values()):
        return "tells which labels are empty, as if computed from them"
    return None


# Splits.


def _splits(
    found: _Table, schema: MetadataSchema, folds: int | None, seed: int
) -> dict[str, tuple[str, str]]:
    """{group: (split, fold as text)}."""
    groups = list(dict.fromkeys(found.groups))
    if folds is not None and not 2 <= folds <= len(groups):
        raise ConfigError(f"folds={folds}: expected 2 to {len(groups)}, the number of groups")
    own: dict[str, set[str]] = defaultdict(set)
    if "split" in found.header:
        for group, cells in zip(found.groups, found.rows, strict=True):
            own[group].add(cells["split"].strip())
    kept = own and all(len(one) == 1 and one <= {*SPLITS} for one in own.values())
    if (
        kept
        and folds is None
        and {"train", "val"} <= {split for one in own.values() for split in one}
    ):
        found.inferred["split"] = ("as in the table", "a column split that keeps groups together")
        return {group: (next(iter(one)), "") for group, one in own.items()}
    if len(groups) < 3:
        raise DataError(
            f"{found.file}: {len(groups)} group(s) by {found.group}; train, val and test need "
            "three at least: name a finer --group, or add cases"
        )
    strata = {group: [] for group in groups}  # type: dict[str, list[str]]
    names = [one.name for one in schema.fields if one.kind == "categorical"]
    for group, cells in zip(found.groups, found.rows, strict=True):
        strata[group] = strata[group] or [cells[one].strip() for one in names]
    kinds = {group: tuple(values) for group, values in strata.items()}
    alike = f"groups dealt out in the order of {listing(names, 5, str)}" if names else "by chance"
    if folds is None:
        dealt_out = dealt(kinds, SHARES, seed)
        counts = Counter(dealt_out.values())
        found.inferred["split"] = (
            ", ".join(f"{SPLITS[n]} {counts[n]}" for n in range(3)) + " groups",
            f"{alike}, seed {seed}",
        )
        return {group: (SPLITS[number], "") for group, number in dealt_out.items()}
    fold_of = dealt(kinds, [1 / folds] * folds, seed)
    rest = {group: kind for group, kind in kinds.items() if fold_of[group] != 0}
    val = dealt(rest, (0.85, 0.15), seed)
    found.inferred["fold"] = (f"{folds} folds", f"{alike}, seed {seed}; every case is tested once")
    return {
        group: ("test" if fold == 0 else ("train", "val")[val[group]], str(fold))
        for group, fold in fold_of.items()
    }


# The files of the bundle.


def _write(
    part: Path,
    target: Path,
    found: _Table,
    schema: MetadataSchema,
    split_of: Mapping[str, tuple[str, str]],
    planned: Plan,
    names: Mapping[int, str],
    left_out: Mapping[str, str],
) -> None:
    for folder in ("configs", "data", "docs"):
        (part / folder).mkdir()
    root = _write_table(part / "data" / "table.csv", found, split_of)
    columns: dict[str, Any] = {"root": _root(root, target / "data")}
    columns |= {"image": found.image, "label": found.label}
    if found.label_values:
        columns["label_values"] = found.label_values
    write_json(part / "configs" / "columns.json", columns)
    save_class_names(names, part / "data" / "classes.json")
    schema.save(part / "configs" / "schema.json")
    write_json(part / "configs" / "plan.json", planned.to_dict())
    facts = {"settings": _settings(planned), "metadata": _told(target.name, found, planned, names)}
    (part / "configs" / "facts.json").write_text(format_config(facts) + "\n", encoding="utf-8")
    for file, text in compose(part, shared_folder()).items():
        (part / file).write_text(text, encoding="utf-8")
    page = _page(target.name, found, schema, planned, left_out)
    (part / "docs" / "README.md").write_text(page, encoding="utf-8")
    (part / "docs" / "data_license.txt").write_text(LICENSE_OF_DATA, encoding="utf-8")


def _write_table(path: Path, found: _Table, split_of: Mapping[str, tuple[str, str]]) -> Path:
    """Write the copy with its splits; the folder that its paths are relative to."""
    columns = (found.image, found.label)
    places = [
        {column: [absolute(p) for p in found.paths(row, column)] for column in columns}
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


def _settings(planned: Plan) -> dict[str, Any]:
    """Where the shared configurations are set otherwise."""
    normalisation, spacing = planned["normalisation"], planned["spacing_mm"]
    dims = planned["spatial_dims"]
    scale = dict(normalisation)
    intensity_range = scale.get("intensity_range")
    if intensity_range is not None:
        scale["intensity_range"] = "@intensity_range"
    load = {
        "_target_": "metaseg_monai.transforms.LoadCased",
        "classes": "@classes",
        "in_channels": "@in_channels",
        "spatial_dims": dims,
    }
    steps: list[Any] = [load]
    if dims == 3:
        y, x, z = spacing
        steps.append({"_target_": "metaseg_monai.transforms.AxialVolumed", "spacing_mm": [z, y, x]})
    elif spacing is not None:
        steps.append(
            {"_target_": "metaseg_monai.transforms.ResampleToSpacingd", "spacing_mm": spacing[0]}
        )
    inferer = "metaseg_monai.inferers.SlidingWindowMetadataInferer"
    return {
        "columns_file": "$@bundle_root + '/configs/columns.json'",
        "table#simulate": None,
        "in_channels": planned["in_channels"],
        "classes": planned["classes"],
        "roi_size": planned["patch"],
        "batch_size": planned["batch_size"],
        "val_batch_size": 1,
        "intensity_range": intensity_range,
        "network_def": _network(planned),
        "preprocessing": [*steps, scale, "@encode"],
        "window_inferer": {"_target_": inferer, "roi_size": "@roi_size"},
    }


def _network(planned: Plan) -> dict[str, Any]:
    """The planned network, conditioned by the schema."""
    bare = {**planned.network, "in_channels": "@in_channels", "out_channels": "@classes"}
    steered = {
        "schema": "@schema",
        "variant": "@variant",
        "unknown_trained": "$@metadata_dropout > 0",
    }
    if planned["network"] in ("unet3", "ppunet"):
        return {**bare, **steered, "start": "neutral"}
    return {"_target_": "metaseg_monai.networks.condition", "network": bare, **steered}


def _told(name: str, found: _Table, planned: Plan, names: Mapping[int, str]) -> dict[str, str]:
    """What metadata.json tells."""
    label = ", ".join(f"{number} {one}" for number, one in names.items())
    scaled = planned.facts["normalisation"].reason
    kinds = sorted({image_suffix(str(found.paths(0, found.image)[0])).lstrip(".") or "dicom"})
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


def _page(
    name: str,
    found: _Table,
    schema: MetadataSchema,
    planned: Plan,
    left_out: Mapping[str, str],
) -> str:
    lines = [
        f"# {name.replace('_', ' ').capitalize()}",
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
        "All may be unknown. Review provenance and availability in `configs/schema.json`.",
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
        f"python -m metaseg_monai train {name} --output_dir runs/{name}",
        f"python -m metaseg_monai evaluate runs/{name}",
        f"python -m metaseg_monai predict runs/{name} --source IMAGES --output masks",
        "```",
        "",
    ]
    return "\n".join(lines)
