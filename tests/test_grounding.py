from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_sound, write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_encoders import AUDIO, TEXT, VIDEO, make_model

from fgmm_tools import milnce
from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.grounding_fgmm import (
    EXTENT_THRESHOLD,
    NUM_FOREIGN,
    find_extent,
    find_point,
    find_words,
    locate,
    split_span,
    upsample_attention,
)
from modeling_fgmm.loss_fgmm import OBJECTIVES
from modeling_fgmm.outputs_fgmm import as_keys, as_queries
from modeling_fgmm.scoring_fgmm import Keys
from processing_fgmm import FgmmProcessor, FgmmVideoProcessor, processing_fgmm
from processing_fgmm.phrases_fgmm import find_phrases

CAPTION = "A small dog barks, and two eggs"


def plain_extent(attention: torch.Tensor) -> tuple[int, int, int, int]:
    """The extent by walking from cell to neighbouring cell."""
    height, width = attention.shape
    start = divmod(int(attention.argmax()), width)
    found, waiting = {start}, [start]
    while waiting:
        row, column = waiting.pop()
        for place in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
            inside = 0 <= place[0] < height and 0 <= place[1] < width
            if inside and place not in found and attention[place] >= EXTENT_THRESHOLD * attention.max():
                found.add(place)
                waiting.append(place)
    rows, columns = zip(*found, strict=True)
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=st.integers(1, 7), width=st.integers(1, 7), power=st.sampled_from([0, 1, 3]), seed=st.integers(0, 999))
def test_extent_is_what_hangs_together_around_the_largest(height, width, power, seed):
    attention = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) ** power
    assert find_extent(attention) == plain_extent(attention)


def test_attention_is_located_in_the_window_and_the_area():
    attention = torch.full((5, 4, 6), 0.01)
    attention[2:4, 1:3, 4] = 1.0  # third and fourth fifth; second and third quarter down; fifth sixth across
    attention[0, 0, 0] = 1.0  # apart from the others
    box, seconds = locate(attention, (0.2, 0.0, 0.8, 1.0), split_span(10.0, 20.0, 5))
    assert box == pytest.approx((0.6, 0.25, 0.7, 0.75), abs=1 / 32) and seconds == pytest.approx((14.0, 18.0))
    sound = torch.full((3, 10), 0.01)
    sound[1, 4:6], sound[2, 9] = 0.5, 0.3
    assert locate(sound, None, split_span(0.0, 5.0, 10)) == (None, pytest.approx((2.0, 3.0)))
    assert locate(sound, None, split_span(0.0, 5.0, 10), threshold=0.1) == (None, pytest.approx((2.0, 3.0)))
    assert locate(sound, None, split_span(0.0, 5.0, 10), threshold=0.02) == (None, pytest.approx((0.0, 5.0)))
    assert locate(attention, (0.0, 0.0, 1.0, 1.0), None)[1] is None


def test_a_map_points_between_its_cells():
    attention = torch.zeros(4, 4)
    attention[1, 1] = 1.0
    assert find_point(attention, (0.0, 0.0, 1.0, 1.0)) == pytest.approx((0.375, 0.375))
    attention[1, 2] = 1.0  # as much to the right
    assert find_point(attention, (0.0, 0.0, 1.0, 1.0)) == pytest.approx((0.5, 0.375))
    assert find_point(attention, (0.2, 0.0, 0.6, 0.5)) == pytest.approx((0.4, 0.1875))
    attention[0, 0], attention[3, 3] = 0.9, 0.9  # far from the largest only the first of these is
    assert find_point(attention + 5, (0.0, 0.0, 1.0, 1.0))[1] < 0.375
    assert find_point(torch.full((3, 5), 0.2), (0.0, 0.0, 1.0, 1.0)) == pytest.approx((0.1, 1 / 6))


def test_attention_is_upsampled_between_cell_centres():
    attention = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    pixels = upsample_attention(attention, 8, 12)
    assert pixels.shape == (8, 12) and pixels.argmax() == 9 and pixels[0, 9] == 1.0
    assert torch.allclose(pixels.mean(), attention.mean(), atol=1e-6)


