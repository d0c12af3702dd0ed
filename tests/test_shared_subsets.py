"""Many subsets decoded together, and the fast paths of the CPU, against the networks' plain passes."""
from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from tiny_networks import early, shared, tiny_configuration
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnmiss.availability import all_subsets
from nnmiss.inference import memory
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.networks import cpu_inference, shared_subsets
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.networks.modality_experts import ModalityExperts
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet

CPU = torch.device("cpu")


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights away from their start, where all modalities are alike and biases are zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@torch.inference_mode()
def one_by_one(network, x, presents):
    """(T, S, K, ...) by plain passes."""
    return torch.stack([network(x, present.expand(len(x), -1)) for present in presents], 1)


@pytest.fixture
def always_joined(monkeypatch):
    """Joined kernels at every scale, however small."""
    monkeypatch.setattr(shared_subsets, "LEAST_VOXELS", 1)


@pytest.mark.parametrize("dim, residual", [(3, False), (3, True), (2, False)])
@pytest.mark.parametrize("fusion", ["concat", "linear", "mean"])
@pytest.mark.parametrize("imputation", ["all", "bottleneck"])
def test_all_subsets_equal_plain_passes(dim, residual, fusion, imputation, always_joined):
    network = shaken(shared(4, dim, residual, fusion, imputation))
    x, presents = torch.randn(2, 4, *[16] * dim), torch.tensor(all_subsets(4))
    plain = one_by_one(network, x, presents)
    fastest_layout(network, CPU)
    with torch.inference_mode():
        for batch in (1, 4, 16, 40):
            assert (network.forward_subsets(x, presents, batch) - plain).abs().max() < 1e-4
        few = network.forward_subsets(x, presents[[3, 9]], 8)
    assert (few - plain[:, [3, 9]]).abs().max() < 1e-4


@pytest.mark.parametrize("build", [
    lambda: early(), lambda: ModalityExperts([build_unet(tiny_configuration(), 1, 3, False) for _ in range(4)], 3)])
def test_other_families_keep_their_values_on_the_fast_paths(build):
    network = shaken(build())
    x, presents = torch.randn(2, 4, 16, 16, 16), torch.tensor(all_subsets(4))
    plain = one_by_one(network, x, presents)
    fastest_layout(network, CPU)
    with torch.inference_mode():
        assert (network.forward_subsets(x, presents, 8) - plain).abs().max() < 1e-4


def test_kernels_and_strides_that_differ_by_axis(always_joined):
    configuration = tiny_configuration(3)
    arch = configuration.configuration["architecture"]["arch_kwargs"]
    arch["kernel_sizes"], arch["strides"] = [[1, 3, 3], [3, 3, 5], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [2, 2, 3]]
    network = shaken(SharedEncoderUNet(build_unet(configuration, 1, 2, False), 3))
    x, presents = torch.randn(1, 3, 4, 12, 12), torch.tensor(all_subsets(3))
    plain = one_by_one(network, x, presents)
    fastest_layout(network, CPU)
    with torch.inference_mode():
        assert (network.forward_subsets(x, presents, 4) - plain).abs().max() < 1e-4


@pytest.mark.parametrize("fusion, imputation, m, size", [
    ("linear", "all", 4, 4), ("mean", "all", 4, 4), ("concat", "all", 4, 10), ("concat", "all", 6, 21),
    ("concat", "bottleneck", 4, 5)])
def test_the_skips_of_all_subsets_are_combinations_of_a_few(fusion, imputation, m, size):
    network = shaken(shared(m, fusion=fusion, imputation=imputation))
    decoder = shared_subsets.SubsetDecoder(network, torch.tensor(all_subsets(m)), CPU)
    chosen, coefficients = decoder.shared[0]
    assert len(chosen) == size
    assert torch.allclose(coefficients.sum(1), torch.ones(2**m - 1), atol=1e-5)


def test_with_few_subsets_nothing_is_shared():
    network = shaken(shared())
    assert shared_subsets.SubsetDecoder(network, torch.tensor(all_subsets(4)[:3]), CPU).shared == [None] * 3


