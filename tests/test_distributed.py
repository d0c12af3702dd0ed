"""Several processes that share a batch: the gradients and the run of one process, for every method; and how they start."""
from __future__ import annotations

import json
import shutil

import pytest
import torch
from distributed_steps import STEPS, dice_data, gradients, in_process
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder, set_folders, test_images

from nnmiss.cli import predict, train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers import distributed
from nnmiss.trainers import processes as group
from nnmiss.trainers.distributed import part_of
from nnmiss.trainers.run import RunArguments


@pytest.fixture(scope="module")
def two(session_folders, tmp_path_factory):
    """(every step's results in this process alone, in each of two processes that are spawned once, their Dice losses)."""
    folder, numbers = tmp_path_factory.mktemp("two"), list(range(len(STEPS)))
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, session_folders)
        (folder / "nnUNet_results").mkdir()
        patch.setenv("nnUNet_results", str(folder / "nnUNet_results"))
        alone = {number: gradients(number) for number in numbers}
        group.start_here(in_process, (str(folder), numbers), 2, "cpu")
    return alone, *([torch.load(folder / f"{name}{n}.pt") for n in (0, 1)] for name in ("gradients", "dice"))


def name_of(number: int) -> str:
    method, stage, _, batch_dice = STEPS[number]
    return f"{method}-{stage}" + "-batch_dice" * batch_dice


@pytest.mark.parametrize("number", range(len(STEPS)), ids=name_of)
def test_two_processes_give_the_gradients_of_one_with_the_whole_batch(two, number):
    alone, apart, _ = two
    for one in apart:
        assert one[number].keys() == alone[number].keys()
        for name, expected in alone[number].items():
            found = one[number][name]
            assert (found is None) == (expected is None), name
            if expected is not None:
                assert (found - expected).abs().max() <= 1e-5 * max(1, expected.abs().max()), name
    assert sum(g is not None and bool(g.any()) for g in alone[number].values()) > 10  # or nothing was compared


def test_a_batch_dice_of_unequal_parts_is_nnunets_of_the_whole_batch(two):
    x, y, mask = dice_data()
    for position, counts in enumerate((None, mask)):
        logits = x.clone().requires_grad_()
        loss = MemoryEfficientSoftDiceLoss(softmax_helper_dim1, batch_dice=True, do_bg=False, smooth=1e-5, ddp=False)
        expected = loss(logits, y, counts)
        expected.backward()
        _, _, (first, second) = two
        for part in (first, second):
            torch.testing.assert_close(part[2 * position], expected.detach())
        torch.testing.assert_close(torch.cat([first[2 * position + 1], second[2 * position + 1]]), logits.grad)


@pytest.mark.parametrize("batch, ranks", [(2, 2), (3, 2), (7, 3), (8, 8), (1, 4)])
def test_a_batch_is_shared_out_once(monkeypatch, batch, ranks):
    monkeypatch.setattr(distributed, "num_processes", lambda: ranks)
    shares = []
    for number in range(ranks):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shares.append(part_of(batch))
    rows = [row for part, weight in shares if weight for row in range(batch)[part]]
    assert rows == list(range(batch))
    assert sum(weight for _, weight in shares) == pytest.approx(ranks)
    assert all(len(range(batch)[part]) for part, _ in shares)


def run(*arguments, method="metakd"):
    preset = ["--preset", "paper"] if method == "metakd" else []  # two stages
    return train.run(["801", method, "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *preset, *SHORT,
                      "num_epochs=2", *arguments])


def weights(folder):
    return read_checkpoint(folder / "checkpoint_final.pth")["network_weights"]


@pytest.mark.slow
def test_a_run_of_two_processes_is_that_of_one(tiny):
    """Whole trainings with real cases, by -num_gpus: equal weights and losses, one writer, all subsets, prediction."""
    assert run("--tag", "one", "--no_val") == 0
    assert run("--tag", "two", "-num_gpus", "2") == 0
    one, two = (fold_folder(tiny, plans=f"{PLANS}-{tag}") for tag in ("one", "two"))
    for name, expected in weights(one).items():
        torch.testing.assert_close(weights(two)[name], expected, rtol=1e-3, atol=1e-4)
    logs = [read_checkpoint(folder / "checkpoint_final.pth")["logging"] for folder in (one, two)]
    for key in ("train_losses", "val_losses", "mean_fg_dice"):
        assert logs[1][key] == pytest.approx(logs[0][key], abs=1e-3), key
    lines = [line for file in two.glob("training_log*.txt") for line in file.read_text().splitlines()]
    assert sum("train_loss" in line for line in lines) == 2  # of two epochs; one process writes
    assert (two / "validation" / "summary.json").is_file()
    assert len([f for f in (two / "validation").iterdir() if f.is_dir()]) >= 15
    out = tiny / "predicted"
    assert predict.run(["-i", str(test_images()), "-o", str(out), "-d", "801", "-m", "metakd", "-p", PLANS, "--tag", "two",
                        "-device", "cpu", "--disable_tta", "--disable_progress_bar"]) == 0
    assert len(list(out.glob("*.nii.gz"))) == 2


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_with_one_and_the_other_way(tiny):
    """Stopped after the first stage, here by asking for that alone; every process starts from the file."""
    assert run("--tag", "straight", "--no_val") == 0
    assert run("--tag", "apart", "--no_val", "--stage", "warmup", "-num_gpus", "2") == 0
    shutil.copytree(fold_folder(tiny, plans=f"{PLANS}-apart").parent, fold_folder(tiny, plans=f"{PLANS}-again").parent)
    assert run("--tag", "apart", "--no_val") == 0
    again = json.loads((fold_folder(tiny, plans=f"{PLANS}-again") / "run.json").read_text())
    assert again["settings"]["warmup"]["num_epochs"] == 1
    assert run("--tag", "again", "--no_val", "-num_gpus", "2") == 0
    expected = weights(fold_folder(tiny, plans=f"{PLANS}-straight"))
    for tag in ("apart", "again"):
        found = weights(fold_folder(tiny, plans=f"{PLANS}-{tag}"))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def refuse(*arguments) -> None:
    raise NnmissError("folder in use")


def test_what_cannot_be_started_is_said(tiny, monkeypatch):
    with pytest.raises(NnmissError, match="a batch of 2 cannot be split over 3 processes"):
        monkeypatch.setattr(distributed, "num_processes", lambda: 3)
        distributed.Distributed.distribute(type("T", (), {"configuration_manager": type("C", (), {"batch_size": 2})})())
    with pytest.raises(NnmissError, match="-num_gpus is 0"):
        run("-num_gpus", "0")
    for name, value in zip(group.VARIABLES, ("0", "2", "0", "localhost", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(NnmissError, match="torchrun has started some"):
        run("-num_gpus", "2")
    monkeypatch.setattr(train, "train_one", refuse)
    with pytest.raises(NnmissError, match="folder in use"):  # the next seed would start while others wait in this one
        train.train_seed(RunArguments(DATASET, "metakd", 0), None, "1 of 2")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not train.train_seed(RunArguments(DATASET, "metakd", 0), None, "1 of 2")
    assert not group.launched()
