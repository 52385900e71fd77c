"""The commands that prepare microscopy images for training: four layouts, one table."""

from typing import Any

from metaseg_monai.cli.prepare_settings import prepare_options


class PrepareMicroscopy:
    """Turn microscopy images, public or of a laboratory, into folders with a table."""

    def cells(
        self,
        source: str,
        output: str,
        metadata: str | None = None,
        key: str | None = None,
        images: str = "images",
        masks: str = "masks",
        mask_suffix: str = "",
        labels: str = "classes",
        classes: int = 2,
        threshold: float | None = None,
        group: str = "",
        split: str | None = None,
        train: float = 0.7,
        val: float = 0.15,
        test: float = 0.15,
        seed: int = 0,
        grey: bool = False,
        axes: str | None = None,
        ome: bool = False,
        dry_run: bool = False,
    ) -> str:
        """Prepare images/, masks/ and a metadata table, whose columns become columns.

        Every case is checked; one with a problem is left out and told, the others are prepared.
        Files are copied byte for byte, unless a conversion is asked for.

        Example:
            python -m metaseg_monai prepare cells --source seven_lines --output cells \
--group plate,well --labels binary --dry_run

        Args:
            source: folder with images/, masks/ (same names) and one CSV file.
            output: new or empty folder, or one made by the same command, which is made anew.
            metadata: the CSV file, where it is not the only one of the source.
            key: its column that names the images, as path, file name or name without suffix.
            images: folder of the images.
            masks: folder of the masks; that of the images, if mask_suffix tells them apart.
            mask_suffix: what a mask's name has behind its image's, such as _mask.
            labels: classes (values are the classes 0, 1, ...), binary (0 and one other value,
                such as 255) or instances (every object has a number).
            classes: number of classes with the background.
            threshold: grey values above it are foreground; takes the place of labels.
            group: columns whose cases stay in one split, such as plate,well; by default the
                table's column group, where it has one.
            split: column of train, val and test; by default split, else a seeded draw.
            train: part of the groups, or a number of groups; so val and test.
            val: see train.
            test: see train.
            seed: of the draw.
            grey: turn colours into one channel (luma, ITU-R BT.601).
            axes: of TIFF files that name theirs wrongly, such as CYX for pages that are channels.
            ome: columns pixel_um, magnification and channel from OME-TIFF metadata.
            dry_run: show the first rows and the counts, and write nothing.
        """
        from metaseg_monai.prepare.cells import prepare_cells
        from metaseg_monai.sharing.prepare import told

        options = prepare_options(group, (train, val, test), seed, grey, axes, ome, dry_run)
        made = prepare_cells(
            source, output, metadata, key, images, masks, mask_suffix, labels, classes, threshold,
            split, options,
        )  # fmt: skip
        return told(made, output, dry_run)

    def dsb2018(
        self,
        source: str,
        output: str,
        metadata: str | None = None,
        key: str | None = None,
        split: str | None = None,
        overlap: Any = "refuse",
        group: str = "",
        train: float = 0.7,
        val: float = 0.15,
        test: float = 0.15,
        seed: int = 0,
        grey: bool = False,
        ome: bool = False,
        dry_run: bool = False,
    ) -> str:
        """Prepare stage1_train of the Data Science Bowl 2018 (Kaggle; BBBC038).

        The files of the objects become one label and one TIFF of object numbers.

        Example:
            python -m metaseg_monai prepare dsb2018 --source stage1_train --output nuclei --grey

        Args:
            source: stage1_train, with <id>/images/<id>.png and <id>/masks/*.png.
            output: new or empty folder, or one made by the same command, which is made anew.
            metadata: CSV file with a row an image, for columns, groups and splits.
            key: its column that names the images.
            split: its column of train, val and test; by default split, else a seeded draw.
            overlap: pixels of several objects: refuse, or smaller (they go to the smaller one).
            group: columns whose cases stay in one split; by default the table's column group.
            train: part of the groups, or a number of groups; so val and test.
            val: see train.
            test: see train.
            seed: of the draw.
            grey: turn colours into one channel (luma, ITU-R BT.601).
            ome: columns pixel_um, magnification and channel from OME-TIFF metadata.
            dry_run: show the first rows and the counts, and write nothing.
        """
        from metaseg_monai.prepare.dsb2018 import prepare_dsb2018
        from metaseg_monai.sharing.prepare import told

        options = prepare_options(group, (train, val, test), seed, grey, None, ome, dry_run)
        made = prepare_dsb2018(source, output, metadata, key, split, overlap, options)
        return told(made, output, dry_run)

    def cracks(
        self,
        source: str,
        output: str,
        layout: Any = "mendeley",
        domain: str = "CRACK",
        photo: str | None = None,
        threshold: float = 127,
        train: float | None = None,
        val: float | None = None,
        test: float | None = None,
        seed: int = 0,
        grey: bool = True,
        ome: bool = False,
        dry_run: bool = False,
    ) -> str:
        r"""Prepare a public data set of cracks, the foreign domain of the thesis (4.5).

        Example:
            python -m metaseg_monai prepare cracks --layout mendeley \
--source concreteCrackSegmentationDataset --output cracks --train 333 --val 56 --test 56

        Args:
            source: folder of the download.
            output: new or empty folder, or one made by the same command, which is made anew.
            layout: mendeley (rgb/ and BW/), crackforest (image/ and groundTruth/) or deepcrack
                (train_img, train_lab, test_img, test_lab; its test part stays test).
            domain: value of the column domain.
            photo: regular expression whose first group is the part of an image's name that names
                the photograph it was cut from, such as '(.+?)(-[0-9]+)?$'; its images are a group.
            threshold: grey values of mask images above it are crack.
            train: part of the groups, or a number of groups; so val and test. By default the
                thesis' 333 : 56 : 56 (mendeley), 0.7 : 0.15 : 0.15 (crackforest), or
                0.85 : 0.15 : 0 of the official training part (deepcrack).
            val: see train.
            test: see train.
            seed: of the draw.
            grey: turn colours into one channel (luma, ITU-R BT.601), as the thesis has it.
            ome: columns pixel_um, magnification and channel from OME-TIFF metadata.
            dry_run: show the first rows and the counts, and write nothing.
        """
        from metaseg_monai.prepare.cracks import crack_shares, prepare_cracks
        from metaseg_monai.sharing.prepare import told

        if (train, val, test) == (None, None, None):
            train, val, test = crack_shares(layout)
        options = prepare_options("", (train, val, test), seed, grey, None, ome, dry_run)
        made = prepare_cracks(source, output, layout, domain, photo, threshold, options)
        return told(made, output, dry_run)

    def names(
        self,
        source: str,
        output: str,
        pattern: str,
        mask_pattern: str | None = None,
        join: str = "",
        labels: str = "classes",
        classes: int = 2,
        threshold: float | None = None,
        group: str = "",
        train: float = 0.7,
        val: float = 0.15,
        test: float = 0.15,
        seed: int = 0,
        grey: bool = False,
        axes: str | None = None,
        ome: bool = False,
        dry_run: bool = False,
    ) -> str:
        """Prepare a folder whose file names give the metadata, by a regular expression.

        Example:
            python -m metaseg_monai prepare names --source plate7 --output cells \
--pattern '(?P<plate>.+)_(?P<well>[A-P][0-9]{2})_z(?P<plane>[0-9]+)[.]tif' \
--mask_pattern '(?P<plate>.+)_(?P<well>[A-P][0-9]{2})_mask[.]png' --join plane \
--group plate,well --labels binary --dry_run

        Args:
            source: folder of the images, and of folders with images.
            output: new or empty folder, or one made by the same command, which is made anew.
            pattern: regular expression that fits a whole file name, or path where it has a /; its
                named groups become columns. Or metaxpress, or opera (Harmony).
            mask_pattern: the same for masks, which belong to the images of equal values; without,
                the table has no labels and serves prediction only.
            join: named groups that tell the planes of one image apart, such as channel; the
                planes become its channels, joined by ; in the column image.
            labels: classes (values are the classes 0, 1, ...), binary (0 and one other value,
                such as 255) or instances (every object has a number).
            classes: number of classes with the background.
            threshold: grey values above it are foreground; takes the place of labels.
            group: named groups whose cases stay in one split; by default plate and well, or all
                but channel, plane and time.
            train: part of the groups, or a number of groups; so val and test.
            val: see train.
            test: see train.
            seed: of the draw.
            grey: turn colours into one channel (luma, ITU-R BT.601).
            axes: of TIFF files that name theirs wrongly, such as CYX for pages that are channels.
            ome: columns pixel_um, magnification and channel from OME-TIFF metadata.
            dry_run: show the first rows and the counts, and write nothing.
        """
        from metaseg_monai.prepare.names import prepare_names
        from metaseg_monai.sharing.prepare import told
        from metaseg_monai.sharing.study import names

        options = prepare_options(group, (train, val, test), seed, grey, axes, ome, dry_run)
        made = prepare_names(
            source, output, pattern, mask_pattern, tuple(names(join)), labels, classes, threshold,
            options,
        )  # fmt: skip
        return told(made, output, dry_run)
