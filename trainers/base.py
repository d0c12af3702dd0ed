"""The segmentation trainer all methods share: nnU-Net's, shown a subset of each case's modalities."""
from __future__ import annotations

import io
import warnings
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from os.path import join

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import maybe_mkdir_p
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nnmiss.availability import modality_names
from nnmiss.errors import NnmissError
from nnmiss.kept_memory import freed_memory_kept

from .checkpointing import Checkpointing
from .distributed import Distributed
from .final_validation import validate_all_subsets
from .method_hooks import MethodHooks
from .progress import Progress, ProgressLogger
from .settings import common_settings
from .stages import find_stage
from .subset_sampling import SubsetSampler
from .training_data import TrainingData
from .weight_average import WeightAverage


class MissingModalityTrainer(Distributed, MethodHooks, TrainingData, Checkpointing, nnUNetTrainer):
    """Base of every segmentation method.

    A method writes what nnmiss.trainers.method_hooks describes, at least its network and `losses`. One instance trains
    one stage; the next stage is a new instance that starts from the last one's checkpoint (nnmiss.trainers.run).

    What a run needs beyond nnU-Net's arguments travels in `plans["nnmiss_run"]` (removed before anything is saved):
    "stage" (name), "settings" (attribute -> value), "seed", "missing" (path of a table or None), "first_epoch",
    "first_iteration" and "total_epochs" (for what runs over all stages). Without it, as under nnUNetv2_train, the last
    stage runs with defaults.
    """

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):  # noqa: B008 (nnU-Net's exact signature)
        run = plans.pop("nnmiss_run", {})
        self.planned = bool(run)  # by nnmiss_train
        plans.setdefault("continue_training", False)
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():  # stock prints the device; a run has many instances
            warnings.filterwarnings("ignore", "torch.cuda.amp.GradScaler", UserWarning)  # of processes on CPUs
            super().__init__(plans, configuration, fold, dataset_json, device)
        self.take_device(device)
        self.modalities = modality_names(dataset_json)
        self.seed = run.get("seed", 0)
        self.missing_table = run.get("missing")
        settings = run.get("settings") or common_settings(self.known_settings(), self.presets, self.default_preset, {})
        self.stages = self.stages_of(self.modalities, settings)
        self.stage = self.stages[find_stage(self.stages, run.get("stage", self.stages[-1].name))]
        for name, value in settings.items():
            if name not in self.network_settings:
                setattr(self, name, value)
        self.num_epochs = self.num_epochs or self.stage.epochs
        # nnU-Net asks the instance for the network to train, the predictor asks the class: the two may differ
        self.build_network_architecture = self.stage_network
        self.first_epoch, self.first_iteration = run.get("first_epoch", 0), run.get("first_iteration", 0)
        self.total_epochs = run.get("total_epochs", self.num_epochs)
        if settings.get("batch_size"):
            self.configuration_manager.configuration["batch_size"] = settings["batch_size"]
        block = network_block(self.configuration_manager)  # its memory saving is for networks that have its settings
        planned = block.get("micro_batch", 0) if "micro_batch" in self.network_settings else 0
        self.micro_batch = settings.get("micro_batch") or planned
        if self.micro_batch < 1:
            self.micro_batch = self.configuration_manager.batch_size
        self.fold_folder = self.output_folder
        if self.stage is not self.stages[-1] and self.output_folder is not None:
            self.output_folder = join(self.fold_folder, f"stage_{self.stage.name}")
            maybe_mkdir_p(self.output_folder)
        self.sampler = SubsetSampler(self.subset_sampling, len(self.modalities))
        self.average: WeightAverage | None = None
        self.iteration = 0  # of this stage
        self.progress = Progress()
        self.logger = ProgressLogger(self.output_folder, self.logger.resume, self.progress)
        self.show_progress = True

    # ---- training -----------------------------------------------------------------------------------------------

    def autocast(self):
        """Mixed precision on CUDA, as in nnU-Net."""
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    @property
    def bare_network(self) -> nn.Module:
        """The network without DDP and torch.compile wrappers."""
        network = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @property
    def validated_network(self) -> nn.Module:
        """What is validated and stored for prediction: `inference_network`, or its average with `ema_decay`."""
        return self.inference_network if self.average is None else self.average.network

    def train_step(self, batch: dict) -> dict:
        self.before_iteration()
        x, target = self.to_device(batch)
        drawn = self.draw_part(self.available_of(batch["keys"]))
        self.optimizer.zero_grad(set_to_none=True)
        logged: dict[str, float] = {}
        for start in range(0, len(x), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            share = len(x[part]) / len(x) * self.part_weight
            some = [t[part] for t in target] if isinstance(target, list) else target[part]
            last = start + self.micro_batch >= len(x)
            with nullcontext() if last or not self.is_ddp else self.network.no_sync():  # ranks exchange gradients once
                with self.autocast():
                    losses = self.losses(self.network, x[part], some,
                                         **{name: rows[part] for name, rows in drawn.items()})
                self.backward(losses["loss"] * share)
            for name, value in losses.items():
                logged[name] = logged.get(name, 0.0) + float(value.detach()) * share
        self.sampler.saw(drawn["present"], logged.get("task", logged["loss"]) / self.part_weight)
        self.optimizer_step()
        if self.average is not None:
            self.average.update(self.inference_network)
        self.iteration += 1
        return logged

    def backward(self, loss: Tensor) -> None:
        """Backward pass, scaled under mixed precision."""
        (self.grad_scaler.scale(loss) if self.grad_scaler is not None else loss).backward()

    def optimizer_step(self) -> None:
        """Clips gradients to norm 12 and steps, as nnU-Net does."""
        self.let_rest()
        if self.grad_scaler is None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
            return
        self.grad_scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def run_training(self):
        if not self.planned and len(self.stages) > 1:
            raise NnmissError(f"{self.method} has the stages {', '.join(s.name for s in self.stages)}, of which nnU-Net's "
                              "own command would run the last one alone: use nnmiss_train")
        unknown = [] if self.planned else [key for key in self.presets[self.default_preset] if key in self.network_settings]
        if unknown:
            raise NnmissError(f"{self.method} builds its network by {', '.join(unknown)}, which nnU-Net's own command does "
                              "not know: use nnmiss_train")
        self.on_train_start()
        if self.average is not None:
            self.average.begin(self.inference_network)  # which may have its weights from an earlier stage or another run
        # from here on, as loading processes that have started, whose blocks differ in size, must not keep theirs
        with freed_memory_kept(self.planned and self.device.type == "cpu"):
            for epoch in range(self.current_epoch, self.num_epochs):
                self.run_epoch(epoch)
        self.on_train_end()

    def run_epoch(self, epoch: int) -> None:
        """Trains and validates one epoch."""
        self.on_epoch_start()
        self.on_train_epoch_start()
        self.iteration = epoch * self.num_iterations_per_epoch
        title = f"{self.stage.name} epoch {epoch + 1}/{self.num_epochs}"
        train_outputs = []
        with tqdm(range(self.num_iterations_per_epoch), desc=title, leave=False,
                  disable=not self.show_progress or self.local_rank != 0) as bar:
            for i in bar:
                train_outputs.append(self.train_step(self.next_batch(self.dataloader_train, epoch, i, "train")))
                bar.set_postfix_str(self.progress.short(train_outputs[-1]) + self.status())
        self.on_train_epoch_end(train_outputs)
        with torch.no_grad():
            self.on_validation_epoch_start()
            self.on_validation_epoch_end(
                [self.validation_step({**self.next_batch(self.dataloader_val, epoch, i, "validate"), "number": i})
                 for i in range(self.num_val_iterations_per_epoch)])
        self.on_epoch_end()

    def on_train_epoch_end(self, train_outputs: list[dict]):
        train_outputs = self.outputs_of_all(train_outputs)
        self.sampler.end_epoch(self.seen_by_all(self.sampler.seen))
        super().on_train_epoch_end(train_outputs)
        finite = [out for out in train_outputs if np.isfinite(out["loss"])]
        # under mixed precision the scaler skips single steps that overflow; without it one is too many
        if len(finite) < len(train_outputs) * (0.5 if self.grad_scaler is not None else 1):
            raise NnmissError(f"the loss was not finite in {len(train_outputs) - len(finite)} of {len(train_outputs)} "
                              f"iterations of epoch {self.current_epoch} of stage {self.stage.name}: lower --set "
                              f"initial_lr (now {self.initial_lr}) and run again; the last whole checkpoint is kept")
        means = {name: float(np.mean([out[name] for out in finite])) for name in finite[0]}
        self.progress.add(self.current_epoch, means)

    def validation_step(self, batch: dict) -> dict:
        if not self.segments:
            return self.validate_loss(batch)
        available = self.available_of(batch["keys"], self.files)
        wanted = torch.tensor(self.validation_subset(batch.get("number", 0)), device=self.device)
        present = available & wanted
        present = torch.where(present.any(1, keepdim=True), present, available)
        with self.showing(present):
            return super().validation_step(batch)

    def validate_loss(self, batch: dict) -> dict:
        """The stage's own loss on a validation batch, in the form of nnU-Net's validation step, without overlaps."""
        self.iteration = -1 - batch.get("number", 0)  # what is drawn differs from training and between batches
        x, target = self.to_device(batch)
        with self.autocast():
            loss = self.losses(self.bare_network, x, target, **self.draw_part(self.available_of(batch["keys"], self.files)))
        nothing = np.full(len(self.label_manager.foreground_regions if self.label_manager.has_regions
                              else self.label_manager.foreground_labels), np.nan)
        return {"loss": loss["loss"].cpu().numpy(), "tp_hard": nothing, "fp_hard": nothing, "fn_hard": nothing}

    def on_validation_epoch_end(self, val_outputs: list[dict]):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)  # of stages that do not segment
            super().on_validation_epoch_end([{**out, "loss": out["loss"] * self.part_weight} for out in val_outputs])

    @contextmanager
    def showing(self, present: Tensor):
        """While open, nnU-Net's `self.network(data)` shows only `present` (B, M)."""
        network, self.network = self.network, partial(self.validated_network, present=present)
        try:
            yield
        finally:
            self.network = network

    def on_epoch_end(self):
        super().on_epoch_end()
        if self.local_rank == 0:
            epoch = self.current_epoch - 1
            value = {name: self.logger.get_value(name, epoch) for name in
                     ("train_losses", "val_losses", "dice_per_class_or_region", "lrs", "epoch_start_timestamps",
                      "epoch_end_timestamps")}
            dice = ", pseudo Dice " + " ".join(f"{d:.3f}" for d in value["dice_per_class_or_region"])
            seconds = value["epoch_end_timestamps"] - value["epoch_start_timestamps"]
            print(f"{self.stage.name} epoch {epoch + 1}/{self.num_epochs}: loss {value['train_losses']:.4f}, "
                  f"validation {value['val_losses']:.4f}{dice if self.segments else ''}{self.status()}, "
                  f"lr {value['lrs']:.5f}, "
                  f"{seconds:.1f} s", flush=True)  # a log file shows every epoch as it ends

    def perform_actual_validation(self, save_probabilities: bool = False):
        """Predicts every reported subset of the fold's validation cases and evaluates them (`validation/`)."""
        validate_all_subsets(self, save_probabilities)

    # ---- what nnU-Net does otherwise ----------------------------------------------------------------------------

    def set_deep_supervision_enabled(self, enabled: bool):
        """Switches every decoder of the network; nnU-Net's own knows one."""
        average = () if self.average is None else self.average.network.modules()
        for module in (*self.bare_network.modules(), *average):
            if hasattr(module, "deep_supervision"):
                module.deep_supervision = enabled

    def _do_i_compile(self):
        """Off: a varying number of packed modalities recompiles at every new count."""
        return False

    def plot_network_architecture(self):
        """Nothing: nnU-Net's drawing needs hiddenlayer, which no longer works."""


def network_block(configuration_manager: ConfigurationManager) -> dict:
    """The configuration's "nnmiss" block of the plans; empty for stock plans."""
    return configuration_manager.configuration.get("nnmiss", {})

