"""The demo: a page in the browser on which a model answers a question, is explained, and answers again without parts.

- :mod:`perturbation.demo.offered`: the models that can be chosen
- :mod:`perturbation.demo.scenes`: the pictures that can be chosen, and uploaded ones
- :mod:`perturbation.demo.answered`: an answered question, and the model's answers without some patches and words
- :mod:`perturbation.demo.drawing`: the HTML of what is shown
- :mod:`perturbation.demo.page`: the page and its events
- :mod:`perturbation.demo.serving`: the server
"""
