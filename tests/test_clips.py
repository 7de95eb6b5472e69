import io
import shutil

import numpy as np
import pytest
import torch
from helpers import brightness_time, make_caption, make_row, write_sound, write_video
from media_files import BY_NAME, damage, whole_file
from PIL import Image

from processing_fgmm import containers_fgmm
from processing_fgmm.clips_fgmm import (
    Clip,
    candidate_captions,
    collate,
    drop_video,
    evenly_spaced_windows,
    fetch_media,
    open_row,
    random_window,
    read_clip,
    row_duration,
)
from processing_fgmm.media_fgmm import MediaError


def make_image(value=120) -> dict:
    """An undecoded grey JPEG file."""
    file = io.BytesIO()
    Image.fromarray(np.full((48, 64, 3), value, np.uint8)).save(file, "JPEG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """3 s of video with a sine of 440 Hz."""
    return make_row(tmp_path_factory.mktemp("row"))


def peak_frequency(waveform, rate=16000) -> float:
    """Hz."""
    return float(np.abs(np.fft.rfft(waveform.numpy())).argmax()) * rate / len(waveform)


def test_a_clip_is_the_window_of_its_row(row, processor):
    clip = read_clip(row, processor, 1.0, 2.0, with_audio=True)
    assert (clip.video_id, clip.captions) == ("clip-0", [])
    assert clip.frames.shape[:2] == (4, 3) and clip.frames.dtype == torch.uint8
    assert brightness_time(clip.frames) == pytest.approx(1.5, abs=0.1)
    assert clip.waveform.shape == (16000,) and peak_frequency(clip.waveform) == pytest.approx(440, abs=2)
    assert read_clip(row, processor, 1.0, None, with_audio=True).waveform.shape == (32000,)
    assert read_clip(row, processor, 1.0, 2.0, with_audio=False).waveform is None


def test_audio_comes_from_its_own_column_first(row, processor, tmp_path):
    sound = {"bytes": write_sound(tmp_path / "a.wav", 1.0, pitch=1000).read_bytes(), "path": None}
    both = {**row, "audio": sound}
    assert peak_frequency(read_clip(both, processor, 0.0, 1.0, True).waveform) == pytest.approx(1000, abs=2)
    assert row_duration(both) == pytest.approx(3.0, abs=0.1)
    for heard, pitch, duration in ((drop_video(both), 1000, 1.0), (drop_video(row), 440, 3.0)):
        clip = read_clip(heard, processor, 0.0, 1.0, True)
        assert clip.frames is None and peak_frequency(clip.waveform) == pytest.approx(pitch, abs=2)
        assert row_duration(heard) == pytest.approx(duration, abs=0.1)


def test_files_are_read_from_their_paths_where_there_are_no_bytes(processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", seconds=1.0)
    row = {"video_id": "a", "video": {"bytes": None, "path": str(path)}}
    assert row_duration(row) == pytest.approx(1.0, abs=0.1)
    assert len(read_clip(row, processor, 0.0, 1.0, True).frames) == 4


def count_openings(monkeypatch) -> list:
    """A list to which each opening of a container adds."""
    opened, really_open = [], containers_fgmm.av.open
    monkeypatch.setattr(containers_fgmm.av, "open", lambda *args, **kw: opened.append(args) or really_open(*args, **kw))
    return opened


def test_a_row_is_opened_once_for_duration_frames_and_sound(row, processor, monkeypatch):
    expected = [read_clip(row, processor, *window, True) for window in ((0.0, 3.0), (1.0, 2.0))]
    opened = count_openings(monkeypatch)
    with open_row(row) as once:
        assert row_duration(once) == pytest.approx(3.0, abs=0.1)
        for window, clip in zip(((0.0, 3.0), (1.0, 2.0)), expected, strict=True):
            again = read_clip(once, processor, *window, True)
            assert torch.equal(again.frames, clip.frames) and torch.equal(again.waveform, clip.waveform)
        with open_row(drop_video(once)) as heard:
            assert torch.equal(read_clip(heard, processor, 1.0, 2.0, True).waveform, expected[1].waveform)
        assert row_duration(once) > 0  # the inner block left it open
    assert len(opened) == 1
    read_clip(row, processor, 1.0, 2.0, True)
    assert len(opened) == 2


def test_damage_in_the_window_of_a_clip_is_told(row, processor):
    kind = BY_NAME["mp4-h264-aac"]
    row["video"] = {"bytes": damage(kind, "audio", 3.05), "path": None}
    with open_row(row) as once:
        clips = [read_clip(once, processor, start, start + 1.0, True) for start in (1.0, 2.5, 4.5)]
    assert [bool(clip.damage) for clip in clips] == [False, True, False]
    assert "clip-0: its audio is damaged at 3.0" in clips[1].damage
    assert read_clip(row, processor, 2.5, 3.5, with_audio=False).damage is None
    row["video"]["bytes"] = damage(kind, "audio", 3.05, 0.2)
    assert "more places." in read_clip(row, processor, 2.5, 3.5, True).damage
    row["audio"] = {"bytes": whole_file(kind), "path": None}
    assert read_clip(row, processor, 2.5, 3.5, True).damage is None


def test_an_image_is_a_clip_of_one_frame(processor):
    row = {"video_id": "still", "image": make_image()}
    clip = read_clip(row, processor, 0.0, None, True)
    assert row_duration(row) == 0.0 and clip.waveform is None
    assert clip.frames.shape == (1, 3, 48, 64) and (clip.frames.float() - 120).abs().max() < 3


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({"video": {"bytes": b"no video", "path": None}}, "broken cannot be decoded at 0 s to 1 s"),
        (
            {"image": {"bytes": b"no image", "path": None}},
            r"^broken is not an image of a format that Pillow can read\.$",
        ),
        ({"image": {"bytes": None, "path": "/no/image.png"}}, "broken is not an image that can be read: No such file"),
        ({"audio": {"bytes": b"no audio", "path": None}}, "broken cannot be decoded at 0 s to 1 s"),
        ({"video": None}, "broken has no video, image or audio to decode"),
    ],
)
def test_what_cannot_be_decoded_is_named_by_its_row(processor, media, message):
    with pytest.raises(MediaError, match=message):
        read_clip({"video_id": "broken", **media}, processor, 0.0, 1.0, True)


def test_a_sound_is_no_clip_where_sound_is_not_decoded(processor, media):
    row = {"video_id": "beep", "audio": {"bytes": media[".wav"].read_bytes(), "path": None}}
    assert read_clip(row, processor, 0.0, 0.5, True).waveform is not None
    with pytest.raises(MediaError, match="beep has no video or image to decode"):
        read_clip(row, processor, 0.0, 0.5, False)


def test_inputs_of_clips_mask_what_is_missing(row, processor):
    clip = read_clip(row, processor, 0.0, 1.0, True)
    clip.captions = ["two eggs", "a bowl"]
    image = Clip("still", torch.full((1, 3, 32, 32), 120, dtype=torch.uint8), None)
    inputs = collate(processor, [clip, image, Clip("silent", None, clip.waveform, ["stir"])])
    assert inputs["pixel_values_videos"].shape == (3, 4, 3, 32, 32)
    assert inputs["video_mask"].tolist() == [True, True, False]
    assert inputs["input_features_mask"].any(1).tolist() == [True, False, True]
    assert inputs["caption_lengths"].count_nonzero(1).tolist() == [2, 0, 1]
    assert collate(processor, [image])["pixel_values_videos"].shape[1] == 1
    names = {"with_video": "pixel_values_videos", "with_audio": "input_features", "with_text": "input_ids"}
    for only, name in names.items():
        inputs = collate(processor, [clip], **{flag: flag == only for flag in names})
        assert [other for other in names.values() if other in inputs] == [name]


def test_training_does_not_name_unknown_words_in_every_batch(processor, caplog):
    collate(processor, [Clip("a", None, torch.zeros(100), ["qwertz asdf"])], with_video=False)
    assert not caplog.messages


def test_nearest_captions_are_candidates():
    captions = [make_caption(str(second), second, second + 1) for second in range(10)]
    nearest = candidate_captions(captions, 4.0, 6.0, 3, np.random.default_rng(0))
    assert set(nearest[:2]) == {"4", "5"} and len(nearest) == 3 and nearest[2] in ("3", "6")
    assert len(candidate_captions(captions[:2], 4.0, 6.0, 3, np.random.default_rng(0))) == 2
    assert candidate_captions([], 0.0, 1.0, 3, np.random.default_rng(0)) == []


def test_captions_of_the_whole_item_are_drawn():
    captions = [make_caption(str(index)) for index in range(5)]
    drawn = {candidate_captions(captions, 0.0, 1.0, 1, np.random.default_rng(seed))[0] for seed in range(60)}
    assert drawn == {"0", "1", "2", "3", "4"}


def test_windows():
    assert evenly_spaced_windows(0.0, 10.0, 4.0, 1) == [(3.0, 7.0)]
    assert evenly_spaced_windows(0.0, 2.0, 4.0, 1) == [(0.0, 2.0)]
    assert evenly_spaced_windows(5.0, 15.0, 4.0, 3) == [(5.0, 9.0), (8.0, 12.0), (11.0, 15.0)]
    assert evenly_spaced_windows(5.0, 8.0, 4.0, 3) == [(5.0, 8.0)]
    windows = [random_window(10.0, 4.0, np.random.default_rng(seed)) for seed in range(50)]
    assert all(0 <= start <= 6 and end == start + 4 for start, end in windows)
    assert min(windows)[0] < 1 and max(windows)[0] > 5
    assert random_window(3.0, 4.0, np.random.default_rng(0)) == (0.0, 3.0)


def test_files_in_archives_are_fetched(tmp_path, media):
    shutil.copy(media[".mp4"], tmp_path / "clip.mp4")
    archive = shutil.make_archive(str(tmp_path / "clips"), "zip", tmp_path, "clip.mp4")
    row = {"video_id": "a", "label": 3, "video": {"bytes": None, "path": f"zip://clip.mp4::{archive}"}, "image": None}
    assert fetch_media(row) == {**row, "video": {"bytes": media[".mp4"].read_bytes(), "path": None}}
    row["video"]["path"] = f"zip://none.mp4::{archive}"
    with pytest.raises(MediaError, match="a cannot be read from zip://none"):
        fetch_media(row)
    local = {"video_id": "a", "video": {"bytes": None, "path": "clip.mp4"}}
    assert fetch_media(local) == local
