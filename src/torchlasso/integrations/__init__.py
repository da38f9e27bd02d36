"""Other tools around a training, all of them optional: trackers, training loops of other libraries, pretrained models."""
