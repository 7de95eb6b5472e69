import io
import struct
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from helpers import brightness_time, write_video

from processing_fgmm import media_fgmm
from processing_fgmm.media_fgmm import MediaError, probe_media, read_frames, read_waveform, unwrap_file


def frame_times(frames: torch.Tensor) -> list[float]:
    """The time of each frame of `write_video`, s."""
    return [brightness_time(frame) for frame in frames]


def with_display_matrix(data: bytes, matrix: tuple[int, ...]) -> bytes:
    """The MP4 with another display matrix in its (first) track header, version 0."""
    place = data.index(b"tkhd") + 4 + 40
    return data[:place] + struct.pack(">9i", *matrix) + data[place + 36 :]


def test_frames_lie_in_the_middle_of_equal_parts(tmp_path):
    path = write_video(tmp_path / "a.mp4", seconds=4, rate=20)
    frames = read_frames(path, 4)
    assert frames.dtype == torch.uint8 and frames.shape == (4, 3, 48, 64)
    assert frame_times(frames) == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=0.08)


def test_window_of_a_long_file_is_found_between_keyframes(tmp_path):
    path = write_video(tmp_path / "long.mp4", times=[i / 10 for i in range(50)], rate=10, options={"g": "20"})
    assert frame_times(read_frames(path, 2, start=3.0, end=4.0)) == pytest.approx([3.2, 3.7], abs=0.08)


def test_long_file_is_not_decoded_from_its_beginning(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", times=[i / 10 for i in range(50)], rate=10, options={"g": "10"})
    decoded, frames_at = [], media_fgmm.frames_at

    def record(frames):
        for time, frame in frames:
            decoded.append(time)
            yield time, frame

    monkeypatch.setattr(media_fgmm, "frames_at", lambda frames, times: frames_at(record(frames), times))
    read_frames(path, 2, start=4.5, end=4.9)
    assert 0 < len(decoded) < 20


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.ts", "libx264", {}), ("a.webm", "libvpx", {"live": "1"}), ("a.mp4", "libx264", {"movflags": "frag_keyframe"})],
)
def test_containers_without_a_duration_or_an_index(tmp_path, name, codec, options):
    path = write_video(tmp_path / name, seconds=3, codec=codec, container_options=options)
    assert probe_media(path).duration == pytest.approx(3, abs=0.11)
    assert frame_times(read_frames(path, 3)) == pytest.approx([0.5, 1.5, 2.5], abs=0.12)
    assert frame_times(read_frames(path, 2, start=1.0, end=2.0)) == pytest.approx([1.2, 1.7], abs=0.12)


def test_raw_stream_is_refused_with_the_remedy(tmp_path):
    path = write_video(tmp_path / "a.h264")
    with pytest.raises(MediaError, match="raw stream without times; put it into a container such as MP4"):
        read_frames(path, 2)


def test_variable_frame_rate_goes_by_presentation_time(tmp_path):
    times = [0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 3.0]
    path = write_video(tmp_path / "variable.mp4", times=times)
    # At 1.0 s and 1.9 s the frame of 0.3 s is still on display.
    frames = read_frames(path, 3, start=0.55, end=3.25)
    assert frame_times(frames) == pytest.approx([0.3, 0.3, 2.1], abs=0.06)


@pytest.mark.parametrize("size", [(64, 48), (66, 34), (130, 50)])
@pytest.mark.parametrize(
    "pixel_format,codec", [("yuv420p", "libx264"), ("gray", "libx264"), ("yuv420p10le", "libx264")]
)
def test_sizes_and_pixel_formats(tmp_path, size, pixel_format, codec):
    path = write_video(tmp_path / "b.mp4", seconds=1, size=size, pixel_format=pixel_format, codec=codec)
    frames = read_frames(path, 2, size=32)
    assert min(frames.shape[-2:]) == 32
    assert frame_times(frames) == pytest.approx([0.2, 0.7], abs=0.12)


