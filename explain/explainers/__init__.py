"""One class an explainer: each takes a trace to relevance (``configs/explainer/`` has one file for each)."""

from explain.explainers.attention_gradcam import AttentionGradCAM
from explain.explainers.constant import Constant
from explain.explainers.genatt import GenAtt
from explain.explainers.input_x_gradient import InputXGradient
from explain.explainers.integrated_gradients import IntegratedGradients
from explain.explainers.partial_lrp import PartialLRP
from explain.explainers.random import Random
from explain.explainers.raw_attention import RawAttention
from explain.explainers.rollout import Rollout
from explain.explainers.shuffled import Shuffled
from explain.explainers.trans_att import TransAtt
from explain.explainers.uniform import Uniform
from explain.explainers.weighted import Weighted

__all__ = [
    "AttentionGradCAM",
    "Constant",
    "GenAtt",
    "InputXGradient",
    "IntegratedGradients",
    "PartialLRP",
    "Random",
    "RawAttention",
    "Rollout",
    "Shuffled",
    "TransAtt",
    "Uniform",
    "Weighted",
]
