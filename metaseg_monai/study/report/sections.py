"""What a report says of a study, section by section."""

from collections.abc import Sequence

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import (
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
)
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report import pictures, scores
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.document import Details, Part, Section
from metaseg_monai.study.report.similarity import domain_similarity
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.words import TESTS, glossary, p_text
from metaseg_monai.study.results import Results, is_expert

SEEDS = "Mean over trainings, ± half the distance between the lowest and the highest."


def score_section(results: Results, protocol: Protocol) -> Section:
    """F1 of each condition, by domain and class, with the worst domain."""
    table = scores.f1_table(results)
    note = (
        "Pixel F1 with true metadata. combined: counts pooled over all cases; average: unweighted "
        f"mean of the domains. {SEEDS}"
    )
    values, spread = _without_copies(table)
    parts: list[Part] = [
        Table("f1", "F1 of each condition", note, values, spread, best="high", first="condition"),
        pictures.ranking(results, protocol.aggregate),
    ]
    classes = scores.class_table(results)
    if classes is not None:
        title = "F1 of each label class"
        parts.append(Table("classes", title, SEEDS, *classes, best="high", first="condition"))
    more: list[Part] = [
        Table(
            "cases",
            "F1 case by case",
            "Seeds averaged within a case. A case that is empty in target and prediction has no "
            "score and is counted; one that is empty in only one of them has 0.",
            scores.case_table(results),
            first="condition",
        )
    ]
    worst = scores.worst_table(results)
    if worst is not None:
        note = "Domain with the lowest mean of its groups' case F1."
        more.append(Table("worst", "Worst domain", note, worst, first="condition"))
    for name, by_seed in results.conditions.items():
        if is_expert(name):
            more.append(
                Table(
                    f"elsewhere_{name}",
                    f"{name} on all domains",
                    f"Columns: the domain an expert was trained on; rows: tested on. {SEEDS}",
                    *scores.experts_elsewhere(by_seed),
                    first="tested on",
                )
            )
    told = glossary(list(results.conditions))
    if told:
        names = pd.DataFrame({"what it is": told})
        parts.append(Details("What the rows are", [Table("glossary", "Conditions", "", names)]))
    return Section("Scores", "", [*parts, Details("Case by case, worst domain, experts", more)])


def comparison_section(protocol: Protocol, compared: Sequence[Compared]) -> Section | None:
    """The planned comparisons with their tests."""
    if not compared:
        return None
    rows, tests = {}, {}
    for one in compared:
        overall = one.overall
        rows[one.name] = {
            "difference": overall.mean,
            "low": overall.low,
            "high": overall.high,
            "d_z": overall.effect,
            "p corrected": p_text(one.p_holm),
            "by seed": ", ".join(f"{value:+.3f}" for value in one.seeds.values()),
            "cases": overall.cases,
        }
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
        "Difference of the case F1, first minus second, averaged over seeds within a case and over "
        "cases within a group; 95 % bootstrap interval over groups; d_z: mean over standard "
        f"deviation of the groups' differences; p: {TESTS[protocol.test]}, corrected by Holm for "
        f"{len(compared)}."
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
        pictures.differences(compared, protocol.alpha),
        Details("All tests", [every]),
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
    intro = (
        "A difference counts as found where the corrected p is below "
        f"{protocol.alpha:g} and every training seed has the same sign."
    )
    return Section("Comparisons", intro, parts)


def metadata_section(results: Results) -> Section | None:
    """What each network does with wrong, missing and foreign metadata."""
    tested = scores.with_modes(results)
    if not tested:
        return None
    parts: list[Part] = []
    reliance = scores.reliance_table(results)
    if reliance is not None:
        note = f"Pooled F1 lost when each case gets foreign or no metadata. {SEEDS}"
        parts.append(Table("reliance", "Reliance on metadata", note, *reliance, first="condition"))
    parts += pictures.robustness(results)
    parts += pictures.mode_maps(results)
    tables: list[Part] = []
    for name, by_seed in tested.items():
        table = scores.mode_table(by_seed)
        title = f"Test modes of {name}"
        tables.append(Table(f"modes_{name}", title, SEEDS, *table, first="true domain"))
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


def calibration_section(results: Results) -> Section | None:
    """Whether probabilities can be taken at their word."""
    tables = pictures.calibration_tables(results)
    if not tables:
        return None
    rows = {
        name: {
            "ECE": expected_calibration_error(table),
            "ECE without sure background": foreground_calibration_error(table),
        }
        for name, table in tables.items()
    }
    note = (
        "Expected calibration error of the foreground probability, ten bins, pixels of all seeds "
        "pooled; without sure background: bins above 0.1 only."
    )
    by_domain = {
        name: calibration_errors(table)["foreground_error"].to_dict()
        for name, table in tables.items()
    }
    first, *others = pictures.calibration(tables)
    parts: list[Part] = [
        Table(
            "calibration",
            "Calibration",
            note,
            scores.rows_of(rows),
            best="low",
            first="condition",
        ),
        first,
    ]
    if others:
        table = scores.rows_of(by_domain)
        title = "ECE without sure background, by domain"
        of_domains = Table("calibration_domains", title, "", table, best="low", first="condition")
        parts.append(Details("For each metadata value", [of_domains, *others]))
    return Section("Calibration", "", parts)


def picture_sections(results: Results) -> list[Section]:
    """Predictions, gates and learning curves."""
    sections = []
    predictions = pictures.predictions(results)
    if predictions:
        sections.append(Section("Predictions", "", predictions))
    gates = pictures.gates(results)
    if gates:
        intro = "Mean activation of every gate's channels for each metadata value, first seed."
        sections.append(Section("Gates", intro, gates))
    training = pictures.training(results)
    if training:
        sections.append(Section("Training", "", training))
    return sections


def _with_p_as_text(table: pd.DataFrame) -> pd.DataFrame:
    names = [str(name) for name in table.columns if str(name).startswith("p_")]
    return table.assign(**{name: table[name].map(p_text) for name in names})


def _without_copies(table: scores.Spread) -> scores.Spread:
    """Leave out combined and average where there is one domain, which says it all."""
    if len(table.mean.columns) > 3:
        return table
    kept = ["combined", *[c for c in table.mean.columns[2:] if c != "all"]][:1]
    return scores.Spread(table.mean[kept], table.half_range[kept])
