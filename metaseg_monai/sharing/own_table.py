"""Which columns of a user's own table hold what, and what its labels hold, each with a reason."""

import hashlib
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from scipy import ndimage

from metaseg_monai.errors import ConfigError, DataError, did_you_mean, listing
from metaseg_monai.images.dicom import is_dicom_folder
from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.images.identity import file_digests
from metaseg_monai.images.image import (
    FORMAT_OF_SUFFIX,
    Channels,
    Image,
    Meaning,
    image_suffix,
    value_counts,
    whole_numbers,
)
from metaseg_monai.images.ome_zarr import is_zarr
from metaseg_monai.images.read import read_label
from metaseg_monai.metadata.fields import read_number, said, says_nothing
from metaseg_monai.metadata.fit import IDENTIFIER
from metaseg_monai.naming import Folder, composed, likened
from metaseg_monai.rows import has_decimal_commas, read_lines, separator_of
from metaseg_monai.sharing.plan import Fingerprint, MixedChannelsError, bar, read_case
from metaseg_monai.tables.check import classes_of_values
from metaseg_monai.tables.columns import ROOT, LabelValues
from metaseg_monai.tables.select import planes_text
from metaseg_monai.tables.table import PLACE_COLUMNS, SPACING_COLUMNS

Labels = Literal["classes", "instances"]

OF_IMAGES = ("image", "img", "ct", "mr", "mri", "scan", "volume", "slide", "file", "path")
OF_LABELS = ("label", "mask", "seg", "segmentation", "annotation", "gt", "truth", "roi")
OF_PERSONS = (
    *("patient", "pat", "pid", "mrn", "subject", "subj", "participant", "person", "donor"),
    *("mouse", "animal"),  # or a strain, a species: few of many rows are asked about
)
OF_GROUPS = (*OF_PERSONS, "plate", "well")
PERHAPS_GROUPS = (  # or a kind, a file, an arm
    *("case", "study", "series", "volume", "group", "slide", "section", "specimen", "block"),
)
OF_KINDS = (  # whose numbers are no individuals
    *("scanner", "device", "machine", "microscope", "camera", "site", "center", "centre"),
    *("hospital", "protocol", "sequence", "reader", "rater", "annotator", "class", "type"),
)
NOTHING = {  # what stands for no value in tables of others, beside what every command takes so
    *("?", "??", "#n/a", "#na", "#nv", "#value!", "#wert!", "#ref!", "#bezug!", "#div/0!"),
    *("unknown", "unk", "missing", "not available", "not known", "not recorded", "no data"),
    *("n.a.", "n. a.", "k.a.", "k. a.", "n.d.", "n/d", "unbekannt", "inconnu", "tbd"),
}
FEW_KINDS = 5  # values of a column of animals, at most, that may be strains or species
OF_SPLITS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "ts"),
}
NONE, DRAWN = "none", "new"  # instead of a column of groups, of splits
MOST_CLASSES = 32
IN_MM = "in mm"
MOST_TOLD = 20
ROW_IS = "row numbers are those of the file, its header is row 1"
_SPLITS = re.compile(
    r"((data|cv|k|train_?test|train_?val_?test)_?)?(split|fold|subset|partition)s?"
    r"(_?(id|no|nr|number|index|name))?|set|cv|kfold"
)
_ID = r"s?(_?(id|uid|no|nr|number|name|code|key))?"


