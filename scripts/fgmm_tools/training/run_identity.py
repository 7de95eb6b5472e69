"""What a run is, as its checkpoints remember it, and whether a run that resumes from one of them is the same."""

import dataclasses
import fnmatch
import hashlib
import json
from pathlib import Path

from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from processing_fgmm.rowgroups_fgmm import explain_change

from ..cli import UserError
from .configuration import PretrainConfig, flatten
from .corpora import TrainingCorpus

# Where a run is stored and how it is watched and fed: these may differ when it is resumed, as nothing else may.
FREE_FIELDS = {
    *("output_dir", "resume_from", "num_workers", "num_threads", "gradient_checkpointing"),
    *("max_failed_share", "max_skipped_steps"),
    *(
        "log_steps",
        "trackers",
        "picture_steps",
        "eval_split",
        "eval_steps",
        "eval_clips",
        "save_steps",
        "save_total_limit",
    ),
}
# Names of what a fingerprint identifies: it may be moved. So may corpora.
NAMES = ("init_from", "tokenizer")
# What a model or tokenizer folder is identified by: not results files that are written beside it.
MODEL_FILES = ("*.safetensors", "config.json", "*processor_config.json", "tokenizer*.json", "vocab*")


def identify_run(config: PretrainConfig, corpora: list[TrainingCorpus]) -> dict:
    """The settings of a run, and the fingerprints of what it reads.

    Args:
        config: of the run.
        corpora: that it trains on.

    Returns:
        {"settings": of all fields, "fingerprints": {"init_from", "tokenizer"}, "corpora": what [`explain_change`]
        compares of each, "changes": []}; an empty fingerprint of what is not used.

    Raises:
        UserError: when something named cannot be opened.
    """
    names = {name: getattr(config, name) for name in NAMES}
    return {
        "settings": dataclasses.asdict(config),
        "fingerprints": {name: fingerprint_model(value) if value else "" for name, value in names.items()},
        "corpora": [{"dataset": corpus.rows.name, **corpus.rows.describe()} for corpus in corpora],
        "changes": [],
    }


def fingerprint_model(name: str) -> str:
    """Of a model or tokenizer: a hash of its files in a folder, the commit on the Hub.

    Raises:
        UserError: when it cannot be loaded.
    """
    if not Path(name).is_dir():
        try:
            path = cached_file(name, "tokenizer_config.json")
        except OSError as error:
            raise UserError(f"{name!r} could not be loaded: {str(error).splitlines()[0]}") from error
        return extract_commit_hash(path, None) or ""
    digest = hashlib.sha256()
    for path in sorted(Path(name).iterdir()):
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in MODEL_FILES):
            with path.open("rb") as stream:
                digest.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def read_identity(checkpoint: Path) -> dict:
    """What [`identify_run`] gave for the run that wrote a checkpoint.

    Raises:
        UserError: when the checkpoint does not say.
    """
    try:
        identity = json.loads((checkpoint / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint} does not say which run it is of (run.json is missing or damaged); start a new run in "
            "another output_dir."
        ) from error
    if "corpora" not in identity:
        raise UserError(
            f"{checkpoint} was written by an earlier version, which had another order of clips; start a new run in "
            "another output_dir."
        )
    return identity


def check_same_run(saved: dict, current: dict, checkpoint: Path, step: int) -> dict:
    """Checks that a run may resume from a checkpoint.

    Args:
        saved, current: from [`identify_run`], of the run that wrote the checkpoint and of the one that resumes.
        checkpoint, step: where and when it was written.

    Returns:
        `current` with all changes that its run has seen: `{"step", "field", "old", "new"}`.

    Raises:
        UserError: naming all settings that differ, with old and new values.
    """
    old, new = (flatten_settings(identity["settings"]) for identity in (saved, current))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    differences = explain_corpora(saved["corpora"], current["corpora"])
    differences += [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in names
        if name not in FREE_FIELDS and name not in NAMES and name != "max_steps"
    ]
    for name in NAMES:
        if saved["fingerprints"][name] != current["fingerprints"][name]:
            moved = f"was {old[name]!r} and is {new[name]!r}"
            differences.append(f"{name} {moved}" if old[name] != new[name] else f"{name} {old[name]!r} has other files")
    if differences:
        raise UserError(
            f"{checkpoint} is of another run: {', '.join(differences)}; resume with what was, or start a new run in "
            "another output_dir."
        )
    if new["max_steps"] < step:
        raise UserError(f"{checkpoint} is of step {step}, beyond max_steps {new['max_steps']}; raise it.")
    changed = [
        {"step": step, "field": name, "old": old[name], "new": new[name]} for name in names if name == "max_steps"
    ]
    return {**current, "changes": saved["changes"] + changed}


def explain_corpora(old: list[dict], new: list[dict]) -> list[str]:
    """How the corpora of a run differ from those that they were, as phrases."""
    if len(old) != len(new):
        return [f"it had {len(old)} corpora and has {len(new)}"]
    differences = []
    for before, now in zip(old, new, strict=True):
        if change := explain_change(before, now):
            moved = "" if before["dataset"] == now["dataset"] else f", which was {before['dataset']!r},"
            differences.append(f"the corpus {now['dataset']!r}{moved} has changed ({change})")
    return differences


def flatten_settings(settings: dict) -> dict:
    """The entries of all fields by their dotted names, without empty mappings, and of corpora their weights alone;
    fields that an earlier version did not have are at their defaults."""
    entries = flatten({**dataclasses.asdict(PretrainConfig(output_dir="")), **settings})
    del entries["dataset"]
    entries["datasets"] = [corpus["weight"] for corpus in entries["datasets"]]
    return {name: value for name, value in entries.items() if value != {}}
