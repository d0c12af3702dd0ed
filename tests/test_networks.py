"""Network families: absent modalities are never read, packing and sharing change nothing."""
from __future__ import annotations

import pytest
import torch
from tiny_networks import early, shared, tiny_configuration

from nnmiss.availability import all_subsets, draw_present
from nnmiss.errors import NnmissError
from nnmiss.networks.architecture import build_unet, scaled_width
from nnmiss.networks.base import item_index
from nnmiss.networks.fusion import FUSIONS, fusion_class
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet
from nnmiss.seeding import torch_generator


def images(batch=2, m=4, dim=3, size=16):
    return torch.randn(batch, m, *[size] * dim, generator=torch_generator("images"))


def random_present(batch, m):
    return draw_present(torch.ones(batch, m, dtype=torch.bool), torch_generator("present", batch, m))


FAMILIES = [("early", {}), *[("shared", {"fusion": f, "imputation": i}) for f in FUSIONS for i in ("all", "bottleneck")],
            ("shared", {"residual": True}), ("shared", {"checkpointing": True})]


def build(family, **options):
    torch.manual_seed(0)
    network = (early if family == "early" else shared)(**options)
    for parameter in network.parameters():  # away from the start, where all modalities are alike
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch_generator("weights", parameter.numel()))
    return network


@pytest.mark.parametrize("family, options", FAMILIES)
@pytest.mark.parametrize("m, dim", [(2, 3), (4, 2), (5, 3)])
def test_absent_modalities_may_hold_anything(family, options, m, dim):
    network, x, present = build(family, num_modalities=m, dim=dim, **options), images(3, m, dim), random_present(3, m)
    filled = x.clone()
    filled[~present] = float("nan")
    a, b = network(x, present), network(filled, present)
    assert torch.isfinite(b).all()
    assert torch.equal(a, b)


