"""``init``: writes a commented study file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autodistill.commands.console.output import command, say
from autodistill.commands.spaces import write_new
from autodistill.core.strict_yaml import dump

INIT = """
  autodistill init
  autodistill init flowers.yaml --name flowers --data image_folder
"""
TEMPLATE = """\
# A study of autodistill. Start or resume it:  autodistill search {file}
# Every key is optional; lines that begin with '#' are examples or defaults.

{name:<32} # the study's folder is runs/NAME
{data:<32} # digits, fashion_mnist, cifar10, image_folder, synthetic, or a mapping:
# data:
#   source: image_folder         # one folder per class below root; manifest: a table (CSV); hf, webdataset
#   root: photos                 # relative to this file; of a manifest the table itself
#   image_size: 64               # side of the student's square input, in pixels
#   train_size: 12000            # number of training images to use; default: all
#   val_fraction: 0.15           # share of the training images held out for validation
#   resize: crop                 # how to make images square: crop, squash or letterbox
#   drop_duplicates: true        # leave out of the training what has a copy in validation or test; default: false
#   unlabelled: more_photos      # folder with images without labels; the teacher's answers are their target

# task: multilabel               # any number of labels per image; default: multiclass, one class per image

teacher: auto                    # auto trains one first; or a folder made by 'autodistill teach', or a timm model name
# space: digits                  # a name of 'autodistill spaces ls', or a YAML file; default: by the image size
# set:                           # narrow the space
#   student.family: [resnet, convnext]
# left_out: {{distillation.loss: [dkd]}}  # choices that cannot serve the task; filled in at the start

objectives: [accuracy, params, latency_ms]             # metrics to trade off
# measures: {{f2: "my_measures:f2"}}                     # your own measures of (logits, labels); objective f2:maximize
# constraints: ["params <= 1e6", "accuracy >= 0.9"]    # bounds on metrics; too large students are not trained at all
# constraints: ["accuracy >= teacher - 0.05"]          # at most 5 points below the teacher; the same as within: 5
# within: auto                   # students more than 20 points below the teacher count as no gain; off: they count

# sampler: front                 # proposes candidates: front, gp, tpe, nsga2, nsga3, random, qmc
# epochs: 30                     # length of a full training (the top rung); default: chosen by budget and data
# rungs: auto                    # auto, off, or {{eta: 3, lowest: 0.05}}: one trial in eta continues from each rung
# survey: auto                   # number of students that are measured before any training; auto or off
# training: {{batch_size: 64}}     # settings shared by all trials
# latency: {{device: cpu, batch: 1, threads: 1}}         # how latency_ms is measured
# variants: [fp32, int8]         # also measure the int8 form of every finished student
# warm_start: [runs/other]       # try the front of other studies first

budget: 5m                       # 30m, 2h, 40trials, 600epochs, 3gpu-hours; of several (commas) the first reached ends
# workers: 2                     # candidates trained in parallel; default: one per GPU, or one
# devices_per_trial: 1           # GPUs (or groups of CPU threads) that train one candidate together
# slots_per_gpu: 1               # workers that share one GPU, or auto
# engine: local                  # local or ray
# storage: postgresql://host/db  # a database server instead of SQLite in the study's folder
seed: 0                          # random seed
"""


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study file to write.")] = Path("study.yaml"),
    name: Annotated[str, typer.Option(help="Name of the study.")] = "my-study",
    data: Annotated[str, typer.Option(help="Source of the images: digits, fashion_mnist, image_folder …")] = "digits",
) -> None:
    """Write a commented study file to start from. An existing file is never overwritten."""
    from autodistill.config.study_file import StudyConfig
    from autodistill.engines.setup.check_names import check_first

    check_first(StudyConfig.load({"name": name, "data": data}, flags={"name": "--name", "data": "--data"}))
    lines = {
        key: dump({key: value}).rstrip() for key, value in (("name", name), ("data", data))
    }  # quotes names like 2024
    write_new(file, TEMPLATE.format(file=file, **lines))
    say(f"wrote {file}. Start the search: " + command("search", file))
