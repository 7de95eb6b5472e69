import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import write_sound, write_video
from hypothesis import given
from hypothesis import settings as cases
from hypothesis import strategies as st
from PIL import Image

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.problems import Problems
from fgmm_tools.embedding.settings import EmbeddingSettings
from fgmm_tools.embedding.tables import from_table, to_table, window_features
from fgmm_tools.embedding.windows import WindowEncoder, cut_windows, deal_captions
from processing_fgmm.corpora_fgmm import load_corpus


@cases(deadline=None)
@given(st.floats(0.05, 200), st.floats(0.5, 30))
def test_windows_cover_a_file_from_end_to_end(duration, seconds):
    windows = cut_windows(duration, seconds, None)
    assert windows[0][0] <= 0.1 * seconds and windows[-1][1] >= duration - 0.1 * seconds
    for (_, end), (start, _) in pairwise(windows):
        assert start <= end + 0.1 * seconds
    assert all(end - start == pytest.approx(min(seconds, duration)) for start, end in windows)
    assert len(windows) <= math.ceil(duration / seconds)


@pytest.mark.parametrize("number", [1, 3])
def test_a_number_of_windows_is_that_of_evaluation(number):
    assert cut_windows(12.0, 5.0, number) == ([(3.5, 8.5)] if number == 1 else [(0.0, 5.0), (3.5, 8.5), (7.0, 12.0)])
    assert cut_windows(4.0, 5.0, number) == [(0.0, 4.0)]


@cases(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0.1, 9)) | st.none(), max_size=8), st.integers(1, 6))
def test_each_caption_is_with_its_nearest_window(spans, number):
    times = [(5.0 * place, 5.0 * place + 5.0) for place in range(number)]
    captions = [
        {"text": str(place), "start": span and span[0], "end": span and span[0] + span[1]}
        for place, span in enumerate(spans)
    ]
    dealt = deal_captions(captions, times)
    assert sorted(caption["text"] for own in dealt for caption in own) == sorted(map(str, range(len(spans))))
    for (start, end), own in zip(times, dealt, strict=True):
        for caption in own:
            if caption["start"] is None:
                assert start == 0.0
                continue
            middle = (caption["start"] + caption["end"]) / 2
            distances = [abs((first + last) / 2 - middle) for first, last in times]
            assert abs((start + end) / 2 - middle) == min(distances)


def encode_kitchen(narrated_model, kitchen, **settings):
    _, model, processor = narrated_model
    problems = Problems()
    encoder = WindowEncoder(model, processor, EmbeddingSettings(**settings))
    return list(encoder.encode_rows(load_corpus(str(kitchen), "test"), problems)), problems


def test_windows_of_a_corpus_are_those_of_the_model_alone(narrated_model, kitchen):
    _, model, processor = narrated_model
    windows, problems = encode_kitchen(narrated_model, kitchen, num_regions=1000, batch_size=3, with_features=True)
    ids = [window.video_id for window in windows]
    assert ids == ["video-0"] * 3 + ["video-1"] * 3 + ["video-2"]
    assert [(window.start, window.end) for window in windows[:3]] == [(0.0, 5.0), (3.5, 8.5), (7.0, 12.0)]
    assert [problem.path for problem in problems] == ["video-3"]
    assert "cannot be decoded" in next(iter(problems)).reason
    rows = {row["video_id"]: row for row in load_corpus(str(kitchen), "test")}
    for window in windows:
        data = rows[window.video_id]["video"]["bytes"]
        inputs = processor(videos=[data], audio=[data], start=window.start, end=window.end)
        with torch.no_grad():
            outputs = model.encode_inputs(**inputs)
        assert (window.audio is None) == (window.video_id == "video-1")
        for name, output in outputs.items():
            kept = getattr(window, name)
            if kept is None:
                continue
            mask = output.region_mask[0]
            assert np.allclose(kept.embeds, output.pooler_output[0].numpy(), atol=1e-5)
            assert np.allclose(kept.regions, output.regions[0][mask].numpy(), atol=1e-3)
            assert np.allclose(kept.features, output.last_hidden_state[0][mask].mean(0).numpy(), atol=1e-4)
    captions = [caption for window in windows if window.video_id == "video-1" for caption in window.captions]
    assert captions == rows["video-1"]["captions"]


