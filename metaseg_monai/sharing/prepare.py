"""The preparation of a download as one text for a person."""

import sys

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.pipeline import Prepared


def told(prepared: Prepared, output: str, dry_run: bool = False) -> str:
    """Return the summary; where cases were left out, print it (it names them) and refuse.

    Raises:
        DataError: cases have problems; the others are prepared, but for a dry run.
    """
    if not prepared.problems:
        return prepared.summary
    sys.stdout.write(prepared.summary + "\n")
    if dry_run:
        raise DataError(f"{len(prepared.problems)} problems; nothing was written (dry_run)")
    raise DataError(
        f"{len(prepared.problems)} problems, all in {output}/problems.csv. Their cases were left "
        "out, the others are prepared; mend them and give the same command again"
    )
