"""What a configuration would run, read without running it.

Allowed are listed parts and expressions of them. Whatever else is in a configuration is a finding,
whether or not it means harm: a list can be read to its end, a program cannot.
"""

import ast
import configparser
import difflib
import importlib.util
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigExpression
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import merge_kv

from metaseg_monai.errors import ConfigError

# Components, by the module that has them. A name of MONAI's stands for its forms "d", "D", "Dict".
LISTED = {
    "monai.transforms": """
        Activations AddCoordinateChannels AdjustContrast Affine AffineGrid AsChannelLast AsDiscrete
        BorderPad BoundingRect CastToType CenterScaleCrop CenterSpatialCrop ClassesToIndices
        ClipIntensityPercentiles Compose ConcatItems ConvertToMultiChannelBasedOnBratsClasses
        CopyItems Crop CropForeground CutMix CutOut DataStats DeleteItems DetectEnvelope
        DistanceTransformEDT DivisiblePad EnsureChannelFirst EnsureType FgBgToIndices FillHoles
        FlattenSubKeys Flip ForegroundMask FromMetaTensor GaussianSharpen GaussianSmooth
        GenerateHeatmap GibbsNoise GridDistortion GridPatch GridSplit HistogramNormalize Identity
        Invert KSpaceSpikeNoise KeepLargestConnectedComponent LabelFilter LabelToContour
        LabelToMask Lambda LoadImage MapLabelValue MaskIntensity MeanEnsemble MedianSmooth MixUp
        NormalizeIntensity OneOf Orientation Pad ProbNMS Rand2DElastic Rand3DElastic
        RandAdjustContrast RandAffine RandAffineGrid RandAxisFlip RandBiasField RandCoarseDropout
        RandCoarseShuffle RandCropByLabelClasses RandCropByPosNegLabel RandDeformGrid RandFlip
        RandGaussianNoise RandGaussianSharpen RandGaussianSmooth RandGibbsNoise RandGridDistortion
        RandGridPatch RandHistogramShift RandIdentity RandKSpaceSpikeNoise RandLambda
        RandRicianNoise RandRotate RandRotate90 RandScaleCrop RandScaleIntensity
        RandScaleIntensityFixedMean RandShiftIntensity RandSimulateLowResolution RandSmoothDeform
        RandSmoothFieldAdjustContrast RandSmoothFieldAdjustIntensity RandSpatialCrop
        RandSpatialCropSamples RandStdShiftIntensity RandWeightedCrop RandZoom RandomOrder
        RemoveRepeatedChannel RemoveSmallObjects RepeatChannel Resample ResampleToMatch Resize
        ResizeWithPadOrCrop Rotate Rotate90 SaveImage SavitzkyGolaySmooth ScaleIntensity
        ScaleIntensityFixedMean ScaleIntensityRange ScaleIntensityRangePercentiles SelectItems
        ShiftIntensity SobelGradients SomeOf Spacing SpatialCrop SpatialPad SpatialResample
        SplitChannel SplitDim SqueezeDim StdShiftIntensity ThresholdIntensity ToDevice ToMetaTensor
        ToNumpy ToTensor Transpose VoteEnsemble Zoom""",
    "monai.data": """
        ArrayDataset CacheDataset CacheNTransDataset CSVSaver DataLoader Dataset
        DistributedSampler DistributedWeightedRandomSampler GridPatchDataset ITKReader ITKWriter
        ImageDataset IterableDataset MetaTensor NPZDictItemDataset NibabelReader NibabelWriter
        NrrdReader NumpyReader PILReader PILWriter PatchDataset PatchIter PatchIterd
        PersistentDataset PydicomReader ShuffleBuffer SmartCacheDataset ThreadBuffer
        ThreadDataLoader ZipDataset""",
    "monai.handlers": """
        AveragePrecision CalibrationError CheckpointLoader CheckpointSaver ClassificationSaver
        ConfusionMatrix DecollateBatch EarlyStopHandler GarbageCollector HausdorffDistance
        IgniteMetricHandler LrScheduleHandler MeanAbsoluteError MeanDice MeanIoUHandler
        MeanSquaredError MetricLogger MetricsSaver PanopticQuality ParamSchedulerHandler
        PeakSignalToNoiseRatio PostProcessing ROCAUC RootMeanSquaredError SmartCacheHandler
        StatsHandler SurfaceDistance TensorBoardHandler TensorBoardImageHandler
        TensorBoardStatsHandler ValidationHandler""",
    "monai.engines": """
        AdversarialTrainer DiffusionPrepareBatch EnsembleEvaluator GanTrainer PrepareBatchDefault
        PrepareBatchExtraInput SupervisedEvaluator SupervisedTrainer""",
    "monai.inferers": """
        AvgMerger DiffusionInferer LatentDiffusionInferer PatchInferer SaliencyInferer
        SimpleInferer SliceInferer SlidingWindowInferer SlidingWindowInfererAdapt
        SlidingWindowSplitter VQVAETransformerInferer""",
    "monai.losses": """
        AUCMLoss AsymmetricUnifiedFocalLoss BarlowTwinsLoss BendingEnergyLoss BoundaryLoss
        ContrastiveLoss DeepSupervisionLoss Dice DiceCELoss DiceFocalLoss DiceLoss DiffusionLoss
        FocalLoss GeneralizedDiceFocalLoss GeneralizedDiceLoss GeneralizedWassersteinDiceLoss
        GlobalMutualInformationLoss HausdorffDTLoss LocalNormalizedCrossCorrelationLoss
        LogHausdorffDTLoss MCCLoss MaskedDiceLoss MaskedLoss MultiScaleLoss NACLLoss
        PatchAdversarialLoss SSIMLoss SoftDiceclDiceLoss SoftclDiceLoss TverskyLoss""",
    "monai.metrics": """
        AveragePrecisionMetric ConfusionMatrixMetric CumulativeAverage DiceHelper DiceMetric
        FBetaScore FIDMetric GeneralizedDiceScore HausdorffDistanceMetric LossMetric MAEMetric
        MMDMetric MSEMetric MeanIoU MultiScaleSSIMMetric PSNRMetric PanopticQualityMetric
        RMSEMetric ROCAUCMetric SSIMMetric SurfaceDiceMetric SurfaceDistanceMetric
        VarianceMetric""",
    "monai.networks.nets": """
        AHNet AttentionUnet AutoEncoder AutoencoderKL BasicUNet BasicUNetPlusPlus BasicUnet
        Classifier ControlNet Critic DAF3D DecoderOnlyTransformer DenseNet DenseNet121 DenseNet169
        DenseNet201 DenseNet264 DiNTS DiffusionModelUNet Discriminator DynUNet FlexUNet
        FlexibleUNet FullyConnectedNet Generator GlobalNet HighResNet HoVerNet LocalNet
        MaskedAutoEncoderViT MedNeXt MultiScalePatchDiscriminator PatchDiscriminator Quicknat
        RegUNet Regressor ResNet SENet SENet154 SEResNeXt101 SEResNeXt50 SEResNet101 SEResNet152
        SEResNet50 SPADENet SegResNet SegResNetDS SegResNetDS2 SegResNetVAE SwinUNETR
        TopologyInstance TopologySearch UNETR UNet Unet VNet VQVAE VarAutoEncoder ViT ViTAutoEnc
        VoxelMorph VoxelMorphUNet""",
    "monai.networks.blocks": """
        ADN Convolution MLPBlock PatchEmbeddingBlock ResidualUnit SEBlock TransformerBlock
        UnetBasicBlock UnetOutBlock UnetResBlock UnetUpBlock UpSample Warp""",
    "monai.networks.layers": "Flatten GaussianFilter MedianFilter Reshape SkipConnection",
    "monai.networks.schedulers": "DDIMScheduler DDPMScheduler PNDMScheduler RFlowScheduler",
    "monai.optimizers": "ExponentialLR LinearLR Novograd WarmupCosineSchedule",
    "torch.nn": """
        AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d
        AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d BCELoss BCEWithLogitsLoss BatchNorm1d
        BatchNorm2d BatchNorm3d CELU ConstantPad1d ConstantPad2d ConstantPad3d Conv1d Conv2d Conv3d
        ConvTranspose1d ConvTranspose2d ConvTranspose3d CosineSimilarity CrossEntropyLoss
        DataParallel Dropout Dropout1d Dropout2d Dropout3d ELU Embedding Flatten GELU GLU GRU
        GaussianNLLLoss GroupNorm Hardtanh HuberLoss Identity InstanceNorm1d InstanceNorm2d
        InstanceNorm3d KLDivLoss L1Loss LSTM LayerNorm LeakyReLU Linear LogSigmoid LogSoftmax
        MSELoss MaxPool1d MaxPool2d MaxPool3d Mish ModuleDict ModuleList MultiheadAttention NLLLoss
        PReLU PixelShuffle ReLU ReLU6 ReflectionPad2d ReplicationPad2d SELU Sequential SiLU Sigmoid
        SmoothL1Loss Softmax Softplus SyncBatchNorm Tanh TransformerEncoder
        TransformerEncoderLayer Unflatten Upsample""",
    "torch.nn.parallel": "DistributedDataParallel",
    "torch.nn.SyncBatchNorm": "convert_sync_batchnorm",
    "torch.optim": """
        ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS NAdam RAdam RMSprop Rprop SGD""",
    "torch.optim.lr_scheduler": """
        ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR
        ExponentialLR LambdaLR LinearLR MultiStepLR MultiplicativeLR OneCycleLR PolynomialLR
        ReduceLROnPlateau SequentialLR StepLR""",
    "torch.utils.data": """
        BatchSampler ConcatDataset DataLoader Dataset DistributedSampler RandomSampler
        SequentialSampler Subset SubsetRandomSampler TensorDataset WeightedRandomSampler""",
    "torch.utils.data.distributed": "DistributedSampler",
    "ignite.metrics": """
        Accuracy Average ConfusionMatrix CosineSimilarity EpochMetric GeometricAverage Loss
        MeanAbsoluteError MeanSquaredError MetricsLambda PSNR Precision ROC_AUC Recall
        RootMeanSquaredError RunningAverage SSIM TopKCategoricalAccuracy""",
    "ignite.handlers": """
        CosineAnnealingScheduler EarlyStopping LRScheduler LinearCyclicalScheduler
        PiecewiseLinear TerminateOnNan Timer""",
    "metaseg_monai.metadata": "MetadataSchema MetadataSchema.load",
    "metaseg_monai.losses": "PixelCrossEntropy",
    "metaseg_monai.networks": "Unet3 ImageRegressor",
    "metaseg_monai.networks.regressor": "ImageRegressor",
    "metaseg_monai.images": "slice_items",
    "metaseg_monai.tables": "fill_epoch find_cases limit_empty read_table select_cases",
    "metaseg_monai.transforms": """
        AsMaskd AxialVolumed DropMetadatad EncodeMetadatad FlatFieldd LoadCased ResampleToSpacingd
        ScaleIntensityBy ScaleIntensityCased intensity_statistics""",
    "metaseg_monai.inferers": """
        AutocastInferer PlaneInferer SlidingWindowMetadataInferer channels_last each_tensor""",
    "metaseg_monai.training": """
        BestWeights EpochDraw EpochLog FieldTarget ListProblems LoadWeights PrepareBatchMeta
        RecordTrained RefuseTrained ReplayDataset RunCheckpoint RunProgress SiftedDataset
        StopOnNonFinite TryBatches VolumeBatches
        continuous_field cyclic_schedule training_loader""",
    "metaseg_monai.evaluation": """
        CalibrationBins CaseCounts CleanUpPredictions FieldEstimates KnownOfCases MaskRecord
        ObjectScores PerCase PredictionSamples RecordEvaluation SaveMasks SaveObjects VolumeScores
        evaluation_items known_items results_folder""",
    "metaseg_monai.explain": "GateActivations GateFeatures RecordGates few_cases",
    "metaseg_monai.prepare": "KitsLayout kits_volumes",
    "metaseg_monai.simulate": """
        generate_cells generate_phantom_slices generate_phantoms generate_synthetic_shapes""",
}
# What expressions may call or name besides, by module.
USED = {
    "builtins": """
        abs all any bool dict enumerate filter float int isinstance iter len list map max min next
        print range repr reversed round set slice sorted str sum tuple zip""",
    "copy": "copy deepcopy",
    "datetime.datetime": "now",
    "functools": "partial reduce",
    "glob": "glob iglob",
    "itertools": "chain product repeat",
    "json": "loads",
    "logging": "DEBUG INFO WARNING ERROR getLogger",
    "math": "ceil cos exp floor inf log log10 log2 nan pi sin sqrt",
    "os": "cpu_count environ getcwd getenv listdir sep",
    "os.path": """
        abspath basename dirname exists expanduser isdir isfile join normpath relpath sep split
        splitext""",
    "pathlib": "Path PurePath",
    "random": "Random",
    "monai.data": """
        decollate_batch list_data_collate load_decathlon_datalist pad_list_data_collate
        partition_dataset worker_init_fn""",
    "monai.data.utils": "decollate_batch list_data_collate no_collation partition_dataset",
    "monai.handlers": "from_engine ignore_data stopping_fn_from_metric",
    "monai.handlers.utils": "from_engine ignore_data",
    "monai.networks.layers": "Act Norm",
    "monai.networks.utils": "one_hot",
    "monai.utils": """
        BlendMode CommonKeys GridSampleMode GridSamplePadMode ForwardMode InterpolateMode
        LossReduction MetricReduction NumpyPadMode PytorchPadMode ensure_tuple ensure_tuple_rep
        first set_determinism""",
    "monai.utils.misc": "ensure_tuple first set_determinism",
    "numpy": """
        abs arange argmax array asarray ceil clip concatenate deg2rad e exp eye float16 float32
        float64 floor full inf int8 int16 int32 int64 linspace log max mean min nan newaxis ones
        percentile pi prod rad2deg round sqrt squeeze stack std sum uint16 uint8 unique where
        zeros""",
    "scipy.ndimage": """
        binary_closing binary_dilation binary_erosion binary_fill_holes binary_opening
        gaussian_filter label zoom""",
    "torch": """
        Generator Tensor abs arange argmax as_tensor bfloat16 bool cat channels_last clamp
        contiguous_format device double exp eye float float16 float32 float64 from_numpy full half
        int int16 int32 int64 int8 linspace log long manual_seed max mean min no_grad ones
        ones_like set_float32_matmul_precision sigmoid softmax sqrt stack sum tanh tensor uint8
        where zeros zeros_like""",
    "torch.backends.cudnn": "benchmark deterministic enabled",
    "torch.cuda": """
        current_device device_count empty_cache get_device_name is_available manual_seed set_device
        synchronize""",
    "torch.distributed": """
        barrier destroy_process_group get_rank get_world_size init_process_group is_available
        is_initialized""",
    "torch.nn.functional": """
        binary_cross_entropy cross_entropy gelu interpolate l1_loss leaky_relu mse_loss normalize
        one_hot pad relu sigmoid softmax softplus tanh""",
    "ignite.engine": "Events",
    "metaseg_monai.bundle": "effective facts own_root settings testing",
    "metaseg_monai.training": """
        collate_cases end_processes higher_is_better lower_is_better skip_empty""",
}
# Those with one argument that makes them safe, or not: never as a value, only called in sight.
GUARDED = ("numpy.load", "torch.load", "builtins.open", "builtins.setattr", "json.load")
# Modules that may be imported, beside those above, since importing them runs nothing else.
MODULES = """
    collections copy datetime ignite monai monai.networks monai.utils nibabel numpy re
    scipy sys time torch torch.backends torch.nn torch.utils typing warnings"""