def test_words_are_those_of_the_text(processor, word_tokenizer):
    for tokenizer in (processor.tokenizer, word_tokenizer):
        whole = FgmmProcessor(processor.video_processor, processor.feature_extractor, tokenizer)
        spans = whole(text=[CAPTION])["phrase_spans"][0]
        assert find_words(tokenizer, CAPTION, spans) == ["small dog barks", "two eggs"]


@pytest.fixture
def clip(tmp_path):
    """A video wider than high, with sound, whose frames get brighter."""
    return str(write_video(tmp_path / "clip.mp4", seconds=2.0, size=(96, 48), sound=2.0))


@torch.no_grad()
def test_a_video_is_grounded_as_the_objective_says(model, processor, clip):
    found = model.ground(CAPTION, video=clip, start=0.5, end=1.5, processor=processor)
    output = model.get_video_features(**processor(videos=[clip], start=0.5, end=1.5))
    queries = as_queries(model.get_text_features(**processor(text=[CAPTION])))
    objective = model.objectives["text_video"]
    attention = objective.attention(queries, as_keys(output))
    assert [phrase.phrase for phrase in found.phrases] == ["small dog barks", "two eggs"]
    assert found.whole.phrase == CAPTION and found.window == (0.5, 1.5)
    for place, phrase in enumerate([*found.phrases, found.whole]):
        assert phrase.attention.shape == output.grid == (1, 2, 2)
        assert torch.allclose(phrase.attention.flatten(), attention.regions[0, 0, place])
        assert phrase.attention.sum().item() == pytest.approx(1, abs=1e-5) and phrase.seconds == (0.5, 1.5)
        assert phrase.weight == pytest.approx(attention.phrases[0, 0, place].item())
        assert phrase.similarity == pytest.approx(attention.similarity[0, 0, place].item())
    assert found.score == pytest.approx(objective.scores(queries, as_keys(output)).item(), abs=1e-6)
    # 96 x 48 pixels are scaled to 64 x 32, of which the middle 32 are shown.
    assert found.area == (0.25, 0.0, 0.75, 1.0)
    for phrase in found.phrases:
        x_min, y_min, x_max, y_max = phrase.box
        assert 0.25 <= x_min < x_max <= 0.75 and 0 <= y_min < y_max <= 1
        assert 0.25 <= phrase.point[0] <= 0.75 and 0 <= phrase.point[1] <= 1


@torch.no_grad()
def test_a_sound_is_grounded_in_time(model, processor, clip):
    found = model.ground(CAPTION, audio=clip, processor=processor)
    output = model.get_audio_features(**processor(audio=[clip]))
    assert found.area is None and found.window[1] == pytest.approx(2.0, abs=0.1)
    for phrase in found.phrases:
        assert phrase.box is None and phrase.point is None and phrase.attention.shape == output.grid
        assert 0 <= phrase.seconds[0] < phrase.seconds[1] <= found.window[1]


def test_images_and_frames_have_no_times(model, processor):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 56, 3), dtype=np.uint8)
    for video, moments in ((Image.fromarray(pixels[0]), 1), (pixels, 1), (torch.from_numpy(pixels[0]), 1)):
        found = model.ground(CAPTION, video=video, processor=processor)
        assert found.window is None and found.phrases[0].seconds is None and found.phrases[0].box is not None
        assert len(found.phrases[0].attention) == moments
    sound = {"array": np.sin(np.arange(8000)), "sampling_rate": 16000}
    assert model.ground(CAPTION, audio=sound, processor=processor).phrases[0].seconds is None
    assert len(model.ground(CAPTION, video=pixels, num_frames=16, processor=processor).phrases[0].attention) == 4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_grounds(config, processor, clip, objective):
    torch.manual_seed(0)
    model = FgmmModel(FgmmConfig(**{**config.to_dict(), "objective": objective})).eval()
    for modality in ("video", "audio"):
        found = model.ground(CAPTION, **{modality: clip}, processor=processor)
        weights = [phrase.weight for phrase in found.phrases] + [found.whole.weight if found.whole else 0.0]
        assert sum(weights) == pytest.approx(1, abs=1e-5) and -1 <= found.score <= 1
        assert (found.whole is not None) == (objective == "fine")
        for phrase in found.phrases:
            assert torch.isfinite(phrase.attention).all() and np.isfinite(phrase.similarity)
            largest, size = phrase.attention.max().item(), phrase.attention.numel()
            if objective == "filip":
                assert largest == 1.0
            elif objective != "fine":
                assert largest == pytest.approx(1 / size) and phrase.similarity == pytest.approx(found.score, abs=1e-6)
                assert phrase.seconds == pytest.approx(found.window) and phrase.box == pytest.approx(found.area)
            else:
                assert 1 / size < largest < 1


