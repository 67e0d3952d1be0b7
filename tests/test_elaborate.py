"""The record of how a model was built: whole while somebody has it, and gone at once when nobody does."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import effspec


def test_a_copy_that_is_dropped_leaves_the_model_whole() -> None:
    net = effspec.compile("b0", variant="b0")
    text = net.emit("torch")
    dataclasses.replace(net.elaborated, blocks=0)
    assert net.elaborated.root.children and net.emit("torch") == text


def test_nothing_waits_for_the_collector() -> None:
    """A hundred variants in one process would make it look through all that is there, again and again."""
    effspec.compile("b0", variant="b0").emit("onnx")
    gc.collect()
    gc.disable()
    try:
        net = effspec.compile("b0", variant="b0")
        net.emit("onnx")
        block = weakref.ref(net.elaborated.root.children[1])
        assert block() is not None
        del net
        assert block() is None
        assert gc.collect() < 1000  # 10,000 objects without taking them apart
    finally:
        gc.enable()
