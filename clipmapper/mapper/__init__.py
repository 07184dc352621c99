"""CLIPmapper's second stage: the mappers that fuse frozen image and text tokens."""
