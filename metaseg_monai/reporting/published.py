"""What publications ask: the figures of the texts beside ours, and items of guidelines."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ValidationError

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.provenance import left_out, read_evaluation
from metaseg_monai.files import read_json
from metaseg_monai.metadata.fields import AnyField
from metaseg_monai.reporting import scores
from metaseg_monai.reporting.comparisons import TESTS, compare_pair
from metaseg_monai.reporting.page import Details, Part, Section
from metaseg_monai.reporting.runs import CASES, COUNTS, SCHEMA, VOLUMES, Results, listed
from metaseg_monai.reporting.scores import rows_of
from metaseg_monai.reporting.tables import Table
from metaseg_monai.study.design import Protocol, Study
from metaseg_monai.study.record import HISTORY, STUDY, read_history, read_record

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
        open_ = contradict or results.not_concluded(first, second)
        said = "cannot tell" if open_ else verdict(difference, ours.low, ours.high)
        rows[pair.name] = {**row, "verdict": said}
    if not rows:
        return []
    title = f"Differences beside {reference.source}"
    note = (
        f"Published: {column} F1; ours: mean difference of the case F1 over the seeds that both "
        "have, with its 95 % interval over cases. Published differences up to 0.001 count as 0."
    )
    return [Table(f"verdict-{reference.id}", title, note, scores.rows_of(rows), first="difference")]


# CLAIM and TRIPOD+AI: which items the files of the runs answer, and which the author must.
#
# Items are numbered as in CLAIM's update of 2024 (Tejani et al., Radiology: Artificial Intelligence
# 6:e240300) and in TRIPOD+AI (Collins et al., BMJ 385:e078378, 2024), and named in words of
# our own. An item is answered only by a file that holds the answer; nothing is guessed from others.

AUTHOR = "for the author"
Evidence = tuple[str, str]  # file, and what stands there
CLAIM: Mapping[str, tuple[str, str]] = {  # item: its subject, and the evidence that answers it
    "1": ("title names the method as AI, and its kind", ""),
    "2": ("structured abstract", ""),
    "3": ("background; role that the method is meant for", ""),
    "4": ("aims and hypotheses", "aims"),
    "5": ("looking forward or back in time", ""),
    "6": ("purpose of the study", "aims"),
    "7": ("where the data come from", ""),
    "8": ("who or what was included and excluded", ""),
    "9": ("what was done to images before the network", "preprocessing"),
    "10": ("parts of the data that were chosen", "left_out"),
    "11": ("removal of personal data", ""),
    "12": ("what was done where data are missing", "missing"),
    "13": ("how images were taken", ""),
    "14": ("what counts as the truth", "classes"),
    "15": ("why that is the truth", ""),
    "16": ("who annotated", ""),
    "17": ("annotation of the test set", ""),
    "18": ("agreement within and between annotators", ""),
    "19": ("how cases were put into the splits", ""),
    "20": ("what no two splits share", "disjoint"),
    "21": ("planned number of cases", "sample_size"),
    "22": ("the network, in full", "network"),
    "23": ("software", "software"),
    "24": ("weights at the start", ""),
    "25": ("training", "training"),
    "26": ("how the final weights were chosen", "best"),
    "27": ("several networks together", "ensemble"),
    "28": ("scores", "scores"),
    "29": ("tests and uncertainty", "tests"),
    "30": ("robustness", "modes"),
    "31": ("explanation of the network", "explained"),
    "32": ("test on data of the same source", ""),
    "33": ("test on data of another source", ""),
    "34": ("registration as a trial", ""),
    "35": ("how many cases were included and left out", "flow"),
    "36": ("who the cases are, in each split", ""),
    "37": ("scores and their uncertainty", "performance"),
    "38": ("estimates and their precision", "performance"),
    "39": ("failures", ""),
    "40": ("limits", ""),
    "41": ("what it means for practice", ""),
    "42": ("the full protocol", "protocol"),
    "43": ("where code, weights and data are", ""),
    "44": ("funding", ""),
}
TRIPOD: Mapping[str, tuple[str, str]] = {
    "1": ("title", ""),
    "2": ("abstract", ""),
    "3a": ("clinical context", ""),
    "3b": ("for whom, and when in the care", ""),
    "3c": ("known inequalities", ""),
    "4": ("aims", "aims"),
    "5a": ("where the data come from", ""),
    "5b": ("when they were collected", ""),
    "6a": ("places and centres", ""),
    "6b": ("who was eligible", ""),
    "6c": ("treatments", ""),
    "7": ("preparation of the data", "preprocessing"),
    "8a": ("what is predicted", "classes"),
    "8b": ("who judged the outcome", ""),
    "8c": ("blinding of those", ""),
    "9a": ("why these predictors", ""),
    "9b": ("predictors: what they are, units, when known", "fields"),
    "9c": ("who measured predictors", ""),
    "10": ("number of cases", "sample_size"),
    "11": ("missing data", "missing"),
    "12a": ("which data served for what", "splits"),
    "12b": ("how predictors enter the model", "fields"),
    "12c": ("kind of model, and how it was built", "network"),
    "12d": ("differences between clusters of cases", "domains"),
    "12e": ("scores", "scores"),
    "12f": ("later changes of the model", ""),
    "12g": ("how a prediction is made", "network"),
    "13": ("imbalance of classes", ""),
    "14": ("fairness", ""),
    "15": ("output of the model", "classes"),
    "16": ("differences of development and test data", ""),
    "17": ("ethics", ""),
    "18a": ("funding", ""),
    "18b": ("interests", ""),
    "18c": ("protocol", "protocol"),
    "18d": ("registration", ""),
    "18e": ("access to data", ""),
    "18f": ("access to code", ""),
    "19": ("part that patients took in the study", ""),
    "20a": ("flow of cases", "flow"),
    "20b": ("characteristics of cases", ""),
    "20c": ("development beside test cases", ""),
    "21": ("cases in each analysis", "splits"),
    "22": ("the model in full, so that others can use it", "weights"),
    "23a": ("scores with intervals", "performance"),
    "23b": ("differences between clusters", "domains"),
    "24": ("results of changed models", ""),
    "25": ("interpretation", ""),
    "26": ("limits", ""),
    "27a": ("input that is poor or lacking, in use", "missing"),
    "27b": ("what users must do and know", ""),
    "27c": ("next steps", ""),
}
GUIDES = {"claim": ("CLAIM 2024", CLAIM), "tripod_ai": ("TRIPOD+AI", TRIPOD)}


def checklist_section(results: Results, folder: Path) -> Section:
    """Both checklists with the files that answer them.

    Args:
        results: of the runs.
        folder: of the study or of the runs, to which files are told.
    """
    known = evidence_of(results, folder)
    parts = []
    for name, (title, items) in GUIDES.items():
        rows = {}
        for number, (subject, key) in items.items():
            file, text = known.get(key, (AUTHOR, ""))
            rows[number] = {"subject": subject, "file": file, "what stands there": text}
        answered = sum(key in known for _, key in items.values())
        note = "Subjects in our own words; see the guideline for what each item asks."
        table = Table(name, f"{title}, item by item", note, rows_of(rows), first="item")
        summary = f"{title}: {answered} of {len(items)} items are answered by files"
        parts.append(Details(summary, [table]))
    intro = (
        "Which items of two reporting guidelines the files of these runs answer. All others are "
        f"{AUTHOR}; a file that answers may still need a sentence in the text."
    )
    return Section("Reporting guidelines", intro, parts)


def evidence_of(results: Results, folder: Path) -> dict[str, Evidence]:
    """What the files answer, by the names in `CLAIM` and `TRIPOD`."""
    first = results.runs[0].folder
    found: dict[str, Evidence] = {}

    def add(key: str, file: Path, text: str) -> None:
        if text and file.is_file():
            shown = file.relative_to(folder) if file.is_relative_to(folder) else file
            found[key] = shown.as_posix(), text

    _of_study(results, folder, add)
    _of_model(first, sum(results.trainings.values()), add)
    _of_cases(results, first, add)
    record, evaluation = read_record(first) or {}, read_evaluation(first)
    if record.get("versions"):
        versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        add("software", first / "run.json", versions)
        told = "settings and seeds of each run; losses in log.csv"
        add("training", first / "run.json", told)
    if evaluation:
        members = len(evaluation.get("members") or ())
        add(
            "ensemble", first / "evaluation.json",
            f"ensemble of {members}" if members else "none: one network tested alone",
        )  # fmt: skip
    for condition, runs in results.first_runs.items():
        modes = sorted({mode.partition(":")[0] for mode in results.modes(condition)} - {"normal"})
        if modes and "modes" not in found:
            told = f"tested with other metadata: {', '.join(modes)}"
            add("modes", runs[0].folder / COUNTS, told)
    add("performance", first / COUNTS, "counts of every case, from which all scores are computed")
    domains = results.normal["domain"].nunique()
    add("domains", first / COUNTS, f"scores of each of {domains} domains" if domains > 1 else "")
    scored = {
        "overlap of pixels": COUNTS, "surface Dice": "surfaces.csv",
        "objects": "objects_scores.csv", "volumes": VOLUMES, "calibration": "calibration.csv",
    }  # fmt: skip
    there = [name for name, file in scored.items() if (first / file).is_file()]
    add("scores", first / COUNTS, f"{listed(there)}, case by case")
    shown = sorted((first / "explain").glob("*")) if (first / "explain").is_dir() else []
    if files := [one for one in shown if one.is_file()]:
        add("explained", files[0], "what the gates do for each metadata value")
    return found


def _of_study(results: Results, folder: Path, add: Any) -> None:
    """What the study's own files answer."""
    study = results.study
    if study is None:
        return
    protocol, file = study.protocol, folder / STUDY
    pairs = [" against ".join(pair) for pair in protocol.comparisons]
    add("aims", file, study.question or ("compared: " + listed(pairs) if pairs else ""))
    size = protocol.sample_size
    add("sample_size", file, "" if size is None else f"{size} groups were planned")
    if pairs:
        text = f"{TESTS[protocol.test]}, alpha {protocol.alpha:g}, Holm over {len(pairs)}"
        add("tests", file, text)
    if history := read_history(folder):
        text, *changes = (
            f"{one['at'][:10]} when {one['finished_runs']} runs had results" for one in history
        )
        text = "; ".join([f"fixed on {text}", *(f"changed on {change}" for change in changes)])
        add("protocol", folder / HISTORY, text)


