"""Each family of classification networks against slow references, and the published numbers of parameters."""
from __future__ import annotations

import pytest
import torch
from tiny_samples import tiny_samples
from torch import nn

from nnmiss.classification.tasks import TASKS, num_outputs, probabilities
from nnmiss.errors import NnmissError
from nnmiss.networks.base import item_index
from nnmiss.networks.classifier import mix_probabilities
from nnmiss.networks.expert_mixture import LEVELS, build_experts
from nnmiss.networks.multi_head import MultiHeadClassifier, build_multi_head
from nnmiss.networks.shared_features import build_shared_features
from nnmiss.networks.single_expert import build_expert

MODALITIES = ("image", "series", "table")


def configuration_of(**encoders: str) -> dict:
    return {"feature_dim": 24, "head": {"hidden": [16], "dropout": 0.5},
            "modalities": {m: {"encoder": {"name": e}} for m, e in encoders.items()}}


PLAN = configuration_of(image="lenet", series="lstm", table="mlp")


@pytest.fixture
def data():
    samples = tiny_samples(MODALITIES, 12, absent=0.4)
    torch.manual_seed(0)
    return samples.shapes, samples.inputs(torch.arange(12)), samples.available


def size_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# ---- published sizes --------------------------------------------------------------------------------------------------

def test_lenet_and_the_sound_network_have_smils_sizes():
    plan, shapes = configuration_of(image="lenet", sound="sound_net"), {"image": (1, 28, 28), "sound": (1, 20, 20)}
    assert size_of(build_expert(plan, shapes, 10, "image")) == 6_872
    assert size_of(build_expert(plan, shapes, 10, "sound")) == 67_254


@pytest.mark.parametrize("resnet, published", [("resnet34", 23_906_212), ("resnet10", 7_527_332)])
def test_medfuse_and_mind_on_mimic(resnet, published):
    plan, shapes = configuration_of(ehr="lstm", cxr=resnet), {"ehr": (None, 76), "cxr": (3, 224, 224)}
    network = build_multi_head(plan, shapes, 25, "multilabel", fusion="medfuse")
    never_used = 2 * 256 * 25 + 25  # MedFuse's layer for concatenated features, beside its LSTM fusion
    assert size_of(network) + never_used == published


@pytest.mark.parametrize("resnet, classes, published", [("resnet3", 10, 151_966), ("resnet6", 6, 612_754)])
def test_mind_on_pairs_of_images(resnet, classes, published):
    plan, shapes = configuration_of(image=resnet, sound=resnet), {"image": (1, 28, 28), "sound": (1, 32, 32)}
    assert size_of(build_multi_head(plan, shapes, classes, "multiclass")) == published


@pytest.mark.parametrize("resnet, millions", [("resnet10", 4.9), ("resnet18", 11.2)])
def test_minds_teachers(resnet, millions):
    network = build_expert(configuration_of(image=resnet), {"image": (1, 28, 28)}, 10, "image")
    assert round(size_of(network) / 1e6, 1) == millions


# ---- MetaKD's and LCKD's network --------------------------------------------------------------------------------------

@pytest.mark.parametrize("imputation", [True, False])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.5]])
def test_missing_features_are_the_mean_of_the_present_ones_and_weighted_after_it(data, imputation, weights):
    shapes, x, available = data
    network = build_shared_features(PLAN, shapes, 3, imputation=imputation).eval()
    importance = None if weights is None else torch.tensor(weights)
    features, index = network.encode(x, available), item_index(available)
    fused = network.fuse(features, index, importance)
    for b in range(12):
        own = {m: features[index[b, m]] for m in range(3) if available[b, m]}
        mean = torch.stack(list(own.values())).mean(0) if imputation else torch.zeros(24)
        row = torch.cat([own.get(m, mean) * (1 if weights is None else weights[m]) for m in range(3)])
        torch.testing.assert_close(fused[b], row)
    expected = network.output(network.head(fused))
    torch.testing.assert_close(network(x, available, importance), expected)


def test_importance_gets_a_gradient(data):
    shapes, x, available = data
    importance = torch.ones(3, requires_grad=True)
    build_shared_features(PLAN, shapes, 3).eval()(x, available, importance).square().sum().backward()
    assert (importance.grad != 0).all()


