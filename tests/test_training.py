"""nnmiss_train on a tiny data set: what it writes, that it continues exactly, and what it refuses."""
from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from nnunetv2.paths import nnUNet_preprocessed
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder

from nnmiss.cli import train
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers.lckd import nnMissTrainerLCKD
from nnmiss.trainers.metakd import nnMissTrainerMetaKD
from nnmiss.trainers.modality_dropout import nnMissTrainerModalityDropout


def run(*arguments, method="metakd", fold="0", short=SHORT, epochs=4):
    preset = ["--preset", "paper"] if method == "metakd" else []  # two stages
    return train.run(["801", method, fold, "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *preset, *short,
                      f"num_epochs={epochs}", *arguments])


def weights(folder):
    return read_checkpoint(folder / "checkpoint_final.pth")["network_weights"]


def test_a_run_leaves_what_nnunet_leaves_and_what_is_ours(tiny, capsys):
    assert run() == 0
    fold = fold_folder(tiny)
    for name in ("checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "run.json", "importance_weights.csv",
                 "importance_weights.png", "features.csv", "stage_warmup/checkpoint_final.pth", "validation/results.csv",
                 "validation/summary.json", "validation/table.md", "validation/flair/", "validation/flair+t1+t1ce+t2/"):
        assert (fold / name).exists(), name
    assert not (fold / "checkpoint_latest.pth").exists()
    record = json.loads((fold / "run.json").read_text())
    assert record["settings"]["warmup"]["num_epochs"] == 3
    assert record["settings"]["missing"]["num_epochs"] == 1
    assert set(record["held_out_cases"]) & set(record["validation_cases"]) == set()
    assert set(record["versions"]) == {"nnmiss", "nnunetv2", "torch", "python"}
    w = pd.read_csv(fold / "importance_weights.csv")
    assert list(w.columns) == ["iteration", "flair", "t1", "t1ce", "t2"]
    assert w["iteration"].is_monotonic_increasing
    assert w["iteration"].max() == 7  # four epochs of two iterations, over both stages
    assert len(w) == 8
    assert torch.allclose(torch.tensor(w.iloc[:, 1:].sum(1).to_numpy()), torch.ones(8, dtype=torch.double), atol=1e-5)
    out = capsys.readouterr().out
    assert "missing epoch 1/1" in out
    assert " w flair" in out
    run()
    assert "training is finished" in capsys.readouterr().out


@pytest.mark.parametrize("method, trainer, preset", [("metakd", "nnMissTrainerMetaKD", "paper"),
                                                     ("metakd", "nnMissTrainerMetaKD", "best"),
                                                     ("modality_dropout", "nnMissTrainerModalityDropout", "paper")])
@pytest.mark.parametrize("stop_at", [1, 4, 7])
def test_an_interrupted_run_continues_to_the_same_weights(tiny, monkeypatch, method, trainer, preset, stop_at):
    if (method, preset) == ("metakd", "paper") and stop_at == 4:
        stop_at = 6  # the first iteration of the second stage
    assert run("--no_val", "--preset", preset, method=method) == 0
    straight = weights(fold_folder(tiny, trainer))
    shutil.rmtree(tiny / "nnUNet_results" / DATASET)

    cls = train.method_class(method)
    step, done = cls.train_step, []

    def interrupted(self, batch):
        done.append(1)
        if len(done) == stop_at + 1:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(cls, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--no_val", "--preset", preset, method=method)
    monkeypatch.setattr(cls, "train_step", step)
    assert run("--no_val", "--c", "--preset", preset, method=method) == 0
    continued = weights(fold_folder(tiny, trainer))
    assert all(torch.equal(straight[name], continued[name]) for name in straight)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny):
    for tag, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run("--no_val", "--tag", tag, "--seed", seed, epochs=2)
    a, b, c = (weights(fold_folder(tiny, plans=f"{PLANS}-{tag}")) for tag in "abc")
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)


