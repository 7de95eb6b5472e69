"""The benchmarks that scripts/prepare_dataset.py reads from their published layouts, each in a module of its own.

To add one: a module here with a reader and a [`Benchmark`], whose attribute is the benchmark's name in capitals, and
its line in BENCHMARKS. A module is imported when its benchmark is read, so that `--help` can list all names at once.
One's own files are read in the same way, by the modules of `own_files`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .layout import Benchmark

# {what they are for: {name: module}}
BENCHMARKS = {
    "retrieval": {
        "msrvtt": "msrvtt",
        "youcook2": "youcook2",
        "msvd": "msvd",
        "didemo": "didemo",
        "didemo_moments": "didemo",
        "qvhighlights": "qvhighlights",
        "charades_sta": "charades_sta",
        "flickr8k": "flickr8k",
        "flickr30k": "karpathy",
        "coco": "karpathy",
        "audiocaps": "audiocaps",
        "clotho": "clotho",
        "grid": "grid",
        "exercises": "exercises",
    },
    "classification": {
        "ucf101": "ucf101",
        "hmdb51": "hmdb51",
        "kinetics": "kinetics",
        "esc10": "esc",
        "esc50": "esc",
        "audioset": "audioset",
        "speech_commands": "speech_commands",
    },
    "grounding": {
        "youcook2_interactions": "youcook2_interactions",
        "grounding_youtube": "grounding_youtube",
        "flickr30k_entities": "flickr30k_entities",
        "vggss": "vggss",
    },
    "pretraining": {
        "howto100m": "howto100m",
    },
    "your own files": {
        "folder": ".own_files.folder",
        "classes": ".own_files.classes",
    },
}
MODULES = {name: module for modules in BENCHMARKS.values() for name, module in modules.items()}


def load_benchmark(name: str) -> "Benchmark":
    """Imports the module of a benchmark.

    Args:
        name: a key of MODULES.
    """
    return getattr(import_module(f".{MODULES[name]}", __name__), name.upper())
