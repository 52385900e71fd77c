"""What is misspelt is refused before anything runs, and text stays as it was typed."""

import sys

import fire
import pytest

from metaseg_monai.cli.commands import COMMANDS, check_flags, find, load, main
from metaseg_monai.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
CELLS = ["prepare", "cells", "lab", "out"]


def check(arguments):
    """Find the command and check its options, without running it."""
    found, words, rest = find(arguments, COMMANDS)
    if isinstance(found, str):
        check_flags(load(found), rest, " ".join(words))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*CELLS, "--gruop", "plate"], r"prepare cells: no option --gruop; did you mean --group"),
        ([*CELLS, "--gruop=plate"], "did you mean --group"),
        ([*CELLS, "--qqqq"], "the options are --source, --output"),
        ([*CELLS, "--no-grey"], "did you mean --nogrey"),
        ([*CELLS, "--nogrey", "1"], "no option --nogrey"),
        ([*CELLS, "--dry_run", "maybe"], "--dry_run maybe: expected True or False"),
        (["prepare", "cells", "--dry_run", "lab", "out"], "--dry_run lab: expected True"),
        ([*CELLS, "--seed"], "--seed has no value"),
        ([*CELLS, "--split", "--seed", "3"], "--split has no value"),
        ([*CELLS, "-m", "x"], "-m could be --metadata or --masks or --mask_suffix"),
        ([*CELLS, "-z", "x"], "no option -z"),
        ([*CELLS, "-", "upper"], "'-' alone"),
        ([*CELLS, "--seed", "1", "--", "--trace", "--", "x"], "no option --;"),
        (["report", "runs", "out", "title", "more"], "'more' is one value too many"),
        (["report", "a", "b", "c", "--folder", "r"], "'c' is one value too many"),
        (["train", "bundle", "out", "paper_size", "more"], "'more' is one value too many"),
        (["fit_schema", "t.csv", "a", "o", "error"], "'error' is one value too many"),
        (["generate", "cels", "--output", "x"], "'cels' is no command of generate; did you mean c"),
        (["trian", "bundle"], "'trian' is no command; did you mean train"),
        (["--output", "x"], "is one of card, check, check-bundle, clean-up, conformal, demo"),
        (
            ["prepare", "--source", "x"],
            "'--source' is no command of prepare; is one of adipocyte, cells",
        ),
        (["generate", "synthetic-shape", "x"], "did you mean synthetic-shapes"),
    ],
)
def test_what_fire_would_complain_of_afterwards(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["prepare"],
        ["--", "--completion"],
        [*CELLS, "--dry-run", "--mask-suffix", "_m", "--seed=3", "--train", "-3"],
        [*CELLS, "--nogrey", "--ome=True", "-k", "name", "--group=plate,well"],
        ["prepare", "styles", "--source=a", "-o", "b"],
        ["report", "out", "title", "--folder", "r"],
        [*CELLS, "--", "--trace"],
        ["fit-schema", "t.csv", "--fields", "a", "--output", "o"],
        ["fit_schema", "t.csv", "a", "o", "--missing", "error"],
        ["train", "bundle", "--anything", "3", "--flag", "-x", "1", "--resume"],
        ["predict", "bundle", "a", "b", "line=HeLa", "pilot", "--ckpt_path", "f"],
    ],
)
def test_what_fire_accepts_passes(arguments):
    check(arguments)


def show(source: str, seed: int = 0, grey: bool = False) -> str:
    """Take part of what fire offers; show what came."""
    return f"{source!r} {seed!r} {grey!r}"


@pytest.mark.parametrize(
    "given",
    [
        "a", "a -s 3", "a --seed 3", "a --nogrey", "--seed 3 a --grey", "a --se 3", "a 1 True",
        "a 1 True 3", "a -g", "a --no-grey", "--grey=True a", "a --seed=-3", "a --seed -3",
    ],
)  # fmt: skip
def test_the_check_agrees_with_fire(given):
    words = given.split()
    try:
        check_flags(show, words, "show")
        passes = True
    except ConfigError:
        passes = False
    try:
        fire.Fire(show, words)
        taken = True
    except SystemExit:
        taken = False
    assert passes == taken


