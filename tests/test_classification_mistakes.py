"""What somebody new to classification data gets wrong: each is named where it happens, before time is spent on it."""
from __future__ import annotations

import errno
import json
import resource
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from raw_samples_folder import make_raw_folder, write_manifest
from test_classification_data_commands import NAME, folders, plan  # noqa: F401
from tiny_classification import make_classifier, tiny_fold
from tiny_mind import run_stages

from nnmiss.availability import is_classification
from nnmiss.classification.description import read_description
from nnmiss.classification.kinds import KINDS
from nnmiss.classification.preprocessing import fit_preprocessing, notes, unseen_categories
from nnmiss.classification.raw_samples import read_raw_samples
from nnmiss.cli import train as train_command
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import write_checkpoint
from nnmiss.trainers import utilisation
from nnmiss.trainers.classification_curves import Curves
from nnmiss.trainers.classification_run import sample_notes
from nnmiss.trainers.progress import Progress


def change_description(raw, **changes):
    content = json.loads((raw / "dataset.json").read_text())
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    (raw / "dataset.json").write_text(json.dumps(content))


# ---- dataset.json and manifest.csv ------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, said", [
    ({"task": None}, '"task" must be one of'), ({"modalities": None, "modality": {}}, '"modalities" must map names')])
def test_a_forgotten_key_of_classification_is_named(folders, plan, changes, said):  # noqa: F811
    change_description(folders[0], **changes)
    code, _, err = plan()
    assert code == 1 and said in err and "channel_names" not in err and not folders[1].exists()
    assert not is_classification({"task": "x", "channel_names": {}, "numTraining": 3})


@pytest.mark.parametrize("encoder, said", [
    ({"name": "resnet11"}, "modality image: encoder 'resnet11' is unknown. Did you mean resnet10"),
    ({"name": "lstm"}, "reads series"), ({"name": "lenet"}, "at least 16 pixels")])
def test_an_encoder_that_cannot_be_built_is_refused_when_it_is_planned(folders, plan, encoder, said):  # noqa: F811
    modalities = json.loads((folders[0] / "dataset.json").read_text())["modalities"]
    change_description(folders[0], modalities={**modalities, "image": {"type": "image2d", "encoder": encoder}})
    code, _, err = plan()
    assert code == 1 and said.replace("10", "") in err.replace("10", "") and not folders[1].exists()


