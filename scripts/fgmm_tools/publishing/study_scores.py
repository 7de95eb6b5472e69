"""The test scores of a study's runs, over their seeds and at their chosen learning rates."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .results import mean_and_spread
from .studies import Run, best_rate, test_score

Results = dict[Run, dict]


@dataclass(frozen=True)
class Scores:
    """The test scores of one setting, a value a seed, percent.

    Args:
        run: the setting, with seed 0.
        values: of its seeds.
        operations, core_seconds: of its training, means over the seeds.
        parameters: of the model.
    """

    run: Run
    values: tuple[float, ...]
    operations: float
    core_seconds: float
    parameters: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.values) / len(self.values)

    def __str__(self) -> str:
        return f"`{self.run.loss}` {mean_and_spread(list(self.values))}"


def find_scores(results: Results, run: Run, metrics: str = "metrics") -> Scores | None:
    """The scores of a setting over its seeds, at its chosen learning rate; None without results.

    Args:
        results: of all runs.
        run: the setting; its learning rate and seed do not count.
        metrics: see [`test_score`].
    """
    chosen = replace(best_rate(replace(run, seed=0), results), seed=0)
    records = {other.seed: record for other, record in results.items() if replace(other, seed=0) == chosen}
    if not records:
        return None
    training = [record["training"] for record in records.values()]
    return Scores(
        chosen,
        tuple(test_score(chosen, record, metrics) for _, record in sorted(records.items())),
        sum(one["operations"] for one in training) / len(training),
        sum(one["core_seconds"] for one in training) / len(training),
        next(iter(records.values()))["parameters"],
    )


def best_of(results: Results, runs: Iterable[Run], metrics: str = "metrics") -> Scores | None:
    """The scores with the highest mean; None without results."""
    found = [scores for run in runs if (scores := find_scores(results, run, metrics))]
    return max(found, key=lambda scores: scores.mean, default=None)


def verdict(ours: Scores, theirs: Scores) -> str:
    """`ahead` or `behind` where no seed of one reaches any seed of the other, else `level`; needs several seeds."""
    if min(len(ours.values), len(theirs.values)) < 2:
        return "one seed, no verdict"
    if min(ours.values) > max(theirs.values):
        return "ahead"
    return "behind" if max(ours.values) < min(theirs.values) else "level"
