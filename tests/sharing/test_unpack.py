"""What may be from a stranger is unpacked only if it is whole and nothing in it runs unseen."""

import hashlib
import io
import json
import pickle
import re
import shutil
import stat
import zipfile

import pytest
import torch

from metaseg_monai.errors import CheckpointError, ConfigError, DataError
from metaseg_monai.sharing import unpack as unpacking
from metaseg_monai.sharing.check_bundle import check_bundle
from metaseg_monai.sharing.package import package
from metaseg_monai.sharing.unpack import unpack

NAME = "synthetic_shapes_segmentation"
PLACE = "SHA256SUMS"


@pytest.fixture(scope="module")
def archive(bundle, some_weights, tmp_path_factory):
    """A package of a bundle, with weights that no network of it has."""
    home = tmp_path_factory.mktemp("source")
    root = shutil.copytree(bundle, home / NAME)
    file = root / "configs/simulate.json"
    few = {"train": 6, "val": 6, "test": 6, "size": 32}
    file.write_text(json.dumps({**json.loads(file.read_text()), **few}))
    made = package(root, home, verify="no")
    return rewritten(made.archive, home / "whole.zip", {"models/model.pt": some_weights[0]})


def contents(archive):
    with zipfile.ZipFile(archive) as packed:
        return {one.partition("/")[2]: packed.read(one) for one in packed.namelist()}


def rewritten(archive, path, changes, listed=True):
    """The archive with other files, None for none; `listed` writes the list of checksums anew."""
    files = {name: one for name, one in {**contents(archive), **changes}.items() if one is not None}
    if listed:
        files.pop(PLACE)
        sums = [f"{hashlib.sha256(one).hexdigest()}  {name}\n" for name, one in files.items()]
        files[PLACE] = "".join(sums).encode()
    with zipfile.ZipFile(path, "w") as packed:
        for name, one in files.items():
            packed.writestr(f"{NAME}/{name}", one)
    return path


def code_in(archive):
    return next(name for name in contents(archive) if name.endswith("/naming.py"))


def test_a_whole_package_is_unpacked_and_known(archive, tmp_path):
    made = unpack(archive, tmp_path)
    assert made.folder == tmp_path / NAME
    assert made.trusted is None
    assert check_bundle(made.folder).verdict == "clean"
    there = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*.*")}
    assert {"configs/train.json", code_in(archive)} <= there
    with pytest.raises(DataError, match="is filled already; give another folder"):
        unpack(archive, tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"configs/train.json": b"{}"}, "configs/train.json: altered"),
        ({"LICENSE": None}, "LICENSE: missing"),
        ({"scripts/net.py": b"import os"}, "scripts/net.py: not listed"),
        ({PLACE: None}, "has no SHA256SUMS"),
    ],
)
def test_what_is_not_as_listed_is_refused(archive, tmp_path, changes, told):
    changed = rewritten(archive, tmp_path / "changed.zip", changes, listed=False)
    refused(changed, tmp_path, DataError, told, trust=True)


def refused(archive, tmp_path, kind, told, **settings):
    with pytest.raises(kind, match=told):
        unpack(archive, tmp_path / "out", **settings)
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../evil.py", "leads outside"),
        (f"{NAME}/../../evil.py", "leads outside"),
        ("/etc/evil", "leads outside"),
        (f"{NAME}\\..\\evil.py", "leads outside"),
        ("C:/evil.py", "leads outside"),
        ("evil.py", "leads outside"),
        (f"{NAME}/a\n.py", "leads outside"),
        ("another/evil.py", "holds 2 folders"),
        (f"{NAME}/license", "holds 'license' twice"),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(archive, tmp_path, name, told):
    changed = rewritten(archive, tmp_path / "changed.zip", {})
    with zipfile.ZipFile(changed, "a") as packed:
        packed.writestr(zipfile.ZipInfo(name), "import os")
    refused(changed, tmp_path, DataError, told, trust=True)
    assert {path.name for path in tmp_path.iterdir()} <= {"changed.zip", "out"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"LICENSE/x": b"1"}, "'license' is a file and a folder"),
        ({"docs/\u00e9": b"1", "docs/e\u0301": b"2"}, "holds 'docs/e.u0301' twice"),
        ({"configs/metadata.json": None}, "has no configs/metadata.json, so that it is no bundle"),
    ],
)
def test_archives_that_are_no_bundle_on_every_disk_are_refused(archive, tmp_path, changes, told):
    changed = rewritten(archive, tmp_path / "changed.zip", changes)
    refused(changed, tmp_path, DataError, told, trust=True)


