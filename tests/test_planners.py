"""Plans equal to stock's but for the "nnmiss" block, and the cost model behind that block."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncM,
)
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnmiss.availability import all_subsets
from nnmiss.errors import NnmissError
from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.networks.architecture import build_unet, scaled_width
from nnmiss.networks.base import item_index
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet
from nnmiss.planners.cost import cost_block, filling_widths, fitting_micro_batch, largest_width, mean_present, relative_cost
from nnmiss.planners.plain import nnMissPlanner
from nnmiss.planners.planned_step import PlannedSteps
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


def test_widths_leave_multiples_of_eight_and_nnunets_own_plans_have_all_of_them():
    assert filling_widths([32, 64, 128, 256, 320, 320]) == [i / 16 for i in range(1, 17)]
    for features in ([16, 32, 64], [16, 20, 64], [8, 16]):
        found = filling_widths(features)
        assert 0.5 in found and 1 in found and 0.8125 not in found  # 12 or 13 of 16
        planned = [scaled_width(16, width) for width in found]
        assert set(planned) == {8, 16}
    block = cost_block(configuration(features=(16, 32, 64)), 4, 3)
    assert block["width_factor"] == block["estimates"]["equal_cost_width_factor"] == 0.625
    many = cost_block(configuration(features=(16, 32, 64), patch=16), 12, 3, save_memory=False)
    assert many["width_factor"] == 0.3125  # [4, 8, 16]: with twelve modalities no width of eights is cheap enough


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
    c = configuration(dim, residual, features=(8, 12, 16), patch=16)
    steps, network = PlannedSteps(c, 3, 3), build_unet(c, 1, 3, True, 0.5)
    encoder, features = convolution_flops(network.encoder, torch.zeros(1, 1, *[16] * dim))
    decoder, _ = convolution_flops(network.decoder, features)
    one_map = sum(2 * f.shape[1] ** 2 * f.shape[2:].numel() for f in features)  # of a present modality
    mixing = sum(2 * 3**2 * f.shape[1] ** 2 for f in features)  # shares (3, 3) times weights of 3 modalities
    for shown in (1, 2, 3):
        assert steps.packed_forward(0.5, shown).flops == shown * (encoder + one_map) + mixing + decoder


@pytest.mark.parametrize(("num_modalities", "residual"), [
    (2, False), pytest.param(3, True, marks=pytest.mark.slow)])
def test_width_is_the_largest_that_costs_no_more_than_stock(num_modalities, residual):
    c = configuration(residual=residual)
    block = cost_block(c, num_modalities, 3)
    steps = PlannedSteps(c, num_modalities, 3)
    stock, target = steps.stock_forward(), 0.95 * steps.stock_peak(4)

    def mean_of(width, what):  # over the subsets one by one
        return np.mean([getattr(steps.packed_forward(width, sum(s)), what) for s in all_subsets(num_modalities)])

    def cost(width):
        return relative_cost(mean_of(width, "flops"), mean_of(width, "moved"), stock.flops, stock.moved)

    width, estimates = block["width_factor"], block["estimates"]
    assert width == estimates["equal_cost_width_factor"]
    assert cost(width) <= 1
    assert width == 1 or cost(width + 1 / 16) > 1  # the cost grows with the width
    if not block["activation_checkpointing"]:
        assert estimates["relative_cost"] == pytest.approx(cost(width), abs=1e-3)
        assert estimates["relative_flops"] == pytest.approx(mean_of(width, "flops") / stock.flops, abs=1e-3)
        assert estimates["relative_bytes_moved"] == pytest.approx(mean_of(width, "moved") / stock.moved, abs=1e-3)
    else:
        assert cost(width) < estimates["relative_cost"] < cost(width) + 0.2  # with what is recomputed
    assert block["activation_checkpointing"] == (steps.packed_peak(width, 4) > target)
    if block["activation_checkpointing"]:
        micro_batch = block["micro_batch"]
        assert micro_batch == next(m for m in (4, 2, 1) if m == 1 or steps.packed_peak(width, m, True, 4 // m) <= target)
        peaks = [steps.packed_peak(width, micro_batch, True, 4 // micro_batch, kept)
                 for kept in range(micro_batch * num_modalities - 1)]
        assert block["kept_images"] == max((kept for kept, peak in enumerate(peaks) if peak <= target), default=0)
        assert estimates["peak_mib"] == round(peaks[block["kept_images"]] / 2**20, 1)
        for shown in range(1, num_modalities + 1):  # a pass with so many modalities, nothing recomputed
            peak = steps.packed_peak(width, micro_batch, False, 4 // micro_batch, shown=shown)
            assert (peak <= 1.01 * target) if shown * micro_batch <= block["whole_passes"] else (peak > 0.99 * target)
    assert estimates["peak_mib"] <= 0.95 * estimates["stock_peak_mib"] + 0.1
    equal_memory = estimates["equal_memory_width_factor"]
    assert equal_memory is None or steps.packed_peak(equal_memory, 4) <= target
    assert equal_memory == 1 or steps.packed_peak((equal_memory or 0) + 1 / 16, 4) > target


MEMORY = [  # dim, residual, modalities, checkpointing, passes
    (3, False, 2, False, 1), (3, False, 4, True, 1), (3, True, 5, False, 1), (2, False, 5, False, 2),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (3, True, 3, True, 2), (2, False, 3, True, 1), (2, True, 2, False, 1), (2, True, 4, True, 1)))]


@pytest.mark.parametrize(("dim", "residual", "m", "checkpointing", "passes"), MEMORY)
def test_estimated_memory_is_what_the_step_takes(dim, residual, m, checkpointing, passes):
    # in smaller patches the scratch of the processor's own convolutions shows: 5 % at 16^3 with AVX2, less with AVX-512
    check_memory(configuration(dim, residual, features=(8, 12, 16), patch=32 if dim == 3 else 48), m, checkpointing, passes)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "residual", "m", "checkpointing", "passes"), MEMORY)
def test_estimated_memory_is_what_a_larger_step_takes(dim, residual, m, checkpointing, passes):
    c = configuration(dim, residual, features=(16, 32, 64, 128), patch=48 if dim == 3 else 192)
    check_memory(c, m, checkpointing, passes)


def check_memory(c, m, checkpointing, passes):
    """Estimate against what torch's CPU allocator reports, for stock's step and ours."""
    steps = PlannedSteps(c, m, 3)
    assert steps.stock_peak(2) == pytest.approx(stock_memory(c, m, 2), rel=0.15)
    for width in (1.0, 0.5):
        measured = packed_memory(c, m, 2 * passes, width, checkpointing, 2)
        estimate = steps.packed_peak(width, 2, checkpointing, passes)
        assert estimate == pytest.approx(measured, rel=0.15)
        assert estimate >= 0.95 * measured  # what the plan leaves free


@pytest.mark.parametrize("kept", [0, 30])
def test_memory_of_large_batches_is_found_from_smaller_ones(kept):
    """2D plans of small images have batches of hundreds."""
    c = configuration(2, False, features=(8, 12, 16), patch=32)
    steps = PlannedSteps(c, 3, 3)
    for samples in (20, 40):
        assert steps.stock_peak(samples) == pytest.approx(steps._stock_peak(samples), rel=0.01)
        expected = steps._packed_peak(1.0, samples, kept > 0, 1, kept, None)
        assert steps.packed_peak(1.0, samples, kept > 0, 1, kept) == pytest.approx(expected, rel=0.01)


def test_a_network_without_decoder_is_refused():
    with pytest.raises(NnmissError, match="1 stage for patches of 16 x 16 x 16"):
        cost_block(configuration(3, False, features=(8,), patch=16), 3, 3)


PLANNED = [  # dim, residual, modalities
    (3, False, 4), pytest.param(2, True, 3, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("dim", "residual", "m"), PLANNED)
def test_planned_step_stays_within_stocks_memory(dim, residual, m):
    check_plan(configuration(dim, residual, features=(8, 16, 24), patch=16 if dim == 3 else 48, batch_size=4), m)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "residual", "m"), [*PLANNED, (3, True, 2), (3, False, 8)])
def test_planned_larger_step_stays_within_stocks_memory(dim, residual, m):
    check_plan(configuration(dim, residual, features=(16, 32, 64, 128), patch=32 if dim == 3 else 128, batch_size=4), m)


def check_plan(c, m):
    block = cost_block(c, m, 3)
    measured = packed_memory(c, m, 4, block["width_factor"], block["activation_checkpointing"], block["micro_batch"],
                             block["kept_images"])
    assert measured <= stock_memory(c, m, 4)
    assert block["estimates"]["peak_mib"] * 2**20 == pytest.approx(measured, rel=0.15)


def labels_of(c, samples):
    """Target of each scale that has a loss, in nnU-Net's type."""
    stages = len(c.network_arch_init_kwargs["features_per_stage"])
    return [torch.randint(0, 3, (samples, 1, *[p // 2**i for p in c.patch_size]), dtype=torch.int16)
            for i in range(stages - 1)]


def measured_step(network, work, *batch):
    """Bytes of weights, momentum, batch, and of what `work` has allocated at its peak."""
    return 2 * sum(p.nbytes for p in network.parameters()) + sum(t.nbytes for t in batch) + allocated(work)


def stock_memory(c, m, batch_size):
    network = fastest_layout(build_unet(c, m, 3, True), torch.device("cpu"))
    x, labels = torch.randn(batch_size, m, *c.patch_size), labels_of(c, batch_size)
    return measured_step(network, lambda: nnunet_loss(len(labels))(network(x), labels).backward(), x, *labels)


def packed_memory(c, m, batch_size, width, checkpointing, micro_batch, kept=0):
    """As the trainer does it: in the fastest layout, in passes, and features are let go before the backward pass."""
    network = SharedEncoderUNet(build_unet(c, 1, 3, True, width), m, activation_checkpointing=checkpointing,
                                kept_images=kept)
    fastest_layout(network, torch.device("cpu"))
    x, labels = torch.randn(batch_size, m, *c.patch_size), labels_of(c, batch_size)

    def losses(part):
        present = torch.ones(micro_batch, m, dtype=torch.bool)
        logits, features = network(x[part], present, return_features=True)
        distillation = pairwise_distillation(features[-1], item_index(present), torch.ones(m, m))
        return nnunet_loss(len(labels))(logits, [label[part] for label in labels]) + distillation

    def work():
        for start in range(0, batch_size, micro_batch):
            losses(slice(start, start + micro_batch)).backward()

    return measured_step(network, work, x, *labels)


def nnunet_loss(outputs):
    weights = [1 / 2**i for i in range(outputs - 1)] + [0]
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DeepSupervisionWrapper(DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss),
                                  [w / sum(weights) for w in weights])


def allocated(work):
    """Largest number of bytes that torch's CPU allocator had given out at one time since the start of `work`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = []
    waiting = list(profile.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            events.append((event.start_time_ns, event.extra_fields.alloc_size))
    return int(np.cumsum([size for _, size in sorted(events, key=lambda e: e[0])]).max())


def test_search_and_micro_batch_at_their_edges():
    for threshold in range(17):
        expected = threshold / 16 or None
        for first in (0.01, 0.5, 2):
            assert largest_width(lambda w: w * 16, threshold, first=first) == expected
            assert largest_width(lambda w, t=threshold: float(w * 16 > t), 0.5, first=first) == expected  # a step
    for per_sample, expected in ((100, 12), (101, 6), (260, 3), (9000, 1)):
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


@pytest.mark.parametrize(("ours", "stock"), [
    (nnMissPlanner, ExperimentPlanner),
    pytest.param(nnMissPlannerResEncM, nnUNetPlannerResEncM, marks=pytest.mark.slow)])
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
        assert set(block) == {"width_factor", "activation_checkpointing", "whole_passes", "kept_images", "micro_batch",
                              "blank_is_missing", "estimates"}
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
