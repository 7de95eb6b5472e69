"""What several test files share: small real files, corpora, benchmarks in their layouts, commands in-process."""

import socket
import sys
import wave
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
import torch.multiprocessing as multiprocessing
from datasets import List
from PIL import Image

from fgmm_tools.corpora import preparation
from fgmm_tools.corpora.benchmarks import load_benchmark
from fgmm_tools.corpora.options import RowSelection, TrainingNoise
from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from fgmm_tools.corpora.problems import Problems
from modeling_fgmm import FgmmConfig
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor

ROOT = Path(__file__).parent.parent
TEXTS = [
    "crack two eggs into a bowl",
    "a red ball rolls across the green grass",
    "the small dog barks at a loud car",
    "stir the sauce and add some salt",
]
# Of labelled sounds: words that the tokenizer of TEXTS knows, and which parts of the corpus each split has.
CLASS_NAMES = ["small dog", "loud car", "red ball"]
FOLDS = {"fold1": {"train": ["b", "c"], "test": ["a"]}, "fold2": {"train": ["a", "c"], "test": ["b"]}}
# Of zero-shot classification.
LABELS = ["a small dog", "the green grass", "a bowl"]


def check_label_scores(answer: list[dict], scores: torch.Tensor) -> None:
    """Checks a pipeline's answer, all labels from the highest score down, against the probability of each of LABELS."""
    assert [entry["score"] for entry in answer] == sorted((entry["score"] for entry in answer), reverse=True)
    assert {entry["label"]: round(entry["score"], 4) for entry in answer} == {
        label: round(score, 4) for label, score in zip(LABELS, scores.tolist(), strict=True)
    }


def run_main(monkeypatch, command, *arguments) -> None:
    """Runs a command of scripts/ in this process; errors come as they are raised.

    Args:
        command: its module.
        arguments: of its command line.
    """
    monkeypatch.setattr(sys, "argv", [f"scripts/{command.__name__}.py", *map(str, arguments)])
    command.main(command.parse_arguments())


# A run of fgmm_tools.training that takes a second: 0.03 M parameters, with dropout, batches of 8 clips.
TINY_RUN = {
    "model.projection_dim": 16,
    "model.video_config": "{width_multiplier: 0.125, depths: [1, 1]}",
    "model.audio_config": "{embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1]}",
    "model.text_config": "{hidden_size: 32, intermediate_size: 64, dropout: 0.1}",
    "video_processor": "{num_frames: 4, size: {shortest_edge: 32}, crop_size: {height: 32, width: 32}}",
    "feature_extractor": "{feature_size: 32, hop_length: 640}",
    "clip_seconds": 5.0,
    "max_phrase_words": 4,
    "batch_size": 8,
    "num_workers": 0,
    "warmup_steps": 2,
    "learning_rate": "3e-3",
    "log_steps": 2,
    "eval_steps": 0,
    "save_steps": 0,
}


def training_arguments(dataset, output, **fields) -> list[str]:
    """The command line of scripts/pretrain.py for a tiny run.

    Args:
        dataset: folder of the corpus.
        output: model folder.
        fields: further ones, with dots for entries; None leaves one of TINY_RUN out.
    """
    values = {**TINY_RUN, "dataset": dataset, "output_dir": output, **fields}
    return [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]


def write_corpus(folder: Path, rows: list[dict]) -> Path:
    """Writes a corpus of videos with one shard of training rows."""
    (folder / "data").mkdir(parents=True)
    write_shard(folder / "data" / "train-00000-of-00001.parquet", rows, corpus_features("video"))
    return folder


def write_shards(folder: Path, rows: list[dict], number: int, features=None, group_rows: int = 4) -> Path:
    """Writes a corpus of training rows in a number of shards, with row groups of at most `group_rows`."""
    (folder / "data").mkdir(parents=True)
    features = features or corpus_features("image")
    for shard in range(number):
        table = pa.Table.from_pylist(rows[shard::number], schema=features.arrow_schema)
        path = folder / "data" / f"train-{shard:05d}-of-{number:05d}.parquet"
        parquet.write_table(table, path, row_group_size=group_rows)
    return folder


def write_video(
    path,
    times=None,
    seconds=2.0,
    rate=10,
    size=(64, 48),
    pixel_format="yuv420p",
    codec="libx264",
    sound=None,
    sound_rate=16000,
    still=False,
    options=None,
    container_options=None,
):
    """Writes a file whose frame at time t has the grey value 20 + 40·t, with a sine of `sound` seconds.

    Args:
        times: presentation time of each frame, seconds; None: every 1/rate s for `seconds`.
        size: (width, height), pixels.
        sound: seconds of sound, None for no stream.
        still: the same moving pattern of colours in place of grey.
    """
    times = [index / rate for index in range(max(1, round(seconds * rate)))] if times is None else times
    with av.open(str(path), "w", options=container_options or {}) as container:
        if times:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = *size, pixel_format
            stream.codec_context.time_base = Fraction(1, 1000)
            if pixel_format == "gray":
                stream.codec_context.color_range = av.video.reformatter.ColorRange.JPEG  # what grey frames hold
        if sound:
            audio = container.add_stream("aac", rate=sound_rate, layout="mono")
        for time in times:
            picture = np.full((size[1], size[0], 3), min(255, 20 + 40 * time), dtype=np.uint8)
            if still:
                picture[: size[1] // 2, :, 0], picture[size[1] // 2 :, :, 2] = 250, 250
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if times:
            container.mux(stream.encode(None))
        if sound:
            wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(sound * sound_rate)) / sound_rate)
            frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = sound_rate, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def make_caption(text, start=None, end=None) -> dict:
    """A caption of a corpus; times in seconds, None for one of the whole item."""
    return {"text": text, "start": start, "end": end}


