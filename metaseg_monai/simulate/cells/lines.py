"""What the simulated cell lines look like: bodies that one sees, nuclei that one may not see.

The shapes are loosely those of the lines whose names they bear; sizes are in micrometres.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from metaseg_monai.errors import DataError

Cue = Literal["metadata", "image", "nothing"]
CUES: tuple[str, ...] = get_args(Cue)


@dataclass(frozen=True)
class Shape:
    """A body of smooth outline.

    Attributes:
        radius_um: of the disc of the same area.
        elongation: long over short axis.
        flattened: how much nearer the middle of one side is, a share of the radius.
        ripple: irregularity of the outline, a share of the radius.
    """

    radius_um: float
    elongation: float = 1.0
    flattened: float = 0.0
    ripple: float = 0.03


@dataclass(frozen=True)
class Line:
    """A cell line.

    Attributes:
        nucleus: what the label shows.
        body: what one sees of the cell.
        height: of the body's relief; 1 is common.
        grain: contrast of the granules inside; 1 is common.
        faintness: contrast of the nucleus' own relief, a share of the body's.
    """

    nucleus: Shape
    body: Shape
    height: float = 1.0
    grain: float = 1.0
    faintness: float = 0.12


LINES: dict[str, Line] = {
    "HeLa": Line(Shape(7.0, 1.25), Shape(12.0, 1.4, ripple=0.08), 1.1, 1.0),
    "MDCK": Line(Shape(4.6, 1.1), Shape(9.0, 1.1, ripple=0.03), 0.7, 0.5),
    "A549": Line(Shape(6.4, 1.6), Shape(12.5, 1.7, ripple=0.06), 0.8, 1.4),
    "HT1080": Line(Shape(5.6, 2.1), Shape(12.0, 2.3, ripple=0.12), 1.2, 0.8),
    "HepG2": Line(Shape(6.0, 1.05), Shape(10.0, 1.15, ripple=0.05), 1.4, 1.8),
    "MCF7": Line(Shape(5.4, 1.35, flattened=0.3), Shape(10.5, 1.3, ripple=0.05), 0.9, 1.2),
    "NIH3T3": Line(Shape(8.0, 1.7), Shape(14.5, 2.0, ripple=0.1), 0.6, 0.7),
    "AZ": Line(Shape(6.2, 1.3), Shape(11.0, 1.2, ripple=0.2), 1.6, 2.4),
}
SEVEN_LINES = ("HeLa", "MDCK", "A549", "HT1080", "HepG2", "MCF7", "NIH3T3")  # order of thesis 3.2
COMMON_BODY = Shape(13.0, 1.35, ripple=0.06)
COMMON_NUCLEUS = Shape(6.2, 1.35)
HIDDEN = 0.0


def line_as_seen(name: str, cue: Cue) -> Line:
    """The line as the generator draws it.

    Args:
        name: a key of `LINES`.
        cue: what tells the shape of the nucleus. "metadata": all lines look alike and nuclei are
            invisible, but their shape and size are those of their line, so that only its name
            tells them (the thought experiment of the thesis, chapter 5). "image": the body looks
            as the line does and the nucleus is faintly visible. "nothing": as "image", but all
            lines are one, so that the name says nothing (null control).

    Raises:
        DataError: an unknown line or cue.
    """
    if name not in LINES or cue not in CUES:
        raise DataError(
            f"line {name!r} with cue {cue!r}: expected one of {', '.join(LINES)} and one of "
            f"{', '.join(CUES)}"
        )
    line = LINES[name]
    if cue == "metadata":
        return Line(line.nucleus, COMMON_BODY, faintness=HIDDEN)
    if cue == "nothing":
        return Line(COMMON_NUCLEUS, COMMON_BODY)
    return line