def test_regions_are_pooled_to_at_most_their_number(narrated_model, kitchen):
    every, _ = encode_kitchen(narrated_model, kitchen, num_regions=1000)
    for precision in ("float16", "int8"):
        windows, _ = encode_kitchen(narrated_model, kitchen, num_regions=2, precision=precision)
        for window, whole in zip(windows, every, strict=True):
            for name in ("video", "audio"):
                kept, full = getattr(window, name), getattr(whole, name)
                if kept is None:
                    assert full is None
                    continue
                assert kept.regions.dtype == precision and len(kept.regions) == min(2, len(full.regions))
                assert np.allclose(np.linalg.norm(kept.regions * kept.scale, axis=1), 1, atol=0.02)
                assert np.array_equal(kept.embeds, full.embeds)
    none, _ = encode_kitchen(narrated_model, kitchen, num_regions=0)
    assert all(window.video.regions is None for window in none)


def test_files_of_each_kind(narrated_model, tmp_path):
    _, model, processor = narrated_model
    write_video(tmp_path / "clip.mp4", seconds=12, sound=12.0)
    write_sound(tmp_path / "sound.wav", seconds=6.0)
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    encoder, problems = pickle.loads(pickle.dumps(WindowEncoder(model, processor))), Problems()
    caption = {"text": "stir", "start": 9.0, "end": 11.0}

    def encode(name, kind, as_bytes=False):
        source = (tmp_path / name).read_bytes() if as_bytes else str(tmp_path / name)
        captions = [caption] if kind == "video" else []
        return list(encoder.encode_file(source, kind, name, problems, captions))

    clip, sound, photo = encode("clip.mp4", "video"), encode("sound.wav", "audio"), encode("photo.jpg", "image")
    assert [len(windows) for windows in (clip, sound, photo)] == [3, 2, 1] and not len(problems)
    assert [window.captions for window in clip] == [[], [], [caption]]
    assert all(window.video and window.audio for window in clip)
    assert all(window.audio and not window.video for window in sound)
    assert photo[0].video and not photo[0].audio and photo[0].is_image and photo[0].start is photo[0].end is None
    again = encode("clip.mp4", "video", as_bytes=True)
    assert all(np.array_equal(a.video.embeds, b.video.embeds) for a, b in zip(clip, again, strict=True))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert encode("broken.mp4", "video") == []
    [problem] = problems
    assert problem.path == "broken.mp4" and problem.reason.startswith("cannot be decoded at")


def test_damaged_weights_are_named(narrated_model, kitchen):
    _, model, processor = narrated_model
    damaged = pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        damaged.projections["video"].weight.fill_(math.nan)
    encoder = WindowEncoder(damaged, processor)
    with pytest.raises(UserError, match="'video-0' is not a number: the model's weights are damaged"):
        list(encoder.encode_rows(load_corpus(str(kitchen), "test"), Problems()))


@pytest.mark.parametrize("settings", [{}, {"precision": "int8", "with_features": True}, {"num_regions": 0}])
def test_tables_give_windows_back(narrated_model, kitchen, settings):
    windows, _ = encode_kitchen(narrated_model, kitchen, **settings)
    model = narrated_model[1]
    features = window_features(model.config.modalities, 16, EmbeddingSettings(**settings))
    table = to_table(windows, features)
    assert table.schema.equals(features.arrow_schema) and to_table([], features).num_rows == 0
    for window, same in zip(windows, from_table(table), strict=True):
        for name in ("video_id", "start", "end", "captions", "is_image", "label"):
            assert getattr(window, name) == getattr(same, name)
        for name in ("video", "audio"):
            kept, read = getattr(window, name), getattr(same, name)
            if kept is None:
                assert read is None
                continue
            assert read.scale == pytest.approx(kept.scale)
            for part in ("embeds", "regions", "features"):
                one, other = getattr(kept, part), getattr(read, part)
                assert (one is None and other is None) or (np.array_equal(one, other) and one.dtype == other.dtype)
