"""What the report says of single objects, of patients, and of images that were predicted."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from metaseg_monai.evaluation import read_surfaces
from metaseg_monai.evaluation.image_scores import (
    FEATURES,
    OBJECTS_FILE,
    SAMPLES_FILE,
    SOURCES,
    ImageSample,
    read_image_objects,
    read_image_samples,
)
from metaseg_monai.evaluation.object_scores import FOUND_COLUMNS, read_object_scores
from metaseg_monai.metrics.images import Agreement, agreement, correlation
from metaseg_monai.metrics.scores import IMAGE_SCORES, pooled_f1
from metaseg_monai.reporting import scores
from metaseg_monai.reporting.comparisons import compared_again, lacking
from metaseg_monai.reporting.figures.predictions import translation_grid
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import REPLICATE, TRAINING, Results, by_condition, class_text
from metaseg_monai.reporting.scores import (
    ENDS,
    Spread,
    of_trainings,
    over_groups,
    seeds_note,
    spread,
)
from metaseg_monai.reporting.tables import Table
from metaseg_monai.study.design import Protocol

OBJECT_SCORES = "objects_scores.csv"
SCORE = "object F1 at IoU 0.5"
SURFACES = "surfaces.csv"
NO_TOLERANCE = (
    "How close the outlines lie (NSD) was not scored: no tolerance was set. Set one in the study's "
    'settings, such as `"tolerance": {"px": 2}` or `{"mm": 1.5}`: the distance between two '
    "annotators, where it is known."
)


def objects_section(results: Results, protocol: Protocol) -> Section | None:
    """Scores of objects; None where no run wrote any.

    Args:
        results: of the study.
        protocol: whose comparisons are made on the object F1 of each case as well, of its label
            class where it names one.
    """
    every = object_results(results)
    if every is None:
        return None
    found = every.of_class(protocol.label_class)
    values, half_range = scores.spread(scores.of_trainings(found.normal, object_numbers))
    number = "true objects"  # the same with every training on the same data
    values[number] = values[number].round().astype(int)
    half_range[number] = float("nan")
    seeds = scores.seeds_note(found)
    note = (
        "With true metadata. F1 at IoU 0.5: an object is found where a predicted one shares at "
        "least half of the union of both; F1 at IoU 0.5-0.95: mean over the ten thresholds; "
        "counts pooled over all cases, mean over label classes. Matched IoU: mean of the found "
        "objects. Splits: true objects in which two or more predicted ones lie; merges: predicted "
        "objects in which two or more true ones lie, each with more than half of its own pixels. "
        "True objects below the smallest size that predictions keep are ignored, and with them "
        "the predicted ones that stand for them. "
        f"{seeds}"
    )
    about = [_truth(found), _ignored(found), lacking(results, found.counts, "objects")]
    title = "Objects by condition"
    table = Table("objects", title, note, values, half_range, first="condition")
    parts: list[Part] = [*filter(None, about), table]
    by_domain = scores.f1_table(found)
    if len(by_domain.mean.columns) > 3:
        told = f"combined: counts pooled over all cases; average: mean of the domains. {seeds}"
        title = "Object F1 at IoU 0.5 in each domain"
        parts.append(
            Table("objects_domains", title, told, *by_domain, best="high", first="condition")
        )
    parts += compared_again(found, protocol, None, "objects", SCORE)
    reliance = scores.reliance_table(found)
    if reliance is not None:
        title = "Objects lost by other metadata"
        told = f"Pooled {SCORE} lost when each case gets other metadata than its own. {seeds}"
        parts.append(Table("objects_reliance", title, told, *reliance, first="condition"))
    told = (
        "Seeds averaged within a case. A case without any object in truth and prediction has no "
        "score and is counted; one that has objects in only one of them has 0."
    )
    title = "Object F1 at IoU 0.5 case by case"
    cases = scores.case_table(found).rename(columns={"with false pixels": "with false objects"})
    table = Table("objects_cases", title, told, cases, first="condition")
    parts.append(Details("Case by case", [table]))
    intro = "Predictions taken apart into objects, each compared with the true object it overlaps."
    return Section("Objects", intro, parts)


def object_results(results: Results) -> Results | None:
    """The results with objects in the place of pixels: found, false and missed ones at IoU 0.5.

    The columns of `read_object_scores` are kept beside the counts. Conditions and trainings
    without scores of objects are left out; None where no run has any.

    Raises:
        DataError: a file is damaged, or has other cases than the counts.
    """
    table = results.read(OBJECT_SCORES, read_object_scores, has="same")
    return None if table.empty else replace(results, counts=_at(table, FOUND_COLUMNS[0]))


def object_numbers(table: pd.DataFrame) -> dict[str, float]:
    """Pooled scores of one mode of one result, see `objects_section`."""
    true, found = table["true"].sum(), table["tp_50"].sum()
    matched = (table["matched_iou"].fillna(0) * table["tp_50"]).sum()
    return {
        "F1 at IoU 0.5": pooled_f1(table),
        "F1 at IoU 0.5-0.95": float(np.mean([pooled_f1(_at(table, c)) for c in FOUND_COLUMNS])),
        "precision": _share(found, table["pred"].sum()),
        "recall": _share(found, true),
        "matched IoU": _share(matched, found),
        "splits per 100": 100 * _share(table["splits"].sum(), true),
        "merges per 100": 100 * _share(table["merges"].sum(), true),
        "true objects": float(true),
    }


def _at(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with the counts of one threshold as tp, fp and fn."""
    found = table[column]
    return table.assign(tp=found, fp=table["pred"] - found, fn=table["true"] - found)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _truth(results: Results) -> str:
    """Say what the true objects were made of, as touching objects of a mask are one."""
    sources = set(results.counts["truth"])
    if "image" in sources:
        return (
            "The true objects are those of the real image, the predicted ones those of the "
            "generated image, both found by the same rule."
        )
    touching = "connected parts of the label, so that objects which touch are one"
    alike = "predicted ones are made likewise there, whatever the method"
    if sources == {"components"}:
        return f"The true objects are {touching}; {alike}."
    if "components" in sources:
        return (
            f"The true objects of some cases are numbered in a file; of the others {touching}, "
            f"and {alike}."
        )
    return "The true objects are numbered in files of their own."


