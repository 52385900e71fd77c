"""What others call on a bundle, run by its path in a process of its own: python alone.py --help.

It imports nothing of this package, so that it also runs where only MONAI is, and makes the calls of
the model zoo's CI (`ci/verify_bundle.py`) with their arguments and no more. Every line that it
writes into `--output` is one rule as JSON: rule, verdict (pass | fail | not checked), why.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

CONFIGURATIONS = ("json", "yaml", "yml")
SHOWN = 300


def verify(bundle: Path, schema: str | None) -> list[tuple[str, Callable[[], object] | str]]:
    """The zoo's calls that run a bundle; a text instead of one says why it cannot be made."""
    from monai.bundle import ckpt_export, create_workflow, verify_metadata, verify_net_in_out

    found = [bundle / "configs" / f"inference.{suffix}" for suffix in CONFIGURATIONS]
    inference = next((str(path) for path in found if path.is_file()), "")
    meta = str(bundle / "configs" / "metadata.json")
    weights, script = bundle / "models" / "model.pt", bundle / "models" / "model.ts"
    prepared = Path(schema) if schema else bundle / "eval" / "schema.json"
    given = {"net_id": "network_def", "meta_file": meta, "config_file": inference}

    def metadata() -> None:
        verify_metadata(meta_file=meta, filepath=str(prepared))

    def properties() -> None:
        logging_file = bundle / "configs" / "logging.conf"
        workflow = create_workflow(
            workflow_type="inference",
            bundle_root=str(bundle),
            config_file=inference,
            logging_file=str(logging_file) if logging_file.is_file() else False,
            meta_file=meta,
        )
        if missing := workflow.check_properties():
            raise ValueError(f"missing: {', '.join(missing)}")

    def shapes() -> None:
        verify_net_in_out(**given, bundle_root=str(bundle))

    def export() -> None:
        with tempfile.TemporaryDirectory() as folder:  # the CI writes into models/
            file = f"{folder}/verify_model.ts"
            ckpt_export(**given, filepath=file, ckpt_file=str(weights), bundle_root=str(bundle))

    def scripted() -> None:
        import torch

        torch.jit.load(str(script))

    none = "the bundle has no inference configuration"
    has_validator = importlib.util.find_spec("jsonschema") is not None
    no_schema = (
        "no schema file: give --schema FILE, the one whose address metadata.json tells"
        if has_validator
        else "it needs jsonschema: pip install jsonschema"
    )
    return [
        (
            "metadata.json keeps its schema (verify_metadata)",
            metadata if prepared.is_file() and has_validator else no_schema,
        ),
        (
            "inference has the required properties (check_properties)",
            properties if inference else none,
        ),
        (
            "the network takes and gives what metadata.json says (verify_net_in_out)",
            shapes if inference else none,
        ),
        (
            "weights become TorchScript (ckpt_export)",
            export if weights.is_file() and inference else "the bundle has no models/model.pt",
        ),
        (
            "models/model.ts can be loaded (torch.jit.load)",
            scripted if script.is_file() else "the bundle has no models/model.ts",
        ),
    ]


def use(
    bundle: Path, archive: str | None, address: str | None
) -> list[tuple[str, Callable[[], object] | str]]:
    """The ways in which a program takes a bundle up: load, create_workflow, download."""
    from monai.bundle import create_workflow, download, load

    def loaded() -> None:
        import torch

        network = load(bundle.name, bundle_dir=str(bundle.parent), source="github").cpu()
        state = torch.load(bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
        if any(not torch.equal(value, state[name]) for name, value in network.state_dict().items()):
            raise ValueError("the network has not the weights of models/model.pt")

    def workflow() -> None:
        file = str(bundle / "configs" / "inference.json")
        made = create_workflow(config_file=file, workflow_type="infer")
        if made.network_def is None or Path(made.bundle_root).resolve() != bundle:
            raise ValueError("network_def or bundle_root is not that of the bundle")

    def downloaded(url: str) -> Callable[[], None]:
        def call() -> None:
            with tempfile.TemporaryDirectory() as folder:
                download(name=bundle.name, bundle_dir=folder, url=url, progress=False)
                there = Path(folder) / bundle.name / "configs" / "metadata.json"
                if there.read_bytes() != (bundle / "configs" / "metadata.json").read_bytes():
                    raise ValueError("what was unpacked is not the bundle")

        return call

    calls: list[tuple[str, Callable[[], object] | str]] = [
        ("monai.bundle.load", loaded),
        ("monai.bundle.create_workflow", workflow),
    ]
    if archive is not None:
        calls.append(("monai.bundle.download, file://", downloaded(Path(archive).as_uri())))
    if address is not None:
        calls.append(("monai.bundle.download, http://", downloaded(address)))
    return calls


def main(arguments: Sequence[str]) -> None:
    """Make the calls, each whatever became of the others."""
    parser = argparse.ArgumentParser(description="the calls of the model zoo's CI and of programs")
    parser.add_argument("bundle", help="folder of the bundle")
    parser.add_argument("--output", required=True, help="file for a line of JSON for each call")
    parser.add_argument("--schema", help="file of the schema that metadata.json names")
    parser.add_argument("--without", help="package that must not be there")
    parser.add_argument("--use", action="store_true", help="load it as programs do, too")
    parser.add_argument("--archive", help="zip of the bundle, to download by file://")
    parser.add_argument("--address", help="http address of the zip")
    given = parser.parse_args(arguments)
    bundle = Path(given.bundle).resolve()
    with suppress(ValueError):
        sys.path.remove(str(Path(__file__).resolve().parent))
    sys.path.insert(0, str(bundle))  # as the CI does, for code that a bundle brings along
    if given.without:
        sys.modules[given.without] = None  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    calls = verify(bundle, given.schema)
    calls += use(bundle, given.archive, given.address) if given.use else []
    with Path(given.output).open("w", encoding="utf-8") as stream:
        for rule, call in calls:
            verdict, why = "pass", ""
            if isinstance(call, str):
                verdict, why = "not checked", call
            else:
                try:
                    call()
                except BaseException as error:  # whatever a bundle's code may do
                    first = error
                    while first.__cause__ is not None:
                        first = first.__cause__
                    told = " ".join(f"{type(first).__name__}: {first}".split())
                    verdict, why = "fail", told[:SHOWN]
            line = {"rule": rule, "verdict": verdict, "why": why}
            stream.write(json.dumps(line) + "\n")
            stream.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
