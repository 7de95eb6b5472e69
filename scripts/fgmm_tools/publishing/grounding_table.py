"""The table of how well models find where and when things are, from results files of evaluate_grounding.py."""

from .tables import describe_record

# Of each column its heading, the measurement and the value in it.
COLUMNS = (
    ("points at it", "space", "pointing"),
    ("IoU", "space", "iou"),
    ("seen: points in time", "time_video", "pointing"),
    ("IoU in time", "time_video", "iou"),
    ("heard: points in time", "time_audio", "pointing"),
    ("IoU in time", "time_audio", "iou"),
)
# What needs no model, by the ending of its values.
FLOORS = {"a random point or moment": "chance", "the centre": "centre", "uniform attention": "uniform"}
# What should not pass, by measurement and value.
REFUSED = (
    ("own phrases", "own_pass"),
    ("foreign phrases", "foreign_pass"),
    ("silence, or black frames", "silence_pass", "black_pass"),
    ("noise", "noise_pass"),
)


def make_grounding_table(records: list[dict]) -> str:
    """A line for each model and for what needs none; below them what passes as shown, and how the numbers came about.

    Args:
        records: of one corpus.
    """
    lines = [
        f"| map | {' | '.join(heading for heading, _, _ in COLUMNS)} |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for record in records:
        lines.append(f"| {describe_map(record)} | {' | '.join(find_cells(record['metrics'], ''))} |")
    for name, ending in FLOORS.items():
        lines.append(f"| {name} | {' | '.join(find_cells(records[0]['metrics'], f'_{ending}'))} |")
    passing = [
        f"| passes as shown, % | {' | '.join(name for name, *_ in REFUSED)} | AUC |",
        "|---|" + "---:|" * (len(REFUSED) + 1),
    ]
    for record in records:
        for modality, kind in (("video", "seen"), ("audio", "heard")):
            values = record["metrics"].get(f"refusal_{modality}")
            if values:
                cells = [next(f"{values[key]:.1f}" for key in keys if key in values) for _, *keys in REFUSED]
                passing.append(f"| {describe_map(record)}, {kind} | {' | '.join(cells)} | {values['auc']:.1f} |")
    described = "\n".join(describe_record(record) for record in records)
    return "\n\n".join(["\n".join(lines), "\n".join(passing), described])


def describe_map(record: dict) -> str:
    """The objective of a model, and what its map is."""
    return f"`{record['objective']}`, {record['protocol'].split(', ')[1]}"


def find_cells(metrics: dict, ending: str) -> list[str]:
    """The values of a line; a dash where there is none."""
    values = [metrics.get(group, {}).get(f"{key}{ending}") for _, group, key in COLUMNS]
    return ["–" if value is None else f"{value:.1f}" for value in values]
