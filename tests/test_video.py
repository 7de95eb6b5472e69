import pytest
import torch
from tiny_encoders import randomize_norms

from modeling_fgmm import FgmmModel, FgmmVideoConfig
from modeling_fgmm.video_fgmm import FgmmVideoEncoder


def video_encoder(**options) -> FgmmVideoEncoder:
    torch.manual_seed(0)
    return FgmmVideoEncoder(FgmmVideoConfig(**{"width_multiplier": 0.125, "depths": [1, 1], **options})).eval()


@pytest.mark.parametrize("space_to_depth", [False, True])
@pytest.mark.parametrize("num_frames", [2, 5, 8])
def test_a_static_clip_has_the_features_of_its_image(space_to_depth, num_frames):
    encoder = video_encoder(space_to_depth=space_to_depth)
    randomize_norms(encoder)
    image = torch.randn(2, 1, 3, 64, 64)
    with torch.no_grad():
        of_image = encoder(image)
        of_clip = encoder(image.expand(-1, num_frames, -1, -1, -1))
    assert of_image.grid[1:] == of_clip.grid[1:]
    still = of_clip.features.unflatten(1, of_clip.grid)
    assert torch.allclose(still, of_image.features.unflatten(1, of_image.grid).expand_as(still), atol=1e-4)


def test_zero_padding_in_time_is_selectable():
    replicate, zeros = video_encoder(), video_encoder(temporal_padding="zeros")
    zeros.load_state_dict(replicate.state_dict())
    clip = torch.randn(1, 4, 3, 32, 32)
    assert not torch.allclose(replicate(clip).features, zeros(clip).features)


def test_an_image_is_repeated_where_padding_in_time_is_zero():
    encoder = video_encoder(temporal_padding="zeros")
    image = torch.randn(2, 1, 3, 32, 32)
    of_image, of_clip = encoder(image), encoder(image.expand(-1, 32, -1, -1, -1))
    assert of_image.grid == of_clip.grid and torch.equal(of_image.features, of_clip.features)
    assert video_encoder(temporal_padding="zeros", frame_by_frame=True)(image).grid[0] == 1


@pytest.mark.parametrize("frames", [4, 8, 32, 48])
def test_an_image_beside_clips_of_any_length_has_the_features_that_it_has_alone(frames):
    """Where padding in time is zero; the item's embedding is the mean over the regions of the mask."""
    encoder = video_encoder(temporal_padding="zeros").eval()
    clip, image = torch.randn(1, frames, 3, 32, 32), torch.randn(1, 1, 3, 32, 32)
    with torch.no_grad():
        alone = [encoder(clip), encoder(image)]
        together = encoder(torch.cat([clip, image.expand(-1, frames, -1, -1, -1)]), output_hidden_states=True)
    assert together.grid[0] == max(part.grid[0] for part in alone)
    mask = torch.ones(together.features.shape[:2], dtype=torch.bool) if together.mask is None else together.mask
    assert (together.mask is None) == (alone[0].grid == alone[1].grid)
    for row, part in enumerate(alone):
        assert torch.allclose(together.features[row, mask[row]], part.features[0], atol=1e-5)
        assert (together.features[row, ~mask[row]] == 0).all()
    assert all(len(states) == 2 for states in together.hidden_states)
    only = encoder(image.expand(2, frames, -1, -1, -1))
    assert only.mask is None and torch.allclose(only.features[:1], alone[1].features, atol=1e-5)


def test_full_width_has_the_published_channels():
    with torch.device("meta"):
        encoder = FgmmVideoEncoder(FgmmVideoConfig())
        output = encoder(torch.zeros(1, 16, 3, 224, 224))
    # S3D's feature map before its head: 1024 channels at 1/32 of the frame (Xie et al., 2018, figure 7).
    assert output.features.shape == (1, 2 * 7 * 7, 1024) and output.grid == (2, 7, 7)
    outputs = [block.out_channels for stage in encoder.stages for block in stage]
    assert outputs == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


@pytest.mark.parametrize("depths,side", [([1], 4), ([1, 1], 2), ([1, 1, 1], 1)])
def test_stages_set_the_resolution(depths, side):
    output = video_encoder(depths=depths)(torch.randn(1, 4, 3, 32, 32))
    assert output.grid[1:] == (side, side)


def test_items_of_a_batch_are_independent():
    encoder = video_encoder()
    clips = torch.randn(3, 4, 3, 32, 32)
    assert torch.allclose(encoder(clips).features[1:2], encoder(clips[1:2]).features, atol=1e-5)


def test_wrong_pixels_are_explained():
    with pytest.raises(ValueError, match="one frame"):
        video_encoder()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="even height"):
        video_encoder(space_to_depth=True)(torch.zeros(1, 4, 3, 33, 32))


def test_embeddings_and_scores_of_images_are_the_same_beside_clips(config):
    config.video_config.temporal_padding = "zeros"
    model = FgmmModel(config).eval()
    clip, image = torch.randn(1, 8, 3, 32, 32), torch.randn(1, 1, 3, 32, 32)
    videos = torch.cat([image.expand(-1, 8, -1, -1, -1), torch.zeros_like(clip), clip])
    texts = {"input_ids": torch.tensor([[3, 4, 5]])}
    with torch.no_grad():
        together = model(pixel_values_videos=videos, video_mask=torch.tensor([True, False, True]), **texts)
        alone = [model(pixel_values_videos=part, **texts) for part in (image, clip)]
    for row, part in zip((0, 2), alone, strict=True):
        assert torch.allclose(together.video_embeds[row], part.video_embeds[0], atol=1e-5)
        assert torch.allclose(together.logits_per_video[row], part.logits_per_video[0], atol=1e-4)
    assert (together.video_embeds[1] == 0).all()
