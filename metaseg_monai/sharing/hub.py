"""Models on the Hugging Face hub: what goes there, and how one comes back as a network."""

import glob
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from metaseg_monai.bundle.trust import read_contents, refuse_untrusted
from metaseg_monai.errors import CheckpointError, ConfigError, typed
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.sharing.card import CARD, Model, model_card, read_model, refuse_unlicensed
from metaseg_monai.training.weights import read_weights

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
OF_MODEL = ("model.pt", "model.json")
OF_BUNDLE = (  # no images, samples neither, results, records of runs or lists of training images
    *("LICENSE", "requirements.txt", "large_files.yml", "configs/logging.conf"),
    *(f"configs/*.{suffix}" for suffix in ("json", "yaml", "yml")),
    *("docs/*.md", "docs/data_license.txt", "scripts/**/*.py"),
    *("models/model.pt", "models/model.json", "models/model.ts", "models/model.onnx"),
)
OURS = r"model\.(pt|json)|models/model\.(pt|json|ts|onnx)"  # on the hub, of an earlier push
OURS_OF_BUNDLE = (
    rf"{OURS}|(configs|docs|samples|scripts)/.*|\w+_code_[0-9a-f]+/.*|requirements\.txt"
    r"|large_files\.yml"
)
FETCHED = ["model.pt", "model.json", "models/model.pt", "models/model.json", CARD]


@dataclass(frozen=True)
class Pushed:
    """What goes, or went, to the hub.

    Attributes:
        repo: its name there.
        files: each with its bytes.
        license: of the weights.
        data: the data that demand it.
        url: of the commit; None where nothing was sent.
        removed: files of an earlier push that were taken away there.
    """

    repo: str
    files: Mapping[str, int]
    license: str
    data: tuple[str, ...]
    url: str | None = None
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"  {name}  {size:,} bytes" for name, size in self.files.items()]
        lines.append(f"{len(lines)} files, {sum(self.files.values()) / 1e6:.1f} MB")
        lines.append(f"licence of the weights: {self.license} (data: {', '.join(self.data)})")
        if self.url is None:
            return "\n".join([*lines, f"nothing was sent to {self.repo}: --upload True does it"])
        if self.removed:
            lines.append(f"taken away, of an earlier push: {', '.join(self.removed)}")
        return "\n".join([*lines, f"sent: {self.url}"])


@typed
def push(folder: str | Path, to: str, *, upload: bool = False, private: bool = True) -> Pushed:
    """Show what a model on the Hugging Face hub would hold, under which licence; send it.

    Example:
        python -m metaseg_monai push runs/me --to lab/shapes-me
        python -m metaseg_monai push runs/me --to lab/shapes-me --upload True

    Of a model's folder go the weights with their facts and the card, which is made anew; of a
    bundle also its configurations, docs and code. Data and samples, results and lists of training
    images stay; files of an earlier model are taken away there.
    The licence on the card is the one that the data demand. Log in first with `hf auth login`.

    Args:
        folder: of the model, or of a bundle with weights in models.
        to: OWNER/NAME on the hub.
        upload: send it; without, nothing leaves this machine.
        private: make a new repository a private one, which you may open on its page; one that
            is public already is refused.

    Returns:
        Files with their sizes, and the licence.

    Raises:
        ConfigError: no model; the licence of its data is not stated, or lets nothing be shared; no
            such name; the hub refuses, or its client is missing.
        CheckpointError: the weights are damaged, or without facts.
        DataError: an evaluation beside them is of other weights.
    """
    if not REPO.fullmatch(to):
        raise ConfigError(f"--to {to!r}: expected OWNER/NAME, as lab/shapes-me")
    model = read_model(folder)
    refuse_unlicensed(model)
    with TemporaryDirectory() as place:
        files = dict(_staged(model, Path(place)))
        data = tuple(one["data"] for one in model.data)
        told = Pushed(to, files, str(model.license), data)
        if not upload:
            return told
        hub = _hub()
        api, title = hub.HfApi(), f"{model}: weights {model.facts['weights_sha256'][:12]}"
        try:
            api.create_repo(repo_id=to, repo_type="model", private=private, exist_ok=True)
            if private and api.repo_info(repo_id=to, repo_type="model").private is False:
                raise ConfigError(
                    f"{to} is there, and public: everybody would see the model; give --private "
                    "False if they may, or another name"
                )
            ours = re.compile(OURS_OF_BUNDLE if model.is_bundle else OURS)
            there = api.list_repo_files(repo_id=to, repo_type="model")
            old = [name for name in there if ours.fullmatch(name) and name not in files]
            done = api.upload_folder(
                repo_id=to,
                folder_path=place,
                repo_type="model",
                commit_message=title,
                delete_patterns=[glob.escape(name) for name in old],
            )
        except ConfigError:
            raise
        except Exception as error:  # its own, or those of what it sends with: httpx, requests
            raise ConfigError(_refused(to, error)) from error
    return Pushed(to, files, told.license, data, str(done.commit_url), tuple(old))


