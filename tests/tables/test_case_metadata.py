import json

import pytest

from metaseg_monai.errors import ConfigError, MetadataError
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.tables import find_cases

SIZE = Continuous(
    name="tumour_size_mm",
    unit="mm",
    range=(5, 250),
    missing="unknown",
    provenance="clinical prior",
    availability="pre-operative",
)


def test_kits_json_beside_the_cases_gives_their_metadata(kits):
    with pytest.warns(MetadataWarning, match="no tumour_size_mm for 'case_00003', 'case_00009'"):
        items = find_cases(kits, MetadataSchema([SIZE]))
    assert [item["metadata"] for item in items] == [
        {"tumour_size_mm": "41"},
        {"tumour_size_mm": ""},
        {},
    ]
    with pytest.warns(MetadataWarning):
        assert find_cases(kits.parent, MetadataSchema([SIZE]))[0]["metadata"]


def test_cases_without_a_size_are_refused_by_name_where_it_must_be_known(kits):
    strict = MetadataSchema([SIZE.model_copy(update={"missing": "error"})])
    with pytest.raises(MetadataError, match=r"(?s)2 problem.*case_00003.*case_00009.*has no row"):
        find_cases(kits, strict)


@pytest.mark.parametrize("value", ["41", "unknown"])
def test_given_values_take_the_place_of_kits_json(kits, value):
    items = find_cases(kits, MetadataSchema([SIZE]), metadata={"tumour_size_mm": value})
    assert [item["metadata"] for item in items] == [{"tumour_size_mm": value}] * 3


@pytest.mark.parametrize("value", ["4.1", "300", "41 mm"])
def test_values_in_cm_or_out_of_range_are_refused(kits, value):
    with pytest.raises(MetadataError, match="in mm from 5 to 250"):
        find_cases(kits, MetadataSchema([SIZE]), metadata={"tumour_size_mm": value})


def test_a_clinical_csv_is_matched_by_case(tmp_path, write_csv, save_volume):
    for name in ("b/p1.nii.gz", "p2.nii"):
        save_volume(tmp_path / "in" / name)
    rows = [{"case_id": "p2", "tumour_size_mm": "30"}, {"case_id": "b_p1", "tumour_size_mm": "20"}]
    path = write_csv(tmp_path / "clinical.csv", rows)
    items = find_cases(tmp_path / "in", MetadataSchema([SIZE]), metadata=path)
    assert [(item["case"], item["mask"], item["metadata"]) for item in items] == [
        ("b_p1", "b/p1.nii.gz", {"tumour_size_mm": "20"}),
        ("p2", "p2.nii", {"tumour_size_mm": "30"}),
    ]


def test_a_file_without_the_field_says_what_it_has(kits, write_csv, tmp_path):
    path = write_csv(tmp_path / "c.csv", [{"case_id": "case_00000", "age": "61"}])
    schema = MetadataSchema([SIZE.model_copy(update={"name": "grade"})])
    with pytest.raises(MetadataError, match=r"no column 'grade'; it has .*'age'"):
        find_cases(kits, schema, metadata=str(path))


def test_a_table_of_volumes_with_its_own_or_a_files_metadata(tmp_path, write_csv, save_volume):
    save_volume(tmp_path / "in" / "v" / "a.nii.gz")
    save_volume(tmp_path / "in" / "b.nii.gz")
    rows = [
        {"image": "v/a.nii.gz", "name": "first", "tumour_size_mm": "40"},
        {"image": "b.nii.gz", "name": "second", "tumour_size_mm": "unknown"},
        {"image": "b.nii.gz", "name": "third", "tumour_size_mm": "60"},
    ]
    write_csv(tmp_path / "in" / "table.csv", rows)
    items = find_cases(tmp_path / "in", MetadataSchema([SIZE]), {"case": "name"})
    assert [item["metadata"]["tumour_size_mm"] for item in items] == ["40", "unknown", "60"]
    assert [item["mask"] for item in items] == ["v/a.nii.gz", "second.nii.gz", "third.nii.gz"]
    write_csv(
        tmp_path / "in" / "table.csv", [{k: row[k] for k in row if k[0] != "t"} for row in rows[:2]]
    )
    sizes = [{"case_id": name, "tumour_size_mm": "77"} for name in ("first", "second")]
    file = write_csv(tmp_path / "sizes.csv", sizes)
    items = find_cases(tmp_path / "in", MetadataSchema([SIZE]), {"case": "name"}, file)
    assert [item["metadata"] for item in items] == [{"tumour_size_mm": "77"}] * 2


