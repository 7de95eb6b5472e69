"""Changes to the headers of media files: durations of years, unknown codecs, display matrices, PNG files by hand."""

import struct
import zlib

YEARS = 2**31 - 1  # of a unit of time, in the fields of 32 bits


def overwrite(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def places(data: bytes, mark: bytes) -> list[int]:
    """Where the bytes behind each occurrence of `mark` begin."""
    found = [place for place in range(len(data)) if data.startswith(mark, place)]
    assert found, f"the file has no {mark!r}"
    return [place + len(mark) for place in found]


def every(data: bytes, mark: bytes, behind: int, new: bytes) -> bytes:
    """`new` written `behind` bytes after each occurrence of `mark`."""
    for place in places(data, mark):
        data = overwrite(data, place + behind, new)
    return data


def mp4_of_long_samples(data: bytes) -> bytes:
    """The last samples of each track last for years (a flipped bit of `stts`)."""
    for place in places(data, b"stts"):
        entries = struct.unpack(">I", data[place + 4 : place + 8])[0]
        data = overwrite(data, place + 8 * entries + 4, struct.pack(">I", YEARS))
    return mp4_of_long_headers(data)


def mp4_of_long_headers(data: bytes) -> bytes:
    """The film, its tracks and its media are said to last for years (version 0 of the boxes)."""
    for mark, behind in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16), (b"elst", 8)):
        data = every(data, mark, behind, struct.pack(">I", YEARS))
    return data


def mp4_of_slow_clocks(data: bytes) -> bytes:
    """A tick of each track's clock lasts a second."""
    return every(data, b"mdhd", 12, struct.pack(">I", 1))


def ogg_of_years(data: bytes) -> bytes:
    """The last page ends after 2^50 samples, and its checksum is right."""
    page = data.rfind(b"OggS")
    data = overwrite(data, page + 6, struct.pack("<q", 2**50) + data[page + 14 : page + 22] + bytes(4))
    return overwrite(data, page + 22, struct.pack("<I", ogg_checksum(data[page:])))


def ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = checksum << 1 ^ (0x104C11DB7 if checksum & 1 << 31 else 0)
    return checksum


def matroska_of_years(data: bytes) -> bytes:
    return every(data, b"\x44\x89\x88", 0, struct.pack(">d", 1e14))


def flv_of_years(data: bytes) -> bytes:
    return every(data, b"\x00\x08duration\x00", 0, struct.pack(">d", 1e11))


def flac_of_years(data: bytes) -> bytes:
    """2^36 - 1 samples: the low half of byte 13 of STREAMINFO and the four behind it."""
    place = data.index(b"fLaC") + 8 + 13
    return overwrite(data, place, bytes([data[place] | 15]) + b"\xff" * 4)


def xing_of_years(data: bytes) -> bytes:
    return every(data, b"Info" if b"Info" in data else b"Xing", 4, struct.pack(">I", YEARS))


def wav_of_years(data: bytes) -> bytes:
    """Both sizes are the greatest, as of a recorder that broke off."""
    return every(every(data, b"RIFF", 0, b"\xff" * 4), b"data", 0, b"\xff" * 4)


def avi_of_years(data: bytes) -> bytes:
    """`dwTotalFrames` and `dwLength` of each stream."""
    data = every(data, b"avih", 4 + 16, struct.pack("<I", YEARS))
    return every(data, b"strh", 4 + 32, struct.pack("<I", YEARS))


def rename_codec(data: bytes, old: bytes, new: bytes, configuration: bytes, track: int = 0) -> bytes:
    """An MP4 whose sample entry `old` has another name, and its decoder's configuration one that says nothing.

    Args:
        track: which of the entries of this name.
    """
    data = overwrite(data, sample_entry(data, old, track), new)
    return overwrite(data, places(data, configuration)[track] - 4, b"free")


def sample_entry(data: bytes, name: bytes, track: int) -> int:
    entries = [place + 12 for place in places(data, b"stsd") if data.startswith(name, place + 12)]
    return entries[track]


def turned(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 whose tracks are shown by the display matrix (a, b, c, d): (x, y) goes to (a·x + c·y, b·x + d·y)."""
    a, b, c, d = (value << 16 for value in matrix)
    return every(data, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes | None = None, depth=8, colours=0, extra: bytes = b"") -> bytes:
    """A PNG file.

    Args:
        rows: its pixels, a byte 0 in front of each row; None: black, of one bit, packed without ever being unpacked.
        depth, colours: bits of a sample and colour type (0 grey, 2 RGB, 4 grey with alpha).
        extra: chunks in front of the pixels.
    """
    if rows is None:
        depth, packer = 1, zlib.compressobj(9)
        row = bytes(1 + (width + 7) // 8)
        packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    else:
        packed = zlib.compress(rows)
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    chunks = png_chunk(b"IHDR", head) + extra + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
