"""The classification trainer all methods share: everything in memory, one subset of each sample's modalities shown."""
from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from nnmiss.errors import NnmissError
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.seeding import derive_seed

from .classification_checkpoints import ClassificationCheckpoints
from .classification_curves import Curves
from .classification_data import ClassificationData, FoldData
from .classification_final import predict_and_evaluate
from .classification_hooks import ClassificationHooks
from .classification_validation import ClassificationValidation
from .optimizers import OPTIMIZERS, EpochSchedule
from .progress import Progress
from .settings import common_settings
from .stages import find_stage

SECONDS_BETWEEN_FIGURES = 60


@dataclass(frozen=True)
class StageRun:
    """Which stage of a run a trainer trains, and with what; the defaults are those of the method's last stage.

    settings: every setting of the stage, resolved; empty: the method's defaults. first_epoch, total_epochs: for what
    runs over all stages. fold_folder: where the run lies; None: nothing is written.
    """

    stage: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    seed: int = 0
    fold: int | str = 0
    first_epoch: int = 0
    total_epochs: int = 0
    fold_folder: Path | None = None


class ClassificationTrainer(ClassificationHooks, ClassificationData, ClassificationValidation, ClassificationCheckpoints):
    """Base of every classification method, with the hooks and attributes of the segmentation trainer.

    A method writes at least `build_classifier`, and `losses` where it is more than the task loss. One instance trains
    one stage; the next stage is a new instance that starts from the last one's checkpoint
    (nnmiss.trainers.classification_run).

    Attributes:
        modalities, task, classes, description, configuration: of the data set and its plan.
        samples: everything every sample has (SampleSet); `available` says what training may use of it, `files` what
            there is, both id -> Present.
        training, validation, test, held_out: ids.
        iteration: of this stage; `first_iteration` is that of earlier stages.
        batch_rows: (B,) long, which of `samples` the current batch holds.
    """

    local_rank = 0
    is_ddp = False
    grad_scaler = None
    validation_batch_size = 256

    def __init__(self, data: FoldData, run: StageRun | None = None, device: torch.device | str = "cpu"):
        run = run or StageRun()
        self.data, self.description, self.configuration = data, data.description, data.configuration
        self.task, self.classes = data.description.task, list(data.description.classes)
        self.modalities = list(data.samples.modalities)
        self.device, self.seed, self.fold = torch.device(device), run.seed, run.fold
        settings = run.settings or common_settings(self.known_settings(), self.presets, self.default_preset, {},
                                                   self.all_limits(), self.all_choices())
        self.stages = self.stages_of(self.modalities, settings)
        self.stage = self.stages[find_stage(self.stages, run.stage or self.stages[-1].name)]
        for name, value in settings.items():
            if name not in self.network_settings:
                setattr(self, name, value)
        self.num_epochs = self.num_epochs or self.stage.epochs
        self.first_epoch, self.total_epochs = run.first_epoch, run.total_epochs or self.num_epochs
        self.batch_size = self.batch_size or self.configuration["batch_size"]
        self.fold_folder = self.output_folder = run.fold_folder
        if self.stage is not self.stages[-1] and self.fold_folder is not None:
            self.output_folder = Path(self.fold_folder) / f"stage_{self.stage.name}"
        self.iteration = self.first_iteration = self.current_epoch = 0
        self.best: dict | None = None
        self.progress, self.curves = Progress(), Curves()
        self.show_progress, self.was_initialized = True, False

    def initialize(self) -> None:
        """Chooses the samples, and builds network and optimiser. Raises NnmissError when no sample is left to train on."""
        if self.output_folder is not None:
            Path(self.output_folder).mkdir(parents=True, exist_ok=True)
        self.choose_samples()
        if not self.training:
            self.num_epochs = 0
        batches = -(-len(self.training) // self.batch_size)
        self.num_iterations_per_epoch = self.num_iterations_per_epoch or batches
        torch.manual_seed(derive_seed(self.seed, self.method, self.stage.name, "initial weights"))
        self.network = fastest_layout(self.stage_network().to(self.device), self.device)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.was_initialized = True

    def configure_optimizers(self):
        """(optimiser, schedule with `step(epoch)`) of the settings; the schedule runs over this stage."""
        optimizer = OPTIMIZERS[self.optimizer_name]((p for p in self.network.parameters() if p.requires_grad),
                                                    self.initial_lr, self.weight_decay)
        return optimizer, EpochSchedule(optimizer, self.schedule, self.num_epochs, self.lr_decay, self.lr_step,
                                        self.curves.columns["score"])

    @property
    def bare_network(self) -> nn.Module:
        """The network without wrappers, of which there are none here."""
        return self.network

    def autocast(self):
        """Full precision everywhere: the networks are small, and runs are to be comparable between machines."""
        return nullcontext()

    # ---- training -----------------------------------------------------------------------------------------------

    def train_step(self, batch: dict) -> dict[str, float]:
        """One optimiser step; the loss and its parts."""
        self.batch_rows = batch["rows"]
        self.before_iteration()
        self.batch_rows = batch["rows"]  # before_iteration may have looked at other batches
        x, target = self.to_device(batch)
        drawn = self.draw(self.available_of(batch["keys"]))
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.losses(self.network, x, target, **drawn)
        losses["loss"].backward()
        self.let_rest()
        self.optimizer.step()
        self.iteration += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def run_training(self) -> None:
        """Trains from `current_epoch` to the end of the stage, which is `num_epochs` or comes by `patience`."""
        self.on_train_start()
        while self.current_epoch < self.num_epochs and not self.ended_early:
            started = monotonic()
            self.on_train_epoch_start()
            self.on_train_epoch_end(self.train_epoch())
            with torch.no_grad():
                self.on_validation_epoch_start()
                self.on_validation_epoch_end([self.validation_step(self.batch_of(rows))
                                              for rows in self.dataloader_val if len(rows)])
            self.curves.add(self.current_epoch, seconds=monotonic() - started)
            self.on_epoch_end()
        self.on_train_end()

    def train_epoch(self) -> list[dict[str, float]]:
        """The steps of an epoch, under a progress bar."""
        epoch, outputs = self.current_epoch, []
        self.iteration = epoch * self.num_iterations_per_epoch
        with tqdm(range(self.num_iterations_per_epoch), desc=f"{self.stage.name} epoch {epoch + 1}/{self.num_epochs}",
                  leave=False, disable=not self.show_progress) as bar:
            for i in bar:
                outputs.append(self.train_step(self.next_batch(self.dataloader_train, epoch, i, "train")))
                if self.show_progress:
                    bar.set_postfix_str(self.progress.short(outputs[-1]) + self.status(), refresh=False)
        return outputs

    def on_train_start(self) -> None:
        """Called once before the first epoch of a sitting."""
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.drawn_at = monotonic()

    def on_train_epoch_start(self) -> None:
        """Called before the steps of an epoch."""
        self.network.train()
        self.lr_scheduler.step(self.current_epoch)
        self.curves.add(self.current_epoch, lrs=self.optimizer.param_groups[0]["lr"])

    def on_train_epoch_end(self, outputs: list[dict[str, float]]) -> None:
        """Takes the means of an epoch's losses. Raises NnmissError when one was not finite."""
        bad = sum(not np.isfinite(out["loss"]) for out in outputs)
        if bad:
            raise NnmissError(f"the loss was not finite in {bad} of {len(outputs)} iterations of epoch "
                              f"{self.current_epoch} of stage {self.stage.name}: lower --set initial_lr (now "
                              f"{self.initial_lr}) and run again; the last whole checkpoint is kept")
        means = {name: float(np.mean([out[name] for out in outputs])) for name in outputs[0]}
        self.progress.add(self.current_epoch, means)
        self.curves.add(self.current_epoch, train_losses=means["loss"])

    def on_epoch_end(self) -> None:
        """Counts the epoch, writes checkpoints and the log, prints a line."""
        epoch = self.current_epoch
        self.current_epoch += 1
        if self.output_folder is None:
            return
        if self.best is not None and self.best["epoch"] == epoch:
            self.save_checkpoint(Path(self.output_folder) / "checkpoint_best.pth")
        if self.current_epoch % self.save_every == 0 and self.current_epoch < self.num_epochs:
            self.save_checkpoint(Path(self.output_folder) / "checkpoint_latest.pth")
        if monotonic() - self.drawn_at > SECONDS_BETWEEN_FIGURES:
            self.write_figures()
        print(self.epoch_line(epoch), flush=True)  # a log file shows every epoch as it ends

    def epoch_line(self, epoch: int) -> str:
        """What is printed after an epoch."""
        value = {name: values[epoch] for name, values in self.curves.columns.items() if len(values) > epoch}
        scored = any(name.startswith("score:") and not np.isnan(number) for name, number in value.items())
        score = f"{value['score']:.4f}" if scored else "undefined"  # then epochs are compared by the loss
        return (f"{self.stage.name} epoch {epoch + 1}/{self.num_epochs}: loss {value['train_losses']:.4f}, validation "
                f"{value['val_losses']:.4f}, validation {self.select_score} {score}{self.status()}, lr "
                f"{value['lrs']:.6f}, {value['seconds']:.1f} s")

    def write_figures(self) -> None:
        """progress.csv, progress.png, and the method's tables."""
        self.curves.write(self.output_folder, self.progress, self.select_score, self.figures)
        self.progress.write_tables(self.fold_folder, self.figures)
        self.drawn_at = monotonic()

    def on_train_end(self) -> None:
        """Writes the final checkpoint and figures; what is only needed to resume goes."""
        if self.output_folder is None:
            return
        self.write_figures()
        self.save_final(Path(self.output_folder))
        (Path(self.output_folder) / "checkpoint_latest.pth").unlink(missing_ok=True)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predicts every reported subset of the fold's validation and test samples and evaluates them."""
        predict_and_evaluate(self)
