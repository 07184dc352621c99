"""Image captions: next-token prediction over CLIP's BPE, greedy decoding, evaluation."""
