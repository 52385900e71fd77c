"""The card of a trained model: what its facts and its bound results say, and nothing else."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from metaseg_monai.bundle.run import resolve_bundle
from metaseg_monai.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MetasegError,
    listing,
    typed,
)
from metaseg_monai.evaluation import read_counts
from metaseg_monai.evaluation.provenance import check_results
from metaseg_monai.files import absolute, read_json, replacing, writable
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import AnyField
from metaseg_monai.owners import owned
from metaseg_monai.sharing.run import RECORDS, rewriting, scores_by_mode
from metaseg_monai.tables.licenses import (
    Statement,
    license_table,
    look_like_kits,
    may_share,
    statement,
    weights_license,
)
from metaseg_monai.training.weights import (
    EVALUATION,
    predicts_images,
    read_trained_on,
    read_weights,
    write_fact,
)

CARD = "README.md"
MARK = "<!-- of metaseg_monai: made anew by the command card -->"
SHOWN_MODES = {  # test modes on a card, in words
    "normal": "true metadata",
    "missing": "metadata unknown",
    "shuffle": "metadata of another value (shuffled)",
    "zeros": "a vector of zeros instead of metadata",
}
INTERVAL = "95 % interval"
SCORES = {  # of results on a card, by the column of `scores_by_mode`; the interval is of the cases
    False: {
        **{"pooled_f1": "F1 pooled", "average_f1": "mean of domains"},
        **{"case_mean_f1": "mean of cases", "low": INTERVAL},
    },
    True: {  # of a network that predicts images
        **{"medmae": "medMAE", "average_medmae": "mean of domains"},
        **{"case_mean_medmae": "mean of cases", "low": INTERVAL},
        **{"psnr": "PSNR, dB", "ssim": "SSIM", "pearson": "Pearson's r"},
    },
}
MEASURED = {
    False: "Pixels of all foreground classes; the interval takes the cases of a group together.",
    True: "medMAE: mean absolute error over the median of the true image, in the values of files; "
    "0 is perfect, lower is better. The interval takes the cases of a group together.",
}
KINDS = {  # of provenance, and what a reader must know of it
    "acquisition": "told by the acquisition",
    "clinical prior": "told by a clinician before; where it was read off the image, it is a part "
    "of the answer",
    "label-derived": "**derived from the labels: it gives away a part of the answer**, so that "
    "scores with it are no scores of a prediction from the image alone",
}


@dataclass(frozen=True)
class Model:
    """A trained model as it is shared.

    Attributes:
        folder: that was given: a model's, or a bundle's with its weights in ``models``.
        weights: the file of the weights.
        facts: in it, checked against its tensors.
        about: the bundle's metadata.json; empty where there is none.
    """

    folder: Path
    weights: Path
    facts: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def is_bundle(self) -> bool:
        """Whether the folder is a bundle, which runs by itself."""
        return (self.folder / "configs" / "metadata.json").is_file()

    @property
    def schema(self) -> MetadataSchema | None:
        """Of the metadata; None for a network that reads none."""
        told, network = self.facts.get("schema"), self.facts.get("network") or {}
        reads = network.get("variant", "") not in ("none", "se")
        return MetadataSchema.from_dict(told) if told and reads else None

    @property
    def predicts_images(self) -> bool:
        """Whether its labels were images, no masks."""
        return predicts_images(self.facts)

    @property
    def data(self) -> list[Statement]:
        """What is stated of the licence of the data that the weights were trained on."""
        return list(self.facts.get("data") or [])

    @property
    def license(self) -> str | None:
        """Of the weights; None where that of the data is not stated."""
        return weights_license(self.data)

    @property
    def cases(self) -> pd.DataFrame | None:
        """The record of the images that were trained on; None without one.

        Raises:
            DataError: it is another training's, or damaged.
        """
        return read_trained_on(self.weights, self.facts)

    def __str__(self) -> str:
        return str(self.about.get("name") or self.folder.resolve().name)


def read_model(folder: str | Path) -> Model:
    """Read a model's folder, or a bundle's with weights, as it is to be shared.

    Raises:
        ConfigError: there are no weights.
        CheckpointError: they are damaged, or without facts.
    """
    home = Path(folder)
    places = (home / "model.pt", home / "models" / "model.pt")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(
            f"{folder}: no model.pt, nor models/model.pt; give the folder of a trained model, or "
            "of a bundle with its weights"
        )
    facts = read_weights(found)[1]
    stated = facts.get("data") or []
    if not isinstance(stated, list) or not all(
        isinstance(one, dict) and {"data", "license"} <= one.keys() for one in stated
    ):
        raise CheckpointError(f"{found}: damaged facts (data); get it anew")
    root = home if (home / "configs").is_dir() else _bundle_of(home)
    try:
        about = read_json(root / "configs" / "metadata.json") if root else {}
    except (OSError, ValueError):
        about = {}
    return Model(home, found, facts, about if isinstance(about, dict) else {})


def _bundle_of(home: Path) -> Path | None:
    """The bundle that a model's folder says it was trained by, if it is still there."""
    for record in RECORDS:
        try:
            return resolve_bundle(read_json(home / record)["bundle"])
        except (OSError, ValueError, KeyError, TypeError, MetasegError):
            continue
    return None