def test_other_settings_in_the_same_place_are_refused_and_a_tag_keeps_both(tiny):
    run("--no_val", epochs=2)
    with pytest.raises(NnmissError, match=r"settings\.missing\.alpha: 0\.1, now 0\.3.*--tag"):
        run("--no_val", "--set", "alpha=0.3", epochs=2)
    assert run("--no_val", "--set", "alpha=0.3", "--tag", "strong", epochs=2) == 0
    with pytest.raises(NnmissError, match=r"network\.fusion: concat, now mean"):
        run("--no_val", "--set", "fusion=mean", fold="1", epochs=2)


def test_a_run_of_another_default_preset_says_how_it_goes_on(tiny):
    run("--no_val", epochs=2)
    with pytest.raises(NnmissError, match=r"other settings: preset: paper, now best; .* it with --preset paper and"):
        run("--no_val", "--preset", "best", epochs=2)


@pytest.mark.parametrize("method, trainer, setting, network", [
    ("metakd", "nnMissTrainerMetaKD", "warmup", "separate_stages"),
    ("modality_dropout", "nnMissTrainerModalityDropout", "ema_decay", "width")])
def test_a_run_of_an_earlier_version_goes_on_without_the_settings_it_did_not_know(tiny, method, trainer, setting, network):
    run("--no_val", method=method, epochs=2)
    file = fold_folder(tiny, trainer) / "run.json"
    record = json.loads(file.read_text())
    for settings in record["settings"].values():
        del settings[setting], settings[network]
    del record["planned_network"][network], record["network"][network]
    file.write_text(json.dumps(record))
    assert run("--val", method=method, epochs=2) == 0
    record["settings"]["warmup" if method == "metakd" else "train"]["initial_lr"] = 0.5
    file.write_text(json.dumps(record))
    with pytest.raises(NnmissError, match=r"other settings: settings\.\w+\.initial_lr: 0.5, now 0.01. Add"):
        run("--val", method=method, epochs=2)


def test_a_stage_that_the_preset_leaves_out_is_named_as_such(tiny):
    for arguments in (["--stage", "warmup"], ["--set", "warmup.num_epochs=2"]):
        with pytest.raises(NnmissError, match="'warmup' is left out by this run's preset or settings, which train missing"):
            run("--preset", "best", *arguments)
    with pytest.raises(NnmissError, match="stage 'train' is unknown for this method"):
        run("--stage", "train", method="simmlm")


def test_without_distillation_the_training_says_so_and_keeps_no_case_out(tiny, capsys):
    run("--preset", "best", "--no_val", epochs=1)
    assert "nothing is distilled" in capsys.readouterr().out
    fold = fold_folder(tiny)
    assert json.loads((fold / "run.json").read_text())["held_out_cases"] == []
    assert not (fold / "importance_weights.csv").exists() and not (fold / "features.csv").exists()
    run("--preset", "best", "--no_val", "--tag", "out", "--set", "meta_cases=1", epochs=1)
    assert "metakd does not look at them: --set meta_cases=0" in capsys.readouterr().out
    run("--preset", "best", "--no_val", "--tag", "distilled", "--set", "alpha=0.1", epochs=1)
    assert "nothing is distilled" not in capsys.readouterr().out
    with pytest.raises(NnmissError, match="meta_interval=7: it changes nothing without an alpha above 0 or a weighting"):
        run("--preset", "best", "--set", "meta_interval=7")


def test_the_network_of_a_run_is_in_its_plans(tiny):
    run("--no_val", "--set", "fusion=mean", "width_factor=0.5", epochs=2)
    plans = json.loads((fold_folder(tiny).parent / "plans.json").read_text())
    block = plans["configurations"]["3d_fullres"]["nnmiss"]
    assert (block["fusion"], block["width_factor"]) == ("mean", 0.5)


def test_one_stage_at_a_time(tiny):
    with pytest.raises(NnmissError, match="stage missing starts from stage warmup"):
        run("--no_val", "--stage", "missing")
    assert run("--no_val", "--stage", "warmup") == 0
    assert not (fold_folder(tiny) / "checkpoint_final.pth").exists()
    assert run("--no_val", "--stage", "missing") == 0
    assert (fold_folder(tiny) / "checkpoint_final.pth").exists()


