"""The classification trainer in memory: batches, what is shown, the best epoch, class balance, learning rates."""
from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_classification import make_classifier, tiny_fold, train, train_stages
from tiny_samples import tiny_samples

from nnmiss.classification.sample_set import StoredModality
from nnmiss.errors import NnmissError
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.trainers.classification_data import Batches, TrainingBatches
from nnmiss.trainers.classification_final import predict_and_evaluate
from nnmiss.trainers.classification_run import sample_notes
from nnmiss.trainers.classification_scores import score
from nnmiss.trainers.classification_validation import ClassificationValidation
from nnmiss.trainers.optimizers import EpochSchedule, plateaus

PAGE = Path(__file__).parents[1] / "documentation" / "reference" / "classification" / "training.md"


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.network.parameters()])


# ---- batches ----------------------------------------------------------------------------------------------------


def test_a_pass_shows_every_row_once_in_batches_of_equal_size():
    batches = Batches(torch.arange(100, 123), 8, (0, "stage"))
    drawn = batches.of_pass(0)
    assert sorted(torch.cat(drawn).tolist()) == list(range(100, 123))
    assert {len(batch) for batch in drawn} == {7, 8}
    assert all(torch.equal(a, b) for a, b in zip(drawn, Batches(torch.arange(100, 123), 8, (0, "stage")).of_pass(0)))
    assert not torch.equal(torch.cat(drawn), torch.cat(batches.of_pass(1)))
    assert len(Batches(torch.arange(3), 8)) == 1


def test_epochs_of_any_length_go_through_pass_after_pass():
    batches = Batches(torch.arange(10), 4, (0, "s"))  # 3 batches a pass
    training = TrainingBatches(batches, 2)
    seen = [training.rows_of(epoch, i) for epoch in range(3) for i in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(seen, [*batches.of_pass(0), *batches.of_pass(1)]))
    assert torch.equal(TrainingBatches(batches, 2).rows_of(2, 1), seen[-1])  # without what came before, as after a resume


def test_the_sampler_draws_classes_alike():
    rows = torch.arange(1000)
    rare = rows < 100  # as many chances as all others together
    drawn = torch.cat(Batches(rows, 50, (0,), torch.where(rare, 1 / 100, 1 / 900).double()).of_pass(0))
    assert len(drawn) == 1000
    assert 0.42 < float((drawn < 100).float().mean()) < 0.58


def test_batches_hold_the_samples_they_name():
    trainer = make_classifier("fusion", tiny_fold(("image", "series"), absent=0.4))
    trainer.on_train_start()
    batch = trainer.next_batch(trainer.dataloader_train, 1, 0, "train")
    for place, name in enumerate(batch["keys"]):
        row = trainer.samples.ids.index(name)
        assert batch["rows"][place] == row
        assert batch["target"][place] == trainer.samples.targets[row]
        for part, stored in zip(batch["data"], trainer.samples.modalities.values()):
            if stored.row[row] >= 0:
                own = stored.values[stored.row[row]]
                assert torch.equal(part.values[place][: len(own)], own)
    loader = trainer.make_loader(trainer.training, 5, "meta")
    assert trainer.next_batch(loader, 3, "meta")["keys"] == trainer.next_batch(loader, 3, "meta")["keys"]
    assert trainer.next_batch(loader, 3, "meta")["keys"] != trainer.next_batch(loader, 4, "meta")["keys"]


def test_what_a_missingness_table_takes_away_is_never_looked_at():
    fold = tiny_fold(("image", "table"), n=48)
    taken = dict.fromkeys(fold.training[::2], (True, False))
    fold = replace(fold, available={**fold.available, **taken})
    table = fold.samples.modalities["table"]
    spoilt = table.values.clone()
    spoilt[[fold.samples.ids.index(name) for name in taken]] = math.nan
    other = replace(fold, samples=fold.samples.with_modality("table", replace(table, values=spoilt)))
    for method in ("fusion", "modality_dropout", "unimodal"):
        kept = {"subset": "table"} if method == "unimodal" else {}
        assert torch.equal(*(weights(train(make_classifier(method, f, **kept))) for f in (fold, other)))


