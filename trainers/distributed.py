"""The distributed half of the segmentation trainer: nnU-Net's DDP for any device, in parts of one batch."""
from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnmiss.errors import NnmissError
from nnmiss.seeding import seed_libraries

from .processes import everyones, num_processes, own_device, rank


class Distributed(nnUNetTrainer):
    """Training one network in several processes; mixed into MissingModalityTrainer, whose attributes it uses.

    The plan's batch is split over the processes as nnU-Net splits it. A loss is a mean over samples, so each process's
    counts by its part of the batch, and the mean of the gradients is that of the whole batch in one process. What is drawn
    is drawn for the whole batch. nnU-Net's `local_rank` is the number among all processes, whatever the machine: it
    says who writes. The device follows the number on the machine.

    Attributes:
        rows: this process's part of a batch.
        part_weight: its share of the samples times the number of processes.
        oversample_of_batch: nnU-Net's share of samples with foreground, of the whole batch.
    """

    rows, part_weight = slice(None), 1.0

    def take_device(self, device: torch.device) -> None:
        """nnU-Net takes cuda:<number among all processes>; here the process's own device."""
        if self.is_ddp:
            self.device = own_device(device)
            if self.device.type != "cuda":
                self.grad_scaler = None

    def initialize(self):
        """Everything as in one process, then the wrapper: nnU-Net's own needs CUDA and one machine."""
        parallel, self.is_ddp = self.is_ddp, False
        try:
            super().initialize()
        finally:
            self.is_ddp = parallel
        self.oversample_of_batch = self.oversample_foreground_percent
        if parallel:
            self.distribute()

    def distribute(self) -> None:
        """Wraps the network, takes this process's part of the batch, and makes a batch Dice that of the whole batch."""
        batch = self.configuration_manager.batch_size
        if batch < num_processes():
            raise NnmissError(f"a batch of {batch} cannot be split over {num_processes()} processes: use at most {batch}, "
                              f"or --set batch_size={num_processes()} (another training: documentation/how-to/scale.md)")
        self.rows, self.part_weight = part_of(batch)
        if get_allowed_n_proc_DA() > 0:  # else every process loads the whole batch and keeps its rows (next_batch)
            with redirect_stdout(io.StringIO()):
                self._set_batch_size_and_oversample()
        self.leave_out_unused_heads()
        # of kernels of one voxel, whose memory is the same in both layouts
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        cuda = self.device.type == "cuda"
        network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network) if cuda else self.network
        self.network = DistributedDataParallel(network, [self.device.index] if cuda else None)
        # a batch that is cut into micro-batches has a Dice for each of them, in one process too
        if self.configuration_manager.batch_dice and self.micro_batch >= batch:
            task = self.loss.loss if isinstance(self.loss, DeepSupervisionWrapper) else self.loss
            task.dc = GatheredDice(task.dc.apply_nonlin, task.dc.do_bg, task.dc.smooth)

    def leave_out_unused_heads(self) -> None:
        """Excepts from the exchange what gets no gradient: the coarsest output, which deep supervision weighs with 0.

        (nnU-Net weighs it with 1e-6 under DDP instead, which would wait for it for ever.)
        """
        for module in self.bare_network.modules():
            if getattr(module, "deep_supervision", False) and len(module.seg_layers) > 1:
                module.seg_layers[0].requires_grad_(False)

    # ---- parts of a batch ---------------------------------------------------------------------------------------

    def my_part(self, batch: dict) -> dict:
        """This process's rows of a batch that all have loaded; its "weight" makes means over processes those over rows.

        A batch of fewer rows than processes is shared out too; who has none of it takes a row with weight 0.
        """
        if not self.is_ddp:
            return batch
        rows, weight = part_of(len(batch["keys"]))
        target = batch["target"]
        return {**batch, "data": batch["data"][rows], "keys": batch["keys"][rows], "weight": weight,
                "target": [t[rows] for t in target] if isinstance(target, list) else target[rows]}

    def draw_part(self, available: Tensor) -> dict[str, Tensor]:
        """`draw` for the whole batch, of which this process keeps its rows, so that draws do not depend on their number.

        A row's draw depends on that row alone, so what the other processes' cases have need not be known here.

        Args:
            available: (b, M) bool, what the cases of this process's rows have.
        """
        if not self.is_ddp:
            return self.draw(available)
        whole = torch.ones(self.configuration_manager.batch_size, available.shape[1], dtype=torch.bool,
                           device=available.device)
        whole[self.rows] = available
        return {name: drawn[self.rows] for name, drawn in self.draw(whole).items()}

    def outputs_of_all(self, outputs: list[dict[str, float]]) -> list[dict[str, float]]:
        """What `train_step` returned in every iteration, as a mean over the processes (each has weighed its part)."""
        if not self.is_ddp:
            return outputs
        return [{name: float(np.mean([out[name] for out in step])) for name in step[0]}
                for step in zip(*everyones(outputs))]

    def seen_by_all(self, seen: list) -> list:
        """What the processes noted in every iteration, in the same order in each of them."""
        return [one for step in zip(*everyones(seen)) for one in step] if self.is_ddp else seen

    # ---- what nnU-Net does in every process ---------------------------------------------------------------------

    def get_dataloaders(self):
        # nnU-Net's loading processes are forked with this process's torch state: it must differ between processes, and
        # between the sittings of a run
        seed_libraries(self.seed, self.stage.name, self.current_epoch, rank(), "loading processes")
        return super().get_dataloaders()

    def on_train_start(self):
        """nnU-Net writes plans and debug information in every process; here only the first does."""
        if not self.was_initialized:  # under nnU-Net's own command
            self.initialize()
        if self.local_rank == 0:
            super().on_train_start()
            return
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        dist.barrier()  # as in nnU-Net's


