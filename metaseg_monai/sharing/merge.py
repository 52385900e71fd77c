"""See that what the shards of a prediction made is complete, and make one list of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.errors import DataError, Problem, listing, typed
from metaseg_monai.evaluation import SaveObjects
from metaseg_monai.evaluation.object_table import OBJECTS, WELLS
from metaseg_monai.evaluation.predicted import Listed, MaskRecord, told_empty
from metaseg_monai.evaluation.shards import SHARDS, refuse_owned, shard_folders, shard_note
from metaseg_monai.owners import owned
from metaseg_monai.rows import PROBLEMS, read_lines, write_problems

SHOWN = 10  # cases of a shard
IN_COMMON: Mapping[str, str] = {  # of the notes of all shards
    "cases": "with other cases in the source",
    "metadata": "with other metadata",
    "weights_sha256": "by other weights",
    "settings": "with other settings",
}


@dataclass(frozen=True)
class Merged:
    """The masks of all shards.

    Attributes:
        folder: of the masks, with the one list of them.
        cases: a row for each case: its name and the file of its mask.
        problems: of the cases that were left out, all in ``problems.csv``.
        empty: the cases whose mask has no foreground.
    """

    folder: Path
    cases: pd.DataFrame
    problems: Sequence[Problem] = ()
    empty: Sequence[str] = ()

    def __str__(self) -> str:
        told = told_empty(self.empty, len(self.cases))
        return f"{len(self.cases)} masks, each once: {self.folder}{told}"


@typed
def merge(output: str | Path) -> Merged:
    """See that what the shards of a prediction made is complete, and make one list of it.

    Nothing is predicted. Where a case is missing, is there twice, or was made by other weights or
    with other settings, all such are told with the command that makes them, and no list is written.

    Example:
        python -m metaseg_monai predict runs/me --source scans --output masks --shard 0/2
        python -m metaseg_monai predict runs/me --source scans --output masks --shard 1/2
        python -m metaseg_monai merge masks

    Args:
        output: folder of the masks, that of ``predict --shard i/n --output``. It gets the list
            predicted.sha256, problems.csv of the scans that could not be read, and objects.csv and
            wells.csv where objects were asked for. What the shards noted stays in shards/.

    Returns:
        The cases with their masks, and the problems of those that have none.

    Raises:
        DataError: there are no shards, one is at work, or their masks are not complete.
    """
    output = Path(output)
    with owned(output, "is merging what shards predicted"):
        folders = list(shard_folders(output))
        for folder, *_ in folders:
            refuse_owned(folder)
        notes = {folder: shard_note(folder) for folder, *_ in folders}
        if not any(notes.values()):
            raise DataError(
                f"{output}: holds nothing that shards predicted ({SHARDS}/); give the --output of "
                "predict --shard"
            )
        last = max((note for note in notes.values() if note), key=lambda note: note["began"])
        of_number = {number: folder for folder, number, of in folders if of == last["of"]}
        parts = []
        for number in range(last["of"]):
            folder = of_number.get(number, output)
            parts.append(_Part(output, number, folder, notes.get(folder), last))
        return _merged(output, parts, last)


class _Part:
    """What one shard should have made, and what is there of it.

    Attributes:
        masks: by case.
        problems: of the scans that it left out.
        wrong: what is wrong with it, with the command that makes it; empty where it is complete.
    """

    def __init__(
        self,
        output: Path,
        number: int,
        folder: Path,
        note: Mapping[str, Any] | None,
        last: Mapping[str, Any],
    ) -> None:
        self.masks: dict[str, Listed] = {}
        self.problems: list[Problem] = []
        self.wrong: list[str] = []
        units = list(last["masks"].items())[number :: last["of"]]
        self._command = f"{last['command'] or 'predict'} --shard {number}/{last['of']}"
        if note is None:
            self._say([case for _, cases in units for case in cases], "were not begun")
            return
        if note["plan"] != last["plan"]:
            differs = [what for name, what in IN_COMMON.items() if note[name] != last[name]]
            differs = differs[:1] if note["cases"] != last["cases"] else differs
            cases = [case for _, cases in units for case in cases]
            self._say(cases, f"were predicted {' and '.join(differs)} than those of the last shard")
            return
        there, altered = MaskRecord(output).masks_of(folder), MaskRecord(output).changed_of(folder)
        self.problems = list(_problems_of(folder))
        left_out = {problem.case for problem in self.problems} if note["done"] else set()
        missing, strange, changed = [], [], []
        for unit, cases in units:
            for case in cases:
                if case in there and there[case].told.get("plan") == last["plan"]:
                    self.masks[case] = there[case]
                elif case in there and not {unit, case} & left_out:
                    strange.append(case)
                elif case in altered:
                    changed += altered[case]
                elif not {unit, case} & left_out:
                    missing.append(case)
        self._say(missing, "have no mask, or lack what was written beside it")
        self._say(strange, "have masks by other weights or settings")
        if changed:
            self.wrong.append(
                f"{len(changed)} file(s) were changed since they were predicted "
                f"({listing(changed, SHOWN, str)}): move them away or delete them, then: "
                f"{self._command}"
            )

    def _say(self, cases: Sequence[str], what: str) -> None:
        if cases:
            shown = listing(cases, SHOWN, str)
            self.wrong.append(f"{len(cases)} case(s) {what} ({shown}): {self._command}")


def _merged(output: Path, parts: Sequence[_Part], last: Mapping[str, Any]) -> Merged:
    wrong = [told for part in parts for told in part.wrong] + _twice(parts)
    earlier = MaskRecord(output).masks_of(output)
    found = {case: mask for part in parts for case, mask in part.masks.items()}
    files = {mask.name for mask in found.values()}
    if others := [
        one.name
        for one in earlier.values()
        if one.name not in files and one.told.get("weights_sha256") != last["weights_sha256"]
    ]:
        shown = listing(others, SHOWN, str)
        wrong.append(f"{len(others)} mask(s) by other weights lie here ({shown}): move them away")
    if wrong:
        told = "".join(f"\n  {one}" for one in wrong)
        raise DataError(f"{output}: not complete, and no list was written:{told}")
    problems = list(dict.fromkeys(problem for part in parts for problem in part.problems))
    if not found:
        raise DataError(
            f"none of {len(problems)} item(s) could be done: {listing(problems, 3, str)}"
        )
    order = [case for cases in last["masks"].values() for case in cases if case in found]
    objects = any("rows" in mask.told for mask in found.values())
    record = MaskRecord(output)
    record.take({case: found[case] for case in order}, [OBJECTS, WELLS] if objects else [])
    with record.writing():
        if objects:
            by = last["settings"].get("objects_by") or ()
            SaveObjects(output, by=by, record=record).write(output, [])
        else:
            record.finish()
        record.write_table()
        write_problems(output, problems)
    rows = [{"case": case, "mask": str(record.files[case])} for case in order]
    empty = record.empty
    return Merged(output, pd.DataFrame(rows, columns=["case", "mask"]), problems, empty)


def _twice(parts: Sequence[_Part]) -> list[str]:
    """Files that are the masks of two cases."""
    of_file: dict[str, list[str]] = {}
    for part in parts:
        for case, mask in part.masks.items():
            of_file.setdefault(mask.name, []).append(case)
    return [
        f"{name} is the mask of {' and '.join(cases)}: give them other names"
        for name, cases in of_file.items()
        if len(cases) > 1
    ]


def _problems_of(folder: Path) -> Iterator[Problem]:
    path = folder / PROBLEMS
    if path.is_file():
        _, rows, _ = read_lines(path)
        for _, row in rows:
            yield Problem(*(row.get(name, "") for name in Problem._fields))
