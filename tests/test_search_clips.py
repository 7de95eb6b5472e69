import os

import pytest
from helpers import brightness_time, write_sound, write_video
from PIL import Image
from test_search_timelines import moment

from fgmm_tools.search.clips import export_clips, safe_name
from processing_fgmm.media_fgmm import probe_media, read_frames, read_waveform


def of(path, start, end, kind="video"):
    return moment(str(path), start, end, kind)


def test_videos_are_cut_on_time(tmp_path):
    path = write_video(tmp_path / "a b.mp4", seconds=5, sound=5.0, options={"g": "100"})  # one keyframe
    assert export_clips(tmp_path / "clips", [of(path, 1.8, 3.4)]) == []
    (clip,) = (tmp_path / "clips").iterdir()
    assert clip.name == "01-a b-1.8-3.4.mp4"
    info = probe_media(str(clip))
    assert info.duration == pytest.approx(1.6, abs=0.11) and (info.width, info.height) == (64, 48)
    assert info.frame_rate == pytest.approx(10, abs=0.3) and info.audio_rate == 16000
    first, last = read_frames(str(clip), 1, 0.0, 0.1), read_frames(str(clip), 1, 1.5, 1.59)
    assert brightness_time(first) == pytest.approx(1.8, abs=0.15)
    assert brightness_time(last) == pytest.approx(3.3, abs=0.15)
    assert read_waveform(str(clip), 16000).abs().mean() > 0.1


def test_sounds_are_cut_on_time_and_images_are_copied(tmp_path):
    sound = write_sound(tmp_path / "s.wav", seconds=3.0, rate=7350)  # a rate that AAC has not
    Image.new("RGB", (4, 4), (250, 0, 0)).save(tmp_path / "p.png")
    moments = [of(sound, 1.0, 2.5, "audio"), of(tmp_path / "p.png", 0.0, 0.0, "image")]
    assert export_clips(tmp_path / "clips", moments) == []
    assert sorted(os.listdir(tmp_path / "clips")) == ["01-s-1.0-2.5.m4a", "02-p.png"]
    info = probe_media(str(tmp_path / "clips" / "01-s-1.0-2.5.m4a"))
    assert info.duration == pytest.approx(1.5, abs=0.1) and not info.has_video
    assert (tmp_path / "clips" / "02-p.png").read_bytes() == (tmp_path / "p.png").read_bytes()


def test_what_cannot_be_cut_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    problems = export_clips(tmp_path / "clips", [of(tmp_path / "damaged.mp4", 0, 1), of(tmp_path / "gone.mp4", 0, 1)])
    assert len(problems) == 2 and "damaged.mp4 cannot be cut" in problems[0] and "gone.mp4" in problems[1]
    assert os.listdir(tmp_path / "clips") == []


def test_names_that_every_file_system_takes():
    assert safe_name('a/b\\c:d*e?f"g<h>i|j\nk') == "a_b_c_d_e_f_g_h_i_j_k"
    assert safe_name("...") == "clip" and len(safe_name("ü" * 200)) == 60