@pytest.mark.parametrize("name", [".ssh", "--force", " ", "$x", "a@b"])
def test_folders_that_cannot_name_a_bundle_are_refused(archive, tmp_path, name):
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(changed, "w") as packed:
        for inside, content in contents(archive).items():
            packed.writestr(f"{name}/{inside}", content)
    refused(changed, tmp_path, DataError, "cannot name a bundle", trust=True)


@pytest.mark.parametrize("sums", [b"\xff\xfe", b"abc  LICENSE\n", b"\0"])
def test_a_damaged_list_of_checksums_is_refused(archive, tmp_path, sums):
    changed = rewritten(archive, tmp_path / "changed.zip", {PLACE: sums}, listed=False)
    refused(changed, tmp_path, DataError, "line 1 is no checksum with a name", trust=True)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_every_compression_is_told(archive, tmp_path, method):
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(changed, "w", method) as packed:
        for inside, content in contents(archive).items():
            packed.writestr(f"{NAME}/{inside}", content)
        one = packed.getinfo(f"{NAME}/LICENSE")
    content = bytearray(changed.read_bytes())
    start = one.header_offset + 30 + len(one.filename)
    for place in range(start + 12, start + 40):
        content[place] ^= 0x55
    changed.write_bytes(content)
    refused(changed, tmp_path, DataError, r"changed.zip: damaged \(")


def test_an_encrypted_archive_is_refused(archive, tmp_path):
    changed = rewritten(archive, tmp_path / "changed.zip", {})
    content = bytearray(changed.read_bytes())
    with zipfile.ZipFile(changed) as packed:
        content[packed.start_dir + 8] |= 1
    changed.write_bytes(content)
    refused(changed, tmp_path, DataError, "is encrypted; ask for a package without a password")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(archive, tmp_path, kind):
    changed = rewritten(archive, tmp_path / "changed.zip", {})
    one = zipfile.ZipInfo(f"{NAME}/models/model.ts")
    one.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(changed, "a") as packed:
        packed.writestr(one, "/etc/passwd")
    refused(changed, tmp_path, DataError, "is a link or device", trust=True)


def test_damaged_and_endless_archives_are_refused(archive, tmp_path, monkeypatch):
    cut = tmp_path / "cut.zip"
    cut.write_bytes(archive.read_bytes()[:-3000])
    refused(cut, tmp_path, DataError, "damaged")
    content = bytearray(archive.read_bytes())
    content[content.index(b"Apache License")] ^= 1  # stored as it is
    cut.write_bytes(content)
    refused(cut, tmp_path, DataError, "damaged .*CRC")
    refused(tmp_path / "none.zip", tmp_path, DataError, "no such file")
    monkeypatch.setattr(unpacking, "MOST_BYTES", 1000)
    refused(archive, tmp_path, DataError, "unpacks to more than")


