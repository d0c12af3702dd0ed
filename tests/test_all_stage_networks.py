"""All-stage's networks: what the hyper-network depends on, what the autoencoder sees, what the teacher's loss reaches."""
from __future__ import annotations

import pytest
import torch
from tiny_networks import tiny_configuration
from torch.nn import functional as F

from nnmiss.availability import all_subsets
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import take_fitting
from nnmiss.losses.margin_aware_distillation import margin_aware_distillation
from nnmiss.networks.codistillation import Approximation, CoDistillation
from nnmiss.networks.hyper_unet import build_hyper_unet
from nnmiss.networks.masked_autoencoder import blanked, build_autoencoder, draw_patches, voxels_of
from nnmiss.seeding import torch_generator

PRESENT = torch.tensor([[True, False, True, False], [False, True, True, True]])


def images(dim=3, m=4):
    return torch.randn(2, m, *[16] * dim, generator=torch_generator("images"))


def hyper(prompt="binary", m=4, dim=3, heads=3, deep=False, size=0, seed=0):
    torch.manual_seed(seed)
    network = build_hyper_unet(tiny_configuration(dim), m, heads, deep, {"prompt": prompt, "prompt_size": size})
    if size:
        network.prompt_table.copy_(torch.randn(2**m - 1, size))
    return network


def codistillation(**options):
    torch.manual_seed(1)
    return CoDistillation(hyper(), build_autoencoder(tiny_configuration(), 4), hyper(seed=2), **options)


# ---- the hyper-network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt, size", [("clip", 12), ("binary", 0)])
@pytest.mark.parametrize("m, dim", [(2, 2), (4, 3)])
def test_every_subset_has_weights_of_its_own(prompt, size, m, dim):
    network = hyper(prompt, m, dim, size=size)
    codes = torch.tensor(all_subsets(m))
    pooled = torch.zeros(len(codes), 10, *[2] * dim)  # the same picture for all
    weight, bias = network.head.generated(pooled, network.described(codes))[-1]
    assert weight.shape == (len(codes), 3, 8)
    assert bias.shape == (len(codes), 3)
    assert len(torch.unique(weight.flatten(1), dim=0)) == len(codes)


def test_the_table_is_read_at_the_codes_number():
    network = hyper("clip", size=5)
    codes = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(network.described(codes), network.prompt_table[[0, 1, 4, 14]])
    assert "prompt_table" in network.state_dict()
    assert "prompt_table" not in dict(network.named_parameters())


def test_generated_convolutions_against_loops_over_voxels():
    network, x = hyper(), images()
    _, features = network.segment(blanked(x, PRESENT), PRESENT)
    layers = network.head.generated(features[-2], network.described(PRESENT))
    narrow = network.head.narrow(features[-1])
    out = network(x, PRESENT)
    for b, place in ((0, (0, 0, 0)), (0, (3, 5, 7)), (1, (15, 2, 9))):
        value = narrow[(b, slice(None), *place)]
        for i, (weight, bias) in enumerate(layers):
            value = weight[b] @ (F.leaky_relu(value) if i else value) + bias[b]
        assert torch.allclose(out[(b, slice(None), *place)], value, atol=1e-5)


def test_the_picture_changes_the_weights_too():
    network = hyper()
    description = network.described(torch.ones(2, 4, dtype=torch.bool))
    weight, _ = network.head.generated(torch.randn(2, 10, 2, 2, 2), description)[0]
    assert not torch.equal(weight[0], weight[1])


def test_the_start_has_the_scale_of_ordinary_convolutions():
    torch.manual_seed(0)
    networks = [hyper(seed=i) for i in range(20)]
    weights = [n.head.generated(torch.randn(1, 10, 2, 2, 2), torch.ones(1, 4))[0][0] for n in networks]
    spread = torch.stack(weights).std()
    assert 0.35 < spread < 0.7  # He et al.: sqrt(2 / 8) = 0.5


def test_the_complete_code_ignores_what_is_available():
    network, x = hyper(), images()
    logits, features = network.forward_complete(x, return_features=True)
    assert torch.equal(logits, network(x))
    assert torch.equal(network.forward_complete(x), logits)
    shown = blanked(x, PRESENT)
    assert not torch.equal(network.forward_complete(shown), network(x, PRESENT))  # same picture, another code
    assert [f.shape[1] for f in features] == [6, 8, 10, 6]


@pytest.mark.parametrize("prompt", ["clip", "binary", "none"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_subsets_share_nothing_but_agree_with_single_runs(prompt, deep, dim):
    network, x = hyper(prompt, dim=dim, size=6 if prompt == "clip" else 0, deep=deep), images(dim)
    out = network(x, PRESENT)
    assert isinstance(out, list) == deep
    network.decoder.deep_supervision = False
    presents = torch.tensor([[True, False, False, False], [True] * 4])
    together = network.forward_subsets(x, presents)
    for s, present in enumerate(presents):
        assert torch.allclose(together[:, s], network(x, present.expand(2, -1)), atol=1e-5)
    assert network.compute_conv_feature_map_size([16] * dim) > 0
    again = hyper(prompt, dim=dim, size=6 if prompt == "clip" else 0, seed=5)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x, PRESENT), network(x, PRESENT))


def test_clip_without_embeddings_is_binary_and_an_unknown_prompt_is_refused():
    assert hyper("clip").prompt == "binary"
    with pytest.raises(NnmissError, match="Did you mean binary"):
        hyper("binery")


