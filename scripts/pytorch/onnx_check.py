#!/usr/bin/env python3
"""Have others run the models that cifar-export writes, and compare with what cifar-test finds.

    onnx_check.py CIFAR MODEL FOLDER      CIFAR: the program (build/release/cifar); MODEL: a checkpoint;
                                          FOLDER: the batches

Exports the checkpoint in every way. For each onnx.checker checks the model in full; ONNX Runtime and OpenCV's dnn run
it on the test images in batches of 1, 7 and 100, which must give the logits within 1e-4 and the very predictions; and a
program that knows nothing but what the file says of itself (`accuracy_by_metadata`) must find as many images right.
Prints a table in Markdown; status 1 if anything differs. Needs onnx, onnxruntime, opencv-python-headless and numpy from
PyPI.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile

try:
    import cv2
    import numpy as np
    import onnx
    import onnxruntime
except ImportError as error:
    sys.exit(f"onnx_check: {error}; install onnx onnxruntime opencv-python-headless numpy with pip")

CLOSE = 1e-4  # logits
BATCHES = 1, 7, 100
WAYS = [f"--opset {opset}{kept}{pixels}" for opset in (7, 9, 13, 17, 21) for kept in ("", " --keep-batchnorm")
        for pixels in ("", " --pixels")]
WAYS += ["--bgr", "--bgr --pixels --keep-batchnorm", "--softmax", "--softmax --bgr --pixels --opset 21"]


def accuracy_by_metadata(path, images, labels, classes):
    """How many of the images, RGB planes of bytes, a model names as it should. Nothing is known of it but its file."""
    session = onnxruntime.InferenceSession(path)
    says = {key.lower(): value for key, value in session.get_modelmeta().custom_metadata_map.items()}
    channels = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0]}[says["image.bitmappixelformat"].lower()]
    low, high = {"nominalrange_0_255": (0, 255), "normalized_0_1": (0, 1),
                 "normalized_1_1": (-1, 1)}[says["image.nominalpixelrange"].lower()]
    assert says["image.colorspacegamma"].lower() == "srgb"
    names = ast.literal_eval(says["names"])
    (taken,), right = session.get_inputs(), 0
    for at in range(0, len(images), 500):
        pixels = images[at : at + 500, channels] / 255 * (high - low) + low
        (found,) = session.run(None, {taken.name: pixels.astype(np.float32)})
        right += sum(names[best] == classes[label] for best, label in zip(found.argmax(1), labels[at : at + 500]))
    return right


def with_onnxruntime(path):
    """As it optimises the model, and as it is written."""
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for options in (None, plain)]

    def run(images):
        optimised, written = (session.run(["modelOutput"], {"modelInput": images})[0] for session in sessions)
        assert np.abs(optimised - written).max() < CLOSE, "ONNX Runtime's optimisations make a difference"
        return optimised

    return run


def with_opencv(path):
    net = cv2.dnn.readNetFromONNX(path)

    def run(images):
        net.setInput(images, "modelInput")
        return net.forward("modelOutput").copy()

    return run


def check(path):
    """Without an exception it is a model by all rules, from input to output."""
    model = onnx.load(path)
    assert model.ir_version == max(4, onnx.helper.OP_SET_ID_VERSION_MAP["ai.onnx", model.opset_import[0].version])
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    assert len(inferred.value_info) == len(inferred.node) - 1, "not all shapes were inferred"
    return model


def in_batches(run, images):
    """All of the images in the largest batches, and as many of the first in the others as show whether these work."""
    whole = np.concatenate([run(images[at : at + BATCHES[-1]]) for at in range(0, len(images), BATCHES[-1])])
    worst = 0
    for size in BATCHES[:-1]:
        for at in range(0, 3 * size, size):
            worst = max(worst, np.abs(run(images[at : at + size]) - whole[at : at + size]).max())
    assert worst < CLOSE, f"batches differ by {worst}"
    return whole


def prepare(images, way):
    """As the options say."""
    images = images.astype(np.float32)
    if "--pixels" not in way:
        images = (images / 255 - 0.5) / 0.5
    return np.ascontiguousarray(images[:, ::-1] if "--bgr" in way else images)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def main(cifar, checkpoint, folder):
    judged = json.loads(subprocess.check_output([cifar, "test", "--model", checkpoint, "--data", folder, "--json",
                                                 "--batch", "1000000", "--grid", ""]))
    folder, logits = judged["data"], np.array(judged["logits"])
    records = np.fromfile(f"{folder}/test_batch.bin", np.uint8).reshape(-1, 3073)
    images, labels = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    real = judged["real"]
    classes = {label: name for label, name in zip(labels, real)}
    print(f"onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__}, OpenCV {cv2.__version__}; cifar-test: "
          f"{judged['correct']} of {judged['images']} right\n")
    print("| cifar-export | IR | checker | ONNX Runtime: largest difference | other predictions "
          "| OpenCV: largest difference | other predictions | right, by the metadata |")
    print("|---|---|---|---|---|---|---|---|")
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "model.onnx")
        for way in WAYS:
            subprocess.check_output([cifar, "export", "--model", checkpoint, "--onnx", path, *way.split()])
            model, line = check(path), []
            wanted = logits[:, : model.graph.output[0].type.tensor_type.shape.dim[1].dim_value]
            wanted = softmax(wanted) if "--softmax" in way else wanted
            for open_model in with_onnxruntime, with_opencv:
                found = in_batches(open_model(path), prepare(images, way))
                worst, others = np.abs(found - wanted).max(), (found.argmax(1) != wanted.argmax(1)).sum()
                faults += worst >= CLOSE or others > 0
                line += [f"{worst:.1e}", f"{others}"]
            right = accuracy_by_metadata(path, images, labels, classes)
            faults += right != judged["correct"]
            print("|", " | ".join([f"`{way}`", str(model.ir_version), "good", *line, str(right)]), "|", flush=True)
    if faults:
        sys.exit(f"onnx_check: {faults} differences")
    print("\nAll agree.")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
