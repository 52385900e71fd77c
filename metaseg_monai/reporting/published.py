"""The published figures of the texts, and what our own say beside them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ValidationError

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import read_json
from metaseg_monai.reporting import scores
from metaseg_monai.reporting.comparisons import compare_pair
from metaseg_monai.reporting.page import Part, Section
from metaseg_monai.reporting.runs import Results
from metaseg_monai.reporting.tables import Table
from metaseg_monai.study.design import Protocol, Study

EQUAL = 0.02  # F1; what counts as no difference beside a published difference of 0
Verdict = Literal["agrees", "disagrees", "cannot tell"]


class Reference(BaseModel, frozen=True):
    """One published table; the file tells more of it, such as the printed names.

    Attributes:
        id: such as ``thesis-4.12``.
        kind: scores (rows are conditions), modes (rows are domains, columns test modes), p-values
            or findings (in words).
        source: text and table.
        data: data set, as the texts call it.
        network: as printed.
        aggregate: of the columns that are no domain (contract 10).
        score: what the numbers are.
        columns: our names, in the printed order.
        rows: values by our row names and columns; cells that are blank in print are absent.
        note: what one must know to compare.
        condition: of a matrix of test modes, the model it belongs to.
    """

    id: str
    kind: Literal["scores", "modes", "p-values", "findings"]
    source: str
    data: str
    network: str
    aggregate: Literal["combined", "average", "case mean", "not stated"]
    score: str
    columns: list[str]
    rows: dict[str, dict[str, Any]]
    note: str
    condition: str | None = None

    def frame(self) -> pd.DataFrame:
        """Values as a table; NaN where nothing is printed."""
        return pd.DataFrame.from_dict(self.rows, orient="index").reindex(columns=self.columns)


def load_references(path: Path) -> dict[str, Reference]:
    """Read the published figures, by their id.

    Args:
        path: ``docs/references.json`` of the repository, or a file of that form.

    Raises:
        ConfigError: no such file, not of the form, or an id twice.
    """
    try:
        tables = read_json(path)["tables"]
    except OSError as error:
        raise ConfigError(
            f"Cannot read the published figures: {error}; give the path of references.json, which "
            "is in docs of the repository."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} is not JSON of the form {{"tables": [...]}}: {error}') from error
    found: dict[str, Reference] = {}
    for number, table in enumerate(tables):
        try:
            reference = Reference.model_validate(table)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"{path}, table {number}, {'.'.join(map(str, first['loc']))}: {first['msg']}."
            ) from error
        if reference.id in found:
            raise ConfigError(f"{path} has the id {reference.id} twice; rename one.")
        found[reference.id] = reference
    return found


def find_reference(id: str, path: Path) -> Reference:
    """Return the published table of an id.

    Raises:
        ConfigError: there is none; the message lists the ids.
    """
    references = load_references(path)
    if id not in references:
        raise ConfigError(
            f"{path} has no published table {id!r}; its ids are {', '.join(references)}."
        )
    return references[id]


def verdict(published_difference: float, low: float, high: float) -> Verdict:
    """Say whether our interval of a difference bears out the published difference.

    A published difference of at most 0.001, the rounding of two printed scores, counts as 0: it is
    borne out by an interval within -0.02 and 0.02, and contradicted by one wholly outside. Any
    other is borne out by an interval wholly on its side of 0, and contradicted by one wholly on
    the other side.

    >>> verdict(0.008, 0.001, 0.02), verdict(0.008, -0.01, 0.02), verdict(0.008, -0.03, -0.01)
    ('agrees', 'cannot tell', 'disagrees')
    """
    if any(math.isnan(value) for value in (published_difference, low, high)):
        return "cannot tell"
    if abs(round(published_difference, 3)) <= 0.001:
        within, outside = low >= -EQUAL and high <= EQUAL, low > EQUAL or high < -EQUAL
        return "agrees" if within else "disagrees" if outside else "cannot tell"
    if low <= 0 <= high:
        return "cannot tell"
    return "agrees" if (low > 0) == (published_difference > 0) else "disagrees"


def beside(reference: Reference, ours: pd.DataFrame) -> Table:
    """Set our figures and the published ones in neighbouring columns.

    Args:
        reference: published table.
        ours: the same score, rows and columns named as in the reference.

    Returns:
        The rows and columns that both have, in the order of `ours`; of scores, the best of each
        column is marked, so that the two rankings can be compared.

    Raises:
        DataError: no row or no column is in both.
    """
    published = reference.frame()
    rows = [row for row in ours.index if row in published.index]
    columns = [column for column in ours.columns if column in published.columns]
    if not rows or not columns:
        raise DataError(
            f"{reference.id} and our table share no cell: published rows are "
            f"{', '.join(map(str, published.index))} and columns "
            f"{', '.join(map(str, published.columns))}; ours are "
            f"{', '.join(map(str, ours.index))} and {', '.join(map(str, ours.columns))}."
        )
    sides = {"ours": ours, "published": published}
    both = {(column, side): of[column][rows] for column in columns for side, of in sides.items()}
    details = f"{reference.data}; {reference.network}; {reference.score}"
    return Table(
        name=f"beside-{reference.id}",
        title=f"Ours beside {reference.source}",
        note=f"Published: {details}; aggregate {reference.aggregate}. {reference.note}".strip(),
        values=pd.DataFrame(both),
        best="high" if reference.kind == "scores" else None,
        first="domain" if reference.kind == "modes" else "condition",
    )


# The texts' own figures beside ours, with a verdict on each difference.


def published_section(results: Results, study: Study, file: Path) -> Section:
    """The texts' own figures, those that a study names, beside ours."""
    parts: list[Part] = []
    for name, renamed in study.references.items():
        try:
            parts += _beside(results, study.protocol, find_reference(name, file), renamed)
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
    published = {name: f"our {name}" for name in renamed}  # where another condition stands for it
    published |= {ours: name for name, ours in renamed.items()}
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
    tested = scores.mode_tables(results)
    if reference.condition not in tested:
        raise DataError(
            f"it is a matrix of {reference.condition}, which was not tested in several modes here"
        )
    ours = tested[reference.condition].mean
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
    everywhere = protocol.model_copy(update={"domain": None})
    of_same = protocol if column in published.values() else everywhere
    to_se = [(name, "se") for name in results.conditions if name != "se"]
    printed = {name: row[column] for name, row in reference.rows.items() if column in row}
    rows = {}
    for first, second in dict.fromkeys([*map(tuple, protocol.comparisons), *to_se]):
        one, two = (published.get(name, name) for name in (first, second))
        if not {one, two} <= printed.keys():
            continue
        try:
            pair = compare_pair(first, second, results, of_same)
        except DataError:  # not made by us
            continue
        ours, difference = pair.overall, round(printed[one] - printed[two], 4)
        row = {"published": difference, "ours": ours.mean, "low": ours.low, "high": ours.high}
        contradict = pair.strength(protocol.alpha) not in ("found", "none")  # trainings
        said = "cannot tell" if contradict else verdict(difference, ours.low, ours.high)
        rows[pair.name] = {**row, "verdict": said}
    if not rows:
        return []
    title = f"Differences beside {reference.source}"
    note = (
        f"Published: {column} F1; ours: mean difference of the case F1 over the seeds that both "
        "have, with its 95 % interval over cases. Published differences up to 0.001 count as 0."
    )
    return [Table(f"verdict-{reference.id}", title, note, scores.rows_of(rows), first="difference")]
