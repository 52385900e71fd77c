"""From a study to its runs: one network each, with the settings and the folder it is run in."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from monai.bundle import ConfigParser

from metaseg_monai.bundle.overrides import (
    arguments_of,
    as_data,
    check_overrides,
    entered,
    flatten,
    fold_of,
    in_fold,
    load_config,
    meant,
    read_back,
)
from metaseg_monai.bundle.run import (
    configuration_file,
    places_of,
    read_workflow,
    resolve_bundle,
    with_files_of,
)
from metaseg_monai.bundle.trust import Finding
from metaseg_monai.errors import ConfigError, root_refusal
from metaseg_monai.evaluation.clean_up import CleanUpPredictions
from metaseg_monai.evaluation.modes import check_modes
from metaseg_monai.evaluation.surface_table import SurfaceDice
from metaseg_monai.evaluation.volume_table import VolumeScores
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.objects import as_object_settings
from metaseg_monai.naming import shortened
from metaseg_monai.networks.variants import ALL_VARIANTS, EXPLAINED
from metaseg_monai.study.design import EXPERTS, Study, fill_data_seed
from metaseg_monai.study.worker import training_settings
from metaseg_monai.tables.columns import ColumnMap
from metaseg_monai.tables.select import dealt_folds

CONFIGS = ("train.json", "evaluate.json")
NAMED = ("dataset_dir", "schema_file", "columns_file")
CHECKED = (
    *("modes", "shuffle", "predicted_metadata", "regions", "objects", "clean_up"),
    *("split", "domain", "target", "tolerance"),
)  # those that a bundle has
TESTS = ("test", "val")  # splits
SELECT = "metaseg_monai.tables.select_cases"
FILL = "metaseg_monai.tables.fill_epoch"


@dataclass(frozen=True)
class Run:
    """One training with its evaluation.

    Attributes:
        condition: the row of the tables it belongs to.
        seed: of the training.
        data_seed: of the data.
        domain: the one domain that an expert is trained on; None for all other networks.
        settings: all overrides of the bundle but ``output_dir``.
        epochs: of the training, for the estimate.
        folder: relative to the study's output; the run's name in messages.
        key: SHA-256 of what its training is: the bundle's configuration, the settings, and the
            files that they name.
        tested: the same of its evaluation, but for the test modes.
        modes: test modes that it needs.
        fold: that it is tested on; None where the table's own splits count.
        planned_epochs: so many of these epochs take the steps that the bundle itself plans (as many
            epochs as it names, where the batch is its own); None where it is not known, as of
            studies of a release before.
        explain: whether to record what its gates do, or with which settings.
        table: file of the cases; it need not exist yet where the data are generated.
        configuration: further ones of the bundle, or files, that are merged behind its own.
        pretrained: folder of the run whose weights it begins with, relative to the study's output.
    """

    condition: str
    seed: int
    data_seed: int
    domain: str | None
    settings: dict[str, Any]
    epochs: int
    folder: str
    key: str
    explain: bool | dict[str, Any] = False
    table: str = ""
    tested: str = ""
    modes: Sequence[str] = ("normal",)
    fold: int | None = None
    planned_epochs: int | None = None
    configuration: Sequence[str] = ()
    pretrained: str | None = None


class _Configured(NamedTuple):
    """The configurations of a condition.

    Attributes:
        files: that are merged, in order.
        names: of the further ones, those of the user's own by their paths.
        config: of training and evaluation.
        only_training: of the training.
    """

    files: list[Path]
    names: list[str]
    config: dict[str, Any]
    only_training: dict[str, Any]

    @classmethod
    def of(cls, bundle: Path, further: Sequence[str]) -> "_Configured":
        more = [configuration_file(bundle, name) for name in further]
        files = [*(bundle / "configs" / name for name in CONFIGS), *more]
        own = bundle / "configs"
        names = [file.stem if file.parent == own else str(file) for file in more]
        of_training = load_config([files[0], *more], bundle)
        return cls(files, names, load_config(files, bundle), of_training)


# Arguments that components of a study take from their bundle where they name none themselves.
FILLED = {"items": "$@cases.items('train')", "length": "$len(@cases#table.items('train'))"}
COMPLETED = {
    "cases": {"table": "@table"},
    "table#path": {"output": "@dataset_dir"},
    "train#dataset#data": FILLED,
    "train#dataset": {
        "data": "$@cases.items('train')",
        "schema": "@schema",
        "transform": "@train#preprocessing",
        "augment": "$@train#augmentation + [@train#drop_metadata]",
        "seed": "@seed",
    },
    "network_def": {"schema": "@schema", "unknown_trained": "$@metadata_dropout > 0"},
    "window_inferer": {"roi_size": "@roi_size"},
}


def expand(study: Study, trust: bool = False) -> list[Run]:
    """Return the runs of a study, those of the first seed first.

    Seeds come first, so that an early stop leaves complete comparisons.

    Args:
        study: its settings are in MONAI's language (see `metaseg_monai.bundle.overrides.entered`).
        trust: run it even if it holds what is not listed.

    Raises:
        ConfigError: a setting that nothing in the bundle uses, experts without a domain, or what
            may not be run without trust.
    """
    bundle = resolve_bundle(study.bundle)
    of_all = {**study.settings, **study.data_settings}
    configured: dict[tuple[str, ...], _Configured] = {}
    for condition in study.conditions:
        further = (*study.configurations(condition),)
        if further not in configured:
            configured[further] = one = _Configured.of(bundle, further)
            read_workflow(bundle, one.files, of_all, of_all, trust)
            if isinstance(study.explain, dict):
                explaining = [*one.files, bundle / "configs" / "explain.json"]
                read_workflow(bundle, explaining, study.explain, (), trust)
                check_overrides(load_config(explaining, bundle), study.explain)
        own = study.own(condition)
        read_workflow(bundle, configured[further].files, own, own, trust)
    keys: dict[str, str] = {}  # of the runs by their folders
    first = study.data_seeds[0], study.seeds[0]
    runs = []
    folds: Sequence[int | None] = [None] if study.folds is None else study.folds
    for data_seed, seed, fold in product(study.data_seeds, study.seeds, folds):
        common = {**study.settings, **fill_data_seed(study.data_settings, data_seed)}
        place = f"seed{seed}" if len(study.data_seeds) == 1 else f"data{data_seed}-seed{seed}"
        place += "" if fold is None else f"-fold{fold}"
        for condition in study.in_order():
            _, names, config, only_training = configured[(*study.configurations(condition),)]
            of_condition = fill_data_seed(study.own(condition), data_seed)
            before = study.conditions[condition].get("pretrained")
            pretrained = None if before is None else f"{before}/{place}"
            variant = "se" if condition in EXPERTS else condition
            settings = {**common, "variant": variant, **of_condition, "seed": seed}
            if fold is not None:
                settings["cases"] = in_fold(settings.get("cases", config["cases"]), fold)
            settings = _completed(with_files_of(bundle, settings))
            settings = check_overrides(config, settings, written=True)
            parsed = _parsed(config, settings, bundle)
            schema = parsed("schema")
            given = {**config, **settings}
            told = {name: parsed(name) if name in given else None for name in CHECKED}
            modes = _check(study, condition, told, schema)
            domains = _per_domain(condition, settings, given, schema)
            for domain, changed in domains.items():
                checked = (
                    changed if domain is None else check_overrides(config, changed, written=True)
                )
                named = _named_files(_parsed(config, checked, bundle))
                folder = f"{condition}/{place}"
                folder += "" if domain is None else f"/{_folder_name(domain)}"
                epochs = _epochs(checked.get("epochs", config["epochs"]))
                table = str(_table_file(named))
                gates = checked["variant"] in EXPLAINED
                training = training_settings(bundle, checked, names)
                if pretrained is not None:
                    training |= {"pretrained": keys[pretrained]}
                keys[folder] = key = _key(only_training, training, named)
                run = Run(
                    *(condition, seed, data_seed, domain, checked, epochs, folder, key),
                    tested=_key(_without_modes(config), _without_modes(checked), named),
                    modes=modes,
                    explain=study.explain
                    if gates and (data_seed, seed) == first and fold == folds[0]
                    else False,
                    table=table,
                    fold=fold,
                    planned_epochs=_planned_epochs(config, checked),
                    configuration=names,
                    pretrained=pretrained,
                )
                runs.append(run)
    return runs


def folds_of_study(study: Study, trust: bool = False) -> tuple[str, list[int]]:
    """Return the table of a study, and the folds that it deals its cases out to.

    None are told where the table does not exist yet, as one that is generated; where the study
    itself tests one fold already (its cases are `fold_cases`); and where it tests on the split val.

    Args:
        study: without folds.
        trust: see `expand`.

    Raises:
        ConfigError: see `expand`, and `metaseg_monai.tables.select.folds_of`.
        DataError: the table cannot be read, or its column of folds is wrong.
    """
    name = next(iter(study.conditions))
    alone = {key: one for key, one in study.conditions[name].items() if key != "pretrained"}
    one = {"conditions": {name: alone}, "seeds": study.seeds[:1], "explain": False}
    run = expand(study.model_copy(update=one), trust)[0]
    bundle = resolve_bundle(study.bundle)
    config = _Configured.of(bundle, run.configuration).config
    parsed = _parsed(config, run.settings, bundle)
    cases = {**config, **run.settings}["cases"]
    if not Path(run.table).is_file() or fold_of(cases) is not None or parsed("split") != "test":
        return run.table, []
    return run.table, dealt_folds(parsed("table"))


def read_by_monai(study: Study, file: str) -> list[Finding]:
    """Return the settings of a study in which MONAI would read ``$``, ``@`` or ``%``.

    Args:
        study: as its file gives it.
        file: its name, for the findings.
    """
    parts = {"settings": study.settings, "data_settings": study.data_settings}
    parts |= {f"conditions#{name}": own for name, own in study.conditions.items()}
    parts["explain"] = study.explain if isinstance(study.explain, dict) else {}
    return [
        Finding(file, f"{part}#{name}", "call", value, "is read as code or as a reference")
        for part, settings in parts.items()
        for key, given in settings.items()
        for name, value in flatten(entered(key, given, written=True), key)
        if isinstance(value, str) and value[:1] in ("$", "@", "%")
        if not (meant(value)[0] and as_data(meant(value)[1]) == value)  # text that we wrote so
    ]


def _completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add to components the references without which they have no data (see `COMPLETED`)."""

    def completed(component: Any, added: Mapping[str, str]) -> Any:
        if not isinstance(component, Mapping) or "_target_" not in component:
            return component
        missing = [name for name in arguments_of(component) if name not in component]
        inner = {name: completed(component[name], added) for name in added if name in component}
        return {**component, **inner, **{name: added[name] for name in missing if name in added}}

    added = dict(COMPLETED)
    added["network_def"] = {**added["network_def"], "variant": settings["variant"]}
    if not isinstance(settings.get("cases"), Mapping):  # nothing is selected
        added["train#dataset#data"] = {**FILLED, "length": "$len(@table.items('train'))"}
    return {name: completed(one, added.get(name, {})) for name, one in settings.items()}


