#!/bin/sh
# All training runs in order, with the settings of the shipped files; one thread per run.
set -eu
runs="${ROADSTREAM_CACHE:-$HOME/.cache/roadstream-training}/runs"
tiny() { name=$1 && shift && python train.py --name "$name" --view tiny "$@"; }
lite0() { name=$1 && shift && python train.py --name "$name" "$@"; }

# First without, then twice with crops beside the boxes: see "Training" in MODEL_CARD.md.
tiny tiny-a --stages 256x160:8 --crop 0.35 1 --beside 0
tiny tiny-b --start-from "$runs/tiny-a.pt" --stages 256x160:5 --rate 3e-4 --seed 74
tiny tiny --start-from "$runs/tiny-b.pt" --stages 256x160:6 --rate 3e-4 --seed 77
lite0 lite0-a --stages 384x256:6,512x352:3 --crop 0.35 1 --beside 0
lite0 lite0-b --start-from "$runs/lite0-a.pt" --stages 384x256:3,512x352:1 --rate 3e-4 --seed 75
lite0 lite0 --start-from "$runs/lite0-b.pt" --stages 384x256:3,512x352:2 --rate 3e-4 --seed 76
lite0 tiles --start-from "$runs/lite0-a.pt" --stages 512x352:2 --crop 0.12 0.5 --rate 2e-4 --seed 73

for fold in german-drives us-drives cones-and-signs; do
    tiny "tiny-without-$fold" --leave-out "$fold" --stages 256x160:5
    lite0 "lite0-without-$fold" --leave-out "$fold" --stages 320x224:4
done
