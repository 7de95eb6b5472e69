import numpy as np

from fgmm_tools.corpora.narrated_media import FRAME_RATE, SAMPLING_RATE, SIDE, draw_frames, encode, make_sound
from fgmm_tools.corpora.narrated_scenes import MEDIA, SCENE, SECONDS, clip_random, make_scene
from processing_fgmm.media_fgmm import probe_media, read_frames, read_waveform


def test_every_thing_is_seen_and_moves_and_audible_ones_are_heard():
    for index in range(5):
        scene = make_scene(clip_random(0, "train", index, SCENE))
        random = clip_random(0, "train", index, MEDIA)
        frames = np.stack(draw_frames(scene, random)).astype(int)
        assert frames.shape == (SECONDS * FRAME_RATE, SIDE, SIDE, 3)
        if any(thing.motion != "still" for thing in scene.things):
            assert np.abs(np.diff(frames, axis=0)).max() > 30
        assert len(np.unique(frames.reshape(-1, 3), axis=0)) > 10
        sound = make_sound(scene, random)
        assert sound.shape == (SECONDS * SAMPLING_RATE,) and 0.05 < np.abs(sound).max() <= 1.0


def test_a_clip_keeps_its_frames_and_its_sound():
    scene = make_scene(clip_random(0, "train", 0, SCENE))
    frames = draw_frames(scene, clip_random(0, "train", 0, MEDIA))
    sound = make_sound(scene, clip_random(0, "train", 0, MEDIA))
    file = encode(frames, sound)
    info = probe_media(file)
    assert abs(info.duration - SECONDS) < 0.2 and info.has_audio
    decoded = read_frames(file, len(frames)).numpy().astype(int)
    original = np.stack(frames).transpose(0, 3, 1, 2).astype(int)
    assert np.abs(decoded - original).mean() < 12  # compression; another clip differs by far more
    assert np.abs(decoded - original[::-1]).mean() > 12
    heard = read_waveform(file, SAMPLING_RATE).numpy()
    length = min(len(heard), len(sound))
    assert length > 0.95 * len(sound)
    spectra = [np.abs(np.fft.rfft(samples[:length])) for samples in (heard, sound)]
    assert np.corrcoef(*spectra)[0, 1] > 0.9
