"""Measure how long a training's network waits for data: the share of its steps' time.

A bundle's own training runs for some epochs without validation. The first one, which reads the
images that later ones keep in memory, is told apart.
"""

import tempfile
import time
from typing import Any

import torch
from ignite.engine import Engine, Events

from metaseg_monai.bundle import resolve_bundle
from metaseg_monai.bundle.run import configs_of, running
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError


def benchmark(
    bundle: str = "synthetic_shapes_segmentation",
    configuration: str | None = None,
    epochs: int = 3,
    threads: int | None = None,
    **overrides: Any,
) -> None:
    """Print what a step waits for its batch and what it takes after that, by epoch.

    Example:
        python scripts/benchmark_loading.py runs/bundles/mine --epochs 3
        python scripts/benchmark_loading.py --configuration dynunet_ds,recipe --batch_size 4

    Args:
        bundle: name or folder of a bundle, such as new-bundle has planned.
        configuration: further ones, by name or file, separated by commas.
        epochs: how many, of which the first fills what is kept in memory.
        threads: CPU threads; by default PyTorch's own choice.
        overrides: settings of train.json.

    Raises:
        ConfigError: for less than two epochs.
    """
    if epochs < 2:
        raise ConfigError(f"epochs is {epochs}; give 2 or more, the first reads the images")
    if threads is not None:
        torch.set_num_threads(threads)
    folder, files = resolve_bundle(bundle), configs_of("train", more=configuration)
    with tempfile.TemporaryDirectory() as output:
        settings = {**overrides, "output_dir": output, "epochs": epochs, "val_interval": epochs + 1}
        with running(folder, files, settings, run=False) as workflow:
            trainer = workflow.parser.get_parsed_content("train#trainer")
            _time(trainer, workflow.parser.get_parsed_content("device"))
            trainer.run()


def _time(trainer: Engine, device: torch.device) -> None:
    """Let an engine print, after each epoch, what its steps took."""
    spent = {"data": 0.0, "network": 0.0}
    since = 0.0

    def begin(*_: Any) -> None:
        nonlocal since
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        since = time.perf_counter()

    def end(_: Engine, part: str) -> None:
        begun = since
        begin()
        spent[part] += since - begun

    def tell(engine: Engine) -> None:
        steps, whole = engine.state.epoch_length, sum(spent.values())
        assert steps  # known once an epoch ended
        each = ", ".join(f"{part} {1000 * one / steps:.1f} ms" for part, one in spent.items())
        share = spent["data"] / whole
        print(f"epoch {engine.state.epoch}: a step: {each}; waits for data {share:.1%} of the time")
        spent.update(data=0.0, network=0.0)

    trainer.add_event_handler(Events.GET_BATCH_STARTED, begin)
    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, end, "data")
    trainer.add_event_handler(Events.ITERATION_STARTED, begin)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, end, "network")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, tell)


if __name__ == "__main__":
    run_script(benchmark)
