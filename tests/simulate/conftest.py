import numpy as np
import pytest
import tifffile

from metaseg_monai.images.read import read_image
from metaseg_monai.rows import read_lines


@pytest.fixture(scope="session")
def nuclei():
    """Numbers of three ellipses, whose sizes a seed draws."""

    def draw(seed, side=64):
        random = np.random.default_rng(seed)
        rows, columns = np.ogrid[:side, :side]
        numbers = np.zeros((side, side), np.uint16)
        for number, (row, column) in enumerate([(16, 16), (16, 47), (47, 30)], start=1):
            high, wide = random.uniform(9, 13, 2)
            numbers[((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 <= 1] = number
        return numbers

    return draw


@pytest.fixture
def cells(tmp_path, write_csv, nuclei):
    """12 training wells (two lines), 2 validation and 2 test wells, one image each."""

    def make(kind="binary", fields=1):
        folder = tmp_path / "cells"
        (folder / "images").mkdir(parents=True)
        (folder / "labels").mkdir()
        rows = []
        for well, split in enumerate(["train"] * 12 + ["val"] * 2 + ["test"] * 2):
            for field in range(fields):
                name = f"w{well}_{field}.tif"
                numbers = nuclei(10 * well + field)
                image = np.random.default_rng(well).integers(0, 65535, numbers.shape, np.uint16)
                tifffile.imwrite(folder / "images" / name, image)
                label = numbers if kind == "numbers" else (numbers > 0).astype(np.uint8)
                tifffile.imwrite(folder / "labels" / name, label)
                row = {"image": f"images/{name}", "label": f"labels/{name}"}
                row |= {"cell_line": "HeLa" if well % 2 else "MDCK", "group": f"w{well}"}
                row |= {"split": split, "plate": "P1"}
                if kind == "both":
                    tifffile.imwrite(folder / "labels" / f"n_{name}", numbers)
                    row["instances"] = f"labels/n_{name}"
                rows.append(row)
        write_csv(folder / "table.csv", rows)
        return folder

    return make


@pytest.fixture(scope="session")
def rows_of():
    def read(folder):
        return [cells for _, cells in read_lines(folder / "table.csv")[1]]

    return read


@pytest.fixture(scope="session")
def contents():
    """Every file of a folder by its path."""

    def read(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def plane():
    def read(path):
        return read_image(path, palette="indices").array[0]

    return read
