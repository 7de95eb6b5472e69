"""What one training clip of a configuration costs: core seconds to decode and prepare it, floating-point operations."""

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from modeling_fgmm import FgmmModel
from modeling_fgmm.outputs_fgmm import iterate_pairs
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.clips_fgmm import collate, read_clip

from ..training.configuration import PretrainConfig
from ..training.setup import load_tokenizer, make_model, make_part
from ..training.tokenizer import train_word_tokenizer

# Of the file that stands for a video of HowTo100M: seconds, frames/s, pixels, bits/s of the whole, and captions.
VIDEO_SECONDS, RATE, SIZE, BIT_RATE = 390, 25, (426, 240), 12e12 / 1.22e6 / 390 * 8
CAPTIONS = ("now crack two large eggs into the bowl", "and stir the sauce until it thickens", "add a pinch of salt")
SOUND_RATE, SOUND_BIT_RATE = 44100, 64_000


def measure_clip(config: PretrainConfig, sources: list[str], num_clips: int) -> dict[str, float]:
    """The metrics of the results file, see [`ClipCost`].

    Args:
        config: of the training.
        sources: files of video, from whose pictures the measured video is made.
        num_clips: windows that are decoded.
    """
    tokenizer = load_tokenizer(config.tokenizer) if config.tokenizer else train_word_tokenizer(CAPTIONS, 100)
    processor = FgmmProcessor(
        make_part(FgmmVideoProcessor, config.video_processor, None),
        make_part(FgmmFeatureExtractor, config.feature_extractor, None),
        tokenizer,
        max_phrase_words=config.max_phrase_words or 4,
        clip_seconds=config.clip_seconds or 10.0,
    )
    model = make_model(config, processor)
    with TemporaryDirectory() as folder:
        video = write_long_video(sources, Path(folder) / "video.mp4")
        row = {"video_id": "video", "video": {"bytes": video.read_bytes(), "path": None}}
    core_seconds, inputs = measure_decoding(row, processor, model.config.modalities, config.num_captions, num_clips)
    operations, contrast_operations = count_operations(model, inputs)
    more_words = 0 if config.tokenizer else config.vocab_size - len(tokenizer)
    return {
        "core_seconds": core_seconds,
        "operations": operations,
        "contrast_operations": contrast_operations,
        "parameters": model.num_parameters() + more_words * model.get_input_embeddings().embedding_dim,
        "seconds": processor.clip_seconds,
        "video_bytes": len(row["video"]["bytes"]),
    }


def describe_video() -> str:
    """The measured video, for the results file."""
    return f"a file of {VIDEO_SECONDS} s, {SIZE[0]} x {SIZE[1]} pixels and {BIT_RATE / 1000:.0f} kbit/s"


def write_long_video(sources: list[str], path: Path) -> Path:
    """Writes a video of the length, size and bit rate of those in HowTo100M, with sound, from pictures of others."""
    frames, width, height = read_pictures(sources), *SIZE
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.bit_rate = round(BIT_RATE - SOUND_BIT_RATE)
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        sound.bit_rate = SOUND_BIT_RATE
        waves = np.random.default_rng(0).standard_normal((1, SOUND_RATE)).astype(np.float32) / 10
        for second in tqdm(range(VIDEO_SECONDS), desc="Writing the video", unit="s", leave=False):
            for index in range(RATE):
                frame = next(frames).reformat(width, height, "yuv420p")
                frame.pts, frame.time_base = second * RATE + index, Fraction(1, RATE)
                container.mux(video.encode(frame))
            block = av.AudioFrame.from_ndarray(waves, format="fltp", layout="mono")
            block.sample_rate, block.pts = SOUND_RATE, second * SOUND_RATE
            container.mux(sound.encode(block))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    return path


def read_pictures(sources: list[str]) -> Iterator[av.VideoFrame]:
    """The frames of the files one after the other, again and again."""
    for source in cycle(sources):
        with av.open(source) as container:
            yield from container.decode(video=0)


def measure_decoding(
    row: dict, processor: FgmmProcessor, modalities: list[str], num_captions: int, num_clips: int
) -> tuple[float, dict[str, torch.Tensor]]:
    """Core seconds to decode a window and make its model inputs, as a worker of training does; inputs of two clips."""
    starts = np.random.default_rng(0).uniform(0, VIDEO_SECONDS - processor.clip_seconds, num_clips)
    with_audio, clips, started = "audio" in modalities, [], core_seconds_of_process()
    for start in tqdm(starts, desc="Decoding", unit="clip", leave=False):
        clip = read_clip(row, processor, start, start + processor.clip_seconds, with_audio)
        clip.captions = list(CAPTIONS[:num_captions])
        clips = [*clips[-1:], clip]
        collate(processor, [clip], with_audio=with_audio)
    seconds = (core_seconds_of_process() - started) / num_clips
    return seconds, collate(processor, clips, with_audio=with_audio)


def core_seconds_of_process() -> float:
    """Core seconds that all threads of this process have used."""
    times = os.times()
    return times.user + times.system


def count_operations(model: FgmmModel, inputs: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Operations of a clip, forward and backward: of the encoders, and of the scores with each other clip.

    The scores are those of phrases with regions, four matrix products with those of the backward pass (see
    scoring_benchmark); those of pooled embeddings are small beside them.

    Args:
        inputs: of two clips.
    """
    model.train()
    with FlopCounterMode(display=False) as counter:
        outputs = model.encode_inputs(**inputs)
        sum(output[1].sum() + output[2].sum() for output in outputs.values()).backward()  # pooled; regions, phrases
    contrast = 0
    for pair, queries, keys in iterate_pairs(outputs):
        compared = model.get_objective(*pair).compared_queries(queries)
        contrast += 4 * 2 * compared.phrases[0].numel() * keys.regions.shape[1]
    return counter.get_total_flops() / len(next(iter(outputs.values())).pooler_output), float(contrast)
