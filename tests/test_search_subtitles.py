from fractions import Fraction

import av
import pytest
from helpers import write_video

from fgmm_tools.search.subtitles import CaptionFileError, decode_packet, find_beside, make_expression, read_cues

SRT = "1\n00:00:00,500 --> 00:00:01,500\nTwo <i>eggs</i>\n\n2\n00:00:01,600 --> 00:00:09,000\ninto a bowl\n"


def test_caption_files_beside(tmp_path):
    def find(*names, media="clip.mp4"):
        found = find_beside(tmp_path / media, list(names))
        return found and found.name

    assert find("clip.srt", "clip.vtt", "other.srt") == "clip.srt"
    assert find("clip.mp4.vtt") == "clip.mp4.vtt" and find("clip.en.vtt") == "clip.en.vtt"
    assert find("clip.pt-BR.srt", "clip.srt") == "clip.srt"
    assert find("clip.info.json") is None and find("clip.json") == "clip.json"
    assert find("clip2.srt", "clip.old.version.srt", "Clip.txt") is None
    assert find("a[1].srt", media="a[1].mp4") == "a[1].srt"


def test_captions_end_with_the_file(tmp_path):
    (tmp_path / "clip.srt").write_text(SRT)
    assert read_cues(tmp_path / "clip.mp4", tmp_path / "clip.srt", 3.0) == [
        (0.5, 1.5, "Two eggs"),
        (1.6, 3.0, "into a bowl"),
    ]
    (tmp_path / "clip.srt").write_text("no captions")
    with pytest.raises(CaptionFileError, match="no cue"):
        read_cues(tmp_path / "clip.mp4", tmp_path / "clip.srt", 3.0)


def test_captions_inside_a_file(tmp_path):
    path, plain = tmp_path / "clip.mkv", tmp_path / "plain.mp4"
    write_video(plain, seconds=3, sound=3.0)
    add_subtitles(plain, path, [(0.5, 1.0, "two eggs"), (1.8, 0.7, "into a bowl")])
    cues = read_cues(path, None, 3.0)
    assert [text for _, _, text in cues] == ["two eggs", "into a bowl"]
    assert cues[0][0] == pytest.approx(0.5, abs=0.1) and cues[1][1] == pytest.approx(2.5, abs=0.1)


def test_a_file_without_captions(tmp_path):
    assert read_cues(write_video(tmp_path / "clip.mp4"), None, 2.0) == []
    (tmp_path / "damaged.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(100))
    assert read_cues(tmp_path / "damaged.mkv", None, 2.0) == []
    assert read_cues(tmp_path / "photo.jpg", None, None) == []


def add_subtitles(source, target, cues) -> None:
    """Copies a file and adds a stream of ASS, which PyAV can write: (start, length, text), s."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        streams = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        subtitles = write.add_stream("ass")
        subtitles.time_base = Fraction(1, 1000)
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                write.mux(packet)
        for number, (start, length, text) in enumerate(cues):
            packet = av.Packet(f"{number},0,Default,,0,0,0,,{{\\i1}}{text}".encode())
            packet.pts = packet.dts = round(start * 1000)
            packet.duration, packet.time_base, packet.stream = round(length * 1000), Fraction(1, 1000), subtitles
            write.mux(packet)


def test_packets_of_subtitles_as_texts():
    assert decode_packet(b"\x00\x08two eggs\x00\x00\x00\x0cstyl", "mov_text") == "two eggs"
    assert decode_packet(b"<i>two</i> {\\an8}eggs", "subrip") == "two eggs"
    assert decode_packet(b"3,0,Default,,0,0,0,,one, two\\Nthree", "ass") == "one, two three"


def test_words_of_a_query_are_no_operators():
    expression, words = make_expression('two eggs NEAR "a bowl" AND bowl')
    assert words == ["two", "eggs", "bowl"]  # near and the conjunction are function words
    assert expression == '"two" OR "eggs" OR "bowl"'
    assert make_expression("!!!") == ("", [])
