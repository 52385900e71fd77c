"""The options that the commands which prepare microscopy images share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaseg_monai.prepare.pipeline import PrepareOptions


def prepare_options(
    group: Any, shares: tuple[object, object, object], seed: int, grey: bool, axes: str | None,
    ome: bool, dry_run: bool,
) -> "PrepareOptions":  # fmt: skip
    """The options as the command line gives them; see `PrepareOptions`.

    Raises:
        DataError: a share is no number.
    """
    from metaseg_monai.prepare.pipeline import PrepareOptions
    from metaseg_monai.prepare.splits import check_shares
    from metaseg_monai.sharing.study import names

    return PrepareOptions(
        tuple(names(group)), check_shares(*shares), seed, grey, axes, ome, dry_run
    )