def test_a_caption_of_fixed_length_is_one_phrase(clip):
    """As of converted MIL-NCE weights, whose padding takes part: one phrase, of all words of the text."""
    words = ["crack", "two", "eggs", "into", "a", "bowl"]
    processor = milnce.make_processor(words)
    processor.video_processor.num_frames = 4
    text = {"vocab_size": 7, "hidden_size": 8, "intermediate_size": 8, "pad_token_id": None}
    config = FgmmConfig(
        objective="mil_nce",
        modalities=["video", "text"],
        video_config={"width_multiplier": 0.01, "depths": [1]},
        text_config=text,
    )
    caption = "Crack two eggs, into a bowl"
    found = FgmmModel(config).eval().ground(caption, video=clip, processor=processor)
    [phrase] = found.phrases
    assert (phrase.phrase, phrase.weight) == (caption, 1.0) and phrase.similarity == pytest.approx(found.score)


@pytest.mark.parametrize("name", VIDEO)
def test_encoders_of_transformers_ground_long_videos(processor, clip, name):
    """Those of videos and those of single frames: the maps of both windows are one map in time."""
    model = make_model(video=name, audio=None, text="bert").eval()
    joint = FgmmProcessor.from_encoders(video=VIDEO[name], text=TEXT["bert"], tokenizer=processor.tokenizer)
    short, long = (model.ground(CAPTION, video=clip, processor=joint, num_windows=number) for number in (1, 2))
    times, *sizes = short.attention.shape
    assert long.attention.shape == (2 * times, *sizes) and len(long.steps) == 2 * times
    for phrase in long.phrases:
        assert phrase.attention.sum().item() == pytest.approx(1, abs=1e-4)
        assert 0 <= phrase.box[0] < phrase.box[2] <= 1 and phrase.seconds[0] < phrase.seconds[1] <= long.window[1]


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_dual_encoders_ground_by_the_cosines_of_patches(dual_at, clip, name):
    """Their objectives compare pooled embeddings; their patches are regions of the same space."""
    model, joint = FgmmModel.from_dual_encoder(dual_at[name]), FgmmProcessor.from_dual_encoder(dual_at[name])
    found = model.ground(CAPTION, video=clip, processor=joint)
    assert found.attention.sum().item() == pytest.approx(1, abs=1e-4) and found.cosines.abs().max() <= 1
    assert found.cosines.shape == found.attention.shape and found.cosines.std() > 0


def test_padding_of_encoders_that_take_sounds_of_one_length_is_cut_off(tmp_path, processor):
    model = make_model(video=None, audio="whisper", text="bert").eval()
    joint = FgmmProcessor.from_encoders(audio=AUDIO["whisper"], text=TEXT["bert"], tokenizer=processor.tokenizer)
    sound = str(write_sound(tmp_path / "sound.wav", 0.5))
    found = model.ground(CAPTION, audio=sound, processor=joint)
    assert found.phrases[0].attention.shape == (1, 26)  # of 50 for a second
    assert found.phrases[0].attention.sum().item() == pytest.approx(1, abs=1e-5) and found.window == (0.0, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "either video, image or audio"),
        ({"video": "a.mp4", "audio": "a.mp4"}, "either video, image or audio"),
        ({"text": ["dog"], "video": "a.mp4"}, "one string, not a list"),
        ({"text": " ,", "video": "a.mp4"}, "has no word"),
        ({"text": "qwertz asdf", "video": "a.mp4"}, "knows no word of 'qwertz asdf'"),
        ({"video": "nothing.mp4"}, "nothing.mp4 cannot be decoded"),
        ({"video": "a.mp4", "processor": None}, "was not loaded from"),
    ],
)
def test_bad_calls_are_explained(model, processor, change, message):
    with pytest.raises(ValueError, match=message):
        model.ground(**{"text": "dog", "processor": processor, **change})


def test_a_silent_file_has_nothing_to_ground_in(model, processor, tmp_path):
    with pytest.raises(ValueError, match="no sound"):
        model.ground("dog", audio=str(write_video(tmp_path / "still.mp4")), processor=processor)