def _ignored(results: Results) -> str:
    """Say how many true objects are too small to count, or that a run did not ignore them."""
    ignored = results.normal["ignored"]
    if ignored.isna().any():
        return (
            "Some runs were scored before small true objects were ignored and cases without "
            "object numbers kept whole; evaluate them again before they are compared."
        )
    most = int(results.normal.groupby(TRAINING)["ignored"].sum().max())
    return f"True objects ignored, as they are below the smallest size: {most}." if most else ""


# Scores of each group (a patient, a well) and class.


def group_section(results: Results, protocol: Protocol) -> Section:
    """Scores of each group and class, and the planned comparisons on the surface Dice.

    Args:
        results: of all classes.
        protocol: whose comparisons are made on the NSD as well.
    """
    surfaces = results.read(SURFACES, read_surfaces)
    found = object_results(results)
    measures = {"Dice": _dice(results.normal)}
    if not surfaces.empty:
        measures["NSD"] = surfaces.assign(score=surfaces["nsd"])
    if found is not None:
        measures["object F1"] = _dice(found.normal)
    table = group_table(results, measures)
    empty = _empty(results)
    note = (
        "With true metadata. A group is what belongs together: a patient, a well. Mean over groups "
        "of the mean of their cases, seeds averaged within a case, with its 95 % interval over "
        "groups, none below five. A case "
        "whose class is empty in label and prediction has no score (left out: how many, over all "
        "trainings); one where it is empty in one of them has 0. Dice: overlap. NSD: share of both "
        "outlines that lies within the tolerance of the other. object F1: objects found at IoU 0.5."
    )
    about = [_tolerance(surfaces) if not surfaces.empty else NO_TOLERANCE, empty]
    if not surfaces.empty:
        about.append(lacking(results, surfaces, "surfaces"))
    title = "Scores of a group, by class"
    parts: list[Part] = [
        Table("groups", title, note, table, first="condition, class"),
        *filter(None, about),
    ]
    if not surfaces.empty:
        scores = surfaces.assign(f1=surfaces["nsd"])
        if protocol.label_class is not None:
            scores = scores[scores["class"] == protocol.label_class]
        place = [*TRAINING, "case", "group", "domain"]
        of_case = scores.groupby(place, sort=False)["f1"].mean().reset_index()
        parts += compared_again(results, protocol, of_case, "surfaces", "NSD")
    return Section("Groups", "Each group counts once, whatever cases it has.", parts)


