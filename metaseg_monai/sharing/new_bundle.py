"""A bundle for a table of one's own: what was inferred, each with its reason, and what follows."""

import inspect
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from metaseg_monai.bundle.compose import compose, format_config, shared_folder
from metaseg_monai.errors import ConfigError, DataError, listing, typed
from metaseg_monai.files import absolute, new_folder, writable, write_json
from metaseg_monai.images.image import Channels, Meaning, image_format, image_suffix
from metaseg_monai.images.read import is_volume_file
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import Categorical, said, says_nothing
from metaseg_monai.metrics.scores import AGGREGATES
from metaseg_monai.prepare.splits import GroupSplits, OwnSplits, split_groups
from metaseg_monai.reporting.page import escape_markdown
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.own_metadata import (
    NO_UNIT,
    OF_CODE,
    infer_schema,
    mend_cells,
    names_alike,
    not_in_training,
    read_elements,
)
from metaseg_monai.sharing.own_table import DRAWN, OwnTable, parse_labels
from metaseg_monai.sharing.plan import (
    Fact,
    Fingerprint,
    MixedChannelsError,
    Modality,
    Network,
    Plan,
    fingerprint,
    free_bytes,
    of_planes,
    plan,
    steering,
)
from metaseg_monai.study.matrix import enough_epochs
from metaseg_monai.tables.columns import ROOT
from metaseg_monai.tables.select import FOREGROUND
from metaseg_monai.tables.table import (
    CaseTable,
    known_class_names,
    parse_class_names,
    refuse,
    scan_table,
)
from metaseg_monai.transforms import falsified_by

