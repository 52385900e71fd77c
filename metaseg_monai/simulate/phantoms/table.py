"""The phantoms as a bundle's default data: volumes, their slices and the table, made once."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from metaseg_monai.errors import DataError
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.prepare.kits import prepare_kits21
from metaseg_monai.prepare.kits_case import SliceRule
from metaseg_monai.simulate.generated import ensure_generated, write_generated
from metaseg_monai.simulate.phantoms.scans import check_settings, write_phantoms
from metaseg_monai.tables.columns import ColumnMap
from metaseg_monai.tables.table import CaseTable, read_table

FIRST_CASE = {"train": 0, "val": 10000, "test": 20000}  # more training cases: the same test cases
COMMANDS = (
    "python -m metaseg_monai generate kits21-phantom --output VOLUMES, then "
    "python -m metaseg_monai prepare kits21 --source VOLUMES --output"
)


def generate_phantom_slices(
    output: str | Path,
    train: int = 16,
    val: int = 4,
    test: int = 4,
    matrix: int = 96,
    seed: int = 0,
    slice_rule: SliceRule = "mass",
) -> Path:
    """Write CT phantoms, and the slices that `prepare_kits21` makes of them.

    Args:
        output: a new or empty folder, or one made with these arguments.
        train: number of training patients; so `val` and `test`.
        val: number of validation patients.
        test: number of test patients.
        matrix: pixels a side, see `generate_phantoms`.
        seed: of the phantoms.
        slice_rule: which slices become rows, see `prepare_kits21`; "all" for volume scores.

    Returns:
        The path of the table.

    Raises:
        DataError: the folder holds other files, an argument is out of its range, or phantoms
            cannot be prepared.
    """
    settings: dict[str, Any] = {
        "train": train,
        "val": val,
        "test": test,
        "matrix": matrix,
        "seed": seed,
    }
    check_settings(settings)

    settings["slice_rule"] = slice_rule
    write_generated(Path(output), settings, partial(_write_slices, settings=settings), once=True)
    return Path(output) / "table.csv"


def phantom_table(
    dataset_dir: str | Path,
    default_dir: str | Path,
    schema: MetadataSchema,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    train: int = 16,
    val: int = 4,
    test: int = 4,
    matrix: int = 96,
    seed: int = 0,
    slice_rule: SliceRule = "mass",
) -> CaseTable:
    """The table of slices in a folder; a bundle's empty default folder is filled with phantoms.

    Args:
        dataset_dir: folder that training reads, made by `prepare_kits21`; a real data set is given
            by its folder, and the arguments below do not count.
        default_dir: the bundle's own folder for generated data.
        schema: of the metadata.
        columns: see `read_table`.
        train: number of training patients; so `val` and `test`.
        val: number of validation patients.
        test: number of test patients.
        matrix: pixels a side, see `generate_phantoms`.
        seed: of the phantoms.
        slice_rule: which slices become rows, see `prepare_kits21`; "all" for volume scores.

    Raises:
        DataError: another folder is missing or empty, the default folder holds data generated
            with other settings, an argument is out of its range, phantoms cannot be prepared, or
            the table has problems.
    """
    counts = {"train": train, "val": val, "test": test}
    settings: dict[str, Any] = {**counts, "matrix": matrix, "seed": seed}
    check_settings(settings)
    settings["slice_rule"] = slice_rule
    ensure_generated(
        Path(dataset_dir),
        Path(default_dir),
        settings,
        partial(_write_slices, settings=settings),
        command=f"{COMMANDS} {dataset_dir}",
    )
    return read_table(dataset_dir, schema, columns)


def _write_slices(folder: Path, settings: Mapping[str, Any]) -> None:
    split_of = {
        number: split
        for split, first in FIRST_CASE.items()
        for number in range(first, first + settings[split])
    }
    with TemporaryDirectory(dir=folder.parent, prefix=".volumes-") as beside:
        volumes, lists = Path(beside) / "volumes", Path(beside) / "splits.json"
        cases = write_phantoms(volumes, list(split_of), settings["matrix"], settings["seed"])
        lists.write_text(json.dumps(dict(zip(cases, split_of.values(), strict=True))) + "\n")
        rule = settings["slice_rule"]
        made = prepare_kits21(volumes, folder, slice_rule=rule, spacing="native", splits=lists)
        if made.problems:
            raise DataError(
                f"{len(made.problems)} problems of generated phantoms, such as "
                f"{made.problems[0]}; give another seed or matrix"
            )
        volumes.rename(folder / "volumes")
