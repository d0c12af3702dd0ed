"""SimMLM: the mixture of experts, the ranking loss, nested subsets, stages, distributed training, exported gate weights."""
from __future__ import annotations

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))  # this file is also a script: the two ranks of the distributed test

from tiny_dataset import DATASET, PLANS, SHORT, fold_folder, test_images
from tiny_networks import tiny_configuration
from tiny_trainers import make_batch, make_trainer

from nnmiss.availability import all_subsets
from nnmiss.cli import predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.inference.gate_weights import gate_weights, task_names
from nnmiss.losses.more_versus_fewer import more_versus_fewer, one_against_rest, task_losses
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.base import item_index
from nnmiss.networks.modality_experts import ExpertNetwork, ModalityExperts
from nnmiss.seeding import torch_generator
from nnmiss.trainers.simmlm import draw_nested, nnMissTrainerSimMLM

TRAINER = "nnMissTrainerSimMLM"


def experts(m=4, dim=3, level="logits", gating="dynamic", regions=True, heads=3, deep_supervision=False,
            checkpointing=False):
    """A tiny network whose gate, unlike a fresh one, has preferences."""
    torch.manual_seed(5)
    unets = [build_unet(tiny_configuration(dim), 1, heads, deep_supervision) for _ in range(m)]
    network = ModalityExperts(unets, heads, level, gating, regions, checkpointing)
    if network.gate is not None:
        torch.nn.init.normal_(network.gate.linear.weight)
        torch.nn.init.normal_(network.gate.linear.bias)
    return network


def image(batch=2, m=4, dim=3):
    return torch.randn(batch, m, *[16] * dim, generator=torch_generator("image", batch, m, dim))


# ---- the mixture ----------------------------------------------------------------------------------------------------

SHAPES = [(m, dim, level, gating) for m, dim in ((2, 3), (8, 2)) for level in ("logits", "probabilities", "features")
          for gating in ("dynamic", "static")]


@pytest.mark.parametrize("m, dim, level, gating", SHAPES)
@pytest.mark.parametrize("regions", [True, False])
def test_the_mixture_is_a_weighted_mean_of_the_present_experts_outputs(m, dim, level, gating, regions):
    network, x = experts(m, dim, level, gating, regions).eval(), image(2, m, dim)
    present = torch.zeros(2, m, dtype=torch.bool)
    present[0, 0] = present[1, :2] = True
    with torch.no_grad():
        out, weights = network(x, present), network.gate_weights(x, present)  # (B, K, ...), (B, M, K)
        outputs = torch.stack([expert(x[:, i, None]) for i, expert in enumerate(network.experts)], 1)  # (B, M, K, ...)
        wide = weights.view(*weights.shape, *[1] * dim)
        if level == "logits":
            expected = (wide * outputs).sum(1)
        elif level == "features":
            expected = network.head((wide[:, :, :1] * outputs).sum(1))
        elif regions:
            expected = torch.logit((wide * outputs.sigmoid()).sum(1).double()).float()
        else:
            expected = (wide * outputs.softmax(2)).sum(1).log()
    assert out.shape == (2, 3, *[16] * dim)
    assert torch.allclose(out, expected, atol=1e-4)
    assert torch.allclose(weights.sum(1), torch.ones(2, 3), atol=1e-6)
    assert (weights[~present] == 0).all()
    if gating == "static":
        assert torch.allclose(weights[1, :2], torch.full((2, 3), 0.5))


@pytest.mark.parametrize("level", ["logits", "probabilities"])
def test_equal_experts_agree_with_their_mixture(level):
    network, x = experts(3, level=level).eval(), image(2, 1).expand(-1, 3, -1, -1, -1)
    for expert in network.experts[1:]:
        expert.load_state_dict(network.experts[0].state_dict())
    assert torch.allclose(network(x), network.experts[0](x[:, :1]), atol=1e-5)


