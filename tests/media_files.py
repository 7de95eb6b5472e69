"""Small media files made with PyAV in which every frame and every beep is known, and how to read them back.

A picture shows its frame number in eight black or white cells, and a white strip below them while a beep sounds. Beep
k begins at second k, lasts 0.2 s and has the pitch 400 + 200·k Hz, so that a window of sound tells where it is from.
"""

import io
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import av
import numpy as np
import pytest
import torch
from av.codec.codec import Codec, UnknownCodecError
from av.stream import Disposition

SECONDS = 6
SIZE = (64, 48)  # width and height, pixels
BEEP = 0.2  # seconds
LOUDNESS = 0.5  # amplitude of the sines
DARK, BRIGHT = 30, 225
RATE = 16000  # Hz, at which tests read sound
MP3_DELAY = 1105 / 44100  # seconds that libmp3lame and its decoder put before the sound


@dataclass(frozen=True, eq=False)
class Kind:
    """A container with its codecs; `video` or `audio` is None where there is none."""

    name: str
    suffix: str
    video: str | None = None
    audio: str | None = None
    rate: int = 10  # frames a second
    sound_rate: int = 44100  # Hz
    layout: str = "stereo"
    format: str | None = None  # of the container, where the suffix does not tell it
    pixel_format: str = "yuv420p"
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel over its height
    options: dict = field(default_factory=dict)  # of the video encoder
    sound_options: dict = field(default_factory=dict)
    container_options: dict = field(default_factory=dict)
    sound_delay: float = 0.0  # seconds; AVI fills up with an empty frame where sound begins before 0

    def __str__(self):
        return self.name


