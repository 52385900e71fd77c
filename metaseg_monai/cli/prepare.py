"""The commands that turn data sets, public or of a laboratory, into folders with a table."""

from typing import Any

from metaseg_monai.cli.prepare_microscopy import PrepareMicroscopy
from metaseg_monai.cli.prepare_tables import PrepareTables


class Prepare(PrepareMicroscopy, PrepareTables):
    """Turn data sets, public or of a laboratory, into folders with a table."""

    def kits21(
        self,
        source: str,
        output: str,
        slice_rule: Any = "mass",
        workers: int = 1,
        clinical: str | None = None,
        label_name: str | None = None,
        labels_only: bool = False,
        spacing: Any = 0.78,
        size: Any = "radiographic",
        splits: str | None = None,
        train: float = 0.7,
        val: float = 0.15,
        test: float = 0.15,
        seed: int = 0,
        checksums: str | None = None,
    ) -> str:
        """Cut the CT volumes of KiTS19, KiTS21 or KiTS23 into axial slices with a table.

        Every case is checked first; one with a problem is left out and told, the others are
        prepared. Killed or interrupted, the same command goes on where it stopped.

        Example:
            python -m metaseg_monai prepare kits21 --source kits21/kits21/data \
--output kits21_mass --slice_rule mass --workers 4

        Args:
            source: folder of the download, with case_00000, case_00001, ...
            output: new or empty folder, or one prepared with the same settings.
            slice_rule: mass (slices with tumour or cyst, the paper's), kidney or all.
            workers: processes; each holds one volume in memory.
            clinical: clinical table (JSON or CSV); by default the kits.json of the source.
            label_name: file name of the labels; by default aggregated_MAJ_seg or segmentation.
            labels_only: for sources without images: measures and slices.csv, no table to train on.
            spacing: side of a pixel in mm, or native for pixels as they are.
            size: radiographic, or pathologic (known only after the operation).
            splits: official lists of cases: folder of train.txt, ..., JSON or CSV.
            train: share of the patients; so val and test.
            val: see train.
            test: see train.
            seed: of the split.
            checksums: file of sha256sum to compare the source with.
        """
        from metaseg_monai.prepare.kits import prepare_kits21
        from metaseg_monai.sharing.prepare import told

        return told(
            prepare_kits21(
                source,
                output,
                slice_rule=slice_rule,
                workers=workers,
                clinical=clinical,
                label_name=label_name,
                labels_only=labels_only,
                spacing=spacing,
                size=size,
                splits=splits,
                train=train,
                val=val,
                test=test,
                seed=seed,
                checksums=checksums,
            ),
            output,
        )
