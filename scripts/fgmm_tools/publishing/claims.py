"""What the studies found about each claim of the objective, as Markdown, from the results files of runs."""

from dataclasses import replace
from pathlib import Path

from ..cli import UserError
from .results import mean_and_spread, read_results
from .studies import BASELINES, BATCH_SIZES, MAIN_LOSSES, NOISY, SIZES, Run, as_default, best_rate, model_options
from .study_corpora import CORPORA, PROBES
from .study_results import from_text, read_runs
from .study_scores import Results, Scores, best_of, find_scores, verdict

# How many times the clips baselines may see in the claim about compute.
MORE_CLIPS = 4
# The corpora of the claim about noise; `grid` and `photographs` have clean captions.
NOISE_CORPORA = (
    *("narrated0", "narrated50", "narrated80"),
    *("slides4_chatter0", "slides4_chatter2", "slides4_chatter4"),
    *("grid", "grid_joined2_chatter1", "exercises", "photographs"),
)
NOISY_SHOWS = ("slides4_chatter0", "slides4_chatter2", "slides4_chatter4")
# The cleanest that the slide shows' photographs can teach: one by one, with their own captions.
CLEAN_SHOWS = "slides1_chatter0"
START = "start_photographs_2000"


def describe_claim(name: str, folder: Path) -> str:
    """What was found about a claim; says so where nothing was measured yet.

    Args:
        name: a key of CLAIMS.
        folder: of the results files of runs.

    Raises:
        UserError: when there is no such claim.
    """
    if name not in CLAIMS:
        raise UserError(f"A card needs the claim {name!r}, but there are only {', '.join(CLAIMS)}.")
    lines = CLAIMS[name](read_runs(folder), folder)
    return "\n".join(lines) if lines else "Not measured yet."


def describe_noise(results: Results, folder: Path) -> list[str]:
    """Fine beside the best baseline on every corpus."""
    lines = []
    for name in NOISE_CORPORA:
        corpus = CORPORA[name]
        lines.append(compare_noise(results, name, f"{corpus.title}, {corpus.metric}"))
        if corpus.join_captions:
            title = f"{corpus.title}, all captions as one query, {corpus.metric}"
            lines.append(compare_noise(results, name, title, "metrics_of_joined_captions"))
    return [line for line in lines if line]


def compare_noise(results: Results, corpus: str, title: str, metrics: str = "metrics") -> str | None:
    """A line about fine and the best baseline on a corpus; None without results."""
    ours = find_scores(results, Run(corpus, "fine"), metrics)
    theirs = best_of(results, [Run(corpus, loss) for loss in BASELINES], metrics)
    if not ours or not theirs:
        return None
    ratio = f"{ours.mean / theirs.mean:.2f} times"
    return f"- {title}: {ours}, best baseline {theirs}; {ratio}, {verdict(ours, theirs)}"


def describe_surviving(results: Results, folder: Path) -> list[str]:
    """The shares of the clean gain that survive noise on slide shows."""
    path = folder / f"{START}.json"
    if not path.exists():
        return []
    start = from_text(read_results(path)["metrics"])["R@10"]
    lines = []
    for corpus in NOISY_SHOWS:
        found = {loss: surviving_share(results, start, corpus, loss) for loss in MAIN_LOSSES}
        shares = {loss: share for loss, share in found.items() if share is not None}
        if "fine" in shares and len(shares) > 1:
            best = max(share for loss, share in shares.items() if loss != "fine")
            listed = ", ".join(f"`{loss}` {100 * share:.0f} %" for loss, share in shares.items())
            ratio = f" ({shares['fine'] / best:.1f} times the best baseline's)" if best > 0 else ""
            lines.append(f"- {CORPORA[corpus].title}: {listed}{ratio}")
    return lines


def surviving_share(results: Results, start: float, corpus: str, loss: str) -> float | None:
    """The share of what clean training gains over the initial model that training on noisy slide shows gains.

    Args:
        results: of all runs.
        start: score of the initial model, percent.
        corpus: slide shows.
        loss: the objective of both trainings.
    """
    noisy, clean = (find_scores(results, Run(name, loss)) for name in (corpus, CLEAN_SHOWS))
    return (noisy.mean - start) / (clean.mean - start) if noisy and clean else None


def describe_batch(results: Results, folder: Path) -> list[str]:
    """The batch size at which fine reaches the best baseline's best."""
    lines = []
    for corpus in NOISY:
        if found := smallest_batch(results, corpus):
            size, best = found
            reached = f"`fine` reaches it at {size}" if size else "`fine` does not reach it"
            lines.append(f"- {CORPORA[corpus].title}: best baseline {best} at batch {best.run.batch}; {reached}")
    return lines


def batches_of(results: Results, corpus: str, loss: str) -> list[Scores]:
    """The scores of runs of a corpus' own length, from the smallest batch to the largest."""
    runs = [as_default(Run(corpus, loss, size)) for size in BATCH_SIZES]
    return [scores for run in runs if (scores := find_scores(results, run))]


