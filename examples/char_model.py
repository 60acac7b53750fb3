"""Train a character model on a text of your own, in constant memory, and let it write.

python examples/char_model.py                        # Shakespeare, out of the package
python examples/char_model.py my.txt --steps 20000

The text is read in chunks of eight characters; a synthetic gradient stands in for what the rest of
it would have sent back. However long the text, memory is that of one chunk. Interrupt it when you
like: the same command goes on from the checkpoint, with the same numbers.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor, nn

import synthgrad as sg
from synthgrad.data import CharStream, load_tinyshakespeare, read_text


@torch.no_grad()
def sample(
    core: nn.LSTM, head: nn.Linear, start: Tensor, length: int, temperature: float
) -> Tensor:
    """Return `length` characters, beginning with those of `start`."""
    written, state, new = [start], None, start
    for _ in range(length - len(start)):
        outputs, state = core(F.one_hot(new, head.out_features)[:, None].float(), state)
        new = (head(outputs[-1, 0]) / temperature).softmax(0).multinomial(1)
        written.append(new)
    return torch.cat(written)


def main(arguments: list[str] | None = None) -> float:
    """Train, write a sample, and return the mean bits a character of the last steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path, nargs="?", help="in UTF-8; Shakespeare by default")
    parser.add_argument("--steps", type=int, default=5_000, help="in all, one a chunk")
    parser.add_argument("--horizon", type=int, default=8, help="characters of a chunk")
    parser.add_argument("--batch-size", type=int, default=32, help="places read at once")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--checkpoint", type=Path, default=Path("char_model.pt"))
    parser.add_argument("--checkpoint-every", type=int, default=1_000, help="steps")
    parser.add_argument("--sample", type=int, default=400, help="characters to write at the end")
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    text = read_text(options.text) if options.text else load_tinyshakespeare()
    size = len(text.vocabulary)
    stream = CharStream(text.tokens, batch_size=options.batch_size, horizon=options.horizon)
    core, head = nn.LSTM(size, options.units), nn.Linear(options.units, size)
    rnn = sg.recurrent.TruncatedBPTT(
        core, horizon=options.horizon, signal=sg.SyntheticGradient(scale=0.3)
    )
    model = nn.ModuleDict({"rnn": rnn, "head": head})
    network = {"params": [*core.parameters(), *head.parameters()]}
    synthesizer = {"params": rnn.synthesizer.parameters(), "lr": 0.6 * options.rate}
    optimizer = torch.optim.Adam([network, synthesizer], lr=options.rate)
    parts = {"model": model, "optimizer": optimizer, "stream": stream}
    carry, done, mean = None, 0, float("nan")
    if options.checkpoint.exists():
        saved = torch.load(options.checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        carry, done, mean = rnn.load_carry(saved["carry"]), saved["done"], saved["mean"]
        torch.set_rng_state(saved["random"])

    with Progress() as progress:
        bar = progress.add_task("", total=options.steps, completed=done)
        for step in range(done + 1, options.steps + 1):
            if stream.begins and carry is not None:
                carry = rnn.restart(carry)  # a new pass over the text
            x, y = next(stream)
            outputs, carry = rnn(F.one_hot(x, size).float(), carry, ends=stream.begins)
            loss = F.cross_entropy(head(outputs).flatten(0, 1), y.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            bits = loss.item() / math.log(2)
            mean = bits if step == 1 else mean + 0.01 * (bits - mean)
            progress.update(bar, completed=step, description=f"{mean:.3f} bits a character")
            if step % options.checkpoint_every == 0 or step == options.steps:
                state = {name: part.state_dict() for name, part in parts.items()}
                state |= {"carry": carry.state_dict(), "random": torch.get_rng_state()}
                half_written = options.checkpoint.with_suffix(".tmp")
                torch.save(state | {"done": step, "mean": mean}, half_written)
                half_written.replace(options.checkpoint)

    print(text.decode(sample(core, head, text.tokens[:1], options.sample, options.temperature)))
    return mean


if __name__ == "__main__":
    main()
