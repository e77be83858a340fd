#!/usr/bin/env bash
# scripts/pytorch/onnx_check.py, with what it needs from PyPI in a virtual environment: others run the models that
# cifar-export writes, and find what cifar-test finds. Takes the programs from $BIN. Status 77: not possible here.
set -euo pipefail

scripts=$(realpath -m "${BASH_SOURCE[0]}/../../../scripts")
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
skip() { echo "SKIPPED: $*"; tail -n 3 "$out"; exit 77; }

python3 -m venv python >"$out" 2>&1 || skip 'Python makes no virtual environment here (Debian: python3-venv)'
python/bin/pip install --quiet --disable-pip-version-check --retries 1 \
    onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 numpy >"$out" 2>&1 || skip 'PyPI cannot be reached, or has nothing for here'

# Colours as classes, in noise: learned at once, and not by a model that takes blue for red.
python/bin/python - <<'END'
import numpy as np
random = np.random.default_rng(0)
colours = np.array([[r, g, b] for r in (60, 190) for g in (60, 190) for b in (60, 190)] + [[125, 60, 190], [190, 60, 125]])
for part, count in [(f"data_batch_{i}", 500) for i in range(1, 6)] + [("test_batch", 4000)]:
    labels = np.arange(count, dtype=np.uint8) % 10
    images = colours[labels][:, :, None] + random.normal(0, 25, (count, 3, 1)) + random.normal(0, 50, (count, 3, 1024))
    np.column_stack([labels, images.clip(0, 255).astype(np.uint8).reshape(count, -1)]).tofile(f"{part}.bin")
END
printf '%s\n' black blue green cyan 'it'\''s red' magenta 'yel\low' white violet 玫瑰 >batches.meta.txt
cifar-train --data . --epochs 2 --quiet
python/bin/python "$scripts/pytorch/onnx_check.py" "$BIN/cifar" best.ckpt .