@typed
def card(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    data: str | None = None,
    data_license: str | None = None,
) -> str:
    """Write the card of a trained model: use, data, licences, metadata, results.

    Scores come from an evaluation that is bound to these very weights, or there are none on the
    card. A licence that the data folder did not tell the training is stated here, once, and kept
    in the facts of the weights; one that is known is never changed.

    Example:
        python -m metaseg_monai card runs/me
        python -m metaseg_monai card runs/me --data "Our cohort" --data_license cc-by-4.0

    Args:
        folder: of the model, or of a bundle with weights in models.
        output: file of the card; by default README.md in the folder, docs/README.md stays.
        data: name of the data that the weights were trained on, where the weights do not tell.
        data_license: of these data, as the Hugging Face hub calls it, such as cc-by-4.0.

    Returns:
        What was written, and the licence of the weights.

    Raises:
        ConfigError: no model; a licence that contradicts what is known; a README of somebody else.
        CheckpointError: the weights are damaged, or without facts.
        DataError: the evaluation is of other weights.
    """
    model = read_model(folder)
    if data is not None or data_license is not None:
        model = _stated(model, data, data_license)
    file = Path(output) if output is not None else model.folder / CARD
    if file.is_file() and MARK not in file.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"{file} was written by somebody else; give --output, another file")
    text = model_card(model)
    with writable(file), replacing(file) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    told = f"licence of the weights: {model.license}"
    if model.license is None:
        told = f"the licence of the weights is not known; {how_to_state(model)}"
    return f"{file}\n{told}"


def how_to_state(model: Model) -> str:
    """The command that states the licence of the data."""
    return (
        "state that of the data: python -m metaseg_monai card "
        f'{quote(str(model.folder))} --data "NAME OF THE DATA" --data_license cc-by-4.0 '
        "(or license.json beside the table, before the training)"
    )


def _stated(model: Model, data: str | None, license_id: str | None) -> Model:
    """The model with a statement in its facts; what is known stands."""
    if data is None:
        raise ConfigError("--data_license without --data: name the data, such as 'Our cohort'")
    if not data.strip() or not data.isprintable():
        raise ConfigError(f"--data {data!r}: expected a name of the data, such as 'Our cohort'")
    said = statement(data, license_id)
    known = [one for one in model.data if one["license"] is not None]
    if known and said not in known:
        told = ", ".join(f"{one['data']} ({one['license']})" for one in known)
        raise ConfigError(
            f"{model.weights} was trained on {told}, as the data said then; a card cannot say "
            f"{said['data']} ({said['license']}) instead"
        )
    unstated = [one["data"] for one in model.data if one["data"] in license_table()["data"]]
    if not known and unstated and said["data"] not in unstated:
        raise ConfigError(
            f"{model.weights} was trained on {unstated[0]}, whose owners state no licence; a card "
            f"cannot say {said['data']} instead. Where they gave you terms, say so: --data "
            f"{unstated[0]} --data_license other"
        )
    cases = model.cases
    if not known and cases is not None and look_like_kits(cases["case"]) and not _is_kits(said):
        raise ConfigError(
            f"{model.weights} was trained on cases named as those of KiTS ({cases['case'].iloc[0]})"
            f", whose licence is {statement('kits')['license']}; state --data kits. If they are "
            "others, put license.json beside their table and train anew"
        )
    if said in known:
        return model
    home = model.weights.parent
    with owned(home, "is writing into the model here"), rewriting(home):
        write_fact(absolute(model.weights), "data", [said])
    return read_model(model.folder)


