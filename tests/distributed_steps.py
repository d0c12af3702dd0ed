"""What the processes of test_distributed.py do: one training step of every method and stage, and a Dice in parts."""
from __future__ import annotations

from pathlib import Path

import torch
from nnunetv2.utilities.helpers import softmax_helper_dim1
from tiny_dataset import DATASET, PLANS

from nnmiss.trainers import processes as group
from nnmiss.trainers.distributed import GatheredDice, part_of
from nnmiss.trainers.run import RunArguments, make_run

ALONE = (False, True, False, False)
# method, stage, settings, whether Dice is that of the batch. Batches of 3: one process has two samples, the other one
STEPS = (
    ("modality_dropout", "train", {}, False),
    ("modality_dropout", "train", {}, True),
    ("metakd", "warmup", {"micro_batch": "3"}, False),
    ("metakd", "missing", {"micro_batch": "3"}, True),
    ("metakd", "missing", {"micro_batch": "1"}, False),
    ("metakd", "missing", {"preset": "best", "micro_batch": "3"}, True),
    ("metakd", "missing", {"micro_batch": "3", "places": "decoder", "projector": "true", "full_task": "1"}, True),
    ("metakd", "missing", {"micro_batch": "3", "places": "logits", "weighting": "averaged"}, False),
    ("metakd", "missing", {"modality_specific": "norm", "separate_stages": "1", "fusion": "gated", "micro_batch": "3"},
     False),
    ("lckd", "missing", {"modality_specific": "embedding", "fusion": "mean_variance", "imputation": "none",
                         "micro_batch": "3", "activation_checkpointing": "true", "election_cases": "2"}, False),
    ("lckd", "warmup", {"places": "every_stage", "election_cases": "2"}, False),
    ("simmlm", "expert_t1", {}, False),
    ("simmlm", "joint", {}, True),
    ("all_stage", "reconstruct", {"prompt": "binary"}, False),
    ("all_stage", "segment", {"prompt": "binary"}, False),
    ("all_stage", "approximate", {"prompt": "none"}, True),
    ("all_stage", "codistil", {"prompt": "none"}, True),
)


def gradients(number: int) -> dict[str, torch.Tensor | None]:
    """Gradients after one step of a method on a batch whose first sample has everything and whose last has one modality.

    Also what it logged, and metakd's w after its update. With a teacher behind the network in double precision: what a
    convolution of one sample rounds otherwise than that of two, two networks in a row enlarge beyond 1e-5.
    """
    torch.set_default_dtype(torch.float64 if STEPS[number][1] in ("approximate", "codistil") else torch.float32)
    try:
        return step_of(*STEPS[number], f"step{number}")
    finally:
        torch.set_default_dtype(torch.float32)


def step_of(method: str, stage: str, settings: dict, batch_dice: bool, tag: str) -> dict[str, torch.Tensor | None]:
    settings = dict(settings)
    run = make_run(RunArguments(DATASET, method, 0, plans_name=PLANS, tag=tag, preset=settings.pop("preset", "paper"),
                                assignments={"batch_size": "3", "num_iterations_per_epoch": "2", **settings}))
    run.configuration["batch_dice"] = batch_dice
    trainer = run.make_trainer(stage)
    trainer.initialize()
    trainer.get_tr_and_val_datasets()  # says which cases are held out
    trainer.network.train()
    complete = next(case for case, row in trainer.available.items() if all(row))
    trainer.available["alone"] = ALONE
    batch = {**noise(trainer, 3), "keys": [complete, complete, "alone"]}
    trainer.meta_loader = iter([{**noise(trainer, 3), "keys": [complete, "alone", complete]}])
    out = trainer.outputs_of_all([trainer.train_step(trainer.my_part(batch))])[0]
    found = {name: None if p.grad is None else p.grad.clone() for name, p in trainer.bare_network.named_parameters()}
    if method == "metakd":
        found["w"] = next(iter(trainer.importance.state_dict().values())).clone()
    if method == "lckd":
        found["teachers"] = torch.tensor(trainer.teachers, dtype=torch.float)
    return {**found, "logged": torch.tensor([out[name] for name in sorted(out)])}


def noise(trainer, samples: int) -> dict:
    """Samples of noise with their targets at every scale of deep supervision."""
    generator = torch.Generator().manual_seed(samples)
    patch = trainer.configuration_manager.patch_size
    channels = len(trainer.label_manager.foreground_regions) if trainer.label_manager.has_regions else 1
    target = (torch.rand(samples, channels, *patch, generator=generator) > 0.7).float()
    scales = trainer._get_deep_supervision_scales()
    return {"data": torch.randn(samples, 4, *patch, generator=generator),
            "target": [torch.nn.functional.interpolate(target, scale_factor=scale) for scale in scales]}


def in_process(folder: str, numbers: list[int]) -> None:
    """What each of two processes does: the steps' gradients and Dice losses, into `folder`."""
    torch.save({number: gradients(number) for number in numbers}, Path(folder) / f"gradients{group.rank()}.pt")
    torch.save(gathered_dice(), Path(folder) / f"dice{group.rank()}.pt")


def dice_data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(3, 3, 6, 5, generator=generator), torch.randint(0, 3, (3, 1, 6, 5), generator=generator),
            torch.rand(3, 1, 6, 5, generator=generator) > 0.3)


def gathered_dice() -> list[torch.Tensor]:
    """Dice and its gradient for this process's rows."""
    rows, weight = part_of(3)
    x, y, mask = (t[rows] for t in dice_data())
    results = []
    for counts in (None, mask):
        logits = x.clone().requires_grad_()
        loss = GatheredDice(softmax_helper_dim1, False, 1e-5)(logits, y, counts)
        (loss * weight).backward()
        results += [loss.detach(), logits.grad / 2]  # DDP would divide by the number of processes
    return results
