"""What a plan may say: nnU-Net imports the names in it and builds what its numbers ask for, so both are checked first.

A plan comes with every downloaded model. Names outside the lists below are refused, numbers have bounds far above every
plan that nnU-Net makes, and what becomes a folder's name may not lead anywhere else.
"""
from __future__ import annotations

import math
from typing import Any

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss.errors import NnmissError
from nnmiss.plain_names import name_fault, shown

READERS = (*(reader.__name__ for reader in LIST_OF_IO_CLASSES), SimpleITKIOWithReorient.__name__)
NORMALISATIONS = ("ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization",
                  "RGBTo01Normalization")
RESAMPLINGS = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "resample_torch_simple", "no_resampling_hack")
NETWORKS = tuple(f"dynamic_network_architectures.architectures.unet.{name}" for name in (
    "PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"))
DIMENSIONS = ("1d", "2d", "3d")
BUILDING_BLOCKS = {  # argument of a network -> torch.nn's modules that it may name, by the file of torch they lie in
    "conv_op": ("conv", [f"Conv{d}" for d in DIMENSIONS]),
    "norm_op": ("instancenorm", [f"InstanceNorm{d}" for d in DIMENSIONS]),
    "dropout_op": ("dropout", ["Dropout", *[f"Dropout{d}" for d in DIMENSIONS]]),
    "nonlin": ("activation", ["ReLU", "LeakyReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish", "ReLU6"]),
}
BATCH_NORMS = [f"{place}BatchNorm{d}" for place in ("torch.nn.", "torch.nn.modules.batchnorm.") for d in DIMENSIONS]
LARGEST = {"n_stages": 16, "features_per_stage": 2**14, "kernel_sizes": 32, "strides": 64, "n_conv_per_stage": 64,
           "n_blocks_per_stage": 64, "n_conv_per_stage_decoder": 64, "n_blocks_per_stage_decoder": 64,
           "stem_channels": 2**14, "bottleneck_channels": 2**14}
LARGEST_OLD = {  # of plans from before nnU-Net wrote "architecture", which it still builds
    "UNet_base_num_features": 2**14, "unet_max_num_features": 2**14, "conv_kernel_sizes": 32, "pool_op_kernel_sizes": 64,
    "n_conv_per_stage_encoder": 64, "n_conv_per_stage_decoder": 64}
MOST_PARAMETERS = 2**31  # of one U-Net; nnU-Net's largest plan has a hundredth
MOST_VOXELS = 2**28  # of a patch
MOST_NUMBERS = 64  # of a list
MOST_CONFIGURATIONS = 64
AXIS = (1, 2**13)  # voxels of a patch along one axis


def check_plans(plans: Any, where: str) -> dict:
    """`plans`, with nothing in it that nnU-Net would import, write or allocate beyond what a plan needs.

    Args:
        plans: content of a plans.json of segmentation.
        where: the file, for messages.

    Raises:
        NnmissError: what is wrong, by the key.
    """
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), dict):
        raise NnmissError(f'{where} is no plan: it must hold an object with "configurations"')
    for key in ("plans_name", "dataset_name"):
        if key in plans and name_fault(plans[key]):
            _refuse(where, key, plans[key], name_fault(plans[key]))
    _known(where, "image_reader_writer", plans.get("image_reader_writer", READERS[0]), READERS)
    _known(where, "label_manager", plans.get("label_manager", "LabelManager"), ("LabelManager",))
    for key in ("transpose_forward", "transpose_backward"):
        if key in plans and (not isinstance(plans[key], list) or sorted(plans[key], key=str) not in ([0, 1, 2], [0, 1])):
            _refuse(where, key, plans[key], "expected the axes 0, 1, 2 in some order")
    if len(plans["configurations"]) > MOST_CONFIGURATIONS:
        _refuse(where, "configurations", len(plans["configurations"]), f"a plan has at most {MOST_CONFIGURATIONS}")
    manager = PlansManager(plans)
    for name, own in plans["configurations"].items():
        if not isinstance(own, dict):
            _refuse(where, name, own, "a configuration is an object")
        if name_fault(name):
            _refuse(where, "configurations", name, name_fault(name))
        try:
            whole = manager._internal_resolve_configuration_inheritance(name)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            _refuse(where, f"{name} / inherits_from", own.get("inherits_from"), str(error))
        _check_configuration(whole, f"{where}, configuration {name}")
    return plans


