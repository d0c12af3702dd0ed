"""Selectable variants of MetaKD's distillation and importance weights, against slow references and by their effects."""
from __future__ import annotations

import math
import shutil
from itertools import product

import numpy as np
import pytest
import torch
from tiny_classification import make_classifier, tiny_fold
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder
from tiny_networks import shared
from tiny_samples import tiny_samples
from tiny_trainers import make_batch, make_trainer

from nnmiss.cli import train as command
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.losses.collapse_guards import between_cases_hinge, region_truth, variance_hinge
from nnmiss.losses.feature_distances import feature_distance
from nnmiss.losses.full_set_distillation import feature_lessons, logit_lessons
from nnmiss.losses.importance import ImportanceWeights, ScoredImportance
from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.networks.base import item_index
from nnmiss.networks.subset_teaching import SubsetTeaching
from nnmiss.seeding import torch_generator
from nnmiss.trainers import method_class
from nnmiss.trainers.modality_importance import frozen
from nnmiss.trainers.run import RunArguments, make_run

PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, False, False]])
ALONE = torch.tensor([[True, False, False, False], [False, False, True, False]])
SHAPES = [(3, 4, 3), (3, 4, 4, 2)]


def noise(*shape, name="a"):
    return torch.randn(*shape, generator=torch_generator(name, *shape))


# ---- distances ------------------------------------------------------------------------------------------------------


def slow_cosine(a, b):
    dots = {place: sum(a[(c, *place)] * b[(c, *place)] for c in range(len(a))) for place in np.ndindex(a.shape[1:])}
    sizes = {place: math.sqrt(sum(a[(c, *place)]**2 for c in range(len(a))) * sum(b[(c, *place)]**2 for c in range(len(b))))
             for place in np.ndindex(a.shape[1:])}
    return {place: 1 - dots[place] / sizes[place] for place in dots}


def slow_relation(a, b):
    """(voxels, voxels) of squared differences of cosines; maps of at most 4 voxels an axis."""
    voxels = list(np.ndindex(a.shape[1:]))

    def cosine(f, g, h):
        f_g, f_h = f[(slice(None), *g)], f[(slice(None), *h)]
        return float(np.dot(f_g, f_h) / np.linalg.norm(f_g) / np.linalg.norm(f_h))

    return np.array([[(cosine(a, g, h) - cosine(b, g, h)) ** 2 for h in voxels] for g in voxels])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_distances_equal_slow_references(shape, weighted):
    a, b, weights = noise(2, *shape), noise(2, *shape, name="b"), noise(2, 3, *shape[1:]).abs()
    weights = weights / weights.flatten(2).sum(2).view(2, 3, *[1] * (len(shape) - 1))
    given = (weights,) if weighted else ()
    for n in range(2):
        x, y, w = a[n].numpy(), b[n].numpy(), weights[n].flatten(1).numpy()
        lp = np.abs(x - y).mean(0).ravel()
        cosine, relation = np.array(list(slow_cosine(x, y).values())), slow_relation(x, y)
        for name, values in (("lp", lp), ("cosine", cosine)):
            expected = w @ values if weighted else values.mean()
            assert np.allclose(feature_distance(name)(a, b, *given)[n], expected, rtol=1e-4), name
        expected = [row @ relation @ row for row in w] if weighted else relation.mean()
        assert np.allclose(feature_distance("relation")(a, b, *given)[n], expected, rtol=1e-4)


def test_relation_compares_large_maps_on_a_grid_of_four():
    a, b = noise(1, 3, 8, 8, 8), noise(1, 3, 8, 8, 8, name="b")
    pooled = [f.view(3, 4, 2, 4, 2, 4, 2).mean((2, 4, 6)).numpy() for f in (a[0], b[0])]
    assert float(feature_distance("relation")(a, b)) == pytest.approx(slow_relation(*pooled).mean(), rel=1e-4)
    turned = torch.linalg.qr(noise(3, 3)).Q  # relations do not see a rotation of the channels
    same = torch.einsum("cd,ndxyz->ncxyz", turned, a)
    assert float(feature_distance("relation")(a, same)) < 1e-10 < float(feature_distance("lp")(a, same))