def test_without_projection_the_encoders_must_agree(data):
    with pytest.raises(NnmissError, match="projection=true"):
        build_shared_features(PLAN, data[0], 3, projection=False)
    alike = configuration_of(image="resnet3", table="mlp") | {"feature_dim": 64}
    shapes = {m: data[0][m] for m in alike["modalities"]}
    network = build_shared_features(alike, shapes, 3, projection=False)
    assert size_of(network.projections) == 0 and network.encode(data[1][::2], data[2][:, ::2]).shape[1] == 64


# ---- SimMLM -----------------------------------------------------------------------------------------------------------

def gate_of(network, generator):
    nn.init.normal_(network.gate.weight, generator=generator)
    return network.eval()


def test_gate_weights_are_a_softmax_over_what_is_shown(data):
    shapes, x, available = data
    network = build_experts(PLAN, shapes, 3, "multiclass")
    start = network.gate_weights(x, available)
    torch.testing.assert_close(start, available / available.sum(1, keepdim=True))
    gate_of(network, torch.Generator().manual_seed(0))
    weights = network.gate_weights(x, available)
    assert (weights[~available] == 0).all() and (weights > 0).equal(available)
    for b in range(12):
        seen = [network.gates[m](x[m].values[b : b + 1], None if x[m].lengths is None else x[m].lengths[b : b + 1])[0]
                if available[b, m] else torch.zeros(128) for m in range(3)]
        scores = network.gate(torch.cat(seen))[available[b]]
        torch.testing.assert_close(weights[b, available[b]], scores.softmax(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("level", ["logits", "probabilities"])
def test_the_mixture_is_the_weighted_sum_of_the_experts(data, task, level):
    shapes, x, available = data
    k = num_outputs(task, ["c"] * 3)
    network = gate_of(build_experts(PLAN, shapes, k, task, level=level), torch.Generator().manual_seed(0))
    weights, out = network.gate_weights(x, available), network(x, available)
    each = torch.stack([torch.where(available[:, m, None], expert(x[m].values, x[m].lengths), 0)
                        for m, expert in enumerate(network.experts)], 1)  # (B, M, K)
    if level == "logits":
        torch.testing.assert_close(out, (weights[..., None] * each).sum(1), rtol=1e-4, atol=1e-5)
    else:
        mixed = (weights[..., None] * probabilities(each, task)).sum(1)
        torch.testing.assert_close(probabilities(out, task), mixed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_experts_trained_alone_are_taken_over(data, level):
    shapes, x, _ = data
    plan = {**PLAN, "modalities": {m: {**e, "head": {"hidden": [8]}} for m, e in PLAN["modalities"].items()}}
    alone = [build_expert(plan, shapes, 3, m).eval() for m in MODALITIES]
    network = build_experts(plan, shapes, 3, "multiclass", level=level).eval()
    for m, each in enumerate(alone):
        network.load_expert(m, each.state_dict())
    if level == "features":
        mean = torch.stack([each.expert.output.weight for each in alone]).mean(0)
        torch.testing.assert_close(network.output.weight, mean)
        return
    for m, each in enumerate(alone):
        only = (torch.arange(3) == m).expand(12, -1)
        torch.testing.assert_close(network(x, only).softmax(1), each(x, only).softmax(1))


def test_at_the_feature_level_experts_of_unlike_widths_get_a_map(data):
    network = build_experts(PLAN, data[0], 3, "multiclass", level="features")
    assert [type(each) for each in network.maps] == [nn.Linear, nn.Identity, nn.Linear]  # 32 and 64 to the LSTM's 256
    before = network.output.weight.clone()
    for m, name in enumerate(MODALITIES):
        network.load_expert(m, build_expert(PLAN, data[0], 3, name).state_dict())
    assert torch.equal(before, network.output.weight)


@pytest.mark.parametrize("setting", ["level", "gating"])
def test_unknown_settings_of_the_mixture(data, setting):
    with pytest.raises(NnmissError, match=f"{setting} 'logit' is unknown"):
        build_experts(PLAN, data[0], 3, "multiclass", **{setting: "logit"})


# ---- MIND and MedFuse -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("task", TASKS)
def test_the_head_that_answers_follows_what_is_shown(data, task):
    shapes, x, _ = data
    k = num_outputs(task, ["c"] * 3)
    network = build_multi_head(PLAN, shapes, k, task).eval()
    features = [network.encoders[m](x[m].values, x[m].lengths) for m in range(3)]
    each = torch.stack([head(f) for head, f in zip(network.heads_of, features)], 1)  # (B, M, K)
    full = network.fusion_head(torch.cat(features, 1))

    def shown(*present):
        return probabilities(network(x, torch.tensor(present).expand(12, -1)), task)

    torch.testing.assert_close(shown(True, True, True), probabilities(full, task))
    torch.testing.assert_close(shown(False, True, False), probabilities(each[:, 1], task))
    torch.testing.assert_close(shown(True, False, True), probabilities(each[:, [0, 2]], task).mean(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", ["concat", "medfuse"])
def test_heads_are_given_for_the_rows_they_apply_to(data, fusion):
    shapes, x, available = data
    network = build_multi_head(PLAN, shapes, 3, "multiclass", fusion=fusion).eval()
    heads = network.heads(x, available)
    assert list(heads) == ["fusion", *MODALITIES]
    assert heads["fusion"][1].tolist() == available.all(1).nonzero()[:, 0].tolist()
    for m, name in enumerate(MODALITIES):
        logits, rows = heads[name]
        assert rows.tolist() == available[:, m].nonzero()[:, 0].tolist()
        answer = network(x, (torch.arange(3) == m).expand(12, -1))[rows]
        torch.testing.assert_close(logits.softmax(1), answer.softmax(1))
    none = torch.zeros_like(available)
    none[:, 0] = True
    logits, rows = network.heads(x, none)["fusion"]
    assert logits.shape == (0, 3) and len(rows) == 0


def test_medfuse_reads_the_present_modalities_one_after_the_other_series_first(data):
    shapes, x, available = data
    network = build_multi_head(PLAN, shapes, 3, "multiclass", fusion="medfuse", partial="fusion").eval()
    assert network.order == [1, 0, 2] and isinstance(network.projections[1], nn.Identity)
    logits, rows = network.heads(x, available)["fusion"]
    assert rows.tolist() == list(range(12))
    for b in range(12):
        tokens = []
        for m in (1, 0, 2):
            if available[b, m]:
                lengths = None if x[m].lengths is None else x[m].lengths[b : b + 1]
                tokens.append(network.projections[m](network.encoders[m](x[m].values[b : b + 1], lengths)))
        _, (state, _) = network.fusion_lstm(torch.stack(tokens, 1))
        torch.testing.assert_close(logits[b], network.fusion_head(state[-1])[0], rtol=1e-4, atol=1e-5)
    one = torch.tensor([True, False, False]).expand(12, -1)
    own = network.heads(x, one)["image"][0]
    torch.testing.assert_close(network(x, one).softmax(1), own.softmax(1))  # its own head, not the fusion


def test_without_a_series_medfuse_has_tokens_of_256():
    plan, shapes = configuration_of(image="lenet", table="mlp"), {"image": (1, 28, 28), "table": (7,)}
    network = build_multi_head(plan, shapes, 3, "multiclass", fusion="medfuse")
    assert [each.out_features for each in network.projections] == [256, 256]
    assert network.fusion_lstm.hidden_size == 512


def test_the_one_headed_baseline_always_asks_its_fusion_head(data):
    shapes, x, available = data
    network = build_multi_head(PLAN, shapes, 3, "multiclass", with_heads=False).eval()
    assert list(network.heads(x, available)) == ["fusion"]
    torch.testing.assert_close(network.heads(x, available)["fusion"][0], network(x, available))
    features = [torch.where(available[:, m, None], network.encoders[m](x[m].values, x[m].lengths), 0) for m in range(3)]
    torch.testing.assert_close(network(x, available), network.fusion_head(torch.cat(features, 1)))


@pytest.mark.parametrize("settings, words", [({"fusion": "sum"}, "concat"), ({"partial": "mean"}, "average"),
                                             ({"partial": "fusion"}, "fusion=medfuse")])
def test_unknown_settings_of_the_heads(settings, words):
    with pytest.raises(NnmissError, match=words):
        MultiHeadClassifier([], 3, **settings)


# ---- mixing probabilities ---------------------------------------------------------------------------------------------

def test_mixtures_of_certain_experts_keep_finite_gradients():
    for task, k in (("multiclass", 3), ("multilabel", 3)):
        logits = torch.tensor([[[200.0, -200, 0], [0.0, 0, 0]], [[50.0, -50, -300], [9.0, 9, 9]]], requires_grad=True)
        log_w = torch.tensor([[0.0, -torch.inf], [0.5, 0.5]])
        log_w = torch.where(log_w == 0.5, torch.tensor(0.5).log(), log_w)
        mixed = mix_probabilities(logits, log_w, task)
        assert mixed.shape == (2, k) and mixed.isfinite().all()
        mixed.sum().backward()
        assert logits.grad.isfinite().all() and (logits.grad[0, 1] == 0).all()
