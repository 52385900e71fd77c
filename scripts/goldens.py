"""Prove that a change of the code changes no results: two checkouts do the same, file by file.

Both sides run the fixed scenarios of goldens_scenarios.py on this machine with this interpreter,
through their command lines alone, so that their modules may be named and cut as they like. What
they wrote is compared: text line by line, tables cell by cell, arrays and weights bit for bit.
The results of a commit are kept under --output and computed once; those of a changed work tree are
computed anew each time. Float results depend on processor, torch and threads: compare on one
machine only.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from goldens_compare import differences
from goldens_scenarios import Command, FailedError, Make, Step, Write, scenarios
from tqdm import tqdm

from metaseg_monai.cli.commands import run_script

ROOT = Path(__file__).resolve().parents[1]
SERVER = Path(__file__).with_name("goldens_server.py")
CODE = ("metaseg_monai", "bundles", "docs/references.json")  # what results depend on
TEXT = (".csv", ".json", ".md", ".tex", ".txt", ".html", ".sha256")
LIBRARIES = ("torch", "monai", "numpy", "pandas", "matplotlib", "scipy", "scikit-image", "pillow")
VERSIONS = [version(name) for name in LIBRARIES]
SCENARIOS = scenarios()
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": "", "TZ": "UTC"}
MOST = 10  # differing files that are named
LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\s*$")  # lines of a log, and empty ones


class Side:
    """One of the two states of the code, and what it gave.

    Args:
        place: a folder with a checkout, or a commit of this repository.
        output: where results are kept.
    """

    def __init__(self, place: str, output: Path) -> None:
        folder = Path(place).resolve() if Path(place).is_dir() else None
        self._unpacked = tempfile.TemporaryDirectory()
        if folder is None:
            commit = _git(ROOT, "rev-parse", "--verify", f"{place}^{{commit}}")
            if not commit:
                sys.exit(f"goldens: {place} is neither a folder nor a commit of {ROOT}.")
            archive = ["git", "-C", str(ROOT), "archive", commit, *CODE]
            packed = subprocess.run(archive, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "-C", self._unpacked.name], input=packed, check=True)
            self.checkout = Path(self._unpacked.name).resolve()
        else:
            commit = _git(folder, "rev-parse", "HEAD")
            if not commit or _git(folder, "status", "--porcelain", "--", *CODE):
                commit = ""
            self.checkout = folder
        self.kept = bool(commit)
        self._server: subprocess.Popen[str] | None = None
        self.output = output / (commit[:12] or f"changed-{self.checkout.name}")
        self.made: dict[str, Path] = {}

    def result(self, name: str, other: "Side") -> Path:
        """The folder of what a scenario gave; made where it is not there yet.

        Args:
            name: of the scenario.
            other: the side that makes inputs which both are to have in common.

        Raises:
            FailedError: a command did not end as it should.
        """
        if name in self.made:
            return self.made[name]
        scenario = SCENARIOS[name]
        given, kept = {}, self.kept
        for place, needed in scenario.needs.items():
            side = self if needed.startswith("own ") else other
            given[place] = side.result(needed.removeprefix("own "), other)
            kept = kept and side.kept
        steps = [self._spoken(step) for step in scenario.steps]
        told = repr([*steps, sorted(map(str, given.values())), sys.version, VERSIONS])
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        target = self.output / f"{name}-{digest}"
        with _alone(target):
            if not (kept and target.is_dir()):
                with self._work(given) as work:
                    for step, words in zip(scenario.steps, steps, strict=True):
                        self._do(step, words, work)
                    self._settle(work)
                    shutil.rmtree(target, ignore_errors=True)
                    (work / "out").rename(target)
        self.made[name] = target
        return target

    def _spoken(self, step: Step) -> Sequence[Any]:
        """A step in the words of this side; it changes with what is done."""
        if isinstance(step, Command):
            return step.line(self.checkout)
        return [step.source] if isinstance(step, Make) else [*step]

    @contextmanager
    def _work(self, given: Mapping[str, Path]) -> Iterator[Path]:
        """A folder to work in: the inputs, and bundles/ and docs/ of this side or the inputs."""
        with tempfile.TemporaryDirectory(dir=self.output, prefix="work-") as name:
            work = Path(name).resolve()
            (work / "out").mkdir()
            for place, folder in given.items():
                shutil.copytree(folder, work / place, dirs_exist_ok=True)
            if not (work / "bundles").exists():
                ignored = shutil.ignore_patterns("data", "data_*", "models", "eval")
                shutil.copytree(self.checkout / "bundles", work / "bundles", ignore=ignored)
                (work / "docs").mkdir(exist_ok=True)
                shutil.copy(self.checkout / "docs" / "references.json", work / "docs")
            yield work

    def _do(self, step: Step, words: Sequence[Any], work: Path) -> None:
        """Take a step; what a command told is added to out/said.txt."""
        if isinstance(step, Make):
            step(work)
            return
        if isinstance(step, Write):
            content = json.dumps(step.content, indent=2)
            (work / step.name).write_text(content, encoding="utf-8")
            return
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            code = self._run(words, work, out, err)
            told, complaint = (file.read_text(encoding="utf-8") for file in (out, err))
        if code != step.code:
            raise FailedError(
                f"python -m {' '.join(words)}\n  ended with {code}, expected {step.code}: "
                f"{(complaint or told)[-1500:]}"
            )
        if step.told:
            lines = [line for line in told.splitlines() if not LOGGED.match(line)]
            refusal = complaint.partition("error: ")
            lines += [refusal[1] + refusal[2].rstrip()] if code else []
            with (work / "out" / "said.txt").open("a", encoding="utf-8") as file:
                file.write("\n".join([f"$ {step.words}", *lines, ""]))

    def _run(self, words: Sequence[str], work: Path, out: Path, err: Path) -> int:
        """Run ``python -m`` of this side's code; return its exit status."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, str(SERVER)],
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(self.checkout)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        command = {"words": list(words), "folder": str(work), "out": str(out), "err": str(err)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def _settle(self, work: Path) -> None:
        """Write paths relative to the work folder, and a name in place of the checkout's."""
        for path in sorted((work / "out").rglob("*")):
            if path.suffix in TEXT and path.is_file():
                content = path.read_bytes()
                settled = content.replace(os.fsencode(f"{work}/"), b"")
                settled = settled.replace(os.fsencode(self.checkout), b"<checkout>")
                if settled != content:
                    path.write_bytes(settled)


def goldens(
    against: str, new: str = str(ROOT), output: str = "runs/goldens", only: Any = None
) -> None:
    """Compare the results of two states of the code; exit status 1 if any file differs.

    Example:
        python scripts/goldens.py --against main --only report,prepare

    Args:
        against: commit, or folder with a checkout, whose results are to be kept.
        new: folder with the checkout, or the commit, that is to give the same.
        output: folder for the results of both sides.
        only: comma-separated names of scenarios, or how they begin: generate, prepare, report,
            weights, evaluate, predict, tools.
    """
    starts = tuple(only.split(",") if isinstance(only, str) else only or ("",))
    compared = [name for name in SCENARIOS if not name.startswith("inputs-")]
    chosen = [name for name in compared if name.startswith(starts)]
    if not chosen:
        sys.exit(f"goldens: no scenario begins with {starts}; there are {', '.join(compared)}.")
    place = Path(output).resolve()
    sides = Side(str(against), place), Side(str(new), place)
    differing = 0
    with tqdm(chosen, unit="scenario") as bar:
        for name in bar:
            bar.set_description(name)
            told = _compared(name, sides)
            differing += told is not None
            bar.write(f"{name}: {told or 'equal'}", file=sys.stdout)
    print(f"{differing} of {len(chosen)} scenarios differ." if differing else "All equal.")
    print(f"old: {sides[0].output}\nnew: {sides[1].output}")
    sys.exit(1 if differing else 0)


def _compared(name: str, sides: tuple[Side, Side]) -> str | None:
    """What differs, or None."""
    folders = []
    for side, which in zip(sides, ("old", "new"), strict=True):
        try:
            folders.append(side.result(name, sides[0]))
        except FailedError as error:
            return f"FAILED on the {which} side: {error}"
    found = differences(folders[0], folders[1], SCENARIOS[name].compared)
    if not found:
        return None
    more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
    head = f"{len(found)} files differ ({folders[0].name}, {folders[1].name})"
    return "\n  ".join([head, *found[:MOST], *more])


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Wait until no other process makes the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _git(folder: Path, *words: str) -> str:
    """What git says; empty where it refuses."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    run_script(goldens)