MODULES_OF_OURS = ("metaseg_monai",)
# Attributes and methods of what refers or was called.
WORDS = """
    T absolute add append argmax args as_posix astype batch batch_size best_metric children clone
    count cpu cuda data dataloader dataset detach device dim dtype endswith epoch epoch_length
    eval exists expand extend flatten float get glob half index int is_dir is_file item items
    iteration iterdir join joinpath keys knows_unknown len logger long lower lstrip max max_epochs
    mean meta metrics min model name names ndim network numpy optimizer output parameters parent
    parts permute pixdim reads_metadata replace require reshape resolve rglob round rows rsplit
    rstrip run schema setLevel set_epoch set_trainer shape sigmoid size softmax sort spatial_dims
    spatial_shape split splits squeeze startswith state std stem step strip suffix sum tasks to
    tolist train transform transforms transpose type unsqueeze upper values variant view width
    with_name with_suffix zfill clip named_parameters strftime"""
# Of ours only: no method of these names is on anything else that is listed.
WORDS_OF_OURS = "check_availability finish found kept load missing"
# How many arguments those have that do something else with others: text.replace, network.eval
WALKED = ("os.environ", "torch.float32", "torch.Tensor", "builtins.str", "builtins.dict")
CALLED_ONLY = {"replace": 2, "eval": 0, "load": 0}
# Components of which an argument may be code; in expressions each argument must be named.
WITH_GUARDED = re.compile(
    r"monai\.(networks\.nets\.\w+|.*\.(LoadImage|SaveImage|PatchInferer|PersistentDataset|CacheNTrans"
    r"Dataset|ImageDataset|\w+Reader|\w+Trainer|\w+Evaluator)(d|D|Dict)?)|metaseg_monai\.tables\.read_table"
)
READER = r"\$?monai\.data\.(NibabelReader|ITKReader|PILReader|PydicomReader|NrrdReader)(\(\))?"
CUDNN = ("benchmark", "deterministic", "enabled", "allow_tf32")
READERS = """
    ITKReader NibabelReader NrrdReader NumpyReader PILReader PydicomReader ITKWriter NibabelWriter
    PILWriter AvgMerger"""
