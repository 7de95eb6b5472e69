"""Stitched videos: every clip is found again where the list of queries says that it is."""

import itertools

import numpy as np
import pytest
from helpers import read_benchmark, write_video

from fgmm_tools.cli import UserError
from fgmm_tools.corpora.benchmarks.qvhighlights import read_queries
from fgmm_tools.corpora.narrated_media import FRAME_RATE, SAMPLING_RATE, SIDE, encode
from fgmm_tools.corpora.problems import Problems
from fgmm_tools.retrieval.moments_stitching import (
    StitchedClip,
    read_benchmark_clips,
    read_narrated_clips,
    stitch_videos,
)
from processing_fgmm.media_fgmm import probe_media, read_frames, read_waveform

# Grey level and seconds of each clip; the last one alone sounds.
LEVELS = [(40, 2.0), (120, 3.0), (160, 4.0), (40, 3.0), (220, 2.0)]


@pytest.fixture(scope="module")
def clips():
    """A clip of each of LEVELS, whose text is its level."""
    result = []
    for level, seconds in LEVELS:
        frames = [np.full((SIDE, SIDE, 3), level, np.uint8)] * round(seconds * FRAME_RATE)
        time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
        sound = (0.5 * np.sin(2 * np.pi * 440 * time) * (level == 220)).astype(np.float32)
        result.append(StitchedClip("dark" if level == 40 else "bright", encode(frames, sound), (str(level),)))
    return result


def test_clips_are_where_the_list_says(clips, tmp_path):
    number = stitch_videos(tmp_path, clips, clips_a_video=5, seed=0)
    queries = read_queries(tmp_path, "validation", Problems())
    assert number == len(queries) == 4  # two clips have the same text
    assert {query.query_id.split("-")[0] for query in queries if query.text == "40"} == {"dark"}
    path = tmp_path / "videos" / "stitched-000.mp4"
    windows = sorted(window for query in queries for window in query.windows)
    assert windows[0][0] == 0.0 and probe_media(path).duration == pytest.approx(windows[-1][1], abs=0.1)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(windows))
    assert 0.6 * 14 - 0.5 < windows[-1][1] < 14  # parts of the clips are shown
    for query in queries:
        assert len(query.windows) == (2 if query.text == "40" else 1)
        for start, end in query.windows:
            frames = read_frames(path, 8, start, end).float().mean((1, 2, 3))
            assert (frames - int(query.text)).abs().max() < 8  # also just after its start, just before its end
            loudness = read_waveform(path, SAMPLING_RATE, start + 0.2, end - 0.2).abs().mean()
            assert (loudness > 0.1) == (query.text == "220")


def test_clips_are_shared_out_and_drawn_by_the_seed(clips, tmp_path):
    lists = []
    for place, seed in enumerate([3, 3, 4]):
        stitch_videos(tmp_path / str(place), clips, clips_a_video=2, seed=seed)
        lists.append((tmp_path / str(place) / "highlight_val_release.jsonl").read_text())
    assert lists[0] == lists[1] != lists[2]
    files = [sorted(path.name for path in (tmp_path / place / "videos").iterdir()) for place in "01"]
    assert files[0] == files[1] == [f"stitched-{number:03d}.mp4" for number in range(3)]
    assert all(
        (tmp_path / "0" / "videos" / name).read_bytes() == (tmp_path / "1" / "videos" / name).read_bytes()
        for name in files[0]
    )


def test_other_shapes_and_silent_files(tmp_path):
    path = write_video(tmp_path / "wide.mp4", seconds=2, size=(128, 64))
    assert stitch_videos(tmp_path / "out", [StitchedClip("wide", path, ("a", "b"))], 5, seed=0) == 1
    info = probe_media(tmp_path / "out" / "videos" / "stitched-000.mp4")
    assert (info.height, info.width, info.has_audio) == (SIDE, SIDE, True)


def test_nothing_to_stitch_is_refused(tmp_path):
    with pytest.raises(UserError, match="no clip to stitch"):
        stitch_videos(tmp_path, [], 5, seed=0)


def test_clips_of_a_narrated_corpus(narrated):
    clips = read_narrated_clips(str(narrated), "test")
    assert len(clips) == 8 and all(isinstance(clip.source, bytes) for clip in clips)
    assert 0 < sum(len(clip.texts) for clip in clips) < 8 * 12  # captions of other clips are left out


def test_clips_of_benchmarks(real_data):
    actions = read_benchmark_clips("ucf101", real_data / "ucf101", "test")
    assert {clip.texts for clip in actions} == {("baby crawling",), ("punch",), ("push ups",)}
    spoken = read_benchmark_clips("grid", real_data / "grid", "test")
    assert len(spoken) == 200 and all(len(clip.texts) == 1 for clip in spoken)


def test_the_reader_of_qvhighlights_makes_a_corpus_of_them(clips, tmp_path):
    stitch_videos(tmp_path, clips, clips_a_video=5, seed=0)
    splits, _, problems = read_benchmark("qvhighlights", tmp_path)
    assert not problems and len(splits["default"]["validation"][0].captions) == 5
