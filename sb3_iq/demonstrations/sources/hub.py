"""Data sets of the Hugging Face hub, by name: their Parquet or Arrow files, downloaded once."""

import re
from pathlib import Path

from sb3_iq.demonstrations.errors import first_words, how_to_install, shorten

# What is read of a repository; anything else in it stays where it is
_PATTERNS = ["*.parquet", "*.arrow", "*state.json", "*dataset_dict.json", "*card.json"]


def download_from_hub(name: str) -> Path:
    """
    :param name: ``ORG/NAME`` of a data set on the Hugging Face hub
    :return: the folder with its Parquet or Arrow files; a later call finds them there without a network
    :raises ImportError: if ``huggingface_hub`` is not installed
    :raises FileNotFoundError: if there is no such data set, or it can't be downloaded
    :raises ValueError: if the name is malformed
    """
    reference = f"hf:{name}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"expert_data {shorten(reference)}: not the name of a data set. Use hf:ORG/NAME")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"expert_data {shorten(reference)}: huggingface_hub can't be imported ({error}). {how_to_install('hub')}"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=_PATTERNS))
    except Exception as error:  # no such name, no permission, no network, and each of these in several kinds
        raise FileNotFoundError(
            f"expert_data {shorten(reference)}: this data set can't be downloaded ({first_words(error)}). Check the name and "
            "the network, or download its Parquet files and give their folder"
        ) from error