def _per_domain(
    condition: str, settings: dict[str, Any], effective: Mapping[str, Any], schema: MetadataSchema
) -> dict[str | None, dict[str, Any]]:
    """Return the settings of a condition, or of each of its experts by domain.

    An expert is trained and validated on the cases of its domain among those of the study
    (thesis 3.3), at equal steps on them as often repeated as an epoch of the joint training has
    cases (contract 5). It is tested on all, but where it answers images: of other domains it has
    learned no scale.
    """
    if condition not in EXPERTS:
        if settings["variant"] not in ALL_VARIANTS:
            raise ConfigError(
                f"Condition {condition!r} has the variant {settings['variant']!r}; choose one of "
                f"{', '.join(ALL_VARIANTS)}."
            )
        return {None: settings}
    cases = settings.get("cases", "@table")
    field, values = _domains(cases, read_back(effective["domain"]), schema)
    whole = {} if effective.get("target") == "image" else {"splits": ["train", "val"]}
    more = {"train#dataset#data": {"_target_": FILL, **FILLED}} if EXPERTS[condition] else {}
    return {
        value: {
            **settings,
            **more,
            "cases": {
                "_target_": SELECT,
                "table": cases,
                "only": as_data({field: [value]}),
                **whole,
            },
        }
        for value in values
    }