def _of_model(first: Path, trained: int, add: Any) -> None:
    """What the facts of the first weights answer, of so many that were trained."""
    of = f" (first of {trained} trainings)" if trained > 1 else ""
    file = first / "model.json"
    facts = read_json(file) if file.is_file() else {}
    if not facts:
        return
    steps = facts.get("preprocessing") or ()
    add("preprocessing", file, f"{len(steps)} steps with their settings{of}" if steps else "")
    if facts.get("network"):
        add("network", file, f"class and arguments, window and metadata's code{of}")
    if facts.get("weights_sha256"):
        text = f"SHA-256 {facts['weights_sha256'][:12]}..., with network, schema and preprocessing"
        add("weights", first / "model.pt", text + of)
    if best := facts.get("best"):
        add("best", file, f"{best['metric']} {best['value']:.4g}, epoch {best['epoch']}{of}")


def _of_cases(results: Results, first: Path, add: Any) -> None:
    """What the tables of cases, classes and fields answer."""
    fields, cases = list(results.fields.values()), results.cases
    add("missing", first / SCHEMA, listed([_missing(field) for field in fields]) if fields else "")
    add("fields", first / SCHEMA, listed([_field(field) for field in fields]) if fields else "")
    if results.class_names:
        names = listed([f"{n} {name}" for n, name in sorted(results.class_names.items())])
        add("classes", first / "classes.json", f"a mask of the classes {names}")
    of_runs = {run.folder: left_out(run.folder) for run in results.runs}
    lacking = {case for cases in of_runs.values() for case in cases}
    one = next((folder for folder, cases in of_runs.items() if cases), first)
    text = f"{len(lacking)} cases could not be read" if lacking else "no case was left out"
    add("left_out", one / "evaluation.json", text)
    own = cases.drop_duplicates("case")
    if own.empty or not (own["split"] != "").all():
        return
    by_split = own.groupby("split", sort=True)
    told = [
        f"{split} {len(rows)} cases of {rows['group'].nunique()} groups" for split, rows in by_split
    ]
    add("splits", first / CASES, listed(told))
    add("flow", first / CASES, f"{listed(told)}; {text}")
    if own.groupby("group")["split"].nunique().max() == 1:
        add("disjoint", first / CASES, "groups (patients, wells): each is in one split only")


def _missing(field: AnyField) -> str:
    policy = "marked as unknown" if field.missing == "unknown" else "refused"
    return f"{field.name}: {policy}"


def _field(field: AnyField) -> str:
    unit = getattr(field, "unit", "")
    return f"{field.name} ({field.kind}{f' in {unit}' if unit else ''}; {field.provenance})"
