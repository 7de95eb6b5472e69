"""What the readers of benchmarks share, those for pretraining, and what the command makes of all of them."""

import pytest
from helpers import prepare, read, touch, write_esc50

from fgmm_tools.cli import UserError

# ---------------------------------------------------------------- what readers share
from fgmm_tools.corpora import parquet_shards, preparation
from fgmm_tools.corpora.benchmarks import BENCHMARKS
from fgmm_tools.corpora.benchmarks.layout import AUDIO, VIDEO, LayoutError, MediaFolder, readable_class, timed_captions
from processing_fgmm.corpora_fgmm import list_configs, load_corpus
from processing_fgmm.media_fgmm import probe_media


def test_every_benchmark_says_what_it_is_and_whether_it_may_be_passed_on():
    may = {name for name, benchmark in BENCHMARKS.items() if benchmark.redistributable}
    assert may == {"esc10", "esc50", "speech_commands"}
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name and benchmark.medium in parquet_shards.MEDIA
        assert may.isdisjoint([name]) == (benchmark.license_id == "other")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_empty_folder_is_an_error_of_one_sentence(name, tmp_path):
    with pytest.raises(LayoutError, match=r"^[^\n]+\.$"):
        prepare(name, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_class_names_become_words():
    names = {"BabyCrawling": "baby crawling", "YoYo": "yo yo", "brush_hair": "brush hair"}
    for name, words in {**names, "010 - Fire crackling": "fire crackling", "clock_tick": "clock tick"}.items():
        assert readable_class(name) == words


def test_media_are_found_whatever_their_endings(tmp_path):
    touch(tmp_path / "a" / "b", ["x.mov.MP4", "y.webm", "y.wav", "z.txt"])
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    videos, problems = MediaFolder(tmp_path / "a", VIDEO), []
    assert videos.find(problems, "x.mov").name == "x.mov.MP4"
    assert videos.find(problems, "none", "y.avi").suffix == ".webm"
    assert MediaFolder(tmp_path / "a" / "link", AUDIO).find(problems, "y").suffix == ".wav"
    assert not problems and videos.find(problems, "z") is None and problems == ["z is not in a"]


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (("a  b\nc", "1.5", 2), ("a b c", 1.5, 2.0)),
        (("a", 0, 1), ("a", 0.0, 1.0)),
        (("a", 2, 2), None),
        (("a", -1, 2), None),
        (("a", float("nan"), 2), None),
        (("a", 0, float("inf")), None),
        (("a", None, 2), None),
        (("a", "x", 2), None),
        (("  ", 1, 2), None),
        ((None, 1, 2), None),
    ],
)
def test_captions_without_words_or_times_are_named(row, kept):
    problems = []
    assert timed_captions("v7", [row], problems) == ((kept,) if kept else ())
    assert len(problems) == (kept is None) and all("v7" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "files", "named"),
    [
        ("msvd", ("YouTubeClips/a.avi", "AllVideoDescriptions.txt"), "AllVideoDescriptions.txt"),
        ("flickr8k", ("Flicker8k_Dataset/a.jpg", "Flickr8k_text/Flickr8k.token.txt"), "Flickr8k.token.txt"),
        ("speech_commands", ("yes/a.wav", "validation_list.txt"), "validation_list.txt"),
        ("hmdb51", ("hit_test_split1.txt",), "hit_test_split1.txt"),
    ],
)
def test_lists_that_are_no_text_are_named(name, files, named, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"\xff\xfe\x81")
    with pytest.raises(LayoutError, match=f"{named} is not a text in UTF-8"):
        read(name, tmp_path)


def test_a_transcript_that_is_no_text_is_left_out(put, tmp_path):
    put("s1/a.mp4")
    put("s1/b.mp4")
    put("align/s1/a.align", "0 10 hi\n")
    (tmp_path / "source" / "align" / "s1" / "b.align").write_bytes(b"\xff\xfe\x81")
    splits, _, problems = read("grid", tmp_path / "source")
    assert [item.video_id for item in splits["default"]["train"]] == ["s1_a"]
    assert len(problems) == 1 and "b.align is not a text" in problems[0]


# ---------------------------------------------------------------- pretraining


