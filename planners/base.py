"""What our planners add to nnU-Net's: cases with holes, the "nnmiss" block, and a plan file written atomically."""
from __future__ import annotations

import io
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss.atomic_files import read_json, write_json
from nnmiss.availability import modality_names
from nnmiss.errors import NnmissError
from nnmiss.planners.cost import cost_block
from nnmiss.preprocessing.choose_reader import choose_reader
from nnmiss.preprocessing.dataset_folders import label_manager, require_folder
from nnmiss.preprocessing.plan_checks import check_plans
from nnmiss.preprocessing.raw_dataset import ExplicitCases

PLAIN_PLANS = "nnMissPlans"


class NnmissPlannerMixin(ExplicitCases):
    """Mixed in before one of nnU-Net's planners: the same plan, plus "nnmiss" per configuration.

    Set `blank_is_missing` (noted in the plan for preprocessing) and `verbose` (nnU-Net's own prints) after making it.
    `save_memory` says whether the block keeps the network within stock's memory.
    """

    blank_is_missing = False
    save_memory = True
    verbose = False

    def determine_reader_writer(self) -> type[BaseReaderWriter]:
        """nnU-Net's choice, made on a file that can be read."""
        return choose_reader(self.dataset_json, self.cases)

    @staticmethod
    def static_estimate_VRAM_usage(patch_size: tuple[int, ...], input_channels: int, output_channels: int,
                                   arch_class_name: str, arch_kwargs: dict,
                                   arch_kwargs_req_import: tuple[str, ...]) -> np.int64:
        """nnU-Net's proxy of memory, from a network without weights.

        nnU-Net's own sets the number of threads to nnUNet_n_proc_DA, which fails for 0, and allocates every network
        it looks at.
        """
        with torch.device("meta"):
            network = get_network_from_plans(arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels,
                                             output_channels, allow_init=False)
        return network.compute_conv_feature_map_size(patch_size)

    def plan_experiment(self) -> dict:
        """Makes and saves the plan. Needs the fingerprint. Returns the plan.

        Raises NnmissError when the preprocessed folder holds a plan of another planner under this name.
        """
        with nullcontext() if self.verbose else redirect_stdout(io.StringIO()):
            return super().plan_experiment()

    def save_plans(self, plans: dict) -> None:
        """Adds the "nnmiss" blocks and writes the plan, keeping custom configurations of an existing one."""
        self.add_cost(plans)
        recursive_fix_for_json_export(plans)
        path = require_folder("nnUNet_preprocessed") / self.dataset_name / f"{self.plans_identifier}.json"
        if path.is_file():
            plans["configurations"].update(self._custom_configurations(path, plans))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plans)

    def add_cost(self, plans: dict) -> None:
        """Puts the "nnmiss" block into every configuration that has an architecture of its own (a cascade inherits)."""
        labels = label_manager(self.dataset_json)
        manager = PlansManager(plans)
        for name, configuration in plans["configurations"].items():
            if "architecture" in configuration:
                configuration["nnmiss"] = cost_block(
                    manager.get_configuration(name), len(modality_names(self.dataset_json)),
                    labels.num_segmentation_heads, self.blank_is_missing, labels.has_regions, self.save_memory)

    def _custom_configurations(self, path: Path, plans: dict) -> dict:
        old = read_json(path, "plan")
        if not isinstance(old, dict) or "configurations" not in old:
            raise NnmissError(f"{path} exists but is not a plan: move it away, or plan with -overwrite_plans_name")
        check_plans(old, str(path))
        if not str(old.get("experiment_planner_used", "")).startswith("nnMiss"):
            raise NnmissError(f"{path} is a plan of {old.get('experiment_planner_used')}: choose another name with "
                              "-overwrite_plans_name")
        return {name: c for name, c in old["configurations"].items() if name not in plans["configurations"]}
