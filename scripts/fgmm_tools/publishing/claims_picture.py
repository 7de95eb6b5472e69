"""A picture of the claims: noise, batch size, compute and model size, each objective a line over its seeds."""

from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..cli import UserError
from .claims import NOISE_CORPORA, batches_of, lengths_of, sizes_of
from .studies import MAIN_LOSSES, NOISY, VARIED_LOSSES, Run
from .study_corpora import CORPORA
from .study_scores import Results, Scores, find_scores

COLORS = {"fine": "#c0392b", "coarse": "#2c7fb8", "mil_nce": "#7f8c8d", "filip": "#e69f00"}
PANEL = (4.6, 3.0)  # inches

Draw = Callable[[Axes], None]


def draw_claims(results: Results, path: Path) -> None:
    """Draws one row a claim: noise on all corpora; batch, compute and size on those that were measured.

    Args:
        results: of all runs.
        path: of the picture.

    Raises:
        UserError: when nothing was measured.
    """
    panels = [*noise_panels(results), *curve_panels(results, "batch", batches_of, lambda scores: scores.run.batch)]
    panels += curve_panels(results, "clips seen", lengths_of, lambda scores: scores.run.clips)
    panels += size_panels(results)
    if not panels:
        raise UserError("There are no results of studies to draw; run scripts/compare_objectives.py.")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, draw in zip(axes.flat, panels, strict=False):
        draw(axis)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    axes.flat[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def noise_panels(results: Results) -> list[Draw]:
    """One panel: each corpus a row, each objective's seeds as points."""
    scored = {
        corpus: {loss: find_scores(results, Run(corpus, loss)) for loss in MAIN_LOSSES} for corpus in NOISE_CORPORA
    }
    found = {corpus: scores for corpus, scores in scored.items() if all(scores.values())}
    if not found:
        return []

    def draw(axis: Axes) -> None:
        for row, scores in enumerate(found.values()):
            for loss, one in scores.items():
                height = [row + 0.18 * (MAIN_LOSSES.index(loss) - 1.5)] * len(one.values)
                label = loss if row == 0 else None
                axis.plot(one.values, height, "o", color=COLORS[loss], markersize=4, label=label)
        axis.set_yticks(range(len(found)), [CORPORA[corpus].title for corpus in found], fontsize=6)
        axis.invert_yaxis()
        axis.set_xlabel("recall, %")
        axis.set_title("Noise: from clean to noisy captions", fontsize=9)

    return [draw]


def curve_panels(
    results: Results,
    variable: str,
    list_scores: Callable[[Results, str, str], list[Scores]],
    value: Callable[[Scores], float],
) -> list[Draw]:
    """A panel for each noisy corpus: recall against what was varied, on a logarithmic axis."""

    def panel(corpus: str, lines: dict[str, list[Scores]]) -> Draw:
        def draw(axis: Axes) -> None:
            draw_curves(axis, lines, value)
            axis.set_xlabel(variable)
            axis.set_ylabel(f"{CORPORA[corpus].metric}, %")
            axis.set_title(CORPORA[corpus].title, fontsize=9)

        return draw

    found = {corpus: {loss: list_scores(results, corpus, loss) for loss in VARIED_LOSSES} for corpus in NOISY}
    return [panel(corpus, lines) for corpus, lines in found.items() if all(len(line) > 1 for line in lines.values())]


def size_panels(results: Results) -> list[Draw]:
    """One panel: recall against parameters."""
    lines = {loss: sizes_of(results, loss) for loss in VARIED_LOSSES}
    if not all(len(line) > 1 for line in lines.values()):
        return []

    def draw(axis: Axes) -> None:
        draw_curves(axis, lines, lambda scores: scores.parameters / 1e6)
        axis.set_xlabel("parameters, millions")
        axis.set_ylabel(f"{CORPORA['narrated50'].metric}, %")
        axis.set_title(CORPORA["narrated50"].title, fontsize=9)

    return [draw]


def draw_curves(axis: Axes, lines: dict[str, Iterable[Scores]], value: Callable[[Scores], float]) -> None:
    """A line for each objective through the means of its seeds, with bars from the worst to the best seed."""
    for loss, line in lines.items():
        x, y = [value(scores) for scores in line], [scores.mean for scores in line]
        low = [scores.mean - min(scores.values) for scores in line]
        high = [max(scores.values) - scores.mean for scores in line]
        axis.errorbar(x, y, yerr=(low, high), color=COLORS[loss], marker="o", markersize=3, capsize=2, label=loss)
    axis.set_xscale("log", base=2)
    axis.grid(alpha=0.3)