H264 = {"g": "10", "bf": "0", "crf": "18"}
B_FRAMES = {"g": "20", "bf": "2", "crf": "18"}
MPEG = {"g": "12", "bf": "2", "b": "2M"}
NO_B = {"g": "10", "b": "1M"}
VPX = {"g": "10", "cpu-used": "8", "deadline": "realtime"}
VBR = {"flags": "+qscale", "global_quality": str(2 * 118)}
NO_XING = {"write_xing": "0"}
KINDS = [
    Kind("mp4-h264-aac", ".mp4", "libx264", "aac", options=H264),
    Kind("mp4-h264-bframes-aac", ".mp4", "libx264", "aac", options=B_FRAMES),
    Kind("mp4-hevc-aac", ".mp4", "libx265", "aac", options={"x265-params": "keyint=20:bframes=3:log-level=none"}),
    Kind("mp4-fragmented", ".mp4", "libx264", "aac", options=H264, container_options={"movflags": "frag_keyframe"}),
    Kind("mov-prores-pcm", ".mov", "prores_ks", "pcm_s16le", pixel_format="yuv422p10le"),
    Kind("3gp-h263-amr", ".3gp", "h263", "libopencore_amrnb", sound_rate=8000, layout="mono", options=NO_B),
    Kind("mkv-h264-bframes-opus", ".mkv", "libx264", "libopus", sound_rate=48000, options=B_FRAMES),
    Kind("mkv-h264-flac", ".mkv", "libx264", "flac", options=H264),
    Kind("webm-vp9-opus", ".webm", "libvpx-vp9", "libopus", sound_rate=48000, options=VPX),
    Kind("webm-vp8-vorbis", ".webm", "libvpx", "vorbis", options=VPX),
    Kind("avi-mpeg4-mp3", ".avi", "mpeg4", "libmp3lame", options=NO_B, sound_delay=MP3_DELAY),
    Kind("avi-mpeg4-bframes-mp3", ".avi", "mpeg4", "libmp3lame", options={**MPEG, "b": "1M"}, sound_delay=MP3_DELAY),
    Kind("avi-h264-mp3", ".avi", "libx264", "libmp3lame", options=H264, sound_delay=MP3_DELAY),
    Kind("avi-h264-silent", ".avi", "libx264", options=H264),
    Kind("avi-h264-bframes-pcm", ".avi", "libx264", "pcm_s16le", options=B_FRAMES),
    Kind("avi-h264-bframes-silent", ".avi", "libx264", options=B_FRAMES),
    Kind("avi-mjpeg-pcm", ".avi", "mjpeg", "pcm_s16le", pixel_format="yuvj420p"),
    Kind("mpg-mpeg2-mp2", ".mpg", "mpeg2video", "mp2", 25, format="vob", options=MPEG),
    Kind("mpg-mpeg1-mp2", ".mpg", "mpeg1video", "mp2", 25, format="mpeg", options=MPEG),
    Kind("vob-mpeg2-ac3", ".vob", "mpeg2video", "ac3", 25, 48000, options=MPEG),
    Kind("ts-h264-bframes-aac", ".ts", "libx264", "aac", options=B_FRAMES),
    Kind("ts-mpeg2-mp2", ".ts", "mpeg2video", "mp2", 25, options=MPEG),
    Kind("flv-h264-bframes-aac", ".flv", "libx264", "aac", options=B_FRAMES),
    Kind("flv-flv1-mp3", ".flv", "flv", "libmp3lame", options=NO_B),
    Kind("wmv-wmv2-wma", ".wmv", "wmv2", "wmav2", options=NO_B, sound_options={"b": "128k"}),
    Kind("gif", ".gif", "gif", pixel_format="rgb8"),
    Kind("ogg-opus", ".ogg", None, "libopus", sound_rate=48000),
    Kind("ogg-vorbis", ".ogg", None, "vorbis"),
    Kind("mp3-xing", ".mp3", None, "libmp3lame"),
    Kind("mp3-no-xing", ".mp3", None, "libmp3lame", container_options=NO_XING),
    Kind("mp3-vbr-no-xing", ".mp3", None, "libmp3lame", sound_options=VBR, container_options=NO_XING),
    Kind("m4a-aac", ".m4a", None, "aac"),
    Kind("m4a-alac", ".m4a", None, "alac"),
    Kind("adts-aac", ".aac", None, "aac"),
    Kind("flac", ".flac", None, "flac"),
    Kind("wav-u8", ".wav", None, "pcm_u8", sound_rate=16000, layout="mono"),
    Kind("wav-s16", ".wav", None, "pcm_s16le"),
    Kind("wav-s24", ".wav", None, "pcm_s24le", sound_rate=48000),
    Kind("wav-s32", ".wav", None, "pcm_s32le"),
    Kind("wav-f32", ".wav", None, "pcm_f32le", sound_rate=22050),
    Kind("aiff", ".aiff", None, "pcm_s16be"),
    Kind("wma", ".wma", None, "wmav2", sound_options={"b": "128k"}),
    Kind("amr", ".amr", None, "libopencore_amrnb", sound_rate=8000, layout="mono"),
]
FILL = {"m4a-alac": 0x00}  # a byte that the decoder refuses; 0xFF elsewhere
BY_NAME = {kind.name: kind for kind in KINDS}
FORMATS = {".mkv": "matroska", ".ts": "mpegts", ".aac": "adts", ".m4a": "ipod", ".wmv": "asf", ".wma": "asf"}


