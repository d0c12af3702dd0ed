"""The default planner: nnU-Net's plain U-Net."""
from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from nnmiss.planners.base import PLAIN_PLANS, NnmissPlannerMixin


class nnMissPlanner(NnmissPlannerMixin, ExperimentPlanner):
    """nnU-Net's ExperimentPlanner with the "nnmiss" block; arguments as there."""

    def __init__(self, dataset_name_or_id: str | int, gpu_memory_target_in_gb: float = 8,
                 preprocessor_name: str = "DefaultPreprocessor", plans_name: str = PLAIN_PLANS,
                 overwrite_target_spacing: Sequence[float] | None = None, suppress_transpose: bool = False):
        super().__init__(dataset_name_or_id, gpu_memory_target_in_gb, preprocessor_name, plans_name,
                         overwrite_target_spacing, suppress_transpose)
