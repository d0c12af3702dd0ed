"""The checkpoint half of the segmentation trainer: plain values, written atomically, read without unpickling."""
from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import datetime
from os.path import join
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, time

from batchgenerators.utilities.file_and_folder_operations import maybe_mkdir_p
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import empty_cache
from torch import distributed as dist

from nnmiss.atomic_files import replacing, write_json
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import plain, read_checkpoint, require_training_state, take_fitting, write_checkpoint

SECONDS_BETWEEN_FIGURES = 30  # drawing takes about one, and the longer the run the more


class Checkpointing(nnUNetTrainer):
    """Saving, continuing and starting from another stage; mixed into MissingModalityTrainer, whose attributes it uses."""

    # ---- what is written, and when ------------------------------------------------------------------------------

    def on_train_start(self):
        """As nnU-Net's, but files are replaced: other folds of the model, which share some, may be read or trained now."""
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        maybe_mkdir_p(self.output_folder)
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.print_plans()
        empty_cache(self.device)
        if self.is_ddp:
            dist.barrier()
        model = Path(self.output_folder_base)
        write_json(model / "plans.json", self.plans_manager.plans)
        write_json(model / "dataset.json", self.dataset_json)
        with replacing(model / "dataset_fingerprint.json") as temporary:
            shutil.copyfile(Path(self.preprocessed_dataset_folder_base) / "dataset_fingerprint.json", temporary)
        self._save_debug_information()
        self.drawn_at = monotonic()

    def _save_debug_information(self):
        folder = self.output_folder
        with TemporaryDirectory() as self.output_folder:
            super()._save_debug_information()
            written = Path(self.output_folder, "debug.json").read_bytes()
        self.output_folder = folder
        with replacing(join(folder, "debug.json")) as temporary:
            temporary.write_bytes(written)

    def print_to_log_file(self, *args, also_print_to_console=True, add_timestamp=True):
        """A line of the log file, unless the disk is full; nnU-Net's own waits for it, and says so five times."""
        if self.local_rank == 0:
            with suppress(OSError), open(self.log_file, "a", encoding="utf-8") as file:
                print(*([f"{datetime.now()}:"] if add_timestamp else []), *args, file=file)

    def on_epoch_end(self):
        """As nnU-Net's, but a new best is saved before the latest: a run killed in between would not save it again.

        Figures are drawn from time to time and after the last epoch, so that they cost little however long the run is.
        """
        epoch, last = self.current_epoch, self.current_epoch + 1 == self.num_epochs
        self.logger.log("epoch_end_timestamps", time(), epoch)
        value = {name: self.logger.get_value(name, epoch) for name in
                 ("train_losses", "val_losses", "dice_per_class_or_region", "epoch_start_timestamps",
                  "epoch_end_timestamps")}
        self.print_to_log_file(f"train_loss {value['train_losses']:.4f}")  # as in nnU-Net's logs, which programs may read
        self.print_to_log_file(f"val_loss {value['val_losses']:.4f}")
        self.print_to_log_file("Pseudo dice", [round(float(dice), 4) for dice in value["dice_per_class_or_region"]])
        self.print_to_log_file(f"Epoch time: {value['epoch_end_timestamps'] - value['epoch_start_timestamps']:.2f} s")
        ema = self.logger.get_value("ema_fg_dice", epoch)
        if self._best_ema is None or ema > self._best_ema:
            self._best_ema = ema
            self.print_to_log_file(f"new best moving average of the pseudo Dice: {ema:.4f}")
            self.save_checkpoint(join(self.output_folder, "checkpoint_best.pth"))
        if (epoch + 1) % self.save_every == 0 and not last:
            self.save_checkpoint(join(self.output_folder, "checkpoint_latest.pth"))
        if self.local_rank == 0 and (last or monotonic() - self.drawn_at > SECONDS_BETWEEN_FIGURES):
            self.logger.plot_progress_png(self.output_folder)
            self.progress.write_tables(self.fold_folder)
            self.drawn_at = monotonic()
        self.current_epoch += 1

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint from plain values, plus the method's state; written atomically."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        write_checkpoint(filename, plain({
            "network_weights": self.validated_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": self.__class__.__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "nnmiss": {"method": self.method, "stage": self.stage.name, "state": self.method_state(),
                       "progress": self.progress.state(), "modalities": self.modalities, **self.step_state()},
        }))

    def step_state(self) -> dict:
        """What training needs beyond the weights it predicts with: the last step's weights, and losses of subsets."""
        state = {}
        if self.average is not None:
            state["average"] = {**self.average.state(), "last_weights": self.inference_network.state_dict()}
        if self.sampler.sampling == "weakest":
            state["loss_of_subsets"] = self.sampler.loss
        return state

    def load_checkpoint(self, filename_or_checkpoint) -> None:
        """Continues from a checkpoint of this stage. Raises NnmissError for one of another method or stage."""
        if not self.was_initialized:
            self.initialize()
        checkpoint = read_checkpoint(filename_or_checkpoint) if isinstance(filename_or_checkpoint, str) \
            else filename_or_checkpoint
        method = checkpoint.get("nnmiss", {}).get("method")
        if method != self.method:
            raise NnmissError(f"checkpoint {filename_or_checkpoint} was trained by "
                              f"{method or checkpoint.get('trainer_name')}, expected {self.method}: name its own method, "
                              "or use -pretrained_weights")
        if checkpoint["nnmiss"]["stage"] != self.stage.name:
            raise NnmissError(f"{filename_or_checkpoint} is of stage {checkpoint['nnmiss']['stage']}, expected "
                              f"{self.stage.name}")
        self.take_over(checkpoint)
        ours = checkpoint["nnmiss"]
        self.my_init_kwargs = checkpoint["init_args"]
        self.current_epoch = checkpoint["current_epoch"]
        self.logger.load_checkpoint(checkpoint["logging"])
        # checkpoints of nnmiss 0.1 were written before a new best was noted; the log has both
        self._best_ema = max(checkpoint["logging"]["ema_fg_dice"], default=checkpoint["_best_ema"])
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.progress.load(ours["progress"])

    def take_over(self, checkpoint: dict) -> None:
        """Takes network, optimiser, method state and curves of a checkpoint, so that training goes on from it."""
        require_training_state(checkpoint)
        average = checkpoint["nnmiss"].get("average")  # of a run with `ema_decay`
        self.inference_network.load_state_dict(average["last_weights"] if average else checkpoint["network_weights"])
        if self.average is not None and average:
            self.average.load(checkpoint["network_weights"], average)
        if "loss_of_subsets" in checkpoint["nnmiss"]:
            self.sampler.loss = checkpoint["nnmiss"]["loss_of_subsets"]
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        for group in self.optimizer.param_groups:  # the stage before may have had another
            group["weight_decay"] = self.weight_decay
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        self.load_method_state(checkpoint["nnmiss"]["state"])
        self.progress.tables = checkpoint["nnmiss"]["progress"]["tables"]

    def take_pretrained(self, filename: str) -> None:
        """Takes every tensor of a checkpoint that fits the network by name and shape, but the segmentation heads.

        Raises NnmissError when the file is refused or nothing fits.
        """
        taken = take_fitting(self.inference_network, read_checkpoint(filename)["network_weights"])
        if not taken:
            raise NnmissError(f"{filename}: no tensor fits this network by name and shape")
        print(f"pretrained weights: {taken} of {len(self.inference_network.state_dict())} tensors taken from {filename}")
