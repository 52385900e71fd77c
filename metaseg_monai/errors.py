"""Errors whose message names the case, field or file, what was expected, and the next step."""

import difflib
import errno
import inspect
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_type_hints

import pydantic

P = ParamSpec("P")
R = TypeVar("R")

# With what a command ends (contract 26).
DONE, UNFORESEEN, REFUSED, WITH_PROBLEMS, STOPPED = 0, 1, 2, 3, 130


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


class DataWarning(UserWarning):
    """Something about data that is allowed but seldom meant, such as an image of one value.

    The command line tells each once, as one line.
    """


class Problem(NamedTuple):
    """Why one item of many was left out; a row of ``problems.csv``.

    Attributes:
        case: its name.
        file: what is wrong, as the user names it or relative to the source ("" if it is no file).
        problem: what was found and what was expected.
        next_step: what to do.
    """

    case: str
    file: str
    problem: str
    next_step: str

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        case = f"{self.case}: " if self.case else ""
        return one_line(f"{case}{where}{self.problem}; {self.next_step}")

    @classmethod
    def of_error(cls, case: str, file: str, path: str | Path, error: BaseException) -> "Problem":
        """The problem that an error of ours tells of `path`; it ends with its next step.

        >>> Problem.of_error("a", "a.nii", "x/a.nii", DataError("x/a.nii: cut short; copy it anew"))
        Problem(case='a', file='a.nii', problem='cut short', next_step='copy it anew')
        """
        told = str(error).removeprefix(f"case {case!r}: ")
        text = told.removeprefix(f"{path}: ").removeprefix(f"{one_line(str(path))}: ")
        problem, _, next_step = text.rpartition("; ")
        return cls(case, file, problem or next_step, next_step if problem else "copy it anew")


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse arguments of other types than the signature says, before the function runs.

    From Python comes what a command line cannot give: None, an array, "no" as a truth value. What
    is annotated as Any is the function's own to check; a number of NumPy is a number.

    >>> @typed
    ... def double(number: float, loud: bool = False) -> float:
    ...     return 2 * number
    >>> double(2)
    4
    >>> double(2, loud="no")
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.ConfigError: double: loud is 'no' (str); expected bool
    """
    signature = inspect.signature(function)

    @cache
    def takes() -> dict[str, Any]:
        any_class = pydantic.ConfigDict(arbitrary_types_allowed=True)
        hints = get_type_hints(function)
        return {
            name: pydantic.TypeAdapter(hints[name], config=any_class)
            for name in signature.parameters
        }

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            plain = value.item() if getattr(value, "ndim", None) == 0 else value
            try:
                takes()[name].validate_python(plain, strict=True)
            except pydantic.ValidationError as error:
                kind = inspect.formatannotation(signature.parameters[name].annotation)
                for wrapped in ("Literal", "Optional"):
                    kind = re.sub(rf"{wrapped}\[([^\[\]]*)\]", r"\1", kind)
                raise ConfigError(
                    f"{function.__name__}: {name} is {' '.join(repr(value).split())[:200]} "
                    f"({type(value).__name__}); "
                    f"expected {re.sub(r'[a-z_.]+[.]', '', kind)}"
                ) from error
        return function(*args, **kwargs)

    return checked


def one_line(text: str) -> str:
    r"""Text in which a file's name cannot begin a line of its own.

    >>> one_line("a\nb.png")
    'a\\nb.png'
    """
    return text.replace("\n", r"\n").replace("\r", r"\r")


def listing(names: Iterable[Any], most: int = 30, word: Callable[[Any], str] = repr) -> str:
    """Names for a message, the first `most` of them, each as `word` gives it.

    >>> listing(["disc", "ring", "cross"], most=2)
    "'disc', 'ring' and 1 more"
    """
    quoted = [word(name) for name in names]
    rest = len(quoted) - most
    return ", ".join(quoted[:most]) + (f" and {rest} more" if rest > 0 else "")


def did_you_mean(name: object, allowed: Iterable[str], *, told: bool = False) -> str:
    """The next step for a name that is not among the allowed ones, by the distance of spelling.

    For names of fields, options and files; values of patients, which may be opposite (male,
    female), are told by `metaseg_monai.metadata.fields.same_name`.

    Args:
        name: that was given.
        allowed: names.
        told: whether the allowed names stand in the message already.

    >>> did_you_mean("dsic", ["disc", "ring"])
    "did you mean 'disc'?"
    >>> did_you_mean("x", ["disc", "ring"])
    "use one of 'disc', 'ring'"
    """
    known = list(allowed)
    close = difflib.get_close_matches(str(name), known, n=1)
    otherwise = "use one of these names" if told else f"use one of {listing(known)}"
    return f"did you mean {close[0]!r}?" if close else otherwise


# What others raise, told as we would: the file, what is wrong with it, and the next step.

RIGHTS = "check its permissions and those of its folder, or use another place"
ADVICE = {
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: "choose a folder on a disk that may be written",
    errno.ENOSPC: "free some room, or choose a folder on another disk",
    errno.EDQUOT: "free some room, or choose a folder on another disk",
    errno.EFBIG: "raise the limit (ulimit -f), or choose a folder on another disk",
    errno.EISDIR: "it is a folder where a file is expected; give the file, or another name",
    errno.ENOTDIR: "a part of this path is a file; mend the path",
    errno.ENOENT: "check the path",
    errno.EEXIST: "choose another name, or move away what is there",
    errno.EMFILE: "raise the limit (ulimit -n), or use fewer workers",
    errno.ENFILE: "end other programs, or use fewer workers",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ELOOP: "its links lead in a circle; mend the link",
    errno.EIO: "check disk and network, and use a copy",
}
EXTRAS = {
    "pydicom": "dicom",
    "highdicom": "dicom",
    "submitit": "slurm",
    "mlflow": "tracking",
    "imagecodecs": "tiff",
    "zarr": "zarr",
    "onnx": "export",
    "onnxruntime": "export",
    "huggingface_hub": "hub",
    "onnxscript": "export",
    "openvino": "engines",
    "nncf": "engines",
    "bioimageio": "bioimageio",
}
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError)  # a file cut or altered
BROKEN_NAMES = ("JSONDecodeError", "EmptyDataError", "ParserError", "UnpicklingError")
# of locals on the way to an error that tell which file was read
PLACES = re.compile("(path|file|filename|filepath|fname|image|record|source|config_file|folder)_?")
NO_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.I)
NO_DEVICE = re.compile(
    "NVIDIA driver|CUDA error|CUDA enabled|invalid device|device string|device type|"
    "deserialize object on a CUDA|No CUDA GPUs|device index|support for .* devices",
    re.I,
)
# PyTorch's and MONAI's words on an image that a network does not halve evenly, or to one pixel
UNFIT_SIZE = re.compile(
    "Sizes of tensors must match|more than 1 spatial element|spatial dim.* must be divisible by"
)
# and on a size of other axes than an image's, in a transform
UNFIT_AXES = re.compile(r"Sequence must have length (\d), got (\d)")
# how MONAI wraps an error
APPLYING = "applying transform "
WRAPPED = re.compile(rf"Failed to (instantiate component '(.+?)'|evaluate )|{APPLYING}")


def root_refusal(error: BaseException | None) -> MetasegError | None:
    """Find the library's own error inside what MONAI, Ignite and PyTorch have wrapped around it."""
    for one in chain(error):
        if isinstance(one, MetasegError):
            name = f"{type(one).__module__}.{type(one).__qualname__}: "
            _, came, inner = str(one).rpartition(f"\n{name}")  # behind a loading process's trace
            return type(one)(inner.strip()) if came and "Traceback" in str(one) else one
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of, the outermost first."""
    while error is not None:
        yield error
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden


EXPRESSION = "<string>"  # where Python says that the text of an expression is


def as_refusal(error: BaseException) -> MetasegError | None:
    """What an error of the system, of a damaged file or of a component means to the user.

    Args:
        error: anything that was raised.

    Returns:
        One line with the file and what to do; None for what nobody has foreseen.

    >>> print(as_refusal(IsADirectoryError(21, "Is a directory", "masks/a.png")))
    masks/a.png: Is a directory; it is a folder where a file is expected; give the file, or \