# Arguments that change what a listed part does, with the values that they may have.
ARGUMENTS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "weights_only": ("pickle", (True,)),
    "allow_pickle": ("pickle", (False,)),
    "pickle_module": ("pickle", ("pickle",)),
    "pretrained": ("download", (False, None)),
    "pretrained_url": ("download", (None,)),
    "use_pretrained": ("download", (False, None)),
    "download": ("download", (False, None)),
    "force_reload": ("download", (False, None)),
    "trust_repo": ("download", (False, None)),
    "load_pretrain": ("download", (False, None)),
    "from_pretrained": ("download", (False, None)),
    "reader": ("call", (None, *READERS.split(), *(name.lower() for name in READERS.split()))),
    "writer": ("call", (None, *READERS.split(), *(name.lower() for name in READERS.split()))),
    "merger_cls": ("call", (*READERS.split(), "avgmerger")),
    "compile": ("compiler", (False, None)),
}
WHY = {
    "call": "is not on the list of parts that a configuration may use",
    "module": "is not on the list of modules that a configuration may import",
    "pickle": "can read a pickle, which runs whatever was put into it",
    "download": "fetches something from elsewhere, which may be code",
    "compiler": "compiles or loads machine code",
    "own code": "is Python that the bundle brings along, which nobody has read",
    "file": "takes in another file, or writes one, beside the configurations that are read here",
    "unreadable": "cannot be read for certain without running it",
    "logging": "is evaluated when the log is set up",
}
KINDS = (  # of what is not listed, by what its name holds
    ("pickle", ("pickle", "joblib", "dill", "marshal", "shelve", "torch.load", "numpy.load")),
    ("download", ("hub", "download", "urllib", "requests", "http", "pretrained", "ftplib")),
    ("compiler", ("cpp_extension", "compile", "ctypes", "cffi", "numba", "torch.ops", "load_libr")),
)
REFS = "__local_refs"
RELATIVE = re.compile("[@%](#|::)")
NAMES_OF_CLASSES = ("reader", "writer", "merger_cls")
CONSTANT = re.compile("[A-Z][A-Z0-9_]*")
SUFFIXES = (".json", ".yaml", ".yml")
PYTHON = (".py", ".pyc", ".pyo", ".pyd", ".so", ".pth", ".egg", ".whl")
NO_CONFIGURATION = ("schema", "columns", "facts")  # MONAI never reads these
SHOWN = 160  # characters of a finding's text in messages


