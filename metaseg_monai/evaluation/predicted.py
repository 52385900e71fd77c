"""Which files in a folder are masks as a prediction wrote them, and what each was made of.

So no other file is replaced, and a prediction goes on where it was stopped.
"""

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from metaseg_monai.errors import DataError, listing
from metaseg_monai.evaluation.shards import SHARDS, Shard, shard_folders, values_sha256
from metaseg_monai.files import (
    PREFIX,
    content_sha256,
    file_sha256,
    replacing,
    sweep_parts,
    writable,
)
from metaseg_monai.images.read import volumes_of
from metaseg_monai.inferers.engines import Runner
from metaseg_monai.naming import likened
from metaseg_monai.rows import write_table
from metaseg_monai.tables.check import image_files
from metaseg_monai.training.weights import MASKS as NAME
from metaseg_monai.training.weights import OF_FILES, LoadWeights, of_files
from metaseg_monai.transforms.metadata import EncodeMetadatad

logger = logging.getLogger(__name__)

KNOWN_BY = ("case", "group", "volume")
PREDICTIONS = "predictions.csv"
OF_AREAS = (
    *("class", "name", "area", "area_low", "area_high", "unit", "interval_of"),
    *("calibration_cases", "threshold"),
)
LEFT_OUT, OTHERS = "of cases left out now", "by other weights or settings"  # that stay
COMMENT = "# "  # sha256sum passes over such lines


class Listed(NamedTuple):
    """A mask that is as a list says.

    Attributes:
        name: of its file in the folder of masks.
        digest: of its content.
        comment: the line before it.
        told: what that says: `case`, `weights_sha256`, `settings` (a digest), `plan` of a shard,
            `rows`, `beside` (the digests by name of what belongs to the mask, such as
            probabilities).
    """

    name: str
    digest: str
    comment: str
    told: Mapping[str, Any]


def told_empty(cases: Sequence[str], of: int) -> str:
    r"""Say which masks have no foreground, as a line of its own; "" where all have some.

    >>> told_empty(["p1", "p2"], 5)
    '\nno foreground in 2 of 5 masks: p1, p2'
    """
    return f"\nno foreground in {len(cases)} of {of} masks: {listing(cases, 10, str)}" * bool(cases)


