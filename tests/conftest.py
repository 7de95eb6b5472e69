"""Fixtures that several test files share."""

import csv
import json
import os
import shutil
import wave
from pathlib import Path

import numpy as np
import pretrain
import pytest
import torch
from accelerate import Accelerator
from datasets import ClassLabel

if not torch.cuda.is_available():  # before Triton is imported: its kernels are then interpreted
    os.environ["TRITON_INTERPRET"] = "1"

from helpers import (
    CLASS_NAMES,
    FOLDS,
    ROOT,
    TEXTS,
    encode_sound,
    tiny_config,
    tiny_processor,
    training_arguments,
    write_labelled_corpus,
    write_video,
)
from hub_server import HubServer
from huggingface_hub import constants
from PIL import Image
from tiny_dual_encoders import CONFIGS, save_dual_encoder
from tiny_encoders import save_encoders, train_word_pieces

from fgmm_tools.corpora.narrated import render_corpus
from fgmm_tools.corpora.parquet_shards import corpus_features, write_shard
from fgmm_tools.training.configuration import parse_config
from fgmm_tools.training.tokenizer import iterate_captions, train_word_tokenizer
from modeling_fgmm import FgmmModel
from processing_fgmm.corpora_fgmm import load_corpus


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
def narrated_model(narrated, tmp_path_factory):
    """The folder of a model with random weights and a processor that knows the narrated corpus' words, and both."""
    texts = (text for row in iterate_captions(load_corpus(str(narrated), "train")) for text in row)
    tokenizer = train_word_tokenizer(texts, 500)
    torch.manual_seed(0)
    model, processor = FgmmModel(tiny_config(tokenizer)).eval(), tiny_processor(tokenizer, 640, clip_seconds=5.0)
    folder = tmp_path_factory.mktemp("narrated_model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, processor


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory) -> Path:
    """Four videos: of 12 s with sound, of 12 s without, of 3 s with sound, a damaged one; each with timed captions."""
    folder = tmp_path_factory.mktemp("kitchen")
    rows = []
    for index, (seconds, sound) in enumerate([(12, 12.0), (12, None), (3, 3.0), (3, None)]):
        path = write_video(folder / f"{index}.mp4", seconds=seconds, sound=sound)
        captions = [{"text": TEXTS[place], "start": float(place), "end": place + 1.5} for place in range(index % 2 + 1)]
        data = path.read_bytes() if index < 3 else b"no video"
        rows.append({"video_id": f"video-{index}", "video": {"bytes": data, "path": None}, "captions": captions})
    (folder / "corpus").mkdir()
    write_shard(folder / "corpus" / "test-00000-of-00001.parquet", rows, corpus_features("video"))
    return folder / "corpus"


@pytest.fixture(scope="session")
def sounds(tmp_path_factory) -> Path:
    """Two folds of sounds in three classes of pitch; recordings are named as those of ESC."""
    generator, parts = np.random.default_rng(0), {}
    for part in "abc":
        parts[part] = [
            {
                "video_id": f"{'abc'.index(part) + 1}-{number}-A-{label}",
                "audio": {"bytes": encode_sound((200, 800, 3200)[label], generator.uniform(0.5, 1), generator)},
                "label": label,
            }
            for number, label in enumerate([0, 1, 2] * 5)
        ]
    folder = tmp_path_factory.mktemp("sounds") / "corpus"
    return write_labelled_corpus(folder, parts, FOLDS, label=ClassLabel(names=CLASS_NAMES))


@pytest.fixture(scope="session")
def pretrain_here():
    """Runs scripts/pretrain.py in this process on a tiny model; errors come as they are raised."""

    def run(dataset, output, **fields) -> None:
        pretrain.main(parse_config(training_arguments(dataset, output, **fields)))

    return run


@pytest.fixture(scope="session")
def trained(narrated, pretrain_here, tmp_path_factory):
    """The folder of a run of 24 steps with checkpoints at 8, 16 and 24, and what it logged."""
    folder, logged = tmp_path_factory.mktemp("trained") / "model", []
    log = Accelerator.log
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "log", lambda self, values, step: logged.append(values) or log(self, values, step))
        pretrain_here(narrated, folder, max_steps=24, save_steps=8, save_total_limit=3, eval_steps=12, eval_clips=8)
    return folder, logged


@pytest.fixture(scope="session")
def tokenizer():
    return train_word_tokenizer(TEXTS, 200)


@pytest.fixture(scope="session")
def small_model(tokenizer, tmp_path_factory) -> Path:
    """The folder of a model with random weights whose windows are half a second."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("small_model")
    FgmmModel(tiny_config(tokenizer)).save_pretrained(folder)
    tiny_processor(tokenizer, hop_length=320, clip_seconds=0.5).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def word_tokenizer():
    return train_word_pieces(TEXTS)


@pytest.fixture(scope="session")
def encoders_at(word_tokenizer, tmp_path_factory) -> Path:
    """Saved tiny encoders of transformers, by their names."""
    return save_encoders(tmp_path_factory.mktemp("encoders"), word_tokenizer)


@pytest.fixture(scope="session")
def dual_at(word_tokenizer, tmp_path_factory) -> dict[str, Path]:
    """The folders of saved tiny dual encoders of transformers, by their names."""
    root = tmp_path_factory.mktemp("dual_encoders")
    return {name: save_dual_encoder(name, root / name, word_tokenizer) for name in CONFIGS}


@pytest.fixture
def processor(tokenizer):
    return tiny_processor(tokenizer, hop_length=320, clip_seconds=2.0)


@pytest.fixture
def config(tokenizer):
    return tiny_config(tokenizer)


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
