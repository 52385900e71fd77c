"""Entry point of ``python -m metaseg_monai`` and of the command ``metaseg``."""

from metaseg_monai.cli.commands import main

if __name__ == "__main__":
    main()