class OwnTable:
    """A user's table: which column holds what, and what its labels hold.

    Attributes:
        inferred: what was inferred, by name: value and reason.
        images: columns of image paths, a channel each; `label` is that of label paths.
        groups: of every row; `group_columns` are those that make it.
        own_split: of every row, if the table says it; `fold_column` is that of its folds, if any.
        of_splits: all columns that tell splits or folds, used or not.
    """

    def __init__(
        self,
        file: Path,
        image: str | None = None,
        label: str | None = None,
        group: str | None = None,
        split: str | None = None,
    ) -> None:
        self.file = file
        self.header, lines, broken = read_lines(file)
        if broken:
            raise DataError(f"{file}: {'; '.join(broken)}; mend these rows ({ROW_IS})")
        self.rows = [cells for _, cells in lines]
        self.numbers = [number for number, _ in lines]
        self.decimal_commas = has_decimal_commas(file)
        self.files = Folder(file.parent)
        self.inferred: dict[str, tuple[Any, str]] = {}
        self.inferred["rows"] = len(self.rows), f"those with text; {ROW_IS}"
        if told := {";": "semicolons", "\t": "tabs"}.get(separator_of(file)):
            self.inferred["cells"] = (
                f"separated by {told}",
                "of the header; 1,5 is read as 1.5; commas and points in the copy",
            )
        asked = {"image": image, "label": label, "group": group, "split": split}
        for flag, text in asked.items():
            refuse_empty(flag, text)
        images, groups = _listed(image), _listed(group if group != NONE else None)
        for given in filter(None, (*images, label, *groups, None if split == DRAWN else split)):
            if given not in self.header:
                raise ConfigError(
                    f"{file}: no column {given!r}; {did_you_mean(given, self.header)}"
                )
        self.not_there: dict[str, str] = {}  # a path of each column whose files are not there
        self.of_paths = [name for name in self.header if self._holds_files(name)]
        self.images, self.label = self._images_and_label(images, label)
        self.others = [
            one for one in self.header if one not in {*self.of_paths, *self.images, self.label}
        ]
        self.of_splits = [one for one in self.others if self._tells_splits(one)]
        self.split_column, self.fold_column = self._splits_named(split)
        self.split_named = split
        self.own_split = self._own_split()
        self.group_columns = [] if group == NONE else groups or self._group()
        if group is not None:
            self.inferred["group"] = (self.group, "as given")
        self.tags: dict[str, str] = {}  # the DICOM element that tells a column's empty cells
        self.joined: list[str] = []  # why groups of several names are one, in words
        self.groups = self._groups()
        self._join_likely()
        self.counts: list[dict[int, int]] = []  # of each row: {value of the label: pixels}
        self.shapes: list[tuple[int, ...]] = []
        self.spacings: list[tuple[float, ...] | None] = []  # of each label, as its axes
        self.objects: list[tuple[int, int, float]] = []  # see `_objects`
        self.places: list[tuple[float, ...] | None] = []  # the foreground's middle; None if empty
        self.planes: list[str] = []  # of volumes, the axial planes with foreground, as `slices` has
        self.label_values: LabelValues = []
        self.numbered = False  # whether each label counts its objects from 1
        self.by_class = True  # whether `counts` are by class, else by the label's own values
        self.classes = 2  # by all labels, background included
        self.why_classes = ""

    @property
    def group(self) -> str | None:
        """The columns of groups, in words."""
        return " + ".join(self.group_columns) or None

    @property
    def of_place(self) -> list[str]:
        """The columns that tell the place of a plane, or the size of pixels, as tables have them.

        `volume` and `plane` mean that only together with `planes`.
        """
        whole = {*PLACE_COLUMNS[:3]} <= {*self.header}
        return [n for n in (PLACE_COLUMNS if whole else SPACING_COLUMNS) if n in self.header]

    def paths(self, row: int, column: str) -> list[Path]:
        """The files that a cell names, as they lie on the disk; none where one is missing."""
        cell = said(self.rows[row][column])
        if cell == "":
            return []
        whole = self._path(cell)
        parts = [whole] if whole is not None else [self._path(p) for p in cell.split(";")]
        return [] if None in parts else [one for one in parts if one is not None]

    def image_paths(self, row: int) -> list[Path]:
        """The files of a row's image, a channel each where there are several."""
        return [path for column in self.images for path in self.paths(row, column)]

    def check_files(self) -> None:
        """Refuse a table of which a file is missing; all are told at once."""
        self._refuse(
            [
                f"row {number}, column {column!r}: no such file {self.rows[row][column].strip()!r}"
                for row, number in enumerate(self.numbers)
                for column in (*self.images, self.label)
                if not self.paths(row, column)
            ],
            "files",
            "mend the paths, which are relative to the table, or remove the rows",
        )

    def check_images(
        self, rows: Iterable[Mapping[str, Any]], like: Fingerprint, channels: Channels
    ) -> None:
        """Refuse images and labels of val and test that are not as those of train, all at once.

        Args:
            rows: of the table as it is read, with the split and case of each.
            like: what the images of train have in common.
            channels: that images are converted to.
        """
        problems, images, cases = [], Counter[int](), dict[int, str]()
        others = [row for row in rows if row.get("split") != "train"]
        for item in bar(others, desc="val, test", unit="case"):
            try:
                loaded, _ = read_case(item, channels, like.classes, like.spatial_dims)
            except DataError as error:
                problems.append(str(error))
                continue
            images[len(loaded.image)] += 1
            cases.setdefault(len(loaded.image), item["case"])
        self._refuse(problems, "cases of val and test", "mend the files, or remove the rows")
        if {*images} - {like.channels}:
            images[like.channels] += len(like.shapes)
            cases.setdefault(like.channels, "those of train")
            raise MixedChannelsError(self.file, images, cases)

    def _refuse(self, problems: Sequence[str], what: str, step: str) -> None:
        if problems:
            more = len(problems) - MOST_TOLD
            shown = [f"  {one}" for one in problems[:MOST_TOLD]]
            shown += [f"  and {more} more"] if more > 0 else []
            first = f"{self.file}: {len(problems)} {what} ({ROW_IS})"
            raise DataError("\n".join([first, *shown, step]))

    def _path(self, text: str) -> Path | None:
        path = self.file.parent / text.strip()
        if text.strip() and path.exists():
            return path
        drive = re.match(r"[A-Za-z]:[\\/]", text.strip())  # of Windows
        if Path(text.strip()).is_absolute() or ".." in text or drive:
            return None
        near = self.files.find(text.strip()) if text.strip() else None
        return None if near is None else self.file.parent / near

    def _holds_files(self, column: str) -> bool:
        cells = [one[column].strip() for one in self.rows if not says_nothing(one[column])][:20]
        first = [cell if self._path(cell) else cell.split(";")[0] for cell in cells]
        of_images = [one for one in first if self._names_image(one)]
        if len(of_images) <= 0.5 * len(cells):
            return False
        there = any(self._path(one) for one in of_images)
        if of_images and not there:
            self.not_there[column] = of_images[0]
        return there

    def _names_image(self, text: str) -> bool:
        """Whether a cell names an image file, or a folder that is an image."""
        if image_suffix(text) in FORMAT_OF_SUFFIX:
            return True
        folder = self._path(text)
        return folder is not None and (is_dicom_folder(folder) or is_zarr(folder))

    def _refuse_not_there(self) -> None:
        """Refuse a table whose paths are looked for in a wrong place, where nothing else is."""
        if not self.not_there:
            return
        path = next(iter(self.not_there.values()))
        folder, step = self.file.parent.absolute(), "write them relative to it, or absolute"
        if re.match(r"[A-Za-z]:[\\/]", path):
            step = "they name a drive of Windows; write the paths of this machine"
        elif path.startswith("~"):
            step = "~ is not read; write the whole path"
        elif "://" in path:
            step = "they are addresses; write the paths alone, from / on"
        elif self.file.is_symlink():
            step = f"the table is a link; name the file itself, --table {self.file.resolve()}"
        elif (self.file.parent / ROOT).is_file():
            step = "this is the copy that a bundle keeps; name the table that it was made of"
        elif Path(path).exists():
            step = "they are relative to the working directory; " + step
        raise DataError(
            f"{self.file}: {listing(self.not_there)} name files, and none is there, such as "
            f"{path!r}, looked for from {folder} on; {step}"
        )

    def _images_and_label(self, images: list[str], label: str | None) -> tuple[list[str], str]:
        labels = [one for one in self.of_paths if _is_of(one, OF_LABELS) and one not in images]
        others = [one for one in self.of_paths if one not in labels and one != label]
        why_image = why_label = "as given"
        if label is None:
            if len(labels) != 1:
                if not labels:
                    self._refuse_not_there()
                known = listing(self.of_paths) or "none"
                raise ConfigError(
                    f"{self.file}: which column holds the labels is not plain; columns of image "
                    f"files: {known}; name it with --label"
                )
            label, why_label = labels[0], "files, and a name as labels have"
        if not images:
            likely = [one for one in others if _is_of(one, OF_IMAGES)] or others
            if len(others) > 1 or len(likely) != 1:
                if not others:
                    self._refuse_not_there()
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

    # Splits and groups.

    def _tells_splits(self, column: str) -> bool:
        """Whether a column is named as splits are, or its cells are names of splits."""
        if _SPLITS.fullmatch(plain_name(column)):
            return True
        told = {said(cells[column]).lower() for cells in self.rows}
        return len(told) > 1 and told - {""} <= {*_split_names()}

    def _splits_named(self, split: str | None) -> tuple[str | None, str | None]:
        """The columns of splits and of folds that are meant; doubtful ones are refused."""
        if split == DRAWN:
            return None, None
        own = {
            name: [one for one in self.of_splits if one.casefold() == name]
            for name in ("split", "fold")
        }
        plain = [one for same in own.values() if len(same) == 1 for one in same]
        doubtful = [one for one in self.of_splits if one not in plain]
        if split is None and doubtful:
            raise ConfigError(
                f"{self.file}: {listing(doubtful)} may tell which cases are train, val and test; "
                f"name the column that does, --split {shlex.quote(doubtful[0])}, or have splits "
                f"drawn: --split {DRAWN}"
            )
        splits, folds = (next(iter(same), None) for same in own.values())
        if split is None:
            return splits, folds
        cells = [said(one[split]) for one in self.rows]
        if any(cells) and all(one == "" or one.isdecimal() for one in cells):
            return (splits if splits != split else None), split
        return split, folds if folds != split else None

    def _own_split(self) -> dict[int, str] | None:
        """The split of every row as the table has it; None where it has none that is meant."""
        column, names = self.split_column, _split_names()
        if column is None:
            return None
        told = [cells[column].strip() for cells in self.rows]
        strange = [row for row, one in enumerate(told) if one.lower() not in names]
        if strange:
            strangers = listing(sorted({told[row] for row in strange}), 5)
            rows = listing([self.numbers[row] for row in strange], 5, str)
            raise ConfigError(
                f"{self.file}: column {column!r}: {strangers} in row {rows}, expected train, val "
                "and test; mend it, or have splits drawn: --split new"
            )
        return {row: names[one.lower()] for row, one in enumerate(told)}

    def _group(self) -> list[str]:
        """The columns that keep rows in one split, by their names."""
        named = {
            word: [
                one for one in self.others if re.fullmatch(rf"(\w+_)?{word}{_ID}", plain_name(one))
            ]
            for word in OF_GROUPS
        }
        for word, columns in named.items():
            for one in columns:
                values = {said(cells[one]) for cells in self.rows}
                if len(values) < 2:
                    continue
                few = len(values) <= FEW_KINDS and 3 * len(values) <= len(self.rows)
                if few and word in ("mouse", "animal"):
                    raise self._perhaps(one)
                told, found = f"its name, and {self._repeated(one)}", [one]
                if word == "plate" and named["well"]:  # A01 is a well of every plate
                    found, told = [one, named["well"][0]], "their names: a well of a plate"
                self.inferred["group"] = (" + ".join(found), told)
                return found
        if alone := [one for columns in named.values() for one in columns]:
            cell = said(self.rows[0][alone[0]])
            if cell and all(said(cells[alone[0]]) == cell for cells in self.rows):
                raise ConfigError(
                    f"{self.file}: column {alone[0]!r} says {cell!r} in every row, and one group "
                    "cannot be split: name a column that divides it, --group COLUMN, or take each "
                    f"row by itself, --group {NONE}"
                )
        for word in PERHAPS_GROUPS:
            for one in self.others:
                values = {said(cells[one]) for cells in self.rows}
                alike = re.fullmatch(rf"{word}{_ID}", plain_name(one)) or tells_individuals(one)
                if alike and 1 < len(values - {""}) < len(self.rows):
                    raise self._perhaps(one)
        self.inferred["group"] = (None, "no column of patients or the like: each row by itself")
        return []

    def _perhaps(self, column: str) -> ConfigError:
        return ConfigError(
            f"{self.file}: {column!r} ({self._repeated(column)}) may tell which rows belong "
            "together, as those of one patient, and must be in one split: "
            f"--group {shlex.quote(column)} if so, another column, or --group {NONE}"
        )

    def _repeated(self, column: str) -> str:
        times = Counter(said(cells[column]) for cells in self.rows)
        most = max(times.values())
        if most == 1:
            return "a value in each row"
        return f"{len(times)} values in {len(self.rows)} rows, up to {most} each"

    def _groups(self) -> list[str]:
        """The group of each row: rows of one image are of one group."""
        images = [
            tuple(map(str, self.image_paths(row))) or (f"row {number}",)
            for row, number in enumerate(self.numbers)
        ]
        first: dict[tuple[str, ...], int] = {}
        for number, image in zip(self.numbers, images, strict=True):
            first.setdefault(image, number)
        if not self.group_columns:
            return [f"row {first[image]}" for image in images]
        parts = [
            [composed(said(cells[column])) for column in self.group_columns] for cells in self.rows
        ]
        lacking = [
            number
            for number, one in zip(self.numbers, parts, strict=True)
            if not all(one) or {name.casefold() for name in one} & NOTHING
        ]
        if lacking:
            raise DataError(
                f"{self.file}: row {listing(lacking, 5, str)}: no {self.group}, which keeps rows "
                f"of one group in one split; fill it in, or name another --group ({ROW_IS})"
            )
        groups = ["_".join(one) for one in parts]
        of_image: dict[tuple[str, ...], str] = {}
        for number, image, group in zip(self.numbers, images, groups, strict=True):
            if of_image.setdefault(image, group) != group:
                raise DataError(
                    f"{self.file}: row {number}: its image is that of row {first[image]}, but not "
                    f"its {self.group} ({group!r}, {of_image[image]!r}); mend one of them "
                    f"({ROW_IS})"
                )
        return groups

    def _join_likely(self) -> None:
        """Join groups that are written alike but for case and spaces, or whose rows share files."""
        names, shared = [], []
        for row, cells in enumerate(self.rows):
            parts = [likened(said(cells[column])) for column in self.group_columns]
            names.append([tuple(parts)] if parts else [])
            shared.append([*map(str, self.image_paths(row))])
        self._join(names, "{0!r} and {1!r} are probably one")
        self._join(shared, "rows {2} and {3} share {4!r}")

    def join_copies(self) -> None:
        """Join groups whose rows have the same image, by its pixels, under several names."""
        columns = [
            [tuple(self.paths(row, column)) for column in self.images]
            for row in range(len(self.rows))
        ]
        every = list(dict.fromkeys(files for of_row in columns for files in of_row))
        digests = file_digests(every, strict=False, shown="images")
        of_files = dict(zip(every, digests, strict=True))
        images = [tuple(of_files[files] for files in of_row) for of_row in columns]
        same = [[one] if all(one) else [] for one in images]
        self._join(same, "rows {2} and {3} have the same image")

    def _join(self, keys: Sequence[Sequence[Any]], why: str) -> None:
        """Make one of the groups whose rows have a key in common; the first gives the name."""
        first: dict[Any, int] = {}
        into = dict.fromkeys(self.groups, "")
        order = {group: at for at, group in enumerate(into)}

        def joined(group: str) -> str:
            while into[group]:
                group = into[group]
            return group

        before = len(self.joined)
        for row, of_row in enumerate(keys):
            for key in of_row:
                other = first.setdefault(key, row)
                pair = {joined(self.groups[row]), joined(self.groups[other])}
                if len(pair) > 1:
                    kept, gone = sorted(pair, key=order.__getitem__)
                    into[gone] = kept
                    told = (self.groups[other], self.groups[row])
                    rows = (self.numbers[other], self.numbers[row])
                    self.joined.append(why.format(*told, *rows, key))
        self.groups = [joined(group) for group in self.groups]
        if more := self.joined[before:]:
            value, reason = self.inferred["group"]
            told_now = listing(more, 5, str)
            self.inferred["group"] = value, f"{reason}; groups joined: {told_now}"

    # Labels.

    def scan_labels(
        self,
        labels: Labels | Mapping[str, list[int]] | None = None,
        named: bool = False,
        mask_values: Meaning | None = None,
    ) -> None:
        """Count the values of every label, and decide what they mean.

        Args:
            labels: what they mean, where it is given; or values by the name of their class.
            named: whether somebody gives names to several classes.
            mask_values: see `ColumnMap`.

        Raises:
            DataError: labels cannot be read, or none has any foreground.
            ConfigError: what they mean is not plain, or a given value is in no label.
        """
        problems, whole, digests = [], [], list[bytes]()
        chosen = list(labels.values()) if isinstance(labels, Mapping) else []
        stored: set[int] = set()
        for row in bar(range(len(self.rows)), desc="labels", unit="file"):
            path = self.paths(row, self.label)[0]
            try:
                image = read_label(path, values=mask_values)
                array = whole_numbers(image.array, str(path))
                if chosen:
                    stored |= {*value_counts(array)}
                    array = classes_of_values(array, chosen)
            except DataError as error:
                problems.append(f"row {self.numbers[row]}: {error}")
                continue
            counts = {int(value): int(count) for value, count in value_counts(array).items()}
            if min(counts) < 0:
                problems.append(
                    f"row {self.numbers[row]}: {path}: label value {min(counts)}, expected 0 for "
                    "background and numbers above it"
                )
            spacing = self._spacing(row, array.ndim - 1) or image.attributes["spacing_mm"]
            self.counts.append(counts)
            self.shapes.append(array.shape[1:])
            self.spacings.append(spacing)
            self.objects.append(_objects(array, spacing))
            self.places.append(_middle(array))
            self.planes.append(_full_planes(Image(array, image.attributes)))
            digests.append(hashlib.blake2b(array.tobytes() + repr(array.shape).encode()).digest())
            if labels is None and not named and 1 < len(set(counts) - {0}) <= MOST_CLASSES:
                whole.append(_in_one_part(array))
        self._refuse(problems, "labels", "mend the files, or remove the rows")
        if absent := sorted({value for one in chosen for value in one} - stored):
            raise ConfigError(
                f"{self.file}: --labels names the value {absent[0]}, which no label of column "
                f"{self.label!r} has; they have {listing(sorted(stored), 40, str)}"
            )
        values = sorted({value for counts in self.counts for value in counts})
        objects = [one for one in values if one > 0]
        shown = listing(values, 8, str)
        if not objects:
            raise DataError(
                f"{self.file}: every label of column {self.label!r} is empty (0); name the column "
                "of masks with --label, or save the masks anew"
            )
        per_row = [set(one) - {0} for one in self.counts if set(one) - {0}]
        counted = all(max(one) == len(one) for one in per_row)
        one_part = float(np.mean(np.concatenate(whole))) if whole else 0.0
        few = objects[-1] <= MOST_CLASSES
        if chosen:
            self.label_values = chosen if len(chosen) > 1 else chosen[0]
            rest = sorted(stored - {0, *(value for one in chosen for value in one)})
            told = f"; {listing(rest, 8, str)} become background" if rest else ""
            others = [
                f"{'+'.join(map(str, given))} becomes {number}"
                for number, given in enumerate(chosen, 1)
                if list(given) != [number]
            ]
            mapped = f": {listing(others, 8, str)}" if others else ""
            self.why_classes = f"label values as given{mapped}{told}"
        elif len(objects) == 1:
            self.label_values = [] if objects == [1] else objects
            self.why_classes = f"label values {shown}: one foreground"
        elif labels == "instances":
            self.label_values = "instances"
            self.why_classes = f"label values {shown} are objects, as given: one foreground"
        elif (
            labels is None and few and counted and len({*map(len, per_row)}) > 1 and one_part > 0.5
        ):
            raise ConfigError(
                f"{self.file}: label values {shown}: each label counts from 1, by different "
                f"numbers, and {one_part:.0%} of its values are one connected part: say whether "
                "each value is a class, --labels classes, or an object of one class, "
                "--labels instances"
            )
        elif few:
            absent = sorted({*range(1, objects[-1])} - {*objects})
            if absent and labels is None and not named:
                ready = ",".join(f"{one}=class_{one}" for one in objects)
                raise ConfigError(
                    f"{self.file}: label values {shown}: {listing(absent, 8, str)} in no label; "
                    f'name the classes, --labels "{ready}", or have the absent ones as empty '
                    "classes: --labels classes"
                )
            self.why_classes = f"label values {shown}: a class each"
            if absent:
                self.why_classes += f"; {listing(absent, 8, str)} in no label"
        elif counted and labels is None:
            self.label_values = "instances"
            self.why_classes = "each label counts its objects from 1: one foreground"
        else:
            ready = f"{objects[0]}=liver,{objects[1]}+{objects[-1]}=kidneys"
            if len(objects) == 2:  # as of masks of 0 and 1 beside others of 0 and 255
                ready = f"{objects[0]}+{objects[1]}=liver"
            raise ConfigError(
                f"{self.file}: label values {shown}: neither classes from 1 to {MOST_CLASSES} nor "
                "objects counted from 1; name the values that are to be classes, --labels "
                f'"{ready}" (all others become background), or take all above 0 as one '
                "foreground: --labels instances"
            )
        self.numbered = self.label_values == "instances" and counted
        self.by_class = not self.label_values or bool(chosen)
        self.classes = max(2, max(values) + 1) if self.by_class else 2
        self._join_masks(digests)

    def _join_masks(self, digests: Sequence[bytes]) -> None:
        """Join groups whose rows have the same file of a mask, and tell those of equal masks.

        They are several images of one subject, as the sequences of an examination. An empty mask
        ties nothing together.

        Args:
            digests: of the pixels of every row's label.
        """
        filled = [row for row, size in enumerate(self.sizes().tolist()) if size]
        shared: list[list[str]] = [[] for _ in self.rows]
        for row in filled:
            shared[row] = [*map(str, self.paths(row, self.label))]
        self._join(shared, "rows {2} and {3} share the mask {4!r}")
        alike: dict[bytes, list[int]] = defaultdict(list)
        for row in filled:
            alike[digests[row]].append(row)
        pairs = [
            f"rows {listing([self.numbers[row] for row in one], 4, str)}"
            for one in alike.values()
            if len({self.groups[row] for row in one}) > 1
        ]
        if len(alike) > 1 and pairs:
            self.inferred["equal masks"] = (
                listing(pairs, 5, str),
                "the same mask under several names: where these are images of one patient, a "
                "column that says so keeps them in one split, --group",
            )

    def _spacing(self, row: int, dims: int) -> tuple[float, ...] | None:
        """The size of pixels as the table's own columns have it."""
        sides = [read_number(said(self.rows[row].get(one, ""))) for one in SPACING_COLUMNS[1:]]
        right = dims == 2 and all(side is not None and side > 0 for side in sides)
        return tuple(float(side) for side in sides if side is not None) if right else None

    def holding(self, number: int) -> list[bool]:
        """Of every row whether its label holds a class."""
        return [counts.get(number, 0) > 0 for counts in self.counts]

    def sizes(self) -> np.ndarray:
        """Foreground of every row, in pixels or voxels."""
        return np.array([sum(n for v, n in one.items() if v > 0) for one in self.counts])

    @cached_property
    def said_by_labels(self) -> dict[str, np.ndarray]:
        """What the labels say of every row, (N,) each, in words: in voxels, and in mm if known."""
        sizes, areas = self.sizes(), np.array([np.prod(shape) for shape in self.shapes])
        parts, sides, extents = np.array(self.objects).T
        if self.label_values == "instances":
            parts = np.array([len(set(one) - {0}) for one in self.counts])
        measured = {
            "the label's size": sizes,
            "the mean size of the label's objects": sizes / np.maximum(parts, 1),
        }
        if self.by_class:
            numbers = sorted({n for one in self.counts for n in one if n > 0})[:8]
            measured |= {
                f"the size of class {n}": np.array([one.get(n, 0) for one in self.counts])
                for n in (numbers if len(numbers) > 1 else ())
            }
        found = {
            **measured,
            "the label's share of the image": sizes / areas,
            "the number of the label's objects": parts,
            "the extent of the label": sides,
        }
        if (voxels := self.voxel_sizes) is not None:
            found |= {f"{what} {IN_MM}": values * voxels for what, values in measured.items()}
            found[f"the extent of the label {IN_MM}"] = extents
        return found

    @property
    def voxel_sizes(self) -> np.ndarray | None:
        """The size of a voxel of every row, in mm; None where they are alike, or not known."""
        if len(set(self.spacings)) < 2 or None in self.spacings:
            return None
        return np.array([np.prod(one) for one in self.spacings if one is not None])


