"""Our network and nnU-Net 2D after equal CPU time, on folds in which each case is tested once.

Everything that is decided beforehand stands in the protocol (docs/examples/equal_cpu); nnU-Net is
in an environment of its own (docs/nnunet.md). What is finished is kept: start it again to go on.
"""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from beside_nnunet import back, differences, to

from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import file_sha256, read_json, write_json
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.prepare.splits import dealt
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.nnunet import SPENT, TRAINER_FOLDER

TRAINER, PLANS, CONFIGURATION = "nnUNetTrainerShort", "nnUNetPlansCpu", "2d"
TRIAL = """import sys, torch
from nnunetv2.run.run_training import get_trainer_from_args
data, configuration, trainer, plans = sys.argv[1:]
made = get_trainer_from_args(data, configuration, 0, trainer, plans, device=torch.device("cpu"))
made.disable_checkpointing = True
made.run_training()
"""  # a training without the validation after it
MORE_TIME = 1.05  # of nnU-Net's CPU time, that ours may take
OURS, VERDICT, DRY = "ours", "verdict.json", 6


def run(
    protocol: str,
    output: str,
    nnunet: str,
    data: str | None = None,
    workers: int = 2,
    dry_run: bool = False,
) -> str:
    """Train, predict and compare what the protocol says, two trainings at a time.

    Example:
        python scripts/equal_cpu.py run --protocol docs/examples/equal_cpu/protocol.json \
--output runs/equal_cpu --nnunet nnunet-env

    Args:
        protocol: JSON file.
        output: folder of everything that is made; give the same one to go on.
        nnunet: folder of the environment that nnU-Net is installed in.
        data: folder of the data sets; METASEG_DATA by default.
        workers: trainings beside each other, each with one thread.
        dry_run: a few groups, narrow networks, two epochs of two steps: whether all of it works.

    Raises:
        ConfigError: a setting is wrong, or a command failed; what was finished is kept.
        DataError: data cannot be read.
    """
    given, home = read_json(protocol), Path(output).resolve()
    source = Path(data or os.environ.get("METASEG_DATA", "../shared/data")).resolve()
    environment = Path(nnunet).resolve()
    if not (environment / "bin" / "nnUNetv2_train").is_file():
        raise ConfigError(f"--nnunet {nnunet}: no bin/nnUNetv2_train; install nnunetv2 there")
    home.mkdir(parents=True, exist_ok=True)
    fixed = {"protocol": given, "dry_run": dry_run}
    if once(home / "protocol.json", lambda: fixed) != fixed:
        raise ConfigError(f"{home}: holds runs of another protocol; name another --output")
    sets = [
        Compared(name, given, home / name, source, environment, dry_run) for name in given["data"]
    ]
    for one in sets:
        one.prepare()
    with commands_end_with_us(), ThreadPoolExecutor(workers) as pool:
        chains = [pool.submit(work) for one in sets for work in (one.theirs, one.ours)]
        try:
            for chain in chains:
                chain.result()
        except BaseException:
            ENDED.set()
            end_all()
            raise
    return compare(output)


