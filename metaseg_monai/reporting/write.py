"""The report of a folder of runs: computed from their files, written as HTML, Markdown and more."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.evaluation.provenance import left_out
from metaseg_monai.files import replacing, writable
from metaseg_monai.metadata.fields import Categorical, Ordinal
from metaseg_monai.metrics.scores import MEDMAE, summarise
from metaseg_monai.metrics.statistics import NAN
from metaseg_monai.reporting import pictures, scores, words
from metaseg_monai.reporting.audit import (
    audit_section,
    belief_section,
    calibration_section,
    source_section,
)
from metaseg_monai.reporting.comparisons import TESTS, compared_row, p_text, primary_not_made
from metaseg_monai.reporting.objects import group_section, image_section, objects_section
from metaseg_monai.reporting.page import (
    Details,
    Lead,
    Part,
    Section,
    figures_of,
    markdown_page,
    page,
    tables_of,
    to_latex,
    to_markdown,
)
from metaseg_monai.reporting.published import checklist_section, published_section
from metaseg_monai.reporting.response import encoding_section, requested_section, response_section
from metaseg_monai.reporting.runs import (
    TRAINING,
    Finished,
    Results,
    by_replicate,
    is_expert,
    read_results,
    read_single_runs,
)
from metaseg_monai.reporting.scores import domain_similarity, rows_of
from metaseg_monai.reporting.tables import Table, to_csv
from metaseg_monai.reporting.verdict import Claim, claims_of, verdict_parts, verdict_rows
from metaseg_monai.reporting.volumes import volume_section
from metaseg_monai.reporting.words import Asked
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.record import STUDY, read_history, read_record

REFERENCES = (  # the package's own: of the repository, or of an installed package
    Path(__file__).resolve().parents[2] / "docs" / "references.json",
    Path(__file__).with_name("references.json"),
)
LOST = {
    "normal - shuffle": "foreign", "normal - missing": "unknown", "normal - zeros": "zeros",
}  # fmt: skip
GIVEN = {
    "normal - shuffle": "foreign metadata (shuffle)",
    "normal - missing": "metadata marked as unknown (missing)",
    "normal - zeros": "zeros in place of its metadata (zeros)",
}


def write_report(
    runs: str | Path,
    output: str | Path | None = None,
    title: str | None = None,
    references: Path | None = None,
) -> Path:
    """Write the report of a study, or of a folder with one folder for each evaluated model.

    Args:
        runs: folder of the study or of the models.
        output: folder for ``report.html``, ``report.md``, ``summary.json``, ``tables/`` (CSV,
            Markdown, LaTeX) and ``figures/*.png``; by default `runs`.
        title: heading; by default the study's name.
        references: published figures, for studies that name some; by default those
            that came with the package.

    Returns:
        Path of ``report.html``.

    Raises:
        DataError: no run has results, or a file of a run is damaged.
        ConfigError: the study's files are damaged.
    """
    published = references or next((one for one in REFERENCES if one.is_file()), REFERENCES[0])
    folder = Path(runs)
    results = read_results(folder) if (folder / STUDY).is_file() else read_single_runs(folder)
    target = folder if output is None else Path(output)
    study = results.study
    # what was not fixed before is described, not tested
    protocol = Protocol() if study is None else study.protocol
    asked = Asked(results, protocol, [] if study is None else read_history(folder))
    heading = title or ("Comparison" if study is None else study.name)
    found, claims = [*words.found(asked), *words.reliance_words(asked)], claims_of(asked)
    lead = Lead(
        question="" if study is None else study.question,
        found={
            words.heading(results): "\n\n".join(found),
            "How sure": words.how_sure(asked),
            "Not shown": words.not_shown(asked),
        },
        facts=words.facts(results),
        verdict=verdict_parts(asked, claims),
    )
    ranked = not asked.reasons and not results.only_begun
    volumes = len(results.normal_volumes) > 0
    of_images = results.score.best == "low"
    body = [
        section
        for section in (
            score_section(asked),
            *([] if of_images else [group_section(results, protocol)]),
            comparison_section(asked),
            published_section(results, study, published) if study and study.references else None,
            *([image_section(results)] if of_images else []),
            volume_section(results, protocol, ranked=ranked) if volumes else None,
            objects_section(results, protocol),
            metadata_section(asked),
            *([] if of_images else _sections_of_masks(asked)),
            audit_section(results),
            calibration_section(results),
            belief_section(results, folder),
            *picture_sections(results),
            checklist_section(results, folder),
            record_section(results, asked.history),
        )
        if section is not None
    ]
    body.insert(-1, words.terms_section(lead, body))
    if not ranked:
        body = [replace(section, parts=unranked(section.parts)) for section in body]
    with writable(target):
        written = _write_parts(target, [Section("Verdict", "", lead.verdict), *body])
        summary = {**_summary(asked, claims), "files": written}
        _remove_earlier(target, written)
        _write(target / "summary.json", _json(summary))
        _write(target / "report.md", markdown_page(heading, lead, body))
        _write(target / "report.html", page(heading, lead, body))
    return target / "report.html"


def _sections_of_masks(asked: Asked) -> list[Section | None]:
    """What is told of areas and F1 at each value of a field."""
    results = asked.every
    return [
        response_section(results),
        requested_section(results),
        encoding_section(asked.results, asked.score),
        source_section(results, asked.protocol.label_class),
    ]


def _write_parts(target: Path, body: list[Section]) -> list[str]:
    """Write tables and figures; return their files."""
    texts: dict[str, str] = {}
    for name, table in tables_of(body).items():
        texts[f"tables/{name}.csv"] = to_csv(table)
        texts[f"tables/{name}.md"] = to_markdown(table) + "\n"
        texts[f"tables/{name}.tex"] = to_latex(table)
    for file, text in texts.items():
        _write(target / file, text)
    figures = {f"figures/{name}.png": figure.png for name, figure in figures_of(body).items()}
    for file, png in figures.items():
        with replacing(target / file) as part:
            part.write_bytes(png)
    return sorted([*texts, *figures])


def _remove_earlier(target: Path, written: Sequence[str]) -> None:
    """Remove tables and figures of the report before, as its summary lists them, that none has now.

    They may be of other weights.
    """
    try:
        before = json.loads((target / "summary.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):  # no report, or of a release before
        return
    for file in {*map(str, before)} - {*written} if isinstance(before, list) else ():
        path = target / file
        if path.parent in (target / "tables", target / "figures"):
            path.unlink(missing_ok=True)


def _summary(asked: Asked, claims: Sequence[Claim]) -> dict[str, Any]:
    """All main numbers, by condition and seed, for other programs."""
    results, (computed, _) = asked.every, asked.computed
    return {
        "verdict": verdict_rows(asked, claims),
        "conditions": {
            name: {
                f"data{key.data_seed}-seed{key.seed}": summarise(counts)
                for key, counts in by_replicate(results.counts, name).items()
            }
            for name in results.conditions
        },
        "comparisons": [
            {
                "first": one.first,
                "second": one.second,
                **one.overall._asdict(),
                "p_holm": one.p_holm,
                "strength": "not concluded"
                if results.not_concluded(one.first, one.second)
                else one.strength(asked.protocol.alpha),
                "trainings": one.trainings._asdict(),
                "joint": {"low": one.joint[0], "high": one.joint[1]},
                "seeds": {
                    f"data{key.data_seed}-seed{key.seed}": value for key, value in one.seeds.items()
                },
            }
            for one in computed
        ],
        "not_comparable": asked.reasons,
        "missing": dict(results.missing),
        "fewer_epochs_than_planned": {
            name: {"epochs": epochs, "planned": planned}
            for name, (epochs, planned) in results.short.items()
        },
    }


def _json(summary: Any) -> str:
    """JSON in which a score that does not exist is null."""
    plain = json.loads(json.dumps(summary), parse_constant=lambda _: None)
    return json.dumps(plain, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def unranked(parts: Sequence[Part]) -> list[Part]:
    """The parts without marks for the best of a column, for rows that cannot be compared."""
    return [
        replace(part, best=None)
        if isinstance(part, Table)
        else replace(part, parts=unranked(part.parts))
        if isinstance(part, Details)
        else part
        for part in parts
    ]


def score_section(asked: Asked) -> Section:
    """F1 of each condition, by domain and class, with the worst domain."""
    results, protocol, score = asked.results, asked.protocol, asked.score
    values, spread = (table.copy() for table in asked.f1)
    if results.score.best == "low":
        return _error_section(asked)
    overlaps = scores.Spread(
        *(table.reindex(columns=values.columns) for table in scores.iou_table(results))
    )
    average = (
        "; average: unweighted mean of the domains that hold a foreground pixel in target or "
        "prediction"
    )
    if len(values.columns) == 3:  # the average and the only domain say the same
        values, spread, average = values[["combined"]], spread[["combined"]], ""
    seeds = scores.seeds_note(results)
    of_field = ""
    if results.domain_field and average:
        of_field = f"Further columns: values of {results.domain_field}. "
    several = results.counts["class"].nunique()
    of = f"mean of the {several} classes, each with its " if several > 1 else ""
    note = (
        f"Pixel F1 with true metadata. combined: {of}counts pooled over all cases{average}. F1 "
        f"measures overlap: 0 none, 1 perfect. {of_field}{seeds}"
    )
    if protocol.label_class is not None:
        note = f"The protocol is about label class {protocol.label_class}. {note}"
    overlap = "Intersection over union of the same counts, in the same columns (thesis 3.4)."
    iou = Table("iou", "Pixel IoU by condition", overlap, *overlaps, best="high", first="condition")
    values.insert(1, "IoU, combined", overlaps.mean["combined"])
    spread.insert(1, "IoU, combined", overlaps.half_range["combined"])
    values = values.assign(trainings=pd.Series(results.trainings))
    spread = spread.assign(trainings=float("nan"))
    parts: list[Part] = [
        Table("f1", f"{score} by condition", note, values, spread, best="high", first="condition")
    ]
    figure = None if asked.reasons else pictures.ranking(results, protocol.aggregate, score)
    if figure is not None:
        parts.append(figure)
    parts += _learned(asked)
    classes = scores.class_table(asked.every, asked.every.class_names)
    if classes is not None:
        title = "F1 of each label class"
        note = f"{scores.class_shares(asked.every, asked.every.class_names)} {seeds}".strip()
        parts.append(Table("classes", title, note, *classes, best="high", first="condition"))
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
    for name in results.conditions:
        if is_expert(name):
            more.append(
                Table(
                    f"elsewhere_{name}",
                    f"{name} on all domains",
                    f"Columns: the domain an expert was trained on; rows: tested on. {seeds}",
                    *scores.experts_elsewhere(results, name),
                    first="tested on",
                )
            )
    told = words.glossary(results.conditions)
    if told:
        rows = pd.DataFrame({"what it is": told})
        parts.append(Details("What the rows are", [Table("glossary", "Conditions", "", rows)]))
    details = Details("Pixel IoU, case by case, worst domain, experts", [iou, *more])
    if lacking := {case for run in results.runs for case in left_out(run.folder)}:
        parts.append(
            f"{len(lacking)} test case(s) are left out of scores, in one run or in all: see Cases "
            "left out, under How this was made."
        )
    return Section("Scores", "", [*parts, details])


def _learned(asked: Asked) -> list[Part]:
    """Which conditions learned the task, where the protocol says what that is."""
    results, protocol = asked.results, asked.protocol
    learned = scores.learned_table(results, protocol)
    if learned is None or protocol.learned is None:
        return []
    low, high = protocol.learned
    ends = f"F1 of at least {high:g}", f"below {low:g}"
    if results.score.best == "low":
        ends = f"{asked.score} of at most {low:g}", f"above {high:g}"
    note = (
        f"learned: {ends[0]} with every training; not learned: {ends[1]} with every training; "
        "else unstable."
    )
    title = "Which conditions learned the task"
    return [Table("learned", title, note, learned, first="condition")]


def _error_section(asked: Asked) -> Section:
    """The medMAE of each condition, by domain, where labels are images."""
    results, protocol, score = asked.results, asked.protocol, asked.score
    values, spread = asked.f1
    if len(values.columns) == 3:  # the average and the only domain say the same
        values, spread = values[["combined"]], spread[["combined"]]
    note = (
        f"Mean absolute error over the median of the label, with true metadata ({MEDMAE.ends}). "
        "combined: mean over all cases; average: mean of the domains. "
        f"{scores.seeds_note(results)}"
    )
    title = f"{score} by condition"
    parts: list[Part] = [Table("f1", title, note, values, spread, best="low", first="condition")]
    figure = None if asked.reasons else pictures.ranking(results, protocol.aggregate, score)
    if figure is not None:
        parts.append(figure)
    parts += _learned(asked)
    told = "Seeds averaged within a case, channels before. Labels with a median of 0 have no score."
    title = f"{score} case by case"
    more: list[Part] = [Table("cases", title, told, scores.case_table(results), first="condition")]
    worst = scores.worst_table(results)
    if worst is not None:
        told = f"Domain with the highest mean of its groups' case {score}."
        more.append(Table("worst", "Worst domain", told, worst, first="condition"))
    names = words.glossary(results.conditions)
    if names:
        rows = pd.DataFrame({"what it is": names})
        parts.append(Details("What the rows are", [Table("glossary", "Conditions", "", rows)]))
    return Section("Scores", "", [*parts, Details("Case by case, worst domain", more)])


def comparison_section(asked: Asked) -> Section | None:
    """The planned comparisons with their tests."""
    protocol, score, (compared, not_made) = asked.protocol, asked.score, asked.comparisons
    results = asked.results
    if not compared and not not_made:
        return None
    primary = " - ".join(protocol.comparisons[0])
    intro = (
        f"A difference counts as found where the corrected p is below {protocol.alpha:g} and the "
        "interval over groups and trainings at once lies on one side of 0 as well. "
    ) + (primary_not_made(protocol, not_made) or f"The primary comparison is {primary}.")
    if trained := words.trained_text(results):
        intro = f"{trained} {intro}"
    undone: list[Part] = [
        f"Planned but not made: {name} ({why})" for name, why in not_made.items() if name != primary
    ]
    if not compared:
        return Section("Comparisons", intro, undone)
    rows, tests = {}, {}
    for one in compared:
        overall = one.overall
        rows[one.name] = compared_row(one)
        tests[one.name] = {
            "d_z": NAN if math.isnan(overall.low) else overall.effect,
            "t": NAN if math.isnan(overall.low) else overall.t,
            "p t": "-" if math.isnan(overall.low) else p_text(overall.p_t),
            "p Wilcoxon": p_text(overall.p_wilcoxon),
            "p permutation": p_text(overall.p_permutation),
            "groups": overall.groups,
            "cases": overall.cases,
            "empty": overall.empty,
            "in both, of": f"{one.shared[0]} of {one.shared[1]}",
        }
    note = (
        f"Difference of the {score}, first minus second, averaged over seeds within a case and "
        "over cases within a group; 95 % bootstrap interval over groups; p: "
        f"{TESTS[protocol.test]}, corrected by Holm for {len(protocol.comparisons)}; "
        "with trainings: 95 % interval for other groups and other trainings at once, both taken as "
        "samples, never narrower than that over groups."
    )
    where = f" on {protocol.domain}" if protocol.domain else ""
    title = f"Planned comparisons{where}"
    every = Table(
        "tests",
        f"All tests{where}",
        "Two-sided and not corrected. The protocol names the one that counts. d_z: mean over "
        "standard deviation of the groups' differences. empty: cases without "
        "a score in one of the two, left out; in both: cases that both were tested on.",
        scores.rows_of(tests),
        first="comparison",
    )
    parts: list[Part] = [
        Table("comparisons", title, note, scores.rows_of(rows), first="comparison"),
        pictures.differences(compared, protocol.alpha, score, results.score),
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
    figure = pictures.subgroup_differences(compared, protocol.alpha, results.score)
    if figure is not None:
        parts.append(Details("In each domain", [figure, *by_domain]))
    return Section("Comparisons", intro, parts)


def metadata_section(asked: Asked) -> Section | None:
    """What each network does with wrong, missing and foreign metadata."""
    results = asked.results
    tested = scores.mode_tables(results)
    if not tested:
        return None
    parts: list[Part] = []
    seeds = scores.seeds_note(results)
    reliance = scores.reliance_table(results)
    if reliance is not None:
        given = ", or ".join(GIVEN[str(column)] for column in reliance.mean.columns)
        note = f"{asked.results.score.kind} {asked.score} lost when each case gets {given}. {seeds}"
        shown = scores.Spread(*(table.rename(columns=LOST) for table in reliance))
        parts.append(Table("reliance", "Reliance on metadata", note, *shown, first="condition"))
    parts += pictures.robustness(results)
    units = {name: field.unit for name, field in results.continuous.items()}
    parts += pictures.mode_maps(tested, units, results.score)
    tables: list[Part] = []
    for name, table in tested.items():
        title = f"Test modes of {name}"
        tables.append(Table(f"modes_{name}", title, seeds, *table, first="true domain"))
        similarity = domain_similarity(table.mean, symmetric=False)
        if similarity is None or results.score.best == "low":  # of an error no share is kept
            continue
        note = "Share of its own score that a domain (row) keeps under another label (column)."
        title = f"Domain similarity seen by {name}"
        tables.append(Table(f"similarity_{name}", title, note, similarity, first="domain"))
    maps = pictures.similarity_maps(tested) if results.score.best == "high" else []
    if maps:
        parts.append(Details("Which domains are alike to the networks", maps))
    parts.append(Details("Test modes as numbers", tables))
    intro = "The same trained networks, given other metadata than the true one."
    return Section("What metadata does", intro, parts)


def picture_sections(results: Results) -> list[Section]:
    """Predictions, gates and learning curves."""
    sections: list[Section] = []
    predictions = pictures.predictions(results)
    if predictions:
        sections.append(Section("Predictions", "", predictions))
    gates = pictures.gates(results)
    if gates:
        intro = (
            "What the gates do to channels of the network, in the first training of each condition."
        )
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


def record_section(results: Results, history: Sequence[Mapping[str, Any]]) -> Section:
    """How it was made: protocol, runs and files."""
    parts: list[Part] = []
    for entry in history:
        rows = {key: {"value": _plain(value)} for key, value in entry["protocol"].items() if value}
        title = f"Protocol of {entry['at'].replace('T', ' ').replace('+00:00', ' UTC')}"
        note = f"Written when {entry['finished_runs']} runs had results."
        stem = f"protocol_{len(parts)}"
        parts.append(Table(stem, title, note, rows_of(rows), first="fixed"))
    parts += training_counts(results)
    if runs := _run_table(results):
        parts.append(Details("Runs", runs))
    lacking = {
        f"{_label(run)}: {case}": {"reason": reason}
        for run in results.runs
        for case, reason in left_out(run.folder).items()
    }
    if lacking:
        note = "They could not be used, so no score above knows of them."
        parts.append(Table("left_out", "Cases left out", note, rows_of(lacking)))
    if results.missing:
        reasons = {name: {"reason": reason} for name, reason in results.missing.items()}
        title = "Without results"
        table = Table("missing", title, "Left out of everything above.", rows_of(reasons))
        parts.append(table)
    parts.append(
        "All of this is computed from the files of the runs (`counts.csv`, `calibration.csv`, "
        "`cases.csv`, `schema.json`, `volumes.csv`, `log.csv`, `samples.npz`, as far as a run "
        "wrote them); `python -m metaseg_monai report` makes it anew. Tables are in "
        "`tables/` as CSV, Markdown and LaTeX, figures in `figures/`. Research software, not a "
        "medical device."
    )
    return Section("How this was made", "", parts)


def training_counts(results: Results) -> list[Part]:
    """How many training cases of each value the conditions had, where they were not alike."""
    known = results.cases
    train = known[known["split"] == "train"]
    parts: list[Part] = []
    for name, field in results.fields.items():
        if not isinstance(field, Categorical | Ordinal) or name not in train:
            continue
        by = train.groupby([*TRAINING, name], sort=False).size().rename("n").reset_index()
        if by.empty:  # of folds, whose cases are all told as tested
            continue
        first = by[TRAINING].drop_duplicates("condition")
        counts = by.merge(first, on=TRAINING).pivot(index="condition", columns=name, values="n")
        counts = counts.reindex(index=results.conditions).fillna(0).astype(int)
        if len(counts.drop_duplicates()) > 1:
            counts = counts.rename(columns={"": "missing"}).rename_axis(columns=None, index=None)
            note = "Cases of the first training of each condition."
            title = f"Training cases by {name}"
            parts.append(Table(f"training_{name}", title, note, counts, first="condition"))
    return parts


def _run_table(results: Results) -> list[Part]:
    rows: dict[str, dict[str, Any]] = {}
    for run in results.runs:
        record = read_record(run.folder)
        if record is None:  # evaluated by hand, outside a study
            continue
        rows[_label(run)] = {
            "seconds": round(record["seconds"]),
            "ended": record["ended"][:19].replace("T", " "),
            "torch": record["versions"]["torch"],
            "configuration": record["key"][:8],
        }
    note = "configuration: start of the SHA-256 of the bundle's configuration and settings."
    return [Table("runs", "Runs", note, rows_of(rows), first="run")] if rows else []


def _label(run: Finished) -> str:
    """A run by what it differs in from all others."""
    label = f"{run.condition}, seed {run.seed}" + (f", {run.domain}" if run.domain else "")
    label += "" if run.fold is None else f", fold {run.fold}"
    return label + (f", data {run.data_seed}" if run.data_seed else "")


def _plain(value: Any) -> str:
    """Write a setting as text: pairs of conditions, lists, and settings by name."""
    if isinstance(value, list):
        pairs = all(isinstance(part, list) for part in value)
        return "; ".join(" against ".join(map(str, p)) if pairs else str(p) for p in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {inner}" if inner != {} else key for key, inner in value.items())
    return str(value)
