"""A network of two metadata that was trained for a moment; a real browser where there is one."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.sharing.run import train
from tests.extras import lacking, needed

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/synthetic_shapes_segmentation"
AT_ALL_TIMES = {
    "provenance": "acquisition",
    "availability": "acquisition",
    "missing": "unknown",
}
SCHEMA = MetadataSchema(
    [
        Categorical(name="task", values=("dark", "bright", "never"), **AT_ALL_TIMES),
        Continuous(
            name="size_px", unit="px", range=(2, 20), description="</script><b>", **AT_ALL_TIMES
        ),
    ]
)


def drawn(seed, size):
    """A dark and a bright square on grey, and the label of each."""
    random = np.random.default_rng(seed)
    image = random.normal(120, 3, (size, size))
    side = size // 3
    labels = {}
    for task, level, left in (("dark", 50, 2), ("bright", 200, size // 2)):
        y, x = random.integers(2, size - side - 2), left + random.integers(0, size // 10)
        image[y : y + side, x : x + side] = level
        labels[task] = np.zeros((size, size), np.uint8)
        labels[task][y : y + side, x : x + side] = 1
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def scene():
    return drawn


@pytest.fixture(scope="session")
def asked(tmp_path_factory):
    """A network that was trained for a moment, and its table."""
    root = tmp_path_factory.mktemp("asked")
    (root / "data").mkdir()
    SCHEMA.save(root / "schema.json")
    rows = []
    splits = ["train"] * 24 + ["val"] * 4 + ["test"] * 2
    for number, split in enumerate(splits):
        image, labels = drawn(number, 32)
        tifffile.imwrite(root / f"data/{number}.tif", image)
        size = "" if number % 5 == 4 else 4 + number % 13
        both = ("dark", "bright") if split == "train" else (("dark", "bright")[number % 2],)
        for task in both:  # so that the metadata decide
            tifffile.imwrite(root / f"data/{number}_{task}.tif", labels[task])
            row = {"image": f"{number}.tif", "label": f"{number}_{task}.tif", "task": task}
            rows.append({**row, "size_px": size, "group": f"g{number}", "split": split})
    table = pd.DataFrame(rows)
    table.to_csv(root / "data/table.csv", index=False)
    settings = {"network_def#channels": 8, "network_def#levels": 2, "roi_size": [32, 32]}
    where = {"dataset_dir": root / "data", "schema_file": root / "schema.json"}
    train(BUNDLE, root / "model", variant="me", epochs=30, **where, **settings)
    return root


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    webdriver = needed("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        lacking("no Chromium with its driver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = ("quic", "gpu", "background-networking", "component-update", "sync")
    flags = ["headless", "no-sandbox", "no-first-run", *(f"disable-{one}" for one in quiet)]
    for flag in (*flags, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver)
    with webdriver.Chrome(options=options, service=service) as running:
        yield running


CONTRAST = """
const luminance = (text) => {
  const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (!/rgba\\(0, 0, 0, 0\\)/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
};
const poor = [];
for (const element of document.querySelectorAll('body *')) {
  const words = [...element.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
  if (!words || !element.getClientRects().length || element.disabled) continue;
  const style = getComputedStyle(element);
  const colour = element instanceof SVGElement ? style.fill : style.color;
  const both = [luminance(colour), luminance(behind(element))];
  const [one, other] = both.sort((a, b) => b - a);
  if ((one + 0.05) / (other + 0.05) < 4.5) poor.push(element.outerHTML.slice(0, 120));
}
return poor;
"""
UNNAMED = """
const controls = 'input, select, button, canvas[role], svg, [role=radiogroup]';
return [...document.querySelectorAll(controls)]
  .filter((one) => one.getClientRects().length)
  .filter((one) => !(one.labels && one.labels.length))
  .filter((one) => !one.getAttribute('aria-label') && !one.textContent.trim())
  .map((one) => one.outerHTML.slice(0, 120));
"""
TWICE = """
const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
return ids.filter((one, at) => ids.indexOf(one) !== at);
"""


@pytest.fixture
def poor():
    """What of an open page is hard to see, to use or to name, in a window of that width."""

    def found(browser, width):
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        told = [f"{wide} pixels wide"] if wide > width else []
        told += browser.execute_script(CONTRAST)
        told += browser.execute_script(UNNAMED)
        return told + browser.execute_script(TWICE)

    return found
