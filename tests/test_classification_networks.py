"""What every classification network must do, over all families, kinds of modalities and numbers of them."""
from __future__ import annotations

import pytest
import torch
from tiny_samples import tiny_samples

from nnmiss.classification.sample_set import ModalityInput
from nnmiss.classification.tasks import num_outputs, probabilities
from nnmiss.networks.base import item_index
from nnmiss.networks.expert_mixture import LEVELS, build_experts
from nnmiss.networks.multi_head import build_multi_head
from nnmiss.networks.shared_features import build_shared_features
from nnmiss.networks.single_expert import build_expert

ENCODER = {"image": "lenet", "sound": "sound_net", "series": "lstm", "table": "mlp", "volume": "cnn3d"}
EVERY_KIND = ("image", "sound", "series", "table", "volume")
FAMILIES = {
    "shared": lambda c, s, k, t: build_shared_features(c, s, k),
    "shared_zeros": lambda c, s, k, t: build_shared_features(c, s, k, imputation=False),
    "concat": lambda c, s, k, t: build_multi_head(c, s, k, t),
    "concat_one_head": lambda c, s, k, t: build_multi_head(c, s, k, t, with_heads=False),
    "medfuse": lambda c, s, k, t: build_multi_head(c, s, k, t, fusion="medfuse", dropout=0.3),
    "medfuse_partial": lambda c, s, k, t: build_multi_head(c, s, k, t, fusion="medfuse", partial="fusion"),
    "static": lambda c, s, k, t: build_experts(c, s, k, t, gating="static"),
} | {f"experts_{level}": lambda c, s, k, t, level=level: build_experts(c, s, k, t, level=level) for level in LEVELS}
SIZES = [("image", "sound"), ("series", "table", "image"), ("table", "series_a", "volume", "series_b"),
         ("table_a", "image", "sound", "series", "volume", "table_b", "sound_b", "table_c")]


def configuration_of(modalities) -> dict:
    return {"feature_dim": 24, "head": {"hidden": [16], "dropout": 0.5},
            "modalities": {m: {"encoder": {"name": ENCODER[m.partition("_")[0]]}} for m in modalities}}


def build(family: str, modalities=EVERY_KIND, task: str = "multiclass", classes: int = 3):
    torch.manual_seed(0)
    samples = tiny_samples(modalities, 16, task, classes, absent=0.4)
    network = FAMILIES[family](configuration_of(modalities), samples.shapes, num_outputs(task, ["c"] * classes), task)
    return network, samples, samples.inputs(torch.arange(16)), samples.available


def spoilt(x: list[ModalityInput], present: torch.Tensor, filling: float) -> list[ModalityInput]:
    return [ModalityInput(torch.where(present[:, m].view(-1, *[1] * (p.values.ndim - 1)), p.values, filling), p.lengths)
            for m, p in enumerate(x)]


