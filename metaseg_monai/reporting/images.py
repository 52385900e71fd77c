"""What the report says of predicted images: their scores, the objects that they show, pictures."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.image_scores import (
    FEATURES,
    OBJECTS_FILE,
    SAMPLES_FILE,
    SOURCES,
    ImageSample,
    read_image_objects,
    read_image_samples,
)
from metaseg_monai.evaluation.per_case import IMAGE_SCORES
from metaseg_monai.metrics.images import Agreement, agreement, correlation
from metaseg_monai.reporting.figures.predictions import translation_grid
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import Results, by_condition
from metaseg_monai.reporting.scores import Spread, of_trainings, seeds_note, spread
from metaseg_monai.reporting.tables import Table

NAMES = {"medmae": "medMAE", "psnr": "PSNR [dB]", "ssim": "SSIM", "pearson": "Pearson"}
LARGEST = 8  # rows of pictures


def image_section(results: Results) -> Section:
    """Scores of images by condition, channel, domain and group, their objects, and pictures."""
    parts: list[Part] = [_scores(results)]
    by = {
        "channel": ("channel",),
        "domain": ("channel", "domain"),
        "well": ("channel", "domain", "group"),
    }
    for what, columns in by.items():
        table = _scores_by(results, columns)
        if len(table) > len(results.conditions):
            title = f"Scores of images by {'group (well)' if what == 'well' else what}"
            note = "Mean over cases and trainings, with true metadata."
            parts.append(Details(title, [Table(f"images_{what}", title, note, table)]))
    parts += _pictures(results)
    parts += _object_parts(results)
    intro = (
        "The predicted images beside the real ones, in the values of their files. PSNR and SSIM "
        "take the range of the real image as the peak."
    )
    return Section("Images", intro, parts)


def _scores(results: Results) -> Table:
    def of(counts: pd.DataFrame) -> Mapping[str, float]:
        return {NAMES[name]: float(counts[name].mean()) for name in IMAGE_SCORES}

    scored: Spread = spread(of_trainings(results.normal, of))
    note = (
        "With true metadata, mean over cases and channels. medMAE: lower is better; the others: "
        f"higher is better. {seeds_note(results)}"
    )
    return Table("images", "Scores of images by condition", note, *scored, first="condition")


def _scores_by(results: Results, columns: tuple[str, ...]) -> pd.DataFrame:
    groups = results.normal.groupby(["condition", *columns], sort=False)
    means = groups[list(IMAGE_SCORES)].mean().rename(columns=NAMES)
    table = means.assign(cases=groups["case"].nunique())
    table.index = pd.Index([", ".join(map(str, key)) for key in table.index])
    return table


def _pictures(results: Results) -> list[Part]:
    parts: list[Part] = []
    for name, (run, *_) in results.first_runs.items():
        file = run.folder / SAMPLES_FILE
        samples: list[ImageSample] = read_image_samples(file) if file.is_file() else []
        if not samples:
            continue
        shown = samples[:LARGEST]
        more = f" {len(shown)} of {len(samples)} that are stored." if shown != samples else ""
        caption = (
            f"Images of {name}, first training: planes, real, generated in the scale of the real "
            "one, their difference (orange: too bright, blue: too dark), and outlines of objects "
            f"(blue: real, orange: generated, white: both).{more}"
        )
        parts.append(Figure(f"images_{name}", caption, translation_grid(shown)))
    return parts


# Objects of real and of generated images.


def _object_parts(results: Results) -> list[Part]:
    objects = results.read(OBJECTS_FILE, read_image_objects)
    if objects.empty:
        return []
    counts, features = {}, {}
    for condition, of_condition in by_condition(objects).items():
        normal = results.normal[results.normal["condition"] == condition]
        for where, rows, cases in _parts_of(of_condition, normal):
            name = ", ".join((condition, *where))
            counts[name] = count_row(rows, cases)
            for feature in FEATURES:
                features[f"{name}, {feature.removesuffix('_px')}"] = feature_row(rows, feature)
    note = (
        "Objects found by one rule in real and generated images, all trainings together. "
        "correlation: of their number, over images and trainings (three or more)."
    )
    told = (
        "Of all objects: means, their relative error, the Kolmogorov-Smirnov distance of both "
        "distributions (0: the same), and the correlation of the images' means. Areas in pixels, "
        "intensities in the values of files, texture: contrast of grey-level co-occurrence at 1 "
        "and 4 pixels."
    )
    title = "Features of objects in real and generated images"
    return [
        Table("images_objects", "Number of objects in real and generated images", note,
              pd.DataFrame.from_dict(counts, orient="index")),
        Details(title, [Table("images_features", title, told,
                              pd.DataFrame.from_dict(features, orient="index"))]),
    ]  # fmt: skip


def _parts_of(
    objects: pd.DataFrame, scored: pd.DataFrame
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame, pd.DataFrame]]:
    """Objects, and the images that were scored, by channel, by domain and by group in it."""
    for columns in (["channel"], ["channel", "domain"], ["channel", "domain", "group"]):
        if (
            columns[1:]
            and objects.groupby(columns).ngroups == objects.groupby(columns[:-1]).ngroups
        ):
            continue  # says the same as the level above
        for key, cases in scored.groupby(columns, sort=False):
            rows = objects[(objects[columns] == list(key)).all(axis=1)]
            if not rows.empty:
                yield tuple(map(str, key)), rows, cases


def count_row(objects: pd.DataFrame, scored: pd.DataFrame) -> dict[str, float]:
    """How many objects real and generated images show.

    Args:
        objects: rows of `read_image_objects`, of one channel or part of it.
        scored: rows of the counts of the same; an image without objects has none of the former.
    """
    image = ["condition", "data_seed", "seed", "case"]
    every = pd.MultiIndex.from_frame(scored[image].drop_duplicates())
    real, generated = (
        objects[objects["source"] == source].groupby(image).size().reindex(every, fill_value=0)
        for source in SOURCES
    )
    total, other = int(real.sum()), int(generated.sum())
    return {
        "real": total,
        "generated": other,
        "relative error": (other - total) / total if total else float("nan"),
        "correlation": correlation(real.to_numpy(float), generated.to_numpy(float)),
        "images": len(every),
    }


def feature_row(objects: pd.DataFrame, feature: str) -> dict[str, float]:
    """How alike a feature of the objects is, see `Agreement`."""
    image = ["condition", "data_seed", "seed", "case"]
    real, generated = (objects[objects["source"] == source] for source in SOURCES)
    means = pd.concat(
        [one.groupby(image)[feature].mean() for one in (real, generated)], axis=1, join="inner"
    )
    one: Agreement = agreement(
        real[feature].to_numpy(float),
        generated[feature].to_numpy(float),
        (np.asarray(means.iloc[:, 0]), np.asarray(means.iloc[:, 1])),
    )
    return {
        "real": one.real,
        "generated": one.generated,
        "relative error": one.relative_error,
        "KS": one.ks,
        "correlation": one.correlation,
    }
