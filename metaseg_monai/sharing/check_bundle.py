"""What a bundle from elsewhere would run, told before it is run; and the rules of the model zoo."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from metaseg_monai.bundle.listed import PACKAGES
from metaseg_monai.bundle.overrides import read_config
from metaseg_monai.bundle.trust import PYTHON, SHOWN, SUFFIXES, WHY, Finding, read_bundle
from metaseg_monai.errors import ConfigError, one_line
from metaseg_monai.files import absolute, file_sha256, writable, write_json, written_at
from metaseg_monai.sharing import alone
from metaseg_monai.sharing.vendored import code_name, is_ours, renamed
from metaseg_monai.training.weights import NAME

METADATA = "configs/metadata.json"
SUMS = "SHA256SUMS"
LARGEST = 25 * 10**6  # bytes of a file that the zoo's repository takes
LARGE_FILES = tuple(f"large_files.{suffix}" for suffix in ("yml", "yaml", "json"))
PERSONAL = re.compile(r"(?:^|[\s\"'=(:,])((?:/(?:home|root|Users|mnt)/|[A-Z]:\\Users\\)[\w.-]+)")
TEXT = (".json", ".yaml", ".yml", ".py", ".md", ".txt", ".conf", ".csv")
EXACT = re.compile(r"\d[\w.!+]*")
REQUIREMENT = re.compile(  # a name, extras, and versions alone: no address, option or marker
    r"([A-Za-z0-9][\w.-]*)(?:\[[\w,-]*\])?(?:[<>=!~]=?=?[\w.*+]+(?:,[<>=!~]=?=?[\w.*+]+)*)?"
)
LARGE_ENTRY = re.compile(
    r"\s*(- *)?(path|url|hash_val|hash_type)\s*:\s*"
    r"(\"[^\"\\]*\"|'[^']*'|(?:[\w./][\w./:?=%+&~,@#-]*)?)\s*(?:\s#.*)?"
)
VERSION = re.compile(r"[\w.!+*<>=~-]*(, ?[\w.!+*<>=~-]+)*")
REQUIREMENTS = re.compile(r"requirements.*\.txt$")
FETCHED = re.compile(r"models/[\w./ -]+\.(pt|pth|ts|onnx|ckpt|bin|xml|safetensors)")
PROGRAMS = (".ts", ".torchscript", ".pt2", ".onnx", ".xml")  # networks as files that compute


class Rule(NamedTuple):
    """One rule of the model zoo, and whether a bundle keeps it.

    Attributes:
        rule: what is asked.
        verdict: pass | fail | not checked.
        why: it does not pass, or is not checked.
    """

    rule: str
    verdict: str
    why: str = ""

    def __str__(self) -> str:
        return one_line(f"{self.verdict}: {self.rule}{f' ({self.why})' if self.why else ''}")


@dataclass(frozen=True)
class Reading:
    """A bundle as it was read.

    Attributes:
        folder: of the bundle.
        findings: what in it is not on the list of harmless parts, or cannot be read.
        file: trust.json, where it was asked for.
        rules: of the model zoo, where they were asked for.
    """

    folder: Path
    findings: list[Finding]
    file: Path | None = None
    rules: list[Rule] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Whether anything was found: "clean" or "findings"."""
        return "findings" if self.findings else "clean"

    @property
    def problems(self) -> list[Finding | Rule]:
        """The findings, and the rules that are not kept."""
        return [*self.findings, *(rule for rule in self.rules if rule.verdict == "fail")]

    def __str__(self) -> str:
        told = [f"{self.folder}: {self.verdict}", *map(str, self.findings)]
        if self.findings:
            told.append("Read these before you run the bundle with --trust True.")
        told += map(str, self.rules)
        return "\n".join(told if self.file is None else [*told, f"report: {self.file}"])