class Finding(NamedTuple):
    """Something in a bundle that is not on the list, or cannot be read.

    Attributes:
        file: relative to the bundle, or where a setting was given.
        id: of the value, such as "train#dataset#data".
        kind: call | module | pickle | download | compiler | own code | file | unreadable | logging.
        text: the value.
        why: what is said against it.
    """

    file: str
    id: str
    kind: str
    text: str
    why: str

    def __str__(self) -> str:
        told = f"{self.file}, {self.id}: {self.text}  ({self.kind}: {self.why})"
        return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in told)


def read_bundle(folder: Path) -> list[Finding]:
    """Read every configuration of a bundle, its logging.conf and what Python it brings along.

    Raises:
        ConfigError: there is no folder, or no configuration in it.
    """
    configs = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    configs = [path for path in configs if path.parent.name == "configs"]
    if not configs:
        raise ConfigError(f"{folder} is no bundle: it has no configs/ with a configuration.")
    python = [path for path in sorted(folder.rglob("*")) if path.suffix in PYTHON]
    return [*read_files(folder, configs, python, data=True), *_read_logging(folder)]


def read_workflow(folder: Path, files: Sequence[Path]) -> list[Finding]:
    """Read the configurations that a workflow of a bundle merges, and whatever else it would run.

    Args:
        folder: of the bundle.
        files: its configurations, of those that are merged.
    """
    folders = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    python = [path for one in folders for path in one.iterdir() if path.suffix in PYTHON]
    used = [*files, folder / "configs" / "metadata.json"]
    apart = sorted((folder / "configs").glob("simulate*.json"))  # read, and merged with nothing
    return [
        *read_files(folder, used, sorted(python)),
        *(finding for file in apart for finding in read_files(folder, [file], [])),
        *_read_logging(folder),
    ]


def read_files(
    folder: Path, files: Sequence[Path], python: Sequence[Path], data: bool = False
) -> list[Finding]:
    """Read configurations of one bundle, which share imports and ids."""
    found = []
    contents = {}
    for file in files:
        name = _relative(file, folder)
        try:
            contents[name] = ConfigParser.load_config_file(str(file)) if file.is_file() else {}
        except (ValueError, OSError, RecursionError) as error:
            found.append(Finding(name, "", "unreadable", f"{error}"[:SHOWN], WHY["unreadable"]))
        except Exception as error:  # yaml's own
            found.append(Finding(name, "", "unreadable", f"{error}"[:SHOWN], WHY["unreadable"]))
    meta = "configs/metadata.json"
    if meta in contents:  # as MONAI merges it
        contents[meta] = {ConfigParser.meta_key: contents[meta]}
    names = [_relative(path, folder) for path in python]
    found += [Finding(name, "", "own code", name, WHY["own code"]) for name in names]
    return [*found, *read_contents(contents, data=data)]


def read_contents(
    contents: Mapping[str, Any],
    own: Sequence[Path] | None = None,
    known: Mapping[str, Any] | None = None,
    data: bool = False,
) -> list[Finding]:
    """Read configurations that are merged, and tell what in them is not on the list.

    Args:
        contents: of configurations, by the name of the file or what else a finding is to name.
        own: modules of the user's own, that are installed nowhere, may be used, but for those in
            these folders; None for no such modules.
        known: contents that are read elsewhere, for what these refer to.
        data: whether files of schemas, column maps and facts are none that MONAI reads.
    """
    whole = {**(known or {}), **contents}
    groups = [tuple(whole)]
    if data:  # of a bundle as it lies there, each may be merged on what trains
        first = next((name for name in whole if Path(name).stem == "train"), None)
        groups += [(first, name) for name in whole if first not in (None, name)]
    merged = {" + ".join(names): _merged([whole[name] for name in names]) for names in groups}
    reading = _Reading({**whole, **merged}, own, data)
    found = [one for name, content in contents.items() for one in reading.findings(name, content)]
    told = {one[1:] for one in found}
    for name, content in merged.items():
        found += [one for one in reading.findings(name, content) if one[1:] not in told]
        told |= {one[1:] for one in found}
    return found


