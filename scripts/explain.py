"""Makes pictures of explanations, and writes the scores behind them.

``python scripts/explain.py task=vqa mapper=b explainer=weighted`` takes the newest fitting checkpoint and questions of
the test split; ``python scripts/explain.py image=PHOTO question="what is it?"`` needs no data. With ``task=caption``
pictures are captioned, and every word is explained; one's own ``image=PHOTO`` has no question then.
"""

from clipmapper.commands.explain import main

if __name__ == "__main__":
    main()
