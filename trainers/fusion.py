"""The plainest multimodal classifier: every sample's modalities are encoded, fused and classified; nothing is distilled."""
from __future__ import annotations

from torch import nn

from nnmiss.classification.tasks import num_outputs
from nnmiss.networks.shared_features import build_shared_features

from .classification import ClassificationTrainer
from .stages import Stage

JOINT = "joint"
EPOCHS = 60  # of SMIL's fusion


class nnMissClassifierFusion(ClassificationTrainer):
    """Trained on everything each sample has: the upper bound where nothing is missing, a baseline where something is.

    `pretrain_encoders=true` gives every modality a stage of its own, in which its encoder learns under a head of its own;
    the joint stage starts from these encoders. SMIL's fusion reaches its published accuracy so (its issue 17).
    """

    method = "fusion"
    hyperparameters = {
        "schedule": "step", "lr_step": 30,  # SMIL's train_soundmnist.py, with Adam 1e-3 and weight decay 1e-4
        "select_on": "available",  # it is trained on that, and on nothing else
    }
    network_settings = {"imputation": True}  # missing features are the mean of the present ones; False: zeros
    run_settings = {"pretrain_encoders": False}

    @classmethod
    def stages_of(cls, modalities, settings):
        alone = modalities if settings["pretrain_encoders"] else ()
        return (*(Stage(f"encoder_{name}", EPOCHS, drop_modalities=False) for name in alone),
                Stage(JOINT, EPOCHS, drop_modalities=False))

    @classmethod
    def build_classifier(cls, configuration, shapes, task, classes) -> nn.Module:
        """An encoder per modality, projected to the common size, and the head of the plan."""
        return build_shared_features(configuration, shapes, num_outputs(task, classes),
                                     imputation=configuration["nnmiss"]["imputation"])

    @property
    def alone(self):
        """The modality whose encoder this stage trains; None in the joint stage."""
        return None if self.stage.name == JOINT else self.modalities.index(self.stage.name.removeprefix("encoder_"))

    @property
    def starts_afresh(self):
        return self.alone is not None or len(self.stages) == 1

    def begin_stage(self, checkpoint_of):
        """Encoders start from random weights, the joint stage from theirs."""
        if self.alone is not None or len(self.stages) == 1:
            return
        for name, encoder in zip(self.modalities, self.bare_network.encoders):
            weights = checkpoint_of(f"encoder_{name}")["network_weights"]
            encoder.load_state_dict({key.removeprefix("expert.encoder."): value for key, value in weights.items()
                                     if key.startswith("expert.encoder.")})
