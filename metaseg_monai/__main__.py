"""Entry point of ``python -m metaseg_monai`` and of the command ``metaseg``."""

import sys

import fire

from metaseg_monai.cli.check_flags import check_flags
from metaseg_monai.cli.commands import Commands
from metaseg_monai.errors import MetasegError


def main() -> None:
    """Run one command; what a user can mend is one line on stderr and exit status 2."""
    try:
        commands, arguments = Commands(), sys.argv[1:]
        if help_last(arguments) == arguments:  # nobody asked for help
            check_flags(commands, arguments)
        fire.Fire(commands, command=help_last(arguments), name="metaseg_monai")
    except MetasegError as error:
        sys.exit(_refusal(error))
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nStopped; no file is half-written. A training goes on from its last finished epoch "
            "with the same command and --resume True; demo and study go on by themselves.\n"
        )
        sys.exit(130)


def help_last(arguments: list[str]) -> list[str]:
    """Keep fire from handing ``--help`` to a command as one of its overrides."""
    rest = [argument for argument in arguments if argument not in ("--help", "-h")]
    if len(rest) == len(arguments):
        return rest
    return [*(rest[:-1] if rest[-1:] == ["--"] else rest), "--", "--help"]


def _refusal(error: MetasegError) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2


if __name__ == "__main__":
    main()
