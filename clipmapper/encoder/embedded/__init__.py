"""The encoder that ships with the project: its open_clip config, its weights, and what they were seen to know."""
