import torch
import torch.nn.functional as F
from tiny import tiny_data, tiny_learner, tiny_model

from synthgrad.bench.running.fingerprint import fingerprint
from synthgrad.bench.seeds import derive_seed

DATA = tiny_data()
X, Y = DATA.train.take(torch.arange(16))


def test_a_step_is_the_ordinary_one():
    learner = tiny_learner()
    torch.manual_seed(derive_seed(0, "weights"))
    model = tiny_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    for _ in range(3):
        loss = learner.step(X, Y)
        optimizer.zero_grad()
        by_hand = F.cross_entropy(model(X), Y)
        by_hand.backward()
        optimizer.step()
        assert loss == by_hand
        assert not loss.requires_grad
    assert fingerprint(learner.model.state_dict()) == fingerprint(model.state_dict())


def test_gradients_are_gone_after_a_step():
    learner = tiny_learner("cdni")
    learner.step(X, Y)
    assert all(p.grad is None for p in learner.net.parameters())


def test_updated_stages_are_counted():
    for name, expected in (("backprop", 3), ("cdni", 3), ("no-signal", 1)):
        learner = tiny_learner(name)
        learner.step(X, Y)
        assert learner.num_updated == expected
    sparse = tiny_learner("cdni-p05")
    counts = []
    for _ in range(40):
        sparse.step(X, Y)
        counts.append(sparse.num_updated)
    assert set(counts) == {0, 1, 2, 3}


def test_the_model_is_the_one_without_interfaces():
    assert tiny_learner("cdni").model(X).shape == (16, 3)
    assert tiny_learner("cdni").model is not tiny_learner("cdni").net
    backprop = tiny_learner()
    assert backprop.model is backprop.net


def test_learning_rates_are_scaled_from_their_start_and_not_from_each_other():
    learner = tiny_learner(learning_rate=0.5)
    for factor in (0.1, 0.1, 2.0):
        learner.scale_learning_rates(factor)
        assert learner.optimizer.param_groups[0]["lr"] == 0.5 * factor


def test_a_state_goes_into_another_learner():
    one, other = tiny_learner("cdni-p05", seed=0), tiny_learner("cdni-p05", seed=0)
    for _ in range(4):
        one.step(X, Y)
    other.load_state_dict(one.state_dict())
    assert fingerprint(other.state_dict()) == fingerprint(one.state_dict())
    assert one.step(X, Y) == other.step(X, Y)
    assert one.decoupled.updated == other.decoupled.updated
