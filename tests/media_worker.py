"""Reads files with every function of media_fgmm in a process of little memory, which a hang ends after 10 s a file.

    python tests/media_worker.py FILE...

A line of JSON before each file ("begin") and one behind it: how each function ended, and the memory of the process, MB.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HANG = 10  # seconds
MEMORY = 2 << 30  # bytes beyond what the libraries take
RATE = 16000


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field + ":"))


def outcome(read) -> list[str]:
    """How a function ended: ["gave", the shape or the text of it], or the name and the text of its exception."""
    try:
        result = read()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["gave", str(tuple(result.shape)) if hasattr(result, "shape") else str(result)]


def main(files: list[str]) -> None:
    from processing_fgmm.media_fgmm import probe_media, read_frames, read_image, read_waveform

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process also where it hangs in compiled code
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + MEMORY, resource.RLIM_INFINITY))
    for file in files:
        print(json.dumps({"begin": file}), flush=True)
        signal.alarm(HANG)
        ends = {
            "probe_media": outcome(lambda: probe_media(file)),  # noqa: B023
            "read_frames": outcome(lambda: read_frames(file, 3, size=32)),  # noqa: B023
            "read_frames of a window": outcome(lambda: read_frames(file, 2, 0.4, 0.9)),  # noqa: B023
            "read_waveform": outcome(lambda: read_waveform(file, RATE)),  # noqa: B023
            "read_waveform of a window": outcome(lambda: read_waveform(file, RATE, 0.4, 0.9)),  # noqa: B023
            "read_image": outcome(lambda: read_image(file).size),  # noqa: B023
        }
        signal.alarm(0)
        print(json.dumps({"file": file, "ends": ends, "memory": status("VmRSS") >> 20}), flush=True)


def read_apart(files: list) -> list[dict]:
    """Runs this module on the files; where it dies, the file gets `{"died": signal or exit status}` and it goes on."""
    results, rest = [], [str(file) for file in files]
    while rest:
        command = [sys.executable, __file__, *rest]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
        done = [line for line in lines if "ends" in line]
        results += done
        rest = rest[len(done) :]
        if rest:
            if not lines:
                raise RuntimeError(f"the reading process did not begin: {process.stderr[-1000:]}")
            results.append({"file": rest[0], "died": process.returncode})
            rest = rest[1:]
    return results


def faults(result: dict) -> list[str]:
    """What a result of [`read_apart`] shows that may not be: another exception than MediaError, a hang, a crash."""
    if "died" in result:
        return [f"{result['file']}: " + ("hangs" if result["died"] == -signal.SIGALRM else f"dies of {result['died']}")]
    ends = result["ends"].items()
    return [
        f"{result['file']}: {read}: {end}: {text}" for read, (end, text) in ends if end not in ("gave", "MediaError")
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
