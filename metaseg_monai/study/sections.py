"""What a report says of a study, section by section."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import (
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
)
from metaseg_monai.evaluation.statistics import compare_cases
from metaseg_monai.study import pictures, scores
from metaseg_monai.study.comparisons import Compared
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.document import Details, Part, Section
from metaseg_monai.study.record import read_record
from metaseg_monai.study.references import Reference, beside, find_reference, verdict
from metaseg_monai.study.results import Results, is_expert
from metaseg_monai.study.similarity import domain_similarity
from metaseg_monai.study.tables import Table

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
    return Section("Scores", "", [*parts, Details("Case by case, worst domain, experts", more)])


def comparison_section(protocol: Protocol, compared: Sequence[Compared]) -> Section | None:
    """The planned comparisons with their tests."""
    if not compared:
        return None
    rows = {}
    for one in compared:
        rows[one.name] = {
            "difference": one.overall.mean,
            "low": one.overall.low,
            "high": one.overall.high,
            "d_z": one.overall.effect,
            "p t": one.overall.p_t,
            "p Wilcoxon": one.overall.p_wilcoxon,
            "p permutation": one.overall.p_permutation,
            "p corrected": one.p_holm,
            "by seed": ", ".join(f"{value:+.3f}" for value in one.seeds.values()),
            "cases": one.overall.cases,
            "groups": one.overall.groups,
            "empty": one.overall.empty,
        }
    note = (
        "Difference of the case F1, first minus second, averaged over seeds within a case and over "
        "cases within a group; 95 % bootstrap interval over groups; d_z: mean over standard "
        f"deviation of the groups' differences. Corrected by Holm: {protocol.test}."
    )
    where = f" on {protocol.domain}" if protocol.domain else ""
    table = Table(
        "comparisons", f"Planned comparisons{where}", note, pd.DataFrame(rows).T, first="comparison"
    )
    parts: list[Part] = [table, pictures.differences(compared, protocol.alpha)]
    by_domain: list[Part] = [
        Table(
            f"subgroups_{one.first}_{one.second}",
            f"{one.name} in each domain",
            f"As above; p_holm corrects the {protocol.test} test over the domains.",
            one.subgroups,
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


def published_section(results: Results, file: Path) -> Section | None:
    """The texts' own figures beside ours."""
    if results.study is None or not results.study.references:
        return None
    parts: list[Part] = []
    for name, renamed in results.study.references.items():
        try:
            reference = find_reference(name, file)
        except ConfigError as error:
            parts.append(f"{name} cannot be shown: {error}")
            continue
        parts += _beside(results, reference, renamed)
    intro = (
        "The texts used other images and larger networks: scores cannot be equal. The verdict is "
        "about the sign of a difference: agrees where our 95 % interval lies on the published "
        "side of 0, disagrees where it lies on the other, else cannot tell."
    )
    return Section("Beside the published figures", intro, parts)


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
        name: calibration_errors(table)["foreground_error"] for name, table in tables.items()
    }
    first, *others = pictures.calibration(tables)
    parts: list[Part] = [
        Table(
            "calibration",
            "Calibration",
            note,
            pd.DataFrame(rows).T,
            best="low",
            first="condition",
        ),
        first,
    ]
    if others:
        table = pd.DataFrame(by_domain).T
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


def record_section(results: Results, history: Sequence[Mapping[str, Any]]) -> Section:
    """How it was made: protocol, runs and files."""
    parts: list[Part] = []
    for entry in history:
        rows = {key: {"value": _plain(value)} for key, value in entry["protocol"].items() if value}
        title = f"Protocol of {entry['at'].replace('T', ' ').replace('+00:00', ' UTC')}"
        note = f"Written when {entry['finished_runs']} runs had results."
        stem = f"protocol_{len(parts)}"
        parts.append(Table(stem, title, note, pd.DataFrame(rows).T, first="fixed"))
    if runs := _run_table(results):
        parts.append(Details("Runs", runs))
    if results.missing:
        reasons = {name: {"reason": reason} for name, reason in results.missing.items()}
        title = "Runs without results"
        table = Table("missing", title, "Left out of everything above.", pd.DataFrame(reasons).T)
        parts.append(table)
    parts.append(
        "All of this is computed from the files of the runs (`counts.csv`, `calibration.csv`, "
        "`log.csv`, `samples.npz`); `python -m metaseg_monai report` makes it anew. Tables are in "
        "`tables/` as CSV, Markdown and LaTeX, figures in `figures/`. Research software, not a "
        "medical device."
    )
    return Section("How this was made", "", parts)