def _merged(contents: Sequence[Any]) -> dict[str, Any]:
    """What MONAI makes of configurations, as far as they can be merged."""
    parser = ConfigParser({})
    for content in contents:
        for name, value in content.items() if isinstance(content, Mapping) else ():
            key = str(name)
            if key[:1] == "+" and key[1:] not in parser:
                key = key[1:]  # as MONAI does, with a warning
            with suppress(KeyError, ValueError, IndexError, TypeError, RecursionError):
                merge_kv(parser, key, deepcopy(value))
    tree: dict[str, Any] = parser.get()
    return tree


def refuse_untrusted(findings: Sequence[Finding], trust: bool, what: str) -> str | None:
    """Refuse what has findings, unless it is trusted; then return what would run.

    Args:
        findings: of it.
        trust: whether the user has said so.
        what: such as "the bundle in x".

    Raises:
        ConfigError: listing the findings.
    """
    if not findings:
        return None
    told = "".join(f"\n  {finding}" for finding in findings)
    if trust:
        return f"{what} is trusted, and runs:{told}"
    raise ConfigError(
        f"{what} would run what is not on the list of harmless parts:{told}\n"
        "Nothing of it was run. If you know who wrote it and what it does: --trust True."
    )


class _Reading:
    """The names that configurations import, and the ids that hold imports."""

    def __init__(self, contents: Mapping[str, Any], own: Sequence[Path] | None, data: bool) -> None:
        self.own, self.data = own, data
        self.names = {name: {name} for name in ("monai", "torch", "numpy")} | {"np": {"numpy"}}
        self.imports: set[str] = set()  # ids at which, or below which, a module stands
        self.lists: set[str] = set()  # of imports, to which other files may add
        self.copies = False  # whether there is a macro, which moves text to another place
        self.callables = False  # whether there is a part that is not made at once
        self.values: dict[str, list[Any]] = {}
        for content in contents.values():
            for name, value in _flat(content):
                self.values.setdefault(re.sub(r"(::\d+)+$", "", name), []).append(value)
                self.values.setdefault(name, []).append(value)
                self.copies |= isinstance(value, str) and value[:1] == "%"
                self.callables |= name.endswith("_mode_") and value == "callable"
                if isinstance(value, str) and value[:1] == "$":
                    self._import(name, value)

    def _import(self, name: str, value: str) -> None:
        statement = _import_in(value)
        if statement is None:
            return
        parts = name.split("::")
        self.imports |= {"::".join(parts[:count]) for count in range(1, len(parts) + 1)}
        if parts[-1].isdigit():
            self.lists.add("::".join(parts[:-1]))
        alias = statement.names[0]
        module = getattr(statement, "module", None)
        target = f"{module}.{alias.name}" if isinstance(statement, ast.ImportFrom) else alias.name
        self.names.setdefault(alias.asname or alias.name, set()).add(target)

    def findings(self, file: str, content: Any) -> Iterator[Finding]:
        stem = Path(file).stem
        is_data = self.data and stem.startswith(NO_CONFIGURATION)
        self.by_id = {
            ReferenceResolver.normalize_id(str(key)).lstrip("+")
            for key in (content if isinstance(content, Mapping) else ())
            if "#" in str(key) or "::" in str(key)
        }
        for name, value in _flat(content):
            key = re.sub(r"(::\d+)+$", "", name).rpartition("::")[2]
            shown = name.replace("::", "#")
            for kind, why in self._problems(name, key, value, is_data):
                text = value if isinstance(value, str) else repr(value)
                yield Finding(file, shown, kind, text, why)

    def _problems(
        self, place: str, key: str, value: Any, is_data: bool
    ) -> Iterator[tuple[str, str]]:
        if key == "_target_":
            yield from self._target(value)
            if self.callables and place in self.by_id and _is_guarded(value):
                yield "call", f"{value} may become a part whose arguments are not in sight"
            return
        if self.copies and isinstance(value, str) and RELATIVE.search(value):
            yield "unreadable", "a relative id, in what may be copied to another place"
        if isinstance(value, Mapping) and value.get("_mode_", "default") != "default":
            if value["_mode_"] != "callable":
                yield "call", f"_mode_ {value['_mode_']!r} does more than make the part"
            elif _is_guarded(value.get("_target_")):
                yield "call", f"{value['_target_']} needs its arguments in sight"
        elif key == "_mode_" and not is_data:
            siblings = self.values.get(f"{place.rpartition('::')[0]}::_target_", [])
            if value != "default" and (value != "callable" or not siblings):
                yield "call", f"_mode_ {value!r} does more than make the part"
            elif value == "callable" and any(map(_is_guarded, siblings)):
                yield "call", "a part whose arguments may be code, and are not in sight"
        if key in ARGUMENTS:
            yield from self._argument(key, value)
        if not isinstance(value, str) or value[:1] not in ("$", "@", "%"):
            return
        if value[0] == "$":
            if not (is_data and re.fullmatch(r"\$[\w.,%-]*", value)):
                yield from self._expression(place, value)
            return
        if is_data:
            return
        try:
            text = ConfigParser.resolve_relative_ids(place, value)
        except ValueError:
            yield "unreadable", "refers to something outside the configuration"
            return
        if value[0] == "%":
            path, name = ConfigParser.split_path_id(text[1:])
            if path:
                yield "file", f"takes in the file {path}, which is not read here"
                return
        else:
            name = text[1:]
        yield from self._reference(name)

    def _reference(self, name: str) -> Iterator[tuple[str, str]]:
        """A reference gives what was read elsewhere, but for a module, and for everything."""
        plain = name.strip(":")
        if not plain and ":" not in name:
            yield "unreadable", "refers to the whole configuration"
        elif plain in self.imports or plain.rpartition("::")[0] in self.lists:
            yield "module", "refers to an imported module as if it were a value"
        elif any(part.startswith("__") for part in plain.split("::")):
            yield "unreadable", "refers to what no configuration may name"

    def _target(self, value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, str) or value[:1] in "$@%":
            yield "unreadable", "the part is only known when the configuration runs"
        elif not _is_component(value) and not self.is_own(value):
            yield _kind_of(value), f"{value} {WHY['call']}{_near(value)}"

    def _argument(self, key: str, value: Any) -> Iterator[tuple[str, str]]:
        kind, allowed = ARGUMENTS[key]
        names = key in NAMES_OF_CLASSES
        for one in self._looked_up(value, names):
            is_part = isinstance(one, Mapping) and "_target_" in one  # which is read by itself
            is_reader = names and (is_part or re.fullmatch(READER, str(one)))
            if not (is_reader or any(type(one) is type(good) and one == good for good in allowed)):
                yield kind, f"{key}={one!r} {WHY[kind]}"

    def _looked_up(self, value: Any, lists: bool, depth: int = 5) -> list[Any]:
        """The plain values that a reference may stand for; `lists`: or each that a list holds."""
        if isinstance(value, list) and lists:
            return [found for one in value for found in self._looked_up(one, lists, depth)]
        if isinstance(value, str) and value[:1] == "@" and depth:
            found = self.values.get(ReferenceResolver.normalize_id(value[1:]))
            if found:
                return [one for each in found for one in self._looked_up(each, lists, depth - 1)]
        return [value]

    def _expression(self, place: str, value: str) -> Iterator[tuple[str, str]]:
        statement = _import_in(value)
        if statement is not None:
            yield from self._imported(statement)
            if ast.unparse(statement).split() != value[1:].split():
                yield "unreadable", "an import with something behind it"
            return
        try:
            tree = ast.parse(_as_evaluated(place, value), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError, KeyError) as error:
            yield "unreadable", f"is no expression that can be read ({type(error).__name__})"
            return
        expression = _Expression(self)
        try:
            expression.read(tree.body, frozenset())
        except RecursionError:
            yield "unreadable", "is too deep to be read"
        yield from dict.fromkeys(expression.problems)

    def _imported(self, statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
        alias = statement.names[0]
        target = alias.name
        if isinstance(statement, ast.ImportFrom):
            target = f"{statement.module}.{alias.name}"
            if statement.level or alias.name == "*":
                yield "module", f"{ast.unparse(statement)} {WHY['module']}"
                return
        name = alias.asname or alias.name
        if name.startswith("__") or name in _builtins():
            yield "module", f"gives {target} the name {name}, which stands for something else"
        if not _is_module(target) and not _is_listed(target) and not self.is_own(target):
            yield _kind_of(target, "module"), f"{target} {WHY['module']}"

    def is_own(self, target: str) -> bool:
        """Whether something is the user's own, where that is allowed."""
        if self.own is None or not _is_own(target):
            return False
        place = _place_of(target)
        return not any(place.is_relative_to(folder.resolve()) for folder in self.own)


class _Expression:
    """One expression: every node of its tree is on the list, or is told."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.problems: list[tuple[str, str]] = []

    def tell(self, kind: str, why: str) -> None:
        self.problems.append((kind, why))

    def read(self, node: ast.AST | None, bound: frozenset[str]) -> None:
        """Read a node; `bound` are the names of lambdas and comprehensions around it."""
        if node is None or isinstance(node, ast.Constant):
            return
        if isinstance(node, ast.Name | ast.Attribute):
            self._named(node, bound)
        elif isinstance(node, ast.Call):
            self._call(node, bound)
        elif isinstance(node, ast.Lambda):
            given = node.args
            for default in (*given.defaults, *given.kw_defaults):
                self.read(default, bound)
            every = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
            self.read(node.body, bound | {one.arg for one in every if one is not None})
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            self._comprehension(node, bound)
        elif isinstance(node, ast.Subscript):
            if _reference_of(node) is not None:
                for kind, why in self.reading._reference(str(_reference_of(node))):
                    self.tell(kind, why)
                return
            self.read(node.value, bound)
            self.read(node.slice, bound)
        elif isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.Pow) and not _is_small(node.right):
                self.tell("unreadable", "a power that may take for ever")
            self.read(node.left, bound)
            self.read(node.right, bound)
        elif isinstance(
            node,
            ast.UnaryOp
            | ast.BoolOp
            | ast.Compare
            | ast.IfExp
            | ast.Tuple
            | ast.List
            | ast.Set
            | ast.Dict
            | ast.Slice
            | ast.Starred
            | ast.JoinedStr
            | ast.FormattedValue,
        ):
            for child in ast.iter_child_nodes(node):
                if not isinstance(child, ast.boolop | ast.unaryop | ast.cmpop | ast.expr_context):
                    self.read(child, bound)
        else:
            self.tell("unreadable", f"{type(node).__name__} is no part of a configuration")

    def _comprehension(self, node: Any, bound: frozenset[str]) -> None:
        for one in node.generators:
            self.read(one.iter, bound)
            stored = [each.id for each in ast.walk(one.target) if isinstance(each, ast.Name)]
            for each in ast.walk(one.target):
                if not isinstance(each, ast.Name | ast.Tuple | ast.List | ast.Starred | ast.Store):
                    self.tell("unreadable", "a comprehension that writes into something")
            bound = bound | set(stored)
            for condition in one.ifs:
                self.read(condition, bound)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for part in parts:
            self.read(part, bound)

    def _named(self, node: ast.Name | ast.Attribute, bound: frozenset[str]) -> None:
        """A name, or a walk into a module, that stands for a value."""
        paths = self._paths(node, bound)
        if paths is None:
            if isinstance(node, ast.Attribute):
                self._attribute(node, bound)
                if node.attr in CALLED_ONLY:
                    self.tell("call", f".{node.attr} needs its arguments in sight")
            elif node.id not in bound:
                self.tell("unreadable", f"{node.id} is no name that is known here")
            return
        for path in paths:
            if path in GUARDED or _is_guarded(path):
                self.tell(_kind_of(path), f"{path} may only be called, with its arguments in sight")
            elif not _is_listed(path) and not self.reading.is_own(path):
                self.tell(_kind_of(path), f"{path} {WHY['call']}")

    def _attribute(self, node: ast.Attribute, bound: frozenset[str]) -> None:
        ours = node.attr in WORDS_OF_OURS.split() and _reference_of(node.value) is not None
        if node.attr not in _words() and not ours:
            self.tell("call", f".{node.attr} {WHY['call']}")
        self.read(node.value, bound)

    def _paths(self, node: ast.AST, bound: frozenset[str]) -> list[str] | None:
        """The dotted paths that a name or a walk may be; None where it starts at a value."""
        rest: list[str] = []
        while isinstance(node, ast.Attribute):
            rest.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in bound:
            return None
        starts = set(self.reading.names.get(node.id, ()))
        if node.id in _builtins():
            starts.add(f"builtins.{node.id}")
        return sorted(".".join([start, *rest]) for start in starts) if starts else None

    def _call(self, node: ast.Call, bound: frozenset[str]) -> None:
        function = node.func
        for keyword in node.keywords:
            if keyword.arg in ARGUMENTS:
                value = keyword.value
                plain = value.value if isinstance(value, ast.Constant) else ast.unparse(value)
                for kind, why in self.reading._argument(keyword.arg, plain):
                    self.tell(kind, why)
            self.read(keyword.value, bound)
        for argument in node.args:
            if not (_is_setattr(function, bound) and argument is node.args[0]):  # see `_setattr`
                self.read(argument, bound)
        is_named = isinstance(function, ast.Name | ast.Attribute)
        paths = self._paths(function, bound) if is_named else None
        if paths is not None:
            for path in paths:
                if path in GUARDED or _is_guarded(path):
                    self._guarded(path, node)
                elif not _is_listed(path) and not self.reading.is_own(path):
                    self.tell(_kind_of(path), f"{path} {WHY['call']}")
        elif isinstance(function, ast.Attribute):
            count = CALLED_ONLY.get(function.attr, len(node.args))
            is_starred = any(isinstance(one, ast.Starred) for one in node.args) or node.keywords
            if function.attr in CALLED_ONLY and (is_starred or len(node.args) != count):
                self.tell("call", f".{function.attr} takes {count} arguments in a configuration")
            self._attribute(function, bound)
        elif isinstance(function, ast.Name) and function.id in bound:
            pass
        elif _reference_of(function) is not None:
            self.read(function, bound)
        elif isinstance(function, ast.Name):
            self.tell("call", f"{function.id} {WHY['call']}")
        else:
            self.tell("unreadable", "calls what an expression gives")
            self.read(function, bound)

    def _guarded(self, path: str, node: ast.Call) -> None:
        hidden = any(keyword.arg is None for keyword in node.keywords)
        hidden |= any(isinstance(one, ast.Starred) for one in node.args)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        plain = {name: one.value for name, one in given.items() if isinstance(one, ast.Constant)}
        if hidden:
            self.tell("unreadable", f"{path} with arguments that are not in sight")
        elif _is_guarded(path):
            if node.args:
                self.tell("call", f"{path} needs each argument by its name")
        elif path == "torch.load" and (plain.get("weights_only") is not True or len(node.args) > 2):
            self.tell("pickle", f"{path} without weights_only=True {WHY['pickle']}")
        elif path == "numpy.load" and (len(node.args) > 1 or set(given) - {"allow_pickle"}):
            self.tell("pickle", f"{path} with more than a file {WHY['pickle']}")
        elif path == "builtins.setattr":
            self._setattr(node)
        elif path == "builtins.open":
            modes = [*node.args[1:2], *([given["mode"]] if "mode" in given else [])]
            plainly = [one.value for one in modes if isinstance(one, ast.Constant)]
            read = len(plainly) == len(modes) and set(plainly) <= {"r", "rb", "rt"}
            if not read or len(node.args) > 2 or set(given) - {"mode", "encoding", "newline"}:
                self.tell("file", "opens a file for more than reading")

    def _setattr(self, node: ast.Call) -> None:
        plain = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
        target = ast.unparse(node.args[0]) if node.args else ""
        is_torch = self.reading.names.get("torch") == {"torch"}
        is_flag = len(plain) == 3 and plain[1] in CUDNN and isinstance(plain[2], bool)
        if not (is_flag and is_torch and target == "torch.backends.cudnn") or node.keywords:
            self.tell("call", f"setattr {WHY['call']}, but for flags of torch.backends.cudnn")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every id below a configuration with its value; ids in keys are taken apart."""
    if isinstance(value, Mapping):
        children: Any = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    else:
        return
    for key, child in children:
        text = ReferenceResolver.normalize_id(str(key)).lstrip("+")
        name = f"{prefix}::{text}" if prefix else text
        yield name, child
        yield from _flat(child, name)


def _import_in(value: str) -> ast.Import | ast.ImportFrom | None:
    """The import that MONAI takes an expression for, by its first statement."""
    try:
        statements = ast.parse(value[1:]).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    first = statements[0] if statements else None
    return first if isinstance(first, ast.Import | ast.ImportFrom) else None


class _Everything(dict[str, Any]):
    """Holds every id, so that MONAI's own code puts references into an expression."""

    def __contains__(self, key: object) -> bool:
        return True


def _as_evaluated(place: str, value: str) -> str:
    """The text that MONAI gives to `eval`, with references in it."""
    text = ConfigParser.resolve_relative_ids(place, value)
    if not ConfigExpression.is_expression(text):
        raise ValueError("no expression")
    found: str = ReferenceResolver.update_refs_pattern(text, _Everything())
    return found[1:].lstrip(" \t")


def _reference_of(node: ast.AST) -> str | None:
    """The id, where a node is a reference as `_as_evaluated` has put it there."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        index = node.slice
        if node.value.id == REFS and isinstance(index, ast.Constant):
            return str(index.value)
    return None


def _is_setattr(function: ast.AST, bound: frozenset[str]) -> bool:
    """Whether a call sets an attribute, of which `_Expression` looks at the first argument."""
    return isinstance(function, ast.Name) and function.id == "setattr" and not {"setattr"} & bound


def _is_small(node: ast.AST) -> bool:
    value = node.operand if isinstance(node, ast.UnaryOp) else node
    if isinstance(value, ast.BinOp):
        return False
    return not isinstance(value, ast.Constant) or (
        isinstance(value.value, int | float) and value.value <= 64
    )


@cache
def _builtins() -> frozenset[str]:
    return frozenset(dir(__import__("builtins")))


def _is_guarded(target: object) -> bool:
    """Whether one of a component's arguments may be code."""
    if not isinstance(target, str):
        return False
    return bool(WITH_GUARDED.fullmatch(target if "." in target else f"monai.x.{target}"))


@cache
def _words() -> frozenset[str]:
    return frozenset(WORDS.split())


@cache
def _components() -> dict[str, frozenset[str]]:
    return {module: frozenset(names.split()) for module, names in LISTED.items()}


@cache
def _used() -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module, names in USED.items() for name in names.split())


