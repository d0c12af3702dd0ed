"""The checkpoint half of the classification trainer: plain values, written atomically, read without unpickling."""
from __future__ import annotations

from pathlib import Path

from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import plain, read_checkpoint, require_training_state, take_fitting, write_checkpoint


class ClassificationCheckpoints:
    """Saving, continuing and starting from another stage; mixed into ClassificationTrainer, whose attributes it uses."""

    def checkpoint(self) -> dict:
        """The state after `current_epoch` epochs, with all that rebuilds the network, as plain values."""
        description = self.data.description
        return plain({
            "network_weights": self.inference_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None,
            "logging": self.curves.state(),
            "best": self.best,
            "current_epoch": self.current_epoch,
            "init_args": {"configuration": self.configuration, "fold": self.fold, "task": self.task,
                          "classes": self.classes, "dataset_json": description.content,
                          "shapes": {name: list(shape) for name, shape in self.samples.shapes.items()}},
            "trainer_name": type(self).__name__,
            "nnmiss": {"method": self.method, "stage": self.stage.name, "state": self.method_state(),
                       "progress": self.progress.state(), "modalities": self.modalities,
                       "last_iteration": self.first_iteration + self.current_epoch * self.num_iterations_per_epoch},
        })

    def save_checkpoint(self, filename: str | Path) -> None:
        """Writes the state; a whole file or none."""
        write_checkpoint(filename, self.checkpoint())

    def save_final(self, folder: Path) -> None:
        """checkpoint_final.pth: weights of the best epoch or of the last (`keep`), their score, the curves of all."""
        final, best = self.checkpoint(), folder / "checkpoint_best.pth"
        scores = self.curves.state()["score"]
        final["kept"] = {"score": scores[-1] if scores else float("nan"), "epoch": self.current_epoch - 1}
        if self.keep == "best" and best.is_file():
            kept = read_checkpoint(best)
            kept["nnmiss"] = {**final["nnmiss"], "state": kept["nnmiss"]["state"]}
            final = {**kept, "logging": final["logging"], "best": final["best"], "current_epoch": final["current_epoch"],
                     "kept": final["best"]}
        write_checkpoint(folder / "checkpoint_final.pth", final)

    def load_checkpoint(self, filename_or_checkpoint: str | Path | dict) -> None:
        """Continues from a checkpoint of this stage. Raises NnmissError for one of another method or stage."""
        if not self.was_initialized:
            self.initialize()
        given = isinstance(filename_or_checkpoint, dict)
        checkpoint = filename_or_checkpoint if given else read_checkpoint(filename_or_checkpoint)
        ours, where = checkpoint.get("nnmiss", {}), "this checkpoint" if given else filename_or_checkpoint
        if ours.get("method") != self.method or checkpoint.get("trainer_name") != type(self).__name__:
            raise NnmissError(f"{where} was trained by {checkpoint.get('trainer_name')}, expected {type(self).__name__}: "
                              "name its own method and data set")
        if ours["stage"] != self.stage.name:
            raise NnmissError(f"{where} is of stage {ours['stage']}, expected {self.stage.name}")
        self.take_over(checkpoint)
        self.current_epoch, self.best = checkpoint["current_epoch"], checkpoint["best"]
        self.curves.load(checkpoint["logging"])
        self.progress.load(ours["progress"])

    def take_over(self, checkpoint: dict) -> None:
        """Takes network, optimiser, method state and tables of a checkpoint, so that training goes on from it."""
        require_training_state(checkpoint)
        self.inference_network.load_state_dict(checkpoint["network_weights"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        for group in self.optimizer.param_groups:  # the stage before may have had another
            group["weight_decay"] = self.weight_decay
        self.load_method_state(checkpoint["nnmiss"]["state"])
        self.progress.tables = checkpoint["nnmiss"]["progress"]["tables"]

    def take_pretrained(self, filename: str | Path) -> None:
        """Takes every tensor of a checkpoint that fits the network by name and shape. Raises NnmissError when none does."""
        taken = take_fitting(self.inference_network, read_checkpoint(filename)["network_weights"])
        if not taken:
            raise NnmissError(f"{filename}: no tensor fits this network by name and shape")
        print(f"pretrained weights: {taken} of {len(self.inference_network.state_dict())} tensors taken from {filename}")
