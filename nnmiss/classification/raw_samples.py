"""The samples of a raw data set in memory, as they were read: joined by id, nothing fitted, nothing scaled."""
from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from nnmiss.bounded_threads import in_threads
from nnmiss.classification.description import Description
from nnmiss.classification.integrity import raise_problems, without_modality
from nnmiss.classification.kinds import KINDS
from nnmiss.classification.manifest import Manifest, Problem, path_problems, read_manifest
from nnmiss.errors import NnmissError, shortened


@dataclass
class RawSamples:
    """N samples as they were read.

    ids: names, unique text. groups: subject of each, its own id where the manifest has no subjects.
    split: "train", "val", "test", or "" where the manifest does not say.
    targets: as nnmiss.classification.sample_set.SampleSet.targets.
    values: modality -> raw values (as its kind reads them) of the samples that have it.
    row: modality -> (N,) long: where sample s lies in `values`, -1 where it lacks the modality.
    """

    description: Description
    ids: list[str]
    groups: list[str]
    split: list[str]
    targets: Tensor
    values: dict[str, list[Any]]
    row: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> list[str]:
        """Names in channel order."""
        return list(self.row)

    @property
    def available(self) -> Tensor:
        """(N, M) bool: what each sample has."""
        return torch.stack([row >= 0 for row in self.row.values()], 1)

    @property
    def labelled(self) -> Tensor:
        """(N,) bool: samples with at least one known label."""
        if self.description.task == "multiclass":
            return self.targets >= 0
        return ~self.targets.isnan().all(1)

    def rows(self, ids: Sequence[str]) -> Tensor:
        """Positions of these ids, (B,) long. Raises KeyError for an unknown one."""
        position = {name: i for i, name in enumerate(self.ids)}
        return torch.tensor([position[name] for name in ids], dtype=torch.long)

    def select(self, rows: Sequence[int] | Tensor) -> RawSamples:
        """Some samples, in the order of `rows`, with only their values."""
        rows = torch.as_tensor(rows, dtype=torch.long)
        values, where = {}, {}
        for name, row in self.row.items():
            kept = row[rows]
            values[name] = [self.values[name][i] for i in kept[kept >= 0].tolist()]
            where[name] = torch.where(kept >= 0, (kept >= 0).cumsum(0) - 1, -1)
        picked = rows.tolist()
        return RawSamples(self.description, [self.ids[i] for i in picked], [self.groups[i] for i in picked],
                          [self.split[i] for i in picked], self.targets[rows], values, where)

    def without(self, ids: Container[str]) -> RawSamples:
        """All samples but these."""
        return self.select([i for i, name in enumerate(self.ids) if name not in ids])


