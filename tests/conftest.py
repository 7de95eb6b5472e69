"""Fixtures that several test files share."""

import csv
import json
import os
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():  # before Triton is imported: its kernels are then interpreted
    os.environ["TRITON_INTERPRET"] = "1"

from helpers import ROOT, TEXTS, save_encoders, train_word_pieces, write_video
from hub_server import HubServer
from huggingface_hub import constants
from PIL import Image

from fgmm_tools.corpora.narrated import render_corpus
from fgmm_tools.training.tokenizer import train_word_tokenizer
from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmFeatureExtractor, FgmmProcessor, FgmmVideoProcessor


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
    render_corpus(folder, num_train=32, num_test=8, noise=0.5, seed=0, num_proc=2)
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
