"""Which cases of a prediction are whose, where several processes that never meet share them."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import PREFIX, read_json, write_json
from metaseg_monai.images.read import volumes_of
from metaseg_monai.owners import LOOKING, owned
from metaseg_monai.rows import PROBLEMS

SHARDS, RECORD = "shards", "shard.json"
FORM = re.compile(r"(\d{1,9})/(\d{1,9})")


class Shard:
    """One of n parts of the cases of a prediction, counted from 0; without a number all of them.

    Every n-th case is one's, in the order of the source, volumes whole: so parts are disjoint and
    together complete, whatever n is. Masks of all parts go into one folder; what a part notes of
    them goes into ``shards/03-of-16`` in it: its list of masks, its problems, and ``shard.json``,
    {shard, of, cases, metadata, weights_sha256, settings, plan, command, began, done}, where `plan`
    is a digest of those before it but the number. ``shards/cases-<digest>.json`` has the names of
    all cases, each with those of its masks. `metaseg_monai.sharing.merge` reads them.

    Args:
        given: "3/16", or a mapping with that as `part` and the `command` that makes this part;
            None for all cases.
        output: folder of the masks.

    Attributes:
        number: of the part, from 0; None for all.
        of: how many parts there are.
        plan: what all parts have to have in common, known when it has begun.
        folder: of what this process alone writes beside masks: that of the part, or `output`.

    Raises:
        ConfigError: it is no part.

    >>> shard = Shard("1/3", "masks")
    >>> [item["case"] for item in shard.own([{"case": name} for name in "abcdefg"])]
    ['b', 'e']
    >>> shard.folder.as_posix()
    'masks/shards/1-of-3'
    """

    def __init__(self, given: str | Mapping[str, str] | None, output: str | Path) -> None:
        part = given.get("part") if isinstance(given, Mapping) else given
        self.command = given.get("command", "") if isinstance(given, Mapping) else ""
        self.output = Path(output)
        self.number: int | None = None
        self.of = 1
        if part is not None:
            self.number, self.of = _parsed(part)
        self.folder = self.output
        if self.number is not None:
            width = len(str(self.of - 1))
            self.folder /= f"{SHARDS}/{self.number:0{width}d}-of-{self.of}"
        self.cases: dict[str, list[str]] = {}  # masks of each case or volume, of all parts
        self.plan: str | None = None
        self._metadata = ""

    @property
    def is_whole(self) -> bool:
        """Whether all cases are this process's."""
        return self.number is None

    @property
    def elsewhere(self) -> int:
        """How many cases are those of other parts."""
        return len(self.cases) - len(range(self.number or 0, len(self.cases), self.of))

    def own(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The items of this part, in their order.

        Args:
            items: of all parts, as `find_cases` gives them.
        """
        units: dict[str, list[Mapping[str, Any]]] = {}
        for item in items:
            units.setdefault(str(item.get("volume", item["case"])), []).append(item)
        if self.number is None:
            return [dict(item) for item in items]
        self.cases = {name: _masks_of(unit) for name, unit in units.items()}
        self._metadata = values_sha256([item.get("metadata") for item in items])
        mine = list(units)[self.number :: self.of]
        return [dict(item) for name in mine for item in units[name]]

    def begin(self, weights_sha256: str | None, settings: Mapping[str, Any]) -> None:
        """Note what this part is about to do, once nobody else is at work on its cases.

        Raises:
            DataError: another process predicts the whole of them, or other parts of them.
        """
        for folder in others_of(self):
            refuse_owned(folder)
        if self.number is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self.folder.glob(f"{PREFIX}*"):
            part.unlink(missing_ok=True)
        (self.folder / PROBLEMS).unlink(missing_ok=True)  # of a run before this one
        cases = f"cases-{values_sha256(list(self.cases.items()))[:12]}.json"
        if not (self.folder.parent / cases).is_file():
            write_json(self.folder.parent / cases, self.cases, indent=None)
        shared = {
            "of": self.of,
            "cases": cases,
            "metadata": self._metadata,
            "weights_sha256": weights_sha256,
            "settings": json.loads(json.dumps(settings, default=str)),
        }
        self.plan = values_sha256(shared)[:16]
        self._note = {"shard": self.number, **shared, "plan": self.plan, "command": self.command}
        self._note |= {"began": time.time(), "done": False}
        write_json(self.folder / RECORD, self._note)

    def end(self) -> None:
        """Note that all of this part was done, or stands among its problems."""
        if self.number is not None:
            write_json(self.folder / RECORD, {**self._note, "done": True})


def _parsed(text: object) -> tuple[int, int]:
    found = FORM.fullmatch(str(text).strip())
    number, of = map(int, found.groups()) if found else (0, 0)
    if number >= of:
        raise ConfigError(
            f"--shard {text}: expected i/n, part i of n, with i from 0 to n - 1, as 0/16"
        )
    return number, of


def slurm_shard(environment: Mapping[str, str] = os.environ) -> str | None:
    """The part that a task of a Slurm array is, which tells it by the environment.

    Raises:
        ConfigError: the numbers of the array are no range.

    >>> slurm_shard({"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10",
    ...              "SLURM_ARRAY_TASK_COUNT": "4"})
    '2/4'
    """
    names = ("ID", "MIN", "COUNT", "STEP")
    told = [environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in names]
    if not all(one.isdigit() for one in told[:3]):
        return None
    task, first, count = map(int, told[:3])
    step = int(told[3]) if told[3].isdigit() and told[3] != "0" else 1
    number, rest = divmod(task - first, step)
    if rest or not 0 <= number < count:
        raise ConfigError(
            f"task {task} is none of {count} consecutive ones from {first} of this Slurm array; "
            "say which part it is, as --shard 0/16, or --shard 0/1 for all cases"
        )
    return f"{number}/{count}"


def values_sha256(content: Any) -> str:
    """The SHA-256 of values, as text where JSON has none of their kind."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _masks_of(unit: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the masks that items of one case or volume get."""
    try:
        volumes = volumes_of(unit)
    except DataError:  # told by whoever reads it
        volumes = {str(item["case"]): str(item["volume"]) for item in unit}
    return list(dict.fromkeys(volumes.get(str(one["case"]), str(one["case"])) for one in unit))


def shard_folders(output: Path) -> Iterator[tuple[Path, int, int]]:
    """The folders of the parts that were begun in an output, with number and how many there are."""
    for folder in sorted(output.glob(f"{SHARDS}/*-of-*")):
        number, _, of = folder.name.partition("-of-")
        if number.isdigit() and of.isdigit() and folder.is_dir():
            yield folder, int(number), int(of)


def shard_note(folder: Path) -> dict[str, Any] | None:
    """What a part notes of itself; None where it did not begin.

    Raises:
        DataError: the note is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        note = dict(read_json(path))
        known = [note[name] for name in ("of", "cases", "plan", "command", "began", "done")]
        note["masks"] = dict(read_json(folder.parent / str(known[1])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); run this part again") from error
    return note


def others_of(shard: Shard) -> Iterator[Path]:
    """The folders whose owners would write the masks of this part, too."""
    if shard.number is not None:
        yield shard.output
    for folder, _, of in shard_folders(shard.output):
        if shard.number is None or of != shard.of:
            yield folder


def refuse_owned(folder: Path) -> None:
    """Refuse to go on where another process owns a folder.

    Raises:
        DataError: one does; names it.
    """
    with owned(folder, LOOKING):
        pass
