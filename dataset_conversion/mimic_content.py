"""What dataset.json says of the two MIMIC tasks."""
from __future__ import annotations

from nnmiss.dataset_conversion.mimic_definitions import phenotypes, timeseries_spec

COMMON = {
    "licence": "PhysioNet Credentialed Health Data License 1.5.0 (the MIMIC-III demo: ODbL 1.0); not to be passed on",
    "reference": "Johnson et al., MIMIC-III (doi:10.1038/sdata.2016.35), MIMIC-IV (doi:10.1038/s41597-022-01899-x), "
                 "MIMIC-CXR-JPG (arXiv:1901.07042); cohort, variables and tasks: Harutyunyan et al., "
                 "doi:10.1038/s41597-019-0103-9; pairing: Hayat et al., MedFuse (arXiv:2207.07027)",
}
IMAGE = {"type": "image2d", "channels": 3, "size": [224, 224], "normalisation": "imagenet", "augmentation": "cxr",
         "encoder": {"name": "resnet34", "stem": "7x7"}}  # grey, shown in three channels to ImageNet's statistics
PLAN = {"batch_size": 16, "feature_dim": 256, "head": {"hidden": [256], "dropout": 0.3}}


def mortality_content(layout: str, published: bool = False) -> dict:
    """Death in hospital after the first 48 hours in the unit.

    layout: of the release, in words. published: see `timeseries_spec`.
    """
    return {"description": f"{layout}: in-hospital mortality from the first 48 hours of an ICU stay", **COMMON,
            "task": "binary", "labels": {"0": "survived", "1": "died"},
            "modalities": {"ehr": timeseries_spec(48, published), "cxr": IMAGE}, "plan": PLAN}


def phenotyping_content(layout: str, published: bool = False) -> dict:
    """25 phenotypes from the whole stay, with the groups acute, mixed and chronic."""
    groups: dict[str, list[str]] = {}
    for phenotype in phenotypes():
        groups.setdefault(phenotype.group, []).append(phenotype.name)
    return {"description": f"{layout}: 25 groups of diagnoses from an ICU stay", **COMMON, "task": "multilabel",
            "labels": [phenotype.name for phenotype in phenotypes()], "label_groups": groups,
            "modalities": {"ehr": timeseries_spec(None, published), "cxr": IMAGE}, "plan": PLAN}
