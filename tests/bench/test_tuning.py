import math

from synthgrad.bench.running.tuning import Trial, best_rates


def trial(arm, rate, accuracy):
    return Trial(arm=arm, label=arm, learning_rate=rate, num_seeds=2, val_accuracy=accuracy)


def test_the_best_of_each_arm():
    tried = [trial("a", 1e-3, 90), trial("a", 3e-3, 95), trial("b", 1e-3, 80), trial("b", 3e-3, 70)]
    assert best_rates(tried) == {"a": 3e-3, "b": 1e-3}
    assert best_rates(tried[::-1]) == {"a": 3e-3, "b": 1e-3}


def test_of_equals_the_lower_rate():
    tried = [trial("a", 3e-3, 95), trial("a", 3e-4, 95), trial("a", 1e-3, 95)]
    assert best_rates(tried) == {"a": 3e-4}


def test_failures_are_never_the_best():
    assert best_rates([trial("a", 1e-3, -math.inf), trial("a", 3e-3, 10)]) == {"a": 3e-3}
    assert best_rates([trial("a", 1e-3, -math.inf)]) == {}
    assert best_rates([]) == {}
