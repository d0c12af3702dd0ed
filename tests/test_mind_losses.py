"""MIND's distillation (Eq. 1, 3, 4) and utilisation (Eq. 6), against slow references written from the paper."""
from __future__ import annotations

import math

import pytest
import torch

from nnmiss.errors import NnmissError
from nnmiss.losses.ensemble_distillation import consistency, ensemble_distillation, ensemble_targets
from nnmiss.trainers import utilisation
from nnmiss.trainers.modality_weights import parse_weights
from nnmiss.trainers.teacher_list import num_listed, teachers_of


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def softmax(z: list[float], tau: float) -> list[float]:
    powers = [math.exp(v / tau) for v in z]
    return [p / sum(powers) for p in powers]


def by_hand(student, teachers, task: str, reduction: str = "sum", tau: float = 1.0) -> float:
    """Eq. 4, then Eq. 3 (labels) or the KL divergence with Hinton's tau^2 (classes), one number after the other."""
    total = 0.0
    for i, z in enumerate(student.tolist()):
        of_teachers = [t[i] for t in teachers.tolist()]
        if task == "multiclass":
            mean = [sum(p) / len(teachers) for p in zip(*[softmax(t, tau) for t in of_teachers])]
            total += tau**2 * sum(t * math.log(t / s) for t, s in zip(mean, softmax(z, tau)))
            continue
        mean = [sum(map(sigmoid, column)) / len(teachers) for column in zip(*of_teachers)]
        labels = [-t * math.log(sigmoid(v)) - (1 - t) * math.log(1 - sigmoid(v)) for t, v in zip(mean, z)]
        total += sum(labels) / (len(labels) if reduction == "mean" else 1)
    return total / len(student)


@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize(("task", "outputs", "reduction", "tau"), [
    ("binary", 1, "sum", 1.0), ("binary", 1, "mean", 1.0), ("multilabel", 25, "sum", 1.0), ("multilabel", 25, "mean", 1.0),
    ("multiclass", 4, "sum", 1.0), ("multiclass", 4, "sum", 3.0)])
def test_distillation_is_the_papers(task, outputs, reduction, tau, teachers):
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(6, outputs, generator=generator) * 2
    ensemble = torch.randn(teachers, 6, outputs, generator=generator) * 2
    loss = ensemble_distillation(student, ensemble_targets(ensemble, task, tau), task, reduction, tau)
    assert math.isclose(float(loss), by_hand(student, ensemble, task, reduction, tau), rel_tol=1e-5)


def test_the_mean_is_over_probabilities_not_logits():
    logits = torch.tensor([[[8.0]], [[-1.0]]])
    assert torch.allclose(ensemble_targets(logits, "binary"), (logits[0].sigmoid() + logits[1].sigmoid()) / 2)
    assert not torch.allclose(ensemble_targets(logits, "binary"), logits.mean(0).sigmoid(), atol=0.1)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_distillation_teaches_the_student_only_and_bears_no_rows(task):
    outputs = 1 if task == "binary" else 3
    student, teacher = torch.randn(2, outputs, requires_grad=True), torch.randn(1, 2, outputs, requires_grad=True)
    ensemble_distillation(student, ensemble_targets(teacher, task), task).backward()
    assert student.grad.any() and teacher.grad is None
    empty = ensemble_distillation(student[:0], torch.zeros(0, outputs), task)
    assert empty.item() == 0 and empty.requires_grad


def test_extreme_logits_give_finite_losses():
    student = torch.tensor([[200.0, -200.0, 0.0]])
    for task in ("multiclass", "multilabel"):
        assert torch.isfinite(ensemble_distillation(student, ensemble_targets(-student[None], task), task))


def test_consistency_by_hand():
    clean, noisy = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    assert math.isclose(float(consistency(clean, noisy, "multiclass")), 2 * 0.25**2, rel_tol=1e-6)
    assert float(consistency(clean, clean, "multilabel")) == 0


# ---- utilisation ------------------------------------------------------------------------------------------------


def test_two_modalities_are_equation_six():
    a_ab, a_a, a_b = 0.8, 0.6, 0.72
    full, without_a, without_b = a_ab, a_b, a_a
    u_a, u_b, difference = utilisation.row(full, [without_a, without_b])
    assert math.isclose(u_a, (a_ab - a_b) / a_ab) and math.isclose(u_b, (a_ab - a_a) / a_ab)
    assert math.isclose(difference, u_a - u_b) and difference < 0
    assert utilisation.leave_one_out(2).tolist() == [[True, True], [False, True], [True, False]]


def test_three_modalities_leave_one_out():
    *rates, difference = utilisation.row(0.9, [0.9, 0.45, 0.72])
    assert [round(rate, 6) for rate in rates] == [0.0, 0.5, 0.2] and math.isclose(difference, 0.5)
    assert utilisation.leave_one_out(3).tolist()[1:] == [[False, True, True], [True, False, True], [True, True, False]]
    assert utilisation.columns(["a", "b", "c"]) == ["u_a", "u_b", "u_c", "d_util"]


@pytest.mark.parametrize("values", [(0.0, [0.5, 0.5]), (math.nan, [0.5, 0.5]), (0.5, [math.nan, 0.5])])
def test_unknown_rates_are_not_invented(values):
    assert math.isnan(utilisation.row(*values)[-1])


# ---- settings ---------------------------------------------------------------------------------------------------


def test_weights_of_modalities():
    names = ["image", "ehr"]
    assert parse_weights("omega", "2.5", names) == {"image": 2.5, "ehr": 2.5}
    assert parse_weights("omega", "EHR:50", names) == {"image": 1.0, "ehr": 50.0}
    assert parse_weights("omega", "image:0+ehr:1e2", names) == {"image": 0.0, "ehr": 100.0}
    for bad in ("-1", "nan", "many", "image:1+3", "image:1+image:2", "sound:1", ""):
        with pytest.raises(NnmissError):
            parse_weights("omega", bad, names)


def test_teachers_follow_the_students_encoder_unless_listed():
    names, text = ["image", "ehr"], "image:resnet18+resnet10"
    assert teachers_of(text, names, "image", {"name": "lenet"}) == ["resnet18", "resnet10"]
    assert teachers_of(text, names, "ehr", {"name": "lstm", "layers": 2}) == ["lstm2", "lstm3", "lstm4"]
    assert teachers_of("", names, "image", {"name": "resnet10"}) == ["resnet34", "resnet18", "resnet10"]
    assert teachers_of("", names, "image", {"name": "resnet6"}) == ["resnet18"] * 3
    assert teachers_of("", names, "ehr", {"name": "mlp", "hidden": [8, 4]}) == ["mlp8x4", "mlp16x8", "mlp16x8x8"]
    assert num_listed(text, names) == {"image": 2, "ehr": 3}
    for bad in ("resnet18", "image:resnet11", "sound:resnet10"):
        with pytest.raises(NnmissError):
            num_listed(bad, names)


def test_every_encoder_has_teachers():
    from nnmiss.networks.encoders import ENCODERS, encoder_spec

    for name in ENCODERS:
        for teacher in teachers_of("", ["m"], "m", {"name": name}):
            encoder_spec(teacher)
