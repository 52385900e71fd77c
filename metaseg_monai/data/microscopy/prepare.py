"""From the cases of any source to a folder with a table that training reads."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metaseg_monai.data.kits.find import Problem, problem_rows
from metaseg_monai.data.kits.prepare import Prepared
from metaseg_monai.data.microscopy.cases import (
    FoundCase,
    FoundFolder,
    problem_of,
    relative,
    without_namesakes,
)
from metaseg_monai.data.microscopy.copies import notes_on, without_copies
from metaseg_monai.data.microscopy.divide import Shares, with_groups, with_splits
from metaseg_monai.data.microscopy.folder import check_output, sweep_leftovers, write_folder
from metaseg_monai.data.microscopy.masks import MaskRule, ThresholdMasks
from metaseg_monai.data.microscopy.ome_cases import with_ome
from metaseg_monai.data.microscopy.tell import (
    counts,
    empty_splits,
    preview,
    told_problems,
    told_remarks,
)
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

    Raises:
        DataError: a value is of another type.
    """

    group: tuple[str, ...] = ()
    shares: Shares = (0.7, 0.15, 0.15)
    seed: int = 0
    grey: bool = False
    axes: str | None = None
    ome: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not (self.axes is None or isinstance(self.axes, str)):
            raise DataError(f"axes={self.axes!r}: expected letters, such as CYX")
        if isinstance(self.group, str) or not all(isinstance(name, str) for name in self.group):
            raise DataError(f"group={self.group!r}: expected names of columns")
        for name in ("grey", "ome", "dry_run"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(f"{name}={getattr(self, name)!r}: expected True or False")


def prepare_found(
    found: FoundFolder,
    output: str | Path,
    rule: MaskRule | None,
    options: PrepareOptions,
    settings: Mapping[str, Any],
) -> Prepared:
    """Check, divide and write the cases of a source; problems leave out their cases only.

    Writes images/, labels/, instances/ where objects have numbers, table.csv, prepared.json (the
    settings and the source) and, where there are any, problems.csv. Files are copied byte for
    byte, unless an option converts them. Cases with the same pixels in different splits are
    problems, in the same split they are told.

    Args:
        found: the cases.
        output: new or empty folder, or one prepared from the same source with the same settings,
            which is made anew.
        rule: how masks are read; None for a folder without masks.
        options: see `PrepareOptions`.
        settings: of the layout, kept with the options.

    Returns:
        The table (None in a dry run or without any case), the summary and the problems.

    Raises:
        DataError: an option is wrong, the output lies in the source or cannot be taken or written,
            or all masks become empty by a threshold.
    """
    output = Path(output)
    kept = {"source": str(found.root.resolve()), **settings, **asdict(options)}
    del kept["dry_run"]
    if found.root.resolve() in (output.resolve(), *output.resolve().parents):
        raise DataError(f"{output}: lies in the source {found.root}; give a folder outside of it")
    check_output(output, kept)
    cases, problems = without_namesakes(found.cases, found.root)
    problems = [*found.problems, *problems]
    if options.ome:
        cases, more = with_ome(cases, found.root)
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
        plain += _lacking(rows, rule, options)
        head = f"dry run: {len(rows)} cases, {len(problems)} problems; nothing is written to"
        lines = [f"{head} {output}, and pixels were not read", *preview(rows)]
        return _told(None, lines, rows, plain, notes, problems)

    def write(folder: Path) -> list[dict[str, str]]:
        nonlocal notes
        written = _write_cases(cases, rule, options, folder, found.root, problems)
        _check_threshold(written, rule)
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

    plain += sweep_leftovers(output)
    rows = write_folder(output, kept, write)
    plain += _lacking(rows, rule, options)
    table = output / "table.csv" if rows else None
    head = f"{output}: {len(rows)} cases prepared, {len(problems)} problems"
    return _told(table, [head], rows, plain, notes, problems)


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
            problems.append(problem_of(case, case.images[0], root, error))
    return written


def _check_threshold(written: Sequence[WrittenCase], rule: MaskRule | None) -> None:
    """Refuse a threshold that no mask reaches, though some are not black."""
    peaks = [one.peak for one in written if one.peak is not None]
    if isinstance(rule, ThresholdMasks) and 0 < max(peaks, default=0) <= rule.above:
        raise DataError(
            f"threshold={rule.above:g}: all {len(peaks)} masks become empty, as their largest "
            f"value is {max(peaks):g}; give a threshold below it"
        )


def _lacking(
    rows: Sequence[Mapping[str, str]], rule: MaskRule | None, options: PrepareOptions
) -> list[str]:
    """A warning of empty splits; images without masks, which are predicted on, need none."""
    return [] if rule is None else empty_splits(rows, options.shares)


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
