"""Media files with random damage, read in a process of their own that finds out how each call ends."""

import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL
from av.codec.codec import UnknownCodecError
from PIL import Image

from .cli import UserError

HANG = 10  # seconds of processor time after which a file is given up
STUCK = 120  # seconds after which it is in any case
MEMORY = 2 << 30  # bytes that reading may take beyond the libraries
RATE = 16000  # Hz of the waveforms that are read
EDGE = 4096  # bytes at the beginning and at the end, where containers describe themselves
EXTREMES = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\x80"]
PROGRESS = 500  # files between two lines of progress

# Files to render: (name, format of FFmpeg, video codec, audio codec); the name ends with the usual suffix.
CONTAINERS = [
    ("h264-aac.mp4", "mp4", "libx264", "aac"),
    ("hevc-aac.mp4", "mp4", "libx265", "aac"),
    ("prores-pcm.mov", "mov", "prores_ks", "pcm_s16le"),
    ("mpeg4-aac.3gp", "3gp", "mpeg4", "aac"),
    ("h264-flac.mkv", "matroska", "libx264", "flac"),
    ("vp9-opus.webm", "webm", "libvpx-vp9", "libopus"),
    ("vp8-vorbis.webm", "webm", "libvpx", "vorbis"),
    ("mpeg4-mp3.avi", "avi", "mpeg4", "libmp3lame"),
    ("h264-pcm.avi", "avi", "libx264", "pcm_s16le"),
    ("mjpeg-pcm.avi", "avi", "mjpeg", "pcm_s16le"),
    ("mpeg1-mp2.mpg", "mpeg", "mpeg1video", "mp2"),
    ("mpeg2-ac3.vob", "vob", "mpeg2video", "ac3"),
    ("h264-aac.ts", "mpegts", "libx264", "aac"),
    ("h264-aac.flv", "flv", "libx264", "aac"),
    ("wmv2-wma.wmv", "asf", "wmv2", "wmav2"),
    ("animation.gif", "gif", "gif", None),
    ("opus.ogg", "ogg", None, "libopus"),
    ("vorbis.ogg", "ogg", None, "vorbis"),
    ("mp3.mp3", "mp3", None, "libmp3lame"),
    ("aac.m4a", "ipod", None, "aac"),
    ("alac.m4a", "ipod", None, "alac"),
    ("aac.aac", "adts", None, "aac"),
    ("flac.flac", "flac", None, "flac"),
    ("pcm.wav", "wav", None, "pcm_s16le"),
    ("pcm.aiff", "aiff", None, "pcm_s16be"),
    ("wma.wma", "asf", None, "wmav2"),
]
IMAGES = ["photo.png", "photo.jpg", "photo.webp", "photo.tiff", "photo.bmp"]
PIXEL_FORMATS = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p", "gif": "rgb8"}
VIDEO_OPTIONS = {"libx265": {"x265-params": "log-level=none"}}
AUDIO_OPTIONS = {"strict": "experimental", "b": "128k"}
FRAME_RATE, SIZE = 25, (64, 48)


def render_files() -> dict[str, bytes]:
    """A second of moving noise and of rising tones in each container, and a picture in each image format, by name.

    Those whose encoder this build of FFmpeg lacks are left out.
    """
    files = {}
    for name, *codecs in CONTAINERS:
        try:
            files[name] = render_media(*codecs)
        except UnknownCodecError:
            continue
    for name in IMAGES:
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6  # turned
        Image.fromarray(make_picture(7)).save(file, format=Image.registered_extensions()[Path(name).suffix], exif=exif)
        files[name] = file.getvalue()
    return files


def render_media(container_format: str, video_codec: str | None, audio_codec: str | None) -> bytes:
    """One second in a container."""
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        video = audio = None
        if video_codec:
            video = container.add_stream(
                video_codec, rate=FRAME_RATE, options={"g": "10", **VIDEO_OPTIONS.get(video_codec, {})}
            )
            video.width, video.height = SIZE
            video.pix_fmt = PIXEL_FORMATS.get(video_codec, "yuv420p")
        if audio_codec:
            audio = container.add_stream(audio_codec, rate=48000, layout="stereo", options=AUDIO_OPTIONS)
        container.start_encoding()
        if video:
            encode_pictures(container, video)
        if audio:
            encode_sound(container, audio)
    return file.getvalue()