def _staged(model: Model, place: Path) -> Iterator[tuple[str, int]]:
    """Put what is to go into a folder; each file with its bytes."""
    names = set(OF_MODEL)
    if model.is_bundle:
        found = [one for pattern in OF_BUNDLE for one in model.folder.glob(pattern)]
        for package in model.folder.glob("*/__init__.py"):  # code that it brings along
            found += [*package.parent.rglob("*.py"), *package.parent.rglob("*.json")]
        names = {one.relative_to(model.folder).as_posix() for one in found}
    for name in sorted(names):
        source = model.folder / name
        *folders, own = Path(name).parts
        is_hidden = own.startswith(".") or any(part.startswith((".", "__")) for part in folders)
        if is_hidden or not source.is_file():
            continue
        if source.is_symlink() or not source.resolve().is_relative_to(model.folder.resolve()):
            raise ConfigError(f"{source}: is a link; put the file itself there")
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place / name)
    (place / CARD).write_text(model_card(model), encoding="utf-8", newline="\n")
    for file in sorted(one for one in place.rglob("*") if one.is_file()):
        yield file.relative_to(place).as_posix(), file.stat().st_size


@dataclass(frozen=True)
class Pretrained:
    """A trained network that knows itself.

    Attributes:
        network: in eval mode, on the CPU; called as network(image, meta).
        facts: of the weights, whose digest was checked (`weights_sha256`, `preprocessing`, ...).
        schema: encodes metadata for it; None where it reads none.
        folder: where the weights lie.
    """

    network: nn.Module
    facts: Mapping[str, Any]
    schema: MetadataSchema | None
    folder: Path

    def __str__(self) -> str:
        kind = type(self.network).__name__
        told = f"told {', '.join(self.schema.names)}" if self.schema else "without metadata"
        return f"{kind} of {self.folder} ({self.facts['weights_sha256'][:12]}), {told}"


@typed
def from_pretrained(
    name: str | Path, *, revision: str | None = None, trust: bool = False
) -> Pretrained:
    """Load a trained network by its facts, from a folder or from the Hugging Face hub.

    Args:
        name: folder of a model, or of a bundle with weights in models; or OWNER/NAME on the hub,
            where there is no such folder (`pip install "metaseg-monai[hub]"`).
        revision: branch, tag or commit on the hub.
        trust: build a network that names more than what is known to be harmless. Weights are
            always read without running code.

    Returns:
        The network with its weights, facts and schema.

    Raises:
        ConfigError: nothing of that name; the hub refuses; the facts would run code of a stranger.
        CheckpointError: the weights are damaged, without facts, not those that the facts describe,
            or not of the network that they name.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from metaseg_monai.training import write_weights
        >>> facts = {"network": {"_target_": "torch.nn.Conv2d", "in_channels": 1,
        ...                      "out_channels": 2, "kernel_size": 3}}
        >>> with TemporaryDirectory() as folder:
        ...     write_weights(f"{folder}/model.pt", nn.Conv2d(1, 2, 3), facts)
        ...     from_pretrained(folder, trust=True).network
        Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
    """
    folder = Path(name) if Path(name).exists() else _fetched(str(name), revision)
    weights = read_model(folder).weights
    state, facts = read_weights(weights)
    if not isinstance(facts.get("network"), dict):
        raise CheckpointError(f"{weights} does not tell which network it is of; train anew")
    refers = facts.get("refers_to") or {}
    if not isinstance(refers, dict):
        raise CheckpointError(f"{weights}: damaged facts (refers_to); get it anew")
    told = {"schema": None, **refers, "network_def": facts["network"]}
    findings = read_contents({f"the facts of {weights.name}": told})
    refuse_untrusted(findings, trust, f"the network in {weights}")
    schema = MetadataSchema.from_dict(facts["schema"]) if facts.get("schema") else None
    try:
        network = ConfigParser({**told, "schema": schema}).get_parsed_content("network_def")
    except Exception as error:  # of any component that the facts name
        why = " ".join(str(error.__cause__ or error).split())[:300]
        raise CheckpointError(
            f"The network that the facts of {weights} name cannot be built ({why}); they may be of "
            "another release (see versions in model.json), or damaged"
        ) from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, CheckpointError) as error:
        raise CheckpointError(
            f"The weights in {weights} do not fit the network that their facts name: {error}"
        ) from error
    reads = getattr(network, "meta_features", 1) > 0
    return Pretrained(network.eval(), facts, schema if reads else None, weights.parent)


def _fetched(name: str, revision: str | None) -> Path:
    """The folder of a model of the hub, in the cache of its client."""
    if not REPO.fullmatch(name):
        raise ConfigError(f"{name}: no such folder, and no OWNER/NAME of the hub; check the path")
    hub = _hub()
    try:
        found = hub.snapshot_download(repo_id=name, revision=revision, allow_patterns=FETCHED)
    except Exception as error:  # as above
        raise ConfigError(f"there is no folder {name}, and {_refused(name, error)}") from error
    return Path(found)


def _refused(name: str, error: Exception) -> str:
    told = " ".join(str(error).split())[:300]
    return (
        f"the hub refused {name} ({type(error).__name__}: {told}); check the name, the network and "
        "the login (hf auth login)"
    )


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ConfigError(
            'this needs huggingface_hub, which is missing; pip install "metaseg-monai[hub]"'
        ) from error
