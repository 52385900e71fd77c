"""The commands that make one table from another: other magnifications, other styles."""

from typing import Any


class PrepareTables:
    """Derive a folder with a table from another one."""

    def magnify(
        self,
        source: str,
        output: str,
        targets: Any = (15, 64),
        magnification: str = "magnification",
        splits: str = "test",
        columns: str | None = None,
        size: Any = "whole",
        only_new: bool = False,
    ) -> str:
        """Add rows at magnifications that nobody acquired, made by resampling.

        Example:
            python -m metaseg_monai prepare magnify --source cells --output cells_15x_64x \
--targets 15,64

        Args:
            source: a table, or the folder that holds it.
            output: a new or empty folder.
            targets: magnifications to make, each from the nearest trained one.
            magnification: field or column of the magnification.
            splits: comma-separated splits whose rows are resampled.
            columns: JSON file of a column map, for tables with other column names.
            size: whole, or crop for enlarged images cut to their source's size.
            only_new: leave out the stored rows and their files.
        """
        from metaseg_monai.sharing.study import names
        from metaseg_monai.simulate.magnify import magnify_table

        wanted = targets if isinstance(targets, (list, tuple)) else [targets]
        chosen = list(names(splits) or [])
        made = magnify_table(source, output, wanted, magnification, chosen, columns, size, only_new)
        return str(made)

    def styles(
        self,
        source: str,
        output: str,
        tolerances: Any = None,
        seed: int = 0,
        columns: str | None = None,
        balance: str | None = None,
        unit: str = "group",
        reference_diameter_px: float | None = None,
        column: str = "style",
    ) -> str:
        """Copy a folder, its training masks drawn in equal shares of several annotation styles.

        Example:
            python -m metaseg_monai prepare styles --source cells --output styled \
--balance cell_line

        Args:
            source: folder with a table, or the table.
            output: a new or empty folder; gets styles.csv, the change of every style.
            tolerances: '{"exact": 0, "fine": 2, "coarse": 3.5}', pixels; exactly one is 0.
            seed: draws who is drawn in which style.
            columns: JSON file of a column map.
            balance: column within whose values the shares are equal.
            unit: group (one style a group) or image.
            reference_diameter_px: median nucleus diameter the tolerances were made for; they are
                then scaled to the nuclei of this folder.
            column: name of the new column, where the table has a column style already.
        """
        from metaseg_monai.simulate.styles import prepare_styles

        made = prepare_styles(
            source, output, tolerances, seed, columns, balance, unit, reference_diameter_px, column
        )
        return "\n".join(
            f"{row.style}: {row.rows} masks, {row.objects} objects, tolerance "
            f"{row.tolerance_px:.2f} px, area {row.area_change:+.1%}, F1 {row.f1:.3f} against exact"
            for row in made
        )