@pytest.mark.parametrize("gating", ["dynamic", "static"])
def test_a_single_modality_gives_exactly_its_expert(gating):
    network, x = experts(gating=gating).eval(), image()
    for m in range(4):
        present = torch.zeros(2, 4, dtype=torch.bool)
        present[:, m] = True
        assert torch.equal(network(x, present), network.experts[m](x[:, m, None]))


@pytest.mark.parametrize("level", ["logits", "probabilities", "features"])
def test_absent_modalities_are_neither_read_nor_taken_for_zeros(level):
    network, x = experts(level=level).eval(), image()
    present = torch.tensor([[True, False, True, False], [False, False, True, True]])
    expected = network(x, present)
    holes = torch.where(present.view(2, 4, 1, 1, 1), x, torch.nan)
    assert torch.equal(network(holes, present), expected)
    x[:, 2] = 0  # present and black: its expert still counts
    assert (network.gate_weights(x, present)[:, 2] > 0).all()


@pytest.mark.parametrize("m, dim, level, gating", SHAPES)
def test_all_subsets_at_once_equal_separate_passes(m, dim, level, gating):
    network, x = experts(m, dim, level, gating).eval(), image(2, m, dim)
    presents = torch.tensor(all_subsets(m)[:: 1 if m == 2 else 25])
    with torch.no_grad():
        together = network.forward_subsets(x, presents)
        alone = torch.stack([network(x, present.expand(2, -1)) for present in presents], 1)
    assert torch.allclose(together, alone, atol=1e-5)


def test_each_expert_runs_once_for_all_subsets():
    network, x = experts().eval(), image(1)
    runs = []
    for m, expert in enumerate(network.experts):
        expert.register_forward_hook(lambda *_, m=m: runs.append(m))
    network.forward_subsets(x, torch.tensor(all_subsets(4)))
    assert sorted(runs) == [0, 1, 2, 3]


@pytest.mark.parametrize("level", ["logits", "features"])
def test_every_scale_of_deep_supervision_is_mixed(level):
    network, x = experts(level=level, deep_supervision=True), image()
    out = network(x)
    assert [o.shape[-1] for o in out] == [16, 8]
    weights = network.gate_weights(x, torch.ones(2, 4, dtype=torch.bool)).view(2, 4, 3, 1, 1, 1)
    coarse = torch.stack([expert(x[:, m, None])[1] for m, expert in enumerate(network.experts)], 1)
    assert torch.allclose(out[1], (weights * coarse).sum(1), atol=1e-5)


def test_two_nested_subsets_cost_one_pass_of_the_experts():
    network, x = experts(), image()
    more, fewer = torch.tensor([[True, True, True, False]] * 2), torch.tensor([[True, False, True, False]] * 2)
    runs = []
    for expert in network.experts:
        expert.register_forward_hook(lambda *_: runs.append(1))
    a, b = network(x, more, fewer=fewer)
    assert len(runs) == 3
    assert torch.allclose(a, network(x, more))
    assert torch.allclose(b, network(x, fewer), atol=1e-6)


def test_recomputing_experts_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        network = experts(deep_supervision=True, checkpointing=checkpointing)
        sum(out.square().mean() for out in network(image())).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients) if a is not None)


def test_a_new_gate_weighs_alike_and_learns_per_task(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "simmlm")
    present = torch.tensor([[True, True, True, False]] * 2)
    assert torch.allclose(trainer.network.gate_weights(image(), present)[:, :3], torch.tensor(1 / 3))
    trainer.train_step(make_batch(trainer))
    weights = trainer.network.gate_weights(image(), present)
    assert not torch.allclose(weights[..., 0], weights[..., 1])


def test_patches_of_any_size_and_shape_pass_the_gate():
    network = experts().eval()
    for shape in ((8, 4, 4), (4, 32, 8), (40, 16, 24)):
        assert network(torch.randn(1, 4, *shape)).shape == (1, 3, *shape)


def test_probabilities_need_to_know_what_the_outputs_are():
    with pytest.raises(NnmissError, match="whether the data set has regions"):
        experts(level="probabilities", regions=None)
    with pytest.raises(NnmissError, match="level 'logit' is unknown"):
        experts(level="logit")