STEPS = 2500  # of a training as planned: ten of nnU-Net's epochs of 250
VALIDATIONS = 50
SEEDS = 3  # of the study that is proposed
FIRST_SEEDS = 2  # of a first look: one training says nothing of others
KEPT_GB = 8.0  # of preprocessed images in memory, and no more than half of what is free
FEW_FOLDS = 5  # of which all commands are told
FEW_TESTED = 5  # groups


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
            told = [one.kind, one.expected(), *filter(None, [one.description])]
            lines.append(f"metadata {one.name}: {', '.join(told)}")
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
    labels: str | None = None,
    mask_values: Meaning | None = None,
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
        group: column of what stays in one split, such as the patient; several, separated by
            commas, as plate,well; "none" where each row is by itself.
        fields: metadata to take, as column[:kind[:unit]], separated by commas; by default all
            columns that can be metadata; with a + before each, such as +grade:continuous:steps,
            beside or instead of what is inferred of them; "none" for a bundle without. Of DICOM
            series column=Element, as kernel=ConvolutionKernel or tube=KVP: what the series says
            where the table has no such column, or nothing in it.
        dims: 2 or 3, of the network; by default that of the files. With 2 the axial planes of
            volumes are read from them, and masks are volumes again.
        network: dynunet, dynunet_res, segresnet, segresnet_ds, unet3 or ppunet.
        split: column of splits, or of folds 0, 1, ...; by default `split` and `fold` where they
            are; "new" has splits drawn.
        folds: so many folds instead of fixed splits; every case is then tested once, but those
            that a column of splits, if it is named, has as test.
        seed: of the splits.
        class_names: as "1=kidney,2=tumour".
        labels: classes or instances, what different values above 0 are; or the values of each
            class with its name, as "1=spleen,2+3=kidneys", and all others become background.
        mask_values: stored or shown, which of both counts where masks can be read in two ways
            (min-is-white, as tifffile writes Boolean ones; palettes from white).
        modality: CT, MR, RGB or other; by default as the format and values of the files say.
        channels: stored, or grey or rgb, to which images of one and three are converted.
        memory_gb: that training may take, beside what it keeps of images; measured by a short one.
        dry_run: tell what would be made, and write nothing. Memory is an estimate then, so that the
            plan itself may come out a little smaller.

    Returns:
        What was inferred and planned, and the folder.

    Raises:
        ConfigError: a name or setting is wrong, or a choice is yours to make; says which.
        DataError: the table or a file in it cannot be used, or the bundle is there already.
    """
    asked = dict(locals())
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ConfigError(f"{name!r} cannot name a bundle; use letters, digits and underscores")
    target = Path(bundles) / name
    if not dry_run and target.exists() and any(target.iterdir()):
        raise DataError(f"{target}: exists already; delete it, or choose another name")
    found = OwnTable(Path(table), image, label, group, split)
    found.check_files()
    read_elements(found, fields)
    found.join_copies()
    volumes = is_volume_file(found.image_paths(0)[0])
    if dims not in (None, 2, 3) or (dims == 3 and not volumes):
        raise ConfigError(f"dims={dims}: expected 2, or 3 where the images are volumes")
    planar = volumes and dims == 2
    meant = parse_labels(labels)
    if isinstance(meant, dict):
        if class_names:
            raise ConfigError("--labels names the classes already; leave out --class_names")
        given = dict(enumerate(meant, 1))
    else:
        given = parse_class_names(class_names) or known_class_names(found.file.parent)
    found.scan_labels(meant, len({*given} - {0}) > 1, mask_values)
    names = _names(found, given)
    mend_cells(found, fields)
    made = _split(found, folds, seed)
    splits = made.of_group
    training = {
        row
        for row, (one, fold) in enumerate(splits[group] for group in found.groups)
        if (fold if "fold" in made.told else one == "train")
    }
    schema, names_of, left_out = infer_schema(found, fields, training)
    told = {**found.inferred, **made.told, "classes": _of_classes(found, names, made)}
    areas = np.array([np.prod(shape) for shape in found.shapes])
    if full := int((2 * found.sizes() > areas).sum()):
        told["foreground"] = (
            f"more than background in {full} of {len(areas)} labels",
            "are they inverted? then save them anew, 0 for background",
        )
    if "fold" in made.told and schema.fields:
        told["ranges"] = ("of all folds", "kinds, ranges and names; a fixed test set not")
        if alone := _in_one_fold(found, made, schema, names_of):
            told["in one fold alone"] = (
                listing(alone, 8, str),
                "the network that is tested on it was trained without it, and answers untrained: "
                "give such cells no value, or look at these cases apart",
            )
    strange = not_in_training(found, schema, names_of, training)
    if strange:
        there = [
            f"{column} {cell!r} in row {found.numbers[row]}"
            for (row, column), cell in strange.items()
        ]
        told["unknown"] = (
            listing(there, 8, str),
            f"in {len(strange)} cell(s) of val and test alone, which no training row says: the "
            f"network is told nothing there, in the copy of the table as well; {_dealt(found)}",
        )
    copied = _Copy(found, made, schema, names_of, names, strange, planar, mask_values)
    read = copied.read()
    try:
        known = fingerprint(read, 3 if volumes else 2, modality, channels)
        known = _with_classes(known, found.classes)
        found.check_images(read.rows, known, channels)
    except MixedChannelsError as error:
        if error.choice is None:
            raise
        raise DataError(f"{error}:\n{_again(asked, channels=error.choice)}") from error
    flat = of_planes(known) if planar else known
    planned = plan(flat, network, memory_gb, schema, measure=not dry_run)
    if "foreground_drawn" in planned.facts and not all(found.planes):
        raise DataError(
            f"{found.file}: the axial planes of {found.label!r} are not told by its files, as "
            "their headers have no affine; save the labels with that of the image"
        )
    planned = _scheduled(planned, known)
    planned = _told_more(planned, schema, names, made)
    if planar:
        given_dims = Fact(2, "as given: axial planes of volumes")
        planned = replace(planned, facts={**planned.facts, "spatial_dims": given_dims})
    told["dims"] = (
        f"{planned['spatial_dims']}{', axial planes of volumes' if planar else ''}",
        "as given" if dims else "the axes of the files",
    )
    tested = {group for group, (one, _) in splits.items() if one == "test"}
    sizes = zip(found.groups, found.sizes().tolist(), strict=True)
    if tested and not any(size for group, size in sizes if group in tested):
        told["test"] = ("no mask has any foreground", "so that no score tells how well it is found")
    if (domain := _domain(schema)) is not None:
        told["domain"] = (domain, "the first column of names; scores are told by its values, too")
    most = min(FEW_TESTED, len(splits))
    if "fold" not in made.told and len(tested) < most and most > 2:
        value, why = told["split"]
        few = f"{len(tested)} to test on are few: with --folds {most} every case is tested once"
        told["split"] = value, f"{why}; {few}"
    nothing = "nothing was written, nor a training step measured (dry run)"
    bundle = NewBundle(None, told, left_out, schema, planned, (nothing,))
    if dry_run:
        return bundle
    numbered = found.numbered and not volumes
    settings = _settings(planned, schema, planar, channels, numbered)
    commands = _commands(str(target), made, schema)
    with writable(target), new_folder(target) as part:
        copied.write(part / "data", target / "data", part / "configs")
        beside = _commands(target.name, made, schema)  # of a page that tells no machine's paths
        _write(part, target, found, bundle, known, settings, names, beside)
    steps = [
        f"bundle: {target}",
        f"check: {_check(target)}",
        f"next: {commands[0]}",
        f"or, with and without {'metadata' if schema.fields else 'gates'}, and a report "
        f"({_of_study(planned, known, schema, made)}): {commands[-1]}",
        f"review: {target / 'configs' / 'schema.json'}, and fill in {target / 'docs' / 'README.md'}"
        f" and {target / 'docs' / 'data_license.txt'}",
    ]
    if unnamed := [f.name for f in schema.fields if getattr(f, "unit", "") == NO_UNIT]:
        steps.append(f"units to name in schema.json, or in --fields: {', '.join(unnamed)}")
    return NewBundle(target, told, left_out, schema, planned, tuple(steps))


def _again(asked: Mapping[str, Any], **otherwise: Any) -> str:
    """The command that asks the same with some settings otherwise, as a shell takes it."""
    words = ["python", "-m", "metaseg_monai", "new-bundle", str(asked["name"])]
    for name, setting in inspect.signature(new_bundle).parameters.items():
        value = {**asked, **otherwise}[name]
        if name != "name" and value != setting.default:
            several = not isinstance(value, str) and isinstance(value, Sequence)
            words += [f"--{name}", ",".join(value) if several else str(value)]
    return shlex.join(words)


def _names(found: OwnTable, given: Mapping[int, str]) -> dict[int, str]:
    """A name for every class of the labels."""
    beyond = sorted(number for number in given if number >= found.classes)
    values = {value for counts in found.counts for value in counts}
    if found.label_values != "instances" and (stored := {*beyond} & values):
        ready = ",".join(f"{number}={name}" for number, name in given.items() if number)
        raise ConfigError(
            f"{found.file}: {min(stored)} is a value of the labels, and --class_names counts "
            f'classes from 1; name the values instead, --labels "{ready}", or the class alone, '
            f'--class_names "1={given[min(stored)]}"'
        )
    if beyond:
        raise ConfigError(
            f"{found.file}: class {beyond[0]} ({given[beyond[0]]!r}) has a name, but labels end at "
            f"{found.classes - 1}; give the names of those that are there, --class_names "
            '"1=kidney" (a classes.json or dataset.json beside the table is read too)'
        )
    if code := [name for name in given.values() if name.startswith(OF_CODE)]:
        raise ConfigError(
            f"class_names: {code[0]!r} begins as MONAI's language does, so that bundles would run "
            'it; give names of letters, --class_names "1=kidney"'
        )
    names = {0: "background", **given}
    for number in range(found.classes):
        names.setdefault(number, f"class_{number}")
    return dict(sorted(names.items()))


def _split(found: OwnTable, folds: int | None, seed: int) -> GroupSplits:
    """The splits, alike in metadata of few names and in which classes there are."""
    alike = {one: [said(cells[one]) for cells in found.rows] for one in names_alike(found)}
    for number in range(1, found.classes):
        holding = {g for g, one in zip(found.groups, found.holding(number), strict=True) if one}
        if found.by_class and 0 < len(holding) < len(set(found.groups)):
            alike[f"class {number}"] = [str(group in holding) for group in found.groups]
    own = OwnSplits(
        found.file,
        found.groups,
        found.group or "row",
        alike,
        found.split_column,
        [] if found.own_split is None else [*found.own_split.values()],
        found.fold_column,
        [said(cells[found.fold_column]) for cells in found.rows] if found.fold_column else [],
        found.joined,
    )
    return split_groups(own, folds, found.split_named not in (None, DRAWN), seed)


def _in_one_fold(
    found: OwnTable, made: GroupSplits, schema: MetadataSchema, names_of: Mapping[str, str]
) -> list[str]:
    """Names of categories that all cases of which are in one fold, so that it trains on none."""
    folds: dict[str, set[str]] = defaultdict(set)
    for cells, group in zip(found.rows, found.groups, strict=True):
        fold = made.of_group[group][1]
        for one in schema.fields:
            cell = cells[names_of[one.name]]
            if fold and isinstance(one, Categorical) and not says_nothing(cell):
                folds[f"{names_of[one.name]} {cell.strip()!r} in fold"].add(fold)
    return [f"{what} {next(iter(those))}" for what, those in folds.items() if len(those) == 1]


def _of_classes(found: OwnTable, names: Mapping[int, str], made: GroupSplits) -> tuple[str, str]:
    """The classes, and those that nothing is trained on."""
    why = found.why_classes
    if any(one == f"class_{number}" for number, one in names.items()):
        why += "; --class_names names them"
    for number, name in names.items() if found.by_class else ():
        rows = zip(found.groups, found.holding(number), strict=True)
        having = [made.of_group[group] for group, holds in rows if holds]
        folds = {fold for _, fold in having if fold}
        if "fold" in made.told and number and len(folds) < 2:
            why += f"; class {number} ({name}) is in one fold alone, which trains without it"
        elif "fold" not in made.told and having and "train" not in {one for one, _ in having}:
            why += (
                f"; class {number} ({name}) is in no training case, so that nothing learns it: "
                f"{_dealt(found)}"
            )
    return ", ".join(f"{number} {one}" for number, one in names.items()), why


def _dealt(found: OwnTable) -> str:
    """What deals cases out to splits otherwise."""
    if found.split_column is not None:
        return f"--split new deals otherwise than column {found.split_column!r}"
    if found.fold_column is not None:
        return f"--folds deals otherwise than column {found.fold_column!r}"
    return "another --seed deals otherwise"


def _with_classes(known: Fingerprint, classes: int) -> Fingerprint:
    """With the classes that only cases of val and test have: labels say how many there are."""
    none = (0,) * len(known.shapes)
    voxels = {number: known.class_voxels.get(number, none) for number in range(classes)}
    return replace(known, class_voxels=voxels)


def _told_more(
    planned: Plan, schema: MetadataSchema, names: Mapping[int, str], made: GroupSplits
) -> Plan:
    """The plan with what of the augmentation is left out, and what folds share."""
    facts = dict(planned.facts)
    for what, by in falsified_by(schema, [*names.values()]).items():
        why = f"left out, as it would make {listing(by)} wrong" if by else "as nnU-Net has it"
        facts[what] = Fact(not by, why)
    if "fold" in made.told:
        facts["planned_from"] = Fact(
            "train of the first fold",
            "all folds share the plan: its spacing, patch and window come from images that other "
            "folds test; plan a bundle a fold where that matters",
        )
    return replace(planned, facts=facts)


def _hours(seconds: float) -> str:
    """A duration that nobody takes for exact."""
    hours = seconds / 3600
    if hours < 1:
        return f"{max(1, seconds / 60):.0f} min"
    told = f"{hours:.1g}" if hours < 10 else f"{hours:.0f}"
    return f"{told} hour" if told == "1" else f"{told} hours"


def _items(planned: Plan, known: Fingerprint) -> int:
    """How many images, or planes of volumes, an epoch has."""
    if len(known.shapes[0]) > planned["spatial_dims"]:
        return sum(shape[2] for shape in known.shapes)
    return len(known.shapes)


def _compared(schema: MetadataSchema) -> list[str]:
    """The variants of the study that is proposed."""
    return ["none", "sme", "sme-dummy"] if schema.fields else ["none", "se"]


def _of_study(planned: Plan, known: Fingerprint, schema: MetadataSchema, made: GroupSplits) -> str:
    """What the study that is proposed takes, and what a first look does."""
    folds = len({fold for _, fold in made.of_group.values() if fold}) or 1
    steps = -(-_items(planned, known) // planned["batch_size"])

    def taking(seeds: int, epochs: int) -> str:
        trainings = len(_compared(schema)) * seeds * folds
        told = f"{trainings} trainings"
        if "step_seconds" in planned.facts:
            told += f", about {_hours(trainings * epochs * steps * planned['step_seconds'])} here"
        return told

    enough = enough_epochs(planned["epochs"])
    return (
        f"{taking(SEEDS, planned['epochs'])}; for a first look --seeds {FIRST_SEEDS} --epochs "
        f"{enough}: {taking(FIRST_SEEDS, enough)}"
    )


def _scheduled(planned: Plan, known: Fingerprint) -> Plan:
    """The plan with how long is trained, and whether images stay in memory."""
    cases, sizes = len(known.shapes), np.prod(known.shapes, axis=1)
    items = _items(planned, known)
    steps = -(-items // planned["batch_size"])
    epochs = -(-STEPS // steps)
    grown = 1.0
    if planned["spacing_mm"] is not None and known.spacings_mm is not None:
        wanted = planned["spacing_mm"]
        grown = float(
            np.prod(np.median(known.spacings_mm, axis=0)[: len(wanted)]) / np.prod(wanted)
        )
    taken = float(sizes.sum()) * grown * (4 * len(known.values) + 1) / 1e9
    kept = min(KEPT_GB, free_bytes() / 2e9 or KEPT_GB)
    taking = ""
    if "step_seconds" in planned.facts:
        taking = f", about {_hours(epochs * steps * planned['step_seconds'])} a training here"
    facts = {
        "epochs": Fact(
            epochs,
            f"{epochs * steps} steps of {planned['batch_size']} of {items} training "
            f"{'planes' if items > cases else 'images'}{taking}: a first result; nnU-Net takes "
            "250,000",
        ),
        "cached": Fact(
            taken <= kept,
            f"preprocessed training images take {taken:.3g} GB of memory; up to {kept:.2g} they "
            "are kept",
        ),
    }
    return replace(planned, facts={**planned.facts, **facts})


# The files of the bundle.


class _Copy:
    """The copy of the table that a bundle has, with its splits, and its column map."""

    def __init__(
        self,
        found: OwnTable,
        made: GroupSplits,
        schema: MetadataSchema,
        names_of: Mapping[str, str],
        names: Mapping[int, str],
        unknown: Mapping[tuple[int, str], str],
        planar: bool,
        mask_values: Meaning | None,
    ) -> None:
        self.found, self.schema = found, schema
        several = len(found.images) > 1
        image = _free("image", found.header) if several else found.images[0]
        own = found.group_columns == ["group"] or "group" not in found.header
        group = "group" if own else _free("group", found.header)
        self.columns: dict[str, Any] = {"image": image, "label": found.label}
        if group != "group":
            self.columns["group"] = group
        if {"volume", "plane"} <= {*found.header} and "plane" not in found.of_place:
            self.columns["place"] = {"plane": _free("plane", found.header)}  # it is no plane's
        if several:
            self.columns["channels"] = [*found.images]
        if mask_values is not None:
            self.columns["mask_values"] = mask_values
        if found.label_values:
            self.columns["label_values"] = found.label_values
        if renamed := {name: column for name, column in names_of.items() if name != column}:
            self.columns["metadata"] = renamed
        self.columns["class_names"] = {str(number): one for number, one in names.items()}
        places = [
            {
                image: [absolute(one) for one in found.image_paths(row)],
                found.label: [absolute(one) for one in found.paths(row, found.label)],
            }
            for row in range(len(found.rows))
        ]
        self.root = absolute(found.file.parent)
        every = [one for place in places for paths in place.values() for one in paths]
        if not all(one.is_relative_to(self.root) for one in every):
            self.root = Path(os.path.commonpath([one.parent for one in every]))
        self.rows = []
        for number, (cells, place) in enumerate(zip(found.rows, places, strict=True)):
            split, fold = made.of_group[found.groups[number]]
            row = {name: cell for name, cell in cells.items() if name not in ("split", "fold")}
            row |= {column: "unknown" for at, column in unknown if at == number}
            for column, paths in place.items():
                row[column] = ";".join(one.relative_to(self.root).as_posix() for one in paths)
            own_split = {group: found.groups[number], "split": split, "fold": fold}
            self.rows.append({**row, **own_split})
        if planar and all(found.planes):
            for row, planes in zip(self.rows, found.planes, strict=True):
                row[FOREGROUND] = planes

    def read(self) -> CaseTable:
        """The copy as other commands read it; what they refuse is refused here."""
        with TemporaryDirectory() as folder:
            file = write_table(self.rows, Path(folder) / "table.csv")
            write_json(file.parent / ROOT, {file.name: self.root.as_posix()})
            read, wrong = scan_table(file, self.schema, self.columns)
        refuse(self.found.file, wrong)
        return replace(read, path=self.found.file)

    def write(self, data: Path, final: Path, configs: Path) -> None:
        """Write the table into `data`, which is to become `final`, and columns.json."""
        file = write_table(self.rows, data / "table.csv")
        write_json(data / ROOT, {file.name: _root(self.root, final)})
        write_json(configs / "columns.json", self.columns)


def _free(name: str, header: Sequence[str]) -> str:
    """A name that is no column's yet."""
    number = 2
    while f"{name}_{number}" in header:
        number += 1
    return name if name not in header else f"{name}_{number}"


