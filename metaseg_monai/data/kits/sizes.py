"""Whether the size of a tumour can be right: by itself, and beside the label."""

from collections.abc import Mapping

from metaseg_monai.data.kits.clinical import SIZE, SizeSource

SIZE_RANGE_MM = (5.0, 250.0)
FURTHEST_FROM_LABEL = 4  # times; annotators and radiologists differ by a third (KiTS)


def size_problem(size_mm: str) -> str | None:
    """What is wrong with a `tumour_size_mm` as a size of a kidney tumour; None if nothing.

    >>> size_problem("41"), size_problem("")
    (None, None)
    >>> size_problem("410")
    'tumour_size_mm 410 is outside 5 to 250; the table gives cm, so look for a size given in mm'
    """
    if not size_mm or SIZE_RANGE_MM[0] <= float(size_mm) <= SIZE_RANGE_MM[1]:
        return None
    low, high = SIZE_RANGE_MM
    return (
        f"{SIZE} {size_mm} is outside {low:g} to {high:g}; the table gives cm, so look for a size "
        "given in mm"
    )


def size_remark(row: Mapping[str, str], size: SizeSource, label_mm: str) -> str | None:
    """What is odd about a `tumour_size_mm` beside its label; None if nothing.

    Args:
        row: of a `ClinicalTable`.
        size: the measurement that became `tumour_size_mm`.
        label_mm: the largest diameter of the tumour in the label; "" if it shows none.

    >>> size_remark({"tumour_size_mm": "41"}, "radiographic", "38")
    """
    size_mm = row.get(SIZE, "")
    if not size_mm or not label_mm:
        return None
    times = float(size_mm) / float(label_mm)
    if 1 / FURTHEST_FROM_LABEL <= times <= FURTHEST_FROM_LABEL:
        return None
    column = f"{size}_size" if row.get(f"{size}_size") else SIZE
    return (
        f"{column} {row[column]} is read as {size_mm} mm, but the label's tumour is "
        f"{float(label_mm):.3g} mm across: is it in cm, and of this case?"
    )
