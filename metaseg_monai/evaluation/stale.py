"""Tables of an earlier evaluation that the present one does not make again."""

from collections.abc import Sequence
from pathlib import Path


def remove_stale(path: str | Path, columns: Sequence[str]) -> bool:
    r"""Remove a table that tells of an earlier evaluation's predictions.

    A file that begins otherwise is somebody's own and stays.

    Args:
        path: of the table, which may be absent.
        columns: with which its header begins.

    Returns:
        Whether a table was removed.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = path.write_text("case,dice\n")
    >>> remove_stale(path, ["volume"]), remove_stale(path, ["case"]), path.exists()
    (False, True, False)
    """
    path = Path(path)
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline().rstrip("\r\n").split(",")
    if header[: len(columns)] != list(columns):
        return False
    path.unlink()
    return True
