"""A planner for demonstrations and tests on a CPU: nnU-Net's rules with a quarter of the features."""
from __future__ import annotations

from nnmiss.planners.plain import nnMissPlanner

TINY_PLANS = "nnMissTinyPlans"


class nnMissPlannerTiny(nnMissPlanner):
    """nnMissPlanner with 8 features at the finest scale (nnU-Net: 32) and no memory-saving; not for real work.

    Patch, batch, spacing and depth follow nnU-Net's rules for a card with a sixteenth of the memory per feature.
    """

    save_memory = False

    def __init__(self, *args, plans_name: str = TINY_PLANS, **kwargs):
        super().__init__(*args, plans_name=plans_name, **kwargs)
        self.UNet_base_num_features = 8
        self.UNet_max_features_3d = self.UNet_max_features_2d = 64
        # nnU-Net's reference for its memory estimate, scaled so that the patch stays small: a quarter of the features
        # and a sixteenth of the voxels
        self.UNet_reference_val_3d //= 64
        self.UNet_reference_val_2d //= 16
