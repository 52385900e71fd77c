"""Public data sets of cracks in concrete and asphalt, the foreign domain of the thesis (4.5)."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.images.image import Meaning
from metaseg_monai.naming import composed, safe_name
from metaseg_monai.prepare.found import (
    FoundCase,
    FoundFolder,
    compiled,
    groups_of,
    is_image,
    listed,
    masks_of,
    source_folder,
    visible_files,
    without_suffix,
)
from metaseg_monai.prepare.masks import crackforest_mask, mask_rule
from metaseg_monai.prepare.pipeline import Prepared, PrepareOptions, prepare_found
from metaseg_monai.prepare.splits import Shares

CrackLayout = Literal["mendeley", "crackforest", "deepcrack"]
Pair = tuple[str, str, str]  # split ("" to draw), folder of the images, folder of the masks


class _Layout(NamedTuple):
    """A layout: its folders' names, masks, how it is divided, and its data in licenses.json.

    The download of one that is not `all_masked` has photographs without a mask, which are no fault.
    """

    ways: tuple[tuple[Pair, ...], ...]
    mask_suffixes: tuple[str, ...]
    shares: Shares
    data: str
    all_masked: bool = True


PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LAYOUTS: Mapping[str, _Layout] = {
    "mendeley": _Layout(
        ((("", "rgb", "BW"),), (("", "images", "masks"),)),
        PICTURES,
        (333 / 445, 56 / 445, 56 / 445),  # thesis 4.5 and table A.5
        "concrete-cracks",
    ),
    "crackforest": _Layout(
        (((("", "image", "groundTruth")),),),
        (".mat",),
        (0.7, 0.15, 0.15),
        "crackforest",
        all_masked=False,
    ),
    "deepcrack": _Layout(
        (
            (("", "train_img", "train_lab"), ("test", "test_img", "test_lab")),
            (("", "train/images", "train/masks"), ("test", "test/images", "test/masks")),
        ),
        PICTURES,
        (0.85, 0.15, 0.0),  # of the official training part
        "deepcrack",
    ),
}


def prepare_cracks(
    source: str | Path,
    output: str | Path,
    layout: CrackLayout = "mendeley",
    domain: str = "CRACK",
    photo: str | None = None,
    threshold: float = 127,
    mask_values: Meaning | None = None,
    train: float | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    grey: bool = True,
    dry_run: bool = False,
) -> Prepared:
    r"""Prepare a public data set of cracks, the foreign domain of the thesis (4.5).

    Layouts: mendeley (Concrete Crack Segmentation, jwsn7tfbrp: rgb/ and BW/, or images/ and
    masks/), crackforest (image/*.jpg and groundTruth/*.mat) and deepcrack (train_img, train_lab,
    test_img, test_lab, or train/images, ...; its test part stays the test split). The folders may
    lie one level below `source`.

    Example:
        python -m metaseg_monai prepare cracks --layout mendeley \
--source concreteCrackSegmentationDataset --output cracks --train 333 --val 56 --test 56

    Args:
        source: folder of the download.
        output: new or empty folder, or one made by the same command, which is made anew.
        layout: see above.
        domain: value of the column domain.
        photo: regular expression whose first group is the part of an image's name that names
            the photograph it was cut from, such as '(.+?)(-[0-9]+)?$'; its images are a group.
        threshold: grey values of mask images above it are crack.
        mask_values: stored or shown, which of both counts where a mask's numbers and what a
            viewer shows of them disagree (min-is-white, palettes); such masks are refused without.
        train: part of the groups, or a number of groups; so val and test. By default the
            thesis' 333 : 56 : 56 (mendeley), 0.7 : 0.15 : 0.15 (crackforest), or
            0.85 : 0.15 : 0 of the official training part (deepcrack).
        val: see train.
        test: see train.
        seed: of the draw.
        grey: turn colours into one channel (luma, ITU-R BT.601), as the thesis has it.
        dry_run: show the first rows and the counts, and write nothing.

    Raises:
        DataError: a setting is wrong, the folders are not there, or see `prepare_found`.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout={layout!r}: expected one of {', '.join(LAYOUTS)}")
    given: Any = (train, val, test)
    shares = LAYOUTS[layout].shares if given == (None,) * 3 else given
    options = PrepareOptions(shares=shares, seed=seed, grey=grey, dry_run=dry_run)
    rule = mask_rule(threshold=threshold, mask_values=mask_values)
    cut = None if photo is None else _photo_pattern(photo)
    root, pairs = _base(source_folder(source, f"the folder of {layout}"), layout)

    def found() -> Iterator[FoundCase | Problem | str]:
        suffixes = LAYOUTS[layout].mask_suffixes
        for split, images, masks in pairs:
            of_mask: dict[str, list[Path]] = defaultdict(list)
            for path in visible_files(root / masks):
                of_mask[composed(path.stem)].append(path)
            prefix = (split or "train") if len(pairs) > 1 else ""
            paths = [path for path in visible_files(root / images) if is_image(path)]
            stems = [composed(without_suffix(path.name)) for path in paths]
            photos = groups_of("photo", cut, stems, whole=False) if cut else [None] * len(stems)
            unmasked = []
            for path, stem, match in zip(paths, stems, photos, strict=True):
                files = masks_of(of_mask.pop(stem, []), suffixes)
                case = FoundCase(
                    safe_name(prefix, stem),
                    (path,),
                    tuple(files),
                    {"domain": domain},
                    group=safe_name(match[0]) if match and match[0] else "",
                    split=split,
                )
                if not files and not LAYOUTS[layout].all_masked:
                    unmasked.append(path.name)
                elif len(files) != 1:
                    told = "several masks: " + listed(f.name for f in files) if files else "no mask"
                    yield case.problem(root, told, f"expected one named {stem} in {masks}/")
                elif photo is not None and not case.group:
                    told = f"its name does not fit photo={photo!r}"
                    yield case.problem(root, told, "mend the pattern")
                else:
                    yield case
            if unmasked:
                yield f"{len(unmasked)} photographs without a mask, left out: {listed(unmasked)}"
            if lonely := [stem for stem, paths in of_mask.items() if masks_of(paths, suffixes)]:
                yield f"{len(lonely)} masks without image in {masks}: {listed(lonely)}"

    return prepare_found(
        FoundFolder.of(root, found()),
        output,
        crackforest_mask if layout == "crackforest" else rule,
        options,
        {
            "layout": layout,
            "domain": domain,
            "photo": photo,
            "threshold": threshold,
            "mask_values": mask_values,
        },
        "crack",
        LAYOUTS[layout].data,
    )


def _photo_pattern(photo: str) -> re.Pattern[str]:
    pattern = compiled("photo", photo)
    if pattern.groups < 1:
        raise DataError(f"photo={photo!r}: expected a group in brackets, as '(.+?)(-\\d+)?$'")
    return pattern


def _base(source: Path, layout: str) -> tuple[Path, tuple[Pair, ...]]:
    """The folder that holds the layout's folders, and those."""
    below = [path for path in sorted(source.iterdir()) if path.is_dir()]
    for root in (source, *below):
        for pairs in LAYOUTS[layout].ways:
            if all((root / name).is_dir() for _, *names in pairs for name in names):
                return root, pairs
    ways = (
        ", ".join(name for _, *names in pairs for name in names) for pairs in LAYOUTS[layout].ways
    )
    raise DataError(
        f"{source}: expected the folders {', or '.join(ways)} of layout={layout!r}, in it or in a "
        f"folder of it; it has {listed(path.name for path in below) or 'no folders'}"
    )
