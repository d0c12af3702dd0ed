"""Data sets brought into nnU-Net's raw format, one a file, and the table that names them."""
from __future__ import annotations

from nnmiss.dataset_conversion import open_ms

# A converter is a module with DESCRIPTION, DEFAULT_ID, Options (a dataclass whose fields are its flags, `overwrite`
# among them), add_arguments(parser) and convert(sources, output, dataset_id, options) -> ConversionSummary. It only
# finds files; checking and writing them is `raw_cases.write_raw_dataset`, the same for all.
CONVERTERS = {
    "open_ms": open_ms,
}