another name
    """
    if found := root_refusal(error):
        return found
    for one in chain(error):
        told = _of_system(one, error) or _of_memory(one) or _of_file(one, error)
        told = told or _of_size(one, error)
        if told:
            return told
    return _of_component(error)


def _of_system(error: BaseException, whole: BaseException) -> MetasegError | None:
    if isinstance(error, ImportError) and (name := (error.name or "").partition(".")[0]):
        if "Cannot locate" in str(error):
            return None
        extra = EXTRAS.get(name)
        step = f'pip install "metaseg-monai[{extra}]"' if extra else f"install or mend {name}"
        return ConfigError(f"{_one_line(error)}; {step}")
    if not isinstance(error, OSError):
        return None
    place = error.filename if error.filename is not None else _place(whole)
    place = place.decode(errors="replace") if isinstance(place, bytes) else place or "a file"
    if error.errno is None:  # of a library that reads files
        return DataError(f"{place}: cannot be read ({_one_line(error)}); use an intact copy")
    return system_refusal(error, place)


def system_refusal(error: OSError, place: object, more: str = "") -> DataError:
    """What the system does not let us do, with the next step; `more` comes behind it."""
    step = ADVICE.get(error.errno or 0, "check path, disk and permissions")
    return DataError(f"{place}: {error.strerror or _one_line(error)}; {step}{more}")


def _of_memory(error: BaseException) -> MetasegError | None:
    out = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return DataError(
            f"not enough memory ({_one_line(error) or 'MemoryError'}); use smaller batches or "
            "windows (batch_size, roi_size), fewer workers, or a machine with more"
        )
    if isinstance(error, RuntimeError | AssertionError | ValueError) and NO_DEVICE.search(
        str(error).partition("\n")[0]
    ):
        told = f"the device cannot be used ({_one_line(error)})"
        return ConfigError(f"{told}; give --device cpu, or one that this machine has, as cuda:0")
    return None


def _of_size(error: BaseException, whole: BaseException) -> MetasegError | None:
    axes = UNFIT_AXES.match(str(error))
    if axes and any(str(one).startswith(APPLYING) for one in chain(whole)):
        return ConfigError(
            f"images have {axes[1]} axes, and a size has {axes[2]} numbers; give roi_size, and "
            "each size in train#augmentation, one whole number per axis"
        )
    if isinstance(error, RuntimeError | ValueError) and UNFIT_SIZE.search(_one_line(error)):
        return ConfigError(
            f"a network cannot take an image or window of this size ({_one_line(error)}); give "
            "roi_size, and window_inferer#roi_size, multiples of what it shrinks images by, larger "
            "than it once"
        )
    return None


def _of_file(error: BaseException, whole: BaseException) -> MetasegError | None:
    """What a text or archive is wrong in that nobody at the door looked into."""
    if isinstance(error, RecursionError):
        return DataError(
            f"{_place(whole) or 'the input'}: nested too deeply ({_one_line(error)}); flatten it"
        )
    if isinstance(error, UnicodeEncodeError):
        return DataError(
            f"{error.object[:200]!a}: cannot be written as {error.encoding} ({error.reason}); "
            "rename it with plain letters"
        )
    if isinstance(error, BROKEN) or type(error).__name__ in BROKEN_NAMES:
        return DataError(
            f"{_place(whole) or 'a file'}: damaged ({_one_line(error)}); use an intact copy"
        )
    return None


def _of_component(error: BaseException) -> MetasegError | None:
    """A part of a configuration that cannot be made; what goes wrong inside of a run is not."""
    for one in chain(error):
        if type(one).__name__ == "ErrorDuringImport":  # of pydoc, which looks a `_target_` up
            return ConfigError(f"{_one_line(one)}; mend this module")
    root = root_cause(error)
    trace = root.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_code.co_filename == EXPRESSION:
        return ConfigError(
            f"{_component(error) or 'a setting'} cannot be computed ({type(root).__name__}: "
            f"{_one_line(root)}); mend its expression in the configuration or in your settings"
        )
    made = [found for one in chain(error) if (found := WRAPPED.match(str(one))) and found[2]]
    if not made:
        return None
    return ConfigError(
        f"{_component(error) or 'a component'} cannot be made by {made[-1][2]} "
        f"({type(root).__name__}: {_one_line(root)}); mend its arguments in the configuration or "
        "in your settings"
    )


def root_cause(error: BaseException) -> BaseException:
    """The error inside of MONAI's wrappers; itself where there are none."""
    while WRAPPED.match(str(error)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _frames(error: BaseException) -> Iterator[Any]:
    """Frames on the way to an error, the innermost first, of all errors that it came of."""
    for one in reversed(list(chain(error))):
        frames, trace = [], one.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        yield from reversed(frames)


def _place(error: BaseException) -> str | None:
    """The file that was read last before an error that does not name it itself."""
    for frame in _frames(error):
        for name, value in reversed(list(frame.f_locals.items())):
            if PLACES.fullmatch(name) and isinstance(value, str | Path) and str(value):
                try:
                    there = Path(value).exists()
                except (OSError, ValueError):
                    continue
                if there:
                    return str(value)
    return None


def _component(error: BaseException) -> str | None:
    """The id of the part of a configuration that was being made."""
    for frame in _frames(error):
        if frame.f_code.co_name == "_resolve_one_item":
            return str(frame.f_locals.get("id")).replace("::", "#")
    return None
