"""What the studies found about each claim of the objective: one number each, beside its aim, from the results files."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .results import mean_and_spread, read_results
from .studies import (
    BASELINES,
    BATCH_SIZES,
    CORPORA,
    NOISY,
    SIZES,
    Run,
    as_default,
    best_rate,
    model_options,
    test_score,
)
from .study_results import from_text, read_runs

Results = dict[Run, dict]
# How many times the clips baselines may see in the claim about compute.
MORE_CLIPS = 4
# The corpora of the claim about noise; `grid` and `photographs` have clean captions.
NOISE_CORPORA = (
    *("narrated0", "narrated50", "narrated80"),
    *("slides4_chatter0", "slides4_chatter2", "slides4_chatter4"),
    *("grid", "grid_joined2_chatter1", "exercises", "photographs"),
)
# The cleanest that the slide shows' photographs can teach: one by one, with their own captions.
CLEAN_SHOWS = "slides1_chatter0"


@dataclass(frozen=True)
class Scores:
    """The test scores of one setting, a value a seed, percent.

    Args:
        run: the setting, with seed 0.
        values: of its seeds.
        operations, core_seconds: of its training, means over the seeds.
    """

    run: Run
    values: tuple[float, ...]
    operations: float
    core_seconds: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.values) / len(self.values)

    def __str__(self) -> str:
        return f"`{self.run.loss}` {mean_and_spread(list(self.values))}"


def find_scores(results: Results, run: Run) -> Scores | None:
    """The scores of a setting over its seeds, at its chosen learning rate; None without results.

    Args:
        results: of all runs.
        run: the setting; its learning rate and seed do not count.
    """
    chosen = replace(best_rate(replace(run, seed=0), results), seed=0)
    records = {other.seed: record for other, record in results.items() if replace(other, seed=0) == chosen}
    if not records:
        return None
    training = [record["training"] for record in records.values()]
    return Scores(
        chosen,
        tuple(test_score(chosen, record) for _, record in sorted(records.items())),
        sum(one["operations"] for one in training) / len(training),
        sum(one["core_seconds"] for one in training) / len(training),
    )


def best_of(results: Results, runs: Iterable[Run]) -> Scores | None:
    """The scores with the highest mean; None without results."""
    found = [scores for run in runs if (scores := find_scores(results, run))]
    return max(found, key=lambda scores: scores.mean, default=None)


def is_ahead(ours: Scores, theirs: Scores) -> bool:
    """Whether every seed of ours is above every seed of theirs."""
    return min(ours.values) > max(theirs.values)


def is_behind(ours: Scores, theirs: Scores) -> bool:
    """Whether every seed of ours is below every seed of theirs."""
    return max(ours.values) < min(theirs.values)


def compare_noise(results: Results, corpus: str) -> tuple[Scores, Scores] | None:
    """Fine, and the best baseline, on a corpus."""
    ours = find_scores(results, Run(corpus, "fine"))
    theirs = best_of(results, [Run(corpus, loss) for loss in BASELINES])
    return (ours, theirs) if ours and theirs else None


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


def smallest_batch(results: Results, corpus: str) -> tuple[int | None, Scores] | None:
    """The smallest batch at which fine reaches the best baseline at its best batch size, and that baseline."""
    best = best_of(results, [as_default(Run(corpus, loss, size)) for loss in BASELINES for size in BATCH_SIZES])
    if not best:
        return None
    for size in BATCH_SIZES:
        ours = find_scores(results, as_default(Run(corpus, "fine", size)))
        if ours and ours.mean >= best.mean:
            return size, best
    return None, best


def lengths_of(results: Results, corpus: str, loss: str) -> list[Scores]:
    """The scores of runs of a corpus' own batch size, from the shortest to the longest."""
    lengths = {run.clips for run in results if (run.corpus, run.loss) == (corpus, loss) and not run.options}
    runs = [as_default(Run(corpus, loss, clips_seen=clips)) for clips in sorted(lengths)]
    return [scores for run in runs if (scores := find_scores(results, run))]


def least_compute(results: Results, corpus: str) -> tuple[Scores | None, Scores] | None:
    """The shortest run of fine that reaches the best that baselines reach with up to four times the clips, and that."""
    most = MORE_CLIPS * CORPORA[corpus].clips_seen
    theirs = [scores for loss in BASELINES for scores in lengths_of(results, corpus, loss) if scores.run.clips <= most]
    if not any(scores.run.clips == most for scores in theirs):
        return None
    best = max(theirs, key=lambda scores: scores.mean)
    ours = [scores for scores in lengths_of(results, corpus, "fine") if scores.mean >= best.mean]
    return (ours[0] if ours else None), best


