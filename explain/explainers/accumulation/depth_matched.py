"""A control for the weighted method: in each step the mean weight of other samples."""

from explain.explainers.base.borrowed import BorrowedWeights


class DepthMatched(BorrowedWeights):
    """The weighted update (Huang et al. 2023, Eq. 4 and 9-11) with each step's mean weight of samples of other images.

    Its weights have the mean course over the depth of the model, which those of ``constant`` lack, and do not adapt to
    the explained sample. So it separates the two reasons why ``weighted`` may be better than ``constant``. See
    docs/method.md, Controls, and :class:`~explain.explainers.base.borrowed.BorrowedWeights` for the choice of the
    samples, the option ``residual_gradient`` and the errors.
    """

    partners = 64
    control = True
