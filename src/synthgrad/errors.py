"""The exceptions of synthgrad, one tree: catch `SynthgradError` to catch them all.

Each message says what was given, what the rule is, and how to mend it.
"""


class SynthgradError(Exception):
    """The root of every error that synthgrad raises on purpose."""


class ConfigError(SynthgradError, ValueError):
    """An option has a value that cannot work; nothing has been changed or started."""


class UnsupportedModelError(SynthgradError):
    """The model cannot be cut where it was asked; found before training."""


class InterfaceError(SynthgradError):
    """An interface met something in a training step that it cannot handle."""


class RecurrentStateError(InterfaceError):
    """The state of a recurrent core is not what its place between two chunks asks for."""


class ConditionError(InterfaceError):
    """The condition (the labels, say) is missing, or its shape, type or range is wrong."""


class EngineError(SynthgradError):
    """An engine was used in an order or with a state that it cannot honor."""


class RankError(EngineError):
    """Another rank of a pipeline died, hangs or failed; the message names it."""


class CheckpointError(EngineError):
    """A checkpoint cannot be written, or cannot be read back; the ones before are as they were."""


class DivergedError(SynthgradError):
    """The loss became NaN or infinite; the run was stopped and its record kept."""


class DataError(SynthgradError):
    """A data set is missing or damaged."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A data set's files are in none of the places that were searched."""


class CorruptDataError(DataError):
    """A data file is truncated, has a wrong checksum or breaks its format."""


class RecordError(SynthgradError):
    """A record cannot be written, or cannot be read back."""
