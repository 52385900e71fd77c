"""The commands: names, arguments and help; what they do lives elsewhere, imported when needed."""

from metaseg_monai.cli.commands import Commands

__all__ = [
    "Commands",
]
