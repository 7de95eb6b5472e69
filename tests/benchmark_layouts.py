"""What the tests of benchmarks' readers share: reading a source, preparing it, and writing one."""

import prepare_dataset
from benchmarks import BENCHMARKS
from datasets import List


def read(name, source):
    """({configuration: {split: items}}, class names, problems)."""
    problems = []
    reading = BENCHMARKS[name].read(source, problems)
    splits = {
        config: {
            split: [item for group in groups for item in reading.groups[group]] for split, groups in splits.items()
        }
        for config, splits in reading.configs.items()
    }
    label = reading.label.feature if isinstance(reading.label, List) else reading.label
    return splits, label and label.names, problems


def sizes(splits):
    return {split: len(items) for split, items in splits.items()}


def prepare(name, source, output, limit=None):
    rows, noise = prepare_dataset.Rows(limit, 0), prepare_dataset.Noise(None, None, 0, 0.0, 0)
    prepare_dataset.prepare(name, source, output, rows, 1, noise)


def touch(folder, names):
    """Empty files: readers look at names only."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def write_esc50(put):
    """Two sounds a fold, of classes 0 (in ESC-10) and 12; then a sound without a file and one of fold 6."""
    rows = []
    for fold in range(1, 6):
        rows.append([f"{fold}-1-A-0.wav", fold, 0, "dog", "True", 1, "A"])
        rows.append([f"{fold}-2-A-12.wav", fold, 12, "sea_waves", "False", 2, "A"])
    for name, *_ in rows:
        put(f"audio/{name}")
    rows += [["1-9-A-0.wav", 1, 0, "dog", "True", 9, "A"], ["6-1-A-0.wav", 6, 0, "dog", "True", 1, "A"]]
    put("audio/6-1-A-0.wav")
    put("meta/esc50.csv", [["filename", "fold", "target", "category", "esc10", "src_file", "take"], *rows])