def test_an_expert_reads_its_modality_alone():
    network = ExpertNetwork(build_unet(tiny_configuration(), 1, 3, False), 4, 2)
    x = torch.full((2, 4, 16, 16, 16), torch.nan)
    x[:, 2] = image()[:, 2]
    out = network(x)
    assert torch.isfinite(out).all()
    assert torch.equal(out, network(x, torch.tensor([[True, False, True, False]] * 2)))


# ---- the ranking loss -----------------------------------------------------------------------------------------------

def slow_losses(logits, target, regions, ignore):
    """Dice loss and cross-entropy of one sample's tasks, voxel by voxel in plain Python."""
    k, voxels = logits.shape[0], logits[0].numel()
    flat = logits.reshape(k, -1).double().tolist()
    truth = target.reshape(target.shape[0], -1).tolist()
    dices, entropies = [], []
    for task in range(0 if regions else 1, k):
        overlap = total = entropy = counted = 0
        for v in range(voxels):
            if ignore is not None and (truth[-1][v] == 1 if regions else truth[0][v] == ignore):
                continue
            y = float(truth[task][v]) if regions else float(truth[0][v] == task)
            p = 1 / (1 + math.exp(-flat[task][v])) if regions else \
                math.exp(flat[task][v]) / sum(math.exp(flat[c][v]) for c in range(k))
            overlap, total, counted = overlap + p * y, total + p + y, counted + 1
            entropy -= y * math.log(p) + (1 - y) * math.log(1 - p)
        dices.append(1 - (2 * overlap + 1e-5) / (total + 1e-5))
        entropies.append(entropy / max(counted, 1))
    return dices, entropies


def random_target(labels, batch=3):
    values = torch.randint(0, 4 if "ignore" in labels else 3, (batch, 1, 4, 4, 3), generator=torch_generator(labels))
    if labels.startswith("regions"):
        return torch.cat([values > 0, values == 2, *([values == 3] if "ignore" in labels else [])], 1)
    return values.to(torch.int16)


@pytest.mark.parametrize("labels", ["regions", "regions_ignore", "labels", "labels_ignore"])
def test_mofe_equals_a_slow_reference(labels):
    regions, ignore = labels.startswith("regions"), 3 if "ignore" in labels else None
    heads, generator, target = (2 if regions else 3), torch_generator("mofe"), random_target(labels)
    more, fewer = (torch.randn(3, heads, 4, 4, 3, generator=generator) for _ in range(2))
    total = 0.0
    for b in range(3):
        a, c = (slow_losses(logits[b], target[b], regions, ignore) for logits in (more, fewer))
        total += sum(max(0.0, x - y) for kind in (0, 1) for x, y in zip(a[kind], c[kind])) / (3 * 2)  # 3 samples, 2 tasks
        fast = task_losses(more, target, regions, ignore)
        assert fast[0][b].tolist() == pytest.approx(a[0], rel=1e-4)
        assert fast[1][b].tolist() == pytest.approx(a[1], rel=1e-4)
    assert total > 0
    assert float(more_versus_fewer(more, fewer, target, regions, ignore)) == pytest.approx(total, rel=1e-4)


def test_mofe_by_hand():
    """One voxel of the region; p = 1/4 with more modalities, 1/2 with fewer: worse with more."""
    target = torch.ones(1, 1, 1, 1)
    more, fewer = torch.full((1, 1, 1, 1), math.log(1 / 3)), torch.zeros(1, 1, 1, 1)
    dice = (1 - 2 * 0.25 / 1.25) - (1 - 2 * 0.5 / 1.5)  # 0.6 - 1/3
    entropy = math.log(4) - math.log(2)
    assert float(more_versus_fewer(more, fewer, target, True)) == pytest.approx(dice + entropy, rel=1e-4)
    assert float(more_versus_fewer(fewer, more, target, True)) == 0


