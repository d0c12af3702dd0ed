#!/bin/sh
# The studies of documentation/reference/classification_results.md on real data; stop and call it again as often as you like.
# Usage: run.sh FOLDER DATA [STUDY ...]. DATA holds mnist/, fsdd/recordings/, eicu_demo/eicu_blocks.npz and mimic3_demo/.
# Studies: audio visual sane weights coverage alpha smnist eicu mimic. Default: all. PARALLEL (2) jobs at once.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/raw" "$1/preprocessed" "$1/results"
folder=$(cd "$1" && pwd)
data=$(cd "$2" && pwd)
shift 2
export nnUNet_raw="$folder/raw" nnUNet_preprocessed="$folder/preprocessed" nnUNet_results="$folder/results"

prepare() {  # id, then the converter with its arguments
    id=$1
    shift
    [ -d "$folder/raw/Dataset$id"_* ] 2>/dev/null || nnmiss_convert_dataset "$@" -d "$id" --disable_progress_bar
    ls "$folder/preprocessed/Dataset$id"_*/nnMissPlans.json >/dev/null 2>&1 || nnmiss_plan_and_preprocess -d "$id" --no_pbar
}

bench() {  # name of the study, then further arguments of nnmiss_benchmark
    study=$1
    shift
    nnmiss_benchmark -o "$folder/$study" --runs_file "$here/$study.txt" --tag "$study" --seeds 0 1 2 3 4 -device cpu \
        --parallel "${PARALLEL:-2}" --set figures=false "$@"
}

for study in ${*:-audio visual sane weights coverage alpha smnist eicu mimic}; do
    case $study in
    audio | visual | weights | coverage | alpha) prepare 850 avmnist -i "$data/mnist" "$data/fsdd/recordings" ;;
    sane) prepare 860 avmnist -i "$data/mnist" "$data/fsdd/recordings" --mfcc sane --name AVMNIST1500Sane ;;
    smnist) prepare 851 fsdd_smnist -i "$data/mnist" "$data/fsdd/recordings" --pairs 600 --extra_images 1500 ;;
    eicu) prepare 859 eicu_blocks -i "$data/eicu_demo/eicu_blocks.npz" ;;
    mimic) prepare 856 mimic -i "$data/mimic3_demo" --task mortality ;;
    esac
    case $study in
    audio) bench audio -d 850 --missing audio_05 audio_10 audio_15 audio_20 --reference "image only" ;;
    visual) bench visual -d 850 --missing visual_05 visual_10 visual_15 visual_20 --reference "sound only" ;;
    sane) bench sane -d 860 --reference "image only" ;;
    weights) bench weights -d 850 --reference metakd ;;
    coverage) bench coverage -d 850 --missing audio_30 audio_50 --reference simmlm ;;
    alpha) bench alpha -d 850 --missing audio_20 --reference "alpha 0" ;;
    smnist) bench smnist -d 851 --reference vanilla_3h --set encoders=image:resnet3-s2+sound:resnet3-s2 max_epochs=40 batch_size=32 ;;
    eicu) bench eicu -d 859 --folds 0 1 2 3 4 --reference modality_dropout --set keep=last initial_lr=1e-4 num_epochs=40 ;;
    mimic) bench mimic -d 856 --folds 1 2 3 4 5 --seeds 0 --reference modality_dropout --set num_epochs=15 ;;
    *) echo "unknown study $study" >&2; exit 2 ;;
    esac
done