def test_validation_alone_comes_after_training(tiny):
    with pytest.raises(NnmissError, match="no checkpoint_final"):
        run("--val")
    run("--no_val", epochs=2)
    assert not (fold_folder(tiny) / "validation").exists()
    assert run("--val", epochs=2) == 0
    assert (fold_folder(tiny) / "validation" / "summary.json").exists()


def test_a_missingness_table_takes_modalities_away(tiny, session_folders, monkeypatch):
    folder = session_folders / "nnUNet_raw" / DATASET / "missing"
    folder.mkdir(exist_ok=True)
    cases = json.loads((session_folders / "nnUNet_preprocessed" / DATASET / "availability.json").read_text())["cases"]
    complete = [case for case, row in cases.items() if all(row)]
    lines = [f"{case},1,0,0,0" for case in complete]
    (folder / "flair_only.csv").write_text("\n".join(["case,flair,t1,t1ce,t2", *lines]))
    seen = []
    monkeypatch.setattr(nnMissTrainerMetaKD, "initialize",
                        lambda self, original=nnMissTrainerMetaKD.initialize: original(self) or seen.append(self))
    run("--no_val", "--missing", "flair_only", epochs=2)
    assert all(seen[0].available[case] == (True, False, False, False) for case in complete)
    assert all(seen[0].files[case] == (True,) * 4 for case in complete)  # validation sees the files there are
    assert json.loads((fold_folder(tiny) / "run.json").read_text())["missing"]["table"] == "flair_only"
    with pytest.raises(NnmissError, match="Did you mean flair_only"):
        run("--missing", "flair_onyl", "--tag", "x")


def test_pretrained_weights_are_taken_but_not_the_heads(tiny, capsys):
    run("--no_val", epochs=2)
    file = str(fold_folder(tiny) / "checkpoint_final.pth")
    run("--no_val", "--tag", "pre", "-pretrained_weights", file, epochs=2)
    assert "pretrained weights:" in capsys.readouterr().out


