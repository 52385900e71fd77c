"""The table that a command is to write: a free place, or a table that the command wrote before."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from metaseg_monai.errors import DataError


def output_table(output: str | Path, name: str, columns: Sequence[str]) -> Path:
    """The file to write; seen to be possible before long work, and to replace nobody's own file.

    Nothing is made: a command that fails leaves no folder behind.

    Args:
        output: CSV file, or folder that gets a file.
        name: of that file.
        columns: with which the header of such a table begins.

    Raises:
        DataError: a file is there that begins otherwise, or none can be written there.
    """
    path = Path(output) if Path(output).suffix == ".csv" else Path(output) / name
    try:
        if path.exists():
            _check_ours(path, columns)
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        if not folder.is_dir():
            raise DataError(
                f"--output {output}: {folder} is a file; choose a folder, or a file named .csv"
            )
        with tempfile.TemporaryFile(dir=folder):
            return path
    except OSError as error:
        raise cannot_write(output, error) from error


def cannot_write(output: str | Path, error: OSError) -> DataError:
    """The error of an output that the system refuses."""
    return DataError(
        f"--output {output}: cannot be written ({error.strerror or error}); choose a folder that "
        "you may write to, on a disk with room"
    )


def _check_ours(path: Path, columns: Sequence[str]) -> None:
    if not path.is_file():
        raise DataError(f"{path}: is a folder; choose another output, or remove it")
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline().rstrip("\r\n").split(",")
    if header[: len(columns)] != list(columns):
        raise DataError(
            f"{path}: would be replaced, but does not begin with {','.join(columns)} as a table of "
            "scores does; choose another output, or move it away"
        )