def _domains(cases: Any, field: str | None, schema: MetadataSchema) -> tuple[str, list[str]]:
    """Return the domain field and its values among the studied cases."""
    values = getattr(schema.field(field), "values", None) if field in schema.names else None
    if field is None or not values:
        raise ConfigError(
            f"Experts need a domain: set `domain` to a field with labels, of "
            f"{', '.join(schema.names)} (it is {field!r})."
        )
    only = values
    while isinstance(cases, Mapping):
        only = (read_back(cases.get("only")) or {}).get(field, only)
        cases = cases.get("table")
    if isinstance(only, str) or set(only) - set(values):
        raise ConfigError(f"only={{{field!r}: {only!r}}}: expected a list of {', '.join(values)}.")
    return field, [value for value in values if value in only]


def _parsed(
    config: Mapping[str, Any], settings: Mapping[str, Any], bundle: Path
) -> Callable[[str], Any]:
    """What an id of the configuration gives, as a run will see it."""
    parser = ConfigParser(deepcopy(dict(config)))
    for name, value in {**places_of(bundle, config), **settings}.items():
        parser.set(value, name)

    def parsed(name: str) -> Any:
        try:
            return parser.get_parsed_content(name)
        except RuntimeError as error:
            raise (root_refusal(error) or error) from error

    return parsed


