#!/usr/bin/env python3
"""The commands as a user runs them, on a small synthetic data set. Takes the programs from $BIN."""
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import zlib

sys.dont_write_bytecode = True
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checkpoints import about, change, load, pack, read, write

RECORD = 3073  # bytes: a label and an image


def start(command, **options):
    """Starts a command line; options of Popen."""
    return subprocess.Popen(shlex.split(command), stdin=subprocess.DEVNULL, **options)


def run(command, warning=r"\A\Z", **environment):
    """What a command line prints, which must succeed and complain of nothing but this."""
    process = start(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = (text.decode() for text in process.communicate())
    if process.returncode != 0 or not re.search(warning, err, re.M):
        raise AssertionError(f"{command}: status {process.returncode}\n{out}{err}")
    return out


def run_json(command, warning=r"\A\Z"):
    return json.loads(run(command, warning))


def on_terminal(command, **environment):
    """Runs a command line on a terminal; what arrives there."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = start(command, stdout=end, stderr=end, env=os.environ | {"TERM": "xterm"} | environment)
    os.close(end)
    shown = b""
    try:
        while some := os.read(terminal, 65536):
            shown += some
    except OSError:  # nobody has its end any more
        pass
    os.close(terminal)
    assert process.wait() == 0, shown
    return shown.decode()


def records(path, event=None):
    """The records of a log, or those of one kind."""
    return [r for r in map(json.loads, read(path).splitlines()) if event in (None, r["event"])]


def figures(path):
    """What a log says of steps and epochs, but for how long they took."""
    return [{key: value for key, value in r.items() if "second" not in key}
            for r in records(path) if r["event"] in ("step", "epoch")]


def size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def tensors(path):
    """The bytes of each tensor of a checkpoint, by name."""
    header, data = load(path)
    return {name: data[slice(*t["data_offsets"])] for name, t in header.items() if name != "__metadata__"}


def contents(folder):
    return {file: read(f"{folder}/{file}") for file in os.listdir(folder)}


def pixels(path):
    """A PNG file's rows of red, green and blue bytes."""
    content = read(path)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    (width,) = struct.unpack(">I", content[16:20])
    packed, at = b"", 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        packed += content[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    lines, pitch = zlib.decompress(packed), 1 + 3 * width
    rows = [bytes(3 * width)]
    for at in range(0, len(lines), pitch):  # each begins with the number of its filter
        kind, row, above = lines[at], bytearray(lines[at + 1 : at + pitch]), rows[-1]
        for x in range(len(row) if kind > 0 else 0):
            left, corner = (row[x - 3], above[x - 3]) if x >= 3 else (0, 0)
            up = above[x]
            nearest = min((left, up, corner), key=lambda near: abs(left + up - corner - near)) if kind == 4 else 0
            row[x] = (row[x] + (0, left, up, (left + up) // 2, nearest)[kind]) % 256
        rows.append(row)
    return rows[1:]


def enter_folder():
    """A new folder for a module's tests, in which the programs are found and nothing of the user's is set."""
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    os.chdir(folder.name)
    for name in "CIFAR10_DIR", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY":
        os.environ.pop(name, None)
    os.environ["PATH"] = os.environ["BIN"] + ":" + os.environ["PATH"]


def setUpModule():
    """The run that most tests look at: two epochs on ./data, which is the default, into best.ckpt."""
    global trained, names, version
    enter_folder()
    run("cifar-synth data --train 1000 --test 200 --seed 3")
    trained = run("cifar-train --epochs 2 --log-every 50 --log run.jsonl")
    names = read("data/batches.meta.txt").decode().split()
    version = run("cifar --version")


class Commands(unittest.TestCase):
    maxDiff = None

    def has(self, text, *patterns):
        """Each pattern is found in the text; ^ and $ are the ends of its lines."""
        for pattern in patterns:
            self.assertRegex(text, re.compile(pattern, re.M))

    def lacks(self, text, pattern):
        self.assertNotRegex(text, re.compile(pattern, re.M))

    def holds(self, record, **expected):
        self.assertEqual({key: record[key] for key in expected}, expected)

    # --- Names: one executable, called by its name or by its first word.

    def test_names(self):
        for command in "train", "test", "classes", "predict", "export", "import", "synth", "verify":
            text = run(f"cifar-{command} --help")
            self.assertEqual([run(f"cifar {command} --help"), run(f"cifar-{command} -h")], [text, text])
            self.has(text, f"^Usage: cifar-{command}", "^Exit status: 0 done.* 5 device,$",
                     r", 128 \+ N interrupted by signal N\.$")
            self.assertEqual(run(f"cifar-{command} --version"), version)
        self.has(version, r"\Acifar [0-9]+\.[0-9]+\.[0-9]+$", "^device openblas: built with OpenBLAS [0-9.]+$",
                 "^device cpu: kernels for (AVX|any processor)", "^device cuda: not built in",
                 "^libpng [0-9.]+, jansson [0-9.]+, ONNX: (protobuf-c [0-9.]+|not built in)$")
        text = run("cifar --help")
        self.assertEqual(run("cifar -h"), text)
        self.has(text, "train .*", "synth ")

    def test_help_tells_the_defaults(self):
        self.has(run("cifar-synth --help"), r"--train N .*default: 50000\)$", r"--test N .*default: 10000\)$",
                 r"--seed S .*default: 0\)$")
        text = run("cifar-train --help")
        self.assertEqual(run("cifar-train --help --epochs 0"), text)  # it wins over what stands behind it
        self.lacks(text, ".{81}")
        for option in ("epochs N.*default: 5", "last FILE.*default: last.ckpt beside the model", "resume FILE",
                       "log FILE", "overwrite", "save-every N.*default: each epoch", "batch N.*default: 10", "quiet",
                       "lr X.*default: 0.001", "weight-decay X.*default: 0.0001", "seed S.*default: 0",
                       "device NAME.*default: auto", "model FILE.*default: best.ckpt", "log-every N.*default: 1000",
                       "data DIR.*CIFAR10_DIR", "threads N.*all cores", "limit N.*default: all"):
            self.has(" ".join(text.split()), f"--{option}")

    # --- Synthetic data.

    def test_the_seed_decides_what_is_drawn(self):
        out = run("cifar-synth again --train 1000 --test 200 --seed 3")
        self.has(out, "1000 training and 200 test images, synthetic.*with seed 3, not CIFAR-10$")
        first, again = contents("data"), contents("again")
        self.assertEqual(first, again)
        self.assertEqual(sum(len(first[file]) for file in first if file.startswith("data_")), 1000 * RECORD)
        self.assertEqual(len(first["test_batch.bin"]), 200 * RECORD)
        run("cifar-synth again --train 1000 --test 200 --seed 4")  # over the old one
        for file in "test_batch.bin", "data_batch_1.bin":
            self.assertNotEqual(contents("again")[file], first[file])

    # --- Training.

    def test_text_of_a_training(self):
        self.has(trained, "device +cpu: kernels for .*threads?$", "14 layers, 50326 parameters", "model +best.ckpt$",
                 r"data +data: 1000 training and 200 test images \(synthetic.*not CIFAR-10\)",
                 "epochs 2, steps in each 100, batch 10, Adam lr 0.001, weight decay 0.0001, seed 0",
                 r"memory +3.7 MB images, [0-9.]+ MB on the device",
                 "state +last.ckpt, after each epoch$", "log +run.jsonl, every 50 steps$",
                 r"^\[1,    50\] loss: [0-9]\.[0-9]{3}$", r"^\[2,   100\] loss: ",  # as the tutorial prints it
                 r"^Epoch 1: test accuracy [0-9]+\.[0-9]{2} %, test loss .*s, [0-9]+ images/s; best so far: best.ckpt$",
                 r"^Finished Training .* best test accuracy [0-9.]+ % \(epoch [12]\), in best.ckpt$")
        self.lacks(trained, r"[\x01-\x08\x0b-\x1f]")

    def test_log_of_a_training(self):
        log, steps = records("run.jsonl"), records("run.jsonl", "step")
        first, second = epochs = records("run.jsonl", "epoch")
        self.assertEqual([r["event"] for r in log], "start step step epoch step step epoch end".split())
        self.holds(log[0], epochs=2, batch=10, lr=0.001, weight_decay=0.0001, seed=0, log_every=50, limit=None,
                   synthetic=True, train_images=1000, test_images=200, parameters=50326, device="cpu", data="data",
                   model="best.ckpt", threads=len(os.sched_getaffinity(0)))
        self.holds(steps[1], epoch=1, step=100)
        self.assertEqual(set(first), {"event", "epoch", "lr", "train_loss", "test_loss", "test_accuracy",
                                      "train_seconds", "images_per_second", "test_seconds", "best"})
        self.assertEqual([e["lr"] for e in epochs], [0.001, 0.001])
        self.assertAlmostEqual(first["train_loss"], (steps[0]["loss"] + steps[1]["loss"]) / 2, delta=1e-6)
        better = second["test_accuracy"] > first["test_accuracy"]
        self.assertEqual([e["best"] for e in epochs], [True, better])
        self.holds(log[-1], finished=True, best_epoch=2 if better else 1,
                   best_accuracy=max(e["test_accuracy"] for e in epochs))
        self.assertNotIn("error", log[-1])
        for e in epochs:
            self.assertGreater(e["test_seconds"], 0)
            self.assertAlmostEqual(e["images_per_second"] * e["train_seconds"] / 1000, 1, delta=0.05)
        spent = sum(e["train_seconds"] + e["test_seconds"] for e in epochs)
        self.assertGreaterEqual(log[-1]["seconds"], spent - 0.002)

        # The text says the same.
        *lines, end = [line for line in trained.splitlines() if line[0] in "[EF"]
        self.assertEqual([line for line in lines if line[0] == "["],
                         ["[%(epoch)d, %(step)5d] loss: %(loss).3f" % s for s in steps])
        lines = [line for line in lines if line[0] == "E"]
        self.assertEqual([line.split(" s, ")[0].rsplit(", ", 1)[0] for line in lines],
                         ["Epoch %(epoch)d: test accuracy %(test_accuracy).2f %%, test loss %(test_loss).4f, "
                          "train loss %(train_loss).4f" % e for e in epochs])
        self.assertEqual([line.endswith("; best so far: best.ckpt") for line in lines], [True, better])
        self.has(end, r"best test accuracy %(best_accuracy).2f %% \(epoch %(best_epoch)d\), in best.ckpt$" % log[-1])

    def test_what_a_checkpoint_says_of_itself(self):
        self.holds(about("best.ckpt"), format="pt", format_version="1", device="cpu", seed="0",
                   program=version.splitlines()[0])
        self.has(about("best.ckpt")["trained_on"], "^synthetic images")

    def test_only_what_is_better_than_all_before_is_best(self):
        shutil.copytree("data", "one")  # with one test image and no learning, not every epoch can be
        os.truncate("one/test_batch.bin", RECORD)
        out = run("cifar-train --data one --epochs 4 --lr 0 --limit 20 --model one.ckpt --last one.last --log one.log")
        end, accuracies = records("one.log")[-1], [e["test_accuracy"] for e in records("one.log", "epoch")]
        best = [accuracy > max(accuracies[:i], default=-1) for i, accuracy in enumerate(accuracies)]
        self.assertTrue(len(best) == 4 and not all(best), best)
        self.assertEqual([e["best"] for e in records("one.log", "epoch")], best)
        self.assertEqual(["; best so far" in line for line in out.splitlines() if line.startswith("Epoch")], best)
        self.holds(end, best_epoch=accuracies.index(max(accuracies)) + 1, best_accuracy=max(accuracies))
        self.has(out, r"best test accuracy %(best_accuracy).2f %% \(epoch %(best_epoch)d\), in one.ckpt$" % end)

    def test_what_is_printed_is_there_at_once(self):
        with open("now.out", "w") as out:  # long before a buffer of 4096 bytes is full
            run = start("cifar-train --epochs 1000 --log-every 100000 --last now.last --model now.ckpt --log now.jsonl",
                        stdout=out, stderr=subprocess.DEVNULL)
        while not (size("now.jsonl") and size("now.out")) and run.poll() is None:
            time.sleep(0.01)
        log, text = read("now.jsonl"), read("now.out")
        self.assertTrue(log.count(b"\n") >= 1 and len(log) < 4000, log)
        self.assertTrue(text.count(b"\n") > 5 and len(text) < 4000, text)
        self.assertEqual(read(f"/proc/{run.pid}/comm"), b"cifar-train\n")
        # threads that wait do not spin for long
        self.assertEqual(read(f"/proc/{run.pid}/environ").split(b"\0").count(b"GOMP_SPINCOUNT=1000"), 1)
        run.terminate()
        self.assertEqual(run.wait(), 143)

    def test_threads_change_no_bit(self):
        train = "cifar-train --epochs 1 --limit 200 --quiet --log-every 1"
        for n in 1, 2, 3:
            out = run(f"{train} --threads {n} --model t{n}.ckpt --last t{n}.last --log t{n}.jsonl")
            self.assertEqual(out, "")
            self.holds(records(f"t{n}.jsonl")[0], threads=n, limit=200, train_images=200)
            self.assertEqual(read(f"t{n}.ckpt"), read("t1.ckpt"))
            self.assertEqual(records(f"t{n}.jsonl", "step"), records("t1.jsonl", "step"))
        losses = [step["loss"] for step in records("t1.jsonl", "step")]
        self.assertEqual(len(losses), 20)
        for loss in losses:  # in full precision
            self.assertEqual(loss, float("%.9g" % struct.unpack("f", struct.pack("f", loss))))

        # Images beyond the limit take no memory and are not looked at: the same data, the same run.
        shutil.copytree("data", "large")
        os.truncate("large/data_batch_5.bin", 350000 * RECORD)  # 1 GiB, sparse
        process = start(f"{train} --data large --threads 1 --model large.ckpt --last large.last")
        _, process.returncode, used = os.wait4(process.pid, 0)
        self.assertTrue(process.returncode == 0 and used.ru_maxrss < 500000, used)
        self.assertEqual(read("t1.ckpt"), read("large.ckpt"))

    def test_settings_that_are_not_the_defaults(self):
        train = "cifar-train --epochs 1 --limit 200 --model other.ckpt --last other.last --log other.jsonl --overwrite "
        run(train + "--quiet")
        first = read("other.ckpt")
        out = run(train + "--seed 1 --lr 0.002 --weight-decay 0.03")
        self.has(out, "Adam lr 0.002, weight decay 0.03, seed 1$")
        self.assertEqual([(r["event"], r.get("seed")) for r in records("other.jsonl")],  # a log is begun anew
                         [("start", 1), ("epoch", None), ("end", None)])
        self.holds(about("other.ckpt"), seed="1", lr="0.002", weight_decay="0.03", epochs="1", train_images="200")
        run(train + "--seed 1 --quiet")
        self.assertNotEqual(read("other.ckpt"), first)  # by the seed alone

    def test_live_line(self):
        train = "cifar-train --batch 2 --overwrite --model tty.ckpt --epochs"  # small steps, so that it takes some time
        shown = on_terminal(f"{train} 2 --log-every 10 --log tty.jsonl")
        self.has(shown, r"Epoch 1/2 \[#*\.*\] +[0-9]+ %  loss [0-9.]+  [0-9]+ images/s  [0-9]+:[0-9]{2} left")
        live = re.findall(r"Epoch (\d)/2 \[[#.]*\] +(\d+) %  loss ([0-9.]+)  (\d+) images/s", shown)
        measured = records("tty.jsonl", "epoch")[-1]["images_per_second"]
        for epoch, percent, loss, speed in live:  # it is of the whole run
            self.assertTrue(int(percent) <= 50 if epoch == "1" else 50 <= int(percent) <= 100, live)
            self.assertTrue(0.5 < float(loss) < 5 and measured / 10 < int(speed) < measured * 10, (live, measured))
        self.assertGreater(int(live[-1][1]), 50)
        self.assertLessEqual(set(re.findall(r"left\x1b\[K(.?)", shown, re.S)), {"", "\r"})  # and is taken away
        self.lacks(on_terminal(f"{train} 1 --quiet"), "left")
        self.lacks(on_terminal(f"{train} 1", TERM="dumb"), "\x1b")

    def test_names_that_are_no_utf8(self):
        odd = os.fsdecode(b"\xff.ckpt")
        run(f"cifar-train --epochs 1 --limit 20 --batch 100 --quiet --model odd.ckpt --last {odd} --log odd.jsonl")
        self.holds(records("odd.jsonl")[0], last="?.ckpt", limit=20, batch=20)  # the batch as it is used
        os.rename("odd.ckpt", odd)
        self.holds(run_json(f"cifar-test --model {odd} --grid= --json"), model="?.ckpt")

    # --- Going on.

    def test_going_on(self):
        train = "cifar-train --epochs 1 --save-every 40 --log-every 50 --log on/on.jsonl --model on/best.ckpt --quiet"
        self.assertNotEqual(start(train, stderr=subprocess.DEVNULL).wait(), 0)  # there is no folder
        os.mkdir("on")
        run(train)
        self.assertGreater(size("on/last.ckpt"), 0)  # beside the model
        before = [r for r in records("on/on.jsonl") if r["event"] != "end"]
        out = run("cifar-train --resume on/last.ckpt")
        self.has(out, "^on/last.ckpt: this run is finished; a larger --epochs than 1 goes on with it$")
        self.lacks(out, r"^(\[|Epoch|Finished)")
        self.assertEqual([r for r in records("on/on.jsonl") if r["event"] not in ("end", "resume")], before)
        os.remove("on/best.ckpt")
        self.assertEqual(run("cifar-train --resume on/last.ckpt --quiet"), "")
        run("cifar-test --model on/best.ckpt --grid=")  # the best network is in the state, too

        out = run("cifar-train --resume on/last.ckpt --epochs 2 --threads 1 --device auto")
        self.has(out, "^Going on with on/last.ckpt: epoch 2 of 2, after step 0 of 100$",
                 r"^Best test accuracy so far [0-9.]+ % \(epoch 1\), in on/best.ckpt$",
                 "epochs 2, steps in each 100, batch 10, Adam lr 0.001",
                 "state +on/last.ckpt, after each epoch and every 40 steps$", "log +on/on.jsonl, every 50 steps$")
        self.assertEqual(read("best.ckpt"), read("on/best.ckpt"))  # as if it had never stopped
        self.assertEqual(figures("run.jsonl"), figures("on/on.jsonl"))
        log = records("on/on.jsonl")
        self.assertEqual([r["event"] for r in log],
                         "start step step epoch resume resume resume step step epoch end".split())
        self.holds(log[0], last="on/last.ckpt", save_every=40)
        self.holds(log[6], epoch=2, step=0, threads=1, epochs=2, **{"from": "on/last.ckpt"})
        self.assertTrue(log[-1]["finished"] and 0 < log[-1]["save_seconds"] < log[-1]["seconds"], log[-1])
        self.has(run("cifar-test --model on/last.ckpt --grid="),  # a training state is a checkpoint, too
                 "model +on/last.ckpt: epoch 2 of a training on synthetic images")

        # The files of a run are where its state is, not where it is called from.
        os.mkdir("elsewhere")
        shutil.copy("best.ckpt", "elsewhere")  # another run's, as it were
        start("cifar-train --resume ../on/last.ckpt --epochs 3 --quiet", cwd="elsewhere").wait()
        self.assertEqual(read("elsewhere/best.ckpt"), read("best.ckpt"))
        self.holds(records("on/on.jsonl", "epoch")[-1], epoch=3)
        lines = read("on/on.jsonl").splitlines(keepends=True)
        write("on/on.jsonl", b"".join(line for line in lines if b'"epoch":3' not in line))
        run("cifar-train --resume on/last.ckpt --quiet", "^cifar-train: warning: on/on.jsonl: the log ends in epoch 3 "
            "at step 0, but the run goes on in epoch 4 after step 0: records are missing$")

        # So may they be elsewhere.
        os.renames("data", "moved/data")
        run("cifar-train --resume on/last.ckpt --data moved/data --model new.ckpt --last new.last --log new.jsonl "
            "--epochs 4")
        os.renames("moved/data", "data")
        self.assertTrue(size("new.ckpt") and size("new.last") and size("new.jsonl"))
        self.holds(about("on/last.ckpt"), epochs="3")  # the state before is left alone

        # Another instruction set is told of.
        warning = "the run in on/last.ckpt was computed by: kernels for [^;,]+; it goes on with: kernels for any proc"
        run("cifar-train --resume on/last.ckpt --quiet", f"^cifar-train: warning: {warning}essor; results may differ",
            CIFAR_CPU="portable")
        self.has(records("on/on.jsonl", "warning")[-1]["text"], f"^{warning}")

    def test_the_same_numbers_in_other_digits(self):
        run("cifar-train --epochs 1 --limit 9 --lr 0.0012345678901234567 --weight-decay 1e-3 --last l --quiet "
            "--model m")
        run("cifar-train --resume l --lr 1.2345678901234567e-3 --weight-decay 0.001 --quiet")

    # --- Recipes.

    RECIPE = ("cifar-train --recipe best --epochs 3 --limit 100 --batch 20 --average ema --average-decay 0.8 "
              "--lr 0.01 --weight-decay 0.01 --muon-lr 0.01 --momentum 0.95 --warmup 0.2 --shift 2 "
              "--label-smoothing 0.1 --final-lr 0.1 --validation 30 --log-every 2 --save-every 3")

    def recipe(self, name, more="", **environment):
        """Trains with all that a recipe has into NAME.ckpt, NAME.last, NAME.jsonl; what is printed."""
        return run(f"{self.RECIPE} --model {name}.ckpt --last {name}.last --log {name}.jsonl {more}", **environment)

    def test_a_run_by_a_recipe(self):
        out = self.recipe("r")
        log, epochs = records("r.jsonl"), records("r.jsonl", "epoch")
        (tested,) = records("r.jsonl", "test")
        accuracies = [e["validation_accuracy"] for e in epochs]
        best = accuracies.index(max(accuracies)) + 1
        self.has(out, "^  data +data: 70 training, 30 validation and 200 test images",
                 "^  training  epochs 3, steps in each 4, batch 20, Adam lr 0.01, weight decay 0.01, seed 0$",
                 "^  recipe +best, .*optimizer muon,.* schedule linear,.* warmup 0.2,.* flip alternating",
                 "^  result +the best epoch on 30 validation images$",
                 "^Epoch 1: validation accuracy [0-9.]+ %, validation loss ",
                 rf"^The chosen network, of epoch {best}: test accuracy %(test_accuracy).2f %%" % tested,
                 rf"^Finished Training in .*: best validation accuracy .* \(epoch {best}\), in r.ckpt$")
        # this output ends with what the run has come to
        self.assertEqual([line.split()[0] for line in out.splitlines()[-2:]], ["The", "Finished"])

        self.assertEqual([r["event"] for r in log], ["start"] + 3 * ["step", "step", "epoch"] + ["test", "end"])
        self.holds(log[0], train_images=70, validation_images=30, test_images=200,
                   selection="the best epoch on 30 validation images")
        self.assertEqual(log[0]["recipe"], {
            "name": "best", "epochs": 3, "batch": 20, "optimizer": "muon", "lr": 0.01, "weight_decay": 0.01,
            "decoupled": True, "muon_lr": 0.01, "momentum": 0.95, "schedule": "linear", "warmup": 0.2,
            "final_lr": 0.1, "flip": "alternating", "shift": 2, "border": "reflect", "label_smoothing": 0.1,
            "average": "ema", "average_decay": 0.8, "select": "best"})
        self.assertEqual(set(epochs[0]),
                         {"event", "epoch", "lr", "train_loss", "validation_loss", "validation_accuracy",
                          "train_seconds", "images_per_second", "validation_seconds", "best"})
        rises = round(0.2 * 12)
        for e in epochs:  # a schedule over 12 steps
            self.assertAlmostEqual(e["lr"], 0.01 * (1 - 0.9 * (4 * e["epoch"] - 1 - rises) / (12 - rises)), delta=1e-9)
        self.assertEqual([e["best"] for e in epochs],
                         [a > max(accuracies[:i], default=-1) for i, a in enumerate(accuracies)])
        self.holds(log[-1], finished=True, best_epoch=best, best_accuracy=max(accuracies),
                   test_accuracy=tested["test_accuracy"])

        # The files say the same, and so do the commands that judge them.
        self.holds(about("r.ckpt"), recipe="best", validation="30", epoch=str(best), train_images="70",
                   validation_accuracy="%.2f" % max(accuracies), test_accuracy="%(test_accuracy).2f" % tested,
                   test_loss="%(test_loss).6f" % tested, selection="the best epoch on 30 validation images",
                   **{"recipe.optimizer": "muon", "recipe.average_decay": "0.8", "recipe.shift": "2",
                      "recipe.decoupled": "true", "recipe.border": "reflect"})
        kept = {key for key in about("r.ckpt") if key.startswith("recipe.")}  # also what is the tutorial's
        self.assertEqual(len(kept), len(log[0]["recipe"]) - len(["name", "epochs", "batch", "lr", "weight_decay"]))
        for command in "cifar-test --json --grid=", "cifar-classes --json":
            found = run_json(f"{command} --model r.ckpt")
            self.holds(found, accuracy=tested["test_accuracy"], selection="the best epoch on 30 validation images")
            self.assertAlmostEqual(found["loss"], tested["test_loss"], delta=1e-6)
        self.has(run("cifar-test --model r.ckpt --grid="),
                 "a training on synthetic images.*: the best epoch on 30 validation images$")
        self.has(run("cifar-verify r.last"), "^state +r.last: whole; run ",
                 f"^model +r.ckpt: whole; epoch {best}, validation accuracy ", "^log +r.jsonl: whole; ")

        # It comes to the same once more, with other threads, and where it is gone on with.
        for more in "--threads 1", "--threads 3":
            self.recipe("again", f"--quiet --overwrite {more}")
            for what in "ckpt", "last":
                self.assertEqual(tensors(f"again.{what}"), tensors(f"r.{what}"))
            self.assertEqual(figures("again.jsonl"), figures("r.jsonl"))
        before = tensors("r.last"), tensors("r.ckpt")
        self.has(run("cifar-train --resume r.last"), "^r.last: this run is finished, after 3 epochs$",
                 r"^Best validation accuracy so far .*, in r.ckpt$")
        self.assertEqual(before, (tensors("r.last"), tensors("r.ckpt")))
        self.assertEqual(figures("again.jsonl"), figures("r.jsonl"))
        self.assertEqual([r["event"] for r in records("r.jsonl")][-4:], ["epoch", "resume", "test", "end"])
        self.recipe("chosen", "--quiet --select last")
        self.holds(about("chosen.ckpt"), epoch="3", selection="the last epoch")
        self.assertTrue(all(e["best"] for e in records("chosen.jsonl", "epoch")))

    def test_backends_learn_alike_by_a_recipe(self):
        for device in "cpu", "openblas":
            self.recipe(device, f"--quiet --device {device} --batch 35 --log-every 1 --epochs 2")
        for ours, theirs in zip(records("cpu.jsonl", "step"), records("openblas.jsonl", "step"), strict=True):
            self.assertAlmostEqual(ours["loss"], theirs["loss"], delta=1e-3 * ours["loss"])

    def test_a_run_by_a_recipe_is_stopped_and_goes_on(self):
        train = self.RECIPE.replace("--average ema --average-decay 0.8", "--flip random --quiet")  # faster
        train = train.replace("--epochs 3", "--epochs 30")
        run(f"{train} --model through.ckpt --last through.last --log through.jsonl")
        process = start(f"{train} --model stop.ckpt --last stop.last --log stop.jsonl", stderr=subprocess.DEVNULL)
        while size("stop.jsonl") < 4000 and process.poll() is None:
            time.sleep(0.01)
        process.terminate()
        self.assertEqual(process.wait(), 143)
        run("cifar-train --resume stop.last --quiet --threads 1")
        for what in "ckpt", "last":
            self.assertEqual(tensors(f"stop.{what}"), tensors(f"through.{what}"))
        self.assertEqual(figures("stop.jsonl"), figures("through.jsonl"))
        run("cifar-verify stop.last")

    def test_the_test_images_choose_nothing(self):
        shutil.copytree("data", "untested")
        run("cifar-synth other-test --train 5 --test 200 --seed 99")
        shutil.copy("other-test/test_batch.bin", "untested")
        for folder in "data", "untested":
            self.recipe(folder, f"--quiet --data {folder}")
        self.assertEqual(tensors("data.ckpt"), tensors("untested.ckpt"))
        self.assertEqual(figures("data.jsonl"), figures("untested.jsonl"))
        losses = {records(f"{folder}.jsonl", "test")[0]["test_loss"] for folder in ("data", "untested")}
        self.assertEqual(len(losses), 2)

    def test_what_is_kept_of_a_recipe(self):
        train = "cifar-train --limit 20 --epochs 1 --batch 20 --quiet --overwrite --model o.ckpt --last o.last"
        marks = set()
        for option, value, other, beside in (
                ("optimizer", "sgd", "muon", ""), ("muon-lr", "0.5", "0.25", "--optimizer muon"),
                ("momentum", "0.5", "0.25", "--optimizer sgd"), ("schedule", "cosine", "linear", ""),
                ("warmup", "0.5", "1", ""), ("final-lr", "0.5", "0.25", "--schedule linear"),
                ("flip", "random", "alternating", ""), ("shift", "3", "4", ""),
                ("border", "reflect", "zero", "--shift 1"), ("label-smoothing", "0.5", "0.125", "--optimizer sgd"),
                ("average", "ema", "none", ""), ("average-decay", "0.5", "0.25", "--average ema"), ("select", "last", "best", ""),
                ("validation", "5", "4", ""), ("recipe", "best", "tutorial", "")):
            run(f"{train} {beside} --{option} {value}")
            key = option.replace("-", "_")
            key = key if option in ("validation", "recipe") else f"recipe.{key}"
            self.holds(about("o.last"), **{key: value})
            self.assertNotIn(about("o.last")["run"], marks)  # each is a run of its own
            marks.add(about("o.last")["run"])
            run(f"cifar-train --resume o.last --quiet --{option} {value}")
            process = start(f"cifar-train --resume o.last --{option} {other}", stderr=subprocess.PIPE)
            self.has(process.communicate()[1].decode(), f"--{option} {other}: the run in o.last has {value}; ")
            self.assertEqual(process.returncode, 2)
        # A schedule's length decides what it comes to; a run without one may become longer.
        for options, other_marks in ("--recipe best", 2), ("", 1):
            marks = set()
            for epochs in 1, 2:
                run(f"{train} {options} --epochs {epochs}")
                marks.add(about("o.last")["run"])
            self.assertEqual(len(marks), other_marks)
        run(f"{train} --decoupled")
        self.holds(about("o.last"), **{"recipe.decoupled": "true"})
        run("cifar-train --resume o.last --decoupled --quiet")
        run(f"{train} --recipe best --no-decoupled")
        self.holds(about("o.last"), **{"recipe.decoupled": "false"})
        run("cifar-train --resume o.last --no-decoupled --quiet")
        run(train)  # of the tutorial there is not a word in the files, so that earlier versions go on with them
        self.assertEqual([key for key in about("o.last") if "recipe" in key], [])

    def test_a_run_that_begins_with_a_network(self):
        train = "cifar-train --epochs 1 --limit 100 --quiet --lr 0 --weight-decay 0 --overwrite --log i.jsonl"
        parameters = [name for name in tensors("best.ckpt") if name.endswith((".weight", ".bias"))]
        shutil.copy("best.ckpt", "begin.ckpt")
        run(f"{train} --init begin.ckpt --model i.ckpt --last i.last")
        found, given = tensors("i.ckpt"), tensors("best.ckpt")
        self.assertEqual([found[name] for name in parameters], [given[name] for name in parameters])
        self.assertEqual(found["bn1.num_batches_tracked"], struct.pack("<q", 10))
        mark, init = about("i.ckpt")["run"], about("i.ckpt")["init_digest"]
        self.holds(about("i.ckpt"), init="begin.ckpt")
        self.holds(records("i.jsonl")[0], init="begin.ckpt", init_digest=init)
        # The state needs the file no more, and is of the same run; another network begins another one.
        os.remove("begin.ckpt")
        run("cifar-train --resume i.last --epochs 2 --quiet")
        self.holds(about("i.last"), init="begin.ckpt", init_digest=init, run=mark)
        shutil.copy("best.ckpt", "elsewhere.ckpt")
        run(f"{train} --init elsewhere.ckpt --model i2.ckpt --last i2.last")
        self.assertEqual(about("i2.ckpt")["init_digest"], init)
        run(f"{train} --init i2.ckpt --model i3.ckpt --last i3.last")
        self.assertNotEqual(about("i3.ckpt")["run"], mark)
        self.assertNotEqual(about("i3.ckpt")["init_digest"], init)
        run(f"{train} --model i4.ckpt --last i4.last")
        self.assertNotIn("init", about("i4.ckpt"))
        self.has(run(f"{train.replace('--quiet', '')} --init best.ckpt --model i5.ckpt --last i5.last"),
                 "^  begins +with the network of best.ckpt$")

    # --- Testing.

    def test_text_json_and_picture_of_a_test(self):
        out = run("cifar-test")  # best.ckpt is the default
        self.has(out, "model +best.ckpt: epoch [12] of a training on synthetic images",
                 r"data +data: 200 test images \(synthetic", "predictions.png",
                 r"^Test accuracy [0-9]+\.[0-9]{2} % \([0-9]+ of 200 images\), loss [0-9.]+$",
                 "^Real labels:( +[a-z]+){10}$", "^Predicted:  ( +[a-z]+){10}$")
        rows = pixels("predictions.png")
        os.remove("predictions.png")
        found = run_json("cifar-test --json --batch 10 --grid ''")
        self.has(out, "^Real labels: +" + " +".join(found["real"]), "^Predicted: +" + " +".join(found["predicted"]),
                 r"^Test accuracy %(accuracy).2f %% \(%(correct)d of 200 images\), loss %(loss).4f$" % found)
        self.assertEqual(found["real"], [names[label] for label in read("data/test_batch.bin")[: 10 * RECORD : RECORD]])
        for i in range(10):  # a pixel of the frame's inner part, left of image i
            x = 8 + i % 8 * 152 + 7
            red, green, _ = rows[8 + i // 8 * 152 + 76][3 * x : 3 * x + 3]
            self.assertEqual(green > red, found["real"][i] == found["predicted"][i], i)

    def test_json_of_a_test(self):
        four = run_json("cifar-test --json --batch 4 --grid four.png")
        best = [e for e in records("run.jsonl", "epoch") if e["best"]][-1]
        self.holds(four, grid="four.png", synthetic=True, accuracy=best["test_accuracy"])
        self.assertEqual(four["accuracy"], 100 * four["correct"] / four["images"])
        self.assertAlmostEqual(four["loss"], best["test_loss"], delta=1e-6)
        self.assertEqual([len(four[key]) for key in ("real", "predicted", "logits")], [4, 4, 4])
        self.assertEqual(len(four["logits"][0]), 10)
        self.assertTrue(size("four.png") and not size("predictions.png"))

        # The batch changes no accuracy, also where it does not divide the images; --grid '' makes no picture.
        ten, out = run_json("cifar-test --json --grid ''"), run("cifar-test --json --grid '' --batch 7")
        seven = json.loads(out)
        self.assertEqual(out[-1], "\n")
        self.assertFalse(size("predictions.png"))
        for found in ten, seven:
            self.holds(found, correct=four["correct"])
            self.assertAlmostEqual(found["loss"], four["loss"], delta=1e-6)
            self.assertNotIn("grid", found)
        self.assertEqual(seven["predicted"], [names[logits.index(max(logits))] for logits in seven["logits"]])
        for a, b in zip(sum(seven["logits"], []), sum(four["logits"], [])):
            self.assertAlmostEqual(a, b, delta=1e-4)
        self.has(run("cifar-test --batch 100000 --grid big.png"), "first 200 images")
        run("cifar-test --batch 1 --grid ''")

    def test_where_the_data_is(self):
        here = os.getcwd()
        self.has(run("cifar-test --grid=", CIFAR10_DIR=""), "data +data: 200")
        self.has(run("cifar-test --grid=", CIFAR10_DIR=f"{here}/data/"), f"data +{here}/data: 200")
        run("cifar-test --data data --grid=", CIFAR10_DIR="nowhere")
        os.mkdir("root")
        os.symlink("../data", "root/cifar-10-batches-bin")
        run("cifar-test --data root --grid=")  # the parent folder, as torchvision takes it

    def test_what_the_data_is(self):
        """Without names it is CIFAR-10, unless its labels are those of synthetic images."""
        batch = read("data/test_batch.bin")
        images = sorted((batch[i : i + RECORD] for i in range(0, len(batch), RECORD)), key=lambda image: image[1:])
        os.mkdir("official")
        write("official/test_batch.bin", b"".join(images))  # in no order of cifar-synth's; a test needs no others
        other = "^cifar-[a-z]+: warning: best.ckpt: its class 0 is 'disc', but that of [a-z]+ is 'airplane'$"
        self.has(run("cifar-test --data official --grid=", other), r"data +official: 200 test images \(CIFAR-10\)$",
                 "^Real labels:( +(airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck)){10}$")
        found = run_json("cifar-test --data official --grid= --json", other)
        self.holds(found, synthetic=False, data="official", device="cpu")
        shutil.copytree("data", "nameless")
        os.remove("nameless/batches.meta.txt")
        self.holds(run_json("cifar-test --data nameless --grid= --json", other), synthetic=True)
        write("nameless/batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n")
        train = "cifar-train --data nameless --epochs 1 --limit 25 --model named.ckpt --last named.last --overwrite"
        self.has(run(train), "data +nameless: 25 training and 200 test images "
                             r"\(synthetic images, drawn by cifar-synth: not CIFAR-10\)")
        self.has(about("named.ckpt")["trained_on"], "^synthetic images")
        shutil.copy("official/test_batch.bin", "nameless")  # beside other test images, too
        self.has(run(train), r"data +nameless: 25 training .*\(synthetic")

    def test_what_a_checkpoint_says_cannot_act_on_a_terminal(self):
        change("best.ckpt", "rude.ckpt", pack, trained_on="a\x1b[31mb", crc32=None, program=None)
        self.has(run("cifar-test --model rude.ckpt --grid="), r"of a training on a\?\[31mb: the best epoch on the test ")

    # --- Classes.

    def test_text_json_and_predictions_of_classes_agree(self):
        out, found = run("cifar-classes --confusion"), run_json("cifar-classes --confusion --json")
        test = run_json("cifar-test --json --batch 200 --grid=")
        self.holds(test, **{key: found[key] for key in ("synthetic", "device", "data", "images", "model", "accuracy")})
        self.assertAlmostEqual(found["loss"], test["loss"], delta=1e-6)
        self.assertAlmostEqual(found["mean_class_accuracy"], found["accuracy"], delta=1e-5)
        pairs, confusion = list(zip(test["real"], test["predicted"])), found["confusion"]
        self.assertEqual(confusion, [[pairs.count((a, b)) for b in names] for a in names])
        self.assertEqual([c["class"] for c in found["classes"]], names)
        for i, c in enumerate(found["classes"]):
            predicted = sum(row[i] for row in confusion)
            self.assertEqual(sum(confusion[i]), 20)
            self.holds(c, images=20, correct=confusion[i][i], predicted=predicted)
            self.assertAlmostEqual(c["accuracy"], 100 * confusion[i][i] / 20, delta=1e-5)
            if predicted == 0:
                self.assertIsNone(c["precision"])
            else:
                self.assertAlmostEqual(c["precision"], 100 * confusion[i][i] / predicted, delta=1e-5)

        lines = out.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("class ")) + 1
        for line, c in zip(lines[at : at + 10], found["classes"], strict=True):
            precision = "-" if c["precision"] is None else f"{c['precision']:.2f} %"
            self.has(line, f"^{c['class']} +{c['accuracy']:.2f} % +{precision} +20$")
        self.assertEqual(lines[at + 10], f"Mean of the classes {found['mean_class_accuracy']:.2f} %; test accuracy "
                         f"{found['accuracy']:.2f} % ({test['correct']} of 200 images), loss {found['loss']:.4f}")
        self.has(out, r"^Real class \(row\)")
        self.assertEqual(lines[at + 13].split(), [name[:7] for name in names])
        self.assertEqual([line.split() for line in lines[at + 14 : at + 24]],
                         [[name, *map(str, row)] for name, row in zip(names, confusion)])
        self.lacks(out, r"[\x01-\x08\x0b-\x1f]")
        self.lacks(run("cifar-classes"), "Real class")
        self.assertNotIn("confusion", run_json("cifar-classes --json"))

    def test_a_class_without_images_has_no_part_in_the_mean(self):
        test, batch = run_json("cifar-test --json --batch 200 --grid="), read("data/test_batch.bin")
        pairs = list(enumerate(zip(test["real"], test["predicted"])))
        good, name = next((i, real) for i, (real, predicted) in pairs if real == predicted)
        bad = [(i, real) for i, (real, predicted) in pairs if real not in (predicted, name)]
        bad = [i for i, real in bad if real == bad[0][1]][:2]
        os.mkdir("few")  # one image that is right, two of another class that are not
        write("few/test_batch.bin", b"".join(batch[i * RECORD : (i + 1) * RECORD] for i in [good, *bad]))
        other = "^cifar-classes: warning: best.ckpt: its class 0 is "
        found = run_json("cifar-classes --data few --json", other)
        self.assertEqual(sorted((c["images"], c["accuracy"]) for c in found["classes"] if c["images"] > 0),
                         [(1, 100), (2, 0)])
        self.assertEqual([c["accuracy"] for c in found["classes"] if c["images"] == 0], 8 * [None])
        self.holds(found, mean_class_accuracy=50)
        self.assertAlmostEqual(found["accuracy"], 100 / 3, delta=1e-5)
        self.has(run("cifar-classes --data few", other), "^Mean of the classes 50.00 %; test accuracy 33.33 % ",
                 "^[a-z]+ +- +([0-9.]+ %|-) +0$")

    def test_bars_on_a_terminal(self):
        for language, bar in ("C", "[█#]"), ("C.UTF-8", "█"):
            shown = on_terminal("cifar-classes --model best.ckpt", LC_ALL=language)
            self.has(shown, f"%  {bar}+")
            for accuracy, found in re.findall(f"^[a-z]+ +([0-9.]+) %  ({bar}*)", shown, re.M):
                self.assertAlmostEqual(float(accuracy) / 4, len(found), delta=0.5)

    # --- PyTorch's file.

    def test_a_checkpoint_that_pytorch_saved(self):
        golden = os.environ["GOLDEN"] + "/after3.safetensors"
        assumed = "does not name its classes; CIFAR-10's names are assumed$"
        run(f"cifar-test --model {golden} --grid=", assumed)
        # the Linear layer's weights: finite, but so large that the loss is not
        write("huge.ckpt", read(golden)[:-96000] + struct.pack("<f", 3e38) * 24000)
        for command in "cifar-test --grid=", "cifar-classes":
            self.holds(run_json(f"{command} --model huge.ckpt --json", assumed), loss=None)

    # --- ONNX. What is in the file net/onnx_test.c reads, and others run it for scripts/onnx_test.

    @unittest.skipUnless(os.environ["ONNX"] == "ON", "ONNX is not built")
    def test_text_and_file_of_an_export(self):
        out = run("cifar-export")
        kilobytes = f"{size('ImageClassifier.onnx') / 1000:.0f}"
        self.has(out, f"^model +best.ckpt: test accuracy {about('best.ckpt')['test_accuracy']} %$",
                 f"^ONNX +ImageClassifier.onnx: opset 9, IR version 4, {kilobytes} kB, batch norm.* folded into the conv",
                 r"^input +modelInput: float \[batch_size, 3, 32, 32\], planes red, green, blue; .* \(p - 127.5\) / 127.5$",
                 r"^output +modelOutput: float \[batch_size, 10\], logits$", f"^classes {', '.join(names)}$")
        first = read("ImageClassifier.onnx")
        for text in names[0], "training.seed", about("best.ckpt")["test_accuracy"], "training.trained_on", "synthetic im":
            self.assertIn(text.encode(), first)
        for text in "xxh3", "fingerprint", "last.ckpt", os.getcwd():  # no digest, no path
            self.assertNotIn(text.encode(), first)
        self.assertEqual(run("cifar-export"), out)  # over the first, with the same bytes
        self.assertEqual(read("ImageClassifier.onnx"), first)
        out = run("cifar-export --model last.ckpt --onnx e.onnx --opset 17 --keep-batchnorm --softmax --pixels --bgr")
        self.has(out, "^ONNX +e.onnx: opset 17, IR version 8, [0-9]+ kB, batch normalisation kept$",
                 "^input .*, planes blue, green, red; pixels as they are, 0 to 255$", "^output .*, probabilities$",
                 "^model +last.ckpt$")
        write("empty.onnx", b"")
        run("cifar-export --onnx empty.onnx")
        self.assertEqual(read("empty.onnx"), first)

        # Without a data set, also PyTorch's; nothing acts on a terminal.
        golden = os.environ["GOLDEN"] + "/after3.safetensors"
        self.has(run(f"cifar-export --model {golden} --onnx g.onnx", "^cifar-export: warning: .*after3.safetensors: does "
                     "not name its classes; CIFAR-10's names are assumed$"), "^model +.*after3.safetensors$",
                 "^classes airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck$")
        change("best.ckpt", "rude.ckpt", pack, test_accuracy="1\x1b[31m", crc32=None, program=None)
        self.has(run("cifar-export --model rude.ckpt --onnx g.onnx"), r"accuracy 1\?\[31m %$")

    @unittest.skipIf(os.environ["ONNX"] == "ON", "ONNX is built")
    def test_an_export_without_onnx(self):
        process = start("cifar-export --onnx none.onnx", stderr=subprocess.PIPE)
        self.has(process.communicate()[1].decode(), r"\Acifar-export: none.onnx: this build writes no ONNX models; install "
                 r"libprotobuf-c-dev, protobuf-c-compiler and libonnx-dev .*-DCIFAR_ONNX=ON\n\Z")
        self.assertEqual((process.returncode, os.path.exists("none.onnx")), (1, False))


if __name__ == "__main__":
    unittest.main()