@torch.inference_mode()
def test_operations_saved():
    """The finest stage's skips: 4 convolutions for `linear`, 10 for `concat`, not 15."""
    x, presents = torch.randn(1, 4, 16, 16, 16), torch.tensor(all_subsets(4))

    def operations(fusion, run):
        network = fastest_layout(shaken(shared(fusion=fusion)), CPU)
        with FlopCounterMode(display=False) as counter:
            run(network)
        return counter.get_total_flops()

    one_half = 2 * 27 * 6 * 6 * 16**3
    linear, concat = (operations(f, lambda n: n.forward_subsets(x, presents, 16)) for f in ("linear", "concat"))
    assert concat - linear > 5.9 * one_half
    separately = operations("linear", lambda n: [n.forward_subsets(x, p[None], 16) for p in presents])
    assert separately > 1.7 * linear


def test_other_weights_give_other_joined_kernels(always_joined):
    network, other = (shaken(shared(fusion="linear"), seed) for seed in (0, 1))
    x, presents = torch.randn(1, 4, 16, 16, 16), torch.tensor(all_subsets(4))
    expected = one_by_one(other, x, presents)
    fastest_layout(network, CPU)
    with torch.inference_mode():
        network.forward_subsets(x, presents)
        network.load_state_dict(other.state_dict())
        assert (network.forward_subsets(x, presents) - expected).abs().max() < 1e-4


# ---- fast paths of the CPU ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(3, 6, 5, 7, 9), (1, 1, 4, 4, 4), (2, 32, 8, 8, 8), (2, 5, 6, 10), (1, 130, 3, 3, 3)])
@pytest.mark.parametrize("block", [64, 1 << 18])
@pytest.mark.parametrize("affine", [True, False])
def test_normalisation_in_place_equals_torchs_in_double_precision(shape, block, affine, monkeypatch):
    monkeypatch.setattr(cpu_inference, "BLOCK", block)
    norm = (nn.InstanceNorm3d if len(shape) == 5 else nn.InstanceNorm2d)(shape[1], affine=affine)
    if affine:
        norm.weight.data.normal_()
        norm.bias.data.normal_()
    layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    x = (torch.randn(shape) + 50).contiguous(memory_format=layout)
    weight, bias = (norm.weight.double(), norm.bias.double()) if affine else (None, None)
    expected = torch.nn.functional.instance_norm(x.double(), weight=weight, bias=bias)
    cpu_inference.normalise_(x, norm.weight, norm.bias, norm.eps)
    assert (x - expected).abs().max() < 2e-5


def test_normalisation_of_many_voxels_far_from_zero_is_exact():
    x = (torch.randn(1, 8, 64, 64, 64) + 30).contiguous(memory_format=torch.channels_last_3d)
    expected = torch.nn.functional.instance_norm(x.double())
    cpu_inference.normalise_(x, None, None, 1e-5)
    assert (x - expected).abs().max() < 1e-4


def test_training_is_left_alone():
    plain, quick = shared(residual=True), shared(residual=True)
    quick.load_state_dict(plain.state_dict())
    layout = torch.channels_last_3d
    fastest_layout(quick, CPU)
    plain.to(memory_format=layout)
    x = torch.randn(2, 4, 16, 16, 16)
    for network in (plain, quick):
        network(x).square().mean().backward()
    for (name, a), (other, b) in zip(plain.named_parameters(), quick.named_parameters()):
        assert name == other
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


def test_blocks_without_normalisation_keep_their_values():
    block = ConvDropoutNormReLU(nn.Conv3d, 2, 3, 3, 1, conv_bias=True, nonlin=nn.LeakyReLU).eval()
    x = torch.randn(2, 2, 6, 6, 6)
    with torch.inference_mode():
        plain = block(x)
        assert torch.allclose(fastest_layout(block, CPU)(x), plain, atol=1e-6)


