"""Figures of explanations for papers: arrays in, matplotlib figures and files out, without models or global state.

Examples::

    words, word_scores = zip(*merge_pieces(["what", "col", "or"], [True, False, True], [0.1, 0.6, 0.3]))
    photo = Photo(image, (left, top, right, bottom))  # a PIL image or uint8 [H, W, 3], and the box that the encoder saw
    weighted = Explanation("weighted", patch_scores, word_scores)  # patch_scores: [rows, cols]
    sample = Sample(photo, "What color?", words, "red", 0.73, [weighted])
    save(draw(sample, overlay="bilinear", scale="each"), "figures/1")  # figures/1.png, figures/1.pdf
    save(draw_interaction(photo, words, matrix, (7, 7)), "figures/1_interaction")  # matrix: [n_words, 49]
    caption = Caption(photo, "a red car", ["a", "red", "car"], [WordMaps("weighted", word_maps, whole)])
    save(draw_caption(caption), "figures/1_caption")  # word_maps: [n_words, rows, cols]
"""

from explain.figures.caption import Caption, WordMaps, draw_caption, draw_caption_pages
from explain.figures.content import caption_content, sample_content
from explain.figures.interaction import draw_interaction
from explain.figures.photo import Photo
from explain.figures.sample import Explanation, Sample, draw
from explain.figures.saving import save
from explain.figures.words import merge_pieces

__all__ = [
    "Caption",
    "Explanation",
    "Photo",
    "Sample",
    "WordMaps",
    "caption_content",
    "draw",
    "draw_caption",
    "draw_caption_pages",
    "draw_interaction",
    "merge_pieces",
    "sample_content",
    "save",
]