def compare(output: str) -> str:
    """Tell the difference of what has been run, by data set, and what it says.

    Example:
        python scripts/equal_cpu.py compare --output runs/equal_cpu

    Args:
        output: folder of `run`.

    Raises:
        DataError: something is not finished.
    """
    home = Path(output).resolve()
    fixed = read_json(home / "protocol.json")
    given, lines = fixed["protocol"], []
    for name in given["data"]:
        place = home / name
        form = read_json(place / "chosen.json")["form"]
        folds = range(given["folds"])
        spent = {
            "ours": [read_json(place / OURS / f"fold{k}.train.json")["cpu_seconds"] for k in folds],
            "nnU-Net": [
                read_json(place / f"{form}{k}.train.json")["spent"]["cpu_seconds"] for k in folds
            ],
        }
        found = differences(
            [str(place / OURS / f"fold{k}") for k in folds], [str(place / "back")], given["margin"]
        )
        limits = []
        least = min(min(one) for one in spent.values()) / 60
        if least < given["cpu_minutes"]:
            limits.append(f"a run took {least:.1f} of {given['cpu_minutes']} CPU-minutes")
        if sum(spent["ours"]) > MORE_TIME * sum(spent["nnU-Net"]):
            limits.append("ours took more CPU time")
        if fixed["dry_run"]:
            limits.append("a dry run")
        minutes = ", ".join(f"{who} {sum(s) / 60:.1f}" for who, s in spent.items())
        verdict = f"no verdict ({'; '.join(limits)})" if limits else found["verdict"]
        told = {**found, "verdict": verdict, "form": form, "cpu_seconds": spent, "limits": limits}
        write_json(place / VERDICT, told)
        lines.append(f"{name}: {verdict}. {found['text']}; CPU-minutes {minutes}; form {form}")
    return "\n".join(lines)


# Commands, of which each counts its CPU time.


class Spent(NamedTuple):
    """What a command took: CPU seconds of it and its children, user and system; and wall time."""

    cpu_seconds: float
    wall_seconds: float


RUNNING: set[subprocess.Popen[bytes]] = set()
ENDED = threading.Event()


def call(words: Sequence[Any], log: Path, environment: Mapping[str, str] | None = None) -> Spent:
    """Run a command to its end.

    Args:
        words: of the command.
        log: file that gets what it says.
        environment: variables beside those there are.

    Raises:
        ConfigError: it failed.
    """
    if ENDED.is_set():
        raise ConfigError("stopped; start it again to go on")
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **one, **(environment or {})},
            start_new_session=True,
        )
        RUNNING.add(process)
        if ENDED.is_set():  # since, so that `end_all` did not know of it
            end_all()
        try:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            RUNNING.discard(process)
    if process.returncode:
        last = log.read_text(errors="replace").strip().splitlines()[-8:]
        raise ConfigError(f"{log}: ended with status {process.returncode}:\n" + "\n".join(last))
    spent = round(used.ru_utime + used.ru_stime, 1)
    return Spent(spent, round(time.monotonic() - began, 1))


def end_all() -> None:
    """End all commands that run."""
    for process in list(RUNNING):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


class commands_end_with_us:  # noqa: N801  (a context)
    """While it is entered, a signal that ends this script ends its commands, too."""

    def __enter__(self) -> None:
        def stop(number: int, frame: Any) -> None:
            ENDED.set()
            end_all()
            raise SystemExit(128 + number)

        self.before = {one: signal.signal(one, stop) for one in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *error: object) -> None:
        for one, handler in self.before.items():
            signal.signal(one, handler)


