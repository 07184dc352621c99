"""Official accuracy and caption metrics, and CLIPScore."""
