"""Check that pretrained weights are available, so that the user learns within seconds that the hub is unreachable."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from autodistill.core.errors import TeacherError

_SECONDS = 4.0


def require_pretrained(name: str, *, to_train_on: bool = False) -> None:
    """Check that timm can load the weights of ``name`` from the local cache, a local folder, or the hub.

    Args:
        name: name of a timm network.
        to_train_on: whether training starts from the weights; if not, they are used as a teacher. Only for messages.

    Raises:
        TeacherError: timm has no weights for the network, or they are not on this machine and the hub is unreachable.
    """
    import timm

    if name.startswith("local-dir:"):
        return
    config = None if ":" in name else timm.get_pretrained_cfg(name)
    if ":" not in name and (config is None or not config.has_weights):
        raise TeacherError(
            f"timm has no pretrained weights for {name}. "
            + (
                "Leave out --pretrained."
                if to_train_on
                else "Give a file as weights, or teach one: `autodistill teach`."
            )
        )
    repository = name.split(":", 1)[1] if config is None else config.hf_hub_id
    if repository and (_cached(repository) or _reachable()):
        return
    instead = (
        "Either bring them into the hub's cache from a machine with a network (the folder HF_HOME), or start from "
        "random weights: leave out --pretrained."
        if to_train_on
        else "Either fetch them on a machine with a network and give the file as weights (.safetensors), or teach a "
        "teacher here: `autodistill teach`."
    )
    raise TeacherError(
        f"the pretrained weights of {name} are not on this machine and the hub cannot be reached. {instead}"
    )


def _cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def _reachable() -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    found: list[bool] = []
    # In a separate thread, because the request's timeout does not limit the DNS lookup.
    thread = threading.Thread(target=lambda: found.append(_answers()), daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return found == [True]


def _answers() -> bool:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # an error response also shows that the hub is reachable
    except (OSError, ValueError):
        return False
    return True