def _is_kits(said: Statement) -> bool:
    return bool(said["license"] == statement("kits")["license"])


def model_card(model: Model, use: str | None = None) -> str:
    """The text of a card: front matter as the Hugging Face hub reads it, and pages for people.

    Args:
        model: of which it tells.
        use: how it is used; by default as a network, with this package.

    Raises:
        DataError: there is an evaluation, and it is not of these weights.
        CheckpointError: the weights beside the evaluation cannot be read.
    """
    results = results_of(model)
    what = "images to be predicted" if model.predicts_images else "segmentation"
    parts = [
        f"---\n{_front_matter(model, results)}---\n",
        MARK,
        f"# {model}\n",
        f"{model.about.get('description') or f'A network for {what} that reads metadata.'}\n",
        "## Intended use\n",
        _use(model),
        "## Data and licences\n",
        _data(model),
        "## Metadata\n",
        _metadata(model, results),
        "## Results\n",
        _tests(model, results),
        "## How to use it\n",
        _how(model) if use is None else use,
        f"Weights: sha256 `{model.facts['weights_sha256']}`. {_versions(model)}\n",
    ]
    return "\n".join(parts)


@dataclass(frozen=True)
class Results:
    """What an evaluation of the weights found.

    Attributes:
        scores: a row a mode, of `scores_by_mode`.
        record: evaluation.json.
        groups: patients, wells or the like.
    """

    scores: pd.DataFrame
    record: Mapping[str, Any]
    groups: int

    @property
    def of_images(self) -> bool:
        """Whether images were predicted, no masks."""
        return "medmae" in self.scores

    def row(self, mode: str) -> dict[str, Any]:
        """The scores of a mode."""
        told = self.scores.to_dict("index")[mode]  # not .loc, which makes whole numbers fractions
        return {str(name): value for name, value in told.items()}


def results_of(model: Model) -> Results | None:
    """What the evaluation beside a model found; None without one.

    Raises:
        DataError: it is not of these weights.
    """
    home = model.weights.parent
    if not (home / EVALUATION).is_file():
        return None
    record = check_results(home)
    if record["weights_sha256"] != model.facts["weights_sha256"]:
        raise DataError(
            f"{home}: {EVALUATION} is of other weights; evaluate anew: python -m metaseg_monai "
            f"evaluate {quote(str(home))}"
        )
    counts = read_counts(home / "counts.csv")
    return Results(scores_by_mode(counts), record, counts["group"].nunique())


