"""nnU-Net v2's trainer, of another length or steered by metadata; only beside nnunetv2."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from metaseg_monai.errors import ConfigError, MetadataError, listing
from metaseg_monai.files import write_json
from metaseg_monai.sharing.nnunet import (
    FACTS,
    MIRRORED,
    PREDICT,
    SPENT,
    CaseMetadata,
    HiddenMetadata,
    check_other_folds,
    check_same_facts,
    facts_of,
    length_of,
    steer,
    told_of,
    training_metadata,
)

CPU_SECONDS = "metaseg_cpu_seconds_at_epochs"  # in a checkpoint's init_args


class nnUNetTrainerShort(nnUNetTrainer):  # noqa: N801  (nnU-Net's way of naming)
    """nnU-Net's training of METASEG_EPOCHS epochs of METASEG_ITERATIONS steps, and no other change.

    Plans, network, augmentation, loss, optimizer and schedule are nnU-Net's; so are the lengths
    without the variables. With METASEG_SEED a training can be repeated, if it loads its data in
    its own process (nnUNet_n_proc_DA=0). On CPUs it takes as many threads as OMP_NUM_THREADS says,
    where nnU-Net takes all cores. ``spent.json`` beside the checkpoint tells length and CPU time,
    without the validation that comes after; of a continued training with that of the epochs before.

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
        self.cpu_seconds: list[float] = []  # from the start to the end of each epoch
        self.cpu_seconds_before = 0.0  # of the processes that this one goes on from
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
        """Note the CPU time so far; the checkpoint keeps it among the settings of the training."""
        self.cpu_seconds.append(round(self.cpu_seconds_before + cpu_seconds(), 1))
        self.my_init_kwargs[CPU_SECONDS] = list(self.cpu_seconds)
        super().on_epoch_end()

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Go on from a checkpoint, and from the CPU time that it took."""
        super().load_checkpoint(filename_or_checkpoint)
        self.cpu_seconds = list(self.my_init_kwargs.get(CPU_SECONDS, []))
        self.cpu_seconds_before = self.cpu_seconds[-1] if self.cpu_seconds else 0.0

    def on_train_end(self) -> None:
        """Tell what the training took."""
        super().on_train_end()
        if self.local_rank == 0:
            told = {
                **self.length._asdict(),
                "steps": self.length.epochs * self.length.iterations,
                "cpu_seconds": round(self.cpu_seconds_before + cpu_seconds(), 1),
                "cpu_seconds_at_epochs": self.cpu_seconds,
                "threads": torch.get_num_threads(),
                "batch_size": self.batch_size,
                "patch_size": [int(size) for size in self.configuration_manager.patch_size],
                "parameters": sum(one.numel() for one in self.network.parameters()),
            }
            write_json(Path(self.output_folder) / SPENT, told)
            self.print_to_log_file(f"metaseg: {told['steps']} steps, {told['cpu_seconds']} CPU s")


def cpu_seconds() -> float:
    """CPU time of this process and of those it has ended, user and system; Windows: of this one."""
    try:
        import resource  # of Unix alone
    except ImportError:
        return round(time.process_time(), 1)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(one.ru_utime + one.ru_stime for one in used), 1)


class nnUNetTrainerMetadata(nnUNetTrainerShort):  # noqa: N801  (nnU-Net's way of naming)
    """nnU-Net's training with gates that read the metadata of each case.

    METASEG_TABLE and METASEG_SCHEMA name the table (case_id and fields) and the schema; for the
    other settings see `metaseg_monai.sharing.nnunet.facts_of`, for the length `nnUNetTrainerShort`.
    Everything else is nnU-Net's: its plans, augmentation, loss, schedule and checkpoints.

    Raises:
        ConfigError: an environment variable is missing or wrong.
        MetadataError: the table holds what the schema refuses.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        self.facts = facts_of(os.environ)
        self.metadata = training_metadata(self.facts, os.environ)
        plans = {**plans, FACTS: self.facts}
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.hidden = HiddenMetadata(self.metadata, self.facts, seed=self.local_rank)

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """Return nnU-Net's network with gates; the predictor calls this, too, with the plans."""
        network = nnUNetTrainer.build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        strides = torch.tensor(configuration_manager.pool_op_kernel_sizes).prod(0).tolist()
        size = [2 * one for one in strides]
        return steer(network, plans_manager.plans[FACTS], (num_input_channels, *size))

    def get_training_transforms(self, *settings: Any, **named: Any) -> Any:
        """Return nnU-Net's augmentation; without scaling where that makes a field wrong."""
        transforms = nnUNetTrainer.get_training_transforms(*settings, **named)
        if self.facts["scaled"]:
            every = [one for one in transforms.transforms if isinstance(one, SpatialTransform)]
            spatial = [one for one in every if hasattr(one, "p_scaling")]
            if not spatial:
                raise ConfigError(
                    f"{listing(self.facts['scaled'])}: scaling an image makes it wrong, and this "
                    "nnU-Net's scaling is not found, so that it cannot be switched off; use "
                    "nnunetv2 2.8, or METASEG_SCALED=none if it does not scale"
                )
            for one in spatial:
                one.p_scaling = 0
            self.print_to_log_file(
                f"metadata: no scaling augmentation, for {listing(self.facts['scaled'])}"
            )
        return transforms

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """Return what nnU-Net chooses; without mirroring where that makes a field wrong.

        The checkpoint then says so, too, and no prediction mirrors.
        """
        chosen = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.facts["mirrored"]:
            return chosen
        self.inference_allowed_mirroring_axes = None
        self.print_to_log_file(
            f"metadata: no mirroring, for {listing(self.facts['mirrored'])}; "
            f"{MIRRORED} names others"
        )
        return (*chosen[:-1], None)

    def on_train_start(self) -> None:
        """See that every case has metadata, or may be without, and that other folds fit."""
        check_other_folds(self.facts, self.output_folder_base, self.fold)
        for name, cases in zip(("training", "validation"), self.do_split(), strict=True):
            if unknown := self.metadata.check(list(cases)):
                self.print_to_log_file(
                    f"metadata: {len(unknown)} of {len(cases)} {name} cases are taken as unknown, "
                    f"without a row in the table: {listing(unknown)}"
                )
        super().on_train_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train on a batch with its cases' metadata."""
        with told_of(self.network).images(self.hidden.batch(batch["keys"])):
            return super().train_step(batch)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validate on a batch with its cases' metadata."""
        with told_of(self.network).images(self.metadata.batch(batch["keys"])):
            return super().validation_step(batch)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Go on from a checkpoint whose metadata mean the same."""
        super().load_checkpoint(filename_or_checkpoint)
        plans = self.my_init_kwargs["plans"]
        check_same_facts(self.facts, plans.get(FACTS), str(filename_or_checkpoint)[:200])

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predict the validation cases, each with its metadata.

        nnU-Net makes the predictor itself and gives it no names, but it reads each case right
        before it is predicted.
        """
        before: Any = getattr(self, "dataset_class", None)
        plain: Any = before or infer_dataset_class(self.preprocessed_dataset_folder)
        told, metadata = told_of(self.network), self.metadata

        class Telling(plain):
            def load_case(self, identifier: str) -> Any:
                told.case(metadata.meta(identifier))
                return super().load_case(identifier)

        self.dataset_class = Telling
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            told.forget()
            self.dataset_class = plain


class MetadataPredictor(nnUNetPredictor):
    """nnU-Net's predictor that gives the network the metadata of each case.

    Attributes:
        metadata: of the cases; to be set before the first prediction.
    """

    metadata: CaseMetadata

    def predict_from_data_iterator(
        self,
        data_iterator: Any,
        save_probabilities: bool = False,
        num_processes_segmentation_export: int = default_num_processes,
    ) -> Any:
        """Predict preprocessed cases; each names itself by its output file."""
        return super().predict_from_data_iterator(
            self._telling(data_iterator), save_probabilities, num_processes_segmentation_export
        )

    def _telling(self, items: Any) -> Iterator[Any]:
        told = told_of(self.network)
        try:
            for item in items:
                if item["ofile"] is None:
                    raise MetadataError(
                        "an image without an output file has no name, so that nobody knows its "
                        f"metadata; predict files with {PREDICT}"
                    )
                told.case(self.metadata.meta(Path(item["ofile"]).name))
                yield item
        finally:
            told.forget()
            if hasattr(items, "_finish"):  # of batchgenerators, which super() sees no more
                items._finish()
