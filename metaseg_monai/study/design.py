"""What a study is: its JSON, checked, with everything that must be fixed before it is run."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from metaseg_monai.errors import ConfigError
from metaseg_monai.files import read_json
from metaseg_monai.metrics.power import POWER, expected_squares, smallest_effect
from metaseg_monai.metrics.statistics import Spread
from metaseg_monai.networks.variants import ALL_VARIANTS, METADATA_VARIANTS

EXPERTS = {"experts": False, "experts-steps": True}  # name -> at equal steps (contract 5)
ELSEWHERE = "elsewhere"  # in a study's folder: conditions that others' tools trained
RESERVED = ("figures", "tables", "previous", "jobs", ELSEWHERE)  # folders beside the conditions'
FILES = (".json", ".html", ".md", ".lock", ".db")  # endings of files beside them
MATRIX = {"seed", "output_dir", "resume"}  # settings that the matrix itself makes
OF_CONDITION = ("configuration", "pretrained")  # what a condition says beside its settings
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_ELSEWHERE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._+-]*[A-Za-z0-9_+-])?")  # "nnU-Net 2D"


class Pilot(BaseModel):
    """What is known before of how much a difference of two conditions varies.

    In the unit of the score: F1 (Dice) of masks, medMAE of images that are predicted.

    Attributes:
        patients: standard deviation between groups (patients, wells).
        trainings: between trainings, whatever the group.
        residual: of what is left of a group and a training.
        source: where they are from, such as an earlier study's table ``verdict_spread``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    patients: float = Field(ge=0)
    trainings: float = Field(ge=0)
    residual: float = Field(ge=0)
    source: str = ""


