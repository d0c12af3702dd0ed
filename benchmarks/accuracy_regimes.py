"""The regimes of the accuracy benchmark: which phantoms, how many cases, which files are missing, how long it trains."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COUNTS = (10, 20, 40, 160)  # training cases of fold 0, 1, 2, 3; all folds validate on the same cases
VALIDATION = 40
# Features per stage. Of the 8 of nnMissPlannerTiny the plan's width for metakd leaves 5, which learn nothing in runs this
# short; of 16 it leaves 8.
CONFIGURATION, FEATURES = "3d_f16", [16, 32, 64]
# the best modality of a region, by how the phantoms are made (documentation/reference/phantom.md)
BEST = {"whole_tumor": "flair", "tumor_core": "t1ce", "enhancing_tumor": "t1ce", "lesion": "flair"}


@dataclass(frozen=True)
class Regime:
    """One condition under which methods are compared.

    Attributes:
        cases: labelled training cases of the phantoms, one of COUNTS.
        iterations: of the baseline; every other variant gets the same time.
        missing: table of simulated missingness ("" for none), made by `arguments` of nnmiss_simulate_missing.
    """

    cases: int
    iterations: int
    missing: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def fold(self) -> int:
        """The fold of splits_final.json that has so many training cases."""
        return COUNTS.index(self.cases)


def incomplete(cases: int, iterations: int, share: float) -> Regime:
    """`share` of the training cases keep all files, the others lose one to three."""
    return Regime(cases, iterations, f"full{round(100 * share):03d}n{cases}",
                  ("--protocol", "full_ratio", "--ratio", str(share)))


REGIMES = {
    "few": Regime(10, 1024),
    "incomplete": incomplete(40, 1024, 0.1),
    "converged": Regime(20, 4096),
    # the map: cases, share of complete cases, imbalance, length
    "n20": Regime(20, 1024), "n40": Regime(40, 1024), "n160": Regime(160, 1024),
    "share1": incomplete(40, 1024, 0.01), "share50": incomplete(40, 1024, 0.5),
    "imbalanced": Regime(40, 1024, "imbalancedn40",
                         ("--protocol", "rates", "--rates", "flair=0.4", "t1=0.2", "t1ce=0.8", "t2=0.4")),
    "short": Regime(40, 256), "long": Regime(40, 4096),
    "patients": Regime(2, 1024),  # --data open_ms
}


def command(name: str, *arguments: str) -> None:
    """Runs one of the package's commands; its output is this program's. Stops this program where it fails."""
    program = [sys.executable, "-c", f"from nnmiss.cli.start import start; start({name!r})", *arguments]
    if subprocess.run(program).returncode:
        sys.exit(f"nnmiss_{name} {' '.join(arguments)} failed")


@dataclass(frozen=True)
class Phantoms:
    """A data set of the benchmark: `name`, and the flags of nnmiss_phantom that make it."""

    number: int
    name: str
    flags: tuple[str, ...]
    settings, configuration = (), CONFIGURATION  # the same for all phantoms

    def folds(self, regime: Regime) -> list[str]:
        """The folds to train, as nnmiss_benchmark takes them."""
        return [str(regime.fold)]

    def prepare(self, folder: Path, regime: Regime, source: Path | None) -> None:
        """Writes, plans and preprocesses the data set, and the regime's missing table; what is there is kept."""
        raw = folder / "raw" / f"Dataset{self.number}_{self.name}"
        plans = folder / "preprocessed" / raw.name / "nnMissTinyPlans.json"
        if not has_configuration(plans):
            command("phantom", "-d", str(self.number), "--name", self.name, "--num_training", str(max(COUNTS)),
                    "--num_test", str(VALIDATION), "--missing_rate", "0", "--overwrite", *self.flags)
            clean = validate_on_test_cases(raw)
            splits = [{"train": [f"case_{i:03d}" for i in range(count)], "val": clean} for count in COUNTS]
            file = folder / f"splits_{self.name}.json"
            file.write_text(json.dumps(splits))
            command("plan_and_preprocess", "-d", str(self.number), "-c", "3d_fullres", "-pl", "nnMissPlannerTiny", "-np",
                    "2", "--splits", str(file))
            add_configuration(plans)
        if regime.missing and not (raw / "missing" / f"{regime.missing}.csv").is_file():
            command("simulate_missing", "-d", str(self.number), "-n", regime.missing, *regime.arguments, "--fold",
                    str(regime.fold), "--seed", "1")


