import numpy as np
import pytest

from fgmm_tools.corpora.narrated_scenes import LAG, SCENE, SHAPES, clip_random, make_captions, make_scene


def scene_of(index, seed=0):
    return make_scene(clip_random(seed, "train", index, SCENE))


def shapes_named(text):
    return {shape for shape, words in SHAPES.items() if set(words) & set(text.split())}


def test_captions_depend_on_seed_and_split():
    captions = make_captions(0, "train", 3, 0.5)
    assert captions == make_captions(0, "train", 3, 0.5)
    assert captions != make_captions(1, "train", 3, 0.5)


def test_splits_share_no_clip():
    first = {
        split: [make_captions(0, split, index, 0.0)[0]["text"] for index in range(20)]
        for split in ("train", "validation", "test")
    }
    assert len({text for texts in first.values() for text in texts}) == 60


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.5, 1.0])
def test_noise_is_the_share_of_captions_that_are_not_true(noise):
    true = [caption["is_true"] for index in range(300) for caption in make_captions(0, "train", index, noise)]
    assert 1 - np.mean(true) == pytest.approx(noise, abs=0.04)


def test_true_captions_describe_a_part_of_their_clip():
    parts = []
    for index in range(200):
        shown = {thing.shape for thing in scene_of(index).things}
        for caption in make_captions(0, "train", index, 0.5):
            named = shapes_named(caption["text"])
            if caption["is_true"]:
                assert named and named <= shown
                parts.append(len(named) / len(shown))
    assert 0.2 < np.mean(parts) < 0.7


def test_false_captions_do_not_describe_their_clip():
    agree = []
    for index in range(300):
        shown = {thing.shape for thing in scene_of(index).things}
        for caption in make_captions(0, "train", index, 1.0):
            named = shapes_named(caption["text"])
            agree.append(bool(named) and named <= shown)
    assert np.mean(agree) < 0.2


def test_clips_can_be_told_apart_by_thousands():
    descriptions = {
        frozenset(
            (thing.shape, thing.color, thing.texture, thing.size, thing.motion) for thing in scene_of(index).things
        )
        for index in range(3000)
    }
    assert len(descriptions) == 3000
    texts = {caption["text"] for index in range(500) for caption in make_captions(0, "train", index, 0.0)}
    assert len(texts) > 2900


def test_captions_come_early_or_late():
    starts = [caption["start"] for index in range(300) for caption in make_captions(0, "train", index, 0.0)]
    assert np.std(starts) > 0.4 * LAG and min(starts) == 0.0
