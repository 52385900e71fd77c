"""Find a bundle, and run a workflow of it in this process, with checked overrides."""

import logging
import logging.config
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.bundle.utils import merge_kv

from metaseg_monai import files
from metaseg_monai.bundle.overrides import (
    SHORT,
    as_data,
    check_overrides,
    entered,
    flatten,
    literal,
    load_config,
    names_in,
    read_back,
    read_config,
    refuse_unused,
    to_parser,
)
from metaseg_monai.bundle.trust import YAML, Own, normal, read_beside, read_parser, refuse_untrusted
from metaseg_monai.errors import ConfigError, as_refusal, root_refusal
from metaseg_monai.files import text_file, written_at
from metaseg_monai.owners import owned

logger = logging.getLogger(__name__)

WORKFLOWS = {"train", "evaluate", "explain", "estimate", "inference", "multi_gpu_train"}
META = "configs/metadata.json"
AS_JSON = "is YAML, and the commands take JSON; save it as JSON"
NO_CONFIGURATION = ("facts", "metadata", "schema", "columns", "simulate")


def resolve_bundle(bundle: str | Path, bundles: str | Path | None = None) -> Path:
    """Return the folder of a bundle.

    Args:
        bundle: its path, or its name in one of the folders below, the first that has it.
        bundles: folder of bundles; by default ./bundles, then those installed with the package.

    Raises:
        ConfigError: if there is no such bundle; the message lists those that there are.
    """
    folders = [Path("bundles"), *_shipped()] if bundles is None else [Path(bundles)]
    for place in (Path(bundle), *(folder / bundle for folder in folders)):
        if _is_bundle(place):
            return place.resolve()
        for file in (place / "configs" / f"train{suffix}" for suffix in YAML):
            if file.is_file():
                raise ConfigError(f"{file}: {AS_JSON}, as all of configs/")
    known = "; ".join(
        f"in {folder}: {', '.join(names)}"
        for folder in folders
        if (names := sorted(path.name for path in folder.glob("*") if _is_bundle(path)))
    )
    looked = ", ".join(map(str, folders))
    raise ConfigError(
        f"There is no bundle at {str(bundle)!r} (no configs/train.json). Bundles "
        f"{known or f'in {looked}: none; name their folder with --bundles'}."
    )


def configuration_file(bundle: Path, name: str) -> Path:
    """Return the file of a configuration: that of the bundle by its name, any other by its path.

    Args:
        bundle: folder of the bundle.
        name: such as "train", "pilot.json" or "somewhere/mine.json".

    Raises:
        ConfigError: there is no such file, or one of that name here and one in the bundle.
    """
    own = bundle / "configs" / f"{name.removesuffix('.json')}.json"
    found = [own] if Path(name).name == name and own.is_file() else []
    if name.endswith(".json") and Path(name).is_file():
        found.append(Path(name).resolve())
    if len(set(found)) > 1:
        raise ConfigError(
            f"--configuration {name} could be {found[0]} or {found[1]}; write "
            f"{name.removesuffix('.json')} for the first, ./{name} for the second."
        )
    if found:
        return found[0]
    for file in (Path(name), *(bundle / "configs" / f"{name}{suffix}" for suffix in YAML)):
        if file.suffix in YAML and file.is_file():
            raise ConfigError(f"{file}: {AS_JSON}")
    names = {path.stem for path in (bundle / "configs").glob("*.json")} - WORKFLOWS
    known = ", ".join(n for n in sorted(names) if not n.startswith(NO_CONFIGURATION)) or "none"
    raise ConfigError(f"{name}: no such configuration or file; {bundle.name} has {known}")


