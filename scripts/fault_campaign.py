"""Damage inputs and results, kill commands, run them twice at once, fill the disk; judge each.

A small world of every kind of input and result is made once (fault_world.py, faults.json). Each
trial puts what it needs of it in one place, does harm (fault_damages.py), runs a command as a
process of its own would run it, and compares what came with what the command gives without harm
(fault_verdicts.py). Nothing is believed for its exit status alone: a refusal must name the file
or case, a success must have given the same, or have told of what differs. What nobody could
detect is listed apart: other pixels in a format without checksum, a cell with another legal
value, a deleted row.
"""

import contextlib
import ctypes
import hashlib
import importlib
import io
import json
import os
import pkgutil
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import goldens_server
import numpy as np
import pandas as pd
from fault_damages import damages_of
from fault_verdicts import CODES, FAULTS, NOISE, Ended, broken, judge, same
from fault_world import JOBS, MADE, TARGETS, Job, write_world
from goldens_compare import differences
from tqdm import tqdm

from metaseg_monai.cli.commands import run_script

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 180  # no command on the small world takes longer
AT_ONCE_S = 15  # within which a second process is to be refused, start of Python included
PORTIONS = {"inputs": 1000, "kills": 100, "pairs": 50, "disks": 20, "tmpfs": 20}
CAPABILITIES_V3 = 0x20080522


@dataclass(frozen=True)
class Trial:
    """What was done and what came.

    Attributes:
        number: with the seed, it repeats the trial.
        portion: inputs, kills, pairs, disks or tmpfs.
        kind: of the input, or of the command.
        input: the damaged file, or where the command was stopped.
        damage: what was done to it.
        command: that was run.
        code: exit status; negative for a signal.
        verdict: told | harmless | remark | undetectable: why, or one of `FAULTS`.
        seconds: of the command.
        text: what it said last.
    """

    number: int
    portion: str
    kind: str
    input: str
    damage: str
    command: str
    code: int
    verdict: str
    seconds: float
    text: str


class NotTriedError(Exception):
    """A command that does not end well without harm, either."""