def test_modalities_that_are_not_compared_are_refused(config, processor, clip):
    config.modalities = ["audio", "text"]
    with pytest.raises(ValueError, match="does not compare text with video, only text_audio"):
        FgmmModel(config).ground("dog", video=clip, processor=processor)


def test_the_model_keeps_its_mode(model, processor, clip):
    model.train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.ground("dog", video=clip, processor=processor)
    assert model.training and all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(height=st.integers(20, 90), width=st.integers(20, 90), size=st.sampled_from([24, 32]), stretch=st.booleans())
def test_the_cropped_area_is_what_the_crop_keeps(height, width, size, stretch):
    """Frames whose two first channels say where a pixel is."""
    sides = {"height": size, "width": size} if stretch else {"shortest_edge": size}
    processor = FgmmVideoProcessor(size=sides, crop_size={"height": 24, "width": 24})
    frame = torch.zeros(1, 3, height, width)
    frame[:, 0] = (torch.arange(width) + 0.5) / width
    frame[:, 1] = ((torch.arange(height) + 0.5) / height).unsqueeze(-1)
    kept = processor.resize_and_crop((255 * frame).to(torch.uint8))[0] / 255
    x_min, y_min, x_max, y_max = processor.cropped_area(height, width)
    pixel = ((x_max - x_min) / 24, (y_max - y_min) / 24)
    for found, share, step in ((kept[0, 12], (x_min, x_max), pixel[0]), (kept[1, :, 12], (y_min, y_max), pixel[1])):
        assert found[3].item() == pytest.approx(share[0] + 3.5 * step, abs=0.03)
        assert found[20].item() == pytest.approx(share[0] + 20.5 * step, abs=0.03)


def test_windows_are_those_of_files(processor, clip):
    [(start, end)] = processor.list_windows(clip)
    assert start == 0.0 and end == pytest.approx(2.0, abs=0.1)
    assert processor.list_windows(clip, 0.5, 1.0) == [(0.5, 1.0)]
    encoded = {"bytes": Path(clip).read_bytes(), "path": None}
    assert processor.list_windows(encoded, 0.5, 9.0) == [(0.5, end)]
    processor.clip_seconds = 0.5
    assert len(processor.list_windows(clip)) == 4 and processor.list_windows(clip, number=1) == [(0.0, end)]
    assert processor.list_windows(clip, 0.0, 1.2) == [(0.0, pytest.approx(0.6)), (pytest.approx(0.6), 1.2)]
    for item in ("photo.jpg", Image.new("RGB", (4, 4)), np.zeros((3, 4, 4, 3)), {"bytes": None, "path": None}):
        assert processor.list_windows(item) is None


@torch.no_grad()
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("modality", ["video", "audio"])
def test_windows_of_a_long_clip_are_attended_to_together(config, processor, tmp_path, objective, modality):
    """As if the regions of all windows were those of one clip, which is how items of several windows are scored."""
    clip = str(write_video(tmp_path / "long.mp4", seconds=5.3, size=(96, 48), sound=5.3))
    torch.manual_seed(0)
    model = FgmmModel(FgmmConfig(**{**config.to_dict(), "objective": objective})).eval()
    found = model.ground(CAPTION, **{modality: clip}, processor=processor, num_windows=3, batch_size=2)
    times = [(0.0, 1.8), (1.8, 3.6), (3.6, 5.4)]
    windows = processor.list_windows(clip, number=3)
    assert np.allclose(windows, times, atol=0.1)
    name = "videos" if modality == "video" else "audio"
    outputs = [
        getattr(model, f"get_{modality}_features")(**processor(**{name: [clip]}, start=start, end=end))
        for start, end in windows
    ]
    axis = 0 if modality == "video" else 1
    maps = torch.cat([output.regions[0].unflatten(0, output.grid) for output in outputs], dim=axis)
    pooled = torch.nn.functional.normalize(sum(output.pooler_output for output in outputs), dim=-1)
    flat = maps.reshape(1, -1, maps.shape[-1])
    keys = Keys(flat, torch.ones(flat.shape[:2], dtype=torch.bool), pooled)
    queries = as_queries(model.get_text_features(**processor(text=[CAPTION])))
    attention = model.objectives[f"text_{modality}"].attention(queries, keys)
    assert found.phrases[0].attention.shape == maps.shape[:-1] and len(found.steps) == maps.shape[axis]
    assert torch.allclose(found.phrases[1].attention.flatten(), attention.regions[0, 0, 1], atol=1e-6)
    assert [phrase.weight for phrase in found.phrases] == pytest.approx(attention.phrases[0, 0, :2].tolist(), abs=1e-5)
    assert found.window == pytest.approx((windows[0][0], windows[-1][1]))
    assert found.steps[0][0] == 0.0 and all(a[1] == pytest.approx(b[0]) for a, b in pairwise(found.steps))


