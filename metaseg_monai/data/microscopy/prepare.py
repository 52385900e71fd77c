"""From the cases of any source to a folder with a table that training reads."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metaseg_monai.data.kits.find import Problem, problem_rows
from metaseg_monai.data.kits.prepare import Prepared
from metaseg_monai.data.microscopy.cases import FoundCase, FoundFolder, relative, without_namesakes
from metaseg_monai.data.microscopy.copies import notes_on, without_copies
from metaseg_monai.data.microscopy.divide import Shares, with_groups, with_splits
from metaseg_monai.data.microscopy.folder import check_output, write_folder
from metaseg_monai.data.microscopy.masks import MaskRule
from metaseg_monai.data.microscopy.ome import OME_COLUMNS, read_ome
from metaseg_monai.data.microscopy.tell import counts, preview, told_problems, told_remarks
from metaseg_monai.data.microscopy.write_case import WrittenCase, write_case
from metaseg_monai.data.writers import write_table
from metaseg_monai.errors import DataError


@dataclass(frozen=True)
class PrepareOptions:
    """What all layouts have in common.

    Attributes:
        group: columns whose values make the group, such as ("plate", "well").
        shares: of the groups in train, val and test, see `with_splits`.
        seed: of the division into splits.
        grey: colours become one channel, see `write_case`.
        axes: of TIFF files, see `write_case`.
        ome: OME metadata become columns, see `read_ome`.
        dry_run: read no pixels and write nothing.
    """

    group: tuple[str, ...] = ()
    shares: Shares = (0.7, 0.15, 0.15)
    seed: int = 0
    grey: bool = False
    axes: str | None = None
    ome: bool = False
    dry_run: bool = False


def prepare_found(
    found: FoundFolder,
    output: str | Path,
    rule: MaskRule | None,
    options: PrepareOptions,
    settings: Mapping[str, Any],
) -> Prepared:
    """Check, divide and write the cases of a source; problems leave out their cases only.

    Writes images/, labels/, instances/ where objects have numbers, table.csv, prepared.json (the
    settings) and, where there are any, problems.csv. Files are copied byte for byte, unless an
    option converts them. Cases with the same pixels in different splits are problems, in the same
    split they are told.

    Args:
        found: the cases.
        output: new or empty folder, or one prepared with the same settings, which is made anew.
        rule: how masks are read; None for a folder without masks.
        options: see `PrepareOptions`.
        settings: of the layout, kept with the options.

    Returns:
        The table (None in a dry run or without any case), the summary and the problems.

    Raises:
        DataError: an option is wrong, or the output lies in the source, or cannot be taken or
            written.
    """
    output = Path(output)
    kept = {**settings, **asdict(options)}
    del kept["dry_run"]
    if found.root.resolve() in (output.resolve(), *output.resolve().parents):
        raise DataError(f"{output}: lies in the source {found.root}; give a folder outside of it")
    check_output(output, kept)
    cases, problems = without_namesakes(found.cases, found.root)
    problems = [*found.problems, *problems]
    if options.ome:
        cases, more = _with_ome(cases, found.root)
        problems += more
    cases, more = with_groups(cases, options.group)
    problems += more
    cases, more, remarks = with_splits(cases, options.shares, options.seed)
    problems += more
    notes: dict[str, list[str]] = {}
    plain = [*found.remarks, *remarks]
    if cases and all(case.group == case.case for case in cases):
        plain.append(
            "every image is its own group: where several show one well, patient or photograph, "
            "name what tells it, so that it stays in one split"
        )
    if options.dry_run:
        rows = [_row(case, _planned(case, found.root, rule), cases) for case in cases]
        head = f"dry run: {len(rows)} cases, {len(problems)} problems; nothing is written to"
        lines = [f"{head} {output}, and pixels were not read", *preview(rows)]
        return _told(None, lines, rows, plain, notes, problems)

    def write(folder: Path) -> list[dict[str, str]]:
        nonlocal notes
        written = _write_cases(cases, rule, options, folder, found.root, problems)
        written = without_copies(written, folder, found.root, problems)
        notes = notes_on(written)
        known = [one.found for one in written]
        rows = [_row(one.found, one.files, known) for one in written]
        problems.sort(key=lambda problem: (problem.case, problem.file))
        if rows:
            write_table(rows, folder / "table.csv")
        if problems:
            write_table(problem_rows(problems), folder / "problems.csv")
        return rows

    rows = write_folder(output, kept, write)
    table = output / "table.csv" if rows else None
    head = f"{output}: {len(rows)} cases prepared, {len(problems)} problems"
    return _told(table, [head], rows, plain, notes, problems)


def _with_ome(cases: Sequence[FoundCase], root: Path) -> tuple[list[FoundCase], list[Problem]]:
    """Add the columns of OME metadata; a cell of the same name stays, and numbers must agree."""
    added, problems = [], []
    for case in cases:
        try:
            told = read_ome(case.images)
        except DataError as error:
            problems.append(_problem(case, case.images[0], root, error))
            continue
        columns = dict(case.columns)
        for name in OME_COLUMNS:
            cell, value = columns.get(name, ""), told[name]
            columns[name] = cell or value
            if cell and value and name != "channel" and not _same_number(cell, value):
                found = f"{name} is {cell!r}, its OME metadata have {value}"
                file = relative(case.images[0], root)
                problems.append(Problem(case.case, file, found, "mend the one or the other"))
                break
        else:
            added.append(replace(case, columns=columns))
    return added, problems


def _same_number(one: str, other: str) -> bool:
    try:
        return abs(float(one) - float(other)) <= 1e-3 * abs(float(other))
    except ValueError:
        return False


def _problem(case: FoundCase, path: Path, root: Path, error: DataError) -> Problem:
    """The problem of a case, at the file that the message begins with."""
    named = [file for file in (*case.images, *case.masks) if str(error).startswith(f"{file}:")]
    file = named[0] if named else path
    return Problem.of_error(case.case, relative(file, root), file, error)


def _write_cases(
    cases: Sequence[FoundCase],
    rule: MaskRule | None,
    options: PrepareOptions,
    folder: Path,
    root: Path,
    problems: list[Problem],
) -> list[WrittenCase]:
    written = []
    for case in tqdm(cases, desc="prepare", unit="case", disable=None):
        try:
            written.append(write_case(case, rule, folder, options.grey, options.axes))
        except DataError as error:
            problems.append(_problem(case, case.images[0], root, error))
    return written


def _row(case: FoundCase, files: Mapping[str, str], cases: Sequence[FoundCase]) -> dict[str, str]:
    """A row of table.csv, with the columns of all cases."""
    names = dict.fromkeys(name for other in cases for name in other.columns)
    row = {name: files[name] for name in ("image", "label") if name in files}
    row |= {name: case.columns.get(name, "") for name in names}
    if "instances" in files:
        row["instances"] = files["instances"]
    return {**row, "group": case.group, "split": case.split}


def _planned(case: FoundCase, root: Path, rule: MaskRule | None) -> dict[str, str]:
    """The source files of a case, as a dry run shows them."""
    files = {"image": ";".join(relative(path, root) for path in case.images)}
    if rule is not None:
        more = f" and {len(case.masks) - 1} more" if len(case.masks) > 1 else ""
        files["label"] = relative(case.masks[0], root) + more
    return files


def _told(
    table: Path | None,
    lines: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    remarks: Sequence[str],
    notes: Mapping[str, Sequence[str]],
    problems: Sequence[Problem],
) -> Prepared:
    text = [*lines, *counts(rows), *(f"  {remark}" for remark in remarks)]
    text += [*told_remarks(notes), *told_problems(problems)]
    return Prepared(table, "\n".join(text), [str(problem) for problem in problems])
