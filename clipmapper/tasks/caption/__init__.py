"""Image captioning: next-token prediction over CLIP's BPE tokens, greedy decoding and evaluation."""
