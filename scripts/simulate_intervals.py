"""How often do our intervals hold the truth, and is the power that a report states right?

Three tables. The first: intervals of each kind, of data whose truth is known; 93 % is asked for
where a row says so, the others show a limit. The second: the smallest effect that a study could
find, from stated standard deviations between patients, between trainings and of the rest: how many
of as many simulated studies with just that effect find it by the rule of the report (the test over
patients, and the interval over patients and trainings on one side of 0); 75 to 85 % is asked for.
The third: the same, but each study states the effect from its own differences, as a report does
after the study. Three trainings show their own spread badly, so its share is told, not asked for.

The draws are fixed by the seed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from metaseg_monai.cli.commands import run_script
from metaseg_monai.metrics.power import expected_squares, smallest_effect
from metaseg_monai.metrics.statistics import (
    Spread,
    bootstrap_interval,
    joint_freedom,
    joint_interval,
    mean_squares,
    rate_interval,
    score_interval,
    share_interval,
    sign_flips,
)

ASKED = 0.93
POWER = (0.75, 0.85)
DRAWS = 999  # bootstrap samples and sign flips of each simulated study
SPREADS = {  # of differences in Dice: patients, trainings, residual
    "patients differ": Spread(0.05, 0.0, 0.03),
    "both differ": Spread(0.05, 0.02, 0.03),
    "trainings differ": Spread(0.02, 0.03, 0.05),
    "neither differs": Spread(0.0, 0.0, 0.05),
}
SIZES = ((8, 3), (20, 2), (20, 3), (20, 5), (60, 3))  # patients, trainings
Draw = Callable[[np.random.Generator, int], tuple[float, float]]


class Kind(NamedTuple):
    """A kind of interval on one sort of data: its truth, and the interval of one drawn study."""

    text: str
    groups: tuple[int, ...]
    truth: float
    draw: Draw
    asked: bool = True


def of_mean(rng: np.random.Generator, groups: int) -> tuple[float, float]:
    """Mean Dice of patients, of a skewed distribution."""
    return score_interval(rng.beta(8, 2, groups))


def of_mean_failing(rng: np.random.Generator, groups: int) -> tuple[float, float]:
    """The same where one patient in ten fails altogether."""
    return score_interval(rng.beta(8, 2, groups) * (rng.random(groups) >= 0.1))


def of_distance(rng: np.random.Generator, groups: int) -> tuple[float, float]:
    """Mean of an unbounded number, normal."""
    return bootstrap_interval(rng.normal(size=groups), DRAWS, int(rng.integers(2**31)))


def of_grouped(rng: np.random.Generator, groups: int) -> tuple[float, float]:
    """Paired difference of Dice, 1 to 6 cases a patient, over patients."""
    own = 0.03 * rng.normal(size=groups)
    number = rng.integers(1, 7, groups)
    means = own + 0.05 / np.sqrt(number) * rng.normal(size=groups)
    return bootstrap_interval(means, DRAWS, int(rng.integers(2**31)))


def of_skewed(rng: np.random.Generator, groups: int) -> tuple[float, float]:
    """Paired difference where one condition seldom loses much (log-normal), as scenario v."""
    lost = -rng.lognormal(size=groups)
    means = 0.04 * (lost + math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    means += 0.04 * math.sqrt(2 / 9) * rng.normal(size=groups)
    return bootstrap_interval(means, DRAWS, int(rng.integers(2**31)))


def of_share(true: float) -> Draw:
    """Share of found lesions, one to some a patient, patients differing."""

    def draw(rng: np.random.Generator, groups: int) -> tuple[float, float]:
        lesions = 1 + rng.poisson(1, groups)
        found = rng.binomial(lesions, rng.beta(4 * true, 4 * (1 - true), groups))
        return share_interval(found.astype(float), lesions.astype(float))

    return draw


def of_rate(true: float) -> Draw:
    """False lesions of a volume, patients differing."""

    def draw(rng: np.random.Generator, groups: int) -> tuple[float, float]:
        return rate_interval(rng.poisson(rng.gamma(1, true, groups)) * 1.0, np.ones(groups))

    return draw


def of_amount(rng: np.random.Generator, groups: int) -> tuple[float, float]:
    """False ml of a volume: none in half of the patients, log-normal in the others."""
    amounts = rng.lognormal(size=groups) * (rng.random(groups) < 0.5)
    return rate_interval(amounts, np.ones(groups))


def draw_differences(
    spread: Spread, groups: int, seeds: int, effect: float, rng: np.random.Generator
) -> np.ndarray:
    """Differences of a study (groups, seeds)."""
    patients = spread.patients * rng.normal(size=(groups, 1))
    trainings = spread.trainings * rng.normal(size=(1, seeds))
    return effect + patients + trainings + spread.residual * rng.normal(size=(groups, seeds))


def of_both(spread: Spread, seeds: int) -> Draw:
    """Difference for other patients and other trainings, as the verdict gives it."""

    def draw(rng: np.random.Generator, groups: int) -> tuple[float, float]:
        table = draw_differences(spread, groups, seeds, 0.0, rng)
        return verdict_interval(table, int(rng.integers(2**31)))

    return draw


def verdict_interval(table: np.ndarray, seed: int) -> tuple[float, float]:
    """The wider of `joint_interval` and that over patients, at each end."""
    low, high = joint_interval(float(table.mean()), table)
    one, other = bootstrap_interval(table.mean(axis=1), DRAWS, seed)
    return min(low, one), max(high, other)


FEW = (5, 8, 12, 20, 40)
KINDS = (
    Kind("mean Dice of patients, skewed", FEW, 0.8, of_mean),
    Kind("mean of an unbounded number, normal", FEW, 0.0, of_distance),
    Kind("paired difference, 1 to 6 cases a patient", FEW, 0.0, of_grouped),
    *(
        Kind(
            f"difference over patients and {seeds} trainings, {text}", FEW, 0.0, of_both(one, seeds)
        )
        for text, one in SPREADS.items()
        for seeds in (3, 5)
    ),
    *(
        Kind(f"share of found lesions, {true:g}", FEW, true, of_share(true))
        for true in (0.5, 0.8, 0.95)
    ),
    *(
        Kind(f"false lesions a volume, {true:g}", FEW, true, of_rate(true))
        for true in (0.2, 1.0, 3.0)
    ),
    Kind("limit: mean Dice, one patient in ten fails", FEW, 0.72, of_mean_failing, asked=False),
    Kind("limit: paired difference, one side skewed", FEW, 0.0, of_skewed, asked=False),
    Kind("limit: false ml, log-normal", FEW, 0.5 * math.exp(0.5), of_amount, asked=False),
    Kind(
        "limit: patients and 2 trainings, both differ",
        FEW,
        0.0,
        of_both(SPREADS["both differ"], 2),
        asked=False,
    ),
)


def coverage(kind: Kind, groups: int, studies: int, seed: int) -> float:
    """The share of drawn studies whose interval holds the truth."""
    rng = np.random.default_rng([seed, groups])
    held = 0
    for _ in range(studies):
        low, high = kind.draw(rng, groups)
        held += low <= kind.truth <= high
    return held / studies


def finds(table: np.ndarray, seed: int) -> bool:
    """Whether a study finds its difference, by the rule of the report, in the true direction."""
    low, _ = verdict_interval(table, seed)
    return low > 0 and sign_flips(table.mean(axis=1), DRAWS, seed) < 0.05


def power_stated(spread: Spread, groups: int, seeds: int, studies: int, seed: int) -> float:
    """How many studies find the effect that stated standard deviations say 80 % of them find."""
    effect = smallest_effect(expected_squares(spread, groups, seeds), groups, seeds)
    rng = np.random.default_rng([seed, groups, seeds])
    tables = (draw_differences(spread, groups, seeds, effect, rng) for _ in range(studies))
    return float(np.mean([finds(table, number) for number, table in enumerate(tables)]))


def power_own(spread: Spread, groups: int, seeds: int, studies: int, seed: int) -> float:
    """How many studies find the effect that another study of the same kind stated of itself."""
    rng = np.random.default_rng([seed, groups, seeds, 1])
    found = []
    for number in range(studies):
        squares = mean_squares(draw_differences(spread, groups, seeds, 0.0, rng))
        freedom = joint_freedom(squares, seeds)
        effect = smallest_effect(squares, groups, seeds, freedom=freedom)
        found.append(finds(draw_differences(spread, groups, seeds, effect, rng), number))
    return float(np.mean(found))


def main(
    studies: int = 1000, power_studies: int = 400, own_studies: int = 100, seed: int = 0
) -> str:
    """Print coverage and power as three Markdown tables.

    Example:
        python scripts/simulate_intervals.py --studies 1000

    Args:
        studies: simulated studies of each number of the first table.
        power_studies: of each number of the second.
        own_studies: of each number of the third.
        seed: of the simulation.
    """
    lines = [f"| 95 % interval | asked | {' | '.join(f'{n} patients' for n in FEW)} |"]
    lines.append("| --- | --- |" + " ---: |" * len(FEW))
    for kind in KINDS:
        shares = [coverage(kind, groups, studies, seed) for groups in kind.groups]
        told = " | ".join(f"{share:.1%}" for share in shares)
        lines.append(f"| {kind.text} | {f'{ASKED:.0%}' if kind.asked else ''} | {told} |")
    heads = " | ".join(f"{groups} x {seeds}" for groups, seeds in SIZES)
    for title, share, number in (
        ("stated", power_stated, power_studies),
        ("of each study's own", power_own, own_studies),
    ):
        lines += ["", f"| spread, {title} | {heads} |", "| --- |" + " ---: |" * len(SIZES)]
        for text, spread in SPREADS.items():
            shares = [share(spread, *size, number, seed) for size in SIZES]
            lines.append(f"| {text} | {' | '.join(f'{one:.1%}' for one in shares)} |")
    errors = [stats.binom.std(n, 0.8) / n for n in (power_studies, own_studies)]
    numbers = f"{studies}, {power_studies} and {own_studies} studies of each number"
    errors_text = " and ".join(f"{error:.1%}" for error in errors)
    lines += ["", f"{numbers}, seed {seed}; standard errors of a power {errors_text}."]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