def test_dropout_shows_less_and_only_where_it_is_asked_for():
    fold = tiny_fold(("image", "table", "series"), n=200)
    trainer = make_classifier("modality_dropout", fold)
    available = trainer.available_of(trainer.training)
    shown = trainer.draw(available)["present"]
    assert shown.any(1).all() and not shown.all()
    assert torch.equal(shown, trainer.draw(available)["present"])
    trainer.iteration = 1
    assert not torch.equal(shown, trainer.draw(available)["present"])
    assert make_classifier("modality_dropout", fold, drop=False).draw(available)["present"].all()
    assert make_classifier("fusion", fold).draw(available)["present"].all()


def test_augmentation_changes_training_batches_alone_and_the_same_way_again():
    fold = tiny_fold(("image", "table"))
    spec = {"type": "image2d", "normalisation": "half", "augmentation": "cxr", "channels": 1}
    fitted = {"modalities": {"image": {"spec": spec, "fitted": {"mean": [0.0], "sd": [1.0]}},
                             "table": {"spec": {"type": "array"}, "fitted": {}}}}
    trainer = make_classifier("fusion", fold)
    trainer.data = replace(trainer.data, fitted=fitted)
    trainer.on_train_start()
    batch, again, later = (trainer.next_batch(trainer.dataloader_train, epoch, 0, "train") for epoch in (0, 0, 1))
    plain = trainer.batch_of(batch["rows"])
    assert torch.equal(batch["data"][0].values, again["data"][0].values)
    assert not torch.equal(batch["data"][0].values, plain["data"][0].values)
    assert torch.equal(batch["data"][1].values, plain["data"][1].values)
    assert batch["keys"] != later["keys"]
    held = trainer.make_loader(batch["keys"], 100, "meta")
    shown = trainer.next_batch(held, 0)
    assert torch.equal(shown["data"][0].values, trainer.batch_of(shown["rows"])["data"][0].values)


# ---- samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_unlabelled_samples_are_not_trained_on(task):
    fold = tiny_fold(task=task)
    targets = fold.samples.targets.clone()
    targets[:4] = -1 if task == "multiclass" else math.nan
    if task == "multilabel":
        targets[5, 1:] = math.nan  # one label is known: that is enough
    trainer = train(make_classifier("fusion", replace(fold, samples=replace(fold.samples, targets=targets))))
    assert trainer.unlabelled == 4
    assert trainer.training == fold.training[4:]
    assert torch.isfinite(weights(trainer)).all()


def test_a_missing_table_takes_nothing_from_samples_that_are_not_trained_on():
    plain = tiny_fold()
    trainer = make_classifier("metakd", replace(plain, available=dict.fromkeys(plain.samples.ids, (False, True))))
    assert {trainer.available[name] for name in plain.training} == {(False, True)}
    for name in (*plain.validation, *plain.test):
        assert trainer.available[name] == trainer.files[name] == (True, True)


@pytest.mark.parametrize("method, settings", [
    ("simmlm", {"mofe": 0.0}), ("fusion", {"pretrain_encoders": True}),
    ("mind", {"teachers": 1, "teacher_encoders": "table:mlp8+table_b:mlp8", "student_rows": "all"}),
    ("ume", {"teacher_encoders": "table:mlp8+table_b:mlp8"})])
def test_a_stage_of_a_modality_that_nobody_has_is_passed_over(tmp_path, method, settings):
    plain = tiny_fold(("table", "table_b"))
    fold = replace(plain, available=dict.fromkeys(plain.samples.ids, (True, False)))
    trainer = train_stages(method, fold, tmp_path, **settings)
    assert trainer.current_epoch > 0 and (tmp_path / "checkpoint_final.pth").is_file()
    files = sorted(tmp_path.glob("stage_*_table*/checkpoint_final.pth"), reverse=True)
    idle, busy = (read_checkpoint(file) for file in files)
    assert (idle["current_epoch"], busy["current_epoch"]) == (0, 2) and "table_b" in idle["nnmiss"]["stage"]
    drawn = make_classifier(method, fold, idle["nnmiss"]["stage"], **settings).network.state_dict()
    assert all(torch.equal(value, drawn[name]) for name, value in idle["network_weights"].items())


