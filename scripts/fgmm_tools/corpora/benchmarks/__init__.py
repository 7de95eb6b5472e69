"""The benchmarks that scripts/prepare_dataset.py reads from their published layouts.

To add one: a file here with a reader and a [`Benchmark`], its import and its place in the list below, and its name in
fgmm_tools/corpora/names.py.
"""

from .audiocaps import AUDIOCAPS
from .audioset import AUDIOSET
from .clotho import CLOTHO
from .didemo import DIDEMO, DIDEMO_MOMENTS
from .esc import ESC10, ESC50
from .flickr8k import FLICKR8K
from .folder import FOLDER
from .grid import GRID
from .hmdb51 import HMDB51
from .howto100m import HOWTO100M
from .karpathy import COCO, FLICKR30K
from .kinetics import KINETICS
from .layout import Benchmark
from .msrvtt import MSRVTT
from .msvd import MSVD
from .speech_commands import SPEECH_COMMANDS
from .ucf101 import UCF101
from .youcook2 import YOUCOOK2

READ = (
    *(MSRVTT, YOUCOOK2, MSVD, DIDEMO, DIDEMO_MOMENTS, FLICKR8K, FLICKR30K, COCO, AUDIOCAPS, CLOTHO, GRID),
    *(UCF101, HMDB51, KINETICS, ESC10, ESC50, AUDIOSET, SPEECH_COMMANDS),
    *(HOWTO100M, FOLDER),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in READ}
