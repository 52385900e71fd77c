"""The what-if page for images that its reader drops in: a model answers on 127.0.0.1 only.

The page is that of `whatif`, with a form for an image and its metadata; masks are asked for when
they are to be seen. What answers is this process, by HTTP under a secret path:

- ``POST case?metadata=JSON&kind=SUFFIX``, the body an image: its frame, as `frame_of` tells it, or
  422 with the refusal of the same door that a prediction has.
- ``GET picture?case=N&plane=P`` and ``GET mask?case=N&state=S&plane=P``: WebP; `masks`, `areas`
  and `intervals`.

Nothing that a client sends is ever a path. One image is held, in memory, until the next one.
"""

import hmac
import io
import json
import logging
import math
import secrets
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image as Picture

from metaseg_monai.errors import ConfigError, DataError, DataWarning, as_refusal, typed
from metaseg_monai.images import slice_items
from metaseg_monai.images.image import FORMAT_OF_SUFFIX
from metaseg_monai.images.read import read_header
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.sharing.asking import AskedModel, Planes, State, asking
from metaseg_monai.sharing.run import engine_of, models_of
from metaseg_monai.sharing.whatif import (
    MOST_SIDE,
    QUALITY,
    frame_of,
    packed_masks,
    page_of,
    rows_of,
)
from metaseg_monai.tables.find import find_cases

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost")  # that a browser may have asked for; any other was led here
MOST_BYTES = 512 << 20  # of an upload, and of what an archive holds
MOST_PIXELS = 1 << 27  # of all planes: 512 of 512 x 512
PATIENCE_S = 60  # for a client that has stopped to send
ARCHIVE = ".zip"  # of a DICOM series
HEADERS = {  # of every answer: no other page gets it, and no browser keeps it
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Explored:
    """What was explored.

    Attributes:
        images: how many were dropped in and taken.
    """

    images: int

    def __str__(self) -> str:
        return f"ended; {self.images} image(s) were shown, and nothing of them was kept"


@typed
def explore(
    folder: str | Path | Sequence[str | Path],
    table: str | Path | None = None,
    port: int = 0,
    *,
    engine: str = "auto",
    precision: str | None = None,
    exported: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> Explored:
    """Answer a page on this machine, where one drops in an image and moves its metadata.

    It prints the page's address, and ends with Ctrl-C. Images are PNG, JPEG, TIFF, NIfTI, or a
    DICOM series as .zip. Only programs of this machine reach it, and only with the address, which
    is another one each time. Images are not stored.

    Example:
        python -m metaseg_monai explore runs/me
        python -m metaseg_monai explore runs/me --table data/table.csv --engine torch

    Args:
        folder: of the model; several, as runs/fold0,runs/fold1, predict together.
        table: that the model was trained on, from which the page knows which values were trained;
            without it the ranges of the schema say so.
        port: of the address; 0 takes a free one.
        engine: as for predict; auto takes the fastest that is installed. pip install
            "metaseg-monai[explorer]" for OpenVINO.
        precision: as for predict.
        exported: as for predict.
        trust: as for train.
        settings: any setting of configs/inference.json, such as --device cpu.

    Returns:
        How many images were shown.

    Raises:
        ConfigError: no model's folder, the network reads no metadata, or the port is taken.
        DataError: the table cannot be used.
        MetadataError: a field is known only after an operation, unless --force True.
    """
    settings |= engine_of(models_of(folder), engine, precision, exported, settings.get("device"))
    with serving(folder, table, port, settings, trust) as server:
        sys.stdout.write(f"{server.address}\nOpen it in a browser of this machine; Ctrl-C ends.\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # its usual end
            sys.stdout.write("\n")
        return Explored(server.explorer.images)


@contextmanager
def serving(
    folder: str | Path | Sequence[str | Path],
    table: str | Path | None,
    port: int,
    settings: Mapping[str, Any],
    trust: bool = False,
) -> Iterator["Server"]:
    """A server that answers once its `serve_forever` is called; see `explore`."""
    with TemporaryDirectory(prefix="metaseg-explore-") as home:
        place, doing = Path(home) / "answers", "answers a page"
        source = Path(home) / "image"
        with asking(folder, source, place, doing, settings, trust) as model:
            if table is not None:
                rows_of(model, table, [])
            try:
                server = Server(Explorer(model, source), port)
            except (OSError, OverflowError) as error:
                raise ConfigError(
                    f"--port {port} cannot be had on {LOOPBACK} ({error}); give another, or 0 for "
                    "a free one"
                ) from error
            with server:
                yield server


# What is asked: a case that is held, and its masks.


@dataclass
class _Held:
    """The image that is explored.

    Attributes:
        number: that the page knows it by.
        planes: as the network gets them, and as they are shown.
        states: what can be asked.
        step: every n-th row and column is shown.
        whole: the last masks of a volume that is taken whole, with their state.
    """

    number: int
    planes: Planes
    states: list[State]
    step: int
    whole: tuple[int, np.ndarray] | None = None


class GoneError(DataError):
    """Another image has taken the place of the one that is asked for."""


class Explorer:
    """A model, and the image that it is asked of.

    Args:
        model: to ask.
        place: folder in which an image lies while it is read; made and removed each time.

    Attributes:
        images: how many were taken.
    """

    def __init__(self, model: AskedModel, place: Path) -> None:
        self.model, self.place = model, place
        self.images = 0
        self._held: _Held | None = None
        self._lock = threading.Lock()  # the network, and the readers' warnings, are for one

    def page(self) -> str:
        """The page, without an image as yet."""
        named = self.model.weights.class_names({})
        classes = [named.get(number, str(number)) for number in range(self.model.classes)]
        classes[0] = named.get(0, "background")
        fields = self.model.schema.fields
        own = {
            "gates": [],
            "scale": [0, 1],
            "cases": [],
            "most_bytes": MOST_BYTES,
            "runner": self.model.runner.told,
            "tags": {one.name: one.tag for one in fields if one.tag is not None},
        }
        scripts = ("whatif.js", "explore.js")
        return page_of(self.model, classes, "explore", "of yours", own, [], scripts)

    def take(self, content: bytes, kind: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Read an image, and hold it in the place of the one before.

        Args:
            content: of the file.
            kind: end of its name, such as .png; .zip is a DICOM series.
            metadata: raw values by field, as given.

        Returns:
            Its frame, for the page.

        Raises:
            DataError: it cannot be read, is none of such an image, or too large.
            MetadataError: a value is missing, or one that the schema refuses.
        """
        with self._lock, warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            self.place.mkdir()
            try:
                self._put(content, kind)
                frame = self._read(metadata)
            except Exception as error:
                raise (as_refusal(error) or error) from error
            finally:
                for one in sorted(self.place.rglob("*"), reverse=True):
                    one.rmdir() if one.is_dir() else one.unlink()
                self.place.rmdir()
        kinds = (DataWarning, MetadataWarning)
        told = [str(one.message) for one in remarks if issubclass(one.category, kinds)]
        frame["notes"] = [*frame["notes"], *map(self.plain, dict.fromkeys(told))]
        return frame

    def picture(self, case: int, plane: int) -> bytes:
        """A plane as WebP.

        Raises:
            GoneError: it is of another image.
        """
        held = self._of(case, plane)
        file = io.BytesIO()
        shown = held.planes.pictures[plane][:: held.step, :: held.step]
        Picture.fromarray(shown).save(file, "WEBP", quality=QUALITY)
        return file.getvalue()

    def mask(self, case: int, state: int, plane: int) -> dict[str, Any]:
        """The mask of a state in a plane, packed, the areas of its classes, and their intervals.

        Raises:
            GoneError: it is of another image.
        """
        with self._lock:
            held = self._of(case, plane)
            if not 0 <= state < len(held.states):
                raise GoneError(f"there is no state {state}; open the page anew")
            if held.whole is not None and held.whole[0] == state:
                mask = held.whole[1][plane]
            else:
                masks, _ = self.model.answer(held.planes, held.states[state], plane)
                mask = masks[plane if len(masks) > 1 else 0]
                if len(masks) > 1:
                    held.whole = (state, masks)
        shown = mask[:: held.step, :: held.step]
        packed = packed_masks(shown[None, None], None, self.model.classes)
        areas = self.model.counts(mask)
        known = self.model.intervals(held.planes, held.states[state], areas)
        return {"masks": packed, "areas": areas.tolist(), "intervals": known}

    def plain(self, text: object) -> str:
        """A message without the folder in which the image lay."""
        return str(text).replace(f"{self.place}/", "").replace(str(self.place), "the image")

    def _put(self, content: bytes, kind: str) -> None:
        """Write what was sent under a name of ours."""
        if kind != ARCHIVE:
            if kind not in FORMAT_OF_SUFFIX:
                raise DataError(
                    f"{kind or 'a file without a suffix'} is no image that can be read here; "
                    f"expected {', '.join([*FORMAT_OF_SUFFIX, ARCHIVE])} (of a DICOM series)"
                )
            (self.place / f"image{kind}").write_bytes(content)
            return
        series, left = self.place / "series", MOST_BYTES
        series.mkdir()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for number, member in enumerate(archive.infolist()):
                name = member.filename.rpartition("/")[2]
                if member.is_dir() or name.startswith(".") or name.upper() == "DICOMDIR":
                    continue
                with archive.open(member) as packed:
                    unpacked = packed.read(left + 1)
                left -= len(unpacked)
                if left < 0:
                    raise DataError(
                        f"the archive holds more than {MOST_BYTES >> 20} MiB; give one series"
                    )
                (series / f"{number:05d}.dcm").write_bytes(unpacked)

    def _read(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        model = self.model
        items = find_cases(
            self.place,
            model.schema,
            metadata=dict(metadata),
            default=model.default,
            unknown_trained=model.unknown,
        )
        if len(items) > 1:
            raise DataError(f"{len(items)} images; give one, or one DICOM series")
        raw = {**model.default, **(items[0].get("metadata") or {})}
        states, places = model.states(raw, "")
        unit = slice_items(items, model.spatial_dims, None, model.axis)
        shape = read_header(items[0]["image"]).get("spatial_shape", ())
        if math.prod(map(int, shape)) > MOST_PIXELS:
            raise DataError(
                f"{'x'.join(map(str, shape))} voxels, and at most {MOST_PIXELS} can be explored; "
                "cut the volume, or use predict"
            )
        planes = model.read_planes(unit)
        high, wide = planes.pictures[0].shape[:2]
        step, many = math.ceil(max(high, wide) / MOST_SIDE), len(planes.pictures)
        size, number = (-(-high // step), -(-wide // step)), self.images
        notes = []
        if step > 1:
            notes.append(f"Every {step}. row and column is shown; areas are of all pixels.")
        if model.cleaning.rules.cleans and many > 1 and len(unit) > 1:
            notes.append("Each slice is cleaned by itself; a prediction cleans the volume as one.")
        self._held = _Held(number, planes, states, step)
        self.images += 1
        frame = frame_of(model, raw, places, size, range(many), many, planes.spacing_mm)
        return {
            **frame,
            "number": number,
            "notes": notes,
            "pictures": [f"picture?case={number}&plane={plane}" for plane in range(many)],
            "areas": [[None] * many for _ in states],
            "intervals": [[None] * many for _ in states],
            **dict.fromkeys(("masks", "true_areas", "volumes", "gates")),
        }

    def _of(self, case: int, plane: int) -> _Held:
        held = self._held
        if held is None or held.number != case or not 0 <= plane < len(held.planes.pictures):
            raise GoneError(
                "another image has taken the place of this one, maybe in another window; drop it "
                "in again"
            )
        return held


# Who may ask: pages of this server, by a secret address, on this machine.


class Server(ThreadingHTTPServer):
    """Answers under a secret path of the loopback.

    Args:
        explorer: that answers.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Door)
        self.explorer, self.secret = explorer, secrets.token_urlsafe(24)

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/{self.secret}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that have gone."""
        if not isinstance(sys.exc_info()[1], OSError):
            logger.exception("an answer failed")


class _Door(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        asked = self._asked()
        explorer = self.server.explorer
        if asked == "":
            self._answer(HTTPStatus.OK, explorer.page().encode(), "text/html; charset=utf-8")
        elif asked == "picture":
            numbers = self._numbers("case", "plane")
            self._give(lambda: explorer.picture(*numbers), "image/webp")
        elif asked == "mask":
            numbers = self._numbers("case", "state", "plane")
            self._give(lambda: explorer.mask(*numbers))
        elif asked is not None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        asked = self._asked()
        if asked is None:
            return
        length = self.headers.get("Content-Length", "")
        if asked != "case":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        elif not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "the length of the image is not told")
        elif int(length) > MOST_BYTES:
            told = f"at most {MOST_BYTES >> 20} MiB can be dropped in; use predict"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told)
        else:
            content = self.rfile.read(int(length))
            query = parse_qs(urlsplit(self.path).query)
            try:
                metadata = json.loads(query.get("metadata", ["{}"])[0])
            except ValueError:
                metadata = None
            kind = query.get("kind", [""])[0].lower()
            texts = isinstance(metadata, dict) and all(
                isinstance(one, str) for one in metadata.values()
            )
            if not texts or len(content) != int(length):
                self._refuse(HTTPStatus.BAD_REQUEST, "the image or its metadata came in parts")
                return
            self._give(lambda: self.server.explorer.take(content, kind, metadata))

    def _asked(self) -> str | None:
        """What is asked for below the secret path; None where the question was refused."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host.partition(":")[0] not in HOSTS or origin not in (None, f"http://{host}"):
            self._refuse(HTTPStatus.FORBIDDEN, "only pages of this machine are answered")
            return None
        secret, _, asked = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not hmac.compare_digest(secret.encode(), self.server.secret.encode()):
            told = "open the whole address that explore has printed"
            self._refuse(HTTPStatus.FORBIDDEN, told)
            return None
        return asked

    def _numbers(self, *names: str) -> list[int]:
        """Whole numbers of the query; -1 where there is none."""
        query = parse_qs(urlsplit(self.path).query)
        texts = [query.get(name, [""])[0] for name in names]
        return [int(one) if one.isascii() and one.isdecimal() else -1 for one in texts]

    def _give(self, make: Callable[[], Any], kind: str = "application/json") -> None:
        """Answer with what is made, or with why it is not."""
        try:
            made = make()
        except Exception as error:
            refusal = as_refusal(error)
            if refusal is None:
                logger.exception("an answer failed")
                told = f"unforeseen: {type(error).__name__}; the terminal shows more"
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, told)
                return
            gone = isinstance(refusal, GoneError)
            status = HTTPStatus.GONE if gone else HTTPStatus.UNPROCESSABLE_ENTITY
            self._refuse(status, self.server.explorer.plain(refusal))
            return
        content = made if isinstance(made, bytes) else json.dumps(made, allow_nan=False).encode()
        self._answer(HTTPStatus.OK, content, kind)

    def _refuse(self, status: HTTPStatus, told: str) -> None:
        self._answer(status, told.encode(), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **HEADERS}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        """Tell nobody the version of Python."""
        return "metaseg"

    def log_message(self, format: str, *parts: Any) -> None:
        """Tell no names of images, nor the secret."""
