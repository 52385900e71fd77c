from metaseg_monai.files import remove_stale


def test_only_a_table_that_begins_so_is_removed(tmp_path):
    path = tmp_path / "scores.csv"
    assert not remove_stale(path, ["case", "group"])
    for own in ("case,size\n", "case\n", "", "group,case\n", "case,group2\n"):
        path.write_text(own)
        assert not remove_stale(path, ["case", "group"])
        assert path.read_text() == own
    path.write_bytes(b"\xff\xfe\x00")
    assert not remove_stale(path, ["case"])
    for table in ("case,group,dice\na,b,1\n", "case,group\r\n", "case,group"):
        path.write_text(table)
        assert remove_stale(path, ["case", "group"])
        assert not path.exists()
    path.mkdir()
    assert not remove_stale(path, ["case"])