def _front_matter(model: Model, results: Results | None) -> str:
    """YAML whose every value is JSON, which YAML is a superset of."""
    names = [_slug(one["data"]) for one in model.data]
    task = "image-to-image" if model.predicts_images else "image-segmentation"
    content: dict[str, Any] = {"library_name": "monai", "pipeline_tag": task}
    if model.license is not None:
        content["license"] = model.license
    if model.license == "other":
        terms = " and ".join(dict.fromkeys(str(one["license"]) for one in model.data))
        content |= {"license_name": _slug(f"data-{terms}"), "license_link": CARD}
    kind = "image-to-image" if model.predicts_images else "segmentation"
    content["tags"] = ["monai", kind, "metadata", "metaseg_monai"]
    if names:
        content["datasets"] = names
    content["metrics"] = ["medmae", "psnr", "ssim"] if model.predicts_images else ["f1"]
    if results is not None and "normal" in results.scores.index:
        row = results.row("normal")
        name = names[0] if names else "not-stated"
        told = {
            "f1": {
                "F1 pooled over all cases": "pooled_f1",
                f"mean F1 of cases (95 % interval {_interval(row)})": "case_mean_f1",
            }
        }
        if model.predicts_images:
            told = {
                "medmae": {
                    f"mean medMAE of cases, lower is better (95 % interval {_interval(row)})": (
                        "case_mean_medmae"
                    )
                },
                "psnr": {"mean PSNR in dB": "psnr"},
                "ssim": {"mean SSIM": "ssim"},
            }
        scores = [
            {"type": kind, "name": name, "value": _number(row[column])}
            for kind, columns in told.items()
            for name, column in columns.items()
        ]
        found = {
            "task": {"type": task, "name": task.replace("-", " ").capitalize()},
            "dataset": {
                "type": name,
                "name": model.data[0]["data"] if names else "not stated",
                "split": str(results.record["split"]),
            },
            "metrics": [score for score in scores if score["value"] is not None],
        }
        if found["metrics"]:
            content["model-index"] = [{"name": str(model), "results": [found]}]
    return "".join(f"{k}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in content.items())


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "data"


def _number(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)


def _interval(row: Mapping[str, Any]) -> str:
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return "not known"
    return f"{row['low']:.3f} to {row['high']:.3f}"


def _use(model: Model) -> str:
    said = str(model.about.get("intended_use") or "Research only; not a medical device.")
    lines = [said.rstrip(".") + "."]
    if task := model.about.get("task"):
        lines.append(f"{str(task).rstrip('.')}.")
    if images := model.about.get("image_classes"):
        lines.append(f"Images: {images}.")
    intensity = model.facts.get("intensity")
    if intensity and not intensity.get("indifferent"):
        channel = intensity["channels"][0]
        lines.append(
            f"Values of the training's images: {channel['lowest']:g} to {channel['highest']:g} "
            f"({', '.join(intensity['stored'])}); scans of another scale are refused."
        )
    if model.predicts_images and (labels := model.about.get("label_classes")):
        lines.append(f"What is predicted: {labels}.")
    if classes := model.facts.get("class_names"):
        lines.append(f"Classes: {', '.join(f'{n} {name}' for n, name in classes.items())}.")
    return " ".join(lines) + "\n"


def _data(model: Model) -> str:
    known, lines = license_table(), []
    for one in model.data:
        facts = known["data"].get(one["data"], {})
        terms = known["licenses"].get(one["license"], {})
        name = f"{facts.get('name', one['data'])}"
        source = f" ({facts['source']})" if facts.get("source") else ""
        if one["license"] is None:
            lines.append(f"- Trained on {name}{source}: **no licence is stated.**")
            continue
        lines.append(f"- Trained on {name}{source}, licence `{one['license']}`: {terms['asks']}.")
        if facts.get("attribution"):
            lines.append(f"  Attribute: {facts['attribution']}.")
    if not lines:
        lines.append("- **The data that these weights were trained on are not stated.**")
    if model.license is None:
        lines.append("- Licence of the weights: **not known**; do not pass them on.")
    else:
        terms = [known["licenses"].get(one["license"], {}) for one in model.data]
        commercial = all(one.get("commercial") for one in terms)
        shared = "may be shared" if may_share(model.data) else "**may not be shared**"
        lines.append(
            f"- Licence of the weights: `{model.license}`, which the data demand. They {shared}; "
            f"commercial use: {'yes' if commercial else 'no'}."
        )
    lines.append("- Licence of the code: `apache-2.0` (metaseg_monai).")
    lines.append(
        "- Whether weights are adapted material of their data is not settled; this card takes it "
        "that they are."
    )
    if (cases := model.cases) is not None:
        counted = cases.drop_duplicates(subset=[*cases.columns[:1], "case"])
        of_split = ", ".join(
            f"{len(part)} of the split {split} ({part['group'].nunique()} groups)"
            for split, part in counted.groupby("split", sort=False)
        )
        lines.append(f"- Images: {of_split}; val chose the weights.")
    return "\n".join(lines) + "\n"


def _metadata(model: Model, results: Results | None) -> str:
    schema = model.schema
    if schema is None:
        return "The network reads no metadata.\n"
    rows = [
        "| field | values | comes from | known at | where it is missing |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| `{one.name}` | {_values(one)} | {one.provenance} | {one.availability} | "
        f"{'taken as unknown' if one.missing == 'unknown' else 'refused'} |"
        for one in schema.fields
    ]
    told = [f"- `{one.name}`: {KINDS[one.provenance]}." for one in schema.fields]
    late = [one.name for one in schema.fields if one.availability == "post-operative"]
    if late:
        told.append(f"- Known only afterwards, and refused in a prediction: {', '.join(late)}.")
    if str(model.facts.get("variant", "")).endswith("-dummy"):
        told.append("- This is a control: the network was trained with zeros instead of metadata.")
    if model.facts.get("unknown_trained"):
        told.append(
            "- Without a value the network is told that it is unknown, which it was trained for."
        )
    else:
        told.append(
            "- It was not trained for missing values: without a value it refuses the image."
        )
    if never := model.facts.get("untrained"):
        values = listing([f"{name}={one}" for name, of in never.items() for one in of])
        told.append(
            f"- No training image had {values}: asked for it, the network answers untrained."
        )
    told.append(_effect(results))
    return "\n".join([*rows, "", *told]) + "\n"


def _effect(results: Results | None) -> str:
    """What missing and wrong metadata do, as it was measured."""
    unknown = "- What missing or wrong metadata do to what is predicted was not measured."
    if results is None or "normal" not in results.scores.index:
        return unknown
    of_images = results.of_images
    scores = results.scores["medmae" if of_images else "pooled_f1"]
    found = [
        f"{SHOWN_MODES[mode]}: {scores[mode]:.3f}"
        for mode in ("missing", "shuffle")
        if mode in scores.index and pd.notna(scores[mode])
    ]
    if not found:
        return unknown
    name = "medMAE (lower is better)" if of_images else "pooled F1"
    return f"- Measured {name} with true metadata: {scores['normal']:.3f}; {'; '.join(found)}."


def _values(one: AnyField) -> str:
    settings = one.model_dump()
    if "values" in settings:
        return ", ".join(map(str, settings["values"]))
    if "range" in settings:
        low, high = settings["range"]
        return f"{low:g} to {high:g} {settings.get('unit') or ''}".strip()
    return f"{one.width} numbers"


def _tests(model: Model, results: Results | None) -> str:
    if results is None:
        return "Not tested: no evaluation of these weights lies beside them.\n"
    columns = SCORES[results.of_images]
    rows = [
        f"| test mode | {' | '.join(columns.values())} | cases |",
        f"|---|{''.join('---|' if name == 'low' else '---:|' for name in columns)}---:|",
    ]
    for mode, words in SHOWN_MODES.items():
        if mode in results.scores.index:
            row = results.row(mode)
            cells = [
                _interval(row) if name == "low" else "-" if pd.isna(one) else f"{one:.3f}"
                for name, one in ((name, row[name]) for name in columns)
            ]
            rows.append(f"| {words} | {' | '.join(cells)} | {int(row['cases'])} |")
    images = results.record.get("images")
    seen = (
        "none of their images was trained on"
        if images == "unseen"
        else "**whether their images were trained on is not known**"
    )
    left = len(results.record.get("left_out") or {})
    return (
        "\n".join(rows)
        + f"\n\nSplit `{results.record['split']}`, {results.groups} groups; {seen}; {left} cases "
        f"were left out. {MEASURED[results.of_images]} Scores elsewhere will differ.\n"
    )


def _how(model: Model) -> str:
    schema = model.schema
    meta = ", meta" if schema else ""
    lines = ["```python", "import torch", "from metaseg_monai import from_pretrained", ""]
    lines.append('model = from_pretrained("FOLDER or OWNER/NAME")')
    if schema:
        told = {one.name: _example(one) for one in schema.fields}
        lines.append(f"meta = torch.from_numpy(model.schema.encode({told!r}))[None]  # (1, M)")
    answer, output = ("pred", "predicted") if model.predicts_images else ("logits", "masks")
    lines.append(
        f"{answer} = model.network(image{meta})  # image (1, C, *S), scaled as in training"
    )
    if model.predicts_images:
        lines.append(
            "# pred (1, K, *S), scaled as the labels of the training: see scaling in facts"
        )
    return "\n".join([*lines, "```", ""]) + (
        "\nWhole images and volumes, with their preprocessing and windows: "
        f"`python -m metaseg_monai predict FOLDER --source images --output {output}`.\n"
    )


def _example(one: AnyField) -> Any:
    settings = one.model_dump()
    if "values" in settings:
        return settings["values"][0]
    if "range" in settings:
        return settings["range"][0]
    return [0.0] * int(settings.get("size") or one.width)


def _versions(model: Model) -> str:
    told = model.facts.get("versions") or {}
    return "Trained with " + ", ".join(f"{name} {text}" for name, text in told.items()) + "."


def refuse_unlicensed(model: Model) -> None:
    """Refuse to give on weights whose data are of nobody knows whom, or may not be shared.

    Raises:
        ConfigError: names the data, and what to do.
    """
    if model.license is None:
        raise ConfigError(
            f"{model.weights}: the licence of the data that it was trained on is not stated, so "
            f"nobody knows under which one it may be given on; {how_to_state(model)}"
        )
    if not may_share(model.data):
        told = ", ".join(f"{one['data']} ({one['license']})" for one in model.data)
        raise ConfigError(
            f"{model.weights} was trained on {told}, which lets nothing that is made of it be "
            "shared; share the code and the results"
        )
