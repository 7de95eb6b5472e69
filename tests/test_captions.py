"""Caption files as people have them: what each of them says, and when."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgmm_tools.corpora.captions import CaptionFileError, read_captions

# YouTube's captions roll: two lines, of which the lower is new, times of words, and a line of a blank.
YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:02.000 align:start position:0%
~
salt &amp;<00:00:00.500><c> pepper</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
salt &amp; pepper
~

00:00:02.010 --> 00:00:04.000 align:start position:0%
salt &amp; pepper
into<00:00:02.500><c> a</c><00:00:03.000><c> bowl</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
into a bowl
~

00:00:09.000 --> 00:00:10.000
into a bowl
""".replace("~", " ")

RECOGNISED = """WEBVTT

STYLE
::cue { color: red }

NOTE Confidence: 0.91

4f2b-cut/0
00:00:01.000 --> 00:00:03.000 position:10%,line-left
<v Ann>cut the red pepper</v>

NOTE
00:00:03.000 --> 00:00:04.000
an old cue

REGION
id:a

12
00:05.500 --> 00:06.000
<i.loud>x < 3 and y > 5</i> &lt;b&gt; a<b
00:06.000 --> 01:00:06.000
no empty line before
"""


@pytest.fixture
def read(tmp_path):
    """Reads text, bytes or data as a file of some name: (text, start, end) of each caption."""

    def read_file(name, content):
        content = content if isinstance(content, (str, bytes)) else json.dumps(content)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return [tuple(caption.values()) for caption in read_captions(tmp_path / name)]

    return read_file


def test_captions_that_roll_up_are_given_once(read):
    spoken = [("salt & pepper", 0.0, 2.0), ("into a bowl", 2.01, 4.0), ("into a bowl", 9.0, 10.0)]
    assert read("a.en.vtt", YOUTUBE) == spoken


def test_lines_that_are_said_twice_are_given_twice(read):
    cues = "WEBVTT\n\n00:01.000 --> 00:02.000\nstir\n\n00:02.000 --> 00:03.000\nstir\n"
    assert read("a.vtt", cues) == [("stir", 1.0, 2.0), ("stir", 2.0, 3.0)]


def test_webvtt_is_read_in_blocks(read):
    spoken = [
        ("cut the red pepper", 1.0, 3.0),
        ("x < 3 and y > 5 <b> a<b", 5.5, 6.0),
        ("no empty line before", 6.0, 3606.0),
    ]
    for ends in ("\n", "\r\n", "\r", "\r\r\n"):
        for mark in ("", "\ufeff"):
            assert read("a.vtt", mark + RECOGNISED.replace("\n", ends)) == spoken
    assert read("a.srt", RECOGNISED) == spoken  # of another ending


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("1\n00:00:01,500 --> 00:00:03,000\n<i>Crack</i> two\neggs\n", [("Crack two eggs", 1.5, 3.0)]),
        ("1\n00:00:01 --> 00:00:03\nstir\n\n2\n00:00:03 --> 0:0:4\nfold", [("stir", 1.0, 3.0), ("fold", 3.0, 4.0)]),
        ("00:00:01.5-->00:00:03,25 X1:10 Y1:20\n{\\an8}stir<br>it", [("stir it", 1.5, 3.25)]),
        ("1\r\r\n00:00:01,0 --> 00:00:03,0\r\r\nstir\r\r\n\r\r\n2\r\r\n00:00:03,0 --> 00:00:04,0\r\r\nfold", None),
        ("1\n\n00:00:01,0 --> 00:00:03,0\n\nstir\n\n2\n\n00:00:03,0 --> 00:00:04,0\n\nfold\n", None),
        ("1\n00:00:01,0 --> 00:00:03,0\nstir\n2\n00:00:03,0 --> 00:00:04,0\nfold\n", None),
        ("00:00:01,0 --> 00:00:03,0\n7\n\n00:00:03,0 --> 00:00:04,0\n42\n", [("7", 1.0, 3.0), ("42", 3.0, 4.0)]),
        ("1\n00:00:01,0 --> 00:00:03,0\na --> b\n\nx < 3 and y > 5\n", [("a --> b x < 3 and y > 5", 1.0, 3.0)]),
        ("1\n-00:00:01,0 --> 00:00:03,0\nstir\n\n2\n00:00:09,0 --> 00:00:04,0\n\n", [("stir", -1.0, 3.0)]),
        ('1\n100:00:01,000 --> 100:00:03,000\n<font color="red">stir</font>\n', [("stir", 360001.0, 360003.0)]),
        ("", []),
    ],
)
def test_srt_of_all_kinds_is_read(read, text, spoken):
    assert read("a.srt", text) == ([("stir", 1.0, 3.0), ("fold", 3.0, 4.0)] if spoken is None else spoken)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_are_told_apart(read, encoding):
    text = "1\n00:00:01,000 --> 00:00:02,000\nschäle zwei Äpfel – „süß“\n"
    assert read("a.German.srt", text.encode(encoding)) == [("schäle zwei Äpfel – „süß“", 1.0, 2.0)]
    assert read("a.txt", "Äpfel\n\n \nBirnen\n".encode(encoding)) == [("Äpfel", None, None), ("Birnen", None, None)]


