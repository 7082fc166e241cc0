"""Benchmark of a frozen backbone with a fitted classifier against full fine-tuning, on photographs.

    HF_HOME=WEIGHTS/hf HF_HUB_OFFLINE=1 python benchmarks/frozen_teaching.py --data-root PHOTOS --json out.json

The folder of images has ``train``, ``validation`` and ``test`` folders of classes. Each arm calls ``teach`` as a user
does, with an empty cache of features and decoded images already there. Arms take turns within each seed, because other
work on the machine changes their times. ``--quick`` draws images itself and uses random weights of a tiny network: it
shows that the script runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODEL = "tf_efficientnet_lite0"

ARMS: dict[str, dict[str, Any]] = {
    "full": {"pretrained": True, "epochs": 4},
    "frozen": {"freeze": True},
    "frozen_one_view": {"freeze": True, "recipe": {"augment": "none"}},
    "frozen_unfreeze_1": {"freeze": True, "unfreeze": 1},
}
"""Keywords of ``teach``; ``full`` is the fine-tuning that the others are compared with."""


def run(arm: Mapping[str, Any], data: Any, test: Any, *, model: str, seed: int) -> dict[str, float]:
    """Teach once, and return seconds (wall-clock and CPU), and accuracy on validation and test images."""
    from autodistill.training.teachers import load as teachers
    from autodistill.training.teachers.answers import answers
    from autodistill.training.trials.teach import teach

    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTODISTILL_CACHE"] = f"{folder}/cache"
        began, worked = time.perf_counter(), time.process_time()
        spec = teach(data, model, directory=f"{folder}/teacher", seed=seed, **arm)
        wall, cpu = time.perf_counter() - began, time.process_time() - worked
        teacher = teachers.load_teacher(spec, data)
        found = {"seconds": wall, "cpu_seconds": cpu, "input_size": float(teacher.image_size)}
        for name, split in (("validation", data.val), ("test", test)):
            found[name] = float((answers(teacher, split).argmax(1).numpy() == split.labels).mean())
    return found


def quick_images(root: Path) -> None:
    """Write noise whose class is a colour."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("validation", 20), ("test", 20)):
        for label, name in enumerate(("red", "green", "blue")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (32, 32, 3))
                pixels[:, :, label] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{number}.png")


def quick_weights(hub: Path) -> str:
    """Write random weights of a tiny network into a hub cache, and return the network's name."""
    os.environ |= {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}  # read when huggingface_hub is imported
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("test_byobnet")
    root = hub / "hub" / f"models--{network.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    (root / "snapshots" / "0").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0")
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, root / "snapshots" / "0" / "model.safetensors")
    return "test_byobnet"


def table(rows: Mapping[str, list[dict[str, float]]]) -> str:
    """Return the results as a Markdown table: mean and standard deviation over the seeds."""
    head = ["arm", "validation", "test", "seconds", "share of full", "CPU seconds"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    whole = statistics.fmean(one["seconds"] for one in rows["full"]) if "full" in rows else float("nan")
    for name, runs in rows.items():
        values = {key: [one[key] for one in runs] for key in runs[0]}
        mean = {key: statistics.fmean(found) for key, found in values.items()}
        cells = [f"{mean[key]:.3f} ± {statistics.pstdev(values[key]):.3f}" for key in ("validation", "test")]
        cells += [f"{mean['seconds']:.0f}", f"{mean['seconds'] / whole:.2f}", f"{mean['cpu_seconds']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run all arms for all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with train, validation and test folders of classes")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()

    arms = {name: ARMS[name] for name in arguments.arms.split(",")}
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.data_root
        if arguments.quick:
            root, arguments.image_size, arguments.seeds = Path(scratch) / "images", 32, 1
            quick_images(root)
            arguments.model = quick_weights(Path(scratch) / "hub")
        elif root is None:
            parser.error("--data-root is missing")
        import torch

        from autodistill.core.records import DataSpec
        from autodistill.training.data import datasets

        torch.set_num_threads(arguments.threads)
        spec = DataSpec("image_folder", root=str(root), image_size=arguments.image_size)
        data, test = datasets.load_images(spec, scratch), datasets.load_test(spec, scratch)
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
        for seed in range(arguments.seeds):
            for name, arm in arms.items():
                rows[name].append(run(arm, data, test, model=arguments.model, seed=seed))
                print(name, seed, rows[name][-1], file=sys.stderr, flush=True)
    facts = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "torch": torch.__version__,
    }
    given = {"model": arguments.model, "image_size": arguments.image_size, "images": len(data.train)}
    arguments.json.write_text(json.dumps({**facts, **given, "rows": rows}, indent=1))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
