import csv

import numpy as np
import PIL.Image
import pytest
import tifffile

SHAPE = (20, 30)


class Lab:
    """Writes tiny folders of images, masks and tables."""

    shape = SHAPE

    def image(self, seed=0, shape=SHAPE, dtype=np.uint16):
        return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)

    def mask(self, value=1):
        mask = np.zeros(SHAPE, np.uint8)
        mask[4:9, 5:12] = value
        return mask

    def tif(self, path, array, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
        return path

    def png(self, path, array):
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(array).save(path)
        return path

    def csv(self, path, rows):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    def rows(self, path):
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def cells(self, folder, count=6, split=True):
        """images/im<n>.tif, masks/im<n>.png (0 and 1) and lab.csv of two lines and three wells."""
        rows = []
        for n in range(count):
            self.tif(folder / "images" / f"im{n}.tif", self.image(n))
            self.png(folder / "masks" / f"im{n}.png", self.mask())
            row = {"File": f"im{n}.tif", "cell_line": ["HeLa", "A549"][n % 2]}
            row |= {"plate": "p1", "well": f"B0{n // 2}"}
            rows.append({**row, "split": ["train", "val", "test"][n // 2 % 3]} if split else row)
        self.csv(folder / "lab.csv", rows)
        return folder, rows

    def content(self, folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="session")
def lab():
    return Lab()
