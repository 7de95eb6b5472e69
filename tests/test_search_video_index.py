"""Searches in an index of a few real files."""

import datetime
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TEXTS, write_sound, write_video
from PIL import Image
from test_search_indexing import few_foreign_texts, update  # noqa: F401

from fgmm_tools.cli import UserError
from fgmm_tools.models import load_model
from fgmm_tools.search import calibration
from fgmm_tools.search.video_index import VideoIndex
from modeling_fgmm import FgmmModel
from processing_fgmm import MediaError


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Pictures of noise, videos of growing brightness, sounds of different pitch."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "trips").mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        coarse = Image.fromarray(generator.integers(0, 255, (5, 5, 3), np.uint8))
        coarse.resize((80, 80), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    write_video(folder / "trips" / "a.mp4", seconds=4, sound=4.0)
    write_video(folder / "b.mp4", seconds=1.5)
    for pitch in (220, 880, 3520):
        write_sound(folder / f"{pitch}.wav", seconds=1.0, pitch=pitch)
    (folder / "trips" / "a.vtt").write_text("WEBVTT\n\n00:02.500 --> 00:03.000\nthe Zanzibar ferry leaves\n")
    os.utime(folder / "b.mp4", (1e9, 1e9))
    return folder


@pytest.fixture(scope="module")
def index(videos, small_model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "NUM_FOREIGN", 39)
        update(tmp_path_factory.mktemp("index") / "i", small_model, videos)
    return VideoIndex(tmp_path_factory.getbasetemp() / "index0" / "i")


def found(result):
    return [Path(moment.path).name for moment in result.moments]


def test_a_text_is_ranked_by_the_model_s_own_scores(index, videos):
    """All windows of the index, by plain scores of the model in its regions as they are kept."""
    state, (model, processor) = index.state(), index.loaded
    result = index.search(TEXTS[1], top=100)
    windows = [window for moment in result.moments for window in moment.windows]
    for modality in ("video", "audio"):
        of_modality = [window for window in windows if getattr(window.entry, f"has_{modality}")]
        alone = [one for one in of_modality if one.entry.has_video != one.entry.has_audio]
        assert alone
        keys = state.windows.read_keys([window.entry for window in alone], modality)
        queries = processor(text=[TEXTS[1]])
        from modeling_fgmm.outputs_fgmm import as_queries

        with torch.no_grad():
            objective = model.get_objective("text", modality)
            queries = as_queries(model.get_text_features(**queries))
            scores = objective.scores(queries, keys)[0, :, 0]
            background = objective.scores(queries, state.windows.background[modality])[0, :, 0]
        expected = (scores - background.mean()) / max(background.std(correction=0).item(), 0.02)
        np.testing.assert_allclose([window.seen for window in alone], expected.numpy(), atol=1e-4)
    assert [moment.score for moment in result.moments] == sorted((m.score for m in result.moments), reverse=True)
    assert result.complete and result.unknown_words == []


def test_a_picture_finds_itself_and_a_sound_finds_itself(index, videos):
    for number in range(4):
        assert found(index.search(picture=videos / f"{number}.png"))[0] == f"{number}.png"
    result = index.search(clip=(videos / "trips" / "a.mp4", 2.0, 2.5))
    assert found(result)[0] == "a.mp4" and result.moments[0].start <= 2.0 < result.moments[0].end
    assert "a.mp4" in found(index.search(clip=videos / "trips" / "a.mp4"))
    # Of the files that have sound alone; the model's random weights compare it with any picture as well.
    sounds = [name for name in found(index.search(sound=videos / "880.wav", top=50)) if name.endswith(".wav")]
    assert sounds[0] == "880.wav" and len(set(sounds)) == 3
    assert not index.search(sound=videos / "880.wav").nothing_matches


def test_what_is_said_is_found(index):
    result = index.search("the Zanzibar ferry")
    assert found(result)[0] == "a.mp4" and not result.nothing_matches
    assert result.moments[0].start <= 2.5 < result.moments[0].end and "Zanzibar" in result.moments[0].spoken
    assert set(result.unknown_words) == {"Zanzibar", "ferry"}
    silent = index.search("the Zanzibar ferry", spoken=0)
    assert silent.moments == [] and silent.nothing_matches


def test_words_without_any_meaning_match_nothing(index):
    result = index.search("xyzzy")
    assert result.nothing_matches and result.unknown_words == ["xyzzy"] and not result.moments


def test_folders_and_dates(index, videos):
    assert set(found(index.search(TEXTS[0], inside=videos / "trips", top=50))) == {"a.mp4"}
    assert set(found(index.search(TEXTS[0], inside="trips", top=50))) == {"a.mp4"}
    assert set(found(index.search(TEXTS[0], inside=videos / "b.mp4", top=50))) == {"b.mp4"}
    everything = set(found(index.search(TEXTS[0], top=50)))
    assert set(found(index.search(TEXTS[0], after="2010-01-01", top=50))) == everything - {"b.mp4"}
    assert index.search(TEXTS[0], after=datetime.date(2500, 1, 1)).moments == []
    with pytest.raises(UserError, match="no file in nowhere"):
        index.search(TEXTS[0], inside="nowhere")
    with pytest.raises(UserError, match="'yesterday' is no date; write it as"):
        index.search(TEXTS[0], after="yesterday")


def test_mistakes_are_named(index, videos, tmp_path):
    with pytest.raises(UserError, match="Give one of a text, a sound, a picture and a clip, not none"):
        index.search()
    with pytest.raises(UserError, match="not text and clip"):
        index.search(TEXTS[0], clip=videos / "b.mp4")
    with pytest.raises(UserError, match="must have a word"):
        index.search("  ")
    with pytest.raises(UserError, match=r"The sound .*none\.wav is not there"):
        index.search(sound=videos / "none.wav")
    with pytest.raises(UserError, match="top=0 must be at least 1"):
        index.search(TEXTS[0], top=0)
    with pytest.raises(UserError, match="nothing that the index could be asked for"):
        index.search(sound=videos / "b.mp4")  # which is silent
    (tmp_path / "damaged.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"damaged\.jpg"):
        index.search(picture=tmp_path / "damaged.jpg")


def test_threads_search_at_once(index):
    alone = {text: index.search(text).to_dict()["moments"] for text in TEXTS}
    wrong = []

    def search(text):
        for _ in range(3):
            if index.search(text).to_dict()["moments"] != alone[text]:
                wrong.append(text)

    threads = [threading.Thread(target=search, args=(text,)) for text in TEXTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["clip", "siglip", "clap"])
def test_dual_encoders_by_their_names(videos, dual_at, tmp_path, name):
    manifest, _ = update(tmp_path / "index", dual_at[name], videos)
    assert manifest.complete and manifest.modalities == (["audio"] if name == "clap" else ["video"])
    index = VideoIndex(tmp_path / "index")
    result = index.search(TEXTS[0])
    assert result.moments and result.complete
    if name == "clap":
        assert found(index.search(sound=videos / "880.wav"))[0] == "880.wav"
    else:
        assert found(index.search(picture=videos / "1.png"))[0] == "1.png"
        encode, processor = index.model.encode, index.processor
        vectors = (
            encode(text=TEXTS[0], processor=processor),
            encode(images=[str(videos / "1.png")], processor=processor)[0],
        )
        moment = next(moment for moment in index.search(TEXTS[0], top=50).moments if moment.path.endswith("1.png"))
        windows = index.state().windows
        keys = windows.background["video"]
        background = keys.embeds.numpy() @ vectors[0]
        expected = (vectors[0] @ vectors[1] - background.mean()) / max(background.std(), 0.02)
        assert moment.score == pytest.approx(expected, abs=0.02)


def test_a_model_without_texts_is_asked_by_media(videos, small_model, tmp_path):
    folder = tmp_path / "model"
    model = FgmmModel.from_encoders(video=str(small_model), audio=str(small_model), projection_dim=16)
    model.save_pretrained(folder)
    load_model(str(small_model))[1].save_pretrained(folder)
    update(tmp_path / "index", folder, videos)
    index = VideoIndex(tmp_path / "index")
    assert found(index.search(picture=videos / "2.png"))[0] == "2.png"
    with pytest.raises(UserError, match="has no text encoder; give a sound"):
        index.search(TEXTS[0])


def test_windows_are_read_in_the_order_in_which_they_are_asked_for(index):
    windows = index.state().windows
    entries = list(windows.catalog.get_windows(windows.catalog.window_ids("video")).values())
    entries = [entries[place] for place in np.random.default_rng(0).permutation(len(entries))]
    together = windows.read_keys(entries, "video")
    assert len(entries) > 10
    for row, entry in enumerate(entries):
        alone = windows.read_keys([entry], "video")
        assert torch.equal(together.embeds[row], alone.embeds[0])
        assert torch.equal(together.regions[row][together.mask[row]], alone.regions[0])