def test_odd_size(tmp_path):
    path = write_video(tmp_path / "odd.mp4", seconds=0.5, size=(65, 47), pixel_format="yuv444p")
    assert read_frames(path, 1).shape == (1, 3, 47, 65)


def test_file_of_one_frame(tmp_path):
    path = write_video(tmp_path / "one.mp4", times=[0.0])
    assert frame_times(read_frames(path, 3)) == pytest.approx([0, 0, 0], abs=0.08)


def test_rotation_is_undone(tmp_path):
    path = write_video(tmp_path / "turned.mp4", seconds=0.5, size=(64, 48), still=True)
    data = path.read_bytes()
    plain = read_frames(data, 1)[0].permute(1, 2, 0).numpy().astype(int)
    fixed = 1 << 16
    for matrix, turns in [
        ((0, fixed, 0, -fixed, 0, 0, 0, 0, 1 << 30), -1),  # shown turned clockwise by 90 degrees
        ((-fixed, 0, 0, 0, -fixed, 0, 0, 0, 1 << 30), 2),
        ((0, -fixed, 0, fixed, 0, 0, 0, 0, 1 << 30), 1),
    ]:
        turned = read_frames(with_display_matrix(data, matrix), 1)[0].permute(1, 2, 0).numpy().astype(int)
        assert turned.shape == np.rot90(plain, turns).shape
        assert np.abs(turned - np.rot90(plain, turns)).mean() < 2


def test_paths_bytes_and_files_give_the_same(tmp_path):
    path = write_video(tmp_path / "c.mp4", seconds=1, sound=1.0)
    data = path.read_bytes()
    for source in (str(path), data, io.BytesIO(data)):
        assert torch.equal(read_frames(source, 3), read_frames(path, 3))
        assert torch.equal(read_waveform(source, 16000), read_waveform(path, 16000))


def test_header(tmp_path):
    info = probe_media(write_video(tmp_path / "d.mp4", seconds=2, rate=10, sound=2.0))
    assert info.duration == pytest.approx(2.0, abs=0.15)
    assert (info.height, info.width, info.audio_rate) == (48, 64, 16000)
    assert info.has_video and info.has_audio


def test_sound_is_the_sine_that_was_written(tmp_path):
    path = write_video(tmp_path / "e.mp4", seconds=2, sound=2.0)
    sound = read_waveform(path, 16000, 0.5, 1.5)
    assert sound.shape == (16000,)
    spectrum = np.abs(np.fft.rfft(sound.numpy()))
    assert int(spectrum.argmax()) == 440
    assert float(sound.abs().max()) == pytest.approx(0.5, abs=0.08)


def test_windows_of_sound_are_slices_of_the_whole(tmp_path):
    samples = np.random.default_rng(0).integers(-20000, 20000, 32000)
    path = tmp_path / "noise.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    whole = read_waveform(path, 16000)
    assert torch.equal(whole, torch.from_numpy(samples / 2**15).float())
    for start, end in ((0.0, 0.01), (0.3, 0.7), (1.2345, 1.9), (1.5, 2.0)):
        assert torch.equal(
            read_waveform(path, 16000, start, end), whole[round(start * 16000) :][: round((end - start) * 16000)]
        )


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_sound_is_resampled(tmp_path, rate):
    sound = read_waveform(write_video(tmp_path / "f.mp4", seconds=1, sound=1.0), rate, 0.0, 1.0)
    assert sound.shape == (rate,)
    assert int(np.abs(np.fft.rfft(sound.numpy())).argmax()) == 440


def test_no_sound_stream(tmp_path):
    assert read_waveform(write_video(tmp_path / "g.mp4"), 16000) is None


def test_sound_shorter_than_video_ends_in_silence(tmp_path):
    sound = read_waveform(write_video(tmp_path / "h.mp4", seconds=2, sound=1.0), 16000, 0.0, 2.0)
    assert sound.shape == (32000,)
    assert float(sound[2000:14000].abs().max()) > 0.4 and float(sound[18500:].abs().max()) < 0.01


