"""What a report says of a study, section by section."""

from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report import pictures, scores
from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.document import Details, Part, Section
from metaseg_monai.study.report.similarity import domain_similarity
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.words import TESTS, by_training, glossary, p_text
from metaseg_monai.study.results import Results, is_expert

SEEDS = "Mean over trainings, ± half the distance between the lowest and the highest."


def score_section(results: Results, protocol: Protocol, every_class: Results) -> Section:
    """F1 of each condition, by domain and class, with the worst domain.

    Args:
        results: of the label class that the protocol is about.
        protocol: of the study.
        every_class: the same with all classes.
    """
    table = scores.f1_table(results)
    note = (
        "Pixel F1 with true metadata. combined: counts pooled over all cases; average: unweighted "
        "mean of the domains that hold a foreground pixel in target or prediction. F1 measures "
        f"overlap: 0 none, 1 perfect. {SEEDS}"
    )
    if protocol.label_class is not None:
        note = f"Label class {protocol.label_class}, which the protocol is about. {note}"
    values, spread = _without_copies(table)
    trainings = [len(results.conditions[str(name)]) for name in values.index]
    values, spread = values.assign(trainings=trainings), spread.assign(trainings=float("nan"))
    parts: list[Part] = [
        Table("f1", "F1 of each condition", note, values, spread, best="high", first="condition")
    ]
    if (figure := pictures.ranking(results, protocol.aggregate)) is not None:
        parts.append(figure)
    learned = scores.learned_table(results, protocol)
    if learned is not None and protocol.learned is not None:
        low, high = protocol.learned
        note = (
            f"learned: F1 of at least {high:g} with every training; not learned: below {low:g} "
            "with every training; else unstable."
        )
        title = "Which conditions learned the task"
        parts.append(Table("learned", title, note, learned, first="condition"))
    classes = scores.class_table(every_class)
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


def comparison_section(
    protocol: Protocol, compared: Sequence[Compared], not_made: Mapping[str, str]
) -> Section | None:
    """The planned comparisons with their tests."""
    if not compared and not not_made:
        return None
    intro = (
        f"A difference counts as found where the corrected p is below {protocol.alpha:g} and the "
        "interval over trainings lies on one side of 0 as well. The first comparison is the "
        "primary one."
    )
    undone: list[Part] = [f"Planned but not made: {n} ({why})" for n, why in not_made.items()]
    if not compared:
        return Section("Comparisons", intro, undone)
    rows, tests = {}, {}
    for one in compared:
        overall = one.overall
        rows[one.name] = {
            "difference": overall.mean,
            "low": overall.low,
            "high": overall.high,
            "d_z": overall.effect,
            "p corrected": p_text(one.p_holm),
            "by training": by_training(one),
            "trainings, low": one.trainings.low,
            "trainings, high": one.trainings.high,
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
        pictures.differences(compared, protocol.alpha),
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


def metadata_section(results: Results) -> Section | None:
    """What each network does with wrong, missing and foreign metadata."""
    tested = scores.with_modes(results)
    if not tested:
        return None
    parts: list[Part] = []
    reliance = scores.reliance_table(results)
    if reliance is not None:
        note = (
            "Pooled F1 lost when each case gets foreign metadata (shuffle), metadata marked as "
            f"unknown (missing), or zeros in its place. {SEEDS}"
        )
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


def picture_sections(results: Results) -> list[Section]:
    """Predictions, gates and learning curves."""
    sections = []
    predictions = pictures.predictions(results)
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


def _with_p_as_text(table: pd.DataFrame) -> pd.DataFrame:
    names = [str(name) for name in table.columns if str(name).startswith("p_")]
    return table.assign(**{name: table[name].map(p_text) for name in names})


def _without_copies(table: scores.Spread) -> scores.Spread:
    """Leave out combined and average where there is one domain, which says it all."""
    if len(table.mean.columns) > 3:
        return table
    kept = ["combined", *[c for c in table.mean.columns[2:] if c != "all"]][:1]
    return scores.Spread(table.mean[kept], table.half_range[kept])
