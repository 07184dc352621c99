"""Write the frozen encoder as a CLIP model of Hugging Face: ``python scripts/export.py output=FOLDER``."""

from clipmapper.commands.export import main

if __name__ == "__main__":
    main()
