"""The page of images that are dropped in: its answers, its door, and in a real browser."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from contextlib import contextmanager
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from metaseg_monai.errors import ConfigError
from metaseg_monai.images import read_image
from metaseg_monai.sharing import explore as explored
from metaseg_monai.sharing.explore import serving
from metaseg_monai.sharing.run import predict
from tests.extras import needed

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
    "ignore:.*size_px.*expected a plain number",
)


@contextmanager
def answering(folder, table=None, **settings):
    with serving(folder, table, 0, settings) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(asked):
    with answering(asked / "model", asked / "data") as running:
        yield running


def ask(server, method, asked, body=None, path=None, **headers):
    """Status and content of an answer."""
    link = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    own = urlsplit(server.address).path
    link.request(method, f"{own}{asked}" if path is None else path, body, headers)
    response = link.getresponse()
    return response.status, response.read(), response.headers


def give(server, content, kind=".tif", **metadata):
    query = urlencode({"kind": kind, "metadata": json.dumps(metadata)})
    status, told, _ = ask(server, "POST", f"case?{query}", content)
    return status, json.loads(told) if status == 200 else told.decode()


def mask_of(server, frame, state, plane=0):
    asked = urlencode({"case": frame["number"], "state": state, "plane": plane})
    status, told, _ = ask(server, "GET", f"mask?{asked}")
    assert status == 200, told
    told = json.loads(told)
    stream, pixels = zlib.decompress(base64.b64decode(told["masks"])), np.prod(frame["size"])
    values, number, shift = [], 0, 0
    for byte in stream[1:]:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            values += [number % 2] * (number // 2)
            number = shift = 0
    assert (stream[0], len(values)) == (0, pixels)
    return np.reshape(values, frame["size"]), told["areas"]


def fields_of(server):
    page = ask(server, "GET", "")[1].decode()
    model = re.search(r'<script type="application/json" id="model">(.*?)</script>', page, re.S)[1]
    return {field["name"]: field for field in json.loads(model)["fields"]}


def is_empty(server):
    """Whether nothing of an image is left in the folder where it was read."""
    place = server.explorer.place
    return place.parent.is_dir() and not place.exists()


def test_masks_of_a_dropped_image_are_those_that_predict_gives(asked, server, tmp_path):
    content = (asked / "data/28.tif").read_bytes()
    status, frame = give(server, content, task="dark", size_px="6")
    assert status == 200, frame
    assert frame["given"]["task"]["text"] == "dark"
    assert is_empty(server)
    fields = fields_of(server)
    texts = {name: [one["text"] for one in field["options"]] for name, field in fields.items()}
    assert fields["size_px"]["trained"] == [4, 16]  # of the table
    (tmp_path / "one").mkdir()
    shutil.copy(asked / "data/28.tif", tmp_path / "one")
    given = {"task": "dark", "size_px": "6"}
    asks = [({}, {}), ({"task": "bright"}, {}), ({"size_px": texts["size_px"][20]}, {})]
    asks += [({"task": "unknown"}, {}), ({}, {"guidance": 0.5})]
    found = []
    for number, (moved, settings) in enumerate(asks):
        meta, output = {**given, **moved}, tmp_path / str(number)
        (path,) = predict(asked / "model", tmp_path / "one", output, meta, **settings).masks
        state = frame["states"]["guidance"][2] if settings else 0
        for name, text in moved.items():
            state = frame["states"][name][texts[name].index(text)]
        mask, areas = mask_of(server, frame, state)
        stored = read_image(path).array[0]
        assert np.array_equal(mask, stored), moved
        assert areas == [int(stored.sum())]
        found.append(mask)
    assert not np.array_equal(found[0], found[1])  # else it is no test
    status, picture, headers = ask(server, "GET", f"picture?case={frame['number']}&plane=0")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert Picture.open(io.BytesIO(picture)).size == (32, 32)


def test_the_door_is_that_of_a_prediction(asked, server):
    content = (asked / "data/28.tif").read_bytes()
    frame = give(server, content, task="dark")[1]
    assert frame["given"]["size_px"]["text"] == "unknown"  # which the network knows, and is told
    assert any("size_px" in note for note in frame["notes"])
    flat = io.BytesIO()
    tifffile.imwrite(flat, np.full((32, 32), 7, np.uint8))
    wrong = [
        (content, ".tif", {"task": "dsic"}, "'dsic'"),
        (content, ".tif", {"size_px": "500"}, "500"),
        (content, ".tif", {"size": "5"}, "'size' is no field"),
        (content[:90], ".tif", {"task": "dark"}, "image.tif"),
        (content, ".png", {"task": "dark"}, "image.png"),
        (content, ".svg", {"task": "dark"}, "expected .tif"),
        (content, "/../../x.tif", {"task": "dark"}, "no image that can be read"),
        (flat.getvalue(), ".tif", {"task": "dark"}, "constant"),
        (content, ".zip", {"task": "dark"}, "damaged"),
    ]
    for body, kind, metadata, message in wrong:
        status, told = give(server, body, kind, **metadata)
        assert status == 422, (kind, metadata)
        assert message in told, told
        assert str(server.explorer.place) not in told
        assert is_empty(server)
    assert mask_of(server, frame, 0)[1]  # the image before is still there
    other = give(server, content, task="bright")[1]
    asks = f"case={frame['number']}&state=0&plane=0"
    assert ask(server, "GET", f"mask?{asks}")[0] == 410
    for asks in ("case=&state=0&plane=0", f"case={other['number']}&state=999&plane=0", ""):
        assert ask(server, "GET", f"mask?{asks}")[0] == 410
    assert ask(server, "GET", f"picture?case={other['number']}&plane=-1")[0] == 410


def test_only_pages_of_this_machine_are_answered(asked, server, monkeypatch):
    host, port = server.server_address
    assert host == "127.0.0.1"
    assert ask(server, "GET", "")[0] == 200
    assert ask(server, "GET", "", Host=f"localhost:{port}")[0] == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1"):
        assert ask(server, "GET", "", Host=name)[0] == 403, name  # a name led here (rebinding)
    assert ask(server, "GET", "", Origin="http://evil.example")[0] == 403
    assert ask(server, "GET", "", Origin="null")[0] == 403
    content = (asked / "data/28.tif").read_bytes()
    before = server.explorer.images
    for path in ("/", "/case", "/wrong/", "//x/", f"/{server.secret}x/case"):
        assert ask(server, "GET", "", path=path)[0] == 403, path
        assert ask(server, "POST", "", content, path=path)[0] == 403, path
    for path in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "whatif.js", "//etc/passwd"):
        assert ask(server, "GET", path)[0] == 404, path
    assert ask(server, "POST", "mask", b"")[0] == 404
    assert ask(server, "PUT", "case", content)[0] == 501
    assert ask(server, "POST", "case?metadata=[]&kind=.tif", content)[0] == 400
    monkeypatch.setattr(explored, "MOST_BYTES", 10)
    assert ask(server, "POST", "case?kind=.tif", content)[0] == 413
    assert ask(server, "POST", "case?kind=.tif", **{"Content-Length": "-1"})[0] == 411
    assert server.explorer.images == before
    policy = re.search(r'Policy" content="([^"]*)"', ask(server, "GET", "")[1].decode())[1]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


def as_dicom(voxels):
    """A series of planes (D, H, W) as an archive, with what else archives have in them."""
    pydicom = needed("pydicom", reason="pydicom is not installed")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("DICOMDIR", b"no plane")
        packed.writestr("__MACOSX/._0.dcm", b"no plane")
        for number, pixels in enumerate(voxels):
            plane, file = pydicom.Dataset(), io.BytesIO()
            plane.file_meta = pydicom.dataset.FileMetaDataset()
            plane.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            plane.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # CT
            plane.file_meta.MediaStorageSOPClassUID = plane.SOPClassUID
            uid = pydicom.uid.generate_uid()
            plane.file_meta.MediaStorageSOPInstanceUID = plane.SOPInstanceUID = uid
            plane.Modality, plane.SeriesInstanceUID, plane.FrameOfReferenceUID = "CT", "1.2", "1.3"
            plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            plane.ImagePositionPatient = [0, 0, -3 * number]
            plane.PixelSpacing, plane.SliceThickness = [0.5, 0.5], 3
            plane.Rows, plane.Columns = pixels.shape
            plane.SamplesPerPixel, plane.PhotometricInterpretation = 1, "MONOCHROME2"
            plane.BitsAllocated, plane.BitsStored, plane.HighBit = 16, 12, 11
            plane.PixelRepresentation, plane.RescaleSlope, plane.RescaleIntercept = 0, 1, 0
            plane.PixelData = pixels.astype("<u2").tobytes()
            plane.save_as(file, enforce_file_format=True)
            packed.writestr(f"../../../series/{number}", file.getvalue())  # its path is not used
    return archive.getvalue()


def test_volumes_and_series_come_as_slices(asked, scene, server, tmp_path):
    voxels = np.stack([scene(100 + number, 32)[0] for number in range(4)]).astype(np.int16)
    affine = np.array([[0, 0, -0.5, 0], [0, -0.5, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "scan.nii.gz")
    contents = {".nii.gz": (tmp_path / "scan.nii.gz").read_bytes(), ".zip": as_dicom(voxels)}
    of_planes = []
    for pixels in voxels:
        tifffile.imwrite(tmp_path / "plane.tif", pixels.astype(np.uint8))
        frame = give(server, (tmp_path / "plane.tif").read_bytes(), task="bright", size_px="8")[1]
        of_planes.append(mask_of(server, frame, 0)[0])
    assert any(mask.any() for mask in of_planes)
    for kind, content in contents.items():
        status, frame = give(server, content, kind, task="bright", size_px="8")
        assert status == 200, frame
        assert (frame["planes"], frame["of"], frame["pixel_mm2"]) == ([0, 1, 2, 3], 4, 0.25)
        assert is_empty(server)
        for plane, expected in enumerate(of_planes):
            assert np.array_equal(mask_of(server, frame, 0, plane)[0], expected), kind


def test_an_archive_may_not_grow(asked, server, monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(1 << 20))
    monkeypatch.setattr(explored, "MOST_BYTES", 1 << 16)
    assert len(archive.getvalue()) < 1 << 16
    status, told = give(server, archive.getvalue(), ".zip", task="dark")
    assert status == 422
    assert "archive holds more than" in told
    assert is_empty(server)


def test_a_port_that_is_taken_is_refused(asked, server):
    with (
        pytest.raises(ConfigError, match="give another, or 0"),
        serving(asked / "model", None, server.server_address[1], {}),
    ):
        pass


def test_the_command_ends_by_ctrl_c(asked, tmp_path):
    words = ["explore", str(asked / "model"), "--engine", "torch"]
    command = subprocess.Popen(
        [sys.executable, "-m", "metaseg_monai", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as of a terminal
    )
    try:
        address = command.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), command.stderr.read()
        with urlopen(address) as page:
            assert b"Drop an image here" in page.read()
        assert list(tmp_path.glob("metaseg*"))
        command.send_signal(signal.SIGINT)
        told, errors = command.communicate(timeout=30)
    finally:
        command.kill()
    assert command.returncode == 0, errors
    assert "ended; 0 image(s)" in told
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("metaseg*"))


# In a real browser, where there is one.


def wait_for(browser, script, seconds=30):
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, script
        time.sleep(0.05)


def canvas_of(browser):
    address = browser.execute_script("return document.getElementById('image').toDataURL()")
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


TEXT = "return document.getElementById('{}').textContent.includes('{}')"
SHOWN = "return document.getElementById('image').dataset.state === '{}'"


def open_in(browser, server, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(server.address)


@pytest.mark.parametrize("width", [1280, 400, 320])
def test_it_can_be_read_by_everybody(asked, server, browser, poor, width):
    open_in(browser, server, width)
    browser.find_element("id", "segment").click()  # without an image: it says so
    assert poor(browser, width) == []
    browser.find_element("id", "file").send_keys(str(asked / "data/28.tif"))
    wait_for(browser, SHOWN.format(0))
    assert poor(browser, width) == []
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_a_dropped_image_is_segmented_in_a_browser(asked, server, browser):
    open_in(browser, server, 1280)
    browser.find_element("id", "segment").click()
    assert "Choose an image" in browser.find_element("id", "refused").text
    browser.find_element("css selector", "#given-field-task option[value=dark]").click()
    browser.find_element("id", "given-field-size_px").send_keys("500")
    browser.find_element("id", "file").send_keys(str(asked / "data/28.tif"))
    wait_for(browser, TEXT.format("refused", "500"))
    assert not browser.find_element("id", "page").is_displayed()
    value = browser.find_element("id", "given-field-size_px")
    value.clear()
    value.send_keys("6\n")  # the key of a form
    wait_for(browser, SHOWN.format(0))
    before = canvas_of(browser)
    assert "told: task dark; size_px 6 px (as given)" in browser.find_element("id", "now").text
    assert browser.find_element("id", "name").text == "28.tif"
    choices = browser.find_elements("css selector", "#field-task input")
    browser.execute_script("arguments[0].click()", choices[1])
    wait_for(browser, TEXT.format("now", "bright instead"))
    wait_for(browser, "return document.getElementById('image').dataset.state !== '0'")
    assert (canvas_of(browser) != before).any()
    content = (asked / "data/28.tif").read_bytes()  # in another window
    states = give(server, content, task="dark", size_px="6")[1]["states"]
    script = "const range = document.getElementById('guidance'); range.value = 0;"
    browser.execute_script(f"{script} range.dispatchEvent(new Event('input'))")
    wait_for(browser, TEXT.format("warning", "another image"))
    browser.find_element("id", "segment").click()
    wait_for(browser, SHOWN.format(0))
    browser.execute_script(
        f"{script.replace('= 0', '= 8')} range.dispatchEvent(new Event('input'))"
    )
    wait_for(browser, SHOWN.format(states["guidance"][8]))
    points = "return document.querySelector('#curve polyline').points.numberOfItems"
    wait_for(browser, f"{points} === 9")  # all of the curve comes by itself
    asked_for = [
        json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
    ]
    sent = [
        one["params"]["request"]["url"]
        for one in asked_for
        if one["method"] == "Network.requestWillBeSent"
    ]
    assert any("mask?" in url for url in sent)
    assert all(url.startswith((server.address, "data:", "blob:")) for url in sent), sent
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    refused = ("422 (Unprocessable Entity)", "410 (Gone)")  # Chromium tells of each
    assert all(any(one in entry["message"] for one in refused) for entry in severe), severe
