import draw_grounding
import numpy as np
import torch
from helpers import run_main
from PIL import Image

from fgmm_tools.publishing import grounding_picture
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.streams_fgmm import EvaluationClips


def test_attention_is_drawn(narrated_model, narrated, tmp_path, monkeypatch):
    output = tmp_path / "pictures" / "attention.png"
    options = ["--dataset_config", "default", "--num_clips", 2, "--output", output]
    run_main(monkeypatch, draw_grounding, "--model", narrated_model[0], "--dataset", narrated, *options)
    picture = np.asarray(Image.open(output).convert("RGB")).astype(int)
    assert picture.shape[0] > 300 and picture.std() > 20


def test_attention_over_regions_is_a_distribution(narrated_model, narrated):
    _, model, processor = narrated_model
    clips = EvaluationClips(load_corpus(str(narrated), "test"), processor, with_audio=False)
    _, [item] = next(iter(clips))
    phrases, attention, similarity = grounding_picture.attend(
        model, processor, item.windows[0], "a small red star on a black background"
    )
    assert phrases == ["small red star", "black background"]
    assert torch.allclose(attention.flatten(1).sum(1), torch.ones(2)) and similarity.abs().max() <= 1
