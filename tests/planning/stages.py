"""Stages whose numbers can be followed by hand."""

from synthgrad.planning import StageTimes

EVEN = StageTimes(
    forward_s=1.0,
    backward_input_s=1.0,
    backward_weight_s=1.0,
    activation_bytes=100.0,
    parameter_bytes=1000.0,
)
"""A third of the work each: no update, no synthesizer."""

DNI = StageTimes(
    forward_s=2.0,
    backward_input_s=2.0,
    backward_weight_s=2.0,
    update_s=0.5,
    predict_s=0.5,
    fit_s=1.0,
    activation_bytes=100.0,
)
"""Eight seconds a batch under DNI; seven on the last stage; six and a half of backprop."""