def write_howto100m(put, form):
    captions = {
        "one": {"start": [0.5, 3.0, 9.0], "end": [2.5, 5.0, 8.0], "text": ["hi there", "  ", "backwards"]},
        "gone": {"start": [0.0], "end": [1.0], "text": ["x"]},
    }
    if form == "json":
        put("caption.json", captions)
    else:
        put("HowTo100M_v1.csv", [["video_id", "task_id"], ["one", 3]])
        for name, columns in captions.items():
            rows = zip(columns["start"], columns["end"], columns["text"], strict=True)
            put(f"howto100m_csv/{name}.csv", [["start", "end", "text"], *rows])
    put("videos/one.mp4")
    put("videos/mute.mp4")


@pytest.mark.parametrize("form", ["json", "csv"])
def test_howto100m(form, put, tmp_path):
    write_howto100m(put, form)
    splits, _, problems = read("howto100m", tmp_path / "source")
    assert [item.captions for item in splits["default"]["train"]] == [(("hi there", 0.5, 2.5),)]
    assert sorted(problems) == [
        "gone is not in source",
        "mute has no captions",
        "one has a caption from 9.0 to 8.0 s",
        "one has a caption without text at 3.0 s",
    ]


def test_damaged_howto100m_is_named(put, tmp_path):
    put("caption.json", '{"one": {"start": [0.5], "end": [')
    put("videos/one.mp4")
    with pytest.raises(LayoutError, match=r"caption.json cannot be read as published"):
        read("howto100m", tmp_path / "source")


def write_didemo(put):
    for part in ("train", "val", "test"):
        put(f"{part}_data.json", [{"video": "a.mp4", "description": "a cat", "times": [[0, 0]]}])
    put("videos/a.mp4")


@pytest.mark.parametrize(
    ("name", "write", "file", "row", "problem"),
    [
        ("didemo", write_didemo, "train_data.json", '[{"video": "b.mp4"},', "entry 1 of train_data.json"),
        ("esc50", write_esc50, "meta/esc50.csv", "1,1-1-A-0.wav\n", "line 2 of esc50.csv"),
        ("howto100m", lambda put: write_howto100m(put, "json"), "caption.json", '{"b": {"text": ["a"]},', "b"),
    ],
)
def test_one_damaged_row_is_named_and_the_others_are_read(name, write, file, row, problem, put, tmp_path):
    write(put)
    whole = read(name, tmp_path / "source")
    path = tmp_path / "source" / file
    head, rest = path.read_text().split("\n", 1) if file.endswith(".csv") else ("", path.read_text()[1:])
    path.write_text(f"{head}\n{row}{rest}")
    splits, classes, problems = read(name, tmp_path / "source")
    assert (splits, classes) == whole[:2]
    assert any(text.startswith(f"{problem} is not as published") for text in problems)


ROLLING = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.000 align:start
~
salt &amp;<00:00:00.500><c> pepper</c>

00:00:02.000 --> 00:00:02.010 align:start
salt &amp; pepper
~

00:00:02.010 --> 00:00:04.000 align:start
salt &amp; pepper
into<00:00:03.000><c> a bowl</c>

