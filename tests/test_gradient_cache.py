import os

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import run_processes

from fgmm_tools.training.gradient_cache import cached_backward, split_batch
from modeling_fgmm import FgmmConfig, FgmmModel

NUMBER = 7


def make_model(dropout=0.0, normalise=False) -> FgmmModel:
    """All three encoders; batch normalisation is fixed unless asked for, as its statistics are those of a chunk."""
    torch.manual_seed(0)
    config = FgmmConfig(
        projection_dim=16,
        sharpness_init_value=8.0,
        video_config={"width_multiplier": 0.125, "depths": [1]},
        audio_config={"num_mel_bins": 32, "embedding_size": 8, "hidden_sizes": [8], "depths": [1]},
        text_config={"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "dropout": dropout},
    )
    model = FgmmModel(config).train()
    if not normalise:
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
    return model


def make_inputs(rows=slice(None), num_phrases=4) -> dict[str, torch.Tensor]:
    """Seven items: the second has no video, the third no sound, the fifth no text."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randint(0, 3, (NUMBER, num_phrases), generator=generator) + 4 * torch.arange(num_phrases)
    phrase_mask = torch.rand(NUMBER, num_phrases, generator=generator) < 0.8
    phrase_mask[:, 0], phrase_mask[4] = True, False
    sound = torch.ones(NUMBER, 40, dtype=torch.long)
    sound[2], sound[3, 25:] = 0, 0
    video_mask = torch.ones(NUMBER, dtype=torch.bool)
    video_mask[1] = False
    inputs = {
        "pixel_values_videos": torch.randn(NUMBER, 2, 3, 32, 32, generator=generator),
        "video_mask": video_mask,
        "input_features": torch.randn(NUMBER, 40, 32, generator=generator),
        "input_features_mask": sound,
        "input_ids": torch.randint(1, 50, (NUMBER, 4 * num_phrases), generator=generator),
        "phrase_spans": torch.stack([first, first + 1], -1),
        "phrase_captions": torch.arange(num_phrases).expand(NUMBER, -1) // 2,
        "phrase_mask": phrase_mask,
    }
    return {name: value[rows] for name, value in inputs.items()}


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in found.values())
    return found


def plain_step(model, inputs):
    loss = model(**inputs, return_loss=True).loss
    loss.backward()
    return loss.detach(), gradients(model)


def assert_same(ours, plain, atol=1e-5):
    assert float(ours[0]) == pytest.approx(float(plain[0]), abs=atol)
    for name, gradient in plain[1].items():
        assert torch.allclose(ours[1][name], gradient, atol=atol * max(1, float(gradient.abs().max()))), name


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 100])
def test_chunks_give_the_loss_and_gradients_of_the_whole(chunk_size):
    model = make_model()
    loss, _ = cached_backward(Accelerator(cpu=True), model, split_batch(make_inputs(), chunk_size))
    assert_same((loss, gradients(model)), plain_step(make_model(), make_inputs()))


def test_batches_that_were_collated_apart_stand_in_one_contrast():
    """What accumulation does: negatives come from all batches, though one has fewer phrases and captions."""
    short = {name: value[:3] for name, value in make_inputs().items()}
    for name in ("phrase_spans", "phrase_captions", "phrase_mask"):
        short[name] = short[name][:, :2]
    whole = make_inputs()
    whole["phrase_mask"][:3, 2:] = False
    model = make_model()
    loss, _ = cached_backward(Accelerator(cpu=True), model, [short, make_inputs(slice(3, None))])
    assert_same((loss, gradients(model)), plain_step(make_model(), whole))


def test_dropout_is_the_same_in_both_passes():
    torch.manual_seed(3)
    model = make_model(dropout=0.5)
    chunks = split_batch(make_inputs(), 7)
    torch.manual_seed(3)
    loss, _ = cached_backward(Accelerator(cpu=True), model, chunks)
    after = torch.rand(1)
    plain = make_model(dropout=0.5)
    torch.manual_seed(3)
    assert_same((loss, gradients(model)), plain_step(plain, make_inputs()))
    assert torch.equal(after, torch.rand(1))  # and what is drawn next is what the plain step would leave


def test_running_statistics_count_each_chunk_once():
    model, plain = make_model(normalise=True), make_model(normalise=True)
    chunks = split_batch(make_inputs(), 3)
    cached_backward(Accelerator(cpu=True), model, chunks)
    with torch.no_grad():
        for chunk in chunks:
            plain.encode_inputs(**chunk)
    buffers = dict(plain.named_buffers())
    compared = [name for name, _ in model.named_buffers() if "running" in name or "num_batches" in name]
    assert compared and all(torch.equal(model.get_buffer(name), buffers[name]) for name in compared)
    assert all(part.track_running_stats for part in model.modules() if isinstance(part, torch.nn.BatchNorm3d))


def test_mixed_precision():
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        model, plain = make_model(), make_model()
        loss, _ = cached_backward(accelerator, model, split_batch(make_inputs(), 3))
        with accelerator.autocast():
            expected = plain(**make_inputs(), return_loss=True).loss
        expected.backward()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert float(loss) == pytest.approx(expected.item(), abs=1e-3)
    assert float(loss) != pytest.approx(float(plain_step(make_model(), make_inputs())[0]), abs=1e-3)  # it is bf16
    for name, gradient in gradients(plain).items():
        assert (gradients(model)[name] - gradient).norm() < 0.02 * gradient.norm(), name


def run_process(rank: int, world: int, port: int, bounds: list[int], folder: str) -> None:
    """Its rows under DistributedDataParallel: in chunks of two, and at once by the plain step."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(make_model())
    inputs = make_inputs(slice(bounds[rank], bounds[rank + 1]))
    steps = []
    for _ in range(2):  # twice: DistributedDataParallel must be ready for a next step
        model.zero_grad()
        loss, _ = cached_backward(accelerator, model, split_batch(inputs, 2))
    steps.append((loss, gradients(accelerator.unwrap_model(model))))
    assert isinstance(model, torch.nn.parallel.DistributedDataParallel)
    model.zero_grad()
    loss = model(**inputs, return_loss=True).loss
    accelerator.backward(loss)
    steps.append((loss.detach(), gradients(accelerator.unwrap_model(model))))
    torch.save(steps, f"{folder}/{rank}.pt")
    accelerator.end_training()


@pytest.mark.parametrize("bounds", [[0, 4, 7], [0, 3, 4, 7]])
def test_several_processes_equal_one_plain_step(tmp_path, bounds):
    parts = run_processes(run_process, bounds, tmp_path)
    expected = plain_step(make_model(), make_inputs())
    for step in range(2):
        loss = sum(part[step][0] for part in parts) / len(parts)
        for part in parts:  # every process has the averaged gradients
            assert_same((loss, part[step][1]), expected)
