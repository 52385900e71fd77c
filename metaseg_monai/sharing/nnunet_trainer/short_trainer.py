"""nnU-Net v2's trainer, as long as one is told; only where nnunetv2 is installed."""

import os
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from metaseg_monai.files import write_json
from metaseg_monai.sharing.nnunet import SPENT, length_of


class nnUNetTrainerShort(nnUNetTrainer):  # noqa: N801  (nnU-Net's way of naming)
    """nnU-Net's training of METASEG_EPOCHS epochs of METASEG_ITERATIONS steps, and no other change.

    Plans, network, augmentation, loss, optimizer and schedule are nnU-Net's; so are the lengths
    without the variables. With METASEG_SEED a training can be repeated, if it loads its data in
    its own process (nnUNet_n_proc_DA=0). On CPUs it takes as many threads as OMP_NUM_THREADS says,
    where nnU-Net takes all cores. ``spent.json`` beside the checkpoint tells length and CPU time,
    without the validation that comes after.

    Raises:
        ConfigError: an environment variable is wrong.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        length = length_of(os.environ)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.length = length
        self.cpu_seconds: list[float] = []
        self.num_epochs, self.num_iterations_per_epoch = length.epochs, length.iterations
        self.num_val_iterations_per_epoch = length.val_iterations
        self.save_every = min(50, max(1, length.epochs // 10))  # nnU-Net's is 50
        if length.seed is not None:
            random.seed(length.seed)
            np.random.seed(length.seed)  # noqa: NPY002  (nnU-Net draws by it)
            torch.manual_seed(length.seed)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if device.type == "cpu" and threads.isdecimal():
            torch.set_num_threads(max(1, int(threads)))

    def on_epoch_end(self) -> None:
        """Note the CPU time so far."""
        super().on_epoch_end()
        self.cpu_seconds.append(cpu_seconds())

    def on_train_end(self) -> None:
        """Tell what the training took."""
        super().on_train_end()
        if self.local_rank == 0:
            told = {
                **self.length._asdict(),
                "steps": self.length.epochs * self.length.iterations,
                "cpu_seconds": cpu_seconds(),
                "cpu_seconds_at_epochs": self.cpu_seconds,
                "threads": torch.get_num_threads(),
                "batch_size": self.batch_size,
                "patch_size": [int(size) for size in self.configuration_manager.patch_size],
                "parameters": sum(one.numel() for one in self.network.parameters()),
            }
            write_json(Path(self.output_folder) / SPENT, told)
            self.print_to_log_file(f"metaseg: {told['steps']} steps, {told['cpu_seconds']} CPU s")


def cpu_seconds() -> float:
    """CPU time of this process and of those it has ended, user and system."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(one.ru_utime + one.ru_stime for one in used), 1)
