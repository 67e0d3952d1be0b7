"""Names of classes and helpers: the spec's, and where two meet a second name that no counter makes."""

from __future__ import annotations

from effspec.layers import Instance
from effspec.syntax import nodes

# Each helper has a second name, for a file where a block has the first.
_HELPERS = {
    "DropPath": "StochasticDepth",
    "pad_same": "pad_to_same",
    "SameConv2d": "Conv2dSame",
    "PaddedConv2d": "Conv2dPadded",
    "LayerNorm2d": "ChannelNorm2d",
    "avg_pool_same": "avg_pool_to_same",
    "dynamic_conv": "conv_of_each",
    "stage": "stack",
}


# What else a helper takes.
_NEEDS = {"SameConv2d": ("pad_same",), "avg_pool_same": ("pad_same",)}

HELPERS = frozenset(_HELPERS) | frozenset(_HELPERS.values())
"""Every name that a helper may have."""


def helper_name(helper: str, words: set[str]) -> str:
    """The name of a helper in a file with these blocks."""
    return _HELPERS[helper] if helper in words else helper


def need(helpers: dict[str, str], helper: str, words: set[str]) -> str:
    """The name of a helper in a file with these blocks; `helpers` then holds it, and those that it takes."""
    for other in _NEEDS.get(helper, ()):
        need(helpers, other, words)
    return helpers.setdefault(helper, helper_name(helper, words))


def suffix_of_value(value: object) -> str:
    """A split class is named by the value that divides it."""
    return "".join(c for part in str(value).replace("_", " ").split() for c in part.capitalize() if c.isalnum())


def suffix_of_path(path: str) -> str:
    """`stage2.0.down` -> `Stage20Down`."""
    return _camel(path.replace(".", "_"))


class Naming:
    """The names of one file."""

    def __init__(self, root: Instance) -> None:
        self.root = root
        self.words: set[str] = set()
        stack = [root]
        while stack:
            instance = stack.pop()
            if isinstance(instance.node, nodes.Block | nodes.Model):
                self.words.add(instance.node.name.id)
            stack += instance.children

    def class_name(self, instance: Instance, suffix: str, taken: set[str], variants: set[str | None]) -> str:
        """The name of a class with this instance: the block's, a group's label, a model's with its variant.

        `variants` are those in which the model was planned before.
        """
        node = instance.node
        if isinstance(node, nodes.Group):
            word = _camel([part for part in instance.path.split(".") if not part.isdigit()][-1]) + suffix
        else:
            word = node.name.id + suffix
            if isinstance(node, nodes.Model) and instance is not self.root and variants - {instance.variant}:
                word = node.name.id + _camel(instance.variant or "") + suffix
            if word in taken and instance.definition is not None:
                stem = instance.definition.module.name.rsplit("/", 1)[-1].removesuffix(".eff").replace("-", "_")
                word = _camel("_".join(part for part in stem.split("_") if not part[:1].isdigit())) + word
        if word == "F" and instance is not self.root:
            word = "FBlock"  # torch's functions are called F
        while word in taken:
            word += "Variant"
        return word


def _camel(words: str) -> str:
    return "".join(part.capitalize() for part in words.split("_"))
