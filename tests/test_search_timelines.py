from pathlib import Path

import pytest

from fgmm_tools.cli import UserError
from fgmm_tools.search.candidates import ScoredWindow
from fgmm_tools.search.catalog import FileEntry, WindowEntry
from fgmm_tools.search.moments import Moment
from fgmm_tools.search.timelines import write_edl, write_otio
from fgmm_tools.search.times import format_time, to_timecode

ODD = 'Ünï "q" %20 #7\n😀.mp4'


def moment(name, start, end, kind="video", rate=25.0, duration=100.0):
    entry = WindowEntry(1, 1, 0, start, end, True, False, False, False, None, None)
    window = ScoredWindow(entry, 2.5, 2.5, 0.0)
    file = FileEntry(1, "/videos", name, kind, 1, 1, "0", duration, rate, "", None, None)
    return Moment(file, start, end, 2.5, [window], window, "two eggs")


MOMENTS = [
    moment("a.mp4", 3661.04, 3663.0, duration=4000.0),
    moment(ODD, 0.0, 2.5),
    moment("b.wav", 1.0, 1.5, "audio", None),
    moment("c.jpg", 0.0, 0.0, "image", None, None),
]
# (name, first second, length) as editing programs must see them.
EXPECTED = [("a.mp4", 3661.04, 1.96), (ODD, 0.0, 2.5), ("b.wav", 1.0, 0.5), ("c.jpg", 0.0, 5.0)]


def test_an_edl_is_read_by_opentimelineio(tmp_path):
    otio = pytest.importorskip("opentimelineio", reason="opentimelineio is of the extra search")
    if "cmx_3600" not in otio.adapters.available_adapter_names():
        pytest.skip("otio-cmx3600-adapter is not installed, which is of the extra test")
    assert write_edl(tmp_path / "found.edl", "two\neggs", MOMENTS) == []
    timeline = otio.adapters.read_from_file(str(tmp_path / "found.edl"), rate=25)
    assert timeline.name == "two eggs"
    clips = list(timeline.find_clips())
    spans = [(clip.source_range.start_time.to_seconds(), clip.source_range.duration.to_seconds()) for clip in clips]
    by_name = {clip.name: span for clip, span in zip(clips, spans, strict=True)}
    for name, start, length in EXPECTED:
        assert by_name[name.replace("\n", " ")] == pytest.approx((start, length), abs=0.021)


def test_the_events_of_an_edl(tmp_path):
    write_edl(tmp_path / "found.edl", "eggs", MOMENTS)
    lines = (tmp_path / "found.edl").read_text().splitlines()
    assert lines[:2] == ["TITLE: eggs", "FCM: NON-DROP FRAME"]
    assert lines[3] == "001  AX       V     C        01:01:01:01 01:01:03:00 00:00:00:00 00:00:01:24"
    assert lines[4:6] == ["* FROM CLIP NAME: a.mp4", "* SOURCE FILE: /videos/a.mp4"]
    assert lines[9].startswith("003  AX       A ")
    many = [MOMENTS[1]] * 1002
    assert "3 moments were left out" in write_edl(tmp_path / "many.edl", "eggs", many)[0]


@pytest.mark.parametrize("rate,whole", [(23.976, 24), (29.97, 30), (25.0, 25), (0.3, 1)])
def test_rates_of_edls_are_whole(tmp_path, rate, whole):
    write_edl(tmp_path / "found.edl", "eggs", [moment("a.mp4", 0.0, 2.0, rate=rate)])
    assert "00:00:02:00 00:00:00:00 00:00:02:00" in (tmp_path / "found.edl").read_text()
    assert to_timecode(1 - 1 / whole, whole) == f"00:00:00:{whole - 1:02d}"


def test_a_timeline_is_read_by_opentimelineio(tmp_path):
    otio = pytest.importorskip("opentimelineio", reason="opentimelineio is of the extra search")
    write_otio(tmp_path / "found.otio", "eggs", MOMENTS)
    timeline = otio.adapters.read_from_file(str(tmp_path / "found.otio"))
    clips = list(timeline.find_clips())
    assert timeline.name == "eggs" and len(clips) == len(MOMENTS)
    for clip, (name, start, length) in zip(clips, EXPECTED, strict=True):
        assert clip.name == name and clip.media_reference.target_url == Path("/videos", name).as_uri()
        assert clip.source_range.start_time.to_seconds() == pytest.approx(start, abs=0.021)
        assert clip.source_range.duration.to_seconds() == pytest.approx(length, abs=0.021)
        assert clip.metadata["fgmm"]["score"] == 2.5
    with pytest.raises(UserError, match=r"must end in \.otio"):
        write_otio(tmp_path / "found.xml", "eggs", MOMENTS)


def test_times():
    assert [format_time(time) for time in (0.0, 61.25, 59.96, 3723.4)] == ["0:00.0", "1:01.2", "1:00.0", "1:02:03.4"]