def _root(root: Path, data: Path) -> str:
    """The root of the paths: relative to the table where both lie in one project, else absolute."""
    project = data.absolute().parents[2]
    if root.is_relative_to(project) and project != Path(project.anchor):
        return Path(os.path.relpath(root, data.absolute())).as_posix()
    return root.as_posix()


def _write(
    part: Path,
    target: Path,
    found: OwnTable,
    made: NewBundle,
    known: Fingerprint,
    settings: Mapping[str, Any],
    names: Mapping[int, str],
    commands: Sequence[str],
) -> None:
    """Write all but the table and its columns."""
    planned = made.plan
    made.schema.save(part / "configs" / "schema.json")
    common = Fact(known.to_dict(), "what the training files have in common")
    facts_of_plan = {**planned.to_dict(), "fingerprint": common._asdict()}
    write_json(part / "configs" / "plan.json", facts_of_plan)
    facts = {
        "settings": settings,
        "recipe": _augmented(planned),
        "metadata": _told(target.name, found, planned, names),
    }
    (part / "configs" / "facts.json").write_text(format_config(facts) + "\n", encoding="utf-8")
    for file, text in compose(part, shared_folder()).items():
        (part / file).write_text(text, encoding="utf-8")
    (part / "docs").mkdir()
    page = _page(target, found, made, planned, commands)
    (part / "docs" / "README.md").write_text(page, encoding="utf-8")
    (part / "docs" / "data_license.txt").write_text(LICENSE_OF_DATA, encoding="utf-8")


