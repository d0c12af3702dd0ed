"""Planners for nnU-Net's residual encoder U-Nets in three sizes."""
from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)

from nnmiss.planners.base import PLAIN_PLANS, NnmissPlannerMixin


class _SharedData(NnmissPlannerMixin):
    """Residual encoder plans share the plain plan's preprocessed data where it is the same, as in nnU-Net."""

    def generate_data_identifier(self, configuration_name: str) -> str:
        same = configuration_name in ("2d", "3d_fullres") and self.overwrite_target_spacing is None
        return f"{PLAIN_PLANS if same else self.plans_identifier}_{configuration_name}"


class nnMissPlannerResEncM(_SharedData, nnUNetPlannerResEncM):
    """nnU-Net's nnUNetPlannerResEncM (9-11 GB) with the "nnmiss" block; arguments as there."""

    def __init__(self, dataset_name_or_id: str | int, gpu_memory_target_in_gb: float = 8,
                 preprocessor_name: str = "DefaultPreprocessor", plans_name: str = "nnMissResEncUNetMPlans",
                 overwrite_target_spacing: Sequence[float] | None = None, suppress_transpose: bool = False):
        super().__init__(dataset_name_or_id, gpu_memory_target_in_gb, preprocessor_name, plans_name,
                         overwrite_target_spacing, suppress_transpose)


class nnMissPlannerResEncL(_SharedData, nnUNetPlannerResEncL):
    """nnU-Net's nnUNetPlannerResEncL (24 GB) with the "nnmiss" block; arguments as there."""

    def __init__(self, dataset_name_or_id: str | int, gpu_memory_target_in_gb: float = 24,
                 preprocessor_name: str = "DefaultPreprocessor", plans_name: str = "nnMissResEncUNetLPlans",
                 overwrite_target_spacing: Sequence[float] | None = None, suppress_transpose: bool = False):
        super().__init__(dataset_name_or_id, gpu_memory_target_in_gb, preprocessor_name, plans_name,
                         overwrite_target_spacing, suppress_transpose)


class nnMissPlannerResEncXL(_SharedData, nnUNetPlannerResEncXL):
    """nnU-Net's nnUNetPlannerResEncXL (40 GB) with the "nnmiss" block; arguments as there."""

    def __init__(self, dataset_name_or_id: str | int, gpu_memory_target_in_gb: float = 40,
                 preprocessor_name: str = "DefaultPreprocessor", plans_name: str = "nnMissResEncUNetXLPlans",
                 overwrite_target_spacing: Sequence[float] | None = None, suppress_transpose: bool = False):
        super().__init__(dataset_name_or_id, gpu_memory_target_in_gb, preprocessor_name, plans_name,
                         overwrite_target_spacing, suppress_transpose)
