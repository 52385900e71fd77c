"""How names of files, cases and values are compared, and how a file gets a name of them."""

import errno
import hashlib
import re
import unicodedata
from pathlib import Path

from metaseg_monai.errors import DataError

MOST_BYTES = 255  # of a file's name, on nearly every disk
DIGITS = 8


def composed(text: str) -> str:
    """Text in the one form in which it is compared: accents in one character with their letter.

    Some systems store file names with accents of their own (NFD), tables and keyboards seldom do.

    >>> composed("Zu\u0308rich") == "Z\u00fcrich"
    True
    """
    return unicodedata.normalize("NFC", text)


def likened(text: str) -> str:
    """Text without what people write in one way or another: letter case, spaces, zeros, "7.0".

    Only to tell of names that are probably one; those that are the same are `composed` alike.

    >>> [likened(name) for name in ("Patient 007", "patient_7", "7.0", "\uff17", "7\u200b")]
    ['patient7', 'patient7', '7', '7', '7']
    """
    seen = (one for one in text if unicodedata.category(one) != "Cf")  # no zero-width spaces
    plain = unicodedata.normalize("NFKC", "".join(seen)).casefold()
    plain = re.sub(r"(?<![\d.])(\d+)\.0+(?![\d.])", r"\1", plain)
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)
    return re.sub(r"(?<!\d)[\s_\-]+|[\s_\-]+(?!\d)", "", plain)  # 1-1 is not 11


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def shortened(name: str, most: int = MOST_BYTES) -> str:
    """A file's name as it is, or, if it is longer than a disk takes, cut and with a digest.

    The suffix stays, by which libraries choose the format.

    Args:
        name: of a file.
        most: bytes of UTF-8.

    >>> shortened("a.png"), shortened("a" * 300 + ".nii.gz", most=30)
    ('a.png', 'aaaaaaaaaaaaaa-7798675c.nii.gz')
    """
    if len(name.encode("utf-8", "surrogateescape")) <= most:
        return name
    match = re.search(r"(\.nii)?\.\w{1,8}$", name)
    suffix = match[0] if match else ""
    end = f"-{_digest(name)}{suffix}"
    kept = name.encode("utf-8", "surrogateescape")[: most - len(end)]
    return kept.decode("utf-8", "ignore") + end


def safe_name(*parts: str) -> str:
    """Text that can name a file on every system; other text may give the same.

    >>> safe_name("plate 1", "B/02")
    'plate-1_B-02'
    """
    name = "_".join(re.sub(r"[^\w.+-]+", "-", composed(part)) for part in parts if part)
    return shortened(name.strip(".") or "case", MOST_BYTES - 35)  # a suffix, or a plane, comes


def file_name(name: str) -> str:
    """A file's name for the name of a run, case or field: another one for every other.

    What is no plain letter, digit or one of ``._+-`` is replaced, and a digest of the name
    tells it from those that look the same then.

    >>> file_name("modes_sme+aug"), file_name("modes_my run")
    ('modes_sme+aug', 'modes_my_run-0499ef43')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", plain).lstrip(".")
    made = plain if plain and plain == name else f"{plain or 'name'}-{_digest(composed(name))}"
    return shortened(made, MOST_BYTES - 35)


def _ways(path: str) -> list[str]:
    """A path as it is, and, where it has backslashes, with slashes in their place."""
    return [path, path.replace("\\", "/")] if "\\" in path else [path]


class Folder:
    """The files below a folder, found by names as tables write them; each folder is listed once.

    Args:
        root: of the paths.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """The path, relative to the root and with slashes, of the file that a path means.

        It is the file of that very name, else that of the name with the accents stored in another
        form, else, where there are backslashes, that with slashes in their place.

        Raises:
            DataError: there is one only by another way of writing, or there are several.
        """
        ways = _ways(path)
        for way in ways:
            if (found := self._walk(way)) is not None:
                return found
        if "\\" in path:
            raise DataError(
                f"no such file {path!r} beside the table, nor {ways[-1]!r}: backslashes separate "
                "folders on Windows alone; write /"
            )
        near = self._walk(path, likewise=True)
        if near is not None:
            raise DataError(
                f"no such file {path!r} beside the table, but there is {near!r}, which is "
                "written otherwise; write the one as the other"
            )
        return None

    def holds(self, path: str) -> bool:
        """Whether `find` finds a file."""
        return any(self._walk(way) is not None for way in _ways(path))

    def _walk(self, path: str, likewise: bool = False) -> str | None:
        parts: list[str] = []
        for part in path.split("/"):
            if part in ("", "."):
                continue
            here = self.root.joinpath(*parts)
            names = self._listed(here)
            key = likened(part) if likewise else composed(part)
            found = names.get(f"~{key}" if likewise else key, [])
            if part in found:
                found = [part]
            if len(found) > 1 and not likewise:
                raise DataError(
                    f"{path!r} is several files, whose accents are stored in two forms: "
                    f"{', '.join(map(ascii, found))}; rename one"
                )
            if not found and not likewise and self._exists(here / part):
                found = [self._own_name(here, part)]  # letter case does not count on this disk
            if not found:
                return None
            parts.append(found[0])
        made = "/".join(parts)
        return made if parts and self.root.joinpath(*parts).is_file() else None

    def _exists(self, path: Path) -> bool:
        try:
            return path.exists()
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return False

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder by their composed form, and, behind "~", by what they are like."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for name in sorted(one.name for one in folder.iterdir()) if folder.is_dir() else ():
                names.setdefault(composed(name), []).append(name)
                names.setdefault(f"~{likened(name)}", []).append(name)
            self._names[folder] = names
        return self._names[folder]

    def _own_name(self, folder: Path, part: str) -> str:
        same = [
            name
            for key, names in self._listed(folder).items()
            for name in names
            if not key.startswith("~") and key.casefold() == composed(part).casefold()
        ]
        return same[0] if same else part
