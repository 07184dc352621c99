"""The embedded encoder, which is part of the project: its open_clip config, its weights, and a report of its probes."""
