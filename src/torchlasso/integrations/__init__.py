"""Other tools that follow a training or do it: each is optional, and has a module of its own."""
