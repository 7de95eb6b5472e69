import pytest
import torch
from tiny_encoders import PADDED_TEXTS

from modeling_fgmm import FgmmModel, FgmmTextConfig
from modeling_fgmm.text_fgmm import FgmmTextEncoder, complete_phrases, max_over_captions, max_over_spans


def test_phrase_tower_is_that_of_mil_nce():
    encoder = FgmmTextEncoder(FgmmTextConfig(vocab_size=20, hidden_size=8, intermediate_size=12)).eval()
    words = torch.tensor([[3, 7, 9, 1]])
    output = encoder(words, torch.ones_like(words), torch.tensor([[[0, 4]]])).features
    plain = torch.relu(encoder.word_embedding.weight[words] @ encoder.linear.weight.T + encoder.linear.bias).amax(1)
    assert torch.allclose(output[:, 0], plain, atol=1e-6)


def test_maximum_over_spans():
    generator = torch.Generator().manual_seed(0)
    words = torch.rand(2, 9, 3, generator=generator)
    spans = torch.tensor([[[0, 2], [2, 3], [5, 9], [0, 0]], [[1, 8], [0, 0], [0, 0], [8, 9]]])
    pooled = max_over_spans(words, spans)
    for item in range(2):
        for phrase, (first, last) in enumerate(spans[item].tolist()):
            expected = words[item, first:last].amax(0) if last > first else torch.zeros(3)
            assert torch.equal(pooled[item, phrase], expected)


def test_transformer_layers_see_neighbours_but_no_padding():
    config = FgmmTextConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=6,
    )  # fmt: skip
    encoder = FgmmTextEncoder(config).eval()
    span = torch.tensor([[[0, 1]]])
    mask = torch.tensor([[1, 1, 0]])
    one = encoder(torch.tensor([[3, 7, 0]]), mask, span).features
    assert not torch.allclose(one, encoder(torch.tensor([[3, 8, 0]]), mask, span).features)
    assert torch.allclose(one, encoder(torch.tensor([[3, 7, 9]]), mask, span).features)
    with pytest.raises(ValueError, match="max_position_embeddings"):
        encoder(torch.ones(1, 7, dtype=torch.long), torch.ones(1, 7), span)


@pytest.fixture
def contextual(config):
    """Makes the tiny model with two transformer layers in its text encoder, the same for every implementation."""
    config.text_config.num_hidden_layers, config.text_config.num_attention_heads = 2, 2

    def make(attn_implementation: str) -> FgmmModel:
        torch.manual_seed(0)
        return FgmmModel._from_config(config, attn_implementation=attn_implementation).eval()

    return make


@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_attention_implementations_agree(contextual, dtype, tolerance):
    eager = contextual("eager").to(dtype)
    exact = eager.get_text_features(**PADDED_TEXTS, output_attentions=True, output_hidden_states=True)
    assert len(exact.attentions) == 2 and len(exact.hidden_states) == 3
    assert exact.attentions[0].shape == (2, 2, 4, 4) and exact.hidden_states[0].shape == (2, 4, 16)
    assert torch.allclose(exact.attentions[1].float().sum(-1), torch.ones(2, 2, 4), atol=1e-2)
    assert (exact.attentions[0][1, :, :, 2:] == 0).all()
    sdpa = contextual("sdpa").to(dtype)
    fast = sdpa.get_text_features(**PADDED_TEXTS, output_hidden_states=True)
    kept = PADDED_TEXTS["attention_mask"].bool()
    for slow_state, fast_state in zip(exact.hidden_states, fast.hidden_states, strict=True):
        assert torch.allclose(slow_state[kept], fast_state[kept], atol=tolerance)
    assert torch.allclose(exact.pooler_output, fast.pooler_output, atol=tolerance)
    sdpa.set_attn_implementation("eager")
    assert torch.equal(sdpa.get_text_features(**PADDED_TEXTS).pooler_output, exact.pooler_output)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_a_text_of_padding_alone_gives_no_nan(contextual, attn_implementation):
    model = contextual(attn_implementation)
    output = model.get_text_features(torch.tensor([[3, 7], [0, 0]]), torch.tensor([[1, 1], [0, 0]]))
    assert (output.pooler_output[1] == 0).all() and torch.isfinite(output.pooler_output).all()
    output.pooler_output.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.encoders["text"].parameters() if p.grad is not None)


def test_maximum_over_captions_is_that_of_their_phrases():
    phrases = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, True, False], [False] * 4])
    captions = torch.tensor([[0, 2, 0, 0], [0] * 4])
    items, embeds, caption_mask = max_over_captions(phrases, mask, captions, 3)
    assert caption_mask.tolist() == [[True, False, True], [False] * 3]
    assert torch.equal(items[0], phrases[0, :3].amax(0)) and (items[1] == 0).all()
    assert torch.equal(embeds[0, 0], phrases[0, [0, 2]].amax(0)) and torch.equal(embeds[0, 2], phrases[0, 1])
    assert (embeds[~caption_mask] == 0).all()


def test_what_is_not_said_of_phrases_is_filled_in():
    left = torch.tensor([[0, 1, 1], [0, 0, 0]])  # padding on the left; a text without a token
    spans, captions, mask, number = complete_phrases(left, None, None, None)
    assert (spans.tolist(), captions.tolist(), number) == ([[[1, 3]], [[0, 0]]], [[0], [0]], 1)
    assert mask.tolist() == [[True], [False]]
    given = torch.tensor([[[0, 1], [1, 3]], [[0, 2], [2, 2]]])
    spans, captions, mask, number = complete_phrases(left, given, torch.tensor([[0, 2], [0, 7]]), None)
    assert mask.tolist() == [[True, True], [True, False]] and number == 3
    assert captions.tolist() == [[0, 2], [0, 0]] and spans[1].tolist() == [[0, 2], [0, 0]]
    _, _, mask, number = complete_phrases(left, given, torch.tensor([[0, 2], [0, 7]]), torch.zeros(2, 2))
    assert not mask.any() and number == 1
