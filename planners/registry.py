"""The planners by name, nnU-Net's own names included."""
from __future__ import annotations

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.planners.base import NnmissPlannerMixin
from nnmiss.planners.plain import nnMissPlanner
from nnmiss.planners.residual_encoder import nnMissPlannerResEncL, nnMissPlannerResEncM, nnMissPlannerResEncXL
from nnmiss.planners.tiny import nnMissPlannerTiny

PLANNERS: dict[str, type[NnmissPlannerMixin]] = {
    "nnMissPlanner": nnMissPlanner,
    "nnMissPlannerResEncM": nnMissPlannerResEncM,
    "nnMissPlannerResEncL": nnMissPlannerResEncL,
    "nnMissPlannerResEncXL": nnMissPlannerResEncXL,
    "nnMissPlannerTiny": nnMissPlannerTiny,
}
ALIASES = {
    "ExperimentPlanner": "nnMissPlanner",
    "nnUNetPlannerResEncM": "nnMissPlannerResEncM",
    "nnUNetPlannerResEncL": "nnMissPlannerResEncL",
    "nnUNetPlannerResEncXL": "nnMissPlannerResEncXL",
}


def find_planner(name: str) -> type[NnmissPlannerMixin]:
    """The planner class of that name; nnU-Net's names give ours. Raises NnmissError with the nearest names."""
    name = ALIASES.get(name, name)
    if name not in PLANNERS:
        raise NnmissError(f"unknown planner {name!r} (-pl). {nearest_names(name, [*PLANNERS, *ALIASES])}")
    return PLANNERS[name]