def check_bundle(
    bundle: str | Path,
    trust_report: bool = False,
    output: str | Path | None = None,
    *,
    zoo: bool = False,
    schema: str | Path | None = None,
    trust: bool = False,
) -> Reading:
    """Read what a bundle would run, without running any of it; with --zoo, the model zoo's rules.

    Example:
        python -m metaseg_monai check-bundle downloads/spleen_ct_segmentation --trust_report True
        python -m metaseg_monai check-bundle downloads/spleen_ct_segmentation --zoo True

    Args:
        bundle: its folder.
        trust_report: write trust.json: a verdict (clean or findings), and of each finding file,
            id, kind, text and why.
        output: folder for it; by default that of the bundle.
        zoo: also check the rules of MONAI's model zoo, a line each, by the calls of its CI
            (verify_metadata, check_properties, verify_net_in_out, ckpt_export), in a process of
            their own. Most of these run the bundle: only if it is clean, or with --trust True.
        schema: file of the schema that metadata.json names; by default eval/schema.json of the
            bundle, where the CI puts it. Nothing is downloaded.
        trust: let the rules run a bundle that has findings.

    Returns:
        The findings, and the rules.

    Raises:
        ConfigError: there is no bundle, or no such schema.
        DataError: the report cannot be written.
    """
    folder = Path(bundle)
    if folder.is_file() and zipfile.is_zipfile(folder):
        raise ConfigError(
            f"{folder} is an archive; unpack it, which reads it, too: python -m metaseg_monai "
            f"unpack {folder} --output FOLDER"
        )
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}; give the folder of a bundle.")
    findings = read_foreign(folder.resolve())
    rules: list[Rule] = []
    if zoo:
        rules = zoo_rules(folder.resolve(), schema, run=trust or not findings)
    if not trust_report and output is None:
        return Reading(folder, findings, rules=rules)
    file = (written_at(folder) if output is None else Path(output)) / "trust.json"
    verdict = "findings" if findings else "clean"
    content = {"verdict": verdict, "findings": [one._asdict() for one in findings]}
    with writable(file):
        write_json(file, content)
    return Reading(folder, findings, file, rules)


def read_foreign(folder: Path) -> list[Finding]:
    """Read what a bundle would run; the code that a package brings along is known if it is ours.

    It is where it is byte by byte what this release puts into a package. Else it is one finding.
    So is each network that lies there as a program, such as model.ts, and what would be installed
    or fetched by its lists and is neither a known package nor a file of weights with its digest.

    Args:
        folder: of the bundle.
    """
    every = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PROGRAMS)
    names = [path.relative_to(folder).as_posix() for path in every]
    programs = [Finding(name, "", "program", name, WHY["program"]) for name in names]
    return [*_read_code(folder), *programs, *_read_packages(folder), *_read_fetched(folder)]


def _read_packages(folder: Path) -> list[Finding]:
    """What would be installed by lines of requirements.txt and the versions in metadata.json."""
    found: list[tuple[str, str, str]] = []
    lists = [path for path in sorted(folder.rglob("*")) if REQUIREMENTS.search(path.name.lower())]
    for path in filter(Path.is_file, lists):
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"coding[:=]", line):  # by which pip would read other lines
                found.append((path.relative_to(folder).as_posix(), f"line {number}", line))
            asked = re.sub(r"(^|\s)#.*", "", line).strip()
            spec = REQUIREMENT.fullmatch(re.sub(r"\s", "", asked))
            if asked and not (spec and _is_known(spec[1])):
                found.append((path.relative_to(folder).as_posix(), f"line {number}", asked))
    about = _metadata(folder)
    own = {name: about.get(f"{name}_version", "") for name in ("monai", "pytorch", "numpy")}
    base = {"torch" if name == "pytorch" else name: one for name, one in own.items()}
    for key in ("", "required_packages_version", "optional_packages_version"):
        pins = about.get(key, {}) if key else base  # all of which the zoo's CI installs
        for name, version in pins.items() if isinstance(pins, dict) else [("", pins)]:
            if not (_is_known(str(name)) and VERSION.fullmatch(str(version))):
                found.append((METADATA, f"{key}#{name}".strip("#"), f"{name}=={version}"))
    return [
        Finding(file, place, "package", text[:SHOWN], WHY["package"]) for file, place, text in found
    ]


def _is_known(name: str) -> bool:
    return re.sub(r"[-_.]+", "-", name).lower() in PACKAGES.split()