class Campaign:
    """The place of the trials.

    Args:
        place: folder for the world; it is made when it is not there.
        seed: of all chance.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self.seed = seed
        self.whole = place / "whole"
        self.world = place / "world"
        self._stored = place / "results"
        self._results: dict[str, tuple[Path, Ended]] = {}
        if not (self.whole / "made").is_file():
            self._make()
        shutil.rmtree(self._stored, ignore_errors=True)

    def _make(self) -> None:
        for folder in (self.whole, self.world):
            shutil.rmtree(folder, ignore_errors=True)
        self.world.mkdir(parents=True)
        self.world.parent.chmod(0o755)
        write_world(self.world)
        for command in tqdm(MADE, desc="world", unit="command"):
            ended = self.run(command)
            if ended.code:
                sys.exit(f"{command}: ended with {ended.code}: {ended.text[-3000:]}")
        shutil.copytree(self.world, self.whole)
        (self.whole / "made").touch()

    def lay(self, parts: Sequence[str]) -> None:
        """Put parts of the world in place, and nothing else."""
        self.world.mkdir(exist_ok=True)
        for path in self.world.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in parts:
            source = self.whole / name
            copy: Callable[..., Any] = shutil.copytree if source.is_dir() else shutil.copy2
            if source.exists():
                copy(source, self.world / name)
        self.world.chmod(0o777)

    def start(self, command: str, before: Callable[[], None] = lambda: None) -> "Running":
        """Start a command in a process of its own, in the world."""
        return Running(command, self.world, before)

    def run(self, command: str, before: Callable[[], None] = lambda: None) -> Ended:
        """Run a command to its end."""
        return self.start(command, before).wait()

    def unharmed(
        self, parts: Sequence[str], command: str, outputs: Sequence[str]
    ) -> tuple[Path, Ended]:
        """What a command gives without harm: its files, and how it ended."""
        key = hashlib.sha256(f"{parts}|{command}|{outputs}".encode()).hexdigest()[:12]
        if key not in self._results:
            self.lay(parts)
            ended = self.run(command)
            if ended.code:
                raise NotTriedError(f"without harm it ends with {ended.code}: {ended.text[-400:]}")
            folder = self._stored / key
            folder.mkdir(parents=True, exist_ok=True)
            for path in self.files(outputs):
                target = folder / path.relative_to(self.world)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
            self._results[key] = folder, ended
        return self._results[key]

    def files(self, patterns: Sequence[str]) -> list[Path]:
        """Files of the world whose path fits one of the patterns."""
        found = (p for p in self.world.rglob("*") if p.is_file() and not p.is_symlink())
        return [
            p
            for p in found
            if any(fnmatch(p.relative_to(self.world).as_posix(), one) for one in patterns)
            and "previous" not in p.parts
        ]

    def apart(self, expected: Path, outputs: Sequence[str]) -> list[str]:
        """How the outputs differ from the expected ones."""
        if not outputs:
            return []
        try:
            found = differences(expected, self.world, outputs)
        except Exception as error:  # a file that the comparison cannot read
            found = [f"cannot be compared: {type(error).__name__}: {error}"]
        hidden = (
            "/previous/",
            "predicted.sha256: ",
        )  # what was before; digests of what is compared
        found = [line for line in found if not any(one in line for one in hidden)]
        return [line for line in found if not line.endswith(("same cells", "no file at all"))]


class Running:
    """A command in a fork of this process, which has imported libraries only."""

    def __init__(self, command: str, folder: Path, before: Callable[[], None]) -> None:
        reading, writing = os.pipe()
        self.began = time.monotonic()
        self.process = os.fork()
        if self.process == 0:
            code = 1
            try:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                for number in (1, 2):
                    os.dup2(writing, number)
                os.close(reading)
                sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
                sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                before()
                code = goldens_server.run(["metaseg_monai", *shlex.split(command)], str(folder))
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        os.close(writing)
        self._reading = reading
        self._said = b""
        self._ended = 0.0

    def said(self, seconds: float) -> bool:
        """Read what it says for a while; False when it has closed its mouth."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._reading], [], [], left)[0]:
                part = os.read(self._reading, 1 << 16)
                if not part:
                    self._ended = self._ended or time.monotonic()
                    return False
                self._said += part
        return True

    def kill(self, group: bool) -> None:
        """End it as the system does when memory is short."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process, signal.SIGKILL)

    def wait(self, limit_s: float = LIMIT_S) -> Ended:
        """Wait for its end; 124 where it does not come."""
        open_still = self.said(limit_s)
        hangs = open_still and os.waitpid(self.process, os.WNOHANG)[0] == 0
        if open_still:
            self.kill(group=True)
        code = 124
        with contextlib.suppress(ChildProcessError):
            status = os.waitpid(self.process, 0)[1]
            code = 124 if hangs else os.waitstatus_to_exitcode(status)
        os.close(self._reading)
        text = re.sub(r"\r(?=[^\n])", "\n", self._said.decode("utf-8", "replace"))
        return Ended(code, text, (self._ended or time.monotonic()) - self.began)


# Inputs.


def try_input(campaign: Campaign, number: int, only: str) -> Trial:
    """Damage one file, run one command that reads it."""
    random = np.random.default_rng([campaign.seed, number])
    targets = [one for one in TARGETS if only in one.kind]
    tickets = np.array([one.often for one in targets], float)
    target = targets[random.choice(len(targets), p=tickets / tickets.sum())]
    command = target.commands[int(random.integers(len(target.commands)))]
    expected, ended = campaign.unharmed(target.parts, command, target.outputs)
    campaign.lay(target.parts)
    paths = [p for p in sorted(campaign.world.glob(target.files)) if p.is_file()]
    path = paths[int(random.integers(len(paths)))]
    name = path.relative_to(campaign.world).as_posix()
    damages = damages_of(path)
    before = campaign.whole / name
    while True:  # until something has changed
        damage = damages[int(random.integers(len(damages)))]
        try:
            told = damage(random, path, campaign.world)
        except Exception as error:  # of a library that cannot write this
            told = f"not possible: {error}"
        if not told.startswith("not possible") and not same(before, path):
            break
        if path.is_symlink() or path.is_file():
            path.unlink()
        shutil.copy2(before, path)
    inputs, damaged = _digests(campaign, target.outputs), _digest(path)
    came = campaign.run(
        command, _without_rights if damage.__name__ == "unreadable" else lambda: None
    )
    untouched = "mask" not in target.kind and _digest(path) == damaged  # an input, no output
    hidden = path.with_name(".damaged")
    if untouched and path.is_file():
        path.rename(hidden)
    apart = campaign.apart(expected, target.outputs) if came.code == 0 else []
    if untouched:
        apart = [one for one in apart if not one.startswith(f"{name}:")]
    if hidden.is_file():
        hidden.rename(path)
    if command.startswith("predict") and "apart" not in told:  # masks lie where the scan says
        apart = [one for one in apart if not one.endswith("other bytes, same pixels")]
    verdict = judge(target, command, damage.__name__, told, before, path, came, ended, apart)
    changed = [one for one, digest in inputs.items() if _digest(campaign.world / one) != digest]
    if changed and came.code in CODES:
        verdict = "lost"
        apart.append(f"inputs changed: {', '.join(changed[:3])}")
    left = [p.name for p in campaign.world.rglob(".partial-*")]
    if left and came.code in CODES:
        verdict = "lost"
        apart.append(f"left behind: {', '.join(left[:3])}")
    text = f"{_last(came)} | {'; '.join(apart[:2])}" if apart else _last(came)
    damage_text = f"{damage.__name__}: {told}"
    return Trial(
        number, "inputs", target.kind, name, damage_text, command, came.code, verdict,
        round(came.seconds, 2), text,
    )  # fmt: skip


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _digests(campaign: Campaign, outputs: Sequence[str]) -> dict[str, str]:
    """What the command may not touch: data, apart from its outputs and the folders of models."""
    own = {one.partition("/")[0] for one in outputs} | {"single", "single_ct", "out"}
    paths = (p.relative_to(campaign.world).as_posix() for p in campaign.files(("*",)))
    kept = [one for one in paths if one.partition("/")[0] not in own and "__pycache__" not in one]
    return {one: _digest(campaign.world / one) for one in kept}


def _without_rights() -> None:
    """Give up root's right to read what nobody may (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    library = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    data = (ctypes.c_uint32 * 6)()
    if library.capget(header, data) == 0:
        data[0] &= ~0b110
        data[1] &= ~0b110
        library.capset(header, data)


