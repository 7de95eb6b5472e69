"""Pictures as they are to be shown: turned and mirrored, of pixels not square, of 16 bits, of the right stream."""

import io
from dataclasses import replace
from fractions import Fraction

import media_headers
import numpy as np
import pytest
import torch
from media_files import (
    BY_NAME,
    H264,
    MPEG,
    RATE,
    SECONDS,
    Kind,
    heard,
    media_bytes,
    picture_of,
    pitch_of,
    remux_together,
    shown,
    sine,
    whole_file,
)
from PIL import Image

from processing_fgmm.media_fgmm import probe_media, read_frames, read_image, read_waveform

# (a, b, c, d): the pixel at (x, y) is shown at (a·x + c·y, b·x + d·y); what ffmpeg's autorotate does to the picture.
MATRICES = {
    "upright": (1, 0, 0, 1),
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "turned-by-180": (-1, 0, 0, -1),
    "clockwise": (0, 1, -1, 0),
    "counterclockwise": (0, -1, 1, 0),
    "transposed": (0, 1, 1, 0),
    "transposed-over-the-other-diagonal": (0, -1, -1, 0),
}
EXIF = {
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    8: lambda picture: np.rot90(picture),
}
SILENT = Kind("mp4", ".mp4", "libx264", options={**H264, "crf": "8"})


@pytest.fixture(scope="module")
def checks() -> np.ndarray:
    """A picture (48, 64, 3) of 3 x 4 cells, no two of one grey, so that no turn looks like another."""
    cells = np.linspace(30, 225, 12).reshape(3, 4)
    return cells.repeat(16, 0).repeat(16, 1)[..., None].repeat(3, 2).astype(np.uint8)


def place(picture: np.ndarray, matrix) -> np.ndarray:
    """Each pixel (H, W, 3) put where the matrix says, by its definition."""
    a, b, c, d = matrix
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    target = np.zeros((y.max() + 1, x.max() + 1, 3), picture.dtype)
    target[y, x] = picture
    return target


def pixels(frame) -> np.ndarray:
    return frame.permute(1, 2, 0).numpy()


def assert_same(picture: np.ndarray, expected: np.ndarray, spare: float = 3) -> None:
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(float) - expected).mean() < spare


@pytest.mark.parametrize("turn", MATRICES)
def test_display_matrices_of_videos(checks, turn):
    data = media_headers.turned(media_bytes(SILENT, pictures=[checks] * 3), MATRICES[turn])
    expected = place(checks, MATRICES[turn])
    for frame in read_frames(data, 2):
        assert_same(pixels(frame), expected)
    assert_same(pixels(read_frames(data, 1, size=24)[0]), expected[::2, ::2], spare=6)
    assert read_frames(data, 1, size=(20, 30)).shape == (1, 3, 20, 30)


def test_a_display_matrix_of_nothing_leaves_the_picture(checks):
    data = media_headers.turned(media_bytes(SILENT, pictures=[checks] * 3), (0, 0, 0, 0))
    assert_same(pixels(read_frames(data, 1)[0]), checks)


@pytest.mark.parametrize("orientation", EXIF)
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_orientations_of_photos(checks, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    options = {"tiff": {}, "png": {}}.get(form, {"quality": 95})
    Image.fromarray(checks).save(file, format=form, exif=exif, **options)
    picture = read_image(file.getvalue())
    assert picture.mode == "RGB"
    assert_same(np.array(picture), EXIF[orientation](checks), spare=4)


ASPECTS = [Fraction(2), Fraction(1, 2), Fraction(16, 11), Fraction(8, 9)]


@pytest.mark.parametrize("aspect", ASPECTS, ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_pixels_that_are_not_square_are_shown_at_their_aspect(suffix, aspect):
    kind = replace(SILENT, suffix=suffix, pixel_aspect=aspect)
    data = media_bytes(kind, seconds=2)
    shape = 64 * aspect / 48  # width over height
    frames = read_frames(data, 4, 1.02, 1.42)
    assert shown(frames) == [10, 11, 12, 13]
    assert frames.shape[-1] / frames.shape[-2] == pytest.approx(float(shape), rel=0.02)
    small = read_frames(data, 2, size=24)
    assert min(small.shape[-2:]) == 24
    assert small.shape[-1] / small.shape[-2] == pytest.approx(float(shape), rel=0.03)
    assert read_frames(data, 1, size=(20, 30)).shape == (1, 3, 20, 30)


@pytest.mark.parametrize("aspect", [Fraction(256, 255), Fraction(63, 64)], ids=str)
def test_pixels_that_are_square_but_for_rounding_are_left(aspect):
    """What encoders write that round a width to whole pixels and keep the shape of the whole."""
    data = media_bytes(replace(SILENT, pixel_aspect=aspect), seconds=1)
    assert read_frames(data, 1).shape == (1, 3, 48, 64)
    assert torch.equal(read_frames(data, 2, size=33), read_frames(media_bytes(SILENT, seconds=1), 2, size=33))


def test_mpeg_2_says_the_aspect_of_its_picture_at_each_group():
    """A DVD's 16:9 in 64 x 48 pixels."""
    kind = Kind("vob", ".vob", "mpeg2video", None, 25, options=MPEG, pixel_aspect=Fraction(4, 3))
    frames = read_frames(media_bytes(kind, seconds=2), 4, 1.008, 1.168)
    assert shown(frames) == [25, 26, 27, 28]
    assert frames.shape[-1] / frames.shape[-2] == pytest.approx(16 / 9, rel=0.02)


def test_pixels_that_are_not_square_in_a_video_that_is_turned(checks):
    data = media_bytes(replace(SILENT, pixel_aspect=Fraction(2)), pictures=[checks] * 3)
    turned = media_headers.turned(data, MATRICES["clockwise"])
    frame = pixels(read_frames(turned, 1)[0])
    assert frame.shape[0] / frame.shape[1] == pytest.approx(2 * 64 / 48, rel=0.02)
    assert_same(pixels(read_frames(turned, 1, size=(64, 48))[0]), place(checks, MATRICES["clockwise"]))


@pytest.mark.parametrize("aspect", [Fraction(1), *ASPECTS], ids=str)
@pytest.mark.parametrize("turn", ["upright", "clockwise", "transposed"])
def test_the_size_that_is_probed_is_that_of_the_frames(checks, turn, aspect):
    data = media_bytes(replace(SILENT, pixel_aspect=aspect), pictures=[checks] * 3)
    data = media_headers.turned(data, MATRICES[turn])
    info = probe_media(data)
    assert (info.height, info.width) == tuple(read_frames(data, 1).shape[-2:])


@pytest.fixture(scope="module")
def ramp() -> np.ndarray:
    """(16, 64) of all depths of 16 bits."""
    return np.linspace(0, 65535, 16 * 64).round().astype(np.uint16).reshape(16, 64)


@pytest.mark.parametrize("form", ["png", "tiff", "pgm", "png-with-alpha"])
def test_grey_of_16_bits_is_scaled(ramp, form):
    file = io.BytesIO()
    if form == "png":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in ramp)
        file.write(media_headers.png(64, 16, rows, depth=16))
    elif form == "pgm":
        file.write(b"P5 64 16 65535\n" + ramp.astype(">u2").tobytes())
    elif form == "tiff":
        Image.fromarray(ramp).save(file, format="tiff")
    else:
        pairs = np.stack([ramp, np.full_like(ramp, 65535)], -1)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pairs)
        file.write(media_headers.png(64, 16, rows, depth=16, colours=4))
    picture = np.array(read_image(file.getvalue()))
    assert picture.shape == (16, 64, 3)
    assert np.abs(picture - (ramp / 257)[..., None]).max() <= 1


