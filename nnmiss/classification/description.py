"""The dataset.json of a classification data set, checked: task, classes, and what kind each modality is of."""
from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path

from nnmiss.atomic_files import read_json
from nnmiss.availability import is_classification, modality_names
from nnmiss.classification.tasks import TASKS
from nnmiss.errors import NnmissError, nearest_names, shortened

CONFIGURATION = "default"  # the one configuration of every classification data set
PREDICTION_COLUMNS = ("sample_id", "prediction", "modalities")  # of predictions.csv, beside one per class
OVERALL = "all"  # what results.csv calls all classes together
SPLIT_COLUMN = "split"
PLAN_HINTS = {"batch_size": 1, "feature_dim": 1, "head": None}  # key -> smallest value, None for other structure


@dataclass(frozen=True)
class Description:
    """What dataset.json says.

    Attributes:
        name: of the data set, for people; may be empty.
        task: one of nnmiss.classification.tasks.TASKS.
        classes: names in the order of the outputs; of a binary task (negative, positive); of a multilabel task the labels.
        label_values: what the label cell of each class holds; of a multilabel task empty.
        modalities: name -> its entry with all defaults filled in ("type", kind's keys), in channel order.
        id_column, group_column, label_column: columns of manifest.csv. The group column may be absent there.
        label_groups: name -> labels whose mean the evaluation reports (multilabel only).
        plan: hints for the planner, any of PLAN_HINTS.
        content: dataset.json as it was read.
    """

    name: str
    task: str
    classes: list[str]
    label_values: list[str]
    modalities: dict[str, dict]
    id_column: str
    group_column: str
    label_column: str
    label_groups: dict[str, list[str]]
    plan: dict
    content: dict

    @property
    def label_columns(self) -> list[str]:
        """Columns of manifest.csv that hold labels: one, or one per label of a multilabel task."""
        return list(self.classes) if self.task == "multilabel" else [self.label_column]

    @property
    def path_modalities(self) -> list[str]:
        """Modalities with a path column in manifest.csv, as opposed to those with a "file" of all samples."""
        return [name for name, spec in self.modalities.items() if "file" not in spec]


def read_description(folder: str | Path) -> Description:
    """The description in `folder`/dataset.json. Raises NnmissError as `parse_description`, or when it is absent."""
    path = Path(folder) / "dataset.json"
    return parse_description(read_json(path, "dataset.json"), str(path))


def parse_description(content: dict, where: str) -> Description:
    """Checks the content of a dataset.json; `where` names it in errors.

    Raises NnmissError, naming the key, for a data set of another kind and for every entry that cannot be used.
    """
    if not isinstance(content, dict) or not is_classification(content):
        raise NnmissError(f'{where} does not describe a classification data set: it must hold an object with "task" '
                          f'({", ".join(TASKS)}), "labels" and "modalities"')
    try:
        task = content.get("task")
        if task not in TASKS:
            raise NnmissError(f'"task" must be one of {", ".join(TASKS)}, got {task!r}')
        values, classes = _classes(content.get("labels"), task)
        id_column, group_column, label_column = (
            _text(content.get(key, default), key) for key, default in
            (("id_column", "sample_id"), ("group_column", "subject_id"), ("label_column", "label")))
        modalities = _modalities(content)
        description = Description(
            str(content.get("name", "")), task, classes, values, modalities, id_column, group_column, label_column,
            _label_groups(content.get("label_groups", {}), classes, task), _plan_hints(content.get("plan", {})), content)
        _check_columns(description)
    except NnmissError as error:
        raise NnmissError(f"{where}: {str(error).removeprefix('dataset.json: ')}") from None
    return description


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise NnmissError(f'"{key}" must be the name of a column, got {value!r}')
    return value.strip()


def _classes(labels: object, task: str) -> tuple[list[str], list[str]]:
    """(values of the label cells, names), in the order of the outputs; no values for a multilabel task."""
    if task == "multilabel":
        if not isinstance(labels, list) or len(labels) < 2:
            raise NnmissError(f'"labels" of a multilabel task is a list of at least two names, got {labels!r}')
        values, names = [], [str(name).strip() for name in labels]
    else:
        if not isinstance(labels, dict) or len(labels) < 2:
            raise NnmissError(f'"labels" maps the value in the manifest to a name, for two or more classes, got {labels!r}')
        values = sorted(labels, key=int) if all(v.isdecimal() for v in labels) else list(labels)
        names = [str(labels[value]).strip() for value in values]
        values = [value.strip() for value in values]
        if task == "binary" and len(names) != 2:
            raise NnmissError(f'"labels" of a binary task are two, negative and positive, got {len(names)}')
    bad = [name for name in names if not name or "|" in name or name in (*PREDICTION_COLUMNS, OVERALL)]
    if bad or len(set(names)) < len(names) or len(set(values)) < len(values) or "" in values:
        raise NnmissError('"labels" must have distinct, non-empty names and values; names may not contain "|" nor be '
                          f'{", ".join(PREDICTION_COLUMNS)}, {OVERALL}, got {shortened(map(repr, names), 30)}')
    return values, names


