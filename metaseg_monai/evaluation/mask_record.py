"""Which files in a folder are masks as a prediction wrote them, so that no other is replaced."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

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

    def check_names(
        self,
        paths: Mapping[str, Path],
        images: Iterable[str],
        what: Literal["mask", "objects"] = "mask",
    ) -> None:
        """See that each case has a file of its own, and that no file is an image.

        Args:
            paths: file to be written by case, or by volume.
            images: files of all images; links are followed.
            what: of a case is written.

        Raises:
            DataError: two cases have one file, or a file would replace an image; names them.
        """
        for path, times in Counter(paths.values()).items():
            if times > 1:
                names = ", ".join(name for name, other in paths.items() if other == path)
                one = "mask" if what == "mask" else "file"
                raise DataError(f"{names} would have the one {one} {path}; give them other names.")
        inputs = {Path(file).resolve() for file in images}
        for name, path in paths.items():
            if path.resolve() in inputs:
                raise DataError(
                    f"The {what} of {name!r} would replace the image {path}; choose another output."
                )

    def check(self, targets: Iterable[Path]) -> None:
        """See that nothing but masks of earlier predictions would be replaced; make the folder.

        Args:
            targets: files to be written, in the folder.

        Raises:
            DataError: other files are there; names them. Or the folder cannot be made.
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
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say what to do where the folder, or a file in it, cannot be written.

        Raises:
            DataError: in place of an OSError of the block.
        """
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written ({error}); free the disk, or choose another "
                "output. Masks that are finished stay"
            ) from error

    def _wrote(self, target: Path) -> bool:
        known = self._digests.get(self._name(target))
        return known is not None and target.is_file() and file_sha256(target) == known

    def add(self, mask: Path) -> None:
        """Note a mask that was just written."""
        name, digest = self._name(mask), file_sha256(mask)
        if self._digests.get(name) == digest:
            return
        self._digests[name] = digest
        with self.writing(), self.path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(f"{digest}  {name}\n")

    def finish(self) -> None:
        """Leave one line a mask, in the order of the names."""
        if not self._digests:
            return
        with self.writing(), replacing(self.path) as part:
            lines = [f"{digest}  {name}\n" for name, digest in sorted(self._digests.items())]
            part.write_text("".join(lines), encoding="utf-8", newline="\n")

    def _name(self, mask: Path) -> str:
        return mask.relative_to(self.folder).as_posix()
