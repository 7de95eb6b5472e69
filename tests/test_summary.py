import json

import pytest

from fgmm_tools.cli import UserError
from fgmm_tools.publishing.summary import make_summary_table


def write(folder, name, value):
    path = folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    metrics = {"top1": value} if "downstream" in name else {"text_to_video": {"R@10": value}}
    path.write_text(json.dumps({"metrics": metrics}))


def test_a_row_has_the_mean_over_seeds_and_what_stands_beside_it(tmp_path):
    write(tmp_path, "narrated_fine", 46.24)
    write(tmp_path, "narrated_random", 2.0)
    for seed, value in enumerate((88.0, 90.0)):
        write(tmp_path, f"downstream/esc10-finetune-pretrained-seed{seed}", value)
        write(tmp_path, f"downstream/esc10-finetune-random-seed{seed}", value - 8)
    write(tmp_path, "downstream/esc10-finetune-pretrained-seed0-other", 1.0)  # of another run
    narrated, esc10 = make_summary_table(tmp_path, ["narrated", "esc10_finetune"]).splitlines()[2:]
    assert "| R@10, % | 46.2 | random weights 2.0 | 1 | [fgmm-tiny](model_cards/fgmm-tiny.md) |" in narrated
    assert "| top1, % | 89.0 ± 1.0 | random weights 81.0 ± 1.0 | 2 |" in esc10


def test_a_missing_results_file_is_named(tmp_path):
    write(tmp_path, "narrated_fine", 46.2)
    with pytest.raises(UserError, match=r"narrated_random\.json"):
        make_summary_table(tmp_path, ["narrated"])