def parse_labels(given: str | None) -> Labels | dict[str, list[int]] | None:
    """What labels mean, from what a user gives.

    Raises:
        ConfigError: it is neither classes nor instances, nor values with a name for each class.

    >>> parse_labels("1=spleen,2+3=kidneys")
    {'spleen': [1], 'kidneys': [2, 3]}
    """
    if given in (None, "classes", "instances"):
        return cast("Labels | None", given)
    parts = [part.partition("=") for part in str(given).split(",")]
    names = [name.strip() for _, _, name in parts]
    texts = [[one.strip() for one in values.split("+")] for values, _, _ in parts]
    every = [one for texts_of_one in texts for one in texts_of_one]
    right = all(re.fullmatch("0*[1-9][0-9]{0,8}", one) for one in every) and all(names)
    if not right or len({*map(int, every)}) < len(every) or len({*names}) < len(names):
        raise ConfigError(
            f"--labels {given!r}: expected classes, instances, or the values of each class, from "
            '1 on, with its name, each once, as "1=spleen,2+3=kidneys"; all others are background'
        )
    return {name: [int(one) for one in one_of] for name, one_of in zip(names, texts, strict=True)}


def refuse_empty(flag: str, text: str | Sequence[str] | None) -> None:
    """Refuse a setting that is there and says nothing."""
    if text is not None and not "".join(text).strip(" ,"):
        raise ConfigError(f"--{flag} is empty; is a variable of the shell not set?")


