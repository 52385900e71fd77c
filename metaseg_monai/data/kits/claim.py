"""Whose a prepared folder is: one of the same settings, made of cases of this source."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.data.kits.job import RECORDS
from metaseg_monai.data.kits.lock import LOCK
from metaseg_monai.data.kits.summary import listed
from metaseg_monai.errors import DataError
from metaseg_monai.files import replacing

SETTINGS_FILE = "prepared.json"
CLINICAL = "clinical"  # told there, and free to change


def check_claim(
    output: Path, settings: Mapping[str, Any], source: str | Path, cases: Sequence[str]
) -> None:
    """Refuse a folder that holds anything else, and leave it as it is.

    Args:
        output: the folder to prepare.
        settings: as JSON holds them; all must be those of before, but for the clinical table.
        source: folder of the cases, for messages.
        cases: all names of the source; slices of others are not removed.

    Raises:
        DataError: the folder has other files, other settings, or cases that are not in the source.
    """
    record = output / SETTINGS_FILE
    if not record.is_file():
        if output.is_dir() and any(path.name != LOCK for path in output.iterdir()):
            raise DataError(f"{output}: not empty; give another folder, or remove it first")
        return
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{record}: damaged ({error}); give another folder") from error
    asked = json.loads(json.dumps(settings))
    keys = sorted({*asked, *made} - {CLINICAL})
    differing = [key for key in keys if asked.get(key) != made.get(key)]
    if differing:
        told = ", ".join(f"{k} {made.get(k)!r:.60}, now {asked.get(k)!r:.60}" for k in differing)
        raise DataError(f"{output}: was prepared with other settings ({told}); give another")
    done = sorted(path.stem for path in (output / RECORDS).glob("*.json") if path.name[0] != ".")
    foreign = [case for case in done if case not in cases]
    if foreign:
        raise DataError(
            f"{output}: holds {len(foreign)} cases that {source} has not: {listed(foreign)}; give "
            f"another folder (output), put them into the source, or, to drop them, remove their "
            f"files in {output / RECORDS}"
        )


def claim(output: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a checked folder, where it has not these very ones.

    Raises:
        OSError: it cannot be written.
    """
    record = output / SETTINGS_FILE
    text = json.dumps(settings, indent=1) + "\n"
    if not record.is_file() or record.read_text(encoding="utf-8") != text:
        with replacing(record) as part:
            part.write_text(text, encoding="utf-8")
