"""What a bundle from elsewhere would run, told before it is run."""

from dataclasses import dataclass
from pathlib import Path

from metaseg_monai.bundle.trust import Finding, read_bundle
from metaseg_monai.errors import ConfigError
from metaseg_monai.files import writable, write_json, written_at


@dataclass(frozen=True)
class Reading:
    """A bundle as it was read, without being run.

    Attributes:
        folder: of the bundle.
        problems: what in it is not on the list of harmless parts, or cannot be read.
        file: trust.json, where it was asked for.
    """

    folder: Path
    problems: list[Finding]
    file: Path | None = None

    @property
    def verdict(self) -> str:
        """Whether anything was found: "clean" or "findings"."""
        return "findings" if self.problems else "clean"

    def __str__(self) -> str:
        told = [f"{self.folder}: {self.verdict}", *map(str, self.problems)]
        if self.problems:
            told.append("Read these before you run the bundle with --trust True.")
        return "\n".join(told if self.file is None else [*told, f"report: {self.file}"])


def check_bundle(
    bundle: str | Path, trust_report: bool = False, output: str | Path | None = None
) -> Reading:
    """Read what a bundle would run, without running any of it.

    Example:
        python -m metaseg_monai check-bundle downloads/spleen_ct_segmentation --trust_report True

    Args:
        bundle: its folder.
        trust_report: write trust.json: a verdict (clean or findings), and of each finding file,
            id, kind, text and why.
        output: folder for it; by default that of the bundle.

    Returns:
        The findings.

    Raises:
        ConfigError: there is no bundle.
        DataError: the report cannot be written.
    """
    folder = Path(bundle)
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}; give the folder of a bundle.")
    found = Reading(folder, read_bundle(folder.resolve()))
    if not trust_report and output is None:
        return found
    file = (written_at(folder) if output is None else Path(output)) / "trust.json"
    content = {"verdict": found.verdict, "findings": [one._asdict() for one in found.problems]}
    with writable(file):
        write_json(file, content)
    return Reading(folder, found.problems, file)
