"""The checkpoint half of the segmentation trainer: plain values, written atomically, read without unpickling."""
from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import plain, read_checkpoint, take_fitting, write_checkpoint


class Checkpointing(nnUNetTrainer):
    """Saving, continuing and starting from another stage; mixed into MissingModalityTrainer, whose attributes it uses."""

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint from plain values, plus the method's state; written atomically."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        write_checkpoint(filename, plain({
            "network_weights": self.inference_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": self.__class__.__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "nnmiss": {"method": self.method, "stage": self.stage.name, "state": self.method_state(),
                       "progress": self.progress.state(), "modalities": self.modalities},
        }))

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
        # nnU-Net saves the latest checkpoint before it notes a new best; the log has both
        self._best_ema = max(checkpoint["logging"]["ema_fg_dice"], default=checkpoint["_best_ema"])
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.progress.load(ours["progress"])

    def take_over(self, checkpoint: dict) -> None:
        """Takes network, optimiser, method state and curves of a checkpoint, so that training goes on from it."""
        self.inference_network.load_state_dict(checkpoint["network_weights"])
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
