"""What the commands that prepare microscopy images share: their options and their last word."""

import sys
from typing import TYPE_CHECKING, Any

from metaseg_monai.errors import DataError

if TYPE_CHECKING:
    from metaseg_monai.data.kits.prepare import Prepared
    from metaseg_monai.data.microscopy import PrepareOptions


def prepare_options(
    group: Any, shares: tuple[object, object, object], seed: int, grey: bool, axes: str | None,
    ome: bool, dry_run: bool,
) -> "PrepareOptions":  # fmt: skip
    """The options as the command line gives them; see `PrepareOptions`.

    Raises:
        DataError: a share is no number.
    """
    from metaseg_monai.data.microscopy import PrepareOptions
    from metaseg_monai.data.microscopy.divide import check_shares
    from metaseg_monai.sharing.arguments import names

    return PrepareOptions(
        tuple(names(group)), check_shares(*shares), seed, grey, axes, ome, dry_run
    )


def told_or_refused(prepared: "Prepared", output: str, dry_run: bool) -> str:
    """Return the summary; refuse where cases have problems, which it names.

    Raises:
        DataError: cases have problems.
    """
    from metaseg_monai.sharing.prepare import told

    if not (dry_run and prepared.problems):
        return told(prepared, output)
    sys.stdout.write(prepared.summary + "\n")
    raise DataError(f"{len(prepared.problems)} problems; nothing was written (dry_run)")
