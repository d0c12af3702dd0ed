"""The bounds that methods are measured against: no dropout, complete cases only, and a network for one subset."""
from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from tiny_dataset import DATASET, PLANS, SHORT, fold_folder
from tiny_trainers import make_trainer

from nnmiss.cli import predict, train
from nnmiss.errors import NnmissError
from nnmiss.trainers.run import RunArguments, make_run

TRAINER = "nnMissTrainerModalityDropout"
ROWS = {"case_0": [True] * 4, "case_1": [True, True, False, False], "case_2": [False, False, True, True]}


def trainer(tmp_path, monkeypatch, **settings):
    return make_trainer(tmp_path, monkeypatch, "modality_dropout", available=ROWS, **settings)


def test_the_baseline_itself_uses_every_case_and_drops(tmp_path, monkeypatch):
    t = trainer(tmp_path, monkeypatch)
    assert t.training_cases(list(ROWS)) == list(ROWS)
    available = torch.ones(200, 4, dtype=torch.bool)
    shown = t.draw(available)["present"]
    assert shown.any(1).all()
    assert not shown.all()
    assert len(t.reported_subsets()) == 15


def test_without_dropout_a_case_is_shown_whole(tmp_path, monkeypatch):
    t = trainer(tmp_path, monkeypatch, dropout=False)
    available = torch.tensor(list(ROWS.values()))
    assert torch.equal(t.draw(available)["present"], available)


def test_complete_only_leaves_incomplete_cases_out(tmp_path, monkeypatch):
    t = trainer(tmp_path, monkeypatch, dropout=False, train_on="complete")
    assert t.training_cases(list(ROWS)) == ["case_0"]
    t.available = {**t.available, "case_0": (True, True, True, False)}  # as a missingness table would take it away
    assert t.training_cases(list(ROWS)) == []


def test_a_dedicated_network_sees_one_subset_of_the_cases_that_have_it(tmp_path, monkeypatch):
    t = trainer(tmp_path, monkeypatch, subset="M1+m0")  # names without case, in any order
    assert t.training_cases(list(ROWS)) == ["case_0", "case_1"]
    assert t.draw(torch.ones(3, 4, dtype=torch.bool))["present"].tolist() == [[True, True, False, False]] * 3
    assert {t.validation_subset(i) for i in range(20)} == {(True, True, False, False)}
    assert t.reported_subsets() == [(True, True, False, False)]


def run(*settings, fold="0"):
    return train.run(["801", "modality_dropout", fold, "-p", PLANS, "-device", "cpu", "--disable_progress_bar", *SHORT,
                      "num_epochs=1", *settings])


def test_a_dedicated_network_is_validated_on_its_subset(tiny, capsys):
    assert run("subset=flair") == 0
    results = pd.read_csv(fold_folder(tiny, TRAINER) / "validation" / "results.csv")
    assert set(results["subset"]) == {"flair"}
    assert results["case"].nunique() > 0
    assert "with flair" in capsys.readouterr().out


def test_the_baseline_has_the_plan_s_features_unless_it_is_given_a_width(tiny):
    """The plan's width_factor is meant for networks with an encoder per modality."""
    def features(**settings):
        trainer = make_run(RunArguments(DATASET, "modality_dropout", 0, plans_name=PLANS, assignments=settings)
                           ).make_trainer("train")
        trainer.initialize()
        assert trainer.configuration_manager.configuration["nnmiss"]["width_factor"] < 1
        planned = trainer.configuration_manager.network_arch_init_kwargs["features_per_stage"]
        return [own / plan for own, plan in zip(trainer.network.encoder.output_channels, planned)]

    assert set(features()) == {1} and set(features(width="0.5")) == {0.5}


def test_wrong_settings_are_refused_before_anything_is_written(tiny):
    with pytest.raises(NnmissError, match=r"modality 'pet' is not in this data set\. Known names: flair, t1, t1ce, t2"):
        run("subset=flair+pet")
    with pytest.raises(NnmissError, match=r"train_on.*all, complete"):
        run("train_on=some")
    assert not fold_folder(tiny, TRAINER).exists()


def test_no_case_left_is_an_error_by_name(tiny, session_folders):
    preprocessed = session_folders / "nnUNet_preprocessed" / "Dataset801_Tiny"
    rows = json.loads((preprocessed / "availability.json").read_text())["cases"]
    kept = [f"{case},1,1,1,0\n" for case, row in rows.items() if all(row)]
    assert kept
    (tiny / "none.csv").write_text("case,flair,t1,t1ce,t2\n" + "".join(kept))
    with pytest.raises(NnmissError, match="modality_dropout has no training case in fold 0"):
        run("train_on=complete", "--missing", str(tiny / "none.csv"))


def test_a_dedicated_network_is_predicted_with_its_subset_alone():
    own = predict.wanted_subsets(predict.parser().parse_args(["-i", "a", "-o", "b", "-d", "1", "-m", "modality_dropout"]),
                                 ["flair", "t1"], "flair")
    assert own.shown == (True, False)
    arguments = ["-i", "a", "-o", "b", "-d", "1", "-m", "modality_dropout", "--subsets", "flair"]
    asked = predict.wanted_subsets(predict.parser().parse_args(arguments), ["flair", "t1"], "flair")
    assert asked.subsets == ((True, False),)  # into the sub-folder that was asked for
    for more in (["--modalities", "t1"], ["--all_subsets"], ["--subsets", "flair", "flair+t1"]):
        args = predict.parser().parse_args(["-i", "a", "-o", "b", "-d", "1", "-m", "modality_dropout", *more])
        with pytest.raises(NnmissError, match="trained for flair alone"):
            predict.wanted_subsets(args, ["flair", "t1"], "flair")
