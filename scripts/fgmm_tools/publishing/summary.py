"""README's one table: the main results, each beside what it is to be compared with, from the results files."""

from dataclasses import dataclass
from pathlib import Path

from ..cli import UserError
from .results import mean_and_spread, read_results


@dataclass(frozen=True)
class Row:
    """One result.

    Args:
        task: what was measured.
        metric: its name in the results files.
        direction: of retrieval; None: classification.
        card: the model card, without its ending, with the details.
        ours: pattern of the results files, a file for each seed, without their ending.
        others: {what it is compared with: pattern of those files}.
    """

    task: str
    metric: str
    direction: str | None
    card: str
    ours: str
    others: dict[str, str]


def retrieval_row(task: str, direction: str, corpus: str, card: str) -> Row:
    """A trained model's retrieval, beside the same architecture with random weights."""
    return Row(task, "R@10", direction, card, f"{corpus}_fine", {"random weights": f"{corpus}_random"})


def downstream_row(task: str, runs: str) -> Row:
    """Classification with a pretrained encoder, beside the same from random weights."""
    files = f"downstream/{runs}"
    return Row(
        task, "top1", None, "downstream", f"{files}-pretrained-seed?", {"random weights": f"{files}-random-seed?"}
    )


ROWS = {
    "narrated": retrieval_row("text to video, 500 rendered clips", "text_to_video", "narrated", "fgmm-tiny"),
    "flickr8k": retrieval_row("text to image, 1,000 photographs of Flickr8k", "text_to_image", "flickr8k", "flickr8k"),
    "grid": retrieval_row("text to audio, 200 spoken sentences of GRID", "text_to_audio", "grid", "grid"),
    "esc10_linear": downstream_row("sounds of ESC-10, linear probe", "esc10-linear"),
    "esc10_finetune": downstream_row("sounds of ESC-10, fine-tuned", "esc10-finetune"),
    "ucf101_linear": downstream_row("actions, three classes of UCF101, linear probe", "ucf101-linear"),
    "ucf101_finetune": downstream_row("actions, three classes of UCF101, fine-tuned", "ucf101-finetune"),
}


def make_summary_table(folder: Path, names: list[str]) -> str:
    """The rows as Markdown.

    Args:
        folder: of all results files.
        names: keys of ROWS.

    Raises:
        UserError: when there is no such row or a results file does not exist.
    """
    if unknown := sorted(set(names) - ROWS.keys()):
        raise UserError(f"The table of results has no row {unknown[0]!r}, only {', '.join(ROWS)}.")
    lines = ["| task | metric | fgmm | compared with | seeds | details |", "|---|---|---:|---|---:|---|"]
    for name in names:
        row = ROWS[name]
        ours = read_values(folder, row, row.ours)
        others = ", ".join(
            f"{label} {mean_and_spread(read_values(folder, row, files))}" for label, files in row.others.items()
        )
        card = f"[{row.card}](model_cards/{row.card}.md)"
        lines.append(f"| {row.task} | {row.metric}, % | {mean_and_spread(ours)} | {others} | {len(ours)} | {card} |")
    return "\n".join(lines)


def read_values(folder: Path, row: Row, files: str) -> list[float]:
    """The row's metric in each of the files."""
    paths = sorted(folder.glob(f"{files}.json"))
    if not paths:
        raise UserError(f"The table of results needs {folder / files}.json; run the command that writes it.")
    metrics = [read_results(path)["metrics"] for path in paths]
    return [(values[row.direction] if row.direction else values)[row.metric] for values in metrics]
