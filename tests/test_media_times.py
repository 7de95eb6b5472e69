"""Times where headers mislead: files that begin late, guessed durations, AVI, gaps, and what a seek costs."""

import io
from dataclasses import replace

import av
import av.logging
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import (
    B_FRAMES,
    BY_NAME,
    H264,
    RATE,
    SECONDS,
    Kind,
    beeps,
    heard,
    id3_tag,
    media_bytes,
    pitch_of,
    remux,
    shown,
    whole_file,
    write_media,
)

from processing_fgmm.decoding_fgmm import Decoder, decode_from, decode_from_keyframe
from processing_fgmm.media_fgmm import Media, MediaError, frames_at, probe_media, read_frames, read_waveform

MATROSKA = BY_NAME["mkv-h264-flac"]
BEGIN_LATE = ["mkv-h264-flac", "mkv-h264-bframes-opus", "webm-vp9-opus", "ts-h264-bframes-aac", "flv-h264-bframes-aac"]


def numbered(source, count: int, first=0, offset=0.0) -> list:
    """What `count` frames from the `first` on show, at 10 frames a second, a little behind their middles."""
    return shown(read_frames(source, count, offset + first / 10 + 0.02, offset + (first + count) / 10 + 0.02))


def assert_beeps(source, expected: dict[int, float], window=(0.0, None), abs=0.06) -> None:
    """The window of sound holds the beeps of these seconds, at these times, and no other."""
    found = heard(read_waveform(source, RATE, *window))
    assert [tone for _, tone in found] == pytest.approx([pitch_of(second) for second in expected], abs=8)
    assert [onset for onset, _ in found] == pytest.approx([*expected.values()], abs=abs)


@pytest.mark.parametrize("name", BEGIN_LATE)
def test_a_piece_that_begins_late_is_as_long_as_what_it_holds(tmp_path, name):
    kind = BY_NAME[name]
    path = write_media(tmp_path / f"piece{kind.suffix}", kind, offset=20.0)
    assert probe_media(path).duration == pytest.approx(SECONDS, abs=0.25 if kind.suffix == ".flv" else 0.05)
    assert shown(read_frames(path, 4)) == pytest.approx([7, 22, 37, 52], abs=2)
    assert numbered(path, 58) == [*range(58)]
    assert numbered(path, 5, first=43) == [*range(43, 48)]
    assert_beeps(path, {second: second for second in range(1, SECONDS)})
    assert_beeps(path, {3: 0.5, 4: 1.5}, window=(2.5, 4.5))
    with pytest.raises(MediaError, match="piece"):
        read_frames(path, 1, 20.0, 21.0)


def test_pieces_of_a_segmented_file(tmp_path):
    whole = whole_file(MATROSKA)
    options = {"segment_time": "2", "segment_format": "matroska"}
    with (
        av.open(io.BytesIO(whole)) as source,
        av.open(str(tmp_path / "piece%d.mkv"), "w", format="segment", options=options) as pieces,
    ):
        streams = {stream.index: pieces.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                pieces.mux(packet)
    for number in range(3):
        path = tmp_path / f"piece{number}.mkv"
        assert probe_media(path).duration == pytest.approx(2.0, abs=0.15)
        assert shown(read_frames(path, 4)) == pytest.approx([20 * number + part for part in (2, 7, 12, 17)], abs=1)


@pytest.mark.parametrize("name", ["mkv-h264-flac", "ts-h264-bframes-aac", "mp4-h264-aac", "flv-h264-bframes-aac"])
def test_sound_that_begins_after_the_pictures(tmp_path, name):
    kind = BY_NAME[name]
    path = write_media(tmp_path / f"late{kind.suffix}", kind, sound_offset=1.0)
    assert numbered(path, 58) == [*range(58)]
    assert_beeps(path, {second: second + 1 for second in range(1, SECONDS)})
    assert heard(read_waveform(path, RATE, 0.0, 0.8)) == []
    assert_beeps(path, {1: 1.7}, window=(0.3, 2.5))


@pytest.mark.parametrize("name", ["mkv-h264-flac", "ts-h264-bframes-aac", "mp4-h264-aac", "flv-h264-bframes-aac"])
def test_pictures_that_begin_after_the_sound(tmp_path, name):
    kind = BY_NAME[name]
    path = write_media(tmp_path / f"late{kind.suffix}", kind, offset=1.0, sound_offset=0.0)
    assert numbered(path, 58, offset=1.0) == [*range(58)]
    assert shown(read_frames(path, 3, 0.0, 0.9)) == [0, 0, 0]
    assert_beeps(path, {second: second for second in range(1, SECONDS)})


@pytest.mark.parametrize("name", ["ts-h264-bframes-aac", "ts-mpeg2-mp2"])
def test_clock_of_a_transport_stream_that_wraps_around(tmp_path, name):
    kind = BY_NAME[name]
    path = write_media(tmp_path / "wrapped.ts", kind, offset=round(2**33 / 90000) - 3.0)
    assert probe_media(path).duration == pytest.approx(SECONDS, abs=0.1)
    assert shown(read_frames(path, 4)) == pytest.approx([(p + 0.5) * 1.5 * kind.rate for p in range(4)], abs=3)
    assert_beeps(path, {second: second for second in range(1, SECONDS)})
    assert_beeps(path, {4: 0.5}, window=(3.5, 4.5))


@pytest.mark.parametrize("quiet_part", ["first", "last"])
@pytest.mark.parametrize("name", ["mp3-vbr-no-xing", "adts-aac"])
def test_duration_that_a_header_only_guesses_is_counted(tmp_path, name, quiet_part):
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, 20 * 44100)  # costs bits, and no test hears it
    noise[slice(0, 10 * 44100) if quiet_part == "first" else slice(10 * 44100, None)] = 0
    kind = BY_NAME[name]
    path = write_media(tmp_path / f"guessed{kind.suffix}", kind, sound=beeps(20, 44100) + noise)
    assert probe_media(path).duration == pytest.approx(20, abs=0.1)
    assert_beeps(path, {second: second for second in range(1, 20)})
    assert_beeps(path, {15: 0.5}, window=(14.5, 15.5))
    assert_beeps(path, {19: 0.5}, window=(18.5, 20.0))


