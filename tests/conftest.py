"""Small real files, a tiny processor and a tiny model that several test files share."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

if not torch.cuda.is_available():  # before Triton is imported: its kernels are then interpreted
    os.environ["TRITON_INTERPRET"] = "1"

from hub_server import HubServer
from huggingface_hub import constants
from PIL import Image
from tiny_encoders import save_encoders, train_word_pieces
from train_tokenizer import train_word_tokenizer

from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor

ROOT = Path(__file__).parent.parent
TEXTS = [
    "crack two eggs into a bowl",
    "a red ball rolls across the green grass",
    "the small dog barks at a loud car",
    "stir the sauce and add some salt",
]


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


def write_sound(path, seconds=1.0, pitch=440, rate=16000):
    """Writes a WAV file of a sine, mono, 16 bits."""
    sine = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32767 * sine).astype(np.int16).tobytes())
    return path


def run_processes(function, bounds: list[int], folder) -> list:
    """Runs `function(rank, world, port, bounds, folder)` in a process for each pair of neighbouring bounds.

    Returns:
        what each of them saved as `folder/RANK.pt`.
    """
    world = len(bounds) - 1
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(function, (world, port, bounds, str(folder)), nprocs=world)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


@pytest.fixture
def real_data() -> Path:
    """The folder of real benchmarks; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("FGMM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.exists():
        pytest.skip(f"no real data in {folder}; FGMM_DATA names its folder")
    return folder


@pytest.fixture(scope="session")
def narrated(tmp_path_factory) -> Path:
    """A rendered narrated corpus of 32 training and 8 test clips."""
    folder = tmp_path_factory.mktemp("narrated") / "corpus"
    command = [sys.executable, "scripts/make_narrated_corpus.py", "--output", str(folder)]
    subprocess.run([*command, "--num_train", "32", "--num_test", "8"], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return train_word_tokenizer(TEXTS, 200)


@pytest.fixture(scope="session")
def word_tokenizer():
    return train_word_pieces(TEXTS)


@pytest.fixture(scope="session")
def encoders_at(word_tokenizer, tmp_path_factory) -> Path:
    """Saved tiny encoders of transformers, by their names."""
    return save_encoders(tmp_path_factory.mktemp("encoders"), word_tokenizer)


@pytest.fixture
def processor(tokenizer):
    return FgmmProcessor(
        FgmmVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        FgmmFeatureExtractor(feature_size=32, hop_length=320),
        tokenizer,
        clip_seconds=2.0,
    )


@pytest.fixture
def config(tokenizer):
    return FgmmConfig(
        projection_dim=16,
        video_config={"width_multiplier": 0.125, "depths": [1, 1]},
        audio_config={"num_mel_bins": 32, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        text_config={"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32},
    )


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return FgmmModel(config).eval()


@pytest.fixture
def hub_server(monkeypatch, tmp_path):
    """A server that this process' client talks to, as somebody who may write to `org`."""
    with HubServer(tokens={"hf_owner": {"org"}, "hf_other": {"other"}}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setenv("HF_TOKEN", "hf_owner")
        yield server


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A real file of each kind, by ending."""
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "clip.mp4", seconds=0.5)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "photo.jpg")
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    return {".mp4": folder / "clip.mp4", ".jpg": folder / "photo.jpg", ".wav": folder / "sound.wav"}


@pytest.fixture
def put(tmp_path, media):
    """Writes a file of the source: text as it is, rows as CSV, other data as JSON, and media of its ending."""

    def write(name, content=None):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            shutil.copy(media[path.suffix], path)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif path.suffix == ".csv":
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(content)
        else:
            path.write_text(json.dumps(content))

    return write
