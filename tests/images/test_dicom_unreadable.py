import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images import dicom as series
from metaseg_monai.tables import find_cases


@pytest.mark.parametrize("reading", [series.dicom_attributes, lambda path: find_cases(path, None)])
def test_a_plane_that_may_not_be_read_is_named(tmp_path, monkeypatch, reading):
    pytest.importorskip("pydicom", reason="needs the extra [dicom]")
    (tmp_path / "IM0").write_bytes(b"\0" * 128 + b"DICM")

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(series, "_has_mark", forbidden)
    with pytest.raises(DataError, match=r"IM0: cannot be read \(Permission denied\); check its"):
        reading(tmp_path)
