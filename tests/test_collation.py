import pytest
import torch
from helpers import TEXTS, tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st

from processing_fgmm import FgmmProcessor, FgmmVideoProcessor
from processing_fgmm.clips_fgmm import Clip, collate
from processing_fgmm.collation_fgmm import collate_part, finish_inputs, join_inputs

CLIPS = st.builds(
    lambda size, seconds, captions: Clip(
        "clip",
        size and torch.randint(0, 255, (size[0], 3, *size[1:]), dtype=torch.uint8),
        seconds and torch.linspace(-0.5, 0.5, int(16000 * seconds)),
        TEXTS[:captions],
    ),
    st.sampled_from([None, (1, 40, 50), (4, 40, 50), (4, 64, 32)]),
    st.sampled_from([None, 0.02, 0.5, 2.0]),
    st.integers(0, 3),
)


@pytest.fixture(scope="module", params=["crop", "patches"])
def processor_of_module(request, tokenizer):
    """One that crops frames, and one whose frames keep their aspect ratio (SigLIP 2 NaFlex)."""
    processor = tiny_processor(tokenizer, hop_length=320, clip_seconds=2.0)
    if request.param == "crop":
        return processor
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    video = FgmmVideoProcessor(num_frames=4, max_num_patches=16, patch_size=8, **sizes)
    return FgmmProcessor(video, processor.feature_extractor, tokenizer, clip_seconds=2.0)


def join(processor, parts, order):
    return finish_inputs(join_inputs(parts, processor, torch.device("cpu"), order), processor)


@settings(max_examples=40, deadline=None)
@given(st.lists(CLIPS, min_size=1, max_size=6), st.booleans(), st.data())
def test_parts_that_are_joined_are_as_if_their_clips_had_been_collated_together(
    processor_of_module, clips, sends_waveforms, data
):
    """Bit for bit, but for log-mel frames that are made of the whole batch."""
    processor, order = processor_of_module, data.draw(st.permutations(range(len(clips))))
    cut = data.draw(st.integers(0, len(clips)))
    parts = [collate_part(processor, part, True, True, sends_waveforms) for part in (clips[:cut], clips[cut:]) if part]
    assert all(part["pixel_values_videos"].dtype == torch.uint8 for part in parts)
    joined, whole = join(processor, parts, order), collate(processor, [clips[index] for index in order])
    assert joined.keys() == whole.keys()
    for name, value in whole.items():
        assert joined[name].dtype == value.dtype and joined[name].shape == value.shape, name
        if sends_waveforms and name == "input_features":
            assert torch.allclose(joined[name], value, atol=1e-5)
        else:
            assert torch.equal(joined[name], value), name


def test_only_the_wanted_modalities_travel(tokenizer):
    processor = tiny_processor(tokenizer, hop_length=320, clip_seconds=2.0)
    clip = Clip("clip", torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(16000), TEXTS[:1])
    for with_video, with_audio in ((True, False), (False, True)):
        part = collate_part(processor, [clip], with_video, with_audio, sends_waveforms=True)
        assert ("pixel_values_videos" in part, "waveforms" in part) == (with_video, with_audio)
        expected = collate(processor, [clip], with_video, with_audio)
        assert join(processor, [part], [0]).keys() == expected.keys()
