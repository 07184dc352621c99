"""Two images' captions and their scores, as published with the COCO caption evaluation's packaging."""

from __future__ import annotations

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
