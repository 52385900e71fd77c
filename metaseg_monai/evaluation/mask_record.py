"""Which files in a folder are masks as a prediction wrote them, so that no other is replaced."""

import re
from collections.abc import Iterable
from pathlib import Path

from metaseg_monai.errors import DataError
from metaseg_monai.files import file_sha256, replacing
from metaseg_monai.metadata.fields import listing

NAME = "predicted.sha256"


class MaskRecord:
    """The list ``predicted.sha256`` in a folder of masks, in the form of `sha256sum`.

    It has a line for each mask that was written. A file may be replaced only if it is still what
    the last line of its name says, so that neither a scan nor a mask corrected by hand is lost.

    Args:
        folder: of the masks.

    Raises:
        DataError: the list is there, but cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self._digests: dict[str, str] = {}
        if self.path.exists():
            try:
                lines = self.path.read_text(encoding="utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self.path}: no list of masks ({error}); choose another output"
                ) from error
            found = (re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines)
            self._digests = {line[2]: line[1] for line in found if line}

    def check(self, targets: Iterable[Path]) -> None:
        """See that nothing but masks of earlier predictions would be replaced.

        Args:
            targets: files to be written, in the folder.

        Raises:
            DataError: other files are there; names them.
        """
        foreign = [
            target.relative_to(self.folder).as_posix()
            for target in targets
            if target.exists() and not self._wrote(target)
        ]
        if foreign:
            raise DataError(
                f"{self.folder}: {len(foreign)} file(s) would be replaced that are no masks as "
                f"predicted before ({NAME}): {listing(foreign, 10)}; choose another output, or "
                "move them away"
            )

    def _wrote(self, target: Path) -> bool:
        known = self._digests.get(self._name(target))
        return known is not None and target.is_file() and file_sha256(target) == known

    def add(self, mask: Path) -> None:
        """Note a mask that was just written."""
        name, digest = self._name(mask), file_sha256(mask)
        if self._digests.get(name) == digest:
            return
        self._digests[name] = digest
        with self.path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(f"{digest}  {name}\n")

    def finish(self) -> None:
        """Leave one line a mask, in the order of the names."""
        if not self._digests:
            return
        with replacing(self.path) as part:
            lines = [f"{digest}  {name}\n" for name, digest in sorted(self._digests.items())]
            part.write_text("".join(lines), encoding="utf-8", newline="\n")

    def _name(self, mask: Path) -> str:
        return mask.relative_to(self.folder).as_posix()
