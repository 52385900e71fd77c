"""A package unpacked only if all of it is as it was packed, and nothing in it runs unseen."""

import lzma
import pickletools
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaseg_monai.bundle.trust import WHY, Finding, refuse_untrusted
from metaseg_monai.errors import CheckpointError, DataError, typed
from metaseg_monai.files import absolute, file_sha256, new_folder, readable, writable
from metaseg_monai.naming import composed
from metaseg_monai.sharing.check_bundle import METADATA, SUMS, differing, read_foreign
from metaseg_monai.sharing.vendored import code_name
from metaseg_monai.training.weights import is_copy, read_checkpoint, read_weights

WEIGHTS, FACTS = "models/model.pt", "models/model.json"
EXPORTS = ("models/model.ts", "models/model.onnx")
PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
STATES = (".pt", ".pth", ".ckpt", ".bin", ".tar")  # of PyTorch, read as plain tensors only
RUNS = ("REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "STOP")  # of a pickle, what it has named
OURS = re.compile(  # all that `package` writes, beside the code
    r"LICENSE|SHA256SUMS|requirements\.txt|large_files\.yml|configs/\w+\.json"
    r"|configs/logging\.conf|docs/(README\.md|data_license\.txt)"
    r"|models/(model\.(pt|json|ts|onnx)|trained_on\.csv)|samples/table\.csv"
    r"|samples/images/sample_\d+(_\d+)?\.(tif|png|nii|nii\.gz)"
)
MOST_FILES, MOST_BYTES = 20_000, 20 << 30  # in an archive
NAMES_BUNDLE = re.compile(r"\w([\w .+-]*\w)?")  # no hidden folder, option, or code of MONAI
DAMAGED = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError),
    *(zlib.error, lzma.LZMAError),
)


@dataclass(frozen=True)
class Unpacked:
    """A package that was unpacked.

    Attributes:
        folder: of the bundle.
        trusted: what it would run that is not on the list, where that was confirmed.
        programs: its exports, which name the weights and were not run.
    """

    folder: Path
    trusted: str | None = None
    programs: Sequence[Finding] = ()

    def __str__(self) -> str:
        told = [] if self.trusted is None else [self.trusted]
        told += [f"{one.file} {one.why}" for one in self.programs]
        told.append(f"bundle: {self.folder}")
        if (self.folder / "configs" / "inference.json").is_file():
            inference = "python -m monai.bundle run --config_file configs/inference.json"
            told.append(f"try it there: {inference}")
        return "\n".join(told)


@typed
def unpack(
    archive: str | Path, output: str | Path, sha256: str | None = None, trust: bool = False
) -> Unpacked:
    """Unpack a package, if all of it is as its list says, and nothing in it runs unseen.

    Refused are files that were altered, are missing or not listed, paths that lead outside, links,
    and pickles that hold code. Configurations or code that are not on the list of harmless parts,
    and files that no package has, are shown and refused, unless you say --trust True. Of a refused
    package nothing is left. Exports (model.ts, model.onnx) are programs, which are told of: they
    name the weights, but nobody has compared what they compute.

    Example:
        python -m metaseg_monai unpack synthetic_shapes_segmentation_v0.1.0.zip --output bundles

    Args:
        archive: a zip that `package` has made.
        output: folder in which the folder of the bundle is made.
        sha256: of the archive, as its author tells it. The list inside was written by whoever
            made the archive; only this tells that it is the author's.
        trust: unpack a bundle that holds more than what is known to be harmless, which is shown.

    Returns:
        The folder of the bundle.

    Raises:
        DataError: there is no such archive, it is damaged or altered, or the folder has files.
        ConfigError: it would run what is not listed.
        CheckpointError: its weights hold code, or are not those that their facts describe.
    """
    source = Path(archive)
    if not source.is_file():
        raise DataError(f"{source}: no such file; give the zip of a package")
    if sha256 is not None and file_sha256(source) != sha256.strip().lower():
        raise DataError(
            f"{source}: its SHA-256 is {file_sha256(source)}, not {sha256}; ask for the file anew, "
            "and use nothing of this one"
        )
    try:
        with readable(source), zipfile.ZipFile(source) as packed:
            name, entries = _entries(source, packed)
            target = absolute(output) / name
            with writable(target), new_folder(target) as part:
                for inside, one in entries.items():
                    _extract(packed, one, part / inside)
                trusted, programs = _refuse_altered(source, part, name, trust)
    except DAMAGED as error:
        raise DataError(f"{source}: damaged ({error}); get it anew") from error
    return Unpacked(target, trusted, programs)


