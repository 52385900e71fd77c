"""What a report says of a study, section by section."""

from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report import pictures, prediction_pictures, scores
from metaseg_monai.study.report.comparison_row import compared_row
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.document import Details, Part, Section
from metaseg_monai.study.report.similarity import domain_similarity
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.words import (
    TESTS,
    p_text,
    primary_not_made,
)
from metaseg_monai.study.results import Results

GIVEN = {
    "normal - shuffle": "foreign metadata (shuffle)",
    "normal - missing": "metadata marked as unknown (missing)",
    "normal - zeros": "zeros in place of its metadata (zeros)",
}


def comparison_section(
    protocol: Protocol,
    compared: Sequence[Compared],
    not_made: Mapping[str, str],
    score: str = "F1",
) -> Section | None:
    """The planned comparisons with their tests; `score` names what they are made of."""
    if not compared and not not_made:
        return None
    intro = (
        f"A difference counts as found where the corrected p is below {protocol.alpha:g} and the "
        "interval over trainings lies on one side of 0 as well. "
    ) + _primary(protocol, not_made)
    undone: list[Part] = [f"Planned but not made: {n} ({why})" for n, why in not_made.items()]
    if not compared:
        return Section("Comparisons", intro, undone)
    rows, tests = {}, {}
    for one in compared:
        overall = one.overall
        rows[one.name] = compared_row(one)
        tests[one.name] = {
            "t": overall.t,
            "p t": p_text(overall.p_t),
            "p Wilcoxon": p_text(overall.p_wilcoxon),
            "p permutation": p_text(overall.p_permutation),
            "groups": overall.groups,
            "cases": overall.cases,
            "empty": overall.empty,
            "in both, of": f"{one.shared[0]} of {one.shared[1]}",
        }
    note = (
        f"Difference of the {score}, first minus second, averaged over seeds within a case and "
        "over cases within a group; 95 % bootstrap interval over groups; d_z: mean over standard "
        f"deviation of the groups' differences; p: {TESTS[protocol.test]}, corrected by Holm for "
        f"{len(protocol.comparisons)}; trainings: 95 % t interval of the differences by training."
    )
    where = f" on {protocol.domain}" if protocol.domain else ""
    title = f"Planned comparisons{where}"
    every = Table(
        "tests",
        f"All tests{where}",
        "Two-sided and not corrected. The protocol names the one that counts. empty: cases without "
        "a score in one of the two, left out; in both: cases that both were tested on.",
        scores.rows_of(tests),
        first="comparison",
    )
    parts: list[Part] = [
        Table("comparisons", title, note, scores.rows_of(rows), first="comparison"),
        pictures.differences(compared, protocol.alpha, score),
        Details("All tests", [every]),
        *undone,
    ]
    by_domain: list[Part] = [
        Table(
            f"subgroups_{one.first}_{one.second}",
            f"{one.name} in each domain",
            f"As above; p_holm corrects the {protocol.test} test over the domains.",
            _with_p_as_text(one.subgroups),
            first="domain",
        )
        for one in compared
        if one.subgroups is not None
    ]
    figure = pictures.subgroup_differences(compared, protocol.alpha)
    if figure is not None:
        parts.append(Details("In each domain", [figure, *by_domain]))
    return Section("Comparisons", intro, parts)


def metadata_section(results: Results, score: str = "F1") -> Section | None:
    """What each network does with wrong, missing and foreign metadata; `score` names its F1."""
    tested = scores.with_modes(results)
    if not tested:
        return None
    parts: list[Part] = []
    seeds = scores.seeds_note(results)
    reliance = scores.reliance_table(results)
    if reliance is not None:
        given = ", or ".join(GIVEN[str(column)] for column in reliance.mean.columns)
        note = f"Pooled {score} lost when each case gets {given}. {seeds}"
        parts.append(Table("reliance", "Reliance on metadata", note, *reliance, first="condition"))
    parts += pictures.robustness(results)
    parts += pictures.mode_maps(results)
    tables: list[Part] = []
    for name, by_seed in tested.items():
        table = scores.mode_table(by_seed)
        title = f"Test modes of {name}"
        tables.append(Table(f"modes_{name}", title, seeds, *table, first="true domain"))
        try:
            similarity = domain_similarity(table.mean, symmetric=False)
        except DataError:  # fewer than two domains with labels of their own
            continue
        note = "Share of its own score that a domain (row) keeps under another label (column)."
        title = f"Domain similarity seen by {name}"
        tables.append(Table(f"similarity_{name}", title, note, similarity, first="domain"))
    maps = pictures.similarity_maps(results)
    if maps:
        parts.append(Details("Which domains are alike to the networks", maps))
    parts.append(Details("Test modes as numbers", tables))
    intro = "The same trained networks, given other metadata than the true one."
    return Section("What metadata does", intro, parts)


def picture_sections(results: Results) -> list[Section]:
    """Predictions, gates and learning curves."""
    sections = []
    predictions = prediction_pictures.predictions(results)
    if predictions:
        sections.append(Section("Predictions", "", predictions))
    gates = pictures.gates(results)
    if gates:
        intro = "What the gates do for each metadata value, in the first training."
        whole = [figure for figure in gates if figure.name.endswith(("_scale", "_difference"))]
        rest: list[Part] = [figure for figure in gates if figure not in whole]
        more: list[Part] = [Details("Single gates and feature maps", rest)] if rest else []
        sections.append(Section("Gates", intro, [*whole, *more]))
    training = pictures.training(results)
    if training:
        sections.append(Section("Training", "", training))
    return sections


def _primary(protocol: Protocol, not_made: Mapping[str, str]) -> str:
    """Say which comparison is the primary one, whether or not it could be made."""
    name = " - ".join(protocol.comparisons[0])
    return primary_not_made(protocol, not_made) or f"The primary comparison is {name}."


def _with_p_as_text(table: pd.DataFrame) -> pd.DataFrame:
    names = [str(name) for name in table.columns if str(name).startswith("p_")]
    return table.assign(**{name: table[name].map(p_text) for name in names})