def _settings(
    planned: Plan, schema: MetadataSchema, planar: bool, channels: Channels, numbered: bool
) -> dict[str, Any]:
    """Where the shared configurations are set otherwise."""
    spacing, dims = planned["spacing_mm"], planned["spatial_dims"]
    scale = dict(planned["normalisation"])
    intensity_range = scale.get("intensity_range")
    scaled = {} if intensity_range is None else {"intensity_range": intensity_range}
    scale |= {name: f"@{name}" for name in scaled}
    load: dict[str, Any] = {
        "_target_": "metaseg_monai.transforms.LoadCased",
        "classes": "@classes",
        "in_channels": "@in_channels",
    }
    if channels != "stored":
        load["channels"] = channels
    if scale["_target_"].endswith("NormalizeVolumed"):
        load["moments"] = True
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
        **scaled,
        **steering(planned.network, planned["network"], schema),
        "preprocessing": [*steps, scale, "@encode"],
        "window_inferer": {"_target_": inferer, "roi_size": "@roi_size"},
        "modes": ["normal", "missing", "shuffle"] if schema.fields else ["normal"],
    }
    if (domain := _domain(schema)) is not None:
        settings["domain"] = domain
    if numbered:
        settings["objects"] = {"method": "components"}
    if "foreground_drawn" in planned.facts:
        draw = {"_target_": "metaseg_monai.training.EpochDraw"}
        settings["train#dataloader#draw"] = {**draw, "foreground": planned["foreground_drawn"]}
    if planar:
        settings["cases"] = {"_target_": "metaseg_monai.tables.slices", "table": "@table"}
    if not planned["cached"]:
        settings["train#dataset#cache"] = False
        settings["validate#dataset#cache_rate"] = 0.0
    return settings


