"""What everything that a case has teaches one of its subsets: features of the decoder, or the logits."""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from nnmiss.losses.feature_distances import feature_distance


def feature_lessons(student: Tensor, teacher: Tensor, ratios: Tensor, distance: str = "lp", p: int = 1,
                    weights: Tensor | None = None) -> Tensor:
    """Distance of the decoder's features under a subset from those under the full set, summed over samples.

    Args:
        student, teacher: (n, C, *spatial); the teacher gets no gradient.
        ratios: (n,) weight of each sample, or (n, K) one of each of the K `weights`; without gradient.
        distance, p: see nnmiss.losses.feature_distances.
        weights: (n, K, *spatial), where voxels count, summing to 1 over space or 0; the mean over K is taken. None: all
            voxels alike.

    Returns:
        Scalar float32, a sum: the caller divides by the batch, in which other samples may have nothing to learn.
    """
    apart = feature_distance(distance, p)(student.float(), teacher.detach().float(), weights)  # (n,) or (n, K)
    if weights is None:
        return (apart * ratios).sum()
    return (apart * ratios.view(len(ratios), -1)).sum() / weights.shape[1]


def logit_lessons(student: Tensor, teacher: Tensor, ratios: Tensor, regions: bool, temperature: float = 2.0,
                  weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of soft predictions under a subset from those under the full set, over samples.

    Both are softened by the temperature T, and the divergence is multiplied by T^2, so that its gradient keeps its size
    (Hinton et al. 2015). Outputs are regions, each with a sigmoid of its own, or labels with one softmax.

    Args:
        student, teacher: (n, K, *spatial) logits; the teacher's get no gradient.
        ratios: (n,) weight of each sample, or (n, K) of each sample's outputs; without gradient.
        regions: whether the outputs are regions, of which the mean is taken; of labels it is the sum, as the divergence is.
        temperature: T > 0.
        weights: (n, 1, *spatial), where voxels count, summing to 1 over space or 0; None: all voxels alike.

    Returns:
        Scalar float32, a sum: the caller divides by the batch.
    """
    s, t = student.float() / temperature, teacher.detach().float() / temperature
    if regions:
        apart = F.binary_cross_entropy_with_logits(s, t.sigmoid(), reduction="none")
        apart = apart - F.binary_cross_entropy_with_logits(t, t.sigmoid(), reduction="none")  # the least there can be
    else:
        apart = F.kl_div(s.log_softmax(1), t.log_softmax(1), reduction="none", log_target=True)
        if ratios.ndim == 2:  # 0 in sum over labels, each of which is then 0 at least: else those that count more would
            # be taught to be likelier than the teacher says
            apart = apart + s.softmax(1) - t.softmax(1)
    apart = apart.flatten(2)  # (n, K, V)
    each = apart.mean(2) if weights is None else (apart * weights.flatten(2)).sum(2)  # (n, K)
    each = each * (ratios[:, None] if ratios.ndim == 1 else ratios)
    return temperature**2 * (each.mean(1) if regions else each.sum(1)).sum()
