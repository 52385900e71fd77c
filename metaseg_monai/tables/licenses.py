"""Under which licence data are, what that asks of weights trained on them, and who says so.

A data folder says it in ``license.json`` beside its table, as generators and `prepare` write it:
``{"data": "kits", "license": "cc-by-nc-sa-4.0"}``. A training takes it into the facts of its
weights. ``licenses.json`` beside this file is the table of data sets and licences. It is no legal
advice: whether weights are made of their data in the sense of a licence is not settled, and this
table takes it that they are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError, DataError, did_you_mean
from metaseg_monai.files import read_json, write_json

STATEMENT = "license.json"
UNNAMED = "not named"  # data of which nothing is known
KITS = "kits"
KITS_FILES = ("kits.json", "kits23.json", "kits21.json", "kits19.json")
OF_KITS = re.compile(r"kits ?-?_?(19|21|23)?\b", re.I)
KITS_CASE = re.compile(r"case_\d{5}(\D.*)?")  # as KiTS calls its cases
Statement = dict[str, Any]  # {"data": name, "license": its id on the Hugging Face hub, or None}


@cache
def license_table() -> Mapping[str, Any]:
    """What is known of data sets and licences: {"data": {key: facts}, "licenses": {id: facts}}."""
    table: Mapping[str, Any] = read_json(Path(__file__).with_suffix(".json"))
    return table


def statement(data: str, license_id: str | None = None) -> Statement:
    """Under which licence some data are.

    Args:
        data: key of the table, or the name of other data.
        license_id: of the table; None takes that of a data set of the table, whose owners may have
            stated none: then it is None, and nothing that is made of the data may be shared.

    Raises:
        ConfigError: the licence is none of the table, or is not the data set's own.

    >>> statement("kits")
    {'data': 'kits', 'license': 'cc-by-nc-sa-4.0'}
    >>> statement("deepcrack")
    {'data': 'deepcrack', 'license': None}
    >>> statement("KiTS 23, our slices", "apache-2.0")
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.ConfigError: KiTS 23, our slices is under cc-by-nc-sa-4.0, not \
apache-2.0; leave the licence out, or name other data
    """
    known = license_table()
    own = known["data"].get(KITS if OF_KITS.match(data) else data, {}).get("license")
    given = own if license_id is None else str(license_id).lower()
    if own is not None and given != own:
        raise ConfigError(
            f"{data} is under {own}, not {given}; leave the licence out, or name other data"
        )
    if given is None and data in known["data"]:
        return {"data": data, "license": None}
    if given is None:
        raise ConfigError(
            f"the licence of {data} is not stated; give it (--data_license, or license in "
            "license.json) as the Hugging Face hub calls it, such as cc-by-4.0"
        )
    if given not in known["licenses"]:
        raise ConfigError(
            f"licence {given!r} of {data}: {did_you_mean(given, known['licenses'])} "
            "(as the Hugging Face hub calls them; other, if the owner gave terms of his own)"
        )
    return {"data": data, "license": given}


def save_license(folder: Path, said: Iterable[Statement]) -> None:
    """Write beside a table under which licence its data are; nothing where nobody says."""
    for one in list(said)[:1]:
        write_json(folder / STATEMENT, one)


def data_license(*folders: Path) -> list[Statement]:
    """What folders of data say of their licence, each statement once.

    A download of KiTS, and slices prepared from one, need no statement. Generated data that look
    like it have one.

    Raises:
        DataError: a statement is damaged, or says what the table knows better.
    """
    found = []
    for folder in folders:
        file = folder / STATEMENT
        try:
            content = read_json(file)
            said = [statement(str(content["data"]), content.get("license"))]
        except (FileNotFoundError, NotADirectoryError):
            said = [statement(KITS)] if _is_kits(folder) else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f'{file}: no statement of a licence ({error}); expected {{"data": "our cohort", '
                '"license": "cc-by-4.0"}; mend or remove it'
            ) from error
        found += [one for one in said if one not in found]
    return found


def _is_kits(folder: Path) -> bool:
    if any((folder / name).is_file() for name in KITS_FILES):
        return True
    try:
        made = read_json(folder / "prepared.json")
    except (OSError, ValueError):
        return False
    is_phantom = (folder / "generated.json").is_file()
    return isinstance(made, dict) and made.get("source") == "kits21" and not is_phantom


def weights_license(said: Sequence[Statement]) -> str | None:
    """The licence that weights trained on these data are under; None where it is not known.

    >>> weights_license([statement("generated"), statement("kits")])
    'cc-by-nc-sa-4.0'
    >>> weights_license([{"data": "ours", "license": None}])
    """
    of_each = [license_table()["licenses"].get(one.get("license"), {}) for one in said]
    asked = {one.get("weights") for one in of_each}
    if not asked or None in asked:
        return None
    strict = asked - {"apache-2.0"}
    return min(strict) if len(strict) == 1 else ("other" if strict else "apache-2.0")


def may_share(said: Sequence[Statement]) -> bool:
    """Whether the licences of the data let weights that were trained on them be given on."""
    known = license_table()["licenses"]
    return bool(said) and all(known.get(one["license"], {}).get("share", False) for one in said)


def look_like_kits(cases: Iterable[str]) -> bool:
    """Whether cases are named as those of KiTS, most of them.

    >>> look_like_kits(["case_00012", "case_00012_0041"]), look_like_kits(["patient_1"])
    (True, False)
    """
    named = [KITS_CASE.fullmatch(case) is not None for case in cases]
    return bool(named) and sum(named) > len(named) / 2