def part_of(batch: int) -> tuple[slice, float]:
    """(rows of this process, their number times the processes over all rows); the first ones get what is over."""
    ranks, number = num_processes(), rank()
    if batch < ranks:
        return slice(number % batch, number % batch + 1), ranks / batch * (number < batch)
    size, over = divmod(batch, ranks)
    first, length = number * size + min(number, over), size + (number < over)
    return slice(first, first + length), length * ranks / batch


class GatheredDice(nn.Module):
    """nnU-Net's Dice loss of a whole batch that lies in several processes; nnU-Net's own needs parts of one size.

    Args:
        apply_nonlin: logits (B, C, *spatial) -> probabilities.
        do_bg: whether channel 0 counts.
        smooth: added to numerator and denominator.
    """

    def __init__(self, apply_nonlin, do_bg: bool, smooth: float):
        super().__init__()
        self.apply_nonlin, self.do_bg, self.smooth = apply_nonlin, do_bg, smooth

    def forward(self, x: Tensor, y: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        """Minus the mean Dice over channels; the same in all processes.

        Args:
            x: (b, C, *spatial) logits.
            y: (b, C, *spatial) 0/1 or (b, 1, *spatial) labels.
            loss_mask: (b, 1, *spatial), 1 where voxels count.
        """
        x, axes = self.apply_nonlin(x), (0, *range(2, x.ndim))
        with torch.no_grad():
            truth = y.float() if y.shape == x.shape else torch.zeros_like(x, dtype=torch.float32).scatter_(1, y.long(), 1)
            counts = 1 if loss_mask is None else loss_mask
            truth = truth * counts
        sums = torch.stack([part.sum(axes, dtype=torch.float32) for part in (x * truth, x * counts, truth)])  # (3, C)
        both, predicted, true = AllGatherGrad.apply(sums).sum(0)[:, 0 if self.do_bg else 1 :]
        return -((2 * both + self.smooth) / (true + predicted + self.smooth).clamp_min(1e-8)).mean()
