"""What a preparation found and wrote, in words."""

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from metaseg_monai.errors import DataError
from metaseg_monai.files import OLD, folder_beside, remove_leftovers, write_table
from metaseg_monai.prepare.found import (
    OWN_COLUMNS,
    FoundCase,
    FoundFolder,
    listed,
    problem_of,
    relative,
    without_namesakes,
)
from metaseg_monai.prepare.masks import MaskRule, ThresholdMasks
from metaseg_monai.prepare.ome import with_ome
from metaseg_monai.prepare.problems import Prepared, Problem, problem_rows
from metaseg_monai.prepare.splits import Shares, with_groups, with_splits
from metaseg_monai.prepare.write_case import WrittenCase, notes_on, without_copies, write_case
from metaseg_monai.tables.columns import SPLITS

PREVIEW_ROWS = 5
MOST_VALUES = 12
SHOWN_PROBLEMS = 10


def counts(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """One line a split: cases, groups, and how often each value of a column occurs.

    Columns of more than 12 values in all are told by their number of values.
    """
    lines = []
    for split in SPLITS:
        of_split = [row for row in rows if row["split"] == split]
        if not of_split:
            continue
        told = [f"{len(of_split)} cases", f"{len({row['group'] for row in of_split})} groups"]
        for name in rows[0]:
            if name not in OWN_COLUMNS:
                told.append(f"{name}: {_values([row[name] for row in of_split])}")
        lines.append(f"  {split}: {'; '.join(told)}")
    return lines


def empty_splits(rows: Sequence[Mapping[str, str]], shares: Sequence[float]) -> list[str]:
    """A warning where a split that was to have cases has none.

    Args:
        rows: as they stand in table.csv.
        shares: of train, val and test.
    """
    found = {row["split"] for row in rows}
    lacking = [
        split
        for split, share in zip(SPLITS, shares, strict=True)
        if share > 0 and split not in found
    ]
    if not rows or not lacking:
        return []
    groups = len({row["group"] for row in rows})
    return [
        f"WARNING: no case in {' and '.join(lacking)}: {len(rows)} cases are {groups} "
        f"group{'' if groups == 1 else 's'}; mend the split column, or name columns that divide "
        "them further with --group"
    ]


def preview(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The first rows as they stand in table.csv."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[:PREVIEW_ROWS])
    more = len(rows) - PREVIEW_ROWS
    return [*stream.getvalue().splitlines(), *([f"... and {more} more rows"] if more > 0 else [])]


def told_problems(problems: Sequence[Problem]) -> list[str]:
    """The first problems, one line each, and how many more there are."""
    lines = [f"  problem: {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    more = len(problems) - SHOWN_PROBLEMS
    return [*lines, *([f"  and {more} more problems"] if more > 0 else [])]


def told_remarks(remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """Remarks with the cases that they are about."""
    return [
        f"  {remark}: {len(cases)} case{'' if len(cases) == 1 else 's'} ({listed(cases)})"
        for remark, cases in remarks.items()
    ]


def _values(cells: Sequence[str]) -> str:
    found = Counter(cell or "missing" for cell in cells)
    if len(found) > MOST_VALUES:
        return f"{len(found)} values"
    return ", ".join(f"{value} {count}" for value, count in sorted(found.items()))


# A prepared folder: complete or not at all, and made anew only by the command that made it.

SETTINGS_FILE = "prepared.json"
WRITTEN = ("images", "labels", "instances", "table.csv", "problems.csv", SETTINGS_FILE)
Made = TypeVar("Made")


def check_output(output: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds anything but what the same command wrote.

    Args:
        output: new or empty folder, or one prepared with the same settings.
        settings: what decides its content, as JSON can hold it.

    Raises:
        DataError: the folder holds other files, or was prepared with other settings.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise DataError(f"{output}: a file, expected a new or empty folder; give another")
    names = sorted(path.name for path in output.iterdir())
    foreign = [name for name in names if name not in WRITTEN]
    record = output / SETTINGS_FILE
    if foreign or (names and not record.is_file()):
        raise DataError(
            f"{output}: holds {', '.join((foreign or names)[:5])}; give a new or empty folder, or "
            "one made by this very command, which is then made anew"
        )
    if names:
        try:
            made = json.loads(record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{record}: damaged ({error}); give another folder") from error
        asked = json.loads(json.dumps(settings))
        made = made if isinstance(made, dict) else {}
        names = [name for name in {**made, **asked} if made.get(name) != asked.get(name)]
        if names:
            was, now = ({name: one.get(name) for name in names} for one in (made, asked))
            raise DataError(
                f"{output}: was prepared with {was}, asked for {now}; give another folder, or "
                "remove it first"
            )


def write_folder(output: Path, settings: Mapping[str, Any], write: Callable[[Path], Made]) -> Made:
    """Write everything beside `output`, then put it in its place.

    Args:
        output: folder to make; see `check_output`.
        settings: kept in it.
        write: fills a given folder.

    Returns:
        What `write` returned.

    Raises:
        DataError: the folder cannot be written; what was there before is as it was.
    """
    output = output.resolve()  # "." has no name to write beside
    partial = folder_beside(output)
    try:
        partial.mkdir(parents=True)
        made = write(partial)
        text = json.dumps(settings, indent=1) + "\n"
        (partial / SETTINGS_FILE).write_text(text, encoding="utf-8")
        check_output(output, settings)  # it may have been filled meanwhile
        _put(partial, output)
    except OSError as error:
        raise DataError(
            f"{output}: cannot be written ({error}); mend that and give the command again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def sweep_leftovers(output: Path) -> list[str]:
    """Remove what killed runs left beside a folder; tell what may belong to a run that goes on.

    Args:
        output: the folder that they wrote.

    Returns:
        In words, what was removed or stays.
    """
    removed, kept = remove_leftovers(output.resolve())
    may_be_left = "was left by a run that was ended, if none writes it just now; remove it"
    return [f"removed {path}, left by a run that was ended" for path in removed] + [
        f"{path} {may_be_left}" for path in kept
    ]


def _put(partial: Path, output: Path) -> None:
    """Put the new folder in the place of an old one, which is removed last."""
    old = folder_beside(output, OLD)
    if output in (Path.cwd(), *Path.cwd().parents):
        _fill(partial, output, old)
    else:
        if output.exists():
            output.rename(old)
        try:
            partial.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(partial: Path, output: Path, old: Path) -> None:
    """Exchange the content of a folder that someone stands in, and would lose by a new one."""
    old.mkdir()
    moves = [(path, old / path.name) for path in output.iterdir()]
    moves += [(path, output / path.name) for path in partial.iterdir()]
    done: list[tuple[Path, Path]] = []
    try:
        for path, target in moves:
            path.rename(target)
            done.append((path, target))
    except OSError:
        for path, target in reversed(done):
            target.rename(path)
        raise


# From the cases of any source to a folder with a table that training reads.


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