def _listed(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _split_names() -> dict[str, str]:
    return {name: one for one, known in OF_SPLITS.items() for name in known}


def tells_individuals(column: str) -> bool:
    """Whether a column names patients, samples or the like, by its own name.

    >>> [tells_individuals(one) for one in ("MRN", "mouse_id", "slide ID", "scanner_id", "mouse")]
    [True, True, True, False, False]
    """
    name = plain_name(column)
    words = name.split("_")
    persons = any(re.fullmatch(rf"(\w+_)?{one}{_ID}", name) for one in OF_PERSONS[:-2])
    return persons or bool(IDENTIFIER.search(name) and not {*words} & {*OF_KINDS})


def plain_name(column: str) -> str:
    """A name in small letters, its words joined by underscores."""
    words = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", column)
    return "_".join(one.lower() for one in words if one)


def _objects(label: np.ndarray, spacing: Sequence[float] | None) -> tuple[int, int, float]:
    """Connected parts of the foreground, the longest side of a box around it, and that in mm."""
    inside = np.greater(label[0], 0)
    if not inside.any():
        return 0, 0, 0.0
    axes = range(inside.ndim)
    places = [np.flatnonzero(inside.any(tuple(a for a in axes if a != axis))) for axis in axes]
    sides = [int(place[-1] - place[0]) + 1 for place in places]
    steps = spacing or (1.0,) * len(sides)
    longest = max(side * step for side, step in zip(sides, steps, strict=False))
    return int(ndimage.label(inside)[1]), max(sides), longest


def _middle(label: np.ndarray) -> tuple[float, ...] | None:
    """Where the foreground lies: the mean of its pixels' places along each axis."""
    inside = np.greater(label[0], 0)
    if not inside.any():
        return None
    axes = range(inside.ndim)
    along = [inside.sum(tuple(other for other in axes if other != axis)) for axis in axes]
    return tuple(float(np.average(np.arange(len(one)), weights=one)) for one in along)


def _full_planes(label: Image) -> str:
    """Which axial planes of a volume have foreground; nothing where they cannot be told."""
    if label.array.ndim != 4:
        return ""
    try:
        planes = axial_volume(label).planes
    except DataError:  # which reading it with its image tells
        return ""
    return planes_text(np.flatnonzero((planes > 0).any((1, 2))).tolist())


def _in_one_part(label: np.ndarray) -> list[bool]:
    """Of every value above 0 whether its pixels are one connected part."""
    boxes = ndimage.find_objects(label[0].astype(np.int32))
    return [
        ndimage.label(label[0][box] == value)[1] == 1
        for value, box in enumerate(boxes, start=1)
        if box is not None
    ]


def _is_of(column: str, words: Sequence[str]) -> bool:
    parts = plain_name(column).split("_")
    return any(part in words or part.rstrip("s") in words for part in parts)