def test_another_archive_than_its_author_made_is_refused(archive, tmp_path):
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    refused(archive, tmp_path, DataError, "its SHA-256 is", sha256="0" * 64)
    assert unpack(archive, tmp_path / "out", sha256=right.upper()).folder.is_dir()


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def saved(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def script(digest=""):
    """A program that answers with zeros, and says that it is of some weights."""

    class Zeros(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(image)

    stream = io.BytesIO()
    texts = {"metaseg_weights_sha256": digest}
    torch.jit.save(torch.jit.script(Zeros()), stream, _extra_files=texts)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("models/model.pt", saved({"weight": Evil()}), "models/model.pt .*nothing of it was run"),
        ("models/model.pt", saved({"weight": torch.zeros(1)}), "weights without facts"),
        ("extra/state.pth", pickle.dumps(Evil()), "extra/state.pth .*nothing of it was run"),
        ("extra/state.pkl", pickle.dumps(Evil()), "state.pkl is a pickle"),
        ("extra/STATE.PKL", b"", "STATE.PKL is a pickle"),
        ("extra/STATE.PTH", b"", "extra/STATE.PTH .*nothing of it was run"),
        ("extra/state", pickle.dumps(Evil()), "extra/state is a pickle"),
        ("extra/state", pickle.dumps(Evil(), 0), "extra/state is a pickle"),
        ("extra/state1.dat", pickle.dumps(Evil(), 1), "extra/state1.dat is a pickle"),
        ("extra/x", b"cbuiltins\nprint\n(S'run'\ntR\xff", "extra/x is a pickle"),  # then broken
        ("models/other.weights", saved(Evil()), "other.weights .*nothing of it was run"),
        ("models/model.pt2", saved(Evil()), "model.pt2 .*nothing of it was run"),
        ("models/model.ts", saved(Evil()), "model.ts .*nothing of it was run"),
        ("models/model.json", b"{}", "tells other facts than the weights"),
        ("models/model.ts", b"PK", "model.ts is no export of the weights"),
        ("models/model.onnx", b"0" * 64, "model.onnx is no export of the weights"),
    ],
)
def test_pickles_with_code_are_refused(archive, tmp_path, capsys, name, content, told):
    changed = rewritten(archive, tmp_path / "changed.zip", {name: content})
    refused(changed, tmp_path, CheckpointError, told, trust=True)
    assert "run" not in capsys.readouterr().out


def test_a_configuration_of_a_stranger_is_shown_and_confirmed_first(archive, tmp_path):
    config = json.loads(contents(archive)["configs/inference.json"])
    config["run"] = ["$__import__('os').system('id')", *config["run"]]
    content = {"configs/inference.json": json.dumps(config).encode()}
    changed = rewritten(archive, tmp_path / "changed.zip", content)
    refused(changed, tmp_path, ConfigError, r"run#0: .*os.*system[\s\S]*--trust True")
    made = unpack(changed, tmp_path / "out", trust=True)
    assert "system('id')" in str(made)


LIST, URL = "large_files:\n- path: ", "https://example.org/x"
HASHED = f'  hash_val: "{64 * "0"}"\n  hash_type: "sha256"\n'


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("requirements.txt", "evil @ git+https://example.org/e.git", "evil @ git"),
        ("requirements.txt", "monai==1.6.1\n--index-url http://example.org", "line 2"),
        ("requirements.txt", "monai==1.6.1\n-r other.txt", "line 2"),
        ("requirements.txt", "numpyy==2.0.0", "numpyy==2.0.0"),
        ("requirements.txt", "https://example.org/numpy.whl", "numpy.whl"),
        ("docs/requirements-dev.txt", "evil", "requirements-dev.txt"),
        ("large_files.yml", f"large_files:\n- path: ../../x.py\n  url: {URL}\n{HASHED}", "x.py"),
        (
            "large_files.yml",
            f"large_files:\n- path: configs/x.json\n  url: {URL}\n{HASHED}",
            "fetch",
        ),
        ("large_files.yml", f"{LIST}models/model.pt\n  url: {URL}\n", "fetches"),
        ("large_files.yml", "large_files: !!python/object/apply:os.system [id]", "for certain"),
        ("large_files.json", '{"large_files": [{"path": "/x.pt", "url": "a"}]}', "fetches"),
        ("large_files.json", "{", "for certain"),
        ("large_files.yml", f"{LIST}models/x.ts\n  url: {URL}\n{HASHED}", "program"),
        ("requirements.txt", "# -*- coding: utf-7 -*-\nnumpy==1.0+AAoAZQB2AGkAbA", "utf-7"),
    ],
)
def test_what_would_be_installed_or_fetched_is_shown_and_confirmed_first(
    archive, tmp_path, name, content, told
):
    changed = rewritten(archive, tmp_path / "changed.zip", {name: content.encode()})
    refused(changed, tmp_path, ConfigError, re.escape(told))
    made = unpack(changed, tmp_path, trust=True)
    assert any(one.file == name for one in check_bundle(made.folder).findings)


def _read_packages_of(metadata, more, place):
    """The findings of a folder with this metadata.json alone, with further packages."""
    pins = metadata["required_packages_version"] | more
    file = place / "alone/configs/metadata.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**metadata, "required_packages_version": pins}))
    return [one for one in check_bundle(file.parents[1]).findings if one.kind == "package"]


