"""Other tools around a training, all optional: trackers, training loops of other libraries, pretrained models."""