class Protocol(BaseModel):
    """What is decided before the first run (contract 13).

    Attributes:
        aggregate: score that the tables lead with: pooled over all cases, or the unweighted mean
            of the domains (contract 10).
        label_class: class of the label that scores and comparisons are about, where there are
            several; None for the mean of all. A table of all classes is printed beside.
        comparisons: pairs of conditions, the primary one first; Holm's correction counts all.
        domain: domain that the comparisons are about; None for all cases.
        test: paired test over cases, one value for each group, seeds averaged before.
        alpha: level below which a corrected p-value counts.
        sample_size: number of independent groups (patients, wells; images where each is a group of
            its own) that the comparisons are to be made of, as tests and intervals count them;
            None where it was not fixed.
        pilot: what is known of the spread of differences, see `Pilot`; with `sample_size` and the
            seeds it says how small an effect the study can find, before it is run.
        learned: ``[low, high]``: a condition has learned its task where the score is at least high
            with every seed, has not where it is below low with every seed, else it is unstable.
        tuned_on: split on which settings were chosen.
        notes: anything else that was decided before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    aggregate: Literal["combined", "average"] = "combined"
    label_class: int | None = Field(default=None, gt=0)
    comparisons: list[list[str]] = []
    domain: str | None = None
    test: Literal["t", "wilcoxon", "permutation"] = "permutation"
    alpha: float = Field(default=0.05, gt=0, lt=1)
    sample_size: int | None = Field(default=None, gt=0)
    pilot: Pilot | None = None
    learned: list[float] | None = None
    tuned_on: Literal["train", "val", "none"] = "val"
    notes: str = ""

    @field_validator("learned")
    @classmethod
    def _two_scores(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and (len(value) != 2 or not 0 <= value[0] <= value[1] <= 1):
            raise ValueError(f"expected [low, high] between 0 and 1, got {value}")
        return value

    @field_validator("comparisons")
    @classmethod
    def _pairs(cls, value: list[list[str]]) -> list[list[str]]:
        if len({frozenset(pair) for pair in value}) < len(value):
            raise ValueError(f"expected each pair once, got {value}")
        for pair in value:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ValueError(f"expected two different conditions, got {pair}")
        return value


class Study(BaseModel):
    """A matrix of conditions and seeds of one bundle, and the protocol of their comparison.

    Attributes:
        name: heading of the report.
        question: what the study is to answer, in one sentence.
        bundle: name under ./bundles, or a folder.
        settings: overrides of the bundle for all runs.
        configuration: further configurations of the bundle for all runs, such as "recipe", or
            files, merged last in that order; names, or comma-separated.
        conditions: rows of the tables: name -> overrides. The names of the variants, ``experts``
            (one SE network for each domain, at equal epochs) and ``experts-steps`` (at equal
            steps) need none. Beside them ``configuration``, behind that of the study, and
            ``pretrained``, the name of another condition of the same variant: each training
            begins with the weights of that one's with the same seeds and fold.
        elsewhere: names of conditions that others' tools train, such as ``["nnU-Net 2D"]``, so that
            comparisons may name them; their results are put into ``elsewhere/NAME`` of the study's
            folder (scripts/beside_nnunet.py back), and stand beside the first seed.
        seeds: of the training.
        folds: of a cross-validation, such as [0, 1, 2]: each training is one network for each
            fold (see `metaseg_monai.tables.fold_cases`), and its test cases are those of all
            folds together, each tested once by weights that were chosen on others; None takes
            the splits of the table.
        data_seeds: of the data; `data_settings` says what they change.
        data_settings: overrides in which ``{data_seed}`` stands for the data seed.
        protocol: see `Protocol`.
        explain: record what the gates do in the first run of each condition that takes metadata;
            or settings of explain.json for it, such as ``{"explain_cases": 20}``; false for none.
        references: tables of docs/references.json to print beside the results, by id, each with
            ``{published name: our name}`` for rows and columns of other names (for findings, our
            conditions, comma-separated); a list of ids renames none.

    Raises:
        ConfigError: an unknown key or a wrong value, named.

    >>> study = Study(name="two", bundle="b", conditions={"se": {}, "sme": {}}, seeds=[0])
    >>> study.protocol.comparisons
    [['sme', 'se']]
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    question: str = ""
    bundle: str
    settings: dict[str, Any] = {}
    configuration: list[str] = []
    conditions: dict[str, dict[str, Any]]
    elsewhere: list[str] = []
    seeds: list[int] = [0, 1, 2]
    folds: list[int] | None = None
    data_seeds: list[int] = [0]
    data_settings: dict[str, Any] = {}
    protocol: Protocol = Protocol()
    explain: bool | dict[str, Any] = True
    references: dict[str, dict[str, str]] = {}

    def __init__(self, **content: Any) -> None:
        try:
            super().__init__(**content)
        except ValidationError as error:
            raise ConfigError(f"study: {_explain(error)}") from error

    @field_validator("configuration", mode="before")
    @classmethod
    def _configurations(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator("conditions", "references", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if not all(isinstance(name, str) for name in value):
            raise ValueError(f"expected names, or settings by name, got {value}")
        if len(set(value)) < len(value):
            raise ValueError(f"expected each name once, got {value}")
        return {name: {} for name in value}

    @field_validator("conditions")
    @classmethod
    def _known_conditions(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not value:
            raise ValueError("expected at least one condition")
        for name, settings in value.items():
            if not NAME.fullmatch(name) or name.lower() in RESERVED or name.endswith(FILES):
                raise ValueError(f"{name!r} cannot name a folder; use letters, digits, - and _")
            if name not in ALL_VARIANTS and name not in EXPERTS and "variant" not in settings:
                known = ", ".join([*ALL_VARIANTS, *EXPERTS])
                raise ValueError(
                    f"{name!r} is none of {known}; give it a setting 'variant', or take one of them"
                )
            if name in EXPERTS and {"variant", "train#dataset#data"} & set(settings):
                raise ValueError(
                    f"{name} are SE networks, one for each domain; give a condition of another "
                    "name its own variant and cases"
                )
            if clash := MATRIX & set(settings):
                raise ValueError(f"{name}: {', '.join(sorted(clash))} belong to the matrix")
            _listed(settings.get("configuration", []), f"{name}: ")
        for name, settings in value.items():
            _check_pretrained(name, settings, value)
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("two names differ in upper and lower case only; folders may not")
        return value

    @field_validator("elsewhere")
    @classmethod
    def _folder_names(cls, value: list[str]) -> list[str]:
        if wrong := [name for name in value if not NAME_ELSEWHERE.fullmatch(name)]:
            raise ValueError(
                f"{wrong[0]!r} cannot name a folder; use letters, digits, spaces, - and _"
            )
        if len({name.lower() for name in value}) < len(value):
            raise ValueError(f"expected each name once, got {value}")
        return value

    @field_validator("explain")
    @classmethod
    def _explain_values(cls, value: Any) -> Any:
        for name, one in value.items() if isinstance(value, dict) else ():
            if isinstance(one, dict) or str(one)[:1] in ("$", "@", "%"):
                raise ValueError(f"explain, {name}: expected a number, text or list, got {one!r}")
        return value

    @field_validator("seeds", "data_seeds", "folds")
    @classmethod
    def _seeds(cls, value: list[int] | None) -> list[int] | None:
        if value is None:
            return value
        if not value or len(set(value)) < len(value) or min(value) < 0:
            raise ValueError(f"expected different whole numbers from 0, got {value}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        for name in ("settings", "data_settings"):
            if clash := set(getattr(self, name)) & {*MATRIX, "variant"}:
                raise ValueError(f"{name}: {', '.join(sorted(clash))} belong to the matrix")
        if len(self.data_seeds) > 1 and "{data_seed}" not in json.dumps(self.data_settings):
            raise ValueError("several data_seeds need data_settings that hold '{data_seed}'")
        own = {name.lower() for name in self.conditions}
        if both := [name for name in self.elsewhere if name.lower() in own]:
            raise ValueError(f"{both[0]!r} is a condition, and trained elsewhere; rename one")
        known = {*self.conditions, *self.elsewhere}
        if strangers := {n for pair in self.protocol.comparisons for n in pair} - known:
            raise ValueError(f"comparisons name {', '.join(sorted(strangers))}, no conditions")
        if "comparisons" not in self.protocol.model_fields_set:
            pairs = default_comparisons(list(self.conditions))
            object.__setattr__(
                self, "protocol", self.protocol.model_copy(update={"comparisons": pairs})
            )
        return self

    def own(self, condition: str) -> dict[str, Any]:
        """The overrides of a condition."""
        given = self.conditions[condition]
        return {name: value for name, value in given.items() if name not in OF_CONDITION}

    def configurations(self, condition: str) -> list[str]:
        """The further configurations of a condition, in the order in which they are merged."""
        return [*self.configuration, *_listed(self.conditions[condition].get("configuration", []))]

    def in_order(self) -> list[str]:
        """The conditions, each behind that whose weights it begins with.

        >>> conditions = {"gan": {"variant": "se", "pretrained": "se"}, "se": {}, "none": {}}
        >>> Study(name="two", bundle="b", conditions=conditions).in_order()
        ['se', 'none', 'gan']
        """

        def depth(name: str) -> int:
            before = self.conditions[name].get("pretrained")
            return 0 if before not in self.conditions else 1 + depth(before)

        return sorted(self.conditions, key=depth)

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Read a study from JSON.

        Raises:
            ConfigError: the file is missing or no JSON object, or a key is unknown or wrong.
        """
        try:
            content = read_json(path)
            if not isinstance(content, dict):
                raise ValueError(f"expected an object {{key: value}}, got {content!r:.80}")
            return cls(**content)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: no study: {error}. Mend the file.") from error


def variant_of(condition: str, settings: Mapping[str, Any]) -> str:
    """The variant of a condition's networks; of experts that of each."""
    return "se" if condition in EXPERTS else str(settings.get("variant", condition))


def _listed(value: Any, of: str = "") -> list[str]:
    names = [one.strip() for one in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(one, str) and one for one in names):
        raise ValueError(f"{of}configuration is {value!r:.200}; expected names or files")
    return names


def _check_pretrained(
    name: str, settings: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse to begin with weights that there are not, or that another network has."""
    if "pretrained" not in settings:
        return
    before = settings["pretrained"]
    if (
        not isinstance(before, str)
        or before not in conditions
        or name in EXPERTS
        or before in EXPERTS
    ):
        raise ValueError(
            f"{name}: pretrained is {before!r}; expected the name of another condition, no experts"
        )
    if variant_of(name, settings) != variant_of(before, conditions[before]):
        raise ValueError(f"{name}: pretrained is {before}, which has another variant; give it one")
    way = [name]
    while before is not None:
        if before in way:
            raise ValueError(f"{name}: its weights would begin with themselves ({before})")
        way.append(before)
        before = conditions[before].get("pretrained")


def default_comparisons(conditions: Sequence[str]) -> list[list[str]]:
    """Compare each variant that takes metadata with what shows whether they help.

    First with its plain partner, which has none: se where it is there, else none (of
    constant-channel, which has no gates, none before se). Then with its own dummy, and with the
    simplest way to give metadata, constant-channel.

    >>> default_comparisons(["none", "se", "me", "sme", "sme-dummy"])
    [['me', 'se'], ['sme', 'se'], ['sme', 'sme-dummy']]
    >>> default_comparisons(["none", "sme", "constant-channel"])
    [['sme', 'none'], ['sme', 'constant-channel'], ['constant-channel', 'none']]
    >>> default_comparisons(["none", "se", "constant-channel"])
    [['constant-channel', 'none']]
    """
    plain = [one for one in ("se", "none") if one in conditions]
    return [
        [name, other]
        for name in conditions
        if name in METADATA_VARIANTS
        for other in (
            *(plain[-1:] if name == "constant-channel" else plain[:1]),
            f"{name}-dummy",
            "constant-channel",
        )
        if other in conditions and other != name
    ]


def nothing_compared(study: Study) -> str:
    """Say that no comparison is planned, and what would plan one; empty where there are some.

    >>> nothing_compared(Study(name="two", bundle="b", conditions=["none", "sme"]))
    ''
    """
    if study.protocol.comparisons:
        return ""
    return (
        f"no comparison is planned of {', '.join(study.conditions)}: the report will describe "
        "scores and test nothing; to test whether metadata help, train a variant that takes them "
        "beside none or se, and its dummy (none,sme,sme-dummy), or name pairs of conditions in the "
        "protocol of a study's file (comparisons)"
    )


def trained_once(study: Study) -> str:
    """Say that one training of a condition says nothing of others; empty where there are more.

    >>> trained_once(Study(name="two", bundle="b", conditions=["none", "sme"], seeds=[0, 1]))
    ''
    """
    if len(study.seeds) * len(study.data_seeds) > 1 or not study.protocol.comparisons:
        return ""
    return (
        "each condition is trained once: the report will not say whether other trainings come out "
        "alike, and claim no difference; give two seeds at least, now: later ones are exploratory"
    )


def smallest_planned(study: Study, bounded: bool = True) -> str:
    """Say how small an effect the primary comparison can find, by what was known before.

    Args:
        study: with its `pilot`.
        bounded: whether scores are from 0 to 1, as F1 is, so that no difference is larger; of an
            error, as medMAE, it may be.

    Returns:
        A sentence without its end; "" where no spread, size or comparison was stated.

    Raises:
        ConfigError: a spread that was stated is above 1, which scores from 0 to 1 cannot have.

    >>> smallest_planned(Study(name="two", bundle="b", conditions=["none", "sme"]))
    ''
    """
    protocol, seeds = study.protocol, len(study.seeds) * len(study.data_seeds)
    if protocol.pilot is None or protocol.sample_size is None or not protocol.comparisons:
        return ""
    known, groups = protocol.pilot, protocol.sample_size
    spread = Spread(known.patients, known.trainings, known.residual)
    if bounded and (beyond := [f"{n} is {s:g}" for n, s in spread._asdict().items() if s > 1]):
        raise ConfigError(
            f"protocol: pilot: {beyond[0]}, and scores are from 0 to 1; give standard deviations "
            "of their differences, such as 0.05"
        )
    level = protocol.alpha / len(protocol.comparisons)
    squares = expected_squares(spread, groups, seeds)
    effect = smallest_effect(squares, groups, seeds, protocol.test, level)
    source = f" ({known.source})" if known.source else ""
    sizes = f"{groups} patients (groups) and {seeds} trainings"
    if math.isinf(effect) or (bounded and effect > 1):
        return f"with {sizes} no effect can be found, by the spread that was stated{source}"
    return (
        f"{sizes} find a difference of {effect:.3f} with power {POWER:g} at alpha {level:.3g}, by "
        f"the spread that was stated{source}"
    )


def fill_data_seed(settings: Mapping[str, Any], data_seed: int) -> dict[str, Any]:
    """Put the data seed in the place of ``{data_seed}``, as a number where it stands alone.

    >>> fill_data_seed({"dataset_dir": "data/{data_seed}", "table#path#seed": "{data_seed}"}, 3)
    {'dataset_dir': 'data/3', 'table#path#seed': 3}
    """
    number = str(data_seed)
    text = json.dumps(settings).replace('"{data_seed}"', number).replace("{data_seed}", number)
    filled: dict[str, Any] = json.loads(text)
    return filled


def _explain(error: ValidationError) -> str:
    told = []
    for fault in error.errors():
        place = ".".join(map(str, fault["loc"])) or "the whole"
        if fault["type"] == "extra_forbidden":
            model: type[BaseModel] = Protocol if "protocol" in fault["loc"] else Study
            model = Pilot if "pilot" in fault["loc"] else model
            told.append(f"unknown key {place!r}, expected one of {', '.join(model.model_fields)}")
        else:
            told.append(f"{place}: {fault['msg'].removeprefix('Value error, ')}")
    return "; ".join(told)