def test_mofe_is_per_sample_and_task():
    """A gain in one sample or task does not pay for a loss in another, as it would if losses were averaged first."""
    target = torch.ones(2, 2, 3, 3)
    more, fewer = torch.zeros(2, 2, 3, 3), torch.zeros(2, 2, 3, 3)
    more[0, 0], more[0, 1], more[1] = -1, 5, 5
    only = more_versus_fewer(more[:1, :1], fewer[:1, :1], target[:1, :1], True)
    assert float(more_versus_fewer(more, fewer, target, True)) == pytest.approx(float(only) / 4)
    assert float(only) > 0


@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_lowers_the_loss_of_more_and_raises_that_of_fewer(detach):
    target = torch.ones(1, 1, 2, 2)
    more, fewer = torch.full((1, 1, 2, 2), -1.0, requires_grad=True), torch.zeros(1, 1, 2, 2, requires_grad=True)
    more_versus_fewer(more, fewer, target, True, detach_fewer=detach).backward()
    assert (more.grad < 0).all()  # a step against it raises the right answer's logit
    assert fewer.grad is None if detach else (fewer.grad > 0).all()


def test_nothing_is_ranked_where_everything_is_ignored_or_nothing_differs():
    logits, other = image(2, 2), image(3, 2)[:2]
    target = torch.cat([torch.zeros(2, 2, 16, 16, 16), torch.ones(2, 1, 16, 16, 16)], 1)
    assert float(more_versus_fewer(logits, other, target, True, 3)) == 0
    assert float(more_versus_fewer(logits, logits, target[:, :2], True)) == 0


def test_one_against_rest_is_the_softmax_even_where_it_is_saturated():
    logits = torch.tensor([[[60.0, 1.0], [0.0, 2.0], [-60.0, 3.0]]])
    assert torch.allclose(one_against_rest(logits).sigmoid(), logits.softmax(1)[:, 1:], atol=1e-6)
    assert torch.isfinite(task_losses(logits[..., None], torch.zeros(1, 1, 2, 1), False)[1]).all()


# ---- nested subsets, stages, training -------------------------------------------------------------------------------

def test_nested_subsets_are_uniform_over_all_pairs_of_what_is_there():
    available = torch.tensor([[True, True, True, False]] * 6000)
    more, fewer = draw_nested(available, torch_generator("nested"))
    assert not (more & ~available).any()
    assert not (fewer & ~more).any()
    assert fewer.any(1).all()
    assert (more.sum(1) > fewer.sum(1)).all()
    _, counts = torch.cat([more, fewer], 1).unique(dim=0, return_counts=True)
    assert len(counts) == 12  # 3 modalities: 3 * (2 + 1) singles in pairs and triples, 3 pairs in the triple
    assert (counts - 500).abs().max() < 120  # 5.6 standard deviations


def test_a_case_with_one_modality_is_compared_with_itself():
    one = torch.tensor([[False, True]])
    more, fewer = draw_nested(one, torch_generator("nested"))
    assert torch.equal(more, one)
    assert torch.equal(fewer, one)


def test_the_joint_loss_is_the_mean_task_loss_plus_the_weighted_ranking(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "simmlm", mofe=0.5)
    x, target = trainer.to_device(make_batch(trainer))
    torch.nn.init.normal_(trainer.network.gate.linear.weight)
    drawn = trainer.draw(torch.ones(2, 4, dtype=torch.bool))
    parts = trainer.losses(trainer.network, x, target, **drawn)
    more, fewer = (trainer.network(x, drawn[name]) for name in ("present", "fewer"))
    task = (trainer.loss(more, target) + trainer.loss(fewer, target)).item() / 2
    assert parts["task"].item() == pytest.approx(task, rel=1e-4)
    ranking = more_versus_fewer(more[0], fewer[0], target[0], True)
    assert ranking.item() > 0
    assert parts["loss"].item() == pytest.approx(task + 0.5 * ranking.item(), rel=1e-4)


