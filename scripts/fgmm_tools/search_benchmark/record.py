"""The results file of the benchmark of search, to which each part adds its own metrics."""

import json
import os
import time
from importlib import import_module
from pathlib import Path

from ..cli import UserError
from ..records import RESULT_KEYS, describe_run, write_record
from .settings import BenchmarkSettings

PROTOCOL = (
    "search: text to the middle window of each item of the split test; moments in their own videos by the protocol of "
    "QVHighlights; times of one process unless said otherwise"
)

# The module of each part, and in it the function run_PART.
MODULES = {
    "recall": "recall",
    "regions": "recall",
    "latency": "latency",
    "moments": "moments",
    "updating": "updating",
    "load": "load",
}


def run_parts(parts: list[str], settings: BenchmarkSettings, output: Path, note: str | None) -> None:
    """Measures parts, and writes the results file after each, so that a run that is stopped has lost one at most.

    Args:
        parts: of PARTS.
        output: the results file; parts that it has and that are not measured now stay as they are.
        note: what a reader should know, as that other programs were at work.

    Raises:
        UserError: when the file is something else.
    """
    read_record(output)
    for part in parts:
        # Each is imported when it is run, for each needs other packages.
        function = getattr(import_module(f".{MODULES[part]}", __package__), f"run_{part}")
        started, load = time.monotonic(), os.getloadavg()[0]
        metrics = function(settings)
        run = describe_run(time.monotonic() - started)
        record = read_record(output)  # now, for other parts may have been added meanwhile
        record |= {"model": settings.model, "dataset": settings.narrated, "split": "test", "protocol": PROTOCOL}
        record |= {**run, "seed": settings.seed}
        record["metrics"].update(metrics)
        record["parts"][part] = {**run, "load_average": [round(load, 1), round(os.getloadavg()[0], 1)]}
        if note:
            record["parts"][part]["note"] = note
        write_record(output, record)
        print(f"Wrote {part} to {output}.", flush=True)


def read_record(output: Path) -> dict:
    """What a results file holds; of one that is not there yet nothing.

    Raises:
        UserError: when it is something else.
    """
    if not output.exists():
        return {"metrics": {}, "parts": {}}
    try:
        record = json.loads(output.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not record.keys() >= {*RESULT_KEYS, "parts"}:
        raise UserError(f"--output {output} exists and is no results file of this benchmark; give another name.")
    return record
