#!/bin/sh
# The study of documentation/reference/method_comparison.md: data, plan, tables of missing files, 32 variants x 3 seeds.
# Usage: run.sh FOLDER [further arguments of nnmiss_benchmark]. Stop it and call it again as often as you like.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/raw" "$1/preprocessed" "$1/results"
folder=$(cd "$1" && pwd)
shift
export nnUNet_raw="$folder/raw" nnUNet_preprocessed="$folder/preprocessed" nnUNet_results="$folder/results"
if [ ! -f "$folder/raw/Dataset820_Study/missing/fm1.csv" ]; then
    nnmiss_phantom -d 820 --name Study --num_training 36 --num_test 0 --size 32 --missing_rate 0 --difficulty 0.6 --seed 11 --overwrite
    python -c "import json; c = ['case_%03d' % i for i in range(36)]; print(json.dumps([{'train': c[:24], 'val': c[24:]}]))" \
        > "$folder/splits.json"
    nnmiss_plan_and_preprocess -d 820 -c 3d_fullres -pl nnMissPlannerTiny -np 1 --splits "$folder/splits.json"
    for table in "fm50 0.5" "fm10 0.1" "fm1 0.01"; do
        nnmiss_simulate_missing -d 820 -n "${table% *}" --protocol full_ratio --ratio "${table#* }" --fold 0 --seed 1 --overwrite
    done
fi
nnmiss_benchmark -d 820 -o "$folder/benchmark" --runs_file "$here/runs.txt" --seeds 0 1 2 --folds 0 -p nnMissTinyPlans \
    -device cpu --parallel 2 \
    --set num_iterations_per_epoch=32 num_val_iterations_per_epoch=3 validation_mirroring=false "$@"
