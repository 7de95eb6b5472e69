"""Whatever the bytes, only MediaError leaves media_fgmm: changing streams, unknown codecs, false headers, bombs."""

import os
import sys
import warnings
import zlib
from dataclasses import FrozenInstanceError, replace
from functools import cache

import media_headers
import numpy as np
import pytest
import torch
from media_files import (
    BY_NAME,
    H264,
    RATE,
    SECONDS,
    beeps,
    heard,
    media_bytes,
    pitch_of,
    remux_together,
    shown,
    sine,
    whole_file,
    write_media,
)
from PIL import Image

from fgmm_tools.media_fuzzing import Reader, list_faults
from processing_fgmm.media_fgmm import (
    LIMITS,
    MediaError,
    MediaLimits,
    probe_media,
    read_frames,
    read_image,
    read_waveform,
)

MP3, XING, ADTS, TS = (BY_NAME[name] for name in ("mp3-no-xing", "mp3-xing", "adts-aac", "ts-h264-bframes-aac"))
CHANGES = {
    "mp3-44.1-to-48-kHz": (XING, {}, {"sound_rate": 48000}),
    "mp3-44.1-to-16-kHz": (XING, {}, {"sound_rate": 16000}),
    "mp3-without-xing-44.1-to-48-kHz": (MP3, {}, {"sound_rate": 48000}),
    "mp3-stereo-to-mono": (MP3, {}, {"layout": "mono"}),
    "mp3-mono-to-stereo": (XING, {"layout": "mono"}, {}),
    "adts-stereo-to-mono": (ADTS, {}, {"layout": "mono"}),
    "ts-44.1-to-48-kHz": (replace(TS, video=None), {}, {"sound_rate": 48000}),
    "ts-stereo-to-mono": (replace(TS, video=None), {}, {"layout": "mono"}),
}


def only_media_error(read):
    """What `read` gives, None where it raises MediaError; anything else it raises is a failure."""
    try:
        return read()
    except MediaError as error:
        assert str(error)
        return None


def limited(**limits) -> MediaLimits:
    return replace(LIMITS, **limits)


@pytest.mark.parametrize("change", CHANGES)
def test_sound_whose_format_changes_is_read_to_the_end(tmp_path, change):
    kind, first, second = CHANGES[change]
    kinds = [replace(kind, **first), replace(kind, **second)]
    halves = [sine(pitch, 3.0, kind.sound_rate) for pitch, kind in zip((600, 1000), kinds, strict=True)]
    offset = 3.0 if kind.suffix == ".ts" else 0.0
    path = tmp_path / f"changing{kind.suffix}"
    path.write_bytes(media_bytes(kinds[0], sound=halves[0]) + media_bytes(kinds[1], sound=halves[1], offset=offset))
    assert probe_media(path).duration == pytest.approx(6, abs=0.2)
    wave = read_waveform(path, RATE)
    tones = {onset: tone for onset, tone in heard(wave) if tone in (600, 1000)}
    assert [*tones.values()] == [600, 1000]
    assert [*tones] == pytest.approx([0, 3], abs=0.12)
    assert [tone for _, tone in heard(read_waveform(path, RATE, 4.0, 5.0))] == [1000]
    assert float(wave[16000:32000].abs().max()) == pytest.approx(float(wave[60000:80000].abs().max()), abs=0.06)


@pytest.mark.parametrize("first,second", [({}, {"layout": "mono"}), ({}, {})], ids=["stereo-to-mono", "the-same"])
@pytest.mark.parametrize("name", ["ogg-opus", "ogg-vorbis"])
def test_chained_ogg_files_are_read_or_refused(name, first, second):
    """FFmpeg itself refuses some of them."""
    if name == "ogg-vorbis" and second:
        pytest.skip("FFmpeg's encoder of Vorbis writes stereo only")
    kinds = [replace(BY_NAME[name], **first), replace(BY_NAME[name], **second)]
    data = b"".join(media_bytes(kind, sound=beeps(3, kind.sound_rate)) for kind in kinds)
    only_media_error(lambda: probe_media(data))
    wave = only_media_error(lambda: read_waveform(data, RATE))
    if wave is not None:
        assert [tone for _, tone in heard(wave)][:2] == [pitch_of(1), pitch_of(2)]
    assert [tone for _, tone in heard(read_waveform(data, RATE, 0.5, 1.5))] == [pitch_of(1)]


