"""All-stage: reconstruct, segment, approximate, co-distil; trained with cases that lack modalities and used on such cases.

Zhao et al., "Dealing with All-stage Missing Modality: Towards A Universal Model with Robust Reconstruction and
Personalization" (2024). Equation numbers are the paper's. There is no official code; what we decide is in
documentation/reference/methods/all_stage.md.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.inference.checkpoints import take_fitting
from nnmiss.losses.margin_aware_distillation import margin_aware_distillation
from nnmiss.losses.reconstruction import reconstruction_loss
from nnmiss.networks.codistillation import Approximation, CoDistillation
from nnmiss.networks.hyper_unet import HyperUNet, build_hyper_unet
from nnmiss.networks.masked_autoencoder import build_autoencoder, draw_patches
from nnmiss.networks.prompts import DEFAULT_ENCODER, DEFAULT_TEXT, PROMPTS, load_prompts, prepare_prompts
from nnmiss.seeding import torch_generator

from .base import MissingModalityTrainer, network_block
from .processes import anywhere
from .stages import SCHEDULES, Stage, StagedSchedule


class nnMissTrainerAllStage(MissingModalityTrainer):
    """Masked autoencoder (Eq. 1), distribution approximation (Eq. 3), data-model co-distillation (Eq. 7), Eq. 6's head."""

    method = "all_stage"
    # The paper: 600 epochs over 199 cases in batches of 2, and at most 1,000 in batches of 1, in epochs of 250 iterations:
    # 600 * 199 / 2 / 250 = 239 and 1000 * 199 / 1 / 250 = 796. It stops early; we do not.
    stages = (Stage("reconstruct", epochs=239), Stage("segment", epochs=796), Stage("approximate", epochs=239),
              Stage("codistil", epochs=796))
    hyperparameters = {
        "initial_lr": 3e-4,  # Adam, section 4.2
        "weight_decay": 5e-4,  # section 4.2
        "schedule": "cosine",  # section 4.2; each stage has its own
        "mask_ratio": 0.875,  # share of hidden patches; the paper names none, this is M3AE's
        "lam": 0.1,  # weight of the segmentation loss on the reconstruction, Eq. 3
        "alpha": 1.0,  # weight of data refining, Eq. 7; 0 is Table 5 c
        "beta": 0.1,  # weight of distillation, Eq. 7; alpha and beta 0 are Table 5 a
        "mad_voxels": 256,  # voxels that are compared per layer and sample
        "recover": True,  # False: the teacher sees the available modalities alone (Table 5 b)
        "checkpoint_teacher": True,  # the teacher's activations are computed again in the backward pass
    }
    run_settings = {
        "approximate": True,  # False leaves that stage out (Table 4)
        "teacher_prompt": "same",  # of stage `segment`; Table 5: prompt=none teacher_prompt=binary, (d) teacher_prompt=none
    }
    network_settings = {"prompt": "clip", "text_encoder": DEFAULT_ENCODER, "prompt_text": DEFAULT_TEXT, "hyper_channels": 8}
    limits = {"mask_ratio": (0, 0.9999), "lam": (0, 1e6), "alpha": (0, 1e6), "beta": (0, 1e6), "mad_voxels": (2, 4096),
              "hyper_channels": (1, 1024)}
    choices = {"schedule": tuple(SCHEDULES), "prompt": PROMPTS, "teacher_prompt": ("same", "binary", "none")}

    @classmethod
    def stages_of(cls, modalities, settings):
        return tuple(stage for stage in cls.stages if stage.name != "approximate" or settings["approximate"])

    @classmethod
    def prepare(cls, block, modalities, preprocessed_folder):
        return prepare_prompts(block, modalities, preprocessed_folder)

    # ---- networks -----------------------------------------------------------------------------------------------

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True) -> nn.Module:
        """The student: the plan's U-Net with the plan's prompt."""
        return build_hyper_unet(configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision,
                                network_block(configuration_manager))

    def stage_network(self, plans_manager, configuration_manager, num_input_channels, num_output_channels,
                      enable_deep_supervision=True) -> nn.Module:
        block, name = network_block(configuration_manager), self.stage.name
        sizes = (num_input_channels, num_output_channels, enable_deep_supervision)
        if name == "reconstruct":
            return build_autoencoder(configuration_manager, num_input_channels)
        teacher = build_hyper_unet(configuration_manager, *sizes, block,
                                   "" if self.teacher_prompt == "same" else self.teacher_prompt)
        if name == "segment":
            return self.with_prompts(teacher, block)
        autoencoder = build_autoencoder(configuration_manager, num_input_channels)
        if name == "approximate":
            return Approximation(autoencoder, teacher, self.checkpoint_teacher)
        student = self.with_prompts(super().stage_network(plans_manager, configuration_manager, *sizes), block)
        return CoDistillation(student, autoencoder, teacher, self.recover, self.alpha > 0, self.alpha > 0 or self.beta > 0,
                              self.checkpoint_teacher)

    @staticmethod
    def build_recovery(plans_manager, configuration_manager, num_modalities) -> nn.Module:
        return build_autoencoder(configuration_manager, num_modalities)

    def with_prompts(self, network: HyperUNet, block: dict) -> HyperUNet:
        """Fills the network's table of prompts, where it has one."""
        if network.prompt == "clip":
            network.prompt_table.copy_(load_prompts(block, self.modalities, self.preprocessed_dataset_folder_base))
        return network

    @property
    def inference_network(self):
        network = self.bare_network
        return {"approximate": lambda: network.autoencoder, "codistil": lambda: network.student}.get(
            self.stage.name, lambda: network)()

    @property
    def segments(self):
        return self.stage.name in ("segment", "codistil")

    # ---- what a stage starts from -------------------------------------------------------------------------------

    def begin_stage(self, checkpoint_of):
        """Networks of another kind take what fits; an autoencoder takes the last one whole; no optimiser is taken over.

        Stage approximate goes on from stage reconstruct, whose loss it contains.
        """
        if self.stage.name == "reconstruct":
            return
        last = "approximate" if self.stage.name == "codistil" and self.approximate else "reconstruct"
        weights = checkpoint_of(last)["network_weights"]
        if self.stage.name == "approximate":
            self.inference_network.load_state_dict(weights)
            return
        if self.stage.name == "codistil":
            self.bare_network.recovery.load_state_dict(weights)
        taken = take_fitting(self.inference_network, weights)
        if self.local_rank == 0:
            own = len(self.inference_network.state_dict())
            print(f"stage {self.stage.name}: {taken} of {own} tensors taken from stage {last}")

    def recall(self, checkpoint_of):
        """The frozen teacher is the network of stage segment."""
        if self.stage.name in ("approximate", "codistil"):
            self.bare_network.teacher.load_state_dict(checkpoint_of("segment")["network_weights"])

    def method_state(self):
        return {"recovery": self.bare_network.recovery.state_dict()} if self.stage.name == "codistil" else {}

    def load_method_state(self, state):
        if self.stage.name == "codistil":
            self.bare_network.recovery.load_state_dict(state["recovery"])

    # ---- training -----------------------------------------------------------------------------------------------

    def configure_optimizers(self):
        """Adam, and a schedule of the stage's own."""
        optimizer = torch.optim.Adam([p for p in self.network.parameters() if p.requires_grad], self.initial_lr,
                                     weight_decay=self.weight_decay)
        return optimizer, StagedSchedule(optimizer, self.initial_lr, self.schedule, 0, self.num_epochs)

    def draw(self, available):
        present, name = self.draw_present(available), self.stage.name
        if name == "segment":
            return {"present": present}
        generator = torch_generator(self.seed, name, self.current_epoch, self.iteration, 0, "voxels")
        if name == "codistil":
            positions = torch.rand(len(available), self.mad_voxels, generator=generator).to(available.device)
            return {"present": present, "available": available, "positions": positions}
        patches = draw_patches(present, self.configuration_manager.patch_size, self.mask_ratio, generator)
        return {"present": present, "available": available, "patches": patches}

    def losses(self, network, x, target, present, **drawn):
        """Eq. 1, the task loss, Eq. 3 or Eq. 7, by stage. L_seg is nnU-Net's loss, Dice and cross-entropy."""
        if self.stage.name == "segment":
            return {"loss": self.loss(network(x, present), target)}
        if self.stage.name == "codistil":
            return self.codistillation(network(x, present, drawn["available"]), target, drawn["positions"])
        if self.stage.name == "reconstruct":
            return {"loss": reconstruction_loss(network(x, present, drawn["patches"]), x, drawn["available"])}
        images, logits = network(x, present, drawn["patches"], judge=self.lam > 0)
        parts = {"reconstruction": reconstruction_loss(images, x, drawn["available"])}
        if self.lam > 0:
            parts["segmentation"] = self.loss(logits, target)
        return {"loss": parts["reconstruction"] + self.lam * parts.get("segmentation", 0), **parts}

    def codistillation(self, out: dict, target, positions: Tensor) -> dict[str, Tensor]:
        """Eq. 7 from what CoDistillation returns: L_data trains the recovery module only, L_KD the student only."""
        parts = {"task": self.loss(out["logits"], target)}
        total = parts["task"]
        if "recovered" in out:  # 0 where nothing was missing: the teacher is frozen, so there is nothing to learn from it
            judged, data = out["teacher_logits"], 0
            if anywhere(out["recovered"], positions.device):
                if not out["recovered"]:  # but in another process: a Dice over all of them needs a gradient in each
                    judged = attached(judged, out["nothing"])
                data = self.loss(judged, target)
            parts["data"] = data + out["nothing"]
            total = total + self.alpha * parts["data"]
        if self.beta > 0:
            logits = out["teacher_logits"][0] if isinstance(out["teacher_logits"], list) else out["teacher_logits"]
            parts["distillation"] = sum(
                margin_aware_distillation(student, teacher, logits, positions, self.label_manager.has_regions)
                for student, teacher in zip(out["features"], out["teacher_features"]))
            total = total + self.beta * parts["distillation"]
        return {"loss": total, **parts}

    def resting_parts(self):
        """The recovery module, when nothing was missing on any rank."""
        return [self.bare_network.recovery] if self.stage.name == "codistil" else []


def attached(logits: Tensor | list[Tensor], nothing: Tensor) -> Tensor | list[Tensor]:
    """The same logits, with a gradient of 0 into what `nothing` depends on."""
    return [part + nothing for part in logits] if isinstance(logits, list) else logits + nothing
