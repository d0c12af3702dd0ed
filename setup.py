"""Says which folder is which package, what nnmiss needs, and the commands it installs."""
from setuptools import setup

PACKAGES = {
    "nnmiss": "nnmiss",
    "nnmiss.preprocessing": "nnmiss/preprocessing",
    "nnmiss.classification": "nnmiss/classification",
    "nnmiss.classification.kinds": "nnmiss/classification/kinds",
    "nnmiss.networks": "nnmiss/networks",
    "nnmiss.networks.encoders": "nnmiss/networks/encoders",
    "nnmiss.losses": "nnmiss/losses",
    "nnmiss.inference": "nnmiss/inference",
    "nnmiss.evaluation": "nnmiss/evaluation",
    "nnmiss.evaluation.classification": "nnmiss/evaluation/classification",
    "nnmiss.benchmark": "nnmiss/benchmark",
    "nnmiss.export": "nnmiss/export",
    "nnmiss.model_files": "nnmiss/model_files",
    "nnmiss.report": "nnmiss/report",
    "nnmiss.cli": "nnmiss/cli",
    "nnmiss.nnunet_ext": "nnmiss/nnunet_ext",
    "nnmiss.planners": "planners",
    "nnmiss.trainers": "trainers",
    "nnmiss.dataset_conversion": "dataset_conversion",
}

COMMANDS = (
    "convert_dataset",
    "phantom",
    "plan_and_preprocess",
    "simulate_missing",
    "train",
    "predict",
    "evaluate",
    "search",
    "report",
    "export_model",
    "install_model",
    "export_brats",
    "validate_brats",
    "import_brats_scores",
    "benchmark",
    "demo",
)

FILES = {
    "nnmiss.preprocessing": ["split_presets/*.json"],
    "nnmiss.report": ["assets/*"],
    "nnmiss.dataset_conversion": ["mimic_resources/*"],
}

setup(
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data=FILES,
    install_requires=[
        "nnunetv2>=2.8.1,<2.9",  # planning, preprocessing, sliding window; internals are subclassed, hence the pin
        "torch>=2.5",  # networks and training
        "batchgeneratorsv2>=0.3",  # nnU-Net's augmentation, one transform of which is made replayable
        "acvl_utils>=0.2.3",  # padding as nnU-Net's predictor does it
        "SimpleITK>=2.2.1",  # NIfTI with its geometry, as nnU-Net's default reader
        "nibabel>=4",  # exact NIfTI headers in converters, phantoms and checks
        "batchgenerators>=0.25.1",  # nnU-Net's file helpers and loader processes
        "numpy>=1.26",  # arrays
        "scipy>=1.11",  # k-d tree, morphology and statistical tests of the evaluation
        "scikit-learn>=1.4",  # metrics and grouped, stratified splits of classification
        "scikit-image>=0.22",  # reads PNG and JPEG images of classification data sets
        "pandas>=2",  # results.csv and the tables made from it
        "matplotlib>=3.7",  # figures
        "tqdm>=4.60",  # progress bars
    ],
    extras_require={
        "audio": [
            "librosa>=0.10",  # MFCC and spectrograms of recordings, as the published pipelines compute them
            "soundfile>=0.12",  # reads the wav files
        ],
        "smote": ["imbalanced-learn>=0.12"],  # synthetic minority samples, as MetaKD's ADNI
        "genetics": ["bed-reader>=1.0.5"],  # PLINK genotypes of the ADNI converter
        "test": [
            "pytest>=8",  # runs the tests
            "pytest-xdist>=3.5",  # runs them in two processes
            "medpy>=0.5",  # oracle for the pooled HD95 (GPL: never imported by nnmiss itself)
            "surface-distance>=0.1",  # oracle for the BraTS 2023 HD95
            "selenium>=4.20",  # drives a headless browser through the report (skipped where there is none)
            "librosa>=0.10",  # audio modalities
            "soundfile>=0.12",  # the wav files they are read from
            "imbalanced-learn>=0.12",  # SMOTE
            "bed-reader>=1.0.5",  # writes and reads the PLINK files of the ADNI converter's test
            "transformers>=4.40",  # writes the tiny random CLIP that the prompts are tested with
        ],
        "clip": ["transformers>=4.40"],  # CLIP's text model, which encodes the prompts of `all_stage` once
        "dev": ["ruff>=0.6"],  # the linter CI runs
    },
    entry_points={"console_scripts": [f"nnmiss_{name} = nnmiss.cli.start:{name}" for name in COMMANDS]},
)
