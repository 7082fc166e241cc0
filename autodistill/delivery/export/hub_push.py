"""Puts an exported folder on the Hugging Face Hub, where ``timm.create_model('hf-hub:NAME/REPO')`` finds it.

The folder is laid out as timm's hub wants it already, so the very bytes that were checked are uploaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from autodistill.core.errors import ResourceError, UsageError

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class Upload:
    """What would be uploaded, and where to.

    Attributes:
        repository: ``name/repository``.
        folder: the exported folder.
        files: names in it, sorted.
        private: only its owner sees it.
        token: of the account; never printed.
    """

    repository: str
    folder: Path
    files: tuple[str, ...]
    private: bool
    token: str

    def __repr__(self) -> str:
        return f"Upload({self.repository!r}, {str(self.folder)!r}, {len(self.files)} files, private={self.private})"


def plan_upload(folder: str | Path, repository: str, *, private: bool = False) -> Upload:
    """Everything that can be checked before the network is touched.

    Raises:
        UsageError: the name is none, the folder is not an export that timm reads, or there is no token.
    """
    from huggingface_hub import get_token

    path = Path(folder)
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(
            f"{repository!r} is no repository of the Hub; write NAME/REPOSITORY, e.g. 'ada/digits-student'."
        )
    files = tuple(sorted(one.name for one in path.iterdir() if one.is_file())) if path.is_dir() else ()
    for needed in ("config.json", "model.safetensors", "README.md"):
        if needed not in files:
            raise UsageError(f"{path} has no {needed}; export it with the format safetensors before it is pushed.")
    token = get_token()
    if not token:
        raise UsageError("no Hugging Face token is found; set HF_TOKEN, or log in with 'hf auth login', and try again.")
    return Upload(repository, path, files, private, token)


def push(upload: Upload) -> str:
    """Make the repository where it is missing, and upload the folder as one commit.

    Returns:
        Address of the repository.

    Raises:
        ResourceError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=upload.token)
    try:
        made = api.create_repo(upload.repository, private=upload.private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=str(upload.folder), commit_message="Student exported by autodistill"
        )
    except Exception as error:  # network, permission, quota: httpx, OSError and the Hub's own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].replace(upload.token, "***")
        raise ResourceError(
            f"the Hub did not take {upload.repository}: {said} The files are in {upload.folder}."
        ) from None
    return str(made)