def _last(came: Ended) -> str:
    """The refusal, or the last lines."""
    errors = [line for line in came.text.splitlines() if line.startswith("error: ")]
    if errors and "Traceback" not in came.text:
        return came.text[came.text.index("error: ") :].strip()[:600]
    kept = [line for line in came.text.splitlines() if not NOISE.match(line)]
    return "\n".join(kept[-4:]).strip()[-600:]


# Kills, pairs, disks.


def _job(campaign: Campaign, number: int, only: str) -> tuple[Any, Job, Path, Ended]:
    random = np.random.default_rng([campaign.seed, number])
    jobs = [one for one in JOBS if only in one.kind]
    tickets = np.array([one.often for one in jobs], float)
    job = jobs[random.choice(len(jobs), p=tickets / tickets.sum())]
    expected, ended = campaign.unharmed(job.parts, job.command, job.outputs)
    campaign.lay(job.parts)
    return random, job, expected, ended


def try_kill(campaign: Campaign, number: int, only: str) -> Trial:
    """Kill a command at a random time, or before its n-th change of a file; let it go on."""
    random, job, expected, ended = _job(campaign, number, only)
    old = _contents(campaign, job)
    group = bool(random.integers(2))
    if random.random() < 0.5:
        moment = float(random.uniform(0, ended.seconds * 1.05))
        where = f"after {moment:.2f} s"
        running = campaign.start(job.command)
        running.said(moment)
        running.kill(group)
        came = running.wait()
    else:
        changes = _changes(campaign, job)
        campaign.lay(job.parts)
        place = int(random.integers(1, changes + 1))
        where = f"at change {place} of {changes}"
        came = campaign.run(job.command, lambda: _die_at(campaign.world, place))
    where += " with its children" if group else ""
    return _goes_on(campaign, number, "kills", job, where, came, expected, old)