def _modalities(content: dict) -> dict[str, dict]:
    """Name -> entry with defaults. Kinds check their own keys."""
    from nnmiss.classification.kinds import KINDS  # readers, which reading a dataset.json of segmentation does without

    checked = {}
    for name in modality_names(content):
        spec = content["modalities"][name]
        kind = spec.get("type") if isinstance(spec, dict) else spec
        if name != name.strip() or not isinstance(spec, dict) or not isinstance(kind, str) or kind not in KINDS:
            raise NnmissError(f'modality {name!r} must be {{"type": ...}} with one of the types {", ".join(KINDS)}, and '
                              f"its name without spaces at the ends, got {kind!r}")
        where = f"modality {name!r}"
        if "file" in spec:
            check_relative(spec["file"], f'{where}: "file"')
        encoder = spec.get("encoder", {})
        if not isinstance(encoder, dict) or not isinstance(encoder.get("name", ""), str):
            raise NnmissError(f'{where}: "encoder" must be an object as {{"name": "resnet10"}}, got {encoder!r}')
        checked[name] = KINDS[kind].check_spec(spec, where)
    return checked


def check_relative(path: object, what: str) -> None:
    """Raises NnmissError unless `path` is text that stays in the data set's folder: relative, with '/', without '..'."""
    if not isinstance(path, str) or not path.strip():
        raise NnmissError(f"{what} must be a path, got {path!r}")
    normal = posixpath.normpath(path)
    if "\\" in path or path[1:2] == ":" or posixpath.isabs(path) or normal.split("/")[0] == "..":
        raise NnmissError(f"{what} {path!r} must lie in the data set's folder: a relative path with '/'")


def _label_groups(groups: object, classes: list[str], task: str) -> dict[str, list[str]]:
    if not isinstance(groups, dict) or not all(isinstance(labels, list) and labels for labels in groups.values()):
        raise NnmissError(f'"label_groups" maps a name to a list of labels, got {groups!r}')
    if groups and task != "multilabel":
        raise NnmissError(f'"label_groups" are for multilabel tasks, this one is {task}')
    for group, labels in groups.items():
        if group in classes or group == OVERALL:
            raise NnmissError(f'"label_groups": {group!r} is what a label or all of them are called: rename the group')
        for label in labels:
            if label not in classes:
                raise NnmissError(f'"label_groups", {group}: {label!r} is no label. {nearest_names(str(label), classes)}')
    return {str(group): list(labels) for group, labels in groups.items()}


def _plan_hints(plan: object) -> dict:
    if not isinstance(plan, dict) or set(plan) - set(PLAN_HINTS):
        raise NnmissError(f'"plan" may hold {", ".join(PLAN_HINTS)}, got {plan!r}')
    for key, smallest in PLAN_HINTS.items():
        if key in plan and smallest is not None and not (_is_int(plan[key]) and plan[key] >= smallest):
            raise NnmissError(f'"plan": "{key}" must be a whole number from {smallest}, got {plan[key]!r}')
    head = plan.get("head", {})
    hidden, dropout = (head.get("hidden", []), head.get("dropout", 0)) if isinstance(head, dict) else (None, None)
    if not isinstance(head, dict) or set(head) - {"hidden", "dropout"} or not isinstance(hidden, list) \
            or not all(_is_int(width) and width > 0 for width in hidden) \
            or isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise NnmissError(f'"plan": "head" must be {{"hidden": [widths], "dropout": from 0 to below 1}}, got {head!r}')
    return dict(plan)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_columns(description: Description) -> None:
    """The columns of manifest.csv that this description names must differ."""
    columns = [description.id_column, description.group_column, SPLIT_COLUMN, *description.label_columns,
               *description.path_modalities]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise NnmissError(f"{', '.join(twice)} would name two columns of manifest.csv: columns for id, subject, split "
                          "and labels and the modalities need different names")
