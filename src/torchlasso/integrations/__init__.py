"""Other tools around a training, all of them optional: trackers, and pretrained models of transformers."""