def test_a_stage_without_samples_is_refused():
    fold = tiny_fold(available={f"s{i:03d}": (False, True) for i in range(24)})
    with pytest.raises(NnmissError, match="stage train of unimodal has no training sample in fold 0"):
        make_classifier("unimodal", fold, subset="image")


def test_held_out_samples_are_labelled_and_not_trained_on():
    class Holding(type(make_classifier("fusion", initialize=False))):
        def num_held_out(self):
            return 2

    fold = tiny_fold(n=40)
    trainer, subject = make_classifier(Holding, fold), dict(zip(fold.samples.ids, fold.samples.groups))
    assert len(trainer.held_out) == 2 and set(trainer.held_out) <= set(trainer.data.training)
    held = {subject[name] for name in trainer.held_out}
    assert set(trainer.training) == {name for name in trainer.data.training if subject[name] not in held}


def test_class_balance():
    samples = tiny_samples(("table", "table_b"), 48, "multiclass", 4)
    samples = replace(samples, targets=(samples.targets == 0).long())  # a quarter of class 1
    fold = tiny_fold(samples=samples, classes=2)
    samples.targets[len(fold.training):] = 1  # what is validated and tested does not count
    assert make_classifier("fusion", fold, class_balance="none").loss.class_weights is None
    weighted = make_classifier("fusion", fold, class_balance="weights").loss.class_weights
    assert weighted[1] / weighted[0] == pytest.approx(3)
    sampler = make_classifier("fusion", fold, class_balance="sampler")
    chances = sampler.get_dataloaders()[0].batches.weights
    truth = samples.targets[sampler.rows_of_ids(sampler.training)]
    assert float(chances[truth == 1].sum()) == pytest.approx(float(chances[truth == 0].sum()))
    assert sampler.loss.class_weights is None


def test_smote_makes_samples_of_what_training_may_use_alone():
    pytest.importorskip("imblearn")
    samples = tiny_samples(("table", "table_b"), 80, "multiclass", 4)
    samples = replace(samples, targets=(samples.targets == 0).long())
    names = [f"s{i:03d}" for i in range(80)]
    taken = dict.fromkeys(names[:40:4], (True, False))  # the rare class without its second table
    trainer = make_classifier("fusion", tiny_fold(samples=samples, classes=2, available=taken), class_balance="smote")
    truth = trainer.samples.targets[trainer.rows_of_ids(trainer.training)]
    assert truth.bincount().tolist() == [30, 30]
    made = [name for name in trainer.training if name not in names]
    assert len(made) == 20 and all(trainer.available[name] == trainer.files[name] == (True, False) for name in made)
    assert all(trainer.files[name] == (True, True) for name in names)  # validation still sees everything
    first = trainer.samples.modalities["table"]
    real = samples.modalities["table"].values[:40:4]
    new = first.values[first.row[trainer.rows_of_ids(made)]]
    assert (new >= real.amin(0) - 1e-5).all() and (new <= real.amax(0) + 1e-5).all()
    train(trainer)


# ---- the best epoch ---------------------------------------------------------------------------------------------


def test_the_final_checkpoint_holds_the_best_epoch_on_validation(tmp_path):
    trainer = train(make_classifier("fusion", tiny_fold(n=60), folder=tmp_path, num_epochs=12, initial_lr=0.01))
    scores = trainer.curves.columns["score"]
    best = max(range(12), key=lambda e: (scores[e], -trainer.curves.columns["val_losses"][e]))
    assert trainer.best["epoch"] == best
    final = read_checkpoint(tmp_path / "checkpoint_final.pth")
    again = make_classifier("fusion", tiny_fold(n=60), num_epochs=12, initial_lr=0.01)
    again.num_epochs = best + 1
    train(again)
    assert all(torch.equal(a, b) for a, b in zip(final["network_weights"].values(), again.network.state_dict().values()))
    assert final["current_epoch"] == 12 and len(final["logging"]["score"]) == 12
    assert not (tmp_path / "checkpoint_latest.pth").exists()


