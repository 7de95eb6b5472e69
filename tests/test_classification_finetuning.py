import itertools

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fgmm_tools.classification import finetuning, folds
from fgmm_tools.classification.settings import ClassificationSettings
from fgmm_tools.cli import UserError
from modeling_fgmm import FgmmForAudioClassification
from processing_fgmm import streams_fgmm
from processing_fgmm.loaders_fgmm import ClipLoader
from processing_fgmm.rowgroups_fgmm import ParquetRows, SelectedRows


def test_training_clips_differ_in_every_epoch_and_never_between_runs(sounds, processor):
    split = folds.read_split(str(sounds), "train", "fold1")
    classes = folds.read_classes(split.corpus, str(sounds))

    def batches(number):
        rows = split.row_groups()
        clips = finetuning.LabelledClips(rows, processor, split.labels, classes, batch_size=30, with_video=False)
        return [batch.inputs for batch, _ in zip(clips, range(number), strict=False)]

    (first, second), (again,) = batches(2), batches(1)
    assert set(first) == {"input_features", "input_features_mask", "labels"}
    assert torch.equal(first["input_features"], again["input_features"])
    assert torch.bincount(first["labels"]).tolist() == torch.bincount(second["labels"]).tolist() == [10, 10, 10]
    assert first["input_features"].shape != second["input_features"].shape or not torch.equal(
        first["input_features"], second["input_features"]
    )


def test_short_clips_are_decoded_once_and_longer_clips_anew(sounds, processor, monkeypatch):
    split = folds.read_split(str(sounds), "train", "fold1")
    classes = folds.read_classes(split.corpus, str(sounds))
    rows = SelectedRows(split.row_groups(), list(split.labels)[:3])
    decoded = []
    read_clip = streams_fgmm.read_clip
    monkeypatch.setattr(streams_fgmm, "read_clip", lambda row, *rest: decoded.append(row) or read_clip(row, *rest))

    def decodings_of_two_batches(clip_seconds: float, room: int) -> int:
        """How often three rows are decoded for two batches, which must be those of a stream that keeps nothing."""
        monkeypatch.setattr(processor, "clip_seconds", clip_seconds)
        keeping, forgetting = (
            finetuning.LabelledClips(rows, processor, split.labels, classes, batch_size=3, with_video=False)
            for _ in range(2)
        )
        keeping.room, forgetting.room = room, 0
        first, second = (list(itertools.islice(clips, 2)) for clips in (forgetting, keeping))
        for batch, other in zip(first, second, strict=True):
            assert torch.equal(batch.inputs["input_features"], other.inputs["input_features"])
        number = len(decoded) - 6
        decoded.clear()
        return number

    assert decodings_of_two_batches(10.0, 10**9) == 3
    assert decodings_of_two_batches(0.2, 10**9) == 6
    assert decodings_of_two_batches(10.0, 0) == 6


@pytest.fixture
def task(sounds, config):
    """A classifier with random weights, the training clips of a fold, their classes."""
    split = folds.read_split(str(sounds), "train", "fold1")
    classes = folds.read_classes(split.corpus, str(sounds))
    config.num_labels = len(classes.names)
    return FgmmForAudioClassification(config), split, classes


SETTINGS = ClassificationSettings("finetune", epochs=1, batch_size=15, num_workers=0)


def test_all_weights_are_trained_and_nothing_else_is_kept(task, processor):
    classifier, train, classes = task
    before = {name: value.clone() for name, value in classifier.named_parameters()}
    accelerator = Accelerator()
    trained = finetuning.finetune(accelerator, classifier, processor, train, classes, SETTINGS)
    assert not trained.training and not accelerator._models and not accelerator._optimizers
    assert not any(torch.equal(value, before[name]) for name, value in trained.named_parameters())


def test_a_batch_without_a_clip_that_can_be_decoded_is_an_error(task, processor, monkeypatch):
    classifier, train, classes = task
    read = ParquetRows.read
    nothing = {"audio": {"bytes": b"nothing", "path": None}}
    monkeypatch.setattr(ParquetRows, "read", lambda self, group: lambda row: read(self, group)(row) | nothing)
    with pytest.raises(UserError, match="None of the 15 clips of a training batch can be decoded"):
        finetuning.finetune(Accelerator(), classifier, processor, train, classes, SETTINGS)


def test_a_process_without_a_clip_takes_part_without_a_loss(task, processor):
    classifier, train, classes = task
    options = {"batch_size": 1, "with_video": False, "rank": 1, "world_size": 2}
    clips = finetuning.LabelledClips(train.row_groups(), processor, train.labels, classes, **options)
    batches = list(itertools.islice(ClipLoader(clips, 0), 4))
    assert {batch.num_clips for batch in batches} == {0, 1}
    assert all(torch.isfinite(classifier(**batch.inputs).loss) for batch in batches)


def test_a_loss_that_is_not_a_number_is_an_error(task, processor):
    classifier, train, classes = task
    with torch.no_grad():
        classifier.classifier.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="lower the learning rate"):
        finetuning.finetune(Accelerator(), classifier, processor, train, classes, SETTINGS)


def test_sound_is_rolled_and_scaled():
    waveform, generator = torch.randn(1000), np.random.default_rng(0)
    gains, moved = [], 0
    for _ in range(50):
        varied = finetuning.vary_sound(waveform, generator)
        spectra = [torch.fft.rfft(sound).abs() for sound in (waveform, varied)]
        gains.append((spectra[1] / spectra[0]).mean().item())
        assert torch.allclose(spectra[1], gains[-1] * spectra[0], rtol=1e-2, atol=1e-2)
        moved += not torch.allclose(varied, gains[-1] * waveform, atol=1e-2)
    assert moved > 40
    decibels = 20 * np.log10(gains)
    assert np.abs(decibels).max() <= finetuning.MAX_GAIN + 1e-2 and decibels.std() > 3


def test_colours_are_varied_alike_in_all_frames():
    frames = torch.randint(60, 190, (1, 3, 8, 8), dtype=torch.uint8).expand(4, -1, -1, -1)
    generator, grey, contrasts = np.random.default_rng(0), 0, []
    for _ in range(100):
        varied = finetuning.vary_colours(frames, generator)
        assert varied.dtype == torch.uint8 and torch.equal(varied[:1].expand_as(varied), varied)
        grey += torch.equal(varied[:, 0], varied[:, 1])
        contrasts.append((varied.float().mean(1).std() / frames.float().mean(1).std()).item())
    assert 10 <= grey <= 30  # a fifth
    assert min(contrasts) < 0.6 and 1.4 < max(contrasts) < 1.4**2 + 0.1  # brightness stretches them as well


def test_stripes_are_masked():
    generator, shares = np.random.default_rng(0), []
    for _ in range(50):
        features = torch.ones(100, 32)
        finetuning.mask_stripes(features, generator)
        frames, bands = (features == 0).all(1).sum().item(), (features == 0).all(0).sum().item()
        assert frames <= 10 and bands <= 4
        assert (features == 0).sum() == frames * 32 + bands * 100 - frames * bands
        shares.append((frames, bands))
    assert np.max(shares, axis=0).tolist() == [10, 4]
