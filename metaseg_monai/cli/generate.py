"""The commands that generate data from a seed."""

from typing import Any

from metaseg_monai.cli.typed import as_typed


@as_typed()
class Generate:
    """Make data sets from nothing but a seed."""

    def synthetic_shapes(
        self,
        output: str,
        train: int = 600,
        val: int = 120,
        test: int = 120,
        size: int = 64,
        seed: int = 0,
        overlap: float = 0.1,
    ) -> str:
        """Write images of six shapes, masks of one of them, and table.csv (thesis 4.6).

        Example:
            python -m metaseg_monai generate synthetic-shapes --output shapes --size 64 --seed 0

        Args:
            output: a new or empty folder.
            train: number of training images, one task each.
            val: number of validation images.
            test: number of test images.
            size: side of the square images in pixels, at least 32.
            seed: the same seed gives the same bytes.
            overlap: largest part of a shape that another may cover; 1 for no limit.
        """
        from metaseg_monai.simulate.shapes import generate_synthetic_shapes

        return str(generate_synthetic_shapes(output, train, val, test, size, seed, overlap))

    def kits21_phantom(
        self, output: str, cases: int = 24, matrix: int = 96, seed: int = 0, first: int = 0
    ) -> str:
        """Write CT phantoms in KiTS21's layout, whose tumours' extent is known but hardly seen.

        Example:
            python -m metaseg_monai generate kits21-phantom --cases 24 --output phantoms

        Args:
            output: a new or empty folder; gets case_00000/imaging.nii.gz, ... and kits.json.
            cases: number of patients.
            matrix: pixels a side, 96 for about 4 mm each; 512 as a real scan.
            seed: the same seed gives the same voxels.
            first: number of the first case; other numbers are other patients.
        """
        from metaseg_monai.simulate.phantoms.scans import generate_phantoms

        return str(generate_phantoms(output, cases, matrix, seed, first))

    def cells(
        self,
        output: str,
        recipe: str = "seven_lines",
        layout: Any = "small",
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
        size: int = 1080,
        seed: int = 0,
        cue: Any = "image",
        fields_per_well: int = 4,
        workers: int = 1,
    ) -> str:
        """Simulate microscopy of cells: 16-bit TIFF, labels, objects, plates, all metadata.

        Example:
            python -m metaseg_monai generate cells --recipe seven_lines --output cells --size 256

        Args:
            output: a new or empty folder.
            recipe: seven_lines, two_lines, extended, magnification, acquisition (every field
                varies, magnifications 20/30/1/49 %), heterogeneous, styles, anomalies,
                anomalies_curtailed or anomalies_curtailed_apart.
            layout: small (56 / 14 / 28 images) or thesis (the numbers of its appendix A).
            train: training images, with the texts' proportions; so val and test.
            val: validation images.
            test: test images.
            size: pixels a side; a smaller image is a smaller field, not a coarser one.
            seed: the same seed gives the same bytes.
            cue: what tells the nucleus' shape: image (faintly seen), metadata (only the line tells
                it) or nothing (the line decides nothing).
            fields_per_well: most images of a well; a well stays in one split.
            workers: processes.
        """
        from metaseg_monai.simulate.cells.write import generate_cells

        made = generate_cells(
            output,
            recipe=recipe,
            layout=layout,
            train=train,
            val=val,
            test=test,
            size=size,
            seed=seed,
            cue=cue,
            fields_per_well=fields_per_well,
            workers=workers,
        )
        return str(made)