def picture_of(index: int, flash: bool, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The picture (H, W, 3) of frame number `index`, 0 to 255."""
    cells = np.array([index >> bit & 1 for bit in range(8)] + [flash] * 4, dtype=bool).reshape(3, 4)
    cells = cells.repeat(size[1] // 3, 0).repeat(size[0] // 4, 1)
    return np.where(cells, BRIGHT, DARK).astype(np.uint8)[..., None].repeat(3, 2)


def shown(frames: torch.Tensor) -> list[int | None]:
    """The frame numbers that pictures (T, 3, H, W) show; None where no clear number is seen."""
    return [index for index, _ in map(read_cells, frames)]


def flashes(frames: torch.Tensor) -> list[bool]:
    """Whether each of the pictures (T, 3, H, W) was shown while a beep sounded."""
    return [flash for _, flash in map(read_cells, frames)]


def read_cells(frame: torch.Tensor) -> tuple[int | None, bool]:
    height, width = frame.shape[-2:]
    grey = frame.float().mean(0)
    rows = [round(height * (row + 0.5) / 3) for row in range(3)]
    columns = [round(width * (column + 0.5) / 4) for column in range(4)]
    cells = [float(grey[row - 2 : row + 2, column - 2 : column + 2].mean()) for row in rows for column in columns]
    bright = [cell > 128 for cell in cells]
    clear = all(abs(cell - 128) > 40 for cell in cells)
    return (sum(bit << place for place, bit in enumerate(bright[:8])) if clear else None), bright[8]


def sine(pitch: float, seconds: float, rate: int) -> np.ndarray:
    """(samples,) of amplitude LOUDNESS."""
    return LOUDNESS * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def pitch_of(second: int) -> int:
    """Hz of the beep that begins at this second."""
    return 400 + 200 * second


def beeps(seconds: float, rate: int) -> np.ndarray:
    """The sound (samples,) of a file: beep k at second k, from 1 on, and silence between them."""
    wave = np.zeros(round(seconds * rate))
    for second in range(1, int(seconds)):
        wave[second * rate :][: round(BEEP * rate)] = sine(pitch_of(second), BEEP, rate)
    return wave


def heard(wave: torch.Tensor, rate: int = RATE) -> list[tuple[float, int]]:
    """(onset in s, pitch in Hz) of each sound of 0.1 s or more in (samples,)."""
    step = rate // 200
    power = wave[: len(wave) // step * step].reshape(-1, step).square().mean(1).sqrt().numpy()
    loud = np.concatenate([[False], power > 0.25 * LOUDNESS, [False]])
    edges = np.flatnonzero(loud[1:] != loud[:-1]).reshape(-1, 2) * step
    return [(begin / rate, pitch(wave[begin:end], rate)) for begin, end in edges if end - begin >= 0.1 * rate]


def pitch(wave: torch.Tensor, rate: int = RATE) -> int:
    """Hz at which the spectrum of (samples,) is highest."""
    return round(np.abs(np.fft.rfft(wave.numpy() * np.hanning(len(wave)), 4 * rate)).argmax() / 4)


def missing_of(kind: Kind) -> str | None:
    """What this build of FFmpeg lacks to write the kind."""
    for codec in filter(None, (kind.video, kind.audio)):
        try:
            Codec(codec, "w")
        except UnknownCodecError:
            return f"the encoder {codec}"
    known = format_of(kind)
    return None if known in av.formats_available else f"the container {known}"


def format_of(kind: Kind) -> str:
    return kind.format or FORMATS.get(kind.suffix, kind.suffix[1:])


def write_media(path, kind: Kind, seconds=SECONDS, offset=0.0, sound=None, pictures=None, sound_offset=None):
    """Writes a file of a kind; the test is skipped where this build of FFmpeg cannot.

    Args:
        path: or a file open for writing.
        seconds: of pictures and of sound.
        offset: presentation time of the first frame and the first sample, seconds.
        sound: (samples,) or (channels, samples) in place of the beeps.
        pictures: of the frames, (H, W, 3) each, in place of the numbered ones.
        sound_offset: of the sound alone, seconds, where it is another.

    Returns:
        the path.
    """
    if lacking := missing_of(kind):
        pytest.skip(f"this build of FFmpeg lacks {lacking}")
    file = path if hasattr(path, "write") else str(path)
    with av.open(file, "w", format=format_of(kind), options=kind.container_options) as container:
        video, audio = add_streams(container, kind, pictures)
        container.start_encoding()
        if video:
            encode_pictures(container, video, kind, seconds, offset, pictures)
        if audio:
            wave = beeps(seconds, kind.sound_rate) if sound is None else np.asarray(sound)
            start = offset if sound_offset is None else sound_offset
            encode_sound(container, audio, wave, start + kind.sound_delay)
    return path


@cache
def whole_file(kind: Kind) -> bytes:
    """The file of six seconds, made once."""
    return media_bytes(kind)


def media_bytes(kind: Kind, **arguments) -> bytes:
    """The file of [`write_media`] in memory."""
    file = io.BytesIO()
    write_media(file, kind, **arguments)
    return file.getvalue()


def add_streams(container, kind: Kind, pictures=None):
    """(video or None, audio or None)."""
    video = audio = None
    if kind.video:
        size = (176, 144) if kind.video == "h263" else SIZE  # one of the few that H.263 has
        video = container.add_stream(kind.video, rate=kind.rate, options=dict(kind.options))
        video.width, video.height = size if pictures is None else pictures[0].shape[1::-1]
        video.pix_fmt = kind.pixel_format
        if kind.pixel_aspect != 1:
            video.codec_context.sample_aspect_ratio = kind.pixel_aspect
    if kind.audio:
        options = {"strict": "experimental", **kind.sound_options}
        audio = container.add_stream(kind.audio, rate=kind.sound_rate, layout=kind.layout, options=options)
    return video, audio


def encode_pictures(container, stream, kind: Kind, seconds: float, offset: float, pictures) -> None:
    for index in range(round(seconds * kind.rate) if pictures is None else len(pictures)):
        flash = index >= kind.rate and index % kind.rate < BEEP * kind.rate
        size = (stream.width, stream.height)
        picture = picture_of(index, flash, size) if pictures is None else pictures[index]
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=kind.pixel_format)
        frame.pts, frame.time_base = index + round(offset * kind.rate), Fraction(1, kind.rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def encode_sound(container, stream, wave: np.ndarray, offset: float) -> None:
    context = stream.codec_context
    channels = context.layout.nb_channels
    wave = np.broadcast_to(wave, (channels, wave.shape[-1])).T.reshape(1, -1).astype(np.float32)
    resampler = av.AudioResampler(context.format, context.layout, context.sample_rate, context.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(wave, format="flt", layout=context.layout.name)
    frame.sample_rate, frame.pts = context.sample_rate, round(offset * context.sample_rate)
    frame.time_base = Fraction(1, context.sample_rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def remux(data: bytes, kind: Kind, keep) -> bytes:
    """The packets of a file for which `keep(packet)` holds, in a container of the kind, times as they were."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=format_of(kind)) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and keep(packet):
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    return file.getvalue()


def damage(kind, stream: str, first: float, length: float = 0.0, fill: int | None = None) -> bytes:
    """A file of the kind in which packets are overwritten by one byte.

    Args:
        stream: "video" or "audio".
        first: seconds from the stream's beginning; at least the next packet is damaged.
        length: seconds in which all packets are.
    """
    data, place, count = bytearray(whole_file(kind)), 0, 0
    fill = FILL.get(kind.name, 0xFF) if fill is None else fill
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(**{stream: 0}) if packet.size]
    for packet in packets:
        place = data.index(bytes(packet), place)
        time = float((packet.dts - packets[0].dts) * packet.time_base)
        if time >= first and (count == 0 or time < first + length):
            data[place : place + packet.size] = bytes([fill]) * packet.size
            count += 1
        place += packet.size
    return bytes(data)