def test_relation_of_vectors_is_between_the_samples_of_a_batch():
    a, b = noise(5, 7), noise(5, 7, name="b")
    found = feature_distance("relation")(a, b)
    assert np.allclose(found, slow_relation(a.T.numpy(), b.T.numpy()).mean(1), rtol=1e-4)


def test_unknown_names_are_refused():
    with pytest.raises(NnmissError, match="cosine"):
        feature_distance("cosin")
    with pytest.raises(NnmissError, match="p must be"):
        feature_distance("lp", 3)


# ---- pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["lp", "cosine", "relation"])
@pytest.mark.parametrize("direction", ["detached", "symmetric", "stronger"])
def test_pairs_weighted_by_region_equal_the_sum_written_out(distance, direction):
    features, index = noise(int(PRESENT.sum()), 3, 4, 4), item_index(PRESENT)
    students = 2 * features + 1
    w = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.1, 0.4, 0.3, 0.2]])
    ratios = w[:, :, None] / w[:, None]
    weights = noise(3, 2, 4, 4).abs()
    weights = weights / weights.sum((2, 3), keepdim=True)
    measure, expected = feature_distance(distance), 0.0
    for b, i, j, k in product(range(3), range(4), range(4), range(2)):
        if i != j and PRESENT[b, i] and PRESENT[b, j] and not (direction == "stronger" and ratios[k, i, j] <= 1):
            apart = measure(features[index[b, i]][None], students[index[b, j]][None], weights[b : b + 1])
            expected += float(ratios[k, i, j] * apart[0, k]) / 2 / 3
    found = pairwise_distillation(features, index, ratios, 1, direction, distance, students, weights)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("distance", ["lp", "cosine", "relation"])
def test_only_students_get_a_gradient(distance):
    features, students = noise(2, 3, 4, 4).requires_grad_(), noise(2, 3, 4, 4, name="s").requires_grad_()
    ratios = torch.tensor([[1.0, 3.0], [1 / 3, 1.0]])
    pairwise_distillation(features, torch.tensor([[0, 1]]), ratios, 1, "stronger", distance, students).backward()
    assert features.grad.abs().sum() == 0
    assert students.grad[0].abs().sum() == 0 < students.grad[1].abs().sum()


@pytest.mark.parametrize("distance", ["lp", "cosine", "relation"])
def test_a_single_modality_learns_nothing(distance):
    features = noise(2, 3, 4, 4).requires_grad_()
    weights = torch.full((2, 1, 4, 4), 1 / 16)
    found = pairwise_distillation(features, item_index(ALONE), torch.ones(4, 4), 1, "detached", distance, weights=weights)
    found.backward()
    assert float(found) == 0 == float(features.grad.abs().sum())


# ---- the full set teaches -------------------------------------------------------------------------------------------


def slow_divergence(s, t, temperature, regions):
    """(K, voxels): T^2 times the terms of the divergence of soft predictions, each of them 0 at least."""
    s, t = s.reshape(len(s), -1) / temperature, t.reshape(len(t), -1) / temperature
    out = np.zeros_like(s)
    for k, v in np.ndindex(*s.shape):
        if regions:
            p, q = 1 / (1 + math.exp(-t[k, v])), 1 / (1 + math.exp(-s[k, v]))
            out[k, v] = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        else:
            p, q = (math.exp(x[k, v]) / sum(math.exp(y) for y in x[:, v]) for x in (t, s))
            out[k, v] = p * math.log(p / q) - p + q
    return temperature**2 * out


