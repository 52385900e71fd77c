"""Errors whose message names the case, field or file, what was expected, and the next step."""


class MetasegError(Exception):
    """Anything a user can mend; the command line prints its message without a traceback."""


class MetadataError(MetasegError, ValueError):
    """A metadata value, field, schema or encoded vector is not what was declared."""


class DataError(MetasegError, ValueError):
    """A table, image or label cannot be used as it is."""


class ConfigError(MetasegError, ValueError):
    """A setting, override or bundle is wrong."""


class CheckpointError(MetasegError, RuntimeError):
    """A checkpoint or a set of weights is missing, damaged or belongs to another model."""


class TrainingError(MetasegError, RuntimeError):
    """Training cannot go on, for instance after a loss that is not finite."""
