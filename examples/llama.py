# A model script for a Hugging Face model: a small Llama with random weights, or any folder.
#
#   python examples/llama.py compile --inference --pef-name llama \
#       --tensor-parallel weight --n-chips 2
#   python examples/llama.py compile --folder ~/models/SmolLM2-135M ...
import torch
import transformers

import shardwright.app
from shardwright import huggingface


def model(args):
    if args.folder:
        llama = huggingface.load(args.folder)
    else:
        torch.manual_seed(0)
        llama = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=1000,
                hidden_size=144,
                intermediate_size=400,
                num_hidden_layers=4,
                num_attention_heads=9,
                num_key_value_heads=3,
                tie_word_embeddings=True,
            )
        )
    ids = torch.randint(llama.config.vocab_size, (args.batch_size, args.tokens))
    return llama, {"input_ids": ids}


def add_arguments(parser):
    parser.add_argument("--folder", help="a Hugging Face folder (default: random weights)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens a sequence (default 64)")


if __name__ == "__main__":
    shardwright.app.main(model, add_arguments=add_arguments)