@pytest.mark.parametrize(
    ("data", "spoken"),
    [
        ({"text": "", "segments": [{"id": 0, "start": 0.25, "end": 1, "text": " Stir. "}]}, [(" Stir. ", 0.25, 1)]),
        (
            {
                "text": "a b",
                "chunks": [{"text": "a", "timestamp": [0.0, 1.5]}, {"text": "b", "timestamp": [1.5, None]}],
            },
            [("a", 0.0, 1.5), ("b", 1.5, None)],
        ),
        ([{"text": "fold", "start": 1, "end": 2}], [("fold", 1, 2)]),
        ([{"text": "fold", "timestamp": [1.0, 2.0]}, {"text": None}], [("fold", 1.0, 2.0), (None, None, None)]),
        ({"text": "a dog", "segments": None}, [("a dog", None, None)]),
        ({"captions": ["a dog", "a cat"]}, [("a dog", None, None), ("a cat", None, None)]),
        ("a dog", [("a dog", None, None)]),
        ({"text": "", "segments": []}, []),
    ],
)
def test_json_of_speech_recognisers_is_read(read, data, spoken):
    content = json.dumps(data)
    assert read("a.json", content) == read("b.JSON", b"\xef\xbb\xbf" + content.encode()) == spoken


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", "stir the soup\n", "has no cue with a time line such as"),
        ("a.vtt", "WEBVTT\n\nNOTE nothing\n", "has no cue"),
        ("a.srt", b"\x81\x8d 1", "is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8"),
        ("a.vtt", b"\xff\xfeW", "is not text in UTF-8"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", {"title": "no captions"}, "holds no captions: neither segments nor chunks"),
        ("a.json", [1], "holds no captions"),
        ("a.json", {"segments": [{"start": 1}]}, "holds no captions"),
    ],
)
def test_what_holds_no_captions_is_said(read, name, content, message):
    with pytest.raises(CaptionFileError, match=message):
        read(name, content)


def test_files_that_cannot_be_opened_are_said(tmp_path):
    (tmp_path / "a.srt").symlink_to(tmp_path / "nothing.srt")
    (tmp_path / "b.srt").mkdir()
    for name, message in (("a.srt", "cannot be read: No such file"), ("b.srt", "cannot be read: Is a directory")):
        with pytest.raises(CaptionFileError, match=message):
            read_captions(tmp_path / name)


lines = st.sampled_from(
    ["", " ", "1", "2", "stir", "WEBVTT", "NOTE", "00:00:01,0 --> 00:00:02,0", "<c>a", "-->", "&lt;"]
)


@given(st.lists(lines, max_size=12), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([".srt", ".vtt"]))
def test_whatever_stands_in_a_file_each_time_line_with_words_is_a_caption(tmp_path_factory, lines, ends, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(ends.join(lines).encode())
    try:
        captions = read_captions(path)
    except CaptionFileError:
        captions = []
    assert len(captions) <= sum(" --> " in line for line in lines)
    for caption in captions:
        assert (caption["start"], caption["end"]) == (1.0, 2.0) and caption["text"].strip()
        assert "<c>" not in caption["text"] and "00:00" not in caption["text"]
