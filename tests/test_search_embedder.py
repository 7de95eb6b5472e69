import os
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import write_sound, write_video
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fgmm_tools.embedding.settings import EmbeddingSettings
from fgmm_tools.models import load_model
from fgmm_tools.search.embedder import CHUNK_WINDOWS, Cut, DecodedFiles, Embedder
from fgmm_tools.search.files import find_media
from processing_fgmm.clips_fgmm import read_cropped_clip


@given(st.floats(0.05, 500), st.integers(1, 8))
def test_windows_cover_a_file(duration, stride):
    cut = Cut(5.0, 8, stride)
    windows = cut.windows(duration)
    assert windows[0][0] == 0.0 and abs(windows[-1][1] - duration) <= 0.5 + 1e-6
    for (start, end), (later, _) in pairwise(windows):
        assert start < later <= end + 1e-9 and later - start <= cut.stride + 1e-9
    if len(windows) > 1:
        assert all(end - start == pytest.approx(5.0) for start, end in windows)


def test_strides_are_whole_frames(small_model):
    processor = load_model(str(small_model))[1]
    assert [Cut.of(processor, 2.0, stride).stride_frames for stride in (0.01, 0.3, 0.5, 1.0)] == [1, 1, 2, 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "a.mp4", seconds=11.3, sound=11.3)
    write_video(folder / "b.mp4", seconds=0.4)
    write_sound(folder / "c.wav", seconds=1.3)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(folder / "d.png")
    (folder / "e.mp4").write_bytes(b"no video")
    damaged = bytearray((folder / "a.mp4").read_bytes())
    damaged[len(damaged) // 2 :] = b""
    (folder / "f.mp4").write_bytes(bytes(damaged))
    return folder


def test_windows_decoded_in_one_go_are_those_decoded_one_by_one(folder, small_model):
    """The video of 11.3 s has more windows of half a second than are decoded at once, and one off the grid."""
    processor = load_model(str(small_model))[1]
    files = [file for file in find_media(str(folder), []) if file.name in ("a.mp4", "b.mp4", "c.wav")]
    decoded = DecodedFiles(files, processor, ["video", "audio"], Cut.of(processor, 0.5, 0.5))
    for place, file in enumerate(files):
        chunks = list(decoded.decode_file(place))
        windows = [window for chunk in chunks for window in chunk.windows]
        assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        if file.name == "a.mp4":
            assert len(chunks) > 2 and len(windows) > 2 * CHUNK_WINDOWS
            assert windows[-1].end == pytest.approx(chunks[0].duration)
        row = {"video_id": file.name, file.kind: {"bytes": None, "path": str(file.path)}}
        for window in windows:
            alone = read_cropped_clip(row, processor, window.start, window.end, True)
            assert (window.clip.frames is None) == (alone.frames is None)
            if alone.frames is not None:
                assert torch.equal(window.clip.frames, alone.frames)
            if alone.waveform is not None:
                assert len(window.clip.waveform) == pytest.approx(len(alone.waveform), abs=1)
                number = min(len(window.clip.waveform), len(alone.waveform))
                difference = window.clip.waveform[:number] - alone.waveform[:number]
                assert difference.abs().max() < 0.02


@pytest.mark.parametrize("num_workers", [0, 1])
def test_files_are_embedded_whole(folder, small_model, num_workers):
    model, processor = load_model(str(small_model))
    files = find_media(str(folder), [])
    cut, settings = Cut.of(processor, 0.5, 0.5), EmbeddingSettings(batch_size=5, num_regions=4)
    chunks = []
    embedded = list(Embedder(model, processor, cut, settings, num_workers).embed_files(files, chunks.append))
    by_name = {files[one.file].name: one for one in embedded}
    assert sorted(by_name) == ["a.mp4", "b.mp4", "c.wav", "d.png", "e.mp4", "f.mp4"] and len(chunks) > len(files)
    assert all(len(one.windows) == len(one.marks) for one in embedded)
    whole = by_name["a.mp4"]
    assert [(window.start, window.end) for window in whole.windows] == cut.windows(whole.duration)
    assert all(window.video is not None and window.audio is not None for window in whole.windows)
    assert whole.frame_rate == pytest.approx(10, abs=0.2) and whole.problem is None and not whole.damage
    assert by_name["c.wav"].windows[0].video is None and by_name["c.wav"].windows[0].audio is not None
    image = by_name["d.png"].windows
    assert len(image) == 1 and image[0].is_image and image[0].end is None and by_name["d.png"].duration is None
    assert "cannot be decoded" in by_name["e.mp4"].problem and not by_name["e.mp4"].windows
    assert by_name["f.mp4"].problem  # the table of an MP4 is at its end
    frames = processor.video_processor.load_frames(str(folder / "a.mp4"), 4, 0.5, 1.0)
    expected = model.encode(videos=[frames], processor=processor)[0]
    np.testing.assert_allclose(whole.windows[2].video.embeds, expected, atol=1e-4)


def test_a_model_without_pictures_says_so(folder, small_model):
    processor = load_model(str(small_model))[1]
    files = find_media(str(folder), [])
    decoded = DecodedFiles(files, processor, ["audio"], Cut.of(processor, 0.5, 0.5))
    problems = {files[place].name: list(decoded.decode_file(place))[-1].problem for place in range(len(files))}
    assert problems["b.mp4"] == "has video, and the model encodes audio" and problems["a.mp4"] is None
    assert problems["d.png"] == "is an image, for which the model has no encoder"


def test_a_file_that_crashes_the_decoder_is_found(folder, small_model, monkeypatch):
    decode_file = DecodedFiles.decode_file

    def crash(self, place):
        if self.files[place].name == "b.mp4":
            os.kill(os.getpid(), signal.SIGSEGV)
        yield from decode_file(self, place)

    monkeypatch.setattr(DecodedFiles, "decode_file", crash)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)  # s, to see that a worker is dead
    model, processor = load_model(str(small_model))
    files = find_media(str(folder), [])
    embedder = Embedder(model, processor, Cut.of(processor, 0.5, 0.5), EmbeddingSettings(), num_workers=2)
    by_name = {files[one.file].name: one for one in embedder.embed_files(files)}
    assert len(by_name) == len(files) and by_name["b.mp4"].problem.startswith("makes the decoder crash")
    whole = by_name["a.mp4"]  # which may have been decoded in part before
    assert [window.start for window in whole.windows] == [start for start, _ in embedder.cut.windows(whole.duration)]
    assert by_name["c.wav"].windows and by_name["d.png"].windows