def read_raw_samples(folder: str | Path, description: Description, ids: Sequence[str] | None = None,
                     num_threads: int = 1, show_progress: bool = True) -> tuple[RawSamples, dict[str, str]]:
    """Reads manifest.csv and the files it names, joined by id.

    Args:
        folder: with manifest.csv and, for modalities that have one, the "file" of all samples. A modality whose column or
            "file" is not there is absent for all, which is said.
        description: of the data set, or the one stored with a model. Label, subject and split columns may be absent, and
            wrong cells in them count as empty, which is said.
        ids: only these samples, in the manifest's order. None: all.
        num_threads: of reading.
        show_progress: a bar on the terminal.

    Returns:
        (the samples that could be read, {id: why not} of the others).

    Raises:
        NnmissError: no sample could be read, a manifest as `read_manifest` refuses, doubled ids, an unreadable "file",
            unknown `ids`.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, description)
    tables = _read_tables(folder, description)
    raise_problems([p for p in manifest.problems if p.sample is None and not p.training_only], str(manifest.path))
    _say(manifest, description, tables)
    wanted = _wanted(manifest, ids)
    bad: dict[str, list[str]] = {}
    for problem in [*path_problems(folder, manifest), *without_modality(manifest, {n: set(t) for n, t in tables.items()})]:
        if problem.sample in wanted:
            bad.setdefault(problem.sample, []).append(problem.text)
    rows = [i for i, name in enumerate(manifest.ids) if name in wanted]
    values, where = {}, {}
    with tqdm(total=sum(bool(manifest.paths[name][i]) for name in manifest.paths for i in rows), desc="reading",
              unit=" files", disable=not show_progress) as bar:
        for name, spec in description.modalities.items():
            if name in manifest.paths:
                files = {i: folder / manifest.paths[name][i] for i in rows
                         if manifest.paths[name][i] and manifest.ids[i] not in bad}
                read, errors = _read_files(files, spec, num_threads, bar)
                for i, message in errors.items():
                    bad.setdefault(manifest.ids[i], []).append(f"modality {name}: {message}")
            else:
                read = {i: tables[name][manifest.ids[i]] for i in rows if manifest.ids[i] in tables[name]}
            values[name] = list(read.values())
            where[name] = torch.full((len(manifest.ids),), -1)
            where[name][list(read)] = torch.arange(len(read))
    raw = RawSamples(description, manifest.ids, manifest.groups, manifest.split, manifest.targets, values, where)
    reasons = {name: "; ".join(texts) for name, texts in bad.items()}
    good = [i for i in rows if manifest.ids[i] not in bad]
    if not good:
        raise_problems([Problem(name, text) for name, text in reasons.items()],
                       f"no sample can be used: {manifest.path}")
    return raw.select(good), reasons


def find_misfits(raw: RawSamples) -> dict[str, str]:
    """{id: what is wrong} of samples whose values do not go with most others', as an image of another size.

    What does not go with a model's training samples is found by nnmiss.classification.preprocessing.misfits.
    """
    bad: dict[str, list[str]] = {}
    for name, spec in raw.description.modalities.items():
        owners = {int(row): raw.ids[i] for i, row in enumerate(raw.row[name]) if row >= 0}
        for position, text in KINDS[spec["type"]].misfits(raw.values[name], spec).items():
            bad.setdefault(owners[position], []).append(f"modality {name}: {text}")
    return {name: "; ".join(texts) for name, texts in bad.items()}


def _read_tables(folder: Path, description: Description) -> dict[str, dict[str, Any]]:
    """Modality with a "file" -> id -> raw value; nothing where the file is not there."""
    tables = {}
    for name, spec in description.modalities.items():
        if "file" in spec:
            path = folder / spec["file"]
            tables[name] = dict(zip(*KINDS[spec["type"]].read_file(path, spec))) if path.is_file() else {}
    return tables


def _say(manifest: Manifest, description: Description, tables: dict[str, dict]) -> None:
    absent = [f"{name} (no column in {manifest.path.name})" for name in manifest.paths if name not in manifest.columns]
    absent += [f"{name} (no samples in {description.modalities[name]['file']})" for name, table in tables.items()
               if not table]
    if absent:
        print(f"note: modalities that no sample has: {', '.join(absent)}")
    ignored = [problem for problem in manifest.problems if problem.training_only and problem.sample is not None]
    if ignored:
        print(f"note: {len(ignored)} wrong cell(s) of label, subject or split columns count as empty: "
              f"{shortened(map(str, ignored), 3)}")


def _wanted(manifest: Manifest, ids: Sequence[str] | None) -> set[str]:
    known = set(manifest.ids)
    unknown = sorted(set(ids or ()) - known)
    if unknown:
        raise NnmissError(f"{manifest.path} has no sample {shortened(unknown)}; it has {shortened(manifest.ids, 5)}")
    return known if ids is None else set(ids)


def _read_files(files: dict[int, Path], spec: dict, num_threads: int, bar: tqdm) -> tuple[dict[int, Any], dict[int, str]]:
    """(row -> raw value, row -> why it cannot be read)."""
    kind, read, errors = KINDS[spec["type"]], {}, {}
    with closing(in_threads(lambda i: kind.read(files[i], spec), files, max(1, num_threads))) as results:
        for i, result in results:
            try:
                read[i] = result.result()
            except NnmissError as error:
                errors[i] = str(error)
            bar.update()
    return read, errors