def test_an_expert_uses_the_cases_that_have_its_modality_and_shows_nothing_else(tmp_path, monkeypatch):
    rows = {"case_0": [True, False], "case_1": [True, True], "case_2": [False, True]}
    trainer = make_trainer(tmp_path, monkeypatch, "simmlm", m=2, stage="expert_m1", available=rows)
    assert trainer.training_cases(sorted(rows)) == ["case_1", "case_2"]
    drawn = trainer.draw(trainer.available_of(["case_1", "case_2"]))
    assert drawn["present"].tolist() == [[False, True]] * 2
    assert trainer.validation_subset(0) == trainer.validation_subset(5) == (False, True)


def test_stages_and_epochs_are_as_published():
    epochs = {s.name: s.epochs for s in nnMissTrainerSimMLM.stages_of(["a", "b"], {"pretrain_experts": True})}
    assert epochs == {"expert_a": 114, "expert_b": 114, "joint": 68}
    (joint,) = nnMissTrainerSimMLM.stages_of(["a", "b"], {"pretrain_experts": False})
    assert (joint.name, joint.epochs) == ("joint", 182)


@pytest.mark.parametrize("level", ["logits", "features"])
def test_the_joint_stage_starts_from_the_experts(tmp_path, monkeypatch, level):
    weights = {}
    for m in range(2):
        trainer = make_trainer(tmp_path, monkeypatch, "simmlm", m=2, stage=f"expert_m{m}", level=level)
        weights[f"expert_m{m}"] = {"network_weights": trainer.inference_network.state_dict()}
    joint = make_trainer(tmp_path, monkeypatch, "simmlm", m=2, level=level)
    joint.begin_stage(weights.__getitem__)
    joint.set_deep_supervision_enabled(False)
    trainer.set_deep_supervision_enabled(False)
    x = image(2, 2)
    present = torch.tensor([[False, True]] * 2)
    if level == "logits":
        assert torch.equal(joint.network(x, present), trainer.network(x, present))
    head = [w["network_weights"]["decoder.seg_layers.1.weight"] for w in weights.values()]
    if level == "features":
        assert torch.allclose(joint.network.head.weight, (head[0] + head[1]) / 2, atol=1e-6)


def run(*arguments, epochs=5):
    return train.run(["801", "simmlm", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *SHORT,
                      f"num_epochs={epochs}", *arguments])


def test_experts_then_the_mixture_through_the_commands(tiny):
    """Training with real holes: its files, rates, the gate's weights over training and per case in both commands."""
    assert run() == 0
    fold = fold_folder(tiny, TRAINER)
    for modality in ("flair", "t1", "t1ce", "t2"):
        assert (fold / f"stage_expert_{modality}" / "checkpoint_final.pth").is_file()
    rates = [read_checkpoint(folder / "checkpoint_final.pth")["optimizer_state"]["param_groups"][0]["lr"]
             for folder in (fold / "stage_expert_t1", fold)]
    assert rates == [1e-2, 1e-3]
    regions = task_names(json.loads((fold.parent / "dataset.json").read_text()))
    log = pd.read_csv(fold / "gate_weights.csv")
    assert (fold / "gate_weights.png").is_file()
    assert list(log.columns[1:]) == [f"{r}:{m}" for r in regions for m in ("flair", "t1", "t1ce", "t2")]
    table = pd.read_csv(fold / "validation" / "gate_weights.csv")
    assert list(table.columns) == ["case", "subset", "region", "modality", "weight"]
    sums = table.groupby(["case", "subset", "region"])["weight"].sum()
    assert sums.to_numpy() == pytest.approx(1, abs=1e-5)
    assert set(table["modality"]) == {"flair", "t1", "t1ce", "t2"}

    out = tiny / "predictions"
    assert predict.run(["-i", str(test_images()), "-o", str(out), "-d", "801", "-m", "simmlm", "-f", "0", "-p", PLANS,
                        "-device", "cpu", "--disable_tta", "--modalities", "t1", "t2", "--save_uncertainty"]) == 0
    cases = [json.loads((out / file.name.replace(".nii.gz", ".json")).read_text()) for file in out.glob("*.nii.gz")]
    assert len(cases) == 2
    for case in cases:
        assert list(case["gate_weights"]) == regions
        for task in case["gate_weights"].values():
            assert list(task) == case["modalities_used"]
            assert sum(task.values()) == pytest.approx(1, abs=1e-5)
    assert list((out / "uncertainty").iterdir())


