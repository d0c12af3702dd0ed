"""What case ids say of the BraTS year and challenge they are from, in words and flags."""
from __future__ import annotations

import re
from collections.abc import Iterable

from nnmiss.brats_years import CHALLENGES, Challenge


def id_form(challenge: Challenge) -> str:
    """The form of its case ids as people write it, 'BraTS2021_NNNNN' with N for a digit and * for a word."""
    form = re.sub(r"\\d(?:\{(\d)\})?", lambda found: "N" * int(found[1] or 1), challenge.id_pattern)
    return re.sub(r"\[.*?\]\+|\(.*?\)", "*", form)


def of_others(cases: Iterable[str], challenge: Challenge) -> str | None:
    """'of BraTS 2020 GLI (--year 2020)' where no case is called as those of `challenge`, but some as those of others.

    None for ids that could be the challenge's, and for names of nobody.
    """
    cases = list(cases)
    if any(map(challenge.is_id, cases)):
        return None
    others = [f"{c.title} (--year {c.year}{'' if c.name == 'GLI' else f' --challenge {c.name}'})"
              for c in CHALLENGES.values() if any(map(c.is_id, cases))]
    return f"of {' or '.join(others[:4])}" if others else None