@pytest.fixture
def metaseg(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; return exit status, stdout, stderr."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["metaseg_monai", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


TINY = ["--train", 1, "--val", 1, "--test", 1, "--size", 32]


def test_a_misspelt_option_writes_nothing(metaseg, tmp_path):
    given = ["generate", "synthetic-shapes", "--output", "x", *TINY, "--sed", 3]
    status, _, err = metaseg(*given)
    assert (status, err) == (
        2, "error: generate synthetic-shapes: no option --sed; did you mean --seed?\n"
    )  # fmt: skip
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["2024", "1e3", "1_000", "a,b", "None", "0x10", "[1]"])
def test_a_folder_may_be_called_anything(metaseg, tmp_path, name):
    status, out, err = metaseg("generate", "synthetic-shapes", "--output", name, *TINY)
    assert (status, out.strip()) == (0, f"{name}/table.csv"), err
    assert [path.name for path in (tmp_path / "here").iterdir()] == [name]


def test_the_present_folder_is_filled(metaseg, tmp_path):
    before = (tmp_path / "here").stat().st_ino
    assert metaseg("generate", "synthetic-shapes", "--output", ".", *TINY)[0] == 0
    assert (tmp_path / "here" / "table.csv").is_file()
    assert (tmp_path / "here").stat().st_ino == before  # the user's shell stands in it
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_an_empty_name_is_refused(metaseg):
    status, _, err = metaseg("generate", "synthetic-shapes", "--output", "", *TINY)
    assert (status, "--output is empty" in err) == (2, True)
    status, _, err = metaseg("train", "bundle", "--output_dir")
    assert (status, "--output_dir has no value" in err) == (2, True)


def test_numbers_name_bundles_runs_and_titles(metaseg):
    assert "no bundle at '7'" in metaseg("train", 7)[2]
    assert "2024" in metaseg("report", 2024, "--title", 3)[2]


def test_styles_in_a_column_of_ones_own(metaseg, tmp_path):
    metaseg("generate", "cells", "--output", "cells", "--recipe", "styles", *TINY[2:], "--train", 3)
    styles = ["prepare", "styles", "--source", "cells", "--output", "styled", "--unit", "image"]
    status, _, err = metaseg(*styles)
    assert (status, "--column" in err) == (2, True)
    assert metaseg(*styles, "--column", "hand")[0] == 0
    header = (tmp_path / "here" / "styled" / "table.csv").read_text().splitlines()[0].split(",")
    assert {"style", "hand"} < set(header)
    status, _, err = metaseg(*styles[:5], "x", "--tolerances", 2, "--column", "hand")
    assert (status, "tolerances=2: expected the tolerance" in err) == (2, True)


def test_an_option_given_twice_is_refused():
    for arguments in (
        ["prepare", "cells", "--source", "a", "--source", "b", "--output", "c"],
        ["train", "some_bundle", "--epochs", "2", "--epochs", "3"],
    ):
        with pytest.raises(ConfigError, match="given twice"):
            check(arguments)


def test_an_empty_path_setting_never_means_the_root(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["metaseg", "train", "some_bundle", "--output_dir", ""])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "--output_dir is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--help"], ["some", "-h"], ["--", "--help"], ["some", "--", "-h"]]
)
def test_help_is_shown_whatever_stands_beside_it(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["metaseg", "new-bundle", *words])  # --table is required
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    shown = capsys.readouterr()
    assert "Example:" in shown.out + shown.err
    assert "no value" not in shown.out + shown.err


def test_a_command_of_several_values_takes_them_and_none_of_that_name():
    def compare(*models, rounds: int = 1):
        """Compare them."""

    for several in ([], ["a"], ["a", "b", "--rounds", "3", "c"]):
        check_flags(compare, several, "compare")
    with pytest.raises(ConfigError, match="compare: no option --models"):
        check_flags(compare, ["--models", "a"], "compare")