def _check_configuration(configuration: dict, where: str) -> None:
    identifier = configuration.get("data_identifier", "data")
    if name_fault(identifier):
        _refuse(where, "data_identifier", identifier, name_fault(identifier))
    preprocessor = "DefaultPreprocessor"
    _known(where, "preprocessor_name", configuration.get("preprocessor_name", preprocessor), (preprocessor,))
    schemes = configuration.get("normalization_schemes", [])
    for scheme in schemes if isinstance(schemes, list) else [schemes]:
        _known(where, "normalization_schemes", scheme, NORMALISATIONS)
    for part in ("data", "seg", "probabilities"):
        _known(where, f"resampling_fn_{part}", configuration.get(f"resampling_fn_{part}", RESAMPLINGS[0]), RESAMPLINGS)
        options = configuration.get(f"resampling_fn_{part}_kwargs", {})
        if not isinstance(options, dict) or not all(_is_small(value) for value in options.values()):
            _refuse(where, f"resampling_fn_{part}_kwargs", options, "expected an object of words and small numbers")
    _numbers(where, "patch_size", configuration.get("patch_size", [1]), *AXIS, whole=True, most=MOST_VOXELS)
    _numbers(where, "spacing", configuration.get("spacing", [1]), 1e-6, 1e6)
    _numbers(where, "batch_size", configuration.get("batch_size", 1), 1, 2**16, whole=True)
    if "architecture" in configuration:
        _check_architecture(configuration["architecture"], where)
    for key, largest in LARGEST_OLD.items():
        if key in configuration:
            _numbers(where, key, configuration[key], 1, largest, whole=True)
    block = configuration.get("nnmiss", {})
    if not isinstance(block, dict):
        _refuse(where, "nnmiss", block, "expected an object")
    for key, largest in {"width_factor": 16, "expert_width": 16, "hyper_channels": 2**10, "prompt_size": 2**16}.items():
        if key in block:
            _numbers(where, key, block[key], 0, largest)


def _check_architecture(architecture: Any, where: str) -> None:
    if not isinstance(architecture, dict) or not isinstance(architecture.get("arch_kwargs"), dict) \
            or not isinstance(architecture.get("_kw_requires_import"), list | tuple):
        _refuse(where, "architecture", architecture, "expected network_class_name, arch_kwargs and _kw_requires_import")
    _known(where, "network_class_name", architecture.get("network_class_name"), NETWORKS)
    options = architecture["arch_kwargs"]
    for key in architecture["_kw_requires_import"]:
        _known(where, "_kw_requires_import", key, tuple(BUILDING_BLOCKS))
        if options.get(key) is not None:
            file, names = BUILDING_BLOCKS[key]
            known = [place + name for place in ("torch.nn.", f"torch.nn.modules.{file}.") for name in names]
            _known(where, key, options[key], (*known, *(BATCH_NORMS if key == "norm_op" else ())))
    for key, largest in LARGEST.items():
        if options.get(key) is not None:
            _numbers(where, key, options[key], 1, largest, whole=True)
    try:
        too_large = _parameters(options) > MOST_PARAMETERS
    except TypeError:  # a list within a list, or in a number's place
        _refuse(where, "arch_kwargs", options, "its lists do not fit each other")
    if too_large:
        _refuse(where, "arch_kwargs", options, f"a network of more than {MOST_PARAMETERS:.0e} parameters")


def _parameters(options: dict) -> int:
    """Parameters of the convolutions of an encoder, about; the decoder of a U-Net has as many or fewer."""
    widths, kernels = options.get("features_per_stage", []), options.get("kernel_sizes", 3)
    stages = options.get("n_stages", 1)
    depths = options.get("n_conv_per_stage", options.get("n_blocks_per_stage", 1))
    widths, kernels, depths = (v if isinstance(v, list) else [v] * stages for v in (widths, kernels, depths))
    total, before = 0, 1
    for width, kernel, depth in zip(widths, kernels, depths):
        voxels = math.prod(kernel) if isinstance(kernel, list) else kernel**3
        total, before = total + voxels * width * (before + (depth - 1) * width), width
    return total


def _known(where: str, key: str, value: Any, names: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in names:
        _refuse(where, key, value, f"it is none of {', '.join(names)}, and nothing else is imported")


def _is_small(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 40
    return value is None or (isinstance(value, int | float) and abs(value) <= 64)


def _numbers(where: str, key: str, value: Any, low: float, high: float, whole: bool = False,
             most: int | None = None) -> None:
    """Refuses what is not one number between `low` and `high`, or a short list of such, or of lists of such."""
    flat = [n for part in value for n in (part if isinstance(part, list | tuple) else [part])] \
        if isinstance(value, list | tuple) else [value]
    good = [isinstance(n, int if whole else int | float) and low <= n <= high for n in flat[:MOST_NUMBERS]]
    if not flat or len(flat) > MOST_NUMBERS or not all(good) or (most and math.prod(flat) > most):
        _refuse(where, key, value, f"expected {'whole ' if whole else ''}numbers from {low:g} to {high:g}"
                + (f", multiplied at most {most:.0e}" if most else ""))


def _refuse(where: str, key: str, value: Any, why: str | None) -> None:
    raise NnmissError(f"{where}: {key} is {shown(value)}: {why}. A plan of nnmiss_plan_and_preprocess holds no such thing; "
                      "use one from a source you trust")
