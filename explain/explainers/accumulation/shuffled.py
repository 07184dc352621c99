"""A control for the weighted method: adaptive weights, but taken from a sample of another image."""

from explain.explainers.base.borrowed import BorrowedWeights


class Shuffled(BorrowedWeights):
    """The weighted update (Huang et al. 2023, Eq. 4 and 9-11) with the weights of a sample of another image.

    It separates weights that adapt to the explained sample from the weights of any sample. See docs/method.md,
    Controls, and :class:`~explain.explainers.base.borrowed.BorrowedWeights` for the choice of the sample, the option
    ``residual_gradient`` and the errors.
    """

    partners = 1
    control = True
