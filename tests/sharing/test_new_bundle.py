"""A bundle for a table of one's own: what is inferred and told, and that it can be used."""

import csv
import json
import re
import shlex
import shutil
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigParser
from skimage.io import imread, imsave

from metaseg_monai.bundle.compose import compose
from metaseg_monai.cli.commands import run as run_command
from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.rows import read_lines, write_table
from metaseg_monai.sharing.check_bundle import check_bundle
from metaseg_monai.sharing.new_bundle import new_bundle
from metaseg_monai.sharing.own_metadata import infer_schema
from metaseg_monai.sharing.own_table import OwnTable
from metaseg_monai.sharing.plan import Step
from metaseg_monai.sharing.run import evaluate, predict, train
from metaseg_monai.tables import find_cases, fold_cases, read_table, slices
from tests.extras import needed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_data.md"
SMALL = {"memory_gb": 0.4, "network": "unet3"}


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    """Plans are by the estimate: what is measured is seen in test_plan.py."""
    monkeypatch.setattr("metaseg_monai.sharing.plan.measured_step", lambda *asked: None)


def rows_of(table):
    return [cells for _, cells in read_lines(table)[1]]


@pytest.fixture
def pictures(tmp_path):
    """A table of 24 pictures of 12 patients, as a lab might have it."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        image = rng.integers(0, 90, (20, 24)).astype(np.uint8)
        label = np.zeros(image.shape, np.uint8)
        if number % 4:
            label[3 : 5 + number // 2, 4:9] = 255
        image[label > 0] += 120
        for folder, array in (("raw", image), ("seg", label)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "data" / folder / f"{number}.png"
            imsave(path, array, check_contrast=False)
        rows.append(
            {
                "img": f"raw/{number}.png",
                "mask": f"seg/{number}.png",
                "patient": f"p{number // 2}",
                "age": "" if number // 2 == 3 else 30 + (number * 7) % 41,
                "scanner": ("A", "B", "N/A")[number // 2 % 3],
                "sample_id": f"S-{1000 + number}",
                "acquired": f"2021-03-{number + 1:02d}",
                "site": "one",
                "lesion_area": int((label > 0).sum()) * 0.25,
                "has_lesion": "yes" if number % 4 else "no",
            }
        )
    return write_table(rows, tmp_path / "data" / "cohort.csv")


@pytest.fixture
def volumes(tmp_path):
    """A table of 10 CT volumes."""
    rng = np.random.default_rng(0)
    (tmp_path / "ct").mkdir()
    rows = []
    for number in range(10):
        image = rng.integers(-1000, 900, (24, 20, 8)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[4 : 8 + number, 4:8, 2:5], label[5:7, 5:7, 3] = 1, 2
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        nib.save(nib.Nifti1Image(image, affine), tmp_path / "ct" / f"{number}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), tmp_path / "ct" / f"{number}_seg.nii.gz")
        rows.append(
            {
                "ct": f"ct/{number}.nii.gz",
                "mask": f"ct/{number}_seg.nii.gz",
                "patient": f"p{number}",
                "contrast_phase": ("arterial", "venous")[number % 2],
            }
        )
    return write_table(rows, tmp_path / "cohort.csv")


def test_channels_of_several_columns_are_read_from_new_tables_by_their_names(pictures, tmp_path):
    rows = rows_of(pictures)
    for row in rows:
        row["actin"] = row.pop("img")
        row["dapi"] = row["actin"].replace("raw", "dapi")
        (pictures.parent / "dapi").mkdir(exist_ok=True)
        shutil.copy(pictures.parent / row["mask"], pictures.parent / row["dapi"])
    table = write_table(rows, pictures.parent / "two.csv")
    asked = {"image": "dapi,actin", "label": "mask", "group": "patient"}
    bundle = new_bundle("two", table, tmp_path / "b", **asked, **SMALL).folder
    columns = bundle / "configs" / "columns.json"
    new = [{name: row[name] for name in ("actin", "dapi", "age")} for row in rows[:2]]
    cases = find_cases(write_table(new, pictures.parent / "new.csv"), columns=columns)
    for case in cases:
        assert [Path(one).parent.name for one in case["image"]] == ["dapi", "raw"]
    table = write_table([{"actin": row["actin"]} for row in new], pictures.parent / "one.csv")
    with pytest.raises(DataError, match=r"no column 'dapi'; .*channels 'dapi', 'actin', in this"):
        find_cases(table, columns=columns)


def test_only_a_bundle_that_is_made_measures_training_steps(pictures, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("metaseg_monai.sharing.plan.measured_step", lambda *one: asked.append(one))
    told = new_bundle("mine", pictures, tmp_path / "b", dry_run=True, **SMALL)
    assert "nothing was measured" in told.plan.facts["memory_gb"].reason
    assert not asked
    new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    assert asked


def test_empty_masks_of_a_whole_test_split_are_told(pictures, tmp_path):
    rows = rows_of(pictures)
    for number, row in enumerate(rows):  # every fourth mask is empty
        row |= {"split": "test" if number % 4 == 0 else "train", "patient": f"p{number}"}
    made = new_bundle("mine", write_table(rows, pictures), tmp_path, dry_run=True, **SMALL)
    assert made.inferred["test"][0] == "no mask has any foreground"


def test_boolean_masks_are_read_as_it_is_said(pictures, tmp_path):
    rows = rows_of(pictures)
    for row in rows:
        mask = imread(pictures.parent / row["mask"]) > 0
        row["mask"] = row["mask"].replace(".png", ".tif")
        tifffile.imwrite(pictures.parent / row["mask"], mask)
    table = write_table(rows, pictures.parent / "bool.csv")
    asked = {"label": "mask", "group": "patient", **SMALL}
    with pytest.raises(DataError, match="--mask_values stored, or shown"):
        new_bundle("mine", table, tmp_path / "b", **asked)
    made = new_bundle("mine", table, tmp_path / "b", mask_values="stored", **asked)
    columns = made.folder / "configs" / "columns.json"
    assert json.loads(columns.read_text())["mask_values"] == "stored"
    read = read_table(made.folder / "data", columns=columns)
    assert all(item["mask_values"] == "stored" for item in read.items("train"))


def test_scores_are_told_by_the_first_names_that_no_score_has(pictures, tmp_path):
    made = new_bundle("mine", pictures, tmp_path / "b", dry_run=True, **SMALL)
    assert made.inferred["domain"][0] == "scanner"
    kinds = [
        {**row, "reading": ("combined", "single")[n % 2]} for n, row in enumerate(rows_of(pictures))
    ]
    write_table([{"reading": row.pop("reading"), **row} for row in kinds], pictures)
    made = new_bundle("mine", pictures, tmp_path / "b", dry_run=True, **SMALL)
    assert made.schema.names[0] == "reading"
    assert made.inferred["domain"][0] == "scanner"


def test_inverted_masks_are_told_and_the_check_can_be_run(pictures, tmp_path, capsys):
    for row in rows_of(pictures):
        mask = pictures.parent / row["mask"]
        imsave(mask, 255 - imread(mask), check_contrast=False)
    made = new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    assert made.inferred["foreground"][0] == "more than background in 24 of 24 labels"
    command = next(one for one in made.next_steps if one.startswith("check: "))
    words = shlex.split(command)[4:]
    assert run_command(words) == 0
    assert "24 of 24 masks have more foreground" in capsys.readouterr().out


def test_what_is_inferred_is_told_with_its_reason(pictures, tmp_path, capfd):
    before = pictures.read_bytes()
    made = new_bundle("mine", pictures, tmp_path / "b", dry_run=True, **SMALL)
    assert not (tmp_path / "b").exists()
    shown = capfd.readouterr().err
    assert all(f"{what}: 100%" in shown for what in ("labels", "fingerprint", "val, test"))
    assert pictures.read_bytes() == before
    values = {name: value for name, (value, _) in made.inferred.items()}
    assert (values["image"], values["label"], values["group"]) == ("img", "mask", "patient")
    assert values["rows"] == 24
    assert "row numbers are those of the file, its header is row 1" in str(made).splitlines()[0]
    assert "12 values in 24 rows" in made.inferred["group"][1]
    assert made.schema.names == ("age", "scanner")
    assert made.schema.field("age").unit == "years"
    assert made.schema.field("scanner").values == ("A", "B")
    assert made.schema.knows_unknown
    told = made.left_out
    assert "identifier" in told["sample_id"]
    assert "dates" in told["acquired"]
    assert "of which a network learns nothing" in told["site"]
    assert "goes with the label's size" in told["lesion_area"]
    assert "tells which labels are empty" in told["has_lesion"]
    assert all(word in str(made) for word in ("patch", "left out lesion_area", "dry run"))


def test_a_bundle_is_complete_and_its_table_a_copy_with_splits(pictures, tmp_path):
    made = new_bundle("mine", pictures, tmp_path / "b", class_names="1=lesion", **SMALL)
    assert check_bundle(made.folder).verdict == "clean"
    columns = json.loads((made.folder / "configs" / "columns.json").read_text())
    assert columns["label_values"] == [255]
    assert columns["image"] == "img"
    (root,) = json.loads((made.folder / "data" / "root.json").read_text()).values()
    assert (made.folder / "data" / root).resolve() == pictures.parent.resolve()
    _, lines, _ = read_lines(made.folder / "data" / "table.csv")
    rows = [cells for _, cells in lines]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    of_group = {row["group"]: row["split"] for row in rows}
    assert all(of_group[row["patient"]] == row["split"] for row in rows)
    assert [row["img"] for row in rows[:2]] == ["raw/0.png", "raw/1.png"]
    planned = json.loads((made.folder / "configs" / "plan.json").read_text())
    assert planned["patch"]["reason"]
    assert MetadataSchema.load(made.folder / "configs" / "schema.json") == made.schema
    page = (made.folder / "docs" / "README.md").read_text()
    assert "Intended use" in page
    assert r"lesion\_area" in page
    told = json.loads((made.folder / "configs" / "metadata.json").read_text())
    assert told["task"] == "Segment lesion"
    assert not list(made.folder.rglob("*.png"))
    with pytest.raises(DataError, match="exists already"):
        new_bundle("mine", pictures, tmp_path / "b", **SMALL)


def test_the_same_seed_gives_the_same_bundle_and_folds_test_every_case_once(pictures, tmp_path):
    texts = []
    for name in ("a", "b"):
        made = new_bundle("mine", pictures, tmp_path / name, folds=3, seed=5, **SMALL)
        texts.append((made.folder / "data" / "table.csv").read_text())
    assert texts[0] == texts[1]
    rows = list(csv.DictReader(texts[0].splitlines()))
    folds = {row["group"]: row["fold"] for row in rows}
    assert sorted(folds.values()) == ["0"] * 4 + ["1"] * 4 + ["2"] * 4
    assert all(folds[row["group"]] == row["fold"] for row in rows)
    scanners = {fold: {r["scanner"] for r in rows if r["fold"] == fold} for fold in "012"}
    assert all({"A", "B"} <= found for found in scanners.values())  # stratified


@pytest.mark.parametrize(("folds", "trainings"), [(None, 9), (3, 27)])
def test_what_the_proposed_study_takes_is_told(folds, trainings, pictures, tmp_path, monkeypatch):
    asked = {**SMALL, "folds": folds}
    made = new_bundle("mine", pictures, tmp_path / "b", **asked)
    enough = -(-made.plan["epochs"] // 4)
    first = f"for a first look --seeds 2 --epochs {enough}: {trainings * 2 // 3} trainings"
    assert f"({trainings} trainings; {first}): " in str(made)
    step = Step(100_000_000, 4.0)  # 2,500 of them take 2.8 hours
    monkeypatch.setattr("metaseg_monai.sharing.plan.measured_step", lambda *one: step)
    again = str(new_bundle("again", pictures, tmp_path / "b", **asked))
    hours = int(re.search(rf"{trainings} trainings, about (\d+) hours here", again)[1])
    assert hours == pytest.approx(trainings * 2.78, abs=1)
    hours = int(re.search(rf"{trainings * 2 // 3} trainings, about (\d+) hours here", again)[1])
    assert hours == pytest.approx(trainings * 2 / 3 * 2.78 / 4, abs=1)


def test_columns_that_were_left_out_can_be_given(pictures, tmp_path):
    given = "lesion_area:continuous:mm2,scanner"
    made = new_bundle("mine", pictures, tmp_path / "b", fields=given, dry_run=True, **SMALL)
    assert made.schema.names == ("lesion_area", "scanner")
    assert made.schema.field("lesion_area").provenance == "label-derived"


def test_what_is_doubtful_is_a_named_choice(pictures, tmp_path):
    _, lines, _ = read_lines(pictures)
    rows = [{**cells, "mask_2": cells["mask"]} for _, cells in lines]
    write_table(rows, pictures)
    with pytest.raises(ConfigError, match=r"'mask', 'mask_2'.*--label"):
        new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    with pytest.raises(ConfigError, match="did you mean 'patient'"):
        new_bundle("mine", pictures, tmp_path / "b", label="mask", group="patien", **SMALL)
    with pytest.raises(ConfigError, match="cannot name a bundle"):
        new_bundle("../mine", pictures, tmp_path / "b", label="mask", **SMALL)
    with pytest.raises(ConfigError, match=r"modality is 'US' .*expected 'CT', 'MR', 'RGB', 'oth"):
        new_bundle("mine", pictures, tmp_path / "b", label="mask", modality="US", **SMALL)
    with pytest.raises(ConfigError, match="folds=1"):
        new_bundle("mine", pictures, tmp_path / "b", label="mask", folds=1, **SMALL)
    with pytest.raises(ConfigError, match="dims=3"):
        new_bundle("mine", pictures, tmp_path / "b", label="mask", dims=3, **SMALL)
    (pictures.parent / "raw" / "3.png").unlink()
    told = r"1 files \(row numbers are those of .* header is row 1\)\n  row 5, column 'img': no"
    with pytest.raises(DataError, match=told):
        new_bundle("mine", pictures, tmp_path / "b", label="mask", **SMALL)
    assert not (tmp_path / "b" / "mine").exists()


def test_volumes_are_planned_in_three_dimensions(volumes, tmp_path):
    made = new_bundle("kidney", volumes, tmp_path / "b", memory_gb=0.5)
    assert made.plan["spatial_dims"] == 3
    assert made.plan["modality"] == "CT"
    assert made.plan["classes"] == 3
    config = json.loads((made.folder / "configs" / "train.json").read_text())
    assert config["preprocessing"][1]["spacing_mm"] == [2.0, 1.0, 1.0]
    assert config["network_def"]["network"]["_target_"] == "DynUNet"
    assert check_bundle(made.folder).verdict == "clean"
    assert config["train"]["augmentation"][0]["_target_"] == "RandCropByLabelClassesd"
    assert config["loss"]["loss"]["_target_"] == "metaseg_monai.losses.DiceCrossEntropy"
    assert config["network_def"]["network"]["deep_supervision"] is True
    assert config["foreground_share"] == made.plan["foreground_share"]
    steps = -(-7 // config["batch_size"]) * config["epochs"]
    assert 2500 <= steps < 2520


@pytest.mark.parametrize("splits", [{"train"}, {"val", "test"}])
def test_scans_that_no_training_could_read_are_all_listed(splits, volumes, tmp_path):
    """A volume without an affine, and one that breaks off."""
    new_bundle("mine", volumes, tmp_path / "b", memory_gb=0.4, network="unet3")
    of_split = [
        row for row in rows_of(tmp_path / "b/mine/data/table.csv") if row["split"] in splits
    ]
    homeless, cut = (tmp_path / row["ct"] for row in (of_split[0], of_split[-1]))
    image = nib.load(homeless)
    image = nib.Nifti1Image(np.asarray(image.dataobj), None)
    nib.save(image, homeless)
    cut.write_bytes(cut.read_bytes()[:500])
    with pytest.raises(DataError) as error:
        new_bundle("again", volumes, tmp_path / "b", memory_gb=0.4, network="unet3")
    told = str(error.value)
    assert re.search(rf"case '.*{homeless}: has no affine", told)
    assert re.search(rf"case '.*{cut}: ", told)
    assert not (tmp_path / "b" / "again").exists()


@pytest.mark.parametrize("name", ["base_lr", "intensity_range"])
def test_settings_that_the_plan_has_no_use_of_are_none_of_the_bundle(name, volumes, tmp_path):
    asked = {"modality": "MR", "network": "unet3", "memory_gb": 0.4}
    made = new_bundle("mine", volumes, tmp_path / "b", **asked)
    with pytest.raises(ConfigError, match=f"Nothing in the configuration uses .*{name}"):
        train(made.folder, tmp_path / "run", **{name: 0.1})
    facts = made.folder / "configs" / "facts.json"  # what a full size names is of use
    sizes = {"paper_size": {"lr_scheduler": f"@{name}"}}
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "sizes": sizes}))
    assert name in json.loads(compose(made.folder)["configs/train.json"])


def test_a_table_as_a_german_spreadsheet_writes_it(pictures, tmp_path):
    rows = rows_of(pictures)
    for number, row in enumerate(rows):
        row["mask"] = str(pictures.parent / row["mask"])  # an absolute path
        row |= {"dose (Gy)": f"{number % 9},5", "death01": number % 2, "price": f"{number + 1},000"}
    with pictures.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    made = new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    assert made.inferred["cells"][0] == "separated by semicolons"
    assert "1,5 is read as 1.5" in made.inferred["cells"][1]
    assert made.schema.field("dose_Gy").range[0] == 0
    assert 7.5 < made.schema.field("dose_Gy").range[1] <= 10.1
    assert "an outcome by its name" in made.left_out["death01"]
    assert made.left_out["price"].startswith("numbers with commas, such as '1,000': write points")
    columns = made.folder / "configs" / "columns.json"
    table = read_table(made.folder / "data", made.schema, columns)
    assert table.rows[1]["metadata"]["dose_Gy"] == "1.5"
    assert table.class_names == {0: "background", 1: "class_1"}


def test_columns_of_images_become_channels(pictures, tmp_path):
    rows = rows_of(pictures)
    write_table([{**row, "flair": row["img"], "image": "x"} for row in rows], pictures)
    with pytest.raises(ConfigError, match="--image img,flair"):
        new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    made = new_bundle("mine", pictures, tmp_path / "b", image="flair,img", **SMALL)
    assert made.plan["in_channels"] == 2
    columns = made.folder / "configs" / "columns.json"
    (first, *_) = read_table(made.folder / "data", made.schema, columns).rows
    assert [one[-9:] for one in first["image"]] == ["raw/0.png"] * 2


def test_images_of_several_channel_counts_are_told_with_the_command_that_takes_them(
    pictures, tmp_path
):
    for number in (2, 5):
        image = np.full((20, 24, 3), 7 * number, np.uint8)
        imsave(pictures.parent / "raw" / f"{number}.png", image, check_contrast=False)
    with pytest.raises(DataError) as refused:
        new_bundle("mine", pictures, tmp_path / "a b", fields=["age"], **SMALL)
    told, command = str(refused.value).splitlines()
    assert "--channels grey leaves most as they are" in told
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "metaseg_monai", "new-bundle"]
    assert words[-2:] == ["--memory_gb", "0.4"]
    assert run_command(words[3:]) == 0
    config = json.loads((tmp_path / "a b" / "mine" / "configs" / "train.json").read_text())
    assert config["preprocessing"][0]["channels"] == "grey"


SPLITS = ("Training", "Training", "validation", "test")


@pytest.mark.parametrize(
    ("split_of", "given", "counts"),
    [
        (lambda n: SPLITS[n // 6], {}, (12, 6, 6)),
        (lambda n: ("train", "test")[n > 15], {}, (14, 2, 8)),  # val is drawn from train
        (lambda n: ("train", "test")[n > 15], {"split": "new"}, (16, 4, 4)),
    ],
)
def test_a_tables_own_splits_are_kept(pictures, tmp_path, split_of, given, counts):
    rows = rows_of(pictures)
    write_table([{**row, "split": split_of(n)} for n, row in enumerate(rows)], pictures)
    made = new_bundle("mine", pictures, tmp_path / "b", **given, **SMALL)
    rows = rows_of(made.folder / "data" / "table.csv")
    found = [row["split"] for row in rows]
    assert tuple(found.count(split) for split in ("train", "val", "test")) == counts


def test_splits_that_divide_a_patient_or_are_unknown_are_refused(pictures, tmp_path):
    rows = rows_of(pictures)
    write_table([{**r, "split": SPLITS[n % 4]} for n, r in enumerate(rows)], pictures)
    with pytest.raises(ConfigError, match=r"divides 6 groups of 'patient'.*--split new"):
        new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    write_table([{**r, "split": "ABCD"[n // 6]} for n, r in enumerate(rows)], pictures)
    with pytest.raises(ConfigError, match=r"'A', 'B'.*--split new"):
        new_bundle("mine", pictures, tmp_path / "b", **SMALL)


def test_copies_of_an_image_stay_in_one_split_or_are_refused(pictures, tmp_path):
    rows = rows_of(pictures)
    for number in range(4, 24, 6):
        (pictures.parent / rows[number]["img"]).write_bytes(
            (pictures.parent / rows[1]["img"]).read_bytes()
        )
    made = new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    copies = rows_of(made.folder / "data" / "table.csv")
    assert {(copies[n]["group"], copies[n]["split"]) for n in (1, 4, 5, 10, 16)} == {
        ("p0", copies[0]["split"])
    }
    assert "rows 3 and 6 have the same image" in made.inferred["group"][1]
    write_table([{**r, "split": SPLITS[n // 6]} for n, r in enumerate(rows)], pictures)
    with pytest.raises(ConfigError, match=r"divides 1 groups .*rows 3 and 18 have the same"):
        new_bundle("other", pictures, tmp_path / "b", **SMALL)


def test_a_tables_own_folds_are_kept_and_a_test_set_may_stay(pictures, tmp_path):
    rows = rows_of(pictures)
    write_table([{**r, "fold": 1 + n // 2 % 3} for n, r in enumerate(rows)], pictures)
    made = new_bundle("mine", pictures, tmp_path / "b", **SMALL)
    files = made.folder / "data", made.schema, made.folder / "configs" / "columns.json"
    tested = [row["group"] for row in fold_cases(read_table(*files), 3).items("test")]
    assert sorted(set(tested)) == ["p11", "p2", "p5", "p8"]
    whole = read_table(*files)
    split_of = {row["case"]: row["split"] for row in fold_cases(whole, 1).rows}
    assert {row["case"]: row["split"] for row in whole.rows} == split_of
    assert made.inferred["in one fold alone"][0] == "scanner 'A' in fold 1, scanner 'B' in fold 2"
    write_table([{**r, "set": ("dev", "test")[n > 19]} for n, r in enumerate(rows)], pictures)
    with pytest.raises(ConfigError, match="train and val are needed"):
        new_bundle("other", pictures, tmp_path / "b", split="set", **SMALL)
    made = new_bundle("other", pictures, tmp_path / "b", split="set", folds=3, **SMALL)
    rows = rows_of(made.folder / "data" / "table.csv")
    assert {r["group"] for r in rows if not r["fold"]} == {"p10", "p11"}
    rows = [{k: v for k, v in r.items() if k != "set"} for r in rows]
    write_table([{**r, "fold": "first"} for r in rows], pictures)
    with pytest.raises(ConfigError, match="column 'fold': 'first'"):
        new_bundle("third", pictures, tmp_path / "b", image="img", label="mask", **SMALL)


def test_values_of_labels_that_are_named_as_classes_are_told(pictures, tmp_path):
    told = r"255 is a value of the labels.*--labels \"255=tumour\", or .*--class_names \"1=tumour\""
    with pytest.raises(ConfigError, match=told):
        new_bundle("mine", pictures, tmp_path / "b", class_names="255=tumour", **SMALL)
    made = new_bundle("mine", pictures, tmp_path, labels="255=tumour", dry_run=True, **SMALL)
    assert made.inferred["classes"][0] == "0 background, 1 tumour"


def test_rows_that_one_file_joins_are_refused_with_what_parts_them(pictures, tmp_path):
    rows = rows_of(pictures)
    common = [{**row, "blank": rows[0]["img"]} for row in rows]
    write_table(common, pictures)
    for more in ({}, {"group": "none"}, {"folds": 3}):
        with pytest.raises(DataError, match=r"1 group.* share .*leave a file that many .*--image"):
            new_bundle("mine", pictures, tmp_path / "b", image="img,blank", **more, **SMALL)
    half = [{**row, "split": ("train", "val", "test")[n % 3]} for n, row in enumerate(common)]
    write_table(half, pictures)
    with pytest.raises(ConfigError, match=r"divides .*; put rows that stay together in one split"):
        new_bundle("mine", pictures, tmp_path / "b", image="img,blank", **SMALL)
    write_table([{**row, "patient": "ab"[n % 2]} for n, row in enumerate(rows)], pictures)
    with pytest.raises(DataError, match=r"2 group.*: name a finer --group, or add cases"):
        new_bundle("mine", pictures, tmp_path / "b", **SMALL)


def test_what_labels_tell_is_found_and_needs_many_rows(pictures):
    rows = rows_of(pictures)
    of_patient = [max(float(r["lesion_area"]) for r in rows[n - n % 2 :][:2]) for n in range(24)]
    more = [{**r, "largest": of_patient[n]} for n, r in enumerate(rows)]
    found = OwnTable(write_table(more, pictures))
    found.scan_labels()
    told = infer_schema(found, None, range(24))[2]
    assert "(largest of its group)" in told["largest"]
    assert "12 groups" in told["largest"]
    assert "lesion_area" in infer_schema(found, None, range(8))[2]  # all rows are judged


STRANGE = "1=a|b # $__import__('os').getcwd()"


def test_names_and_columns_are_data_whatever_is_in_them(pictures, tmp_path):
    rows = rows_of(pictures)
    more = [
        {**r, "dose|mGy": 3 * n * n % 17, "group": "AB"[n // 2 % 2], "fold": n, "volume": n % 5}
        | {
            "plane": ("axial", "coronal")[n % 2],
            "scanner": ("x#$x", "y|@y#z")[n // 4 % 2],
            "coil": ("$x", "@y")[n // 4 % 2],
        }
        for n, r in enumerate(rows)
    ]
    write_table(more, pictures)
    given = {"folds": 3, "class_names": STRANGE, **SMALL}
    beyond = {**given, "class_names": f"{STRANGE},2=@home"}
    with pytest.raises(ConfigError, match=r"class 2 .*--class_names"):
        new_bundle("mine", pictures, tmp_path / "my data", **beyond)
    for code in ("$__import__('os').getcwd()", "@home", "%fat"):
        with pytest.raises(ConfigError, match="begins as MONAI's language"):
            new_bundle("mine", pictures, tmp_path / "b", **{**given, "class_names": f"1={code}"})
    made = new_bundle("mine", pictures, tmp_path / "my data", **given)
    assert "begins as MONAI's language" in made.left_out["coil"]
    assert check_bundle(made.folder).verdict == "clean"
    meta = json.loads((made.folder / "configs" / "metadata.json").read_text())
    parsed = ConfigParser({"_meta_": meta}).get_parsed_content("_meta_")["network_data_format"]
    assert parsed["outputs"]["pred"]["channel_def"]["1"] == STRANGE[2:]
    entries = parsed["inputs"]["meta"]["channel_def"].values()
    assert any(entry.endswith("@y#z") for entry in entries)
    page = (made.folder / "docs" / "README.md").read_text()
    assert r"dose\_mGy" in page
    tables = [line for line in page.splitlines() if line.startswith("| ")]
    assert {line.replace(r"\|", "").count("|") for line in tables} == {4}
    assert str(made.folder.parent) not in page  # which may be packed and shown elsewhere
    assert "train mine --output_dir runs/mine-fold2 --fold 2" in page
    assert f"train '{made.folder}' --output_dir runs/mine-fold0 --fold 0" in str(made)
    assert "--seeds 3 --output runs/mine-study --folds all" in page
    assert "predict runs/mine-fold0,runs/mine-fold1,runs/mine-fold2 --source" in page
    assert "other folds test" in made.plan.facts["planned_from"].reason
    assert "the table's column 'fold' is not used" in made.inferred["fold"][1]
    assert made.plan["scaling"] is False  # by the name volume
    assert "volume" in made.plan.facts["scaling"].reason
    assert re.search(r"metadata age: .*2 of [0-9]+ training rows say nothing", str(made))
    told = json.loads((made.folder / "configs" / "plan.json").read_text())
    assert told["fingerprint"]["value"]["cases"]
    columns = json.loads((made.folder / "configs" / "columns.json").read_text())
    assert columns["group"] == "group_2"
    table = read_table(made.folder / "data", made.schema, made.folder / "configs" / "columns.json")
    assert {row["columns"]["group"] for row in table.rows} == {"A", "B"}
    assert {row["group"] for row in table.rows} == {f"p{n}" for n in range(12)}
    assert table.rows[1]["metadata"]["plane_value"] == "coronal"


def test_what_only_val_and_test_have_is_known_and_told(pictures, tmp_path):
    rows = rows_of(pictures)
    for number, row in enumerate(rows):
        label = np.zeros((20, 24), np.uint8)
        label[2:9, 2:9] = 1
        label[10:15, 3:6] = 2 * (number > 20)
        imsave(pictures.parent / row["mask"], label, check_contrast=False)
        row |= {"split": ("train", "val")[number > 15], "scanner": "AB"[number % 2]}
    rows[-1]["scanner"] = "Z"
    write_table(rows, pictures)
    names = {"class_names": "1=cell,2=lesion", **SMALL}
    made = new_bundle("mine", pictures, tmp_path / "b", **names)
    assert made.plan["classes"] == 3
    assert "class 2 (lesion) is in no training case" in made.inferred["classes"][1]
    assert made.schema.field("scanner").values == ("A", "B")
    assert "scanner 'Z' in row" in made.inferred["unknown"][0]
    assert made.inferred["unknown"][1].endswith("--split new deals otherwise than column 'split'")
    assert "\nunknown: scanner 'Z'" in str(made)
    assert rows_of(made.folder / "data" / "table.csv")[-1]["scanner"] == "unknown"
    page = (made.folder / "docs" / "README.md").read_text()
    assert "evaluate runs/mine --split val" in page  # there is no test


def test_it_trains_at_once_on_planes_and_predicts_volumes(volumes, tmp_path):
    made = new_bundle("flat", volumes, tmp_path / "b", dims=2, network="unet3", memory_gb=0.4)
    assert made.plan["patch"] == [20, 24]
    assert made.inferred["dims"][0] == "2, axial planes of volumes"
    full, train_planes = 3 * 7, 8 * 7  # planes 3 to 5 of 8, counted from the top, of 7 volumes
    told = f"from the {full} of {train_planes} with foreground"
    assert told in made.plan.facts["foreground_drawn"].reason
    drawn = (1 + 2 * full / train_planes) / 3
    assert made.plan["foreground_share"] == pytest.approx(1 / 3 / drawn, abs=1e-3)
    configs = made.folder / "configs"
    flat = slices(read_table(made.folder / "data", made.schema, configs / "columns.json")).rows
    assert {row["plane"] for row in flat if row["foreground"]} == {3, 4, 5}
    assert check_bundle(made.folder).verdict == "clean"
    model = train(made.folder, tmp_path / "run", epochs=1).folder
    assert evaluate(model, modes=["normal"]).scores["cases"].tolist() == [1]
    new = [{"ct": f"ct/{n}.nii.gz", "contrast_phase": ("", "venous")[n]} for n in (0, 1)]
    asked = write_table(new, volumes.parent / "new.csv")  # of images that lie beside it
    masks = predict(model, asked, tmp_path / "masks").masks
    assert [nib.load(path).shape for path in masks] == [(24, 20, 8)] * 2


def test_planes_of_volumes_without_units_are_scaled_by_their_volume(volumes, tmp_path):
    made = new_bundle("mr", volumes, tmp_path / "b", dims=2, modality="other", **SMALL)
    assert made.plan["normalisation"] == {"_target_": "metaseg_monai.transforms.NormalizeVolumed"}
    assert check_bundle(made.folder).verdict == "clean"
    model = train(made.folder, tmp_path / "run", epochs=1).folder
    asked = {"output": tmp_path / "masks", "meta": {"contrast_phase": "venous"}}
    assert len(predict(model, volumes.parent / "ct" / "0.nii.gz", **asked).masks) == 1
    intensity = json.loads((model / "model.json").read_text())["intensity"]
    assert intensity["indifferent"]


def test_structures_are_chosen_of_many(volumes, tmp_path):
    for file in volumes.parent.glob("ct/*_seg.nii.gz"):
        stored = nib.load(file)
        label = np.choose(np.asarray(stored.dataobj), [0, 40, 117]).astype(np.uint8)
        label[0, 0, 0] = 3
        nib.save(nib.Nifti1Image(label, stored.affine), file)
    asked = {"labels": "117=inner,40=outer", "network": "unet3", "memory_gb": 0.4}
    with pytest.raises(ConfigError, match="--labels names the classes already"):
        new_bundle("organs", volumes, tmp_path / "b", class_names="1=inner", **asked)
    made = new_bundle("organs", volumes, tmp_path / "b", **asked)
    assert made.inferred["classes"][0] == "0 background, 1 inner, 2 outer"
    assert check_bundle(made.folder).verdict == "clean"
    model = train(made.folder, tmp_path / "run", epochs=1).folder
    counts = evaluate(model, modes=["normal"]).counts
    assert (counts["tp"] + counts["fn"]).tolist() == [4, 12 * (4 + int(counts["case"][0][3:])) - 4]
    mask = nib.load(predict(model, volumes, tmp_path / "masks").masks[0])
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_without_metadata_it_trains_and_predicts_all_the_same(pictures, tmp_path):
    rows = rows_of(pictures)
    write_table([{k: row[k] for k in ("img", "mask", "sample_id")} for row in rows], pictures)
    made = new_bundle("bare", pictures, tmp_path / "b", memory_gb=0.4)
    assert made.schema.names == ()
    assert "the variants none and se, no others" in made.inferred["metadata"][1]
    assert check_bundle(made.folder).verdict == "clean"
    model = train(made.folder, tmp_path / "run", epochs=1).folder
    assert evaluate(model).scores.index.tolist() == ["normal"]
    assert len(predict(model, pictures.parent / "raw", tmp_path / "masks").masks) == 24
    with pytest.raises(ConfigError, match="without metadata choose none or se"):
        train(made.folder, tmp_path / "sme", epochs=1, variant="sme")
    asked = new_bundle("bare2", pictures, tmp_path / "b", fields="none", dry_run=True, **SMALL)
    assert asked.schema.names == ()


@pytest.mark.parametrize(
    ("table", "network"),
    [("pictures", "unet3"), ("volumes", "dynunet_res"), ("volumes", "segresnet_ds")],
)
def test_it_trains_at_once(table, network, tmp_path, request):
    file = request.getfixturevalue(table)
    made = new_bundle("mine", file, tmp_path / "b", network=network, memory_gb=0.4)
    run = train(made.folder, tmp_path / "run", epochs=1)
    assert (run.folder / "model.pt").is_file()


def commands_of(chapter):
    """The commands of a chapter of the tutorial, as words, made small."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {chapter}")[2].partition("\n## ")[0]
    blocks = "\n".join(block for block in text.split("```")[1::2])
    for line in blocks.splitlines():
        words = shlex.split(line)
        if words[:3] != ["python", "-m", "metaseg_monai"]:
            continue
        words = words[3:]
        if words[0] == "new-bundle":
            words += ["--memory_gb", "0.4"]
        if words[0] in ("train", "study"):
            words += ["--epochs", "1"]
        yield [
            "1" if before == "--seeds" else word
            for before, word in zip(["", *words], words, strict=False)
        ]


