from helpers import ROOT
from PIL import Image

from fgmm_tools.publishing.studies import STUDIES
from fgmm_tools.publishing.study_figures import draw_studies


def test_every_study_with_results_has_a_figure_that_fits_a_screen(tmp_path):
    draw_studies(ROOT / "model_cards" / "results" / "comparison", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"comparison_{name}.png" for name in STUDIES}
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.width <= 1100 and picture.height <= 800
            assert len(picture.getcolors(2**24)) > 10
        assert f"](pictures/{path.name})" in (ROOT / "model_cards" / "comparison.md").read_text()
