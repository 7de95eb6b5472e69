import torch
from accelerate import Accelerator
from helpers import make_caption, make_row, tiny_config, tiny_processor, write_corpus

from fgmm_tools.training.configuration import parse_config
from fgmm_tools.training.pictures import AttentionPictures, read_rows
from modeling_fgmm import FgmmModel
from processing_fgmm.corpora_fgmm import load_corpus


def make_pictures(tmp_path, tokenizer, rows):
    corpus = write_corpus(tmp_path / "corpus", rows)
    config = parse_config(["--dataset", str(corpus), "--output_dir", str(tmp_path)])
    return AttentionPictures(
        config, tiny_processor(tokenizer, hop_length=320, clip_seconds=1.0), tmp_path / "attention"
    )


def test_clips_that_can_be_drawn_are_chosen_with_the_captions_of_their_middle(tmp_path, tokenizer):
    good = make_row(tmp_path, 0)
    broken = {**good, "video_id": "broken", "video": {"bytes": b"broken", "path": None}}
    unknown = {**good, "video_id": "unknown", "captions": [make_caption("zzz qqq", 1.0, 2.0)]}
    rows = [broken, {**good, "video_id": "none", "captions": []}, unknown, *(make_row(tmp_path, n) for n in range(4))]
    pictures = make_pictures(tmp_path, tokenizer, rows)  # of the training split: there is no other
    assert [row["video_id"] for row in pictures.rows] == ["clip-0", "clip-1", "clip-2"]
    middles = [(caption["start"] + caption["end"]) / 2 for caption in pictures.rows[0]["captions"]]
    assert 1.5 in middles and len(middles) == 2


def test_nothing_is_read_of_an_empty_corpus(tmp_path, tokenizer):
    row = {**make_row(tmp_path, 0), "captions": []}
    corpus = load_corpus(str(write_corpus(tmp_path / "corpus", [row])), "train")
    assert read_rows(corpus, tiny_processor(tokenizer, hop_length=320, clip_seconds=1.0)) == []


def test_drawing_leaves_the_training_as_it_is(tmp_path, tokenizer):
    pictures = make_pictures(tmp_path, tokenizer, [make_row(tmp_path, 0)])
    model = FgmmModel(tiny_config(tokenizer)).train()
    state, random_state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    pictures.draw(Accelerator(cpu=True), model, 7)
    assert [path.name for path in (tmp_path / "attention").iterdir()] == ["step-0000007.png"]
    assert model.training and torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_clip_that_has_become_unreadable_is_said(tmp_path, tokenizer, capsys):
    pictures = make_pictures(tmp_path, tokenizer, [make_row(tmp_path, 0)])
    pictures.rows[0]["video"] = {"bytes": b"broken", "path": None}
    pictures.draw(Accelerator(cpu=True), FgmmModel(tiny_config(tokenizer)), 7)
    assert "The attention at step 7 is not drawn" in capsys.readouterr().out
    assert not (tmp_path / "attention").exists()
