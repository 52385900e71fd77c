import warnings

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images.dicom import read_dicom_series

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
SECRETS = ("Doe^Jane", "PID-4711", "19700131", "Saint Elsewhere")
VOLUME = np.random.default_rng(0).integers(-1024, 3072, (6, 5, 4)).astype(np.int16)
# stored toward left, back, head, as a scanner gives a patient who lies on the back
AFFINE = np.array([[-0.7, 0, 0, 10], [0, -0.8, 0, 20.5], [0, 0, 2.5, -30], [0, 0, 0, 1]])


def dicom_plane(hounsfield, orientation, spacing, position):
    """One CT plane (rows, columns) as scanners store it: 12 bits, 1024 above HU."""
    import pydicom  # where it is missing, the tests that need it are skipped

    plane = pydicom.Dataset()
    plane.file_meta = pydicom.dataset.FileMetaDataset()
    plane.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    plane.file_meta.MediaStorageSOPClassUID = plane.SOPClassUID = CT_CLASS
    uid = pydicom.uid.generate_uid()
    plane.file_meta.MediaStorageSOPInstanceUID = plane.SOPInstanceUID = uid
    plane.PatientName, plane.PatientID, plane.PatientBirthDate, plane.InstitutionName = SECRETS
    plane.Modality, plane.SeriesInstanceUID, plane.FrameOfReferenceUID = "CT", "1.2.3", "1.2.4"
    plane.SeriesNumber, plane.SeriesDescription = 3, "Abdomen venous"
    plane.ImageOrientationPatient = [f"{part:.12g}" for part in orientation]
    plane.ImagePositionPatient = [f"{part:.12g}" for part in position]
    plane.PixelSpacing = [f"{part:.12g}" for part in spacing]
    plane.Rows, plane.Columns = hounsfield.shape
    plane.SamplesPerPixel, plane.PhotometricInterpretation = 1, "MONOCHROME2"
    plane.BitsAllocated, plane.BitsStored, plane.HighBit = 16, 12, 11
    plane.PixelRepresentation, plane.RescaleSlope, plane.RescaleIntercept = 0, 1, -1024
    plane.RescaleType = "HU"
    plane.PixelData = (hounsfield.astype(np.int32) + 1024).astype("<u2").tobytes()
    return plane


class Series:
    """Called, it makes the planes of a volume (columns, rows, planes) of an affine as NIfTI has."""

    volume, affine, secrets = VOLUME, AFFINE, SECRETS

    def __call__(self, volume=VOLUME, affine=AFFINE):
        lps = np.diag([-1.0, -1, 1, 1]) @ affine
        sides = np.linalg.norm(lps[:3, :3], axis=0)
        directions = lps[:3, :3] / sides
        return [
            dicom_plane(
                volume[:, :, index].T,
                (*directions[:, 0], *directions[:, 1]),
                (sides[1], sides[0]),
                lps[:3, 3] + index * lps[:3, 2],
            )
            for index in range(volume.shape[2])
        ]


@pytest.fixture(scope="session")
def series():
    return Series()


@pytest.fixture(scope="session")
def saved():
    """Write planes into a folder, a file each."""

    def save(folder, planes, names="IM{:04d}.dcm"):
        folder.mkdir(parents=True, exist_ok=True)
        for index, plane in enumerate(planes):
            with warnings.catch_warnings():  # pydicom warns of the faults that tests put in
                warnings.simplefilter("ignore")
                plane.save_as(folder / names.format(index), enforce_file_format=True)
        return folder

    return save


@pytest.fixture(scope="session")
def refused(saved):
    def refuse(folder, planes, message):
        with pytest.raises(DataError, match=message):
            read_dicom_series(saved(folder, planes))

    return refuse