def test_an_interrupted_expert_stage_continues_to_the_same_weights(tiny, monkeypatch):
    assert run("--no_val") == 0
    straight = read_checkpoint(fold_folder(tiny, TRAINER) / "checkpoint_final.pth")["network_weights"]
    shutil.rmtree(tiny / "nnUNet_results" / DATASET)
    step, done = nnMissTrainerSimMLM.train_step, []

    def interrupted(self, batch):
        done.append(1)
        if len(done) == 4:  # within the second expert's stage
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(nnMissTrainerSimMLM, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--no_val")
    monkeypatch.setattr(nnMissTrainerSimMLM, "train_step", step)
    assert run("--no_val", "--c") == 0
    continued = read_checkpoint(fold_folder(tiny, TRAINER) / "checkpoint_final.pth")["network_weights"]
    assert all(torch.equal(straight[name], continued[name]) for name in straight)


def test_every_expert_may_start_from_pretrained_weights(tiny, capsys):
    assert run("--no_val", "--stage", "expert_flair") == 0
    file = str(fold_folder(tiny, TRAINER) / "stage_expert_flair" / "checkpoint_final.pth")
    capsys.readouterr()
    assert run("--no_val", "--tag", "pre", "-pretrained_weights", file) == 0
    assert capsys.readouterr().out.count("pretrained weights:") == 4  # the joint stage starts from the experts


def test_an_expert_that_nobody_needs_stays_as_it_is(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, monkeypatch, "simmlm")
    trainer.train_step(make_batch(trainer))  # Adam has momentum now
    before = copy.deepcopy(trainer.network.state_dict())
    shown = torch.tensor([[True, True, False, False]] * 2)
    trainer.draw = lambda available: {"present": shown, "fewer": shown & torch.tensor([True, False, False, False])}
    trainer.train_step(make_batch(trainer))
    same = {name for name, value in trainer.network.state_dict().items() if torch.equal(value, before[name])}
    assert {name for name in before if name.startswith(("experts.2.", "experts.3."))} <= same
    assert not any(name in same for name in before if name.startswith("experts.1.") and name.endswith("conv.weight"))


def test_without_expert_pretraining_there_is_one_stage(tiny):
    assert run("--no_val", "--set", "pretrain_experts=false", "level=probabilities", epochs=1) == 0
    fold = fold_folder(tiny, TRAINER)
    assert not list(fold.glob("stage_*"))
    assert read_checkpoint(fold / "checkpoint_final.pth")["nnmiss"]["stage"] == "joint"
    plans = json.loads((fold.parent / "plans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["nnmiss"]["regions"] is True
    with pytest.raises(NnmissError, match="pretrain_experts: False, now True"):
        run("--no_val", "--set", "level=probabilities", epochs=5)


def test_tasks_are_named_in_the_order_of_the_outputs():
    assert task_names({"labels": {"background": 0, "b": 2, "a": 1, "ignore": 3}}) == ["background", "a", "b"]
    assert task_names({"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
                       "regions_class_order": [1, 2]}) == ["whole", "core"]


def test_gate_weights_are_the_mean_over_tiles_and_folds():
    network, data = experts(2, heads=2), torch.randn(2, 16, 16, 24, generator=torch_generator("case"))
    data[1] = torch.nan  # the case lacks it
    gates = [experts(2, heads=2).state_dict(), {name: v * 0.5 for name, v in experts(2, heads=2).state_dict().items()}]
    tiles = [(slice(None), slice(0, 16), slice(0, 16), slice(z, z + 16)) for z in (0, 8)]
    dataset_json = {"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "x": 1}}
    predictor = SimpleNamespace(network=network, device=torch.device("cpu"), list_of_parameters=gates,
                                dataset_json=dataset_json,
                                configuration_manager=SimpleNamespace(patch_size=(16, 16, 16)),
                                _internal_get_sliding_window_slicers=lambda shape: tiles)
    only = gate_weights(predictor, data, [(True, False)])
    assert only == {(True, False): {"background": {"a": 1.0}, "x": {"a": 1.0}}}
    data[1] = 0.5
    both = gate_weights(predictor, data, [(True, True), (False, True)])
    expected = []
    for parameters in gates:
        network.load_state_dict(parameters)
        expected += [network.gate_weights(data[tile][None], torch.ones(1, 2, dtype=torch.bool))[0] for tile in tiles]
    mean = sum(expected) / 4  # (M, K)
    assert both[(True, True)]["x"]["b"] == pytest.approx(mean[1, 1].item(), abs=1e-6)
    assert both[(True, True)]["background"]["a"] == pytest.approx(mean[0, 0].item(), abs=1e-6)
    predictor.network = torch.nn.Identity()  # any method without a gate
    assert gate_weights(predictor, data, [(True, True)]) == {}


# ---- distributed ----------------------------------------------------------------------------------------------------

DDP_PRESENT = [[True, True, False], [True, False, False], [False, True, True], [False, False, True]]


def ddp_gradients(network, rows: slice) -> dict[str, torch.Tensor]:
    """Gradients of a loss of some of four samples; the first half needs no expert 2, the second none of expert 0."""
    x = torch.randn(4, 3, 16, 16, 16, generator=torch_generator("ddp"))
    network(x[rows], torch.tensor(DDP_PRESENT)[rows]).square().mean().backward()
    return {name.removeprefix("module."): p.grad for name, p in network.named_parameters() if p.grad is not None}


def ddp_rank(rank: int, folder: Path) -> None:
    """One of two processes, with two of the four samples."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    network = DistributedDataParallel(used_parts(experts(3)))
    for _ in range(2):  # a second pass fails if the first waited for a gradient in vain
        network.zero_grad()
        gradients = ddp_gradients(network, slice(2 * rank, 2 * rank + 2))
    torch.save(gradients, folder / f"gradients_{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def used_parts(network):
    """Without deep supervision the coarse heads give nothing, in stock nnU-Net too."""
    for expert in network.experts:
        for layer in expert.decoder.seg_layers[:-1]:
            layer.requires_grad_(False)
    return network


def test_distributed_training_works_when_a_rank_needs_no_item_of_an_expert(tmp_path):
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1"}) for rank in range(2)]
    errors = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    whole = ddp_gradients(used_parts(experts(3)), slice(None))
    for rank in range(2):
        gradients = torch.load(tmp_path / f"gradients_{rank}.pt")
        assert gradients.keys() == whole.keys()
        assert all(torch.allclose(gradients[name], whole[name], rtol=1e-3, atol=1e-6) for name in whole)


def test_an_expert_that_nothing_needs_gets_a_gradient_of_zero_in_training_alone():
    network, x, present = experts(2), image(2, 2), torch.tensor([[True, False]] * 2)
    network(x, present).mean().backward()
    assert all((p.grad == 0).all() for p in network.experts[1].parameters())
    network.zero_grad()
    network.eval()
    network(x, present).mean().backward()
    assert all(p.grad is None for p in network.experts[1].parameters())


def test_packed_items_reach_their_own_expert_whatever_their_order():
    network, x = experts(3).eval(), image(2, 3)
    present = torch.tensor([[True, False, True], [True, True, True]])
    outputs, images = network.encode(x[present][:, None], present.nonzero()[:, 1])
    for b, m in present.nonzero().tolist():
        item = int(item_index(present)[b, m])
        assert torch.allclose(outputs[item], network.experts[m](x[b : b + 1, m, None])[0], atol=1e-5)
        assert torch.equal(images[item, 0], x[b, m])


if __name__ == "__main__":
    ddp_rank(int(sys.argv[1]), Path(sys.argv[2]))