def _without_copies(table: scores.Spread) -> scores.Spread:
    """Leave out combined and average where there is one domain, which says it all."""
    if len(table.mean.columns) > 3:
        return table
    kept = ["combined", *[c for c in table.mean.columns[2:] if c != "all"]][:1]
    return scores.Spread(table.mean[kept], table.half_range[kept])


def _beside(results: Results, reference: Reference, renamed: Mapping[str, str]) -> list[Part]:
    if reference.kind == "findings":
        rows = {name: {"published": row["finding"]} for name, row in reference.rows.items()}
        title = f"Findings of {reference.source}"
        found = pd.DataFrame(rows).T
        return [Table(f"beside-{reference.id}", title, reference.note, found, first="what")]
    ours = scores.f1_table(results).mean.rename(columns={v: k for k, v in renamed.items()})
    if reference.kind == "modes":
        return _beside_modes(results, reference, renamed)
    try:
        table = beside(reference, ours)
    except DataError as error:
        return [str(error)]
    return [table, *_verdicts(results, reference)]


def _beside_modes(results: Results, reference: Reference, renamed: Mapping[str, str]) -> list[Part]:
    tested = scores.with_modes(results)
    condition = next((name for name in ("me", "sme") if name in tested), None)
    if condition is None:
        return [f"{reference.id} is a matrix of test modes; none was evaluated."]
    ours = scores.mode_table(tested[condition]).mean
    back = {value: key for key, value in renamed.items()}
    try:
        return [beside(reference, ours.rename(index=back, columns=back))]
    except DataError as error:
        return [str(error)]


def _verdicts(results: Results, reference: Reference) -> list[Part]:
    """Published differences to SE beside our intervals of the same."""
    column = "combined" if "combined" in reference.columns else "average"
    rows = {}
    for name in results.conditions:
        if name == "se" or is_expert(name) or "se" not in results.conditions:
            continue
        try:
            published = reference.difference(name, "se", column)
        except ConfigError:  # not printed
            continue
        ours = compare_cases(results.cases(name), results.cases("se"))
        rows[f"{name} - se"] = {
            "published": published,
            "ours": ours.mean,
            "low": ours.low,
            "high": ours.high,
            "verdict": verdict(published, ours.low, ours.high),
        }
    if not rows:
        return []
    title = f"Differences to SE beside {reference.source}"
    note = f"Published: {column}; ours: mean difference of the case F1 with its 95 % interval."
    table = pd.DataFrame(rows).T
    return [Table(f"verdict-{reference.id}", title, note, table, first="difference")]


def _run_table(results: Results) -> list[Part]:
    rows: dict[str, dict[str, Any]] = {}
    for name, by_seed in results.conditions.items():
        for key, result in by_seed.items():
            for domain, folder in result.folders.items():
                record = read_record(folder)
                if record is None:  # evaluated by hand, outside a study
                    continue
                label = f"{name}, seed {key.seed}" + (f", {domain}" if domain else "")
                label += f", data {key.data_seed}" if key.data_seed else ""
                rows[label] = {
                    "seconds": round(record["seconds"]),
                    "ended": record["ended"][:19].replace("T", " "),
                    "torch": record["versions"]["torch"],
                    "configuration": record["key"][:8],
                }
    note = "configuration: start of the SHA-256 of the bundle's configuration and settings."
    return [Table("runs", "Runs", note, pd.DataFrame(rows).T, first="run")] if rows else []


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(" against ".join(map(str, pair)) for pair in value)
    return str(value)