def test_known_packages_and_weights_with_their_digests_are_no_findings(archive, tmp_path):
    entry = f"models/m.pt\n  url: {URL}/?a=1&b=~2#c  # here\n{HASHED}"
    lists = {
        "requirements.txt": b"# pinned\nmonai[fire, ignite]==1.6.1\nscikit_image>=0.22,<1  # any\n",
        "large_files.yml": f"\ufefflarge_files: []\n- \n  path: {entry}".encode(),
    }
    changed = rewritten(archive, tmp_path / "changed.zip", lists)
    assert check_bundle(unpack(changed, tmp_path).folder).verdict == "clean"
    metadata = json.loads(contents(archive)["configs/metadata.json"])
    honest = ("cucim-cu12", "segment_anything", "numba")  # as bundles of the zoo ask for
    assert not _read_packages_of(metadata, dict.fromkeys(honest, "1.0"), tmp_path)
    assert _read_packages_of(
        {**metadata, "numpy_version": "1.24 --index-url http://x"}, {}, tmp_path
    )
    metadata["required_packages_version"]["evil"] = "1.0"
    named = {"configs/metadata.json": json.dumps(metadata).encode()}
    changed = rewritten(archive, tmp_path / "named.zip", named)
    refused(changed, tmp_path, ConfigError, "evil==1.0")


def test_code_of_a_stranger_is_shown_and_confirmed_first(archive, tmp_path):
    place = code_in(archive)
    altered = contents(archive)[place] + b"\nimport os\n"
    changed = rewritten(archive, tmp_path / "changed.zip", {place: altered})
    refused(changed, tmp_path, ConfigError, "not those that this release puts into a package")
    made = unpack(changed, tmp_path / "out", trust=True)
    assert "own code" in made.trusted
    added = {place.replace("naming.py", "hidden.py"): b"import os"}
    changed = rewritten(archive, tmp_path / "changed.zip", added)
    refused(changed, tmp_path / "more", ConfigError, "not those that this release puts")
    changed = rewritten(archive, tmp_path / "changed.zip", {"monai.py": b"import os"})
    refused(changed, tmp_path / "more", ConfigError, "monai.py.*own code")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("models/Model2.ts", script(), "Model2.ts .*program: is a program; what it computes"),
        ("models/model.pt2", b"PK", "model.pt2 .*program: is a program"),
        ("models/model.bin.xml", b"<net/>", "model.bin.xml .*program"),
        ("extra/state", b"anything", r"extra/state .*unknown: is no file that a package has"),
        ("extra/case.csv", b"case\nos\n1\n", "extra/case.csv .*unknown"),  # no pickle, though near
        ("samples/images/evil.npz", saved({"a": torch.ones(1)}), "evil.npz .*unknown"),
        ("configs/train.py.txt", b"x", "configs/train.py.txt .*unknown"),
    ],
)
def test_files_that_no_package_has_are_shown_and_confirmed_first(
    archive, tmp_path, name, content, told
):
    changed = rewritten(archive, tmp_path / "changed.zip", {name: content})
    refused(changed, tmp_path, ConfigError, rf"{told}[\s\S]*--trust True")
    made = unpack(changed, tmp_path / "out", trust=True)
    assert name in made.trusted
    assert (made.folder / name).read_bytes() == content


def test_exports_are_told_and_no_rule_of_the_zoo_loads_them(archive, some_weights, tmp_path):
    """That they name the weights says nothing of what they compute: these answer with zeros."""
    forged = {"models/model.ts": script(some_weights[1])}
    changed = rewritten(archive, tmp_path / "changed.zip", forged)
    made = unpack(changed, tmp_path / "out")
    assert made.trusted is None
    assert "models/model.ts is a program; what it computes was not compared" in str(made)
    read = check_bundle(made.folder, zoo=True)
    assert [(one.file, one.kind) for one in read.findings] == [("models/model.ts", "program")]
    rules = {rule.rule: rule.verdict for rule in read.rules}
    assert rules["models/model.ts can be loaded (torch.jit.load)"] == "not checked"
    alone = {**forged, "models/model.pt": None, "models/model.json": None}
    changed = rewritten(archive, tmp_path / "alone.zip", alone)
    with pytest.raises(ConfigError, match=r"models/model\.ts  \(program"):  # of no weights
        unpack(changed, tmp_path / "alone")