def group_table(results: Results, measures: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Conditions and classes x (measure; mean, low, high) and the number of groups.

    Args:
        results: whose conditions and classes are rows.
        measures: rows with the columns `TRAINING`, ``case, group, class, score``, by name.
    """
    columns: dict[tuple[str, str], pd.Series] = {}
    for name, rows in measures.items():
        of_case = rows.groupby(["condition", "class", "group", "case"], sort=False)["score"].mean()
        of_group = of_case.groupby(["condition", "class", "group"], sort=False).mean()
        means = over_groups(of_group, bounded=True)
        columns |= {(name, end): means[end] for end in ENDS}
        columns[name, "groups"] = means["groups"]
    table = pd.DataFrame(columns)
    order = [
        (name, number)
        for name in results.conditions
        for number in sorted(set(results.counts["class"]))
        if (name, number) in table.index
    ]
    table = table.loc[order]
    for name in measures:
        table[name, "groups"] = table[name, "groups"].fillna(0).astype(int)
    several = results.counts["class"].nunique() > 1
    names = results.class_names
    heads = [f"{name}, {class_text(names, n)}" if several else str(name) for name, n in order]
    return table.set_axis(heads)


def _dice(counts: pd.DataFrame) -> pd.DataFrame:
    """The Dice of each training, case and class; NaN where it is in neither."""
    tp, fp, fn = (counts[name] for name in ("tp", "fp", "fn"))
    return counts.assign(score=2 * tp / (2 * tp + fp + fn))  # NaN of 0 / 0


def _tolerance(surfaces: pd.DataFrame) -> str:
    kinds = surfaces[["tolerance", "unit"]].drop_duplicates().to_numpy()
    told = [f"{number:g} {unit}" for number, unit in kinds]
    if len(told) > 1:
        return f"Tolerances of the NSD differ ({', '.join(told)}): its rows cannot be compared."
    return f"Tolerance of the NSD: {told[0]}."


def _empty(results: Results) -> str:
    """How many scores do not exist, of all trainings."""
    scores = _dice(results.normal)
    missing = scores[scores["score"].isna()]
    if missing.empty:
        return ""
    told = f"Left out as empty in label and prediction: {len(missing)} of {len(scores)}"
    place = [*REPLICATE, "case", "class"]
    which = {
        name: set(missing.loc[missing["condition"] == name, place].itertuples(index=False))
        for name in results.conditions
    }
    if all(one == which[results.conditions[0]] for one in which.values()):
        return f"{told}."
    counts = ", ".join(f"{name} {len(one)}" for name, one in which.items())
    return (
        f"{told} ({counts}), so that these means are of different cases; comparisons are made on "
        "the same cases."
    )


# Images that were predicted, and the objects in them beside those in the real ones.

NAMES = {
    "medmae": "medMAE",
    "psnr": "PSNR [dB]",
    "ssim": "SSIM",
    "pearson": "Pearson",
    "sharpness": "sharpness",
}
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
        "take the range of the real image as the peak. Sharpness is the mean step between "
        "neighbouring pixels over that of the real image: 1 is as sharp, less is blurred."
    )
    return Section("Images", intro, parts)


def _scores(results: Results) -> Table:
    def of(counts: pd.DataFrame) -> Mapping[str, float]:
        return {NAMES[name]: float(counts[name].mean()) for name in IMAGE_SCORES}

    scored: Spread = spread(of_trainings(results.normal, of))
    note = (
        "With true metadata, mean over cases and channels. medMAE: lower is better; the others: "
        f"higher is better, of sharpness what is nearer to 1. {seeds_note(results)}"
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