@pytest.mark.parametrize("separator, name", [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_than_commas_are_named(folders, plan, separator, name):  # noqa: F811
    for file in ("manifest.csv", "tables/clinical.csv"):
        text = (folders[0] / file).read_text()
        (folders[0] / file).write_text(text.replace(",", separator))
        code, _, err = plan()
        assert code == 1 and file in err and f"separated by {name}" in err
        (folders[0] / file).write_text(text)


def test_names_in_the_place_of_values_are_explained_in_planning_and_ignored_in_prediction(folders, plan, capsys):  # noqa: F811
    manifest = pd.read_csv(folders[0] / "manifest.csv", dtype=str, keep_default_na=False)
    manifest["label"] = [["CN", "MCI", "AD"][int(value)] for value in manifest["label"]]
    write_manifest(folders[0], manifest)
    code, _, err = plan()
    assert code == 1 and 'column label holds the names of "labels" in dataset.json, not its keys' in err
    raw, bad = read_raw_samples(folders[0], read_description(folders[0]), show_progress=False)
    assert len(raw) == 24 and not bad and "24 wrong cell(s)" in capsys.readouterr().out


def test_a_method_is_known_before_the_data_set_is_planned(folders, capsys):  # noqa: F811
    with pytest.raises(NnmissError, match="nnmiss_plan_and_preprocess writes it"):
        train_command.run(["520", "fusion", "0", "-device", "cpu"])


# ---- tables -----------------------------------------------------------------------------------------------------


def fitted_table(folder, **cells):
    """(samples, what was fitted, notes) of the 24 samples' table, with other columns."""
    make_raw_folder(folder, n=24)
    table = pd.read_csv(folder / "tables" / "clinical.csv", dtype=str)
    for name, values in cells.items():
        table[name] = [values[i % len(values)] for i in range(len(table))]
    table.to_csv(folder / "tables" / "clinical.csv", index=False)
    raw, _ = read_raw_samples(folder, read_description(folder), show_progress=False)
    fitted = fit_preprocessing(raw, torch.arange(len(raw)), raw.available)
    return raw, fitted, notes(fitted)


def test_a_column_of_numbers_that_became_categories_is_told(tmp_path):
    _, _, said = fitted_table(tmp_path, dose=["1", "2", "3", "4", "5", "inf"], weight=["61,5", "62,5", "70"],
                              grade=["a", "b", "1"])
    assert len(said) == 2 and "clinical: column dose is read as 6 categories" in said[0] and "'inf'" in said[0]
    assert "column weight is read as 3 categories" in said[1] and "'61,5', '62,5'" in said[1]


def test_categories_that_were_asked_for_are_not_doubted():
    column = {"kind": "categorical", "fill": "1", "values": ["1", "2", "3", "x"]}
    table = KINDS["table"]
    assert table.suspicions({"columns": {"site": "categorical"}}, {"columns": {"site": column}}) == []
    assert len(table.suspicions({"columns": {}}, {"columns": {"site": column}})) == 1


def test_new_categories_are_told_in_prediction(tmp_path):
    raw, fitted, _ = fitted_table(tmp_path)
    assert unseen_categories(raw, fitted) == []
    raw.values["clinical"][0]["sex"], raw.values["clinical"][1]["sex"] = "x", ""
    said, = unseen_categories(raw, fitted)
    assert said.startswith("clinical: column sex of 1 sample(s) holds categories that training had not")
    assert said.endswith(": x")


# ---- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mind", "mke", "vanilla_3h"])
def test_without_a_complete_training_sample_no_teacher_is_trained_first(tmp_path, method):
    fold = tiny_fold(("image", "table"))
    for i, name in enumerate(fold.training):
        fold.available[name] = (i % 2 == 0, i % 2 == 1)
    first = make_classifier(method, fold, initialize=False).stages[0].name
    with pytest.raises(NnmissError, match="student_rows=all"):
        make_classifier(method, fold, first)
    make_classifier(method, fold, first, student_rows="all")


def test_teachers_of_a_modality_nobody_has_are_neither_trained_nor_shared(tmp_path, capsys):
    fold = tiny_fold(("image", "table"))
    for name in fold.training:
        fold.available[name] = (True, False)
    run_stages("mind", fold, tmp_path, student_rows="all", share_teachers=False, num_epochs=1)
    told = capsys.readouterr().out
    assert "0 training samples, so it stays as it is and teaches nobody" in told
    assert "teachers of table: untrained, as no training sample has it" in told and "nan" not in told
    assert not list(tmp_path.rglob("shared_teachers"))


def test_classes_that_a_fold_does_not_train_are_told():
    fold = tiny_fold(task="binary")
    rows = [fold.samples.ids.index(name) for name in fold.training]
    fold.samples.targets[rows] = 0.0
    trainer = make_classifier("fusion", fold)
    assert "no training sample of this fold is of class yes" in sample_notes_of(trainer)
    trainer = make_classifier("fusion", tiny_fold(task="multilabel"))
    assert not [note for note in sample_notes_of(trainer) if "positive for" in note]


def sample_notes_of(trainer) -> list[str]:
    trainer.data = replace(trainer.data, fitted={"modalities": {}})
    return sample_notes(trainer)


def test_an_undefined_score_is_not_printed_as_one(tmp_path, capsys):
    fold = tiny_fold(task="binary")
    fold.samples.targets[[fold.samples.ids.index(name) for name in fold.validation]] = 0.0
    trainer = make_classifier("fusion", fold, folder=tmp_path, figures=False)
    trainer.run_training()
    assert "validation auroc undefined, lr" in capsys.readouterr().out
    assert trainer.best["score"] == -trainer.best["loss"]


def test_the_line_of_an_epoch_stays_short_with_many_labels():
    trainer = make_classifier("lckd", tiny_fold(task="multilabel", classes=9))
    trainer.teachers = [0, 1, 1, 1, 0, 1, 1, 1, 1]
    assert trainer.status() == ", teachers image of 2, table of 7"


# ---- files and figures ------------------------------------------------------------------------------------------


def test_a_checkpoint_on_a_full_disk_is_an_error_of_the_system(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as error:
            write_checkpoint(tmp_path / "checkpoint.pth", {"weights": torch.zeros(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG and not list(tmp_path.iterdir())


def drawn(monkeypatch, curves: Curves, folder) -> list:
    """The axes of progress.png."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (figures.append(self), open(path, "wb").close()))
    curves.write(folder, Progress(), "auroc")
    return figures[0].axes


def test_curves_of_many_subsets_can_be_told_apart(tmp_path, monkeypatch):
    singles, pairs = [f"score:{a}" for a in "abcde"], [f"score:{a}+{b}" for a in "abc" for b in "de"]
    curves = Curves()
    curves.columns = {name: [0.5] for name in ("train_losses", "val_losses", "score", "lrs", "seconds", *singles, *pairs,
                                               "score:a+b+c+d+e", "score:available")}
    scores, rate = drawn(monkeypatch, curves, tmp_path)[1], drawn(monkeypatch, curves, tmp_path)[3]
    labels = [text.get_text() for text in scores.get_legend().get_texts()]
    assert labels == ["other subsets", "epochs are compared by", "a", "b", "c", "d", "e", "all modalities", "available"]
    assert all(line.get_marker() == "." for line in scores.lines)  # one epoch alone would not be seen
    assert rate.get_legend() is None and rate.get_ylim()[0] == 0
    assert all(float(tick).is_integer() for tick in scores.get_xticks())


def test_utilisation_that_nobody_knows_is_not_drawn(tmp_path):
    table = {"columns": ["epoch", "u_a", "u_b", "d_util"], "rows": [[0, 1, *[np.nan] * 3], [5, 2, *[np.nan] * 3]]}
    utilisation.draw(table, 2, tmp_path / "utilisation.png")
    assert not list(tmp_path.iterdir())
    table["rows"][0][2] = 0.5
    utilisation.draw(table, 2, tmp_path / "utilisation.png")
    assert (tmp_path / "utilisation.png").stat().st_size > 1000
