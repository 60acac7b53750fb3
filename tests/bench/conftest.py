from hypothesis import settings

# A busy machine is slow, and no test may fail for that.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
