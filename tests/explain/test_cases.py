import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.explain import few_cases

ITEMS = [
    {"case": case, "domain": case[0], "mode": mode}
    for mode in ("normal", "fixed:a")
    for case in ("a1", "a2", "a3", "b1", "b2", "c1")
]


def test_cases_are_spread_over_domains_and_keep_all_their_modes_in_order():
    kept = [(item["mode"], item["case"]) for item in few_cases(ITEMS, 4)]
    cases = ["a1", "a2", "b1", "c1"]
    assert kept == [(mode, case) for mode in ("normal", "fixed:a") for case in cases]


def test_all_cases_are_kept_where_there_are_fewer():
    assert few_cases(ITEMS, 99) == ITEMS


def test_no_case_is_refused():
    with pytest.raises(ConfigError, match="explain_cases must be 1 or more, got 0"):
        few_cases(ITEMS, 0)