def test_a_modality_that_says_nothing_is_reported(tmp_path, capsys):
    """As a weight decay that is too strong for weak signals leaves it."""
    trainer = make_classifier("fusion", tiny_fold(), folder=tmp_path)
    predict_and_evaluate(trainer)
    assert "the same answer" not in capsys.readouterr().out
    with torch.no_grad():
        trainer.network.projections[1].weight.zero_()
    predict_and_evaluate(trainer)
    assert "with table alone the network gives every sample the same answer" in capsys.readouterr().out


def test_what_a_method_keeps_is_of_the_best_epoch_too(tmp_path, monkeypatch):
    monkeypatch.setattr(ClassificationValidation, "selection", lambda self, scores, loss: -self.current_epoch)
    trainer = train(make_classifier("metakd", tiny_fold(), folder=tmp_path, num_epochs=3, meta_interval=1))
    final, best = (read_checkpoint(tmp_path / f"checkpoint_{name}.pth")["nnmiss"] for name in ("final", "best"))
    w = final["state"]["importance"]["raw"]
    assert torch.equal(w, best["state"]["importance"]["raw"]) and not torch.equal(w, trainer.importance.raw.detach())
    assert final["last_iteration"] == 3 * trainer.num_iterations_per_epoch == 3 * best["last_iteration"]


def test_the_last_epoch_is_kept_when_asked_for_or_when_validation_has_no_labels(tmp_path):
    fold = tiny_fold(n=60)
    unlabelled = fold.samples.targets.clone()
    unlabelled[fold.samples.rows(fold.validation)] = -1
    blind = replace(fold, samples=replace(fold.samples, targets=unlabelled))
    for number, (data, settings) in enumerate([(fold, {"keep": "last"}), (blind, {})]):
        trainer = train(make_classifier("fusion", data, folder=tmp_path / str(number), num_epochs=4, **settings))
        final = read_checkpoint(tmp_path / str(number) / "checkpoint_final.pth")
        assert all(torch.equal(a, b) for a, b in zip(final["network_weights"].values(),
                                                     trainer.network.state_dict().values()))
    assert trainer.best is None


class Judge(ClassificationValidation):
    """Scores that are said, not measured."""

    modalities, task, classes, patience, select_by = ["a", "b"], "multiclass", ["x", "y"], 2, "auto"
    select_on = "mean"

    def __init__(self):
        from nnmiss.trainers.classification_curves import Curves

        self.best, self.current_epoch, self.curves = None, 0, Curves()

    def reported_subsets(self):
        return [(True, False), (False, True), (True, True)]

    def validation_scores(self, outputs):
        return outputs[0]

    def say(self, loss, **scores):
        self.on_validation_epoch_end([(loss, scores)])
        self.current_epoch += 1
        return self.ended_early


def test_epochs_are_compared_by_score_then_by_loss_and_patience_ends_a_stage():
    judge = Judge()
    assert not judge.say(1.0, a=0.5, b=0.7, available=0.0)
    assert judge.best["score"] == pytest.approx(0.6)  # the mean of the subsets; `available` repeats them
    assert not judge.say(0.9, a=0.6, b=0.6)
    assert judge.best["epoch"] == 1  # as good, with a lower loss
    assert not judge.say(0.1, a=0.5, b=0.5)
    assert judge.say(0.1, a=math.nan, b=0.55)
    assert judge.best["epoch"] == 1
    undefined = Judge()
    undefined.say(0.5, a=math.nan, available=math.nan)
    undefined.say(0.4, a=math.nan, available=math.nan)
    assert undefined.best == {"epoch": 1, "score": -0.4, "loss": 0.4}


