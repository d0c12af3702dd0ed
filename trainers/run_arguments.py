"""What the user asked `nnmiss_train` for, and the folders that a run of it lies in."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnmiss.classification.description import CONFIGURATION
from nnmiss.preprocessing.dataset_folders import CLASSIFICATION, dataset_kind

from . import classifier_class, method_class


@dataclass(frozen=True)
class RunArguments:
    """What the user asked `nnmiss_train` for; see its help. Without a configuration or a preset it is the usual one."""

    dataset_name: str
    method: str
    fold: int | str
    configuration: str = ""
    plans_name: str = "nnMissPlans"
    seed: int = 0
    tag: str = ""
    missing: str | None = None
    stage: str | None = None
    preset: str = ""  # the method's default_preset
    assignments: dict[str, str] = field(default_factory=dict)
    pretrained_weights: str | None = None
    device: str = "cpu"
    show_progress: bool = True
    save_probabilities: bool = False

    def __post_init__(self):
        if not self.configuration:
            object.__setattr__(self, "configuration", CONFIGURATION if self.classification else "3d_fullres")
        if not self.preset:
            object.__setattr__(self, "preset", self.trainer_class.default_preset)

    @property
    def classification(self) -> bool:
        """Whether the data set's dataset.json describes classification: the preprocessed one, else the raw one."""
        folders = [Path(str(root)) / self.dataset_name for root in (nnUNet_preprocessed, nnUNet_raw) if root]
        return next((dataset_kind(folder) == CLASSIFICATION for folder in folders if (folder / "dataset.json").is_file()),
                    False)

    @property
    def trainer_class(self) -> type:
        """The method's trainer for this kind of data set. Raises NnmissError with the nearest names."""
        return (classifier_class if self.classification else method_class)(self.method)


def run_folders(arguments: RunArguments) -> tuple[Path, Path]:
    """(model folder, fold folder) of a run."""
    plans = f"{arguments.plans_name}-{arguments.tag}" if arguments.tag else arguments.plans_name
    model = Path(get_output_folder(arguments.dataset_name, arguments.trainer_class.__name__, plans,
                                   arguments.configuration))
    return model, model / f"fold_{arguments.fold}"
