"""What is done with a trained model: compilation, export, ONNX, int8, adapters."""

import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.export import Dim

from modeling_fgmm import FgmmConfig, FgmmModel

ENCODERS = ("video", "audio", "text", "contextual")


class Features(nn.Module):
    """The features of one modality, as a module of tensors alone."""

    def __init__(self, model: FgmmModel, modality: str):
        super().__init__()
        self.model = model
        self.modality = modality

    def forward(self, *inputs):
        outputs = getattr(self.model, f"get_{self.modality}_features")(*inputs)
        return outputs.pooler_output, outputs.phrases if self.modality == "text" else outputs.regions


@pytest.fixture
def make_features():
    """Makes the tiny model's features of one encoder, with inputs for B items; "contextual" is text after attention."""

    def make(encoder: str) -> tuple[Features, callable]:
        torch.manual_seed(0)
        modality = "text" if encoder == "contextual" else encoder
        config = FgmmConfig(
            projection_dim=8,
            video_config={"width_multiplier": 0.01, "depths": [1, 1]},
            audio_config={"num_mel_bins": 16, "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]},
            text_config={"vocab_size": 30, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
            | {"num_hidden_layers": 2 * (encoder == "contextual")},
        )

        def inputs(batch: int) -> tuple[torch.Tensor, ...]:
            generator = torch.Generator().manual_seed(batch)
            if modality == "video":
                return (torch.randn(batch, 4, 3, 32, 32, generator=generator),)
            if modality == "audio":
                return (torch.randn(batch, 32, 16, generator=generator),)
            input_ids = torch.randint(1, 30, (batch, 7), generator=generator)
            attention_mask = torch.ones_like(input_ids)
            attention_mask[0, 5:] = 0
            phrase_spans = torch.tensor([[[0, 2], [3, 5]]]).repeat(batch, 1, 1)
            phrase_spans[1, 1] = 0
            return input_ids, attention_mask, phrase_spans

        return Features(FgmmModel(config), modality).eval(), inputs

    return make


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_compiler_finds_no_graph_break(make_features, encoder):
    features, inputs = make_features(encoder)
    compiled = torch.compile(features, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs(3)), features(*inputs(3)))


def test_a_compiled_model_takes_masks(make_features):
    features, inputs = make_features("video")
    mask = torch.tensor([True, False, True])
    compiled = torch.compile(features, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs(3), mask), features(*inputs(3), mask))


def run_onnx(path, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    named = {node.name: value.numpy() for node, value in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(answer) for answer in session.run(None, named)]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_onnx_and_int8_answer_like_the_exported_program_and_the_model(make_features, encoder, tmp_path):
    features, inputs = make_features(encoder)
    example, others = inputs(2), inputs(5)
    dynamic = tuple({0: Dim.DYNAMIC} for _ in example)
    program = torch.export.export(features, example, dynamic_shapes=(dynamic,))
    with torch.no_grad():
        expected = features(*others)
    torch.testing.assert_close(program.module()(*others), expected)
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "encoder.onnx")
    for answer, value in zip(run_onnx(tmp_path / "encoder.onnx", others), expected, strict=True):
        torch.testing.assert_close(answer, value, atol=1e-5, rtol=1e-4)
    quantize_dynamic(tmp_path / "encoder.onnx", tmp_path / "int8.onnx", op_types_to_quantize=["MatMul", "Gemm"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert "MatMulInteger" in kinds
    embeds, _ = run_onnx(tmp_path / "int8.onnx", others)
    assert torch.cosine_similarity(embeds, expected[0]).min() > 0.99 and not torch.equal(embeds, expected[0])


def test_lora_trains_in_frozen_encoders(make_features):
    (features, pixels), (_, texts) = make_features("video"), make_features("text")
    features.model.config.frozen = ["video", "text"]
    targets = r"encoders\.(text\.linear|video\..*gates\.\d\.linear)"
    adapted = get_peft_model(FgmmModel(features.model.config), LoraConfig(r=2, target_modules=targets)).train()
    trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
    assert all("lora_" in name for name in trained) and any("encoders.video" in name for name in trained)
    assert not any(module.training for module in adapted.base_model.model.encoders["video"].modules())
    words = dict(zip(("input_ids", "attention_mask", "phrase_spans"), texts(4), strict=True))
    adapted(pixel_values_videos=pixels(4)[0], **words, return_loss=True).loss.backward()
    assert all(value.grad is not None for value in trained.values())


def test_lora_trains_saves_and_loads(make_features, tmp_path):
    (video, pixels), (_, texts) = make_features("video"), make_features("text")
    model = video.model
    words = dict(zip(("input_ids", "attention_mask", "phrase_spans"), texts(4), strict=True))
    inputs = {"pixel_values_videos": pixels(4)[0], **words}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = r"encoders\.text\.(word_embedding|linear)"
    targets = text + r"|encoders\.video\..*(branches\.[12]\.1\.spatial_conv|gates\.\d\.linear)"
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets)).eval()
    optimizer = torch.optim.AdamW([value for value in adapted.parameters() if value.requires_grad], lr=0.05)
    losses = []
    for _ in range(8):
        loss = adapted(**inputs, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path)
    again, _ = make_features("video")
    assert all(torch.equal(value, before[name]) for name, value in again.model.state_dict().items())
    loaded = PeftModel.from_pretrained(again.model, tmp_path).eval()
    with torch.no_grad():
        expected = adapted(**inputs).logits_per_text
        assert torch.equal(loaded(**inputs).logits_per_text, expected)
        torch.testing.assert_close(loaded.merge_and_unload()(**inputs).logits_per_text, expected, atol=1e-4, rtol=1e-4)