@dataclass(frozen=True)
class Patients:
    """Three real patients with lesions, at 2 mm and with all their files; each is left out once.

    Attributes:
        settings: of all runs. One voxel in a hundred is lesion and two patients train, so every patch has to hold some.
    """

    number: int
    name: str
    settings = ("oversample_foreground_percent=1.0",)
    configuration = "3d_fullres"  # of nnMissPlannerTiny: four stages from 8 features

    def folds(self, regime: Regime) -> list[str]:
        """A fold per patient."""
        return ["0", "1", "2"]

    def prepare(self, folder: Path, regime: Regime, source: Path | None) -> None:
        """Converts the patients of `source`, plans and preprocesses them; what is there is kept."""
        done = folder / f"{self.name}.prepared"  # written last, so that what was cut off begins again
        if not done.is_file():
            if source is None:
                sys.exit(f"{self.name} needs --source, the folder of the patientXX folders")
            command("convert_dataset", "open_ms", "-i", str(source), "-d", str(self.number), "--name", self.name,
                    "--spacing", "2", "--demo_split", "--overwrite")
            command("plan_and_preprocess", "-d", str(self.number), "-c", "3d_fullres", "-pl", "nnMissPlannerTiny", "-np",
                    "2", "-gpu_memory_target", "2.5")
            done.touch()


def has_configuration(plans: Path) -> bool:
    """Whether the data set is prepared to its end, which is CONFIGURATION in its plans."""
    return plans.is_file() and CONFIGURATION in json.loads(plans.read_text())["configurations"]


def add_configuration(plans: Path) -> None:
    """CONFIGURATION beside 3d_fullres, on the same preprocessed cases, with the planner's "nnmiss" block."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnmiss.planners.cost import cost_block

    plan = json.loads(plans.read_text())
    architecture = plan["configurations"]["3d_fullres"]["architecture"]
    architecture = {**architecture, "arch_kwargs": {**architecture["arch_kwargs"], "features_per_stage": FEATURES}}
    own = plan["configurations"][CONFIGURATION] = {"inherits_from": "3d_fullres", "architecture": architecture}
    own["nnmiss"] = cost_block(PlansManager(plan).get_configuration(CONFIGURATION), 4, 3, False, True, save_memory=False)
    plans.write_text(json.dumps(plan, indent=1))


def validate_on_test_cases(raw: Path) -> list[str]:
    """Moves the phantom's test cases, whose labels have no noise, to the training cases, to validate on; their names."""
    for kind in ("images", "labels"):
        for file in (raw / f"{kind}Ts").iterdir():
            os.replace(file, raw / f"{kind}Tr" / file.name)
        (raw / f"{kind}Ts").rmdir()
    description = json.loads((raw / "dataset.json").read_text())
    description["numTraining"] = len(list((raw / "labelsTr").iterdir()))
    (raw / "dataset.json").write_text(json.dumps(description, indent=1))
    return sorted(file.name.split(".")[0] for file in (raw / "labelsTr").glob("test_*"))


# "search" is looked at while settings are chosen; "final", another difficulty and other cases, once at the end.
# "first_final" was that before plans chose only widths that leave multiples of 8.
DATASETS = {
    "search": Phantoms(830, "Search", ("--size", "32", "--preset", "brats_like", "--seed", "31")),
    "first_final": Phantoms(831, "Final", ("--size", "32", "--preset", "brats_like", "--difficulty", ".7", "--seed", "77")),
    "final": Phantoms(833, "Final2", ("--size", "32", "--preset", "brats_like", "--difficulty", ".7", "--seed", "79")),
    "plain": Phantoms(832, "Plain", ("--size", "32", "--difficulty", "0.6", "--seed", "11")),
    "open_ms": Patients(810, "OpenMS"),
}
