"""What training on a corpus as large as HowTo100M costs: hours, money, and what binds, from measured costs of a clip.

Nothing here is measured at that size: the cost of one clip is (scripts/benchmark_scale.py), everything else is an
assumption, with the value that it has in [`Assumptions`].
"""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from .results import read_results

GPUS = (1, 8, 64)
# Seconds of video in a row of the corpus: whole videos, as prepare_dataset.py writes them, or cut to pieces before.
PIECE_SECONDS = 30.0


@dataclass(frozen=True)
class Assumptions:
    """What the calculation supposes; the text after each value stands in the card."""

    clips: float = 136e6
    """clips shown in the run: each narrated clip of HowTo100M once (Miech et al., 2019)"""
    videos: float = 1.22e6
    """videos of the corpus (the same)"""
    bytes_of_corpus: float = 12e12
    """bytes of all videos at the size at which they are commonly stored"""
    row_seconds: float = 390.0
    """seconds of video in a row, all of whose bytes are read to show one clip of it: the mean length of a video"""
    peak_operations: float = 989e12
    """floating-point operations that a GPU can do in a second: H100 SXM, bfloat16, dense"""
    utilisation: float = 0.25
    """share of these that training does: measured on no GPU; narrow 3D convolutions are far from the peak"""
    gpus_per_machine: float = 8
    """GPUs that share a machine's storage and network"""
    cores_per_gpu: float = 24
    """processor cores for each GPU, all of which decode"""
    loader_of_limit: float = 0.85
    """clips/s of the loader by those of plain decoding on as many cores; the aim: 0.67 to 0.94 were measured"""
    core_speed: float = 1.0
    """speed of a core by that of the one on which decoding was measured"""
    storage_rate: float = 3e9
    """bytes/s that a machine reads of the corpus, from its own drives or an object store"""
    network_rate: float = 50e9
    """bytes/s of a machine's network card to other machines; within a machine GPUs exchange faster"""
    batch_size: float = 128
    """clips of a step on each GPU"""
    gpu_hour_price: float = 2.5
    """US dollars for an hour of a GPU with its share of the machine"""


