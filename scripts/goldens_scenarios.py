"""What both sides are asked to do: the scenarios of goldens.json, in the words of each side.

A later state of the code may name a setting otherwise: add it to `RENAMED`, and both are asked the
same. What matters is set (schema, dropout of metadata, data), so that another default changes
nothing.
"""

import inspect
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import goldens_inputs

FIXED: Mapping[str, Any] = json.loads(Path(__file__).with_name("goldens.json").read_text())
OTHER_VARIANTS = ("none", "se", "sme-dummy", "film-dummy")
EVALUATED = ("counts.csv", "cases.csv", "calibration.csv", "objects_scores.csv", "volumes.csv")

# Settings that a later side names otherwise: today's id -> later ones, of which the first that the
# configuration of the side knows is taken.
RENAMED: Mapping[str, Sequence[str]] = {
    "channels": ["network_def#channels"],
    "levels": ["network_def#levels"],
    "pad_size": ["train#augmentation#0#spatial_size"],
    "spacing_mm": ["preprocessing#1#spacing_mm"],
    "window_size": ["window_inferer#roi_size"],
}
DEFAULTS = ("optimizer#betas",)  # set to what a side has that does not name it


class FailedError(Exception):
    """A side cannot do a scenario; the message says what failed, and why."""


class Command(NamedTuple):
    """``python -m`` with words and settings.

    Attributes:
        words: as one writes them.
        settings: of a bundle.
        configs: names of its configurations that the settings must be known to.
        bundle: name of the bundle.
        code: exit status that is expected.
        told: whether its output is compared.
    """

    words: str
    settings: Mapping[str, Any] = {}
    configs: Sequence[str] = ()
    bundle: str = ""
    code: int = 0
    told: bool = True

    def line(self, checkout: Path) -> list[str]:
        """The words as a process takes them; settings by the names that a checkout has for them.

        Raises:
            FailedError: it knows a setting under no name.
        """
        known: dict[str, Any] = {}
        for name in self.configs:
            path = checkout / "bundles" / self.bundle / "configs" / f"{name}.json"
            known |= json.loads(path.read_text(encoding="utf-8"))
        words = shlex.split(self.words)
        for name, value in self.settings.items():
            names = [name, *RENAMED.get(name, ())]
            found = [one for one in names if not known or _knows(known, one)]
            if not found and name in DEFAULTS:
                continue
            if not found:
                raise FailedError(
                    f"{self.bundle} has no setting {name} in {', '.join(self.configs)}; say in "
                    "RENAMED of goldens_scenarios.py what it is called there"
                )
            words += [f"--{found[0]}", str(value)]
        return words


class Write(NamedTuple):
    """Write a JSON file into the work folder."""

    name: str
    content: Any


class Make(NamedTuple):
    """Call a function of goldens_inputs.py with the work folder and further arguments."""

    name: str
    arguments: Sequence[str] = ()

    def __call__(self, work: Path) -> None:
        """Make or change inputs."""
        getattr(goldens_inputs, self.name)(work, *self.arguments)

    @property
    def source(self) -> str:
        """The text of the function."""
        return inspect.getsource(getattr(goldens_inputs, self.name))


Step = Command | Write | Make


class Scenario(NamedTuple):
    """Steps in a new folder, whose folder ``out`` is the result.

    Attributes:
        name: group-what; those that begin with inputs are not compared.
        steps: in order.
        needs: results of other scenarios, by the folder that they are copied into. Both sides get
            those of the old side; a side's own ones where the name begins with "own ".
        compared: patterns of the files in ``out`` that are compared.
    """

    name: str
    steps: Sequence[Step]
    needs: Mapping[str, str] = {}
    compared: Sequence[str] = ("*",)


def _knows(config: Mapping[str, Any], name: str) -> bool:
    """Tell whether a configuration has an id such as train#dataset#seed."""
    place: Any = config
    for part in name.split("#"):
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict) and part in place:
            place = place[part]
        else:
            return name in config
    return True