def _entries(source: Path, packed: zipfile.ZipFile) -> tuple[str, dict[str, zipfile.ZipInfo]]:
    """The folder in an archive, and its files by their path in it; refuses what leads outside."""
    entries: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    tops: set[str] = set()
    infos = packed.infolist()
    if len(infos) > MOST_FILES or sum(one.file_size for one in infos) > MOST_BYTES:
        raise DataError(
            f"{source}: unpacks to more than {MOST_FILES} files or {MOST_BYTES >> 30} GB; it is no "
            "package of a bundle"
        )
    for one in infos:
        kind = stat.S_IFMT(one.external_attr >> 16)
        parts = one.filename.rstrip("/").split("/")
        odd = {"", ".", ".."} & set(parts) or re.search(r"[\\:\x00-\x1f]", one.filename)
        if odd or len(parts) < 2 - one.is_dir():
            raise DataError(
                f"{source}: {one.filename!a} leads outside of the bundle; do not use it"
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"{source}: {one.filename!a} is a link or device; do not use it")
        if one.flag_bits & 1:
            raise DataError(f"{source}: is encrypted; ask for a package without a password")
        tops.add(parts[0])
        if one.is_dir():
            continue
        inside = "/".join(parts[1:])
        if (same := composed(inside).casefold()) in folded:
            raise DataError(f"{source}: holds {inside!a} twice; do not use it")
        folded.add(same)
        entries[inside] = one
    for inside in entries:
        above = composed(inside).casefold()
        while (above := above.rpartition("/")[0]) != "":
            if above in folded:
                raise DataError(f"{source}: {above!a} is a file and a folder; do not use it")
    if len(tops) != 1 or not entries:
        raise DataError(f"{source}: holds {len(tops)} folders; expected one, that of a bundle")
    if not NAMES_BUNDLE.fullmatch(name := tops.pop()):
        raise DataError(f"{source}: its folder {name!a} cannot name a bundle; do not use it")
    return name, entries


def _extract(packed: zipfile.ZipFile, one: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with packed.open(one) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file)  # zipfile ends at the size that it announces
    except OSError as error:
        if error.errno is not None:  # of the disk
            raise
        raise zipfile.BadZipFile(f"{one.filename!a}: {error}") from error


def _refuse_altered(
    source: Path, folder: Path, name: str, trust: bool
) -> tuple[str | None, list[Finding]]:
    """Refuse what is not as listed, or runs unseen; return what is trusted, and its exports."""
    if not (folder / SUMS).is_file():
        raise DataError(f"{source}: has no {SUMS}, so that nobody can tell whether it is whole")
    if wrong := differing(folder):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            f"{source}: not as its {SUMS} says: {', '.join(wrong[:3])}{more}; get it anew"
        )
    if not (folder / METADATA).is_file():
        raise DataError(
            f"{source}: has no {METADATA}, so that it is no bundle; ask for the package"
        )
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside, suffix = path.relative_to(folder).as_posix(), path.suffix.lower()
        if suffix in STATES or _is_archive_of_pickles(path):
            _refuse_code(source, inside, path)
        elif suffix in PICKLES or _is_pickle(path):
            raise CheckpointError(
                f"{source}: {inside} is a pickle, which may run anything; refused"
            )
    if (folder / WEIGHTS).is_file():
        facts = read_weights(folder / WEIGHTS)[1]
        if (copy := folder / FACTS).is_file() and not is_copy(copy, facts):
            raise CheckpointError(
                f"{source}: {FACTS} tells other facts than the weights in {WEIGHTS} hold; do not "
                "use it"
            )
        for export in EXPORTS:  # the digest stands in both as it is
            there = (folder / export).is_file()
            if there and facts["weights_sha256"].encode() not in (folder / export).read_bytes():
                raise CheckpointError(
                    f"{source}: {export} is no export of the weights in {WEIGHTS}; do not use it"
                )
    findings = read_foreign(folder)
    named = EXPORTS if (folder / WEIGHTS).is_file() else ()  # which name the weights beside them
    exports = [one for one in findings if one.kind == "program" and one.file in named]
    findings = [one for one in findings if one not in exports]
    read = {one.file for one in (*findings, *exports)}
    code = f"{code_name(folder)}/"  # compared byte by byte, or a finding
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inside = path.relative_to(folder).as_posix()
        if not (OURS.fullmatch(inside) or inside in read or inside.startswith(code)):
            findings.append(Finding(inside, "", "unknown", inside, WHY["unknown"]))
    return refuse_untrusted(findings, trust, f"The bundle {name}"), exports


def _is_pickle(path: Path) -> bool:
    """Whether a file of any name is a pickle, or one that runs something before it breaks off."""
    with path.open("rb") as stream:
        start = stream.read(2)
        if len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5:
            return True
        stream.seek(0)
        named = False
        try:  # protocols 0 and 1 have no beginning of their own
            for operation, value, _ in pickletools.genops(stream):
                words = isinstance(value, str) and re.fullmatch(r"[\w.]+ [\w.]+", value)
                named |= operation.name in ("GLOBAL", "INST") and bool(words)
                named |= operation.name == "STACK_GLOBAL" or operation.name.startswith("EXT")
                if named and (operation.name in RUNS or operation.name == "INST"):
                    return True
        except Exception:  # whatever a file of another kind raises there
            return False
    return False


def _is_archive_of_pickles(path: Path) -> bool:
    """Whether `torch.load` would unpickle what is in a file of any name, as it does no program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    top = names[0].partition("/")[0] if names else ""
    is_script = f"{top}/constants.pkl" in names  # by which PyTorch tells TorchScript
    return not is_script and any(one.lower().endswith(PICKLES) for one in names)


def _refuse_code(source: Path, inside: str, path: Path) -> None:
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{source}: {inside} cannot be read as tensors alone, and nothing of it was run "
            f"({str(error).replace(str(path), inside)})"
        ) from error
