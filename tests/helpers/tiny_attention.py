"""A tiny attention model that records its steps."""

import torch
from torch import nn

from explain import active_recorder

WIDTH, HEADS = 4, 2
SIZES = {"image": 3, "text": 2}


class TinyModel(nn.Module):
    """Image and text self-attention, then two parallel cross-attentions, then a joint attention; the logits are tanh.

    ``nudges`` are added to a block's tensors before they are recorded: {(step, name): tensor}.
    """

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = (5, 4, WIDTH, WIDTH)
        self.weights = nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64), requires_grad=False)
        self.nudges = {}

    def forward(self, image, text):
        recorder = active_recorder()
        if recorder is not None:
            image, text = recorder.inputs("image", image), recorder.inputs("text", text)
        image = self.block(0, "image", "image", image, image)
        text = self.block(1, "text", "text", text, text)
        stage = recorder.new_stage() if recorder is not None else None
        image, text = (
            self.block(2, "image", "text", image, text, stage),
            self.block(3, "text", "image", text, image, stage),
        )
        joint = self.block(4, "joint", "joint", *[torch.cat([image, text], dim=1)] * 2)
        return joint[:, 0].tanh()

    def block(self, index, query, key, x, source, stage=None):
        alone = source is x
        x = self.nudged(index, "residual", x)
        source = x if alone else source
        to_q, to_k, to_v, to_out = self.weights[index]
        q, k, v = (self.split(t) for t in (x @ to_q, source @ to_k, source @ to_v))
        attention = self.nudged(index, "attention", (q @ k.mT / 2).softmax(-1))
        output = (attention @ v).transpose(1, 2).flatten(2) @ to_out
        output = self.nudged(index, "output", output)
        if (recorder := active_recorder()) is not None:
            recorder.step(query=query, key=key, attention=attention, residual=x, output=output, stage=stage)
        return x + output

    def nudged(self, index, name, tensor):
        return tensor + self.nudges.get((index, name), 0)

    @staticmethod
    def split(x):
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def embeddings(seed=1, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, n, WIDTH, generator=generator, dtype=torch.float64) for n in SIZES.values()]
