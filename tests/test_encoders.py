import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_fgmm import FgmmAudioConfig, FgmmConfig, FgmmModel, FgmmTextConfig, FgmmVideoConfig
from modeling_fgmm.audio_fgmm import FgmmAudioEncoder
from modeling_fgmm.layers_fgmm import masked_mean
from modeling_fgmm.scoring_fgmm import Keys
from modeling_fgmm.text_fgmm import FgmmTextEncoder, max_over_spans
from modeling_fgmm.video_fgmm import FgmmVideoEncoder


def video_encoder(**options) -> FgmmVideoEncoder:
    torch.manual_seed(0)
    return FgmmVideoEncoder(FgmmVideoConfig(**{"width_multiplier": 0.125, "depths": [1, 1], **options})).eval()


def randomize_norms(encoder) -> None:
    """Running statistics and scales as after training; fresh ones hide mistakes."""
    for module in encoder.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.3, 0.3)


@pytest.mark.parametrize("space_to_depth", [False, True])
@pytest.mark.parametrize("num_frames", [2, 5, 8])
def test_still_clip_is_answered_like_its_image(space_to_depth, num_frames):
    encoder = video_encoder(space_to_depth=space_to_depth)
    randomize_norms(encoder)
    image = torch.randn(2, 1, 3, 64, 64)
    with torch.no_grad():
        of_image, grid = encoder(image)
        of_clip, clip_grid = encoder(image.expand(-1, num_frames, -1, -1, -1))
    assert grid[1:] == clip_grid[1:]
    still = of_clip.unflatten(1, clip_grid)
    assert torch.allclose(still, of_image.unflatten(1, grid).expand_as(still), atol=1e-4)


def test_zero_padding_in_time_is_selectable():
    replicate, zeros = video_encoder(), video_encoder(temporal_padding="zeros")
    zeros.load_state_dict(replicate.state_dict())
    clip = torch.randn(1, 4, 3, 32, 32)
    assert not torch.allclose(replicate(clip)[0], zeros(clip)[0])


def test_an_image_stands_still_where_padding_in_time_is_zero():
    encoder = video_encoder(temporal_padding="zeros")
    image = torch.randn(2, 1, 3, 32, 32)
    of_image, of_clip = encoder(image), encoder(image.expand(-1, 32, -1, -1, -1))
    assert of_image[1] == of_clip[1] and torch.equal(of_image[0], of_clip[0])
    assert video_encoder(temporal_padding="zeros", frame_by_frame=True)(image)[1][0] == 1


def test_full_width_has_the_published_channels():
    with torch.device("meta"):
        encoder = FgmmVideoEncoder(FgmmVideoConfig())
        features, grid = encoder(torch.zeros(1, 16, 3, 224, 224))
    # S3D's feature map before its head: 1024 channels at 1/32 of the frame (Xie et al., 2018, figure 7).
    assert features.shape == (1, 2 * 7 * 7, 1024) and grid == (2, 7, 7)
    outputs = [block.out_channels for stage in encoder.stages for block in stage]
    assert outputs == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


@pytest.mark.parametrize("depths,side", [([1], 4), ([1, 1], 2), ([1, 1, 1], 1)])
def test_stages_set_the_resolution(depths, side):
    _, grid = video_encoder(depths=depths)(torch.randn(1, 4, 3, 32, 32))
    assert grid[1:] == (side, side)


def test_items_of_a_batch_do_not_see_each_other():
    encoder = video_encoder()
    clips = torch.randn(3, 4, 3, 32, 32)
    assert torch.allclose(encoder(clips)[0][1:2], encoder(clips[1:2])[0], atol=1e-5)


def test_wrong_pixels_are_explained():
    with pytest.raises(ValueError, match="one frame"):
        video_encoder()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="even height"):
        video_encoder(space_to_depth=True)(torch.zeros(1, 4, 3, 33, 32))