@dataclass(frozen=True)
class ClipCost:
    """What was measured of a training clip, with a batch for each GPU.

    core_seconds: of a processor core, to read, decode and prepare it.
    operations: floating-point, forward and backward, of encoders and projections.
    contrast_operations: the same of the scores, with each other clip of the batch of all GPUs.
    parameters: of the model.
    seconds: of video that it shows.
    """

    core_seconds: float
    operations: float
    contrast_operations: float
    parameters: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A run: clips/s of all GPUs that each part would allow alone, and what follows from the lowest."""

    rates: dict[str, float]
    hours: float
    dollars: float

    @property
    def binds(self) -> str:
        """The part that sets the rate."""
        return min(self.rates, key=self.rates.get)


def estimate(cost: ClipCost, assumed: Assumptions, gpus: int) -> Estimate:
    """The run on a number of GPUs.

    The slowest part sets the rate, as reading, decoding and exchange run beside the arithmetic. The exchange is that of
    gradients in a ring of machines, in float32, twice (n - 1) / n of their bytes a step and machine.
    """
    machines = max(1.0, gpus / assumed.gpus_per_machine)
    operations = cost.operations + cost.contrast_operations * assumed.batch_size * gpus
    row_bytes = assumed.bytes_of_corpus / assumed.videos * assumed.row_seconds / Assumptions.row_seconds
    cores = gpus * assumed.cores_per_gpu
    rates = {
        "arithmetic": gpus * assumed.peak_operations * assumed.utilisation / operations,
        "decoding": cores * assumed.core_speed * assumed.loader_of_limit / cost.core_seconds,
        "storage": machines * assumed.storage_rate / row_bytes,
    }
    if machines > 1:
        exchanged = 2 * (machines - 1) / machines * 4 * cost.parameters
        rates["network"] = assumed.batch_size * gpus * assumed.network_rate / exchanged
    hours = assumed.clips / min(rates.values()) / 3600
    return Estimate(rates, hours, hours * gpus * assumed.gpu_hour_price)


def read_cost(path: Path) -> ClipCost:
    """The cost of a clip from the results file of scripts/benchmark_scale.py.

    Raises:
        UserError: when it does not exist or is damaged.
    """
    metrics = read_results(path)["metrics"]
    return ClipCost(**{field.name: metrics[field.name] for field in fields(ClipCost)})


def make_scale_table(path: Path) -> str:
    """The runs on 1, 8 and 64 GPUs, of whole videos and of pieces, with what was measured and what is assumed.

    Args:
        path: results file of scripts/benchmark_scale.py.
    """
    record, cost, assumed = read_results(path), read_cost(path), Assumptions()
    lines = [
        "| rows of the corpus | GPUs | arithmetic | decoding | storage | network | what binds | hours | US dollars |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    pieces = replace(assumed, row_seconds=PIECE_SECONDS)
    for name, of_rows in (("whole videos", assumed), (f"pieces of {PIECE_SECONDS:g} s", pieces)):
        for gpus in GPUS:
            run = estimate(cost, of_rows, gpus)
            rates = " | ".join(
                f"{run.rates[part]:,.0f}" if part in run.rates else "-"
                for part in ("arithmetic", "decoding", "storage", "network")
            )
            lines.append(f"| {name} | {gpus} | {rates} | {run.binds} | {run.hours:,.0f} | {run.dollars:,.0f} |")
    return "\n".join([*lines, "", describe_cost(record, cost), "", *describe_assumptions(assumed)])


def describe_cost(record: dict, cost: ClipCost) -> str:
    """What was measured, as a sentence."""
    return (
        f"Columns from arithmetic to network are clips/s that each would allow alone. Measured of a clip of "
        f"{record['model']} ({cost.parameters / 1e6:.0f} M parameters, {cost.seconds:g} s of video and sound): "
        f"{cost.operations / 1e9:,.0f} GFLOP of encoders, {cost.contrast_operations / 1e6:,.2f} MFLOP for each other "
        f"clip of the batch, {1000 * cost.core_seconds:,.0f} ms of a core to decode and prepare it "
        f"(`{record['command']}`, {record['device']}, {record['date']}: {record['protocol']})."
    )


def describe_assumptions(assumed: Assumptions) -> list[str]:
    """A table row for each assumption."""
    meanings = read_meanings()
    rows = [f"| {name} | {value:,.6g} | {meanings[name]} |" for name, value in asdict(assumed).items()]
    return ["| assumed | value | meaning |", "|---|---:|---|", *rows]


def read_meanings() -> dict[str, str]:
    """The text after each field of [`Assumptions`]."""
    from docstring_parser import parse_from_object

    return {entry.arg_name: " ".join(entry.description.split()) for entry in parse_from_object(Assumptions).params}


def describe_monitoring(path: Path) -> str:
    """What trackers cost, as a sentence.

    Args:
        path: results file of scripts/benchmark_monitoring.py.
    """
    record = read_results(path)
    metrics, settings = record["metrics"], record["settings"]
    low, high = metrics["quartiles_of_ratio"]
    same = "the same weights bit for bit" if metrics["same_weights"] else "other weights"
    trackers, seconds = " and ".join(settings["trackers"]), metrics["picture_seconds"]
    return (
        f"{trackers}, told every {settings['log_steps']} steps of {settings['batch_size']} clips, with a picture every "
        f"{settings['picture_steps']:,} steps: {100 * metrics['cost']:.2f} % of the time of {record['model']}. The "
        f"ratio of times with and without is {metrics['ratio_of_step']:.3f} (quartiles {low:.3f} and {high:.3f}), that "
        f"of core seconds {metrics['ratio_of_core_seconds']:.3f}; a picture takes {seconds:.1f} s. Both end with "
        f"{same} (`{record['command']}`, {record['device']}, {record['date']}: {record['protocol']})."
    )
