"""Trains the peers' GPT in PyTorch by the recipe of `tinytorch train gpt`, from the same initial weights, and prints the validation loss.

usage: gpt_torch.py PEERS TEXT WEIGHTS.safetensors STEPS WARMUP

PEERS holds on_torch.py, whose GPT has our parameters' names. As runtime/data/text.c and runtime/schedule.c: the last tenth of the text validates; an epoch
goes once, in random order, through windows of 256 characters from a place of the first window drawn anew; the rate rises over WARMUP steps, then falls as a
half cosine to zero. The order of the windows is PyTorch's own chance, so the two losses differ by that too.
"""
import json
import math
import struct
import sys

peers, text, weights, steps, warmup = sys.argv[1:4] + [int(a) for a in sys.argv[4:6]]
sys.path.insert(0, peers)
import on_torch
import torch
import torch.nn.functional as F

T, B, LR = 256, 8, 1e-3
raw = open(text, "rb").read()
index = {c: i for i, c in enumerate(sorted(set(raw)))}
tokens = torch.tensor([index[c] for c in raw])
cut = len(raw) - len(raw) // 10
train, val = tokens[:cut], tokens[cut:]

model = on_torch.model("gpt")
with open(weights, "rb") as f:
    header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    start, state = f.tell(), {}
    for name, t in header.items():
        if name in model.state_dict():
            f.seek(start + t["data_offsets"][0])
            state[name] = torch.frombuffer(bytearray(f.read(t["data_offsets"][1] - t["data_offsets"][0])), dtype=torch.float32).reshape(t["shape"])
model.load_state_dict(state, strict=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.99), weight_decay=0.1, fused=True)


def windows(source, first):
    n = (len(source) - first - 1) // T
    return source[first:first + n * T].view(n, T), source[first + 1:first + 1 + n * T].view(n, T)


torch.manual_seed(1)
order = []
for s in range(steps):
    if len(order) < B:
        x, y = windows(train, int(torch.randint(T, ())))
        order = torch.randperm(len(x)).tolist()
    take, order = order[:B], order[B:]
    for group in optimizer.param_groups:
        group["lr"] = LR * s / warmup if s < warmup else LR * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))) / 2
    loss = F.cross_entropy(model(x[take]).view(-1, 65), y[take].view(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if s % 20 == 0:
        print(f"step {s}  loss {loss.item():.4f}", file=sys.stderr, flush=True)
with torch.no_grad():
    x, y = windows(val, 0)
    losses = [F.cross_entropy(model(x[i:i + B]).view(-1, 65), y[i:i + B].view(-1), reduction="sum").item() for i in range(0, len(x), B)]
    print(f"validation loss {sum(losses) / x.numel():.4f}")