COUNTED: dict[str, int] = {}


def _changes(campaign: Campaign, job: Job) -> int:
    """How many changes of files a command makes, in its own process."""
    if job.kind not in COUNTED:
        campaign.lay(job.parts)
        with tempfile.NamedTemporaryFile("r", dir="/tmp") as file:
            name = file.name
            campaign.run(job.command, lambda: _die_at(campaign.world, 0, name))
            COUNTED[job.kind] = max(1, len(file.read()))
    return COUNTED[job.kind]


def _die_at(world: Path, place: int, counter: str = "") -> None:
    """In a child: die before the n-th time that a file below the world is to change."""
    seen = 0
    tally = os.open(counter, os.O_WRONLY | os.O_APPEND) if counter else -1
    changes = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree")

    def hook(event: str, arguments: Any) -> None:
        nonlocal seen
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event in changes:
            path = arguments[0]
        else:
            return
        try:
            inside = str(Path(os.fsdecode(path)).absolute()).startswith(str(world))
        except (TypeError, ValueError):
            return
        if not inside:
            return
        seen += 1
        if counter:
            os.write(tally, b".")
        elif seen == place:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _contents(campaign: Campaign, job: Job) -> dict[str, str]:
    """Digests of what may not get lost."""
    return {one: _digest(campaign.world / one) for one in _names_in(campaign.world, job.kept)}


def _names_in(world: Path, folder: str) -> list[str]:
    if not folder:
        return []
    found = (p.relative_to(world).as_posix() for p in (world / folder).rglob("*") if p.is_file())
    return [one for one in found if not Path(one).name.startswith(".")]


def _goes_on(
    campaign: Campaign,
    number: int,
    portion: str,
    job: Job,
    where: str,
    came: Ended,
    expected: Path,
    old: Mapping[str, str],
) -> Trial:
    """Look for what is lost, run the command again and compare with a run that was left alone."""
    kept = {_digest(p) for p in (campaign.world / (job.kept or "out")).rglob("*") if p.is_file()}
    lost = [one for one, digest in old.items() if digest not in kept]
    verdict = broken(came) if came.code != -signal.SIGKILL else ""
    again = campaign.run(job.again or job.command)
    for _ in range(20):  # children of a killed study may go on for a while, and own its folder
        if again.code != 2 or "process" not in again.text:
            break
        time.sleep(2)
        again = campaign.run(job.again or job.command)
    refused_rightly = again.code == 2 and job.again and "resume" in again.text
    if refused_rightly:  # nothing to go on with: it had not begun
        again = campaign.run(job.command)
    apart = campaign.apart(expected, job.outputs) if again.code == 0 else []
    text = _last(again)
    if not verdict:
        verdict = broken(again) or ("not mended" if again.code else "")
    if not verdict and (lost or apart):
        verdict = "lost"
        text = f"lost: {', '.join(lost[:3])}; " * bool(lost) + "; ".join(apart[:3])
    if not verdict:
        verdict = "went on"
    if verdict in FAULTS and came.code != -signal.SIGKILL:
        text = f"{_last(came)} | then: {text}"
    return Trial(
        number, portion, job.kind, "", where, job.command, came.code, verdict,
        round(came.seconds, 2), text,
    )  # fmt: skip


