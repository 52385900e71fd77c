"""Run ``python -m ...`` many times without importing torch and MONAI anew each time.

Each line of the standard input is a command: ``{"words": [...], "folder": ..., "out": ..., "err":
...}``. It is run in a fork of this process, which has imported libraries only, as a process of its
own would run it in that folder. The answer is a line with its exit status.
"""

import importlib
import json
import os
import runpy
import sys
import traceback
from collections.abc import Sequence

LIBRARIES = (
    "torch", "monai.bundle", "monai.data", "monai.transforms", "monai.engines", "monai.handlers",
    "ignite.engine", "pandas", "matplotlib.pyplot", "scipy.stats", "skimage.measure", "nibabel",
    "tifffile", "pydantic", "fire", "tqdm",
)  # fmt: skip


def run(words: Sequence[str], folder: str) -> int:
    """Run a module as the main one; return the exit status of its process."""
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = list(words)
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> int:
    """Answer commands until there are no more; in the forks, return their exit status."""
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            streams = {0: os.open(os.devnull, os.O_RDONLY)}
            for number, name in ((1, "out"), (2, "err")):
                streams[number] = os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number, stream in streams.items():
                os.dup2(stream, number)
            return run(command["words"], command["folder"])
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return 0


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    sys.exit(serve())
