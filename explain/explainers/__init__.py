"""Explainers: each class turns a trace into relevance (``configs/explainer/`` has one file for each)."""

from explain.explainers.accumulation.constant import Constant
from explain.explainers.accumulation.depth_matched import DepthMatched
from explain.explainers.accumulation.genatt import GenAtt
from explain.explainers.accumulation.rollout import Rollout
from explain.explainers.accumulation.shuffled import Shuffled
from explain.explainers.accumulation.trans_att import TransAtt
from explain.explainers.accumulation.uniform import Uniform
from explain.explainers.accumulation.weighted import Weighted
from explain.explainers.controls.positional import CentreFirst, FirstToLast, LastToFirst
from explain.explainers.controls.random import Random
from explain.explainers.gradient.input_x_gradient import InputXGradient
from explain.explainers.gradient.integrated_gradients import IntegratedGradients
from explain.explainers.last_attention.attention_gradcam import AttentionGradCAM
from explain.explainers.last_attention.partial_lrp import PartialLRP
from explain.explainers.last_attention.raw_attention import RawAttention

__all__ = [
    "AttentionGradCAM",
    "CentreFirst",
    "Constant",
    "DepthMatched",
    "FirstToLast",
    "GenAtt",
    "InputXGradient",
    "IntegratedGradients",
    "LastToFirst",
    "PartialLRP",
    "Random",
    "RawAttention",
    "Rollout",
    "Shuffled",
    "TransAtt",
    "Uniform",
    "Weighted",
]