def try_pair(campaign: Campaign, number: int, only: str) -> Trial:
    """Run a command twice at once in one folder."""
    random, job, expected, ended = _job(campaign, number, only)
    later = float(random.uniform(0, 0.8 * ended.seconds)) if random.random() < 0.7 else 0.0
    old = _contents(campaign, job)
    first = campaign.start(job.command)
    first.said(later)
    second = campaign.start(job.command)
    while first.said(0.05) and second.said(0.05):
        pass
    both = [first.wait(), second.wait()]
    codes = sorted(one.code for one in both)
    verdict, text = "", ""
    for one in both:
        verdict = verdict or broken(one)
        text = text or (_last(one) if one.code else "")
    if not verdict and codes not in ([0, 0], [0, 2]):
        verdict = "not mended"
    loser = next((one for one in both if one.code), None)
    if not verdict and loser is not None:
        if "process" not in loser.text:
            verdict = "unnamed"
        elif loser.seconds > AT_ONCE_S and loser.seconds > 0.5 * ended.seconds:
            verdict = "late"
    apart = campaign.apart(expected, job.outputs) if 0 in codes else []
    kept = {_digest(p) for p in (campaign.world / (job.kept or "out")).rglob("*") if p.is_file()}
    lost = [one for one, digest in old.items() if digest not in kept]
    if not verdict and (apart or lost):
        verdict, text = "lost", f"lost {lost[:3]} " * bool(lost) + "; ".join(apart[:3])
    good = "one won, one was refused" if loser else "both right"
    return Trial(
        number, "pairs", job.kind, "", f"second {later:.2f} s later", job.command, codes[-1],
        verdict or good, round(max(one.seconds for one in both), 2), text,
    )  # fmt: skip


