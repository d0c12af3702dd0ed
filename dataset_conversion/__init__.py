"""Data sets brought into the raw format of segmentation or classification, one a file, and the table that names them."""
from __future__ import annotations

from nnmiss.dataset_conversion import (
    adni,
    avmnist,
    cremad,
    eicu_blocks,
    food101,
    fsdd_smnist,
    luma,
    mimic,
    msd,
    open_ms,
    own_folder,
    smnist,
)
from nnmiss.dataset_conversion.brats import BratsConverter

# A converter is a module, or an object, with DESCRIPTION, DEFAULT_ID, Options (a dataclass whose fields are its flags,
# `overwrite`, `num_threads` and `disable_progress_bar` among them), add_arguments(parser) and convert(sources, output,
# dataset_id, options) -> ConversionSummary. It only finds files; checking and writing them is
# `raw_cases.write_raw_dataset` for segmentation, `sample_folder.write_sample_dataset` for classification.
CONVERTERS = {
    **{f"brats{year}": BratsConverter(year) for year in (2018, 2019, 2020, 2021, 2023, 2024, 2025)},
    "msd": msd,
    "folder": own_folder,
    "open_ms": open_ms,
    "avmnist": avmnist,
    "fsdd_smnist": fsdd_smnist,
    "smnist": smnist,
    "cremad": cremad,
    "luma": luma,
    "food101": food101,
    "mimic": mimic,
    "adni": adni,
    "eicu_blocks": eicu_blocks,
}
