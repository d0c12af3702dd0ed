"""Plans equal to stock's but for the "nnmiss" block, and the cost model behind that block."""
from __future__ import annotations

import json

import numpy as np
import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncM,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnmiss.availability import all_subsets
from nnmiss.errors import NnmissError
from nnmiss.networks.architecture import build_unet
from nnmiss.planners.cost import (
    WIDTHS,
    UNetCost,
    cost_block,
    fitting_micro_batch,
    largest_width,
    mean_present,
    packed_flops,
    packed_memory,
)
from nnmiss.planners.plain import nnMissPlanner
from nnmiss.planners.registry import ALIASES, PLANNERS, find_planner
from nnmiss.planners.residual_encoder import nnMissPlannerResEncL, nnMissPlannerResEncM

NAME = "Dataset302_Plan"


def configuration(dim=3, residual=False, features=(32, 64, 128), patch=32, batch_size=4):
    stages = len(features)
    kwargs = {
        "n_stages": stages, "features_per_stage": list(features), "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
        "kernel_sizes": [[3] * dim] * stages, "strides": [[1] * dim] + [[2] * dim] * (stages - 1),
        "n_blocks_per_stage" if residual else "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True}}
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return ConfigurationManager({
        "patch_size": [patch] * dim, "batch_size": batch_size,
        "architecture": {"network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
                         "arch_kwargs": kwargs, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}})


@pytest.mark.parametrize("num_modalities", range(2, 9))
def test_mean_present_is_the_mean_over_all_subsets(num_modalities):
    assert mean_present(num_modalities) == pytest.approx(np.mean([sum(s) for s in all_subsets(num_modalities)]))


def convolution_flops(module, image):
    """2 x multiplications of every convolution, from weights and output shapes; an oracle that runs the network."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        per_position = 2 * layer.weight.numel()
        positions = (inputs[0] if layer.transposed else output).shape[2:].numel()
        total += per_position * positions

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    result = module(image)
    for hook in hooks:
        hook.remove()
    return total, result


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_operations_are_those_of_the_networks_convolutions(dim, residual):
    import torch

    c = configuration(dim, residual, features=(8, 12, 16), patch=16)
    cost, network = UNetCost(c, 1, 3, 0.5), build_unet(c, 1, 3, True, 0.5)
    encoder, features = convolution_flops(network.encoder, torch.zeros(1, 1, *[16] * dim))
    decoder, _ = convolution_flops(network.decoder, features)
    assert (cost.encoder_flops, cost.decoder_flops) == (encoder, decoder)
    assert cost.fusion_flops == sum(2 * f.shape[1] ** 2 * f.shape[2:].numel() for f in features)
    assert cost.output_memory == sum(f.numel() for f in features)


@pytest.mark.parametrize("num_modalities", [2, 3, 4, 8])
@pytest.mark.parametrize("residual", [False, True])
def test_width_is_the_largest_that_costs_no_more_than_stock(num_modalities, residual):
    c = configuration(residual=residual)
    block = cost_block(c, num_modalities, 3)
    stock = UNetCost(c, num_modalities, 3)
    budget = stock.encoder_flops + stock.decoder_flops

    def mean_cost(width):  # over the subsets one by one
        unet = UNetCost(c, 1, 3, width)
        return np.mean([packed_flops(unet, sum(s)) for s in all_subsets(num_modalities)])

    assert mean_cost(block["width_factor"]) <= budget
    wider = [w for w in WIDTHS if w > block["width_factor"]]
    assert all(mean_cost(w) > budget for w in wider)
    estimates = block["estimates"]
    assert estimates["relative_cost"] == pytest.approx(mean_cost(block["width_factor"]) / budget, abs=1e-3)
    assert estimates["network_gflops_mean"] <= estimates["stock_gflops"]
    network = build_unet(c, 1, 3, True, block["width_factor"])
    whole = build_unet(c, num_modalities, 3, True)
    memory = (num_modalities * network.encoder.compute_conv_feature_map_size([32] * 3)
              + network.decoder.compute_conv_feature_map_size([32] * 3)) / whole.compute_conv_feature_map_size([32] * 3)
    assert estimates["relative_memory_all_modalities"] == pytest.approx(memory, abs=1e-3)
    assert block["activation_checkpointing"] == (memory > 1)
    assert 1 <= block["micro_batch"] <= 4
    unet = UNetCost(c, 1, 3, block["width_factor"])

    def kept(samples):  # with checkpointing one image's encoder is recomputed at a time
        return samples * (num_modalities * unet.output_memory + unet.decoder_memory) + unet.encoder_memory

    if memory > 1:
        budget = 4 * whole.compute_conv_feature_map_size([32] * 3)
        assert estimates["relative_memory_with_checkpointing"] == pytest.approx(kept(4) / budget, abs=1e-3)
        assert block["micro_batch"] == next((m for m in (4, 2) if kept(m) <= 1.1 * budget), 1)
    fitting = [w for w in WIDTHS if packed_memory(UNetCost(c, 1, 3, w), num_modalities, False)
               <= whole.compute_conv_feature_map_size([32] * 3)]
    assert estimates["equal_memory_width_factor"] == max(fitting, default=None)


def test_search_and_micro_batch_at_their_edges():
    for threshold in range(17):
        expected = threshold / 16 or None
        assert largest_width(lambda w, threshold=threshold: w * 16 <= threshold) == expected
    for per_sample, expected in ((100, 12), (109, 12), (111, 6), (260, 3), (9000, 1)):
        assert fitting_micro_batch(12, lambda n, each=per_sample: n * each, 12 * 100) == expected


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A data set of empty files with a fingerprint: all that planning looks at. Returns the preprocessed folder."""
    for name in ("raw", "preprocessed"):
        (tmp_path / name / NAME).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    raw = tmp_path / "raw" / NAME
    for sub in ("imagesTr", "labelsTr"):
        (raw / sub).mkdir()
    channels = ["flair", "CT", "t1ce", "t2"]
    import SimpleITK as sitk
    image = sitk.GetImageFromArray(np.ones((4, 4, 4), dtype=np.float32))
    for case in ("a", "b"):
        for channel in range(4):
            if (case, channel) != ("b", 2):
                sitk.WriteImage(image, str(raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz"))
        sitk.WriteImage(image, str(raw / "labelsTr" / f"{case}.nii.gz"))
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {str(i): c for i, c in enumerate(channels)}, "numTraining": 2, "file_ending": ".nii.gz",
        "labels": {"background": 0, "rim": 1, "core": 2}}))
    write_fingerprint(tmp_path / "preprocessed" / NAME)
    return tmp_path / "preprocessed" / NAME