@pytest.mark.parametrize("family, options", FAMILIES)
def test_a_batch_of_mixed_subsets_equals_one_sample_at_a_time(family, options):
    network, x, present = build(family, **options), images(3), random_present(3, 4)
    together = network(x, present)
    alone = torch.cat([network(x[i : i + 1], present[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("family, options", FAMILIES)
def test_all_subsets_at_once_equal_single_runs(family, options):
    network, x = build(family, **options).eval(), images(2)
    presents = torch.tensor(all_subsets(4))
    with torch.inference_mode():
        at_once = network.forward_subsets(x, presents, batch=4)
        single = torch.stack([network(x, p.expand(2, -1)) for p in presents], 1)
    assert at_once.shape == (2, 15, 3, 16, 16, 16)
    assert (at_once - single).abs().max() < 1e-4


@pytest.mark.parametrize("family, options", FAMILIES)
def test_every_parameter_gets_a_gradient_when_all_modalities_are_present(family, options):
    network = build(family, deep_supervision=True, **options)
    sum(out.square().mean() for out in network(images())).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias before instance normalisation has no effect, and maps for what is missing count where something is
    assert [n for n in without if not n.endswith(("bias", ".without"))] == []


def test_maps_for_what_is_missing_learn_from_incomplete_samples_alone():
    fusion, features = fusion_class("conditional")(3, 2), torch.randn(2, 2, 4, 4)
    fusion(features, [[0, 1, -1]]).square().sum().backward()
    learned = fusion.without.grad.abs().sum((2, 3)) > 0
    assert learned.tolist() == [[False, False, True], [False, False, True], [False] * 3]


@pytest.mark.parametrize("family", ["early", "shared"])
def test_present_matters(family):
    network, x = build(family), images(1)
    a, b = (network(x, torch.tensor([s])) for s in ([True, False, False, True], [True, True, False, True]))
    assert (a - b).abs().max() > 1e-3


def slow_fusion(fusion, features, present, importance):
    """Concatenation with imputed features and an explicit 1x1x1 convolution: the definition, no shortcut."""
    m, c = fusion.num_modalities, fusion.channels
    w = torch.ones(m) if importance is None else importance
    out = []
    for b in range(len(present)):
        shown = {i: features[int(item_index(present)[b, i])] for i in range(m) if present[b, i]}
        mean = torch.stack(list(shown.values())).mean(0)
        full = [w[i] * shown.get(i, mean) for i in range(m)]
        if type(fusion) is FUSIONS["mean"]:
            out.append(sum(full) / w.sum())
        elif type(fusion) is FUSIONS["concat"]:
            kernel = torch.cat(list(fusion.weight), 1).view(c, m * c, 1, 1, 1)
            out.append(torch.nn.functional.conv3d(torch.cat(full)[None], kernel, fusion.bias)[0])
        elif type(fusion) is FUSIONS["gated"]:
            scores = {i: torch.einsum("c,cxyz->xyz", fusion.gate_weight[i], f) for i, f in shown.items()}
            gate = torch.stack([w[i] * torch.exp(score + fusion.gate_bias[i]) for i, score in scores.items()])
            maps = [torch.einsum("oc,cxyz->oxyz", fusion.weight[i], f) for i, f in shown.items()]
            out.append(sum(g * f for g, f in zip(gate / gate.sum(0), maps)) + fusion.bias.view(-1, 1, 1, 1))
        elif type(fusion) is FUSIONS["mean_variance"]:
            share = torch.tensor([w[i] for i in shown]).view(-1, 1, 1, 1, 1) / sum(w[i] for i in shown)
            own, k = torch.stack(list(shown.values())), len(shown)
            mean = (share * own).sum(0)
            variance = (share * (own - mean)**2).sum(0) * k / max(1, k - 1)  # 0 for a single modality
            both = torch.einsum("oc,cxyz->oxyz", fusion.weight, torch.cat([mean, variance]))
            out.append(both + fusion.bias.view(-1, 1, 1, 1))
        else:
            absent = [n for n in range(m) if n not in shown]
            own = {i: fusion.weight[i] + (sum(fusion.without[i, n] for n in absent) if hasattr(fusion, "without") else 0)
                   for i in shown}
            maps = [torch.einsum("oc,cxyz->oxyz", own[i], w[i] * f) for i, f in shown.items()]
            out.append(m / len(maps) * sum(maps) + fusion.bias.view(-1, 1, 1, 1))
    return torch.stack(out)


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("importance", [None, torch.tensor([0.1, 0.4, 0.3, 0.2])])
def test_fusion_equals_the_definition_with_imputed_features(name, importance):
    fusion, present = fusion_class(name)(4, 5), random_present(6, 4)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(int(present.sum()), 5, 3, 4, 2)
    fused = fusion(features, item_index(present).tolist(), importance)
    assert torch.allclose(fused, slow_fusion(fusion, features, present, importance), atol=1e-5)


def test_without_imputation_concat_leaves_missing_features_out():
    fusion = fusion_class("concat")(3, 2, impute=False)
    torch.nn.init.normal_(fusion.weight)
    feature = torch.randn(1, 2, 4, 4)
    fused = fusion(feature, [[-1, 0, -1]])
    assert torch.allclose(fused[0], torch.einsum("oc,cxy->oxy", fusion.weight[1], feature[0]), atol=1e-6)


def test_fusions_start_as_the_mean_of_the_present_modalities():
    features, index = torch.randn(3, 4, 5, 5), [[0, 1, -1, 2]]
    for name in FUSIONS:
        assert torch.allclose(fusion_class(name)(4, 4)(features, index)[0], features.mean(0), atol=1e-6), name


def test_early_fusion_is_stock_nnunet_on_complete_data():
    network = early()
    torch.manual_seed(1)
    stock = build_unet(tiny_configuration(), 4, 3, False)
    network.load_state_dict(stock.state_dict())  # the names are stock's
    x = images()
    assert torch.equal(network(x), stock(x))


def test_checkpointing_changes_no_gradient():
    a, b = (build("shared", deep_supervision=True, checkpointing=c) for c in (False, True))
    x, present = images(), random_present(2, 4)
    for network in (a, b):
        sum(out.square().mean() for out in network(x, present)).backward()
    for (name, p), q in zip(a.named_parameters(), b.parameters()):
        assert torch.allclose(p.grad, q.grad, atol=1e-5), name


def test_width_factor_scales_features_and_keeps_multiples_of_eight():
    assert [scaled_width(f, 0.75) for f in (32, 64, 320, 6)] == [24, 48, 240, 4]
    assert scaled_width(8, 0.01) == 1
    network = build_unet(tiny_configuration(features=(32, 64, 64)), 1, 2, False, 0.5)
    assert list(network.encoder.output_channels) == [16, 32, 32]


def test_unknown_choices_are_refused_with_the_names():
    with pytest.raises(NnmissError, match=r"concat, mean, linear"):
        fusion_class("concatenate")
    with pytest.raises(NnmissError, match="bottleneck, all, none"):
        SharedEncoderUNet(build_unet(tiny_configuration(), 1, 2, False), 4, imputation="nothing")
