"""The times of frames and sound in every container and codec: in the whole file, in windows, and against each other."""

import pytest
import torch
from media_files import BEEP, KINDS, RATE, SECONDS, Kind, flashes, heard, pitch_of, shown, whole_file

from processing_fgmm.media_fgmm import Media, probe_media, read_frames, read_waveform

PICTURES = [kind for kind in KINDS if kind.video]
SOUNDS = [kind for kind in KINDS if kind.audio]
BOTH = [kind for kind in PICTURES if kind.audio]
# Codecs that fill up their first packet put a sound later by that much, where the container cannot say so.
LATE = 0.06  # seconds
# Decoders whose samples depend, if ever so little, on all that came before.
ENDLESS_MEMORY = {"libopus", "libopencore_amrnb"}
# AVI and FLV count the delay of B-frames as time.
SPARE = {".avi": 0.25, ".flv": 0.25}  # seconds of duration; 0.1 elsewhere


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """Gives the path of a file of a kind."""
    folder = tmp_path_factory.mktemp("kinds")

    def get(kind: Kind):
        path = folder / (kind.name + kind.suffix)
        if not path.exists():
            path.write_bytes(whole_file(kind))
        return path

    return get


def moment(kind: Kind, index: int) -> float:
    """A second at which frame `index` is on display, a little behind its middle: some containers begin a bit late."""
    return (index + 0.7) / kind.rate


def window_of(kind: Kind, first: int, count: int) -> tuple[float, float]:
    """The seconds in which the middles of `count` equal parts are moments of the frames from `first` on."""
    start = moment(kind, first) - 0.5 / kind.rate
    return start, start + count / kind.rate


def last_frame(kind: Kind) -> int:
    return SECONDS * kind.rate - 1


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_header_names_duration_and_streams(file_of, kind):
    info = probe_media(file_of(kind))
    assert (info.has_video, info.has_audio) == (bool(kind.video), bool(kind.audio))
    assert info.duration == pytest.approx(SECONDS, abs=SPARE.get(kind.suffix, 0.1))
    assert info.audio_rate == (kind.sound_rate if kind.audio else None)


@pytest.mark.parametrize("kind", PICTURES, ids=str)
def test_each_frame_of_the_whole_file_comes_once(file_of, kind):
    start, end = window_of(kind, 0, last_frame(kind))
    problems = []
    assert shown(read_frames(file_of(kind), last_frame(kind), start, end, problems=problems)) == [
        *range(last_frame(kind))
    ]
    assert problems == []


@pytest.mark.parametrize("kind", PICTURES, ids=str)
def test_frames_without_a_window_are_of_the_whole_file(file_of, kind):
    frames = shown(read_frames(file_of(kind), 12))
    assert frames == pytest.approx(
        [(part + 0.5) * SECONDS / 12 * kind.rate for part in range(12)], abs=0.15 * kind.rate
    )


@pytest.mark.parametrize("kind", PICTURES, ids=str)
def test_each_frame_is_found_alone(file_of, kind):
    indices = [*range(1, last_frame(kind), 7), last_frame(kind)]
    found = [shown(read_frames(file_of(kind), 1, *window_of(kind, index, 1)))[0] for index in indices]
    assert found == indices


@pytest.mark.parametrize("first", [9, 31])
@pytest.mark.parametrize("kind", PICTURES, ids=str)
def test_frames_of_a_window(file_of, kind, first):
    problems = []
    frames = read_frames(file_of(kind), 14, *window_of(kind, first, 14), problems=problems)
    assert shown(frames) == [*range(first, first + 14)]
    assert problems == []


@pytest.mark.parametrize("kind", SOUNDS, ids=str)
def test_beeps_of_the_whole_file(file_of, kind):
    problems = []
    wave = read_waveform(file_of(kind), RATE, problems=problems)
    assert len(wave) == round(probe_media(file_of(kind)).duration * RATE)
    assert_beeps(heard(wave), [(second, pitch_of(second)) for second in range(1, SECONDS)])
    assert problems == []


def assert_beeps(found, expected) -> None:
    assert [tone for _, tone in found] == pytest.approx([tone for _, tone in expected], abs=8)
    assert all(-0.01 < onset - true < LATE for (onset, _), (true, _) in zip(found, expected, strict=True)), found


@pytest.mark.parametrize("kind", SOUNDS, ids=str)
def test_beeps_of_windows(file_of, kind):
    problems = []
    for start in (0.35, 0.8, 1.5, 2.35, 3.5, 3.8, 4.35, 4.8):  # neither end lies within a beep
        wave = read_waveform(file_of(kind), RATE, start, start + 1.0, problems=problems)
        assert len(wave) == RATE
        inside = [second for second in range(1, SECONDS) if start <= second < start + 1]
        assert_beeps(heard(wave), [(second - start, pitch_of(second)) for second in inside])
    silence = read_waveform(file_of(kind), RATE, 5.5, SECONDS, problems=problems)
    assert len(silence) == RATE // 2 and heard(silence) == []
    assert problems == []


@pytest.mark.parametrize("kind", SOUNDS, ids=str)
def test_windows_are_as_loud_as_the_whole_file(file_of, kind):
    whole = read_waveform(file_of(kind), RATE)
    for start in (0.55, 1.1, 2.1, 3.1, 4.05, 5.05):  # most begin within a beep
        window = read_waveform(file_of(kind), RATE, start, start + 0.9)
        assert_as_loud(window, whole[round(start * RATE) :][: len(window)])


def assert_as_loud(wave: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 10 ms, for containers that count in milliseconds; the first 10 ms may lack what was before the window."""
    quiet = loudness(wave)[1:] - loudness(expected)[1:]
    assert float(quiet.abs().max()) < 0.2 and float(quiet.abs().mean()) < 0.01


def loudness(wave: torch.Tensor) -> torch.Tensor:
    """Root mean square of each 10 ms of (samples,)."""
    step = RATE // 100
    return wave[: len(wave) // step * step].reshape(-1, step).square().mean(1).sqrt()


@pytest.mark.parametrize("kind", BOTH, ids=str)
def test_the_beep_sounds_while_the_flash_shows(file_of, kind):
    indices = [index for index in range(last_frame(kind)) if index % kind.rate < 2 * BEEP * kind.rate]
    wave = read_waveform(file_of(kind), RATE, 0.0, SECONDS)
    frames = torch.cat([read_frames(file_of(kind), 1, *window_of(kind, index, 1)) for index in indices])
    centres = [round(moment(kind, index) * RATE) for index in indices]
    beeping = [float(wave[centre - 80 : centre + 80].abs().max()) > 0.2 for centre in centres]
    assert flashes(frames) == beeping
    assert any(beeping) and not all(beeping)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_one_opening_gives_what_many_give(file_of, kind):
    path = file_of(kind)
    with Media(path) as media:
        for window in ((0.0, 1.35), (2.35, 3.45), (0.0, None), (4.4, 5.1), (1.3, 2.05)):
            if kind.audio:
                wave, alone = media.read_waveform(RATE, *window), read_waveform(path, RATE, *window)
                if kind.audio in ENDLESS_MEMORY:
                    assert_as_loud(wave, alone)
                else:
                    assert torch.allclose(wave, alone, atol=1e-4), window
            if kind.video:
                assert torch.equal(media.read_frames(6, *window), read_frames(path, 6, *window)), window
        assert media.info == probe_media(path) and media.duration == media.info.duration
        assert media.problems == []
