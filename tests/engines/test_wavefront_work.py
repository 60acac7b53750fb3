"""How much a tick computes, and chains from elsewhere."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from wavefronts import ADAM, LABELED, assert_equal, batches, chain, mlp, train

import synthgrad as sg

WIDTH, CLASSES, BATCH, STAGES = 5, 3, 8, 4


def narrow() -> list[nn.Module]:
    return [*(nn.Linear(WIDTH, WIDTH) for _ in range(STAGES)), nn.Linear(WIDTH, CLASSES)]


def train_both(
    chains: list[sg.Chain], data: list[tuple[Tensor, Tensor]], loss: Any = F.cross_entropy
) -> None:
    """Train one chain by the reference and one by the wavefront, and compare them."""
    options: dict[str, Any] = {"loss": loss, "optimizer": ADAM, "synthesizer_optimizer": ADAM}
    engines = (
        sg.engines.Sequential(chains[0], target_delays=1, **options),
        sg.engines.Wavefront(chains[1], **options),
    )
    train(engines, data)
    assert_equal(*engines)


def operations(signal: sg.ErrorSignal) -> int:
    data = batches(STAGES + 3)
    wavefront = sg.engines.Wavefront(
        chain(narrow, signal, data[0][0]),
        loss=F.cross_entropy,
        optimizer=ADAM,
        synthesizer_optimizer=ADAM,
    )
    for x, y in data[:-1]:
        wavefront.step(x, y)
    with FlopCounterMode(display=False) as counted:
        wavefront.step(*data[-1])
    return counted.get_total_flops()


LAYER, CLASSIFIER = 2 * BATCH * WIDTH * WIDTH, 2 * BATCH * WIDTH * CLASSES


def test_a_local_stage_computes_no_gradient_of_its_input() -> None:
    # Layer and classifier on top: forward and gradient of the weights. A head hands down, too.
    expected = STAGES * 2 * LAYER + 2 * CLASSIFIER + STAGES * 3 * CLASSIFIER
    assert operations(sg.LocalLoss(num_classes=CLASSES)) == expected


def test_a_stage_without_signal_computes_no_gradient_of_its_input() -> None:
    # The stages below are stacked, and get a gradient of zero for their weights; no more.
    assert operations(sg.NoSignal()) <= STAGES * 2 * LAYER + 2 * CLASSIFIER


def test_a_stage_with_a_target_below_computes_it() -> None:
    stages = 3 * STAGES * LAYER + 3 * CLASSIFIER
    # Prediction and the weights' gradient; fitting evaluates the prediction anew.
    synthesizers = 3 * STAGES * 2 * BATCH * (WIDTH + CLASSES) * WIDTH
    found = operations(LABELED)
    assert stages + 2 * synthesizers // 3 <= found <= stages + synthesizers


def test_features_as_condition() -> None:
    """A regression whose targets the synthesizers see."""
    data = [(x, x[:, :2].sin()) for x, _ in batches(8)]
    signal = sg.SyntheticGradient(condition=sg.Features(2))

    def network() -> list[nn.Module]:
        return [nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)]

    made = [chain(network, signal, data[0][0]) for _ in range(2)]
    train_both(made, data, F.mse_loss)


def test_a_decoupled_model() -> None:
    data = batches(8)
    made = list[sg.Chain]()
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(*mlp()).double()
        net = sg.decouple(model, at=["0", "1", "3"], example_inputs=(data[0][0],), signal=LABELED)
        made.append(sg.Chain.from_decoupled(net))
        net.recouple()
    train_both(made, data)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).tanh()).tanh())


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_model_split_by_torch() -> None:
    from torch.distributed.pipelining import SplitPoint, pipeline

    data = batches(8)
    made, nets = list[sg.Chain](), list[Net]()
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(Net().double())
        split = {"b": SplitPoint.BEGINNING, "c": SplitPoint.BEGINNING}
        pipe = pipeline(nets[-1], (data[0][0],), split_spec=split)
        made.append(sg.Chain.from_pipe(pipe, example_inputs=data[0][0], signal=LABELED))
    before = nets[1].a.weight.clone()
    train_both(made, data)
    assert not torch.equal(nets[1].a.weight, before)