class MaskRecord:
    """The list ``predicted.sha256`` in a folder of masks, in the form of `sha256sum`.

    It has a line for each file that is written, listed before the file gets its name: so a kill or
    a full disk leaves no file that the list does not know. A file may be replaced only if it is
    still what a line of its name says, so that neither a scan nor a mask corrected by hand is lost.
    A comment before the line says of which weights, settings, metadata and image the mask was made,
    and a case whose mask is still there, of the same, is not predicted again.

    The list of a shard lies in the shard's own folder and has its masks alone; others are read, so
    that nothing is done twice. A prediction of all cases takes over what shards have done.

    Args:
        folder: of the masks.
        weights: those that predict; without them nothing is known of what masks are made of.
        settings: of the prediction, as `metaseg_monai.bundle.effective` gives them.
        tables: names of files that all cases together make; where one is not there as listed, one
            case is predicted again.
        shard: of all cases, that is predicted; all by default.
        encode: of the metadata, which knows what is unknown to the network.
        runner: of the network; its engine and precision are noted of each mask, and are those of
            all masks in the folder.

    Attributes:
        home: folder of what this process alone writes.
        marks: plain values of what a mask is told with, such as a calibration: masks that were told
            with others are made again.
        files: file of each case (or volume) that is predicted, before or now.
    """

    def __init__(
        self,
        folder: str | Path,
        weights: LoadWeights | None = None,
        settings: Mapping[str, Any] | None = None,
        tables: Sequence[str] = (),
        shard: Shard | None = None,
        encode: EncodeMetadatad | None = None,
        runner: Runner | None = None,
    ) -> None:
        self.encode = encode
        self.engine = {} if runner is None else dict(runner.told)
        self.folder = Path(folder)
        self.shard = Shard(None, folder) if shard is None else shard
        self.home = self.shard.folder
        self.path = self.home / NAME
        self.weights = weights
        self.settings = dict(settings or {})
        if runner is not None and not runner.is_plain:
            self.settings |= self.engine
        self.tables = tables if self.shard.is_whole else ()  # `merge` writes them
        self.files: dict[str, Path] = {}
        self.marks: dict[str, Any] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._known: pd.DataFrame | None = None  # what the weights were trained on
        self._names = pd.DataFrame()  # of its cases and groups, likened
        self._seen: dict[str, set[str]] = {}  # digests of the images of each case, or of its planes
        self._strange: set[str] = set()  # cases that had a mask by other weights
        self._twins: dict[str, str] = {}  # cases whose image was trained on, and as which case
        self.kept: dict[str, Any] = {}  # cases of an earlier prediction, with what is known of each
        self._items: dict[str, list[Mapping[str, Any]]] = {}
        self._digests: dict[str, set[str]] = {}  # of each name, by the list
        self._last: dict[str, tuple[str, str]] = {}  # digest and comment of each name
        self._others: dict[str, list[tuple[str, str]]] = {}  # and by the lists of others

    def missing(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The items whose masks are not there yet, made of these weights, settings and images.

        Args:
            items: all, as `find_cases` or `slice_items` give them.

        Raises:
            DataError: the list cannot be read, or masks in it were made by another engine, or in
                another precision.
        """
        self._read()
        self._refuse_other_engine()
        weights = None if self.weights is None else self.weights.recorded.get("weights_sha256")
        with self.writing():
            self.shard.begin(weights, self.settings)
        self._read()  # anew: until then others may have written here
        self._take_over()
        self.files, self.kept, self._items = {}, {}, _by_name(items)
        known: dict[Any, list[tuple[str, str, str]]] = {}
        for name, listed in self._listed():
            for digest, comment in listed:
                known.setdefault(_told(comment).get("case"), []).append((name, digest, comment))
        for case, parts in self._items.items():
            made = self._made_of(parts) if case in known else None
            for name, digest, comment in known.get(case, ()):
                told, path = _told(comment), self.folder / name
                if made is not None and told.get("of") == made and self._whole(path, digest, told):
                    self.files[case], self.kept[case] = path, told.get("rows")
                    if self.shard.plan:
                        comment = json.dumps({**told, "plan": self.shard.plan})
                    lines = {**_beside(told), name: (digest, comment)}
                    for one, line in lines.items():
                        if self._last.get(one) != line:  # of another list, or plan
                            self._add(one, *line)
                    break
                if told.get("weights_sha256") != weights and self._is(path, digest):
                    self._strange.add(case)
        names = [case for case in self._items if case not in self.files]
        if not names and items and not all(self._wrote(self.folder / one) for one in self.tables):
            names = [list(self._items)[-1]]
            del self.files[names[0]], self.kept[names[0]]
        if self.files:
            count = f"{len(self.files)} of {len(self._items)}"
            logger.warning("%s: %s are predicted already, as asked for", self.folder, count)
        return [item for name in names for item in self._items[name]]

    def _refuse_other_engine(self) -> None:
        """See that the masks that are there were made by the engine that is to go on."""
        names = ("engine", "precision")
        now = {name: self.engine.get(name) for name in names}
        for name, listed in self._listed() if self.engine else ():
            for digest, comment in listed:
                told = _told(comment)
                then = {one: told.get(one) for one in names}
                if "engine" in told and then != now and self._is(self.folder / name, digest):
                    raise DataError(
                        f"{self.folder}: {name} was made by {then['engine']} in "
                        f"{then['precision']}, and {now['engine']} in {now['precision']} would go "
                        "on; give another --output, or go on with --engine "
                        f"{then['engine']} --precision {then['precision']}"
                    )

    @property
    def before(self) -> int:
        """How many cases are done already, or are those of other shards."""
        return len(self.kept) + self.shard.elsewhere

    def end(self) -> None:
        """Write the table, and note that all cases are done, or stand among the problems."""
        if self.shard.is_whole:  # `merge` writes that of all shards
            self.write_table()
        self.shard.end()

    def note(self, case: str, **told: Any) -> None:
        """Note plain values of a case, before its mask is written: `areas`, `fit`, `empty`."""
        self._notes.setdefault(case, {}).update(told)

    def noted(self, case: str) -> Mapping[str, Any]:
        """What is noted of a case that has a mask, now or by an earlier prediction."""
        return dict(self._line(case).get("noted") or {})

    def _line(self, case: str) -> Mapping[str, Any]:
        """What the list says of a case that has a mask."""
        _, comment = self._last.get(self._name(self.files[case]), ("", ""))
        return _told(comment)

    @property
    def empty(self) -> list[str]:
        """The cases whose mask has no foreground, as far as that was noted."""
        return [case for case in self.cases_done if self.noted(case).get("empty")]

    @property
    def replaced(self) -> list[str]:
        """The cases whose mask took the place of one by other weights."""
        return [one for one in self.cases_done if one in self._strange and one not in self.kept]

    @property
    def trained(self) -> list[str]:
        """The cases whose image, name or group was in the training, as far as the weights tell."""
        return [case for case in self.cases_done if self._line(case).get("trained")]

    def write_table(self) -> list[Path]:
        """Write ``predictions.csv``: a row for each case and class, where areas or fit were noted.

        `area` with `area_low` and `area_high` (empty: no bound) in `unit`; `interval_of`, the value
        whose `calibration_cases` that rests on ("all": of all values, as the value has too few
        groups of its own); `threshold` of the promised share of the foreground; `meta_p`, how often
        given metadata fit their image as badly by chance, and `meta_told`, what was found then.

        Raises:
            DataError: the file would replace what no prediction wrote.
        """
        rows = [row for case in self.cases_done for row in self._rows(case)]
        path = self.folder / PREDICTIONS
        if not rows:
            return []
        self.refuse_foreign([path])
        with self.listed(path) as part:
            write_table(rows, part)
        self.finish()
        return [path]

    def _rows(self, case: str) -> Iterator[dict[str, Any]]:
        noted = self.noted(case)
        if not noted.keys() & {"areas", "fit"}:
            return
        fit = noted.get("fit") or {}
        for of_class in noted.get("areas") or [{}]:
            row: dict[str, Any] = {"case": case, "mask": self._name(self.files[case])}
            row |= {name: of_class.get(name) for name in OF_AREAS}
            row |= {"meta_p": fit.get("p"), "meta_told": fit.get("told")}
            yield {name: "" if value is None else value for name, value in row.items()}

    @property
    def cases(self) -> list[str]:
        """All cases and volumes, in the order of their items."""
        return list(self._items)

    @property
    def cases_done(self) -> list[str]:
        """Those of them that have a mask."""
        return [case for case in self._items if case in self.files]

    def unknown(self, case: str) -> list[str]:
        """The fields whose value the network is not told, or the planes of a volume are not."""
        return [] if self.encode is None else self._of_planes(case, self.encode.unknown)

    def never_trained(self, case: str) -> list[str]:
        """The values that a case has, or a plane of a volume, and no image of the training had."""
        return [] if self.encode is None else self._of_planes(case, self.encode.never_trained)

    def _of_planes(self, case: str, told: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
        named = (name for item in self._items.get(case, []) for name in told(item))
        return list(dict.fromkeys(named))

    def _made_of(self, parts: Sequence[Mapping[str, Any]]) -> str | None:
        """A digest of all that a mask depends on; None where the weights are not known."""
        weights = None if self.weights is None else self.weights.recorded.get("weights_sha256")
        if weights is None:
            return None
        first = parts[0]
        images = [] if isinstance(first["image"], Tensor | np.ndarray) else image_files(first)
        if not images:
            return None
        told: dict[str, Any] = {
            "weights": weights,
            "settings": self.settings,
            "metadata": [part.get("metadata", {}) for part in parts],
            "images": [content_sha256(image) for image in images],
            "planes": [part.get("plane") for part in parts],
        } | ({"axis": first["axis"]} if "axis" in first else {})
        if chosen := self._chosen():
            told["clean_up"] = chosen
        if self.marks:
            told["marks"] = self.marks
        return values_sha256(told)

    @property
    def _settings_sha256(self) -> str:
        """Of all that makes a mask beside weights, metadata and image; its beginning."""
        return values_sha256([self.settings, self.marks, self._chosen()])[:16]

    def _read(self) -> None:
        """Read the lists: one's own, that of the whole, and those of all shards."""
        self._digests, self._last, self._others = {}, {}, {}
        homes = [self.folder, *(folder for folder, *_ in shard_folders(self.folder))]
        for home in (*(one for one in homes if one != self.home), self.home):
            for name, digest, comment in _lines(home / NAME):
                self._digests.setdefault(name, set()).add(digest)
                if home == self.home:
                    self._last[name] = digest, comment
                else:
                    self._others.setdefault(name, []).append((digest, comment))

    def _listed(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Each name with digest and comment of every list, one's own first."""
        for name in dict.fromkeys([*self._last, *self._others]):
            own = [self._last[name]] if name in self._last else []
            yield name, own + self._others.get(name, [])

    def _take_over(self) -> None:
        """Put what shards have done into the list of a prediction of all cases."""
        if not self.shard.is_whole or not (self.folder / SHARDS).is_dir():
            return
        with self.writing():
            for name, listed in self._listed():
                for digest, comment in listed:
                    if self._is(self.folder / name, digest):
                        if self._last.get(name) != (digest, comment):
                            self._add(name, digest, comment)
                        break
            shutil.rmtree(self.folder / SHARDS)

    def claim(
        self,
        paths: Mapping[str, Path],
        items: Iterable[Mapping[str, Any]],
        what: Literal["mask", "objects"] = "mask",
        beside: Sequence[Path] = (),
    ) -> None:
        """Read the list; see that nothing but its masks would be replaced; make the folder.

        What a killed prediction left half-written is removed.

        Args:
            paths: file to be written, by case or volume.
            items: whose images must stay; links are followed.
            what: of a case is written.
            beside: further files to be written.

        Raises:
            DataError: the list cannot be read, two cases have one file, a file would replace an
                image or what is no earlier prediction, or the folder cannot be made; names them.
        """
        self._read()
        self._expect_trained()
        for path, times in Counter([*paths.values(), *self.files.values()]).items():
            if times > 1:
                both = {**self.files, **paths}
                names = ", ".join(name for name, other in both.items() if other == path)
                one = "mask" if what == "mask" else "file"
                raise DataError(f"{names} would have the one {one} {path}; give them other names.")
        items = list(items)
        self._items |= _by_name(items)
        inputs = {Path(file).resolve() for item in items for file in image_files(item)}
        for name, path in paths.items():
            if path.resolve() in inputs:
                raise DataError(
                    f"The {what} of {name!r} would replace the image {path}; choose another output."
                )
        self.refuse_foreign([*paths.values(), *beside])
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.shard.is_whole:
                sweep_parts([*paths.values(), *self.files.values(), *beside])
                return
            _sweep(paths.values())

    def refuse_foreign(self, paths: Iterable[Path]) -> None:
        """Refuse to replace files that no list knows as they are.

        Raises:
            DataError: names them.
        """
        foreign = [self._name(path) for path in paths if path.exists() and not self._wrote(path)]
        if changed := [name for name in foreign if name in self._digests]:
            raise DataError(
                f"{self.folder}: {len(changed)} file(s) were changed since they were predicted "
                f"({NAME}): {listing(changed, 10)}; choose another output, or move them away or "
                "delete them, then run this command again"
            )
        if foreign:
            raise DataError(
                f"{self.folder}: {len(foreign)} file(s) would be replaced that are no masks as "
                f"predicted before ({NAME}): {listing(foreign, 10)}; choose another output, or "
                "move them away"
            )

    def masks_of(self, home: Path) -> dict[str, Listed]:
        """The masks of a folder's list that are as they were written, by case.

        Args:
            home: the folder of all masks, or that of a shard.
        """
        last = {name: (digest, comment) for name, digest, comment in _lines(home / NAME)}
        return {
            str(told["case"]): Listed(name, digest, comment, told)
            for name, (digest, comment) in last.items()
            for told in [_told(comment)]
            if "case" in told and self._whole(self.folder / name, digest, told)
        }

    def changed_of(self, home: Path) -> dict[str, list[str]]:
        """The files of a folder's list that are there and not as they were written, by case.

        Args:
            home: the folder of all masks, or that of a shard.
        """
        last = {name: (digest, _told(comment)) for name, digest, comment in _lines(home / NAME)}
        found: dict[str, list[str]] = {}
        for name, (digest, told) in last.items():
            files = {name: digest, **{one: of_file for one, (of_file, _) in _beside(told).items()}}
            for one, of_file in files.items() if "case" in told else ():
                if (self.folder / one).exists() and not self._is(self.folder / one, of_file):
                    found.setdefault(str(told["case"]), []).append(one)
        return found

    def earlier(self, left_out: Collection[str]) -> dict[str, dict[str, str]]:
        """The masks in the folder that this prediction did not make, and does not stand for.

        Args:
            left_out: cases that it could not do.

        Returns:
            Files by case: under `LEFT_OUT`, of the image or metadata that such a case had before;
            under `OTHERS`, those by other weights or settings, of cases that were not asked for
            now, which `merge` sees of shards.
        """
        weights = None if self.weights is None else self.weights.recorded.get("weights_sha256")
        mine = {"weights_sha256": weights, "settings": self._settings_sha256}
        left = {*left_out}
        for name, parts in self._items.items():  # planes of a volume
            left |= {name} if any(str(part["case"]) in left for part in parts) else set()
        now = {self._name(path) for path in self.files.values()}
        found: dict[str, dict[str, str]] = {}
        for name, listed in self._listed():
            for digest, comment in listed if name not in now else ():
                told = _told(comment)
                case = str(told.get("case"))
                both = [(told.get(what), one) for what, one in mine.items()]
                differ = any(None not in pair and pair[0] != pair[1] for pair in both)
                strange = self.shard.is_whole and differ
                if "case" not in told or not (case in left or strange):
                    continue
                if self._is(self.folder / name, digest):
                    found.setdefault(LEFT_OUT if case in left else OTHERS, {})[case] = name
        return found

    def take(self, masks: Mapping[str, Listed], files: Sequence[str] = ()) -> None:
        """Make one list of the masks of shards, for whoever calls `finish`.

        What else one's own list knows and is as it was written stays in it.

        Args:
            masks: by case, in the order of the source.
            files: names of further files to be written.

        Raises:
            DataError: such a file would replace what no prediction wrote.
        """
        self._read()
        self.refuse_foreign(self.folder / name for name in files)
        _sweep(self.folder / one.name for one in masks.values())
        listed = {one.name: (one.digest, one.comment) for one in masks.values()}
        for one in masks.values():
            listed |= _beside(one.told)
        stays = {
            name: line for name, line in self._last.items() if self._is(self.folder / name, line[0])
        }
        self._last = {**stays, **listed}
        self._items = {case: [] for case in masks}
        self.files = {case: self.folder / one.name for case, one in masks.items()}
        self.kept = {case: one.told.get("rows") for case, one in masks.items()}

    def _expect_trained(self) -> None:
        """Have images told by their pixels, where the weights tell which they were trained on."""
        if self.weights is not None and (known := self.weights.trained_on()) is not None:
            self._known = known
            self._names = known[["case", "group"]].map(likened)
            for load in self.weights.preprocessing:
                load.identify = True

    def writing(self) -> AbstractContextManager[None]:
        """Say what to do where the folder, or a file in it, cannot be written."""
        return writable(self.folder, ". Masks that are finished stay")

    @contextmanager
    def listed(
        self,
        path: Path,
        case: str | None = None,
        rows: Any = None,
        beside: Sequence[Path] = (),
    ) -> Iterator[Path]:
        """Give a temporary path to write; list what was written, then give it its name.

        What belonged to an earlier mask of this name, and not to this one, is removed before.

        Args:
            path: the file to be.
            case: or volume whose prediction it is; None for what all cases make together, and for
                what is written beside a mask.
            rows: plain values to be known of the case when a later prediction goes on.
            beside: files that were listed before and belong to this one: without them the case is
                not done.

        Raises:
            DataError: it cannot be written; what is finished stays.
        """
        with self.writing(), replacing(path) as part:
            yield part
            told: dict[str, Any] = {}
            if case is not None:
                weights = None if self.weights is None else self.weights.recorded
                told = {"case": case, "of": self._made_of(self._items.get(case, [{"image": []}]))}
                told |= {"weights_sha256": (weights or {}).get("weights_sha256"), "rows": rows}
                told |= {"settings": self._settings_sha256}
                told |= {"trained": self._trained(case), "guidance": self.settings.get("guidance")}
                told |= {"plan": self.shard.plan, **self.engine}
                if beside:
                    told["beside"] = {
                        self._name(one): self._last[self._name(one)][0] for one in beside
                    }
                if chosen := self._chosen():
                    told["clean_up"] = chosen
                if noted := self._notes.get(case):
                    told["noted"] = noted
                if members := (weights or {}).get("members"):
                    told["members"] = members
                if unknown := self.unknown(case):
                    told["unknown"] = unknown
                if never := self.never_trained(case):
                    told["untrained"] = never
                if soft := self._soft(case):
                    told["soft"] = soft
                    told["draws"] = self.settings.get("draws") if "drawn" in soft.values() else None
                self._remove_beside(self._name(path), kept={self._name(one) for one in beside})
            told = {key: value for key, value in told.items() if value is not None}
            comment = json.dumps(told) if "of" in told else ""
            self._add(self._name(path), file_sha256(part), comment)
        if case is not None:
            self.files[case] = path

    def _remove_beside(self, mask: str, kept: Collection[str]) -> None:
        """Remove what belonged to an earlier mask: it is of other weights, settings or images."""
        own = [self._last[mask]] if mask in self._last else []
        for _, comment in [*own, *self._others.get(mask, [])]:
            for name in _beside(_told(comment)).keys() - kept:
                if self._wrote(self.folder / name):
                    (self.folder / name).unlink()
                self._last.pop(name, None)

    def saw(self, name: str, case: Mapping[str, Any]) -> None:
        """Take up which image a case, or a plane of a volume, is, if it tells.

        Args:
            name: of the case or volume.
            case: of the batch, with the digests of its `pixels`.
        """
        self._seen.setdefault(name, set()).update(case.get("pixels", "").split())

    def _chosen(self) -> Any:
        """How masks are cleaned, where the weights say so and no setting does."""
        own = self.settings.get("clean_up") is None and self.weights is not None
        chosen = self.weights.recorded.get("clean_up") if own and self.weights else None
        return chosen["rules"] if chosen else None

    def _soft(self, case: str) -> dict[str, str]:
        """How metadata of a case that are distributions were taken, by field."""
        schema, items = self.weights.schema if self.weights else None, self._items.get(case)
        return dict(schema.softness(items[0].get("metadata") or {})) if schema and items else {}

    def _trained(self, case: str) -> str | None:
        """The split of the training that a case's image, name or group stands in, "" for none.

        None where no ``trained_on.csv`` lies beside the weights, or it has not all of the images
        and none of these.
        """
        if self._known is None:
            return None
        items, by = self._items.get(case, []), self._known.columns[0]
        images = self._seen.get(case, set())
        if by == OF_FILES:
            images = {of_files(image_files(item)) for item in items}
        names = {case, *(str(item.get(name, "")) for item in items for name in KNOWN_BY)}
        likes = {likened(name) for name in names if name}
        twin = self._known[by].isin(images - {""})
        if twin.any():
            self._twins[case] = self._known.loc[twin, "case"].iloc[0]
        same = twin | self._names.isin(likes).any(axis=1)
        whole = self.weights is not None and self.weights.knows_all_trained
        # train counts before val
        return min(self._known.loc[same, "split"], default="" if whole else None)

    def _add(self, name: str, digest: str, comment: str) -> None:
        lines = f"{COMMENT}{comment}\n" * bool(comment) + f"{digest}  {name}\n"
        with self.path.open("a+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end:  # a full disk may have cut the last line
                stream.seek(end - 1)
                lines = lines if stream.read(1) == b"\n" else f"\n{lines}"
            stream.write(lines.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._digests.setdefault(name, set()).add(digest)
        self._last[name] = digest, comment

    def finish(self) -> list[Path]:
        """Leave one line a mask, in the order of the names; return the list, if there is one."""
        if not self._last:
            return []
        if self._twins:
            told = (
                case if case == name else f"{case} is {name}" for case, name in self._twins.items()
            )
            logger.warning(
                "%s: no test, as these masks are of images of the training: %s",
                *(self.folder, listing(told, 5, str)),
            )
        with self.writing(), replacing(self.path) as part:
            lines = [
                f"{COMMENT}{comment}\n" * bool(comment) + f"{digest}  {name}\n"
                for name, (digest, comment) in sorted(self._last.items())
            ]
            part.write_text("".join(lines), encoding="utf-8", newline="\n")
        return [self.path]

    def _wrote(self, target: Path) -> bool:
        known = self._digests.get(self._name(target))
        return known is not None and target.is_file() and file_sha256(target) in known

    def _whole(self, path: Path, digest: str, told: Mapping[str, Any]) -> bool:
        """Whether a mask, and all that belongs to it, is as it was written."""
        return self._is(path, digest) and all(
            self._is(self.folder / name, of_file) for name, (of_file, _) in _beside(told).items()
        )

    def _is(self, path: Path, digest: str) -> bool:
        return path.is_file() and file_sha256(path) == digest

    def _name(self, mask: Path) -> str:
        return mask.relative_to(self.folder).as_posix()


def _sweep(paths: Iterable[Path]) -> None:
    """Remove what is half-written in folders that are this process's own."""
    for folder in {path.parent for path in paths}:
        for part in folder.glob(f"{PREFIX}*"):
            part.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Name, digest and comment of each file that a list knows.

    Raises:
        DataError: it cannot be read.
    """
    if not path.exists():
        return
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # names may hold \x85, \u2028
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no list of masks ({error}); choose another output") from error
    comment = ""
    for line in lines:
        if found := re.fullmatch(r"([0-9a-f]{64})  (.+)", line):
            digest, name = found.groups()
            yield name, digest, comment
        comment = line.removeprefix(COMMENT) if line.startswith(COMMENT) else ""


class MadeBy(NamedTuple):
    """Of which weights a mask is, and what its case was to them.

    Attributes:
        weights_sha256: as in their facts; "" where nobody knows.
        trained: train, val, "" where the case was not in the training, None where nobody knows.
    """

    weights_sha256: str = ""
    trained: str | None = None


def predicted_masks(folder: Path) -> dict[str, MadeBy]:
    """What is known of each mask of a prediction that is as it was written, by its file.

    Args:
        folder: of masks, with their list.
    """
    record = MaskRecord(folder)
    record._read()
    return {
        name: MadeBy(told.get("weights_sha256", ""), told.get("trained"))
        for name, listed in record._listed()
        for digest, comment in listed[::-1]  # the first in the end
        if record._is(folder / name, digest)
        for told in [_told(comment)]
    }


def _told(comment: str) -> dict[str, Any]:
    try:
        told = json.loads(comment)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _beside(told: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Digest and comment of each file that belongs to a mask, by name."""
    beside = told.get("beside")
    return {str(k): (str(v), "") for k, v in (beside if isinstance(beside, dict) else {}).items()}


def _by_name(items: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The items by what gets a mask: a case, or the volume that planes are of."""
    items = list(items)
    volumes, found = volumes_of(items), dict[str, list[Mapping[str, Any]]]()
    for item in items:
        name = str(item["case"])
        found.setdefault(volumes.get(name, name), []).append(item)
    return found