def _is_component(target: str) -> bool:
    """Whether a `_target_` is listed, by its path or, of MONAI's own, by its name alone."""
    module, _, name = target.rpartition(".")
    if not module:
        rooms = [room for room in LISTED if room.startswith("monai.")]
        return any(_has(room, name) for room in rooms)
    return any(
        _has(room, target.removeprefix(f"{room}."))
        or (module.startswith(f"{room}.") and _is_walk(module, room) and _has(room, name))
        for room in LISTED
        if target.startswith(f"{room}.")
    )


def _is_walk(module: str, room: str) -> bool:
    """Whether a path below a room names files of it only, as monai.networks.nets.unet does."""
    parts = module.removeprefix(f"{room}.").split(".")
    return room.startswith("monai.") and all(
        re.fullmatch(r"[a-z][a-z0-9_]*", part) and part not in sys.stdlib_module_names
        for part in parts
    )


def _has(room: str, name: str) -> bool:
    names = _components()[room]
    if name in names:
        return True
    base = re.sub(r"(d|D|Dict)$", "", name)
    return room == "monai.transforms" and base != name and base in names


def _is_listed(path: str) -> bool:
    """Whether an expression may name or call something."""
    if path in _used() or (path.count(".") and _is_component(path)):
        return True
    parts = path.split(".")
    for count in range(2, len(parts)):  # os.environ.get, monai.utils.InterpolateMode.BILINEAR
        if (start := ".".join(parts[:count])) in _used():
            words = _words() - CALLED_ONLY.keys() if start in WALKED else frozenset()
            return all(word in words or CONSTANT.fullmatch(word) for word in parts[count:])
    return False


