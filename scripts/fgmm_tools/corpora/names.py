"""The names of the benchmarks that are read, by what they are for; light, for `--help`."""

RETRIEVAL = (
    *("msrvtt", "youcook2", "msvd", "didemo", "didemo_moments", "flickr8k", "flickr30k", "coco", "audiocaps", "clotho"),
    "grid",
)
CLASSIFICATION = ("ucf101", "hmdb51", "kinetics", "esc10", "esc50", "audioset", "speech_commands")
PRETRAINING = ("howto100m", "folder")