def write_fingerprint(folder, shape=(40, 48, 44), spacing=(1.5, 1.0, 1.0)):
    properties = {"mean": 1.0, "std": 1.0, "median": 1.0, "min": 0.0, "max": 2.0, "percentile_00_5": 0.0,
                  "percentile_99_5": 2.0}
    (folder / "dataset_fingerprint.json").write_text(json.dumps({
        "spacings": [spacing] * 2, "shapes_after_crop": [shape] * 2, "median_relative_size_after_cropping": 0.6,
        "foreground_intensity_properties_per_channel": {str(i): properties for i in range(4)}}))


def without_names(plans):
    plans = json.loads(json.dumps(plans, default=lambda x: x.tolist()))
    for key in ("plans_name", "experiment_planner_used"):
        del plans[key]
    for c in plans["configurations"].values():
        c.pop("data_identifier", None)
        c.pop("nnmiss", None)
    return plans


@pytest.mark.parametrize(("ours", "stock"), [(nnMissPlanner, ExperimentPlanner),
                                             (nnMissPlannerResEncM, nnUNetPlannerResEncM)])
def test_plan_is_stocks_plus_the_block(dataset, monkeypatch, ours, stock, capsys):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # stock dies with it
    plans = ours(NAME, gpu_memory_target_in_gb=0.4).plan_experiment()
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    expected = stock(NAME, gpu_memory_target_in_gb=0.4).plan_experiment()
    assert without_names(plans) == without_names(expected)
    saved = json.loads((dataset / f"{plans['plans_name']}.json").read_text())
    for name in ("2d", "3d_fullres"):
        block = PlansManager(saved).get_configuration(name).configuration["nnmiss"]
        assert set(block) == {"width_factor", "activation_checkpointing", "micro_batch", "blank_is_missing", "estimates"}
    assert saved["configurations"]["3d_fullres"]["preprocessor_name"] == "DefaultPreprocessor"


def test_low_resolution_and_cascade_stay_in_the_plan(dataset):
    write_fingerprint(dataset, shape=(96, 96, 96), spacing=(1.0, 1.0, 1.0))
    plans = nnMissPlanner(NAME, gpu_memory_target_in_gb=0.1).plan_experiment()
    assert {"2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"} == set(plans["configurations"])
    assert plans["configurations"]["3d_cascade_fullres"] == {"inherits_from": "3d_fullres",
                                                             "previous_stage": "3d_lowres"}
    manager = PlansManager(plans)
    assert "width_factor" in manager.get_configuration("3d_lowres").configuration["nnmiss"]
    assert manager.get_configuration("3d_lowres").data_identifier == "nnMissPlans_3d_lowres"


def test_residual_encoder_plans_share_the_plain_data(dataset):
    planner = nnMissPlannerResEncM(NAME)
    assert planner.plans_identifier == "nnMissResEncUNetMPlans"
    assert [planner.generate_data_identifier(c) for c in ("2d", "3d_fullres", "3d_lowres")] == [
        "nnMissPlans_2d", "nnMissPlans_3d_fullres", "nnMissResEncUNetMPlans_3d_lowres"]
    other = nnMissPlannerResEncL(NAME, overwrite_target_spacing=[2.0, 2.0, 2.0])
    assert other.generate_data_identifier("3d_fullres") == "nnMissResEncUNetLPlans_3d_fullres"


def test_custom_configurations_survive_and_foreign_plans_are_not_overwritten(dataset):
    nnMissPlanner(NAME).plan_experiment()
    path = dataset / "nnMissPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_bs4"] = {"inherits_from": "3d_fullres", "batch_size": 4}
    plans["configurations"]["3d_fullres"]["batch_size"] = 77
    path.write_text(json.dumps(plans))
    plans = nnMissPlanner(NAME).plan_experiment()
    assert json.loads(path.read_text())["configurations"]["3d_bs4"] == {"inherits_from": "3d_fullres", "batch_size": 4}
    assert plans["configurations"]["3d_fullres"]["batch_size"] != 77
    ExperimentPlanner.save_plans(nnMissPlanner(NAME, plans_name="other"),
                                 {"configurations": {}, "experiment_planner_used": "ExperimentPlanner"})
    with pytest.raises(NnmissError, match="is a plan of ExperimentPlanner"):
        nnMissPlanner(NAME, plans_name="other").plan_experiment()


def test_planners_by_name():
    assert all(find_planner(name) is cls for name, cls in PLANNERS.items())
    assert all(find_planner(alias) is PLANNERS[name] for alias, name in ALIASES.items())
    with pytest.raises(NnmissError, match="nnMissPlannerResEncM"):
        find_planner("nnMissPlannerResEnc")