def header_of(table):
    text = PAGE.read_text(encoding="utf-8").partition(f"`{table}`")[2]
    return text.split("```")[1].split()[0].split(",")


def test_the_tutorial_of_microscopy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    for folder in ("raw", "masks", "more"):
        Path(folder).mkdir()
    for number in range(18):
        label = np.zeros((24, 24), np.uint8)
        label[4 : 12 + number // 3, 5:15] = 255
        image = rng.integers(0, 60, label.shape).astype(np.uint8) + label // 2
        imsave(f"raw/{number}.png", image, check_contrast=False)
        imsave(f"masks/{number}.png", label, check_contrast=False)
        known = (f"P{number // 3}", ("HeLa", "U2OS")[number % 2], (20, 40)[number // 3 % 2])
        cells = (
            f"raw/{number}.png",
            f"masks/{number}.png",
            *known,
            "" if number == 5 else 35 + number,
        )
        rows.append(dict(zip(header_of("wells.csv"), cells, strict=True)))
    write_table(rows, "wells.csv")
    imsave("more/new.png", image, check_contrast=False)
    told = [run_command(words) for words in commands_of("Microscopy")]
    assert told == [0] * 4
    assert list(Path("found").glob("new.*"))


@pytest.mark.slow  # a study of three trainings, four processes
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_tutorial_of_ct(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    Path("scans").mkdir()
    for number in range(10):
        image = rng.integers(-1000, 900, (24, 20, 16)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[4 : 8 + number, 4:8, 2:5], label[5:7, 5:7, 8:10] = 1, 2
        files = f"scans/p{number:02d}_ct.nii.gz", f"scans/p{number:02d}_mask.nii.gz"
        for array, file in zip((image, label), files, strict=True):
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), file)
        told = ("", "Siemens", "GE")[number % 3], (1.5, 3, 5)[number % 3]
        cells = (f"p{number:02d}", *files, "" if number == 2 else 40 + number, *told)
        cells += (("venous", "arterial", "")[number // 2 % 3],)
        rows.append(dict(zip(header_of("cohort.csv"), cells, strict=True)))
    write_table(rows, "cohort.csv")
    write_table([{k: v for k, v in row.items() if k != "mask"} for row in rows[:2]], "new.csv")
    told = [run_command(words) for words in commands_of("CT")]
    assert told == [0] * 6
    assert len(list(Path("masks").rglob("*.nii.gz"))) == 2
    assert Path("runs/organs-study/report.html").is_file()


# DICOM series: folders as images, and what their elements say as metadata.

ELEMENTS = "+thick=SliceThickness,+vendor=Manufacturer,+kernel=ConvolutionKernel"


@pytest.fixture
def cohort(tmp_path):
    """A table of 6 DICOM series of CT in folders named as their UIDs, and their NIfTI twins."""
    needed("pydicom", reason="needs the extra [dicom]")
    from tests.images.test_dicom import saved, series

    rng, affine = np.random.default_rng(0), np.diag([-1.0, -1.0, 2.0, 1.0])
    (tmp_path / "twins").mkdir()
    rows = []
    for number in range(6):
        image = rng.integers(-1000, 900, (24, 20, 6)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[4 : 8 + number, 4:8, 2:5] = 1
        planes = series(image, affine)
        for plane in planes:
            plane.Manufacturer = ("SIEMENS", "GE")[number % 2]
            plane.ConvolutionKernel = (["Br40d", "3"], "STANDARD")[number % 2]
            plane.SliceThickness = str(2 + number)
        if number == 2:
            planes[0].SliceThickness = "9"
        rng.shuffle(planes)
        saved(tmp_path / "scans" / f"1.2.840.{number}", planes)
        for name, array in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(array, affine), tmp_path / "twins" / f"{name}{number}.nii.gz")
        mask = f"twins/label{number}.nii.gz"
        vendor = "Philips" if number == 4 else ""
        scan = {"scan": f"scans/1.2.840.{number}", "mask": mask, "vendor": vendor}
        rows.append({**scan, "patient": f"p{number}", "split": "test" if number == 5 else "train"})
    return write_table(rows, tmp_path / "cohort.csv")


def test_series_are_images_and_their_elements_metadata(cohort, tmp_path):
    made = new_bundle("mine", cohort, tmp_path / "b", fields=ELEMENTS, split="new", **SMALL)
    assert made.inferred["image"][0] == "scan"
    told = made.inferred["odd elements"][0]
    assert "row 4: SliceThickness is not the same in all planes" in told
    copy = {row["patient"]: row for row in rows_of(made.folder / "data" / "table.csv")}
    cells = [(copy[f"p{n}"]["thick"], copy[f"p{n}"]["vendor"]) for n in range(6)]
    assert cells == [("2", "SIEMENS"), ("3", "GE"), ("", "SIEMENS"), ("5", "GE"),
                     ("6", "Philips"), ("7", "GE")]  # fmt: skip
    assert {row["kernel"] for row in copy.values()} == {"Br40d\\3", "STANDARD"}
    tags = {field.name: field.tag for field in made.schema.fields}
    assert tags == {"vendor": "Manufacturer", "thick": "SliceThickness",
                    "kernel": "ConvolutionKernel"}  # fmt: skip
    assert made.schema.field("thick").unit == "mm"
    about = json.loads((made.folder / "configs" / "metadata.json").read_text())
    assert about["data_type"] == "dicom"
    assert made.plan.facts["modality"] == ("CT", "CT by the DICOM headers: Hounsfield units")
    texts = b"".join(file.read_bytes() for file in made.folder.rglob("*") if file.is_file())
    from tests.images.test_dicom import SECRETS

    assert not any(secret.encode() in texts for secret in SECRETS)


def test_series_are_read_alike_in_training_and_prediction(cohort, tmp_path):
    made = new_bundle("mine", cohort, tmp_path / "b", fields=ELEMENTS, split="new", **SMALL)
    schema = MetadataSchema.load(made.folder / "configs" / "schema.json")
    columns = json.loads((made.folder / "configs" / "columns.json").read_text())
    trained = read_table(made.folder / "data" / "table.csv", schema, columns).rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the series whose planes disagree
        predicted = find_cases(tmp_path / "scans", schema, unknown_trained=True)
    parser = ConfigParser()
    parser.read_config(made.folder / "configs" / "train.json")
    parser["bundle_root"] = str(made.folder)
    load, axial = (parser.get_parsed_content(f"preprocessing#{n}") for n in range(2))
    assert len(trained) == len(predicted) == 6
    by_case = {row["case"]: row for row in trained}
    for number, item in enumerate(predicted):
        assert item["case"] == f"1.2.840.{number}"
        other = next(row for case, row in by_case.items() if f"_{item['case']}__" in f"{case}__")
        if number != 4:  # whose vendor the table says otherwise
            given = {name: cell for name, cell in other["metadata"].items() if cell != ""}
            assert schema.encode(given).tolist() == schema.encode(item["metadata"]).tolist()
        twin = {"case": "twin", "image": str(tmp_path / "twins" / f"image{number}.nii.gz")}
        images = [axial(load(dict(one)))["image"] for one in (other, item, twin)]
        for image in images[1:]:
            assert image.shape[1:] == (20, 24, 6)
            np.testing.assert_array_equal(image.numpy(), images[0].numpy())
            np.testing.assert_allclose(image.affine, images[0].affine)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("+who=PatientName", "PatientName tells who somebody is"),
        ("+device=DeviceSerialNumber", "DeviceSerialNumber tells who somebody is"),
        ("+day=StudyDate", "is of the kind DA, which tells who"),
        ("+thick=SliceThicknes", "DICOM has no such element; did you mean 'SliceThickness'"),
        ("+thick=SliceThickness:continuous:kg", "is in mm, which cannot be converted to 'kg'"),
        ("+thick=SliceThickness:ordinal", "read as categorical or continuous, not as ordinal"),
        ("+thick=", r"expected column\[=Element\]"),
    ],
)
def test_elements_that_can_be_no_metadata_are_refused(cohort, tmp_path, fields, message):
    with pytest.raises((ConfigError, MetadataError), match=message):
        new_bundle("mine", cohort, tmp_path / "b", fields=fields, split="new", **SMALL)
    assert not (tmp_path / "b").exists()


def test_elements_of_images_that_are_no_series(pictures, tmp_path):
    with pytest.raises(DataError, match=r"'img' is a folder with a DICOM series, so that thick="):
        new_bundle("mine", pictures, tmp_path / "b", fields="+thick=SliceThickness", **SMALL)
