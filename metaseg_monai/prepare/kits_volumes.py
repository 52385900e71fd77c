"""A KiTS folder as a table of whole volumes, for 3D networks."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.errors import DataError
from metaseg_monai.metadata.fields import MetadataWarning, listing
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.prepare.clinical import SizeSource, check_columns, scan_clinical
from metaseg_monai.prepare.kits_find import find_kits
from metaseg_monai.prepare.splits import divide
from metaseg_monai.tables.clinical import ClinicalTable
from metaseg_monai.tables.table import CaseTable, refuse, warn_never_given

SHOWN_CASES = 5


def kits_volumes(
    source: str | Path,
    schema: MetadataSchema,
    splits: str | Path | None = None,
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    clinical: str | Path | None = None,
    size: SizeSource = "radiographic",
) -> CaseTable:
    """One item for each case, the volumes as they are; the same split as `prepare_kits21` makes.

    Args:
        source: folder of the download, see `find_kits`.
        schema: of the metadata, columns of the clinical table.
        splits: official lists, see `read_splits`; cases in none of them are left out.
        train: share of the patients, where there are no lists; `val` and `test` likewise.
        val: share of the validation patients.
        test: share of the test patients.
        seed: of the division into splits.
        clinical: clinical table, JSON or CSV; by default the kits.json of the source.
        size: the measurement that becomes `tumour_size_mm`.

    Raises:
        DataError: the source or a list is wrong, a case lacks a file, there is no clinical table,
            it lacks a column of the schema, has a row for none of the cases, repeats a case, or
            has a value that is none or that the schema refuses; names every case.

    Warns:
        MetadataWarning: cases without a row are taken as unknown, or no training case has a value
            of a field; names cases and fields.
    """
    folder = find_kits(source)
    table = Path(clinical) if clinical is not None else folder.clinical
    if table is None:
        raise DataError(f"{source}: no kits.json found; name the clinical table (clinical)")
    patients = scan_clinical(table, size)
    check_columns(table, patients, schema.names, size)
    split_of = divide(folder.names, splits, (train, val, test), seed)
    problems = [str(problem) for problem in folder.problems if problem.case in split_of]
    chosen = [case for case in folder.cases if case.case in split_of]
    rowless = _without_row(table, [case.case for case in chosen], patients)
    rows: list[dict[str, Any]] = []
    for case in chosen:
        wrong = patients.problems.get(case.case, [])
        if wrong:
            problems += [f"{case.case}: {found}" for found in wrong]
            continue
        row = patients.rows.get(case.case, {})
        metadata = {name: row.get(name, "") for name in schema.names}
        problems += schema.problems(metadata, case.case)
        rows.append(
            {
                "image": str(case.image),
                "label": str(case.label),
                "case": case.case,
                "group": case.case,
                "metadata": metadata,
                "split": split_of[case.case],
                "columns": row,
            }
        )
    refuse(table, problems)
    if rowless:
        warnings.warn(
            f"{table}: no row for {listing(rowless)}; their {', '.join(schema.names)} are taken "
            "as unknown",
            MetadataWarning,
            stacklevel=2,
        )
    warn_never_given(table, rows, schema)
    return CaseTable(table, tuple(rows))


def _without_row(table: Path, cases: Sequence[str], patients: ClinicalTable) -> list[str]:
    """The cases that the clinical table lacks; refused where these are all."""
    known = {*patients.rows, *patients.problems}
    rowless = [case for case in cases if case not in known]
    if rowless and len(rowless) == len(cases):
        raise DataError(
            f"{table}: no row for any of {len(cases)} cases ({listing(cases, SHOWN_CASES)}); it "
            f"has rows for {listing(patients.rows, SHOWN_CASES)}; name the cases in it (case_id) "
            "as their folders, or give another table (clinical)"
        )
    return rowless