@cache
def _modules() -> frozenset[str]:
    listed = {*USED, *LISTED, *MODULES.split(), *MODULES_OF_OURS} - {"builtins"}
    return frozenset(listed | {name.rpartition(".")[0] for name in listed} - {""})


def _is_module(path: str) -> bool:
    return path in _modules()


def _kind_of(path: str, otherwise: str = "call") -> str:
    return next((kind for kind, words in KINDS if any(word in path for word in words)), otherwise)


def _near(target: str) -> str:
    """A listed name that is close, as a question."""
    module, _, name = target.rpartition(".")
    rooms = [room for room in LISTED if not module or room == module]
    near = difflib.get_close_matches(name, [n for room in rooms for n in _components()[room]], n=1)
    return f"; did you mean {module + '.' if module else ''}{near[0]}?" if near else ""


@cache
def _is_own(target: str) -> bool:
    """Whether the module of a `_target_` is the user's own: found, and installed nowhere."""
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("monai", "torch", "metaseg_monai"):
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or "." not in target:
        return False
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    paths = [Path(place).resolve() for place in places if place and place != "built-in"]
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {
        *map(sysconfig.get_path, kinds),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
    roots = [Path(place).resolve() for place in installed]
    return bool(paths) and not any(path.is_relative_to(root) for path in paths for root in roots)


def _place_of(target: str) -> Path:
    """The file or folder that a dotted path leads to, as far as it does."""
    top, *parts = target.split(".")
    spec = importlib.util.find_spec(top)
    places = list((spec and spec.submodule_search_locations) or [])
    place = Path(places[0] if places else (spec and spec.origin) or top).resolve()
    for part in parts:
        below = [place / part, place / f"{part}.py"]
        place = next((path for path in below if path.exists()), place)
    return place.resolve()


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _read_logging(folder: Path) -> list[Finding]:
    """What logging.conf evaluates: classes and arguments of handlers, classes of formatters."""
    file = folder / "configs" / "logging.conf"
    name = "configs/logging.conf"
    if not file.is_file():
        return []
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (configparser.Error, ValueError, OSError) as error:
        return [Finding(name, "", "unreadable", f"{error}"[:SHOWN], WHY["unreadable"])]
    found = []
    for section in [parser.default_section, *parser.sections()]:
        for key, value in parser[section].items():
            harmless = {
                "class": ("StreamHandler", "NullHandler", "logging.Formatter", "Formatter"),
                "args": ("(sys.stdout,)", "(sys.stderr,)", "()"),
                "kwargs": ("{}",),
            }.get(key)
            if harmless is not None and value.replace(" ", "") not in harmless:
                found.append(Finding(name, f"{section}#{key}", "logging", value, WHY["logging"]))
            if key == "defaults" or "ext://" in value or "cfg://" in value:
                found.append(Finding(name, f"{section}#{key}", "logging", value, WHY["logging"]))
    return found
