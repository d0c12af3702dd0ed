"""The settings of a run: nnU-Net's and a method's defaults, a preset over them, `--set key=value` over both."""
from __future__ import annotations

from typing import Any

from nnmiss.errors import NnmissError, nearest_names

# What nnU-Net's trainer keeps as attributes, with nnU-Net's own values (nnUNetTrainer.__init__), and ours.
COMMON: dict[str, Any] = {
    "num_epochs": 0,  # 0: each stage as long as published
    "num_iterations_per_epoch": 250,
    "num_val_iterations_per_epoch": 50,
    "initial_lr": 1e-2,
    "weight_decay": 3e-5,
    "oversample_foreground_percent": 0.33,
    "probabilistic_oversampling": False,
    "batch_size": 0,  # 0: what the plan says
    "subset_sampling": "counts",  # which subset a case is shown (nnmiss.trainers.subset_sampling); section 8 of MetaKD
    "ema_decay": 0.0,  # above 0 the moving average of the weights is validated and stored for prediction
    "save_every": 1,  # epochs between two checkpoint_latest.pth; nnU-Net: 50
    "validation_mirroring": True,  # test-time mirroring in the final validation, as nnU-Net does
}

# Setting -> (smallest, largest) allowed value; those of methods stand in their `limits`.
LIMITS: dict[str, tuple[float, float]] = {
    "num_epochs": (0, 10**7),
    "num_iterations_per_epoch": (1, 10**7),
    "num_val_iterations_per_epoch": (1, 10**7),
    "initial_lr": (1e-12, 1e3),
    "weight_decay": (0, 1e3),
    "oversample_foreground_percent": (0, 1),
    "batch_size": (0, 10**5),
    "ema_decay": (0, 0.99999),
    "save_every": (1, 10**7),
    "width_factor": (1 / 64, 8),
    "micro_batch": (0, 10**5),
    "whole_passes": (0, 10**7),
    "kept_images": (0, 10**7),
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


def check_value(key: str, value: Any, limits: dict[str, tuple[float, float]],
                choices: dict[str, tuple]) -> None:
    """Raises NnmissError when a setting is outside its limits or none of its choices."""
    if key in choices and value not in choices[key]:
        raise NnmissError(f"{key}={value} is not one of: {', '.join(map(str, choices[key]))}")
    low, high = limits.get(key, (-float("inf"), float("inf")))
    if isinstance(value, int | float) and not low <= value <= high:  # false for NaN too
        raise NnmissError(f"{key}={value} is out of range: expected {low:g} to {high:g}")


def resolve_settings(known: dict[str, Any], presets: dict[str, dict[str, Any]], preset: str,
                     assignments: dict[str, Any], stages: tuple[str, ...],
                     limits: dict[str, tuple[float, float]] | None = None,
                     choices: dict[str, tuple] | None = None) -> dict[str, dict[str, Any]]:
    """Stage -> every setting of that stage.

    Args:
        known: setting -> default; its keys are all that may be set.
        presets: preset -> the settings it changes; keys may be "stage.key".
        preset: the chosen one.
        assignments: what the user set, over the preset; keys may be "stage.key", values text or typed.
        stages: the method's stages in order.
        limits, choices: the method's own, beside LIMITS.

    Raises:
        NnmissError: unknown preset, stage or key (with the list), or a value of the wrong type or out of range.
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
    for settings in resolved.values():
        for key, value in settings.items():
            check_value(key, value, {**LIMITS, **(limits or {})}, choices or {})
    return resolved


def common_settings(known: dict[str, Any], presets: dict[str, dict[str, Any]], preset: str, assignments: dict[str, Any],
                    limits: dict[str, tuple[float, float]] | None = None,
                    choices: dict[str, tuple] | None = None) -> dict[str, Any]:
    """The settings as all stages share them, before it is known which stages there are; see `resolve_settings`."""
    shared = {name: {k: v for k, v in layer.items() if "." not in k} for name, layer in presets.items()}
    own = {key: value for key, value in assignments.items() if "." not in key}
    return resolve_settings(known, shared, preset, own, ("all",), limits, choices)["all"]


def stage_epochs(total: int, published: dict[str, int], given: dict[str, int]) -> dict[str, int]:
    """Epochs of every stage: those `given`, and what is left of `total` shared among the others, each at least one.

    Args:
        total: 0 trains the stages that are not `given` as long as published.
        published: stage -> its epochs in the paper, in whose proportion `total` is shared.
        given: stage -> epochs the user set for it.

    Raises NnmissError when `total` leaves no epoch for a stage.
    """
    rest = {stage: epochs for stage, epochs in published.items() if stage not in given}
    if not rest or not total:
        return {stage: given.get(stage) or published[stage] for stage in published}
    if total - sum(given.values()) < len(rest):
        left, needed = max(0, total - sum(given.values())), sum(given.values()) + len(rest)
        raise NnmissError(f"num_epochs={total} leaves {_epochs(left)} for {' and '.join(rest)}, fewer than one each: raise "
                          f"num_epochs to {needed} or more")
    left = dict(zip(rest, split_epochs(total - sum(given.values()), tuple(rest.values()))))
    return {stage: given.get(stage, left.get(stage)) for stage in published}


def split_epochs(total: int, shares: tuple[float, ...]) -> list[int]:
    """`total` epochs over stages in proportion to `shares`, every stage at least one. Raises NnmissError if too few."""
    if total < len(shares):
        raise NnmissError(f"num_epochs leaves {_epochs(total)} for {len(shares)} stages, fewer than one each: raise it to "
                          f"{len(shares)} or more")
    bounds = [round(total * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    epochs = [max(1, b - a) for a, b in zip([0, *bounds], bounds)]
    while sum(epochs) > total:
        epochs[epochs.index(max(epochs))] -= 1
    return epochs


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
