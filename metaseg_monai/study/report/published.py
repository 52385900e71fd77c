"""The texts' own figures beside ours, with a verdict on each difference."""

from collections.abc import Mapping
from pathlib import Path

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report import scores
from metaseg_monai.study.report.comparisons import compare_pair
from metaseg_monai.study.report.document import Part, Section
from metaseg_monai.study.report.references import Reference, beside, find_reference, verdict
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results


def published_section(results: Results, protocol: Protocol, file: Path) -> Section | None:
    """The texts' own figures beside ours."""
    if results.study is None or not results.study.references:
        return None
    parts: list[Part] = []
    for name, renamed in results.study.references.items():
        try:
            parts += _beside(results, protocol, find_reference(name, file), renamed)
        except (ConfigError, DataError) as error:
            parts.append(f"{name} cannot be shown: {error}")
    intro = (
        "The texts used other images and larger networks: scores cannot be equal. The verdict is "
        "about the sign of a difference: agrees where our 95 % interval over cases lies on the "
        "published side of 0, disagrees where it lies on the other, else cannot tell; nor can "
        "trainings tell that contradict each other."
    )
    return Section("Beside the published figures", intro, parts)


def _beside(
    results: Results, protocol: Protocol, reference: Reference, renamed: Mapping[str, str]
) -> list[Part]:
    if reference.kind == "findings":
        return [_findings(results, protocol, reference, renamed)]
    published = {ours: name for name, ours in renamed.items()}
    if reference.kind == "modes":
        return [_modes(results, reference, published)]
    ours = scores.f1_table(results).mean
    table = beside(reference, ours.rename(index=published, columns=published))
    return [table, *_verdicts(results, protocol, reference, published)]


def _findings(
    results: Results, protocol: Protocol, reference: Reference, renamed: Mapping[str, str]
) -> Table:
    """Findings in words beside what our conditions did."""
    learned = scores.learned_table(results, protocol)
    rows = {}
    for name, row in reference.rows.items():
        conditions = [part.strip() for part in renamed.get(name, "").split(",") if part.strip()]
        told = {"published": row["finding"]}
        if learned is not None and conditions:
            known = [c for c in conditions if c in learned.index]
            outcomes = [str(learned.loc[c, "outcome"]) for c in known]
            told["ours"] = "; ".join(f"{c}: {o}" for c, o in zip(known, outcomes, strict=True))
            told["verdict"] = _agreement(outcomes, row.get("outcome"))
        rows[name] = told
    title = f"Findings of {reference.source}"
    note = f"{reference.note} agrees: all of ours had the published outcome; disagrees: none had."
    table = scores.rows_of(rows)
    return Table(f"beside-{reference.id}", title, note, table, first="what")


def _agreement(outcomes: list[str], published: str | None) -> str:
    if published is None or not outcomes:
        return "cannot tell"
    same = [outcome == published for outcome in outcomes]
    return "agrees" if all(same) else "cannot tell" if any(same) else "disagrees"


def _modes(results: Results, reference: Reference, published: Mapping[str, str]) -> Table:
    tested = scores.with_modes(results)
    if reference.condition not in tested:
        raise DataError(
            f"it is a matrix of {reference.condition}, which was not tested in several modes here"
        )
    ours = scores.mode_table(tested[reference.condition]).mean
    ours.columns = [_mode(str(column), published) for column in ours.columns]
    return beside(reference, ours.rename(index=published))


def _mode(name: str, published: Mapping[str, str]) -> str:
    """Name a mode as the references do: fixed:<label>, the label as published."""
    kind, colon, label = name.partition(":")
    label = label.rpartition("=")[2]
    return kind + colon + published.get(label, label)


def _verdicts(
    results: Results, protocol: Protocol, reference: Reference, published: Mapping[str, str]
) -> list[Part]:
    """Published differences beside our intervals of the same: planned pairs, and those to SE."""
    column = published.get(protocol.domain or "", "")
    if column not in reference.columns:
        column = "combined" if "combined" in reference.columns else "average"
    # a score over all domains stands beside a difference over all domains
    of_same = protocol if column in published.values() else protocol.model_copy(update=ALL)
    pairs = [(first, second) for first, second in protocol.comparisons]
    pairs += [(name, "se") for name in results.conditions if name != "se"]
    rows = {}
    for first, second in dict.fromkeys(pairs):
        try:
            difference = reference.difference(
                published.get(first, first), published.get(second, second), column
            )
            pair = compare_pair(first, second, results, of_same)
        except (ConfigError, DataError, KeyError):  # not printed, or not made by us
            continue
        ours, said = pair.overall, "cannot tell"
        if pair.strength(protocol.alpha) in ("found", "none"):  # else trainings contradict
            said = verdict(difference, ours.low, ours.high)
        rows[pair.name] = {
            "published": difference,
            "ours": ours.mean,
            "low": ours.low,
            "high": ours.high,
            "verdict": said,
        }
    if not rows:
        return []
    title = f"Differences beside {reference.source}"
    note = (
        f"Published: {column} F1; ours: mean difference of the case F1 over the seeds that both "
        "have, with its 95 % interval over cases. Published differences up to 0.001 count as 0."
    )
    return [Table(f"verdict-{reference.id}", title, note, scores.rows_of(rows), first="difference")]


ALL: Mapping[str, None] = {"domain": None}
