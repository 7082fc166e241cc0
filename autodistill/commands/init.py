"""``init``: the first study file."""

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
# Every key may be left out; what stands here after a '#' is the default.

{name:<32} # also the folder: runs/NAME
{data:<32} # digits, fashion_mnist, cifar10, image_folder, synthetic, or a mapping:
# data:
#   source: image_folder         # one folder per class below root
#   root: photos                 # counts from this file
#   image_size: 64               # pixels per side that the student sees
#   train_size: 12000            # images kept for training; all by default
#   val_fraction: 0.15
#   resize: crop                 # images that are not square: crop, squash or letterbox

teacher: auto                    # trains one on the spot; or a file of 'autodistill teach', or a timm name
# space: digits                  # 'autodistill spaces ls', or a YAML file; by the data when left out
# set:                           # narrow the space
#   student.family: [resnet, convnext]

objectives: [accuracy, params, latency_ms]
# constraints: ["params <= 1e6", "accuracy >= 0.9"]    # what is too large is not trained; what is too bad not sought
# constraints: ["accuracy >= teacher - 0.05"]          # at most 5 points below the teacher; the same as within: 5
# within: auto                   # more than 20 points below the teacher is no gain; off takes this away

# sampler: front                 # front, gp, tpe, nsga2, nsga3, random, qmc
# epochs: 30                     # of the top rung; by the data when left out
# rungs: auto                    # auto, off, or {{eta: 3, lowest: 0.05}}: one trial in eta goes on from each rung
# survey: auto                   # how many students are measured before any is trained
# training: {{batch_size: 64}}     # settings shared by all trials
# latency: {{device: cpu, batch: 1, threads: 1}}
# variants: [fp32, int8]         # also the int8 form of every finished student
# warm_start: [runs/other]       # try the front of other studies first

budget: 5m                       # 30m, 2h, 40trials, 600epochs, 3gpu-hours; joined by commas, the first reached ends
# workers: 2                     # one per GPU (or one) when left out
# devices_per_trial: 1           # GPUs (or groups of threads) that train one candidate together
# slots_per_gpu: 1               # workers that share one GPU, or auto
# engine: local                  # local or ray
# storage: postgresql://host/db  # a database server in the place of study.db
seed: 0
"""


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study file to write.")] = Path("study.yaml"),
    name: Annotated[str, typer.Option(help="Name of the study.")] = "my-study",
    data: Annotated[str, typer.Option(help="Where the images come from.")] = "digits",
) -> None:
    """Write a commented study file to start from; an existing file is never overwritten."""
    from autodistill.config.study_file import StudyConfig
    from autodistill.engines.setup.check_names import check_first

    check_first(StudyConfig.load({"name": name, "data": data}, flags={"name": "--name", "data": "--data"}))
    lines = {key: dump({key: value}).rstrip() for key, value in (("name", name), ("data", data))}  # 2024 is quoted
    write_new(file, TEMPLATE.format(file=file, **lines))
    say(f"wrote {file}. Start it: " + command("search", file))