def _domain(schema: MetadataSchema) -> str | None:
    """The field by whose values scores are told, too: the first of names that no score has."""
    named = [one for one in schema.fields if isinstance(one, Categorical)]
    return next((one.name for one in named if not AGGREGATES & {*one.values}), None)


def _augmented(planned: Plan) -> dict[str, Any]:
    """What the planned images ask of `strong_augmentation`."""
    scaled = "intensity_range" in planned["normalisation"]
    spacing = planned["spacing_mm"] if planned["spatial_dims"] == 3 else None
    return {"spacing": spacing, "deviation": 0.25 if scaled else 1.0}


def _told(name: str, found: OwnTable, planned: Plan, names: Mapping[int, str]) -> dict[str, str]:
    """What metadata.json tells."""
    label = ", ".join(f"{number} {one}" for number, one in names.items())
    scaled = planned.facts["normalisation"].reason
    first = found.image_paths(0)[0]
    kinds = [image_format(first) if first.is_dir() else image_suffix(first).lstrip(".")]
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


def _commands(bundle: str, made: GroupSplits, schema: MetadataSchema) -> list[str]:
    """Train, evaluate, compare and predict."""
    start, place = "python -m metaseg_monai", shlex.quote(bundle)
    run = f"runs/{Path(bundle).name}"
    variants = ",".join(_compared(schema))
    study = f"{start} study {place} --variants {variants} --seeds {SEEDS} --output {run}-study"
    study += " --folds all" if any(fold for _, fold in made.of_group.values()) else ""
    folds = sorted({int(fold) for _, fold in made.of_group.values() if fold})
    runs, commands = [f"{run}-fold{fold}" for fold in folds] or [run], []
    tested = {one for one, _ in made.of_group.values()}
    for number, output in enumerate(runs):
        if number == FEW_FOLDS:
            commands.append(f"# and so on to {runs[-1]}")
            break
        commands += [
            f"{start} train {place} --output_dir {output}"
            + (f" --fold {folds[number]}" if folds else ""),
            f"{start} evaluate {output}" + ("" if "test" in tested else " --split val"),
        ]
    commands.append(f"{start} predict {','.join(runs)} --source IMAGES --output masks")
    return [*commands, study]


