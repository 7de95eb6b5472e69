"""Files with damage in the middle: what can be decoded is used, the rest is the last frame or silence, and counted."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest
from media_files import (
    BY_NAME,
    RATE,
    SECONDS,
    beeps,
    damage,
    heard,
    id3_tag,
    media_bytes,
    pitch_of,
    shown,
    whole_file,
    write_media,
)

from processing_fgmm.media_fgmm import Media, MediaError, probe_media, read_frames, read_waveform

INTRA = {"g": "1", "bf": "0", "crf": "18"}
# Every frame is a key frame, so that one damaged packet costs one frame.
ALL_KEYS = [
    *[replace(BY_NAME[name], options=INTRA) for name in ("mp4-h264-aac", "mkv-h264-flac", "flv-h264-bframes-aac")],
    BY_NAME["avi-mjpeg-pcm"],
    BY_NAME["mov-prores-pcm"],
]
GROUPS = [BY_NAME[name] for name in ("mp4-h264-aac", "mkv-h264-flac", "webm-vp9-opus", "wmv-wmv2-wma")]
SOUNDS = ["mp4-h264-aac", "mkv-h264-flac", "flv-h264-bframes-aac", "wma", "m4a-aac", "m4a-alac", "mp3-xing"]
TIMED = ["mp4-h264-aac", "mkv-h264-flac", "flv-h264-bframes-aac", "m4a-aac"]  # each packet of sound says its time

NOISE = np.random.default_rng(0).bytes(5000)
TAGS = {  # what lies between two MP3 files; in the noise the decoder sees beginnings of frames
    "nothing": b"",
    "id3v1": b"TAG".ljust(128, b"x"),
    "id3v2": id3_tag(NOISE[:2000]),
    "id3v2-with-cover": id3_tag(b"APIC\x00\x00\x13\x88\x00\x00\xff\xd8\xff\xe0" + NOISE.replace(b"\xff", b"\xff\0")),
}


def numbered(source, count: int, first=0, **arguments) -> list:
    """What `count` frames from the `first` on show, at 10 frames a second, a little behind their middles."""
    return shown(read_frames(source, count, first / 10 + 0.02, (first + count) / 10 + 0.02, **arguments))


def assert_counted(problems: list[str], name: str) -> None:
    assert problems, "nothing was counted"
    assert all(name in problem for problem in problems)


@pytest.mark.parametrize("kind", ALL_KEYS, ids=str)
def test_in_place_of_a_damaged_frame_the_last_one_stays(kind):
    problems = []
    damaged = damage(kind, "video", 3.05, fill=0)
    assert numbered(damaged, 58, problems=problems, name="clip.x") == [*range(31), 30, *range(32, 58)]
    assert_counted(problems, "clip.x")
    assert len(problems) == 1


@pytest.mark.parametrize("kind", ALL_KEYS, ids=str)
def test_windows_of_frames_beside_the_damage_are_whole(kind):
    damaged, problems = damage(kind, "video", 3.05, fill=0), []
    assert numbered(damaged, 8, first=20, problems=problems) == [*range(20, 28)]
    assert numbered(damaged, 8, first=35, problems=problems) == [*range(35, 43)]
    assert problems == []


@pytest.mark.parametrize("kind", GROUPS, ids=str)
def test_a_damaged_frame_costs_at_most_its_group_of_pictures(kind):
    problems = []
    frames = numbered(damage(kind, "video", 3.15, fill=0), 58, problems=problems, name="clip.x")
    assert frames[:31] == [*range(31)]
    assert frames[40:] == [*range(40, 58)]
    assert_counted(problems, "clip.x")


@pytest.mark.parametrize("name", SOUNDS)
def test_a_damaged_packet_of_sound_is_silence(name):
    kind, problems = BY_NAME[name], []
    found = heard(read_waveform(damage(kind, "audio", 3.4), RATE, problems=problems, name="clip.x"))
    whole = heard(read_waveform(whole_file(kind), RATE))
    assert [tone for _, tone in found] == pytest.approx([tone for _, tone in whole], abs=8)
    assert [onset for onset, _ in found] == pytest.approx([onset for onset, _ in whole], abs=0.035)
    assert_counted(problems, "clip.x")


@pytest.mark.parametrize("name", TIMED)
def test_sound_behind_a_stretch_of_damage_keeps_its_time(name):
    kind, problems = BY_NAME[name], []
    damaged = damage(kind, "audio", 2.8, length=0.6)
    found = heard(read_waveform(damaged, RATE, problems=problems, name="clip.x"))
    whole = [beep for beep in heard(read_waveform(whole_file(kind), RATE)) if round(beep[0]) != 3]
    assert [tone for _, tone in found] == pytest.approx([tone for _, tone in whole], abs=8)
    assert [onset for onset, _ in found] == pytest.approx([onset for onset, _ in whole], abs=0.01)
    assert_counted(problems, "clip.x")
    beside = []
    assert [tone for _, tone in heard(read_waveform(damaged, RATE, 4.5, 5.5, problems=beside))] == [pitch_of(5)]
    assert beside == []


@pytest.mark.parametrize("between", TAGS)
@pytest.mark.parametrize("name", ["mp3-xing", "mp3-no-xing"])
def test_joined_mp3_files_are_read_to_the_end(tmp_path, name, between):
    """Two files one behind the other; the second's tag or the first's lies between them."""
    wave = beeps(SECONDS, 44100)
    first, second = (media_bytes(BY_NAME[name], sound=half) for half in (wave[: 3 * 44100], wave[3 * 44100 :]))
    path = tmp_path / "joined.mp3"
    path.write_bytes(first + TAGS[between] + second[second.index(b"\xff\xfb") :])  # without its own, empty tag
    problems = []
    found = heard(read_waveform(path, RATE, problems=problems))
    assert [tone for _, tone in found] == pytest.approx([pitch_of(second) for second in range(1, SECONDS)], abs=8)
    assert [onset for onset, _ in found] == pytest.approx([1, 2, 3, 4, 5], abs=0.12)
    assert probe_media(path).duration == pytest.approx(SECONDS, abs=0.12)
    assert [tone for _, tone in heard(read_waveform(path, RATE, 4.5, 5.8))] == [pitch_of(5)]
    if "id3v2" in between:
        assert_counted(problems, "joined.mp3")


CUT = [
    "mkv-h264-flac",
    "webm-vp9-opus",
    "mp4-fragmented",
    "avi-mpeg4-mp3",
    "avi-mjpeg-pcm",
    "mpg-mpeg2-mp2",
    "ts-h264-bframes-aac",
    "flv-h264-bframes-aac",
    "gif",
    "ogg-opus",
    "ogg-vorbis",
    "mp3-xing",
    "adts-aac",
    "flac",
    "wav-s16",
]


@pytest.mark.parametrize("name", CUT)
def test_a_download_that_broke_off_is_used_as_far_as_it_goes(tmp_path, name):
    kind = BY_NAME[name]
    whole = whole_file(kind)
    path = tmp_path / f"broken{kind.suffix}"
    path.write_bytes(whole[: int(0.7 * len(whole))])
    if kind.video and kind.rate == 10:
        assert numbered(path, 25) == [*range(25)]
        assert len(read_frames(path, 8)) == 8
    if kind.audio:
        found = heard(read_waveform(path, RATE))
        assert [tone for _, tone in found[:2]] == pytest.approx([pitch_of(1), pitch_of(2)], abs=8)
        assert [tone for _, tone in heard(read_waveform(path, RATE, 1.5, 2.5))] == pytest.approx([pitch_of(2)], abs=8)


def test_an_mp4_with_its_index_in_front_that_broke_off(tmp_path):
    kind = replace(BY_NAME["mp4-h264-aac"], container_options={"movflags": "faststart"})
    path = write_media(tmp_path / "front.mp4", kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.7 * len(whole))])
    frames = shown(read_frames(path, 58, 0.02, 5.82))
    assert frames[:30] == [*range(30)] and frames == sorted(frames)
    assert [tone for _, tone in heard(read_waveform(path, RATE))[:2]] == [pitch_of(1), pitch_of(2)]


@pytest.mark.parametrize("kind", [kind for kind in ALL_KEYS if kind.audio], ids=str)
def test_a_stream_of_which_nothing_can_be_decoded_is_refused(kind):
    with pytest.raises(MediaError, match=r"clip\.x"):
        read_frames(damage(kind, "video", 0.0, length=10, fill=0), 4, name="clip.x")


@pytest.mark.parametrize("name", ["mp4-h264-aac", "m4a-aac", "mkv-h264-flac"])
def test_sound_of_which_nothing_can_be_decoded_is_refused(name):
    with pytest.raises(MediaError, match=r"clip\.x"):
        read_waveform(damage(BY_NAME[name], "audio", 0.0, length=10), RATE, name="clip.x")


def test_damage_in_the_sound_does_not_touch_the_pictures():
    problems = []
    damaged = damage(BY_NAME["mp4-h264-aac"], "audio", 3.05)
    assert numbered(damaged, 58, problems=problems) == [*range(58)]
    assert problems == []


@pytest.mark.parametrize("name", ["mp4-h264-aac", "mkv-h264-flac", "flv-h264-bframes-aac", "avi-h264-bframes-pcm"])
def test_what_the_decoder_replaces_is_counted(name):
    """Bits are flipped in the middle of a picture, of which the decoder gives the rest."""
    data = bytearray(whole_file(BY_NAME[name]))
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    packet = packets[len(packets) // 2]
    middle = data.index(bytes(packet)) + packet.size // 2
    data[middle : middle + 8] = bytes(byte ^ 0x55 for byte in data[middle : middle + 8])
    problems = []
    frames = numbered(bytes(data), 58, problems=problems, name="clip.x")
    assert frames[:28] == [*range(28)] and frames[50:] == [*range(50, 58)]
    assert_counted(problems, "clip.x")


def test_problems_are_those_of_all_that_was_read():
    damaged = damage(BY_NAME["mp4-h264-aac"], "audio", 3.05)
    with Media(damaged, "clip.x") as media:
        media.read_frames(4)
        assert media.problems == []
        media.read_waveform(RATE, 0.0, 2.0)
        assert media.problems == []
        media.read_waveform(RATE)
        assert_counted(media.problems, "clip.x")
        assert "audio" in media.problems[0] and "3.0" in media.problems[0]