@pytest.mark.parametrize("regions", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_logit_lessons_equal_the_divergence_written_out(regions, temperature):
    student, teacher = noise(2, 3, 4, 2).double().requires_grad_(), noise(2, 3, 4, 2, name="t").requires_grad_()
    ratios, weights = noise(2, 3).abs(), noise(2, 1, 4, 2).abs()
    weights = weights / weights.sum((2, 3), keepdim=True)
    plain = weighted = 0.0
    for n in range(2):
        terms = slow_divergence(student[n].detach().numpy(), teacher[n].detach().double().numpy(), temperature, regions)
        share = 3 if regions else 1
        plain += float((ratios[n].numpy() * terms.mean(1)).sum() / share)
        weighted += float((ratios[n].numpy() * (terms @ weights[n].flatten().numpy())).sum() / share)
    assert float(logit_lessons(student, teacher, ratios, regions, temperature).detach()) == pytest.approx(plain, rel=1e-4)
    found = logit_lessons(student, teacher, ratios, regions, temperature, weights)
    assert float(found.detach()) == pytest.approx(weighted, rel=1e-4)
    found.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert abs(float(logit_lessons(teacher, teacher, ratios[:, 0], regions, temperature).detach())) < 1e-6
    same = teacher.detach().clone().requires_grad_()  # whatever the ratios, who agrees with the teacher has learned all
    logit_lessons(same, teacher, ratios, regions, temperature).backward()
    assert same.grad.abs().max() < 1e-6


def test_feature_lessons_teach_the_subset_alone():
    student, teacher = noise(2, 3, 4, 4).requires_grad_(), noise(2, 3, 4, 4, name="t").requires_grad_()
    found = feature_lessons(student, teacher, torch.tensor([1.0, 3.0]))
    expected = sum(r * (student[n] - teacher[n]).abs().mean() for n, r in ((0, 1.0), (1, 3.0)))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("places, full_task", product(["bottleneck", "decoder", "logits"], [False, True]))
def test_one_encoding_gives_what_two_passes_give(places, full_task):
    network = shared(dim=2, deep_supervision=True)
    teaching = SubsetTeaching(network, places, places != "logits")
    x, available = noise(3, 4, 16, 16), torch.tensor([[True] * 4, [True, True, True, False], [False, True, False, False]])
    present = torch.tensor([[True, False, False, False], [True, True, True, False], [False, True, False, False]])
    x[~available] = float("nan")  # never read
    seen = teaching(x, present, available, full_task)
    assert seen.taught == [0]  # the others are shown all that they have
    for found, expected in zip(seen.logits, network(x, present)):
        assert torch.allclose(found, expected, atol=1e-5)
    for found, expected in zip(seen.full_logits, network(x, available)):
        assert torch.allclose(found, expected[:1], atol=1e-5)
        assert found.requires_grad == full_task
    assert all(torch.equal(*pair) for pair in zip(seen.features, seen.students))  # the projectors start as identity
    if places == "decoder":
        assert [f.shape[1] for f in seen.features] == teaching.channels()
        assert all(f.requires_grad == full_task and len(f) == 1 for f in seen.full_features)
    elif places == "bottleneck":
        encoded = network.encode(x[present][:, None], present.nonzero()[:, 1])[-1]
        for b, m in present.nonzero().tolist():
            own = item_index(present)[b, m]
            assert torch.allclose(seen.features[0][seen.index[b, m]], encoded[own], atol=1e-5)
    assert (seen.index >= 0).equal(present)


def test_another_networks_answer_can_teach():
    network, average = shared(dim=2), shared(dim=2)
    x, present, available = noise(2, 4, 16, 16), ALONE, torch.ones(2, 4, dtype=torch.bool)
    seen = SubsetTeaching(network, "decoder", False)(x, present, available, teacher=average)
    assert torch.allclose(seen.full_logits, average(x), atol=1e-5) and not seen.full_logits.requires_grad
    assert len(seen.full_features) == 2 and not seen.full_features[0].requires_grad


# ---- guards ---------------------------------------------------------------------------------------------------------


def test_hinges_by_hand_and_what_each_of_them_sees():
    features = torch.tensor([[0.0, 1.0], [4.0, 1.0]])[..., None, None].expand(2, 2, 2, 2)  # std 2 and 0
    assert float(variance_hinge(features)) == pytest.approx((0 + 1 - 1e-2) / 2)
    assert float(variance_hinge(features[:0])) == 0
    index = torch.tensor([[0, 1], [2, 3]])
    free = noise(4, 3, 8, 8)
    assert float(between_cases_hinge(free, index)) < 0.01
    collapsed = noise(3, 8, 8).expand(4, 3, 8, 8)  # one pattern whatever the case
    assert float(variance_hinge(collapsed)) < 0.1  # its deviation over space is as it was
    assert float(between_cases_hinge(collapsed, index)) > 0.45
    assert float(between_cases_hinge(free, torch.tensor([[0, -1], [-1, 3]]))) == 0  # nothing to compare


def test_region_truth_is_that_of_the_network_outputs(tmp_path, monkeypatch):
    for labels, outputs in (("regions", 2), ("labels", 2), ("ignore", 2)):
        trainer = make_trainer(tmp_path, monkeypatch, "metakd", labels=labels)
        target = make_batch(trainer)["target"]
        truth = region_truth(target, trainer.label_manager)
        assert truth.shape[1] == outputs and truth.dtype == torch.bool
        assert len(trainer.region_names()) == outputs
        expected = target[0] > 0 if labels == "regions" else torch.cat([target[0] == 1, target[0] == 2], 1)
        assert torch.equal(truth, expected)


# ---- the trainer ----------------------------------------------------------------------------------------------------

COMBINATIONS = [
    {"places": "decoder", "distance": "cosine", "projector": True},
    {"places": "decoder", "guard": "variance", "full_task": 0.5},
    {"places": "decoder", "guard": "between_cases", "distance": "relation"},
    {"places": "logits"},
    {"places": "logits", "guard": "foreground", "full_task": 1.0, "weighting": "forward", "per_region": True},
    {"places": "every_stage", "distance": "relation", "projector": True, "guard": "between_cases"},
    {"places": "every_stage", "distance": "cosine", "direction": "symmetric", "guard": "foreground"},
    {"places": "decoder", "guard": "foreground", "weighting": "leave_one_out", "per_region": True},
    {"places": "bottleneck", "guard": "foreground", "weighting": "forward", "per_region": True, "direction": "stronger"},
    {"places": "bottleneck", "guard": "variance", "weighting": "equal", "full_task": 1.0},
    {"places": "logits", "teacher": "average", "ema_decay": 0.9},
]


def name_of(settings: dict) -> str:
    return "-".join(f"{key}_{value}" for key, value in settings.items())


@pytest.mark.parametrize("settings", COMBINATIONS, ids=name_of)
def test_every_variant_trains(tmp_path, monkeypatch, settings):
    dim, labels = [(2, "labels"), (3, "ignore"), (2, "regions")][COMBINATIONS.index(settings) % 3]
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", dim=dim, labels=labels, **settings)
    trainer.before_iteration = lambda: None
    trainer.draw_present = lambda available: torch.tensor([[True, False, True, False], [True, True, True, True]])
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    if trainer.weighting not in ("bilevel", "equal"):
        trainer.importance.update(noise(len(trainer.importance.scores), 4).abs())
    for _ in range(2):
        out = trainer.train_step(make_batch(trainer))
    assert all(math.isfinite(value) for value in out.values())
    assert out["distillation"] != 0 and ("full" in out) == (settings.get("full_task", 0) > 0)
    assert all(torch.isfinite(value).all() for value in trainer.network.state_dict().values())
    if settings.get("projector"):  # its first gradient may be 0, so it learns in the second step at the latest
        assert all(not torch.equal(value, before[name]) for name, value in trainer.network.named_parameters()
                   if "projectors" in name and "weight" in name)


@pytest.mark.parametrize("settings", COMBINATIONS[:8], ids=name_of)
def test_with_nothing_to_teach_a_variant_is_the_task_alone(tmp_path, monkeypatch, settings):
    """Nothing is distilled, and neither the network nor the projectors move for it."""
    steps = []
    for own in (settings, {}):
        trainer = make_trainer(tmp_path, monkeypatch, "metakd", **{
            **own, "full_task": 0.0, "alpha": 0.1 if own else 0.0}, available={f"case_{i}": row for i, row in
                                                                              enumerate(ALONE.tolist())})
        trainer.before_iteration = lambda: None
        out = trainer.train_step(make_batch(trainer))
        assert out.get("distillation", 0) == 0  # not even computed where alpha is 0
        steps.append(trainer.inference_network.state_dict())
        if own.get("projector"):
            assert all(torch.equal(p.weight, torch.eye(len(p.weight)).view_as(p.weight))
                       for p in trainer.bare_network.projectors)
    assert all(torch.equal(steps[0][name], steps[1][name]) for name in steps[1])


def test_the_full_set_is_decoded_only_where_something_is_dropped(tmp_path, monkeypatch):
    warm = make_trainer(tmp_path, monkeypatch, "metakd", stage="warmup", places="logits", full_task=1.0)
    assert set(warm.draw(torch.ones(2, 4, dtype=torch.bool))) == {"present"}
    late = make_trainer(tmp_path, monkeypatch, "metakd", places="logits", full_task=1.0)
    assert set(late.draw(torch.ones(2, 4, dtype=torch.bool))) == {"present", "available"}
    x, target = late.to_device(make_batch(late))
    full = torch.ones(2, 4, dtype=torch.bool)
    parts = late.losses(late.network, x, target, full, full)
    assert float(parts["full"]) == float(parts["task"])


def test_the_full_task_is_the_loss_of_all_that_the_cases_have(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", full_task=2.0)
    x, target = trainer.to_device(make_batch(trainer))
    present = torch.tensor([[True, False, False, False], [True] * 4])
    parts = trainer.losses(trainer.network, x, target, present, torch.ones(2, 4, dtype=torch.bool))
    expected = trainer.loss(trainer.inference_network(x), target)
    assert float(parts["full"].detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    total = parts["task"] + 0.1 * parts["distillation"] + 2 * parts["full"]
    assert float(parts["loss"].detach()) == pytest.approx(float(total.detach()), abs=1e-6)


def test_logits_are_taught_more_where_the_subset_lacks_what_counts(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", places="logits", weighting="forward", per_region=True,
                           forward_temperature=0.0)
    trainer.importance.update(torch.tensor([[0.8, 0.2, 0.2, 0.2], [0.2, 0.8, 0.2, 0.2]]))
    x, target = trainer.to_device(make_batch(trainer))
    found = []
    for m in (0, 1):
        present = torch.arange(4).expand(2, 4) == m
        available = torch.ones_like(present)
        seen = trainer.bare_network(x, present, available)
        student, teacher = seen.logits[0], seen.full_logits[0]
        ratios = torch.tensor([[0.35 / 0.8, 0.35 / 0.2]]) if m == 0 else torch.tensor([[0.35 / 0.2, 0.35 / 0.8]])
        expected = logit_lessons(student, teacher, ratios.expand(2, 2), True) / 2
        found.append((float(trainer.distillation(seen, target, present, available).detach()), float(expected.detach())))
    for ours, expected in found:
        assert ours == pytest.approx(expected, rel=1e-4)


def test_alpha_grows_over_its_share_of_the_stage(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", alpha=0.4, alpha_warmup=0.5, num_epochs=4,
                           num_iterations_per_epoch=10)
    found = []
    for trainer.iteration in (0, 5, 10, 20, 39):
        found.append(trainer.alpha_now)
    assert found == pytest.approx([0, 0.1, 0.2, 0.4, 0.4])


@pytest.mark.parametrize("settings, message", [
    ({"places": "logits", "direction": "symmetric"}, "leave direction out"),
    ({"places": "logits", "distance": "cosine"}, "leave distance and projector out"),
    ({"places": "logits", "projector": True}, "leave distance and projector out"),
    ({"places": "logits", "guard": "variance"}, "none or foreground"),
    ({"distance": "cosine", "p": 2}, "leave it out"),
    ({"per_region": True}, "weighting=forward"),
    ({"teacher": "average"}, "places=decoder"),
    ({"teacher": "average", "places": "logits"}, "ema_decay"),
    ({"teacher": "average", "places": "logits", "ema_decay": 0.9, "full_task": 1.0}, "two networks"),
], ids=lambda value: "" if isinstance(value, str) else name_of(value))
def test_combinations_that_mean_nothing_are_refused(tmp_path, monkeypatch, settings, message):
    cls = method_class("metakd")
    with pytest.raises(NnmissError, match=message):
        cls.check_settings({**cls.known_settings(), **settings})
    with pytest.raises(NnmissError, match=message):
        make_trainer(tmp_path, monkeypatch, "metakd", **settings)


@pytest.mark.parametrize("method, settings, message", [
    ("metakd", {"missing.distance": "cosine", "missing.p": "2"}, "leave it out"),
    ("metakd", {"temperature": "3"}, "places=logits"),
    ("metakd", {"places": "logits", "p": "2"}, "features to"),
    ("metakd", {"weighting": "forward", "normalisation": "relu"}, "weighting=bilevel"),
    ("metakd", {"missing.forward_temperature": "1"}, "weighting=forward"),
    ("metakd", {"activation_checkpointing": "false", "kept_images": "2"}, "activation_checkpointing=true"),
    ("modality_dropout", {"dropout": "false", "full_task": "1"}, "dropout=true"),
    ("modality_dropout", {"subset": "t1", "subset_sampling": "subsets"}, "all subsets"),
], ids=lambda value: name_of(value) if isinstance(value, dict) else "")
def test_settings_without_effect_are_refused_before_anything_is_trained(tiny, method, settings, message):
    with pytest.raises(NnmissError, match=message):
        make_run(RunArguments(DATASET, method, 0, plans_name=PLANS, preset="paper", assignments=settings))


def test_the_default_preset_has_one_stage_and_refuses_what_distillation_alone_would_use(tiny):
    def stages(preset="", **settings):
        run = make_run(RunArguments(DATASET, "metakd", 0, plans_name=PLANS, preset=preset, assignments=settings))
        return {stage: run.settings[stage]["num_epochs"] for stage in run.stage_names}

    assert stages() == {"missing": 1000} and stages(num_epochs="7") == {"missing": 7}
    assert stages("paper") == {"warmup": 320, "missing": 140}
    for settings in ({"places": "logits"}, {"distance": "cosine"}, {"guard": "variance"}):
        with pytest.raises(NnmissError, match="alpha above 0"):
            stages(**settings)
        assert stages(alpha="0.1", **settings) == {"missing": 1000}


def test_settings_of_presets_and_defaults_are_not_refused(tiny):
    """The official preset has twenty steps of Adam on w; who names a default changes nothing."""
    make_run(RunArguments(DATASET, "metakd", 0, plans_name=PLANS, preset="official",
                          assignments={"weighting": "forward", "temperature": "2", "meta_lr": "0.01"}))


def test_a_guard_between_cases_needs_two_of_them(tmp_path, monkeypatch):
    with pytest.raises(NnmissError, match="one here"):
        make_trainer(tmp_path, monkeypatch, "metakd", guard="between_cases", micro_batch=1)


# ---- importance weights ---------------------------------------------------------------------------------------------


def test_weights_of_the_new_kinds_start_equal_and_have_a_mean_of_one():
    for normalisation in ("softmax", "relu", "sigmoid"):
        w = ImportanceWeights(4, normalisation, mean_one=True)
        assert torch.allclose(w(), torch.ones(4))
        w.raw.data = torch.tensor([2.0, 1.0, 0.5, 0.1])
        assert float(w().mean().detach()) == pytest.approx(1)
    for temperature in (0.0, 0.25):
        w = ScoredImportance(4, 2, temperature, largest_ratio=10)
        assert torch.allclose(w(), torch.ones(4)) and torch.equal(w.ratios(), torch.ones(4, 4))
        w.update(torch.tensor([[0.9, 0.1, 0.5, float("nan")], [0.1, 0.9, 0.5, 0.5]]))
        assert torch.allclose(w.table().mean(1), torch.ones(2))
        assert w.region_ratios()[0, 0, 1] == pytest.approx(9 if temperature == 0 else 10, rel=1e-3)  # e^3.2 is above 10
        assert w.table()[0].argmax() == 0 and w.table()[1].argmax() == 1
        assert float(w.table()[0, 3]) == pytest.approx(float(w.table()[0, 2]))  # not known: the mean of the others
        before = w.scores.clone()
        w.update(torch.full((2, 4), 0.7))
        known = w.updates[0] > 1
        assert torch.allclose(w.scores[0][known], (before[0][known] + 0.7) / 2) and w.scores[0, 3] == 0.7


def test_ratios_of_sets_are_those_of_their_mean_weights():
    w = ScoredImportance(3, temperature=0.0, largest_ratio=3)
    w.update(torch.tensor([[0.6, 0.3, 0.01]]))
    more, fewer = torch.tensor([[True, True, False], [True, True, True]]), torch.tensor([[False, True, False]] * 2)
    fewer[1] = torch.tensor([False, False, True])
    assert w.set_ratios(more, fewer).flatten().tolist() == pytest.approx([1.5, 3.0], rel=1e-3)  # the second is clamped
    assert ScoredImportance(3).set_ratios(more, fewer).flatten().tolist() == pytest.approx([1, 1])


class MadeNetwork(torch.nn.Module):
    """Finds region k, in channel k of the image, where it is shown a modality that shows this region."""

    def __init__(self, show: list[int | None]):
        super().__init__()
        self.show = show  # of each modality the region that it shows

    def forward(self, x, present=None, importance=None, return_features=False):
        quality = torch.tensor([[1.0 if region == k else 0.0 for k in range(2)] for region in self.show])  # (M, 2)
        shown = present.float() @ quality  # (B, 2)
        truth = torch.stack([x[:, 0] > 0, x[:, 1] > 0], 1).float() * 2 - 1
        logits = 8 * shown.view(*shown.shape, *[1] * (x.ndim - 2)) * truth
        return (logits, [noise(int(present.sum()), 3, 2, 2)]) if return_features else logits


@pytest.fixture
def measured(tmp_path, monkeypatch):
    def build(weighting, show, **settings):
        trainer = make_trainer(tmp_path, monkeypatch, "metakd", dim=2, weighting=weighting, **settings)
        batch = make_batch(trainer, 3)
        batch["data"][:, :2] = batch["target"][0].float() * 2 - 1  # the first two channels are the truth
        trainer._fixed = [{"data": batch["data"][part], "target": [t[part] for t in batch["target"]],
                           "keys": batch["keys"][part]} for part in (slice(0, 2), slice(2, 3))]
        made = MadeNetwork(show)
        monkeypatch.setattr(type(trainer), "inference_network", property(lambda self: made))
        return trainer
    return build


@pytest.mark.parametrize("weighting", ["forward", "leave_one_out"])
def test_the_informative_modality_comes_first(measured, weighting):
    trainer = measured(weighting, [None, None, 0, None])
    trainer.before_iteration()
    w = trainer.importance()
    assert int(w.argmax()) == 2 and w[2] > 1.2 and float(w.mean()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(w[[0, 1, 3]], w[0].expand(3), atol=1e-5)
    assert trainer.progress.tables["importance_weights"]["columns"] == trainer.modalities


@pytest.mark.parametrize("weighting", ["forward", "leave_one_out"])
def test_every_region_has_its_own_first_modality(measured, weighting):
    trainer = measured(weighting, [None, 1, 0, None], per_region=True)
    trainer.before_iteration()
    assert trainer.importance.table().argmax(1).tolist() == [2, 1]
    table = trainer.progress.tables["importance_weights"]
    assert table["columns"] == [f"{region}:{m}" for region in ("whole", "core") for m in trainer.modalities]
    assert table["rows"][0][1:] == trainer.importance.table().flatten().tolist()
    assert "w m0" in trainer.status()


def test_forward_scores_are_the_soft_dice_of_each_modality_alone(tmp_path, monkeypatch):
    rows = {"case_0": [True, True, True, False], "case_1": [True, False, True, True], "case_2": [True] * 4}
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", dim=2, weighting="forward", available=rows)
    batch = make_batch(trainer, 2)
    batch["data"][0, 3] = batch["data"][1, 1] = float("nan")
    trainer._fixed = [batch]
    expected = np.full((2, 4, 2), np.nan)
    with torch.no_grad(), frozen(trainer.network):
        for b, m in product(range(2), range(4)):
            if rows[f"case_{b}"][m]:
                p = trainer.network(batch["data"][b : b + 1], torch.arange(4)[None] == m)[0].sigmoid()[0]
                for k in range(2):
                    g = batch["target"][0][b, k].float()
                    expected[b, m, k] = 2 * float((p[k] * g).sum()) / float(p[k].sum() + g.sum())
    features, present = trainer.update_importance(0)
    assert present.tolist() == [rows["case_0"], rows["case_1"]] and len(features) == int(present.sum())
    means = np.nanmean(expected, 0).mean(1)  # no case has all four, so each modality has the mean over its own cases
    assert np.allclose(trainer.importance.scores[0], means, atol=1e-4)


def test_averaged_weights_follow_the_mean_gradient_of_all_held_out_cases(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", dim=2, weighting="averaged", largest_ratio=10.0)
    batches = [make_batch(trainer, 2), make_batch(trainer, 1)]
    trainer._fixed = batches
    gradients = [trainer.outer_gradient(batch)[0] for batch in batches]
    trainer.importance_optimizer = torch.optim.SGD(trainer.importance.parameters(), lr=1.0)
    trainer.update_importance(0)
    assert torch.allclose(trainer.importance.raw.detach(), 1 - (2 * gradients[0] + gradients[1]) / 3, atol=1e-6)
    trainer.importance.raw.data = torch.tensor([9.0, 0.0, 0.0, 0.0])
    assert float(trainer.importance.ratios().max()) == 10 and float(trainer.importance().mean()) == pytest.approx(1)


def test_equal_weights_stay(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", dim=2, weighting="equal")
    trainer._fixed = [make_batch(trainer)]
    trainer.before_iteration()
    assert torch.equal(trainer.importance(), torch.ones(4))
    assert trainer.progress.tables["features"]["rows"]


def test_fewer_intervals_than_wanted_are_shortened(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "metakd", dim=2, fewest_updates=200, num_epochs=4,
                           num_iterations_per_epoch=250)
    assert trainer.update_interval == 5


@pytest.mark.parametrize("weighting", ["forward", "leave_one_out", "averaged"])
def test_classification_weighs_the_informative_modality_more(weighting):
    samples = tiny_samples(("table", "table_b"), 160, classes=2)
    stored = samples.modalities["table_b"]
    shuffled = stored.values[torch.randperm(160, generator=torch.Generator().manual_seed(1))]
    samples = samples.with_modality("table_b", type(stored)(shuffled, stored.row))
    trainer = make_classifier("metakd", tiny_fold(samples=samples, classes=2), num_epochs=8, meta_interval=1,
                              weighting=weighting, distance="relation" if weighting == "forward" else "lp")
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    for epoch in range(trainer.num_epochs):
        for i in range(trainer.num_iterations_per_epoch):
            out = trainer.train_step(trainer.next_batch(trainer.dataloader_train, epoch, i, "train"))
    assert math.isfinite(out["loss"])
    assert trainer.importance()[0] > trainer.importance()[1] + 0.1


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    ["places=decoder", "projector=true", "weighting=forward", "per_region=true", "guard=foreground", "full_task=0.5"],
    ["places=logits", "weighting=averaged", "teacher=average", "ema_decay=0.9", "alpha_warmup=0.5"],
], ids=["projector", "average"])
def test_an_interrupted_variant_continues_to_the_same_bits(tiny, monkeypatch, settings):
    """Stopped in the last epoch; the checkpoint holds what is not the network."""
    monkeypatch.setattr("nnmiss.trainers.progress.ProgressLogger.plot_progress_png", lambda self, folder: None)
    monkeypatch.setattr("nnmiss.trainers.progress._draw_table", lambda frame, name, path: None)

    def run(*arguments):
        return command.run(["801", "metakd", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", "--no_val",
                            *arguments, "--preset", "paper", *SHORT, "num_epochs=3", "missing.num_epochs=2", *settings])

    def kept():
        folder = fold_folder(tiny)
        checkpoint = read_checkpoint(folder / "checkpoint_final.pth")
        state = {**checkpoint["network_weights"], "csv": (folder / "importance_weights.csv").read_text()}
        state.update({f"projectors.{k}": v for k, v in checkpoint["nnmiss"]["state"].get("projectors", {}).items()})
        state.update({f"w.{k}": v for k, v in checkpoint["nnmiss"]["state"]["importance"].items()})
        return state

    assert run() == 0
    straight = kept()
    assert not any("projector" in name for name in read_checkpoint(fold_folder(tiny) / "checkpoint_final.pth")
                   ["network_weights"])
    assert any(name.startswith("projectors.") for name in straight) == ("projector=true" in settings)
    shutil.rmtree(tiny / "nnUNet_results" / DATASET)
    cls = method_class("metakd")
    step, done = cls.train_step, []

    def interrupted(self, batch):
        done.append(1)
        if len(done) == 6:  # one epoch of warm-up, two of the next stage, two iterations each
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(cls, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(cls, "train_step", step)
    assert run("--c") == 0
    continued = kept()
    assert continued.keys() == straight.keys()
    assert all(torch.equal(value, continued[name]) if isinstance(value, torch.Tensor) else value == continued[name]
               for name, value in straight.items())
