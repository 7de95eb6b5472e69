import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoders import randomize_norms

from modeling_fgmm import FgmmAudioConfig
from modeling_fgmm.audio_fgmm import FgmmAudioEncoder


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
    output = encoder(sounds, everything(sounds))
    assert output.features.shape == (2, 4 * 6, 16) and output.grid == (32 // 8, 48 // 8)
    # A louder band moves the regions of its own rows only, where fields of view do not reach further.
    quiet, loud = torch.zeros(1, 192, 32), torch.zeros(1, 192, 32)
    loud[:, 160:] = 3.0
    mask = everything(quiet)
    difference = (encoder(quiet, mask).features - encoder(loud, mask).features).abs().unflatten(1, (4, 24))
    difference = difference.amax((0, 1, 3))
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
    output = encoder(sounds, mask)
    features, regions = output.features, encoder.region_mask(mask, output.grid)
    assert (features[~regions] == 0).all()
    for sound, length, of_batch, kept in zip(sounds, lengths, features, regions, strict=True):
        alone = sound[None, :length]
        of_alone = encoder(alone, everything(alone)).features
        torch.testing.assert_close(of_batch[kept], of_alone[0], rtol=1e-4, atol=1e-4)


def test_a_region_counts_when_its_first_frame_is_sound():
    keep = torch.tensor([[True] * 17 + [False] * 15, [True] * 16 + [False] * 16, [False] * 32])
    assert audio_encoder().region_mask(keep, (2, 4)).tolist() == [
        [True, True, True, False] * 2,
        [True, True, False, False] * 2,
        [False] * 8,
    ]
