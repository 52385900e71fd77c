"""A KiTS folder as a table of whole volumes, for 3D networks."""

from pathlib import Path

from metaseg_monai.data.kits.clinical import SizeSource, check_columns, scan_clinical
from metaseg_monai.data.kits.find import find_kits
from metaseg_monai.data.kits.splits import divide
from metaseg_monai.data.table import CaseTable, refuse
from metaseg_monai.errors import DataError
from metaseg_monai.metadata import MetadataSchema


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
            it lacks a column of the schema, repeats a case, or has a value that is none or that
            the schema refuses; names every case.
    """
    folder = find_kits(source)
    table = Path(clinical) if clinical is not None else folder.clinical
    if table is None:
        raise DataError(f"{source}: no kits.json found; name the clinical table (clinical)")
    patients = scan_clinical(table, size)
    check_columns(table, patients, schema.names, size)
    split_of = divide(folder.names, splits, (train, val, test), seed)
    problems = [str(problem) for problem in folder.problems if problem.case in split_of]
    rows = []
    for case in folder.cases:
        if case.case not in split_of:
            continue
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
    return CaseTable(table, tuple(rows))