@pytest.mark.parametrize("rotated", [False, True], ids=["upright-part-first", "wide-part-first"])
def test_pictures_whose_size_changes_come_in_one_size(tmp_path, rotated):
    """Grey 60 in the first 2 s and 200 behind them."""
    kind = replace(TS, audio=None, options=H264)
    sizes = [(320, 240), (240, 320)] if rotated else [(240, 320), (320, 240)]
    parts = [[np.full((*size, 3), grey, np.uint8)] * 20 for size, grey in zip(sizes, (60, 200), strict=True)]
    path = tmp_path / "changing.ts"
    path.write_bytes(media_bytes(kind, pictures=parts[0]) + media_bytes(kind, pictures=parts[1], offset=2.0))
    frames = read_frames(path, 38, 0.02, 3.82)
    info = probe_media(path)
    assert frames.shape == (38, 3, info.height, info.width)
    centres = frames[:, :, info.height // 2, info.width // 2].float().mean(1)
    assert centres.tolist() == pytest.approx([60.0] * 20 + [200.0] * 18, abs=4)
    assert read_frames(path, 6, 1.52, 2.12, size=(48, 64)).shape == (6, 3, 48, 64)
    assert read_frames(path, 6, 1.52, 2.12, size=64).shape[1] == 3


UNKNOWN = {b"mp4a": (b"apac", b"ac-4"), b"avc1": (b"zzzz", b"evc1")}  # no such codec; one without a decoder
CONFIGURATIONS = {b"mp4a": b"esds", b"avc1": b"avcC"}


@cache
def two_tracks(first_unknown: bytes | None, second_unknown: bytes | None = None) -> bytes:
    """An MP4 of two video and two audio tracks: frames from 0 and beeps in the second, another in the first."""
    kind = BY_NAME["mp4-h264-aac"]
    grey = [np.full((48, 64, 3), 128, np.uint8)] * 60
    decoys = media_bytes(kind, pictures=grey, sound=sine(3000, SECONDS, 44100))
    data = remux_together([decoys, whole_file(kind)], kind)
    for track, unknown in ((0, first_unknown), (0 if first_unknown else 1, second_unknown)):
        for codec, names in UNKNOWN.items():
            if unknown in names:
                data = media_headers.rename_codec(data, codec, unknown, CONFIGURATIONS[codec], track)
    return data


@pytest.mark.parametrize("name", UNKNOWN[b"mp4a"])
def test_the_first_sound_that_can_be_decoded_is_taken(name):
    data = two_tracks(name)
    assert probe_media(data).audio_rate == 44100
    assert [tone for _, tone in heard(read_waveform(data, RATE))] == [pitch_of(second) for second in range(1, SECONDS)]
    assert [tone for _, tone in heard(read_waveform(data, RATE, 2.5, 3.5))] == [pitch_of(3)]


@pytest.mark.parametrize("name", UNKNOWN[b"avc1"])
def test_the_first_pictures_that_can_be_decoded_are_taken(name):
    data = two_tracks(name)
    info = probe_media(data)
    assert (info.height, info.width) == (48, 64)
    assert shown(read_frames(data, 10, 2.02, 3.02)) == [*range(20, 30)]


@pytest.mark.parametrize("name", UNKNOWN[b"mp4a"])
def test_sound_of_which_no_stream_can_be_decoded(name):
    data = two_tracks(name, name)
    with pytest.raises(MediaError, match=r"phone\.mov"):
        read_waveform(data, RATE, name="phone.mov")
    only_media_error(lambda: probe_media(data))
    assert read_frames(data, 2).shape == (2, 3, 48, 64)


@pytest.mark.parametrize("name", UNKNOWN[b"avc1"])
def test_pictures_of_which_no_stream_can_be_decoded(name):
    data = two_tracks(name, name)
    with pytest.raises(MediaError, match=r"phone\.mov"):
        read_frames(data, 2, name="phone.mov")
    only_media_error(lambda: probe_media(data))
    assert heard(read_waveform(data, RATE, 0.0, 6.0))


# kind, change, whether its first seconds are as they were
YEARS = {
    "m4a-of-long-samples": ("m4a-aac", media_headers.mp4_of_long_samples, True),
    "mp4-of-long-samples": ("mp4-h264-aac", media_headers.mp4_of_long_samples, False),
    "mp4-of-long-headers": ("mp4-h264-aac", media_headers.mp4_of_long_headers, True),
    "mp4-of-slow-clocks": ("mp4-h264-aac", media_headers.mp4_of_slow_clocks, False),
    "ogg-opus": ("ogg-opus", media_headers.ogg_of_years, True),
    "ogg-vorbis": ("ogg-vorbis", media_headers.ogg_of_years, True),
    "mkv": ("mkv-h264-flac", media_headers.matroska_of_years, True),
    "webm": ("webm-vp9-opus", media_headers.matroska_of_years, True),
    "flv": ("flv-h264-bframes-aac", media_headers.flv_of_years, True),
    "flac": ("flac", media_headers.flac_of_years, True),
    "mp3": ("mp3-xing", media_headers.xing_of_years, True),
    "wav": ("wav-s16", media_headers.wav_of_years, True),
    "avi": ("avi-mpeg4-mp3", media_headers.avi_of_years, True),
}
# The timestamps of the packets themselves claim it: windows are read, the whole is refused as too long.
PACKETS_LIE = {"m4a-of-long-samples", "mp4-of-long-samples", "ogg-vorbis"}

BOMBS = {
    "wide.png": lambda: media_headers.png(20_000, 20_000),
    "text.png": lambda: with_text(3_000_000),
    "texts.png": lambda: with_text(900_000, count=100),
    "claims.png": lambda: media_headers.png(2**31 - 1, 2**31 - 1, rows=bytes(100)),
}


def with_text(size: int, count: int = 1) -> bytes:
    """A picture of 8 x 8 pixels, grey 77, with compressed texts."""
    text = media_headers.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * size))
    return media_headers.png(8, 8, (b"\0" + bytes([77]) * 8) * 8, extra=text * count)


