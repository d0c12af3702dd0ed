"""The settings of a run: nnU-Net's and a method's defaults, a preset over them, `--set key=value` over both."""
from __future__ import annotations

from typing import Any

from nnmiss.errors import NnmissError, nearest_names

# What nnU-Net's trainer keeps as attributes, with nnU-Net's own values (nnUNetTrainer.__init__), and ours.
COMMON: dict[str, Any] = {
    "num_epochs": 1000,
    "num_iterations_per_epoch": 250,
    "num_val_iterations_per_epoch": 50,
    "initial_lr": 1e-2,
    "weight_decay": 3e-5,
    "oversample_foreground_percent": 0.33,
    "probabilistic_oversampling": False,
    "batch_size": 0,  # 0: what the plan says
    "save_every": 1,  # epochs between two checkpoint_latest.pth; nnU-Net: 50
    "validation_mirroring": True,  # test-time mirroring in the final validation, as nnU-Net does
}


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """['alpha=0.1', 'missing.num_epochs=5'] as a dict. Raises NnmissError for items without '='."""
    pairs = [item.partition("=") for item in assignments]
    bad = [item for item, (key, equals, _) in zip(assignments, pairs) if not equals or not key]
    if bad:
        raise NnmissError(f"--set expects key=value, got {bad[0]!r}")
    return {key: value for key, _, value in pairs}


def coerce(key: str, text: Any, default: Any) -> Any:
    """`text` as the type of `default`. Raises NnmissError naming the key, the value and the expected type."""
    if not isinstance(text, str):
        return text
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        raise NnmissError(f"--set {key}={text}: expected {type(default).__name__}, such as {default!r}") from None


def resolve_settings(known: dict[str, Any], presets: dict[str, dict[str, Any]], preset: str,
                     assignments: dict[str, Any], stages: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Stage -> every setting of that stage.

    Args:
        known: setting -> default; its keys are all that may be set.
        presets: preset -> the settings it changes; keys may be "stage.key".
        preset: the chosen one.
        assignments: what the user set, over the preset; keys may be "stage.key", values text or typed.
        stages: the method's stages in order.

    Raises:
        NnmissError: unknown preset, stage or key (with the list), or a value of the wrong type.
    """
    if preset not in presets:
        raise NnmissError(f"preset {preset!r} is unknown for this method. {nearest_names(preset, list(presets))}")
    resolved = {stage: dict(known) for stage in stages}
    for layer in (presets[preset], assignments):
        for key in sorted(layer, key=lambda k: "." in k):  # what names a stage wins over what does not
            stage, dot, name = key.rpartition(".")
            if name not in known:
                raise NnmissError(f"--set {key}: unknown setting. {nearest_names(name, sorted(known))}")
            if dot and stage not in stages:
                raise NnmissError(f"--set {key}: unknown stage. {nearest_names(stage, stages)}")
            for target in [stage] if dot else stages:
                resolved[target][name] = coerce(key, layer[key], known[name])
    return resolved


def split_epochs(total: int, shares: tuple[float, ...]) -> list[int]:
    """`total` epochs over stages in proportion to `shares`, every stage at least one. Raises NnmissError if too few."""
    if total < len(shares):
        raise NnmissError(f"num_epochs={total} is fewer than the method's {len(shares)} stages: each needs one")
    bounds = [round(total * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    epochs = [max(1, b - a) for a, b in zip([0, *bounds], bounds)]
    while sum(epochs) > total:
        epochs[epochs.index(max(epochs))] -= 1
    return epochs
