"""What run.json says of a run: hashes, differences between two records, and notes about its cases."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path


def case_notes(trainer, training: list[str]) -> list[str]:
    """What a user should know about the cases of a fold: too few, or a modality nobody can learn."""
    notes = []
    if trainer.held_out and not trainer.looks_at_held_out:
        notes.append(f"{len(trainer.held_out)} of {len(training)} training cases are held out, as meta_cases says, but "
                     f"with these settings {trainer.method} does not look at them: --set meta_cases=0 trains on them")
    elif trainer.held_out and (not trainer.num_held_out() or set(training) <= set(trainer.held_out)):
        why = f"with {len(training)} training case(s) none can be held out (that takes five)" if trainer.num_held_out() \
            else "no case is held out, as meta_cases=0 says"
        notes.append(f"{why}: what {trainer.method} learns on held-out cases, it learns on the training cases")
    elif trainer.held_out:
        notes.append(f"{len(trainer.held_out)} of {len(training)} training cases are held out, for what {trainer.method} "
                     f"does not learn by training: {', '.join(trainer.held_out)}")
    if len(trainer.files) < 5 and trainer.fold != "all":
        notes.append(f"{len(trainer.files)} cases in all, so the folds leave one out instead of a fifth")
    if trainer.fold == "all":
        notes.append("fold 'all' trains and validates on the same cases: its validation says nothing about new ones")
        if len(trainer.files) > len(training):
            notes.append(f"{len(trainer.files) - len(training)} case(s) are left out of fold 'all': test_cases.json keeps "
                         "them for testing")
    for m, name in enumerate(trainer.modalities):
        if not any(trainer.available[case][m] for case in training):
            notes.append(f"no training case of this fold has {name}: the model cannot learn it")
    return notes


def differences(name: str, earlier, now) -> list[str]:
    """Lines 'name: a, now b' for every value that differs, going into dictionaries."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        return [line for key in sorted({*earlier, *now})
                for line in differences(f"{name}.{key}", earlier.get(key), now.get(key))]
    return [] if earlier == now else [f"{name}: {earlier}, now {now}"]


def digest(content) -> str:
    """Hash of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(file: Path) -> str | None:
    """Hash of a file's content; None if it is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None