00:00:09.000 --> 00:00:10.000
into a bowl
""".replace("~", " ")


def test_folder_end_to_end(put, tmp_path, capsys):
    put("a/first.mp4")
    put(
        "a/first.srt",
        "1\n00:00:01,500 --> 00:00:03,000\n<i>Crack</i> two\neggs\n\n2\n00:00:05,000 --> 00:00:04,000\nx\n",
    )
    put("b/first.mp4")  # the same name in another folder
    put(
        "b/first.json",
        {"text": "", "segments": [{"id": 0, "start": 0.25, "end": 1.0, "text": " Stir. "}, {"start": 2}]},
    )
    put("roll [x].mp4")
    put("roll [x].en.vtt", ROLLING)
    put("roll [x].info.json", {"title": "no captions"})
    put("list.mp4")
    put("list.json", [{"text": "fold", "start": 1, "end": 2}])
    put("list.vtt", "WEBVTT\n\n00:01.000 --> 00:02.500\nfirst of all\n")
    put("mute.mp4")
    put("two.mp4")
    put("two.en.vtt", ROLLING)
    put("two.de.vtt", ROLLING)
    put("broken.mp4")
    put("broken.json", "{")
    prepare("folder", tmp_path / "source", tmp_path / "out")
    captions = {
        row["video_id"]: [(caption["text"], caption["start"], caption["end"]) for caption in row["captions"]]
        for row in load_corpus(str(tmp_path / "out"), "train")
    }
    assert captions == {
        "a/first": [("Crack two eggs", 1.5, 3.0)],
        "b/first": [("Stir.", 0.25, 1.0)],
        "list": [("first of all", 1.0, 2.5)],
        "roll [x]": [("salt & pepper", 0.0, 2.0), ("into a bowl", 2.01, 4.0), ("into a bowl", 9.0, 10.0)],
    }
    row = next(iter(load_corpus(str(tmp_path / "out"), "train")))
    assert probe_media(row["video"]["bytes"]).duration == pytest.approx(0.5, abs=0.1)
    problems = read("folder", tmp_path / "source")[2]
    assert "4 train; 6 entries were skipped" in capsys.readouterr().out and len(problems) == 6
    for problem in (
        "a/first has a caption from 5.0 to 4.0 s",
        "b/first has a caption without text at 2 s",
        "mute.mp4 has no captions beside it (.srt, .vtt, .json)",
        "two.mp4 has captions in several languages, of which one is to be kept",
        "broken.mp4 has no caption that can be used",
    ):
        assert problem in problems


# ---------------------------------------------------------------- the command


def test_rows_that_stand_twice_or_are_too_large_are_left_out(put, tmp_path, capsys):
    put("one.mp4")
    put("one.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    put("one.webm", "")
    put("large.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    with (tmp_path / "source" / "large.mp4").open("wb") as file:
        file.truncate(2**31)  # a file of nothing, which takes no room
    prepare("folder", tmp_path / "source", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "1 train; 2 entries were skipped" in printed and "one stands there twice" in printed
    assert "large has more than 2 GB; cut it into pieces" in printed


def test_shards_are_smaller_where_media_are_large(put, tmp_path, media, monkeypatch):
    for index in range(6):
        put(f"{index}.mp4")
        put(f"{index}.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 2 * media[".mp4"].stat().st_size)
    prepare("folder", tmp_path / "source", tmp_path / "out")
    assert len(list((tmp_path / "out" / "data").iterdir())) == 3
    assert len(list(load_corpus(str(tmp_path / "out"), "train"))) == 6


def test_large_files_are_spread_over_shards(monkeypatch):
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 100)
    sizes = [90] * 4 + [1] * 396
    parts = parquet_shards.cut(list(range(400)), sizes)
    assert [item for part in parts for item in part] == list(range(400))
    assert max(sum(sizes[item] for item in part) for part in parts) < 100 + 90 and len(parts) <= 8
    assert [len(part) for part in parquet_shards.cut(list(range(512)), [0] * 512)] == [256, 256]
    assert all(parquet_shards.cut([1, 2, 3], [1000, 1, 1000]))


def test_media_of_other_sizes_are_not_written_beside_the_former(put, tmp_path, monkeypatch):
    for index in range(2):
        put(f"{index}.mp4")
        put(f"{index}.srt", "1\n00:00:01,500 --> 00:00:03,000\nhi\n")
    prepare("folder", tmp_path / "source", tmp_path / "out")
    monkeypatch.setattr(parquet_shards, "BYTES_PER_SHARD", 10)
    with pytest.raises(UserError, match="media of other sizes"):
        prepare("folder", tmp_path / "source", tmp_path / "out")


def test_official_splits_share_no_training_split_to_take_from(real_data, tmp_path):
    rows, noise = preparation.Rows(None, 5), preparation.Noise(None, None, 0, 0.0, 0)
    with pytest.raises(LayoutError, match="UCF101 has no training split of its own; leave out --skip"):
        preparation.prepare("ucf101", real_data / "ucf101", tmp_path / "out", rows, 1, noise)


def test_ucf101_end_to_end_stores_each_clip_once(real_data, tmp_path):
    prepare("ucf101", real_data / "ucf101", tmp_path / "out", limit=6)
    assert list_configs(str(tmp_path / "out")) == ["split1", "split2", "split3"]
    names = {}
    for config in ("split1", "split2", "split3"):
        for split in ("train", "test"):
            corpus = load_corpus(str(tmp_path / "out"), split, config)
            assert corpus.features["label"].names == ["baby crawling", "punch", "push ups"]
            names[config, split] = [row["video_id"] for row in corpus]
            assert len(names[config, split]) == {"train": 18, "test": 6}[split]
        assert len(set(names[config, "train"] + names[config, "test"])) == 24
    assert not set(names["split1", "test"]) & set(names["split2", "test"])
    assert len(list((tmp_path / "out" / "data").iterdir())) == 4
    assert "redistributed" in (tmp_path / "out" / "README.md").read_text()
