"""What the system does not let us read, told by its name instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metaseg_monai.errors import DataError


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Name the file or folder that cannot be opened or listed.

    Faults of a file's content, which some libraries also raise as OSError, pass.

    Args:
        path: to name where the system names none.

    Raises:
        DataError: permissions, the disk or the network keep a file or folder from being read.

    >>> with readable("scans"):
    ...     raise PermissionError(13, "Permission denied", "scans/a.nii")
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: scans/a.nii: cannot be read (Permission denied); check its \
permissions and those of its folder, or copy it to where you may read it
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        what = "permissions and those of its folder, or copy it to where you may read it"
        if not isinstance(error, PermissionError):
            what = "disk and path"
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror}); check its {what}"
        ) from error