def try_disk(campaign: Campaign, number: int, only: str) -> Trial:
    """Let no file grow beyond a random size; then run the command again without that."""
    random, job, expected, _ = _job(campaign, number, only)
    old = _contents(campaign, job)
    most = max((p.stat().st_size for p in expected.rglob("*") if p.is_file()), default=1000)
    size = int(np.exp(random.uniform(0, np.log(max(2, most)))))
    limits = (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    came = campaign.run(job.command, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    trial = _goes_on(campaign, number, "disks", job, f"{size} bytes", came, expected, old)
    return _one_line(trial, came)


def try_tmpfs(campaign: Campaign, number: int, only: str) -> Trial:
    """Run a command on a disk of few bytes; give it room, and run it again."""
    random, job, expected, _ = _job(campaign, number, only)
    used = sum(p.stat().st_size + 4096 for p in campaign.files(("*",)))
    new = sum(p.stat().st_size + 4096 for p in expected.rglob("*") if p.is_file())
    size = used + int(random.uniform(0.02, 1.0) * new) + 16384
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(campaign.world)]
    campaign.lay(())
    if subprocess.run(mount, capture_output=True).returncode:
        return Trial(number, "tmpfs", job.kind, "", "may not mount", "", 0, "not tried", 0, "")
    try:
        campaign.lay(job.parts)
        old = _contents(campaign, job)
        came = campaign.run(job.command)
        more = ["mount", "-o", f"remount,size={size + 50_000_000}", str(campaign.world)]
        subprocess.run(more, check=True)
        where = f"{size - used} bytes free"
        trial = _goes_on(campaign, number, "tmpfs", job, where, came, expected, old)
    finally:
        os.chdir(campaign.world.parent)
        subprocess.run(["umount", "-l", str(campaign.world)], check=True)
    return _one_line(trial, came)


def _one_line(trial: Trial, came: Ended) -> Trial:
    """A full disk is one line of text, and exit status 2."""
    if trial.verdict in FAULTS or came.code == 0:
        return trial
    told = [line for line in came.text.splitlines() if line.startswith("error: ")]
    if came.code != 2 or len(told) != 1:
        return Trial(**{**asdict(trial), "verdict": "unnamed", "text": _last(came)})
    return trial


TRIED = {
    "inputs": try_input,
    "kills": try_kill,
    "pairs": try_pair,
    "disks": try_disk,
    "tmpfs": try_tmpfs,
}


def fault_campaign(
    portion: str = "all",
    count: int | None = None,
    seed: int = 0,
    output: str = "runs/faults",
    first: int = 0,
    only: str = "",
) -> None:
    """Try what goes wrong in laboratories; exit status 1 if anything went wrong in silence.

    Example:
        python scripts/fault_campaign.py --portion inputs --count 100 --seed 0

    Writes trials.csv, a row a trial, and trials.json and trials.md, the table made of it. A trial
    is repeated by its portion, number and the seed: --first 17 --count 1.

    Args:
        portion: inputs | kills | pairs | disks | tmpfs | all; several with commas.
        count: of trials of each portion; by default 1,000 inputs, 100 kills, 50 pairs, 20 disks.
        seed: of all chance.
        output: folder for results and for the world, which is made once; remove it to make it anew.
        first: number of the first trial.
        only: part of the name of the kinds that are tried.
    """
    names = portion if isinstance(portion, tuple | list) else str(portion).split(",")
    chosen = list(PORTIONS) if "all" in names else list(names)
    if unknown := sorted({*chosen} - {*PORTIONS}):
        sys.exit(f"fault_campaign: no portion {', '.join(unknown)}; {', '.join(PORTIONS)} or all")
    place = Path(output).resolve()
    place.mkdir(parents=True, exist_ok=True)
    warm()
    campaign = Campaign(place, seed)
    trials: list[Trial] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _try_all(campaign, chosen, count, first, only, trials)
    except KeyboardInterrupt:
        print("stopped; what was tried is written")
    write(trials, place, seed)
    sys.exit(1 if any(one.verdict in FAULTS for one in trials) else 0)


def _try_all(
    campaign: Campaign,
    portions: Sequence[str],
    count: int | None,
    first: int,
    only: str,
    trials: list[Trial],
) -> None:
    for name in portions:
        numbers = range(first, first + (PORTIONS[name] if count is None else count))
        with tqdm(numbers, desc=name, unit="trial") as bar:
            for number in bar:
                try:
                    trial = TRIED[name](campaign, number, only)
                except NotTriedError as error:
                    trial = Trial(number, name, "", "", "", "", 0, "not tried", 0.0, str(error))
                trials.append(trial)
                if trial.verdict in FAULTS or trial.verdict in ("late", "not tried"):
                    bar.write(_shown(trial))


def _shown(trial: Trial) -> str:
    head = f"{trial.verdict.upper()} {trial.portion} {trial.number} {trial.kind}: {trial.input}"
    return f"{head}\n  {trial.damage}\n  {trial.command}\n  {trial.code}: {trial.text[-400:]}"


def warm() -> None:
    """Import what commands import, so that a fork of this process starts within milliseconds."""
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", CUDA_VISIBLE_DEVICES="", TZ="UTC")
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path.insert(1, str(ROOT))
    for library in goldens_server.LIBRARIES:
        importlib.import_module(library)
    import metaseg_monai

    if Path(metaseg_monai.__file__).resolve().parents[1] != ROOT:
        sys.exit(f"fault_campaign: metaseg_monai comes from {metaseg_monai.__file__}, not {ROOT}")
    for module in pkgutil.walk_packages(metaseg_monai.__path__, "metaseg_monai."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def write(trials: Sequence[Trial], place: Path, seed: int) -> None:
    """Write the rows, their counts, and the table for docs/results.md."""
    table = pd.DataFrame([asdict(one) for one in trials])
    table.to_csv(place / "trials.csv", index=False)
    counts = table.groupby(["portion", "kind", "verdict"], sort=False).size().reset_index(name="n")
    told = {"seed": seed, "faults": int(table["verdict"].isin(FAULTS).sum())}
    rows = json.loads(counts.to_json(orient="records"))
    (place / "trials.json").write_text(json.dumps({**told, "counts": rows}, indent=2) + "\n")
    verdicts = list(dict.fromkeys(table["verdict"]))
    lines = [f"| portion | kind | trials | {' | '.join(verdicts)} |"]
    lines.append("| --- | --- | ---: |" + " ---: |" * len(verdicts))
    for portion in dict.fromkeys(table["portion"]):
        part = table[table["portion"] == portion]
        for kind in ["all", *sorted(set(part["kind"]))]:
            rows_of = part if kind == "all" else part[part["kind"] == kind]
            numbers = [int((rows_of["verdict"] == one).sum()) for one in verdicts]
            cells = [portion, kind, *map(str, [len(rows_of), *numbers])]
            lines.append(f"| {' | '.join(cells)} |")
    (place / "trials.md").write_text("\n".join(lines) + "\n")
    print(table.groupby(["portion", "verdict"]).size().to_string())
    print(f"rows: {place / 'trials.csv'}")


if __name__ == "__main__":
    run_script(fault_campaign)
