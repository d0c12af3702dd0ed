"""MetaKD's outer problem: how much each modality counts, learned or measured on held-out cases."""
from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nnmiss.losses.feature_statistics import collapse_statistics, generation_statistics
from nnmiss.losses.importance import NORMALISATIONS, WEIGHTINGS, ImportanceWeights, ScoredImportance
from nnmiss.losses.teacher_election import compare_modalities
from nnmiss.networks.base import item_index
from nnmiss.seeding import torch_generator

from .processes import agreed, mean_of_all

LEARNED = ("bilevel", "averaged")  # by a gradient; the others are measured without


class ModalityImportance:
    """Importance weights w and their log, the same for segmentation and classification; mixed into MetaKD.

    `weighting` says where w comes from:

    - "bilevel": the gradient of the task loss on a random held-out batch (Eq. 4, first line), as published.
    - "averaged": the same gradient averaged over all held-out cases, w equal at first and 1 in the mean, because on single
      batches w followed the batch.
    - "forward": how well each modality alone predicts the held-out cases.
    - "leave_one_out": how much worse they are predicted without it.
    - "equal": 1 for all, the ablation.
    """

    settings_of_w = {
        "normalisation": "softmax",  # of w, Eq. 6; "relu" and "sigmoid" are Table 6
        "meta_interval": 100,  # iterations between updates of w, section 8
        "fewest_updates": 10,  # of w in a stage, however short: 10 leave a random w as drawn, 100 and more order it
        "meta_steps": 1,  # optimiser steps per update of w
        "meta_batch_size": 0,  # cases per step; 0: the plan's batch size
        "meta_lr": 1e-2,  # Adam on w, section 8
        "largest_ratio": 100.0,  # w_i / w_j stay within this and its inverse; 10 keeps one modality from all the loss
        "forward_temperature": 0.25,  # of the softmax over scores (forward, leave_one_out); 0: w in proportion to them
    }
    run_settings_of_w = {"weighting": "bilevel"}  # where w comes from, see above
    limits_of_w = {"meta_interval": (1, 10**7), "fewest_updates": (1, 10**7), "meta_steps": (1, 10**4),
                   "meta_batch_size": (0, 10**4), "meta_lr": (1e-12, 1e3), "meta_weight_decay": (0, 1e3),
                   "largest_ratio": (1, 1e6), "forward_temperature": (0, 1e3)}
    choices_of_w = {"normalisation": tuple(NORMALISATIONS), "weighting": WEIGHTINGS}
    per_region = False  # one vector w per region

    @classmethod
    def without_effect(cls, settings):
        by_gradient = ("normalisation", "meta_steps", "meta_lr", "meta_weight_decay")
        needs = {} if settings["weighting"] in LEARNED else dict.fromkeys(by_gradient, "weighting=bilevel or averaged")
        if settings["weighting"] in (*LEARNED, "equal"):
            needs["forward_temperature"] = "weighting=forward or leave_one_out"
        if settings["weighting"] == "equal":
            needs["largest_ratio"] = "weights that differ (weighting)"
            if not settings["alpha"]:
                needs |= dict.fromkeys(("meta_interval", "meta_batch_size", "fewest_updates"),
                                       "an alpha above 0 or a weighting")
        return {**super().without_effect(settings), **needs}

    def initialize(self):
        super().initialize()
        count = len(self.modalities)
        if self.weighting in LEARNED:
            start = torch_generator(self.seed, self.method, "importance weights")
            self.importance = ImportanceWeights(count, self.normalisation, start, self.weighting == "averaged",
                                                self.largest_ratio).to(self.device)
            self.importance_optimizer = torch.optim.Adam(self.importance.parameters(), self.meta_lr,
                                                         weight_decay=self.meta_weight_decay)
        else:
            regions = len(self.region_names()) if self.per_region else 1
            self.importance = ScoredImportance(count, regions, self.forward_temperature, self.largest_ratio).to(self.device)
        self._fixed: list[dict] = []

    # ---- what segmentation and classification write -------------------------------------------------------------

    def meta_batch(self, step: int) -> dict:
        """Random held-out cases of one step."""
        return self.next_batch(self.meta_loader, self.iteration, step, "meta")

    def make_fixed_batches(self) -> list[dict]:
        """All held-out cases, the same at every update."""
        raise NotImplementedError

    def scores_of(self, logits: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """(B, K) float in 0 to 1: how well each sample's regions are predicted; NaN where there is nothing to predict."""
        raise NotImplementedError

    def region_names(self) -> list[str]:
        """What `scores_of` tells apart."""
        raise NotImplementedError

    # ---- updates ------------------------------------------------------------------------------------------------

    @property
    def update_interval(self) -> int:
        """Iterations between updates of w; shorter in short runs, so that every stage has `fewest_updates`."""
        return interval_of_updates(self.num_epochs * self.num_iterations_per_epoch, self.meta_interval, self.fewest_updates)

    @property
    def w_counts(self) -> bool:
        """Whether w is measured, or features are distilled, whose statistics are logged with it; else nothing is."""
        return self.alpha > 0 or self.weighting != "equal"

    @property
    def looks_at_held_out(self) -> bool:
        return self.w_counts

    def before_iteration(self):
        if self.w_counts and self.iteration % self.update_interval == 0:
            seen = [self.update_importance(step) for step in range(self.meta_steps if self.weighting in LEARNED else 1)]
            bottleneck, present = (torch.cat(parts) for parts in zip(*seen))
            self.log_importance(bottleneck, item_index(present))

    def fixed_batches(self) -> list[dict]:
        """`make_fixed_batches`, made once."""
        self._fixed = self._fixed or self.make_fixed_batches()
        return self._fixed

    def update_importance(self, step: int) -> tuple[Tensor, Tensor]:
        """One update of w; `step` numbers those of an iteration.

        Returns:
            The bottleneck features (P, C, *spatial) and what was shown (B, M), for the log.
        """
        if self.weighting not in LEARNED:
            return self.measure_importance()
        if self.weighting == "bilevel":
            batch = self.meta_batch(step)
            gradient, *seen = self.outer_gradient(batch)
            self.move_importance(mean_of_all(gradient, batch.get("weight", 1.0)))
            return tuple(seen)
        batches = self.fixed_batches()
        gradients, *seen = zip(*(self.outer_gradient(batch) for batch in batches))
        sizes = [len(batch["keys"]) for batch in batches]
        self.move_importance(agreed((sum(g * size for g, size in zip(gradients, sizes)) / sum(sizes)).cpu()))
        return tuple(torch.cat(parts) for parts in seen)

    def outer_gradient(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of w of the task loss of w-weighted features on held-out cases (Eq. 4, first line), and what was seen.

        First order, as in the official code: the network is taken as it is and gets no gradient.
        """
        x, target = self.to_device(batch)
        present, network = self.available_of(batch["keys"]), self.inference_network
        with frozen(network), self.autocast():
            logits, features = network(x, present, importance=self.importance(), return_features=True)
            loss = self.loss(logits, target)
        # in half precision the gradient, a mean over voxels, would fall below the smallest number without scaling
        scale = self.grad_scaler.get_scale() if self.grad_scaler is not None else 1.0
        gradient = torch.autograd.grad(loss * scale, [self.importance.raw])[0] / scale
        return gradient, features[-1].detach(), present

    def move_importance(self, gradient: Tensor) -> None:
        """One step of Adam on w."""
        if torch.isfinite(gradient).all():  # else the scale was too large, and the training steps will lower it
            self.importance.raw.grad = gradient.to(self.importance.raw.device)
            self.importance_optimizer.step()

    @torch.no_grad()
    def measure_importance(self) -> tuple[Tensor, Tensor]:
        """Scores every modality on the held-out cases, alone or by leaving it out; returns as `update_importance`."""
        tables, seen, network = [], [], self.inference_network
        with frozen(network), self.autocast():
            for batch in self.fixed_batches():
                x, target = self.to_device(batch)
                available = self.available_of(batch["keys"])
                logits, features = network(x, available, return_features=True)
                seen.append((features[-1], available))
                if self.weighting != "equal":
                    tables.append(self.single_scores(x, target, available, self.scores_of(logits, target)))
        if tables:
            table = compare_modalities(torch.cat(tables).cpu())  # (M, K)
            self.importance.update(agreed(table.T if self.per_region else table.nanmean(1)[None]))
        return tuple(torch.cat(parts) for parts in zip(*seen))

    def single_scores(self, x, target, available: Tensor, full: Tensor) -> Tensor:
        """(B, M, K): the score of each modality alone, or `full` (B, K) minus that without it; NaN where not had."""
        columns = []
        for m in range(len(self.modalities)):
            only = torch.arange(len(self.modalities), device=available.device) == m
            shown = available & (only if self.weighting == "forward" else ~only)
            had = available[:, m] & shown.any(1)  # (B,)
            scores = self.scores_of(self.inference_network(x, torch.where(had[:, None], shown, available)), target)
            columns.append(torch.where(had[:, None], scores if self.weighting == "forward" else full - scores, torch.nan))
        return torch.stack(columns, 1)

    # ---- log and checkpoint -------------------------------------------------------------------------------------

    def log_importance(self, bottleneck: Tensor, index: Tensor) -> None:
        """Fig. 4 (w), Fig. 5 (generated against true features) and what reveals collapse, over iterations."""
        iteration = self.first_iteration + self.iteration
        names, values = self.modalities, self.importance().tolist()
        if self.per_region:
            names = [f"{region}:{modality}" for region in self.region_names() for modality in self.modalities]
            values = self.importance.table().flatten().tolist()
        if self.weighting != "equal":
            self.progress.add_row("importance_weights", names, iteration, values)
        collapse, generated = collapse_statistics(bottleneck, index), generation_statistics(bottleneck, index)
        nan = (float("nan"), float("nan"))
        columns = {f"collapse:{name.replace('_', ' ')}": value for name, value in collapse.items()}
        for position, name in enumerate(("L1 distance", "cosine similarity")):
            columns.update({f"{name} of generated and true feature:{modality}": generated.get(m, nan)[position]
                            for m, modality in enumerate(self.modalities)})
        self.progress.add_row("features", list(columns), iteration, list(columns.values()))

    def status(self) -> str:
        if self.weighting == "equal":
            return ""
        weights = " ".join(f"{m} {w:.2f}" for m, w in zip(self.modalities, self.importance().tolist()))
        return f", w {weights}"

    def method_state(self):
        state = {"importance": self.importance.state_dict()}
        if self.weighting in LEARNED:
            state["importance_optimizer"] = self.importance_optimizer.state_dict()
        return state

    def load_method_state(self, state):
        self.importance.load_state_dict(state["importance"])
        if self.weighting in LEARNED:
            self.importance_optimizer.load_state_dict(state["importance_optimizer"])
            for group in self.importance_optimizer.param_groups:  # the stage before may have had others
                group.update(lr=self.meta_lr, weight_decay=self.meta_weight_decay)


@contextmanager
def frozen(network: nn.Module):
    """While open, `network` is taken as it is: no parameter asks for a gradient, no dropout, no statistics are updated."""
    learning, training = [p for p in network.parameters() if p.requires_grad], network.training
    network.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        network.train(training)


def interval_of_updates(iterations: int, most: int, fewest_updates: int) -> int:
    """Iterations between updates of w in a stage of so many: `most`, or fewer for `fewest_updates` of them."""
    return min(most, max(1, iterations // fewest_updates))
