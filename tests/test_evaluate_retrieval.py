import json
import subprocess
import sys

import evaluate_retrieval as script
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from show_attention import attend
from train_tokenizer import iterate_captions, train_word_tokenizer

from modeling_fgmm import FgmmConfig, FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.corpora_fgmm import FixedClips, load_corpus


@pytest.fixture(scope="module")
def saved(narrated, tmp_path_factory):
    """A model with random weights beside a processor that knows the corpus' words."""
    from processing_fgmm import FgmmFeatureExtractor, FgmmVideoProcessor

    texts = (text for row in iterate_captions(load_corpus(str(narrated), "train")) for text in row)
    tokenizer = train_word_tokenizer(texts, 500)
    processor = FgmmProcessor(
        FgmmVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        FgmmFeatureExtractor(feature_size=32, hop_length=640),
        tokenizer,
        clip_seconds=5.0,
    )
    torch.manual_seed(0)
    model = FgmmModel(
        FgmmConfig(
            projection_dim=16,
            video_config={"width_multiplier": 0.125, "depths": [1, 1]},
            audio_config={"num_mel_bins": 32, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
            text_config={"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32},
        )
    ).eval()
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, processor


DIRECTIONS = {f"{a}_to_{b}" for a in ("text", "video", "audio") for b in ("text", "video", "audio") if a != b}


def test_results_file(saved, narrated, tmp_path):
    output = tmp_path / "deep" / "results.json"
    command = [sys.executable, "scripts/evaluate_retrieval.py", "--model", str(saved[0]), "--dataset", str(narrated)]
    answer = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    record = json.loads(output.read_text())
    assert set(record) >= {"model", "dataset", "split", "protocol", "metrics", "seed", "training"}
    assert set(record) >= {"command", "commit", "device", "seconds", "date"}
    assert set(record["metrics"]) == DIRECTIONS
    values = record["metrics"]["text_to_video"]
    assert set(values) == {"R@1", "R@5", "R@10", "MedR", "MnR", "num_queries", "num_items"}
    assert (values["num_queries"], values["num_items"]) == (48, 8)
    assert "text_to_video" in answer.stdout and "Traceback" not in answer.stderr


@pytest.mark.parametrize("score", ["fine", "coarse"])
def test_scores_are_those_of_the_model(saved, narrated, score):
    _, model, processor = saved
    corpus = load_corpus(str(narrated), "test")
    results = script.evaluate_retrieval(model, processor, corpus, score=score, num_workers=0)
    texts, pixels, owners = [], [], []
    for index, row in enumerate(corpus):
        inputs = processor(videos=[row["video"]["bytes"]], start=0.0, end=5.0)
        pixels.append(inputs["pixel_values_videos"])
        texts += [caption["text"] for caption in row["captions"]]
        owners += [index] * len(row["captions"])
    with torch.no_grad():
        outputs = model(pixel_values_videos=torch.cat(pixels), **processor(text=texts))
    scores = outputs.logits_per_text if score == "fine" else outputs.text_embeds @ outputs.video_embeds.T
    right = scores[torch.arange(48), torch.tensor(owners)]
    ranks = (scores >= right[:, None] - 1e-6).sum(1).float()
    for k in (1, 5):
        assert results["text_to_video"][f"R@{k}"] == pytest.approx(100 * (ranks <= k).float().mean().item(), abs=4.2)
    assert results["text_to_video"]["MnR"] == pytest.approx(ranks.mean().item(), abs=0.15)


def test_block_and_batch_sizes_change_nothing(saved, narrated, monkeypatch):
    _, model, processor = saved
    corpus = load_corpus(str(narrated), "test")
    first = script.evaluate_retrieval(model, processor, corpus, num_workers=0)
    monkeypatch.setattr(script, "BLOCK_SIZE", 7)
    second = script.evaluate_retrieval(model, processor, corpus, batch_size=3, num_workers=2)
    assert set(first) == set(second) == DIRECTIONS
    for direction in first:
        assert first[direction]["MnR"] == pytest.approx(second[direction]["MnR"], abs=0.1)


def test_wrong_paths_are_one_sentence(saved, narrated, tmp_path):
    for model, dataset, named in (
        (str(tmp_path / "nowhere"), str(narrated), "nowhere"),
        (str(saved[0]), str(tmp_path / "nothing"), "nothing"),
    ):
        command = [sys.executable, "scripts/evaluate_retrieval.py", "--model", model, "--dataset", dataset]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert answer.returncode == 1 and named in answer.stderr and "Traceback" not in answer.stderr


def test_attention_is_drawn(saved, narrated, tmp_path):
    output = tmp_path / "attention.png"
    command = [sys.executable, "scripts/show_attention.py", "--model", str(saved[0]), "--dataset", str(narrated)]
    answer = subprocess.run(
        [*command, "--num_clips", "2", "--output", str(output)], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    picture = np.asarray(Image.open(output).convert("RGB")).astype(int)
    assert picture.shape[0] > 300 and picture.std() > 20


def test_attention_over_regions_is_a_distribution(saved, narrated):
    _, model, processor = saved
    clip = next(clip for _, clip in FixedClips(load_corpus(str(narrated), "test"), processor, with_audio=False))
    phrases, attention, similarity = attend(model, processor, clip, "a small red star on a black background")
    assert phrases == ["small red star", "black background"]
    assert torch.allclose(attention.flatten(1).sum(1), torch.ones(2)) and similarity.abs().max() <= 1
