import json

import av
import benchmark_scale
import pytest
import torch
import yaml
from helpers import TINY_RUN, run_main, write_video

from fgmm_tools.publishing import clip_cost
from fgmm_tools.publishing.clip_cost import count_operations
from fgmm_tools.publishing.scale import Assumptions, estimate, read_cost
from modeling_fgmm import FgmmModel

NAMES = ("model.projection_dim", "model.video_config", "model.audio_config", "model.text_config", "video_processor")


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The results file of a tiny configuration, with a video of 12 s."""
    monkeypatch.setattr(clip_cost, "VIDEO_SECONDS", 12)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    config = {"model": {}, "output_dir": "unused", "dataset": "unused", "clip_seconds": 4.0}
    for name in (*NAMES, "feature_extractor"):
        parent, _, field = name.rpartition(".")
        (config[parent] if parent else config)[field] = yaml.safe_load(str(TINY_RUN[name]))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    videos = [write_video(tmp_path / f"{index}.mp4", seconds=1, size=(64, 48)) for index in range(2)]
    output = tmp_path / "scale.json"
    arguments = ["--config", tmp_path / "tiny.yaml", "--videos", *videos, "--num_clips", 4, "--output", output]
    run_main(monkeypatch, benchmark_scale, *arguments)
    return output


def test_a_clip_is_measured_and_a_run_estimated(measured):
    record = json.loads(measured.read_text())
    assert record["model"] == "tiny" and "426 x 240" in record["protocol"]
    cost = read_cost(measured)
    assert 0 < cost.core_seconds < 10 and cost.seconds == 4.0
    assert cost.operations > 1e6 and cost.parameters > 20_000 * 32  # with the words that a corpus would have
    assert estimate(cost, Assumptions(), 8).hours > 0


def test_the_video_has_the_length_and_bit_rate_of_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_cost, "VIDEO_SECONDS", 8)
    source = write_video(tmp_path / "a.mp4", seconds=1, still=True)
    path = clip_cost.write_long_video([str(source)], tmp_path / "long.mp4")
    with av.open(str(path)) as container:
        assert float(container.duration / av.time_base) == pytest.approx(8, abs=0.2)
        assert container.streams.video[0].width == 426 and container.streams.audio
    assert path.stat().st_size < 2 * clip_cost.BIT_RATE / 8 * 8


def test_operations_are_those_of_a_clip(config):
    torch.manual_seed(0)
    model = FgmmModel(config)
    inputs = {
        "pixel_values_videos": torch.randn(2, 4, 3, 32, 32),
        "input_features": torch.randn(2, 64, 32),
        "input_features_mask": torch.ones(2, 64, dtype=torch.long),
        "input_ids": torch.randint(2, 10, (2, 6)),
        "phrase_spans": torch.tensor([[0, 2], [2, 4]]).expand(2, -1, -1),
        "phrase_captions": torch.zeros(2, 2, dtype=torch.long),
        "phrase_mask": torch.ones(2, 2, dtype=torch.bool),
    }
    operations, contrast = count_operations(model, inputs)
    twice, same_contrast = count_operations(model, {name: torch.cat([value] * 2) for name, value in inputs.items()})
    assert operations == pytest.approx(twice, rel=0.01) and contrast == same_contrast
    outputs = model.encode_inputs(**inputs)
    video, audio = (outputs[name].regions.shape[1] for name in ("video", "audio"))
    phrases = 3  # two, and their caption as a whole
    assert contrast == 8 * 16 * (phrases * (video + audio) + (audio + 1) * video)