def with_files_of(bundle: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a study in which a schema or column map of the bundle's is its path.

    Args:
        bundle: folder of the bundle.
        settings: such as ``{"schema_file": "schema_texts.json"}``; a file of that name in the
            working directory goes before.
    """
    found = dict(settings)
    for name in {"schema_file", "columns_file"} & settings.keys():
        given = settings[name]
        if isinstance(given, str) and not Path(given).is_file():
            own = bundle / "configs" / given
            found[name] = str(own) if own.is_file() else given
    return found


def _shipped() -> list[Path]:
    """The bundles of the package; in a checkout those of the repository."""
    checkout = Path(__file__).resolve().parents[2] / "bundles"
    return [folder for folder in (files.INSTALLED, checkout) if folder.is_dir()][:1]


def _is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "train.json").is_file()


def configs_of(*names: str, more: Any = None) -> list[str]:
    """The files of a workflow, and further configurations merged last, in order.

    >>> configs_of("train", "evaluate", more="pilot")
    ['train.json', 'evaluate.json', 'pilot']
    """
    further = str(more).split(",") if isinstance(more, str | Path) else more or []
    known = isinstance(further, Sequence) and all(isinstance(one, str | Path) for one in further)
    if not known:
        raise ConfigError(
            f"configuration is {more!r:.200}; expected names or files, as 'pilot,mine.json'"
        )
    return [*(f"{name}.json" for name in names), *(str(name).strip() for name in further)]


def run_bundle(
    bundle: Path,
    configurations: Sequence[str],
    overrides: Mapping[str, Any],
    recorded: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> ConfigWorkflow:
    """Run one workflow of a bundle as `running` does, and return it."""
    with running(bundle, configurations, overrides, recorded=recorded, trust=trust) as workflow:
        return workflow


@contextmanager
def running(
    bundle: Path,
    configurations: Sequence[str],
    overrides: Mapping[str, Any],
    doing: str = "is working in this folder",
    recorded: Mapping[str, Any] | None = None,
    trust: bool = False,
    run: bool = True,
    ready: Callable[[ConfigWorkflow], None] | None = None,
) -> Iterator[ConfigWorkflow]:
    """Initialize, run and finalize one workflow of a bundle, as ``monai.bundle run`` does.

    The output folder is owned until the block ends, which may still write into it.

    Args:
        bundle: folder of the bundle.
        configurations: merged in this order: names of the bundle's, paths of other files. What
            such a file changes is checked as overrides are.
        overrides: ``{id: value}`` as a user gives them; paths must be absolute or relative to the
            working directory.
        doing: what is told to a second process that wants the output folder.
        recorded: settings of an earlier run, as `check_overrides` gave them; `overrides` win.
        trust: run it even if it holds what is not listed (`metaseg_monai.bundle.trust`).
        run: the workflow; else it is only made ready, for whoever wants its objects.
        ready: is called with the workflow before it runs.

    Yields:
        The workflow that ran, whose parser gives its objects by id.

    Raises:
        ConfigError: for a file that is not there, an override that nothing uses, or what may not
            be run without trust.
        DataError: another process owns the output folder.
        MetasegError: whatever the library itself refuses, without the wrappers of MONAI.
    """
    files = [configuration_file(bundle, name) for name in configurations]
    given = {**(recorded or {}), **overrides}
    written = (recorded or {}).keys() - overrides.keys()
    model = read_back((recorded or {}).get("output_dir"))
    model = Path(model) if isinstance(model, str) else None
    workflow = read_workflow(bundle, files, given, written, trust, model)
    stages = [file for file in files if file.stem in WORKFLOWS and _is_own(bundle, file)]
    for file in files:
        if not _is_own(bundle, file):  # a part for training is none of prediction, and is known
            known = [bundle / "configs" / f"{name}.json" for name in ("train", "evaluate")]
            known = [path for path in known if path.is_file() and path not in stages]
            check_overrides([*known, *stages], read_config(file), written=True)
    check_overrides(load_config(files, bundle), given, written)
    _log_as(bundle / "configs" / "logging.conf")
    for engine in ("SupervisedTrainer", "SupervisedEvaluator"):
        logging.getLogger(f"ignite.engine.engine.{engine}").addFilter(_is_news)
    with ExitStack() as stack:
        try:
            if "output_dir" in workflow.parser:
                output = workflow.parser.get_parsed_content("output_dir")
                if "part" in workflow.parser:  # one of several that write into one folder
                    output = workflow.parser.get_parsed_content("part").folder
                stack.enter_context(owned(output, doing))
            workflow.initialize()
            if ready is not None:
                ready(workflow)
            if run:
                workflow.run()
                workflow.finalize()
        except Exception as error:
            cause = root_refusal(error) or _wrong_name(error) or as_refusal(error)
            if cause is None:
                raise
            raise cause from error
        yield workflow


def read_workflow(
    bundle: Path,
    files: Sequence[Path],
    settings: Mapping[str, Any],
    written: Collection[str] = (),
    trust: bool = False,
    model: Path | None = None,
) -> ConfigWorkflow:
    """Return a workflow of which nothing was made or imported, but what it will run was read.

    What is read is what the workflow's own parser holds, after everything was merged.

    Args:
        bundle: its folder.
        files: configurations of the bundle, and further ones of the user's own, in which modules
            of the user's own may stand.
        settings: by id.
        written: the names of those that are in MONAI's language.
        trust: run it all the same, after it was shown.
        model: folder of a trained model where the settings and files are recorded.

    Raises:
        ConfigError: listing what would be run; or a setting is not of its default's type; or the
            bundle has one that nothing uses.
    """
    stages = [file for file in files if file.stem in WORKFLOWS and _is_own(bundle, file)]
    config, of_stages = load_config(files, bundle), load_config(stages)
    meta = bundle / META
    contents = {
        f"configs/{file.name}": read_config(file) for file in files if _is_own(bundle, file)
    }
    contents[META] = {"_meta_": read_config(meta)} if meta.exists() else {}
    logging.getLogger("monai.bundle.workflows").addFilter(_is_news)
    workflow = ConfigWorkflow(
        config_file=[str(file) for file in stages],
        meta_file=str(meta),
        logging_file=False,  # it is read, and applied, below
        workflow_type="infer" if stages[0].stem == "inference" else "train",
        **{
            **{name: value for name, value in config.items() if value != of_stages.get(name, ...)},
            **places_of(bundle, config),
        },
    )
    entries = to_parser(config, settings, written)
    for at, name in enumerate(entries):
        later = [*entries][at + 1 :]
        if not name.replace("::", "#").startswith(tuple(f"{whole}#" for whole in later)):
            merge_kv(workflow.parser, name, entries[name])  # else it is replaced by its whole
    theirs = {
        str(file): {
            key: entered(key.lstrip("+"), value, None, True)
            for key, value in read_config(file).items()
        }
        for file in files
        if not _is_own(bundle, file)
    }
    recorded = {SHORT.get(name, name) for name in written}
    by_hand = {"settings": {name: one for name, one in entries.items() if name not in recorded}}
    by_hand |= {} if written else theirs
    theirs = {**theirs, "settings": entries}
    strangers = (bundle,) if model is None else (bundle, model)
    own = Own(_texts(theirs), _texts(by_hand), strangers, model)
    found = read_parser(workflow.parser, {**contents, **theirs}, own)
    of_bundle = [*(one for one in found if one.file not in theirs), *read_beside(bundle)]
    of_user = [one for one in found if one.file in theirs]
    for findings, what in ((of_bundle, f"The bundle {bundle}"), (of_user, "What is set")):
        if told := refuse_untrusted(findings, trust, what):
            logger.warning("%s", told)
    own_files = {path for path in (bundle / "configs").glob("*.json") if path.is_file()}
    texts = [text_file(path).read_text("utf-8", "replace") for path in own_files | {*files}]
    used = names_in([*texts, *(one for _, one in flatten(entries))])
    refuse_unused({name: one for name, one in contents.items() if name != META}, used)
    return workflow


def _texts(content: Any) -> frozenset[str]:
    return frozenset(normal(one) for _, one in flatten(content) if isinstance(one, str))


def _log_as(path: Path) -> None:
    """Set up the log as a bundle does, and refuse the file where it is damaged."""
    if path.is_file():
        try:
            logging.config.fileConfig(path, disable_existing_loggers=False)
        except Exception as error:  # any, by what is damaged
            raise ConfigError(
                f"{path}: no logging configuration ({type(error).__name__}: {str(error)[:100]!r}); "
                "put back the bundle's own, or remove it to log as usual"
            ) from error


def _wrong_name(error: BaseException | None) -> ConfigError | None:
    """MONAI's own word on a name that there is none of, as a refusal."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and "Cannot locate" in str(error):
            return ConfigError(
                f"{error} Correct the _target_; a module of yours must be in the working directory "
                "or on PYTHONPATH."
            )
        if isinstance(error, ValueError) and "reduction" in str(error):  # of a loss
            return ConfigError(f"{error}; correct the reduction of this loss in your settings.")
        if isinstance(error, ValueError) and "the referring item" in str(error):
            return ConfigError(
                f"{error} Correct the reference, or give what refers to it another value: this "
                "workflow has no such part."
            )
        error = error.__cause__ or error.__context__
    return None


def _is_own(bundle: Path, file: Path) -> bool:
    return file.parent == bundle / "configs"


def places_of(bundle: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The bundle's folder, and where its data and results go where they may not go there.

    Args:
        bundle: its folder.
        config: its configuration, of which such places take those values.
    """
    places = {"bundle_root": as_data(bundle)}
    if (home := written_at(bundle)) != bundle:
        for name, value in flatten(config):
            is_place = isinstance(value, str) and value.startswith("$@bundle_root + '/")
            if is_place and "/configs/" not in value:
                places[name] = value.replace("@bundle_root", literal(str(home)))
    return places


def _is_news(record: logging.LogRecord) -> bool:
    """Drop words on an exception, which is told once, by who catches it; and on the log itself."""
    told = record.getMessage()
    return "terminating due to exception" not in told and "skipping logging" not in told