def make_row(folder, index=0) -> dict:
    """A row of a corpus: the file of `write_video` and its sine for 3 s, and a caption for each second."""
    path = write_video(folder / f"{index}.mp4", seconds=3, sound=3.0)
    captions = [make_caption(f"{TEXTS[index % 4]} {second}", second, second + 1.0) for second in range(3)]
    video = {"bytes": path.read_bytes(), "path": path.name}
    return {"video_id": f"clip-{index}", "video": video, "captions": captions}


def brightness_time(frames) -> float:
    """The mean time of frames of `write_video`, s, by their grey value."""
    return (frames.float().mean().item() - 20) / 40


def write_sound(path, seconds=1.0, pitch=440, rate=16000):
    """Writes a WAV file of a sine, mono, 16 bits."""
    sine = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * sine).astype(np.int16).tobytes())
    return path


def encode_sound(pitch: float, seconds: float, generator: np.random.Generator, rate: int = 16000) -> bytes:
    """A WAV file of a sine in noise, of any loudness."""
    sound = np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    sound += 0.1 * generator.standard_normal(len(sound))
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((generator.uniform(0.05, 0.5) * 32767 * sound / 1.5).astype(np.int16).tobytes())
    return buffer.getvalue()


def write_labelled_corpus(folder, parts: dict[str, list[dict]], configs: dict[str, dict[str, list[str]]], **features):
    """Parquet files of rows, and the card that says which of them each split of each configuration has."""
    (folder / "data").mkdir(parents=True)
    medium = next(name for name in ("video", "image", "audio") if name in next(iter(parts.values()))[0])
    schema = corpus_features(medium, **features).arrow_schema
    for part, rows in parts.items():
        rows = [{"captions": [], **row} for row in rows]
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "data" / f"{part}.parquet")
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, names in splits.items():
            lines += [f"  - split: {split}", f"    path: [{', '.join(f'data/{name}.parquet' for name in names)}]"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def tiny_processor(tokenizer, hop_length: int, clip_seconds: float) -> FgmmProcessor:
    """4 frames of 32 pixels, and 32 mel bands every `hop_length` samples."""
    return FgmmProcessor(
        FgmmVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        FgmmFeatureExtractor(feature_size=32, hop_length=hop_length),
        tokenizer,
        clip_seconds=clip_seconds,
    )


def tiny_config(tokenizer) -> FgmmConfig:
    """Our own encoders, for what [`tiny_processor`] makes."""
    return FgmmConfig(
        projection_dim=16,
        video_config={"width_multiplier": 0.125, "depths": [1, 1]},
        audio_config={"num_mel_bins": 32, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        text_config={"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32},
    )


def run_processes(function, bounds: list[int], folder) -> list:
    """Runs `function(rank, world, port, bounds, folder)` in a process for each pair of neighbouring bounds.

    Returns:
        what each of them saved as `folder/RANK.pt`.
    """
    world = len(bounds) - 1
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # One server imports for all tests; it has no thread pool, which would hang in what is forked from it.
    multiprocessing.set_forkserver_preload(["accelerate", "modeling_fgmm", "fgmm_tools.corpora.preparation"])
    arguments = (world, port, bounds, str(folder))
    multiprocessing.start_processes(function, arguments, nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def read_benchmark(name, source):
    """Reads a benchmark: ({configuration: {split: items}}, class names, problems)."""
    problems = Problems()
    reading = load_benchmark(name).read(source, problems)
    splits = {
        config: {
            split: [item for group in groups for item in reading.groups[group]] for split, groups in splits.items()
        }
        for config, splits in reading.configs.items()
    }
    label = reading.label.feature if isinstance(reading.label, List) else reading.label
    return splits, label and label.names, list(map(str, problems))


def split_sizes(splits):
    return {split: len(items) for split, items in splits.items()}


def prepare_benchmark(name, source, output, limit=None, own_files=None, **noise):
    """Writes the corpus of a benchmark, `limit` rows of each group at most, with the noise of these options."""
    selection = RowSelection(limit)
    preparation.prepare(name, source, output, selection, TrainingNoise(**noise), num_proc=1, own_files=own_files)


def write_flickr8k(source, train=8, dev=2, test=2):
    """Flickr8k in its published layout: INDEX.jpg has the grey level 20 * INDEX, and its captions end with INDEX."""
    (source / "Flicker8k_Dataset").mkdir(parents=True)
    (source / "Flickr8k_text").mkdir()
    indices = range(train + dev + test)
    for index in indices:
        Image.fromarray(np.full((40, 50, 3), 20 * index, np.uint8)).save(source / f"Flicker8k_Dataset/{index}.jpg")
    lines = [f"{index}.jpg#{number}\tA grey photo number {index}\n" for index in indices for number in range(5)]
    (source / "Flickr8k_text/Flickr8k.token.txt").write_text("".join(lines))
    parts = {"train": indices[:train], "dev": indices[train : train + dev], "test": indices[train + dev :]}
    for part, chosen in parts.items():
        path = source / f"Flickr8k_text/Flickr_8k.{part}Images.txt"
        path.write_text("".join(f"{index}.jpg\n" for index in chosen))
    return source


def touch(folder, names):
    """Empty files: readers look at names only."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