def sizes_of(results: Results, loss: str) -> list[Scores]:
    """The scores of all sizes of the video encoder, from the fewest operations to the most."""
    runs = [
        Run(
            "narrated50",
            loss,
            options=model_options(**{"video_config.width_multiplier": width, "video_config.depths": depths}),
        )
        for width, depths in SIZES
    ]
    found = [scores for run in runs if (scores := find_scores(results, run))]
    return sorted(found, key=lambda scores: scores.operations)


def describe_claims(folder: Path) -> str:
    """One paragraph a claim, as Markdown.

    Args:
        folder: of the results files of runs.
    """
    results = read_runs(folder)
    parts = [
        describe_noise(results),
        describe_surviving(results, folder),
        describe_batch(results),
        describe_compute(results),
        describe_size(results),
    ]
    return "\n\n".join(part for part in parts if part)


def describe_noise(results: Results) -> str:
    """Fine beside the best baseline on every corpus."""
    sentences = []
    for corpus in NOISE_CORPORA:
        if pair := compare_noise(results, corpus):
            ours, theirs = pair
            verdict = "ahead" if is_ahead(ours, theirs) else "behind" if is_behind(ours, theirs) else "level"
            ratio = f" ({ours.mean / theirs.mean:.2f} times)" if verdict != "level" else ""
            title, metric = CORPORA[corpus].title, CORPORA[corpus].metric
            sentences.append(f"- {title}: {ours}, best baseline {theirs} ({metric}, %): {verdict}{ratio}")
    return "**Noise hurts less.**\n\n" + "\n".join(sentences) if sentences else ""


def describe_surviving(results: Results, folder: Path) -> str:
    """The shares of the clean gain that survive noise on slide shows."""
    path = folder / "start_photographs_2000.json"
    if not path.exists():
        return ""
    start = from_text(read_results(path)["metrics"])["R@10"]
    sentences = []
    for corpus in ("slides4_chatter0", "slides4_chatter2", "slides4_chatter4"):
        shares = {loss: surviving_share(results, start, corpus, loss) for loss in ("fine", "coarse", "mil_nce")}
        if all(share is not None for share in shares.values()):
            best = max(shares["coarse"], shares["mil_nce"])
            listed = ", ".join(f"`{loss}` {100 * share:.0f} %" for loss, share in shares.items())
            ratio = f" ({shares['fine'] / best:.1f} times the best baseline; aimed at 1.4)" if best > 0 else ""
            sentences.append(f"- {CORPORA[corpus].title}: {listed}{ratio}")
    if not sentences:
        return ""
    head = "Of what clean training gains over the initial model, noisy training keeps, each objective beside itself:"
    return f"{head}\n\n" + "\n".join(sentences)


def describe_batch(results: Results) -> str:
    """The batch size at which fine reaches the best baseline's best."""
    sentences = []
    for corpus in NOISY:
        if found := smallest_batch(results, corpus):
            size, best = found
            title = CORPORA[corpus].title
            reached = f"`fine` reaches it at {size}" if size else "`fine` does not reach it"
            sentences.append(f"- {title}: best baseline {best} at batch {best.run.batch}; {reached}")
    if not sentences:
        return ""
    return "**Smaller batches suffice** (aimed at: an eighth of the baseline's).\n\n" + "\n".join(sentences)


def describe_compute(results: Results) -> str:
    """The clips, operations and core seconds with which fine reaches what baselines reach with four times the clips."""
    sentences = []
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
            sentences.append(line)
    if not sentences:
        return ""
    head = (
        "**Less compute suffices** (aimed at: an eighth of the clips on rendered clips, a quarter of the operations)."
    )
    return f"{head}\n\n" + "\n".join(sentences)


def describe_size(results: Results) -> str:
    """The smallest model of fine that reaches the baselines' largest."""
    ours, theirs = sizes_of(results, "fine"), [one for loss in BASELINES for one in sizes_of(results, loss)]
    if not ours or not theirs:
        return ""
    best = max(theirs, key=lambda scores: scores.mean)
    reached = next((scores for scores in ours if scores.mean >= best.mean), None)
    line = f"The baselines' best, {best}, takes {best.operations / 1e12:.1f} T operations"
    if reached:
        line += (
            f"; {reached} takes {reached.operations / 1e12:.1f} T, {reached.operations / best.operations:.2f} of them."
        )
    else:
        line += "; `fine` does not reach it."
    return f"**Smaller models suffice.** {line}"
