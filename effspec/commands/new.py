"""`effspec new`: a starter spec that compiles as it is, and that teaches the language in its comments."""

from __future__ import annotations

import re
from pathlib import Path

from effspec import output
from effspec.diagnostics import fail
from effspec.library import SUFFIX

STARTER = """\
effspec 1

# {title}: a small network for pictures.  A spec is blocks, a model, and variants of it.
#   effspec show {file} --variant small      what every line costs
#   effspec check {file}                     every variant, and the `expect` lines at the end
#   effspec compile {file} --variant small   PyTorch source; --target onnx for ONNX
#   effspec train {file} --variant small --data PICTURES   from folders: train/CLASS/*.png, val/CLASS/*.png

import ConvNormAct, MBConv from "std/conv.eff"
import Compound from "std/scaling.eff"
import imagenet_mean, imagenet_std, per_channel from "std/image.eff"

# A block is a layer made of layers.  `input` is what it is applied to, `it` the current value: a line that is a layer
# takes `it` and gives the next one.  A label (`mix:`) names the parameters that a line holds.
block Residual(out, k = 3) {{
    mix: ConvNormAct(out, k = k)
    out: ConvNormAct(out)
    it + input if input.channels == out                   # a line may depend on a condition
}}

# `with Compound` adds the parameters phi, depth and width: `-> 32` then is 32 channels times the width, and `x 2` is
# two repeats times the depth.  Each parameter has a default; a variant or `--set classes=100` gives another value.
model {title}(classes = 10, in_channels = 3, size = pixels(64), drop_rate = 0.2)
    with Compound(alpha = 1.2, beta = 1.1, gamma = 1.15)
    on image: [in_channels] + sides(size)                 # channels, then height and width
{{
    # How a picture becomes the input: its values from 0 to 1, less the mean, divided by the deviation of each channel.
    prepare image(mean = per_channel(imagenet_mean, in_channels), std = per_channel(imagenet_std, in_channels))
    # Blocks read these with `default.norm` and so on: what all of the model shares is said once.
    default norm = batch_norm(), act = silu, drop = 0

    stem:   ConvNormAct(k = 3, s = 2)          -> 16
    stage1: Residual(k = 3)                    -> 16   x 1
    stage2: MBConv(s = 2 then 1, expand = 4)   -> 32   x 2    # stride 2 on the first repeat, 1 on the rest
    stage3: MBConv(k = 5, s = 2 then 1)        -> 64   x 2

    global_avg_pool()
    flatten()
    dropout(drop_rate)
    classifier: linear(classes)
}}

# Published points.  Try `--phi 1` instead of a variant: the rule decides depth, width and size then.
variant small = {title}()
variant large = {title}(width = 1.5, depth = 2, size = 96)

# What must stay true; `effspec check` tells when it does not.
expect small: params == {small}
expect large: count("conv") > 30
"""


def write(path: str, *, force: bool = False) -> str:
    """Write the starter to `path` and return where it is; the model is named after the file."""
    place = Path(path if path.endswith((SUFFIX, "/")) else path + SUFFIX)
    if path.endswith("/"):
        raise fail("E0713", f"{path} names a folder", help="give a file's name: effspec new my_net.eff")
    words = re.findall(r"[A-Za-z0-9]+", place.stem)
    title = "".join(word[0].upper() + word[1:] for word in words)
    if not title or not title[0].isalpha() or len(title) > 60:
        raise fail(
            "E0718", f"`{place.name}` names no model", help="begin the name with a letter: effspec new my_net.eff"
        )
    output.check(place)
    text = STARTER.format(title=title, file=place.name, small="120_894")
    if not force and place.exists() and place.read_bytes() != text.encode():
        raise fail("E0711", f"{place} is there already", help="choose another name, or overwrite it with --force")
    output.write_atomically(place, [text.encode()])
    return str(place)
