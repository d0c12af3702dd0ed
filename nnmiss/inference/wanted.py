"""Which subsets of a case are to be predicted, and into which folder."""
from __future__ import annotations

from dataclasses import dataclass

from nnmiss.availability import Present, subset_name
from nnmiss.errors import NnmissError


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        shown: show only these modalities, if the case has them (`--modalities`); None: each case's own.
        subsets: predict each of these into its own sub-folder (`--subsets`, `--all_subsets`); None: one prediction.
    """

    shown: Present | None = None
    subsets: tuple[Present, ...] | None = None

    def of_case(self, case: str, available: Present,
                modalities: list[str]) -> tuple[dict[str, Present], list[str]]:
        """(sub-folder -> subset, messages) of one case; the sub-folder is "" for a single prediction.

        A modality of `shown` that the case lacks is left out with a message. A subset the case does not have in full
        is not predicted, with a message, because its folder would say something untrue.

        Raises:
            NnmissError: nothing of what was asked for can be predicted.
        """
        has = subset_name(available, modalities)
        if self.subsets is not None:
            possible = [s for s in self.subsets if not any(w and not a for w, a in zip(s, available))]
            if not possible:
                raise NnmissError(f"case {case} has {has} and none of the requested subsets in full")
            left_out = len(self.subsets) - len(possible)
            notes = [f"case {case} has {has}: {left_out} of {len(self.subsets)} subsets need more and are left out"]
            return {subset_name(s, modalities): s for s in possible}, notes if left_out else []
        if self.shown is None:
            return {"": available}, []
        present = tuple(w and a for w, a in zip(self.shown, available))
        asked = subset_name(self.shown, modalities)
        if not any(present):
            raise NnmissError(f"case {case} has {has} and none of the requested modalities {asked}")
        if present != self.shown:
            return {"": present}, [f"warning: case {case} lacks part of {asked}: predicted with "
                                   f"{subset_name(present, modalities)}"]
        return {"": present}, []
