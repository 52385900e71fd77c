"""Training with MONAI's and Ignite's engines: loaders, exact resume, weights, handlers."""

from metaseg_monai.training.adversarial import ConditionalAdversarialTrainer
from metaseg_monai.training.average import MovingAverage
from metaseg_monai.training.checkpoints import BestWeights, RunCheckpoint
from metaseg_monai.training.collate import (
    EstimateLoss,
    FieldTarget,
    JoinHeadsd,
    PrepareBatchHeads,
    PrepareBatchMeta,
    SiftedDataset,
    Told,
    VolumeBatches,
    collate_cases,
    estimated_field,
    join_heads,
    outputs_of,
    skip_empty,
)
from metaseg_monai.training.handlers import (
    ClipGradients,
    EpochLog,
    ListProblems,
    PixelF1,
    RunProgress,
    StopOnNonFinite,
    TryBatches,
    higher_is_better,
    lower_is_better,
)
from metaseg_monai.training.loader import (
    ReadAhead,
    ReplayDataset,
    joined_dataset,
    training_loader,
    validation_dataset,
)
from metaseg_monai.training.processes import end_processes, mean_over_processes
from metaseg_monai.training.sampling import EpochDraw
from metaseg_monai.training.schedules import StepOnPlateau, cyclic_schedule, warm_restarts
from metaseg_monai.training.trained_on import RecordTrained, RefuseTrained
from metaseg_monai.training.weights import (
    LoadWeights,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_weights,
)

__all__ = [
    "BestWeights",
    "ClipGradients",
    "ConditionalAdversarialTrainer",
    "EpochDraw",
    "EpochLog",
    "EstimateLoss",
    "FieldTarget",
    "JoinHeadsd",
    "ListProblems",
    "LoadWeights",
    "MovingAverage",
    "PixelF1",
    "PrepareBatchHeads",
    "PrepareBatchMeta",
    "ReadAhead",
    "RecordTrained",
    "RefuseTrained",
    "ReplayDataset",
    "RunCheckpoint",
    "RunProgress",
    "SiftedDataset",
    "StepOnPlateau",
    "StopOnNonFinite",
    "Told",
    "TryBatches",
    "VolumeBatches",
    "collate_cases",
    "cyclic_schedule",
    "end_processes",
    "estimated_field",
    "higher_is_better",
    "join_heads",
    "joined_dataset",
    "lower_is_better",
    "mean_over_processes",
    "outputs_of",
    "read_checkpoint",
    "read_weights",
    "skip_empty",
    "training_loader",
    "validation_dataset",
    "warm_restarts",
    "write_checkpoint",
    "write_weights",
]