def audio_encoder(**options) -> FgmmAudioEncoder:
    torch.manual_seed(0)
    sizes = {"num_mel_bins": 32, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    return FgmmAudioEncoder(FgmmAudioConfig(**sizes | options)).eval()


def everything(features: torch.Tensor) -> torch.Tensor:
    """The mask of sounds without padding."""
    return torch.ones(features.shape[:2], dtype=torch.bool)


def test_audio_grid_is_frequency_by_time():
    encoder = audio_encoder()
    sounds = torch.randn(2, 48, 32)
    features, grid = encoder(sounds, everything(sounds))
    assert features.shape == (2, grid[0] * grid[1], 16) and grid == (32 // 8, 48 // 8)
    # A louder band moves the regions of its own rows only, where fields of view do not reach further.
    quiet, loud = torch.zeros(1, 192, 32), torch.zeros(1, 192, 32)
    loud[:, 160:] = 3.0
    mask = everything(quiet)
    difference = (encoder(quiet, mask)[0] - encoder(loud, mask)[0]).abs().unflatten(1, (4, 24)).amax((0, 1, 3))
    assert (difference[:16] == 0).all() and (difference[21:] > 0).all()


def test_wrong_number_of_bands_is_explained():
    sounds = torch.zeros(1, 10, 31)
    with pytest.raises(ValueError, match="feature extractor"):
        audio_encoder()(sounds, everything(sounds))


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_padded_sound_has_the_features_that_it_has_alone(layer_type, lengths, seed):
    encoder = audio_encoder(layer_type=layer_type, hidden_sizes=[8, 16, 24], depths=[1, 2, 1])
    torch.manual_seed(seed)
    randomize_norms(encoder)
    longest = max(lengths)
    sounds = torch.full((len(lengths), longest, 32), float("nan"))  # in the padding
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    sounds[mask] = torch.randn(int(mask.sum()), 32)
    features, grid = encoder(sounds, mask)
    regions = encoder.region_mask(mask, grid)
    assert (features[~regions] == 0).all()
    for sound, length, of_batch, kept in zip(sounds, lengths, features, regions, strict=True):
        alone = sound[None, :length]
        of_alone, _ = encoder(alone, everything(alone))
        torch.testing.assert_close(of_batch[kept], of_alone[0], rtol=1e-4, atol=1e-4)


def test_a_region_counts_when_its_first_frame_is_sound():
    keep = torch.tensor([[True] * 17 + [False] * 15, [True] * 16 + [False] * 16, [False] * 32])
    assert audio_encoder().region_mask(keep, (2, 4)).tolist() == [
        [True, True, True, False] * 2,
        [True, True, False, False] * 2,
        [False] * 8,
    ]


def test_phrase_tower_is_that_of_mil_nce():
    encoder = FgmmTextEncoder(FgmmTextConfig(vocab_size=20, hidden_size=8, intermediate_size=12)).eval()
    words = torch.tensor([[3, 7, 9, 1]])
    output = encoder(words, torch.ones_like(words), torch.tensor([[[0, 4]]]))
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
    one = encoder(torch.tensor([[3, 7, 0]]), mask, span)
    assert not torch.allclose(one, encoder(torch.tensor([[3, 8, 0]]), mask, span))
    assert torch.allclose(one, encoder(torch.tensor([[3, 7, 9]]), mask, span))
    with pytest.raises(ValueError, match="max_position_embeddings"):
        encoder(torch.ones(1, 7, dtype=torch.long), torch.ones(1, 7), span)


def test_masked_mean():
    features = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, True], [False] * 3])
    assert torch.allclose(masked_mean(features, mask.unsqueeze(-1), 1)[0], features[0, [0, 2]].mean(0))
    assert (masked_mean(features, mask.unsqueeze(-1), 1)[1] == 0).all()


def test_configuration_round_trip(tmp_path):
    config = FgmmConfig(
        modalities=["video", "text"], projection_dim=24, video_config={"width_multiplier": 0.25, "depths": [2]}
    )
    config.save_pretrained(tmp_path)
    loaded = FgmmConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.video_config.depths == [2] and loaded.modalities == ["video", "text"]


@pytest.mark.parametrize(
    "wrong,named",
    [
        ({"modalities": ["video"]}, "modalities"),
        ({"modalities": ["video", "smell"]}, "modalities"),
        ({"projection_dim": "many"}, "projection_dim"),
        ({"video_config": {"depths": [3]}}, "depths"),
        ({"video_config": {"temporal_padding": "mirror"}}, "temporal_padding"),
        ({"video_config": {"width_multiplier": -1.0}}, "width_multiplier"),
        ({"audio_config": {"hidden_sizes": [8]}}, "hidden_sizes"),
        ({"text_config": {"num_hidden_layers": 1, "num_attention_heads": 7}}, "num_attention_heads"),
    ],
)
def test_wrong_configurations_name_the_field(wrong, named):
    with pytest.raises(StrictDataclassError, match=named):
        FgmmConfig(**wrong)


