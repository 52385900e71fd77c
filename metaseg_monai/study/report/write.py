"""The report of a folder of runs: computed from their files, written as HTML, Markdown and more."""

import json
import math
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError
from metaseg_monai.files import replacing
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.history import STUDY, read_history
from metaseg_monai.study.report import certainty, findings, sections, words
from metaseg_monai.study.report.audit import audit_section
from metaseg_monai.study.report.comparable import unranked, why_not_comparable
from metaseg_monai.study.report.comparisons import Compared, compare_all
from metaseg_monai.study.report.document import Lead, Section, figures_of, tables_of
from metaseg_monai.study.report.encoding_section import encoding_section
from metaseg_monai.study.report.markdown_page import markdown_page
from metaseg_monai.study.report.objects_section import objects_section
from metaseg_monai.study.report.page import page
from metaseg_monai.study.report.provenance import record_section
from metaseg_monai.study.report.published import published_section
from metaseg_monai.study.report.render import to_csv, to_latex, to_markdown
from metaseg_monai.study.report.requested_section import requested_section
from metaseg_monai.study.report.run_files import class_names
from metaseg_monai.study.report.score_section import score_section
from metaseg_monai.study.report.scores import f1_table, reliance_table
from metaseg_monai.study.report.sources import source_section
from metaseg_monai.study.report.sweep_section import response_section
from metaseg_monai.study.report.trust import calibration_section
from metaseg_monai.study.report.volume_section import volume_section
from metaseg_monai.study.results import Results, read_results, read_single_runs

REFERENCES = Path("docs/references.json")


def write_report(
    runs: str | Path,
    output: str | Path | None = None,
    title: str | None = None,
    references: Path = REFERENCES,
) -> Path:
    """Write the report of a study, or of a folder with one folder for each evaluated model.

    Args:
        runs: folder of the study or of the models.
        output: folder for ``report.html``, ``report.md``, ``summary.json``, ``tables/`` (CSV,
            Markdown, LaTeX) and ``figures/*.png``; by default `runs`.
        title: heading; by default the study's name.
        references: published figures, for studies that name some.

    Returns:
        Path of ``report.html``.

    Raises:
        DataError: no run has results, or a file of a run is damaged.
        ConfigError: the study's files are damaged.
    """
    folder = Path(runs)
    results = read_results(folder) if (folder / STUDY).is_file() else read_single_runs(folder)
    target = folder if output is None else Path(output)
    study = results.study
    # what was not fixed before is described, not tested
    protocol = Protocol(comparisons=[]) if study is None else study.protocol
    history = read_history(folder) if study is not None else []
    asked = results.of_class(protocol.label_class)
    compared, not_made = compare_all(asked, protocol)
    heading = title or ("Comparison" if study is None else study.name)
    table = f1_table(asked)
    names = class_names(results)
    score = words.score_name(protocol.label_class, names)
    reasons = why_not_comparable(results, names)
    classes = asked.first.counts["class"].nunique()
    lead = Lead(
        question="" if study is None else study.question,
        found={
            "Found": "\n\n".join(
                [
                    *findings.found(protocol, table, compared, not_made, score, reasons, classes),
                    *findings.reliance_words(reliance_table(asked), score),
                ]
            ),
            "How sure": certainty.how_sure(asked, protocol, compared, history, reasons),
            "Not shown": certainty.not_shown(asked, protocol, compared),
        },
        facts=certainty.facts(results),
    )
    body = [
        section
        for section in (
            score_section(asked, protocol, results, ranked=not reasons),
            sections.comparison_section(protocol, compared, not_made, score),
            published_section(results, protocol, references),
            volume_section(results, protocol, ranked=not reasons),
            objects_section(results, protocol),
            sections.metadata_section(asked, score),
            response_section(results),
            requested_section(results),
            encoding_section(asked, score),
            source_section(results, protocol.label_class),
            audit_section(results),
            calibration_section(results),
            *sections.picture_sections(results),
            record_section(results, history),
        )
        if section is not None
    ]
    body = unranked(body) if reasons else body
    try:
        _write_parts(target, body)
        _write(target / "summary.json", _json(_summary(results, protocol, compared, reasons)))
        _write(target / "report.md", markdown_page(heading, lead, body))
        _write(target / "report.html", page(heading, lead, body))
    except OSError as error:
        raise ConfigError(
            f"Cannot write the report into {target}: {error.strerror}; name another --output."
        ) from error
    return target / "report.html"


def _write_parts(target: Path, body: list[Section]) -> None:
    for name, table in tables_of(body).items():
        _write(target / "tables" / f"{name}.csv", to_csv(table))
        _write(target / "tables" / f"{name}.md", to_markdown(table) + "\n")
        _write(target / "tables" / f"{name}.tex", to_latex(table))
    for name, figure in figures_of(body).items():
        with replacing(target / "figures" / f"{name}.png") as part:
            part.write_bytes(figure.png)


def _summary(
    results: Results, protocol: Protocol, compared: list[Compared], reasons: list[str]
) -> dict[str, Any]:
    """All main numbers, by condition and seed, for other programs."""
    from metaseg_monai.evaluation import summarise

    return {
        "conditions": {
            name: {
                f"data{key.data_seed}-seed{key.seed}": summarise(result.counts)
                for key, result in by_seed.items()
            }
            for name, by_seed in results.conditions.items()
        },
        "comparisons": [
            {
                "first": one.first,
                "second": one.second,
                **one.overall._asdict(),
                "p_holm": one.p_holm,
                "strength": one.strength(protocol.alpha),
                "trainings": one.trainings._asdict(),
                "seeds": {
                    f"data{key.data_seed}-seed{key.seed}": value for key, value in one.seeds.items()
                },
            }
            for one in compared
        ],
        "not_comparable": reasons,
        "missing": dict(results.missing),
    }


def _json(summary: Any) -> str:
    """JSON in which a score that does not exist is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(plain(summary), indent=2, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
