"""Upload of an exported folder to the Hugging Face Hub, for ``timm.create_model('hf-hub:NAME/REPO')``.

An exported folder already has the layout that timm needs, so the checked files are uploaded unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from autodistill.core.errors import ResourceError, UsageError, first_line

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class Upload:
    """A checked plan of an upload.

    Attributes:
        repository: ``name/repository``.
        folder: the exported folder.
        files: names of the files in it, sorted.
        private: whether only the owner of the repository can see it.
        token: access token of the account; never printed.
    """

    repository: str
    folder: Path
    files: tuple[str, ...]
    private: bool
    token: str

    def __repr__(self) -> str:
        return f"Upload({self.repository!r}, {str(self.folder)!r}, {len(self.files)} files, private={self.private})"


def plan_upload(folder: str | Path, repository: str, *, private: bool = False) -> Upload:
    """Check an upload without network access.

    Raises:
        UsageError: the name is not valid, the folder is not an export that timm can read, or there is no token.
    """
    from huggingface_hub import get_token

    path = Path(folder)
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(
            f"{repository!r} is not a repository name of the Hub; give NAME/REPOSITORY, e.g. 'ada/digits-student'."
        )
    files = tuple(sorted(one.name for one in path.iterdir() if one.is_file())) if path.is_dir() else ()
    for needed in ("config.json", "model.safetensors", "README.md"):
        if needed not in files:
            raise UsageError(f"{path} has no {needed}; export it with the format safetensors before it is pushed.")
    token = get_token()
    if not token:
        raise UsageError("no Hugging Face token was found; set HF_TOKEN, or log in with 'hf auth login'.")
    return Upload(repository, path, files, private, token)


def push(upload: Upload) -> str:
    """Create the repository if necessary, and upload the folder as one commit.

    Returns:
        URL of the repository.

    Raises:
        ResourceError: the Hub cannot be reached or refuses the upload.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=upload.token)
    try:
        made = api.create_repo(upload.repository, private=upload.private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=str(upload.folder), commit_message="Student exported by autodistill"
        )
    except Exception as error:  # network, permission, quota: httpx, OSError and the Hub's own
        reason = first_line(error, limit=None).replace(upload.token, "***")[:300]  # no part of the token is left
        raise ResourceError(
            f"the upload of {upload.repository} to the Hub failed: {reason} The files are in {upload.folder}."
        ) from None
    return str(made)