def smallest_batch(results: Results, corpus: str) -> tuple[int | None, Scores] | None:
    """The smallest batch at which fine reaches the best baseline at its best batch size, and that baseline.

    None without baselines of at least two batch sizes.
    """
    theirs = [scores for loss in BASELINES for scores in batches_of(results, corpus, loss)]
    if len({scores.run.batch for scores in theirs}) < 2:
        return None
    best = max(theirs, key=lambda scores: scores.mean)
    reached = [scores for scores in batches_of(results, corpus, "fine") if scores.mean >= best.mean]
    return (reached[0].run.batch if reached else None), best


def describe_compute(results: Results, folder: Path) -> list[str]:
    """Clips, operations and core seconds with which fine reaches what baselines reach with four times the clips."""
    lines = []
    for corpus in NOISY:
        if found := least_compute(results, corpus):
            ours, best = found
            line = f"- {CORPORA[corpus].title}: best baseline {best} with {best.run.clips:,} clips; "
            if ours:
                line += (
                    f"{ours} with {ours.run.clips:,} clips, {ours.operations / best.operations:.2f} of the operations, "
                    f"{ours.core_seconds / best.core_seconds:.2f} of the core seconds"
                )
            else:
                line += "`fine` does not reach it"
            lines.append(line)
    return lines


def lengths_of(results: Results, corpus: str, loss: str) -> list[Scores]:
    """The scores of runs of a corpus' own batch size, from the shortest to the longest."""
    lengths = {run.clips for run in results if (run.corpus, run.loss) == (corpus, loss) and not run.options}
    runs = [as_default(Run(corpus, loss, clips_seen=clips)) for clips in sorted(lengths)]
    return [scores for run in runs if (scores := find_scores(results, run))]


def least_compute(results: Results, corpus: str) -> tuple[Scores | None, Scores] | None:
    """The shortest run of fine that reaches the best that baselines reach with up to four times the clips, and that.

    None before baselines were trained with four times the clips.
    """
    most = MORE_CLIPS * CORPORA[corpus].clips_seen
    theirs = [scores for loss in BASELINES for scores in lengths_of(results, corpus, loss) if scores.run.clips <= most]
    if not any(scores.run.clips == most for scores in theirs):
        return None
    best = max(theirs, key=lambda scores: scores.mean)
    reached = [scores for scores in lengths_of(results, corpus, "fine") if scores.mean >= best.mean]
    return (reached[0] if reached else None), best


def describe_size(results: Results, folder: Path) -> list[str]:
    """The smallest model of fine that reaches the best of the baselines'."""
    ours, theirs = sizes_of(results, "fine"), [one for loss in BASELINES for one in sizes_of(results, loss)]
    if not ours or len({scores.parameters for scores in theirs}) < 2:
        return []
    best = max(theirs, key=lambda scores: scores.mean)
    line = f"- {CORPORA[best.run.corpus].title}: best baseline {best} with {best.parameters / 1e6:.2f} M parameters; "
    reached = next((scores for scores in ours if scores.mean >= best.mean), None)
    if not reached:
        return [line + "`fine` does not reach it"]
    shares = [reached.parameters / best.parameters, reached.operations / best.operations]
    line += f"{reached} with {reached.parameters / 1e6:.2f} M, {shares[0]:.2f} of them and {shares[1]:.2f} of the"
    return [f"{line} operations"]


def sizes_of(results: Results, loss: str) -> list[Scores]:
    """The scores of all sizes of the video encoder, from the fewest parameters to the most."""
    runs = [
        Run(
            "narrated50",
            loss,
            options=model_options(**{"video_config.width_multiplier": width, "video_config.depths": depths}),
        )
        for width, depths in SIZES
    ]
    found = [scores for run in runs if (scores := find_scores(results, run))]
    return sorted(found, key=lambda scores: scores.parameters)


def describe_downstream(results: Results, folder: Path) -> list[str]:
    """Linear classifiers on frozen features after each objective, and on those of random weights."""
    lines = []
    for name, probe in PROBES.items():
        found = {f"`{loss}`": probe_accuracies(results, loss, name) for loss in MAIN_LOSSES}
        found["random weights"] = probe_accuracies(results, "fine", name, "probes_of_random_weights")
        listed = ", ".join(f"{start} {mean_and_spread(values)}" for start, values in found.items() if values)
        if found["`fine`"]:
            lines.append(f"- {probe.title}: {listed}")
    return lines


def probe_accuracies(results: Results, loss: str, probe: str, weights: str = "probes") -> list[float]:
    """The accuracies of a probe after runs of a loss on all corpora together, a value a seed, percent."""
    chosen = best_rate(Run("mixed", loss), results)
    records = [record for other, record in results.items() if replace(other, seed=0) == chosen]
    return [record[weights][probe]["top1"] for record in records]


CLAIMS = {
    "noise": describe_noise,
    "surviving": describe_surviving,
    "batch": describe_batch,
    "compute": describe_compute,
    "size": describe_size,
    "downstream": describe_downstream,
}