def test_hidden_states_are_the_maps_between_stages(model):
    pixels, sounds = torch.randn(2, 4, 3, 32, 32), torch.randn(2, 48, 32)
    video = model.get_video_features(pixels, output_hidden_states=True)
    assert [tuple(state.shape[2:]) for state in video.hidden_states] == [(2, 8, 8), (2, 4, 4), (1, 2, 2)]
    audio = model.get_audio_features(sounds, output_hidden_states=True)
    assert [tuple(state.shape[1:]) for state in audio.hidden_states] == [(8, 8, 12), (8, 8, 12), (16, 4, 6)]
    for output in (video, audio):
        assert torch.equal(output.hidden_states[-1].flatten(2).transpose(1, 2), output.last_hidden_state)
    outputs = model(pixel_values_videos=pixels, input_features=sounds, output_hidden_states=True)
    assert torch.equal(outputs.video_output.hidden_states[1], video.hidden_states[1])
    outputs.logits_per_audio_video.sum().backward()
    assert model(pixel_values_videos=pixels).video_output.hidden_states is None
    model.config.output_hidden_states = True
    assert len(model(input_features=sounds).audio_output.hidden_states) == 3


@pytest.fixture
def contextual(config):
    """Makes the tiny model with two transformer layers in its text encoder, the same for every implementation."""
    config.text_config.num_hidden_layers, config.text_config.num_attention_heads = 2, 2

    def make(attn_implementation: str) -> FgmmModel:
        torch.manual_seed(0)
        return FgmmModel._from_config(config, attn_implementation=attn_implementation).eval()

    return make


WORDS = {
    "input_ids": torch.tensor([[3, 7, 5, 2], [4, 6, 0, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 0, 0]]),
}


@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_attention_implementations_agree(contextual, dtype, tolerance):
    eager = contextual("eager").to(dtype)
    exact = eager.get_text_features(**WORDS, output_attentions=True, output_hidden_states=True)
    assert len(exact.attentions) == 2 and len(exact.hidden_states) == 3
    assert exact.attentions[0].shape == (2, 2, 4, 4) and exact.hidden_states[0].shape == (2, 4, 16)
    assert torch.allclose(exact.attentions[1].float().sum(-1), torch.ones(2, 2, 4), atol=1e-2)
    assert (exact.attentions[0][1, :, :, 2:] == 0).all()
    sdpa = contextual("sdpa").to(dtype)
    fast = sdpa.get_text_features(**WORDS, output_hidden_states=True)
    kept = WORDS["attention_mask"].bool()
    for slow_state, fast_state in zip(exact.hidden_states, fast.hidden_states, strict=True):
        assert torch.allclose(slow_state[kept], fast_state[kept], atol=tolerance)
    assert torch.allclose(exact.pooler_output, fast.pooler_output, atol=tolerance)
    sdpa.set_attn_implementation("eager")
    assert torch.equal(sdpa.get_text_features(**WORDS).pooler_output, exact.pooler_output)


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_a_text_of_padding_alone_gives_no_nan(contextual, attn_implementation):
    model = contextual(attn_implementation)
    output = model.get_text_features(torch.tensor([[3, 7], [0, 0]]), torch.tensor([[1, 1], [0, 0]]))
    assert (output.pooler_output[1] == 0).all() and torch.isfinite(output.pooler_output).all()
    output.pooler_output.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.encoders["text"].parameters() if p.grad is not None)


def test_new_words_leave_the_old_ones(model):
    before = model.get_text_features(**WORDS).pooler_output
    size = model.config.text_config.vocab_size
    model.resize_token_embeddings(size + 3)
    assert model.config.text_config.vocab_size == size + 3 == model.get_input_embeddings().weight.shape[0]
    assert torch.equal(model.get_text_features(**WORDS).pooler_output, before)
    assert torch.isfinite(model.get_text_features(torch.tensor([[size + 2]])).pooler_output).all()


def test_offloaded_parts_answer_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    inputs = {"pixel_values_videos": torch.randn(2, 4, 3, 32, 32), "input_features": torch.randn(2, 48, 32), **WORDS}
    expected = model(**inputs)
    places = {"encoders.video": "disk", "encoders.audio": "cpu", "encoders.text": "disk", "projections": "cpu"}
    loaded = FgmmModel.from_pretrained(
        tmp_path / "model", device_map={**places, "objectives": "disk"}, offload_folder=tmp_path / "offloaded"
    )
    assert next(loaded.encoders["video"].parameters()).device.type == "meta"
    outputs = loaded(**inputs)
    for name in ("logits_per_text", "logits_per_audio", "logits_per_audio_video"):
        assert torch.allclose(outputs[name], expected[name], atol=1e-5)


def test_sides_follow_their_objective():
    keys = Keys(torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 4))
    assert {value.device.type for value in vars(keys.to("meta")).values()} == {"meta"}