def test_colours_of_16_bits_are_scaled(ramp):
    colours = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    picture = np.array(read_image(media_headers.png(64, 16, rows, depth=16, colours=2)))
    assert np.abs(picture - colours / 257).max() <= 1


def test_frames_of_16_bits_are_scaled(ramp):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in ramp)
    frame = pixels(read_frames(media_headers.png(64, 16, rows, depth=16), 1)[0])
    assert np.abs(frame - (ramp / 257)[..., None]).max() <= 2


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_goes_from_black_to_white(depth):
    row = bytes([0b00011011 if depth == 2 else 0x0F])
    picture = np.array(read_image(media_headers.png(8 // depth, 1, b"\0" + row, depth=depth)))[0, :, 0]
    expected = {1: [0] * 4 + [255] * 4, 2: [0, 85, 170, 255], 4: [0, 255]}[depth]
    assert picture.tolist() == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_streams_marked_default_are_read(suffix):
    kind = replace(BY_NAME["mkv-h264-flac" if suffix == ".mkv" else "mp4-h264-aac"], suffix=suffix)
    grey = [np.full((48, 64, 3), 128, np.uint8)] * 60
    decoys = media_bytes(kind, pictures=grey, sound=sine(3000, SECONDS, 44100))
    files = [decoys, whole_file(kind)]
    wanted = [pitch_of(second) for second in range(1, SECONDS)]
    marked = remux_together(files, kind, default=1)
    assert shown(read_frames(marked, 10, 2.02, 3.02)) == [*range(20, 30)]
    assert [tone for _, tone in heard(read_waveform(marked, RATE))] == pytest.approx(wanted, abs=8)
    first = remux_together(files[::-1], kind, default=0)
    assert shown(read_frames(first, 10, 2.02, 3.02)) == [*range(20, 30)]
    assert [tone for _, tone in heard(read_waveform(first, RATE))] == pytest.approx(wanted, abs=8)


def test_the_default_stream_has_the_size_and_rate_that_are_probed():
    kind, wide = BY_NAME["mkv-h264-flac"], np.full((96, 64, 3), 128, np.uint8)
    decoys = media_bytes(replace(kind, sound_rate=22050), pictures=[wide] * 60)
    info = probe_media(remux_together([decoys, whole_file(kind)], kind, default=1))
    assert (info.height, info.width, info.audio_rate) == (48, 64, 44100)


def test_without_a_mark_the_first_streams_are_read():
    kind = BY_NAME["mkv-h264-flac"]
    grey = [np.full((48, 64, 3), 128, np.uint8)] * 60
    decoys = media_bytes(kind, pictures=grey, sound=sine(3000, SECONDS, 44100))
    data = remux_together([whole_file(kind), decoys], kind, default=9)
    assert shown(read_frames(data, 10, 2.02, 3.02)) == [*range(20, 30)]
    assert len(heard(read_waveform(data, RATE))) == SECONDS - 1


def test_the_picture_of_a_frame_is_what_was_painted():
    frame = pixels(read_frames(media_bytes(SILENT, seconds=1), 1, 0.52, 0.62)[0])
    assert_same(frame, picture_of(5, False))
