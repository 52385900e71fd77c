"""Which cases are explained: a few, spread over the domains."""

from collections.abc import Sequence
from typing import Any

from metaseg_monai.errors import ConfigError


def few_cases(items: Sequence[dict[str, Any]], cases: int = 12) -> list[dict[str, Any]]:
    """Keep all items of a few cases: the first of every domain, then the second, and so on.

    Args:
        items: cases x test modes, each with ``case``, ``domain`` and ``mode``.
        cases: how many cases to keep; all where there are fewer.

    Returns:
        Items of the kept cases, in the order they came.

    Raises:
        ConfigError: `cases` is below 1.

    >>> items = [{"case": case, "domain": case[0]} for case in ("a1", "a2", "a3", "b1")]
    >>> [item["case"] for item in few_cases(items, 2)]
    ['a1', 'b1']
    """
    if cases < 1:
        raise ConfigError(f"explain_cases must be 1 or more, got {cases}")
    of_domain: dict[str, dict[str, None]] = {}
    for item in items:
        of_domain.setdefault(item["domain"], {})[item["case"]] = None
    in_turn = sorted(
        (place, number, case)
        for number, known in enumerate(of_domain.values())
        for place, case in enumerate(known)
    )
    kept = {case for _, _, case in in_turn[:cases]}
    return [item for item in items if item["case"] in kept]
