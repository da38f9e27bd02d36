"""The sections of a run's page: each is made of what is shown, and empty where there is nothing to say."""
