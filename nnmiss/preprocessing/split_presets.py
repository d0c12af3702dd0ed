"""The splits that papers use, by case id: which presets there are, and what of one a data set has."""
from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from nnmiss.brats_years import CHALLENGES
from nnmiss.errors import NnmissError, nearest_names, shortened

PRESETS = ("brats2018-1", "brats2018-2", "brats2018-3", "brats2020", "brats2021", "brats2023-gli")
ALIASES = {"brats2023": "brats2023-gli"}
SIDES = ("train", "val", "test")
SIDE_WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class SplitPreset:
    """A published split of one data set.

    Attributes:
        ids: side ("train", "val", "test") -> sorted case ids; no id is on two sides.
        title, source, used_by, note: what it is and where it is from, for people; `source` is a web address and a file.
    """

    name: str
    title: str
    source: str
    used_by: tuple[str, ...]
    note: str
    ids: dict[str, tuple[str, ...]]

    @property
    def known(self) -> set[str]:
        """Every id of the preset."""
        return {case for side in SIDES for case in self.ids[side]}

    @property
    def counts(self) -> str:
        """As '199/29/57'."""
        return "/".join(str(len(self.ids[side])) for side in SIDES)


@dataclass(frozen=True)
class FittedSplit:
    """A preset with the ids that a data set has.

    Attributes:
        ids: side -> those of its ids that are training cases; test cases may also lie in imagesTs.
        absent: side -> ids of the preset that the data set lacks.
        unknown: cases of the data set that the preset does not know.
        test_in_images_ts: how many of the test cases are in imagesTs and not among the training cases.
    """

    preset: SplitPreset
    ids: dict[str, list[str]]
    absent: dict[str, list[str]]
    unknown: list[str]
    test_in_images_ts: int = 0

    @property
    def folds(self) -> list[dict[str, list[str]]]:
        """The one fold, as in splits_final.json."""
        return [{"train": self.ids["train"], "val": self.ids["val"]}]

    @property
    def test_record(self) -> dict:
        """The content of test_cases.json."""
        return {"preset": self.preset.name, "source": self.preset.source, "cases": self.ids["test"]}

    def report(self) -> list[str]:
        """Lines for people: what the fold holds, and warnings about ids that are absent or unknown."""
        n = {side: len(self.ids[side]) for side in SIDES}
        lines = [f"preset {self.preset.name} ({self.preset.title}): fold 0 has {n['train']} training and {n['val']} "
                 f"validation cases, {n['test']} test cases are kept apart"]
        if self.test_in_images_ts:
            lines.append(f"{self.test_in_images_ts} of the test cases are in imagesTs")
        missing = [f"{len(self.absent[side])} {SIDE_WORDS[side]} ({shortened(self.absent[side], 3)})"
                   for side in SIDES if self.absent[side]]
        if missing:
            number = sum(map(len, self.absent.values()))
            lines.append(f"WARNING: {number} of the preset's {len(self.preset.known)} cases are not in this data set: "
                         f"{', '.join(missing)}. Results are not comparable with those on the whole split")
        if self.unknown:
            lines.append(f"WARNING: {len(self.unknown)} case(s) of this data set are not in the preset and in no part of "
                         f"fold 0: {shortened(self.unknown, 3)}")
        if not n["test"]:
            lines.append("WARNING: none of the preset's test cases is in this data set")
        return lines


@cache
def load_preset(name: str) -> SplitPreset:
    """A preset by name (see PRESETS and ALIASES; without regard to case). Raises NnmissError that lists all for others."""
    name = ALIASES.get(name.lower(), name.lower())
    if name not in PRESETS:
        raise NnmissError(f"{name!r} is no preset of splits. {nearest_preset(name)}Presets:\n{list_presets()}")
    content = json.loads(files("nnmiss.preprocessing").joinpath("split_presets", f"{name}.json").read_text("utf-8"))
    source = content["source"]
    return SplitPreset(name, content["title"], f"{source['repository']} {source['file']}", tuple(content["used_by"]),
                       content["note"], {side: tuple(content[side]) for side in SIDES})


def is_preset(name: str) -> bool:
    """Whether there is a preset or alias of that name."""
    return name.lower() in PRESETS or name.lower() in ALIASES


def nearest_preset(name: str) -> str:
    """'Did you mean brats2018-1? ' for an error message, "" when nothing is near."""
    return nearest_names(name, [*PRESETS, *ALIASES]).partition("Known names")[0]


def list_presets() -> str:
    """A table of all presets for people: name, training/validation/test cases, title."""
    rows = [(p.name + "".join(f" (or {a})" for a, of in ALIASES.items() if of == p.name), p.counts, p.title)
            for p in map(load_preset, PRESETS)]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    head = f"  {'name':{widths[0]}}  {'train/val/test':>{max(14, widths[1])}}  data"
    return "\n".join([head, *(f"  {name:{widths[0]}}  {counts:>{max(14, widths[1])}}  {title}"
                              for name, counts, title in rows)])


def fit_preset(name: str, cases: Iterable[str], images_ts_cases: Iterable[str] = ()) -> FittedSplit:
    """A preset for the cases that a data set has.

    Args:
        name: a preset or alias.
        cases: the training cases.
        images_ts_cases: the cases in imagesTs; test cases are looked for there too.

    Raises:
        NnmissError: no such preset; none of its training or of its validation cases is there; or the data set is that
            of another year (the message names the preset that fits).
    """
    preset, cases, elsewhere = load_preset(name), set(cases), set(images_ts_cases)
    _refuse_another_year(preset, cases)
    have = {"train": cases, "val": cases, "test": cases | elsewhere}
    ids = {side: [case for case in preset.ids[side] if case in have[side]] for side in SIDES}
    absent = {side: [case for case in preset.ids[side] if case not in have[side]] for side in SIDES}
    for side in ("train", "val"):
        if not ids[side]:
            raise NnmissError(f"preset {preset.name}: none of its {len(preset.ids[side])} {SIDE_WORDS[side]} cases "
                              f"({shortened(preset.ids[side], 3)}) is among the data set's {len(cases)} training cases "
                              f"({shortened(sorted(cases), 3)}): convert all of {preset.title}, cases named by their ids")
    return FittedSplit(preset, ids, absent, sorted(cases - preset.known), len(set(ids["test"]) - cases))


def _refuse_another_year(preset: SplitPreset, cases: set[str]) -> None:
    """Raises NnmissError when another preset knows more of the cases, and this one less than half of them."""
    common = {name: len(cases & load_preset(name).known) for name in PRESETS}
    best = max(common.values())
    if common[preset.name] == best and best:
        return
    if best and 2 * common[preset.name] < len(cases):
        fitting = [name for name in PRESETS if common[name] == best]
        raise NnmissError(f"preset {preset.name} knows {common[preset.name]} of the data set's {len(cases)} training cases "
                          f"({shortened(sorted(cases), 3)}), {' and '.join(fitting)} know{'s' * (len(fitting) == 1)} {best}"
                          f": give --splits {fitting[0]}")
    if not best:
        like = " or ".join(c.title for c in CHALLENGES.values() if any(map(c.is_id, cases)))
        why = f"they are named as in {like}" if like else "BraTS cases keep their official ids as names"
        raise NnmissError(f"preset {preset.name} knows none of the data set's {len(cases)} training cases "
                          f"({shortened(sorted(cases), 3)}): {why}, and no preset knows them. Presets:\n{list_presets()}")