def _check(bundle: Path) -> str:
    """The command that looks into every file of the table."""
    place = shlex.quote(str(bundle))
    schema = f"--schema_file {place}/configs/schema.json"
    return f"python -m metaseg_monai check {place}/data {schema} --bundle {place}"


def _page(
    bundle: Path, found: OwnTable, made: NewBundle, planned: Plan, commands: Sequence[str]
) -> str:
    def row(*cells: Any) -> str:
        return "| " + " | ".join(escape_markdown(str(cell)) for cell in cells) + " |"

    fields = made.schema.fields
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
        "`data/table.csv`, with all columns, also those that tell patients apart: remove these",
        "before you give the bundle to anybody. The images stay where they are. Their licence:",
        "`data_license.txt`.",
        "",
        "| inferred | value | why |",
        "| --- | --- | --- |",
        *(row(what, value, why) for what, (value, why) in made.inferred.items()),
        "",
        "## Metadata",
        "",
        "| field | kind | expected |",
        "| --- | --- | --- |",
        *(row(one.name, one.kind, one.expected()) for one in fields),
        "",
        "All may be unknown. Review provenance and availability in `configs/schema.json`."
        if fields
        else "None: the variants `none` and `se` can be trained.",
        "",
    ]
    if made.left_out:
        told = (f"- {escape_markdown(f'{one}: {why}')}" for one, why in made.left_out.items())
        lines += ["Left out:", "", *told, ""]
    lines += [
        "## Plan",
        "",
        "| fact | value | why |",
        "| --- | --- | --- |",
        *(
            row(
                what, fact.value if what != "normalisation" else fact.value["_target_"], fact.reason
            )
            for what, fact in planned.facts.items()
        ),
        "",
        "## Commands",
        "",
        "In the folder that holds this one:",
        "",
        "```",
        *commands,
        "```",
        "",
    ]
    return "\n".join(lines)