def make_picture(index: int) -> np.ndarray:
    """(H, W, 3) uint8 of noise, which moves with the index."""
    picture = np.random.default_rng(0).integers(256, size=(SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
    return np.roll(picture.repeat(8, 0).repeat(8, 1), 2 * index, 1)


def encode_pictures(container, stream) -> None:
    for index in range(FRAME_RATE):
        frame = av.VideoFrame.from_ndarray(make_picture(index), format="rgb24").reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def encode_sound(container, stream) -> None:
    context = stream.codec_context
    times = np.arange(context.sample_rate) / context.sample_rate
    wave = (0.5 * np.sin(2 * np.pi * (300 + 500 * times) * times)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = context.sample_rate, 0, Fraction(1, context.sample_rate)
    resampler = av.AudioResampler(context.format, context.layout, context.sample_rate, context.frame_size or 1024)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def mutate(data: bytes, seed) -> bytes:
    """The file with one to three kinds of damage, the same for the same seed (an integer or several)."""
    random = np.random.default_rng(seed)
    damaged = bytearray(data)
    for _ in range(random.integers(1, 4)):
        damage = MUTATIONS[random.integers(len(MUTATIONS))]
        damaged = damage(damaged, random) if damaged else damaged
    return bytes(damaged)


def some_place(data: bytearray, random: np.random.Generator) -> int:
    """Any byte; in every second case one of the headers."""
    area = random.integers(4)
    if area == 0:
        return int(random.integers(min(EDGE, len(data))))
    if area == 1:
        return int(random.integers(max(0, len(data) - EDGE), len(data)))
    return int(random.integers(len(data)))


def flip_bits(data: bytearray, random: np.random.Generator) -> bytearray:
    for _ in range(random.integers(1, 9)):
        data[some_place(data, random)] ^= 1 << random.integers(8)
    return data


def flip_many_bits(data: bytearray, random: np.random.Generator) -> bytearray:
    for place in random.integers(len(data), size=1 + len(data) // 500):
        data[place] ^= 1 << random.integers(8)
    return data


def write_extremes(data: bytearray, random: np.random.Generator) -> bytearray:
    for _ in range(random.integers(1, 4)):
        place = some_place(data, random)
        data[place : place + 4] = EXTREMES[random.integers(len(EXTREMES))][: len(data) - place]
    return data


def write_noise(data: bytearray, random: np.random.Generator) -> bytearray:
    place = some_place(data, random)
    size = min(int(random.integers(1, 300)), len(data) - place)
    data[place : place + size] = random.bytes(size)
    return data


def cut_off(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: some_place(data, random)]


def cut_out(data: bytearray, random: np.random.Generator) -> bytearray:
    place = some_place(data, random)
    del data[place : place + int(random.integers(1, 2000))]
    return data


def copy_block(data: bytearray, random: np.random.Generator) -> bytearray:
    source, target = some_place(data, random), some_place(data, random)
    block = data[source : source + int(random.integers(1, 2000))]
    end = target if random.integers(2) else target + len(block)  # put in between, or over what is there
    data[target:end] = block
    return data


MUTATIONS = [flip_bits, flip_many_bits, write_extremes, write_noise, cut_off, cut_out, copy_block]


class Reader:
    """A process of limited memory that reads files; where it dies or hangs, the next file gets a new one.

    A context manager. Only where memory is limited as Linux does it.
    """

    def __init__(self):
        self.process = self.pipe = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()  # so that its death is the end of the pipe
        self.pipe.recv()  # it has imported the libraries

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None

    def read(self, path: Path) -> dict:
        """Reads a file with every function.

        Returns:
            `{"ends": {function: (outcome, text)}, "seconds": {function: processor time}, "memory": bytes afterwards,
            "peak": bytes at most so far}`, where the outcome is "result" with its shape or text, or the name of an
            exception with its message; or `{"died": how}`.
        """
        if self.process is None:
            self.start()
        self.pipe.send(str(path))
        busy, deadline = processor_seconds(self.process.pid), time.monotonic() + STUCK
        while not self.pipe.poll(1):
            if processor_seconds(self.process.pid) - busy > HANG or time.monotonic() > deadline:
                self.stop()
                return {"died": f"hangs for more than {HANG} s"}
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join()
            status = self.process.exitcode
            self.stop()
            return {"died": f"dies with status {status}"}


def serve(pipe) -> None:
    """What the process of a [`Reader`] does: reads the files whose paths come in."""
    import resource  # only on Unix

    from processing_fgmm.media_fgmm import probe_media, read_frames, read_image, read_waveform

    reads = {
        "probe_media": probe_media,
        "read_frames": lambda path: read_frames(path, 3, size=32),
        "read_frames of a window": lambda path: read_frames(path, 2, 0.4, 0.9),
        "read_waveform": lambda path: read_waveform(path, RATE),
        "read_waveform of a window": lambda path: read_waveform(path, RATE, 0.4, 0.9),
        "read_image": lambda path: read_image(path).size,
    }
    resource.setrlimit(resource.RLIMIT_DATA, (status_bytes("VmData") + MEMORY, resource.RLIM_INFINITY))
    pipe.send(True)
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        ends, seconds = {}, {}
        for name, read in reads.items():
            began = time.process_time()
            ends[name] = call(read, path)
            seconds[name] = time.process_time() - began
        memory = {"memory": status_bytes("VmRSS"), "peak": status_bytes("VmHWM")}
        pipe.send({"ends": ends, "seconds": seconds, **memory})


def call(read, path: str) -> tuple[str, str]:
    """Calls a function: ("result", its shape or text), or the name and the message of its exception."""
    try:
        result = read(path)
    except Exception as error:  # which one it is is what is to be found out
        return type(error).__name__, str(error)
    return "result", str(tuple(result.shape)) if hasattr(result, "shape") else str(result)


def status_bytes(field: str) -> int:
    """A size from Linux' account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def list_faults(result: dict) -> list[str]:
    """What a result of [`Reader.read`] shows that may not be: another exception than MediaError, a crash, a hang."""
    if "died" in result:
        return [result["died"]]
    ends = result["ends"].items()
    return [f"{function}: {end}: {text}" for function, (end, text) in ends if end not in ("result", "MediaError")]


def processor_seconds(process_id: int) -> float:
    """Processor time that a process has taken so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def require_linux() -> None:
    """Raises a UserError where the memory of a process cannot be limited."""
    if not sys.platform.startswith("linux"):
        raise UserError("The memory of the reading process is limited as only Linux does it; run this on Linux.")


def read_given(paths: list[Path]) -> dict[str, bytes]:
    """The files and the files in the folders, by name.

    Raises:
        UserError: when there are none, or two of one name.
    """
    found = [
        file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()
    ]
    files = {file.name: file.read_bytes() for file in found}
    if not files or len(files) < len(found):
        raise UserError("--files names no file, or two of the same name; give files of different names.")
    return files


def fuzz(
    files: dict[str, bytes], mutations: int, keep: Path, seed: int = 0, first: int = 0, seconds: int | None = None
) -> list[dict]:
    """Damages the files in turn and reads each; prints faults and progress.

    Args:
        files: whole ones, by name.
        mutations: number of damaged files.
        keep: folder for damaged files that show a fault.
        seed: of the damage.
        first: number of the first damaged file: the damage depends on the seed and this number alone.
        seconds: after which no other file is read.

    Returns:
        what [`Reader.read`] gives for each, with "number" and "name".
    """
    names, started, results = sorted(files), time.monotonic(), []
    with Reader() as reader, tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + mutations):
            if seconds and time.monotonic() - started > seconds:
                break
            name = names[number % len(names)]
            path = Path(folder) / name
            path.write_bytes(mutate(files[name], [seed, number]))
            result = reader.read(path)
            results.append({**result, "number": number, "name": name})
            for fault in list_faults(result):
                keep.mkdir(parents=True, exist_ok=True)
                kept = shutil.copy(path, keep / f"{seed}-{number}-{name}")
                print(f"{kept} (--seed {seed} --first {number} --mutations 1): {fault}", flush=True)
            if len(results) % PROGRESS == 0:
                memory = max(result.get("memory", 0) for result in results[-PROGRESS:])
                print(f"{len(results)} files in {time.monotonic() - started:.0f} s, {memory >> 20} MB", flush=True)
    return results


def summarise(results: list[dict]) -> dict:
    """How many calls ended how, faults, the longest call (s of processor time) and the memory of the reading process
    (MB): the peak within a call, and the highest that was left after one for each tenth of the files, which shows
    whether it grows."""
    memory = [result["memory"] for result in results if "memory" in result]
    calls = [
        {"seconds": round(seconds, 2), "function": function, "number": result["number"], "name": result["name"]}
        for result in results
        for function, seconds in result.get("seconds", {}).items()
    ]
    ends = Counter(end for result in results for end, _ in result.get("ends", {}).values())
    return {
        "files": len(results),
        "files_by_name": dict(sorted(Counter(result["name"] for result in results).items())),
        "calls": len(calls),
        "calls_by_outcome": dict(ends.most_common()),
        "died": sum("died" in result for result in results),
        "faults": [
            {"number": result["number"], "name": result["name"], "fault": fault}
            for result in results
            for fault in list_faults(result)
        ],
        "longest_call": max(calls, key=lambda call: call["seconds"], default=None),
        "peak_memory_mb": max((result.get("peak", 0) for result in results), default=0) >> 20,
        "memory_left_mb_by_tenths": [int(part.max()) >> 20 for part in np.array_split(memory, 10) if len(part)],
    }


def find_versions() -> dict[str, str]:
    """Of the libraries that decode."""
    return {"av": av.__version__, "ffmpeg": av.ffmpeg_version_info, "pillow": PIL.__version__}
