"""The pictures of README.md: what they show, how they are drawn, and the scores that their files contain."""
