"""The corpora of studies: what runs are trained and measured on.

Without heavy imports, as [`studies`].
"""

from dataclasses import dataclass, replace

from ..corpora.options import OwnFiles, TrainingNoise

# Training photographs, from the first, that are seen by the model from which runs on slide shows are initialised.
START_PHOTOS = 2000
CLEAN = TrainingNoise()


@dataclass(frozen=True)
class Part:
    """One of the corpora that a corpus mixes.

    Args:
        name: of its folder.
        source: the benchmark, or the kind of own files, that it is prepared from; None: `name` is a key of CORPORA.
        table: of own files: the table in the folder `name` of the sources, and what its columns are called.
        config: which of its official splits or folds.
        weight: its share of the clips, in any unit.
    """

    name: str
    source: str | None = None
    table: OwnFiles | None = None
    config: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class StudyCorpus:
    """A corpus that runs are trained and measured on, and how.

    Args:
        title: what it is, for tables and figures.
        source: `"narrated"` (rendered), the benchmark that it is prepared from, or `"mixed"` of `parts`.
        config: training configuration in scripts/configs.
        direction, metric: of the result that counts, as in results files.
        batch_size, clips_seen: of a run, unless a study varies them.
        learning_rate: at that batch size; at others it grows with the root of the batch.
        caption_noise: of the narrated corpus, share of the training captions that do not describe their clip.
        noise: what is done to the training split of a benchmark.
        skip: rows of the training split that are left out, from the first.
        limit: rows of the training split at most; None: all.
        join_captions: measure all captions of an item as one query too.
        start: the corpus whose coarse model initialises the runs; None: random weights.
        fields: further fields of the training configuration.
        parts: of a mixed corpus; retrieval is measured on the first.
    """

    title: str
    source: str
    config: str
    direction: str
    metric: str
    batch_size: int
    clips_seen: int
    learning_rate: float
    caption_noise: float = 0.0
    noise: TrainingNoise = CLEAN
    skip: int = 0
    limit: int | None = None
    join_captions: bool = False
    start: str | None = None
    fields: tuple[tuple[str, object], ...] = ()
    parts: tuple[Part, ...] = ()


def narrated(caption_noise: float) -> StudyCorpus:
    """Rendered clips with spoken captions."""
    title = f"rendered clips, {caption_noise:.0%} of the captions of others"
    return StudyCorpus(
        title, "narrated", "comparison_narrated", "text_to_video", "R@10", 64, 12_800, 2e-3, caption_noise
    )


def slide_shows(slides: int, chatter: int) -> StudyCorpus:
    """Slide shows of Flickr8k's photographs with captions of photographs that are not shown."""
    return StudyCorpus(
        f"slide shows of {slides}, {chatter} captions of others",
        "flickr8k",
        "comparison_slides",
        "text_to_image",
        "R@10",
        batch_size=32,
        clips_seen=32_000,
        learning_rate=4e-4,
        # Slides of 64 pixels: more than the models see, and half of the time that the default takes to decode.
        noise=TrainingNoise(slides=slides, slide_size=64, chatter=chatter),
        skip=START_PHOTOS,
        start="photographs_2000",
        fields=(("num_captions", chatter + 2), ("video_processor.num_frames", slides)),
    )


def spoken(title: str, noise: TrainingNoise, **fields) -> StudyCorpus:
    """GRID's spoken sentences, sound and text alone."""
    return StudyCorpus(
        title,
        "grid",
        "comparison_grid",
        "text_to_audio",
        "R@1",
        batch_size=64,
        clips_seen=23_040,
        learning_rate=2e-3,
        noise=noise,
        fields=tuple(fields.items()),
    )


PHOTOGRAPHS = StudyCorpus(
    "photographs with their own captions",
    "flickr8k",
    "comparison_plain",
    "text_to_image",
    "R@10",
    batch_size=128,
    clips_seen=96_000,
    learning_rate=1.5e-3,
)
CORPORA = {
    "narrated0": narrated(0.0),
    "narrated50": narrated(0.5),
    "narrated80": narrated(0.8),
    "slides1_chatter0": slide_shows(1, 0),
    "slides4_chatter0": slide_shows(4, 0),
    "slides4_chatter2": slide_shows(4, 2),
    "slides4_chatter4": slide_shows(4, 4),
    "grid": spoken("spoken sentences", CLEAN),
    "grid_joined2_chatter1": spoken(
        "two spoken sentences, one of them and one of others transcribed",
        TrainingNoise(joined=2, chatter=1),
        clip_seconds=6.0,
        num_captions=2,
    ),
    "exercises": StudyCorpus(
        "exercises: two photographs, written steps",
        "exercises",
        "comparison_exercises",
        "text_to_video",
        "R@10",
        batch_size=32,
        clips_seen=16_000,
        learning_rate=4e-4,
        join_captions=True,
        start="photographs",
    ),
    "photographs": PHOTOGRAPHS,
    # Rendered clips and all real ones that have two modalities; of UCF101 the training clips of its first split.
    # Weights are near the numbers of clips.
    "mixed": StudyCorpus(
        "rendered and real clips together",
        "mixed",
        "comparison_mixed",
        "text_to_video",
        "R@10",
        batch_size=64,
        clips_seen=25_600,
        learning_rate=2e-3,
        parts=(
            Part("narrated50", weight=6),
            Part("grid", weight=2),
            Part("exercises", weight=2),
            Part("ucf101", "ucf101", config="split1", weight=1),
            Part("birds", "folder", OwnFiles(columns={"path": "file", "start": ""}), weight=1),
            Part("gmdcsa", "folder", OwnFiles(columns={"path": "file"}), weight=0.1),
        ),
    ),
    # What the runs on slide shows and on exercises are initialised from.
    "photographs_2000": replace(PHOTOGRAPHS, limit=START_PHOTOS),
}


@dataclass(frozen=True)
class Probe:
    """A corpus whose classes a linear classifier learns from frozen features.

    Args:
        title: for tables.
        corpus: folder of the corpus.
        modality: that is classified.
        configs: official splits or folds; None: all.
    """

    title: str
    corpus: str
    modality: str
    configs: tuple[str, ...] | None = None


PROBES = {
    "esc10": Probe("ESC-10, sounds", "esc10", "audio"),
    # Models have seen the training clips of this split without their classes, and no clip that it tests.
    "ucf101": Probe("three actions of UCF101", "ucf101", "video", ("split1",)),
    "grid_digits": Probe("digits spoken in GRID, heard", "grid_digits", "audio"),
    "grid_digits_by_lips": Probe("digits spoken in GRID, read from the lips", "grid_digits", "video"),
}
