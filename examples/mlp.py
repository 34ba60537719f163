# A model script of your own: an MLP, with an option of its own.
#
#   python examples/mlp.py compile --inference --pef-name mlp --n-chips 2 -b 8
#   python examples/mlp.py test --pef out/mlp/mlp.pef
import torch

import shardwright.app


class Mlp(torch.nn.Module):
    """x (B, 784) -> logits (B, 10)"""

    def __init__(self, hidden: int):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(784, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
        )

    def forward(self, x):
        return {"logits": self.layers(x)}


def model(args):
    torch.manual_seed(0)
    return Mlp(args.hidden), {"x": torch.randn(args.batch_size, 784)}


def add_arguments(parser):
    parser.add_argument("--hidden", type=int, default=512, help="units of the hidden layer")


if __name__ == "__main__":
    shardwright.app.main(model, add_arguments=add_arguments)
