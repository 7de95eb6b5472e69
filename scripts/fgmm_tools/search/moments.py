"""Windows to moments: neighbours are merged, the ends are found, near-duplicates are put together."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from .candidates import ScoredWindow
from .catalog import Catalog, Cue, FileEntry, WindowEntry

# A moment goes on as long as the score is at least this share of its peak; 0 is the score of the background.
EXTENT_SHARE = 0.6
# Windows that a moment has at most on either side of its best one.
MAX_REACH = 64
# Moments are made of so many best windows for each that is wanted: some are merged, some near-duplicates.
SEEDS_A_MOMENT = 4


@dataclass(frozen=True)
class Moment:
    """A part of a file that fits a query.

    file: of the catalog; `path` is its path. start, end: s; both 0 for an image.
    score: of its best window, in standard deviations above the background, see [`ScoredWindow`].
    windows: that it was made of, in their order; best: the one with the highest score.
    spoken: what is said in it, "" without subtitles.
    duplicates: moments that show nearly the same, in other files or at other times.
    """

    file: FileEntry
    start: float
    end: float
    score: float
    windows: list[ScoredWindow]
    best: ScoredWindow
    spoken: str = ""
    duplicates: list["Moment"] = field(default_factory=list)

    @property
    def path(self) -> str:
        return str(self.file.path)

    def to_dict(self) -> dict:
        """As JSON holds it; times in seconds."""
        return {
            "path": self.path,
            "kind": self.file.kind,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "score": round(self.score, 4),
            "seen": round(self.best.seen, 4),
            "spoken_share": round(self.best.spoken, 4),
            "spoken": self.spoken,
            "dark": self.best.entry.dark,
            "still": self.best.entry.still,
            "windows": [
                {"start": window.entry.start, "end": window.entry.end, "score": round(window.score, 4)}
                for window in self.windows
            ],
            "duplicates": [
                {"path": other.path, "start": round(other.start, 3), "end": round(other.end, 3)}
                for other in self.duplicates
            ],
        }


def find_moments(
    ranked: list[ScoredWindow],
    catalog: Catalog,
    score: Callable[[list[WindowEntry]], list[ScoredWindow]],
    top: int,
) -> list[Moment]:
    """The best moments, the highest score first.

    Args:
        ranked: windows, the highest score first.
        catalog: of the index.
        score: windows that are not among them to their scores.
        top: moments at most; near-duplicates do not count.
    """
    seeds: list[ScoredWindow] = []
    for window in ranked:  # windows that share time with a better one are grown into from there
        if len(seeds) == SEEDS_A_MOMENT * top:
            break
        if not any(overlap(window.entry, seed.entry) for seed in seeds):
            seeds.append(window)
    runs = grow(seeds, {window.entry.id: window for window in ranked}, catalog, score)
    files = catalog.get_files({seed.entry.file for seed in seeds})
    moments: list[Moment] = []
    for seed, run in zip(seeds, runs, strict=True):
        start, end = find_extent(seed, run)
        moment = Moment(files[seed.entry.file], start, end, seed.score, run, seed)
        same = next((other for other in moments if shares_time(moment, other)), None)
        alike = next((other for other in moments if same is None and are_duplicates(moment, other)), None)
        if alike is not None:
            alike.duplicates.append(moment)
        elif same is None and len(moments) < top:
            moments.append(moment)
    return [with_speech(moment, catalog) for moment in moments]


def overlap(first: WindowEntry, second: WindowEntry) -> bool:
    """Whether two windows are of one file and share time."""
    return first.file == second.file and first.start < second.end and second.start < first.end


def shares_time(first: Moment, second: Moment) -> bool:
    """Whether two moments are of one file and share time."""
    return first.file.id == second.file.id and (first.start < second.end and second.start < first.end)


def are_duplicates(first: Moment, second: Moment) -> bool:
    """Whether the best windows of two moments were marked as showing nearly the same."""
    groups = [moment.best.entry.duplicates or moment.best.entry.id for moment in (first, second)]
    return groups[0] == groups[1]


def grow(
    seeds: list[ScoredWindow],
    known: dict[int, ScoredWindow],
    catalog: Catalog,
    score: Callable[[list[WindowEntry]], list[ScoredWindow]],
) -> list[list[ScoredWindow]]:
    """For each seed the windows around it, in their order, up to the first on either side that is below the extent.

    Windows that are not scored yet are scored together, for all seeds at once, a step outwards at a time.

    Args:
        known: scored windows, by their ids; those that are scored here are added.
    """
    runs = [[seed] for seed in seeds]
    # Where each run still grows: at its first window (0), at its last (-1).
    growing = [(place, side) for place in range(len(seeds)) for side in (0, -1)]
    for _ in range(MAX_REACH):
        beside = {}
        for place, side in growing:
            edge = runs[place][side].entry
            wanted = edge.place - 1 if side == 0 else edge.place + 1
            found = [entry for entry in catalog.neighbours(edge) if entry.place == wanted]
            if found:
                beside[place, side] = found[0]
        missing = {entry.id: entry for entry in beside.values() if entry.id not in known}
        known |= {window.entry.id: window for window in score(list(missing.values()))} if missing else {}
        growing = []
        for (place, side), entry in beside.items():
            window = known[entry.id]
            runs[place].insert(0 if side == 0 else len(runs[place]), window)
            if window.score >= EXTENT_SHARE * seeds[place].score > 0:
                growing.append((place, side))
        if not growing:
            break
    return runs


def find_extent(seed: ScoredWindow, run: list[ScoredWindow]) -> tuple[float, float]:
    """Start and end of a moment, s.

    The windows' ends cut time into cells, each with the mean score of the windows over it; the moment is the cells
    around the best one of the seed whose scores are at least EXTENT_SHARE of its score.
    """
    bounds = sorted({bound for window in run for bound in (window.entry.start, window.entry.end)})
    if len(run) == 1 or seed.score <= 0:
        return seed.entry.start, seed.entry.end
    cells = []
    for first, last in pairwise(bounds):
        over = [window.score for window in run if window.entry.start <= first and window.entry.end >= last]
        cells.append((first, last, sum(over) / len(over) if over else 0.0))
    inside = [place for place, cell in enumerate(cells) if seed.entry.start <= cell[0] and cell[1] <= seed.entry.end]
    peak = max(inside, key=lambda place: cells[place][2])
    least = EXTENT_SHARE * cells[peak][2]
    first = last = peak
    while first > 0 and cells[first - 1][2] >= least:
        first -= 1
    while last + 1 < len(cells) and cells[last + 1][2] >= least:
        last += 1
    return cells[first][0], cells[last][1]


def with_speech(moment: Moment, catalog: Catalog) -> Moment:
    """The moment with what is said in it."""
    cues: list[Cue] = catalog.cues_of_file(moment.file.id, moment.start, moment.end)
    return replace(moment, spoken=" ".join(cue.text for cue in cues))