def test_what_epochs_are_compared_on():
    fold = tiny_fold(("image", "table"), n=40, absent=0.3)
    every = make_classifier("fusion", fold, select_on="mean").validated_subsets()
    assert every == {"image": (True, False), "table": (False, True), "image+table": (True, True), "available": (True, True)}
    for asked, name in (("full", "image+table"), ("TABLE", "table"), ("table+image", "image+table"), ("available",) * 2):
        assert list(make_classifier("fusion", fold, select_on=asked).validated_subsets()) == [name]
    many = tiny_fold(["table", *(f"table_{i}" for i in range(5))])  # of six modalities not all subsets are reported
    assert make_classifier("fusion", many, select_on="table+table_3").validated_subsets() == {
        "table+table_3": (True, False, False, False, True, False)}
    alone = make_classifier("unimodal", fold, subset="table", select_on="available")
    assert list(alone.validated_subsets()) == ["table"]  # the only one there is


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "auroc", "auprc", "loss"])
def test_epoch_scores_count_what_is_there_in_full(task, name):
    """Against scikit-learn, sample by sample through the network."""
    fold = tiny_fold(("image", "table"), task, n=80, absent=0.4)
    trainer = make_classifier("fusion", fold, select_by=name, select_on="full")
    trainer.on_train_start()
    with torch.no_grad():
        trainer.network.eval()
        _, scores = trainer.validation_scores([trainer.validation_step(trainer.batch_of(rows))
                                               for rows in trainer.dataloader_val])
        whole = [i for i in trainer.samples.rows(fold.validation).tolist() if trainer.samples.available[i].all()]
        assert 0 < len(whole) < len(fold.validation)
        logits = torch.cat([trainer.network(trainer.samples.inputs(torch.tensor([i]))) for i in whole])
    truth = trainer.samples.targets[whole]
    assert scores == {"image+table": pytest.approx(by_scikit_learn(name, logits, truth, task), rel=1e-5)}


def by_scikit_learn(name, logits, truth, task):
    from sklearn import metrics
    from torch.nn import functional as F

    if name == "loss":
        loss = F.cross_entropy if task == "multiclass" else F.binary_cross_entropy_with_logits
        return -float(loss(logits, truth))
    p = (logits.softmax(1) if task == "multiclass" else logits.sigmoid()).numpy()
    y = (F.one_hot(truth, p.shape[1]) if task == "multiclass" else truth).numpy()
    if name in ("auroc", "auprc"):
        one = metrics.roc_auc_score if name == "auroc" else metrics.average_precision_score
        return sum(one(y[:, k], p[:, k]) for k in range(p.shape[1])) / p.shape[1]
    if task == "multilabel":
        one = metrics.accuracy_score if name == "accuracy" else metrics.f1_score
        return sum(one(y[:, k], p[:, k] >= 0.5) for k in range(p.shape[1])) / p.shape[1]
    said, true = (p.argmax(1), truth.numpy()) if task == "multiclass" else (p[:, 0] >= 0.5, y[:, 0])
    return metrics.accuracy_score(true, said) if name == "accuracy" else metrics.f1_score(true, said, average="macro")


def test_a_score_of_nothing_or_of_one_class_is_undefined():
    assert math.isnan(score("accuracy", torch.empty(0, 3), torch.empty(0), "multiclass"))
    assert math.isnan(score("auroc", torch.randn(4, 1), torch.ones(4, 1), "binary"))


# ---- optimisation -----------------------------------------------------------------------------------------------


