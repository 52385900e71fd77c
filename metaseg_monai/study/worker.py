"""One run of a study in a process of its own: ``python -m metaseg_monai.study.worker FOLDER``."""

import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.owners import owned

TRUST = "--trust"
PARENT = "METASEG_STUDY_PROCESS"  # the process whose end ends this one


def main(folder: Path, trust: bool = False) -> int:
    """Train, evaluate and record; return 0 where the run is finished, 1 where it failed.

    An interrupted training goes on from its checkpoint.

    Args:
        folder: of the run.
        trust: the user trusts the study, so that what is not listed runs, too.
    """
    _end_with_parent()
    with owned(folder, "is working on this run", wait=True):
        return _run(folder, trust)


def _run(folder: Path, trust: bool) -> int:
    from metaseg_monai.errors import DataError, MetasegError, as_refusal
    from metaseg_monai.study.record import (
        now,
        read_log,
        read_record,
        sha256,
        write_record,
    )

    record = read_record(folder)
    if record is None:
        sys.stderr.write(f"{folder} holds no run.json; start a study instead.\n")
        return 1
    # what killed starts computed is in the log only, and counts where it is more
    spent = max(record["seconds"], sum(float(epoch["seconds"]) for epoch in read_log(folder)))
    record |= {"state": "running", "started": now(), "versions": _versions()}
    # a table that is generated does not exist before the first run
    record["table_sha256"] = sha256(Path(record["table"])) or record["table_sha256"]
    write_record(folder, record)
    started = time.monotonic()
    try:
        _train_and_evaluate(folder, record, trust)
        after = sha256(Path(record["table"]))
        if record["table_sha256"] not in (None, after):
            raise DataError(f"{record['table']} was changed while this run was computed.")
        record |= {"state": "finished", "table_sha256": after}
    except MetasegError as error:
        record |= {"state": "failed", "error": str(error)}
        sys.stderr.write(f"error: {error}\n")
    except Exception as error:
        told = as_refusal(error) or f"{type(error).__name__}: {error}"
        record |= {"state": "failed", "error": str(told)}
        traceback.print_exc()
    record |= {"ended": now(), "seconds": spent + time.monotonic() - started}
    write_record(folder, record)
    if record["state"] == "finished" and record["explain"] and record.get("explained") != "done":
        write_record(folder, {**record, "explained": _explain(folder, record, trust)})
    return 0 if record["state"] == "finished" else 1


def _explain(folder: Path, record: dict[str, Any], trust: bool) -> str:
    """Draw what the gates do; an error in this does not spoil the results."""
    from metaseg_monai.bundle.run import run_bundle
    from metaseg_monai.errors import as_refusal
    from metaseg_monai.explain.draw import draw
    from metaseg_monai.study.matrix import CONFIGS

    asked = record["explain"] if isinstance(record["explain"], dict) else {}
    names = [*CONFIGS, "explain.json", *record.get("configuration", ())]
    place = {**asked, "output_dir": folder.resolve()}
    try:
        run_bundle(Path(record["bundle"]), names, place, record["settings"], trust)
        draw(folder)
    except Exception as error:
        traceback.print_exc()
        return f"failed: {as_refusal(error) or f'{type(error).__name__}: {error}'}"
    return "done"


def _train_and_evaluate(folder: Path, record: dict[str, Any], trust: bool) -> None:
    """Train, unless the weights are there; test them in the modes that are missing."""
    from metaseg_monai.bundle.run import run_bundle
    from metaseg_monai.errors import DataError
    from metaseg_monai.study.matrix import CONFIGS
    from metaseg_monai.study.record import missing_modes, weights_in, write_record
    from metaseg_monai.training.weights import CHECKPOINT

    bundle, settings = Path(record["bundle"]), record["settings"]
    further = record.get("configuration") or []
    place = {"output_dir": folder.resolve()}
    if not record.get("weights_sha256"):
        begun = {"resume": (folder / CHECKPOINT).is_file()}
        of_training = training_settings(bundle, settings, further)
        if record.get("pretrained"):
            of_training |= starting(bundle, of_training, further, Path(record["pretrained"]))
        run_bundle(bundle, ["train.json", *further], {**place, **begun}, of_training, trust)
        record["weights_sha256"] = weights_in(folder)
        write_record(folder, record)
    # the modes that are missing; all of them, where these could not be added to the others
    of_test = {name: value for name, value in settings.items() if name != "modes"}
    place["results_dir"] = folder.resolve()  # also where a study tests on val, to choose settings
    for _ in range(2):
        if modes := missing_modes(folder, record):
            given = {**place, "modes": modes}
            run_bundle(bundle, [*CONFIGS, *further], given, of_test, trust)
            record["evaluated"] = record["tested"]
            write_record(folder, record)
    if modes := missing_modes(folder, record):
        raise DataError(f"{folder}: the evaluation left out the modes {', '.join(modes)}.")


def training_settings(
    bundle: Path, settings: Mapping[str, Any], further: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the settings without those of the evaluation alone, which a training would refuse.

    Args:
        bundle: its folder.
        settings: of training and evaluation, by id; one such as ``objects#method`` goes where
            ``objects`` does.
        further: configurations that are merged behind those of the bundle.
    """
    from metaseg_monai.bundle.overrides import load_config
    from metaseg_monai.bundle.run import configuration_file
    from metaseg_monai.study.matrix import CONFIGS

    files = [configuration_file(bundle, name) for name in (*CONFIGS, *further)]
    of_training = load_config([files[0], *files[len(CONFIGS) :]], bundle)
    only_testing = load_config(files, bundle).keys() - of_training.keys()
    roots = {key: key.lstrip("+").replace("::", "#").partition("#")[0] for key in settings}
    return {key: value for key, value in settings.items() if roots[key] not in only_testing}


def starting(
    bundle: Path, settings: Mapping[str, Any], further: Sequence[str], weights: Path
) -> dict[str, Any]:
    """Return the settings by which a training begins with other weights.

    Args:
        bundle: its folder.
        settings: of the training.
        further: its further configurations; where one of them begins with a `pretrained_file`, as
            an adversarial training does, that is the one; else a `StartFrom` joins the handlers.
        weights: that it begins with.
    """
    from metaseg_monai.bundle.overrides import as_data, load_config
    from metaseg_monai.bundle.run import configuration_file

    files = [configuration_file(bundle, name) for name in ("train.json", *further)]
    if "pretrained_file" in load_config(files, bundle):
        return {"pretrained_file": as_data(str(weights))}
    start = {
        "_target_": "metaseg_monai.sharing.grow.StartFrom",
        "path": as_data(str(weights)),
        **{name: f"@{name}" for name in ("network", "schema", "best")},
        "facts": "$bundle.facts()",
    }
    return {"+train#handlers": [*settings.get("+train#handlers", []), start]}


def _end_with_parent() -> None:
    """End when the study's process is gone: an orphan would go on beside its own successor."""
    parent = os.environ.get(PARENT)
    if parent is None or os.name == "nt":  # where a launcher may stand between the two
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("metaseg-monai", "torch", "monai")}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), trust=TRUST in sys.argv[2:]))
