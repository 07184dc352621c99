"""CLIPmapper: training and evaluation of mappers on frozen CLIP encoders."""