def rates(name, epochs=6, scores=(), **settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    schedule = EpochSchedule(optimizer, name, epochs, settings.get("decay", 0.5), settings.get("every", 2), list(scores))
    found = []
    for epoch in range(epochs):
        schedule.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_learning_rates():
    assert rates("constant") == [1.0] * 6
    assert rates("step") == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert rates("poly") == pytest.approx([(1 - e / 6) ** 0.9 for e in range(6)])
    assert rates("cosine") == pytest.approx([0.5 * (1 + math.cos(math.pi * e / 6)) for e in range(6)])
    assert rates("plateau", scores=[0.1, 0.2, 0.2, 0.1, 0.3, 0.3]) == [1, 1, 1, 1, 0.5, 0.5]
    assert plateaus([0.5, 0.4, 0.4, 0.4, 0.4], 2) == 2


@pytest.mark.parametrize("name, kind", [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizers_by_name(name, kind):
    optimizer = make_classifier("fusion", optimizer_name=name, initial_lr=0.02, weight_decay=0.3).optimizer
    assert type(optimizer) is kind
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.02, 0.3)


def test_a_loss_that_is_not_finite_ends_the_training_by_name():
    fold = tiny_fold()
    table = fold.samples.modalities["table"]
    broken = fold.samples.with_modality("table", StoredModality(table.values * math.nan, table.row))
    with pytest.raises(NnmissError, match="not finite in 2 of 2 iterations of epoch 0 of stage joint: lower --set"):
        train(make_classifier("fusion", replace(fold, samples=broken)))


def test_training_learns(tmp_path):
    fold = tiny_fold(("table", "table_b"), n=120)
    assert train(make_classifier("fusion", fold, num_epochs=25, initial_lr=0.01)).best["score"] > 0.7
    alone = train(make_classifier("unimodal", fold, num_epochs=25, initial_lr=0.01, subset="table_b"))
    assert alone.best["score"] > 0.6 and alone.reported_subsets() == [(False, True)]


def test_encoders_are_trained_alone_first(tmp_path):
    fold = tiny_fold(("image", "table"), n=40, absent=0.3)
    trainer = train_stages("fusion", fold, tmp_path, pretrain_encoders=True, keep="last", num_epochs=1)
    assert [stage.name for stage in trainer.stages] == ["encoder_image", "encoder_table", "joint"]
    started = make_classifier("fusion", fold, pretrain_encoders=True)
    started.begin_stage(lambda stage: read_checkpoint(tmp_path / f"stage_{stage}" / "checkpoint_final.pth"))
    for encoder, stage in zip(started.network.encoders, ("encoder_image", "encoder_table")):
        alone = make_classifier("fusion", fold, stage, pretrain_encoders=True)
        assert stage == f"encoder_{alone.modalities[alone.alone]}"
        assert all(alone.available[name][alone.alone] for name in alone.training)
        alone.load_checkpoint(tmp_path / f"stage_{stage}" / "checkpoint_final.pth")
        assert all(torch.equal(a, b) for a, b in zip(encoder.state_dict().values(),
                                                     alone.network.expert.encoder.state_dict().values()))


def test_the_documented_method_trains():
    text = PAGE.read_text(encoding="utf-8")
    defined: dict = {}
    exec(text.partition("```python\n")[2].partition("```")[0], defined)
    trainer = train(make_classifier(defined["nnMissClassifierMine"], alpha=0.3))
    parts = trainer.progress.parts
    assert trainer.alpha == 0.3 and all(a > b for a, b in zip(parts["loss"], parts["task"]))


def test_every_common_setting_is_documented():
    text = PAGE.read_text(encoding="utf-8")
    cls = type(make_classifier("fusion", initialize=False))
    assert [name for name in {**cls.common, **cls.common_network} if f"`{name}`" not in text] == []


def test_a_subset_that_no_validation_sample_has_in_full_is_noted():
    fold = replace(tiny_fold(("image", "table"), n=60, absent=0.5), fitted={"modalities": {}})
    both = [name for name in fold.validation if fold.samples.available[fold.samples.ids.index(name)].all()]
    fewer = replace(fold, validation=[name for name in fold.validation if name not in both])
    for samples, select_on, wanted in ((fewer, "full", True), (fewer, "mean", False), (fold, "full", False)):
        trainer = make_classifier("fusion", samples, select_on=select_on)
        trainer.data = samples
        notes = sample_notes(trainer)
        assert any("no labelled validation sample has all of image+table" in note for note in notes) is wanted
