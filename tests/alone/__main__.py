"""What people do with an emitted file, by an interpreter that has no effspec.

    python -I tests/alone FOLDER USE,... MODULE:CLASS:CHANNELS:HEIGHT:WIDTH ...

imports every MODULE from FOLDER, builds its CLASS and does each USE with it; started with torchrun's variables (`RANK`
and so on), several processes do it together.  Prints, as JSON, the uses of each module that failed, with the reason,
and the seconds that each use took.  In FOLDER is also the `blocks.py` of the emitted training script.  Nothing here
depends on effspec or on other tests.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback

import together
import torch
import torch.distributed as dist
import uses
from subject import subject


def alone() -> None:
    """Where effspec is installed, it cannot be imported either."""
    sys.modules["effspec"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("effspec")
    except ImportError:
        return
    raise AssertionError("effspec can be imported")


def main(folder: str, wanted: str, *models: str) -> None:
    alone()
    sys.path.insert(0, folder)
    torch.set_num_threads(1)
    several = "RANK" in os.environ
    if several:
        dist.init_process_group("gloo")
    table = uses.USES | together.USES
    failed: dict[str, dict[str, str]] = {}
    seconds = dict.fromkeys(wanted.split(","), 0.0)
    for name, cls, *shape in (model.split(":") for model in models):
        failed[name] = {}
        given = subject(getattr(importlib.import_module(name), cls), tuple(map(int, shape)))
        for use in seconds:
            start = time.monotonic()
            try:
                table[use](given)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                failed[name][use] = f"{type(error).__name__}: {error} ({where.name}:{where.lineno})"
            seconds[use] += time.monotonic() - start
    if several:
        dist.destroy_process_group()
    print(json.dumps({"failed": failed, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
