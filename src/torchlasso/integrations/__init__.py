"""Other tools around a training, all optional: trackers, loops of other libraries, and pretrained models."""
