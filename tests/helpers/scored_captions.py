"""Captions and references for tests of scores: the published example with its scores, and random captions."""

from __future__ import annotations

import random

REFERENCES = {
    1: [
        "two cats are sleeping next to each other",
        "a grey cat is cuddling with an orange cat on a blanket",
        "the orange cat is happy that the black cat is close to it",
    ],
    2: [
        "a dog is wearing ear muffs as it lies on a carpet",
        "a black dog and an orange cat are looking at the photographer",
        "headphones are placed on a dogs ears",
    ],
}
CANDIDATES = {
    1: "an orange cat and a grey cat are lying together",
    2: "a black dog wearing headphones looks at the camera as an orange cat walks in the background",
}
WITHOUT_JAVA = {"BLEU-1": 0.6667, "BLEU-2": 0.4899, "BLEU-3": 0.3469, "BLEU-4": 0.0, "ROUGE-L": 0.4280, "CIDEr": 0.5637}
METEOR = 0.3444

WORDS = ["a", "the", "two", "red", "dog", "cat's", "Cat", "on", "in,", "isn't", "sitting", "t-shirt", "café", "(old)"]
WORDS += ["table.", "bus", "photo's", "10:30", "tall", "of"]


def random_set(seed: int, images: int = 40) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Return random captions and references by image id; some captions equal a reference."""
    rng = random.Random(seed)

    def caption() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 14)))

    references = {i: [caption() for _ in range(rng.randint(1, 7))] for i in rng.sample(range(10**6), images)}
    candidates = {i: caption() if rng.random() < 0.7 else rng.choice(texts) for i, texts in references.items()}
    return candidates, references