def gradients(network) -> dict[str, torch.Tensor]:
    out = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return out


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("filling", [float("nan"), 1e6])
def test_absent_modalities_change_neither_outputs_nor_gradients(family, filling):
    network, _, x, available = build(family)
    seen = []
    for inputs in (x, spoilt(x, available, filling)):
        torch.manual_seed(1)  # dropout
        logits = network(inputs, available)
        logits.square().sum().backward()
        seen.append((logits.detach(), gradients(network)))
    assert torch.equal(seen[0][0], seen[1][0]) and seen[0][0].isfinite().all()
    assert seen[0][1].keys() == seen[1][1].keys()
    assert all(torch.equal(seen[0][1][n], seen[1][1][n]) for n in seen[0][1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("modalities", SIZES, ids=len)
@torch.no_grad()
def test_every_subset_from_one_encoding_equals_its_own_forward_pass(family, modalities):
    network, samples, x, available = build(family, modalities)
    network.eval()
    m = len(modalities)
    subsets = torch.cat([torch.eye(m).bool(), torch.ones(1, m).bool(), torch.rand(3, m) < 0.5])
    out = network.forward_subsets(spoilt(x, available, float("nan")), available, subsets)
    assert out.shape == (len(subsets), 16, 3)
    for subset, logits in zip(subsets, out):
        shown = available & subset
        rows = shown.any(1)
        assert logits[~rows].isnan().all()
        if rows.any():
            ids = rows.nonzero()[:, 0]
            torch.testing.assert_close(logits[rows], network(samples.inputs(ids), shown[rows]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_packed_features_stand_in_the_order_of_item_index(family):
    network, samples, x, available = build(family)
    network.eval()
    features, index = network.encode(x, available), item_index(available)
    assert len(features) == available.sum()
    for b, m in available.nonzero().tolist():
        only = torch.zeros(1, len(x), dtype=torch.bool)
        only[0, m] = True
        alone = network.encode(samples.inputs(torch.tensor([b])), only)
        torch.testing.assert_close(features[index[b, m]], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_one_trains_with_each_modality_alone(family):
    network, _, _, _ = build(family)
    complete = tiny_samples(EVERY_KIND, 2)
    x = complete.inputs(torch.tensor([0]))
    for present in torch.cat([torch.eye(5).bool(), torch.ones(1, 5).bool()]):
        network(x, present[None]).sum().backward()
        assert all(g.isfinite().all() for g in gradients(network).values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("modalities", SIZES, ids=len)
def test_gradients_reach_every_part(family, modalities):
    network, _, _, _ = build(family, modalities)
    x = tiny_samples(modalities, 8, seed=1).inputs(torch.arange(8))
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    present = torch.ones(8, len(modalities), dtype=torch.bool)
    present[:4, 0] = False
    present[4:6, 1:] = False
    target = torch.arange(8) % 3
    for _ in range(2):  # the gate's last layer starts at zero, so what is before it learns from the second step on
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x, present), target)
        if hasattr(network, "heads"):
            loss = loss + sum(logits.square().mean() for logits, rows in network.heads(x, present).values() if len(rows))
        loss.backward()
        optimizer.step()
    idle = {n for n, p in network.named_parameters() if p.ndim > 1 and (p.grad is None or not p.grad.abs().sum() > 0)}
    assert idle == set()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_fewer_modalities_come_from_the_same_encoding(family):
    network, _, x, available = build(family)
    network.eval()
    fewer = available.clone()
    for row in fewer:
        row[row.nonzero()[1:]] = False  # the first of what each has
    logits, under_fewer, features = network(x, available, return_features=True, fewer=fewer)
    torch.testing.assert_close(under_fewer, network(x, fewer), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, network(x, available))
    assert len(features) == 1 and len(features[0]) == available.sum()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task, outputs", [("multiclass", 3), ("binary", 1), ("multilabel", 3)])
@torch.no_grad()
def test_outputs_of_every_task(family, task, outputs):
    network, _, x, available = build(family, ("image", "series", "table"), task)
    logits = network.eval()(x, available)
    assert logits.shape == (16, outputs) and probabilities(logits, task).isfinite().all()
    assert network(tiny_samples(("image", "series", "table"), 4).inputs(torch.arange(4))).shape == (4, outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_at_all_to_predict_from_gives_nan(family):
    network, _, x, available = build(family)
    out = network.eval().forward_subsets(x, torch.zeros_like(available), torch.ones(2, 5, dtype=torch.bool))
    assert out.shape == (2, 16, 3) and out.isnan().all()


def test_an_expert_alone_predicts_only_from_its_own_modality():
    samples = tiny_samples(("image", "table"), 6)
    network = build_expert(configuration_of(samples.modalities), samples.shapes, 3, "table").eval()
    x, present = samples.inputs(torch.arange(6)), samples.available.clone()
    present[2:4, 1] = False
    logits = network(spoilt(x, present, float("nan")), present)
    alone = network.expert(x[1].values)
    torch.testing.assert_close(logits[present[:, 1]], alone[present[:, 1]])
    assert (logits[~present[:, 1]] == 0).all()
    out = network.forward_subsets(x, present, torch.tensor([[True, False], [True, True]]))
    assert out[0].isnan().all() and torch.equal(out[1].isnan().any(1), ~present[:, 1])
    torch.testing.assert_close(out[1][present[:, 1]], alone[present[:, 1]])
