"""The settings that all classification methods have, beside their own."""
from __future__ import annotations

from typing import Any

from .optimizers import OPTIMIZERS, RATES

# Settings of the network that every method has; 0, "" and -1: what the plan says.
NETWORK: dict[str, Any] = {
    "encoders": "",  # such as image:resnet10+sound:sound_net
    "feature_dim": 0,  # common size that features are projected to
    "hidden": "",  # sizes of the classifier's hidden layers, such as 512+128; none: no hidden layer
    "dropout": -1.0,  # of the classifier's hidden layers
}

COMMON: dict[str, Any] = {
    "num_epochs": 0,  # passes over the training samples; 0: each stage as long as published
    "num_iterations_per_epoch": 0,  # 0: one pass over the training samples
    "batch_size": 0,  # 0: what the plan says
    "initial_lr": 1e-3,
    "weight_decay": 1e-4,
    "optimizer_name": "adam",
    "schedule": "constant",
    "lr_decay": 0.1,  # factor of the schedules step and plateau
    "lr_step": 20,  # epochs between two steps; with plateau: epochs without improvement
    "patience": 0,  # epochs without improvement on validation after which a stage ends; 0: never
    "select_by": "auto",  # accuracy for multiclass, AUROC else
    "select_on": "mean",  # over the reported subsets; or available, full, or a subset such as image+sound
    "keep": "best",  # whose weights the final checkpoint holds: of the best epoch on validation, or of the last
    "class_balance": "weights",
    "drop": True,  # modality dropout, in the stages that have it
    "figures": True,  # False saves the seconds that drawing takes; the numbers are written as csv all the same
    "save_every": 1,  # epochs between two checkpoint_latest.pth
}

LIMITS: dict[str, tuple[float, float]] = {
    "num_epochs": (0, 10**7), "num_iterations_per_epoch": (0, 10**7), "batch_size": (0, 10**6),
    "initial_lr": (1e-12, 1e3), "weight_decay": (0, 1e3), "lr_decay": (1e-6, 1), "lr_step": (1, 10**7),
    "patience": (0, 10**7), "save_every": (1, 10**7), "feature_dim": (0, 10**6), "dropout": (-1, 0.99),
}

SCORES = ("accuracy", "macro_f1", "auroc", "auprc", "loss")
CLASS_BALANCE = ("weights", "sampler", "smote", "none")

CHOICES: dict[str, tuple] = {
    "optimizer_name": tuple(OPTIMIZERS), "schedule": RATES, "select_by": ("auto", *SCORES), "keep": ("best", "last"),
    "class_balance": CLASS_BALANCE,
}
