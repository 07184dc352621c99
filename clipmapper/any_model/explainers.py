"""The explainers that can explain a model."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from PIL import Image

from clipmapper.any_model.load import LoadedModel
from clipmapper.errors import UserError
from clipmapper.text import printable
from explain import Explainer, TraceError
from explain.sample.entry import explain


def usable(
    explainers: Mapping[str, Explainer], loaded: LoadedModel, image: Image.Image | None, text: str | None
) -> dict[str, Explainer]:
    """Return the explainers that can explain a model, and report the others on stderr.

    Left out are explainers that use the weights of other samples, and those of LRP if a layer of the model has no rule.

    Args:
        explainers: Explainers by name.
        loaded: The model.
        image: Image of one sample, on which the rules of LRP are looked for.
        text: Text of this sample.

    Raises:
        UserError: No explainer is left, or the sample cannot be explained.
    """
    why = {name: "it needs samples of other images" for name, each in explainers.items() if each.partners}
    of_lrp = {name: each for name, each in explainers.items() if "attention_relevance" in each.needs}
    if of_lrp:
        try:
            explain(loaded.model, loaded.processor, image, text, explainer=of_lrp)
        except TraceError as error:
            if "LRP has no rule" not in str(error):
                raise UserError(f"the first sample cannot be explained: {error}") from error
            why |= dict.fromkeys(of_lrp, "LRP has no rule for a layer of this model")
        except ValueError as error:
            raise UserError(f"the first sample cannot be explained: {error}") from error
    for name, reason in why.items():
        print(f"explainer {printable(name)} is left out: {reason}", file=sys.stderr)
    found = {name: each for name, each in explainers.items() if name not in why}
    if explainers and not found:
        raise UserError(f"explainer: none of {', '.join(explainers)} can explain this model; weighted may")
    return found
