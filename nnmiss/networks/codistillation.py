"""What all-stage trains together: an autoencoder or a student, with a frozen teacher that every gradient passes through."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnmiss.networks.hyper_unet import HyperUNet
from nnmiss.networks.masked_autoencoder import MaskedAutoencoder, blanked


class WithTeacher(nn.Module):
    """Base: holds a frozen segmentation network, always in evaluation mode.

    Args:
        teacher: gets no gradient; gradients pass through it to its input.
        checkpoint_teacher: compute activations again in the backward pass, to save memory: the teacher's, or the
            autoencoder's where the teacher comes last, so that its own are gone by then.
    """

    def __init__(self, teacher: HyperUNet, checkpoint_teacher: bool):
        super().__init__()
        self.teacher = teacher.requires_grad_(False).eval()
        self.checkpoint_teacher = checkpoint_teacher

    def train(self, mode: bool = True):
        super().train(mode)
        self.teacher.eval()
        return self

    def ask_teacher(self, images: Tensor, code: Tensor) -> tuple[Tensor | list[Tensor], list[Tensor]]:
        """Logits and features of `HyperUNet.segment`."""
        if self.checkpoint_teacher and images.requires_grad:
            return checkpoint(self.teacher.segment, images, code, use_reentrant=False)
        return self.teacher.segment(images, code)


class Approximation(WithTeacher):
    """The autoencoder whose reconstruction the frozen segmentation network judges (Eq. 3)."""

    def __init__(self, autoencoder: MaskedAutoencoder, teacher: HyperUNet, checkpoint_teacher: bool = True):
        super().__init__(teacher, checkpoint_teacher)
        self.autoencoder = autoencoder

    def forward(self, x: Tensor, present: Tensor, patches: Tensor, judge: bool = True):
        """(reconstruction (B, M, *spatial), the teacher's logits of it with modality code all ones, or None).

        Args as `MaskedAutoencoder.forward` takes them; `judge`: whether the teacher is asked.
        """
        if not judge:
            return self.autoencoder(x, present, patches), None
        again = self.checkpoint_teacher and torch.is_grad_enabled()
        reconstruction = checkpoint(self.autoencoder, x, present, patches, use_reentrant=False) if again else \
            self.autoencoder(x, present, patches)
        return reconstruction, self.teacher.segment(reconstruction, torch.ones_like(present))[0]


class CoDistillation(WithTeacher):
    """Student, learnable recovery of missing modalities, and frozen teacher in one module (section 3.2).

    Args:
        student: the network that is kept.
        recovery: the autoencoder that completes the teacher's input.
        teacher: frozen.
        recover: False: the teacher sees the available modalities alone, and their code (Table 5 b).
        refine: whether the teacher's loss trains `recovery`; else it is frozen (Table 5 c).
        teach: False: no teacher at all (Table 5 a).
        checkpoint_teacher: see WithTeacher.
    """

    def __init__(self, student: HyperUNet, recovery: MaskedAutoencoder, teacher: HyperUNet, recover: bool = True,
                 refine: bool = True, teach: bool = True, checkpoint_teacher: bool = True):
        super().__init__(teacher, checkpoint_teacher)
        self.student, self.recovery = student, recovery
        self.recover, self.teach = recover, teach
        self.refine = recover and refine and teach
        recovery.requires_grad_(self.refine)

    def forward(self, x: Tensor, present: Tensor, available: Tensor) -> dict:
        """Everything the losses need, from one call.

        Args:
            x: (B, M, *spatial) float; absent modalities may hold anything.
            present: (B, M) bool, what the student is shown.
            available: (B, M) bool, what the recovery module and the teacher are shown.

        Returns:
            "logits", "features": the student's (`HyperUNet.segment`); unless `teach` is off "teacher_logits" and
            "teacher_features" on the completed images "complete" (B, M, *spatial); with `refine` also "recovered", whether
            anything was, and "nothing", a 0 that depends on the recovery module, which DistributedDataParallel expects
            to see in every step.
        """
        result = self.teacher_view(x, available) if self.teach else {}
        # last, so that the backward pass is done with it before it computes the teacher again
        result["logits"], result["features"] = self.student.segment(blanked(x, present), present)
        return result

    def teacher_view(self, x: Tensor, available: Tensor) -> dict:
        """What `forward` returns of the teacher."""
        result = {}
        lacking = ~available.all(1)  # (B,)
        recovered = self.recover and bool(lacking.any())
        code = torch.ones_like(available) if self.recover else available
        with torch.set_grad_enabled(self.refine and recovered and torch.is_grad_enabled()):
            complete = self.completed(x, available, lacking) if recovered else blanked(x, available)
            result["teacher_logits"], result["teacher_features"] = self.ask_teacher(complete, code)
        if self.refine:
            result["recovered"] = recovered
            result["nothing"] = 0 * sum(parameter.sum() for parameter in self.recovery.parameters())
        return {**result, "complete": complete}

    def completed(self, x: Tensor, available: Tensor, lacking: Tensor) -> Tensor:
        """The images with missing modalities reconstructed from the available ones; real modalities as they are.

        Args:
            x: (B, M, *spatial); available: (B, M) bool; lacking: (B,) bool, the samples that lack a modality.
        """
        synthetic = self.recovery(x[lacking], available[lacking])
        filled = torch.zeros_like(x).index_put((lacking.nonzero()[:, 0],), synthetic.to(x.dtype))
        return torch.where(available.view(*available.shape, *[1] * (x.ndim - 2)), x, filled)
