"""Which of MetaKD's settings mean nothing together, found before anything is trained."""
from __future__ import annotations

from nnmiss.errors import NnmissError

FULL_SET = ("decoder", "logits")  # places where all that a case has teaches its subset


def check_variant(settings: dict) -> None:
    """Refuses combinations of settings that mean nothing. Raises NnmissError that says what to change."""
    get = settings.get
    places, full = get("places"), get("places") in FULL_SET
    refusals = (
        (full and get("direction") != "detached",
         f"direction={get('direction')}: with places={places} all that a case has teaches its subset, without gradient: "
         "leave direction out"),
        (places == "logits" and (get("distance") != "lp" or get("projector")),
         "places=logits compares probabilities: leave distance and projector out"),
        (places == "logits" and get("guard") in ("variance", "between_cases"),
         f"guard={get('guard')} is for features: with places=logits use none or foreground"),
        (get("distance") != "lp" and get("p") != 1, f"p={get('p')} is the norm of distance=lp: leave it out"),
        (get("per_region") and get("weighting") not in ("forward", "leave_one_out"),
         f"per_region=true needs scores of regions, which weighting={get('weighting')} has not: use weighting=forward or "
         "weighting=leave_one_out"),
        (get("teacher") == "average" and not full, f"teacher=average teaches subsets: use places=decoder or places=logits, "
                                                   f"not {places}"),
        (get("teacher") == "average" and not get("ema_decay"), "teacher=average is the moving average of the weights: set "
                                                               "ema_decay, such as 0.99"),
        (get("teacher") == "average" and get("full_task", 0) > 0,
         "teacher=average and full_task would decode the full set with two networks: leave one of them out"),
    )
    for refused, message in refusals:
        if refused:
            raise NnmissError(message)