def once(file: Path, work: Callable[[], Any]) -> Any:
    """What a file of JSON says; where it is not there, the work is done and written into it."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, work())
    return read_json(file)


# One data set.


class Compared:
    """The data, trainings and predictions of one data set.

    Args:
        name: of the data set.
        protocol: the whole.
        home: folder of what is made.
        source: folder of the data sets.
        environment: of nnU-Net.
        dry_run: few cases and steps.
    """

    def __init__(
        self,
        name: str,
        protocol: Mapping[str, Any],
        home: Path,
        source: Path,
        environment: Path,
        dry_run: bool,
    ) -> None:
        self.given, self.own, self.dry = protocol, protocol["data"][name], dry_run
        self.home, self.images = home, source / name
        self.table, self.folds = home / "data", range(protocol["folds"])
        self.bin, self.dataset = environment / "bin", self.own["dataset"]
        self.nn = home / "nn"

    def prepare(self) -> None:
        """Write the table with its folds, and the cases in nnU-Net's form."""
        once(self.home / "data.json", self._table)
        if not (self.nn / "nnUNet_raw" / self.dataset / "dataset.json").is_file():
            to(
                table=str(self.table),
                output=str(self.nn),
                name=self.dataset,
                channels=self.own["channels"],
                channel_names=self.own["channel_names"],
                folds=len(self.folds),
                schema=str(self.table / "schema.json"),
                columns=str(self.table / "columns.json"),
            )

    def _table(self) -> dict[str, Any]:
        manifest = self.images / "manifest.csv"
        if not manifest.is_file():
            raise DataError(f"{manifest}: not there; name the folder of the data sets by --data")
        with manifest.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        group, kind = self.own["group"], self.own["stratify"]
        strata = {row[group]: (row[kind],) for row in rows}
        if self.dry:  # of every kind, as far as they go
            ordered = sorted(strata, key=lambda one: [*strata.values()].index(strata[one]))
            strata = {one: strata[one] for one in ordered[:: -(-len(ordered) // DRY)]}
        shares = [1 / len(self.folds)] * len(self.folds)
        fold_of = dealt(strata, shares, self.given["seed"])
        kept = [
            {**row, "group": row[group], "split": "train", "fold": fold_of[row[group]]}
            for row in rows
            if row[group] in fold_of
        ]
        self.table.mkdir(parents=True, exist_ok=True)
        write_table(kept, self.table / "table.csv")
        write_json(self.table / "root.json", {"table.csv": str(self.images)})
        columns: dict[str, Any] = {}
        if self.own["label_values"]:
            columns["label_values"] = self.own["label_values"]
        write_json(self.table / "columns.json", columns)
        values = tuple(sorted({row[kind] for row in rows if row[kind].strip()}))
        field = {"kind": "categorical", "name": kind, "values": values, "missing": "unknown"}
        when = {"provenance": "acquisition", "availability": "acquisition"}
        MetadataSchema([{**field, **when}]).save(self.table / "schema.json")
        changes = {
            **{name: one for name, one in self.own["ours"].items() if name != "val_interval"},
            "domain": kind,
            "shuffle": {},
            "val_batch_size": 1,
            "preprocessing": [
                {
                    "_target_": "metaseg_monai.transforms.LoadCased",
                    "classes": "@classes",
                    "in_channels": "@in_channels",
                    "channels": self.own["channels"],
                },
                {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
                "@encode",
            ],
        }
        write_json(self.table / "ours.json", changes)
        sizes = [sum(row["fold"] == fold for row in kept) for fold in self.folds]
        return {"cases": len(kept), "groups": len(strata), "cases_of_folds": sizes}

    def ours(self) -> None:
        """Train and evaluate our network on every fold."""
        epochs = once(self.home / OURS / "length.json", self._our_length)["epochs"]
        for fold in self.folds:
            place = self.home / OURS / f"fold{fold}"

            def train(place: Path = place, fold: int = fold) -> dict[str, Any]:
                spent, words = self._train(place, fold, epochs)
                return {**spent._asdict(), "epochs": epochs, "command": words}

            def evaluate(place: Path = place) -> dict[str, Any]:
                words = [sys.executable, "-m", "metaseg_monai", "evaluate", place]
                words += ["--mirror", "[0,1]", "--modes", "normal"]
                return call(words, place.with_suffix(".test.log"))._asdict()

            once(place.with_suffix(".train.json"), train)
            once(place.with_suffix(".test.json"), evaluate)

    def _train(self, place: Path, fold: int, epochs: int) -> tuple[Spent, list[str]]:
        own = self.given["ours"]
        shutil.rmtree(place, ignore_errors=True)  # begun before, and counted in no time
        words = [sys.executable, "-m", "metaseg_monai", "train", own["bundle"]]
        words += ["--fold", fold, "--epochs", epochs, "--variant", own["variant"]]
        words += ["--configuration", f"{own['configuration']},{self.table / 'ours.json'}"]
        words += ["--dataset_dir", self.table, "--output_dir", place]
        words += ["--seed", self.given["seed"], "--val_interval", self._interval]
        words += ["--schema_file", self.table / "schema.json"]
        words += ["--columns_file", self.table / "columns.json"]
        return call(words, place.with_suffix(".train.log")), listed(words)

    @property
    def _interval(self) -> int:
        """Epochs between two of our validations."""
        return 1 if self.dry else int(self.own["ours"]["val_interval"])

    def _our_length(self) -> dict[str, Any]:
        """So many epochs as fill the CPU time, by what some more of them cost on fold 0."""
        few, more = self._interval, 3 * self._interval
        place = self.home / OURS / "length"
        spent = [self._train(place, 0, epochs)[0].cpu_seconds for epochs in (few, more)]
        each = max((spent[1] - spent[0]) / 2, 0.01)  # for the epochs from a validation to the next
        wanted = 1 if self.dry else math.ceil(60 * self.given["ours"]["cpu_minutes"] / each)
        shutil.rmtree(place)
        return {"epochs": wanted * self._interval, "cpu_seconds_of_trials": spent}

    def theirs(self) -> None:
        """Plan nnU-Net; choose one of its forms on the first fold; train and predict every fold.

        The form is chosen by nnU-Net's own Dice of the first fold's validation cases, which other
        folds test: that can only flatter nnU-Net.
        """
        once(self.home / "plan.json", self._plan)
        first = {
            form: self._trained(form, 0)["validation_dice"]
            for form in self.given["nnunet"]["forms"]
        }
        best = best_form(first)
        for fold in self.folds:
            self._trained(best, fold)
            once(self.home / f"{best}{fold}.test.json", partial(self._predict, best, fold))
        once(self.home / "chosen.json", lambda: {"form": best, "validation_dice": first})
        once(self.home / "back.json", lambda: self._back(best))

    def _plan(self) -> dict[str, Any]:
        number = int(self.dataset[7:10])
        target = self.given["nnunet"]["gpu_memory_target_gb"]
        words = [self.bin / "nnUNetv2_plan_and_preprocess", "-d", number, "-c", CONFIGURATION]
        words += ["-np", 1, "-npfp", 1, "-gpu_memory_target", target]
        words += ["-overwrite_plans_name", PLANS]
        one = {"nnUNet_n_proc_DA": "1"}  # its estimate of memory takes so many threads
        spent = call(words, self.home / "plan.log", self._variables(one))
        prepared = self.nn / "nnUNet_preprocessed" / self.dataset
        planned = read_json(prepared / f"{PLANS}.json")
        for form, change in self.given["nnunet"]["forms"].items():
            plans = {**deepcopy(planned), "plans_name": f"{PLANS}_{form}"}
            if change or self.dry:
                features = 4 if self.dry else change["features"]
                kept = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
                most = max(kept["features_per_stage"])
                kept["features_per_stage"] = [
                    min(most, features * 2**stage) for stage in range(kept["n_stages"])
                ]
            write_json(prepared / f"{PLANS}_{form}.json", plans, indent=4)
        own = planned["configurations"][CONFIGURATION]
        return {**spent._asdict(), "batch_size": own["batch_size"], "patch": own["patch_size"]}

    def _length(self, form: str) -> dict[str, Any]:
        """So many epochs as fill the CPU time, by what two of three cost on fold 0."""
        place = self._results(form) / "fold_0"
        shutil.rmtree(place, ignore_errors=True)
        words = [self.bin / "python", "-c", TRIAL, self.dataset, CONFIGURATION, TRAINER]
        call([*words, f"{PLANS}_{form}"], self.home / f"{form}.length.log", self._told(3))
        told = read_json(place / SPENT)["cpu_seconds_at_epochs"]
        each = max((told[2] - told[0]) / 2, 0.01)
        wanted = 2 if self.dry else math.ceil(60 * self.given["nnunet"]["cpu_minutes"] / each)
        return {"epochs": wanted, "cpu_seconds_of_trials": told}

    def _told(self, epochs: int) -> dict[str, str]:
        """What our trainer in nnU-Net is told."""
        iterations = 2 if self.dry else self.given["nnunet"]["iterations"]
        told = {"EPOCHS": epochs, "ITERATIONS": iterations, "SEED": self.given["seed"]}
        return self._variables({f"METASEG_{name}": str(one) for name, one in told.items()})

    def _trained(self, form: str, fold: int) -> dict[str, Any]:
        def train() -> dict[str, Any]:
            epochs = once(self.home / f"{form}.length.json", lambda: self._length(form))["epochs"]
            place = self._results(form) / f"fold_{fold}"
            shutil.rmtree(place, ignore_errors=True)
            words = [self.bin / "nnUNetv2_train", self.dataset, CONFIGURATION, fold, "-tr", TRAINER]
            words += ["-p", f"{PLANS}_{form}", "-device", "cpu"]
            spent = call(words, self.home / f"{form}{fold}.train.log", self._told(epochs))
            found = read_json(place / "validation" / "summary.json")["foreground_mean"]["Dice"]
            told = None if math.isnan(found) else found  # no case of the fold has foreground
            more = {"spent": read_json(place / SPENT), "validation_dice": told}
            return {**spent._asdict(), **more, "command": listed(words)}

        found: dict[str, Any] = once(self.home / f"{form}{fold}.train.json", train)
        return found

    def _predict(self, form: str, fold: int) -> dict[str, Any]:
        masks = self.home / "masks" / f"fold{fold}"
        shutil.rmtree(masks, ignore_errors=True)
        raw = self.nn / "nnUNet_raw" / self.dataset
        words = [self.bin / "nnUNetv2_predict", "-d", self.dataset, "-c", CONFIGURATION]
        words += ["-f", fold, "-tr", TRAINER, "-p", f"{PLANS}_{form}", "-device", "cpu"]
        words += ["-npp", 1, "-nps", 1, "-i", raw / f"imagesFold{fold}", "-o", masks]
        return call(words, self.home / f"{form}{fold}.test.log", self._variables())._asdict()

    def _back(self, form: str) -> dict[str, Any]:
        shutil.rmtree(self.home / "back", ignore_errors=True)
        results = self._results(form)
        weights = [results / f"fold_{fold}" / "checkpoint_final.pth" for fold in self.folds]
        told = back(
            data=str(self.nn / "nnUNet_raw" / self.dataset),
            predictions=[str(self.home / "masks" / f"fold{fold}") for fold in self.folds],
            checkpoint=[str(one) for one in weights],
            output=str(self.home / "back"),
            domain=self.own["stratify"],
        )
        return {"told": told, "weights_sha256": [file_sha256(one) for one in weights]}

    def _results(self, form: str) -> Path:
        name = f"{TRAINER}__{PLANS}_{form}__{CONFIGURATION}"
        return self.nn / "nnUNet_results" / self.dataset / name

    def _variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """One process and one thread; nnU-Net itself compiles no network on CPUs."""
        folders = ("raw", "preprocessed", "results")
        root = str(Path(__file__).resolve().parents[1])
        return {
            **{f"nnUNet_{one}": str(self.nn / f"nnUNet_{one}") for one in folders},
            "nnUNet_extTrainer": str(TRAINER_FOLDER),
            "nnUNet_n_proc_DA": "0",
            "nnUNet_def_n_proc": "1",
            "PYTHONPATH": root,
            **(more or {}),
        }


def best_form(dice: Mapping[str, float | None]) -> str:
    """The form of the highest Dice, of equal ones the first; one without a Dice is the worst.

    >>> best_form({"planned": None, "narrow": 0.2})
    'narrow'
    """
    known = {form: -1 if one is None else one for form, one in dice.items()}
    return max(known, key=lambda form: known[form])


def listed(words: Sequence[Any]) -> list[str]:
    """A command as it is recorded."""
    return [str(word) for word in words]


if __name__ == "__main__":
    run_script(run, compare)
