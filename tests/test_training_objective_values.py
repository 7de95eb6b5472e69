import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import normalize

from fgmm_tools.training.objective_values import PairLosses, measure_attention, read_scales
from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.outputs_fgmm import FgmmRegionOutput, FgmmTextOutput

PAIRS = ("text_video", "text_audio", "audio_video")


def make_model(**fields) -> FgmmModel:
    torch.manual_seed(0)
    config = FgmmConfig(
        projection_dim=16,
        video_config={"width_multiplier": 0.125, "depths": [1]},
        audio_config={"num_mel_bins": 32, "embedding_size": 8, "hidden_sizes": [8], "depths": [1]},
        text_config={"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32},
        **fields,
    )
    return FgmmModel(config)


def make_outputs(items=4, has_audio=True) -> dict:
    """Encoded items: 5 video and 3 audio regions, 6 phrases of 2 captions; of the first item some are padding."""
    generator = torch.Generator().manual_seed(1)

    def vectors(*shape):
        return normalize(torch.randn(*shape, 16, generator=generator), dim=-1)

    masks = {n: torch.ones(items, n, dtype=torch.bool) for n in (2, 3, 5, 6)}
    masks[5][0, 3:] = masks[6][0, 1] = False
    if not has_audio:
        masks[3][:] = False
    return {
        "video": FgmmRegionOutput(regions=vectors(items, 5), region_mask=masks[5], pooler_output=vectors(items)),
        "audio": FgmmRegionOutput(regions=vectors(items, 3), region_mask=masks[3], pooler_output=vectors(items)),
        "text": FgmmTextOutput(
            phrases=vectors(items, 6),
            phrase_mask=masks[6],
            phrase_captions=torch.tensor([0, 0, 0, 1, 1, 1]).expand(items, -1),
            caption_embeds=vectors(items, 2),
            caption_mask=masks[2],
            pooler_output=vectors(items),
        ),
    }


def test_losses_of_pairs_are_those_of_the_training_steps():
    model, accelerator = make_model(), Accelerator(cpu=True)
    losses = PairLosses(model)
    first, second = model.contrast(make_outputs()), model.contrast(make_outputs(items=3))
    with torch.no_grad():
        model.contrast(make_outputs(items=2))  # a measurement
    report = losses.report(accelerator)
    assert list(report) == [f"loss/{pair}" for pair in PAIRS]
    assert sum(report.values()) / 3 == pytest.approx((first + second).item() / 2, rel=1e-5)
    assert losses.report(accelerator) == {}


def test_steps_without_the_pair_or_without_a_number_do_not_count():
    model, accelerator = make_model(), Accelerator(cpu=True)
    losses = PairLosses(model)
    model.contrast(make_outputs(has_audio=False))
    assert list(losses.report(accelerator)) == ["loss/text_video"]
    model.contrast(make_outputs())
    expected = losses.report(accelerator)
    model.contrast(make_outputs())
    broken = make_outputs()
    broken["video"].regions[0, 0] = math.nan
    model.contrast(broken)
    model.contrast(make_outputs(has_audio=False))
    assert losses.report(accelerator) == pytest.approx(expected)


def test_scales_are_those_of_the_objectives():
    model = make_model(sharpness_init_value=5.0, phrase_sharpness_init_value=0.5)
    values = read_scales(model)
    assert len(values) == 3 * 4
    assert values["sharpness/text_video"] == pytest.approx(5.0)
    assert values["phrase_sharpness/audio_video"] == pytest.approx(0.5)
    assert values["logit_scale/text_audio"] == pytest.approx(math.exp(model.config.logit_scale_init_value))
    assert set(read_scales(make_model(objective="filip"))) == {f"logit_scale/{pair}" for pair in PAIRS}


def test_entropy_goes_from_one_region_to_all_alike():
    accelerator, outputs = Accelerator(cpu=True), make_outputs()
    even, sharp, middle = (
        measure_attention(accelerator, make_model(sharpness_init_value=gamma), outputs) for gamma in (1e-6, 1e4, 6.0)
    )
    for pair in PAIRS:
        name = f"attention_entropy/{pair}"
        assert even[name] == pytest.approx(1.0) and sharp[name] == pytest.approx(0.0, abs=0.01)
        assert 0.01 < middle[name] < 0.99
    assert measure_attention(accelerator, make_model(objective="coarse"), outputs) == {}
    assert measure_attention(accelerator, make_model(objective="filip"), outputs)["attention_entropy/text_video"] == 0.0
    assert "attention_entropy/text_audio" not in measure_attention(
        accelerator, make_model(), make_outputs(has_audio=False)
    )


def test_attention_equals_plain_loops():
    outputs, model = make_outputs(), make_model(sharpness_init_value=6.0)
    objective, text, video = model.objectives["text_video"], outputs["text"], outputs["video"]
    objective.phrase_gate.data = torch.linspace(-1, 1, 16)
    objective.whole_gate.data = torch.linspace(1, -1, 16)
    entropies, gates, wholes = [], [], []
    for item in range(4):
        regions = video.regions[item][video.region_mask[item]]
        for caption in range(2):
            own = text.phrase_mask[item] & (text.phrase_captions[item] == caption)
            phrases = [*text.phrases[item][own], text.caption_embeds[item, caption]]
            for phrase in phrases:
                attention = (6.0 * regions @ phrase).softmax(0)
                entropies.append(-(attention * attention.log()).sum() / math.log(len(regions)))
            logits = [10 * phrase @ objective.phrase_gate for phrase in phrases[:-1]]
            gates += logits
            logits.append(10 * phrases[-1] @ objective.whole_gate - 1.5)
            wholes.append(torch.stack(logits).softmax(0)[-1])
    values = measure_attention(Accelerator(cpu=True), model, outputs)
    assert values["attention_entropy/text_video"] == pytest.approx(torch.stack(entropies).mean().item(), rel=1e-4)
    assert values["whole_caption_weight/text_video"] == pytest.approx(torch.stack(wholes).mean().item(), rel=1e-4)
    assert values["gate_spread/text_video"] == pytest.approx(torch.stack(gates).std(correction=0).item(), rel=1e-3)


def test_sums_are_over_all_processes():
    """Two processes with the same items have the mean of one."""
    twice = SimpleNamespace(reduce=lambda tensor, kind: 2 * tensor if kind == "sum" else tensor)
    model, outputs = make_model(), make_outputs()
    assert measure_attention(twice, model, outputs) == pytest.approx(
        measure_attention(Accelerator(cpu=True), model, outputs)
    )