def _read_fetched(folder: Path) -> list[Finding]:
    """What MONAI would fetch by large_files: weights into models, each with its digest, are known.

    YAML is read line by line, as it may hold what its reader runs.
    """
    found = []
    for name in LARGE_FILES:
        if not (folder / name).is_file():
            continue
        text = (folder / name).read_text(encoding="utf-8-sig", errors="replace")
        entries = _large_entries(text)
        if isinstance(entries, str):
            found.append(Finding(name, "", "unreadable", entries[:SHOWN], WHY["unreadable"]))
            continue
        for number, entry in enumerate(entries):
            path, url = entry.get("path", ""), entry.get("url", "")
            inside = re.fullmatch(r"(?!.*\.\.)\w[\w./ -]*", path)
            hashed = re.fullmatch("[0-9a-fA-F]{32,128}", entry.get("hash_val", ""))
            if not inside or (url and not (FETCHED.fullmatch(path) and hashed)):
                text = f"{path} from {url}" if url else path
                where = f"large_files#{number}"
                found.append(Finding(name, where, "download", text[:SHOWN], WHY["download"]))
            elif url and path.lower().endswith(PROGRAMS):
                found.append(
                    Finding(name, f"large_files#{number}", "program", path, WHY["program"])
                )
    return found


def _large_entries(text: str) -> list[dict[str, str]] | str:
    """The entries of a list of large files; the line that is none, where it holds anything else."""
    if text.lstrip()[:1] == "{":
        try:
            files = json.loads(text)["large_files"]
            return [{str(name): str(value) for name, value in one.items()} for one in files]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return text
    entries: list[dict[str, str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"\s*(#.*|---\s*|large_files\s*:\s*(\[\s*\])?\s*(#.*)?)?", line):
            continue
        if re.fullmatch(r"\s*-\s*", line):
            entries.append({})
            continue
        told = LARGE_ENTRY.fullmatch(line)
        if told is None or (not told[1] and not entries):
            return line
        if told[1]:
            entries.append({})
        entries[-1][told[2]] = told[3].strip().strip("\"'")
    return entries


def _read_code(folder: Path) -> list[Finding]:
    """What configurations and Python of a bundle would run that is not on the list."""
    name = code_name(folder)
    if name is None:
        return read_bundle(folder)
    files = sorted((folder / "configs").glob("*.json"))
    try:
        configs = {file.name: read_config(file) for file in files if file.name != "schema.json"}
    except ConfigError:  # which read_bundle tells
        configs = {}
    known = is_ours(folder, configs)
    with tempfile.TemporaryDirectory() as place:  # the bundle with its code under our own name
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            kept = path.suffix in (*PYTHON, *SUFFIXES, ".conf") and path.is_file()
            if kept and inside.parts[0] != name:
                (Path(place) / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, Path(place) / inside)
        if known:
            for file, config in configs.items():
                write_json(Path(place) / "configs" / file, renamed(config, name, NAME))
        found = read_bundle(Path(place))
    if known:
        return found
    python = [path for path in (folder / name).rglob("*") if path.is_file()]
    text = f"{len(python)} files, not those that this release puts into a package"
    return [Finding(f"{name}/", "", "own code", text, WHY["own code"]), *found]


# The rules of the zoo: what its CI and its page for contributors ask.


def zoo_rules(
    folder: Path, schema: str | Path | None = None, run: bool = True, without: str | None = None
) -> list[Rule]:
    """Whether a bundle keeps each rule of the model zoo.

    Args:
        folder: of the bundle.
        schema: file of the schema of metadata.json; None for eval/schema.json of the bundle.
        run: the rules that run the bundle, too.
        without: a package that those must do without.

    Raises:
        ConfigError: there is no such schema.
    """
    if schema is not None and not Path(schema).is_file():
        raise ConfigError(f"--schema {schema}: no such file; give the schema of metadata.json")
    rules = _read_rules(folder)
    options = [] if schema is None else ["--schema", str(absolute(schema))]
    options += [] if without is None else ["--without", without]
    if run:
        return [*rules, *run_alone(folder, options)]
    why = "it runs the bundle, which has findings: --trust True"
    skipped = [rule for rule, _ in alone.verify(folder, None)]
    return [*rules, *(Rule(rule, "not checked", why) for rule in skipped)]


def run_alone(
    folder: Path, options: Sequence[str], python: str | Path = sys.executable
) -> list[Rule]:
    """Make the calls of `metaseg_monai.sharing.alone` on a bundle, in a process of their own.

    Args:
        folder: of the bundle.
        options: of that script.
        python: interpreter of the process.
    """
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "rules.jsonl"
        command = [str(python), str(Path(alone.__file__)), str(folder), "--output", str(output)]
        done = subprocess.run(
            [*command, *options], cwd=place, env=environment(), capture_output=True, text=True
        )
        lines = output.read_text("utf-8").splitlines() if output.is_file() else []
        rules = [Rule(**json.loads(line)) for line in lines]
    if done.returncode or not rules:
        told = (done.stderr.strip().splitlines() or ["no word"])[-1][:200]
        rules.append(Rule("the calls of the zoo's CI end", "fail", f"the process died: {told}"))
    return rules


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that sees bundles as others do; no bytecode is left in them."""
    known = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "Agg"}
    return {**known, **more}


def _read_rules(folder: Path) -> list[Rule]:
    metadata = _metadata(folder)
    rules = [
        _file_rule(folder, "LICENSE"),
        _file_rule(folder, METADATA),
        _file_rule(folder, "models/model.pt"),
        _any_file_rule(folder, "configs/inference", ("json", "yaml", "yml")),
        _file_rule(folder, "docs/README.md"),
        _file_rule(folder, "docs/data_license.txt"),
    ]
    version, changelog = metadata.get("version"), metadata.get("changelog")
    listed = isinstance(changelog, dict) and version in changelog
    rules.append(_rule("version is in changelog", listed, f"version is {version!r}"))
    pins = metadata.get("required_packages_version", {})
    pins = {**pins} if isinstance(pins, dict) else {"required_packages_version": pins}
    pins |= {name: metadata.get(f"{name}_version") for name in ("monai", "pytorch", "numpy")}
    loose = [f"{name} {one!r}" for name, one in pins.items() if not EXACT.fullmatch(str(one))]
    rules.append(_rule("versions of packages are exact", not loose, ", ".join(loose)))
    every = (path for path in sorted(folder.rglob("*")) if path.is_file())
    files = [path for path in every if not path.is_symlink()]  # what a link leads to is no part
    rules += [_large_files(folder, files), _no_personal_path(folder, files)]
    if (folder / SUMS).is_file():
        wrong = differing(folder)
        rules.append(_rule(f"files are those of {SUMS}", not wrong, ", ".join(wrong[:5])))
    return rules


def differing(folder: Path) -> list[str]:
    """What in a bundle is not as its list of checksums says: altered, missing, or not listed."""
    listed = {}
    text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.partition("  ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not name:
            return [f"{SUMS}: line {number} is no checksum with a name"]
        listed[name] = digest
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }
    there.pop(SUMS, None)
    return sorted(
        [
            *(f"{name}: altered" for name in there.keys() & listed.keys()
              if there[name].is_symlink() or file_sha256(there[name]) != listed[name]),
            *(f"{name}: missing" for name in listed.keys() - there.keys()),
            *(f"{name}: not listed" for name in there.keys() - listed.keys()),
        ]
    )  # fmt: skip


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        return read_config(folder / METADATA)
    except ConfigError:
        return {}


def _rule(rule: str, kept: bool, why: str) -> Rule:
    return Rule(rule, "pass") if kept else Rule(rule, "fail", why)


def _file_rule(folder: Path, name: str) -> Rule:
    return _rule(f"{name} is there", (folder / name).is_file(), "missing")


def _any_file_rule(folder: Path, name: str, suffixes: Sequence[str]) -> Rule:
    there = any((folder / f"{name}.{suffix}").is_file() for suffix in suffixes)
    return _rule(f"{name} is there", there, f"no {name}.json, .yaml or .yml")


def _large_files(folder: Path, files: Sequence[Path]) -> Rule:
    rule = f"files above {LARGEST // 10**6} MB are in large_files"
    large = [path for path in files if path.stat().st_size > LARGEST]
    lists = [folder / name for name in LARGE_FILES if (folder / name).is_file()]
    told = lists[0].read_text(encoding="utf-8") if lists else ""
    names = [path.relative_to(folder).as_posix() for path in large]
    missing = [name for name in names if name not in told]
    return _rule(rule, not missing, ", ".join(missing))


def _no_personal_path(folder: Path, files: Sequence[Path]) -> Rule:
    found = []
    for path in files:
        if path.suffix in TEXT and path.stat().st_size <= LARGEST:
            text = path.read_text(encoding="utf-8", errors="replace")
            if match := PERSONAL.search(text):
                found.append(f"{path.relative_to(folder).as_posix()}: {match[1]}")
    return _rule("no path of somebody's machine", not found, ", ".join(found[:5]))
