import unicodedata

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.files import new_folder, replacing, sweep_temporaries
from metaseg_monai.naming import MOST_BYTES, Folder, file_name, likened, safe_name, shortened

ODD = "run #1+\u00fc (kopie), [2]"
NAMES = [ODD, ODD.replace("\u00fc", "u"), "a b", "a_b", "a-b", "", ".", "..", "\u65e5\u672c",
         "x" * 400, "x" * 401, "\u00e9" * 200, "=1", "con", "a\nb", "a\\b", "a/b"]  # fmt: skip


def test_every_name_gets_a_file_of_its_own():
    made = [file_name(name) for name in NAMES]
    assert len(set(made)) == len(NAMES)
    for name in made:
        assert name.isascii()
        assert 0 < len(name) <= MOST_BYTES
        assert not set(name) & set("/\\ #%\n,()[]")
        assert not name.startswith(".")
    accents = {file_name(unicodedata.normalize(form, "Z\u00fcrich")) for form in ("NFC", "NFD")}
    assert len(accents) == 1


@pytest.mark.parametrize("end", [".nii.gz", ".tif", ".json", ""])
def test_what_is_too_long_is_cut_but_keeps_its_suffix(end):
    short, long, other = (
        shortened(stem + end) for stem in ("a", "\u00fc" * 200, "\u00fc" * 199 + "v")
    )
    assert short == f"a{end}"
    assert long.endswith(end)
    assert len(long.encode()) <= MOST_BYTES
    assert long != other


def test_a_name_of_255_bytes_is_written_whole_and_swept(tmp_path):
    name = "\u00fc" * 125 + ".json"
    assert len(name.encode()) == MOST_BYTES
    with replacing(tmp_path / name) as part:
        part.write_text("whole")
        kept = part.name
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / kept).write_text("half")
    assert sweep_temporaries(tmp_path / name) == [tmp_path / kept]
    folder = tmp_path / ("f" * MOST_BYTES)
    with new_folder(folder) as partial:
        (partial / "a").write_text("")
    assert sorted(tmp_path.iterdir()) == [folder, tmp_path / name]


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("in/a.tif", "in/a.tif"),
        ("in\\a.tif", "in/a.tif"),
        ("in\\b\\c.tif", "in\\b\\c.tif"),  # a name of this system
        ("Z\u00fcrich/\u00e9.tif", "Zu\u0308rich/e\u0301.tif"),
        ("Zu\u0308rich\\\u00e9.tif", "Z\u00fcrich/e\u0301.tif"),
        (f"{ODD}/{ODD}.tif", f"{unicodedata.normalize('NFD', ODD)}/{ODD}.tif"),
        ("./in//a.tif", "in/a.tif"),
    ],
)
def test_a_file_is_found_however_its_path_is_written(tmp_path, asked, stored):
    path = tmp_path / stored
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert Folder(tmp_path).find(asked) == stored


def test_a_file_that_is_not_found_is_told_why(tmp_path):
    for name in ("a.tif", "\u00e9.tif", "e\u0301.tif", "P 07.tif"):
        (tmp_path / name).write_bytes(b"")
    folder = Folder(tmp_path)
    assert folder.find("b.tif") is None
    assert folder.find("b" * 300) is None
    assert folder.find("e\u0301.tif") == "e\u0301.tif"
    with pytest.raises(DataError, match="backslashes separate folders on Windows alone; write /"):
        folder.find("in\\b.tif")
    for asked, there in (("A.TIF", "a.tif"), ("p_7.tif", "P 07.tif")):
        with pytest.raises(DataError, match=f"there is '{there}', which is written otherwise"):
            folder.find(asked)
    (tmp_path / "\u1e69.tif").write_bytes(b"")  # s with two marks, in any order
    (tmp_path / "s\u0307\u0323.tif").write_bytes(b"")
    folder = Folder(tmp_path)
    with pytest.raises(DataError, match="is several files, whose accents are stored in two forms"):
        folder.find("s\u0323\u0307.tif")


def test_names_that_are_probably_one():
    for same in (
        ["7", "7.0", "007", " 7"],
        ["Patient 1", "patient_01", "PATIENT-1.0"],
        ["\u00c9a", "\u00e9A"],
    ):
        assert len({likened(name) for name in same}) == 1
    apart = ["1-1", "11", "1.1", "1.10", "a1", "a11", "1.01", "0", "00a"]
    assert len({likened(name) for name in apart}) == len(apart)


def test_safe_names_are_cut_too():
    assert len(safe_name("p" * 300).encode()) < MOST_BYTES
