"""Pictures of what the networks predicted, from the samples that the runs stored."""

from collections import Counter
from collections.abc import Mapping, Sequence

from metaseg_monai.evaluation.samples import Sample, read_samples
from metaseg_monai.study.report import figures
from metaseg_monai.study.report.document import Figure
from metaseg_monai.study.report.run_files import continuous_fields
from metaseg_monai.study.results import Results

CASES = 8  # rows of a grid of pictures
SHOWN = 8  # conditions side by side in it


def predictions(results: Results) -> list[Figure]:
    """Predictions of the first seed, and the same image under every label."""
    samples: dict[str, Sequence[Sample]] = {}
    for name, by_seed in results.conditions.items():
        result = next(iter(by_seed.values()))
        found = [
            sample
            for domain, folder in result.folders.items()
            if (folder / "samples.npz").is_file()
            for sample in read_samples(folder / "samples.npz")
            if not domain or sample.domain == domain
        ]
        if found:
            samples[name] = found
    drawn = []
    names = _most_telling(list(samples))
    if names:
        png = figures.prediction_grid({name: samples[name] for name in names}, rows=CASES)
        caption = (
            f"Predictions of the first seed{shown(samples, names)}. White: right, blue: missed, "
            "orange: false."
        )
        drawn.append(Figure("predictions", caption, png))
    asked = {
        name: samples[name]
        for name in samples
        if any(mode.startswith("fixed:") for sample in samples[name][:1] for mode in sample.preds)
    }
    if asked and not continuous_fields(results):  # of numbers the response section draws all
        caption = "One image, asked for each label in turn."
        drawn.append(Figure("labels", caption, figures.label_grid(asked)))
    return drawn


def shown(samples: Mapping[str, Sequence[Sample]], names: Sequence[str]) -> str:
    """Say how many cases and which conditions a grid of predictions shows, in half a sentence."""
    stored = samples[names[0]]
    domains = Counter(sample.domain for sample in stored)
    told = f" on {min(len(stored), CASES)} test {'case' if len(stored) == 1 else 'cases'}"
    if len(stored) > CASES:
        told += f" of {len(stored)} that are stored"
    if len(domains) > 1 and len(stored) <= CASES:
        told += f" ({', '.join(f'{count} of {domain}' for domain, count in domains.items())})"
    left_out = [name for name in samples if name not in names]
    return told + (f"; without {', '.join(left_out)}" if left_out else "")


def _most_telling(names: list[str]) -> list[str]:
    """Leave out dummies first, then the last ones, where a grid would be too wide."""
    if len(names) > SHOWN:
        names = [name for name in names if not name.endswith("-dummy")]
    return names[:SHOWN]
