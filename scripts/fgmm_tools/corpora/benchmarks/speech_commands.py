"""Speech Commands: single words of about a second."""

from pathlib import Path

from datasets import ClassLabel

from ...cli import UserError
from ..problems import Problems
from .layout import AUDIO, Benchmark, Item, MediaFolder, Reading, one_config, read_lines, require

LAYOUT = "Speech Commands is published as a folder of sounds a word, validation_list.txt and testing_list.txt"
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


def read(source: Path, problems: Problems) -> Reading:
    """WORD/*.wav; files that are in neither list are for training. Folders such as _background_noise_ are no words."""
    split_of = {line: split for split, name in LISTS.items() for line in read_lines(require(source / name, LAYOUT))}
    words = sorted(folder.name for folder in source.iterdir() if folder.is_dir() and folder.name[0] not in "_.")
    if not words:
        raise UserError(f"{source} has no folder of a word; {LAYOUT}.")
    splits: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
    for label, word in enumerate(words):
        for name, path in MediaFolder(source / word, AUDIO).paths.items():
            split = split_of.pop(f"{word}/{name}.wav", "train")
            splits[split].append(Item(f"{word}/{name}", path, label=label))
    for file, split in split_of.items():
        word = file.partition("/")[0]
        reason = "not there" if word in words else "of a word without a folder"
        problems.add(file, f"of {LISTS[split]} is {reason}")
    return one_config(splits, ClassLabel(names=words))


SPEECH_COMMANDS = Benchmark(
    "speech_commands",
    "Speech Commands",
    "audio",
    read,
    "105,829 recordings of 35 words (version 2; Warden, 2018) in the published split. CC BY 4.0.",
    "cc-by-4.0",
    redistributable=True,
)