def test_lone_samples_avoid_torchs_slow_loops(monkeypatch):
    seen = []
    original = nn.Conv3d.forward
    monkeypatch.setattr(nn.Conv3d, "forward", lambda self, x: seen.append(len(x)) or original(self, x))
    network = fastest_layout(nn.Sequential(nn.Conv3d(4, 4, 3), nn.Conv3d(4, 2, 1)), CPU)
    x = torch.randn(1, 4, 8, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        assert network(x).shape == (1, 2, 6, 6, 6)
        network(torch.randn(1, 4, 80, 80, 8).contiguous(memory_format=torch.channels_last_3d))
    assert seen == [2, 1]


@pytest.mark.parametrize("kernel, stride, dilation, groups, depth", [
    (3, 1, 1, 1, 8), (3, 1, 1, 1, 7), (3, 1, 1, 1, 2), ((1, 3, 3), 1, 1, 1, 8), (5, 1, 1, 1, 8), (3, 2, 1, 1, 8),
    (3, 1, 2, 1, 8), (3, 1, 1, 2, 8)])
@pytest.mark.parametrize("last", [True, False])
def test_a_lone_sample_in_halves_is_the_convolution(kernel, stride, dilation, groups, depth, last):
    """Values and gradients, in double precision, of what training and prediction compute for one small image."""
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    plain = nn.Conv3d(4, 6, kernel, stride, padding, dilation, groups).double()
    quick = nn.Conv3d(4, 6, kernel, stride, padding, dilation, groups).double()
    quick.load_state_dict(plain.state_dict())
    fastest_layout(quick, CPU)
    x = torch.randn(1, 4, depth, 6, 5, dtype=torch.double)
    if last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    found = []
    for conv in (plain, quick):
        image = x.clone().requires_grad_()
        out = conv(image)
        out.square().sum().backward()
        found.append((out, image.grad, conv.weight.grad, conv.bias.grad))
    assert all(a.shape == b.shape and torch.allclose(a, b, atol=1e-10) for a, b in zip(*found))


def test_training_convolves_a_lone_sample_as_two(monkeypatch):
    seen = []
    convolve = torch.nn.functional.conv3d
    monkeypatch.setattr(torch.nn.functional, "conv3d", lambda x, *a, **k: seen.append(len(x)) or convolve(x, *a, **k))
    fastest_layout(nn.Conv3d(4, 4, 3, padding=1), CPU)(torch.randn(1, 4, 8, 8, 8)).sum().backward()
    assert seen == [2]


# ---- memory ---------------------------------------------------------------------------------------------------------

def predictor_of(network, patch):
    predictor = MissingModalityPredictor(device=CPU, use_mirroring=False, allow_tqdm=False)
    predictor.network, predictor.list_of_parameters, predictor.allowed_mirroring_axes = network, None, None
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=3)
    return predictor


def test_a_subsets_logits_hold_no_other_subsets_memory(monkeypatch):
    predictor, image = predictor_of(shaken(shared()), [16] * 3), torch.randn(4, 20, 16, 16)
    monkeypatch.setattr("nnmiss.inference.predictor.subsets_at_once", lambda *a: 4)
    chunks = []
    original = predictor._ensemble
    predictor._ensemble = lambda data, presents: chunks.append(len(presents)) or original(data, presents)
    for _, logits in predictor.predict_subsets(image, all_subsets(4)):
        assert torch.from_numpy(logits).untyped_storage().nbytes() == 3 * 20 * 16 * 16 * 4
    assert chunks == [4, 4, 4, 3]


def test_chunks_do_not_grow_with_the_number_of_subsets(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 8 * 2**30)
    case = memory.subsets_at_once(240 * 240 * 155, 128**3, 3, CPU)
    assert 15 <= case <= memory.MOST_SUBSETS
    assert case * 240 * 240 * 155 * 3 * 4 <= 2 * 2**30
    assert memory.subsets_at_once(10**12, 128**3, 3, CPU) == 1


def test_files_that_were_read_leave_a_containers_memory_free(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(memory, "_available_memory", lambda: 2**50)
    (tmp_path / "memory.max").write_text(f"{8 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{7 * 2**30}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2**30}\ninactive_file {5 * 2**30}\nactive_file {2**30}\nshmem 0\n")
    assert memory.free_bytes(CPU) == 7 * 2**30
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(CPU) == 2**50


def test_free_memory_where_the_system_does_not_tell(monkeypatch):
    """As on Windows, which has neither /proc nor os.sysconf."""
    monkeypatch.setattr(memory, "Path", lambda *_: Path("/no such folder"))
    monkeypatch.setattr(memory, "CONTROL_GROUP", Path("/no such folder"))
    monkeypatch.delattr(os, "sysconf")
    assert memory.free_bytes(CPU) == 4 * 2**30
