"""In what the lesion-wise scores of the BraTS challenges of 2023, 2024 and 2025 differ: one table.

Sources: the organisers' description (Synapse syn51156910, discussion thread 10357) for 2023; for 2024 and 2025 what the
evaluation code of those years does (github.com/rachitsaluja/BraTS-2024-Metrics, Apache-2.0, July 2024 and July 2025), read
for its rules. documentation/reference/evaluation.md has them in words.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

from nnmiss.errors import NnmissError


@dataclass(frozen=True)
class Tissue:
    """How lesions of one region are made.

    Attributes:
        dilation: steps of dilation with the 18-neighbourhood, after which lesions that touch are one.
        min_volume: lesions of at most this volume are left out: of the ground truth in mm^3, of predictions in voxels.
        joins: labels ('et', 'ncr', 'rc') whose lesions join those of this region that touch them, in this order.
    """

    dilation: int
    min_volume: float
    joins: tuple[str, ...] = ()


@dataclass(frozen=True)
class LesionRules:
    """The lesion-wise scoring of one challenge of one year.

    Attributes:
        name: as "2024-GLI".
        general: for every region that is not in `special`.
        special: canonical label ('et', 'ncr', 'ed', 'rc') -> how the region of this label alone is treated.
        penalty_mm: HD95 of a lesion that was missed and of one that is not there; None is the diagonal of the image in
            voxels.
        predictions_alike: predicted lesions are made as those of the ground truth (dilated, small ones removed, joined);
            otherwise every 26-connected component is one, whatever its size.
        false_positives: whether they count in the means.
        predictions_in_mm3: the smallest predicted lesion too is in mm^3.
    """

    name: str
    general: Tissue
    special: dict[str, Tissue] = field(default_factory=dict)
    penalty_mm: float | None = 374.0
    predictions_alike: bool = True
    false_positives: bool = True
    predictions_in_mm3: bool = False

    def of(self, label: str | None) -> Tissue:
        """What holds for the region that is one label; None for regions of several and those of unknown labels."""
        return self.special.get(label, self.general)

    @property
    def joins(self) -> bool:
        """Whether labels have to be known by name, since lesions of some join those of others."""
        return bool(self.special)

    def sentence(self, metric: str) -> str:
        """What a caption says of them, for "lesion_dice" or "lesion_hd95"."""
        general = self.general
        exceptions = [f"{name.upper()} {t.dilation} and {t.min_volume:g}" for name, t in self.special.items()
                      if (t.dilation, t.min_volume) != (general.dilation, general.min_volume)]
        parts = [f"lesion-wise as BraTS {self.name.replace('-', ' ', 1)}: lesions of the ground truth are 26-connected "
                 f"after {general.dilation} step{'s' if general.dilation > 1 else ''} of dilation, those up to "
                 f"{general.min_volume:g} mm3 are left out"
                 + (f" ({', '.join(exceptions)})" if exceptions else "")]
        if self.predictions_alike:
            parts.append("predicted lesions are made likewise")
        if self.special:
            parts.append("those of single labels that touch one lesion of another label are one")
        penalty = "the image's diagonal in voxels" if self.penalty_mm is None else f"{self.penalty_mm:g}"
        counted = "missed and false lesions" if self.false_positives else "missed lesions (false ones do not count)"
        score = "Dice 0" if metric == "lesion_dice" else f"HD95 {penalty}"
        parts.append(f"{counted} score {score}; mean over lesions; no lesion at all scores "
                     + ("1" if metric == "lesion_dice" else "0"))
        if metric == "lesion_hd95":
            parts.append("distances in mm as BraTS 2023, percentile 95")
        return "; ".join(parts)


def _rules(year: int, challenge: str, dilation: int, min_volume: float, **more) -> LesionRules:
    return LesionRules(f"{year}-{challenge}", Tissue(dilation, min_volume), **more)


def _enhancing_joined(dilation: int, min_volume: float) -> dict[str, Tissue]:
    return {"et": Tissue(dilation, min_volume, ("ncr",))}


# The edema has the general dilation of 3: the code of 2024 means to give it 5, but misspells its name.
_POST_TREATMENT = {"et": Tissue(3, 10, ("ncr", "rc")), "ncr": Tissue(5, 20, ("et", "rc")),
                   "rc": Tissue(5, 20, ("et", "ncr")), "ed": Tissue(3, 20, ("et", "rc", "ncr"))}
_2024 = (
    _rules(2024, "GLI", 3, 20, special=_POST_TREATMENT, penalty_mm=337.0),
    _rules(2024, "SSA", 3, 50, special=_enhancing_joined(3, 50)),
    _rules(2024, "PED", 5, 10),
    _rules(2024, "MET", 1, 2, special=_enhancing_joined(1, 2)),
    _rules(2024, "MEN-RT", 1, 50, penalty_mm=None, false_positives=False, predictions_in_mm3=True),
)
_ALL = (
    *(_rules(2023, name, dilation, volume, predictions_alike=False)
      for name, dilation, volume in (("GLI", 3, 50), ("SSA", 3, 50), ("PED", 3, 50), ("MEN", 1, 50), ("MET", 1, 2))),
    *_2024,
    *(replace(r, name=r.name.replace("2024", "2025"), penalty_mm=None if r.name == "2024-MET" else r.penalty_mm)
      for r in _2024),
    _rules(2025, "MEN", 1, 50, predictions_alike=False),
)
LESION_RULES = {r.name: r for r in _ALL}


def find_rules(name: str) -> LesionRules:
    """The rules called "2023-GLI" or, for the gliomas, "2023". Raises NnmissError with the names that are known."""
    text = str(name).strip().upper()
    rules = LESION_RULES.get(f"{text}-GLI" if text.isdecimal() else text)
    if rules is None:
        years = sorted({known[:4] for known in LESION_RULES})
        year = text.split("-")[0]
        what = f"no lesion-wise rules are called {name!r}"
        if len(year) == 4 and year.isdecimal() and year not in years:
            none = "has no lesion-wise rules" if year < years[0] else "has none that are known here"
            what = f"--lesionwise {name}: BraTS {year} {none}, those of {years[0]} to {years[-1]} have"
        raise NnmissError(f"{what}; expected one of: {', '.join(LESION_RULES)}")
    return rules
