"""Parts of MONAI's and Ignite's engines, safe for metadata and for crashes."""

from metaseg_monai.engines.batches import VolumeBatches
from metaseg_monai.engines.checkpoints import (
    read_checkpoint,
    replace_file,
    write_checkpoint,
)
from metaseg_monai.engines.collate import collate_cases
from metaseg_monai.engines.guards import StopOnNonFinite, higher_is_better, lower_is_better
from metaseg_monai.engines.inferers import SliceMetadataInferer, SlidingWindowMetadataInferer
from metaseg_monai.engines.log import EpochLog
from metaseg_monai.engines.order import EpochBatchSampler, training_loader
from metaseg_monai.engines.precision import AutocastInferer, channels_last
from metaseg_monai.engines.processes import end_processes
from metaseg_monai.engines.progress import RunProgress
from metaseg_monai.engines.replay import ReplayDataset
from metaseg_monai.engines.resume import RunCheckpoint
from metaseg_monai.engines.schedules import cyclic_schedule
from metaseg_monai.engines.trained_on import RecordTrained, RefuseTrained
from metaseg_monai.engines.weights import BestWeights, LoadWeights

__all__ = [
    "AutocastInferer",
    "BestWeights",
    "EpochBatchSampler",
    "EpochLog",
    "LoadWeights",
    "RecordTrained",
    "RefuseTrained",
    "ReplayDataset",
    "RunCheckpoint",
    "RunProgress",
    "SliceMetadataInferer",
    "SlidingWindowMetadataInferer",
    "StopOnNonFinite",
    "VolumeBatches",
    "channels_last",
    "collate_cases",
    "cyclic_schedule",
    "end_processes",
    "higher_is_better",
    "lower_is_better",
    "read_checkpoint",
    "replace_file",
    "training_loader",
    "write_checkpoint",
]