# ---- the autoencoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim, m", [(2, 2), (3, 8)])
def test_the_autoencoder_sees_visible_patches_only(dim, m):
    torch.manual_seed(0)
    network, x = build_autoencoder(tiny_configuration(dim), m), images(dim, m)
    present = torch.zeros(2, m, dtype=torch.bool)
    present[:, 1] = True
    patches = draw_patches(present, x.shape[2:], 0.875, torch_generator("patches"))
    out = network(x, present, patches)
    assert out.shape == x.shape
    seen = voxels_of(patches, x.shape[2:])
    assert torch.equal(network(torch.where(seen, x, float("nan")), present, patches), out)
    assert not torch.equal(network(torch.where(seen, x + 1, x), present, patches), out)
    network.decoder.deep_supervision = True  # as nnU-Net switches everything
    assert torch.equal(network(x, present, patches), out)
    assert not [name for name in network.state_dict() if "seg_layers" in name and "seg_layers.1" not in name]


def test_weights_that_fit_are_taken_but_no_output_layer():
    """With M = K an autoencoder's outputs have the segmentation's shape."""
    autoencoder, network = build_autoencoder(tiny_configuration(), 4), hyper("none", heads=4, deep=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    taken = take_fitting(network, autoencoder.state_dict())
    after = network.state_dict()
    same = {name for name in after if torch.equal(before[name], after[name])}
    assert taken == sum(name in autoencoder.state_dict() for name in after if ".seg_layers." not in name)
    assert all(torch.equal(after[n], v) for n, v in autoencoder.state_dict().items() if ".seg_layers." not in n)
    assert {name for name in same if "weight" in name and ".norm" not in name and ".all_modules.1" not in name} == {
        "head.weight", "decoder.seg_layers.0.weight"}


# ---- teacher, student, recovery -----------------------------------------------------------------------------------------


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None and p.grad.abs().max() > 0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_data_loss_reaches_recovery_only(checkpointing):
    network, x = codistillation(checkpoint_teacher=checkpointing), images()
    out = network(x, PRESENT, PRESENT)
    out["teacher_logits"].square().mean().backward()
    assert gradients(network.recovery)
    assert not gradients(network.student)
    assert not gradients(network.teacher)


def test_distillation_reaches_the_student_only():
    network = codistillation()
    out = network(images(), PRESENT, PRESENT)
    sum(margin_aware_distillation(s, t, out["teacher_logits"], torch.rand(2, 20), True)
        for s, t in zip(out["features"], out["teacher_features"])).backward()
    assert gradients(network.student.encoder)
    assert gradients(network.student.decoder)
    assert not gradients(network.recovery)
    assert not gradients(network.teacher)


def test_checkpointing_the_teacher_changes_no_gradient():
    found = []
    for checkpointing in (False, True):
        network = codistillation(checkpoint_teacher=checkpointing)
        network(images(), PRESENT, PRESENT)["teacher_logits"].square().mean().backward()
        found.append(gradients(network.recovery))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found))


def test_real_modalities_stay_as_they_are_and_missing_ones_are_recovered():
    network, x = codistillation(), images()
    x[~PRESENT] = float("nan")
    out = network(x, PRESENT, PRESENT)
    complete = out["complete"]
    assert torch.equal(complete[PRESENT], x[PRESENT])
    assert torch.allclose(complete[~PRESENT], network.recovery(x, PRESENT)[~PRESENT], atol=1e-5)
    assert torch.allclose(out["teacher_logits"], network.teacher.forward_complete(complete), atol=1e-6)
    assert torch.equal(out["logits"], network.student(x, PRESENT))


def test_only_what_lacks_something_is_recovered():
    network, x = codistillation(), images()
    seen = []
    network.recovery.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    available = torch.tensor([[True] * 4, [True, True, False, True]])
    assert network(x, available, available)["recovered"]
    out = network(x, available, torch.ones_like(available))
    assert not out["recovered"]
    assert seen == [1]  # the one sample that lacks something
    assert float(out["nothing"].detach()) == 0
    out["nothing"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.recovery.parameters())


def test_without_recovery_the_teacher_is_told_what_there_is():
    network, x = codistillation(recover=False), images()
    out = network(x, PRESENT, PRESENT)
    assert torch.equal(out["teacher_logits"], network.teacher(x, PRESENT))
    assert "recovered" not in out
    assert not any(p.requires_grad for p in network.recovery.parameters())


def test_a_fixed_recovery_and_no_teacher():
    network, x = codistillation(refine=False), images()
    out = network(x, PRESENT, PRESENT)
    assert not out["teacher_logits"].requires_grad
    assert "recovered" not in out
    assert not torch.equal(out["complete"], blanked(x, PRESENT))
    assert set(codistillation(teach=False)(x, PRESENT, PRESENT)) == {"logits", "features"}


def test_the_teacher_stays_in_evaluation_mode():
    network = codistillation().train()
    assert not network.teacher.training
    assert network.student.training


def test_the_approximations_judge_sees_the_whole_reconstruction_under_the_complete_code():
    torch.manual_seed(0)
    network, x = Approximation(build_autoencoder(tiny_configuration(), 4), hyper()), images()
    patches = draw_patches(PRESENT, x.shape[2:], 0.875, torch_generator("patches"))
    reconstruction, logits = network(x, PRESENT, patches)
    assert torch.allclose(logits, network.teacher.forward_complete(reconstruction), atol=1e-6)
    logits.square().mean().backward()
    assert gradients(network.autoencoder)
    assert not gradients(network.teacher)
    assert network(x, PRESENT, patches, judge=False)[1] is None