@pytest.mark.parametrize("tag", [b"", id3_tag(b"\xff\xfb\x90\x00" * 75_000)], ids=["bare", "behind-an-id3-tag"])
def test_mp3_of_constant_rate_without_xing_header(tmp_path, tag):
    path = tmp_path / "constant.mp3"
    path.write_bytes(tag + whole_file(BY_NAME["mp3-no-xing"]))
    assert probe_media(path).duration == pytest.approx(SECONDS, abs=0.1)
    assert_beeps(path, {second: second for second in range(1, SECONDS)})


@pytest.mark.parametrize("bframes", ["0", "2"], ids=["without-b-frames", "with-b-frames"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_short_avi_shows_each_frame_once(tmp_path, codec, bframes):
    kind = Kind("avi", ".avi", codec, options={"g": "250", "bf": bframes, "b": "1M"})
    path = write_media(tmp_path / "short.avi", kind, seconds=2.0)
    assert shown(read_frames(path, 20)) == [*range(20)]
    assert shown(read_frames(path, 5, 1.0, 1.5)) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("name", ["mkv-h264-flac", "mp4-h264-aac", "ts-h264-bframes-aac"])
def test_a_gap_in_the_sound_is_silence(tmp_path, name):
    kind = BY_NAME[name]
    path = tmp_path / f"gap{kind.suffix}"
    whole = whole_file(kind)
    path.write_bytes(
        remux(whole, kind, lambda packet: packet.stream.type == "video" or not 2.5 < seconds(packet) < 4.5)
    )
    assert_beeps(path, {1: 1, 2: 2, 5: 5})
    assert_beeps(path, {5: 1.8}, window=(3.2, 5.5))


@pytest.mark.parametrize("name", ["mkv-h264-flac", "mp4-h264-aac", "ts-h264-bframes-aac"])
def test_in_a_gap_of_the_pictures_the_last_one_stays(tmp_path, name):
    kind = replace(BY_NAME[name], options=H264)
    path = tmp_path / f"gap{kind.suffix}"
    whole = whole_file(kind)
    path.write_bytes(
        remux(whole, kind, lambda packet: packet.stream.type == "audio" or not 1.95 < seconds(packet) < 3.95)
    )
    late = 0.0 if kind.suffix != ".ts" else 0.02
    expected = [*range(20), *[19] * 20, *range(40, 58)]
    assert numbered(path, 58, offset=late) == expected
    assert numbered(path, 3, first=30, offset=late) == [19, 19, 19]


def seconds(packet) -> float:
    return float(packet.pts * packet.time_base)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
@pytest.mark.parametrize("options", [H264, B_FRAMES], ids=["without-b-frames", "with-b-frames"])
def test_a_seek_decodes_no_group_of_pictures_before_the_one_needed(tmp_path, suffix, options):
    kind = Kind("gop", suffix, "libx264", options={**options, "g": "20", "sc_threshold": "0"})
    path = write_media(tmp_path / f"long{suffix}", kind, seconds=12)
    with av.open(str(path)) as container:
        all_decoded = count_slices(lambda: [*container.decode(video=0)])
    if not 120 <= all_decoded <= 130:
        pytest.skip(f"this build of FFmpeg names {all_decoded} of 120 decoded frames in its log")
    for index in (20, 40, 47, 79, 80, 119):
        late = index / 10 + 0.02
        wanted = []
        decoded = count_slices(lambda: wanted.extend(shown(read_frames(path, 1, late, late + 0.1))))  # noqa: B023
        assert wanted == [index]
        # Behind the frame, B-frames; AVI decodes some when it is opened. Without an index a seek of MPEG-TS that ends
        # behind the frame is repeated, for a few frames each.
        spare = 18 if suffix == ".ts" else 12
        assert decoded <= index % 20 + 1 + spare, f"{decoded} frames decoded for frame {index}"


def count_slices(read) -> int:
    """How many frames FFmpeg's H.264 decoder is given while `read` runs, by its own log."""
    level, repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.DEBUG)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture(local=False) as messages:
            read()
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(repeated)
    slices = ("nal_unit_type: 1(", "nal_unit_type: 5(")
    return sum(name == "h264" and text.startswith(slices) for _, name, text in messages)


def test_a_recording_that_begins_within_a_group_of_pictures(tmp_path):
    kind = replace(BY_NAME["ts-h264-bframes-aac"], audio=None, options=H264)
    path = tmp_path / "broadcast.ts"
    path.write_bytes(remux(whole_file(kind), kind, lambda packet: seconds(packet) > 0.75))
    frames = numbered(path, 52)  # of which the first two, 8 and 9, cannot be decoded
    assert frames[2:] == [*range(10, 60)]
    assert set(frames[:2]) <= {8, 9, 10}


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_frames_without_a_timestamp(tmp_path, suffix):
    """They follow the one before; after a seek, the first of them are left out."""
    kind = Kind("untimed", suffix, "libx264", "aac", options=H264)
    with Media(write_media(tmp_path / f"clip{suffix}", kind, seconds=2)) as media:
        for after_seek in (False, True):
            decoder = Decoder(media.container, "video", 0.0, 2.0, [], after_seek)
            frame = av.VideoFrame(64, 48)
            assert decoder.presentation_time(frame) == (None if after_seek else 0.0)
            decoder.last = 1.0, frame
            assert decoder.presentation_time(frame) == pytest.approx(1.1)


LONG_GROUPS = [
    Kind("mp4", ".mp4", "libx264", options={**B_FRAMES, "g": "60", "sc_threshold": "0"}),
    Kind("hevc", ".mkv", "libx265", options={"x265-params": "keyint=60:bframes=4:log-level=none"}),
    Kind("mpeg2", ".ts", "mpeg2video", rate=25, options={"g": "60", "bf": "2", "b": "2M"}),
    Kind("avi", ".avi", "libx264", options={**B_FRAMES, "g": "60", "sc_threshold": "0"}),
]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_window_has_the_frames_of_the_file_decoded_from_its_beginning(data):
    kind = data.draw(st.sampled_from(LONG_GROUPS))
    source = whole_file(kind)
    start = data.draw(st.floats(0, SECONDS - 0.5))
    end = data.draw(st.floats(start + 0.01, SECONDS))
    count = data.draw(st.integers(1, 12))
    with Media(source) as media:
        decoded = [*decode_from(media.container, "video", 0.0, SECONDS)]
    expected = []
    for part in range(count):
        time = start + (part + 0.5) * (end - start) / count
        presented = [frame for presented, frame in decoded if presented <= time + 1e-6] or [decoded[0][1]]
        expected.append(torch.from_numpy(presented[-1].to_ndarray(format="rgb24")).permute(2, 0, 1))
    assert shown(read_frames(source, count, start, end)) == shown(expected)


@pytest.mark.parametrize("kind", LONG_GROUPS[:3], ids=str)
def test_pictures_that_no_other_needs_are_skipped_before_a_window(kind):
    source = whole_file(kind)
    start = 5.55
    with Media(source) as media:
        decoded = decode_from_keyframe(media.container, "video", start, SECONDS, [start])
        times = [time for time, _ in decoded if time < start]
        everything = [time for time, _ in decode_from_keyframe(media.container, "video", 0.0, SECONDS)]
    needed = sum(times[0] <= time < start for time in everything)
    assert len(times) < 0.75 * needed
    assert shown(read_frames(source, 1, start, start + 0.01)) == [int(start * kind.rate)]


def test_transport_streams_one_behind_the_other_are_read_as_the_first(tmp_path):
    """Their clock begins again, which leaves no time for the second: frames and sound agree on that."""
    first = whole_file(BY_NAME["ts-h264-bframes-aac"])
    second = media_bytes(BY_NAME["ts-h264-bframes-aac"], sound=np.zeros(SECONDS * 44100))
    assert_beeps(first + second, {second: second for second in range(1, SECONDS)})
    assert numbered(first + second, 58) == [*range(58)]


@pytest.mark.parametrize("name", ["mp4-h264-bframes-aac", "mkv-h264-bframes-opus"])
@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, SECONDS - 0.1), min_size=1, max_size=6).map(sorted))
def test_pictures_that_are_not_wanted_are_skipped_and_the_others_stay_the_same(name, times):
    """Against decoding all of them; those that other pictures need are decoded in any case."""
    data = media_bytes(BY_NAME[name])
    decoded = {}
    for wanted in ((), times):
        with Media(data) as media:
            frames = list(decode_from(media.container, "video", times[0], SECONDS, wanted))
            chosen = [frame.to_ndarray(format="rgb24") for frame in frames_at(frames, times)]
        decoded[len(wanted) > 0] = len(frames), chosen
    (number, skipped), (number_of_all, every) = decoded[True], decoded[False]
    assert all(np.array_equal(first, second) for first, second in zip(skipped, every, strict=True))
    assert number <= number_of_all
    if times[-1] - times[0] < 1 and times[0] < SECONDS - 2:
        assert number < 0.8 * number_of_all
