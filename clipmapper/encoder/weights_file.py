"""Files with the weights of an open_clip model: safetensors, PyTorch's, and OpenAI's archives."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import open_clip
from torch import Tensor, nn

from clipmapper.encoder.archive import is_archive, read_archive
from clipmapper.encoder.from_transformers import in_open_clips_terms
from clipmapper.encoder.shapes_tiny import restore_token_table
from clipmapper.encoder.trained_with import Source
from clipmapper.errors import UserError, reason
from clipmapper.files import check_regular
from clipmapper.finite import check_finite

# What OpenAI's code writes into a file besides the weights. Only its files have the three sizes.
_SIZES = {"input_resolution", "context_length", "vocab_size"}
_MASK = "attn_mask"  # which open_clip's models compute


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file."""

    weights: dict[str, Tensor]  #: by open_clip's names
    openai: bool  #: whether OpenAI's own code wrote the file


def read_file(source: Source) -> WeightsFile:
    """Read a weights file without running pickled code.

    Raises:
        UserError: The file is unreadable or damaged, or contains something else.
    """
    path = Path(source.weights or "")
    try:
        check_regular(path, "weights")
        if is_archive(path):
            state = read_archive(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols that damaged bytes seem to name
                state = open_clip.factory.load_state_dict(str(path), weights_only=True)
        weights = {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in {*_SIZES, _MASK}}
        return WeightsFile(restore_token_table(in_open_clips_terms(weights)), state.keys() >= _SIZES)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{source.file}: cannot be read ({reason(error)}); give a readable file") from error
    except Exception as error:  # damaged files raise errors of many types, such as struct.error
        raise _misfit(source, error) from error


def fill(model: nn.Module, file: WeightsFile, source: Source) -> None:
    """Load the weights of a file into a model.

    Raises:
        UserError: Names or shapes do not fit, or a weight is NaN or infinite.
    """
    state = file.weights
    try:
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = open_clip.model.convert_to_custom_text_state_dict(state)
        model.load_state_dict(state)
    except Exception as error:  # a file may hold anything under the names of weights
        raise _misfit(source, error) from error
    check_finite(model.state_dict().items(), source.file)


def _misfit(source: Source, error: Exception) -> UserError:
    name = source.typed or source.name
    return UserError(f"{source.file} does not contain weights of {name} ({reason(error)}); give a matching file")