def test_sound_longer_than_video_keeps_the_last_frame(tmp_path):
    path = write_video(tmp_path / "i.mp4", seconds=1, sound=3.0)
    assert frame_times(read_frames(path, 2, 2.0, 3.0)) == pytest.approx([0.9, 0.9], abs=0.08)
    assert float(read_waveform(path, 16000, 2.0, 2.9).abs().max()) > 0.4


def test_sound_alone(tmp_path):
    path = write_video(tmp_path / "j.m4a", times=[], sound=1.0)
    assert not probe_media(path).has_video
    with pytest.raises(MediaError, match="no video stream"):
        read_frames(path, 1)


def test_samples_that_are_no_numbers_name_their_file(tmp_path):
    path = tmp_path / "nan.wav"
    samples = np.full(1600, np.nan, dtype="<f4").tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(samples),
        b"WAVE",
        b"fmt ",
        16,
        3,
        1,
        16000,
        64000,
        4,
        32,
        b"data",
        len(samples),
    )
    path.write_bytes(header + samples)
    with pytest.raises(MediaError, match=r"nan\.wav .* no finite numbers"):
        read_waveform(path, 16000)


def test_audio_after_a_gap_keeps_its_time(tmp_path):
    path = tmp_path / "gap.mkv"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in (0.0, 1.5):  # half a second of sound, one of nothing, half a second of sound
            frame = av.AudioFrame.from_ndarray((32767 * tone).astype("<i2")[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, round(start * 16000), Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    sound = read_waveform(path, 8000, 0.0, 2.0)
    loud = [float(part.abs().max()) > 0.3 for part in sound.split(1000)]  # an eighth of a second each
    assert loud == [True] * 4 + [False] * 8 + [True] * 4


def test_undecoded_files_of_datasets():
    for file, expected in (
        ({"bytes": b"data", "path": "a.mp4"}, b"data"),
        ({"bytes": None, "path": "a.mp4"}, "a.mp4"),
        ({"bytes": None, "path": None}, None),
    ):
        assert unwrap_file(file) == expected
    for other in ("a.mp4", b"data", None, {"path": "a.mp4"}):
        assert unwrap_file(other) is other


def test_damaged_files_name_themselves_and_the_time(tmp_path):
    whole = write_video(tmp_path / "k.mp4", seconds=2, sound=2.0).read_bytes()
    damaged = {"empty.mp4": b"", "noise.mp4": bytes(range(256)) * 40, "cut.mp4": whole[: len(whole) // 2]}
    for name, data in damaged.items():
        path = tmp_path / name
        path.write_bytes(data)
        for read in (lambda p: read_frames(p, 2, 0.5, 1.0), lambda p: read_waveform(p, 16000, 0.5, 1.0)):
            with pytest.raises(MediaError) as caught:
                read(path)
            assert name in str(caught.value) and "0.5 s to 1 s" in str(caught.value)


def test_missing_file_and_wrong_window(tmp_path):
    with pytest.raises(MediaError, match=r"nowhere\.mp4"):
        read_frames(tmp_path / "nowhere.mp4", 1)
    path = write_video(tmp_path / "l.mp4", seconds=1)
    for start, end in ((5.0, 6.0), (0.5, 0.5), (-1.0, 1.0)):
        with pytest.raises(MediaError, match=r"l\.mp4"):
            read_frames(path, 1, start, end)


def test_size_is_of_the_upright_picture(tmp_path):
    path = write_video(tmp_path / "m.mp4", seconds=0.5)
    assert read_frames(path, 1, size=(20, 30)).shape[-2:] == (20, 30)


def test_real_grid_clip(real_data):
    clips = sorted((real_data / "grid").rglob("*.mp4"))
    if not clips:
        pytest.skip("no GRID clip in the real data")
    info = probe_media(clips[0])
    assert read_frames(clips[0], 4, size=64).shape[:2] == (4, 3)
    sound = read_waveform(clips[0], 16000)
    assert len(sound) == pytest.approx(16000 * info.duration, abs=2) and float(sound.abs().max()) > 0.01
    with av.open(str(clips[0])) as container:
        assert info.frame_rate == float(container.streams.video[0].average_rate)
