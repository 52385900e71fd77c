"""What the report says of each condition's scores: by domain, by label class and case by case."""

import pandas as pd

from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report import pictures, scores
from metaseg_monai.study.report.document import Details, Part, Section
from metaseg_monai.study.report.run_files import class_names
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.words import glossary, score_name
from metaseg_monai.study.results import Results, is_expert


def score_section(
    results: Results, protocol: Protocol, every_class: Results, ranked: bool = True
) -> Section:
    """F1 of each condition, by domain and class, with the worst domain.

    Args:
        results: of the label class that the protocol is about.
        protocol: of the study.
        every_class: the same with all classes.
        ranked: draw the conditions beside each other, lowest error first.
    """
    table = scores.f1_table(results)
    average = (
        "; average: unweighted mean of the domains that hold a foreground pixel in target or "
        "prediction"
    )
    if len(table.mean.columns) == 3:  # the average and the only domain say the same
        table, average = scores.Spread(*(frame[["combined"]] for frame in table)), ""
    values, spread = table
    seeds = scores.seeds_note(results)
    names = class_names(every_class)
    score = score_name(protocol.label_class, names)
    several = results.first.counts["class"].nunique()
    of = f"mean of the {several} classes, each with its " if several > 1 else ""
    note = (
        f"Pixel F1 with true metadata. combined: {of}counts pooled over all cases{average}. F1 "
        f"measures overlap: 0 none, 1 perfect. {seeds}"
    )
    if protocol.label_class is not None:
        note = f"The protocol is about label class {protocol.label_class}. {note}"
    trainings = [len(results.conditions[str(name)]) for name in values.index]
    values, spread = values.assign(trainings=trainings), spread.assign(trainings=float("nan"))
    parts: list[Part] = [
        Table("f1", f"{score} by condition", note, values, spread, best="high", first="condition")
    ]
    figure = pictures.ranking(results, protocol.aggregate, score) if ranked else None
    if figure is not None:
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
    classes = scores.class_table(every_class, names)
    if classes is not None:
        title = "F1 of each label class"
        parts.append(Table("classes", title, seeds, *classes, best="high", first="condition"))
    more: list[Part] = [
        Table(
            "cases",
            f"{score} case by case",
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
                    f"Columns: the domain an expert was trained on; rows: tested on. {seeds}",
                    *scores.experts_elsewhere(by_seed),
                    first="tested on",
                )
            )
    told = glossary(list(results.conditions))
    if told:
        rows = pd.DataFrame({"what it is": told})
        parts.append(Details("What the rows are", [Table("glossary", "Conditions", "", rows)]))
    return Section("Scores", "", [*parts, Details("Case by case, worst domain, experts", more)])
