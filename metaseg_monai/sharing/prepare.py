"""The preparation of a download as one text for a person."""

import sys

from metaseg_monai.data.kits.prepare import Prepared
from metaseg_monai.errors import DataError

SHOWN_PROBLEMS = 30


def told(prepared: Prepared, output: str) -> str:
    """Return the summary, or refuse with it where cases were left out.

    Raises:
        DataError: cases have problems; the others are prepared.
    """
    if not prepared.problems:
        return prepared.summary
    sys.stdout.write(prepared.summary + "\n")
    shown = [f"  {problem}" for problem in prepared.problems[:SHOWN_PROBLEMS]]
    if len(prepared.problems) > SHOWN_PROBLEMS:
        shown.append(f"  and {len(prepared.problems) - SHOWN_PROBLEMS} more")
    raise DataError(
        f"{len(prepared.problems)} problems, all in {output}/problems.csv. Their cases were left "
        "out, the others are prepared; mend them and give the same command again:\n"
        + "\n".join(shown)
    )