def _step(text: str) -> Step:
    """Read a step: a function's name behind @, or a command, behind ! if it is to refuse."""
    if text.startswith("@"):
        return Make(text[1:])
    return Command(f"metaseg_monai {text.removeprefix('! ')}", code=2 if text[0] == "!" else 0)


def _schema(field: str, values: str = "") -> Write:
    """The schema of a bundle at commit 49d577c: labels are never missing, a size may be unknown."""
    kind: dict[str, Any] = {"kind": "categorical", "values": values.split(",")}
    rest = {"provenance": "acquisition", "availability": "acquisition", "missing": "error"}
    if not values:
        kind = {"kind": "continuous", "unit": "mm", "range": [5, 250], "scale": "log"}
        rest = {"provenance": "label-derived", "availability": "pre-operative"}
        rest |= {"missing": "unknown", "out_of_range": "error"}
    return Write(
        "schema.json", {"fields": [{"name": field, "description": "fixed here", **kind, **rest}]}
    )


def _monai(bundle: str, run: str, configs: Sequence[str], settings: Mapping[str, Any]) -> Command:
    files = [f"bundles/{bundle}/configs/{name}.json" for name in configs]
    config = files[0] if len(files) == 1 else f'"{files}"'
    words = f"monai.bundle run {run} --config_file {config}"
    return Command(words, settings, configs, bundle, told=False)


def _of_bundle(short: str, facts: Mapping[str, Any]) -> Iterator[Scenario]:
    """Train a bundle, evaluate it in its modes, predict with it."""
    bundle, field, values = facts["name"], facts["field"], facts.get("values", "")
    own = {"variant": facts["variant"], "schema_file": "schema.json", "output_dir": "out"}
    settings = {**FIXED["net"], **facts["net"], **own}
    inputs: list[Step] = [_schema(field, values)]
    inputs += [Make("write_nuclei", (field, values))] if values else []
    data = {} if values else {"data": facts["data"]}
    train = _monai(bundle, "training", ["train"], settings)
    yield Scenario(f"weights-{short}", [*inputs, train], data, ("model.pt", "log.csv"))
    tested = {**settings, "modes": facts.get("modes", FIXED["modes"])}
    evaluate = _monai(bundle, "evaluating", ["train", "evaluate"], tested)
    trained = {**data, "out": f"own weights-{short}"}
    yield Scenario(f"evaluate-{short}", [*inputs, evaluate], trained, (*EVALUATED, "samples.npz"))
    used = ["channels", "levels", "spacing_mm", "window_size", "variant", "schema_file"]
    used += ["intensity_range", "metadata_dropout"]
    kept = {name: value for name, value in settings.items() if name in used}
    kept["ckpt_path"] = "model/model.pt"
    words = f"metaseg_monai predict {bundle} --source data/"
    told = {f"table.csv --output out/{form}": {"prediction_form": form} for form in facts["forms"]}
    told |= {"images --output out/told --meta cell_line=A549": {}} if short == "lines" else {}
    steps = [
        Command(words + rest, {**kept, **own}, ["inference"], bundle) for rest, own in told.items()
    ]
    if short == "ct":  # whole volumes, and one told nothing
        words = f"metaseg_monai predict {bundle} --source volumes"
        data = {"volumes": "generate-phantoms9"}
        rest = [
            "--output out/volumes",
            "/case_00010 --output out/unknown --meta tumour_size_mm=unknown",
        ]
        steps = [
            Command(
                f"{words}{one}" if one[0] == "/" else f"{words} {one}", kept, ["inference"], bundle
            )
            for one in rest
        ]
    yield Scenario(f"predict-{short}", [*inputs, *steps], {**data, "model": trained["out"]})