def test_a_run_continues_with_what_it_was_started_with(tiny, monkeypatch):
    """--c needs no setting again, not even -pretrained_weights; --val neither."""
    run("--no_val", "--tag", "first", epochs=2)
    file = str(fold_folder(tiny, plans=f"{PLANS}-first") / "checkpoint_final.pth")
    step, count = nnMissTrainerMetaKD.train_step, []

    def interrupted(self, batch):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(nnMissTrainerMetaKD, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--no_val", "-pretrained_weights", file, "--set", "alpha=0.3", "--seed", "4", epochs=2)
    monkeypatch.setattr(nnMissTrainerMetaKD, "train_step", step)
    bare = ["801", "metakd", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar"]
    assert train.run([*bare, "--c", "--no_val"]) == 0
    record = json.loads((fold_folder(tiny) / "run.json").read_text())
    assert (record["seed"], record["settings"]["missing"]["alpha"], record["pretrained_weights"]) == (4, 0.3, file)
    assert train.run([*bare, "--val"]) == 0
    assert (fold_folder(tiny) / "validation" / "summary.json").exists()


def test_a_stage_has_its_own_optimiser_settings(tiny):
    run("--no_val", "--set", "missing.weight_decay=0.5", "missing.meta_lr=0.25", "missing.meta_weight_decay=0.125",
        epochs=2)
    checkpoint = read_checkpoint(fold_folder(tiny) / "checkpoint_final.pth")
    assert checkpoint["optimizer_state"]["param_groups"][0]["weight_decay"] == 0.5
    group = checkpoint["nnmiss"]["state"]["importance_optimizer"]["param_groups"][0]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)


def test_curves_over_both_stages_keep_every_row_when_their_epochs_differ_in_length(tiny):
    run("--no_val", "--set", "warmup.num_iterations_per_epoch=6", "missing.num_iterations_per_epoch=1", epochs=2)
    rows = pd.read_csv(fold_folder(tiny) / "importance_weights.csv")["iteration"].tolist()
    assert rows == list(range(7))  # six of the warm-up, then one


def test_folds_of_one_model_must_be_trained_alike(tiny):
    run("--no_val", epochs=2)
    with pytest.raises(NnmissError, match=r"settings\.\w+\.alpha: 0\.1, now 0\.3"):
        run("--no_val", "--set", "alpha=0.3", fold="1", epochs=2)
    assert run("--no_val", "--seed", "7", fold="1", epochs=2) == 0


def test_changed_plans_under_the_same_name_are_noticed(tiny, session_folders):
    run("--no_val", epochs=2)
    path = session_folders / "nnUNet_preprocessed" / DATASET / f"{PLANS}.json"
    before = path.read_text()
    plans = json.loads(before)
    plans["configurations"]["3d_fullres"]["patch_size"] = [16, 16, 16]
    try:
        path.write_text(json.dumps(plans))
        for fold in ("0", "1"):
            with pytest.raises(NnmissError, match="configuration_sha256"):
                run("--no_val", fold=fold, epochs=2)
    finally:
        path.write_text(before)


def test_a_configuration_that_inherits_keeps_the_planned_network(tiny, session_folders):
    path = session_folders / "nnUNet_preprocessed" / DATASET / "nnMissHeirPlans.json"
    plans = json.loads((path.parent / f"{PLANS}.json").read_text())
    plans["plans_name"] = "nnMissHeirPlans"
    plans["configurations"]["3d_bs3"] = {"inherits_from": "3d_fullres", "batch_size": 3}
    path.write_text(json.dumps(plans))
    train.run(["801", "metakd", "0", "-p", "nnMissHeirPlans", "-c", "3d_bs3", "-device", "cpu", "--disable_progress_bar",
               "--no_val", *SHORT, "num_epochs=2"])
    fold = tiny / "nnUNet_results" / DATASET / "nnMissTrainerMetaKD__nnMissHeirPlans__3d_bs3" / "fold_0"
    record = json.loads((fold / "run.json").read_text())
    assert record["network"]["width_factor"] == plans["configurations"]["3d_fullres"]["nnmiss"]["width_factor"] != 1.0


def test_a_validation_that_could_not_be_written_is_no_validation(tiny, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnmiss.inference.predict_cases.export_prediction", full)
    with pytest.raises(NnmissError, match="No space left"):
        run(epochs=2)
    assert not (fold_folder(tiny) / "validation" / "summary.json").exists()
    assert not list((fold_folder(tiny) / "validation").rglob("*.json"))


def test_what_a_fold_cannot_learn_is_said(tiny, capsys):
    run("--no_val", fold="all", epochs=2)
    out = capsys.readouterr().out
    assert "are held out, for what metakd does not learn by training" in out
    assert "fold 'all' trains and validates on the same cases" in out


def test_terminating_a_training_leaves_nothing_half_written(tiny):
    """SIGTERM in the middle of a run of its own process: exit code 130, no temporary file, and it continues."""
    arguments = ["801", "metakd", "0", "-p", PLANS, "-device", "cpu", "--no_val", "--disable_progress_bar", "--preset",
                 "paper", *SHORT, "num_epochs=400"]
    process = subprocess.Popen([sys.executable, "-m", "nnmiss.cli.train", *arguments], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "epoch 3/" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 130
    files = [file.name for file in fold_folder(tiny).rglob("*") if file.is_file()]
    assert not [name for name in files if name.startswith(".")]
    assert read_checkpoint(fold_folder(tiny) / "stage_warmup" / "checkpoint_latest.pth")["current_epoch"] >= 3


@pytest.mark.parametrize("arguments, message", [
    (["801", "metakt", "0"], "Did you mean metakd"),
    (["801", "metakd", "9"], "fold 9 does not exist: the folds are 0 to 4"),
    (["801", "metakd", "zero"], "fold must be a number"),
    (["801", "metakd", "0", "-c", "3d"], "configuration '3d' is not in"),
    (["801", "metakd", "0", "--set", "alhpa=1"], "Did you mean alpha"),
    (["801", "metakd", "0", "--preset", "paper", "--set", "num_epochs=1"], "fewer than"),
    (["801", "metakd", "0", "--set", "num_iterations_per_epoch=0"], "expected 1 to"),
    (["801", "metakd", "0", "--set", "fusion=sum"], "fusion=sum is not one of: concat, mean, linear"),
    (["801", "metakd", "0", "--preset", "papr"], "Did you mean paper"),
    (["801", "metakd", "0", "--stage", "late"], "stage 'late' is unknown"),
    (["801", "metakd", "0", "-p", "nnMissOtherPlans"], "plans file"),
    (["999", "metakd", "0"], "no data set has id 999"),
    (["801", "metakd", "0", "--set", "p=3"], "p=3 is not one of: 1, 2"),
    (["801", "metakd", "0", "--set", "alpha=nan"], "alpha=nan is out of range"),
    (["801", "metakd", "0", "--set", "meta_interval=0"], "meta_interval=0 is out of range"),
    (["801", "metakd", "0", "--set", "warmup.fusion=mean"], "all stages share it"),
    (["801", "metakd", "0", "--tag", "a/b"], "letters, digits"),
    (["801", "metakd", "0", "-num_gpus", "0"], "-num_gpus is 0"),
])
def test_bad_arguments_end_in_one_message_and_leave_no_run(tiny, monkeypatch, capsys, arguments, message):
    plans = [] if "-p" in arguments else ["-p", PLANS]
    monkeypatch.setattr("sys.argv", ["nnmiss_train", *arguments, *plans, "-device", "cpu", "--disable_progress_bar"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not list((tiny / "nnUNet_results").rglob("checkpoint*"))


def test_a_cascade_is_refused(tiny, session_folders, tmp_path):
    path = session_folders / "nnUNet_preprocessed" / DATASET / "nnMissCascadePlans.json"
    plans = json.loads((path.parent / f"{PLANS}.json").read_text())
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    path.write_text(json.dumps(plans))
    with pytest.raises(NnmissError, match="is a cascade"):
        train.run(["801", "metakd", "0", "-p", "nnMissCascadePlans", "-c", "3d_cascade_fullres", "-device", "cpu"])


def test_a_loss_that_is_not_finite_stops_with_advice(tiny, monkeypatch):
    step = nnMissTrainerMetaKD.train_step
    monkeypatch.setattr(nnMissTrainerMetaKD, "train_step", lambda self, b: {**step(self, b), "loss": float("nan")})
    with pytest.raises(NnmissError, match="lower --set initial_lr"):
        run("--no_val")


def test_2d_trains_and_validates(tiny):
    assert run("-c", "2d", epochs=2) == 0
    assert (tiny / "nnUNet_results" / DATASET / f"nnMissTrainerMetaKD__{PLANS}__2d/fold_0/validation/table.md").exists()


def test_settings_can_be_listed(tiny, capsys):
    train.run(["801", "metakd", "0", "--set", "help"])
    out = capsys.readouterr().out
    assert "alpha = 0.0   (paper: 0.1, official: 0.1)" in out  # what will train first
    assert "official: 20" in out
    assert "official: missing.meta_interval 500" in out
    assert "stages of best (for stage.key=value): missing (1000 epochs)" in out
    train.run(["801", "metakd", "0", "--preset", "paper", "--set", "help"])
    assert "warmup (320 epochs), missing (140 epochs)" in capsys.readouterr().out


def test_a_model_goes_on_with_what_its_preparations_came_to(tiny, monkeypatch, capsys):
    """What a method could not have at the start, such as a text encoder, may be there later: then nothing may change."""
    answers = ["linear", "mean", "concat"]

    def prepare(cls, block, modalities, folder):
        block["fusion"] = block["fusion"] if block["fusion"] == "mean" else answers.pop(0)
        return ["prepared"]

    monkeypatch.setattr(nnMissTrainerMetaKD, "prepare", classmethod(prepare))
    with pytest.raises(NnmissError, match="stage missing starts from"):
        run("--no_val", "--stage", "missing", epochs=2)  # nothing is trained, so nothing is fixed yet
    run("--no_val", epochs=2)
    record = json.loads((fold_folder(tiny) / "run.json").read_text())
    assert (record["planned_network"]["fusion"], record["network"]["fusion"]) == ("concat", "mean")
    capsys.readouterr()
    run("--no_val", fold="1", epochs=2)
    assert json.loads((fold_folder(tiny).parent / "fold_1" / "run.json").read_text())["network"]["fusion"] == "mean"
    assert "begun with fusion=mean instead of concat, and goes on so" in capsys.readouterr().out


def stock_trainer(session_folders, trainer_class):
    """A trainer as nnU-Net's own command makes it, not initialised."""
    folder = session_folders / "nnUNet_preprocessed" / DATASET
    plans, dataset_json = (json.loads((folder / name).read_text()) for name in (f"{PLANS}.json", "dataset.json"))
    plans["continue_training"] = False
    return trainer_class(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))


def test_nnunets_own_command_does_not_run_one_stage_of_several(tiny, session_folders):
    with pytest.raises(NnmissError, match=r"warmup, missing.*use nnmiss_train"):
        stock_trainer(session_folders, nnMissTrainerLCKD).run_training()


def test_nnunets_own_command_does_not_build_another_network_than_ours(tiny, session_folders):
    with pytest.raises(NnmissError, match=r"network by fusion, imputation.*use nnmiss_train"):
        stock_trainer(session_folders, nnMissTrainerMetaKD).run_training()


def test_nnunets_own_command_trains_a_method_of_one_stage(tiny, session_folders):
    trainer = stock_trainer(session_folders, nnMissTrainerModalityDropout)
    trainer.num_epochs = trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
    trainer.show_progress = False
    trainer.run_training()
    assert (fold_folder(tiny, "nnMissTrainerModalityDropout") / "checkpoint_final.pth").is_file()


def test_a_lost_stage_under_finished_ones_is_not_trained_again_in_silence(tiny):
    run("--no_val", epochs=2)
    (fold_folder(tiny) / "stage_warmup" / "checkpoint_final.pth").unlink()
    with pytest.raises(NnmissError, match="stage warmup is not finished, but later ones"):
        run("--no_val", epochs=2)
    assert run("--no_val", "--stage", "warmup", epochs=2) == 0


def test_continuing_nothing_is_said(tiny, capsys):
    run("--no_val", "--c", "--tag", "typo", epochs=2)
    assert "holds nothing to continue: a new training starts" in capsys.readouterr().out


@pytest.mark.parametrize("weighting", ["bilevel", "forward"])
def test_no_case_is_held_out_where_none_shall_be(tiny, capsys, weighting):
    assert train.run(["801", "metakd", "0", "-p", PLANS, "-device", "cpu", "--disable_progress_bar", "--no_val", *SHORT,
                      "num_epochs=2", "meta_cases=0", f"weighting={weighting}"]) == 0
    record = json.loads((fold_folder(tiny) / "run.json").read_text())
    assert len(record["held_out_cases"]) == 5 and not set(record["held_out_cases"]) & set(record["validation_cases"])
    assert "no case is held out, as meta_cases=0 says" in capsys.readouterr().out


def test_a_network_too_shallow_for_nnunets_loss_is_refused(tiny, monkeypatch, capsys):
    """Its only output has weight 0 of 0, so the loss is NaN from the first step on."""
    plans = json.loads((Path(str(nnUNet_preprocessed)) / DATASET / f"{PLANS}.json").read_text())
    kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    of_stages = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage")
    kwargs.update({key: kwargs[key][:2] for key in of_stages})
    kwargs.update(n_stages=2, n_conv_per_stage_decoder=[2])
    file = Path(str(nnUNet_preprocessed)) / DATASET / "nnMissShallow.json"
    file.write_text(json.dumps({**plans, "plans_name": "nnMissShallow"}))
    try:
        with pytest.raises(NnmissError, match=r"nnMissShallow.json has 2 stages"):
            train.run(["801", "modality_dropout", "0", "-p", "nnMissShallow", "-device", "cpu"])
    finally:
        file.unlink()