@pytest.fixture(scope="module")
def excessive(tmp_path_factory):
    """{name: (path, how reading it ended)} of the files of YEARS and BOMBS, read in little memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is limited as Linux does it")
    folder, files = tmp_path_factory.mktemp("excessive"), {}
    for name, (kind, change, _) in YEARS.items():
        files[name] = folder / (name + BY_NAME[kind].suffix)
        files[name].write_bytes(change(whole_file(BY_NAME[kind])))
    for name, make in BOMBS.items():
        files[name] = folder / name
        files[name].write_bytes(make())
    with Reader() as reader:
        return {name: (file, reader.read(file)) for name, file in files.items()}


@pytest.mark.parametrize("name", YEARS)
def test_a_duration_of_years_costs_neither_memory_nor_time(excessive, name):
    path, result = excessive[name]
    assert list_faults(result) == []
    end, text = result["ends"]["read_waveform"]
    assert path.name in text if end == "MediaError" else int(text.strip("(,)")) <= 7 * RATE


@pytest.mark.parametrize("name", sorted(YEARS.keys() - PACKETS_LIE))
def test_a_header_that_claims_years_is_not_believed(excessive, name):
    path, _ = excessive[name]
    assert probe_media(path).duration == pytest.approx(SECONDS, abs=0.1)
    kind = BY_NAME[YEARS[name][0]]
    if YEARS[name][2] and kind.audio:
        assert [tone for _, tone in heard(read_waveform(path, RATE))] == [pitch_of(beep) for beep in range(1, SECONDS)]


@pytest.mark.parametrize("name", [name for name, (_, _, whole) in YEARS.items() if whole])
def test_windows_of_a_file_that_claims_years_are_right(excessive, name):
    path, _ = excessive[name]
    kind = BY_NAME[YEARS[name][0]]
    assert [tone for _, tone in heard(read_waveform(path, RATE, 1.5, 3.5))] == [pitch_of(2), pitch_of(3)]
    if kind.video:
        assert shown(read_frames(path, 5, 1.02, 1.52)) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("name", BOMBS)
def test_pictures_that_explode_cost_neither_memory_nor_time(excessive, name):
    path, result = excessive[name]
    assert list_faults(result) == []
    for read in ("read_image", "read_frames") if name in ("wide.png", "claims.png") else ():
        end, text = result["ends"][read]
        assert end == "MediaError" and path.name in text


def test_a_picture_with_a_long_text_is_shown_or_refused():
    picture = only_media_error(lambda: read_image(with_text(3_000_000)))
    assert picture is None or picture.getpixel((4, 4)) == (77, 77, 77)


def test_warnings_of_pillow_that_are_errors_do_not_leave(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    warnings.simplefilter("error")
    only_media_error(lambda: read_image(media_headers.png(8, 8, (b"\0" + bytes([77]) * 8) * 8)))


def test_limits_are_sane_and_cannot_be_changed():
    assert 3600 <= LIMITS.max_seconds <= 7 * 24 * 3600
    assert 8192 * 4320 <= LIMITS.max_pixels <= 2 * 89_478_485  # at least 8K, at most what Pillow reads
    assert 10_000 <= LIMITS.max_frames <= 100_000_000
    with pytest.raises(FrozenInstanceError):
        LIMITS.max_seconds = 1.0


def test_limit_of_seconds(tmp_path):
    path = write_media(tmp_path / "clip.mp4", BY_NAME["mp4-h264-aac"])
    limits = limited(max_seconds=2.0)
    for read in (
        lambda: read_waveform(path, RATE, limits=limits),
        lambda: read_waveform(path, RATE, 1.0, 3.5, limits=limits),
        lambda: read_frames(path, 4, limits=limits),
        lambda: read_frames(path, 4, 1.0, 3.5, limits=limits),
        lambda: read_waveform(path, RATE, 0.0, 1e9),
        lambda: read_waveform(path, RATE, 0.0, float("inf")),
    ):
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            read()
    with pytest.raises(MediaError, match="max_seconds"):
        read_waveform(path, RATE, limits=limits)
    assert len(read_waveform(path, RATE, 4.0, 6.0, limits=limits)) == 2 * RATE
    assert shown(read_frames(path, 10, 4.02, 5.02, limits=limits)) == [*range(40, 50)]


def test_limit_of_pixels(tmp_path):
    path = write_media(tmp_path / "clip.mp4", BY_NAME["mp4-h264-aac"])
    with pytest.raises(MediaError, match=r"clip\.mp4.*max_pixels"):
        read_frames(path, 2, limits=limited(max_pixels=64 * 48 - 1))
    assert len(read_frames(path, 4, limits=limited(max_pixels=64 * 48))) == 4
    with pytest.raises(MediaError, match=r"clip\.mp4.*max_pixels"):
        read_frames(path, 1, size=(200_000, 200_000))
    (tmp_path / "wide.png").write_bytes(media_headers.png(300, 300))
    with pytest.raises(MediaError, match=r"wide\.png.*max_pixels"):
        read_image(tmp_path / "wide.png", limits=limited(max_pixels=80_000))
    assert read_image(tmp_path / "wide.png", limits=limited(max_pixels=90_000)).size == (300, 300)


def test_limit_of_frames(tmp_path):
    path = write_media(tmp_path / "clip.mp4", BY_NAME["mp4-h264-aac"])
    with pytest.raises(MediaError, match=r"clip\.mp4.*max_frames"):
        read_frames(path, 50, limits=limited(max_frames=20))
    with pytest.raises(MediaError, match=r"clip\.mp4.*max_frames"):
        read_frames(path, LIMITS.max_frames + 1)
    kind = replace(BY_NAME["mp4-h264-aac"], options={**H264, "g": "60", "sc_threshold": "0"})
    long_group = write_media(tmp_path / "long.mp4", kind)
    with pytest.raises(
        MediaError, match=r"long\.mp4.*more than max_frames=20 would be decoded; choose a shorter window"
    ):
        read_frames(long_group, 2, 4.02, 4.52, limits=limited(max_frames=20))
    assert shown(read_frames(long_group, 2, 1.02, 1.22, limits=limited(max_frames=20))) == [10, 11]
    assert shown(read_frames(path, 5, 4.02, 4.52, limits=limited(max_frames=20))) == [*range(40, 45)]


@pytest.mark.parametrize(
    "window", [(float("nan"), None), (0.0, float("nan")), (-1.0, 1.0), (2.0, 1.0), (1e300, None)], ids=str
)
def test_windows_that_are_none(tmp_path, window):
    path = write_media(tmp_path / "clip.mp4", BY_NAME["mp4-h264-aac"], seconds=2)
    for read in (lambda: read_frames(path, 2, *window), lambda: read_waveform(path, RATE, *window)):
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            read()


NAMES = [os.fsdecode(b"caf\xe9.mp4"), "nul\0.mp4", "lone\udc80.mp4", "x" * 300 + ".mp4", "", "."]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_file_names_that_cannot_be_opened(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for read in (probe_media, read_image, lambda path: read_frames(path, 1), lambda path: read_waveform(path, RATE)):
        with pytest.raises(MediaError):
            read(name)


def test_a_file_whose_name_is_not_utf_8_is_read_or_refused(tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp4")
    try:
        write_media(tmp_path / "clip.mp4", BY_NAME["mp4-h264-aac"], seconds=1).rename(name)
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    for read in (probe_media, read_image, lambda path: read_frames(path, 1), lambda path: read_waveform(path, RATE)):
        only_media_error(lambda: read(name))  # noqa: B023


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "http:clip.mp4", "50%.mp4", "clip%03d.mp4", "-i.mp4", "[1] a?*.mp4", "ü ✓.mp4"]
)
def test_file_names_that_look_like_something_else(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(media_bytes(BY_NAME["mp4-h264-aac"], seconds=1))
    assert probe_media(name).has_video
    assert shown(read_frames(name, 2, 0.22, 0.42)) == [2, 3]
    assert isinstance(read_waveform(name, RATE), torch.Tensor)


LISTS = {
    "concat": "ffconcat version 1.0\nfile other.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration='
    '"PT1S"><Period><AdaptationSet><Representation id="0" bandwidth="1"><BaseURL>other.mp4</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "web-page": "<html></html>",
    "blank": "\n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_texts_and_lists_of_other_files_are_refused(tmp_path, monkeypatch, kind):
    """No file makes another one be read."""
    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "other.mp4", BY_NAME["mp4-h264-aac"], seconds=1)
    (tmp_path / "text.mp4").write_text(LISTS[kind])
    for source in ("text.mp4", LISTS[kind].encode()):
        for read in (lambda: read_frames(source, 1), lambda: read_waveform(source, RATE), lambda: read_image(source)):  # noqa: B023
            with pytest.raises(MediaError, match=r"text\.mp4|bytes"):
                read()


def test_errors_are_sentences_without_numbers(tmp_path):
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    for name, cause in (
        ("noise.mp4", "Invalid data found when processing input"),
        ("no.mp4", "No such file or directory"),
    ):
        with pytest.raises(MediaError) as caught:
            read_frames(tmp_path / name, 1)
        assert str(caught.value) == f"{tmp_path / name} cannot be decoded at 0 s to its end: {cause}."


@pytest.mark.parametrize("read", [lambda file: read_frames(file, 1), lambda file: read_waveform(file, RATE)])
def test_files_are_closed_and_those_of_the_caller_left_open(tmp_path, monkeypatch, read):
    path = write_media(tmp_path / "clip.mp4", BY_NAME["mp4-h264-aac"], seconds=1)
    opened = []
    monkeypatch.setattr(
        "builtins.open", lambda *args, real=open, **kwargs: opened.append(real(*args, **kwargs)) or opened[-1]
    )
    read(path)
    (tmp_path / "noise.mp4").write_bytes(bytes(1000))
    only_media_error(lambda: read(tmp_path / "noise.mp4"))
    assert len(opened) >= 2 and all(file.closed for file in opened)
    with path.open("rb") as file:
        read(file)
        assert torch.equal(read(file), read(path)) and not file.closed