def test_the_text_as_a_whole_has_a_map(model, processor, clip):
    found = model.ground(CAPTION, video=clip, processor=processor)
    parts = [*found.phrases, found.whole]
    assert torch.allclose(found.attention, sum(part.weight * part.attention for part in parts), atol=1e-6)
    assert torch.allclose(found.cosines, sum(part.weight * part.cosines for part in parts), atol=1e-6)
    assert found.attention.sum().item() == pytest.approx(1, abs=1e-5)
    for part in parts:
        assert part.cosines.abs().max() <= 1 and part.cosines.argmax() == part.attention.argmax()
        assert (part.attention * part.cosines).sum().item() == pytest.approx(part.similarity, abs=1e-5)


@torch.no_grad()
def test_pooled_objectives_have_cosines_of_their_embedding(config, processor, clip):
    model = FgmmModel(FgmmConfig(**{**config.to_dict(), "objective": "mil_nce"})).eval()
    found = model.ground(CAPTION, video=clip, processor=processor)
    text = model.get_text_features(**processor(text=[CAPTION]))
    video = model.get_video_features(**processor(videos=[clip]))
    assert torch.allclose(found.cosines.flatten(), video.regions[0] @ text.pooler_output[0], atol=1e-6)


def test_confidence_is_the_share_of_foreign_texts_that_fit_less_well(model, processor, clip):
    found = model.ground(CAPTION, video=clip, processor=processor)
    texts = processor.make_foreign_texts(CAPTION, NUM_FOREIGN)
    assert len(texts) == NUM_FOREIGN and texts == processor.make_foreign_texts(CAPTION, NUM_FOREIGN)
    words = set(CAPTION.lower().replace(",", "").split())
    for text in texts:
        assert len(find_phrases(text, 4)) == len(find_phrases(CAPTION, 4)) and text.startswith("A ") and ", and" in text
        assert not set(text.lower().replace(",", "").split()) & (words - {"a", "and"})
    scores, similarities = rate_alone(model, processor, clip, texts)
    assert found.confidence == pytest.approx((scores < found.score).float().mean().item())
    for place, phrase in enumerate([*found.phrases, found.whole]):
        lower = (similarities[:, place] < phrase.similarity).float().mean().item()
        assert phrase.confidence == pytest.approx(lower)


@torch.no_grad()
def rate_alone(model, processor, clip, texts) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores (texts,) of texts with a clip, and the similarities (texts, P) of their phrases, each text alone."""
    keys = as_keys(model.get_video_features(**processor(videos=[clip])))
    objective, scores, similarities = model.objectives["text_video"], [], []
    for text in texts:
        queries = as_queries(model.get_text_features(**processor(text=[text])))
        scores.append(objective.scores(queries, keys).item())
        similarities.append(objective.attention(queries, keys).similarity[0, 0])
    return torch.tensor(scores), torch.stack(similarities)


def test_without_words_for_foreign_texts_there_is_no_confidence(model, processor, clip, monkeypatch):
    monkeypatch.setattr(processing_fgmm, "MIN_FOREIGN_WORDS", 1000)
    found = model.ground(CAPTION, video=clip, processor=processor)
    assert found.confidence is None and found.phrases[0].confidence is None


def test_an_image_is_grounded_from_its_bytes(model, processor, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    encoded = (tmp_path / "photo.png").read_bytes()
    found = model.ground(CAPTION, image=encoded, processor=processor)
    same = model.ground(CAPTION, image=Image.fromarray(pixels), processor=processor)
    assert found.window is None and found.steps is None and found.score == same.score
    assert len(found.attention) == 1 and found.area == same.area != (0.0, 0.0, 1.0, 1.0)
