"""Distillation from an ensemble of teachers into one head: mean of the teachers' probabilities as soft targets (MIND).

"MIND: Modality-Informed Knowledge Distillation Framework for Multimodal Clinical Prediction Tasks", Eq. 1, 3 and 4. Where
the paper leaves something open, documentation/reference/methods/mind.md says what we do.
"""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

REDUCTIONS = ("sum", "mean")


def soft_targets(logits: Tensor, task: str, tau: float = 1.0) -> Tensor:
    """Probabilities of a teacher, or of several: one per output of the network.

    Args:
        logits: (..., outputs) float.
        task: one of nnmiss.classification.tasks.TASKS.
        tau: temperature of the softmax of a multiclass task; the others have none.

    Returns:
        (..., outputs) float32.
    """
    logits = logits.float()
    return (logits / tau).softmax(-1) if task == "multiclass" else logits.sigmoid()


def ensemble_targets(logits: Tensor, task: str, tau: float = 1.0) -> Tensor:
    """Eq. 4: the mean over K teachers of their probabilities, (K, B, outputs) logits -> (B, outputs) float32."""
    return soft_targets(logits, task, tau).mean(0)


def ensemble_distillation(logits: Tensor, targets: Tensor, task: str, reduction: str = "sum", tau: float = 1.0) -> Tensor:
    """How far a student is from the teachers: Eq. 3 for binary and multilabel tasks, Eq. 1's KL divergence for multiclass.

    Eq. 3 is the binary cross-entropy, summed over the labels, mean over the samples. With a temperature the KL divergence
    is multiplied by tau^2, which keeps its gradient's size (Hinton et al. 2015, section 2).

    Args:
        logits: (B, outputs) float, the student's.
        targets: (B, outputs) float of `ensemble_targets`; no gradient flows into them.
        task: one of nnmiss.classification.tasks.TASKS.
        reduction: over the labels of a multilabel task, one of REDUCTIONS.
        tau: as the targets were made with.

    Returns:
        Scalar float32; 0 (attached to the graph) for B = 0.
    """
    logits, targets = logits.float(), targets.detach().float()
    if not len(logits):
        return logits.sum()
    if task == "multiclass":
        return F.kl_div((logits / tau).log_softmax(-1), targets, reduction="batchmean") * tau**2
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")  # (B, outputs)
    return (losses.sum(1) if reduction == "sum" else losses.mean(1)).mean()


def consistency(clean: Tensor, noisy: Tensor, task: str) -> Tensor:
    """Mean over samples of the squared distance between the probabilities of two passes, summed over the outputs.

    The regularisation of multimodal knowledge expansion (Xue et al. 2021): a student whose prediction moves under noise
    is corrected. Gradient flows through both.

    Args:
        clean, noisy: (B, outputs) float logits.

    Returns:
        Scalar float32.
    """
    return (soft_targets(clean, task) - soft_targets(noisy, task)).square().sum(-1).mean()
