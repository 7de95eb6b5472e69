import pytest
import torch
from tiny_encoders import randomize_norms

from modeling_fgmm import FgmmVideoConfig
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


def test_an_image_is_repeated_where_padding_in_time_is_zero():
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


def test_items_of_a_batch_are_independent():
    encoder = video_encoder()
    clips = torch.randn(3, 4, 3, 32, 32)
    assert torch.allclose(encoder(clips)[0][1:2], encoder(clips[1:2])[0], atol=1e-5)


def test_wrong_pixels_are_explained():
    with pytest.raises(ValueError, match="one frame"):
        video_encoder()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="even height"):
        video_encoder(space_to_depth=True)(torch.zeros(1, 4, 3, 33, 32))