def id3_tag(body: bytes) -> bytes:
    """An ID3v2.3 tag, as it stands at the beginning of MP3 files."""
    return b"ID3\x03\x00\x00" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


def remux_together(files: list[bytes], kind: Kind, default: int | None = None) -> bytes:
    """One container of the kind with the streams of all the files, pictures first.

    Args:
        default: number of the file whose streams are marked as those to play, and no other's; None: as they were.
    """
    file = io.BytesIO()
    with ExitStack() as stack:
        sources = [stack.enter_context(av.open(io.BytesIO(data))) for data in files]
        target = stack.enter_context(av.open(file, "w", format=format_of(kind), options=kind.container_options))
        streams = {}
        for stream_type in ("video", "audio"):
            for number, source in enumerate(sources):
                for stream in getattr(source.streams, stream_type):
                    streams[number, stream.index] = target.add_stream_from_template(stream)
                    if default is not None:
                        mark = Disposition.default if number == default else Disposition(0)
                        streams[number, stream.index].disposition = mark
        packets = [(number, packet) for number, source in enumerate(sources) for packet in source.demux()]
        packets = [(number, packet) for number, packet in packets if packet.dts is not None]
        for number, packet in sorted(packets, key=lambda pair: pair[1].dts * pair[1].time_base):
            packet.stream = streams[number, packet.stream_index]
            target.mux(packet)
    return file.getvalue()