def _named_files(parsed: Callable[[str], Any]) -> dict[str, Path | None]:
    """Return the folder of the data and the files of schema and columns.

    A bundle may name them itself, by an expression.
    """
    values = {name: parsed(name) for name in NAMED}
    return {name: Path(value) if value else None for name, value in values.items()}


def _table_file(named: Mapping[str, Path | None]) -> Path:
    columns = named["columns_file"]
    folder = named["dataset_dir"] or Path()
    return (folder / (ColumnMap.load(columns).table if columns else "table.csv")).absolute()


def _check(
    study: Study, condition: str, effective: Mapping[str, Any], schema: MetadataSchema
) -> list[str]:
    """Refuse before training what would be refused, or be of no use, after it.

    Returns:
        The test modes.
    """
    modes = effective["modes"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if "normal" not in modes:
        raise ConfigError(f"{condition}: modes must hold 'normal', got {modes}.")
    check_modes(modes, schema, effective["shuffle"], effective["predicted_metadata"])
    if effective["regions"] is None or isinstance(effective["regions"], Mapping):
        VolumeScores(effective["regions"])
    of_masks = effective["target"] != "image"
    if of_masks and isinstance(effective["objects"], Mapping) and effective["objects"]:
        as_object_settings(effective["objects"])
    SurfaceDice(effective["tolerance"])
    CleanUpPredictions(effective["clean_up"])
    if effective["split"] not in TESTS:
        raise ConfigError(
            f"{condition}: split is {effective['split']!r}; a study tests on the split test, or on "
            "val to choose settings."
        )
    if study.folds is not None and effective["split"] != "test":
        raise ConfigError(
            f"{condition}: split is {effective['split']!r} with folds, whose validation cases "
            "overlap; test on the split test, or leave folds out."
        )
    field, domain = effective["domain"], study.protocol.domain
    values = getattr(schema.field(field), "values", None) if field in schema.names else ()
    if domain is not None and values is not None and domain not in values:
        raise ConfigError(
            f"The protocol's domain {domain!r} is none of the domains: "
            f"{', '.join(values) or 'there are none'}."
        )
    return modes


def _without_modes(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "modes"}


def _epochs(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"epochs is {value!r}; a study needs a whole number from 1.")
    return value


def enough_epochs(planned: int) -> int:
    """The fewest of the planned epochs of which anything is concluded: a quarter.

    >>> enough_epochs(14)
    4
    """
    return -(-planned // 4)


def few_epochs(runs: Sequence[Run]) -> str | None:
    """That trainings are too short for a report to conclude anything, and how long is enough."""
    planned = {run.folder: run.planned_epochs or 0 for run in runs}
    short = [run for run in runs if run.epochs < enough_epochs(planned[run.folder])]
    if not short:
        return None
    longest = max(short, key=lambda run: planned[run.folder])
    return (
        f"{len(short)} of {len(runs)} trainings, such as {longest.folder}, have hardly begun when "
        f"they end: {longest.epochs} of {longest.planned_epochs} epochs that the bundle plans. The "
        f"report concludes nothing of them; it does from {enough_epochs(planned[longest.folder])} "
        "epochs on"
    )


def _planned_epochs(config: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """So many epochs of the settings' batches are the steps that the bundle plans.

    >>> _planned_epochs({"epochs": 132, "batch_size": 22}, {"batch_size": 4})
    24
    """
    planned, batch = config["epochs"], config["batch_size"]
    own = settings.get("batch_size", batch)
    if not all(isinstance(number, int) and number > 0 for number in (planned, batch, own)):
        return None  # an expression, which the data decide
    return -(-planned * own // batch)


def _folder_name(domain: str) -> str:
    """Make a folder of a domain's name, whatever it is.

    >>> _folder_name("a/b"), _folder_name("..")
    ('a%2Fb', '%2E%2E')
    """
    name = quote(domain, safe=" ")
    return shortened(name if name.strip(".") else name.replace(".", "%2E"))


def _key(
    config: Mapping[str, Any], settings: Mapping[str, Any], named: Mapping[str, Path | None]
) -> str:
    files = [named[name] for name in ("schema_file", "columns_file")]
    texts = [file.read_text(encoding="utf-8") if file else None for file in files]
    content = json.dumps([config, settings, texts], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()