def _of_networks() -> Iterator[Scenario]:
    """Networks that no bundle has by default; what the gates do; the size told by the image."""
    facts = {name: FIXED["bundles"][name] for name in ("shapes", "domains", "ct")}
    common = {**FIXED["net"], "schema_file": "schema.json", "output_dir": "out"}
    schemas = {n: _schema(one["field"], one.get("values", "")) for n, one in facts.items()}
    small = {**common, **facts["shapes"]["net"], "channels": 4, "levels": 2, "epochs": 2}
    nuclei = {
        n: Make("write_nuclei", (facts[n]["field"], facts[n]["values"]))
        for n in ("shapes", "domains")
    }
    trainings = [
        _monai(
            facts["shapes"]["name"],
            "training",
            ["train"],
            {**small, "variant": variant, "output_dir": f"out/{variant}"},
        )
        for variant in OTHER_VARIANTS
    ]
    yield Scenario(
        "weights-others",
        [schemas["shapes"], nuclei["shapes"], *trainings],
        {},
        ("*/model.pt", "*/log.csv"),
    )
    name, net = facts["domains"]["name"], {**common, **facts["domains"]["net"]}
    explain = Command(
        f"metaseg_monai explain {name}",
        {**net, "variant": facts["domains"]["variant"]},
        ["train", "evaluate", "explain"],
        name,
    )
    yield Scenario(
        "tools-explain",
        [schemas["domains"], nuclei["domains"], explain],
        {"out": "own weights-domains"},
        ("explain/*", "said.txt"),
    )
    yield Scenario(
        "tools-estimate",
        [schemas["ct"], _estimate("out")],
        {"data": facts["ct"]["data"]},
        ("predicted.csv", "estimate_scores.json", "said.txt"),
    )


def _estimate(folder: str) -> Command:
    facts = FIXED["bundles"]["ct"]
    settings = {**FIXED["net"], **facts["net"], "epochs": 3, "estimate_channels": [4, 8]}
    settings |= {"estimate_field": facts["field"], "schema_file": "schema.json"}
    settings["output_dir"] = folder
    for not_asked in ("channels", "levels", "window_size", "metadata_dropout"):
        settings.pop(not_asked)
    words = f"metaseg_monai estimate {facts['name']}"
    return Command(words, settings, ["train", "estimate"], facts["name"])


def _of_study(short: str, study: Mapping[str, Any]) -> Iterator[Scenario]:
    """Run a study with one seed, make several of it, report."""
    facts = FIXED["bundles"][short]
    settings = {**FIXED["net"], **facts["net"], "epochs": 12, **study["settings"]}
    settings.pop("window_size")  # as the bundle has it
    data = {"data": facts["data"]}
    if short == "shapes":
        settings.pop("dataset_dir")
        data = {"data0": "generate-shapes", "data1": "generate-shapes1"}
    if short == "magnification":
        data = {"data": "inputs-magnified"}
    content = {**study, "bundle": facts["name"], "settings": settings, "seeds": [0]}
    words = "metaseg_monai study study.json --output out/runs --workers 1 --threads 1"
    steps: list[Step] = [Write("study.json", content), Command(words, told=False)]
    if short == "ct":
        steps = [_schema(facts["field"]), _estimate("size"), *steps]
    yield Scenario(f"inputs-{short}-trained", steps, data)
    trained = {"trained": f"inputs-{short}-trained"}
    yield Scenario(f"inputs-{short}-runs", [Make("draw_runs")], trained)
    report = [_step("report runs --output out")]
    yield Scenario(f"report-{short}", report, {".": f"inputs-{short}-runs"})


def scenarios() -> dict[str, Scenario]:
    """All scenarios by name."""
    found = [
        Scenario(name, [_step(text) for text in one["steps"]], one.get("needs", {}))
        for name, one in FIXED["scenarios"].items()
    ]
    found += [one for short, study in FIXED["studies"].items() for one in _of_study(short, study)]
    found += [one for short, facts in FIXED["bundles"].items() for one in _of_bundle(short, facts)]
    return {one.name: one for one in [*found, *_of_networks()]}
