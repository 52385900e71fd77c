"""DICOM series as volumes; needs the extra ``dicom``."""

from metaseg_monai.data.dicom.series import dicom_attributes, is_dicom_folder, read_dicom_series

__all__ = ["dicom_attributes", "is_dicom_folder", "read_dicom_series"]
