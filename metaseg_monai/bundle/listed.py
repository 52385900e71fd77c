"""The list of what a configuration may use without being trusted: names, words and arguments.

A part that a bundle of ours begins to use is written in here, once its arguments were looked at.
"""

import re
from typing import Any

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
    "metaseg_monai.losses": """
        DeepSupervision DiceCrossEntropy GradientLoss HeadsCrossEntropy LogSquaredLoss LupiLoss
        MedianMeanAbsoluteLoss PixelCrossEntropy RelativisticAverageLeastSquares ScorePool
        WeightedSum""",
    "metaseg_monai.networks": """
        DenseUnetGenerator DynamicUnet3 ImageRegressor MultiHeadUnet3 NucleiLupiUnet PPUnet
        PatchDiscriminator Unet3 authors_unet3 condition grow""",
    "metaseg_monai.networks.regressor": "ImageRegressor",
    "metaseg_monai.images": "slice_items",
    "metaseg_monai.tables": """
        around_objects each_value fill_epoch find_cases fold_cases limit_empty read_table
        select_cases slices""",
    "metaseg_monai.transforms": """
        AsImaged AsMaskd AxialVolumed CropAtCentred DropMetadatad EncodeMetadatad FlatFieldd
        LoadCased NormalizeVolumed ResampleToSpacingd ScaleIntensityBy ScaleIntensityCased
        intensity_statistics beside""",
    "metaseg_monai.inferers": """
        AutocastInferer EnsembleInferer PlaneInferer Runner SlidingWindowMetadataInferer
        SteeredInferer ToldInferer channels_last each_tensor""",
    "metaseg_monai.training": """
        BestWeights ConditionalAdversarialTrainer EpochDraw EpochLog FieldTarget ListProblems
        LoadWeights MovingAverage PixelF1 PrepareBatchHeads PrepareBatchMeta
        ReadAhead RecordTrained RefuseTrained ReplayDataset RunCheckpoint RunProgress SiftedDataset
        ClipGradients StepOnPlateau StopOnNonFinite TryBatches VolumeBatches
        EstimateLoss cyclic_schedule estimated_field joined_dataset outputs_of training_loader
        validation_dataset warm_restarts""",
    "metaseg_monai.sharing.grow": "StartFrom",
    "metaseg_monai.evaluation": """
        AreaCoverage CalibrateAreas CalibrationBins CaseCounts ChooseCleanUp CleanUpPredictions
        FieldEstimates ImageObjects ImageSamples ImageScores KnownOfCases MaskRecord ObjectScores
        PerCase PredictionSamples RecordEvaluation SaveImages SaveMasks SaveObjects Shard
        SurfaceDice TellAreas TellFit VolumeScores
        chosen_field evaluation_items known_items results_folder""",
    "metaseg_monai.explain": "GateActivations GateFeatures RecordGates few_cases",
    "metaseg_monai.prepare": "KitsLayout kits_volumes",
    "metaseg_monai.simulate": """
        generate_adipocyte generate_cells generate_phantom_slices generate_phantoms
        generate_synthetic_shapes""",
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
    "metaseg_monai.bundle": "effective facts given own_root settings testing",
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
    T absolute add append argmax args as_posix astype axis batch batch_size best_metric children
    clone count cpu cuda data dataloader dataset detach device dim dtype endswith epoch epoch_length
    eval exists expand extend flatten float get glob half index int is_dir is_file item items
    iteration iterdir join joinpath keys knows_unknown len logger long lower lstrip max max_epochs
    mean meta metrics min model name names ndim network numpy optimizer output parameters parent
    parts permute pixdim reads_metadata replace require reshape resolve rglob round rows rsplit
    rstrip run schema setLevel set_epoch set_trainer shape sigmoid size softmax sort spatial_dims
    spatial_shape split splits squeeze startswith state std stem step strip suffix sum tasks to
    tolist train transform transforms transpose type unknown_trained unsqueeze upper values variant
    view width with_name with_suffix zfill clip named_parameters strftime"""
# Of ours only: no method of these names is on anything else that is listed.
WORDS_OF_OURS = """
    before begin check_availability end finish folder found is_whole kept load missing own"""
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
    "reader": ("call", (None, *READERS.split(), *READERS.lower().split())),
    "writer": ("call", (None, *READERS.split(), *READERS.lower().split())),
    "merger_cls": ("call", (*READERS.split(), "avgmerger")),
    "compile": ("compiler", (False, None)),
}
NAMES_OF_CLASSES = ("reader", "writer", "merger_cls")
CONSTANT = re.compile("[A-Z][A-Z0-9_]*")

# Packages that a bundle may have installed: what MONAI, its zoo and ours are known to need.
PACKAGES = """
    cellpose clearml cucim cucim-cu11 cucim-cu12 einops fastremap filelock fire gdown h5py
    highdicom huggingface-hub imagecodecs itk jinja2 jsonschema lmdb lpips matplotlib metaseg-monai
    mlflow monai monai-generative natsort nibabel ninja numba numpy nvidia-ml-py onnx onnxruntime
    onnxscript opencv-python openslide-python openvino optuna packaging pandas pillow psutil
    pydantic pydicom pynrrd pynvml python-gdcm pytorch-ignite pyyaml roifile scikit-image
    scikit-learn scipy segment-anything tensorboard tensorboardx tifffile torch torchaudio
    torchvision tqdm transformers wsidicom zarr"""