def test_links_go_by_their_own_names(tmp_path, save_volume):
    """A folder of links to volumes, and one of links to folders, as a data store makes them."""
    store = tmp_path / "store"
    save_volume(store / "case_00001" / "imaging.nii.gz")
    for case in ("case_00004", "case_00005"):
        (tmp_path / "files" / case).mkdir(parents=True)
        link = tmp_path / "files" / case / "imaging.nii.gz"
        link.symlink_to(store / "case_00001" / "imaging.nii.gz")
        (tmp_path / "folders").mkdir(exist_ok=True)
        (tmp_path / "folders" / case).symlink_to(store / "case_00001")
    rows = [{"case_id": f"case_{n:05d}", "radiographic_size": n} for n in (1, 4, 5)]
    for kind in ("files", "folders"):
        (tmp_path / kind / "kits.json").write_text(json.dumps(rows))
        items = find_cases(tmp_path / kind, MetadataSchema([SIZE]))
        assert [item["case"] for item in items] == ["case_00004", "case_00005"]
        assert [item["metadata"]["tumour_size_mm"] for item in items] == ["40", "50"]
        assert [item["image"] for item in items] == [
            str(tmp_path / kind / case / "imaging.nii.gz") for case in ("case_00004", "case_00005")
        ]
        (one,) = find_cases(tmp_path / kind / "case_00005", MetadataSchema([SIZE]))
        assert (one["case"], one["metadata"]["tumour_size_mm"]) == ("case_00005", "50")


@pytest.mark.parametrize("name", ["kits.json", "kits23.json", "kits21.json", "kits19.json"])
@pytest.mark.parametrize("source", ["case_00000", "case_00000/imaging.nii.gz"])
def test_one_case_takes_its_size_from_the_table_above_its_folder(kits, source, name):
    (kits / "kits.json").rename(kits / name)
    (item,) = find_cases(kits / source, MetadataSchema([SIZE]))
    assert (item["case"], item["mask"]) == ("case_00000", "imaging.nii.gz")
    assert item["metadata"] == {"tumour_size_mm": "41"}


@pytest.mark.parametrize("place", ["", "dataset"])
def test_the_table_of_kits23_is_found_too(kits, place):
    kits.rename(kits.with_name("dataset"))
    top = kits.parent
    (top / "dataset" / "kits.json").rename(top / place / "kits23.json")
    with pytest.warns(MetadataWarning, match="case_00009"):
        items = find_cases(top, MetadataSchema([SIZE]))
    assert items[0]["metadata"] == {"tumour_size_mm": "41"}


@pytest.mark.parametrize("metadata", [None, {}, {"tumour_size_mm": ""}])
def test_a_value_that_no_one_gave_is_not_silently_unknown(tmp_path, metadata, save_volume):
    save_volume(tmp_path / "in" / "a.nii.gz")
    with pytest.warns(MetadataWarning, match=r"no tumour_size_mm .* unknown for all 1 image"):
        find_cases(tmp_path / "in", MetadataSchema([SIZE]), metadata=metadata)


def test_a_file_that_names_none_of_the_cases_is_refused(kits, write_csv, tmp_path):
    path = write_csv(tmp_path / "c.csv", [{"case_id": "Case 0", "tumour_size_mm": "41"}])
    message = r"no row for any of 3 case\(s\) \('case_00000', .*has rows for 'Case 0'"
    with pytest.raises(MetadataError, match=message):
        find_cases(kits, MetadataSchema([SIZE]), metadata=path)


@pytest.mark.parametrize("given", [{"tumour_size_mm": "41"}, "kits.json"])
def test_metadata_are_refused_where_the_variant_takes_none(kits, given):
    with pytest.raises(ConfigError, match="variant takes no metadata"):
        find_cases(kits, None, metadata=given)
