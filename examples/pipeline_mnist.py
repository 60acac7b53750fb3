"""Train a network on MNIST in several processes that never wait for a gradient.

torchrun --nproc-per-node 2 examples/pipeline_mnist.py
torchrun --nproc-per-node 4 examples/pipeline_mnist.py --replicas 2   # twice, on half the data each

Every process runs this file. The bottom one reads the images; activations go up from rank to rank,
and gradients come back later, to fit the synthesizers that stand in for them meanwhile. Start it
again with --checkpoints FOLDER and it goes on where it was; so does torchrun --max-restarts 3 ...
after a rank was killed.
"""

import argparse
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import synthgrad as sg
from synthgrad.data import Batches, Cursor, load


def network(units: int) -> nn.Sequential:
    """Return the stages: each a layer, batch norm and ReLU, and the last one the classifier too."""
    sizes = [784, units, units, units]
    layers = [
        nn.Sequential(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU())
        for a, b in pairwise(sizes)
    ]
    return nn.Sequential(nn.Sequential(nn.Flatten(), layers[0]), *layers[1:], nn.Linear(units, 10))


def main(arguments: list[str] | None = None) -> float | None:
    """Train, and return the test accuracy in percent."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2_000, help="in all")
    parser.add_argument("--batch-size", type=int, default=256, help="over all replicas")
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--mode", choices=["ordered", "free"], default="ordered")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, help="a folder; none are written without")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps")
    options = parser.parse_args(arguments)

    with sg.engines.pipeline.connect() as transport:
        torch.manual_seed(0)  # every rank makes the same network, and trains its own part of it
        mnist = load("mnist")
        chain = sg.Chain.from_sequential(
            network(options.units),
            stages=transport.num_ranks // options.replicas,
            signal=sg.SyntheticGradient(condition=sg.OneHot(10)),
            example_inputs=mnist.train.pixels[:2].float(),
        )
        adam = partial(torch.optim.Adam, lr=options.rate)
        with sg.engines.Pipeline(
            chain,
            loss=F.cross_entropy,
            optimizer=adam,
            synthesizer_optimizer=adam,
            mode=options.mode,
            late_fit="again",  # a late target meets today's synthesizer, not the one that emitted
            replicas=options.replicas,
            transport=transport,
        ) as engine:
            done = engine.load(options.checkpoints) if options.checkpoints else 0
            an_epoch = len(mnist.train) // options.batch_size
            epoch, batch = divmod(done, an_epoch)
            place = Cursor(epoch=epoch, position=batch * options.batch_size)
            data = Batches(mnist.train, batch_size=options.batch_size, seed=0, cursor=place)
            for step in range(done + 1, options.steps + 1):
                x, y = (t.chunk(options.replicas)[engine.place.replica] for t in next(data))
                engine.step(x, y)
                if options.checkpoints and step % options.checkpoint_every == 0:
                    engine.save(options.checkpoints)
                if step % an_epoch == 0 or step == options.steps:
                    found = engine.evaluate(mnist.validation.in_order(1000))
                    if engine.rank == 0:
                        print(f"step {step}: validation accuracy {found.accuracy:.2f} %")
            engine.flush()
            accuracy = engine.evaluate(mnist.test.in_order(1000)).accuracy
            if engine.rank == 0:
                idle = engine.statistics.idle_share
                print(f"test accuracy {accuracy:.2f} %; the bottom rank was idle for {idle:.0%}")
            return accuracy


if __name__ == "__main__":
    main()
